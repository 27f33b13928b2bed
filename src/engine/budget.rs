//! One memory budget for the whole process: what apps and shards make hotring hold.
//!
//! Counted: replies that apps have not read (outputs, replies kept for their turn, parts of split ones), requests that are
//! not whole yet, outboxes, and the buffers of replies that are being read, as far as they are longer than an idle
//! connection's. Not counted: what does not grow with what others do (sockets, tables, the worker's spare buffers), and
//! embedded nodes, which have a `maxmemory` of their own.
//!
//! All workers share one [`Budget`]. None touches it for a request: a worker sums up what it holds anyway as it ticks, and
//! tells the difference; only the buffer of an incomplete request, which grows by up to 256 KiB at once, is told as it grows.
//! So the budget can be exceeded by what arrives within a tick (10 ms).
//!
//! What becomes of whom as it fills, the first that helps first:
//!
//! 1. from [`TIGHT`] on, sessions that hold more than their fair share (an equal part of the budget for each open session) are
//!    not read, until three quarters are not used up any more;
//! 2. all of it used up: new requests are refused, nothing of them is sent; replies under way are still delivered; new
//!    connections are refused;
//! 3. and the session that holds most is closed, one a tick over all workers, as Redis' `maxmemory-clients` does it.
//!
//! Whatever is not read for this reason and holds an incomplete request is closed after `request_timeout`, so that what is
//! held does not stand in its own way for ever.

#![expect(clippy::arithmetic_side_effects, reason = "sums of what is in memory, and counters of 64 bits")]

use super::apps::mark;
use super::deadlines::Why;
use super::line::Line;
use super::port::Port;
use super::{Engine, SessionId};
use crate::command::{Need, Spec, Treatment};
use crate::error::{Cause, OUT_OF_MEMORY};
use crate::metrics::Full;
use crate::resp::{Request, write};
use crate::stages::Micros;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Parts of a hundred of the budget from which on a session with more than its share is not read.
pub const TIGHT: u64 = 80;
/// Below so many of a hundred it is read again.
const EASE: u64 = 75;
/// Above so many of a hundred it is looked at closely who holds what.
const CLOSE: u64 = 50;
/// How often, in microseconds, as long as it is not tight.
const LOOK: Micros = 100_000;
/// The least that is a fair share: what a session takes that asks for ordinary things.
const LEAST_SHARE: u64 = 64 * 1024;
/// From so many bytes on a session is worth to be closed for what it holds.
const LEAST_CLOSED: u64 = 16 * 1024;
/// No bound.
const ENDLESS: u64 = u64::MAX;

/// The process' account. See the module.
#[derive(Debug)]
pub struct Budget {
    most: AtomicU64,
    held: AtomicU64,
    sessions: AtomicU64,
    /// For each worker what its session holds that holds most, as long as all is used up.
    largest: Box<[AtomicU64]>,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(None, 1)
    }
}

impl Budget {
    /// Of so many bytes (`None`: no bound) for so many workers.
    #[must_use]
    pub fn new(most: Option<u64>, workers: usize) -> Self {
        Self {
            most: AtomicU64::new(most.unwrap_or(ENDLESS)),
            held: AtomicU64::new(0),
            sessions: AtomicU64::new(0),
            largest: (0..workers.max(1)).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Replaces the bound while workers run.
    pub fn set(&self, most: Option<u64>) {
        self.most.store(most.unwrap_or(ENDLESS), Ordering::Relaxed);
    }

    /// The bound in bytes; `None` is none.
    #[must_use]
    pub fn most(&self) -> Option<u64> {
        Some(self.most.load(Ordering::Relaxed)).filter(|&most| most != ENDLESS)
    }

    /// Bytes that all workers hold.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether all of it is used up.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.held() >= self.most.load(Ordering::Relaxed)
    }

    /// Whether more than so many of a hundred parts are used up.
    fn is_above(&self, parts: u64) -> bool {
        self.most().is_some_and(|most| self.held() >= most / 100 * parts)
    }

    /// What each session may hold where it is tight.
    fn share(&self) -> u64 {
        let sessions = self.sessions.load(Ordering::Relaxed).max(1);
        (self.most.load(Ordering::Relaxed) / sessions).max(LEAST_SHARE)
    }
}

/// Replaces what was told of a number before; a sum of many such is never below 0 for long, since each takes back its own.
fn tell(sum: &AtomicU64, told: &mut u64, now: u64) {
    if now > *told {
        sum.fetch_add(now - *told, Ordering::Relaxed);
    } else if now < *told {
        sum.fetch_sub(*told - now, Ordering::Relaxed);
    }
    *told = now;
}

/// A worker's part in it.
#[derive(Debug, Default)]
pub(super) struct Share {
    budget: Arc<Budget>,
    /// The worker's number.
    worker: usize,
    told: u64,
    told_sessions: u64,
    /// Bytes of buffers of incomplete requests.
    tails: u64,
    /// Bytes of buffers that replies are read into, beyond those of idle connections.
    replies: u64,
    /// Bytes that outputs have allocated beyond what waits in them, as it was looked at last.
    slack: u64,
    looked: Micros,
    /// All is used up: new requests are refused.
    pub(super) full: bool,
    /// Sessions that are not read.
    parked: Vec<(SessionId, u32)>,
}

impl Share {
    /// Whether a session is not read because it holds too much.
    pub(super) fn has_parked(&self, id: SessionId, generation: u32) -> bool {
        self.parked.contains(&(id, generation))
    }

