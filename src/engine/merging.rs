//! Reads of hot keys that wait behind an equal one which is out ([`crate::stages::Merging`]), and then leave as one.
//!
//! Who waits has an open slot of its session, so replies stay in order, and stands in the same chain as those who share the
//! reply to a flight that has not left: a flight that was waited for is one that many have joined.
//!
//! Before anything else is done for a session of which a read waits, that read leaves, with all who wait with it. So nothing
//! that the session asks for later reaches a shard before it on their connection, and a session never reads a write of its own
//! that it made afterwards. More of the very same read waits with it.
//!
//! When the connection is lost, who waits is told, or tried again, as those whose bytes have not left. Nobody waits longer than
//! a quarter of the pool's `timeout`, which counts anew for the flight: a shard that is slow is not given up for that.

#![expect(clippy::arithmetic_side_effects, reason = "counters of 64 bits")]

use super::line::{Owner, Ticket, Waiter};
use super::port::Port;
use super::{Engine, LineId, SessionId};
use crate::command::{self, Spec};
use crate::resp::Request;
use crate::stages::{Event, Flight, Leg, Turn};

/// Nobody waits longer than such a part of the pool's `timeout` for the flight before it.
const PATIENCE: u64 = 4;

impl Engine {
    /// The number of the next thing that is sent, or may be, in the order of sending; wraps.
    #[inline]
    pub(super) fn next_in_order(&mut self) -> u64 {
        self.order = self.order.wrapping_add(1);
        self.order
    }

    /// An equal read is out: waits behind it or, if it may, shares its reply.
    pub(super) fn go_behind(
        &mut self,
        id: SessionId,
        leg: &Leg<'_>,
        place: u32,
        request: &Request<'_>,
        port: &mut impl Port,
    ) {
        if self.behind_of(id).is_some_and(|other| other != place) {
            self.leave_together(id, port);
        }
        let Some(session) = self.sessions.get_mut(id as usize) else { return };
        let number = session.pool;
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        let ticket = Ticket { session: id, generation: session.generation, slot: session.open() };
        pool.counts.requests_pending += 1;
        let at = self.now as u32;
        if pool.config.path.merging.is_relaxed() {
            let open = pool.config.path.merging.open(place);
            let out = open.and_then(|flight| {
                let line = self.lines.get_mut(pool.line(flight.line) as usize)?;
                Some((flight, line.under_way(flight.serial).filter(|waiter| waiter.is_shareable())?))
            });
            let Some((flight, leader)) = out else { return self.alone(ticket, leg, request, port) };
            session.newest = flight.number;
            leader.link = self.joined.insert((ticket, at, leader.link)) as u32;
            pool.counts.joined_requests += 1;
            pool.config.path.observe(&Event::Joined(leg, flight), self.now, &mut self.notices);
            pool.config.path.hot.count_unsent(leg);
            return self.note_joined(id);
        }
        let link = self.joined.insert((ticket, at, Waiter::NOBODY)) as u32;
        match pool.config.path.merging.wait(place, link, self.now) {
            // The one who leads is counted when it is sent.
            Some(Turn::First) => {}
            Some(Turn::Behind(last)) => {
                if let Some((_, _, next)) = self.joined.get_mut(last as usize) {
                    *next = link;
                }
                pool.counts.joined_requests += 1;
                pool.config.path.hot.count_unsent(leg);
            }
            None => {
                self.joined.try_remove(link as usize);
                return self.alone(ticket, leg, request, port);
            }
        }
        pool.counts.merge_waits += 1;
        pool.counts.merge_waiting += 1;
        session.set_behind(true);
        if self.behind.len() <= id as usize {
            self.behind.resize(id as usize + 1, u32::MAX);
        }
        if let Some(behind) = self.behind.get_mut(id as usize) {
            *behind = place;
        }
        self.note_joined(id);
    }

    /// Where a read of this session waits, if one does.
    fn behind_of(&self, id: SessionId) -> Option<u32> {
        self.sessions.get(id as usize).filter(|session| session.is_behind())?;
        self.behind.get(id as usize).copied()
    }

