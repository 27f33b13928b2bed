//! The ids that exist, so that nobody need be asked for those that do not.
//!
//! Promises: an id that is in the list, or was added, is never taken for one that does not exist. Of others about one in a
//! hundred ([`FALSE`]) is taken for one that may. What is added stays when the list is read again.

use crate::stages::{AsItIs, key_hash};
use fastbloom::BloomFilter;
use std::collections::HashSet;
use std::fmt;
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Of how many ids that do not exist one may be taken for one that does: the part.
pub const FALSE: f64 = 0.01;
/// Ids that are remembered beside the list: 16 MiB at most.
const MOST: usize = 1 << 20;

/// See the module.
#[derive(Clone)]
pub struct Ids {
    /// The file, as it was named.
    file: Box<str>,
    listed: Arc<Listed>,
    added: Arc<Added>,
}

struct Listed {
    seed: u64,
    count: usize,
    /// What tells one list from another.
    print: u64,
    filter: BloomFilter,
}

#[derive(Default)]
struct Added {
    hashes: RwLock<HashSet<u64, BuildHasherDefault<AsItIs>>>,
    /// There are more than are remembered: from then on, until the process ends, any id may exist.
    full: AtomicBool,
}

impl Ids {
    /// The ids of a file, one a line. Blanks at the ends of lines, and empty lines, are no part of them.
    #[must_use]
    pub fn new(file: &str, text: &[u8], seed: u64) -> Self {
        let ids = || text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).filter(|id| !id.is_empty());
        let count = ids().count();
        let mut filter = BloomFilter::with_false_pos(FALSE).seed(&0).expected_items(count.max(1));
        let mut print = count as u64;
        for hash in ids().map(|id| key_hash(seed, id)) {
            filter.insert_hash(hash);
            print = print.rotate_left(1) ^ hash;
        }
        let listed = Arc::new(Listed { seed, count, print, filter });
        Self { file: file.into(), listed, added: Arc::default() }
    }

    /// The file, as it was named.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// How many ids were listed.
    #[must_use]
    pub fn listed(&self) -> usize {
        self.listed.count
    }

    /// How many are remembered beside them.
    #[must_use]
    pub fn added(&self) -> usize {
        self.added.hashes.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Bytes of memory that the list takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.listed.filter.num_bits() / 8
    }

    /// Of ids that do not exist, the part that is taken for ones that may, as is to be expected of a list of this length.
    #[must_use]
    pub fn false_ratio(&self) -> f64 {
        if self.is_full() { 1.0 } else { self.listed.filter.expected_false_pos(self.listed.count) }
    }

    /// Whether so many were added that any id may exist.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.added.full.load(Ordering::Relaxed)
    }

    /// Whether an id may exist.
    #[must_use]
    pub fn may_have(&self, id: &[u8]) -> bool {
        let hash = key_hash(self.listed.seed, id);
        self.listed.filter.contains_hash(hash) || self.has_added(hash)
    }

    fn has_added(&self, hash: u64) -> bool {
        self.is_full() || self.added.hashes.read().unwrap_or_else(PoisonError::into_inner).contains(&hash)
    }

    /// An id exists from now on. Returns whether that is news.
    pub fn add(&self, id: &[u8]) -> bool {
        let hash = key_hash(self.listed.seed, id);
        if self.listed.filter.contains_hash(hash) || self.has_added(hash) {
            return false;
        }
        let mut hashes = self.added.hashes.write().unwrap_or_else(PoisonError::into_inner);
        if hashes.len() >= MOST {
            self.added.full.store(true, Ordering::Relaxed);
            return false;
        }
        hashes.insert(hash)
    }

    /// Goes on with what was added to the list that this one is to take the place of.
    pub fn follow(&mut self, before: &Self) {
        if self.listed.seed == before.listed.seed {
            self.added = Arc::clone(&before.added);
        }
    }

    /// This is the only list that is asked from now on: what it has itself need not be remembered beside it.
    pub fn settle(&self) {
        let mut hashes = self.added.hashes.write().unwrap_or_else(PoisonError::into_inner);
        hashes.retain(|&hash| !self.listed.filter.contains_hash(hash));
        hashes.shrink_to_fit();
        // Once full it stays so: nobody knows which ones found no room.
    }
}

/// The same file with the same list; what was added is not compared.
impl PartialEq for Ids {
    fn eq(&self, other: &Self) -> bool {
        let print = |ids: &Self| (ids.listed.count, ids.listed.print, ids.listed.seed);
        (&self.file, print(self)) == (&other.file, print(other))
    }
}

impl Eq for Ids {}

impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ids").field("file", &self.file).field("listed", &self.listed.count).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listed_is_found_and_most_others_are_not() {
        let text: String = (0..10_000).map(|n| format!("{n}\r\n")).collect();
        let ids = Ids::new("f", format!("\n  a b \n\n{text}").as_bytes(), 7);
        assert_eq!(ids.listed(), 10_001);
        assert!(ids.may_have(b"a b") && (0..10_000).all(|n| ids.may_have(n.to_string().as_bytes())));
        let found = (10_000..110_000).filter(|n| ids.may_have(n.to_string().as_bytes())).count();
        assert!((1..1_500).contains(&found), "{found} of 100,000");
        // About 10 bits each.
        assert!((10_000..15_000).contains(&ids.bytes()), "{}", ids.bytes());
    }

    #[test]
    fn an_empty_list_has_nothing() {
        let ids = Ids::new("f", b"\n \n", 1);
        assert_eq!((ids.listed(), ids.may_have(b"1"), ids.may_have(b"")), (0, false, false));
    }

    #[test]
    fn what_is_added_stays_when_the_list_is_read_again() {
        let first = Ids::new("f", b"1\n2\n", 3);
        assert!(first.add(b"3") && first.add(b"4") && !first.add(b"4") && !first.add(b"1"));
        let mut next = Ids::new("f", b"1\n3\n", 3);
        assert_ne!(first, next);
        next.follow(&first);
        // Not settled yet: the first is still asked by some, and what they add is known to all.
        assert!(first.add(b"5"));
        assert!([&b"1"[..], b"3", b"4", b"5"].iter().all(|id| next.may_have(id)));
        assert!(first.may_have(b"3"));
        next.settle();
        assert_eq!(next.added(), 2);
        assert!([&b"1"[..], b"3", b"4", b"5"].iter().all(|id| next.may_have(id)));
        assert!(!next.may_have(b"2"), "it is listed no more");
    }

    #[test]
    fn when_too_many_are_added_any_may_exist() {
        let ids = Ids::new("f", b"1\n", 3);
        for n in 0..=MOST as u64 + 100_000 {
            ids.add(&n.to_le_bytes());
        }
        assert!(ids.is_full() && ids.may_have(b"none"));
        let mut next = Ids::new("f", b"2\n", 3);
        next.follow(&ids);
        next.settle();
        assert!(next.may_have(b"none"), "it may be one of those that found no room");
    }
}
