//! Terms that begin while the key still has a value: who is told before it expires that it is not there.
//!
//! The value is still found then, and expires in the term. Neither says that anybody has written the key.

use super::table::{Conn, Entry, Key, MOST_ENTRIES, Table, Tenure};
use crate::stages::Micros;

/// When a value that was there when its term began expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// Not before.
    pub after: Micros,
    /// Not later, as far as that can be known here.
    pub before: Micros,
}

impl Table {
    /// Whether a connection may be told now that a key is not there which is; if so, for how long it would be waited for.
    #[must_use]
    pub fn may_refresh(&self, key: &Key<'_>, conn: Conn, now: Micros) -> Option<Micros> {
        let free = match self.entries.get(&key.hash) {
            Some(entry) => {
                let idle = entry.tenure == Tenure::Vacant && entry.waits.is_empty() && entry.reads.is_empty();
                idle && *entry.name == *key.name
            }
            None => self.entries.len() < MOST_ENTRIES,
        };
        // Who holds waits for nothing: what it waits for would be loaded twice.
        let waits = self.ties.get(&conn).is_some_and(|ties| !ties.waits.is_empty());
        let may = free && !waits && !self.barred.has(key.hash, now);
        may.then(|| self.pace(key.rule).term(key.wanted.longest_term))
    }

    /// A connection is told so, of a key that was asked for at this time. Its lease key was claimed by this worker, if there is
    /// one. Returns false, and does nothing, if that may not be any more.
    pub fn refresh(
        &mut self,
        key: &Key<'_>,
        (conn, claimed): (Conn, Option<u16>),
        (asked, expiry): (Micros, Expiry),
        now: Micros,
    ) -> bool {
        if self.may_refresh(key, conn, now).is_none() || self.entries.get(&key.hash).is_some_and(|e| e.written >= asked)
        {
            return false;
        }
        self.enter(key);
        self.hold(key.hash, conn, claimed, now);
        self.dies(key.hash, expiry);
        true
    }

    /// Another process has told one of its clients so.
    pub fn refreshed_elsewhere(&mut self, key: &Key<'_>, worker: u16, (asked, expiry): (Micros, Expiry), now: Micros) {
        let is_over =
            |entry: &Entry| entry.tenure != Tenure::Vacant || entry.written >= asked || *entry.name != *key.name;
        if self.entries.get(&key.hash).map_or(self.entries.len() >= MOST_ENTRIES, is_over) {
            return;
        }
        self.enter(key);
        if let Some(entry) = self.entries.get_mut(&key.hash) {
            entry.tenure = Tenure::Elsewhere { worker, since: now, until: now.saturating_add(entry.longest_term) };
        }
        self.dies(key.hash, expiry);
    }

    pub(super) fn enter(&mut self, key: &Key<'_>) {
        self.entries.entry(key.hash).or_insert_with(|| {
            self.sieve.add(key.hash);
            Entry::new(key)
        });
    }

    fn dies(&mut self, hash: u64, expiry: Expiry) {
        if let Some(entry) = self.entries.get_mut(&hash) {
            entry.herd = 0;
            entry.expiry = Some(expiry);
        }
        self.settle(hash);
    }

    /// The shard tells that a key with nobody waiting has changed. Returns whether that is because it expired, as was to be
    /// expected: then nobody has written it.
    pub(super) fn has_expired(&mut self, hash: u64, now: Micros) -> bool {
        let Some(entry) = self.entries.get_mut(&hash) else { return false };
        let expired = entry.expiry.is_some_and(|expiry| now >= expiry.after);
        if expired && matches!(entry.tenure, Tenure::Elsewhere { .. }) {
            // The next who finds it missing asks whether it is still being loaded, and so hears when it is.
            self.vacate(hash, now);
        }
        expired
    }
}
