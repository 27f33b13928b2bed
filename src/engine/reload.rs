//! A pool that is configured anew while it runs.
//!
//! Shards keep their numbers when others come and go, so that nothing that is under way has to be told of them: a shard that
//! is no longer the pool's is *retired*, which means that the ring does not know it any more, that what was asked of it is
//! still answered, and that its connections are closed as soon as nothing waits on them, [`DRAIN`] later at the most. Its
//! number may be another shard's after that.
//!
//! Promises: no session ends but those whose user is gone and those of a pool that is gone, and these get what they have
//! asked for. Nothing is sent twice and nothing is taken back. A session keeps to the connections (lanes) that it has, also
//! where there are to be fewer.
//! Does not move keys: a key whose home changes is looked for at the new one from then on.

#![expect(clippy::arithmetic_side_effects, reason = "numbers of connections, which the config bounds")]

use super::line::{Line, Owner, State};
use super::port::Port;
use super::window::Session;
use super::{Engine, LineId, Pool, PoolConfig, SessionId};
use crate::error::{Cause, Failure};
use crate::stages::Micros;

/// How long a retired shard may take to answer what it was asked, in microseconds: blocking commands and transactions have
/// this long to end.
pub const DRAIN: Micros = 60_000_000;

const RETIRED: Failure = Failure { cause: Cause::Lost, reason: "its server is no longer in the configuration" };

impl Pool {
    /// The shard for what names no key: the one where all keys live, or the first.
    pub(super) fn first_shard(&self) -> Option<u16> {
        let route = &self.config.path.route;
        route.only().or_else(|| route.shards().first().copied())
    }

    /// Lays the table out anew, for more shards or connections to each of them.
    fn widen(&mut self, number: u16, before: (u32, u32), lines: &mut Vec<Line>) {
        let (shards, lanes) = before;
        let (stride, width) = (self.stride(), u32::from(self.config.lanes));
        let table = std::mem::take(&mut self.table);
        let sets = self.sets.len() as u32;
        for place in 0..sets * stride {
            let (set, shard, lane) = (place / stride, place % stride / width, place % width);
            let was = (shard < shards && lane < lanes).then_some(set * shards * lanes + shard * lanes + lane);
            let line = was.and_then(|was| table.get(was as usize)).copied().unwrap_or_else(|| {
                let retired = !self.config.path.route.numbers().any(|own| u32::from(own) == shard);
                let asked = self.cluster.is_some().then(Box::default);
                lines.push(Line { retired, asked, ..Line::new(number, shard as u16, place, self.dialect(place)) });
                lines.len() as LineId - 1
            });
            if let Some(line) = lines.get_mut(line as usize) {
                line.number = place;
            }
            self.table.push(line);
        }
    }
}

impl Engine {
    /// Connections to each shard that a pool's numbers provide for. They never become fewer.
    #[must_use]
    pub fn lanes(&self, pool: u16) -> u16 {
        self.pools.get(usize::from(pool)).map_or(0, |pool| pool.config.lanes)
    }

    /// How often something has changed that handles made for connections depend on; wraps.
    #[must_use]
    pub fn changes(&self) -> u32 {
        self.changes
    }

    /// Whether a shard is not the pool's any more and has nothing left to finish.
    #[must_use]
    pub fn is_gone(&self, pool: u16, shard: u16) -> bool {
        let Some(pool) = self.pools.get(usize::from(pool)) else { return true };
        !pool.config.path.route.numbers().any(|own| own == shard)
            && !pool.retired.iter().any(|&(retired, _)| retired == shard)
    }

