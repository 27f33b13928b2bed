//! Whether a key may have been written through this process since something was read: what keeps answers that do not come from
//! the key's shard behind the process' own writes.
//!
//! One table for each pool, shared by all workers. A key has the place that its hash says, a shard another one: a write
//! whose keys are known is noted at each key's, any other at its shard's. Places are shared by keys that happen to fall on
//! the same one; all that does is send a read to the key's shard that need not have gone there.
//!
//! Promises: when a [`Seen`] still [stands](Fence::stands), no write to the key was answered or heard of since it was taken. So
//! what was read behind it is not older than any write that was answered before the question, nor than anything that anyone of
//! this process was told. A write that is on its way may have been carried out or not: until it is answered what was there
//! before it is as good an answer as what it makes, but for who has sent it. When it still [holds](Fence::holds), no write is on
//! its way either. Orders itself between threads by the atomics' own order: a write [begins](Fence::begin) before its bytes are
//! queued and [ends](Fence::end) before its reply is given to the app.

use crate::stages::Micros;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

/// Places of keys, and of shards.
const KEYS: usize = 1 << 16;
const SHARDS: usize = 1 << 10;
const SHARD_BITS: u32 = (1 << 10) - 1;
/// The lower bits of a state count writes on their way, the others changes.
const ONE_CHANGE: u64 = 1 << 24;
const ON_THEIR_WAY: u64 = ONE_CHANGE - 1;
const TIMES: u64 = (1 << 20) - 1;

/// Where a write is noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u32);

impl Place {
    /// A key's, by its hash.
    #[must_use]
    #[inline]
    pub fn of_key(hash: u64) -> Self {
        Self((hash >> 48) as u32)
    }

    /// The hashes of the keys that have it; nothing for a shard's.
    #[must_use]
    pub fn keys(self) -> Option<RangeInclusive<u64>> {
        let first = u64::from(self.0) << 48;
        (self.0 < KEYS as u32).then_some(first..=first | (u64::MAX >> 16))
    }

    /// A shard's.
    #[must_use]
    #[inline]
    pub fn of_shard(shard: u16) -> Self {
        Self(KEYS as u32 | (u32::from(shard) & SHARD_BITS))
    }
}

/// The changes that a key's and its shard's places have seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    key: u64,
    shard: u64,
}

impl Seen {
    /// What is seen when one write of the key has been answered since, or one change heard of, and nothing else.
    #[must_use]
    pub fn after_one_change(self) -> Self {
        Self { key: self.key.wrapping_add(ONE_CHANGE), shard: self.shard }
    }

    /// As two numbers, for whoever keeps it without knowing what it is.
    #[must_use]
    pub fn parts(self) -> (u64, u64) {
        (self.key, self.shard)
    }

    /// What [`parts`](Self::parts) have told.
    #[must_use]
    pub fn of((key, shard): (u64, u64)) -> Self {
        Self { key, shard }
    }

    /// The same for so many.
    #[must_use]
    pub fn after_changes(self, count: u64) -> Self {
        Self { key: self.key.wrapping_add(ONE_CHANGE.wrapping_mul(count)), shard: self.shard }
    }
}

/// What [`Fence::tell`] has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// It was not what was seen last, and so a change was noted.
    pub news: bool,
    /// How often something was seen before; see [`Fence::times`].
    pub times: u64,
}

impl Told {
    /// How often it is after so many times more.
    #[must_use]
    pub fn after(times: u64, more: u64) -> u64 {
        times.wrapping_add(more) & TIMES
    }
}

#[derive(Default)]
struct Mark {
    state: AtomicU64,
    /// What the key was last seen to have, as a hash in the upper bits; how often it was seen in the [lower](TIMES).
    has: AtomicU64,
    /// How many workers may keep it.
    kept: AtomicU64,
    /// When the last write was answered, in microseconds on the process' clock; 0 for never.
    answered: AtomicU64,
}

