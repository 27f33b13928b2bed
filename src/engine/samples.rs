//! Requests that are looked at closely, for traces and for the log of accesses: some by chance, and those that took long.
//!
//! Promises: as long as nothing is sampled a request costs one comparison, and a reply another. Which requests are taken is
//! drawn from a seed, each by itself with the same chance, so that traffic with a rhythm is seen as it is. Bounded: so many
//! are under way at once, so many wait to be fetched; what is beyond that is counted and not kept. Never a value; a key only
//! where that is asked for.
//!
//! Of a request that is taken since it took long there is what is known when its reply is there: neither its key nor its
//! length. As in SLOWLOG, what may wait as long as it likes and what hotring answers by itself is never slow. Requests of
//! 1 MiB and more, which are passed on while they arrive, are not sampled.

#![expect(clippy::arithmetic_side_effects, reason = "counters of 64 bits, and times")]

use super::line::{Ticket, Waiter};
use super::plan::Source as PartSource;
use super::port::Port;
use super::slow::{self, Late};
use super::{Engine, LONGEST_TIMEOUT, LineId, SessionId};
use crate::chance::splitmix;
use crate::command::{self, Fault, Spec};
use crate::error::Cause;
use crate::resp::Request;
use crate::stages::Micros;
use foldhash::fast::FixedState;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// All of a [`Wanted::share`].
pub const ALL: u32 = 1_000_000;
/// Most sampled requests of a worker that are under way.
pub const MOST_OPEN: usize = 4096;
/// Most that wait to be fetched.
pub const MOST_DONE: usize = 4096;
/// Most bytes of a key, a name or the first word of an error that are kept.
const LONGEST: usize = 128;
/// Most keys of a request that are kept.
const MOST_KEYS: usize = 16;
/// Most parts of a request of which more is known than that they were there.
const MOST_PARTS: usize = 64;
/// So many addresses of apps are known without asking the kernel.
const MOST_ADDRESSES: usize = 256;

/// Which requests one purpose wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The chance of each, in millionths.
    pub share: u32,
    /// All that took at least as long.
    pub slow: Option<Duration>,
    /// With their keys.
    pub keys: bool,
}

impl Wanted {
    fn slow_from(&self) -> u32 {
        // As for SLOWLOG: a waiter's clock wraps soon after.
        let bound = |span: Duration| span.as_micros().min(u128::from(LONGEST_TIMEOUT)) as u32;
        self.slow.map_or(u32::MAX, bound)
    }
}

/// Which requests are wanted for what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sampling {
    /// For spans.
    pub trace: Wanted,
    /// For the log of accesses.
    pub log: Wanted,
}

/// Where a reply came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The key's home, or another server where keys have none.
    Shard,
    /// Memory, where a hot key is kept.
    Near,
    /// A copy of a hot key.
    Copy,
    /// A replica.
    Replica,
    /// A node in this process.
    Embedded,
    /// Nobody was asked: the proxy says so itself.
    Proxy,
}

impl Source {
    /// In a word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shard => "shard",
            Self::Near => "near",
            Self::Copy => "copy",
            Self::Replica => "replica",
            Self::Embedded => "embedded",
            Self::Proxy => "proxy",
        }
    }
}

/// What one server, or memory, had to do with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The shard's number in its pool; `None` for what no shard was asked for.
    pub shard: Option<u16>,
    /// Where its reply came from.
    pub source: Source,
    /// When it was sent, in microseconds since the request was read.
    pub sent: u32,
    /// How long its reply took from there; 0 if it never left.
    pub took: u32,
    /// Bytes of its reply.
    pub reply_bytes: u64,
    /// The first word of its reply, if that is an error.
    pub code: Option<Box<str>>,
    /// Why hotring says so in a shard's place.
    pub cause: Option<Cause>,
}

