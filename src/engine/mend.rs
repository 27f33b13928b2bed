//! What is looked after when a panic has left the engine half done.

#![expect(clippy::arithmetic_side_effects, reason = "counters of 64 bits")]

use super::line::{Ticket, Waiter};
use super::port::Port;
use super::{Engine, LineId, SessionId};
use std::collections::{HashMap, HashSet};

impl Engine {
    /// To be called after a panic that was contained in the turn of a session or a connection, before that is closed or
    /// failed. Then nobody waits for ever: what may have been about to leave is looked at again, and a session that waits for
    /// a reply which nobody will give it any more is ended. Returns how many were ended.
    ///
    /// What is counted of the sessions is counted anew. Connections stay in step, since a request's waiter and its bytes are queued one right after the other. A buffer or a
    /// place in a list may be lost.
    pub fn mend(&mut self, port: &mut impl Port) -> usize {
        self.dirty_lines.clear();
        for (id, line) in self.lines.iter_mut().enumerate() {
            line.dirty = true;
            self.dirty_lines.push(id as LineId);
        }
        for pool in &mut self.pools {
            pool.counts.requests_pending.set(0);
            pool.counts.client_output_bytes.set(0);
        }
        // What they wait for may have come.
        (0..self.pools.len() as u16).for_each(|pool| self.send_all_shared(pool, port));
        let filled = self.filled_by_someone();
        let mut ended = 0;
        self.dirty_sessions.clear();
        for (number, session) in &mut self.sessions {
            let id = number as SessionId;
            if let Some(pool) = self.pools.get_mut(usize::from(session.pool)) {
                pool.counts.requests_pending += session.unanswered() as u64;
                pool.counts.client_output_bytes += session.waiting() as u64;
            }
            session.dirty = true;
            self.dirty_sessions.push(id);
            // A SUBSCRIBE is told by what arrives on other connections.
            let listens = session.special.as_ref().is_some_and(|special| special.subscribing);
            let filled = filled.get(&(id, session.generation));
            let is_given = |slot: u32| filled.is_some_and(|slots| slots.contains(&slot));
            if !session.killed && !listens && session.unfilled().any(|slot| !is_given(slot)) {
                session.killed = true;
                // With a branch the session ends that it is a branch of, which is counted.
                ended += usize::from(!session.is_branch());
            }
            if !session.is_branch() {
                port.wake(id);
            }
        }
        ended
    }

    /// Those who share a flight, from this link on; bounded, should a panic have left a ring.
    fn chain(&self, mut next: u32) -> impl Iterator<Item = Ticket> {
        (0..self.joined.len()).map_while(move |_| {
            let &(ticket, _, link) = self.joined.get(next as usize)?;
            next = link;
            Some(ticket)
        })
    }

    /// For each session the slots that somebody will fill.
    fn filled_by_someone(&self) -> HashMap<(SessionId, u32), HashSet<u32>> {
        let mut filled: HashMap<(SessionId, u32), HashSet<u32>> = HashMap::new();
        let mut note = |Ticket { session, generation, slot }: Ticket| {
            filled.entry((session, generation)).or_default().insert(slot);
        };
        // A split request is answered when all its parts are; one that has lost a part never is.
        let mut parts: HashMap<usize, usize> = HashMap::new();
        for waiter in self.lines.iter().flat_map(|line| &line.waiters) {
            if waiter.part < Waiter::FIRST_SPECIAL {
                let seen = parts.entry(waiter.link as usize).or_default();
                *seen = seen.saturating_add(1);
                continue;
            }
            note(waiter.ticket);
            self.chain(if waiter.is_shareable() { waiter.link } else { Waiter::NOBODY }).for_each(&mut note);
        }
        for ticket in self.withheld.iter().filter_map(|(_, withheld)| withheld.ticket()) {
            note(ticket);
        }
        self.delayed.tickets().for_each(&mut note);
        for (number, gather) in &self.gathers {
            if parts.get(&number).copied().unwrap_or(0) >= gather.missing() {
                note(gather.ticket);
            }
        }
        self.add_led(&mut filled, parts);
        filled
    }
}
