//! What this worker keeps of a hot key in memory, and when it may be served.
//!
//! An entry is the reply to a read on the shard's *tracked* connection, on which the shard tells of every change of what was
//! read there. It is served only as long as
//! - nothing was heard of the key since, nor was the connection lost (the *term*);
//! - the newest request on that connection that has been answered was sent at most `staleness` ago (the *proof*): a shard
//!   writes replies and news in the order of what happens there, so all that happened before that request has been heard;
//! - no write to the key through this process has been sent since ([`super::Fence`]);
//! - its time to live, counted from before it was read, is not over, nor is [`LONGEST`].
//!
//! So an answer is never older than `staleness`, whatever the network does, and never older than what this process wrote.

use super::fence::Seen;
use crate::resp::write;
use crate::stages::Micros;
use std::rc::Rc;

/// How long an entry is served at most: a key that is read nowhere but here looks idle to its shard, which may evict it.
pub const LONGEST: Micros = 30_000_000;

/// What a key had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// There was no such key.
    Absent,
    /// The bulk string, as the shard worded it.
    Bulk(Rc<[u8]>),
}

impl Value {
    /// Of a reply to GET, in either protocol; nothing where it is an error.
    #[must_use]
    pub fn of(reply: &[u8]) -> Option<Self> {
        match reply.first()? {
            b'_' => Some(Self::Absent),
            b'$' if reply.get(1) == Some(&b'-') => Some(Self::Absent),
            b'$' => Some(Self::Bulk(reply.into())),
            _ => None,
        }
    }

    /// Whether a reply to GET says the same.
    #[must_use]
    pub fn is(&self, reply: &[u8]) -> bool {
        match self {
            Self::Absent => Self::of(reply) == Some(Self::Absent),
            Self::Bulk(bytes) => **bytes == *reply,
        }
    }

    /// Appends the reply to GET that says so.
    #[inline]
    pub fn write(&self, resp3: bool, out: &mut Vec<u8>) {
        match self {
            Self::Absent => write::null(out, resp3),
            Self::Bulk(bytes) => out.extend_from_slice(bytes),
        }
    }

    /// Bytes that it takes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Absent => 0,
            Self::Bulk(bytes) => bytes.len(),
        }
    }

    /// Whether it takes none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// See the module.
#[derive(Debug)]
pub struct Entry {
    /// What is served.
    pub value: Value,
    /// What was known of writes when it was asked for.
    pub(super) seen: Seen,
    /// The term of the tracked connection on which it was.
    pub(super) term: u32,
    /// When it was asked for.
    pub asked: Micros,
    /// When it may no longer be served.
    pub(super) until: Micros,
    /// It was written here and not read: the shard has told of that change, or will, and tells of no further one.
    pub(super) written: bool,
}

/// What is written here, to become an entry when it is answered.
#[derive(Debug)]
pub struct Put {
    pub(super) value: Value,
    pub(super) seen: Seen,
    pub(super) sent: Micros,
    pub(super) number: u64,
}

/// A read on the tracked connection that is on its way, to become an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    pub(super) seen: Seen,
    pub(super) term: u32,
    pub(super) asked: Micros,
    /// Distinguishes it from those that were given up.
    pub number: u64,
    /// By what the engine knows it.
    pub link: u32,
}

/// Whether a shard tells of changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tracking {
    /// There is no connection on which it could.
    #[default]
    Off,
    /// It does.
    On,
    /// It does not, or not to this user: what is read is kept for `staleness` at most.
    Refused,
}

/// What is known of a shard's tracked connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tracked {
    /// Whether the shard tells of changes on it.
    pub tracking: Tracking,
    /// Goes up whenever all that was read on it is worth nothing any more.
    pub term: u32,
    /// When the newest request that has been answered was sent.
    pub proof: Micros,
}

impl Tracked {
    /// Whether all that happened at the shard `staleness` ago and before has been heard of.
    #[must_use]
    #[inline]
    pub fn proves(&self, staleness: Micros, now: Micros) -> bool {
        match self.tracking {
            Tracking::On => now.saturating_sub(self.proof) <= staleness,
            // What is kept is bounded by itself.
            Tracking::Refused => true,
            Tracking::Off => false,
        }
    }
}
