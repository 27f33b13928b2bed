//! One key that most apps read, at two pools: one that leaves it to its server, and one that does not.

use super::Shown;
use super::crowd::{Crowd, Habit, Servers, Since, addresses, listed, proxy};
use super::screen::{LOOK, Screen};
use std::io;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;
use tokio::time::interval;

/// Servers of each pool.
const SERVERS: usize = 5;
/// So many of a hundred questions are for the key.
const HOT: u64 = 75;
/// How long it takes until a hot key is found and served otherwise, with some to spare.
const FOUND: Duration = Duration::from_secs(4);
const THINK: Duration = Duration::from_millis(30);
const WIDTH: usize = 18;

/// What is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HotKey {
    /// Apps at each of the pools.
    pub apps: usize,
    /// For how long is counted, once the key could be found.
    pub time: Duration,
}

/// What a pool's servers and apps had while it was counted.
struct Load {
    servers: Vec<f64>,
    answers: f64,
    errors: u64,
}

impl Load {
    fn busiest(&self) -> f64 {
        self.servers.iter().copied().fold(0.0, f64::max)
    }

    fn all(&self) -> f64 {
        self.servers.iter().sum()
    }

    /// How many times the average the busiest has.
    fn times(&self) -> f64 {
        self.busiest() * self.servers.len() as f64 / self.all().max(1e-9)
    }
}

pub(super) fn show(what: HotKey, screen: &mut Screen<'_>) -> io::Result<Shown> {
    let HotKey { apps, .. } = what;
    writeln!(
        screen.out,
        "{apps} apps at each of two pools read a thousand keys, but {HOT} of 100 times the same one. Each pool has {SERVERS} servers, \
         in this process. Ctrl-C ends it.\n"
    )?;
    let servers = [Servers::start(SERVERS)?, Servers::start(SERVERS)?];
    let [plain, auto] = [&servers[0], &servers[1]].map(|servers| listed(&servers.addresses()));
    let pool = "listen: '127.0.0.1:0', servers:";
    let proxy = proxy(&format!(
        "admin: off\npools:\n  plain: {{{pool} {plain}}}\n  auto: {{{pool} {auto}, hot_keys: {{reads: auto}}}}\n"
    ))?;
    let done = watch(what, &addresses(&proxy), &servers, screen);
    proxy.stop()?;
    for servers in servers {
        servers.stop()?;
    }
    done
}

fn watch(what: HotKey, at: &[String], servers: &[Servers; 2], screen: &mut Screen<'_>) -> io::Result<Shown> {
    let (tasks, runtime) = (LocalSet::new(), Builder::new_current_thread().enable_all().build()?);
    tasks.block_on(&runtime, async {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut crowds = Vec::new();
        for address in at {
            let habit = Habit { think: THINK, hot: HOT };
            crowds.push(Crowd::start(std::slice::from_ref(address), what.apps, habit).await?);
        }
        let (began, mut look, mut early) = (Since::now(), interval(LOOK), false);
        let counts = || {
            let requests = servers.each_ref().map(Servers::requests);
            let of = |crowd: &Crowd| (crowd.counts().answers, crowd.counts().errors);
            (began.time(), requests, [of(&crowds[0]), of(&crowds[1])])
        };
        let load = |from: &Counted, to: &Counted, pool: usize| {
            let seconds = (to.0 - from.0).as_secs_f64().max(1e-3);
            let rate = |after: u64, before: u64| after.saturating_sub(before) as f64 / seconds;
            Load {
                servers: to.1[pool].iter().zip(&from.1[pool]).map(|(&after, &before)| rate(after, before)).collect(),
                answers: rate(to.2[pool].0, from.2[pool].0),
                errors: to.2[pool].1 - from.2[pool].1,
            }
        };
        // What is counted begins when the key could be found; who ends it before has what there was.
        let (mut first, mut last) = (counts(), counts());
        let mut counting = false;
        while !early && last.0 < FOUND + what.time {
            tokio::select! {
                _ = look.tick() => {}
                _ = interrupt.recv() => early = true,
                _ = terminate.recv() => early = true,
            }
            last = counts();
            if !counting && last.0 >= FOUND {
                (counting, first) = (true, last.clone());
            }
            screen.progress(last.0, &|| {
                let part = |pool| format!("{:>6.0}/s", load(&first, &last, pool).busiest());
                let doing = if counting { "counting" } else { "finding the key" };
                format!("{:>3}s  {doing:<15} | busiest server: off {} | auto {}", last.0.as_secs(), part(0), part(1))
            })?;
        }
        screen.settle(early)?;
        let [plain, auto] = [0, 1].map(|pool| load(&first, &last, pool));
        write!(screen.out, "{}", side_by_side(&plain, &auto))?;
        screen.out.flush()?;
        Ok(Shown {
            early,
            what: format!("a hot key: busiest of {SERVERS} servers, requests/s"),
            without: format!("{:.0}", plain.busiest()),
            with: format!("{:.0}", auto.busiest()),
            by: "hot_keys: {reads: auto}",
            read: "docs/hot-keys.md",
        })
    })
}

/// When, what each server of both was asked, and what the apps of both were told: answers and errors.
type Counted = (Duration, [Vec<u64>; 2], [(u64, u64); 2]);

fn side_by_side(plain: &Load, auto: &Load) -> String {
    let mut text = format!("{:<32}{:>WIDTH$}{:>WIDTH$}\n", "", "reads: off", "reads: auto");
    let mut row = |name: &str, of: &dyn Fn(&Load) -> String| {
        text += &format!("{name:<32}{:>WIDTH$}{:>WIDTH$}\n", of(plain), of(auto));
    };
    row("GETs answered a second", &|load| format!("{:.0}", load.answers));
    for number in 0..plain.servers.len() {
        row(&format!("server {}, requests a second", number + 1), &|load| {
            format!("{:.0}", load.servers.get(number).copied().unwrap_or_default())
        });
    }
    row("all servers", &|load| format!("{:.0}", load.all()));
    row("busiest, times the average", &|load| format!("{:.1}", load.times()));
    row("errors", &|load| load.errors.to_string());
    text
}