    /// The buffer of an incomplete request is gone with its session.
    pub(super) fn let_go(&mut self, tail: u32) {
        self.tails -= u64::from(tail);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        tell(&self.budget.held, &mut self.told, 0);
        tell(&self.budget.sessions, &mut self.told_sessions, 0);
    }
}

impl Engine {
    /// Takes part in a budget, as this worker.
    pub fn budget_with(&mut self, budget: Arc<Budget>, worker: usize) {
        self.share = Share::default();
        (self.share.budget, self.share.worker) = (budget, worker);
    }

    /// The budget it takes part in.
    #[must_use]
    pub fn budget(&self) -> &Arc<Budget> {
        &self.share.budget
    }

    /// Bytes that this worker holds, as it told last.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.share.told
    }

    /// The buffer of a session's incomplete request has so many bytes now; 0 is none any more. Any change is a sign of life.
    ///
    /// Returns whether the session may be read on; if not it is woken when it may.
    pub fn request_buffer(&mut self, id: SessionId, bytes: usize) -> bool {
        let now = self.now;
        let Some(watch) = self.watches.get_mut(id as usize) else { return true };
        let tail = u32::try_from(bytes).unwrap_or(u32::MAX);
        let before = std::mem::replace(&mut watch.tail, tail);
        if self.sessions.get(id as usize).is_some_and(|session| session.authenticated) {
            watch.seen(now);
        }
        self.share.tails = self.share.tails + u64::from(tail) - u64::from(before);
        if tail > before {
            // It may grow by gigabytes between two ticks.
            let sum = self.share.told + u64::from(tail - before);
            let sessions = self.sessions.len() as u64;
            let share = &mut self.share;
            tell(&share.budget.held, &mut share.told, sum);
            // So may their number, on which depends what is fair.
            tell(&share.budget.sessions, &mut share.told_sessions, sessions);
            if self.share.budget.is_above(TIGHT) && u64::from(tail) > self.share.budget.share() {
                return !self.park(id);
            }
        }
        true
    }

    /// The buffer that a connection's replies are read into went from so many bytes to so many.
    pub fn reply_buffer(&mut self, from: usize, to: usize) {
        self.share.replies = (self.share.replies + to as u64).saturating_sub(from as u64);
    }

    /// Sums up what this worker holds, tells the others, and does what there is to do about it.
    pub(super) fn weigh(&mut self, port: &mut impl Port) {
        let outputs: u64 = self.pools.iter().map(|pool| pool.counts.client_output_bytes.get()).sum();
        let outboxes: usize = self.lines.iter().map(Line::held).sum();
        let sessions = self.sessions.len() as u64;
        let share = &mut self.share;
        let own = outputs + outboxes as u64 + share.tails + share.replies + share.slack;
        tell(&share.budget.held, &mut share.told, own);
        tell(&share.budget.sessions, &mut share.told_sessions, sessions);
        share.full = share.budget.is_full();
        if !share.budget.is_above(EASE) && !share.parked.is_empty() {
            let parked = std::mem::take(&mut share.parked);
            self.resume(&parked, port);
        }
        let share = &mut self.share;
        let tight = share.budget.is_above(TIGHT);
        if tight || (share.budget.is_above(CLOSE) && self.now.saturating_sub(share.looked) >= LOOK) {
            share.looked = self.now;
            self.look_who(tight);
        } else if !share.budget.is_above(CLOSE) {
            share.slack = 0;
        }
    }

