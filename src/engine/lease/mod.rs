//! Keys that are not there: one client is told so, the others wait for what it writes.
//!
//! Who waits and whose turn it is, is decided by the table that all workers share ([`crate::stages::lease`]); here replies are
//! held back, and what the table orders is carried out. A read goes to its shard as any other, with a note of its flight; only
//! a reply that says nil is looked at. A held reply is an open slot of its session, so replies stay in order; what the
//! session asks behind it is read and carried out.
//!
//! A session is not told of its own later writes by an earlier read: what it waits for is nil from when it writes the key itself;
//! and a value that a later read of the same key brings it is the answer to the earlier one, too.
//!
//! Bounded: [`MOST_WAITS`](crate::stages::lease::MOST_WAITS) waits over all workers, in sessions' windows.

#![expect(clippy::arithmetic_side_effects, reason = "counters of 64 bits, and times")]

mod array;
mod early;
mod errands;
mod expired;
mod guard;
mod writes;

pub(super) use array::Asked;
pub(super) use early::Asking;

use super::line::{Ticket, Waiter};
use super::misses::is_nil;
use super::port::Port;
use super::special::mode;
use super::window::Session;
use super::{Engine, LineId, SessionId};
use crate::command::{self, Spec, Tag};
use crate::resp::{Request, write};
use crate::stages::Micros;
use crate::stages::hot::Value;
use crate::stages::lease::{Bell, Conn, Order, Reader, Then, Why, Worst};
use array::Array;
use slab::Slab;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// How long, in microseconds, a reply is kept behind one that is held back in a connection that may load itself.
pub const HEAD: Micros = 2_000;

/// A read whose reply is held back.
#[derive(Debug)]
struct Held {
    /// The table's number for it.
    id: u64,
    hash: u64,
    pool: u16,
    ticket: Ticket,
    /// When it was asked.
    at: u32,
    tag: Tag,
    /// It is an element of an array that is held back: which array, and which element.
    element: Option<(u32, u32)>,
    since: Micros,
    /// Its connection may wait though it loads.
    same_waits: bool,
    /// Which budget it counts in when it is told that the key is not there. Elements of arrays have been counted before.
    budget: Option<u16>,
    /// Since when a reply is known to be ready behind it, or a request not to begin before it is answered.
    behind: Option<Micros>,
    /// What it has found, if it waits only to be told whether it is to load that anew.
    kept: Option<Vec<u8>>,
}

/// What this worker holds back.
#[derive(Default)]
pub(super) struct Waits {
    held: Slab<Held>,
    /// Their links by session, each behind its key's hash.
    by_session: HashMap<SessionId, BTreeSet<(u64, u32)>>,
    /// How many of them are elements of arrays.
    elements: usize,
    arrays: Slab<Array>,
    /// Requests with several keys, some of which have leases, that are under way.
    asked: Slab<Asked>,
    bell: Option<Bell>,
    /// Reads that wait with what they have found: until when, and which; some may have ended.
    keeps: VecDeque<(Micros, u32, u64)>,
    /// How many there have been.
    kept: u64,
}

impl Waits {
    /// Reads that are held back.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Requests whose reply is held back: an array is one, however many of its elements wait.
    pub(super) fn requests(&self) -> usize {
        self.held.len().saturating_sub(self.elements).saturating_add(self.arrays.len())
    }

    /// The links of a session's.
    fn of(&self, ticket: Ticket) -> Vec<u32> {
        self.within(ticket, (0, 0), (u64::MAX, u32::MAX))
    }

    /// The links of a session's for a key, by its hash.
    fn of_key(&self, ticket: Ticket, hash: u64) -> Vec<u32> {
        self.within(ticket, (hash, 0), (hash, u32::MAX))
    }

    fn within(&self, ticket: Ticket, first: (u64, u32), last: (u64, u32)) -> Vec<u32> {
        let is_its =
            |link: &u32| self.held.get(*link as usize).is_some_and(|held| held.ticket.generation == ticket.generation);
        let links = self.by_session.get(&ticket.session).map(|links| links.range(first..=last));
        links.into_iter().flatten().map(|&(_, link)| link).filter(is_its).collect()
    }

