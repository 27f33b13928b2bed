//! Reads of hot keys at copies on other shards, and what makes those copies and takes them away.
//!
//! A read that is led to a copy waits as an [`CopyRead`] for what its shard says. What tells nothing, an error or the loss of
//! the connection, sends it home, once: a read does no harm. Whoever did not find a copy makes one: what the key has is read
//! on its shard's tracked connection, and sent to the copy's shard with the time at which it ends. All that this worker says to
//! a shard of its copies goes on one connection, so that what is to take a copy away never overtakes what makes it.
//!
//! Bounded: one read to be copied for each copy at a time, and none while the connection's outbox is full.

#![expect(clippy::arithmetic_side_effects, reason = "counters of 64 bits, and numbers of connections")]

use super::{Errand, Note, State};
use crate::command::Spec;
use crate::engine::line::{Ticket, Waiter};
use crate::engine::port::Port;
use crate::engine::{Engine, LineId, SessionId, leg_of, refusal, refuse};
use crate::resp::Request;
use crate::stages::hot::{Filled, Means, rewrite, tells};
use crate::stages::{Event, Flight, Leg, Micros, Refusal, missing};

/// A read that was sent to a copy.
#[derive(Debug)]
pub(in crate::engine) struct CopyRead {
    spec: &'static Spec,
    /// The request's bytes, as the app sent them.
    wire: Vec<u8>,
    hash: u64,
    copy: u16,
    shard: u16,
    sent: Micros,
}

/// A write's reply that waits until the copies of its keys are gone.
#[derive(Debug)]
pub(in crate::engine) struct Withheld {
    /// Shards that have not said so yet.
    left: u16,
    /// As it came: on which connection, of which pool, for whom.
    reply: Option<(LineId, u16, Waiter, Vec<u8>)>,
}

impl Withheld {
    /// Whose it is.
    pub(in crate::engine) fn ticket(&self) -> Option<Ticket> {
        self.reply.as_ref().map(|(_, _, waiter, _)| waiter.ticket)
    }
}

impl Engine {
    /// Sends a read to the copy that it was led to.
    #[cold]
    pub(in crate::engine) fn read_copy(
        &mut self,
        id: SessionId,
        leg: &Leg<'_>,
        request: &Request<'_>,
        port: &mut impl Port,
    ) {
        let (Some(hash), Some((pool, ticket))) = (leg.hot, self.open_slot(id)) else { return };
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        place.counts.copy_reads += 1;
        place.config.path.hot.choice.began(leg.shard);
        place.config.path.hot.choice.saw(leg.shard, 1.0);
        let on = place.line(leg.line);
        let slot = place.config.path.hot.key(hash).and_then(|key| key.copies.as_ref()?.slot(leg.copy));
        self.begin_indirect(ticket);
        let (mut flight, mut wire) = (self.spare.take(), self.spare.take());
        wire.extend_from_slice(request.wire());
        // A read of one key names it.
        let _ = rewrite(request, leg.copy, slot, &mut flight);
        let read = CopyRead { spec: leg.spec, wire, hash, copy: leg.copy, shard: leg.shard, sent: self.now };
        let link = self.copy_reads.insert(read) as u32;
        let waiter = Waiter { link, part: Waiter::COPY, ..self.waiter(ticket, leg.spec) };
        let serial = self.send(on, waiter, &flight, port);
        self.spare.put(flight);
        // No key is told: nobody may share it, as it may be asked again elsewhere.
        let leg = Leg { line: leg.line, shard: leg.shard, alone: false, ..Leg::new(leg.spec, b"", leg.wire) };
        let flight = Flight { line: leg.line, serial, number: self.order as u32 };
        self.tell(pool, &Event::Sent(&leg, flight));
    }

    /// A copy's shard has replied, or its connection is lost.
    #[cold]
    pub(in crate::engine) fn copy_replied(
        &mut self,
        id: LineId,
        pool: u16,
        waiter: &Waiter,
        reply: &[u8],
        port: &mut impl Port,
    ) {
        let Some(read) = self.copy_reads.try_remove(waiter.link as usize) else { return };
        self.end_indirect(waiter.ticket);
        let now = self.now;
        let up = self.lines.get(id as usize).is_some_and(|line| line.state == State::Up);
        if let Some(place) = self.pools.get_mut(usize::from(pool)) {
            let choice = &mut place.config.path.hot.choice;
            if up {
                choice.ended(read.shard, now.saturating_sub(read.sent), now);
                choice.bore(read.shard, reply.len() as u64);
            } else {
                choice.lost(read.shard);
            }
        }
        let last = Waiter { part: Waiter::WHOLE, link: Waiter::NOBODY, ..*waiter };
        if tells(reply) {
            if let Some(place) = self.pools.get_mut(usize::from(pool)) {
                place.counts.copy_hits += 1;
                place.config.path.hot.served(read.hash);
            }
            self.land(id, pool, &last, reply, port);
        } else {
            self.ask_at_home(id, pool, &last, &read, port);
            if up && reply.first() != Some(&b'-') {
                self.make_copy(pool, (read.hash, read.copy), read.spec.name, port);
            }
        }
        self.spare.put(read.wire);
    }

