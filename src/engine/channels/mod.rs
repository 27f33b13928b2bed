//! Publish and subscribe: what many apps listen to is listened to once for each worker and shard.
//!
//! Each shard has an *ear*, a connection that is opened with the first subscription and then kept. A channel is subscribed
//! at its home shard, the one a key of its name would live on, and there PUBLISH sends it; a pattern, and the channels by
//! which a server tells of its own keys (`__keyspace@…`, `__keyevent@…`), at every shard. So a message is heard once,
//! whoever listens. What is published to a shard directly, past hotring, is heard only if it was that channel's home.
//!
//! An app is told that it is subscribed when the shards have said so, and from then on gets every message; behind a
//! reconnect everything is subscribed again, and what was published meanwhile is lost, as Redis would lose it. A shard that
//! is down refuses subscriptions and does not end those there are.
//!
//! Bounded: an app that does not read is ended as by its replies (`max_output`); an ear is read as fast as it is sent to.

#![expect(clippy::arithmetic_side_effects, reason = "counters of 64 bits, and sizes of what is in memory")]

mod homes;

use super::apps::{kill, mark};
use super::line::{Dialect, Line, Owner, State, Ticket};
use super::port::Port;
use super::special::{Special, mode};
use super::tenant::{self, Tenant, topic};
use super::{Engine, LineId, SessionId, refuse};
use crate::command::{Local, Spec, Treatment};
use crate::error::{Cause, Failure, NO_CHANNELS};
use crate::resp::reply::{Elements, bulk};
use crate::resp::{Request, write};
use crate::stages::{Leg, Micros, Refusal, Verdict};
use std::collections::{HashMap, VecDeque};

/// What is subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A channel.
    Channel,
    /// All channels of a pattern.
    Pattern,
    /// A channel of sharded publish and subscribe.
    Sharded,
}

/// A name to listen to.
pub type Name = (Kind, Box<[u8]>);

/// What is listened to in a pool, and by whom.
#[derive(Debug, Default)]
pub(super) struct Channels {
    topics: HashMap<Name, Topic>,
    /// By shard.
    ears: Vec<Option<Ear>>,
    /// SUBSCRIBE commands that wait for shards, by number.
    asked: HashMap<u64, Asked>,
    /// When what nodes did not want to tell of is asked for again.
    again: Option<Micros>,
    number: u64,
    /// How often the ring had changed when the topics were last sent to their homes.
    changes: u32,
}

#[derive(Debug, Default)]
struct Topic {
    listeners: Vec<(SessionId, u32)>,
    /// Shards where it is to be subscribed, and those that have said it is.
    shards: Vec<u16>,
    confirmed: Vec<u16>,
    /// Who waits for the rest of them.
    waiting: Vec<u64>,
}

/// How long after a node has refused to tell of a channel it is asked again, in microseconds.
const AGAIN: Micros = 100_000;

#[derive(Debug)]
struct Ear {
    line: LineId,
    /// What was asked of the shard and not answered yet, in order.
    expected: VecDeque<Name>,
    heard: Micros,
    pinged: bool,
}

/// A SUBSCRIBE that waits.
#[derive(Debug)]
struct Asked {
    ticket: Ticket,
    names: Vec<Name>,
    left: usize,
    /// Messages that came by those names before all shards had answered; the app gets them behind its confirmation.
    early: Vec<Vec<u8>>,
    /// Their bytes.
    kept: usize,
}

impl Kind {
    fn words(self) -> (&'static [u8], &'static [u8]) {
        match self {
            Self::Channel => (b"subscribe", b"unsubscribe"),
            Self::Pattern => (b"psubscribe", b"punsubscribe"),
            Self::Sharded => (b"ssubscribe", b"sunsubscribe"),
        }
    }
}

/// Whether a server tells of its own keys on this channel.
fn tells_of_keys(channel: &[u8]) -> bool {
    channel.starts_with(b"__keyspace@") || channel.starts_with(b"__keyevent@")
}