    fn take(&mut self, link: u32, id: u64) -> Option<Held> {
        self.held.get(link as usize).filter(|held| held.id == id)?;
        let held = self.held.remove(link as usize);
        self.elements -= usize::from(held.element.is_some());
        if let Some(links) = self.by_session.get_mut(&held.ticket.session) {
            links.remove(&(held.hash, link));
            if links.is_empty() {
                self.by_session.remove(&held.ticket.session);
            }
        }
        Some(held)
    }
}

/// A reader of a key that is not there.
#[derive(Clone, Copy)]
struct Asker {
    ticket: Ticket,
    at: u32,
    tag: Tag,
    element: Option<(u32, u32)>,
    may_wait: bool,
}

/// Whether a session's reads may be held back, and it be expected to load.
fn takes_part(session: &Session) -> bool {
    let barred = mode::PINNED | mode::LISTENING | mode::MUTED | mode::STREAMING;
    !session.is_strict() && session.mode & barred == 0 && !session.closing && !session.killed
}

/// Whether a session's user may write what it would be expected to: whoever may not would hold a key for nothing.
fn may_write(session: &Session, key: &[u8]) -> bool {
    let user = session.special.as_ref().and_then(|special| special.user.as_ref());
    let Some(user) = user.filter(|user| !user.is_unlimited()) else { return true };
    // Rules are about names as the app writes them.
    let key = session.prefix().and_then(|prefix| key.strip_prefix(prefix.plain())).unwrap_or(key);
    let mut wire = Vec::new();
    write::request(&mut wire, &[b"SET", key, b""]);
    let set = command::lookup(b"set").zip(Request::parse(&wire));
    set.is_some_and(|(spec, request)| user.check(spec, &request).is_ok())
}

impl Engine {
    /// By what this worker is woken when another one has something for it to do.
    pub fn wake_by(&mut self, bell: Bell) {
        self.waits.bell = Some(bell);
        (0..self.pools.len() as u16).for_each(|pool| self.hear_others(pool));
    }

    /// Lets the other workers of a pool wake this one.
    pub(super) fn hear_others(&self, pool: u16) {
        let Some(pool) = self.pools.get(usize::from(pool)) else { return };
        let leases = &pool.config.leases;
        if let Some(bell) = self.waits.bell.as_ref().filter(|_| leases.is_on()) {
            leases.shared().hear(leases.worker(), bell.clone());
        }
    }

    /// A plain read is about to be answered by its shard on this connection, as this flight.
    #[cold]
    pub(super) fn note_miss(&mut self, spec: &Spec, key: &[u8], at: u32, (on, serial): (LineId, u64)) {
        let Some(line) = self.lines.get_mut(on as usize) else { return };
        let Some(pool) = self.pools.get(usize::from(line.pool)) else { return };
        if spec.name == "get" && line.dialect.db == 0 && (pool.config.leases.concerns(key) || pool.moved(key).is_some())
        {
            line.notes.push_miss(serial, pool.config.path.hot.hash(key), at, key);
        }
    }

    /// The key of a plain read that stands in this connection's outbox, if it has a lease or has moved: its hash, and its name.
    pub(super) fn leased_read(&self, on: LineId, flight: &[u8]) -> Option<(u64, Vec<u8>)> {
        let line = self.lines.get(on as usize)?;
        let pool = self.pools.get(usize::from(line.pool));
        let pool = pool.filter(|pool| pool.config.leases.is_on() || pool.warm.is_some())?;
        let request = Request::parse(flight).filter(|_| line.dialect.db == 0)?;
        command::identify(&request).ok().filter(|spec| spec.name == "get")?;
        let key = request.arg(1).filter(|key| pool.config.leases.concerns(key) || pool.moved(key).is_some())?;
        Some((pool.config.path.hot.hash(key), key.to_vec()))
    }