/// See the module. 2 MiB from when it is first used, as it counts changes and times, and knows values.
#[derive(Default)]
pub struct Fence {
    marks: OnceLock<Box<[Mark]>>,
    /// How many keys all workers may keep.
    kept: AtomicU64,
    /// How many times a worker has come to keep what it reads of a key.
    epoch: AtomicU64,
    /// For each worker the epoch up to which it has answered the reads of which it had taken no note.
    workers: Mutex<Vec<Weak<AtomicU64>>>,
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fence")
    }
}

impl Fence {
    #[inline]
    fn mark(&self, place: Place) -> &Mark {
        // `Place` makes no other numbers.
        static NEVER: Mark = Mark {
            state: AtomicU64::new(0),
            has: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            answered: AtomicU64::new(0),
        };
        let marks = self.marks.get_or_init(|| (0..KEYS + SHARDS).map(|_| Mark::default()).collect());
        marks.get(place.0 as usize).unwrap_or(&NEVER)
    }

    /// A write is about to be sent.
    #[inline]
    pub fn begin(&self, place: Place) {
        self.mark(place).state.fetch_add(1, Ordering::SeqCst);
    }

    /// It was answered, or never will be.
    #[inline]
    pub fn end(&self, place: Place, now: Micros) {
        let mark = self.mark(place);
        mark.answered.fetch_max(now.max(1), Ordering::SeqCst);
        mark.state.fetch_add(ONE_CHANGE - 1, Ordering::SeqCst);
    }

    /// A change was heard of that this process did not make, or that it has seen the result of.
    #[inline]
    pub fn change(&self, place: Place) {
        self.mark(place).state.fetch_add(ONE_CHANGE, Ordering::SeqCst);
    }

    /// A worker may keep what it reads of a key from now on, or no longer. From now on all workers take note of what they read of
    /// it; what they have asked for before may still come. Returns the epoch that they have to [reach](Fence::reached).
    pub fn keep(&self, hash: u64, kept: bool) -> u64 {
        let mark = &self.mark(Place::of_key(hash)).kept;
        if kept {
            mark.fetch_add(1, Ordering::SeqCst);
            self.kept.fetch_add(1, Ordering::SeqCst);
            // Last: whoever sees the epoch sees that it is kept.
            self.epoch.fetch_add(1, Ordering::SeqCst).wrapping_add(1)
        } else {
            mark.fetch_sub(1, Ordering::SeqCst);
            self.kept.fetch_sub(1, Ordering::SeqCst);
            self.epoch()
        }
    }

    /// The newest epoch.
    #[must_use]
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// A worker begins to read; it tells here what epoch it has reached, until it drops this.
    #[must_use]
    pub fn join(&self) -> Arc<AtomicU64> {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.retain(|worker| worker.strong_count() > 0);
        let worker = Arc::new(AtomicU64::new(self.epoch()));
        workers.push(Arc::downgrade(&worker));
        worker
    }

    /// Whether all workers but the one who asks have reached this epoch.
    #[must_use]
    pub fn reached(&self, epoch: u64, own: &Arc<AtomicU64>) -> bool {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut others = workers.iter().filter_map(Weak::upgrade).filter(|worker| !Arc::ptr_eq(worker, own));
        others.all(|worker| worker.load(Ordering::SeqCst) >= epoch)
    }

    /// Whether any worker may keep anything.
    #[must_use]
    #[inline]
    pub fn keeps(&self) -> bool {
        self.kept.load(Ordering::Relaxed) > 0
    }

    /// Whether any worker may keep something of this key, or of one in its place.
    #[must_use]
    pub fn is_kept(&self, hash: u64) -> bool {
        self.mark(Place::of_key(hash)).kept.load(Ordering::SeqCst) > 0
    }

