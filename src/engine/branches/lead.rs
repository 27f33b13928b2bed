//! Requests on their way to other pools.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "counters of 64 bits, and places within a request that was scanned"
)]

use super::ways::Way;
use super::{Engine, For};
use crate::command::{self, Fault, Local, Merge, Spec, Treatment};
use crate::engine::SessionId;
use crate::engine::line::Ticket;
use crate::engine::merge::Gather;
use crate::engine::port::Port;
use crate::engine::special::mode;
use crate::error;
use crate::resp::{Request, write};
use crate::stages::Refusal;

/// What one pool gets of a split request.
#[derive(Debug)]
struct Part {
    to: u16,
    /// How many keys.
    keys: usize,
    /// Its arguments, as on the wire; all of the request when it is whole.
    wire: Vec<u8>,
}

impl Engine {
    /// Carries a request that goes to another pool. Returns whether it was dealt with; if not it is carried out as any other.
    pub(in crate::engine) fn take_way(
        &mut self,
        id: SessionId,
        named: Result<&'static Spec, &Fault>,
        request: &Request<'_>,
        port: &mut impl Port,
    ) -> bool {
        // Looked for a moment ago, as it was asked whether it may begin; a branch's own was not.
        let chosen = self.way.take().filter(|&(of, _)| of == id).map(|(_, way)| way);
        match (chosen.unwrap_or_else(|| self.way(id, named, request)), named) {
            (Way::Here, Ok(spec)) if matches!(spec.treatment, Treatment::Local(Local::Reset)) => {
                // All that it has asked for is answered. What was asked before a QUIT may not be: that ends them with the session.
                self.leave_branches(id, port);
                false
            }
            (Way::Here, _) => false,
            (Way::There(to), _) => {
                let branch = self.branch_in(id, to);
                self.lead(id, branch, named, request, port);
                true
            }
            (Way::Bound(branch), _) => {
                let to = self.sessions.get(branch as usize).map(|session| session.pool);
                let branch = to.and_then(|to| self.branch_in(id, to));
                self.lead(id, branch, named, request, port);
                true
            }
            (Way::Moves(to), _) => {
                if self.move_transaction(id, to, port) {
                    let branch = self.branch_to(id, to);
                    self.lead(id, branch, named, request, port);
                }
                true
            }
            (way @ (Way::Split(merge) | Way::All(merge)), Ok(spec)) => {
                self.lead_parts(id, (spec, merge), way, request, port);
                true
            }
            (Way::Split(_) | Way::All(_) | Way::Apart, _) => {
                self.goes_apart(id, port);
                true
            }
        }
    }

    /// Carries a request in a branch, whose reply is the session's next.
    fn lead(
        &mut self,
        id: SessionId,
        branch: Option<SessionId>,
        named: Result<&'static Spec, &Fault>,
        request: &Request<'_>,
        port: &mut impl Port,
    ) {
        let Some(branch) = branch else { return self.refused(id, Refusal::NoShard, 0) };
        let Some((number, ticket)) = self.open_slot(id) else { return };
        if let Some(pool) = self.pools.get_mut(usize::from(number)) {
            pool.counts.routed += 1;
        }
        if self.samples.is_open() {
            self.sample_led(ticket, branch);
        }
        if !self.enter(branch, named, request, For::Slot(ticket.slot), port) {
            // Unless that has ended the branch, and the session with it, nobody will answer.
            if self.sessions.get(branch as usize).is_some_and(|session| session.killed) {
                self.end_session(id);
            }
            let mut reply = Vec::new();
            crate::engine::refuse(Refusal::NoShard, "", &mut reply);
            self.complete(number, ticket, &reply, None);
        }
    }

    /// Carries a request in a branch. Returns whether it will be answered.
    fn enter(
        &mut self,
        branch: SessionId,
        named: Result<&'static Spec, &Fault>,
        request: &Request<'_>,
        whose: For,
        port: &mut impl Port,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(branch as usize) else { return false };
        let (slot, long_way) = (session.next_slot(), session.mode & mode::LONG_WAY != 0);
        let Some(place) = session.branch() else { return false };
        place.expect(slot, whose);
        let long_way = long_way || self.share.full;
        // Told from its name once more: what is wrong with it is worded from that.
        let named = named.map_or_else(|_| command::identify(request), Ok);
        self.proceed(branch, named, long_way, request, port);
        let Some(session) = self.sessions.get_mut(branch as usize) else { return true };
        let opened = session.next_slot() != slot;
        if !opened && let Some(place) = session.branch() {
            place.owed.pop_back();
        }
        opened
    }

