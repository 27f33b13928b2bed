//! Sessions that stand still: idle, half-sent, without a password, or without reading their replies.
//!
//! There is no timer for a session. The ticker walks over all of them about once a second, a slice at each tick, so that a
//! tick costs the same however long ago the last one was; a deadline is met up to a second late. What the walk needs of a
//! session stands in a list of its own, eight bytes each.
//!
//! Promises: who waits for hotring or for a shard is never closed here, only who lets hotring wait.

#![expect(clippy::arithmetic_side_effects, reason = "numbers of sessions, and times that are no longer than a round")]

use super::apps::mark;
use super::special::mode;
use super::window::Session;
use super::{Engine, SessionId};
pub(super) use crate::metrics::Closed as Why;
use crate::stages::Micros;
use std::collections::HashMap;

/// How long a round over all sessions takes, in microseconds.
const ROUND: Micros = 1_000_000;
/// The clock of a [`Watch`] counts in steps of so many bits of a microsecond: 65 ms, which wraps after years.
const STEP: u32 = 16;

/// How long a pool's sessions may stand still, in microseconds; `None` is for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deadlines {
    /// Without a request and without waiting for anything (`client_idle_timeout`).
    pub idle: Option<Micros>,
    /// In the midst of a request (`request_timeout`).
    pub request: Option<Micros>,
    /// Before the password, if there is one (`auth_timeout`).
    pub auth: Option<Micros>,
    /// With so many bytes of unread replies (`max_output_soft`).
    pub unread: Option<Soft>,
    /// The same for those that listen to channels (`max_output_pubsub`).
    pub unread_pubsub: Option<Soft>,
}

/// A bound that may be exceeded for some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Soft {
    /// Bytes.
    pub bytes: u64,
    /// For so long, in microseconds.
    pub span: Micros,
}

/// What is known of a session for the walk.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Watch {
    /// When it last sent or took something.
    heard: u32,
    /// Bytes of the buffer of its incomplete request.
    pub(super) tail: u32,
}

impl Watch {
    /// Of a session that connects.
    pub(super) fn new(now: Micros) -> Self {
        Self { heard: (now >> STEP) as u32, tail: 0 }
    }

    /// It has sent or taken something.
    #[inline]
    pub(super) fn seen(&mut self, now: Micros) {
        self.heard = (now >> STEP) as u32;
    }

    fn since(self, now: Micros) -> Micros {
        u64::from(((now >> STEP) as u32).wrapping_sub(self.heard)) << STEP
    }
}

/// Where the walk is.
#[derive(Debug, Default)]
pub(super) struct Walk {
    at: usize,
    last: Micros,
    /// Sessions with more unread than they should have, by their generation and since when.
    unread: HashMap<SessionId, (u32, Micros)>,
}

impl Walk {
    /// A session is gone.
    pub(super) fn forget(&mut self, id: SessionId) {
        if !self.unread.is_empty() {
            self.unread.remove(&id);
        }
    }
}

impl Engine {
    /// Looks at the next slice of sessions.
    pub(super) fn look_at_sessions(&mut self) {
        let all = self.watches.len();
        let passed = self.now.saturating_sub(self.walk.last).min(ROUND);
        // At least one, so that a round ends however short the ticks are.
        let count = (all as u64 * passed / ROUND + 1).min(all as u64);
        self.walk.last = self.now;
        for _ in 0..count {
            if self.walk.at >= all {
                self.walk.at = 0;
            }
            let id = self.walk.at as SessionId;
            self.walk.at += 1;
            if let Some(why) = self.overdue(id) {
                self.close_for(id, why);
            }
        }
    }

    /// Why a session is to be closed, if it is.
    fn overdue(&mut self, id: SessionId) -> Option<Why> {
        let session = self.sessions.get(id as usize).filter(|session| !session.killed && !session.is_branch())?;
        let deadlines = &self.pools.get(usize::from(session.pool))?.config.deadlines;
        let watch = self.watches.get_mut(id as usize)?;
        let now = self.now;
        let over = |deadline: Option<Micros>, watch: Watch| deadline.is_some_and(|span| watch.since(now) > span);
        if !session.authenticated && over(deadlines.auth, *watch) {
            return Some(Why::NoAuth);
        }
        let listens = session.mode & mode::LISTENING != 0;
        if let Some(soft) = if listens { deadlines.unread_pubsub } else { deadlines.unread } {
            if session.waiting() as u64 <= soft.bytes {
                self.walk.forget(id);
            } else {
                let (generation, since) = *self.walk.unread.entry(id).or_insert((session.generation, now));
                if generation != session.generation {
                    self.walk.unread.insert(id, (session.generation, now));
                } else if now.saturating_sub(since) > soft.span {
                    return Some(Why::Unread);
                }
            }
        }
        if watch.tail > 0 || session.mode & mode::STREAMING != 0 {
            if session.paused && !self.share.has_parked(id, session.generation) {
                // It is hotring that does not go on.
                watch.seen(now);
            }
            return over(deadlines.request, *watch).then_some(Why::HalfSent);
        }
        let idle = session.is_at_rest() && over(deadlines.idle, *watch);
        (idle && !self.special_there(id).is_some_and(|special| special.multi)).then_some(Why::Idle)
    }

    /// Ends a session at once.
    #[cold]
    pub(super) fn close_for(&mut self, id: SessionId, why: Why) {
        let Some(session) = self.sessions.get_mut(id as usize) else { return };
        session.killed = true;
        mark(&mut self.dirty_sessions, session, id);
        if let Some(pool) = self.pools.get_mut(usize::from(session.pool)) {
            pool.counts.client_closed[why] += 1;
        }
    }
}

impl Session {
    /// Whether it asks for nothing and waits for nothing. As in Redis, who listens to channels or blocks is not idle; nor
    /// is, here, who is within a transaction, or has asked for what may not begin yet and so has no slot.
    fn is_at_rest(&self) -> bool {
        let busy = self.special.as_ref().is_some_and(|special| special.blocked || special.multi);
        let waits = self.paused && self.mode & mode::WAITING != 0;
        self.authenticated && self.is_done() && self.mode & mode::LISTENING == 0 && !busy && !waits
    }
}
