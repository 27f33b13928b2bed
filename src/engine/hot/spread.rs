//! Reads of hot keys that are sent to one of several shards that have the key: to the key's shard, or to a replica of it.
//!
//! What a replica answers with an error, or not at all, is asked of the key's shard, once: it is a read, nothing is lost by
//! reading twice. One that takes longer than [`PATIENCE`] is asked there, too, and whatever the replica says later is dropped.
//! So a replica that is gone, stands still or does not want to serve costs an app time, and never an error.
//!
//! Also sees to it that shards and replicas are asked how far they are, as long as that is needed
//! ([`crate::stages::hot::Replicas`]).
//!
//! Does not promise that of two reads of a session the later one sees the newer value.
//!
//! Deliberately absent: a third try, and joining such reads as `coalesce` does, which would have to keep who joined.

use super::{Errand, Note, State};
use crate::command::Spec;
use crate::engine::line::{Ticket, Waiter};
use crate::engine::port::Port;
use crate::engine::{Engine, SessionId, leg_of, misses, refuse};
use crate::resp::Request;
use crate::stages::{Leg, Micros, Refusal, Verdict, missing};

/// How long a replica may take, in microseconds; no longer than a half of the pool's timeout.
const PATIENCE: Micros = 200_000;

/// A read under way.
#[derive(Debug)]
pub(in crate::engine) struct Spread {
    spec: &'static Spec,
    pool: u16,
    shard: u16,
    ticket: Ticket,
    sent: Micros,
    answers: Answers,
    /// Which budget it counts in if the key is not there.
    budget: Option<u16>,
}

/// What becomes of the answer.
#[derive(Debug)]
enum Answers {
    /// It is the key's shard's, and so the last word.
    Home,
    /// It is a replica's; the request's bytes are kept, to ask elsewhere.
    Replica(Vec<u8>),
    /// It is a replica's that has taken too long.
    Late,
}

/// Whether the key's shard might answer otherwise than with the same error.
fn is_its_own(reply: &[u8]) -> bool {
    let common = reply.starts_with(b"-ERR ") || reply.starts_with(b"-WRONGTYPE ");
    !common || reply.starts_with(b"-ERR unknown")
}

impl Engine {
    /// Sends a read to the shard that was chosen for it.
    #[cold]
    pub(in crate::engine) fn spread(&mut self, id: SessionId, leg: &Leg<'_>, port: &mut impl Port) {
        let now = self.now;
        let Some((number, ticket)) = self.open_slot(id) else { return };
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        let on = pool.line(leg.line);
        let away = pool.config.path.route.is_replica(leg.shard);
        let key = leg.hot.and_then(|hash| pool.config.path.hot.key(hash));
        let home = key.map_or(leg.shard, |key| key.shard);
        pool.config.path.hot.choice.began(leg.shard);
        pool.config.path.hot.choice.saw(leg.shard, 1.0);
        let mut answers = Answers::Home;
        if away {
            pool.counts.replica_reads = pool.counts.replica_reads.saturating_add(1);
            let mut wire = self.spare.take();
            wire.extend_from_slice(leg.wire);
            answers = Answers::Replica(wire);
            self.begin_indirect(ticket);
        }
        let budget = self.get_budget_of(number, leg.key, 0).filter(|_| leg.spec.name == "get");
        let spread = Spread { spec: leg.spec, pool: number, shard: leg.shard, ticket, sent: now, answers, budget };
        let mut waiter = self.waiter(ticket, leg.spec);
        (waiter.link, waiter.part) = (self.spreads.insert(spread) as u32, Waiter::SPREAD);
        let serial = self.send(on, waiter, leg.wire, port);
        if !away && self.pools.get(usize::from(number)).is_some_and(|pool| pool.config.leases.is_on()) {
            self.note_miss(leg.spec, leg.key, waiter.at, (on, serial));
        }
        // As a read at its shard, wherever it went; and nobody shares it.
        let told = Leg {
            line: leg.line,
            shard: home,
            hot: leg.hot,
            alone: false,
            spread: true,
            ..Leg::new(leg.spec, leg.key, leg.wire)
        };
        self.sent(number, &told, serial, 1);
    }

