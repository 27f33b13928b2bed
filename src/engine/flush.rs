//! What leaves the engine, once for each pass of the worker, and its upkeep.

#![expect(clippy::arithmetic_side_effects, reason = "counters of 64 bits")]

use super::line::{Owner, State};
use super::port::{Port, Taken};
use super::special::mode;
use super::{Engine, LONGEST_TIMEOUT, LineId, SessionId};
use crate::error::{Cause, Failure};
use crate::stages::{Event, Micros};

/// What a server is given at least, in microseconds, to tell that a command has waited for as long as it wanted to: it may have
/// popped an element, and no timeout for common requests should throw that away.
const LEAST_PATIENCE: Micros = 1_000_000;

impl Engine {
    /// Whether there is something to flush.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !(self.dirty_lines.is_empty() && self.dirty_sessions.is_empty())
    }

    /// Sends every outbox and every output that has something, each with one call.
    pub fn flush(&mut self, port: &mut impl Port) {
        if self.trail_is_fresh() {
            self.address_trail(port);
        }
        let mut lines = std::mem::take(&mut self.dirty_lines);
        for id in lines.drain(..) {
            self.flush_line(id, port);
        }
        self.dirty_lines = lines;
        let mut sessions = std::mem::take(&mut self.dirty_sessions);
        for id in sessions.drain(..) {
            self.flush_session(id, port);
        }
        // A branch that has ended ends its trunk.
        for id in std::mem::replace(&mut self.dirty_sessions, sessions) {
            self.flush_session(id, port);
        }
    }

    fn flush_line(&mut self, id: LineId, port: &mut impl Port) {
        let Some(line) = self.lines.get_mut(id as usize) else { return };
        line.dirty = false;
        match line.state {
            State::Up => {}
            State::Idle if line.queued() == 0 => return,
            State::Idle => {
                line.state = State::Opening;
                port.open(id);
                return;
            }
            State::Opening | State::Down(_) => return,
        }
        while !line.blocked && line.queued() > 0 {
            match port.to_shard(id, line.outbox.get(line.out_at..).unwrap_or_default()) {
                Taken::Some(0) => break,
                Taken::Some(n) => line.took(n),
                Taken::Full(n) => {
                    if n > 0 {
                        line.took(n);
                    }
                    line.blocked = true;
                }
                // The connection's reader will say so; what waits here fails with it.
                Taken::Gone => break,
            }
        }
        line.stamp(self.now);
        line.hold_if_clear();
        // At half of the bound and not when all is out: others may keep a slow shard's outbox from ever being empty.
        let enough = self.pools.get(usize::from(line.pool)).map_or(0, |pool| pool.config.outbox / 2);
        let room = line.queued() <= enough;
        let paused = if room { std::mem::take(&mut line.paused) } else { Vec::new() };
        if line.owner == Owner::Shared {
            let (pool, number) = (line.pool, line.number);
            self.tell(pool, &Event::Left(number));
        }
        if !paused.is_empty() {
            self.resume(&paused, port);
        }
    }

    fn flush_session(&mut self, id: SessionId, port: &mut impl Port) {
        let Some(session) = self.sessions.get_mut(id as usize) else { return };
        let Some(pool) = self.pools.get_mut(usize::from(session.pool)) else { return };
        session.dirty = false;
        let before = session.sent();
        while !session.blocked && !session.killed && session.sent() < session.output.len() {
            match port.to_app(id, session.output.get(session.sent()..).unwrap_or_default()) {
                Taken::Some(0) => break,
                Taken::Some(n) => session.took(n),
                Taken::Full(n) => {
                    session.took(n);
                    session.blocked = true;
                }
                Taken::Gone => session.killed = true,
            }
        }
        if session.killed {
            session.took(session.output.len());
        }
        pool.counts.client_output_bytes -= (session.sent() - before) as u64;
        if session.sent() > before
            && session.authenticated
            && let Some(watch) = self.watches.get_mut(id as usize)
        {
            watch.seen(self.now);
        }
        session.release(&mut self.spare);
        if session.killed || (session.closing && session.is_done()) {
            self.wake(id, port);
        } else if session.paused && !session.parked && session.has_room(&pool.config.bounds) {
            session.paused = false;
            session.mode &= !mode::WAITING;
            self.wake(id, port);
        }
    }

    /// Upkeep. Returns the connections whose oldest flight has waited longer than its pool's timeout; they must be given
    /// up, since a late reply could not be told from the next one.
    pub fn tick(&mut self, now: Micros, port: &mut impl Port) -> Vec<(LineId, Failure)> {
        self.now = now;
        self.away = 0;
        self.age_own(port);
        self.look_at_sessions();
        self.weigh(port);
        for pool in &mut self.pools {
            pool.config.path.tick(now, &mut self.notices);
            pool.tell_of_hot_keys();
            if pool.config.misses.filters() {
                pool.tell_of_ids();
            }
        }
        self.look_after_replicas(port);
        self.follow_homes(port);
        self.look_again();
        self.count_trackers();
        self.tell_what_is_answered();
        self.keep_copies(port);
        self.look_after_leases(port);
        self.look_after_warm(port);
        self.look_after_mirrors(port);
        self.look_after_faults(port);
        self.look_after_slots(port);
        self.send_late(port);
        let mut overdue = Vec::new();
        self.listen_closely(&mut overdue);
        self.see_off(&mut overdue, port);
        for (id, line) in self.lines.iter().enumerate() {
            let Some(pool) = self.pools.get(usize::from(line.pool)) else { continue };
            if line.arriving {
                continue;
            }
            let (Some(mut timeout), Some(front)) = (pool.config.timeout, line.waiters.front()) else { continue };
            if line.patient {
                // Its server ends the wait; the timeout is for one that does not, or that can no longer be heard.
                let Some(waits) = line.waits.filter(|&waits| waits < LONGEST_TIMEOUT) else { continue };
                timeout = timeout.max(LEAST_PATIENCE) + waits;
                if timeout > LONGEST_TIMEOUT {
                    continue;
                }
            }
            if u64::from((now as u32).wrapping_sub(if line.passing > 0 { line.heard } else { front.at }))
                > timeout.min(LONGEST_TIMEOUT)
            {
                overdue.push((
                    id as LineId,
                    Failure { cause: Cause::Timeout, reason: "no answer within the pool's timeout" },
                ));
            }
        }
        overdue
    }
}