    /// A session of which a read waits asks for something. Unless that is the very same, what waits leaves before.
    #[cold]
    pub(super) fn ask_behind(&mut self, id: SessionId, request: &Request<'_>, port: &mut impl Port) {
        let pool = self.sessions.get(id as usize).and_then(|session| self.pools.get(usize::from(session.pool)));
        let same = pool
            .zip(self.behind_of(id))
            .is_some_and(|(pool, place)| pool.config.path.merging.is_same(place, request.wire()));
        if !same {
            self.leave_together(id, port);
        }
    }

    /// The read of this session that waits leaves, with all who wait with it.
    #[cold]
    pub(super) fn leave_together(&mut self, id: SessionId, port: &mut impl Port) {
        let pool = self.sessions.get(id as usize).map(|session| session.pool);
        if let Some((pool, place)) = pool.zip(self.behind_of(id)) {
            self.send_shared(pool, place, port);
        }
    }

    /// Sends the flight that is waited for in this place.
    fn send_shared(&mut self, number: u16, place: u32, port: &mut impl Port) {
        let mut wire = self.spare.take();
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        let Some(shared) = pool.config.path.merging.take(place, &mut wire) else { return self.spare.put(wire) };
        pool.counts.merge_waiting -= u64::from(shared.count);
        let on = pool.line(shared.line);
        let order = self.next_in_order();
        let mut next = shared.first;
        while let Some(&(ticket, _, link)) = self.joined.get(next as usize) {
            let session = self.sessions.get_mut(ticket.session as usize);
            if let Some(session) = session.filter(|session| session.generation == ticket.generation) {
                session.newest = order as u32;
                session.set_behind(false);
            }
            next = link;
        }
        let leader = self.joined.get(shared.first as usize).copied();
        let parsed =
            Request::parse(&wire).and_then(|request| Some((command::identify(&request).ok()?, request.arg(1)?)));
        if let (Some((ticket, ..)), Some((spec, key))) = (leader, parsed) {
            let (at, link) = (self.now as u32, shared.first);
            let waiter = Waiter { ticket, at, link, part: Waiter::SHARED, tag: spec.tag };
            self.send_for_all(number, (on, shared.line), waiter, (spec, key, &wire), port);
        }
        self.spare.put(wire);
    }

    /// A flight that was waited for is over: its waiter as that of one which others have joined.
    #[cold]
    pub(super) fn lead_of(&mut self, waiter: &Waiter) -> Waiter {
        let Some((ticket, at, link)) = self.joined.try_remove(waiter.link as usize) else { return *waiter };
        Waiter { ticket, at, link, part: Waiter::WHOLE, ..*waiter }
    }