/// A request that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Whether it is for a span.
    pub trace: bool,
    /// Whether it is for the log of accesses.
    pub log: bool,
    /// The number of its pool.
    pub pool: u16,
    /// When it was read.
    pub at: Micros,
    /// How long it took until its reply was there, in microseconds.
    pub took: u32,
    /// The command's name, in small letters; `unknown` for one that hotring does not know, whose name is the app's affair.
    pub command: &'static str,
    /// The database, as apps count them.
    pub db: u16,
    /// Its keys, the first of them, where the log or the spans are to have them.
    pub keys: Vec<Box<[u8]>>,
    /// Told in CLIENT ID; 0 where the app had left.
    pub client: u64,
    /// Where the app is, as CLIENT LIST tells; empty where unknown.
    pub address: Arc<str>,
    /// Where it connected to.
    pub local: Arc<str>,
    /// As the app has named itself.
    pub name: Box<[u8]>,
    /// The app's user.
    pub user: Box<str>,
    /// Bytes of the request; 0 where unknown.
    pub request_bytes: u64,
    /// Bytes of the reply.
    pub reply_bytes: u64,
    /// Where the reply came from; of several parts, the last one's.
    pub source: Source,
    /// Its way, in the order in which replies came; none where the proxy answered.
    pub parts: Vec<Part>,
    /// Whether it shared another's flight.
    pub joined: bool,
    /// The first word of the reply, if that is an error.
    pub code: Option<Box<str>>,
    /// Why, where the error is hotring's own.
    pub cause: Option<Cause>,
    /// The app left before the reply was there.
    pub gone: bool,
}

/// By a session's number, and a slot of it or its generation.
type Table<T> = HashMap<(SessionId, u32), T, FixedState>;
/// Of an app's connection: its own, and the one it came to.
type Addresses = (Arc<str>, Arc<str>);

struct Open {
    generation: u32,
    sample: Sample,
}

/// One worker's samples.
pub(super) struct Samples {
    /// The number of the request that is taken next, as [`Engine::requests`] counts.
    pub(super) next: u64,
    next_trace: u64,
    next_log: u64,
    wanted: Sampling,
    seed: u64,
    draws: u64,
    /// By session and slot.
    open: Table<Open>,
    done: Vec<Sample>,
    lost: u64,
    /// By session and generation.
    addresses: Table<Addresses>,
    /// Who was answered from memory last.
    near: Option<Ticket>,
    /// Who was refused last, and why.
    refused: Option<(Ticket, Cause)>,
}

impl Default for Samples {
    fn default() -> Self {
        Self {
            next: u64::MAX,
            next_trace: u64::MAX,
            next_log: u64::MAX,
            wanted: Sampling::default(),
            seed: 0,
            draws: 0,
            open: HashMap::default(),
            done: Vec::new(),
            lost: 0,
            addresses: HashMap::default(),
            near: None,
            refused: None,
        }
    }
}

impl Samples {
    /// Whether a sampled request waits for its reply.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// From how many microseconds on a request of a pool is slow, for whatever purpose.
    pub(super) fn slow_from(&self, slowlog: &slow::Config) -> u32 {
        slowlog.bound().min(self.wanted.trace.slow_from()).min(self.wanted.log.slow_from())
    }

    /// How many requests further on the next one is that is taken with this chance: geometrically distributed, as if each were
    /// drawn by itself.
    fn gap(&mut self, share: u32) -> u64 {
        match share {
            0 => u64::MAX,
            ALL.. => 1,
            _ => {
                self.draws += 1;
                // In (0, 1], of the 53 bits that a float has.
                let drawn = ((splitmix(self.seed ^ splitmix(self.draws)) >> 11) + 1) as f64 / (1u64 << 53) as f64;
                let chance = f64::from(share) / f64::from(ALL);
                1 + (drawn.ln() / (-chance).ln_1p()) as u64
            }
        }
    }

    /// What the request with this number is for, and which one is next.
    fn draw(&mut self, number: u64) -> (bool, bool) {
        let (trace, log) = (number >= self.next_trace, number >= self.next_log);
        if trace {
            self.next_trace = number.saturating_add(self.gap(self.wanted.trace.share));
        }
        if log {
            self.next_log = number.saturating_add(self.gap(self.wanted.log.share));
        }
        self.next = self.next_trace.min(self.next_log);
        (trace, log)
    }

    fn keep(&mut self, sample: Sample) {
        if self.done.len() < MOST_DONE {
            self.done.push(sample);
        } else {
            self.lost += 1;
        }
    }

    /// The addresses of a session, asked for once.
    fn addresses(&mut self, (id, generation): (SessionId, u32), port: &impl Port) -> Addresses {
        if self.addresses.len() >= MOST_ADDRESSES && !self.addresses.contains_key(&(id, generation)) {
            self.addresses.clear();
        }
        let known = self.addresses.entry((id, generation)).or_insert_with(|| {
            let (peer, local) = port.addresses(id);
            (peer.into(), local.into())
        });
        known.clone()
    }
}