    /// Sends a read home that no copy has answered.
    fn ask_at_home(&mut self, id: LineId, pool: u16, waiter: &Waiter, read: &CopyRead, port: &mut impl Port) {
        let Ticket { session, generation, .. } = waiter.ticket;
        let place = self.pools.get(usize::from(pool));
        let asker = self.sessions.get(session as usize).filter(|s| s.generation == generation && !s.killed);
        let (Some(place), Some(asker), Some(request)) = (place, asker, Request::parse(&read.wire)) else {
            // Nobody waits for it any more.
            return self.complete(pool, waiter.ticket, b"", None);
        };
        let key = request.arg(1).unwrap_or_default();
        // It has waited already: it is neither led elsewhere again nor does it wait for another's flight.
        let leg = leg_of(asker, read.spec, key, &read.wire, self.order);
        let mut leg = Leg { alone: false, free: false, ..leg };
        let resp3 = asker.resp3;
        let Some(reason) = refusal(place.config.path.decide(&mut leg, self.now)) else {
            let (on, timeout) = (place.line(leg.line), place.config.timeout);
            // What it has waited for elsewhere must not make a timeout of this connection's.
            let waited = self.now.saturating_sub(read.sent);
            let at = if timeout.is_some_and(|timeout| waited > timeout / 2) { self.now as u32 } else { waiter.at };
            let serial = self.send(on, Waiter { at, ..*waiter }, &read.wire, port);
            self.sent(pool, &leg, serial, 1);
            if read.spec.name == "get" {
                self.note_read(waiter.ticket, Note::Read(read.hash), on, serial);
            }
            self.note_miss(read.spec, key, at, (on, serial));
            return;
        };
        let mut reply = self.spare.take();
        let missed = matches!(reason, Refusal::Missing(_)) && missing::reply(read.spec, &request, resp3, &mut reply);
        if let Some(place) = self.pools.get_mut(usize::from(pool)) {
            if missed {
                place.counts.missed += 1;
            } else {
                let name = place.config.shards.get(usize::from(leg.shard)).map_or("", String::as_str);
                refuse(reason, name, &mut reply);
                place.counts.errors[reason.cause()] += 1;
            }
        }
        self.land(id, pool, waiter, &reply, port);
        self.spare.put(reply);
    }

    /// A read of a hot key was sent home: if it has copies, what that takes says how loaded its shard is.
    pub(super) fn time_home(&mut self, leg: &Leg<'_>, hash: u64, ticket: Ticket, (on, serial): (LineId, u64)) {
        let Some(pool) = self.sessions.get(ticket.session as usize).map(|session| session.pool) else { return };
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        let hot = &mut place.config.path.hot;
        if !hot.key(hash).is_some_and(|key| matches!(key.means, Means::Copies(_))) {
            return;
        }
        hot.choice.began(leg.shard);
        if let Some(line) = self.lines.get_mut(on as usize) {
            line.notes.push(serial, Note::Timed(self.now));
        }
    }

    /// The connection on which this worker speaks of its copies, if it is open.
    fn copies_line(&self, pool: u16, shard: u16) -> Option<LineId> {
        let place = self.pools.get(usize::from(pool))?;
        let on = place.line(u32::from(shard) * u32::from(place.config.lanes));
        let line = self.lines.get(on as usize)?;
        // Numbers of shards that are there no more lead anywhere.
        let fits = (line.pool, line.shard, line.state) == (pool, shard, State::Up);
        (fits && line.queued() <= place.config.outbox).then_some(on)
    }