/// Whether a name has to be subscribed at all shards. What is published to a node of a cluster is told by all of them.
fn is_everywhere(kind: Kind, name: &[u8], cluster: bool) -> bool {
    let of_keys = tells_of_keys(name) || (kind == Kind::Pattern && name.starts_with(b"__key"));
    of_keys || (kind == Kind::Pattern && !cluster)
}

/// The count that Redis tells with a subscription: sharded ones are counted by themselves. It counts nothing anew, as it is
/// told for each of many names.
fn count(special: &Special, kind: Kind) -> i64 {
    (if kind == Kind::Sharded { special.sharded } else { special.listens.len() - special.sharded }) as i64
}

/// Begins a message of `parts` parts.
fn message(out: &mut Vec<u8>, resp3: bool, parts: usize) {
    let at = out.len();
    write::array(out, parts);
    if let (true, Some(first)) = (resp3, out.get_mut(at)) {
        *first = b'>';
    }
}

impl Engine {
    /// SUBSCRIBE and the like.
    pub(super) fn subscription(
        &mut self,
        id: SessionId,
        spec: &'static Spec,
        request: &Request<'_>,
        port: &mut impl Port,
    ) {
        let (kind, on) = match spec.name {
            "subscribe" => (Kind::Channel, true),
            "psubscribe" => (Kind::Pattern, true),
            "ssubscribe" => (Kind::Sharded, true),
            "unsubscribe" => (Kind::Channel, false),
            "punsubscribe" => (Kind::Pattern, false),
            _ => (Kind::Sharded, false),
        };
        let names: Vec<Name> = request.args().skip(1).map(|name| (kind, name.into())).collect();
        let place = self.sessions.get(id as usize).and_then(|session| self.pools.get(usize::from(session.pool)));
        if on && !place.is_some_and(|place| place.config.channels) {
            return self.unsupported(id, NO_CHANNELS);
        }
        if on { self.subscribe(id, names, port) } else { self.unsubscribe(id, kind, names) }
    }

    /// What a session that speaks RESP2 may do while it listens. Returns whether the request was dealt with.
    pub(super) fn while_listening(&mut self, id: SessionId, spec: &'static Spec, request: &Request<'_>) -> bool {
        let Some(session) = self.sessions.get(id as usize) else { return true };
        if session.resp3 {
            return false;
        }
        match spec.treatment {
            Treatment::Own(crate::command::Need::Subscription) | Treatment::Local(Local::Quit | Local::Reset) => false,
            Treatment::Local(Local::Ping) if request.argc() <= 2 => {
                let text = request.arg(1).unwrap_or_default();
                self.answer_with(id, None, |out| {
                    write::array(out, 2);
                    write::bulk(out, b"pong");
                    write::bulk(out, text);
                });
                true
            }
            _ => {
                let text = format!(
                    "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in \
                     this context",
                    spec.name
                );
                self.answer_with(id, Some(Cause::Syntax), |out| write::error(out, text.as_bytes()));
                true
            }
        }
    }