/// The first word of an error, such as `WRONGTYPE`, if a reply is one.
pub(super) fn code(reply: &[u8]) -> Option<Box<str>> {
    let text = reply.strip_prefix(b"-")?;
    let word = text.split(|byte| !byte.is_ascii_uppercase() && *byte != b'_').next().unwrap_or_default();
    Some(String::from_utf8_lossy(beginning(word)).into())
}

fn beginning(bytes: &[u8]) -> &[u8] {
    bytes.get(..LONGEST).unwrap_or(bytes)
}

impl Engine {
    /// Says which requests are sampled from now on, with the number that the draws begin with. Those that are under way, and
    /// those that wait to be fetched, stay.
    pub fn set_sampling(&mut self, wanted: Sampling, seed: u64) {
        let samples = &mut self.samples;
        (samples.wanted, samples.seed) = (wanted, seed);
        samples.next_trace = self.requests.saturating_add(samples.gap(wanted.trace.share));
        samples.next_log = self.requests.saturating_add(samples.gap(wanted.log.share));
        samples.next = samples.next_trace.min(samples.next_log);
        for pool in &mut self.pools {
            pool.slow_from = samples.slow_from(&pool.config.slowlog);
        }
    }

    /// Takes the samples whose replies were there, the oldest first, and how many were not kept since this was last asked.
    pub fn take_samples(&mut self) -> (Vec<Sample>, u64) {
        (std::mem::take(&mut self.samples.done), std::mem::take(&mut self.samples.lost))
    }

    /// Carries out a request that is sampled.
    #[cold]
    #[inline(never)]
    pub(super) fn request_sampled(
        &mut self,
        id: SessionId,
        named: Result<&'static Spec, Fault>,
        long_way: bool,
        request: &Request<'_>,
        port: &mut impl Port,
    ) {
        let (trace, log) = self.samples.draw(self.requests);
        let key = self.begin_sample(id, (trace, log), named.as_ref().ok().copied(), request, port);
        self.proceed(id, named, long_way, request, port);
        // One that has no reply of its own must not be taken for the next one.
        let session = self.sessions.get(id as usize);
        if let Some((generation, slot)) = key
            && session.is_none_or(|session| session.generation == generation && session.next_slot() == slot)
        {
            self.samples.open.remove(&(id, slot));
        }
    }

    fn begin_sample(
        &mut self,
        id: SessionId,
        (trace, log): (bool, bool),
        spec: Option<&'static Spec>,
        request: &Request<'_>,
        port: &impl Port,
    ) -> Option<(u32, u32)> {
        if self.samples.open.len() >= MOST_OPEN {
            self.samples.lost += 1;
            return None;
        }
        let wanted = self.samples.wanted;
        let mut keys = Vec::new();
        if (trace && wanted.trace.keys) || (log && wanted.log.keys) {
            let mut places = Vec::new();
            let named = spec.map(|spec| command::keys(spec, request, &mut |index| places.push(index)));
            if matches!(named, Some(Ok(_))) {
                let key = |index: &usize| request.arg(*index).map(|key| beginning(key).into());
                keys = places.iter().take(MOST_KEYS).filter_map(key).collect();
            }
        }
        let user = self.user_name(id).into();
        let session = self.sessions.get(id as usize)?;
        let (generation, slot) = (session.generation, session.next_slot());
        let (address, local) = self.samples.addresses((id, generation), port);
        let sample = Sample {
            trace,
            log,
            pool: session.pool,
            at: self.now,
            took: 0,
            command: spec.map_or("unknown", |spec| spec.name),
            db: session.db(),
            keys,
            client: session.id,
            address,
            local,
            name: beginning(session.name()).into(),
            user,
            request_bytes: request.wire().len() as u64,
            reply_bytes: 0,
            source: Source::Proxy,
            parts: Vec::new(),
            joined: false,
            code: None,
            cause: None,
            gone: false,
        };
        self.samples.open.insert((id, slot), Open { generation, sample });
        Some((generation, slot))
    }

