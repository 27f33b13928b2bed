//! Apps that keep a value in a cache: who is told that there is none loads it, which takes its time, and writes it back.
//!
//! What is counted is what a database would notice, loads, and what the apps notice, waits.

use super::app::{Answer, App};
use super::now;
use crate::chance::splitmix;
use std::cell::{Ref, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// What a herd does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The key that all of it asks for.
    pub key: String,
    /// How long a value lives that is written back.
    pub ttl: Duration,
    /// How long the database takes.
    pub load: Duration,
    /// How long an app rests between an answer and its next question, on average; from nothing to twice that.
    pub think: Duration,
    /// Every so many-th load is broken off halfway, and the connection of its app with it; 0 for none.
    pub dies: u64,
}

/// An answer that came when the value was written, to a question that was asked before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// From the question to the answer.
    pub whole: Duration,
    /// From the write to the answer.
    pub behind: Duration,
    /// For the load of which expiry, counted from 1.
    pub expiry: usize,
}

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Loads of the database, those included that were broken off, for each expiry of the key.
    pub expiries: Vec<u64>,
    /// Loads that were broken off.
    pub deaths: u64,
    /// Answers to GET.
    pub answers: u64,
    /// Answers that waited for a load.
    pub waits: Vec<Wait>,
    /// Apps that were told that there is no value after they had waited for half a load or longer, while others loaded it or had died of
    /// that; what is behind the write is nothing where nobody had written yet.
    pub late_nils: Vec<Wait>,
    /// Loads that began before the value's time was up.
    pub early: u64,
    /// Errors that apps were told, and connections that ended.
    pub errors: u64,
    /// The last text of such an error.
    pub error: Option<String>,
    /// When the last load began.
    began: Option<Instant>,
    /// When the value was written back first since the last expiry.
    written: Option<Instant>,
    /// Until when the last value lives that was written back.
    lives: Option<Instant>,
}

impl Tally {
    /// Loads of the database.
    #[must_use]
    pub fn loads(&self) -> u64 {
        self.expiries.iter().sum()
    }

    /// The most loads that one expiry caused.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.expiries.iter().copied().max().unwrap_or(0)
    }

    /// Loads for each expiry, on average.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.loads() as f64 / self.expiries.len().max(1) as f64
    }

    /// The same without the loads of later expiries than so many.
    #[must_use]
    pub fn first(&self, expiries: usize) -> Self {
        let mut tally = self.clone();
        tally.expiries.truncate(expiries);
        tally.waits.retain(|wait| wait.expiry <= expiries);
        tally.late_nils.retain(|wait| wait.expiry <= expiries);
        tally
    }

    /// An app was told a value now that it had asked for then.
    pub fn told(&mut self, asked: Instant, now: Instant) {
        self.answers += 1;
        if let Some(written) = self.written.filter(|&written| asked < written) {
            let expiry = self.expiries.len();
            self.waits.push(Wait { whole: now - asked, behind: now - written, expiry });
        }
    }

    /// An app was told now that there is none, which it had asked for then, and loads it. True if it is not to come to the end of that.
    pub fn begin(&mut self, plan: &Plan, asked: Instant, now: Instant) -> bool {
        self.answers += 1;
        self.early += u64::from(self.lives.is_some_and(|lives| now < lives));
        // Loads that one expiry causes begin soon after each other; then there is a value for as long as it lives, or nearly.
        if self.began.is_none_or(|began| now - began > plan.ttl / 4) {
            self.expiries.push(0);
            self.written = None;
        } else {
            let behind = self.written.map_or(Duration::ZERO, |written| now - written);
            let wait = Wait { whole: now - asked, behind, expiry: self.expiries.len() };
            self.late_nils.extend(Some(wait).filter(|wait| wait.whole >= plan.load / 2));
        }
        self.began = Some(now);
        if let Some(last) = self.expiries.last_mut() {
            *last += 1;
        }
        plan.dies > 0 && self.loads().is_multiple_of(plan.dies)
    }

    /// An app that has loaded the value is about to write it back.
    pub fn write(&mut self, now: Instant) {
        self.written.get_or_insert(now);
    }

    /// The value that was sent then is written.
    pub fn wrote(&mut self, plan: &Plan, sent: Instant) {
        self.lives = Some(sent + plan.ttl);
    }

    /// An app was told an error, or its connection ended.
    pub fn failed(&mut self, text: String) {
        self.errors += 1;
        self.error = Some(text);
    }
}

/// Apps at work, as tasks of the thread that starts them; they end with it.
pub struct Herd {
    plan: Rc<Plan>,
    tally: Rc<RefCell<Tally>>,
    _apps: JoinSet<()>,
}

