//! A connection to a shard, as the engine sees it: what is to be sent on it, and who waits for its replies.

#![expect(clippy::arithmetic_side_effects, reason = "counters of 64 bits, and positions within the outbox")]

use super::asked::Asked;
use super::hot::{Note, Notes};
use super::{LineId, SessionId};
use crate::command::Tag;
use crate::error::Failure;
use crate::metrics::BackendCounts;
use crate::resp::ReplyResume;
use crate::stages::Micros;
use crate::stages::hot::Place;
use std::collections::VecDeque;

/// Which reply a flight fills. A session that is gone has another generation; its replies are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The session.
    pub session: SessionId,
    /// Its generation when it asked.
    pub generation: u32,
    /// The slot in its window.
    pub slot: u32,
}

/// Who waits for a flight's reply. One for each request on a shard's wire, so it is small.
#[derive(Debug, Clone, Copy)]
pub struct Waiter {
    /// Whose reply it is.
    pub ticket: Ticket,
    /// When the request was read, in microseconds; wraps after 71 minutes, so compare by subtraction.
    pub at: u32,
    /// The first of those who joined, or of the gather it is a part of.
    pub link: u32,
    /// Which part of a split request it is; [`Waiter::WHOLE`] if it is all of one.
    pub part: u16,
    /// The command's latency class and name.
    pub tag: Tag,
}

impl Waiter {
    /// `part` of a flight that is a whole request.
    pub const WHOLE: u16 = u16::MAX;
    /// `part` of a flight that is a whole request and takes as long as it likes, which tells nothing.
    pub const UNTIMED: u16 = u16::MAX - 2;
    /// `part` of a flight of the proxy's own, whose reply is for nobody.
    pub const NOBODYS: u16 = u16::MAX - 1;
    /// As [`Waiter::NOBODYS`], and the connection is no good if the shard answers with an error.
    pub const MUST_DO: u16 = u16::MAX - 3;
    /// `part` of an EVALSHA that is tried again if the shard does not know its script; `link` tells which.
    pub const ATTEMPT: u16 = u16::MAX - 4;
    /// `part` of a request that the proxy makes for its own sake and whose reply it looks at; `link` tells for what.
    pub const ERRAND: u16 = u16::MAX - 5;
    /// `part` of a read that was sent to a copy of its key; `link` tells what is known of it.
    pub const COPY: u16 = u16::MAX - 6;
    /// `part` of a read of a hot key that was sent to one of several shards that have it; `link` tells which read.
    pub const SPREAD: u16 = u16::MAX - 7;
    /// `part` of a flight that is a whole MGET, keys of which have leases; `link` tells which.
    pub const LEASED: u16 = u16::MAX - 8;
    /// `part` of a flight that was waited for: all whom its reply is for have joined it, and `at` is when it was sent.
    pub const SHARED: u16 = u16::MAX - 9;
    /// `part` of a copy of a request that was sent to a mirror, or of a read that is made to compare one with it; see
    /// `engine::mirror`.
    pub const MIRROR: u16 = u16::MAX - 10;
    /// The least `part` with a meaning of its own; room is left for more.
    pub const FIRST_SPECIAL: u16 = u16::MAX - 15;
    /// `link` of a flight that nobody joined.
    pub const NOBODY: u32 = u32::MAX;

    /// Whether others may join it.
    #[must_use]
    pub fn is_shareable(&self) -> bool {
        matches!(self.part, Self::WHOLE | Self::SHARED)
    }
}

/// What is agreed with a shard on a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dialect {
    /// The database, as apps count them: 0 is the pool's own.
    pub db: u16,
    /// Whether RESP3 is spoken.
    pub resp3: bool,
}

/// Whose a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// All sessions'.
    Shared,
    /// The proxy's own, for what shards publish.
    Ear,
    /// The proxy's own, on which a shard tells of changes.
    Tracker,
    /// Nobody's at the moment; for one session at a time.
    Free,
    /// This session's, by its number and generation.
    Session(SessionId, u32),
}

/// Whether the connection can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not open and not wanted so far; the next request opens it.
    Idle,
    /// Being opened; requests wait in the outbox.
    Opening,
    /// Open.
    Up,
    /// Failed; being tried again, requests are refused by the health stage.
    Down(Failure),
}

