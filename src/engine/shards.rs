//! The shards' half of the engine: their bytes in, and what becomes of their connections.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "counters of 64 bits, and positions within the bytes that were given"
)]

use super::hot::Becomes;
use super::line::{Owner, State, Waiter};
use super::merge::Gather;
use super::pass::LONG_BULK;
use super::port::Port;
use super::redirect::Reply;
use super::retry::Unsent;
use super::slow::{Late, ReplySeen};
use super::{Engine, LineId, SessionId};
use crate::command::Tag;
use crate::error::{Cause, Failure};
use crate::resp::{ReplyError, Skim, skim, write};
use crate::stages::{Event, Micros};

impl Engine {
    /// Bytes of a shard: completes every whole reply in them. Returns how many were used up, and how many bytes the rest
    /// needs at least.
    ///
    /// # Errors
    /// The shard sent no reply, or one that nobody asked for; the connection must be given up with [`Engine::fail`].
    pub fn receive(
        &mut self,
        id: LineId,
        bytes: &[u8],
        now: Micros,
        port: &mut impl Port,
    ) -> Result<(usize, usize), Option<ReplyError>> {
        self.now = now;
        self.pass_from.get_or_insert(now);
        let mut consumed = 0;
        loop {
            let rest = bytes.get(consumed..).unwrap_or_default();
            if rest.is_empty() {
                return Ok((consumed, 1));
            }
            let Some(line) = self.lines.get_mut(id as usize) else { return Err(None) };
            if line.passing > 0 {
                consumed += self.pass_more(id, rest, port);
                continue;
            }
            let length = match skim(rest, &mut line.resume).map_err(Some)? {
                Skim::Reply(length) => length,
                Skim::Incomplete { need } => {
                    let passed = self.pass_reply(id, need, rest, port);
                    return Ok(if passed { (bytes.len(), 1) } else { (consumed, need) });
                }
            };
            let reply = rest.get(..length).unwrap_or_default();
            consumed += length;
            // RESP3's pushes come at any time and answer nothing. None was asked for, so they are for nobody; and where RESP2
            // is spoken there are none.
            if reply.first() == Some(&b'>') {
                if line.owner == Owner::Tracker {
                    self.pushed(id, reply);
                    continue;
                }
                if line.dialect.resp3 {
                    continue;
                }
                return Err(None);
            }
            // A flight none of whose bytes have left cannot have been answered; its waiter must stay to be told.
            if line.base >= line.left {
                if line.owner != Owner::Ear {
                    return Err(None);
                }
                self.heard(id, reply, port);
                continue;
            }
            let Some(mut waiter) = line.waiters.pop_front() else { return Err(None) };
            line.base += 1;
            line.counts.server_responses += 1;
            line.counts.server_response_bytes += length as u64;
            self.in_flight = self.in_flight.saturating_sub(1);
            let (pool, number, shared) = (line.pool, line.number, line.owner == Owner::Shared);
            let (tracked, serial) = (line.owner == Owner::Tracker, line.base - 1);
            self.away = line.away(serial, now);
            if waiter.part != Waiter::UNTIMED {
                line.counts.server_duration.record(self.away);
            }
            let noted = line.notes.is_due(serial);
            let parts = line.retired && shared && line.waiters.is_empty();
            let shard = line.shard;
            let mut instead = Vec::new();
            let failed = reply.first() == Some(&b'-');
            if let Some(asked) = &mut line.asked
                && !failed
            {
                asked.forget(serial);
            } else if failed && self.follows(pool) {
                match self.redirected((id, serial), &waiter, reply, port) {
                    Reply::Stays => {}
                    Reply::Becomes(text) => write::error(&mut instead, text.as_bytes()),
                    Reply::Taken => {
                        // One of a session's own has no number that stages know.
                        self.tell(pool, &if shared { Event::Replied(number) } else { Event::Answered(shard) });
                        if !self.landed.is_empty() {
                            self.send_next(port);
                        }
                        if parts {
                            self.part(id, port);
                        }
                        continue;
                    }
                }
            }
            let reply = if instead.is_empty() { reply } else { instead.as_slice() };
            if waiter.part == Waiter::SHARED {
                waiter = self.lead_of(&waiter);
            }
            if let Some(pool) = self.pools.get_mut(usize::from(pool)) {
                let event = if shared { Event::Replied(number) } else { Event::Answered(shard) };
                pool.config.path.observe(&event, now, &mut self.notices);
                if reply.first() == Some(&b'-') {
                    pool.counts.shard_errors += 1;
                }
            }
            // A connection of a session's own changes hands with its last reply: that is never kept.
            let kept =
                if noted { self.noted((id, serial), waiter.ticket, Some(reply), length as u64) } else { Becomes::Told };
            let mut busy = Vec::new();
            let over = noted && !self.missed.is_empty() && self.is_over_budget(pool, &waiter, &mut busy);
            let reply = if over { busy.as_slice() } else { reply };
            if tracked {
                self.proved(pool, shard, waiter.at);
            }
            if waiter.part == Waiter::MUST_DO && reply.first() == Some(&b'-') {
                return Err(None);
            }
            if self.samples.is_open() {
                self.sample_heard(id, &waiter, (reply, reply.len() as u64), None, port);
            }
            match kept {
                Becomes::Withheld(held) if shared => self.withhold(held, id, pool, waiter, reply),
                Becomes::Missed(hash, name) => self.missed((id, pool), &waiter, (hash, &name), reply, port),
                Becomes::Due(hash, name, draw) => {
                    self.fell_due((id, pool), &waiter, (hash, &name, draw), reply, port);
                }
                Becomes::Told | Becomes::Withheld(_) => self.land(id, pool, &waiter, reply, port),
            }
            if !self.landed.is_empty() {
                self.send_next(port);
            }
            if !shared {
                self.own_answered(id, port);
            } else if parts {
                self.part(id, port);
            }
        }
    }