    fn subscribe(&mut self, id: SessionId, names: Vec<Name>, port: &mut impl Port) {
        let Some(session) = self.sessions.get(id as usize) else { return };
        let pool = session.pool;
        let mut homes = Vec::with_capacity(names.len());
        for name in &names {
            match self.listened_at(pool, name) {
                Ok(shards) => homes.push(shards),
                Err((reason, shard)) => return self.refused(id, reason, shard),
            }
        }
        let Some(session) = self.sessions.get_mut(id as usize) else { return };
        let ticket = Ticket { session: id, generation: session.generation, slot: session.open() };
        // What is asked behind it depends on whether it listens then.
        session.mode |= mode::LISTENING;
        session.special().subscribing = true;
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        place.counts.requests_pending += 1;
        // It waits for shards, not for work: it tells nothing of the load.
        let channels = &mut place.channels;
        channels.number += 1;
        let number = channels.number;
        let (mut left, mut wanted) = (0, Vec::new());
        for (name, shards) in names.iter().zip(homes) {
            let topic = channels.topics.entry(name.clone()).or_insert_with(|| {
                wanted.push(name.clone());
                Topic { shards, ..Topic::default() }
            });
            if topic.confirmed.len() < topic.shards.len() && !topic.waiting.contains(&number) {
                topic.waiting.push(number);
                left += 1;
            }
        }
        channels.asked.insert(number, Asked { ticket, names, left, early: Vec::new(), kept: 0 });
        for name in wanted {
            let Some(place) = self.pools.get(usize::from(pool)) else { return };
            let shards = place.channels.topics.get(&name).map(|topic| topic.shards.clone()).unwrap_or_default();
            self.listen(pool, &name, shards, port);
        }
        if left == 0 {
            self.subscribed(pool, number);
        }
    }

    /// The shards at which a name is subscribed.
    fn listened_at(&self, pool: u16, (kind, name): &Name) -> Result<Vec<u16>, (Refusal, u16)> {
        let Some(place) = self.pools.get(usize::from(pool)) else { return Err((Refusal::NoShard, 0)) };
        let cluster = place.cluster.is_some();
        let shards: Vec<u16> = if is_everywhere(*kind, name, cluster) {
            place.config.path.route.shards().to_vec()
        } else {
            let Some(spec) = crate::command::lookup(b"publish") else { return Err((Refusal::NoShard, 0)) };
            let mut leg = Leg { alone: false, ..Leg::new(spec, name, b"") };
            match place.config.path.decide(&mut leg, self.now) {
                Verdict::Refuse(reason) => return Err((reason, leg.shard)),
                Verdict::Next | Verdict::Near | Verdict::Join(_) | Verdict::Behind(_) => vec![leg.shard],
            }
        };
        for &shard in &shards {
            let ear = place.channels.ears.get(usize::from(shard)).and_then(Option::as_ref);
            if let Some(State::Down(failure)) = ear.and_then(|ear| self.lines.get(ear.line as usize)).map(|l| l.state) {
                return Err((Refusal::Down(Failure { cause: Cause::ShardDown, ..failure }), shard));
            }
        }
        Ok(shards)
    }

    /// Asks these shards for a name's messages.
    fn listen(&mut self, pool: u16, name: &Name, shards: Vec<u16>, port: &mut impl Port) {
        for shard in shards {
            let line = self.ear(pool, shard);
            match self.lines.get_mut(line as usize).map(|line| &mut line.state) {
                Some(State::Up) => self.ask_ear(pool, shard, name, name.0.words().0, true),
                // All that is listened to is asked for when it is open.
                Some(state @ State::Idle) => {
                    *state = State::Opening;
                    port.open(line);
                }
                _ => {}
            }
        }
    }