    /// A flight was answered, or failed (`cause`) after it had left or not.
    #[cold]
    #[inline(never)]
    pub(super) fn sample_heard(
        &mut self,
        line: LineId,
        waiter: &Waiter,
        (reply, bytes): (&[u8], u64),
        cause: Option<Cause>,
        port: &impl Port,
    ) {
        // Their tickets are not those of apps.
        if matches!(waiter.part, Waiter::ERRAND | Waiter::NOBODYS | Waiter::MUST_DO | Waiter::MIRROR) {
            return;
        }
        let Some(place) = self.lines.get(line as usize) else { return };
        let shard = place.shard;
        let replica =
            self.pools.get(usize::from(place.pool)).is_some_and(|pool| pool.config.path.route.is_replica(shard));
        let source = match waiter.part {
            Waiter::COPY => Source::Copy,
            _ if replica => Source::Replica,
            _ if port.is_in_process(line) => Source::Embedded,
            _ => Source::Shard,
        };
        let part =
            Part { shard: Some(shard), source, sent: 0, took: self.away, reply_bytes: bytes, code: code(reply), cause };
        self.add_part(waiter.ticket, part.clone(), false);
        let mut next = if waiter.part == Waiter::WHOLE { waiter.link } else { Waiter::NOBODY };
        while next != Waiter::NOBODY {
            let Some(&(ticket, _, link)) = self.joined.get(next as usize) else { break };
            self.add_part(ticket, part.clone(), true);
            next = link;
        }
    }

    /// A part of a split request was answered here.
    #[cold]
    #[inline(never)]
    pub(super) fn sample_part_here(&mut self, ticket: Ticket, source: PartSource, reply: &[u8]) {
        let source = if source == PartSource::Memory { Source::Near } else { Source::Proxy };
        let reply_bytes = reply.len() as u64;
        let part = Part { shard: None, source, sent: 0, took: 0, reply_bytes, code: code(reply), cause: None };
        self.add_part(ticket, part, false);
    }

    fn add_part(&mut self, ticket: Ticket, mut part: Part, joined: bool) {
        let Some(open) = self.samples.open.get_mut(&(ticket.session, ticket.slot)) else { return };
        if open.generation != ticket.generation || open.sample.parts.len() >= MOST_PARTS {
            return;
        }
        let since = self.now.saturating_sub(open.sample.at) as u32;
        // What was sent for another, who asked earlier, was not waited for before.
        part.took = part.took.min(since);
        part.sent = since - part.took;
        open.sample.joined |= joined;
        open.sample.parts.push(part);
    }

    /// A reply is from memory.
    #[inline]
    pub(super) fn sample_near(&mut self, ticket: Ticket) {
        if self.samples.is_open() {
            self.samples.near = Some(ticket);
        }
    }

    /// A reply is a refusal.
    pub(super) fn sample_refused(&mut self, ticket: Ticket, cause: Option<Cause>) {
        if self.samples.is_open() {
            self.samples.refused = cause.map(|cause| (ticket, cause));
        }
    }

    /// A slot got its reply, of which the beginning is enough.
    #[cold]
    #[inline(never)]
    pub(super) fn sample_answered(&mut self, ticket: Ticket, reply: &[u8], bytes: u64) {
        let at = (ticket.session, ticket.slot);
        if self.samples.open.get(&at).is_none_or(|open| open.generation != ticket.generation) {
            return;
        }
        let Some(Open { mut sample, .. }) = self.samples.open.remove(&at) else { return };
        sample.took = self.now.saturating_sub(sample.at).min(u64::from(u32::MAX)) as u32;
        (sample.reply_bytes, sample.code) = (bytes, code(reply));
        sample.source = match sample.parts.last() {
            Some(part) => part.source,
            None if self.samples.near == Some(ticket) => Source::Near,
            None => Source::Proxy,
        };
        if sample.code.is_some() {
            let refused = self.samples.refused.filter(|(refused, _)| *refused == ticket).map(|(_, cause)| cause);
            sample.cause = refused.or_else(|| sample.parts.iter().rev().find_map(|part| part.cause));
        }
        self.samples.keep(sample);
    }

    /// A session ends whose requests will not be answered.
    #[cold]
    pub(super) fn sample_gone(&mut self, id: SessionId) {
        let theirs: Vec<_> = self.samples.open.keys().filter(|(session, _)| *session == id).copied().collect();
        for at in theirs {
            let Some(Open { mut sample, .. }) = self.samples.open.remove(&at) else { continue };
            sample.took = self.now.saturating_sub(sample.at).min(u64::from(u32::MAX)) as u32;
            sample.gone = true;
            self.samples.keep(sample);
        }
    }

    /// A request is carried in a branch of its session: it is looked at there from now on.
    #[cold]
    pub(super) fn sample_led(&mut self, ticket: Ticket, branch: SessionId) {
        let Some(session) = self.sessions.get(branch as usize) else { return };
        let Some(mut open) = self.samples.open.remove(&(ticket.session, ticket.slot)) else { return };
        (open.generation, open.sample.pool) = (session.generation, session.pool);
        self.samples.open.insert((branch, session.next_slot()), open);
    }

