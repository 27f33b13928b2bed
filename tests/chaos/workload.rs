//! Apps that work and check all the while, and what they have in common: what was seen so far, and whom to believe.

use super::app::App;
use super::model::Fault;
use crate::support::{FOREVER, now};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How many failures are told in full.
const TOLD: usize = 20;

/// What apps are to do.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) apps: u64,
    pub(crate) seed: u64,
    /// Between two steps of an app.
    pub(crate) rest: Duration,
    /// Transactions and blocking commands, too, and only errors that hotring may give. Without it any proxy will do.
    pub(crate) deep: bool,
    /// Values of up to 2 MiB now and then.
    pub(crate) large: bool,
    /// Keep when each request was asked and how long it took.
    pub(crate) record: bool,
}

/// What a test asks for when nothing else is said.
pub(crate) const USUAL: Plan =
    Plan { apps: 6, seed: 1, rest: Duration::from_micros(300), deep: true, large: true, record: false };

/// Where keys are.
#[derive(Clone, Debug)]
pub(crate) enum Homes {
    /// On so many shards named `s0`, `s1` ...
    Ring(usize),
    /// In slots of a cluster, some of each of its primaries.
    Slots(Vec<Range<u16>>),
}

impl Homes {
    fn count(&self) -> usize {
        match self {
            Self::Ring(count) => *count,
            Self::Slots(ranges) => ranges.len(),
        }
    }

    pub(crate) fn are_slots(&self) -> bool {
        matches!(self, Self::Slots(_))
    }
}

/// A request about one shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    pub(crate) took: Duration,
    pub(crate) shard: usize,
    pub(crate) went_well: bool,
}

/// What all apps have seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) requests: u64,
    /// Requests about one shard that went well, and those that got an error.
    pub(crate) done: Vec<u64>,
    pub(crate) failed: Vec<u64>,
    /// Requests on connections that ended, and connections that were refused.
    pub(crate) closed: u64,
    pub(crate) refused: u64,
    /// Elements and values that were acknowledged in a spell of doubt and undone.
    pub(crate) undone: u64,
    /// Errors about shards that nothing was wrong with as they were asked, and when the last of all errors was told.
    pub(crate) untimely: BTreeMap<String, u64>,
    pub(crate) last_error: Duration,
    /// Error texts, and how often each was seen.
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) faults: BTreeMap<Fault, u64>,
    told: Vec<String>,
}

pub(crate) struct Shared {
    pub(crate) address: Mutex<String>,
    /// Odd while a shard is being emptied; two more than before when it is.
    pub(crate) generations: Vec<AtomicU64>,
    /// Odd while a shard is in doubt.
    pub(crate) doubts: Vec<AtomicU64>,
    pub(crate) homes: Homes,
    /// Whether who is closed has been told all: what was not answered has not run.
    pub(crate) drains: AtomicBool,
    pub(crate) stopping: AtomicBool,
    pub(crate) seed: u64,
    pub(crate) rest: Duration,
    pub(crate) deep: bool,
    pub(crate) large: bool,
    pub(crate) record: bool,
    pub(crate) began: Instant,
    counts: Mutex<Counts>,
    changed: Condvar,
}

impl Shared {
    fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.counts.lock().unwrap());
        self.changed.notify_all();
    }

    pub(crate) fn done(&self, shard: usize) {
        self.count(|counts| {
            counts.requests += 1;
            counts.done[shard] += 1;
        });
    }

    pub(crate) fn failed(&self, shard: Option<usize>, text: &str) {
        let told = self.began.elapsed();
        self.count(|counts| {
            counts.requests += 1;
            counts.last_error = told;
            *counts.errors.entry(text.to_owned()).or_default() += 1;
            if let Some(shard) = shard {
                counts.failed[shard] += 1;
            }
        });
    }

    /// An error that a shard in good health must not give.
    pub(crate) fn untimely(&self, text: &str) {
        self.count(|counts| *counts.untimely.entry(text.to_owned()).or_default() += 1);
    }

    pub(crate) fn undone(&self, count: u64) {
        self.count(|counts| counts.undone += count);
    }

    /// An error in Redis' own words that is no failure: the command has to be given anew.
    pub(crate) fn excused(&self, text: &str) {
        self.count(|counts| {
            counts.requests += 1;
            *counts.errors.entry(text.to_owned()).or_default() += 1;
        });
    }

    pub(crate) fn refused(&self) {
        self.count(|counts| counts.refused += 1);
    }

    pub(crate) fn closed(&self) {
        self.count(|counts| counts.closed += 1);
    }

    pub(crate) fn tell(&self, fault: Fault, text: String) {
        self.count(|counts| {
            *counts.faults.entry(fault).or_default() += 1;
            if counts.told.len() < TOLD {
                counts.told.push(format!("{fault:?}: {text}"));
            }
        });
    }

    pub(crate) fn told(&self, judged: Result<(), Fault>, text: impl FnOnce() -> String) {
        if let Err(fault) = judged {
            self.tell(fault, text());
        }
    }

    /// Until something happens, or this time is over.
    pub(crate) fn wait(&self, time: Duration) {
        drop(self.changed.wait_timeout(self.counts.lock().unwrap(), time).unwrap());
    }
}

