//! Who has come to load a key and whether it was written or deleted by somebody else since: then what is loaded is older than
//! that, and is not to be written.
//!
//! Promises: only a connection that held the key's lease is ever kept from writing it, once, and only as long as
//! it has not asked for the key again. Does not promise to know: a connection is forgotten after `lease_term`, and of more than
//! [`MOST`] of a key the first. A write that leaves no note of its key (a script that does not declare it) is not known.

use super::table::{Conn, Entry, Table, Tenure};
use crate::stages::Micros;

/// Connections of a key that are remembered.
const MOST: usize = 16;

/// A connection that has come to load a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loader {
    pub(super) conn: Conn,
    pub(super) until: Micros,
    /// Somebody else has written the key since.
    pub(super) overtaken: bool,
}

impl Entry {
    pub(super) fn begins_to_load(&mut self, conn: Conn, now: Micros) {
        if !self.guards {
            return;
        }
        self.loaders.retain(|loader| loader.conn != conn && loader.until > now);
        if self.loaders.len() >= MOST {
            self.loaders.remove(0);
        }
        self.loaders.push(Loader { conn, until: now.saturating_add(self.longest_term), overtaken: false });
    }
}

impl Table {
    /// A write that makes or deletes a key is about to be sent, or was carried out: a connection's, or anybody's.
    pub fn overtakes(&mut self, hash: u64, by: Option<Conn>) {
        let Some(entry) = self.entries.get_mut(&hash) else { return };
        entry.loaders.retain(|loader| Some(loader.conn) != by);
        entry.loaders.iter_mut().for_each(|loader| loader.overtaken = true);
    }

    /// A connection has read what a key has.
    pub fn learnt(&mut self, hash: u64, conn: Conn) {
        if let Some(entry) = self.entries.get_mut(&hash) {
            entry.loaders.retain(|loader| loader.conn != conn);
        }
    }

    /// Whether what a connection is about to write is older than what somebody else has written since; counts once.
    pub fn is_overtaken(&mut self, hash: u64, conn: Conn, now: Micros) -> bool {
        let Some(entry) = self.entries.get_mut(&hash) else { return false };
        let its = |loader: &Loader| loader.conn == conn && loader.overtaken && loader.until > now;
        let Some(at) = entry.loaders.iter().position(its) else { return false };
        entry.loaders.swap_remove(at);
        self.settle(hash);
        true
    }

    /// The connection that loads a key has been overtaken: another one is to load it, if anyone waits.
    pub(super) fn ends_overtaken(&mut self, hash: u64, now: Micros) {
        let Some(entry) = self.entries.get(&hash) else { return };
        if let Tenure::Held { by, .. } = entry.tenure
            && entry.loaders.iter().any(|loader| loader.conn == by && loader.overtaken)
        {
            self.vacate(hash, now);
        }
    }
}
