//! From a request to flights: which legs it has, what the stages make of each, and what goes into which outbox.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "counters of 64 bits, and places within a request that was scanned"
)]

use super::hot::Note;
use super::line::{Owner, Ticket, Waiter};
use super::merge::Gather;
use super::port::{Port, Taken};
use super::special::mode;
use super::window::DIRECT;
use super::{Engine, LineId, SessionId, leg_of, local, refusal, refuse};
use crate::command::{self, Class, Fault, Keys, Local, Merge, Need, Spec, Treatment, Why, flag};
use crate::error::Cause;
use crate::metrics::Full;
use crate::resp::{ProtocolError, Request, write};
use crate::stages::hot::Value;
use crate::stages::{Event, Flight, Leg, Refusal, Verdict, missing};

/// Lists used while a request with several keys is planned; kept so that planning allocates nothing.
#[derive(Default)]
pub(super) struct Scratch {
    /// Argument numbers of the keys.
    pub(super) keys: Vec<u32>,
    /// A split request's legs: where their arguments stand in the request, and the part they belong to.
    legs: Vec<Piece>,
    /// For each part its connection.
    parts: Vec<Part>,
    /// For each leg its part.
    order: Vec<u16>,
    /// For each of the pool's connections, or of its cluster's slots, its part, if it has one already.
    part_of: Vec<u16>,
}

/// No part yet.
const NONE: u16 = u16::MAX;

/// Why a request cannot go to one shard as it is.
#[derive(Debug)]
pub(super) enum Apart {
    /// A stage refuses a leg.
    Refused(Refusal, u16),
    /// Its keys live on several.
    SeveralShards,
    /// The memory budget is used up.
    NoRoom,
    /// Its keys cannot be told; the error as Redis words it.
    Malformed(&'static str),
}

/// The keys at these argument numbers, which rise; one empty key where there are none: a command without keys goes where an
/// empty key would, which is the only shard there is.
pub(super) fn keys_of<'a>(request: &Request<'a>, keys: &[u32]) -> impl Iterator<Item = &'a [u8]> {
    let none = keys.is_empty().then_some(&b""[..]);
    let mut wanted = keys.iter().copied().peekable();
    let named = request.args().enumerate();
    let found = named.filter_map(move |(index, key)| wanted.next_if(|&k| k as usize == index).map(|_| key));
    found.take(keys.len()).chain(none)
}

impl Scratch {
    fn reset(&mut self) {
        for part in &self.parts {
            if let Some(place) = self.part_of.get_mut(part.place as usize) {
                *place = NONE;
            }
        }
        self.legs.clear();
        self.parts.clear();
        self.order.clear();
    }
}

#[derive(Clone, Copy)]
struct Piece {
    start: u32,
    end: u32,
    key_start: u32,
    key_end: u32,
    part: u16,
    /// Its key's hash, if that is hot.
    hot: Option<u64>,
}

pub(super) struct Part {
    line: u32,
    /// Its place in `part_of`: its connection, or in a cluster its slot.
    place: u32,
    /// The same, as the engine counts them.
    pub(super) on: LineId,
    shard: u16,
    pub(super) legs: u32,
    /// Where its reply comes from.
    pub(super) source: Source,
    /// The flight's bytes; of a part that is answered from memory, those of its elements.
    pub(super) flight: Vec<u8>,
    /// Its number on the connection.
    serial: u64,
}

/// Where the reply to a part of a split request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// From its shard.
    Shard,
    /// From nowhere: its keys are told not to exist.
    Missing,
    /// From memory.
    Memory,
}

impl Part {
    /// Whether it is sent to a shard.
    fn departs(&self) -> bool {
        self.source == Source::Shard
    }
}