    /// A read of a key that is told from memory not to exist goes to its shard if it has a lease or has moved. Returns whether it does.
    pub(super) fn asks_again(&mut self, id: SessionId, leg: &crate::stages::Leg<'_>, port: &mut impl Port) -> bool {
        let Some(session) = self.sessions.get(id as usize) else { return false };
        let Some(pool) = self.pools.get(usize::from(session.pool)) else { return false };
        if !pool.config.leases.concerns(leg.key) && pool.moved(leg.key).is_none() {
            return false;
        }
        let entry = leg.hot.and_then(|hash| pool.config.path.hot.kept_entry(hash));
        if entry.is_none_or(|entry| entry.value != Value::Absent) {
            return false;
        }
        let Some((number, ticket)) = self.open_slot(id) else { return false };
        self.ask_home((number, leg.spec), ticket, leg.wire, port);
        true
    }

    /// A plain read found nothing: it, and whoever shares its flight, is told so or waits.
    #[cold]
    pub(super) fn missed(
        &mut self,
        (id, pool): (LineId, u16),
        waiter: &Waiter,
        (hash, name): (u64, &[u8]),
        reply: &[u8],
        port: &mut impl Port,
    ) {
        let mut waiter = *waiter;
        if waiter.part == Waiter::SPREAD {
            waiter = self.spread_missed(&waiter);
        }
        if waiter.part != Waiter::WHOLE {
            return self.land(id, pool, &waiter, reply, port);
        }
        if !self.asks_former((id, pool), &waiter, (hash, name), reply) {
            self.missed_at_both((id, pool), &waiter, (hash, name), reply, port);
        }
    }

    /// The same for one that has not found it where it lived before either, if that was asked.
    #[cold]
    pub(super) fn missed_at_both(
        &mut self,
        (_, pool): (LineId, u16),
        waiter: &Waiter,
        (hash, name): (u64, &[u8]),
        reply: &[u8],
        port: &mut impl Port,
    ) {
        let (tag, mut next) = (waiter.tag, waiter.link);
        let mut askers = vec![(waiter.ticket, waiter.at)];
        while let Some((ticket, at, link)) = self.joined.try_remove(next as usize) {
            askers.push((ticket, at));
            next = link;
        }
        for (ticket, at) in askers {
            let asker = Asker { ticket, at, tag, element: None, may_wait: true };
            if self.miss(pool, asker, hash, name) != Fate::Waits {
                let mut busy = Vec::new();
                let within = self.may_tell_absent(pool, name, &mut busy);
                let told = if within { reply } else { &busy };
                self.clock(pool, tag, at, told);
                self.complete(pool, ticket, told, Some(port));
            }
        }
    }

    /// The same for a read that was answered otherwise than by a flight of its own. Returns whether it waits.
    pub(super) fn missed_elsewhere(&mut self, pool: u16, ticket: Ticket, at: u32, spec: &Spec, name: &[u8]) -> bool {
        let Some(place) = self.pools.get(usize::from(pool)) else { return false };
        if !place.config.leases.concerns(name) {
            return false;
        }
        let hash = place.config.path.hot.hash(name);
        let asker = Asker { ticket, at, tag: spec.tag, element: None, may_wait: true };
        self.miss(pool, asker, hash, name) == Fate::Waits
    }

