//! Long replies: passed on to their app while they arrive, so that no more of one is in memory than its app has not taken.
//!
//! From [`LONG`] bytes on, a bulk string that is a whole reply and whose turn it is goes to the app as it comes. What the app
//! does not take at once waits in its output, as always: a shard's connection is never kept waiting for a slow app, since
//! others' replies are behind. A reply that breaks off ends its session: half a value can not be turned into an error.
//!
//! Held until they are whole, as all others: replies in arrays, of split requests, that several share, that come before
//! their turn, or that go to a session which listens to channels or does not want some replies, or that come
//! from another pool than the session's (`routes`).

#![expect(clippy::arithmetic_side_effects, reason = "counters of 64 bits")]

use super::apps::{kill, mark, offer};
use super::line::{Owner, Ticket, Waiter};
use super::port::Port;
use super::special::mode;
use super::stream::LONG;
use super::{Engine, LineId};
use crate::stages::Event;

/// What tells of a long reply that it is a bulk string.
pub(super) const LONG_BULK: &[u8] = b"$1";

impl Engine {
    /// Whether the incomplete reply at the front, of `need` bytes at least, is to be passed on as it comes; if so all that is
    /// there of it has been.
    #[cold]
    pub(super) fn pass_reply(&mut self, id: LineId, need: usize, bytes: &[u8], port: &mut impl Port) -> bool {
        if need < LONG || bytes.first() != Some(&b'$') {
            return false;
        }
        let Some(line) = self.lines.get_mut(id as usize) else { return false };
        if line.base >= line.left {
            return false;
        }
        let Some(waiter) = line.waiters.front().copied() else { return false };
        let alone = waiter.link == Waiter::NOBODY && matches!(waiter.part, Waiter::WHOLE | Waiter::UNTIMED)
            || waiter.part == Waiter::MIRROR;
        let session = self.sessions.get(waiter.ticket.session as usize);
        let fits = session.filter(|s| s.generation == waiter.ticket.generation).is_none_or(|session| {
            session.is_head(waiter.ticket.slot)
                && session.mode & (mode::MUTED | mode::LISTENING) == 0
                && !session.is_branch()
                && !session.is_watched()
        });
        if !(alone && fits) {
            return false;
        }
        line.resume = crate::resp::ReplyResume::default();
        debug_assert!(need > bytes.len(), "a reply that is all there is not passed on");
        line.passing = need.saturating_sub(bytes.len()) as u64;
        line.passed = bytes.len() as u64;
        line.heard = self.now as u32;
        let pool = line.pool;
        self.part_to_app(pool, waiter.ticket, bytes, port);
        true
    }

    /// More of a reply that is passed on as it comes. Returns how many bytes were its.
    #[cold]
    pub(super) fn pass_more(&mut self, id: LineId, bytes: &[u8], port: &mut impl Port) -> usize {
        let Some(line) = self.lines.get_mut(id as usize) else { return bytes.len() };
        let count = usize::try_from(line.passing).unwrap_or(usize::MAX).min(bytes.len());
        line.passing = line.passing.saturating_sub(count as u64);
        line.passed = line.passed.saturating_add(count as u64);
        line.heard = self.now as u32;
        let (pool, number, over, total) = (line.pool, line.number, line.passing == 0, line.passed);
        let Some(waiter) = line.waiters.front().copied() else { return count };
        let serial = line.base;
        if over {
            line.waiters.pop_front();
            if let Some(asked) = &mut line.asked {
                asked.forget(line.base);
            }
            line.base += 1;
            line.counts.server_responses += 1;
            line.counts.server_response_bytes += total;
            self.away = line.away(serial, self.now);
            if waiter.part != Waiter::UNTIMED {
                line.counts.server_duration.record(self.away);
            }
        }
        let shared = line.owner == Owner::Shared;
        self.part_to_app(pool, waiter.ticket, bytes.get(..count).unwrap_or_default(), port);
        if over {
            self.noted((id, serial), waiter.ticket, None, total);
            self.in_flight = self.in_flight.saturating_sub(1);
            if let Some(place) = self.pools.get_mut(usize::from(pool))
                && shared
            {
                place.config.path.observe(&Event::Replied(number), self.now, &mut self.notices);
            }
            self.passed(id, pool, &waiter, total, port);
            if !self.landed.is_empty() {
                self.send_next(port);
            }
            if !shared {
                self.own_answered(id, port);
            }
        }
        count
    }

    /// Gives a part of a reply to the session whose turn it is; drops it if that is gone.
    fn part_to_app(&mut self, pool: u16, ticket: Ticket, bytes: &[u8], port: &mut impl Port) {
        let Some(pool) = self.pools.get_mut(usize::from(pool)) else { return };
        let session = self.sessions.get_mut(ticket.session as usize);
        let Some(session) = session.filter(|s| s.generation == ticket.generation && !s.killed) else { return };
        let mut rest = bytes;
        if session.output.is_empty() && !session.blocked {
            rest = offer(session, ticket.session, bytes, port);
        }
        if !rest.is_empty() {
            pool.counts.client_output_bytes += rest.len() as u64;
            session.append(rest, &mut self.spare);
        }
        mark(&mut self.dirty_sessions, session, ticket.session);
    }

    /// All of it has been passed on.
    fn passed(&mut self, id: LineId, pool: u16, waiter: &Waiter, total: u64, port: &impl Port) {
        if waiter.part == Waiter::MIRROR {
            return self.mirror_replied(waiter, Some(b"$"));
        }
        if waiter.part == Waiter::WHOLE {
            self.time_long(id, pool, waiter, total, port);
        }
        if self.samples.is_open() {
            self.sample_heard(id, waiter, (LONG_BULK, total), None, port);
            self.sample_answered(waiter.ticket, LONG_BULK, total);
        }
        let ticket = waiter.ticket;
        let Some(pool) = self.pools.get_mut(usize::from(pool)) else { return };
        let session = self.sessions.get_mut(ticket.session as usize);
        let Some(session) = session.filter(|s| s.generation == ticket.generation) else {
            pool.counts.orphans += 1;
            return;
        };
        pool.counts.replies += 1;
        pool.counts.reply_bytes += total;
        pool.limits.replied(session, total, self.now);
        if pool.prefixes.is_on() {
            pool.prefixes.answered((ticket.session, ticket.slot), LONG_BULK, total);
        }
        pool.counts.requests_pending -= 1;
        self.answered += 1;
        session.advance(&mut self.spare);
        // As for any other reply: it alone never ends a session.
        let most = (pool.config.bounds.output as u64).saturating_add(total);
        if !session.killed && session.waiting() as u64 > most {
            kill(session, &mut pool.counts);
        }
        mark(&mut self.dirty_sessions, session, ticket.session);
    }

    /// A reply that was being passed on will not be whole.
    pub(super) fn break_off_reply(&mut self, pool: u16, ticket: Ticket) {
        let Some(pool) = self.pools.get_mut(usize::from(pool)) else { return };
        let session = self.sessions.get_mut(ticket.session as usize);
        let Some(session) = session.filter(|s| s.generation == ticket.generation) else { return };
        pool.counts.requests_pending -= 1;
        pool.prefixes.forget(ticket.session, std::iter::once(ticket.slot));
        self.answered += 1;
        session.killed = true;
        session.advance(&mut self.spare);
        mark(&mut self.dirty_sessions, session, ticket.session);
    }
}