impl Engine {
    /// Carries out one request as it is; `named` is what [`command::identify`] says of it. Returns whether it did: if not, the
    /// request has to wait for those before it, and comes again.
    #[inline]
    pub(super) fn carry(
        &mut self,
        id: SessionId,
        named: Result<&'static Spec, Fault>,
        request: &Request<'_>,
        port: &mut impl Port,
    ) -> bool {
        let Some(mut session) = self.sessions.get_mut(id as usize) else { return true };
        if session.is_behind() {
            self.ask_behind(id, request, port);
            let Some(again) = self.sessions.get_mut(id as usize) else { return true };
            session = again;
        }
        let settled = matches!(&named, Ok(spec) if spec.flags & flag::SETTLED != 0);
        let (turns, aside) = (session.mode & mode::TURNS != 0, session.mode & mode::ASIDE != 0);
        let long_way = session.mode & mode::LONG_WAY != 0 || self.share.full;
        if (settled || turns || session.indirect > 0 || self.troubles > 0)
            && !self.may_begin(id, named.as_ref().copied(), request)
        {
            return false;
        }
        if aside
            && !(self.is_free_of_faults(id, named.as_ref().copied(), request)
                && self.may_take_way(id, named.as_ref().copied(), request, port))
        {
            return false;
        }
        let named = if long_way { self.tenant.meant(named) } else { named };
        self.requests += 1;
        self.next_in_order();
        if self.requests >= self.samples.next {
            self.request_sampled(id, named, long_way, request, port);
        } else {
            self.proceed(id, named, long_way, request, port);
        }
        true
    }

    /// Carries out a request whose turn it is.
    #[inline]
    pub(super) fn proceed(
        &mut self,
        id: SessionId,
        named: Result<&'static Spec, Fault>,
        long_way: bool,
        request: &Request<'_>,
        port: &mut impl Port,
    ) {
        let Some(session) = self.sessions.get_mut(id as usize) else { return };
        let Some(pool) = self.pools.get_mut(usize::from(session.pool)) else { return };
        pool.counts.request_bytes += request.wire().len() as u64;
        pool.counts.requests[named.as_ref().map_or(Class::Refused, |spec| spec.class)] += 1;
        self.asking = named.as_ref().ok().map(|spec| spec.tag);
        if let Ok(spec) = &named {
            pool.commands.asked(spec.tag);
            if pool.prefixes.is_on() {
                pool.prefixes.asked((id, session.next_slot()), session.open_slots() == 0, spec, request);
            }
        }
        let free = named.as_ref().is_ok_and(|spec| spec.flags & flag::NO_AUTH != 0);
        if !session.authenticated && !free && named.is_ok() {
            self.tell_to_log_in(id);
        } else if !(long_way && self.long_way(id, named.as_ref().copied(), request, port)) {
            match named {
                Ok(spec) => self.carry_out(id, spec, request, port),
                Err(fault) => self.faulty(id, request, &fault),
            }
        }
    }

    /// What is particular to this session. Returns whether the request was dealt with.
    #[inline(never)]
    fn long_way(
        &mut self,
        id: SessionId,
        named: Result<&'static Spec, &Fault>,
        request: &Request<'_>,
        port: &mut impl Port,
    ) -> bool {
        let Some(session) = self.sessions.get(id as usize) else { return true };
        let mode = session.mode;
        let drawn = if mode & mode::ASIDE != 0 { self.take_drawn(id) } else { None };
        if let Ok(spec) = named {
            if mode & mode::GUARDED != 0 && !self.may(id, spec, request) {
                if spec.name == "exec" {
                    // It ends its transaction all the same.
                    self.leave_own(id, port);
                } else {
                    // What may not be done spoils a transaction, too.
                    self.spoil(id, port);
                }
                return true;
            }
            if mode & mode::LIMITED != 0 && !self.is_within_limits(id, spec, request) {
                self.spoil(id, port);
                return true;
            }
            if self.share.full && self.has_no_room(id, spec, request, port) {
                return true;
            }
            if mode & mode::LISTENING != 0 {
                if self.while_listening(id, spec, request) {
                    return true;
                }
                if matches!(spec.treatment, Treatment::Local(Local::Reset)) {
                    self.stop_listening(id);
                }
            }
        }
        if mode & mode::ASIDE != 0
            && let Ok(spec) = named
        {
            if let Some(drawn) = drawn
                && self.inject(id, *drawn, port)
            {
                return true;
            }
            if self.take_way(id, named, request, port) {
                return true;
            }
            self.mirror(id, spec, request, port);
        } else if mode & mode::ASIDE != 0 && self.take_way(id, named, request, port) {
            return true;
        }
        if mode & mode::ASIDE != 0
            && let Ok(spec) = named
            && self.look_for_misses(id, spec, request, port)
        {
            return true;
        }
        if mode & (mode::ASIDE | mode::PINNED) == mode::ASIDE
            && let Ok(spec) = named
            && self.aside(id, spec, request, port)
        {
            return true;
        }
        mode & mode::PINNED != 0 && self.pinned(id, named, request, port)
    }