    /// A reply came to a read that was sent to one of several shards, or is told in its place.
    #[cold]
    pub(in crate::engine) fn spread_landed(&mut self, id: u32, waiter: &Waiter, reply: &[u8], port: &mut impl Port) {
        let now = self.now;
        let Some(spread) = self.spreads.try_remove(waiter.link as usize) else { return };
        let failed = reply.first() == Some(&b'-');
        if let Some(pool) = self.pools.get_mut(usize::from(spread.pool)) {
            let hot = &mut pool.config.path.hot;
            hot.choice.ended(spread.shard, now.saturating_sub(spread.sent), now);
            if failed && is_its_own(reply) && matches!(spread.answers, Answers::Replica(_)) {
                hot.replicas_mut().leave_out(spread.shard, now);
            }
        }
        match spread.answers {
            Answers::Late => return,
            Answers::Replica(wire) => {
                self.end_indirect(spread.ticket);
                let unsure = !failed && self.may_be_leased(spread.pool, spread.spec, &wire, reply);
                if failed || unsure {
                    self.read_home((spread.pool, spread.spec), spread.ticket, &wire, port);
                    return self.spare.put(wire);
                }
                self.spare.put(wire);
            }
            Answers::Home => {}
        }
        let mut busy = Vec::new();
        let over = spread
            .budget
            .is_some_and(|budget| misses::is_nil(reply) && !self.may_tell_missed(spread.pool, budget, &mut busy));
        let reply = if over { busy.as_slice() } else { reply };
        let last = Waiter { part: Waiter::WHOLE, link: Waiter::NOBODY, ..*waiter };
        self.land(id, spread.pool, &last, reply, port);
    }

    /// The key's shard found nothing: what is left to do is the same as for any other read.
    pub(in crate::engine) fn spread_missed(&mut self, waiter: &Waiter) -> Waiter {
        let now = self.now;
        if let Some(spread) = self.spreads.try_remove(waiter.link as usize)
            && let Some(pool) = self.pools.get_mut(usize::from(spread.pool))
        {
            pool.config.path.hot.choice.ended(spread.shard, now.saturating_sub(spread.sent), now);
        }
        Waiter { part: Waiter::WHOLE, link: Waiter::NOBODY, ..*waiter }
    }

    /// Whether a reply says that a key is not there which has a lease: then its shard has the last word.
    fn may_be_leased(&self, pool: u16, spec: &Spec, wire: &[u8], reply: &[u8]) -> bool {
        let Some(pool) = self.pools.get(usize::from(pool)).filter(|pool| pool.config.leases.is_on()) else {
            return false;
        };
        let key = Request::parse(wire).and_then(|request| request.arg(1));
        spec.name == "get" && misses::is_nil(reply) && key.is_some_and(|key| pool.config.leases.concerns(key))
    }

