//! Reads that are sent to one of several shards that have the key: to the key's shard, or to a replica of it.
//!
//! What a replica answers with an error, or not at all, is asked of the key's shard, once, or of another replica where only
//! replicas are to answer: it is a read, nothing is lost by reading twice. One that takes longer than [`PATIENCE`] is asked there, too, and whatever the replica says later is dropped.
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
use crate::engine::{Engine, LineId, Pool, SessionId, leg_of, misses, refuse};
use crate::error::NO_REPLICA;
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
    /// Only replicas are to answer it.
    only: bool,
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
    /// It is a replica's that is asked in place of another, and so the last word, too.
    Second,
    /// It is a replica's that has taken too long.
    Late,
}

/// Whether the key's shard might answer otherwise than with the same error.
fn is_its_own(reply: &[u8]) -> bool {
    let common = reply.starts_with(b"-ERR ") || reply.starts_with(b"-WRONGTYPE ");
    !common || reply.starts_with(b"-ERR unknown")
}

/// Whether a reply is one that commands have for a key that is not there: nothing, zero, or lists of that.
fn says_nothing(reply: &[u8]) -> bool {
    reply.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end).all(|line| match line {
        [] | b"$-1" | b"*-1" | b"_" | b"$0" | b":0" | b":-1" | b"#f" | b",0" | b"+none" => true,
        // Heads of lists: their elements follow.
        [b'*' | b'~' | b'%' | b'>', ..] => true,
        _ => false,
    })
}

impl Engine {
    /// Sends a read to the shard that was chosen for it.
    #[cold]
    pub(in crate::engine) fn spread(&mut self, id: SessionId, leg: &Leg<'_>, port: &mut impl Port) {
        let now = self.now;
        let Some((number, ticket)) = self.open_slot(id) else { return };
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        let on = pool.line(leg.line);
        let away = pool.config.path.hot.replicas().home_of(leg.shard);
        let home = away.unwrap_or(leg.shard);
        let away = away.is_some();
        pool.config.path.hot.replicas_mut().took_turn(home);
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
        let (spec, shard, only) = (leg.spec, leg.shard, leg.only);
        let spread = Spread { spec, pool: number, shard, ticket, sent: now, answers, only, budget };
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
            if failed && is_its_own(reply) && matches!(spread.answers, Answers::Replica(_) | Answers::Second) {
                hot.replicas_mut().leave_out(spread.shard, now);
            }
        }
        let mut none = Vec::new();
        match spread.answers {
            Answers::Late => return,
            Answers::Replica(wire) => {
                self.end_indirect(spread.ticket);
                let unsure = !failed
                    && (self.may_be_leased(spread.pool, spread.spec, &wire, reply)
                        || self.may_have_moved(spread.pool, reply));
                if failed || unsure {
                    // What is its shard's to say is asked there, whatever replicas are for.
                    let spread = Spread { answers: Answers::Late, only: spread.only && !unsure, ..spread };
                    self.read_once_more(&spread, &wire, port);
                    return self.spare.put(wire);
                }
                self.spare.put(wire);
            }
            Answers::Second => {
                self.end_indirect(spread.ticket);
                if failed && is_its_own(reply) {
                    let home = self.pools.get(usize::from(spread.pool)).map_or("", |pool| pool.home_of(spread.shard));
                    NO_REPLICA.write(home, false, &mut none);
                }
            }
            Answers::Home => {}
        }
        let mut busy = Vec::new();
        let over = spread
            .budget
            .is_some_and(|budget| misses::is_nil(reply) && !self.may_tell_missed(spread.pool, budget, &mut busy));
        let reply = if over { busy.as_slice() } else { reply };
        let reply = if none.is_empty() { reply } else { none.as_slice() };
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

    /// Whether a reply may say no more than that a key is not there, in a cluster, where it may be on its way from the shard to
    /// another one: the shard would send whoever asks on to that, a replica says that there is no such key.
    fn may_have_moved(&self, pool: u16, reply: &[u8]) -> bool {
        let pool = self.pools.get(usize::from(pool));
        pool.is_some_and(|pool| pool.config.path.route.slots().is_some()) && says_nothing(reply)
    }

    /// Asks the key's shard after all; where only replicas are to answer, another one.
    fn read_once_more(&mut self, spread: &Spread, wire: &[u8], port: &mut impl Port) {
        if let Some(pool) = self.pools.get_mut(usize::from(spread.pool)) {
            pool.counts.replica_second_tries = pool.counts.replica_second_tries.saturating_add(1);
        }
        if !(spread.only && self.ask_another(spread, wire, port)) {
            self.ask_home((spread.pool, spread.spec), spread.ticket, wire, port);
        }
    }