    /// As [`command::treatment`], in this session's pool.
    #[inline]
    pub(super) fn treatment(&self, id: SessionId, spec: &'static Spec, request: &Request<'_>) -> Treatment {
        match command::treatment(spec, request) {
            Treatment::Refuse(why) if self.opens(id, why) => Treatment::Forward,
            treatment => treatment,
        }
    }

    #[cold]
    fn opens(&self, id: SessionId, why: Why) -> bool {
        let Some(session) = self.sessions.get(id as usize) else { return false };
        let Some(pool) = self.pools.get(usize::from(session.pool)) else { return false };
        // What a pattern stands for may live in other pools.
        let elsewhere = why == Why::Pattern && (session.is_branch() || !pool.config.routes.is_empty());
        pool.config.opens(why) && !elsewhere
    }

    #[inline]
    pub(super) fn carry_out(
        &mut self,
        id: SessionId,
        spec: &'static Spec,
        request: &Request<'_>,
        port: &mut impl Port,
    ) {
        match self.treatment(id, spec, request) {
            Treatment::Forward => match spec.keys {
                Keys::One => {
                    let key = request.arg(1).unwrap_or_default();
                    self.single(id, spec, key, request, port);
                }
                _ => self.whole(id, spec, request, port),
            },
            Treatment::Split(merge) => self.split(id, spec, merge, request, port),
            Treatment::Broadcast(merge) => self.broadcast(id, spec, merge, request, port),
            Treatment::Own(Need::Transaction) => self.transaction(id, spec, request, port),
            Treatment::Own(Need::Blocking) => self.block(id, spec, request, port),
            Treatment::Own(Need::Subscription) => self.subscription(id, spec, request, port),
            Treatment::Publish => self.single(id, spec, request.arg(1).unwrap_or_default(), request, port),
            Treatment::Local(local) => local::answer(self, id, local, spec, request, port),
            Treatment::Refuse(why) => self.unsupported(id, why.text()),
        }
    }

    /// A request that is no command as Redis knows it.
    #[cold]
    pub(super) fn faulty(&mut self, id: SessionId, request: &Request<'_>, fault: &Fault) {
        // A browser that was led here: Redis ends such connections, too, before the body can carry commands.
        if request.name().eq_ignore_ascii_case(b"POST") || request.name().eq_ignore_ascii_case(b"Host:") {
            return self.protocol_error(id, ProtocolError::ExpectedBulk(b'H'));
        }
        // Redis says so before it asks for a password, too.
        let cause = match fault {
            Fault::Unknown => Cause::UnknownCommand,
            Fault::Arity(_) => Cause::Syntax,
        };
        let mut text = Vec::new();
        fault.write(request, &mut text);
        self.answer_with(id, Some(cause), |out| write::error(out, &text));
    }