    /// The key was seen to have this, as a hash. If that is news it is a change: what other workers keep of it is not to be served
    /// any more to anyone, who may have seen this.
    ///
    /// What is kept is what was seen last: so it need not end where that is seen again. But a read that is on its way may bring
    /// something that was there in between; whoever waits for one compares [how often](Self::times) something was seen.
    pub fn tell(&self, hash: u64, value: u64) -> Told {
        let place = Place::of_key(hash);
        let (has, mut news) = (&self.mark(place).has, false);
        let mut before = has.load(Ordering::SeqCst);
        loop {
            if (before ^ value) & !TIMES != 0 {
                // First: another worker that finds it to be no news gives it to its app at once.
                self.change(place);
                news = true;
            }
            let after = (value & !TIMES) | (before.wrapping_add(1) & TIMES);
            match has.compare_exchange(before, after, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return Told { news, times: before & TIMES },
                Err(other) => before = other,
            }
        }
    }

    /// How often something was seen of the key; wraps after a million.
    #[must_use]
    #[inline]
    pub fn times(&self, hash: u64) -> u64 {
        self.mark(Place::of_key(hash)).has.load(Ordering::SeqCst) & TIMES
    }

    /// What there is to compare with later, and whether a write is on its way.
    #[inline]
    fn look(&self, hash: u64, shard: u16) -> (Seen, bool) {
        let key = self.mark(Place::of_key(hash)).state.load(Ordering::SeqCst);
        let shard = self.mark(Place::of_shard(shard)).state.load(Ordering::SeqCst);
        let seen = Seen { key: key & !ON_THEIR_WAY, shard: shard & !ON_THEIR_WAY };
        (seen, (key | shard) & ON_THEIR_WAY != 0)
    }

    /// What there is to compare with later.
    #[must_use]
    #[inline]
    pub fn see(&self, hash: u64, shard: u16) -> Seen {
        self.look(hash, shard).0
    }

    /// The same; nothing while a write is on its way.
    #[must_use]
    #[inline]
    pub fn see_still(&self, hash: u64, shard: u16) -> Option<Seen> {
        let (seen, on_its_way) = self.look(hash, shard);
        (!on_its_way).then_some(seen)
    }

    /// Whether no write was answered since, and no change heard of.
    #[must_use]
    #[inline]
    pub fn stands(&self, seen: Seen, hash: u64, shard: u16) -> bool {
        self.see(hash, shard) == seen
    }

    /// Whether nothing has happened since, and no write is on its way.
    #[must_use]
    #[inline]
    pub fn holds(&self, seen: Seen, hash: u64, shard: u16) -> bool {
        self.see_still(hash, shard) == Some(seen)
    }

    /// Whether what was read may be told now: to one who has `no_writes` on their way himself, or to anyone.
    #[must_use]
    #[inline]
    pub fn allows(&self, seen: Seen, no_writes: bool, hash: u64, shard: u16) -> bool {
        let (now, on_its_way) = self.look(hash, shard);
        now == seen && (no_writes || !on_its_way)
    }