    /// The transaction that a session has begun without naming a key goes to a branch, with what was held back of it. Returns
    /// whether it did; if not the app has been told why, and the transaction is spoilt.
    fn move_transaction(&mut self, id: SessionId, to: u16, port: &mut impl Port) -> bool {
        let branch = self.branch_in(id, to);
        let special = self.sessions.get_mut(id as usize).and_then(|session| session.special.as_mut());
        let (Some(branch), Some(special)) = (branch, special) else {
            self.refused(id, Refusal::NoShard, 0);
            self.spoil(id, port);
            return false;
        };
        let (held, dirty) = (std::mem::take(&mut special.held), special.dirty);
        self.leave_own(id, port);
        // What was drawn for another request does not meet what begins a transaction.
        self.take_drawn(branch);
        let mut wire = Vec::new();
        write::request(&mut wire, &[b"MULTI"]);
        if let Some(begins) = Request::of_any_length(&wire) {
            let named = command::identify(&begins);
            self.enter(branch, named.as_ref().copied(), &begins, For::Nobody, port);
            if !self.special_there(id).is_some_and(|special| special.multi) {
                // That pool begins none. What would have been part of it must not be done by itself.
                if let Some(session) = self.sessions.get_mut(id as usize) {
                    session.mode |= mode::PINNED;
                    let special = session.special();
                    (special.multi, special.dirty) = (true, true);
                }
                self.lead(id, Some(branch), named.as_ref().copied(), &begins, port);
                return false;
            }
        }
        let mut rest = held.as_slice();
        while let Some(request) = Request::of_any_length(rest) {
            let named = command::identify(&request);
            self.enter(branch, named.as_ref().copied(), &request, For::Nobody, port);
            rest = rest.get(request.wire().len()..).unwrap_or_default();
        }
        if dirty {
            self.spoil(branch, port);
        }
        true
    }

    /// What each pool gets of a request for several: parts, and for each key, where it is about keys, the part that has it.
    fn parts_of(&self, number: u16, way: Way, request: &Request<'_>) -> (Vec<Part>, Vec<u16>) {
        let (mut parts, mut order): (Vec<Part>, _) = (Vec::new(), Vec::new());
        let Some(pool) = self.pools.get(usize::from(number)) else { return (parts, order) };
        let Way::Split(merge) = way else {
            let mut pools: Vec<u16> = [number].into_iter().chain(pool.routes.to.iter().copied()).collect();
            pools.sort_unstable();
            pools.dedup();
            let part = |to| Part { to, keys: 0, wire: request.wire().to_vec() };
            return (pools.into_iter().map(part).collect(), order);
        };
        let values = matches!(merge, Merge::AllOk);
        let mut args = request.args();
        args.next();
        loop {
            let start = args.at();
            let Some(key) = args.next() else { break };
            if values {
                args.next();
            }
            let bytes = request.wire().get(start..args.at()).unwrap_or_default();
            let to = pool.routed(key).unwrap_or(number);
            let at = parts.iter().position(|part| part.to == to).unwrap_or_else(|| {
                parts.push(Part { to, keys: 0, wire: Vec::new() });
                parts.len() - 1
            });
            if let Some(part) = parts.get_mut(at) {
                part.keys += 1;
                part.wire.extend_from_slice(bytes);
            }
            order.push(at as u16);
        }
        for part in &mut parts {
            let mut wire = Vec::with_capacity(part.wire.len() + request.name().len() + 32);
            write::array(&mut wire, 1 + part.keys * if values { 2 } else { 1 });
            write::bulk(&mut wire, request.name());
            wire.extend_from_slice(&part.wire);
            part.wire = wire;
        }
        (parts, order)
    }

    /// Whether each key of a request that is to be split has its value.
    fn has_whole_pairs(way: Way, request: &Request<'_>) -> bool {
        way != Way::Split(Merge::AllOk) || request.argc() % 2 == 1
    }