/// A connection's outbox and in-flight queue.
pub struct Line {
    /// Its pool.
    pub pool: u16,
    /// Its shard within the pool.
    pub shard: u16,
    /// Its number within the pool.
    pub number: u32,
    /// What is spoken on it.
    pub dialect: Dialect,
    /// Whose it is.
    pub owner: Owner,
    /// A command on it waits for something to happen: no timeout before its own time is over.
    pub patient: bool,
    /// That time, in microseconds; `None` where it waits without end.
    pub waits: Option<Micros>,
    /// Its newest request is still arriving.
    pub arriving: bool,
    /// It is to change to another socket as soon as nothing is under way ([`super::Engine::hold`]).
    pub moving: bool,
    /// Bytes to come of a reply that is passed on while it arrives; 0 for none.
    pub passing: u64,
    /// Bytes of it that have come.
    pub passed: u64,
    /// When a part of it came last, as [`Waiter::at`].
    pub heard: u32,
    /// Its shard is the pool's no more: what was asked on it is still answered.
    pub retired: bool,
    /// Whether it can be used.
    pub state: State,
    /// Bytes to send; those before `out_at` have left.
    pub outbox: Vec<u8>,
    /// How many bytes of `outbox` have left.
    pub out_at: usize,
    /// Where in `outbox` the first flight begins none of whose bytes have left.
    pub(super) whole_from: usize,
    /// Flights below this serial stood in the outbox of a connection that was lost before.
    pub(super) retried: u64,
    /// Who waits, in the order of the wire.
    pub waiters: VecDeque<Waiter>,
    /// The serial of the front of `waiters`.
    pub base: u64,
    /// Flights below this serial may have left.
    pub left: u64,
    /// When what is on its way left, batch by batch: those below the serial by then, as [`Waiter::at`].
    pub(super) stamps: VecDeque<(u64, u32)>,
    /// Flights below this serial have their stamp.
    pub(super) stamped: u64,
    /// The outbox waits to be flushed.
    pub dirty: bool,
    /// Its socket is full.
    pub blocked: bool,
    /// Sessions that are not read until the outbox has room.
    pub paused: Vec<(SessionId, u32)>,
    /// How far an incomplete reply was skimmed.
    pub resume: ReplyResume,
    /// What is to be done when certain replies come.
    pub(super) notes: Notes,
    /// What the transaction on it will write when it is carried out.
    pub(super) queued_writes: Vec<Place>,
    /// The same of keys that have leases.
    pub(super) queued_leased: Vec<Note>,
    /// What is on its way, where a node of a cluster may redirect it.
    pub(super) asked: Option<Box<Asked>>,
    /// What happened on it since it was last folded.
    pub counts: BackendCounts,
}

/// An outbox with more room than this is let go when it is empty.
const LARGEST_IDLE: usize = 256 * 1024;

impl Line {
    /// A connection that is not open.
    #[must_use]
    pub fn new(pool: u16, shard: u16, number: u32, dialect: Dialect) -> Self {
        Self {
            pool,
            shard,
            number,
            dialect,
            owner: Owner::Shared,
            patient: false,
            waits: None,
            arriving: false,
            moving: false,
            passing: 0,
            passed: 0,
            heard: 0,
            retired: false,
            state: State::Idle,
            outbox: Vec::new(),
            out_at: 0,
            whole_from: 0,
            retried: 0,
            waiters: VecDeque::new(),
            base: 0,
            left: 0,
            stamps: VecDeque::new(),
            stamped: 0,
            dirty: false,
            blocked: false,
            paused: Vec::new(),
            resume: ReplyResume::default(),
            notes: Notes::default(),
            queued_writes: Vec::new(),
            queued_leased: Vec::new(),
            asked: None,
            counts: BackendCounts::default(),
        }
    }

    /// Whether bytes can be offered to its socket at once.
    #[must_use]
    #[inline]
    pub fn is_clear(&self) -> bool {
        self.state == State::Up && !self.blocked && self.queued() == 0
    }

    /// Puts it on the list of those to be flushed, once.
    #[inline]
    pub fn mark(&mut self, id: LineId, dirty: &mut Vec<LineId>) {
        if !self.dirty {
            self.dirty = true;
            dirty.push(id);
        }
    }

    /// The serial that the next flight gets.
    #[must_use]
    #[inline]
    pub fn next_serial(&self) -> u64 {
        self.base + self.waiters.len() as u64
    }

    /// Puts a waiter behind the others; its bytes must be appended in the same order.
    #[inline]
    pub fn expect(&mut self, waiter: Waiter) -> u64 {
        let serial = self.next_serial();
        self.waiters.push_back(waiter);
        self.counts.server_requests += 1;
        serial
    }

    /// The waiter of a flight that can still be joined.
    pub fn joinable(&mut self, serial: u64) -> Option<&mut Waiter> {
        if serial < self.left {
            return None;
        }
        self.waiters.get_mut(usize::try_from(serial.checked_sub(self.base)?).ok()?)
    }

    /// The waiter of a flight that is on its way and no part of whose reply has been passed on.
    pub fn under_way(&mut self, serial: u64) -> Option<&mut Waiter> {
        let place = usize::try_from(serial.checked_sub(self.base)?).ok()?;
        if place == 0 && self.passing > 0 {
            return None;
        }
        self.waiters.get_mut(place)
    }

    /// Bytes that are allocated for what waits to be sent, beyond what any connection keeps.
    #[must_use]
    pub(super) fn held(&self) -> usize {
        self.outbox.capacity().saturating_sub(LARGEST_IDLE).max(self.queued())
    }