    /// Gives a flight's reply, which came on connection `id` or is told in its place, to everyone it is for.
    #[inline]
    pub(super) fn land(&mut self, id: LineId, pool: u16, waiter: &Waiter, reply: &[u8], port: &mut impl Port) {
        if waiter.part == Waiter::UNTIMED {
            self.untimed(pool, waiter.tag, reply);
            self.complete(pool, waiter.ticket, reply, Some(port));
        } else if waiter.part == Waiter::ERRAND {
            self.errand_reply(waiter, Some(reply), port);
        } else if waiter.part == Waiter::MIRROR {
            self.mirror_replied(waiter, Some(reply));
        } else if waiter.part == Waiter::COPY {
            self.copy_replied(id, pool, waiter, reply, port);
        } else if waiter.part == Waiter::SPREAD {
            self.spread_landed(id, waiter, reply, port);
        } else if waiter.part == Waiter::LEASED {
            self.array_landed(pool, (waiter.ticket, waiter.at, waiter.tag), waiter.link, reply, port);
        } else if waiter.part == Waiter::ATTEMPT {
            self.attempted(id, pool, waiter, reply, port);
        } else if matches!(waiter.part, Waiter::NOBODYS | Waiter::MUST_DO) {
            // The proxy asked for its own sake.
        } else if waiter.part == Waiter::WHOLE {
            if self.clock(pool, waiter.tag, waiter.at, reply) {
                let Waiter { ticket, tag, at, .. } = *waiter;
                self.note_slow(
                    pool,
                    &Late { ticket, tag, at, line: id, shards: 1, joined: false, reply: reply.into() },
                    port,
                );
            }
            self.complete(pool, waiter.ticket, reply, Some(port));
            let mut next = waiter.link;
            while next != Waiter::NOBODY {
                let Some((ticket, at, link)) = self.joined.try_remove(next as usize) else { break };
                if self.clock(pool, waiter.tag, at, reply) {
                    let tag = waiter.tag;
                    self.note_slow(
                        pool,
                        &Late { ticket, tag, at, line: id, shards: 1, joined: true, reply: reply.into() },
                        port,
                    );
                }
                self.complete(pool, ticket, reply, Some(port));
                next = link;
            }
        } else {
            let Some(gather) = self.gathers.get_mut(waiter.link as usize) else { return };
            if gather.take(waiter.part, reply, &mut self.spare) {
                let gather = self.gathers.remove(waiter.link as usize);
                self.let_go(pool, &gather);
                let (ticket, at, tag, shards) = (gather.ticket, gather.at, gather.tag, gather.shards());
                let mut merged = self.spare.take();
                let asked = gather.asked;
                gather.finish(&mut merged, &mut self.spare);
                if asked != Waiter::NOBODY {
                    self.array_landed(pool, (ticket, at, tag), asked, &merged, port);
                    return self.spare.put(merged);
                }
                if self.clock(pool, tag, at, &merged) {
                    let late =
                        Late { ticket, tag, at, line: id, shards, joined: false, reply: merged.as_slice().into() };
                    self.note_slow(pool, &late, port);
                }
                self.complete(pool, ticket, &merged, Some(port));
                self.spare.put(merged);
            } else {
                self.hold_part(pool, waiter.link);
            }
        }
    }

