//! What is counted of requests for those who look at the metrics: by command, by prefix, hits and misses, and where the time goes.
//!
//! Promises: a request costs a few additions and two look-ups in a table of less than a KiB, and no clock of its own: when bytes left
//! is noted once for each send (`Line::stamp`). Bounded: [`MOST`] commands a pool, what comes after them is one more that is
//! called `other`; a note for each open request, where there are prefixes.
//!
//! A key is hit or missed where an app is told so by GET, GETEX, GETDEL, MGET or (its field) HGET, wherever the answer came
//! from. What is queued in a transaction is neither, and so is an error.
//!
//! Off is free: without prefixes a request and its reply are asked one question each.

#![expect(clippy::arithmetic_side_effects, reason = "counters of 64 bits, and places in a table of a fixed size")]

use super::{Engine, SessionId};
use crate::command::{self, Spec, Tag};
use crate::metrics::{CommandCounts, PoolCounts, PrefixCounts};
use crate::resp::Request;
use crate::resp::reply::Elements;
use crate::stages::Micros;
use foldhash::fast::FixedState;
use std::collections::HashMap;

/// Most commands of a pool that are counted by their names.
const MOST: usize = 64;
/// What the others are called together.
const OTHER: &str = "other";
/// Places of the table, half of which stay free at least; a power of two.
const PLACES: usize = 128;

/// What the reply to a command tells of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tells {
    /// Nothing that is counted.
    Nothing,
    /// Whether one key, or its field, is there.
    One,
    /// The same of several keys, in an array.
    Each,
}

impl Tells {
    fn of(name: &str) -> Self {
        match name {
            "get" | "getex" | "getdel" | "hget" => Self::One,
            "mget" => Self::Each,
            _ => Self::Nothing,
        }
    }

    /// For each key that the reply tells of whether it is there.
    fn see(self, reply: &[u8], mut key: impl FnMut(bool)) {
        match self {
            Self::Nothing => {}
            Self::One => is_there(reply).into_iter().for_each(key),
            Self::Each => {
                if let Some(elements) = Elements::of(reply).filter(|_| reply.first() == Some(&b'*')) {
                    elements.filter_map(is_there).for_each(&mut key);
                }
            }
        }
    }
}

/// Whether a bulk string is there; nothing of what is none.
#[inline]
fn is_there(reply: &[u8]) -> Option<bool> {
    match reply.first()? {
        b'$' => Some(reply.get(1) != Some(&b'-')),
        b'_' => Some(false),
        _ => None,
    }
}

struct Command {
    name: &'static str,
    tells: Tells,
    counts: CommandCounts,
}

/// What is counted of a pool's commands, as they are seen.
pub(super) struct Commands {
    /// By the hash in its tag a command's tag, and one more than its place among `seen`; 0 for none.
    table: Box<[(Option<Tag>, u8); PLACES]>,
    seen: Vec<Command>,
}

impl Default for Commands {
    fn default() -> Self {
        let other = Command { name: OTHER, tells: Tells::Nothing, counts: CommandCounts::default() };
        Self { table: Box::new([(None, 0); PLACES]), seen: vec![other] }
    }
}

impl Commands {
    #[inline]
    fn of(&mut self, tag: Tag) -> Option<&mut Command> {
        let mut at = tag.place() % PLACES;
        loop {
            match self.table.get(at)? {
                (Some(known), place) if *known == tag => return self.seen.get_mut(usize::from(*place)),
                (Some(_), _) => at = (at + 1) % PLACES,
                (None, _) => return self.meet(tag, at),
            }
        }
    }

    /// A command that is seen for the first time, or one of those beyond the most.
    #[cold]
    #[inline(never)]
    fn meet(&mut self, tag: Tag, at: usize) -> Option<&mut Command> {
        let place = self.seen.len();
        if let Some(name) = tag.name().filter(|_| place <= MOST)
            && let (Some(free), Ok(number)) = (self.table.get_mut(at), u8::try_from(place))
        {
            *free = (Some(tag), number);
            self.seen.push(Command { name, tells: Tells::of(name), counts: CommandCounts::default() });
            return self.seen.last_mut();
        }
        self.seen.first_mut()
    }

