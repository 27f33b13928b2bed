//! The key space: keys, values, their time to live and their place in the order of eviction, kept consistent.
//!
//! Promises: a key whose time is up is never seen again (removed on access or by the cycle); the index of deadlines holds
//! exactly the keys that have one; after each command the bytes held are within `maxmemory`.
//!
//! Keys live in an insertion-ordered map whose removals move the last key into the gap. So a scan that goes from the end
//! to the beginning by position sees every key that is there all along: a key only ever moves down from the end, past
//! positions that have been visited.

use std::collections::BTreeSet;

use bytes::Bytes;
use indexmap::IndexMap;

use super::eviction::Evictor;
use super::reply::Refusal;
use super::value::Value;
use super::watch::Watchers;
use super::{Config, Eviction, Stats};

/// Bytes a key is counted with beside its name and value: a rough sum of its places in the map, in the order of eviction
/// and among the deadlines, and of their allocations.
pub const ENTRY_OVERHEAD: u64 = 256;
/// The most keys one call of [`super::Node::expire_cycle`] removes.
pub const EXPIRE_CYCLE_LIMIT: usize = 1_000;

/// A key's value and the Unix time in milliseconds after which it is gone.
pub(super) struct Entry {
    pub(super) value: Value,
    pub(super) deadline: Option<i64>,
}

/// The key space.
pub(super) struct Store {
    entries: IndexMap<Bytes, Entry>,
    deadlines: BTreeSet<(i64, Bytes)>,
    evictor: Option<Evictor>,
    eviction: Eviction,
    now: i64,
    stats: Stats,
    random: u64,
    watchers: Watchers,
}

impl Store {
    /// An empty one.
    pub(super) fn new(config: &Config) -> Store {
        Store {
            entries: IndexMap::new(),
            deadlines: BTreeSet::new(),
            evictor: (config.maxmemory > 0).then(|| Evictor::new(config.maxmemory, config.eviction)),
            eviction: config.eviction,
            now: 0,
            stats: Stats::default(),
            random: 0x9e37_79b9_7f4a_7c15,
            watchers: Watchers::default(),
        }
    }

    /// Sets the time, Unix milliseconds, for the commands to come.
    pub(super) fn set_now(&mut self, now_ms: u64) {
        self.now = i64::try_from(now_ms).unwrap_or(i64::MAX);
    }

    /// The time, Unix milliseconds.
    pub(super) fn now(&self) -> i64 {
        self.now
    }

    /// Who is told when a key changes.
    pub(super) fn watchers(&mut self) -> &mut Watchers {
        &mut self.watchers
    }

    /// Looks a key up for a command that reads it: counts a hit or a miss and a use.
    pub(super) fn read(&mut self, key: &[u8]) -> Option<&Value> {
        self.touch(key);
        match self.entries.get(key) {
            Some(entry) => {
                self.stats.hits += 1;
                Some(&entry.value)
            }
            None => {
                self.stats.misses += 1;
                None
            }
        }
    }

