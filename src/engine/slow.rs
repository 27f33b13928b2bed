//! Which requests took long: a short list for each pool, for SLOWLOG.
//!
//! Promises: a request that is not slow costs one comparison, with a duration that is known anyway. Bounded by
//! `slowlog_max_len`; the oldest is forgotten. Of a request there is the command's name, who sent it, and what hotring knows of
//! its way. Deliberately absent: keys and values. They may be secrets, and their bytes are gone when the reply is there.
//!
//! How long a request took is told from when it was read to when its reply was there, all that it waited for in between with
//! it. What may wait as long as it likes (BLPOP, an upload) and what hotring answers by itself is never slow.

#![expect(clippy::arithmetic_side_effects, reason = "counters of 64 bits, and times")]

use super::line::Ticket;
use super::port::Port;
use super::samples::code;
use super::{Engine, LONGEST_TIMEOUT, LineId};
use crate::command::Tag;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// `slowlog_slower_than` where nothing is said, as Redis has it.
pub const SLOWER_THAN: Duration = Duration::from_millis(10);
/// `slowlog_max_len` where nothing is said, as Redis has it.
pub const MAX_LEN: u32 = 128;
/// Most bytes of an app's name that are kept.
const LONGEST_NAME: usize = 128;
/// So many entries back the address of the same session is looked for, before the kernel is asked.
const LOOKED_AT: usize = 64;

/// What is kept, and of which requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Requests that take at least as long are slow; `None`: none is.
    pub slower_than: Option<Duration>,
    /// How many are kept.
    pub max_len: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { slower_than: Some(SLOWER_THAN), max_len: MAX_LEN }
    }
}

impl Config {
    /// From how many microseconds on a request is slow; a number that none reaches where none is to be.
    pub(super) fn bound(&self) -> u32 {
        // A waiter's clock wraps soon after, so this is far enough away.
        let bound = |span: Duration| span.as_micros().min(u128::from(LONGEST_TIMEOUT)) as u32;
        self.slower_than.map_or(u32::MAX, bound)
    }
}

/// A request whose reply has come late.
pub(super) struct Late {
    /// Whose it is.
    pub(super) ticket: Ticket,
    pub(super) tag: Tag,
    /// When it was read.
    pub(super) at: u32,
    /// Where the reply came from; of a split one's parts, the last.
    pub(super) line: LineId,
    /// How many shards had a part in it.
    pub(super) shards: u16,
    /// Whether it shared another's flight.
    pub(super) joined: bool,
    pub(super) reply: ReplySeen,
}

/// What is told of a reply.
pub(super) struct ReplySeen {
    /// The first word of an error.
    pub(super) code: Option<Box<str>>,
    pub(super) bytes: u64,
}

impl From<&[u8]> for ReplySeen {
    fn from(reply: &[u8]) -> Self {
        Self { code: code(reply), bytes: reply.len() as u64 }
    }
}

/// An entry of the list.
#[derive(Debug)]
pub(super) struct Entry {
    /// Never used twice, on whichever worker.
    pub(super) id: u64,
    /// When its reply was there, in seconds since 1970.
    pub(super) time: u64,
    /// In microseconds.
    pub(super) took: u32,
    pub(super) tag: Tag,
    pub(super) shard: u16,
    pub(super) shards: u16,
    pub(super) joined: bool,
    /// The reply was an error.
    pub(super) failed: bool,
    /// The app had left.
    pub(super) gone: bool,
    pub(super) reply_bytes: u64,
    /// The app's, empty where it is not known any more.
    pub(super) address: Arc<str>,
    /// As the app has named itself, the beginning of it.
    pub(super) name: Box<[u8]>,
    /// The session's number and generation.
    session: (u32, u32),
}

/// A pool's list.
#[derive(Debug, Default)]
pub(super) struct SlowLog {
    /// The newest is the last.
    entries: VecDeque<Entry>,
    /// How many there have been.
    count: u64,
}

impl SlowLog {
    /// The newest first.
    pub(super) fn newest(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter().rev()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Forgets all; numbers go on.
    pub(super) fn reset(&mut self) {
        self.entries = VecDeque::new();
    }

    fn keep(&mut self, entry: Entry, most: usize) {
        while self.entries.len() >= most.max(1) {
            self.entries.pop_front();
        }
        if most > 0 {
            self.entries.push_back(entry);
        }
    }
}

impl Engine {
    /// Notes a request that was slow.
    #[cold]
    #[inline(never)]
    pub(super) fn note_slow(&mut self, pool: u16, late: &Late, port: &impl Port) {
        let took = (self.now as u32).wrapping_sub(late.at);
        self.sample_slow(pool, late, port);
        let slow = |pool: &super::Pool| took >= pool.config.slowlog.bound();
        if !self.pools.get(usize::from(pool)).is_some_and(slow) {
            return;
        }
        let trunk = self.trunk_of(late.ticket.session);
        let shard = self.lines.get(late.line as usize).map_or(0, |line| line.shard);
        let first_id = self.ids.checked_rem(self.id_step).unwrap_or(0);
        let Some(pool) = self.pools.get_mut(usize::from(pool)) else { return };
        pool.counts.slow_requests += 1;
        let Ticket { session: id, generation, .. } = late.ticket;
        let session = self.sessions.get(id as usize).filter(|session| session.generation == generation);
        let session = session.and_then(|_| self.sessions.get(trunk as usize));
        let known = pool.slow.newest().take(LOOKED_AT).find(|entry| entry.session == (id, generation));
        let address = match (known, session) {
            (Some(entry), _) => Arc::clone(&entry.address),
            (None, Some(_)) => port.addresses(trunk).0.into(),
            (None, None) => Arc::default(),
        };
        let name = session.map_or(&[][..], |session| session.name());
        let entry = Entry {
            id: pool.slow.count * self.id_step + first_id,
            time: (self.about.epoch + self.now) / 1_000_000,
            took,
            tag: late.tag,
            shard,
            shards: late.shards,
            joined: late.joined,
            failed: late.reply.code.is_some(),
            gone: session.is_none(),
            reply_bytes: late.reply.bytes,
            address,
            name: name.get(..LONGEST_NAME).unwrap_or(name).into(),
            session: (id, generation),
        };
        pool.slow.count += 1;
        pool.slow.keep(entry, pool.config.slowlog.max_len as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_in_reach_of_the_clock() {
        let bound = |slower_than| Config { slower_than, max_len: 1 }.bound();
        assert_eq!(bound(Some(Duration::ZERO)), 0);
        assert_eq!(bound(Some(SLOWER_THAN)), 10_000);
        assert_eq!(bound(Some(Duration::from_secs(1 << 20))), LONGEST_TIMEOUT as u32);
        assert_eq!(bound(None), u32::MAX);
    }
}