    /// A request was read.
    #[inline]
    pub(super) fn asked(&mut self, tag: Tag) {
        if let Some(command) = self.of(tag) {
            command.counts.requests += 1;
        }
    }

    /// One was answered with an error.
    #[cold]
    pub(super) fn failed(&mut self, tag: Tag) {
        if let Some(command) = self.of(tag) {
            command.counts.errors += 1;
        }
    }

    /// One was answered after so long.
    #[inline]
    pub(super) fn answered(&mut self, tag: Tag, took: u32, reply: &[u8], pool: &mut PoolCounts) {
        let Some(command) = self.of(tag) else { return };
        command.counts.duration.record(took);
        if reply.first() == Some(&b'-') {
            command.counts.errors += 1;
        } else if command.tells != Tells::Nothing {
            command.tells.see(reply, |there| count(there, &mut pool.hits, &mut pool.misses));
        }
    }
}

#[inline]
fn count(there: bool, hits: &mut u64, misses: &mut u64) {
    *hits += u64::from(there);
    *misses += u64::from(!there);
}

/// What is to be done with the reply to a request whose keys have prefixes.
struct Open {
    /// The first key's prefix.
    first: Option<u8>,
    tells: Tells,
    /// Those of all keys, where the reply tells of several.
    each: Vec<Option<u8>>,
}

/// What is counted by prefixes of a pool's keys.
#[derive(Default)]
pub(super) struct Prefixes {
    /// The longest first.
    held: Vec<(Box<[u8]>, String, PrefixCounts)>,
    /// By session and slot; as many as requests without a reply at the most.
    open: HashMap<(SessionId, u32), Open, FixedState>,
    /// How often others were wanted.
    changes: u32,
}

/// By what the rest of a request is counted that is passed on while it arrives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arriving {
    prefix: u8,
    changes: u32,
}

impl Prefixes {
    pub(super) fn new(wanted: &[Vec<u8>]) -> Self {
        let name = |prefix: &Vec<u8>| String::from_utf8_lossy(prefix).into_owned();
        let mut held: Vec<_> =
            wanted.iter().map(|prefix| (prefix.as_slice().into(), name(prefix), PrefixCounts::default())).collect();
        held.sort_by_key(|(prefix, ..): &(Box<[u8]>, String, PrefixCounts)| std::cmp::Reverse(prefix.len()));
        Self { held, ..Self::default() }
    }

    #[inline]
    pub(super) fn is_on(&self) -> bool {
        !self.held.is_empty()
    }

    /// Which prefix a key has.
    fn of(&self, key: &[u8]) -> Option<u8> {
        self.held.iter().position(|(prefix, ..)| key.starts_with(prefix)).map(|at| at as u8)
    }

    fn counts(&mut self, at: Option<u8>) -> Option<&mut PrefixCounts> {
        self.held.get_mut(usize::from(at?)).map(|(.., counts)| counts)
    }

    /// A session asks for something; the reply will fill this slot.
    #[cold]
    pub(super) fn asked(
        &mut self,
        at: (SessionId, u32),
        spec: &'static Spec,
        request: &Request<'_>,
        keys: &mut Vec<u32>,
    ) {
        keys.clear();
        // One whose keys cannot be told is refused for that.
        if command::keys(spec, request, &mut |index| keys.push(index as u32)).is_err() || keys.is_empty() {
            return;
        }
        keys.sort_unstable();
        let tells = Tells::of(spec.name);
        let mut named = super::plan::keys_of(request, keys).map(|key| self.of(key));
        let (first, each) = match tells {
            Tells::Each => {
                let each: Vec<_> = named.collect();
                (each.first().copied().flatten(), each)
            }
            _ => (named.next().flatten(), Vec::new()),
        };
        if first.is_none() && each.iter().all(Option::is_none) {
            return;
        }
        if let Some(counts) = self.counts(first) {
            counts.requests += 1;
            counts.request_bytes += request.wire().len() as u64;
        }
        self.open.insert(at, Open { first, tells, each });
    }