    /// Counts what a split request's parts hold as waiting for its session: a shard that stands still must not make the
    /// others' parts pile up behind it. As with whole replies, one request alone never ends a session.
    pub(super) fn hold_part(&mut self, pool: u16, number: u32) {
        let Some(gather) = self.gathers.get_mut(number as usize) else { return };
        let Some(pool) = self.pools.get_mut(usize::from(pool)) else { return };
        let (kept, ticket) = (gather.kept(), gather.ticket);
        let session = self.sessions.get_mut(ticket.session as usize);
        let Some(session) = session.filter(|s| s.generation == ticket.generation) else { return };
        let more = kept.saturating_sub(gather.held);
        gather.held = kept;
        pool.counts.client_output_bytes += session.hold(more);
        if self.waits.len() > 0 && session.is_crowded(&pool.config.bounds) {
            self.uncrowd(ticket);
        }
        self.bound_output(ticket, kept);
    }

    /// The parts of a split request are put together, or given up.
    pub(super) fn let_go(&mut self, pool: u16, gather: &Gather) {
        let Some(pool) = self.pools.get_mut(usize::from(pool)) else { return };
        let session = self.sessions.get_mut(gather.ticket.session as usize);
        if let Some(session) = session.filter(|s| s.generation == gather.ticket.generation) {
            pool.counts.client_output_bytes -= session.let_go(gather.held);
        }
    }

    /// Notes how long a request took whose reply was passed on while it came.
    pub(super) fn time_long(&mut self, id: LineId, pool: u16, waiter: &Waiter, total: u64, port: &impl Port) {
        if self.clock(pool, waiter.tag, waiter.at, LONG_BULK) {
            let Waiter { ticket, tag, at, .. } = *waiter;
            self.note_slow(
                pool,
                &Late {
                    ticket,
                    tag,
                    at,
                    line: id,
                    shards: 1,
                    joined: false,
                    reply: ReplySeen { code: None, bytes: total },
                },
                port,
            );
        }
    }

    /// Notes what became of a request that may take as long as it likes.
    fn untimed(&mut self, pool: u16, tag: Tag, reply: &[u8]) {
        if reply.first() == Some(&b'-')
            && let Some(pool) = self.pools.get_mut(usize::from(pool))
        {
            pool.commands.failed(tag);
        }
    }

    /// Notes how long a request took, where, and what its reply tells; of a long one its beginning is enough. Returns whether it
    /// is slow.
    #[inline]
    pub(super) fn clock(&mut self, pool: u16, tag: Tag, at: u32, reply: &[u8]) -> bool {
        let took = (self.now as u32).wrapping_sub(at);
        let Some(pool) = self.pools.get_mut(usize::from(pool)) else { return false };
        pool.counts.request_duration[tag.class()].record(took);
        pool.counts.proxy_duration.record(took.saturating_sub(self.away));
        pool.commands.answered(tag, took, reply, &mut pool.counts);
        took >= pool.slow_from
    }

