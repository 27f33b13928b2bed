//! Requests that are also sent to another pool, the *mirror* (`mirror`): to try it out, or to fill it before keys move there.
//!
//! A copy of a request is queued on the mirror's shared connections, before the request itself is carried out, and its reply is
//! dropped. Whatever the mirror does, the app's reply is what it would be without: nothing of the app's waits for it, is bounded
//! by it or fails with it.
//!
//! Promises: copies leave in the order in which this worker has read the requests, each server of the mirror on one connection. So
//! the writes of a session, and those of a key from all sessions of a worker, are carried out there in that order. Nothing is
//! sent twice, but for what a node of a cluster redirects. What would make too much wait is dropped and counted, and so is
//! what has nowhere to go: a mirror that is dead or frozen costs that look.
//!
//! Does not promise: any order between workers or processes; that what is dropped, or refused by the mirror, is ever made good; that a
//! write which failed at the pool itself fails at the mirror, or the other way round.
//!
//! Never mirrored, and counted where a key of it is: what is in [`Skipped`]. Not counted: what names no key (FLUSHALL, KEYS), publish
//! and subscribe, and what hotring answers or refuses by itself.
//!
//! Bounded: [`MOST`] commands a pool and worker under way, half of the mirror's `max_outbox` on each connection; comparisons
//! below, see [`compare`].

#![expect(clippy::arithmetic_side_effects, reason = "counters of 64 bits, and places in requests that are in memory")]

mod compare;

pub(super) use compare::Mirrors;
pub use compare::Mismatch;

use super::line::{State, Ticket, Waiter};
use super::port::Port;
use super::{Engine, LineId, SessionId};
use crate::command::{self, Class, Merge, Need, Spec, Treatment, flag};
use crate::metrics::{Dropped, Skipped};
use crate::resp::{Request, write};
use crate::stages::mirror::{Mirroring, order_of};
use crate::stages::{Leg, Verdict};
use compare::Side;
use std::sync::Arc;

/// Commands under way to a mirror, of one pool and worker.
const MOST: u32 = 8192;

/// What a worker knows of a pool's mirror.
#[derive(Default)]
pub(super) struct Here {
    /// The mirror's number.
    to: Option<u16>,
    /// Commands under way.
    in_flight: u32,
}

/// Commands of a split request for one connection, and in a cluster for one slot.
struct Part {
    on: LineId,
    slot: Option<u16>,
    keys: usize,
    /// Its arguments, as on the wire.
    args: Vec<u8>,
}

impl Engine {
    /// Pools are configured anew, or there are more: which number each mirror has.
    pub(super) fn renew_mirrors(&mut self) {
        let number = |to: &str| self.pools.iter().position(|pool| pool.config.name == to);
        let numbers: Vec<Option<u16>> = self
            .pools
            .iter()
            .map(|pool| pool.config.mirror.as_ref().and_then(|mirror| number(&mirror.to)).map(|to| to as u16))
            .collect();
        for (pool, to) in self.pools.iter_mut().zip(numbers) {
            pool.mirror.to = to;
        }
    }

    /// Sends a copy of a request, which is about to be carried out as the session's next, if the pool has a mirror and wants that.
    pub(super) fn mirror(&mut self, id: SessionId, spec: &'static Spec, request: &Request<'_>, port: &mut impl Port) {
        let Some(number) = self.sessions.get(id as usize).map(|session| session.pool) else { return };
        let Some(config) = self.pools.get(usize::from(number)).and_then(|pool| pool.config.mirror.clone()) else {
            return;
        };
        let leaf = spec.leaf(request);
        if leaf.flags & flag::PUBSUB != 0 {
            return;
        }
        if config.compare && leaf.access == command::Access::Write {
            let stamps = &mut self.mirrors;
            // One whose keys cannot be told is refused for that.
            let _ = command::each_key(spec, request, &mut |_, key| stamps.is_written(key));
        }
        if !config.commands.have(leaf.access) {
            return;
        }
        let mut chosen = std::mem::take(&mut self.mirrors.chosen);
        chosen.clear();
        let known = command::each_key(spec, request, &mut |_, key| chosen.push(config.has(key))).is_ok();
        if known && chosen.contains(&true) {
            self.mirror_chosen((id, number), spec, request, (&config, &chosen), port);
        }
        self.mirrors.chosen = chosen;
    }