    /// Whether no write is on its way and none was answered within `span` before `now`.
    #[must_use]
    pub fn is_quiet(&self, hash: u64, shard: u16, span: Micros, now: Micros) -> bool {
        let quiet = |place| {
            let answered = self.mark(place).answered.load(Ordering::SeqCst);
            answered == 0 || now > answered.saturating_add(span)
        };
        self.see_still(hash, shard).is_some() && quiet(Place::of_key(hash)) && quiet(Place::of_shard(shard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: u64 = 0xabcd << 48 | 17;

    #[test]
    fn what_was_seen_holds_until_something_happens() {
        let fence = Fence::default();
        let (key, other) = (Place::of_key(HASH), Place::of_key(HASH ^ 1 << 50));
        let seen = fence.see_still(HASH, 3).unwrap();
        fence.begin(other);
        assert!(fence.holds(seen, HASH, 3), "another key");
        fence.begin(key);
        assert!(!fence.holds(seen, HASH, 3) && fence.see_still(HASH, 3).is_none(), "on its way");
        assert!(fence.stands(seen, HASH, 3) && fence.see(HASH, 3) == seen, "not answered");
        assert_eq!([true, false].map(|no_writes| fence.allows(seen, no_writes, HASH, 3)), [true, false]);
        fence.end(key, 5);
        assert!(!fence.holds(seen, HASH, 3) && !fence.stands(seen, HASH, 3), "answered");
        assert!(!fence.allows(seen, true, HASH, 3));
        let seen = fence.see_still(HASH, 3).unwrap();
        fence.change(key);
        assert!(!fence.holds(seen, HASH, 3), "heard of");
    }

    #[test]
    fn a_write_to_a_shard_concerns_its_keys() {
        let fence = Fence::default();
        let (here, there) = (fence.see_still(HASH, 3).unwrap(), fence.see_still(HASH, 4).unwrap());
        fence.begin(Place::of_shard(3));
        assert!(fence.see_still(HASH, 3).is_none());
        fence.end(Place::of_shard(3), 10);
        assert!(!fence.holds(here, HASH, 3) && fence.holds(there, HASH, 4));
    }

    #[test]
    fn one_write_and_nothing_else_can_be_told_from_more() {
        let fence = Fence::default();
        let key = Place::of_key(HASH);
        let expected = fence.see(HASH, 0).after_one_change();
        fence.begin(key);
        fence.end(key, 1);
        assert!(fence.holds(expected, HASH, 0));
        fence.change(key);
        assert!(!fence.holds(expected, HASH, 0));
    }

    #[test]
    fn two_writes_on_their_way_end_one_by_one() {
        let fence = Fence::default();
        let key = Place::of_key(HASH);
        fence.begin(key);
        fence.begin(key);
        fence.end(key, 1);
        assert!(fence.see_still(HASH, 0).is_none());
        fence.end(key, 2);
        assert!(fence.see_still(HASH, 0).is_some());
    }

    #[test]
    fn quiet_is_counted_from_the_last_answer() {
        let fence = Fence::default();
        let key = Place::of_key(HASH);
        assert!(fence.is_quiet(HASH, 0, 1000, 0), "never written");
        fence.begin(key);
        assert!(!fence.is_quiet(HASH, 0, 0, u64::MAX));
        fence.end(key, 500);
        assert!(!fence.is_quiet(HASH, 0, 1000, 1500) && fence.is_quiet(HASH, 0, 1000, 1501));
        fence.end_of_another_worker_that_is_late();
        assert!(!fence.is_quiet(HASH, 0, 1000, 1500));
    }

    impl Fence {
        /// Its time is older than what is known.
        fn end_of_another_worker_that_is_late(&self) {
            self.begin(Place::of_key(HASH));
            self.end(Place::of_key(HASH), 400);
        }
    }

    #[test]
    fn an_epoch_is_reached_when_all_others_who_are_there_have() {
        let fence = Fence::default();
        let (own, other, third) = (fence.join(), fence.join(), fence.join());
        let epoch = fence.keep(HASH, true);
        assert!(!fence.reached(epoch, &own));
        other.store(fence.epoch(), Ordering::SeqCst);
        assert!(!fence.reached(epoch, &own));
        drop(third);
        assert!(fence.reached(epoch, &own));
        // Who comes later has read nothing before.
        let _late = fence.join();
        assert!(fence.reached(epoch, &own));
        assert!(!fence.reached(fence.keep(HASH, true), &own));
    }

    #[test]
    fn every_place_has_its_mark() {
        let fence = Fence::default();
        fence.change(Place::of_key(0));
        assert_eq!(Place::of_key(u64::MAX).0 as usize, KEYS - 1);
        let keys = Place::of_key(HASH).keys().unwrap();
        assert_eq!([*keys.start(), *keys.end()].map(|hash| Place::of_key(hash) == Place::of_key(HASH)), [true; 2]);
        assert_eq!(Place::of_shard(0).keys(), None);
        assert_eq!(Place::of_shard(u16::MAX).0 as usize, KEYS + SHARDS - 1);
        assert_eq!(fence.marks.get().unwrap().len(), KEYS + SHARDS);
    }
}
