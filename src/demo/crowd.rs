//! Apps that read keys, all of them or one above all.

use super::app::{Answer, App};
use super::now;
use crate::admin;
use crate::chance::splitmix;
use crate::config;
use crate::proxy::Proxy;
use std::cell::{Ref, RefCell};
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Keys that are read.
const KEYS: u64 = 1000;

/// What all apps together were told.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    /// Apps that are connected to all that they ask.
    pub(super) ready: usize,
    /// Answers.
    pub(super) answers: u64,
    /// Errors, and connections that ended.
    pub(super) errors: u64,
}

/// What a crowd does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Habit {
    /// How long an app rests between an answer and its next question, on average.
    pub(super) think: Duration,
    /// So many of a hundred questions are for one key.
    pub(super) hot: u64,
}

/// Apps at work, as tasks of the thread that starts them; they end with it.
pub(super) struct Crowd {
    counts: Rc<RefCell<Counts>>,
    _apps: JoinSet<()>,
}

impl Crowd {
    /// Writes the keys and starts so many apps. Each is connected to all addresses, and knows which of them has which key. Only within
    /// a `LocalSet`.
    pub(super) async fn start(addresses: &[String], apps: usize, habit: Habit) -> io::Result<Self> {
        for (at, address) in (0..).zip(addresses) {
            let mut app = App::to(address).await?;
            for number in (0..KEYS).filter(|number| number % addresses.len() as u64 == at) {
                let answer = app.ask(&[b"SET", key(number).as_bytes(), b"value"]).await?;
                if answer != Answer::Done {
                    return Err(io::Error::other(format!("a first value was answered by {answer:?}")));
                }
            }
        }
        let (counts, mut all) = (Rc::new(RefCell::new(Counts::default())), JoinSet::new());
        for number in 0..apps as u64 {
            let (addresses, counts) = (addresses.to_vec(), Rc::clone(&counts));
            all.spawn_local(async move {
                let mut place = number << 32;
                loop {
                    rest(habit, &mut place).await;
                    let mut ready = false;
                    let ended = read(&addresses, habit, &counts, &mut ready, &mut place).await;
                    let mut counts = counts.borrow_mut();
                    counts.ready -= usize::from(ready);
                    counts.errors += u64::from(ended.is_err());
                }
            });
        }
        Ok(Self { counts, _apps: all })
    }

    /// What they were told so far.
    pub(super) fn counts(&self) -> Ref<'_, Counts> {
        self.counts.borrow()
    }
}

/// The name of a key; the first is the one that may be hot.
fn key(number: u64) -> String {
    if number == 0 { "product:1".to_owned() } else { format!("user:{number}") }
}

/// The life of an app, until a connection ends.
async fn read(
    addresses: &[String],
    habit: Habit,
    counts: &RefCell<Counts>,
    ready: &mut bool,
    place: &mut u64,
) -> io::Result<()> {
    let mut lines = Vec::new();
    for address in addresses {
        lines.push(App::to(address).await?);
    }
    counts.borrow_mut().ready += 1;
    *ready = true;
    loop {
        *place += 1;
        let drawn = splitmix(*place);
        let number = if drawn % 100 < habit.hot { 0 } else { (drawn >> 8) % KEYS };
        let at = (number % addresses.len() as u64) as usize;
        let answer = lines[at].ask(&[b"GET", key(number).as_bytes()]).await?;
        match answer {
            Answer::Error(_) => counts.borrow_mut().errors += 1,
            _ => counts.borrow_mut().answers += 1,
        }
        rest(habit, place).await;
    }
}

async fn rest(habit: Habit, place: &mut u64) {
    *place += 1;
    let part = (splitmix(*place) >> 11) as f64 / (1u64 << 53) as f64;
    sleep(habit.think.mul_f64(2.0 * part)).await;
}

/// Servers in this process, each behind a port of its own: embedded nodes, as other processes would see them.
pub(super) struct Servers {
    proxy: Proxy,
    source: Arc<dyn admin::Source>,
}

impl Servers {
    /// So many.
    pub(super) fn start(count: usize) -> io::Result<Self> {
        let mut text = "admin: off\npools:\n".to_owned();
        for number in 1..=count {
            text += &format!("  server-{number}: {{listen: '127.0.0.1:0', servers: embedded:1}}\n");
        }
        let proxy = proxy(&text)?;
        Ok(Self { source: proxy.source(), proxy })
    }

    /// Where they are.
    pub(super) fn addresses(&self) -> Vec<String> {
        addresses(&self.proxy)
    }

    /// What each was asked, as it counts that itself, some tenths of a second ago.
    pub(super) fn requests(&self) -> Vec<u64> {
        let page = self.source.metrics();
        let asked = |number: usize| {
            let series = format!("hotring_server_requests_total{{pool=\"server-{number}\",");
            let line = page.lines().find(|line| line.starts_with(&series))?;
            line.rsplit(' ').next()?.parse::<f64>().ok()
        };
        (1..=self.proxy.addresses().len()).map(|number| asked(number).unwrap_or(0.0) as u64).collect()
    }

    /// How many connections each has, the same.
    pub(super) fn connections(&self) -> Vec<u64> {
        self.source.status().pools.iter().map(|pool| pool.apps).collect()
    }

    pub(super) fn stop(self) -> io::Result<()> {
        self.proxy.stop()
    }
}

/// A list of servers for the text of a configuration.
pub(super) fn listed(addresses: &[String]) -> String {
    let servers = addresses.iter().zip(1..).map(|(address, number)| format!("'{address}:1 server-{number}'"));
    format!("[{}]", servers.collect::<Vec<_>>().join(", "))
}

/// A running proxy.
pub(super) fn proxy(text: &str) -> io::Result<Proxy> {
    let wrong = |problems: config::Problems| io::Error::other(problems.to_string());
    let config = config::parse(text, Path::new("demo")).map_err(wrong)?;
    Proxy::start(config).map_err(|error| io::Error::other(error.to_string()))
}

/// Where its pools listen.
pub(super) fn addresses(proxy: &Proxy) -> Vec<String> {
    proxy.addresses().into_iter().map(|(_, address)| address).collect()
}

/// Time that has gone by since something began.
pub(super) struct Since(std::time::Instant);

impl Since {
    pub(super) fn now() -> Self {
        Self(now())
    }

    pub(super) fn time(&self) -> Duration {
        self.0.elapsed()
    }
}