    /// Asks the key's shard after all.
    fn read_home(&mut self, (number, spec): (u16, &'static Spec), ticket: Ticket, wire: &[u8], port: &mut impl Port) {
        if let Some(pool) = self.pools.get_mut(usize::from(number)) {
            pool.counts.replica_second_tries = pool.counts.replica_second_tries.saturating_add(1);
        }
        self.ask_home((number, spec), ticket, wire, port);
    }

    /// Asks the key's shard what was not answered elsewhere.
    pub(in crate::engine) fn ask_home(
        &mut self,
        (number, spec): (u16, &'static Spec),
        ticket: Ticket,
        wire: &[u8],
        port: &mut impl Port,
    ) {
        let now = self.now;
        let Some(request) = Request::parse(wire) else { return };
        let session = self.sessions.get(ticket.session as usize).filter(|s| s.generation == ticket.generation);
        let Some((session, pool)) = session.zip(self.pools.get(usize::from(number))) else {
            // Nobody waits for it any more: that is counted.
            return self.complete(number, ticket, b"", None);
        };
        let key = request.arg(1).unwrap_or_default();
        let mut leg = Leg { free: false, after: None, ..leg_of(session, spec, key, request.wire(), self.order) };
        let resp3 = session.resp3;
        if let Verdict::Refuse(refusal) = pool.config.path.decide(&mut leg, now) {
            let mut reply = self.spare.take();
            let missed = matches!(refusal, Refusal::Missing(_)) && missing::reply(spec, &request, resp3, &mut reply);
            if let Some(pool) = self.pools.get_mut(usize::from(number)) {
                if missed {
                    pool.counts.missed = pool.counts.missed.saturating_add(1);
                } else {
                    let name = pool.config.shards.get(usize::from(leg.shard)).map_or("", String::as_str);
                    refuse(refusal, name, &mut reply);
                    pool.counts.errors[refusal.cause()] = pool.counts.errors[refusal.cause()].saturating_add(1);
                }
            }
            self.complete(number, ticket, &reply, Some(port));
            return self.spare.put(reply);
        }
        let on = pool.line(leg.line);
        // Timed anew: who waits for the key's shard is told by how old its oldest request is.
        let waiter = Waiter { ticket, at: now as u32, link: Waiter::NOBODY, part: Waiter::WHOLE, tag: spec.tag };
        let serial = self.send(on, waiter, request.wire(), port);
        // Nobody who asks from now on may share a read that its session made before.
        let told =
            Leg { line: leg.line, shard: leg.shard, hot: leg.hot, alone: false, ..Leg::new(spec, key, request.wire()) };
        self.sent(number, &told, serial, 1);
        if let Some(hash) = leg.hot.filter(|_| spec.name == "get") {
            self.note_read(ticket, Note::Read(hash), on, serial);
        }
        self.note_miss(spec, key, waiter.at, (on, serial));
    }

    /// Upkeep: asks servers how far they are, and elsewhere what a replica has not answered.
    pub(in crate::engine) fn look_after_replicas(&mut self, port: &mut impl Port) {
        let now = self.now;
        for number in 0..self.pools.len() as u16 {
            while let Some(pool) = self.pools.get_mut(usize::from(number)) {
                let hot = &mut pool.config.path.hot;
                if hot.replicas().is_empty() {
                    break;
                }
                pool.counts.replicas_behind.set(hot.replicas().behind(now) as u64);
                let Some(shard) = hot.next_to_ask(now) else { break };
                self.ask_standing(number, shard, port);
            }
        }
        self.ask_elsewhere(port);
    }

    /// Asks the keys' shards what replicas have not answered in time.
    fn ask_elsewhere(&mut self, port: &mut impl Port) {
        let now = self.now;
        let patience = |pool: u16| {
            let timeout = self.pools.get(usize::from(pool)).and_then(|pool| pool.config.timeout);
            timeout.map_or(PATIENCE, |timeout| PATIENCE.min(timeout / 2))
        };
        let is_late = |(_, spread): &(usize, &Spread)| {
            matches!(spread.answers, Answers::Replica(_)) && now.saturating_sub(spread.sent) > patience(spread.pool)
        };
        let late: Vec<usize> = self.spreads.iter().filter(is_late).map(|(number, _)| number).collect();
        for number in late {
            let Some(spread) = self.spreads.get_mut(number) else { continue };
            let (of, shard, ticket) = ((spread.pool, spread.spec), spread.shard, spread.ticket);
            let Answers::Replica(wire) = std::mem::replace(&mut spread.answers, Answers::Late) else { continue };
            if let Some(pool) = self.pools.get_mut(usize::from(of.0)) {
                pool.config.path.hot.replicas_mut().leave_out(shard, now);
            }
            self.end_indirect(ticket);
            self.read_home(of, ticket, &wire, port);
            self.spare.put(wire);
        }
    }

    /// Asks a server how far it is. Its connection is opened for that if need be; then it is asked the next time.
    fn ask_standing(&mut self, number: u16, shard: u16, port: &mut impl Port) {
        let now = self.now;
        let Some(pool) = self.pools.get(usize::from(number)) else { return };
        let on = pool.line(u32::from(shard).saturating_mul(u32::from(pool.config.lanes)));
        if let Some(line) = self.lines.get_mut(on as usize)
            && line.state == State::Idle
            && !line.retired
        {
            line.state = State::Opening;
            port.open(on);
        }
        if self.run_errand(on, &[&[b"INFO", b"replication"]], Errand::Standing(now)).is_none()
            && let Some(pool) = self.pools.get_mut(usize::from(number))
        {
            pool.config.path.hot.replicas_mut().told(shard, now, None);
        }
    }

    /// A server has told how far it is.
    pub(super) fn standing(&mut self, (number, shard): (u16, u16), asked: Micros, reply: &[u8], port: &mut impl Port) {
        let now = self.now;
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        let replicas = pool.config.path.hot.replicas_mut();
        if !replicas.told(shard, asked, Some(reply)) {
            return;
        }
        for replica in replicas.replicas_of(shard).collect::<Vec<_>>() {
            let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
            if pool.config.path.hot.replicas_mut().asks(replica, now) {
                self.ask_standing(number, replica, port);
            }
        }
    }
}