    /// Gives a pool another configuration, or adds it if it has the next free number.
    ///
    /// `config.shards` has all names by number, those of former shards too; the ring's placement says which of them are the
    /// pool's. `config.lanes` must be at least [`Engine::lanes`].
    pub fn reload(&mut self, number: u16, config: PoolConfig, now: Micros, port: &mut impl Port) {
        self.now = now;
        self.changes = self.changes.wrapping_add(1);
        if usize::from(number) >= self.pools.len() {
            self.add_pool(config);
            return;
        }
        self.send_all_shared(number, port);
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        let before = (pool.config.shards.len() as u32, u32::from(pool.config.lanes));
        let stride = pool.stride();
        let old = std::mem::replace(&mut pool.config, config);
        let path = &mut pool.config.path;
        let had: Vec<u16> = old.path.route.numbers().collect();
        let has: Vec<u16> = path.route.numbers().collect();
        let stay: Vec<u16> = has.iter().copied().filter(|shard| had.contains(shard)).collect();
        let left: Vec<u16> = had.iter().copied().filter(|shard| !stay.contains(shard)).collect();
        let come: Vec<u16> = has.into_iter().filter(|shard| !stay.contains(shard)).collect();
        path.health.inherit(&old.path.health, &stay);
        let out: Vec<u16> = stay.iter().copied().filter(|&shard| path.health.sends_away(shard)).collect();
        path.route.inherit(&old.path.route, &out);
        path.hot.inherit(old.path.hot, now);
        pool.slow_from = self.samples.slow_from(&pool.config.slowlog);
        let prefixes = old.prefixes;
        pool.meet_cluster();
        pool.own.resize_with(pool.config.shards.len().max(pool.own.len()), Default::default);
        pool.widen(number, before, &mut self.lines);
        pool.keep_what_is_asked(&mut self.lines);
        let wider = pool.stride();
        for (_, session) in self.sessions.iter_mut().filter(|(_, session)| session.pool == number) {
            session.base = session.base.checked_div(stride).unwrap_or(0) * wider;
        }
        self.take_copies_away(number);
        for shard in come {
            self.revive(number, shard);
        }
        // What is subscribed to moves while the ears of those that leave can still be told.
        self.follow_homes(port);
        for shard in left {
            self.retire(number, shard, port);
        }
        self.renew_warm(number);
        self.renew_mirrors();
        self.renew_routes();
        let sessions = self.sessions.iter().filter(|(_, session)| session.pool == number);
        for id in sessions.map(|(id, _)| id as SessionId).collect::<Vec<_>>() {
            self.mark_aside(id);
        }
        if let Some(before) = old.path.route.slots() {
            self.slots_changed(number, before, port);
        }
        self.meet_users(number, port);
        self.renew_limits(number);
        self.renew_prefixes(number, &prefixes);
        self.hear_others(number);
        self.renew_misses(number);
        self.meet_leases(number);
    }

    /// Ends a pool's sessions when they have what they have asked for; for one that is gone.
    pub fn finish_pool(&mut self, number: u16, port: &mut impl Port) {
        let own = |session: &Session| session.pool == number && !session.is_branch();
        let sessions = self.sessions.iter().filter(|(_, session)| own(session));
        for id in sessions.map(|(id, _)| id as SessionId).collect::<Vec<_>>() {
            self.finish_session(id);
            port.wake(id);
        }
        self.end_waits(Some(number));
    }

    /// Takes a shard back, or one that now has its number.
    fn revive(&mut self, number: u16, shard: u16) {
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        pool.retired.retain(|&(retired, _)| retired != shard);
        for line in self.lines.iter_mut().filter(|line| (line.pool, line.shard) == (number, shard)) {
            line.retired = false;
        }
    }

    /// Lets a shard finish what it was asked, and closes what is idle.
    fn retire(&mut self, number: u16, shard: u16, port: &mut impl Port) {
        let now = self.now;
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        pool.retired.push((shard, now));
        for id in 0..self.lines.len() as LineId {
            let Some(line) = self.lines.get_mut(id as usize) else { return };
            if (line.pool, line.shard) != (number, shard) {
                continue;
            }
            line.retired = true;
            match line.owner {
                Owner::Shared | Owner::Ear | Owner::Tracker => self.part(id, port),
                // Upkeep closes what is nobody's.
                Owner::Free | Owner::Session(..) => {}
            }
        }
    }