    /// A request with one key: the hot path.
    #[inline]
    fn single(&mut self, id: SessionId, spec: &'static Spec, key: &[u8], request: &Request<'_>, port: &mut impl Port) {
        let Some(session) = self.sessions.get_mut(id as usize) else { return };
        let number = session.pool;
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        let mut leg = leg_of(session, spec, key, request.wire(), self.order);
        let mut verdict = pool.config.path.decide(&mut leg, self.now);
        if leg.spread {
            if !matches!(verdict, Verdict::Refuse(_)) {
                return self.spread(id, &leg, port);
            }
            // What is against a replica is no reason to refuse what its shard may answer, or another replica.
            if pool.config.path.route.is_replica(leg.shard) {
                pool.config.path.hot.replicas_mut().leave_out(leg.shard, self.now);
            }
            let free = leg.only && leg.free;
            leg = Leg { free, ..leg_of(session, spec, key, request.wire(), self.order) };
            verdict = pool.config.path.decide(&mut leg, self.now);
            if leg.spread && !matches!(verdict, Verdict::Refuse(_)) {
                return self.spread(id, &leg, port);
            }
        }
        if leg.copy > 0 {
            if verdict == Verdict::Next {
                return self.read_copy(id, &leg, request, port);
            }
            // Its shard is down. The key's own may not be.
            (leg.copy, leg.free) = (0, false);
            verdict = pool.config.path.decide(&mut leg, self.now);
        }
        match verdict {
            Verdict::Next | Verdict::Join(_) | Verdict::Behind(_) if leg.fill => {
                self.single_to_keep(id, &leg, verdict, request, port)
            }
            Verdict::Next => {
                let line = pool.line(leg.line);
                let ticket = Ticket { session: id, generation: session.generation, slot: session.open() };
                session.newest = self.order as u32;
                pool.counts.requests_pending += 1;
                let more = pool.config.gutter_ttl > 0 || pool.config.leases.is_on() || leg.kept || pool.warm.is_some();
                let waiter = self.waiter(ticket, spec);
                let serial = self.send(line, waiter, request.wire(), port);
                self.sent(number, &leg, serial, 1);
                if leg.hot.is_some() {
                    self.read_at_home(ticket, &leg, (line, serial), port);
                }
                if more {
                    self.count_kept(number, &leg);
                    self.note_miss(spec, key, waiter.at, (line, serial));
                    if self.stands_in(id, leg.shard) {
                        self.shorten(id, spec, (line, leg.shard), key, port);
                    }
                }
            }
            Verdict::Near if self.asks_again(id, &leg, port) => {}
            Verdict::Near => self.answer_near(id, &leg),
            Verdict::Join(flight) => self.join(id, &leg, flight, request, port),
            Verdict::Behind(place) => self.go_behind(id, &leg, place, request, port),
            Verdict::Refuse(reason) => {
                let shard = leg.shard;
                self.turned_away(id, spec, request, reason, shard);
            }
        }
    }

    /// The same for a read of a hot key that may be answered with what is being read to be kept.
    #[cold]
    fn single_to_keep(
        &mut self,
        id: SessionId,
        leg: &Leg<'_>,
        verdict: Verdict,
        request: &Request<'_>,
        port: &mut impl Port,
    ) {
        if self.join_fill(id, leg, port) {
            return;
        }
        if let Verdict::Join(flight) = verdict {
            return self.join(id, leg, flight, request, port);
        }
        if let Verdict::Behind(place) = verdict {
            return self.go_behind(id, leg, place, request, port);
        }
        let Some((number, ticket)) = self.open_slot(id) else { return };
        let Some(on) = self.pools.get(usize::from(number)).map(|pool| pool.line(leg.line)) else { return };
        let waiter = self.waiter(ticket, leg.spec);
        let serial = self.send(on, waiter, request.wire(), port);
        self.sent(number, leg, serial, 1);
        self.read_at_home(ticket, leg, (on, serial), port);
        self.note_miss(leg.spec, leg.key, waiter.at, (on, serial));
    }

    /// A command with several keys, or none, that goes to one shard as it is.
    pub(super) fn whole(&mut self, id: SessionId, spec: &'static Spec, request: &Request<'_>, port: &mut impl Port) {
        let mut keys = std::mem::take(&mut self.plan.keys);
        keys.clear();
        if let Err(text) = command::keys(spec, request, &mut |index| keys.push(index as u32)) {
            self.answer_with(id, Some(Cause::Syntax), |out| write::error(out, text.as_bytes()));
        } else {
            keys.sort_unstable();
            self.whole_with(id, spec, &keys, request, port);
        }
        self.plan.keys = keys;
    }

    /// Whether keys of the session's pool live in other pools.
    pub(super) fn has_routes(&self, id: SessionId) -> bool {
        let pool = self.sessions.get(id as usize).and_then(|session| self.pools.get(usize::from(session.pool)));
        pool.is_some_and(|pool| !pool.config.routes.is_empty())
    }

    pub(super) fn has_several_shards(&self, id: SessionId) -> bool {
        let pool = self.sessions.get(id as usize).and_then(|session| self.pools.get(usize::from(session.pool)));
        pool.is_some_and(|pool| pool.config.path.route.only().is_none())
    }

