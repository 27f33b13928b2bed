//! Where the keys of a pool lived before: what is needed to ask there for a while, when servers have come or gone, or a pool begins
//! with nothing.
//!
//! Promises: values, and counters that all workers of a pool share without a lock. Who asks, and what for, is the engine's
//! (`engine::warm`).

use super::{Micros, Placement};
use crate::ring::{Distribution, Ring};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Servers whose failures are told apart; those with higher numbers share a place, and are given up together.
const PLACES: usize = 1024;
/// How long a span is over which the share of reads is told, in microseconds.
pub const SPAN: Micros = 60_000_000;

/// Where keys lived.
#[derive(Debug, Clone)]
pub struct Former {
    placement: Placement,
    ring: Ring,
    /// For how long from now on they are looked for there, in microseconds.
    pub left: Micros,
    /// Questions a second to former homes, over all workers.
    pub rate: u32,
}

impl Former {
    /// The placement as it was, with the numbers that its shards have in the pool now.
    #[must_use]
    pub fn new(placement: Placement, left: Micros, rate: u32) -> Self {
        let ring = placement.whole_ring();
        Self { placement, ring, left, rate }
    }

    /// The shard where a key lived, if it had a home.
    #[must_use]
    #[inline]
    pub fn home(&self, key: &[u8]) -> Option<u16> {
        if let Some(shard) = self.placement.pinned(key) {
            return Some(shard);
        }
        if self.placement.distribution == Distribution::Random {
            return None;
        }
        let place = self.ring.shard_at(self.ring.position(key), 0)?;
        self.placement.numbers.get(usize::from(place)).copied()
    }

    /// The numbers of its shards.
    #[must_use]
    pub fn shards(&self) -> &[u16] {
        &self.placement.numbers
    }
}

/// What the workers of a pool tell each other, and people, while keys are looked for at their former homes.
#[derive(Debug)]
pub struct Warmth {
    /// It is over before its time: all keys were deleted.
    over: AtomicBool,
    /// Shards that could not be told of a write: what they have is not to be trusted any more.
    distrusted: [AtomicBool; PLACES],
    /// Reads of keys that have moved: found at their home, found at the former one, found at neither, in the current span of time
    /// and in the one before; and when the current one began.
    spans: [[AtomicU64; 3]; 2],
    began: AtomicU64,
    /// All of them since the beginning.
    all: [AtomicU64; 3],
    /// Copies made.
    copies: AtomicU64,
}

/// How a read of a key that has moved ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Its home has it.
    Home = 0,
    /// Its former home has it.
    Former = 1,
    /// Neither, or the former one was not asked.
    Nowhere = 2,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Of the reads of keys that have moved and are somewhere, the part whose key was at its new home, from 0 to 1, within the last
    /// minute or two; nothing if there were none.
    pub arrived: Option<f64>,
    /// So many reads that is told of.
    pub reads: u64,
    /// Keys copied since the beginning.
    pub copies: u64,
    /// Reads since the beginning that a former home has answered.
    pub hits: u64,
    /// Whether it has ended before its time.
    pub over: bool,
    /// Former homes that are not asked any more since they could not be told of a write.
    pub distrusted: usize,
}

impl Default for Warmth {
    fn default() -> Self {
        Self {
            over: AtomicBool::new(false),
            distrusted: std::array::from_fn(|_| AtomicBool::new(false)),
            spans: Default::default(),
            began: AtomicU64::new(0),
            all: Default::default(),
            copies: AtomicU64::new(0),
        }
    }
}

impl Warmth {
    /// Ends it before its time.
    pub fn end(&self) {
        self.over.store(true, Ordering::Release);
    }

    /// Whether it was ended before its time.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// What a shard has is not to be trusted any more.
    pub fn distrust(&self, shard: u16) {
        if let Some(place) = self.distrusted.get(usize::from(shard) % PLACES) {
            place.store(true, Ordering::Release);
        }
    }

    /// Whether a shard may be asked.
    #[must_use]
    pub fn trusts(&self, shard: u16) -> bool {
        !self.distrusted.get(usize::from(shard) % PLACES).is_some_and(|place| place.load(Ordering::Acquire))
    }

    /// A read of a key that has moved has ended so.
    pub fn count(&self, found: Found) {
        let [current, _] = &self.spans;
        for counters in [current, &self.all] {
            if let Some(counter) = counters.get(found as usize) {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// A copy was made.
    pub fn copied(&self) {
        self.copies.fetch_add(1, Ordering::Relaxed);
    }

    /// Upkeep by one worker: begins another span when one is over.
    pub fn tick(&self, now: Micros) {
        if now.saturating_sub(self.began.load(Ordering::Relaxed)) < SPAN {
            return;
        }
        self.began.store(now, Ordering::Relaxed);
        let [current, last] = &self.spans;
        for (current, last) in current.iter().zip(last) {
            last.store(current.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let sum = |found: Found| -> u64 {
            let of = |span: &[AtomicU64; 3]| span.get(found as usize).map_or(0, |n| n.load(Ordering::Relaxed));
            self.spans.iter().map(of).sum()
        };
        let (home, former) = (sum(Found::Home), sum(Found::Former));
        let reads = home.saturating_add(former);
        Progress {
            arrived: (reads > 0).then(|| home as f64 / reads as f64),
            reads,
            copies: self.copies.load(Ordering::Relaxed),
            hits: self.all.get(Found::Former as usize).map_or(0, |n| n.load(Ordering::Relaxed)),
            over: self.is_over(),
            distrusted: self.distrusted.iter().filter(|place| place.load(Ordering::Relaxed)).count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_of_the_last_minutes() {
        let warmth = Warmth::default();
        assert_eq!(warmth.progress().arrived, None);
        warmth.tick(SPAN);
        for _ in 0..3 {
            warmth.count(Found::Former);
        }
        warmth.count(Found::Home);
        warmth.count(Found::Nowhere);
        assert_eq!((warmth.progress().arrived, warmth.progress().reads), (Some(0.25), 4));
        warmth.tick(SPAN + 1);
        warmth.tick(2 * SPAN);
        warmth.count(Found::Home);
        assert_eq!(warmth.progress().arrived, Some(0.4));
        warmth.tick(3 * SPAN);
        warmth.tick(4 * SPAN);
        assert_eq!((warmth.progress().arrived, warmth.progress().hits), (None, 3));
    }

    #[test]
    fn who_is_not_trusted_is_one() {
        let warmth = Warmth::default();
        warmth.distrust(3);
        assert!(!warmth.trusts(3) && warmth.trusts(4) && warmth.progress().distrusted == 1);
        assert!(!warmth.is_over());
        warmth.end();
        assert!(warmth.is_over());
    }
}