    fn send_for_all(
        &mut self,
        number: u16,
        (on, line): (LineId, u32),
        waiter: Waiter,
        (spec, key, wire): (&'static Spec, &[u8], &[u8]),
        port: &mut impl Port,
    ) {
        let Some(pool) = self.pools.get(usize::from(number)) else { return };
        let hot = pool.config.path.hot.known_hash(key);
        let shard = self.lines.get(on as usize).map_or(0, |line| line.shard);
        let leg = Leg { line, shard, hot, ..Leg::new(spec, key, wire) };
        let serial = self.send(on, waiter, wire, port);
        self.sent(number, &leg, serial, 1);
        if leg.hot.is_some() {
            self.read_at_home(waiter.ticket, &leg, (on, serial), port);
        }
        self.note_miss(spec, key, waiter.at, (on, serial));
    }

    /// Sends a read, whose slot is open, by itself though it was to share another's flight.
    pub(super) fn alone(&mut self, ticket: Ticket, leg: &Leg<'_>, request: &Request<'_>, port: &mut impl Port) {
        let order = self.order as u32;
        let Some(session) = self.sessions.get_mut(ticket.session as usize) else { return };
        session.newest = order;
        let number = session.pool;
        let Some(on) = self.pools.get(usize::from(number)).map(|pool| pool.line(leg.line)) else { return };
        let waiter = self.waiter(ticket, leg.spec);
        let serial = self.send(on, waiter, request.wire(), port);
        self.sent(number, leg, serial, 1);
        if leg.hot.is_some() {
            self.read_at_home(ticket, leg, (on, serial), port);
        }
        self.note_miss(leg.spec, leg.key, waiter.at, (on, serial));
    }

    /// A leg was sent that others may share, or wait behind.
    pub(super) fn may_be_shared(&mut self, number: u16, leg: &Leg<'_>, flight: Flight) {
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        let on = pool.line(leg.line);
        if let Some(place) = pool.config.path.merging.lead(leg, flight)
            && let Some(line) = self.lines.get_mut(on as usize)
        {
            line.notes.push(flight.serial, super::hot::Note::Shared(place));
        }
    }

    /// What waited for replies that have come leaves.
    #[cold]
    pub(super) fn send_next(&mut self, port: &mut impl Port) {
        while let Some((pool, place)) = self.landed.pop() {
            self.send_shared(pool, place, port);
        }
    }

    /// A connection is lost: who waits behind what is out on it is as one whose bytes stand in its outbox.
    #[cold]
    pub(super) fn line_up(&mut self, id: LineId, port: &mut impl Port) {
        let Some(line) = self.lines.get(id as usize) else { return };
        let (pool, number) = (line.pool, line.number);
        if line.owner != Owner::Shared {
            return;
        }
        let Some(place) = self.pools.get(usize::from(pool)).filter(|pool| pool.config.path.merging.is_active()) else {
            return;
        };
        for waited in place.config.path.merging.waited_in(Some(number)) {
            self.send_shared(pool, waited, port);
        }
        if let Some(pool) = self.pools.get_mut(usize::from(pool)) {
            pool.config.path.merging.lost(number);
        }
    }

    /// Nobody waits in a pool any more: it is about to be configured anew, or what is out is not sure.
    pub(super) fn send_all_shared(&mut self, pool: u16, port: &mut impl Port) {
        let Some(place) = self.pools.get(usize::from(pool)) else { return };
        for waited in place.config.path.merging.waited_in(None) {
            self.send_shared(pool, waited, port);
        }
    }

    /// Upkeep: who has waited for a good part of the time that a reply may take waits no more.
    pub(super) fn send_late(&mut self, port: &mut impl Port) {
        for number in 0..self.pools.len() as u16 {
            let Some(pool) = self.pools.get(usize::from(number)) else { return };
            let Some(timeout) = pool.config.timeout.filter(|_| pool.config.path.merging.is_active()) else { continue };
            for late in pool.config.path.merging.waited_since(self.now.saturating_sub(timeout / PATIENCE)) {
                self.send_shared(number, late, port);
            }
        }
    }

    /// Where replies to what is out are shared, what is written ends that.
    #[cold]
    pub(super) fn close_shared(&mut self, id: LineId, bytes: &[u8]) {
        let Some(pool) = self.lines.get(id as usize).map(|line| line.pool) else { return };
        let Some(pool) = self.pools.get_mut(usize::from(pool)) else { return };
        let merging = &mut pool.config.path.merging;
        if !merging.is_relaxed() || !merging.is_active() {
            return;
        }
        let request = Request::parse(bytes);
        let spec = request.as_ref().and_then(|request| command::identify(request).ok());
        let mut named = false;
        if let (Some(request), Some(spec)) = (&request, spec) {
            let keys = command::keys(spec, request, &mut |index| {
                merging.close(request.arg(index));
                named = true;
            });
            // A script may write what it does not name.
            named &= keys.is_ok() && spec.class != command::Class::Script;
        }
        if !named {
            merging.close(None);
        }
    }

    /// The same when a session goes on on other connections, on which what it wrote may be overtaken.
    pub(super) fn close_all_shared(&mut self, pool: u16) {
        if let Some(pool) = self.pools.get_mut(usize::from(pool))
            && pool.config.path.merging.is_relaxed()
        {
            pool.config.path.merging.close(None);
        }
    }
}
