//! Sessions whose keys live in several pools (`routes`). What a session is to another pool is a *branch* of it: a session
//! there, without an app of its own, whose replies go into the slots of the session that it is a branch of, the *trunk*.
//!
//! ```text
//! ways.rs   where a request goes, and when it may
//! lead.rs   requests on their way there, transactions and split requests with them
//! ```
//!
//! A pool that is led to knows nothing of that: its shards, topology, times, leases, hot keys, limits and metrics are what
//! they are for apps of its own. What is about an app (its user, its names, its deadlines, its window) is the trunk's.
//!
//! Promises: replies leave in the order of the trunk's requests. A key has one way as long as the configuration is the same,
//! so that all of a session's requests for it take the same branch, in their order. A transaction, a watch or a blocking
//! command has one branch; meanwhile what does not go there waits, or is refused. A request that has to be split over pools
//! is carried alone: after the replies to all before it and before all behind it.
//! Bounded: a session has a branch for each pool at the most, each with as many open requests as its trunk's window.

#![expect(clippy::arithmetic_side_effects, reason = "counters of 64 bits, and numbers of sessions")]

mod lead;
mod ways;

pub(super) use ways::{Told, Way};

use super::deadlines::Watch;
use super::line::Ticket;
use super::port::Port;
use super::special::{Special, mode};
use super::window::Session;
use super::{Engine, SessionId};
use std::collections::{HashMap, HashSet, VecDeque};

/// Which pools a pool's routes lead to, by their numbers; as many as there are routes.
#[derive(Debug, Default)]
pub(super) struct Here {
    to: Vec<u16>,
}

/// The branches of a trunk.
#[derive(Debug, Default)]
pub struct Branches {
    /// By pool.
    all: Vec<(u16, SessionId)>,
    /// What is open is one request that was split over them.
    split: bool,
    /// Those that take their parts of a split request that has yet to begin, as long as [`Engine::changes`] says so.
    entered: (u32, Vec<SessionId>),
}

/// What a branch is a branch of.
#[derive(Debug)]
pub struct Branch {
    trunk: SessionId,
    generation: u32,
    /// The slot that the first of `owed` is for.
    first: u32,
    /// Whose replies its open slots' are; those that were given are `None`.
    owed: VecDeque<Option<For>>,
}

/// Whose a branch's reply is.
#[derive(Clone, Copy, Debug)]
enum For {
    /// The trunk's, in this slot.
    Slot(u32),
    /// Part of a split request of the trunk's.
    Part { gather: u32, part: u16 },
    /// Nobody's.
    Nobody,
}

impl Branch {
    /// The reply of its slot that is opened next will be for this.
    fn expect(&mut self, slot: u32, whose: For) {
        if self.owed.is_empty() {
            self.first = slot;
        }
        self.owed.push_back(Some(whose));
    }

    /// A slot has its reply.
    fn take(&mut self, slot: u32) -> Option<For> {
        let whose = self.owed.get_mut(slot.wrapping_sub(self.first) as usize)?.take();
        while let Some(None) = self.owed.front() {
            self.owed.pop_front();
            self.first = self.first.wrapping_add(1);
        }
        whose
    }
}

impl Session {
    fn branches(&self) -> &[(u16, SessionId)] {
        let branches = self.special.as_ref().and_then(|special| special.branches.as_ref());
        branches.map_or(&[], |branches| &branches.all)
    }

    /// Whether it has branches.
    pub(super) fn has_branches(&self) -> bool {
        !self.branches().is_empty()
    }

    fn branch(&mut self) -> Option<&mut Branch> {
        self.special.as_mut()?.branch.as_deref_mut()
    }
}

impl Engine {
    /// Pools are configured anew, or there are more: which number each route leads to.
    pub(super) fn renew_routes(&mut self) {
        let number = |to: &str| self.pools.iter().position(|pool| pool.config.name == to).map(|to| to as u16);
        // One that is not there yet has no number that any pool has.
        let numbers =
            |pool: &super::Pool| pool.config.routes.iter().map(|(_, to)| number(to).unwrap_or(u16::MAX)).collect();
        let all: Vec<Vec<u16>> = self.pools.iter().map(numbers).collect();
        for (pool, to) in self.pools.iter_mut().zip(all) {
            pool.routes = Here { to };
        }
    }

    /// The session that an app has: the trunk of a branch, or itself.
    pub(super) fn trunk_of(&self, id: SessionId) -> SessionId {
        let Some(session) = self.sessions.get(id as usize).filter(|session| session.is_branch()) else { return id };
        session.special.as_ref().and_then(|special| special.branch.as_ref()).map_or(id, |branch| branch.trunk)
    }