    /// A connection is being opened.
    pub fn opening(&mut self, id: LineId) {
        if let Some(line) = self.lines.get_mut(id as usize)
            && line.state == State::Idle
        {
            line.state = State::Opening;
        }
    }

    /// A connection that failed is being opened again: what is sent on it from now on waits for that.
    pub fn reopening(&mut self, id: LineId) {
        let Some(line) = self.lines.get_mut(id as usize) else { return };
        // The ear has its own way of asking again.
        if line.owner == Owner::Shared {
            line.state = State::Opening;
            let (pool, number) = (line.pool, line.number);
            self.tell(pool, &Event::Reopening(number));
        }
    }

    /// A probe of a shard was answered, or why not.
    pub fn probed(&mut self, pool: u16, shard: u16, missed: Option<Failure>, now: Micros, port: &mut impl Port) {
        self.now = now;
        self.tell(pool, &Event::Probed(shard, missed));
        self.follow_homes(port);
        if let Some(failure) = missed {
            self.keep_no_longer(pool, shard, failure, port);
        }
    }

    /// A connection is open and its shard has answered the handshake.
    pub fn connected(&mut self, id: LineId, now: Micros) {
        self.now = now;
        let Some(line) = self.lines.get_mut(id as usize) else { return };
        line.state = State::Up;
        line.counts.server_connects += 1;
        if line.queued() > 0 {
            line.mark(id, &mut self.dirty_lines);
        }
        if line.retired {
            let (pool, shard) = (line.pool, line.shard);
            self.see_again(pool, shard);
        }
        let Some(line) = self.lines.get_mut(id as usize) else { return };
        match line.owner {
            Owner::Shared if line.retired => {}
            Owner::Shared => {
                let (pool, number, shard) = (line.pool, line.number, line.shard);
                self.tell(pool, &Event::Connected(number));
                self.forget_time(pool, shard);
            }
            Owner::Ear => self.ear_open(id),
            Owner::Tracker => self.tracker_open(id),
            Owner::Free | Owner::Session(..) => {}
        }
    }

    /// A connection's socket takes bytes again.
    pub fn shard_writable(&mut self, id: LineId) {
        if let Some(line) = self.lines.get_mut(id as usize)
            && line.blocked
        {
            line.blocked = false;
            line.mark(id, &mut self.dirty_lines);
        }
    }

    /// The shard ended the connection in peace: nothing was under way. The next request opens it again.
    ///
    /// Returns false, and does nothing, when something was under way: that is a failure.
    pub fn closed(&mut self, id: LineId, now: Micros, port: &mut impl Port) -> bool {
        self.now = now;
        let Some(line) = self.lines.get_mut(id as usize) else { return true };
        if !line.waiters.is_empty() || matches!(line.owner, Owner::Ear | Owner::Tracker) {
            return false;
        }
        line.counts.server_eof += 1;
        line.state = State::Idle;
        line.drain();
        // A shard that answers a request before all of it was sent, and then closes, leaves the rest in the outbox.
        let paused = std::mem::take(&mut line.paused);
        let (pool, number, shared) = (line.pool, line.number, line.owner == Owner::Shared);
        if shared {
            self.tell(pool, &Event::Closed(number));
        } else {
            self.own_lost(id);
        }
        self.resume(&paused, port);
        true
    }