    fn whole_with(
        &mut self,
        id: SessionId,
        spec: &'static Spec,
        keys: &[u32],
        request: &Request<'_>,
        port: &mut impl Port,
    ) {
        let home = match keys {
            [] => self.home_without_keys(id, spec, request),
            keys => self.common_home(id, spec, keys, request),
        };
        let (line, shard) = match home {
            Ok(home) => home,
            Err(apart) => return self.cannot(id, apart),
        };
        let Some((number, ticket)) = self.open_slot(id) else { return };
        let Some(on) = self.pools.get(usize::from(number)).map(|pool| pool.line(line)) else { return };
        let mut waiter = self.waiter(ticket, spec);
        if spec.class == Class::Script {
            self.note_script(spec, request);
            self.attempt(spec, request, &mut waiter);
        }
        if spec.class == Class::Read
            && self.pools.get(usize::from(number)).is_some_and(|pool| pool.config.path.hot.keeps())
        {
            self.note_looks(on, &waiter, spec, request);
        }
        let serial = self.send(on, waiter, request.wire(), port);
        for key in keys_of(request, keys) {
            let leg = Leg { line, shard, alone: false, ..Leg::new(spec, key, request.wire()) };
            self.sent(number, &leg, serial, keys.len() as u16);
        }
        if self.stands_in(id, shard) {
            self.shorten_all(id, spec, (on, shard), request, keys, port);
        }
    }

    /// The one connection that all keys of a request agree on.
    pub(super) fn common_home(
        &self,
        id: SessionId,
        spec: &'static Spec,
        keys: &[u32],
        request: &Request<'_>,
    ) -> Result<(u32, u16), Apart> {
        let gone = Err(Apart::Refused(Refusal::NoShard, 0));
        let Some(session) = self.sessions.get(id as usize) else { return gone };
        let Some(pool) = self.pools.get(usize::from(session.pool)) else { return gone };
        let mut chosen = None;
        for key in keys_of(request, keys) {
            let mut leg = leg_of(session, spec, key, request.wire(), self.order);
            // Several legs, or one that is not the usual first argument: stages share only what is alone.
            leg.alone = false;
            if let Some(reason) = refusal(pool.config.path.decide(&mut leg, self.now)) {
                return Err(Apart::Refused(reason, leg.shard));
            }
            let home = (leg.line, leg.shard, pool.config.path.route.slot(key));
            if *chosen.get_or_insert(home) != home {
                return Err(Apart::SeveralShards);
            }
        }
        chosen.map(|(line, shard, _)| (line, shard)).ok_or(Apart::Refused(Refusal::NoShard, 0))
    }

    /// A command whose keys may live on several shards, and whose reply can be put together exactly.
    fn split(&mut self, id: SessionId, spec: &'static Spec, merge: Merge, request: &Request<'_>, port: &mut impl Port) {
        let step = if matches!(merge, Merge::AllOk) { 2 } else { 1 };
        if !(request.argc() - 1).is_multiple_of(step) {
            return self.faulty(id, request, &Fault::Arity(spec));
        }
        let mut plan = std::mem::take(&mut self.plan);
        plan.reset();
        match self.partition(id, spec, (merge, step), request, &mut plan) {
            Err((reason, shard)) => self.refused(id, reason, shard),
            Ok(()) => self.depart(id, spec, merge, request, &mut plan, port),
        }
        self.plan = plan;
    }