    /// A copy was not found by this command: makes it, if that is to be.
    fn make_copy(&mut self, pool: u16, (hash, copy): (u64, u16), command: &str, port: &mut impl Port) {
        let now = self.now;
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        let hot = &mut place.config.path.hot;
        let copies = hot.key(hash).and_then(|key| key.copies.as_ref());
        let Some(shard) = copies.and_then(|copies| copies.places().get(usize::from(copy))).copied() else { return };
        self.ask_time(pool, shard);
        let reached = self.copies_line(pool, shard).is_some();
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        let hot = &mut place.config.path.hot;
        let staleness = hot.config().staleness;
        if !reached || hot.clock(shard).is_none_or(|clock| clock.end(now, staleness, now).is_none()) {
            return hot.rest(hash, now);
        }
        let Some(wanted) = hot.begin_copy(hash, copy, command, now) else { return };
        let (home, number, longest) = (wanted.home, wanted.number, wanted.longest.to_string());
        let sent = if wanted.dumped {
            // What it dumps may be of any size, and would make its server stand still.
            let usage: &[&[u8]] = &[b"MEMORY", b"USAGE", &wanted.key];
            let on = self.tracker(pool, home, port);
            on.and_then(|on| self.run_errand(on, &[usage], Errand::Weigh { hash, copy, number }))
        } else {
            // No more than is copied, and a byte that tells that there is more.
            let read: &[&[u8]] = &[b"GETRANGE", &wanted.key, b"0", longest.as_bytes()];
            let commands = [read, &[b"PTTL", &wanted.key]];
            self.tracked_read((pool, home), &commands, Errand::Copy { hash, copy, number }, port)
        };
        if let Some(place) = self.pools.get_mut(usize::from(pool))
            && sent.is_none()
        {
            place.config.path.hot.end_copy_without(hash, copy, number);
            place.config.path.hot.rest(hash, now);
        }
    }

    /// A server has told what a key takes that is to be copied as it is dumped.
    pub(super) fn copy_was_weighed(
        &mut self,
        (pool, home): (u16, u16),
        (hash, copy, number): (u64, u16, u64),
        reply: &[u8],
        port: &mut impl Port,
    ) {
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        let hot = &mut place.config.path.hot;
        if !hot.fits(hash, (copy, number), reply) {
            return;
        }
        let Some(name) = hot.key(hash).map(|key| key.name.clone()) else { return };
        let commands: [&[&[u8]]; 2] = [&[b"DUMP", &name], &[b"PTTL", &name]];
        let sent = self.tracked_read((pool, home), &commands, Errand::Copy { hash, copy, number }, port);
        if let Some(place) = self.pools.get_mut(usize::from(pool))
            && sent.is_none()
        {
            place.config.path.hot.end_copy_without(hash, copy, number);
        }
    }

    /// What a key has was read, to be copied.
    pub(super) fn copy_was_read(&mut self, pool: u16, (hash, copy, number): (u64, u16, u64), replies: &[Vec<u8>]) {
        let now = self.now;
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        let hot = &mut place.config.path.hot;
        let (value, ttl) = match replies {
            [caching, value, ttl] if caching == b"+OK\r\n" => (value, ttl),
            [value, ttl] => (value, ttl),
            _ => return hot.end_copy_without(hash, copy, number),
        };
        let Some(order) = hot.copy(hash, (copy, number), (value, ttl), now) else { return };
        let errand = Errand::Copied { hash, copy, number };
        let on = self.copies_line(pool, order.shard);
        let words = order.words(value);
        if on.and_then(|on| self.run_errand(on, &[&words], errand)).is_none() {
            self.copy_was_made(pool, (hash, copy, number), b"-");
        }
    }

    /// A copy's shard has answered what makes it.
    pub(super) fn copy_was_made(&mut self, pool: u16, (hash, copy, number): (u64, u16, u64), reply: &[u8]) {
        let now = self.now;
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        match place.config.path.hot.end_copy(hash, copy, number, reply, now) {
            Some(Filled::Made) => place.counts.copy_fills += 1,
            Some(Filled::Lost) => place.counts.copy_fill_lost += 1,
            Some(Filled::Refused) | None => {}
        }
    }

    /// Takes away the copies that are said to be.
    pub(in crate::engine) fn take_copies_away(&mut self, pool: u16) {
        self.take_away(pool, Waiter::NOBODY);
    }

    /// The same, since a write was answered. Returns what its reply waits for, if it can and the pool wants it to.
    pub(super) fn take_copies_away_first(&mut self, pool: u16, can: bool) -> Option<u32> {
        let waits =
            can && self.pools.get(usize::from(pool)).is_some_and(|pool| pool.config.path.hot.config().wait_for_copies);
        if !waits {
            self.take_copies_away(pool);
            return None;
        }
        let held = self.withheld.insert(Withheld { left: 0, reply: None }) as u32;
        let left = self.take_away(pool, held);
        if left == 0 {
            self.withheld.remove(held as usize);
            return None;
        }
        if let Some(withheld) = self.withheld.get_mut(held as usize) {
            withheld.left = left;
        }
        Some(held)
    }