    /// Somebody found a key missing.
    fn miss(&mut self, pool: u16, asker: Asker, hash: u64, name: &[u8]) -> Fate {
        let now = self.now;
        let Asker { ticket, at, tag, element, may_wait } = asker;
        let budget = self.miss_budget_of(pool, name).filter(|_| element.is_none());
        let Some(place) = self.pools.get(usize::from(pool)) else { return Fate::Nil };
        let leases = &place.config.leases;
        let session = self.sessions.get(ticket.session as usize);
        let session = session.filter(|s| s.generation == ticket.generation && takes_part(s) && may_write(s, name));
        let (Some(_), Some(key)) = (session, leases.key(hash, name)) else { return Fate::Nil };
        let asked = now.saturating_sub(u64::from((now as u32).wrapping_sub(at)));
        let same_waits = key.wanted.same_connection_waits;
        let held = Held {
            id: u64::MAX,
            hash,
            pool,
            ticket,
            at,
            tag,
            element,
            since: now,
            same_waits,
            budget,
            behind: None,
            kept: None,
        };
        let link = self.waits.held.insert(held) as u32;
        let conn = Conn { worker: leases.worker(), session: ticket.session, generation: ticket.generation };
        let span = key.wanted.stale;
        let ((missed, expired), orders) = leases.shared().with(conn.worker, |table| {
            let told = (span > 0).then(|| table.expired(hash, now)).flatten();
            let told = told.filter(|told| self.may_tell_expired(pool, (ticket, hash), told, span));
            let value = told.map(|told| Arc::clone(&told.value));
            let reader = Reader { conn, link, asked, may_wait, takes_expired: value.is_some() };
            (table.miss(key, reader, now), value)
        });
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return Fate::Nil };
        let counts = &mut place.counts;
        counts.stampedes += u64::from(missed.stampede);
        let fate = match missed.then {
            Then::Wait(id) => {
                counts.lease_waits += 1;
                counts.lease_waiting += 1;
                if let Some(held) = self.waits.held.get_mut(link as usize) {
                    held.id = id;
                }
                self.waits.elements += usize::from(element.is_some());
                self.waits.by_session.entry(ticket.session).or_default().insert((hash, link));
                Fate::Waits
            }
            Then::Expired => {
                let held = self.waits.held.remove(link as usize);
                self.tell_expired(&held, expired.as_deref().unwrap_or_default());
                Fate::Waits
            }
            then => {
                self.waits.held.remove(link as usize);
                counts.lease_stale_observed += u64::from(then == Then::Observed && expired.is_some());
                counts.misses_leased += u64::from(then == Then::Holds);
                counts.lease_observed += u64::from(then == Then::Observed);
                if then == Then::Holds { Fate::Holds } else { Fate::Nil }
            }
        };
        self.obey(pool, orders);
        fate
    }

    /// Does what the table wants done.
    fn obey(&mut self, pool: u16, orders: Vec<Order>) {
        let mut orders = VecDeque::from(orders);
        while let Some(order) = orders.pop_front() {
            let more = match order {
                Order::Nil { link, id, why } => {
                    self.end_wait(link, id, None, Some(why));
                    Vec::new()
                }
                Order::Expired { link, id } => {
                    self.offer_expired(pool, link, id);
                    Vec::new()
                }
                Order::Read { hash, name } => self.read_again(pool, hash, &name),
                Order::Claim { hash, name, term } => self.claim(pool, hash, name, term),
                Order::Release { name } => {
                    self.release_lease(pool, &name);
                    Vec::new()
                }
            };
            orders.extend(more);
        }
    }

    /// Does what other workers' doings want done here.
    pub fn take_orders(&mut self, now: Micros) {
        self.now = now;
        for pool in 0..self.pools.len() as u16 {
            let Some(place) = self.pools.get(usize::from(pool)) else { return };
            let leases = &place.config.leases;
            if !leases.is_on() && leases.shared().is_empty() {
                continue;
            }
            // Though there may be no entry: a lease key that is given back late may be another's.
            let ((), orders) = leases.shared().with(leases.worker(), |_| ());
            self.obey(pool, orders);
        }
    }

    /// A wait is over: by a value as the shard worded it, or with nil. To be called when the table knows.
    fn end_wait(&mut self, link: u32, id: u64, value: Option<&[u8]>, why: Option<Why>) {
        let Some(held) = self.waits.take(link, id) else { return };
        if let Some(kept) = &held.kept {
            return self.end_keeping(&held, kept, why);
        }
        let now = self.now;
        let Some(place) = self.pools.get_mut(usize::from(held.pool)) else { return };
        let counts = &mut place.counts;
        counts.lease_waiting -= 1;
        counts.lease_waits_saved += u64::from(value.is_some());
        counts.lease_timeouts += u64::from(why == Some(Why::Late));
        counts.misses_leased += u64::from(why == Some(Why::Turn));
        counts.lease_wait.record(u32::try_from(now.saturating_sub(held.since)).unwrap_or(u32::MAX));
        if let Some((array, index)) = held.element {
            return self.fill_element(array, index, value);
        }
        let resp3 = self.sessions.get(held.ticket.session as usize).is_some_and(|session| session.resp3);
        let mut reply = self.spare.take();
        match value {
            Some(value) => reply.extend_from_slice(value),
            None => {
                let budget = held.budget;
                if budget.is_none_or(|budget| self.may_tell_missed(held.pool, budget, &mut reply)) {
                    write::null(&mut reply, resp3);
                }
            }
        }
        self.clock(held.pool, held.tag, held.at, &reply);
        self.complete(held.pool, held.ticket, &reply, None);
        self.spare.put(reply);
    }

    /// A session is about to end: who waits in it waits no more, and what it was loading is another's.
    #[cold]
    pub(super) fn leave_leases(&mut self, id: SessionId) {
        let now = self.now;
        let Some(session) = self.sessions.get(id as usize) else { return };
        let (pool, generation) = (session.pool, session.generation);
        let ticket = Ticket { session: id, generation, slot: 0 };
        for link in self.waits.of(ticket) {
            let Some(held) = self.waits.held.get(link as usize) else { continue };
            let (of, id) = (held.pool, held.id);
            let Some(held) = self.waits.take(link, id) else { continue };
            if let Some((array, _)) = held.element {
                self.waits.arrays.try_remove(array as usize);
            }
            if held.kept.is_none()
                && let Some(place) = self.pools.get_mut(usize::from(of))
            {
                place.counts.lease_waiting -= 1;
            }
        }
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        let leases = &place.config.leases;
        if leases.shared().is_empty() {
            return;
        }
        let conn = Conn { worker: leases.worker(), session: id, generation };
        let (held, orders) = leases.shared().with(conn.worker, |table| table.gone(conn, now));
        place.counts.lease_holder_deaths += held as u64;
        self.obey(pool, orders);
    }

    /// Upkeep: what is due, and what other workers want done.
    pub(super) fn look_after_leases(&mut self, port: &mut impl Port) {
        let now = self.now;
        for pool in 0..self.pools.len() as u16 {
            let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
            if place.config.leases.is_on() || place.counts.lease_untracked.get() > 0 {
                self.open_trackers(pool, port);
            }
            let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
            let leases = &place.config.leases;
            if leases.shared().is_empty() {
                continue;
            }
            let (unwritten, orders) = leases.shared().with(leases.worker(), |table| table.tick(now));
            place.counts.lease_unwritten += unwritten as u64;
            self.obey(pool, orders);
        }
        self.release_heads();
        self.let_keeps_go();
    }

    /// The key of a pool that most have asked for in vain since this was asked last, over all workers.
    pub fn take_worst_miss(&mut self, pool: u16) -> Option<Worst> {
        let leases = &self.pools.get(usize::from(pool))?.config.leases;
        if !leases.is_on() {
            return None;
        }
        let (worst, orders) = leases.shared().with(leases.worker(), crate::stages::lease::Table::take_worst);
        self.obey(pool, orders);
        worst
    }

    /// Lets replies go on that wait behind one that is held back, and requests that wait for all replies before them, where a
    /// connection that loads may wait: whoever loads must get what it asks for besides, and be able to write.
    fn release_heads(&mut self) {
        let now = self.now;
        let mut links: Vec<u32> = Vec::new();
        for (link, held) in self.waits.held.iter_mut().filter(|(_, held)| held.same_waits) {
            let session = self.sessions.get(held.ticket.session as usize);
            let bounds = self.pools.get(usize::from(held.pool)).map(|pool| pool.config.bounds);
            let blocks = session.zip(bounds).is_some_and(|(session, bounds)| {
                // What it asks next may be the write that it waits for, and begins when all before it is answered, or when
                // there is room for it.
                let stands = session.mode & mode::WAITING != 0;
                let full = session.open_slots() >= bounds.open && session.is_in_first_half(held.ticket.slot);
                stands || full || (session.is_head(held.ticket.slot) && session.has_early())
            });
            held.behind = if blocks { held.behind.or(Some(now)) } else { None };
            if held.behind.is_some_and(|since| now.saturating_sub(since) >= HEAD) {
                links.push(link as u32);
            }
        }
        for link in links {
            let Some(held) = self.waits.held.get(link as usize) else { continue };
            let (pool, hash, id) = (held.pool, held.hash, held.id);
            let Some(place) = self.pools.get(usize::from(pool)) else { continue };
            let leases = &place.config.leases;
            // What is being read comes as soon as anything.
            let (read, orders) = leases.shared().with(leases.worker(), |table| table.is_read(hash, leases.worker()));
            if !read {
                self.give_up_wait(pool, hash, link, id);
            }
            self.obey(pool, orders);
        }
    }

    /// Whether somebody waits for whom it matters to be looked after every [`HEAD`].
    #[must_use]
    pub fn has_heads(&self) -> bool {
        self.waits.held.iter().any(|(_, held)| held.same_waits)
    }

    /// The pool is configured anew: those who wait for keys that have no lease any more are told nil, as whoever asks now. What
    /// is written is not noted any more.
    pub(in crate::engine) fn meet_leases(&mut self, pool: u16) {
        let Some(place) = self.pools.get(usize::from(pool)).filter(|_| self.waits.len() > 0) else { return };
        let leases = &place.config.leases;
        let mut over: Vec<(u32, u64, u64)> = Vec::new();
        let ((), orders) = leases.shared().with(leases.worker(), |table| {
            for (link, held) in self.waits.held.iter().filter(|(_, held)| held.pool == pool) {
                let name = table.name(held.hash);
                if !name.is_some_and(|name| leases.config().wanted(&name).lease.holds()) {
                    over.push((link as u32, held.id, held.hash));
                }
            }
        });
        self.obey(pool, orders);
        for (link, id, hash) in over {
            self.give_up_wait(pool, hash, link, id);
        }
    }

    /// Too much waits for its turn behind a read of this session: it is told nil, and so are those behind it as long as that is so.
    #[cold]
    pub(super) fn uncrowd(&mut self, ticket: Ticket) {
        loop {
            let Some(session) = self.sessions.get(ticket.session as usize) else { return };
            let Some(pool) = self.pools.get(usize::from(session.pool)) else { return };
            if session.generation != ticket.generation || session.killed || !session.is_crowded(&pool.config.bounds) {
                return;
            }
            let is_head =
                |link: &u32| self.waits.held.get(*link as usize).is_some_and(|held| session.is_head(held.ticket.slot));
            let heads: Vec<u32> = self.waits.of(ticket).into_iter().filter(is_head).collect();
            if heads.is_empty() {
                return;
            }
            for link in heads {
                if let Some(held) = self.waits.held.get(link as usize) {
                    self.give_up_wait(held.pool, held.hash, link, held.id);
                }
            }
        }
    }

    /// Nobody waits any more, in a pool or in any: its sessions end as soon as they have what they have asked for.
    pub(super) fn end_waits(&mut self, pool: Option<u16>) {
        let its = |held: &Held| pool.is_none_or(|pool| held.pool == pool);
        let held = self.waits.held.iter().filter(|(_, held)| its(held));
        for (link, held) in held.map(|(link, held)| (link, (held.pool, held.hash, held.id))).collect::<Vec<_>>() {
            let (pool, hash, id) = held;
            self.give_up_wait(pool, hash, link as u32, id);
        }
    }

    /// Tells nil to one who waits, though the table has not said so.
    fn give_up_wait(&mut self, pool: u16, hash: u64, link: u32, id: u64) {
        let Some(place) = self.pools.get(usize::from(pool)) else { return };
        let leases = &place.config.leases;
        let (_, orders) = leases.shared().with(leases.worker(), |table| table.release(hash, id));
        self.end_wait(link, id, None, None);
        self.obey(pool, orders);
    }
}

/// What becomes of a read that found nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is told so.
    Nil,
    /// It is told so, and expected to load the key.
    Holds,
    /// It waits, or has been told something else.
    Waits,
}