    /// Decides every leg of a split request and groups them by connection.
    fn partition(
        &self,
        id: SessionId,
        spec: &'static Spec,
        (merge, step): (Merge, usize),
        request: &Request<'_>,
        plan: &mut Scratch,
    ) -> Result<(), (Refusal, u16)> {
        let none = Err((Refusal::NoShard, 0));
        let Some(session) = self.sessions.get(id as usize) else { return none };
        let Some(pool) = self.pools.get(usize::from(session.pool)) else { return none };
        let mut args = request.args();
        args.next();
        loop {
            let start = args.at();
            let Some(key) = args.next() else { return Ok(()) };
            let key_end = args.at() - 2;
            if step == 2 {
                args.next();
            }
            let end = args.at();
            let mut leg = leg_of(session, spec, key, request.wire(), self.order);
            leg.alone = false;
            let verdict = pool.config.path.decide(&mut leg, self.now);
            let refused = refusal(verdict);
            if let Some(reason) = refused
                && !(matches!(reason, Refusal::Missing(_)) && missing::part(spec, merge, 0, false, &mut Vec::new()))
            {
                return Err((reason, leg.shard));
            }
            let kept =
                (verdict == Verdict::Near).then(|| leg.hot.and_then(|hash| pool.config.path.hot.kept_entry(hash)));
            let kept = kept.flatten();
            let source = match (kept, refused) {
                (Some(_), _) => Source::Memory,
                (None, Some(_)) => Source::Missing,
                (None, None) => Source::Shard,
            };
            // What is answered from memory has a place behind all connections.
            let number = if kept.is_some() { pool.table.len() as u32 } else { leg.line };
            // A node of a cluster refuses what names keys of several slots, though they be all its own.
            let place = match pool.config.path.route.slot(key) {
                Some(slot) if kept.is_none() => pool.table.len() as u32 + 1 + u32::from(slot),
                _ => number,
            };
            let line = place as usize;
            if plan.part_of.len() <= line {
                plan.part_of.resize(line + 1, NONE);
            }
            let Some(part) = plan.part_of.get_mut(line) else { return none };
            if *part == NONE {
                *part = plan.parts.len() as u16;
                plan.parts.push(Part {
                    line: number,
                    place,
                    on: 0,
                    shard: leg.shard,
                    legs: 0,
                    source,
                    flight: Vec::new(),
                    serial: 0,
                });
            }
            let part = *part;
            if let Some(place) = plan.parts.get_mut(usize::from(part)) {
                place.legs += 1;
                if let Some(entry) = kept {
                    entry.value.write(session.resp3, &mut place.flight);
                }
            }
            plan.legs.push(Piece {
                start: start as u32,
                end: end as u32,
                key_start: (key_end - key.len()) as u32,
                key_end: key_end as u32,
                part,
                hot: leg.hot,
            });
            plan.order.push(part);
        }
    }

    /// Sends a split request's flights.
    fn depart(
        &mut self,
        id: SessionId,
        spec: &'static Spec,
        merge: Merge,
        request: &Request<'_>,
        plan: &mut Scratch,
        port: &mut impl Port,
    ) {
        let Some(session) = self.sessions.get_mut(id as usize) else { return };
        let number = session.pool;
        let ticket = Ticket { session: id, generation: session.generation, slot: session.open() };
        session.newest = self.order as u32;
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        pool.counts.requests_pending += 1;
        for part in &mut plan.parts {
            part.on = pool.line(part.line);
        }
        let mut waiter = self.waiter(ticket, spec);
        let wire = request.wire();
        let budgets = self.pools.get(usize::from(number)).is_some_and(|pool| pool.config.misses.budgets());
        if budgets && let Err(busy) = self.may_tell_parts(number, spec, wire, plan) {
            return self.complete(number, ticket, &busy, None);
        }
        let base = self.sessions.get(id as usize).map_or(0, |session| session.base);
        let leases =
            self.pools.get(usize::from(number)).is_some_and(|pool| pool.config.leases.is_on() || pool.warm.is_some());
        let asked = if leases && spec.name == "mget" { self.asks_for(number, base, request) } else { None };
        if let Some(asked) = asked {
            (waiter.part, waiter.link) = (Waiter::LEASED, asked);
        }
        if plan.parts.len() > 1 {
            let mut gather = Gather::new(ticket, waiter.at, spec.tag, merge, plan.parts.len() as u16, &plan.order);
            gather.asked = asked.unwrap_or(Waiter::NOBODY);
            waiter.link = self.gathers.insert(gather) as u32;
            if let Some(pool) = self.pools.get_mut(usize::from(number)) {
                pool.counts.fragments += plan.parts.len() as u64;
            }
        }
        if let [part] = plan.parts.as_mut_slice() {
            if part.departs() {
                part.serial = self.send(part.on, waiter, wire, port);
            } else {
                self.answer_part(id, (spec, merge), part, &waiter, port);
            }
        } else {
            let values = if matches!(merge, Merge::AllOk) { 2 } else { 1 };
            for part in plan.parts.iter_mut().filter(|part| part.departs()) {
                part.flight = self.spare.take();
                write::array(&mut part.flight, 1 + part.legs as usize * values);
                write::bulk(&mut part.flight, request.name());
            }
            for leg in &plan.legs {
                if let Some(part) = plan.parts.get_mut(usize::from(leg.part)).filter(|part| part.departs()) {
                    part.flight.extend_from_slice(wire.get(leg.start as usize..leg.end as usize).unwrap_or_default());
                }
            }
            for (index, part) in plan.parts.iter_mut().enumerate() {
                waiter.part = index as u16;
                if !part.departs() {
                    self.answer_part(id, (spec, merge), part, &waiter, port);
                    continue;
                }
                part.serial = self.send(part.on, waiter, &part.flight, port);
                self.spare.put(std::mem::take(&mut part.flight));
            }
        }
        let gutter = self.pools.get(usize::from(number)).is_some_and(|pool| pool.config.gutter_ttl > 0);
        let mut place = vec_of_zeros(plan.parts.len(), budgets || plan.legs.iter().any(|piece| piece.hot.is_some()));
        for piece in &plan.legs {
            let Some(part) = plan.parts.get(usize::from(piece.part)) else { continue };
            let index =
                place.get_mut(usize::from(piece.part)).map(|next| std::mem::replace(next, next.saturating_add(1)));
            if !part.departs() {
                if let (Source::Memory, Some(hash)) = (part.source, piece.hot) {
                    self.served_part(number, hash);
                }
                continue;
            }
            let key = wire.get(piece.key_start as usize..piece.key_end as usize).unwrap_or_default();
            let leg = Leg { line: part.line, shard: part.shard, alone: false, ..Leg::new(spec, key, wire) };
            self.sent(number, &leg, part.serial, part.legs as u16);
            if let Some(index) = index.filter(|_| budgets && spec.name == "mget") {
                self.note_count_of(number, key, index, (part.on, part.serial));
            }
            if let (Some(hash), Some(index)) = (piece.hot, index) {
                self.element_at_home(ticket, (hash, key), (part.on, part.serial, index), port);
            }
            if gutter && self.stands_in(id, part.shard) {
                self.shorten(id, spec, (part.on, part.shard), key, port);
            }
        }
    }