    /// A request took long: it is taken, if slow ones are wanted.
    pub(super) fn sample_slow(&mut self, number: u16, late: &Late, port: &impl Port) {
        let took = (self.now as u32).wrapping_sub(late.at);
        let wanted = self.samples.wanted;
        let (trace, log) = (took >= wanted.trace.slow_from(), took >= wanted.log.slow_from());
        if !trace && !log {
            return;
        }
        let Ticket { session: id, generation, slot } = late.ticket;
        if let Some(open) = self.samples.open.get_mut(&(id, slot)).filter(|open| open.generation == generation) {
            (open.sample.trace, open.sample.log) = (open.sample.trace | trace, open.sample.log | log);
            return;
        }
        let line = self.lines.get(late.line as usize);
        let (shard, source) = match line {
            Some(line) => {
                let route = self.pools.get(usize::from(line.pool)).map(|pool| &pool.config.path.route);
                let replica = route.is_some_and(|route| route.is_replica(line.shard));
                let source = match replica {
                    true => Source::Replica,
                    false if port.is_in_process(late.line) => Source::Embedded,
                    false => Source::Shard,
                };
                (Some(line.shard), source)
            }
            None => (None, Source::Shard),
        };
        let user = self.user_name(id).into();
        let session = self.sessions.get(id as usize).filter(|session| session.generation == generation);
        let trunk = self.trunk_of(id);
        let session = session.and_then(|_| self.sessions.get(trunk as usize));
        let (address, local) = match session {
            Some(session) => self.samples.addresses((trunk, session.generation), port),
            None => Default::default(),
        };
        let away = self.away.min(took);
        let reply_bytes = late.reply.bytes;
        let code = late.reply.code.clone();
        // Of several parts only the last is known.
        let part = Part { shard, source, sent: took - away, took: away, reply_bytes, code, cause: None };
        let sample = Sample {
            trace,
            log,
            pool: number,
            at: self.now.saturating_sub(u64::from(took)),
            took,
            command: late.tag.name().unwrap_or("unknown"),
            db: session.map_or(0, |session| session.db()),
            keys: Vec::new(),
            client: session.map_or(0, |session| session.id),
            address,
            local,
            name: session.map_or(&[][..], |session| beginning(session.name())).into(),
            user: if session.is_some() { user } else { Box::default() },
            request_bytes: 0,
            reply_bytes,
            source,
            parts: vec![part],
            joined: late.joined,
            code: late.reply.code.clone(),
            cause: None,
            gone: session.is_none(),
        };
        self.samples.keep(sample);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(share: u32, seed: u64) -> Vec<u64> {
        let mut samples = Samples { seed, ..Samples::default() };
        samples.wanted.trace.share = share;
        samples.next_trace = samples.gap(share);
        samples.next = samples.next_trace;
        let mut due = |number: u64| number >= samples.next && samples.draw(number).0;
        (1..=100_000).filter(|&number| due(number)).collect()
    }

    #[test]
    fn as_many_are_drawn_as_are_wanted() {
        assert!(drawn(0, 1).is_empty());
        assert_eq!(drawn(ALL, 1).len(), 100_000);
        for (share, expected) in [(ALL / 2, 50_000), (ALL / 10, 10_000), (ALL / 1000, 100)] {
            let count = drawn(share, 1).len() as i64;
            // Six times the standard deviation; the seed does not change.
            let most = 6.0 * f64::from(expected).sqrt();
            assert!(((count - i64::from(expected)).abs() as f64) < most, "{share}: {count}");
        }
    }

    #[test]
    fn draws_depend_on_the_seed_alone_and_have_no_rhythm() {
        let one = drawn(ALL / 10, 1);
        assert_eq!(one, drawn(ALL / 10, 1));
        assert_ne!(one, drawn(ALL / 10, 2));
        // Traffic in which each tenth request is another is seen as it is.
        let tenths = one.iter().filter(|number| number.is_multiple_of(10)).count();
        assert!((800..1200).contains(&tenths), "{tenths}");
    }

    #[test]
    fn codes_are_first_words() {
        assert_eq!(code(b"-WRONGTYPE Operation\r\n").as_deref(), Some("WRONGTYPE"));
        assert_eq!(code(b"-ERR\r\n").as_deref(), Some("ERR"));
        assert_eq!(code(b"-secret text of a script\r\n").as_deref(), Some(""));
        assert_eq!(code(b"$3\r\n-ER\r\n"), None);
    }
}