    /// The branch that has a transaction, watches keys or waits for something to happen.
    pub(super) fn bound_branch(&self, id: SessionId) -> Option<SessionId> {
        let session = self.sessions.get(id as usize)?;
        let is_bound = |id: SessionId| self.sessions.get(id as usize).is_some_and(|s| s.mode & mode::PINNED != 0);
        session.branches().iter().map(|&(_, id)| id).find(|&id| is_bound(id))
    }

    /// What is special about that branch.
    pub(super) fn special_there(&self, id: SessionId) -> Option<&Special> {
        let bound = self.bound_branch(id).and_then(|id| self.sessions.get(id as usize));
        bound.and_then(|session| session.special.as_deref())
    }

    /// Whether a branch of the session waits for something to happen.
    pub(super) fn has_blocked_branch(&self, id: SessionId) -> bool {
        self.special_there(id).is_some_and(|special| special.blocked)
    }

    /// Ends a session as soon as it has the replies to all that it has asked for; at once if it waits for something to happen.
    pub(super) fn finish_session(&mut self, id: SessionId) {
        let blocked = self.has_blocked_branch(id);
        if let Some(session) = self.sessions.get_mut(id as usize) {
            session.finish();
            session.killed |= blocked;
        }
    }

    /// Whether a request of a session for this key may be a branch's.
    pub(super) fn is_led(&self, id: SessionId, key: &[u8]) -> bool {
        let Some(session) = self.sessions.get(id as usize) else { return false };
        session.has_branches() && self.bound_branch(id).is_some()
            || self.pools.get(usize::from(session.pool)).is_some_and(|pool| pool.routed(key).is_some())
    }

    fn branch_to(&self, id: SessionId, pool: u16) -> Option<SessionId> {
        let session = self.sessions.get(id as usize)?;
        session.branches().iter().find(|&&(to, _)| to == pool).map(|&(_, id)| id)
    }

    /// The session's branch in a pool, opened if it has none, in the protocol and on the database that the session is on now.
    fn branch_in(&mut self, id: SessionId, pool: u16) -> Option<SessionId> {
        let found = self.branch_to(id, pool);
        let branch = found.or_else(|| self.open_branch(id, pool))?;
        let trunk = self.sessions.get(id as usize)?;
        let (resp3, db) = (trunk.resp3, trunk.db());
        let session = self.sessions.get_mut(branch as usize)?;
        if (session.resp3, session.db()) != (resp3, db) {
            // Either changes only when all that the trunk has asked for is answered, and so is what the branch has.
            session.resp3 = resp3;
            session.special().db = db;
            self.settle(branch);
        }
        Some(branch)
    }

    fn open_branch(&mut self, id: SessionId, pool: u16) -> Option<SessionId> {
        let dealt = self.pools.get(usize::from(pool))?.config.dealt.max(1);
        let trunk = self.sessions.get(id as usize)?;
        let (generation, number, strict) = (trunk.generation, trunk.id, trunk.is_strict());
        self.generations = self.generations.wrapping_add(1);
        let lane = (number / self.id_step.max(1) % u64::from(dealt)) as u16;
        let mut session = Session::new(self.generations, pool, lane, number, true);
        session.be_branch();
        if strict {
            session.be_strict();
        }
        session.special().branch = Some(Box::new(Branch { trunk: id, generation, first: 0, owed: VecDeque::new() }));
        let branch = self.sessions.insert(Box::new(session)) as SessionId;
        if self.watches.len() <= branch as usize {
            self.watches.resize((branch as usize).saturating_add(1), Watch::default());
        }
        if let Some(watch) = self.watches.get_mut(branch as usize) {
            *watch = Watch::new(self.now);
        }
        self.be_branch(branch);
        self.mark_aside(branch);
        let trunk = self.sessions.get_mut(id as usize)?;
        trunk.special().branches.get_or_insert_default().all.push((pool, branch));
        self.branches = self.branches.saturating_add(1);
        Some(branch)
    }

    /// Sets what a branch may do: what anybody may in its pool. Who the app is counts in the trunk's.
    pub(super) fn be_branch(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(id as usize) else { return };
        let guarded = self.pools.get(usize::from(session.pool)).is_some_and(|pool| pool.config.guard.is_some());
        session.mode = session.mode & !mode::GUARDED | if guarded { mode::GUARDED } else { 0 };
        self.limit_session(id);
    }