    /// Looks a key up for a command that will write it: counts a use.
    pub(super) fn find(&mut self, key: &[u8]) -> Option<&Value> {
        self.touch(key);
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// Counts a use of a key and returns whether it is there.
    pub(super) fn touch(&mut self, key: &[u8]) -> bool {
        self.drop_if_due(key);
        if let Some(evictor) = &self.evictor {
            evictor.touch(key);
        }
        self.entries.contains_key(key)
    }

    /// Looks at a key without using it.
    pub(super) fn peek(&mut self, key: &[u8]) -> Option<&Entry> {
        self.drop_if_due(key);
        self.entries.get(key)
    }

    /// Refuses a value of `size` bytes that could not be kept even alone.
    pub(super) fn check_room(&self, key: &[u8], size: u64) -> Result<(), Refusal> {
        match &self.evictor {
            Some(evictor) if weight(key, size) > evictor.capacity() => Err(Refusal::OUT_OF_MEMORY),
            _ => Ok(()),
        }
    }

    /// Sets a key, which loses the value and the deadline it had. Whoever calls has looked the key up before.
    pub(super) fn put(&mut self, key: &[u8], value: Value, deadline: Option<i64>) {
        self.watchers.changed(key);
        self.set_deadline(key, None);
        let size = weight(key, value.size());
        let entry = Entry { value, deadline };
        let key = match self.entries.get_full_mut(key) {
            Some((_, key, old)) => {
                self.stats.bytes -= weight(key, old.value.size());
                *old = entry;
                key.clone()
            }
            None => {
                let key = Bytes::copy_from_slice(key);
                self.entries.insert(key.clone(), entry);
                key
            }
        };
        self.stats.bytes += size;
        if let Some(evictor) = &self.evictor {
            evictor.place(&key, size);
        }
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, key));
        }
    }

    /// Changes the value of a key that is there, which keeps its deadline.
    pub(super) fn change<R>(&mut self, key: &[u8], change: impl FnOnce(&mut Value) -> R) -> Option<R> {
        self.watchers.changed(key);
        self.recode(key, change)
    }

    /// As [`Store::change`], of a change that is none to an app: whoever watches the key is not told.
    pub(super) fn recode<R>(&mut self, key: &[u8], change: impl FnOnce(&mut Value) -> R) -> Option<R> {
        let (_, key, entry) = self.entries.get_full_mut(key)?;
        let before = entry.value.size();
        let result = change(&mut entry.value);
        let after = entry.value.size();
        self.stats.bytes = self.stats.bytes - before + after;
        if let Some(evictor) = &self.evictor {
            evictor.place(key, weight(key, after));
        }
        Some(result)
    }

    /// Gives a key that is there another deadline or none.
    pub(super) fn set_deadline(&mut self, key: &[u8], deadline: Option<i64>) {
        let Some((_, key, entry)) = self.entries.get_full_mut(key) else { return };
        let old = std::mem::replace(&mut entry.deadline, deadline);
        if old.is_some() || deadline.is_some() {
            self.watchers.changed(key);
        }
        if let Some(old) = old {
            self.deadlines.remove(&(old, key.clone()));
        }
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, key.clone()));
        }
    }

    /// Removes a key, unless its time is up and it is gone already, and returns what it held.
    pub(super) fn take(&mut self, key: &[u8]) -> Option<Entry> {
        self.drop_if_due(key);
        self.remove(key)
    }

    /// Removes all keys.
    pub(super) fn clear(&mut self) {
        let entries = std::mem::take(&mut self.entries);
        self.watchers.changed_if(|key| entries.contains_key(key));
        self.deadlines = BTreeSet::new();
        self.stats.bytes = 0;
        self.evictor = self.evictor.take().map(|old| Evictor::new(old.capacity(), self.eviction));
    }

    /// How many keys there are, due ones included.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many keys have a deadline.
    pub(super) fn volatile(&self) -> usize {
        self.deadlines.len()
    }

    /// The key at a position below `len`, even if its time is up.
    pub(super) fn at(&self, position: usize) -> Option<(&Bytes, &Value)> {
        self.entries.get_index(position).map(|(key, entry)| (key, &entry.value))
    }

    /// Whether a key is there only because nobody has asked for it since its time was up.
    pub(super) fn is_due(&self, key: &[u8]) -> bool {
        // In its last millisecond a key is still there.
        self.entries.get(key).and_then(|entry| entry.deadline).is_some_and(|deadline| self.now > deadline)
    }

    /// The `maxmemory` in bytes, 0 for none, and how room is made.
    pub(super) fn limit(&self) -> (u64, Eviction) {
        (self.evictor.as_ref().map_or(0, Evictor::capacity), self.eviction)
    }

    /// Counts so far.
    pub(super) fn stats(&self) -> Stats {
        Stats { keys: self.entries.len() as u64, ..self.stats }
    }

    /// Removes up to [`EXPIRE_CYCLE_LIMIT`] keys whose time is up, the longest overdue first.
    pub(super) fn expire_cycle(&mut self) -> usize {
        let mut removed = 0;
        while removed < EXPIRE_CYCLE_LIMIT {
            match self.deadlines.first() {
                Some((deadline, key)) if *deadline < self.now => {
                    let key = key.clone();
                    self.remove(&key);
                    self.stats.expired += 1;
                    removed += 1;
                }
                _ => break,
            }
        }
        self.settle();
        removed
    }

    /// Makes room as far as `maxmemory` demands it; after every command.
    pub(super) fn settle(&mut self) {
        let Some(evictor) = &self.evictor else { return };
        for key in evictor.settle() {
            if self.remove(&key).is_some() {
                self.stats.evictions += 1;
            }
        }
    }

    /// A number below `bound`, which is not 0: the next of a fixed sequence (xorshift64*, Vigna 2016), spread well enough
    /// to pick keys and fields.
    pub(super) fn pick(&mut self, bound: usize) -> usize {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let spread = self.random.wrapping_mul(0x2545_f491_4f6c_dd1d);
        ((u128::from(spread) * bound as u128) >> 64) as usize
    }

    fn drop_if_due(&mut self, key: &[u8]) {
        if self.is_due(key) {
            self.remove(key);
            self.stats.expired += 1;
        }
    }

    fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let (key, entry) = self.entries.swap_remove_entry(key)?;
        self.watchers.changed(&key);
        if let Some(evictor) = &self.evictor {
            evictor.forget(&key);
        }
        self.stats.bytes -= weight(&key, entry.value.size());
        if let Some(deadline) = entry.deadline {
            self.deadlines.remove(&(deadline, key));
        }
        Some(entry)
    }
}

fn weight(key: &[u8], size: u64) -> u64 {
    key.len() as u64 + size + ENTRY_OVERHEAD
}