    /// Asks another replica what one has not answered, or says that there is none. Returns whether it did: else the key's shard
    /// is to be asked, which alone has what was written meanwhile.
    fn ask_another(&mut self, before: &Spread, wire: &[u8], port: &mut impl Port) -> bool {
        let (now, number, ticket) = (self.now, before.pool, before.ticket);
        let Some(request) = Request::parse(wire) else { return false };
        let session = self.sessions.get(ticket.session as usize).filter(|s| s.generation == ticket.generation);
        let Some((session, pool)) = session.zip(self.pools.get_mut(usize::from(number))) else { return false };
        let key = request.arg(1).unwrap_or_default();
        let leg = leg_of(session, before.spec, key, request.wire(), self.order);
        let mut leg = Leg { free: true, after: None, ..leg };
        match pool.config.path.decide(&mut leg, now) {
            Verdict::Refuse(refusal) => {
                let mut reply = self.spare.take();
                let name = pool.config.shards.get(usize::from(leg.shard)).map_or("", String::as_str);
                refuse(refusal, name, &mut reply);
                pool.counts.errors[refusal.cause()] = pool.counts.errors[refusal.cause()].saturating_add(1);
                self.complete(number, ticket, &reply, Some(port));
                self.spare.put(reply);
                return true;
            }
            _ if !leg.spread => return false,
            _ => {}
        }
        let on = pool.line(leg.line);
        pool.config.path.hot.choice.began(leg.shard);
        pool.counts.replica_reads = pool.counts.replica_reads.saturating_add(1);
        let Spread { spec, budget, only, pool, .. } = *before;
        let second = Spread { spec, pool, shard: leg.shard, ticket, sent: now, answers: Answers::Second, only, budget };
        self.begin_indirect(ticket);
        let link = self.spreads.insert(second) as u32;
        let waiter = Waiter { ticket, at: now as u32, link, part: Waiter::SPREAD, tag: spec.tag };
        self.send(on, waiter, request.wire(), port);
        true
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

    /// Counts a read that a replica was to answer, and that goes to its key's shard.
    #[cold]
    pub(in crate::engine) fn count_kept(&mut self, number: u16, leg: &Leg<'_>) {
        if let Some(pool) = self.pools.get_mut(usize::from(number)).filter(|_| leg.kept) {
            pool.counts.reads_kept = pool.counts.reads_kept.saturating_add(1);
        }
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
            let Answers::Replica(wire) = std::mem::replace(&mut spread.answers, Answers::Late) else { continue };
            let late = Spread { answers: Answers::Late, ..*spread };
            if let Some(pool) = self.pools.get_mut(usize::from(late.pool)) {
                pool.config.path.hot.replicas_mut().leave_out(late.shard, now);
            }
            self.end_indirect(late.ticket);
            self.read_once_more(&late, &wire, port);
            self.spare.put(wire);
        }
    }

    /// The connection on which a server is asked, opened if need be.
    fn first_line(&mut self, number: u16, shard: u16, port: &mut impl Port) -> Option<LineId> {
        let pool = self.pools.get(usize::from(number))?;
        let on = pool.line(u32::from(shard).saturating_mul(u32::from(pool.config.lanes)));
        if let Some(line) = self.lines.get_mut(on as usize)
            && line.state == State::Idle
            && !line.retired
        {
            line.state = State::Opening;
            port.open(on);
        }
        Some(on)
    }

    /// Asks a server how far it is. Its connection is opened for that if need be, and those of its replicas; then it is asked the
    /// next time.
    fn ask_standing(&mut self, number: u16, shard: u16, port: &mut impl Port) {
        let now = self.now;
        let Some(on) = self.first_line(number, shard, port) else { return };
        let Some(pool) = self.pools.get(usize::from(number)) else { return };
        let replicas: Vec<u16> = pool.config.path.hot.replicas().replicas_of(shard).collect();
        for replica in replicas {
            self.first_line(number, replica, port);
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
        let asks_zones = pool.config.path.hot.reads().needs_zones();
        let replicas = pool.config.path.hot.replicas_mut();
        if matches!(reply.first(), Some(b'$' | b'=')) {
            replicas.measured(shard, now.saturating_sub(asked));
            if asks_zones && replicas.asks_zone(shard) {
                self.ask_zone(number, shard, port);
            }
        }
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

    /// Asks a server in which zone it is.
    fn ask_zone(&mut self, number: u16, shard: u16, port: &mut impl Port) {
        if let Some(on) = self.first_line(number, shard, port) {
            self.run_errand(on, &[&[b"INFO", b"server"]], Errand::Zone);
        }
    }

    /// A server has told something of itself, as Valkey does: also in which zone it is. Others do not, and are in none.
    pub(super) fn told_zone(&mut self, (number, shard): (u16, u16), reply: &[u8]) {
        const NAME: &[u8] = b"availability_zone:";
        let mut lines = reply.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end);
        let zone = lines.find_map(|line| line.strip_prefix(NAME)).filter(|zone| !zone.is_empty());
        if let Some(pool) = self.pools.get_mut(usize::from(number)) {
            pool.config.path.hot.told_zone(shard, zone);
        }
    }
}

impl Pool {
    /// The name of the shard that a replica follows.
    fn home_of(&self, replica: u16) -> &str {
        let home = self.config.path.hot.replicas().home_of(replica);
        home.and_then(|home| self.config.shards.get(usize::from(home))).map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_commands_say_of_a_key_that_is_not_there() {
        for reply in [
            "$-1\r\n",
            "*-1\r\n",
            "_\r\n",
            ":0\r\n",
            ":-1\r\n",
            "$0\r\n\r\n",
            "*0\r\n",
            "%0\r\n",
            "+none\r\n",
            "*2\r\n$-1\r\n$-1\r\n",
            "*1\r\n*-1\r\n",
            "*2\r\n:0\r\n:0\r\n",
        ] {
            assert!(says_nothing(reply.as_bytes()), "{reply}");
        }
        for reply in
            ["$1\r\nv\r\n", ":1\r\n", "+string\r\n", "*2\r\n$-1\r\n$1\r\nv\r\n", "#t\r\n", ",0.5\r\n", "$1\r\n_x\r\n"]
        {
            assert!(!says_nothing(reply.as_bytes()), "{reply}");
        }
    }
}