/// Apps at work.
pub(crate) struct Workload {
    pub(crate) shared: Arc<Shared>,
    apps: Vec<JoinHandle<Vec<Sample>>>,
}

impl Workload {
    /// Over so many shards named `s0`, `s1` ...
    pub(crate) fn start(address: &str, shards: usize, plan: Plan) -> Self {
        Self::at(address, Homes::Ring(shards), plan)
    }

    /// Keys are where this says.
    pub(crate) fn at(address: &str, homes: Homes, plan: Plan) -> Self {
        let shards = homes.count();
        let counts = Counts { done: vec![0; shards], failed: vec![0; shards], ..Counts::default() };
        let shared = Arc::new(Shared {
            address: Mutex::new(address.to_owned()),
            generations: (0..shards).map(|_| AtomicU64::new(0)).collect(),
            doubts: (0..shards).map(|_| AtomicU64::new(0)).collect(),
            homes,
            drains: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            seed: plan.seed,
            rest: plan.rest,
            deep: plan.deep,
            large: plan.large,
            record: plan.record,
            began: now(),
            counts: Mutex::new(counts),
            changed: Condvar::new(),
        });
        let start = |number| {
            let app = App::new(number, Arc::clone(&shared));
            std::thread::spawn(move || app.run())
        };
        let apps = (0..plan.apps).map(start).collect();
        Self { shared, apps }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.shared.counts.lock().unwrap().clone()
    }

    /// Waits for something to be so.
    pub(crate) fn until(&self, what: &str, is_so: impl Fn(&Counts) -> bool) {
        let start = now();
        let mut counts = self.shared.counts.lock().unwrap();
        while !is_so(&counts) {
            assert!(start.elapsed() < FOREVER * 5, "still not so: {what}; {counts:#?}");
            counts = self.shared.changed.wait_timeout(counts, FOREVER).unwrap().0;
        }
    }

    /// Waits until each of these shards has served so many requests more.
    pub(crate) fn goes_on(&self, shards: &[usize], more: u64) {
        let before = self.counts();
        self.until("they are served", |now| shards.iter().all(|&shard| now.done[shard] >= before.done[shard] + more));
    }

    /// Waits until requests to this shard have failed so often since `before`.
    pub(crate) fn fails(&self, shard: usize, before: &Counts, times: u64) {
        self.until("it fails", |now| now.failed[shard] >= before.failed[shard] + times);
    }

    /// Does what loses all that a shard has.
    pub(crate) fn emptying(&self, shard: usize, empty: impl FnOnce()) {
        self.shared.generations[shard].fetch_add(1, Ordering::AcqRel);
        empty();
        self.shared.generations[shard].fetch_add(1, Ordering::AcqRel);
    }

    /// From now on, Redis may undo what a shard acknowledges; or no longer.
    pub(crate) fn turn(&self, shard: usize) {
        self.shared.doubts[shard].fetch_add(1, Ordering::AcqRel);
    }

    /// Has all apps read back what they know.
    pub(crate) fn finish(self) -> (Counts, Vec<Sample>) {
        self.shared.stopping.store(true, Ordering::Release);
        let samples = self.apps.into_iter().flat_map(|app| app.join().unwrap()).collect();
        let counts = self.shared.counts.lock().unwrap().clone();
        (counts, samples)
    }
}

impl Counts {
    pub(crate) fn faults(&self, fault: Fault) -> u64 {
        self.faults.get(&fault).copied().unwrap_or(0)
    }

    /// Nothing wrong, nothing lost, nothing twice, nobody hung.
    pub(crate) fn is_clean(&self) {
        assert!(self.faults.is_empty(), "{self:#?}");
    }

    /// And only these shards were ever noticed to be ill.
    pub(crate) fn only(&self, ill: &[usize]) {
        self.is_clean();
        assert_eq!(self.closed, 0, "no app loses its connection over a shard");
        for (shard, failed) in self.failed.iter().enumerate() {
            assert!(ill.contains(&shard) || *failed == 0, "shard s{shard} failed {failed} times: {:#?}", self.errors);
        }
    }
}