    /// Keeps a reply until the copies are gone that it waits for.
    #[cold]
    pub(in crate::engine) fn withhold(&mut self, held: u32, on: LineId, pool: u16, waiter: Waiter, reply: &[u8]) {
        if let Some(withheld) = self.withheld.get_mut(held as usize) {
            withheld.reply = Some((on, pool, waiter, reply.to_vec()));
        }
    }

    /// Copies are gone that a reply waits for, or cannot be reached.
    pub(super) fn copies_are_gone(&mut self, held: u32, port: &mut impl Port) {
        let Some(withheld) = self.withheld.get_mut(held as usize) else { return };
        withheld.left = withheld.left.saturating_sub(1);
        if withheld.left == 0
            && let Some((on, pool, waiter, reply)) = self.withheld.remove(held as usize).reply
        {
            self.land(on, pool, &waiter, &reply, port);
        }
    }

    /// Returns how many shards were asked.
    fn take_away(&mut self, pool: u16, held: u32) -> u16 {
        let mut asked = 0;
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return asked };
        if !place.config.path.hot.has_gone() {
            return asked;
        }
        let mut gone = place.config.path.hot.take_gone();
        gone.sort_unstable();
        for of_shard in gone.chunk_by(|(a, _), (b, _)| a == b) {
            let Some(&(shard, _)) = of_shard.first() else { continue };
            let names = of_shard.iter().map(|(_, name)| name.as_slice());
            let words: Vec<&[u8]> = std::iter::once(&b"UNLINK"[..]).chain(names).collect();
            // Where it cannot be said they end by themselves.
            let on = self.copies_line(pool, shard);
            if on.and_then(|on| self.run_errand(on, &[&words], Errand::Gone { held })).is_some()
                && let Some(place) = self.pools.get_mut(usize::from(pool))
            {
                place.counts.copy_unlinks += of_shard.len() as u64;
                asked += 1;
            }
        }
        asked
    }

    /// Asks a shard for its time, if that is due.
    fn ask_time(&mut self, pool: u16, shard: u16) {
        let now = self.now;
        let Some(on) = self.copies_line(pool, shard) else { return };
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        if place.config.path.hot.clock(shard).is_some_and(|clock| clock.ask(now)) {
            self.run_errand(on, &[&[b"TIME"]], Errand::Clock);
        }
    }

    /// A shard tells its time.
    pub(super) fn told_time(&mut self, pool: u16, shard: u16, reply: &[u8]) {
        let now = self.now;
        let place = self.pools.get_mut(usize::from(pool));
        if let Some(clock) = place.and_then(|place| place.config.path.hot.clock(shard)) {
            clock.told(reply, now);
        }
    }

    /// A connection to a shard is open: the shard may be another one now, with another clock.
    pub(in crate::engine) fn forget_time(&mut self, pool: u16, shard: u16) {
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        let hot = &mut place.config.path.hot;
        if hot.serves()
            && let Some(clock) = hot.clock(shard)
        {
            clock.lost();
        }
    }

    /// Upkeep: where copies are, with the ring as it is now, and what those shards have to be asked.
    pub(in crate::engine) fn keep_copies(&mut self, port: &mut impl Port) {
        for pool in 0..self.pools.len() {
            let Some(place) = self.pools.get_mut(pool) else { return };
            if !place.config.path.hot.serves() {
                continue;
            }
            let (route, hot) = (&place.config.path.route, &mut place.config.path.hot);
            let changes = route.changes();
            for (hash, count) in hot.unplaced(changes) {
                let Some(key) = hot.key(hash) else { continue };
                // One that has moved is found to be hot again where it lives now.
                let at_home = route.home(&key.name) == Some(key.shard);
                let places = route.around(&key.name, key.shard, if at_home { usize::from(count) } else { 1 });
                let places = places.into_iter().map(|shard| (shard, route.slot_at(shard))).collect();
                hot.place(hash, places, place.config.lanes, (changes, count));
            }
            let mut shards: Vec<u16> =
                hot.keys().filter_map(|(_, key)| key.copies.as_ref()).flat_map(|copies| copies.others()).collect();
            shards.sort_unstable();
            shards.dedup();
            let lanes = place.config.lanes;
            for shard in shards {
                let Some(place) = self.pools.get(pool) else { return };
                let on = place.line(u32::from(shard) * u32::from(lanes));
                if let Some(line) = self.lines.get_mut(on as usize).filter(|line| line.state == State::Idle)
                    && !line.retired
                {
                    line.state = State::Opening;
                    port.open(on);
                }
                self.ask_time(pool as u16, shard);
            }
            self.take_copies_away(pool as u16);
        }
    }
}