    /// A session asks for something with one key, of which so many bytes have come: tells by what the others are counted. The reply will
    /// fill this slot.
    #[cold]
    pub(super) fn arrives(
        &mut self,
        at: (SessionId, u32),
        spec: &'static Spec,
        key: &[u8],
        bytes: u64,
    ) -> Option<Arriving> {
        let first = self.of(key);
        let counts = self.counts(first)?;
        counts.requests += 1;
        counts.request_bytes += bytes;
        self.open.insert(at, Open { first, tells: Tells::of(spec.name), each: Vec::new() });
        first.map(|prefix| Arriving { prefix, changes: self.changes })
    }

    /// More of it has come.
    #[cold]
    pub(super) fn more(&mut self, arriving: Arriving, bytes: u64) {
        if arriving.changes == self.changes
            && let Some(counts) = self.counts(Some(arriving.prefix))
        {
            counts.request_bytes += bytes;
        }
    }

    /// A slot got its reply, of so many bytes; of a long one that is passed on the beginning is enough.
    #[cold]
    pub(super) fn answered(&mut self, at: (SessionId, u32), reply: &[u8], bytes: u64) {
        let Some(Open { first, tells, each }) = self.open.remove(&at) else { return };
        if let Some(counts) = self.counts(first) {
            counts.reply_bytes += bytes;
        }
        let mut each = each.into_iter();
        tells.see(reply, |there| {
            let of = if tells == Tells::Each { each.next().flatten() } else { first };
            if let Some(counts) = self.counts(of) {
                count(there, &mut counts.hits, &mut counts.misses);
            }
        });
    }

    /// Slots of a session that has ended will not be filled.
    pub(super) fn forget(&mut self, session: SessionId, slots: impl Iterator<Item = u32>) {
        for slot in slots {
            self.open.remove(&(session, slot));
        }
    }
}

impl Engine {
    /// Answers a request, or an element of one, from memory: nobody's clock is asked for that.
    pub(super) fn tell_there(&mut self, number: u16, there: bool) {
        if let Some(pool) = self.pools.get_mut(usize::from(number)) {
            count(there, &mut pool.counts.hits, &mut pool.counts.misses);
        }
    }

    /// The pool's configuration is another one. Prefixes go on where they are if they are the same ones.
    pub(super) fn renew_prefixes(&mut self, number: u16, before: &[Vec<u8>]) {
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        if pool.config.prefixes != before {
            let changes = pool.prefixes.changes.wrapping_add(1);
            pool.prefixes = Prefixes { changes, ..Prefixes::new(&pool.config.prefixes) };
        }
    }

    /// When the first bytes came that nothing has been sent for yet, if any did since this was last asked.
    pub fn take_pass(&mut self) -> Option<Micros> {
        self.pass_from.take()
    }