    /// Whether all branches that a split request goes to take their part of it now.
    pub(super) fn may_enter_all(
        &mut self,
        id: SessionId,
        way: Way,
        spec: &'static Spec,
        request: &Request<'_>,
        port: &mut impl Port,
    ) -> bool {
        let Some(number) = self.sessions.get(id as usize).map(|session| session.pool) else { return true };
        if !Self::has_whole_pairs(way, request) {
            return true;
        }
        for part in self.parts_of(number, way, request).0 {
            let Some(branch) = self.branch_in(id, part.to) else { continue };
            let changes = self.changes;
            let branches = |engine: &mut Self| {
                let special = engine.sessions.get_mut(id as usize)?.special.as_mut()?;
                special.branches.as_mut().map(|branches| std::mem::take(&mut branches.entered))
            };
            let (since, mut entered) = branches(self).unwrap_or_default();
            if since != changes {
                entered.clear();
            }
            let Some(request) = Request::of_any_length(&part.wire) else { continue };
            let may = entered.contains(&branch) || self.may_enter(id, branch, Ok(spec), &request, port);
            if may && !entered.contains(&branch) {
                entered.push(branch);
            }
            let special = self.sessions.get_mut(id as usize).and_then(|session| session.special.as_mut());
            if let Some(branches) = special.and_then(|special| special.branches.as_mut()) {
                branches.entered = (changes, entered);
            }
            if !may {
                return false;
            }
        }
        true
    }

    /// Carries a request whose keys live in several pools.
    fn lead_parts(
        &mut self,
        id: SessionId,
        (spec, merge): (&'static Spec, Merge),
        way: Way,
        request: &Request<'_>,
        port: &mut impl Port,
    ) {
        if !Self::has_whole_pairs(way, request) {
            return self.faulty(id, request, &Fault::Arity(spec));
        }
        let Some(number) = self.sessions.get(id as usize).map(|session| session.pool) else { return };
        let (parts, order) = self.parts_of(number, way, request);
        let branches: Option<Vec<SessionId>> = parts.iter().map(|part| self.branch_in(id, part.to)).collect();
        let Some(branches) = branches else { return self.refused(id, Refusal::NoShard, 0) };
        let Some((_, ticket)) = self.open_slot(id) else { return };
        let room = self.pools.get(usize::from(number)).map_or(usize::MAX, |pool| pool.config.bounds.output);
        let (at, count) = (self.now as u32, parts.len() as u16);
        let gather = match way {
            Way::Split(_) => Gather::new(ticket, at, spec.tag, merge, count, &order),
            _ => Gather::over_shards(ticket, at, spec.tag, merge, count, room, 0),
        };
        let gather = self.gathers.insert(gather) as u32;
        if let Some(pool) = self.pools.get_mut(usize::from(number)) {
            pool.counts.routed += 1;
            pool.counts.fragments += parts.len() as u64;
        }
        let special = self.sessions.get_mut(id as usize).and_then(|session| session.special.as_mut());
        if let Some(held) = special.and_then(|special| special.branches.as_mut()) {
            (held.split, held.entered) = (true, (0, Vec::new()));
        }
        for (at, (part, branch)) in parts.iter().zip(branches).enumerate() {
            let whose = For::Part { gather, part: at as u16 };
            let Some(request) = Request::of_any_length(&part.wire) else { continue };
            if !self.enter(branch, Ok(spec), &request, whose, port) {
                let mut reply = Vec::new();
                crate::engine::refuse(Refusal::NoShard, "", &mut reply);
                self.part_led(number, gather, at as u16, &reply, None);
            }
        }
    }

    /// A part of a split request has its reply.
    pub(super) fn part_led(&mut self, number: u16, link: u32, part: u16, reply: &[u8], port: Option<&mut dyn Port>) {
        // Of the other parts one may have been carried out, whatever became of this one.
        let doubtful = error::in_doubt(reply);
        let reply = doubtful.as_deref().unwrap_or(reply);
        let Some(gather) = self.gathers.get_mut(link as usize) else { return };
        if !gather.take(part, reply, &mut self.spare) {
            return self.hold_part(number, link);
        }
        let gather = self.gathers.remove(link as usize);
        self.let_go(number, &gather);
        let (ticket, at, tag): (Ticket, _, _) = (gather.ticket, gather.at, gather.tag);
        let mut merged = self.spare.take();
        gather.finish(&mut merged, &mut self.spare);
        self.clock(number, tag, at, &merged);
        self.complete(number, ticket, &merged, port);
        self.spare.put(merged);
    }
}