    /// The same where a key of it is chosen.
    fn mirror_chosen(
        &mut self,
        (id, number): (SessionId, u16),
        spec: &'static Spec,
        request: &Request<'_>,
        (config, chosen): (&Arc<Mirroring>, &[bool]),
        port: &mut impl Port,
    ) {
        let split = match self.treatment(id, spec, request) {
            Treatment::Forward => None,
            Treatment::Split(merge) => Some(merge),
            Treatment::Own(Need::Blocking) => return self.skip_mirror(number, Skipped::Blocking),
            _ => return,
        };
        let Some(session) = self.sessions.get(id as usize) else { return };
        if session.special.as_ref().is_some_and(|special| special.multi) {
            return self.skip_mirror(number, Skipped::Transaction);
        }
        if session.base != 0 && session.db() != 0 {
            return self.skip_mirror(number, Skipped::Database);
        }
        let all = !chosen.contains(&false);
        if !all && split.is_none() {
            return self.skip_mirror(number, Skipped::Partial);
        }
        let sent = match split {
            Some(merge) if chosen.len() > 1 => self.mirror_split(number, spec, request, (merge, chosen), port),
            _ => self.mirror_whole((id, number), spec, request, config, port),
        };
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        match sent {
            Ok(()) => pool.counts.mirrored += 1,
            Err(why) => pool.counts.mirror_dropped[why] += 1,
        }
    }

    /// A request that goes to one server as it is.
    fn mirror_whole(
        &mut self,
        (id, number): (SessionId, u16),
        spec: &'static Spec,
        request: &Request<'_>,
        config: &Mirroring,
        port: &mut impl Port,
    ) -> Result<(), Dropped> {
        let to = self.mirror_of(number)?;
        let (mut home, mut keys, mut name) = (None, 0, &b""[..]);
        let _ = command::each_key(spec, request, &mut |_, key| {
            let here = self.mirror_home(to, spec, key, request);
            let same = *home.get_or_insert(here) == here;
            if !same {
                home = Some(Err(Dropped::CrossShard));
            }
            (keys, name) = (keys + 1, key);
        });
        let (on, _) = home.unwrap_or(Err(Dropped::Down))?;
        let order = order_of(spec.leaf(request).name).filter(|_| config.compare && keys == 1);
        let compared = order.and_then(|order| self.compare_with_mirror(id, (name, order), request));
        if spec.class == Class::Script
            && let Some(wire) = self.with_script(spec, request)
        {
            self.send_to_mirror(number, on, &wire, spec, compared, port);
        } else {
            self.send_to_mirror(number, on, request.wire(), spec, compared, port);
        }
        Ok(())
    }

    /// A request for several keys, of those that are chosen.
    fn mirror_split(
        &mut self,
        number: u16,
        spec: &'static Spec,
        request: &Request<'_>,
        (merge, chosen): (Merge, &[bool]),
        port: &mut impl Port,
    ) -> Result<(), Dropped> {
        let to = self.mirror_of(number)?;
        let values = matches!(merge, Merge::AllOk);
        let (mut parts, mut args): (Vec<Part>, _) = (Vec::new(), request.args());
        args.next();
        for &chosen in chosen {
            let start = args.at();
            let Some(key) = args.next() else { break };
            // One that lacks its last value is refused.
            if values && args.next().is_none() {
                return Ok(());
            }
            let bytes = request.wire().get(start..args.at()).unwrap_or_default();
            if !chosen {
                continue;
            }
            let (on, slot) = self.mirror_home(to, spec, key, request)?;
            match parts.iter_mut().find(|part| (part.on, part.slot) == (on, slot)) {
                Some(part) => {
                    part.keys += 1;
                    part.args.extend_from_slice(bytes);
                }
                None => parts.push(Part { on, slot, keys: 1, args: bytes.to_vec() }),
            }
        }
        for part in parts {
            let mut wire = self.spare.take();
            write::array(&mut wire, 1 + part.keys * if values { 2 } else { 1 });
            write::bulk(&mut wire, request.name());
            wire.extend_from_slice(&part.args);
            self.send_to_mirror(number, part.on, &wire, spec, None, port);
            self.spare.put(wire);
        }
        Ok(())
    }