    /// Whether the keys of an MGET that are told not to be there without asking a shard are within their budgets.
    ///
    /// # Errors
    /// The reply to all of it if not.
    #[cold]
    fn may_tell_parts(&mut self, number: u16, spec: &'static Spec, wire: &[u8], plan: &Scratch) -> Result<(), Vec<u8>> {
        let Some(pool) = self.pools.get(usize::from(number)).filter(|_| spec.name == "mget") else { return Ok(()) };
        let hot = &pool.config.path.hot;
        let absent = |piece: &&Piece| match plan.parts.get(usize::from(piece.part)).map(|part| part.source) {
            Some(Source::Missing) => true,
            Some(Source::Memory) => {
                let entry = piece.hot.and_then(|hash| hot.kept_entry(hash));
                entry.is_some_and(|entry| matches!(entry.value, Value::Absent))
            }
            _ => false,
        };
        let absent: Vec<&Piece> = plan.legs.iter().filter(absent).collect();
        let keys = absent.iter().map(|piece| wire.get(piece.key_start as usize..piece.key_end as usize));
        let mut busy = Vec::new();
        if self.may_tell_elements(number, keys.map(Option::unwrap_or_default), &mut busy) { Ok(()) } else { Err(busy) }
    }

    /// Shares the reply of a flight that has not left.
    fn join(&mut self, id: SessionId, leg: &Leg<'_>, flight: Flight, request: &Request<'_>, port: &mut impl Port) {
        let Some(session) = self.sessions.get_mut(id as usize) else { return };
        let number = session.pool;
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        let ticket = Ticket { session: id, generation: session.generation, slot: session.open() };
        pool.counts.requests_pending += 1;
        let leader = pool.line(flight.line);
        let at = self.now as u32;
        if let Some(leader) = self
            .lines
            .get_mut(leader as usize)
            .and_then(|l| l.joinable(flight.serial))
            .filter(|leader| leader.is_shareable())
        {
            session.newest = flight.number;
            leader.link = self.joined.insert((ticket, at, leader.link)) as u32;
            pool.counts.joined_requests += 1;
            pool.config.path.observe(&Event::Joined(leg, flight), self.now, &mut self.notices);
            pool.config.path.hot.count_unsent(leg);
            if leg.hot.is_some() {
                self.note_joined(id);
            }
        } else {
            self.alone(ticket, leg, request, port);
        }
    }