    /// A connection of a retired shard has come to be open: the shard may have been forgotten meanwhile, but is to be seen off.
    #[cold]
    pub(super) fn see_again(&mut self, number: u16, shard: u16) {
        let now = self.now;
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        if !pool.retired.iter().any(|&(retired, _)| retired == shard) {
            pool.retired.push((shard, now));
        }
    }

    /// Closes a connection of a retired shard, if nothing waits on it.
    pub(super) fn part(&mut self, id: LineId, port: &mut impl Port) {
        let Some(line) = self.lines.get_mut(id as usize) else { return };
        if !line.waiters.is_empty() {
            return;
        }
        let (open, tracked) = (line.state != State::Idle, line.owner == Owner::Tracker);
        line.drain();
        line.state = State::Idle;
        let paused = std::mem::take(&mut line.paused);
        if line.owner == Owner::Ear {
            self.ear_closed(id);
        }
        if tracked {
            self.tracker_lost(id);
        }
        if open {
            port.give_up(id);
        }
        self.resume(&paused, port);
    }

    /// Names the connections whose shard has been retired for too long, and forgets the shards that have finished.
    pub(super) fn see_off(&mut self, overdue: &mut Vec<(LineId, Failure)>, port: &mut impl Port) {
        let now = self.now;
        if self.pools.iter().all(|pool| pool.retired.is_empty()) {
            return;
        }
        for id in 0..self.lines.len() as LineId {
            // One that was being opened as its shard left.
            let idle = |line: &Line| line.retired && line.state == State::Up && line.waiters.is_empty();
            let shared = |line: &Line| matches!(line.owner, Owner::Shared | Owner::Ear | Owner::Tracker);
            if self.lines.get(id as usize).is_some_and(|line| idle(line) && shared(line)) {
                self.part(id, port);
            }
        }
        for (number, pool) in self.pools.iter_mut().enumerate() {
            if pool.retired.is_empty() {
                continue;
            }
            let number = number as u16;
            let lines = &self.lines;
            let before = pool.retired.len();
            pool.retired.retain(|&(shard, since)| {
                let of_it = |line: &Line| (line.pool, line.shard) == (number, shard);
                let busy = |line: &Line| of_it(line) && (line.state != State::Idle || !line.waiters.is_empty());
                let mut left = false;
                for (id, _) in lines.iter().enumerate().filter(|(_, line)| busy(line)) {
                    left = true;
                    if lines
                        .get(id)
                        .is_some_and(|line| line.owner == Owner::Free && matches!(line.state, State::Down(_)))
                    {
                        // Given up already; its task will end.
                        continue;
                    }
                    if now.saturating_sub(since) > DRAIN {
                        overdue.push((id as LineId, RETIRED));
                    }
                }
                left
            });
            if pool.retired.len() != before {
                self.changes = self.changes.wrapping_add(1);
            }
        }
    }

    /// Gives every session of a pool the rules that its user has now. One whose user is gone, or off, ends, and so does one whose
    /// keys are to begin otherwise: they would be others' in the midst of what it does.
    fn meet_users(&mut self, number: u16, port: &mut impl Port) {
        let ids: Vec<SessionId> =
            self.sessions.iter().filter(|(_, s)| s.pool == number).map(|(id, _)| id as SessionId).collect();
        for id in ids {
            self.mark_aside(id);
            if self.sessions.get(id as usize).is_some_and(|session| session.is_branch()) {
                self.be_branch(id);
                continue;
            }
            let Some(pool) = self.pools.get(usize::from(number)) else { return };
            let Some(session) = self.sessions.get(id as usize) else { continue };
            if !session.authenticated {
                self.be_nobody(id);
                continue;
            }
            let user = pool.config.users.get(self.user_name(id).as_bytes()).filter(|user| user.is_enabled()).cloned();
            let prefix = user.as_ref().and_then(|user| user.prefix());
            if user.is_some() && session.prefix() == prefix {
                // As in Redis: whoever is logged in stays so though the password is another one now.
                self.become_user(id, user);
            } else {
                self.finish_session(id);
                port.wake(id);
            }
        }
    }
}