    /// A shard's ear.
    fn ear(&mut self, pool: u16, shard: u16) -> LineId {
        let next = self.lines.len() as LineId;
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return next };
        let ears = &mut place.channels.ears;
        if ears.len() <= usize::from(shard) {
            ears.resize_with(usize::from(shard) + 1, || None);
        }
        let Some(ear) = ears.get_mut(usize::from(shard)) else { return next };
        let now = self.now;
        let ear = ear.get_or_insert_with(|| Ear { line: next, expected: VecDeque::new(), heard: now, pinged: false });
        if ear.line == next {
            self.lines.push(Line { owner: Owner::Ear, ..Line::new(pool, shard, u32::MAX, Dialect::default()) });
        }
        ear.line
    }

    /// Says something to a shard's ear.
    fn ask_ear(&mut self, pool: u16, shard: u16, name: &Name, word: &[u8], answered: bool) {
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        let Some(Some(ear)) = place.channels.ears.get_mut(usize::from(shard)) else { return };
        let Some(line) = self.lines.get_mut(ear.line as usize) else { return };
        if line.state != State::Up {
            return;
        }
        write::request(&mut line.outbox, &[word, &name.1]);
        if answered {
            ear.expected.push_back(name.clone());
        }
        line.mark(ear.line, &mut self.dirty_lines);
    }

    /// An ear is open: everything is asked for, anew perhaps.
    pub(super) fn ear_open(&mut self, id: LineId) {
        let Some((pool, shard)) = self.lines.get(id as usize).map(|line| (line.pool, line.shard)) else { return };
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        if let Some(Some(ear)) = place.channels.ears.get_mut(usize::from(shard)) {
            (ear.heard, ear.pinged) = (self.now, false);
        }
        let here = |(name, topic): (&Name, &Topic)| topic.shards.contains(&shard).then(|| name.clone());
        let names: Vec<Name> = place.channels.topics.iter().filter_map(here).collect();
        for name in names {
            self.ask_ear(pool, shard, &name, name.0.words().0, true);
        }
    }

    /// An ear changes to another connection: what was asked for on the old one is asked for anew.
    pub(super) fn ear_moves(&mut self, pool: u16, shard: u16) {
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        if let Some(Some(ear)) = place.channels.ears.get_mut(usize::from(shard)) {
            ear.expected.clear();
        }
    }

    /// An ear broke: whoever waits for it is told.
    pub(super) fn ear_lost(&mut self, id: LineId, failure: Failure) {
        let Some((pool, shard)) = self.lines.get(id as usize).map(|line| (line.pool, line.shard)) else { return };
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        if let Some(Some(ear)) = place.channels.ears.get_mut(usize::from(shard)) {
            ear.expected.clear();
        }
        let mut waiting = Vec::new();
        for topic in place.channels.topics.values_mut().filter(|topic| topic.shards.contains(&shard)) {
            topic.confirmed.retain(|&other| other != shard);
            waiting.append(&mut topic.waiting);
        }
        let mut text = Vec::new();
        refuse(
            Refusal::Down(failure),
            place.config.shards.get(usize::from(shard)).map_or("", String::as_str),
            &mut text,
        );
        for number in waiting {
            self.not_subscribed(pool, number, &text);
        }
    }

    /// An ear is closed: nothing is listened to at its shard any more.
    pub(super) fn ear_closed(&mut self, id: LineId) {
        let Some((pool, shard)) = self.lines.get(id as usize).map(|line| (line.pool, line.shard)) else { return };
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        if let Some(Some(ear)) = place.channels.ears.get_mut(usize::from(shard)) {
            ear.expected.clear();
        }
    }

    /// What a shard says to an ear.
    pub(super) fn heard(&mut self, id: LineId, frame: &[u8], port: &mut impl Port) {
        let Some((pool, shard)) = self.lines.get(id as usize).map(|line| (line.pool, line.shard)) else { return };
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        let Some(Some(ear)) = place.channels.ears.get_mut(usize::from(shard)) else { return };
        (ear.heard, ear.pinged) = (self.now, false);
        let Some(mut parts) = Elements::of(frame) else {
            let cluster = place.cluster.is_some();
            if cluster && frame.starts_with(b"-MOVED ") {
                let name = ear.expected.pop_front();
                return self.is_heard_elsewhere(pool, shard, name, Some(frame), port);
            }
            if cluster && (frame.starts_with(b"-CLUSTERDOWN ") || frame.starts_with(b"-TRYAGAIN ")) {
                let name = ear.expected.pop_front();
                return self.is_not_heard_yet(pool, shard, name, frame);
            }
            // An error: the oldest subscription that waits is not allowed, say.
            if frame.first() == Some(&b'-')
                && let Some(name) = ear.expected.pop_front()
            {
                let waiting = place.channels.topics.remove(&name).map(|topic| topic.waiting).unwrap_or_default();
                for number in waiting {
                    self.not_subscribed(pool, number, frame);
                }
            }
            return;
        };
        let (Some(word), Some(name)) = (parts.next().and_then(bulk), parts.next()) else { return };
        let kind = match word {
            b"message" | b"subscribe" => Kind::Channel,
            b"pmessage" | b"psubscribe" => Kind::Pattern,
            b"smessage" | b"ssubscribe" => Kind::Sharded,
            b"sunsubscribe" if place.cluster.is_some() => {
                let name: Name = (Kind::Sharded, bulk(name).unwrap_or_default().into());
                let topic = place.channels.topics.get(&name);
                // Not asked for: its slot has left.
                if topic.is_some_and(|topic| topic.confirmed.contains(&shard)) {
                    self.is_heard_elsewhere(pool, shard, Some(name), None, port);
                }
                return;
            }
            _ => return,
        };
        let name: Name = (kind, bulk(name).unwrap_or_default().into());
        if word.ends_with(b"message") {
            return self.deliver(pool, &name, frame);
        }
        if ear.expected.front() == Some(&name) {
            ear.expected.pop_front();
        }
        let Some(topic) = place.channels.topics.get_mut(&name) else { return };
        // It may have moved from there meanwhile.
        if topic.shards.contains(&shard) && !topic.confirmed.contains(&shard) {
            topic.confirmed.push(shard);
        }
        self.confirm(pool, &name);
    }

    /// A node of a cluster does not tell, or not any more, of what is published to a name: another one does.
    #[cold]
    fn is_heard_elsewhere(
        &mut self,
        pool: u16,
        shard: u16,
        name: Option<Name>,
        moved: Option<&[u8]>,
        port: &mut impl Port,
    ) {
        if let Some(moved) = moved {
            self.learn_from(pool, shard, moved, port);
        }
        self.wish(pool);
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        let Some(topic) = name.and_then(|name| place.channels.topics.get_mut(&name)) else { return };
        topic.shards.retain(|&other| other != shard);
        topic.confirmed.retain(|&other| other != shard);
        // It is subscribed where it lives at the next look.
        place.channels.changes = place.config.path.route.changes().wrapping_sub(1);
    }

    /// A node of a cluster does not tell of what is published to a name as long as its slot is nobody's: those who wait are told
    /// so, and for those who listen already it is asked for again.
    #[cold]
    fn is_not_heard_yet(&mut self, pool: u16, shard: u16, name: Option<Name>, why: &[u8]) {
        self.wish(pool);
        let now = self.now;
        let topic = |engine: &mut Self| {
            let place = engine.pools.get_mut(usize::from(pool))?;
            let topic = place.channels.topics.get_mut(name.as_ref()?)?;
            topic.shards.retain(|&other| other != shard);
            topic.confirmed.retain(|&other| other != shard);
            place.channels.again.get_or_insert(now.saturating_add(AGAIN));
            Some(std::mem::take(&mut topic.waiting))
        };
        for number in topic(self).unwrap_or_default() {
            self.not_subscribed(pool, number, why);
        }
    }

    /// Tells those who wait for a name, if all its shards have said that it is subscribed.
    fn confirm(&mut self, pool: u16, name: &Name) {
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        let Some(topic) = place.channels.topics.get_mut(name) else { return };
        // Of one that has left its shard it is not known yet where it is told of.
        if topic.shards.is_empty() || topic.confirmed.len() < topic.shards.len() {
            return;
        }
        for number in std::mem::take(&mut topic.waiting) {
            let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
            let Some(asked) = place.channels.asked.get_mut(&number) else { continue };
            asked.left = asked.left.saturating_sub(1);
            if asked.left == 0 {
                self.subscribed(pool, number);
            }
        }
    }

    /// All shards have said that a SUBSCRIBE's names are subscribed.
    fn subscribed(&mut self, pool: u16, number: u64) {
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        let Some(Asked { ticket, names, early, .. }) = place.channels.asked.remove(&number) else { return };
        let session = self.sessions.get_mut(ticket.session as usize);
        let Some(session) = session.filter(|s| s.generation == ticket.generation) else {
            return self.forget_unheard(pool, names);
        };
        let resp3 = session.resp3;
        session.special().subscribing = false;
        let special = session.special();
        let mut reply = self.spare.take();
        for name in names {
            let (kind, bytes) = (name.0, name.1.clone());
            if special.listens.insert(name.clone()) {
                special.sharded += usize::from(kind == Kind::Sharded);
                if let Some(topic) = place.channels.topics.get_mut(&name) {
                    topic.listeners.push((ticket.session, ticket.generation));
                }
            }
            message(&mut reply, resp3, 3);
            write::bulk(&mut reply, kind.words().0);
            topic(special.tenant.as_deref().map(Tenant::prefix), kind, &bytes, &mut reply);
            write::integer(&mut reply, count(special, kind));
        }
        self.complete(pool, ticket, &reply, None);
        self.spare.put(reply);
        for frame in early {
            self.tell_listener(pool, (ticket.session, ticket.generation), &frame);
        }
    }

    /// A SUBSCRIBE cannot be carried out.
    fn not_subscribed(&mut self, pool: u16, number: u64, error: &[u8]) {
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        let Some(Asked { ticket, names, .. }) = place.channels.asked.remove(&number) else { return };
        place.counts.errors[Cause::ShardDown] += 1;
        for name in &names {
            if let Some(topic) = place.channels.topics.get_mut(name) {
                topic.waiting.retain(|&other| other != number);
            }
        }
        let session = self.sessions.get_mut(ticket.session as usize);
        if let Some(session) = session.filter(|s| s.generation == ticket.generation) {
            let special = session.special();
            special.subscribing = false;
            if special.listens.is_empty() {
                session.mode &= !mode::LISTENING;
            }
        }
        self.complete(pool, ticket, error, None);
        self.forget_unheard(pool, names);
    }

    /// UNSUBSCRIBE and the like, from all if no name is given.
    fn unsubscribe(&mut self, id: SessionId, kind: Kind, names: Vec<Name>) {
        let Some(session) = self.sessions.get_mut(id as usize) else { return };
        let (pool, generation, resp3) = (session.pool, session.generation, session.resp3);
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        let special = session.special();
        let mut names = names;
        let all = names.is_empty();
        if all {
            names = special.listens.iter().filter(|(other, _)| *other == kind).cloned().collect();
        }
        let mut reply = Vec::new();
        if names.is_empty() {
            message(&mut reply, resp3, 3);
            write::bulk(&mut reply, kind.words().1);
            reply.extend_from_slice(if resp3 { b"_\r\n" } else { b"$-1\r\n" });
            write::integer(&mut reply, count(special, kind));
        }
        for name in &names {
            if special.listens.remove(name) {
                special.sharded -= usize::from(kind == Kind::Sharded);
                if let Some(topic) = place.channels.topics.get_mut(name) {
                    topic.listeners.retain(|&listener| listener != (id, generation));
                }
            }
            message(&mut reply, resp3, 3);
            write::bulk(&mut reply, kind.words().1);
            topic(special.tenant.as_deref().map(Tenant::prefix), kind, &name.1, &mut reply);
            write::integer(&mut reply, count(special, kind));
        }
        if special.listens.is_empty() {
            session.mode &= !mode::LISTENING;
        }
        self.answer_with(id, None, |out| out.extend_from_slice(&reply));
        self.forget_unheard(pool, names);
    }

    /// A session listens to nothing any more: it ends, or resets itself.
    pub(super) fn stop_listening(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(id as usize) else { return };
        let (pool, generation) = (session.pool, session.generation);
        session.mode &= !mode::LISTENING;
        let Some(special) = &mut session.special else { return };
        let names: Vec<Name> = std::mem::take(&mut special.listens).into_iter().collect();
        special.sharded = 0;
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        for name in &names {
            if let Some(topic) = place.channels.topics.get_mut(name) {
                topic.listeners.retain(|&listener| listener != (id, generation));
            }
        }
        self.forget_unheard(pool, names);
    }

    /// Ends the subscriptions of those names that nobody listens to.
    fn forget_unheard(&mut self, pool: u16, names: Vec<Name>) {
        for name in names {
            let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
            let channels = &mut place.channels;
            let idle = channels.topics.get(&name).is_some_and(|t| t.listeners.is_empty() && t.waiting.is_empty());
            if !idle {
                continue;
            }
            let Some(topic) = channels.topics.remove(&name) else { continue };
            for shard in topic.shards {
                self.ask_ear(pool, shard, &name, name.0.words().1, false);
            }
        }
    }

    /// Gives a message to everyone who listens.
    fn deliver(&mut self, pool: u16, name: &Name, frame: &[u8]) {
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        let most = place.config.bounds.output;
        for asked in place.channels.asked.values_mut().filter(|asked| asked.names.contains(name)) {
            let listens = self.sessions.get(asked.ticket.session as usize).and_then(|s| s.special.as_ref());
            // One beyond the bound, which ends the session as any other would.
            if asked.kept <= most && listens.is_some_and(|special| !special.listens.contains(name)) {
                asked.kept += frame.len();
                asked.early.push(frame.to_vec());
            }
        }
        // Nobody comes or goes while it is dealt out.
        let Some(listeners) = place.channels.topics.get_mut(name).map(|topic| std::mem::take(&mut topic.listeners))
        else {
            return;
        };
        for &listener in &listeners {
            self.tell_listener(pool, listener, frame);
        }
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        if let Some(topic) = place.channels.topics.get_mut(name) {
            topic.listeners = listeners;
        }
    }

    fn tell_listener(&mut self, pool: u16, (id, generation): (SessionId, u32), frame: &[u8]) {
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        let Some(session) = self.sessions.get_mut(id as usize) else { return };
        if session.generation != generation || session.killed {
            return;
        }
        let mut own = Vec::new();
        let frame = match session.prefix() {
            None => frame,
            Some(prefix) => {
                tenant::message(prefix, frame, &mut own);
                own.as_slice()
            }
        };
        if frame.is_empty() {
            return;
        }
        let at = session.output.len();
        session.append(frame, &mut self.spare);
        if let (true, Some(first)) = (session.resp3, session.output.get_mut(at)) {
            *first = b'>';
        }
        place.counts.client_output_bytes += frame.len() as u64;
        if session.waiting() > place.config.bounds.output.saturating_add(frame.len()) {
            kill(session, &mut place.counts);
        }
        mark(&mut self.dirty_sessions, session, id);
    }

    /// Finds the ears whose shard has been silent: asks it, and names those that did not answer in time.
    pub(super) fn listen_closely(&mut self, overdue: &mut Vec<(LineId, Failure)>) {
        for place in &mut self.pools {
            let Some(timeout) = place.config.timeout else { continue };
            for ear in place.channels.ears.iter_mut().flatten() {
                let Some(line) = self.lines.get_mut(ear.line as usize) else { continue };
                let silent = self.now.saturating_sub(ear.heard);
                if line.state != State::Up {
                    continue;
                }
                if !ear.pinged && silent > timeout {
                    (ear.pinged, ear.heard) = (true, self.now);
                    write::request(&mut line.outbox, &[b"PING"]);
                    line.mark(ear.line, &mut self.dirty_lines);
                } else if ear.pinged && silent > timeout {
                    let failure = Failure { cause: Cause::Timeout, reason: "no answer within the pool's timeout" };
                    overdue.push((ear.line, failure));
                }
            }
        }
    }
}