    /// A branch has the reply to a slot of its own.
    #[inline(never)]
    pub(super) fn branch_answered(&mut self, ticket: Ticket, reply: &[u8], port: Option<&mut dyn Port>) {
        let branch = self.sessions.get_mut(ticket.session as usize).and_then(|session| session.branch());
        let Some((trunk, generation, whose)) =
            branch.and_then(|branch| Some((branch.trunk, branch.generation, branch.take(ticket.slot)?)))
        else {
            return;
        };
        let session = self.sessions.get(trunk as usize).filter(|session| session.generation == generation);
        let Some(number) = session.map(|session| session.pool) else { return };
        match whose {
            For::Slot(slot) => self.complete(number, Ticket { session: trunk, generation, slot }, reply, port),
            For::Part { gather, part } => self.part_led(number, gather, part, reply, port),
            For::Nobody => {}
        }
    }

    /// Adds the slots of trunks, and of what was split over pools, that replies to branches will fill; for [`Engine::mend`].
    pub(super) fn add_led(
        &self,
        filled: &mut HashMap<(SessionId, u32), HashSet<u32>>,
        mut parts: HashMap<usize, usize>,
    ) {
        for (id, session) in &self.sessions {
            let Some(branch) = session.special.as_ref().and_then(|special| special.branch.as_ref()) else { continue };
            let Some(own) = filled.get(&(id as SessionId, session.generation)).cloned() else { continue };
            for (slot, whose) in (0..).map(|n| branch.first.wrapping_add(n)).zip(&branch.owed) {
                match whose {
                    Some(For::Slot(of_trunk)) if own.contains(&slot) => {
                        filled.entry((branch.trunk, branch.generation)).or_default().insert(*of_trunk);
                    }
                    Some(For::Part { gather, .. }) if own.contains(&slot) => {
                        let seen = parts.entry(*gather as usize).or_default();
                        *seen = seen.saturating_add(1);
                    }
                    _ => {}
                }
            }
        }
        for (number, gather) in &self.gathers {
            if parts.get(&number).copied().unwrap_or(0) >= gather.missing() {
                let Ticket { session, generation, slot } = gather.ticket;
                filled.entry((session, generation)).or_default().insert(slot);
            }
        }
    }

    /// A session has something to do: the shell is told, of a branch the trunk's.
    pub(super) fn wake(&mut self, id: SessionId, port: &mut impl Port) {
        let Some(session) = self.sessions.get(id as usize).filter(|session| session.is_branch()) else {
            return port.wake(id);
        };
        let (killed, trunk) = (session.killed, self.trunk_of(id));
        if killed {
            return self.end_session(trunk);
        }
        if let Some(session) = self.sessions.get_mut(trunk as usize) {
            // One that waits for a shard of its own pool, too, is woken when that takes more.
            session.paused &= session.parked;
            session.mode &= !mode::WAITING;
        }
        port.wake(trunk);
    }

    /// Ends all branches of a session, whatever they wait for.
    pub(super) fn leave_branches(&mut self, id: SessionId, port: &mut impl Port) {
        let Some(session) = self.sessions.get_mut(id as usize) else { return };
        let Some(branches) = session.special.as_mut().and_then(|special| special.branches.take()) else { return };
        for (_, branch) in branches.all {
            self.close_branch(branch, port);
        }
        self.mark_aside(id);
    }

    fn close_branch(&mut self, id: SessionId, port: &mut impl Port) {
        self.leave_own(id, port);
        self.leave_leases(id);
        if self.samples.is_open() {
            self.sample_gone(id);
        }
        let Some(mut session) = self.sessions.try_remove(id as usize) else { return };
        self.branches = self.branches.saturating_sub(1);
        if session.is_watched() {
            self.watched.forget(id);
        }
        if let Some(pool) = self.pools.get_mut(usize::from(session.pool)) {
            pool.counts.client_output_bytes -= session.waiting() as u64;
            pool.counts.requests_pending -= session.unanswered() as u64;
            if pool.prefixes.is_on() {
                pool.prefixes.forget(id, session.unfilled());
            }
        }
        // What was to be put together for the trunk never will be.
        for whose in session.branch().into_iter().flat_map(|branch| branch.owed.drain(..)).flatten() {
            if let For::Part { gather, .. } = whose {
                self.gathers.try_remove(gather as usize);
            }
        }
        session.release(&mut self.spare);
        self.walk.forget(id);
    }
}

impl super::Pool {
    /// The number of the pool where a key lives; `None` where it is this one.
    #[inline]
    pub(super) fn routed(&self, key: &[u8]) -> Option<u16> {
        self.config.routes.of(key).and_then(|at| self.routes.to.get(at)).copied()
    }

    fn routed_pattern(&self, pattern: &[u8]) -> Option<u16> {
        self.config.routes.of_pattern(pattern).and_then(|at| self.routes.to.get(at)).copied()
    }
}