    #[cold]
    pub(super) fn refused(&mut self, id: SessionId, reason: Refusal, shard: u16) {
        if reason == Refusal::NoSlot
            && let Some(number) = self.sessions.get(id as usize).map(|session| session.pool)
        {
            self.wish(number);
        }
        let name = self
            .sessions
            .get(id as usize)
            .and_then(|s| self.pools.get(usize::from(s.pool)))
            .and_then(|p| p.config.shards.get(usize::from(shard)))
            .cloned()
            .unwrap_or_default();
        self.answer_with(id, Some(reason.cause()), |out| refuse(reason, &name, out));
    }

    #[inline]
    pub(super) fn waiter(&self, ticket: Ticket, spec: &'static Spec) -> Waiter {
        Waiter { ticket, at: self.now as u32, link: Waiter::NOBODY, part: Waiter::WHOLE, tag: spec.tag }
    }

    #[inline]
    pub(super) fn sent(&mut self, number: u16, leg: &Leg<'_>, serial: u64, legs: u16) {
        if let Some(pool) = self.pools.get_mut(usize::from(number)) {
            let flight = Flight { line: leg.line, serial, number: self.order as u32 };
            pool.config.path.observe(&Event::Sent(leg, flight), self.now, &mut self.notices);
            let (budgets, merges) = (pool.config.misses.budgets(), pool.config.path.merging.is_active());
            if !leg.key.is_empty()
                && let Some(hash) = pool.config.path.hot.count(leg)
                && let Some(line) = self.lines.get_mut(pool.line(leg.line) as usize)
            {
                line.notes.push(serial, Note::Weigh(hash, legs));
            }
            if merges {
                self.may_be_shared(number, leg, flight);
            }
            if budgets {
                self.note_count(number, leg, serial);
            }
        }
    }

    /// Appends a flight to a connection's outbox. Returns its serial.
    #[inline]
    pub(super) fn send(&mut self, id: LineId, waiter: Waiter, bytes: &[u8], port: &mut impl Port) -> u64 {
        let Some(line) = self.lines.get_mut(id as usize) else { return 0 };
        if waiter.tag.class() != Class::Read || matches!(line.owner, Owner::Session(..)) {
            self.note_writes(id, &waiter, bytes);
        }
        let Some(line) = self.lines.get_mut(id as usize) else { return 0 };
        self.in_flight += 1;
        let serial = line.expect(waiter);
        if let Some(asked) = &mut line.asked
            && !line.arriving
        {
            asked.keep(serial, bytes, self.order);
        }
        self.append(id, waiter.ticket.session, bytes, port);
        serial
    }

    /// Appends bytes of a session's newest request to a connection's outbox. One that is full keeps the session from being
    /// read.
    #[inline]
    pub(super) fn append(&mut self, on: LineId, id: SessionId, bytes: &[u8], port: &mut impl Port) {
        let Some(line) = self.lines.get_mut(on as usize) else { return };
        line.counts.server_request_bytes += bytes.len() as u64;
        let (mut rest, mut begun) = (bytes, false);
        if line.is_clear() && (bytes.len() >= DIRECT || port.is_in_process(on)) {
            let taken = port.to_shard(on, bytes);
            if let Taken::Some(n) | Taken::Full(n) = taken
                && n > 0
            {
                line.left = line.next_serial();
                line.stamp(self.now);
                (rest, begun) = (bytes.get(n..).unwrap_or_default(), true);
            }
            line.blocked = matches!(taken, Taken::Full(_));
        }
        line.outbox.extend_from_slice(rest);
        if begun {
            line.whole_from = line.outbox.len();
        }
        line.mark(on, &mut self.dirty_lines);
        let Some(pool) = self.pools.get_mut(usize::from(line.pool)) else { return };
        if line.queued() > pool.config.outbox
            && let Some(session) = self.sessions.get_mut(id as usize)
            && !session.parked
        {
            session.parked = true;
            session.paused = true;
            pool.counts.client_pauses[Full::Outbox] += 1;
            line.paused.push((id, session.generation));
        }
    }
}

/// A count for each part, where they are needed.
fn vec_of_zeros(parts: usize, needed: bool) -> Vec<u32> {
    if needed { vec![0; parts] } else { Vec::new() }
}