impl Herd {
    /// Writes the value and starts so many apps, dealt to these addresses. Only within a `LocalSet`.
    ///
    /// # Errors
    /// Where the value cannot be written.
    pub async fn start(plan: Plan, addresses: &[String], apps: usize) -> io::Result<Self> {
        let (plan, tally) = (Rc::new(plan), Rc::new(RefCell::new(Tally::default())));
        let first = addresses.first().ok_or(io::ErrorKind::InvalidInput)?;
        match store(&mut App::to(first).await?, &plan).await? {
            Answer::Done => {}
            other => return Err(io::Error::other(format!("the first value was answered by {other:?}"))),
        }
        let mut all = JoinSet::new();
        for (number, address) in addresses.iter().cycle().take(apps).enumerate() {
            let (plan, tally, address) = (Rc::clone(&plan), Rc::clone(&tally), address.clone());
            all.spawn_local(async move {
                // What an app meets is told; then it begins anew, as a pod does.
                let mut place = (number as u64) << 32;
                loop {
                    if let Err(error) = graze(&plan, &tally, &address, &mut place).await {
                        tally.borrow_mut().failed(error.to_string());
                    }
                }
            });
        }
        Ok(Self { plan, tally, _apps: all })
    }

    /// What became of it so far.
    #[must_use]
    pub fn tally(&self) -> Ref<'_, Tally> {
        self.tally.borrow()
    }

    /// Whether so many expiries are over, and all that they caused.
    #[must_use]
    pub fn is_over(&self, expiries: usize) -> bool {
        let tally = self.tally();
        let settled = tally.began.is_some_and(|began| now() - began > self.plan.ttl / 2);
        tally.expiries.len() > expiries || (tally.expiries.len() == expiries && settled)
    }
}

async fn store(app: &mut App, plan: &Plan) -> io::Result<Answer> {
    let ttl = plan.ttl.as_millis().to_string();
    app.ask(&[b"SET", plan.key.as_bytes(), b"value", b"PX", ttl.as_bytes()]).await
}

/// The life of an app, until its connection ends.
async fn graze(plan: &Plan, tally: &RefCell<Tally>, address: &str, place: &mut u64) -> io::Result<()> {
    // Before it connects: who is refused does not ask all the time.
    rest(plan, place).await;
    let mut app = App::to(address).await?;
    loop {
        let asked = now();
        let answer = app.ask(&[b"GET", plan.key.as_bytes()]).await?;
        match answer {
            Answer::Value(_) => tally.borrow_mut().told(asked, now()),
            Answer::Nil => {
                let dies = tally.borrow_mut().begin(plan, asked, now());
                if dies {
                    sleep(plan.load / 2).await;
                    tally.borrow_mut().deaths += 1;
                    return Ok(());
                }
                sleep(plan.load).await;
                let sent = now();
                tally.borrow_mut().write(sent);
                match store(&mut app, plan).await? {
                    Answer::Error(text) => tally.borrow_mut().failed(text),
                    _ => tally.borrow_mut().wrote(plan, sent),
                }
            }
            Answer::Error(text) => tally.borrow_mut().failed(text),
            Answer::Done => return Err(io::Error::other("a GET was answered by what is no value")),
        }
        rest(plan, place).await;
    }
}

async fn rest(plan: &Plan, place: &mut u64) {
    *place += 1;
    let part = (splitmix(*place) >> 11) as f64 / (1u64 << 53) as f64;
    sleep(plan.think.mul_f64(2.0 * part)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let millis = Duration::from_millis;
        Plan { key: "k".into(), ttl: millis(2000), load: millis(100), think: millis(10), dies: 0 }
    }

    #[test]
    fn loads_are_counted_by_expiry() {
        let (mut tally, start) = (Tally::default(), now());
        let at = |millis| start + Duration::from_millis(millis);
        for millis in [0, 40, 90, 2100, 4200, 4250] {
            tally.begin(&plan(), at(millis), at(millis));
        }
        assert_eq!((tally.expiries.as_slice(), tally.loads(), tally.most(), tally.mean()), (&[3, 1, 2][..], 6, 3, 2.0));
        assert_eq!((tally.answers, tally.late_nils.len()), (6, 0));
    }

    #[test]
    fn who_asked_before_the_write_has_waited() {
        let (mut tally, start) = (Tally::default(), now());
        let at = |millis| start + Duration::from_millis(millis);
        tally.told(at(0), at(1));
        tally.begin(&plan(), at(10), at(11));
        tally.begin(&plan(), at(20), at(80));
        tally.write(at(111));
        tally.wrote(&plan(), at(111));
        tally.told(at(12), at(113));
        tally.told(at(112), at(113));
        let wait = Wait { whole: Duration::from_millis(101), behind: Duration::from_millis(2), expiry: 1 };
        assert_eq!((tally.waits.as_slice(), tally.late_nils.len()), (&[wait][..], 1));
        // The next expiry has a write of its own, and this one was early.
        assert_eq!(tally.early, 0);
        tally.begin(&plan(), at(2100), at(2101));
        assert_eq!((tally.written, tally.early), (None, 1));
        tally.write(at(2201));
        tally.told(at(2150), at(2202));
        assert_eq!(tally.waits.iter().map(|wait| wait.expiry).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn some_loads_are_broken_off() {
        let (mut tally, at) = (Tally::default(), now());
        let plan = Plan { dies: 3, ..plan() };
        let dead: Vec<bool> = (0..7).map(|_| tally.begin(&plan, at, at)).collect();
        assert_eq!(dead, [false, false, true, false, false, true, false]);
    }
}
