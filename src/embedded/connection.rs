//! What a node remembers of one connection: the protocol, the open transaction, and what it watches.
//!
//! Bounded: [`MOST_QUEUED`] bytes of a transaction, [`MOST_WATCHED`] bytes of names. Beyond, the command is refused, and the
//! transaction with it.

use super::commands::Outcome;
use super::reply::{self, Refusal, Replies};
use super::store::Store;
use super::watch::Flag;
use bytes::Bytes;

/// Most bytes of requests that a transaction may have.
const MOST_QUEUED: usize = 64 << 20;
/// Most bytes that the names of watched keys may have, each counted with 64 bytes besides.
const MOST_WATCHED: usize = 1 << 20;
/// What a watched key is counted with beside its name.
const WATCH_OVERHEAD: usize = 64;

/// A node's side of one connection. Dropping it forgets all.
#[derive(Debug, Default)]
pub struct Connection {
    pub(super) resp3: bool,
    queue: Option<Queue>,
    watch: Option<Watch>,
}

/// An open transaction.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// The requests, one behind the other.
    pub(super) requests: Vec<u8>,
    /// How many.
    pub(super) count: usize,
    /// One of them was refused.
    pub(super) spoilt: bool,
}

/// What is watched.
#[derive(Debug, Default)]
struct Watch {
    keys: Vec<Bytes>,
    size: usize,
    changed: Flag,
}

impl Connection {
    /// A connection on which RESP3 is spoken, or RESP2.
    #[must_use]
    pub fn new(resp3: bool) -> Connection {
        Connection { resp3, ..Connection::default() }
    }

    /// Whether a command becomes part of a transaction, rather than being executed at once.
    pub(super) fn queues(&self, name: &str) -> bool {
        self.queue.is_some() && !matches!(name, "multi" | "exec" | "discard" | "watch")
    }

    /// Puts a request into the open transaction.
    pub(super) fn queue(&mut self, request: &[u8], out: &mut Replies) -> Outcome {
        let Some(queue) = &mut self.queue else { return Ok(()) };
        if queue.requests.len() + request.len() > MOST_QUEUED {
            queue.spoilt = true;
            return Err(Refusal::text("ERR the embedded node takes transactions of up to 64 MiB"));
        }
        // What is refused anyway need not be kept.
        if !queue.spoilt {
            queue.requests.extend_from_slice(request);
            queue.count += 1;
        }
        reply::status(out, "QUEUED");
        Ok(())
    }

    /// Opens a transaction; false if there is one.
    pub(super) fn begin(&mut self) -> bool {
        let free = self.queue.is_none();
        self.queue.get_or_insert_default();
        free
    }

    /// Whether a transaction is open.
    pub(super) fn is_in_transaction(&self) -> bool {
        self.queue.is_some()
    }

    /// A command of the open transaction was refused, so that EXEC will be.
    pub(super) fn spoil(&mut self) {
        if let Some(queue) = &mut self.queue {
            queue.spoilt = true;
            queue.requests = Vec::new();
        }
    }

    /// Ends the open transaction, with all that was queued, and the watching.
    pub(super) fn leave(&mut self) -> Option<Queue> {
        self.watch = None;
        self.queue.take()
    }

    /// Ends the watching.
    pub(super) fn unwatch(&mut self) {
        self.watch = None;
    }

    /// Watches a key too.
    pub(super) fn watch(&mut self, store: &mut Store, key: &[u8]) -> Outcome {
        let watch = self.watch.get_or_insert_default();
        if watch.keys.iter().any(|other| other == key) {
            return Ok(());
        }
        let size = watch.size + key.len() + WATCH_OVERHEAD;
        if size > MOST_WATCHED {
            return Err(Refusal::text("ERR the embedded node watches names of up to 1 MiB for a connection"));
        }
        watch.size = size;
        // A key whose time is up is gone already, and that it goes is no change.
        store.peek(key);
        let key = Bytes::copy_from_slice(key);
        store.watchers().add(&key, &watch.changed);
        watch.keys.push(key);
        Ok(())
    }

    /// Whether a watched key has changed, or its time is up.
    pub(super) fn has_changed(&self, store: &Store) -> bool {
        let changed = |watch: &Watch| watch.changed.is_raised() || watch.keys.iter().any(|key| store.is_due(key));
        self.watch.as_ref().is_some_and(changed)
    }
}
