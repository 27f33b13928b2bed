//! What keys had before they expired, to be told to those who would wait for what is being loaded.
//!
//! Promises: it is told for no longer than it is wanted after the key has expired, and no longer than until the key is written or
//! deleted through this process, found to have a value, or its shard tells the worker that has kept this of a change. That the
//! key has expired, and was not deleted, is for that worker to prove.
//!
//! Bounded: by the memory that is given with each; what does not fit is not kept.

use super::table::{Key, MOST_ENTRIES, Order, Table};
use crate::stages::Micros;
use std::sync::Arc;

/// What a key had.
#[derive(Clone, Debug)]
pub struct Expired {
    /// The bulk string, as the shard worded it.
    pub value: Arc<[u8]>,
    /// What there is to compare with, so that no write to the key through this process is overlooked: for whoever tells it, who
    /// knows how.
    pub seen: (u64, u64),
    /// Where the key lives.
    pub shard: u16,
    /// The worker whose tracked connection tells of changes.
    pub worker: u16,
    /// When the key expired, or before.
    pub died: Micros,
    /// When it is to be forgotten.
    pub until: Micros,
    /// The shard may still tell that it has expired.
    pub echo: bool,
}

impl Table {
    /// A key has expired. What it had is kept if all such things take no more than `room` bytes then, which does not
    /// count what is kept of it otherwise.
    pub fn expire(&mut self, key: &Key<'_>, expired: Expired, room: usize, now: Micros) {
        let taken = match self.entries.get(&key.hash) {
            Some(entry) if *entry.name != *key.name => return,
            // It was written while nobody noticed that it had expired.
            Some(entry) if entry.written >= expired.died => return,
            Some(_) => false,
            None => self.entries.len() >= MOST_ENTRIES,
        };
        if taken || expired.until <= now || self.expired_bytes.saturating_add(expired.value.len()) > room {
            return;
        }
        self.enter(key);
        self.forget_expired(key.hash);
        if let Some(entry) = self.entries.get_mut(&key.hash) {
            self.expired_bytes = self.expired_bytes.saturating_add(expired.value.len());
            entry.expired = Some(expired);
        }
        self.settle(key.hash);
    }

    /// What a key had, if it may still be told.
    #[must_use]
    pub fn expired(&self, hash: u64, now: Micros) -> Option<&Expired> {
        self.entries.get(&hash)?.expired.as_ref().filter(|expired| now < expired.until)
    }

    /// It is not to be told any more.
    pub fn forget_expired(&mut self, hash: u64) {
        if let Some(expired) = self.entries.get_mut(&hash).and_then(|entry| entry.expired.take()) {
            self.expired_bytes = self.expired_bytes.saturating_sub(expired.value.len());
        }
    }

    /// A shard tells a worker that a key has changed: once it may be that it has expired.
    pub fn heard(&mut self, hash: u64, worker: u16) {
        let Some(expired) = self.entries.get_mut(&hash).and_then(|entry| entry.expired.as_mut()) else { return };
        if expired.worker == worker && !std::mem::take(&mut expired.echo) {
            self.forget_expired(hash);
        }
    }

    /// Whatever that worker is told of a key from now on is no word of its having expired.
    pub fn heard_all(&mut self, hash: u64, worker: u16) {
        let expired = self.entries.get_mut(&hash).and_then(|entry| entry.expired.as_mut());
        if let Some(expired) = expired.filter(|expired| expired.worker == worker) {
            expired.echo = false;
        }
    }

    /// A shard tells a worker of no changes any more.
    pub fn heard_nothing(&mut self, shard: u16, worker: u16) {
        if self.expired_bytes == 0 {
            return;
        }
        let its = |entry: &super::table::Entry| {
            entry.expired.as_ref().is_some_and(|expired| (expired.shard, expired.worker) == (shard, worker))
        };
        for hash in self.entries.iter().filter(|(_, entry)| its(entry)).map(|(&hash, _)| hash).collect::<Vec<_>>() {
            self.forget_expired(hash);
        }
    }

    /// Another process loads the key: those who wait for that here need not.
    pub(super) fn offer_expired(&mut self, hash: u64, now: Micros) {
        if self.expired(hash, now).is_none() {
            return;
        }
        let waits = self.entries.get(&hash).map(|entry| entry.waits.clone()).unwrap_or_default();
        for wait in waits {
            self.order(wait.conn.worker, Order::Expired { link: wait.link, id: wait.id });
        }
    }
}