    /// Walks over all sessions: parks those that hold too much, and closes the one that holds most if there is no more room.
    #[cold]
    fn look_who(&mut self, tight: bool) {
        let most = self.share.budget.share();
        let (mut slack, mut largest, mut greedy) = (0, (0, None), Vec::new());
        for (id, session) in &self.sessions {
            let tail = self.watches.get(id).map_or(0, |watch| watch.tail);
            let beyond = session.output.capacity().saturating_sub(session.output.len() - session.sent()) as u64;
            slack += beyond;
            let holds = session.waiting() as u64 + beyond + u64::from(tail);
            if holds > largest.0 && !session.killed {
                largest = (holds, Some(id as SessionId));
            }
            if tight && holds > most && !session.parked {
                greedy.push(id as SessionId);
            }
        }
        self.share.slack = slack;
        for id in greedy {
            self.park(id);
        }
        let budget = &self.share.budget;
        let full = budget.is_full();
        let own = if full { largest.0 } else { 0 };
        if let Some(told) = budget.largest.get(self.share.worker) {
            told.store(own, Ordering::Relaxed);
        }
        let greatest = budget.largest.iter().all(|other| other.load(Ordering::Relaxed) <= own);
        if let (true, true, Some(id)) = (own >= LEAST_CLOSED, greatest, largest.1) {
            if let Some(told) = budget.largest.get(self.share.worker) {
                told.store(0, Ordering::Relaxed);
            }
            self.close_for(id, Why::Memory);
        }
    }

    /// Does not read a session until there is room again. Returns whether that is so now.
    fn park(&mut self, id: SessionId) -> bool {
        let Some(session) = self.sessions.get_mut(id as usize).filter(|session| !session.parked) else { return false };
        session.parked = true;
        session.paused = true;
        self.share.parked.push((id, session.generation));
        if let Some(pool) = self.pools.get_mut(usize::from(session.pool)) {
            pool.counts.client_pauses[Full::Memory] += 1;
        }
        // Whoever holds it up by its flags is looked at when they are next flushed.
        mark(&mut self.dirty_sessions, session, id);
        true
    }

    /// Whether a request would add to what is held while there is no room; it has been refused then.
    #[cold]
    pub(super) fn has_no_room(
        &mut self,
        id: SessionId,
        spec: &'static Spec,
        request: &Request<'_>,
        port: &mut impl Port,
    ) -> bool {
        let adds = match self.treatment(id, spec, request) {
            Treatment::Local(_) | Treatment::Refuse(_) | Treatment::Own(Need::Transaction) => false,
            Treatment::Own(Need::Subscription) => !spec.name.contains("unsub"),
            _ => true,
        };
        if adds {
            self.no_room(id);
            // What was refused spoils a transaction, as Redis has it.
            self.spoil(id, port);
        }
        adds
    }

    /// Answers that there is no room.
    #[cold]
    pub(super) fn no_room(&mut self, id: SessionId) {
        self.answer_with(id, Some(Cause::Memory), |out| write::error(out, OUT_OF_MEMORY.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_takes_back_what_it_told() {
        let budget = Arc::new(Budget::new(Some(1000), 2));
        let mut engines: Vec<Engine> = (0..2).map(|_| Engine::new(1, 1)).collect();
        for (worker, engine) in engines.iter_mut().enumerate() {
            engine.budget_with(Arc::clone(&budget), worker);
            engine.reply_buffer(0, 500);
            engine.weigh(&mut Nowhere);
        }
        assert!(budget.held() == 1000 && budget.is_full() && budget.is_above(TIGHT));
        engines.pop();
        assert_eq!(budget.held(), 500);
        assert!(!budget.is_full() && !budget.is_above(TIGHT) && budget.is_above(CLOSE));
        budget.set(None);
        assert!(!budget.is_above(1) && budget.most().is_none());
    }

    struct Nowhere;

    impl Port for Nowhere {
        fn to_app(&mut self, _: SessionId, _: &[u8]) -> super::super::port::Taken {
            super::super::port::Taken::Gone
        }

        fn to_shard(&mut self, _: u32, _: &[u8]) -> super::super::port::Taken {
            super::super::port::Taken::Gone
        }

        fn wake(&mut self, _: SessionId) {}

        fn open(&mut self, _: u32) {}
    }
}