    /// Shows what is counted of each command that a pool has seen, with its name, to be folded; nothing where it is not wanted.
    pub fn command_counts(&mut self, pool: u16, mut see: impl FnMut(&'static str, &mut CommandCounts)) {
        let Some(pool) = self.pools.get_mut(usize::from(pool)).filter(|pool| pool.config.by_command) else { return };
        let some = |command: &&mut Command| command.name != OTHER || command.counts.requests > 0;
        for command in pool.commands.seen.iter_mut().filter(some) {
            see(command.name, &mut command.counts);
        }
    }

    /// The same of each prefix.
    pub fn prefix_counts(&mut self, pool: u16, mut see: impl FnMut(&str, &mut PrefixCounts)) {
        let held = self.pools.get_mut(usize::from(pool)).map(|pool| &mut pool.prefixes.held);
        for (_, name, counts) in held.into_iter().flatten() {
            see(name, counts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(name: &str) -> Tag {
        command::lookup(name.as_bytes()).expect("a command").tag
    }

    #[test]
    fn commands_beyond_the_most_are_one() {
        let mut commands = Commands::default();
        let all: Vec<Tag> = command::all().map(|spec| spec.tag).collect();
        assert!(all.len() > MOST + 50);
        for _ in 0..2 {
            all.iter().for_each(|tag| commands.asked(*tag));
        }
        assert_eq!(commands.seen.len(), MOST + 1);
        let asked: Vec<u64> = commands.seen.iter().map(|command| command.counts.requests).collect();
        assert_eq!(asked[0], 2 * (all.len() - MOST) as u64);
        assert!(asked[1..].iter().all(|&asked| asked == 2), "{asked:?}");
        assert_eq!(commands.of(tag("get")).map(|c| c.name), commands.of(tag("get")).map(|c| c.name));
    }

    #[test]
    fn hits_and_misses_are_what_replies_say() {
        let (mut commands, mut pool) = (Commands::default(), PoolCounts::default());
        for (name, reply, hits, misses) in [
            ("get", "$1\r\nx\r\n", 1, 0),
            ("get", "$0\r\n\r\n", 1, 0),
            ("get", "$-1\r\n", 0, 1),
            ("hget", "_\r\n", 0, 1),
            ("get", "+QUEUED\r\n", 0, 0),
            ("get", "-WRONGTYPE x\r\n", 0, 0),
            ("mget", "*3\r\n$5\r\n$-1\r\n\r\n$-1\r\n_\r\n", 1, 2),
            ("mget", "-ERR x\r\n", 0, 0),
            ("lrange", "*1\r\n$-1\r\n", 0, 0),
        ] {
            (pool.hits, pool.misses) = (0, 0);
            commands.answered(tag(name), 1, reply.as_bytes(), &mut pool);
            assert_eq!((pool.hits, pool.misses), (hits, misses), "{name} {reply:?}");
        }
        assert_eq!(commands.of(tag("get")).expect("seen").counts.errors, 1);
    }

    #[test]
    fn the_longest_prefix_counts_and_nothing_is_left_behind() {
        let mut prefixes = Prefixes::new(&[b"user:".to_vec(), b"user:session:".to_vec(), b"z".to_vec()]);
        let ask = |prefixes: &mut Prefixes, slot: u32, line: &str| {
            let mut wire = format!("*{}\r\n", line.split(' ').count());
            line.split(' ').for_each(|word| wire += &format!("${}\r\n{word}\r\n", word.len()));
            let request = Request::parse(wire.as_bytes()).expect("a request");
            let spec = command::identify(&request).expect("a command");
            prefixes.asked((7, slot), spec, &request, &mut Vec::new());
            wire.len() as u64
        };
        let bytes = ask(&mut prefixes, 0, "GET user:session:1");
        ask(&mut prefixes, 1, "MGET user:1 other user:session:2 z");
        ask(&mut prefixes, 2, "GET other");
        ask(&mut prefixes, 3, "SET z 1");
        ask(&mut prefixes, 4, "GET z");
        prefixes.answered((7, 1), b"*4\r\n$-1\r\n$-1\r\n$1\r\na\r\n$1\r\nb\r\n", 30);
        prefixes.answered((7, 0), b"$-1\r\n", 5);
        prefixes.answered((7, 2), b"$-1\r\n", 5);
        prefixes.answered((7, 3), b"+OK\r\n", 5);
        prefixes.forget(7, 4..5);
        assert!(prefixes.open.is_empty());
        let told: Vec<_> = prefixes
            .held
            .iter()
            .map(|(_, name, c)| (name.as_str(), c.requests, c.hits, c.misses, c.reply_bytes))
            .collect();
        assert_eq!(told, [("user:session:", 1, 1, 1, 5), ("user:", 1, 0, 1, 30), ("z", 2, 1, 0, 5)]);
        assert_eq!(prefixes.held[0].2.request_bytes, bytes);
    }

    #[test]
    fn what_arrives_bit_by_bit_is_counted_by_the_prefixes_it_began_with() {
        let mut prefixes = Prefixes::new(&[b"a:".to_vec()]);
        let spec = command::lookup(b"set").expect("a command");
        assert!(prefixes.arrives((7, 0), spec, b"b:1", 10).is_none());
        let arriving = prefixes.arrives((7, 1), spec, b"a:1", 10).expect("it is counted");
        prefixes.more(arriving, 5);
        let told = |prefixes: &Prefixes| (prefixes.held[0].2.requests, prefixes.held[0].2.request_bytes);
        assert_eq!(told(&prefixes), (1, 15));
        assert_eq!(prefixes.open.len(), 1);
        // Others are wanted before it is over.
        prefixes = Prefixes { changes: prefixes.changes + 1, ..Prefixes::new(&[b"c:".to_vec()]) };
        prefixes.more(arriving, 5);
        prefixes.answered((7, 1), b"+OK\r\n", 5);
        assert_eq!((told(&prefixes), prefixes.held[0].2.reply_bytes), ((0, 0), 0));
    }
}