    /// Bytes that wait to be sent.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.outbox.len() - self.out_at
    }

    /// Notes that the socket took bytes of the outbox.
    pub fn took(&mut self, count: usize) {
        self.out_at += count;
        self.left = self.next_serial();
        if self.out_at >= self.outbox.len() {
            self.out_at = 0;
            self.outbox.clear();
            if self.outbox.capacity() > LARGEST_IDLE {
                self.outbox = Vec::new();
            }
        } else if self.out_at >= LARGEST_IDLE && self.out_at >= self.outbox.len() / 2 {
            // A shard slower than its apps may never empty it: the part that has left is let go.
            self.outbox.drain(..self.out_at);
            self.out_at = 0;
        }
        self.whole_from = self.outbox.len();
    }

    /// Notes when flights left that have left since the last time: one note for all of them.
    #[inline]
    pub(super) fn stamp(&mut self, now: Micros) {
        if self.left > self.stamped {
            self.stamped = self.left;
            self.stamps.push_back((self.left, now as u32));
        }
    }

    /// How long a flight was on its way that is answered now, in microseconds. Those before it are not asked about any more.
    #[inline]
    pub(super) fn away(&mut self, serial: u64, now: Micros) -> u32 {
        while let Some(&(below, at)) = self.stamps.front() {
            if serial < below {
                return (now as u32).wrapping_sub(at);
            }
            self.stamps.pop_front();
        }
        0
    }

    /// Takes the notes of when flights left, to ask about those that will not be answered.
    pub(super) fn take_stamps(&mut self) -> VecDeque<(u64, u32)> {
        std::mem::take(&mut self.stamps)
    }

    /// Sends nothing more for now if it is about to move and no request is half sent.
    #[inline]
    pub fn hold_if_clear(&mut self) {
        if self.moving && self.is_clear() {
            self.state = State::Opening;
        }
    }

    /// Brings the levels up to date, for folding.
    pub fn measure(&mut self) -> &mut BackendCounts {
        let unsent = self.next_serial().saturating_sub(self.left.max(self.base));
        self.counts.server_connections.set(u64::from(self.state == State::Up));
        self.counts.in_queue.set(unsent);
        self.counts.in_queue_bytes.set(self.queued() as u64);
        self.counts.out_queue.set(self.waiters.len() as u64 - unsent);
        &mut self.counts
    }

    /// Takes everything back: who waited and whether bytes of theirs may have left.
    pub fn drain(&mut self) -> Vec<(Waiter, bool)> {
        let left = self.left;
        let base = self.base;
        let all = self.waiters.drain(..).enumerate().map(|(i, w)| (w, base + (i as u64) < left)).collect::<Vec<_>>();
        self.base += all.len() as u64;
        self.left = self.base;
        self.stamps.clear();
        self.stamped = self.base;
        self.outbox = Vec::new();
        (self.out_at, self.whole_from) = (0, 0);
        self.blocked = false;
        self.passing = 0;
        self.moving = false;
        self.resume = ReplyResume::default();
        if let Some(asked) = &mut self.asked {
            asked.clear();
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Class;

    #[test]
    fn a_waiter_is_small() {
        assert!(size_of::<Waiter>() <= 24, "{}", size_of::<Waiter>());
    }

    #[test]
    fn knows_what_may_have_left() {
        let waiter = Waiter {
            ticket: Ticket { session: 0, generation: 0, slot: 0 },
            at: 0,
            link: Waiter::NOBODY,
            part: Waiter::WHOLE,
            tag: Tag::nameless(Class::Read),
        };
        let mut line = Line::new(0, 0, 0, Dialect::default());
        line.outbox.extend_from_slice(b"abc");
        assert_eq!(line.expect(waiter), 0);
        line.took(1);
        line.outbox.extend_from_slice(b"def");
        assert_eq!(line.expect(waiter), 1);
        assert!(line.joinable(0).is_none() && line.joinable(1).is_some());
        let all: Vec<bool> = line.drain().into_iter().map(|(_, sent)| sent).collect();
        assert_eq!(all, [true, false]);
        assert_eq!((line.queued(), line.next_serial()), (0, 2));
    }

    #[test]
    fn a_stamp_is_of_all_that_left_together() {
        let mut line = Line::new(0, 0, 0, Dialect::default());
        let ticket = Ticket { session: 0, generation: 0, slot: 0 };
        let tag = Tag::nameless(Class::Read);
        let waiter = Waiter { ticket, at: 0, link: Waiter::NOBODY, part: Waiter::WHOLE, tag };
        for batch in [2, 1] {
            for _ in 0..batch {
                line.outbox.push(b'x');
                line.expect(waiter);
            }
            line.took(line.queued());
            line.stamp(if batch == 2 { 100 } else { 250 });
            // Nothing has left since.
            line.stamp(1000);
        }
        assert_eq!((line.away(0, 400), line.away(1, 400), line.away(2, 400)), (300, 300, 150));
        assert_eq!(line.stamps.len(), 1);
        line.drain();
        assert_eq!((line.away(3, 400), line.stamps.len()), (0, 0));
    }

    #[test]
    fn what_has_left_is_let_go_though_the_shard_never_catches_up() {
        let mut line = Line::new(0, 0, 0, Dialect::default());
        for _ in 0..100 {
            line.outbox.extend_from_slice(&[b'x'; 400_000]);
            line.took(line.queued() - 1);
            assert_eq!(line.queued(), 1);
            assert!(line.outbox.len() <= 800_002, "{}", line.outbox.len());
        }
    }
}