    /// A connection failed, or could not be opened: everyone who waits on it gets an error.
    pub fn fail(&mut self, id: LineId, failure: Failure, now: Micros, port: &mut impl Port) {
        self.now = now;
        self.line_up(id, port);
        let Some(line) = self.lines.get_mut(id as usize) else { return };
        match failure.cause {
            Cause::Connect => line.counts.server_connect_failures += 1,
            Cause::Timeout => line.counts.server_timedout += 1,
            _ => line.counts.server_err += 1,
        }
        let unsent = Unsent::of(line, &failure);
        let retired = line.retired;
        // One that is opened only when it is asked for must not be refused until then, should its shard come back.
        let rests = retired && matches!(line.owner, Owner::Shared | Owner::Ear | Owner::Tracker);
        line.state = if rests { State::Idle } else { State::Down(failure) };
        let passing = line.passing > 0;
        let (mut stamps, mut serial) = (line.take_stamps(), line.base + u64::from(passing));
        let mut lost = line.drain();
        let paused = std::mem::take(&mut line.paused);
        let (pool, number, shard, owner) = (line.pool, line.number, line.shard, line.owner);
        self.in_flight = self.in_flight.saturating_sub(lost.len() as u32);
        self.drop_notes(id);
        self.wish(pool);
        match owner {
            Owner::Shared if retired => {}
            Owner::Shared => self.tell(pool, &Event::Failed(number, failure)),
            Owner::Ear => {
                if !retired {
                    self.tell(pool, &Event::Lost(shard, failure));
                }
                self.ear_lost(id, failure);
            }
            Owner::Tracker => {
                if !retired {
                    self.tell(pool, &Event::Lost(shard, failure));
                }
                self.tracker_lost(id);
            }
            // Before anyone is answered: whoever has it must not think that the shard still remembers.
            Owner::Free | Owner::Session(..) => {
                self.tell(pool, &Event::Lost(shard, failure));
                self.own_lost(id);
            }
        }
        if passing && !lost.is_empty() {
            let (waiter, _) = lost.remove(0);
            match waiter.part {
                Waiter::MIRROR => self.mirror_replied(&waiter, None),
                _ => self.break_off_reply(pool, waiter.ticket),
            }
        }
        if let Some(unsent) = unsent {
            lost = self.keep_reads(id, &unsent, lost);
        }
        let mut reply = self.spare.take();
        for (mut waiter, sent) in lost {
            // What was not answered in time was waited for there and not here.
            while stamps.front().is_some_and(|&(below, _)| below <= serial) {
                stamps.pop_front();
            }
            let stamp = stamps.front().filter(|_| sent);
            self.away = stamp.map_or(0, |&(_, at)| (now as u32).wrapping_sub(at));
            serial += 1;
            if waiter.part == Waiter::SHARED {
                waiter = self.lead_of(&waiter);
            }
            if waiter.part == Waiter::ERRAND {
                self.errand_reply(&waiter, None, port);
                continue;
            }
            if waiter.part == Waiter::MIRROR {
                self.mirror_replied(&waiter, None);
                continue;
            }
            reply.clear();
            if let Some(pool) = self.pools.get_mut(usize::from(pool)) {
                let name = pool.config.shards.get(usize::from(shard)).map_or("", String::as_str);
                // Of a split request another part may have run, whatever became of this one.
                let split = waiter.part < Waiter::FIRST_SPECIAL
                    && self.gathers.get(waiter.link as usize).is_some_and(Gather::is_split);
                failure.write(name, sent || split, &mut reply);
                // No app is told of a copy: its read is sent home.
                if waiter.part != Waiter::COPY {
                    pool.counts.errors[failure.cause] += 1;
                }
            }
            if self.samples.is_open() {
                self.sample_heard(id, &waiter, (&reply, reply.len() as u64), Some(failure.cause), port);
            }
            self.land(id, pool, &waiter, &reply, port);
        }
        self.spare.put(reply);
        self.resume(&paused, port);
        self.follow_homes(port);
    }

    /// Whether the pool's servers are told by others than its configuration.
    fn follows(&self, pool: u16) -> bool {
        self.pools.get(usize::from(pool)).is_some_and(|pool| pool.config.follows)
    }

    pub(super) fn tell(&mut self, pool: u16, event: &Event<'_>) {
        if let Some(pool) = self.pools.get_mut(usize::from(pool)) {
            pool.config.path.observe(event, self.now, &mut self.notices);
        }
    }

    /// Lets sessions go on that waited for an outbox.
    pub(super) fn resume(&mut self, paused: &[(SessionId, u32)], port: &mut impl Port) {
        for &(id, generation) in paused {
            let Some(session) = self.sessions.get_mut(id as usize) else { continue };
            if session.generation == generation && session.parked {
                session.parked = false;
                session.paused = false;
                self.wake(id, port);
            }
        }
    }
}
