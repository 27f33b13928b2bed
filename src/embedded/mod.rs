//! The in-process cache node behind `servers: embedded:N`: something to shard over with no Redis at hand.
//!
//! Promises: for the commands it has (strings, counters, hashes, keys and their time to live, see `commands`) the reply
//! bytes are those of redis-server 7.0, in RESP2 and RESP3, errors included; a transaction is carried out with nothing of
//! other connections in between, and not at all if a key it watches has changed; time is an argument, so it is tested with virtual
//! time; memory stays within `maxmemory` by evicting, least recently or least frequently used keys first; no request
//! makes it panic.
//!
//! Does not: persist, replicate, script, block, publish, keep more than database 0 or know lists, sets, sorted sets and
//! streams. Those commands get an error that says so. Nor is it fast for its own sake: one lock holds a whole node, which
//! is right for trying things, for tests and for laptops.

mod bits;
mod commands;
mod connection;
mod counters;
mod eviction;
mod expiry;
mod hashes;
mod keys;
mod long_double;
mod number;
mod reply;
mod scan;
mod server;
mod store;
mod strings;
mod transaction;
mod value;
mod watch;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use connection::Connection;
pub use store::{ENTRY_OVERHEAD, EXPIRE_CYCLE_LIMIT};
pub use value::FIELD_OVERHEAD;

use crate::resp::{Limits, Resume, Scan, scan as cut};
use reply::{Refusal, Replies};
use store::Store;

/// What a node is made with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// The most bytes of keys and values a node keeps before it evicts; 0 is no limit. An entry counts as its key and
    /// value plus [`ENTRY_OVERHEAD`], a hash's field as its name and value plus [`FIELD_OVERHEAD`].
    pub maxmemory: u64,
    /// Which keys go first when `maxmemory` is reached.
    pub eviction: Eviction,
}

/// The order in which keys make room for others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Eviction {
    /// The least recently used key first, exactly (Redis' `allkeys-lru` is an approximation of it).
    #[default]
    Lru,
    /// The least frequently used key first, by TinyLFU: a new key is only admitted to a full node when it has been asked
    /// for more often lately than the keys it would replace. So a `SET` may be answered `OK` and the key be gone at once,
    /// until it has been asked for a few times; Redis' `allkeys-lfu` lets new keys live for a while instead.
    Lfu,
}

/// What a node holds and has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Keys held now, those included whose time is up but which nobody has asked for since.
    pub keys: u64,
    /// Bytes held now, counted as for [`Config::maxmemory`].
    pub bytes: u64,
    /// Look-ups by reading commands that found their key.
    pub hits: u64,
    /// Look-ups by reading commands that did not.
    pub misses: u64,
    /// Keys dropped because of `maxmemory`.
    pub evictions: u64,
    /// Keys dropped because their time was up.
    pub expired: u64,
}

/// What a request may be: as much as Redis takes.
const LIMITS: Limits = Limits { arguments: 1024 * 1024, bulk: number::MAX_BULK as u64, request: u32::MAX as u64 };

/// One cache node, to be shared by all workers.
pub struct Node {
    store: Mutex<Store>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").finish_non_exhaustive()
    }
}

impl Node {
    /// An empty node.
    pub fn new(config: &Config) -> Node {
        Node { store: Mutex::new(Store::new(config)) }
    }

    /// Executes every complete request in `requests` (RESP arrays of bulk strings, one after the other), appends one
    /// reply each to `out` and returns how many bytes were consumed: all but an incomplete request at the end. Nothing of
    /// another connection comes in between.
    ///
    /// `connection` is the one they came on, and never serves another node.
    ///
    /// `now_ms` is Unix time in milliseconds. Bytes that are no request are answered with `-ERR Protocol error: ...`, and
    /// as nothing says where the next request would begin, all of `requests` counts as consumed then.
    pub fn serve(&self, connection: &mut Connection, requests: &[u8], now_ms: u64, out: &mut Vec<u8>) -> usize {
        let mut store = self.lock();
        store.set_now(now_ms);
        let mut replies = Replies { bytes: std::mem::take(out), resp3: connection.resp3 };
        let mut consumed = 0;
        while let Some(&first) = requests.get(consumed) {
            let rest = &requests[consumed..];
            match cut(rest, &mut Resume::default(), &LIMITS) {
                Ok(Scan::Request(request)) => {
                    commands::execute(&mut store, connection, &request, &mut replies);
                    consumed += request.wire().len();
                }
                Ok(Scan::Nothing(length)) if first == b'*' => consumed += length,
                Ok(Scan::Incomplete { .. }) if first == b'*' => break,
                Err(error) if first == b'*' => {
                    Refusal::from(format!("ERR {error}")).write(&mut replies);
                    consumed = requests.len();
                }
                // A proxy never sends inline requests.
                _ => {
                    let text = [b"ERR Protocol error: expected '*', got '", &[first][..], b"'"].concat();
                    Refusal::from(text).write(&mut replies);
                    consumed = requests.len();
                }
            }
        }
        *out = replies.bytes;
        consumed
    }

    /// Removes keys whose time is up, at most [`EXPIRE_CYCLE_LIMIT`] of them, and returns how many; call it again at once
    /// when it returns that many. Keys nobody asks for are only ever removed here. `now_ms` is Unix time in milliseconds.
    pub fn expire_cycle(&self, now_ms: u64) -> usize {
        let mut store = self.lock();
        store.set_now(now_ms);
        store.expire_cycle()
    }

    /// What the node holds and has done so far.
    pub fn stats(&self) -> Stats {
        self.lock().stats()
    }

    /// A panic of another thread (there is none to be had from a request) leaves a store that is still a store.
    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