    /// The number of a pool's mirror, if something may be sent there.
    fn mirror_of(&self, number: u16) -> Result<u16, Dropped> {
        let here = self.pools.get(usize::from(number)).map(|pool| &pool.mirror).ok_or(Dropped::Down)?;
        if here.in_flight >= MOST {
            return Err(Dropped::Full);
        }
        here.to.ok_or(Dropped::Down)
    }

    /// The connection that leads to a key's home, and in a cluster its slot.
    fn mirror_home(
        &self,
        to: u16,
        spec: &'static Spec,
        key: &[u8],
        request: &Request<'_>,
    ) -> Result<(LineId, Option<u16>), Dropped> {
        let pool = self.pools.get(usize::from(to)).ok_or(Dropped::Down)?;
        let mut leg = Leg { alone: false, ..Leg::new(spec, key, request.wire()) };
        if matches!(pool.config.path.decide(&mut leg, self.now), Verdict::Refuse(_)) {
            return Err(Dropped::Down);
        }
        if self.troubles > 0 && self.is_in_trouble(to, spec, request) {
            return Err(Dropped::Moving);
        }
        let on = pool.line(leg.line);
        let line = self.lines.get(on as usize).ok_or(Dropped::Down)?;
        if matches!(line.state, State::Down(_)) {
            return Err(Dropped::Down);
        }
        if line.queued() + request.wire().len() > pool.config.outbox / 2 && line.queued() > 0 {
            return Err(Dropped::Full);
        }
        Ok((on, pool.config.path.route.slot(key)))
    }

    /// Queues a command for whom a reply of which nobody waits, but for a comparison.
    fn send_to_mirror(
        &mut self,
        number: u16,
        on: LineId,
        wire: &[u8],
        spec: &'static Spec,
        compared: Option<(u32, u32)>,
        port: &mut impl Port,
    ) {
        self.send_looked_at((number, Side::Mirror), on, wire, spec, compared, port);
    }

    /// The same to either side of a comparison.
    fn send_looked_at(
        &mut self,
        (number, side): (u16, Side),
        on: LineId,
        wire: &[u8],
        spec: &'static Spec,
        compared: Option<(u32, u32)>,
        port: &mut impl Port,
    ) {
        let (link, slot) = compared.unwrap_or((Waiter::NOBODY, 0));
        // Nobody's: whose it is, and for what, stands where a session's would.
        let ticket = Ticket { session: u32::MAX, generation: u32::from(number) << 1 | side as u32, slot };
        let waiter = Waiter { ticket, at: self.now as u32, link, part: Waiter::MIRROR, tag: spec.tag };
        self.send(on, waiter, wire, port);
        if let Some(pool) = self.pools.get_mut(usize::from(number)) {
            pool.mirror.in_flight += 1;
            pool.counts.mirror_in_flight.set(pool.mirror.in_flight.into());
        }
    }

    /// A reply to a copy, or to a read made for a comparison; `None` if there will be none.
    #[cold]
    pub(super) fn mirror_replied(&mut self, waiter: &Waiter, reply: Option<&[u8]>) {
        let (number, side) = ((waiter.ticket.generation >> 1) as u16, Side::of(waiter.ticket.generation));
        let now = self.now;
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        pool.mirror.in_flight = pool.mirror.in_flight.saturating_sub(1);
        pool.counts.mirror_in_flight.set(pool.mirror.in_flight.into());
        if side == Side::Mirror && reply.is_none_or(|reply| reply.first() == Some(&b'-')) {
            pool.counts.mirror_errors += 1;
        }
        if waiter.link != Waiter::NOBODY {
            self.mirrors.told((waiter.link, waiter.ticket.slot), side, reply, (&mut pool.counts, now));
        }
    }

    fn skip_mirror(&mut self, number: u16, why: Skipped) {
        if let Some(pool) = self.pools.get_mut(usize::from(number)) {
            pool.counts.mirror_skipped[why] += 1;
        }
    }

    /// A request is passed on while it arrives.
    pub(super) fn skip_long(&mut self, number: u16, spec: &'static Spec, key: &[u8]) {
        let mirror = self.pools.get(usize::from(number)).and_then(|pool| pool.config.mirror.as_ref());
        if mirror.is_some_and(|mirror| mirror.commands.have(spec.access) && mirror.has(key)) {
            self.skip_mirror(number, Skipped::Long);
        }
        self.mirrors.is_written(key);
    }
}
