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
use crate::command::{self, Keys, Spec, Tag};
use crate::metrics::{CommandCounts, PoolCounts, PrefixCounts};
use crate::resp::Request;
use crate::resp::reply::Elements;
use crate::stages::Micros;
use std::collections::VecDeque;

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
struct Note {
    /// The slot that it fills.
    slot: u32,
    /// The first key's prefix; [`NONE`] for none.
    first: u8,
    tells: Tells,
    /// Where the reply tells of several keys, their prefixes; empty if all have the first one's.
    each: Box<[u8]>,
    /// It is answered: what is left is its place before others that are not.
    over: bool,
}

/// No prefix. There are fewer than that.
const NONE: u8 = u8::MAX;
/// Most rings that are kept for sessions to come, and the most notes in one of them.
const MOST_SPARE: usize = 64;
const LARGEST_SPARE: usize = 1024;

/// The notes of a session's open requests, in the order of their slots.
#[derive(Default)]
struct Notes(VecDeque<Note>);

impl Notes {
    /// Forgets what was noted of a slot, and of those behind it: it is asked for anew.
    #[inline]
    fn forget_from(&mut self, slot: u32) {
        // Slots are told apart by their distance, which is short: they wrap.
        while self.0.back().is_some_and(|note| note.slot.wrapping_sub(slot).cast_signed() >= 0) {
            self.0.pop_back();
        }
    }

    /// What was noted of a slot, which is answered.
    #[inline]
    fn take(&mut self, slot: u32) -> Option<Note> {
        let front = self.0.front()?.slot;
        if front != slot {
            return self.take_early(slot, front);
        }
        let note = self.0.pop_front();
        while self.0.front().is_some_and(|note| note.over) {
            self.0.pop_front();
        }
        note
    }

    /// The same of one that is answered before the first.
    #[cold]
    fn take_early(&mut self, slot: u32, front: u32) -> Option<Note> {
        let distance = slot.wrapping_sub(front);
        let at = self.0.partition_point(|note| note.slot.wrapping_sub(front) < distance);
        let note = self.0.get_mut(at).filter(|note| note.slot == slot && !note.over)?;
        let over = Note { slot, first: NONE, tells: Tells::Nothing, each: Box::default(), over: true };
        Some(std::mem::replace(note, over))
    }
}

/// What is counted by prefixes of a pool's keys.
#[derive(Default)]
pub(super) struct Prefixes {
    /// The longest first.
    held: Vec<(Box<[u8]>, String, PrefixCounts)>,
    /// By session; as many of each as it has requests without a reply at the most.
    open: Vec<Notes>,
    /// Empty ones with room, for sessions that have no open request own none.
    spare: Vec<Notes>,
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
        held.truncate(usize::from(NONE));
        Self { held, ..Self::default() }
    }

    #[inline]
    pub(super) fn is_on(&self) -> bool {
        !self.held.is_empty()
    }

    /// Which prefix a key has.
    #[inline]
    fn of(&self, key: &[u8]) -> u8 {
        self.held.iter().position(|(prefix, ..)| key.starts_with(prefix)).map_or(NONE, |at| at as u8)
    }

    #[inline]
    fn counts(&mut self, at: u8) -> Option<&mut PrefixCounts> {
        self.held.get_mut(usize::from(at)).map(|(.., counts)| counts)
    }

    /// A session asks for something, having no other open request if it is the `only` one; the reply will fill this slot.
    #[inline(never)]
    pub(super) fn asked(
        &mut self,
        (session, slot): (SessionId, u32),
        only: bool,
        spec: &'static Spec,
        request: &Request<'_>,
    ) {
        if let Some(notes) = self.open.get_mut(session as usize) {
            if only && !notes.0.is_empty() {
                // What waited for nothing any more.
                notes.0.clear();
            }
            notes.forget_from(slot);
        }
        let tells = Tells::of(spec.name);
        let (first, each) = match (spec.keys, tells) {
            (Keys::One, _) => (request.arg(1).map_or(NONE, |key| self.of(key)), Box::default()),
            (_, Tells::Each) => self.of_each(request),
            _ => (self.of_first(spec, request), Box::default()),
        };
        if first == NONE && each.is_empty() {
            return;
        }
        if let Some(counts) = self.counts(first) {
            counts.requests += 1;
            counts.request_bytes += request.wire().len() as u64;
        }
        self.note(session, Note { slot, first, tells, each, over: false });
    }

    #[inline]
    fn note(&mut self, session: SessionId, note: Note) {
        if self.open.len() <= session as usize {
            self.open.resize_with(session as usize + 1, Notes::default);
        }
        if let Some(notes) = self.open.get_mut(session as usize) {
            if notes.0.capacity() == 0 {
                *notes = self.spare.pop().unwrap_or_default();
            }
            notes.0.push_back(note);
        }
    }

    /// The prefix of the first of a request's keys.
    fn of_first(&self, spec: &'static Spec, request: &Request<'_>) -> u8 {
        let mut first = None;
        // One whose keys cannot be told is refused for that.
        let told = command::keys(spec, request, &mut |at| first = first.or(Some(at)));
        told.ok().and_then(|()| request.arg(first?)).map_or(NONE, |key| self.of(key))
    }

    /// That of the first of MGET's keys, and those of all if they are not the same.
    fn of_each(&self, request: &Request<'_>) -> (u8, Box<[u8]>) {
        let keys = || request.args().skip(1).map(|key| self.of(key));
        let mut each = keys();
        let first = each.next().unwrap_or(NONE);
        let list = if each.all(|prefix| prefix == first) { Box::default() } else { keys().collect() };
        (first, list)
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
        let (session, slot) = at;
        if let Some(notes) = self.open.get_mut(session as usize) {
            // It is its session's only request.
            notes.0.clear();
        }
        self.note(session, Note { slot, first, tells: Tells::of(spec.name), each: Box::default(), over: false });
        Some(Arriving { prefix: first, changes: self.changes })
    }

    /// More of it has come.
    #[cold]
    pub(super) fn more(&mut self, arriving: Arriving, bytes: u64) {
        if arriving.changes == self.changes
            && let Some(counts) = self.counts(arriving.prefix)
        {
            counts.request_bytes += bytes;
        }
    }

    /// A slot got its reply, of so many bytes; of a long one that is passed on the beginning is enough.
    #[inline(never)]
    pub(super) fn answered(&mut self, at: (SessionId, u32), reply: &[u8], bytes: u64) {
        let Some(Note { first, tells, each, .. }) = self.take(at) else { return };
        if let Some(counts) = self.counts(first) {
            counts.reply_bytes += bytes;
            if each.is_empty() {
                return tells.see(reply, |there| count(there, &mut counts.hits, &mut counts.misses));
            }
        }
        let mut each = each.into_iter();
        tells.see(reply, |there| {
            if let Some(counts) = each.next().and_then(|of| self.counts(of)) {
                count(there, &mut counts.hits, &mut counts.misses);
            }
        });
    }

    #[inline]
    fn take(&mut self, (session, slot): (SessionId, u32)) -> Option<Note> {
        let notes = self.open.get_mut(session as usize)?;
        let note = notes.take(slot)?;
        if notes.0.is_empty() {
            let notes = std::mem::take(notes);
            if notes.0.capacity() <= LARGEST_SPARE && self.spare.len() < MOST_SPARE {
                self.spare.push(notes);
            }
        }
        Some(note)
    }

    /// Slots of a session will not be filled.
    pub(super) fn forget(&mut self, session: SessionId, slots: impl Iterator<Item = u32>) {
        for slot in slots {
            self.take((session, slot));
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
            prefixes.asked((7, slot), false, spec, &request);
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
        assert!(prefixes.open.iter().all(|notes| notes.0.capacity() == 0));
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
        assert_eq!(prefixes.open[7].0.len(), 1);
        // Others are wanted before it is over.
        prefixes = Prefixes { changes: prefixes.changes + 1, ..Prefixes::new(&[b"c:".to_vec()]) };
        prefixes.more(arriving, 5);
        prefixes.answered((7, 1), b"+OK\r\n", 5);
        assert_eq!((told(&prefixes), prefixes.held[0].2.reply_bytes), ((0, 0), 0));
    }

    /// Whatever the order of replies, and wherever slots begin to count: each finds what was noted of its own request.
    #[test]
    fn a_reply_finds_its_own_note() {
        for begin in [0u32, 1000, u32::MAX - 3] {
            for order in [[0u32, 1, 2, 3, 4, 5, 6, 7], [7, 6, 5, 4, 3, 2, 1, 0], [3, 0, 7, 1, 2, 6, 5, 4]] {
                let mut prefixes = Prefixes::new(&[b"a".to_vec(), b"b".to_vec()]);
                let slot = |number: u32| begin.wrapping_add(number);
                let ask = |prefixes: &mut Prefixes, session: u32, number: u32, key: &str| {
                    let wire = format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len());
                    let request = Request::parse(wire.as_bytes()).expect("a request");
                    let spec = command::identify(&request).expect("a command");
                    prefixes.asked((session, slot(number)), number == 0, spec, &request);
                };
                let counts = |prefixes: &Prefixes| {
                    let counts = prefixes.held.iter().map(|(.., counts)| (counts.hits, counts.misses));
                    counts.collect::<Vec<_>>()
                };
                for number in 0..8 {
                    ask(&mut prefixes, 1, number, if number % 2 == 0 { "a" } else { "b" });
                    // Another session's, which never gets a reply, and one that is asked for again.
                    ask(&mut prefixes, 2, number, "a");
                    ask(&mut prefixes, 1, number, if number % 4 == 3 { "c" } else { "ab" });
                    ask(&mut prefixes, 1, number, ["a", "b", "c", "b"][number as usize % 4]);
                }
                for number in order {
                    prefixes.answered((1, slot(number)), if number < 4 { b"$-1\r\n" } else { b"$1\r\nx\r\n" }, 7);
                    prefixes.answered((1, slot(number)), b"$-1\r\n", 7);
                }
                assert_eq!(counts(&prefixes), [(1, 1), (2, 2)], "{begin} {order:?}");
                assert!(prefixes.open[1].0.is_empty() && prefixes.open[2].0.len() == 8);
                assert_eq!(prefixes.spare.len(), 1, "what is empty is kept for others");
                // A session of the same number begins anew.
                ask(&mut prefixes, 2, 0, "b");
                assert_eq!(prefixes.open[2].0.len(), 1);
                prefixes.forget(2, (0..8).map(slot));
                assert!(prefixes.open[2].0.is_empty());
            }
        }
    }

    #[test]
    fn keys_of_several_prefixes_are_each_told() {
        let mut prefixes = Prefixes::new(&[b"a".to_vec(), b"b".to_vec()]);
        let wire = b"*5\r\n$4\r\nMGET\r\n$1\r\nx\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\na\r\n";
        let request = Request::parse(wire).expect("a request");
        prefixes.asked((0, 0), true, command::identify(&request).expect("a command"), &request);
        prefixes.answered((0, 0), b"*4\r\n$1\r\nv\r\n$-1\r\n$1\r\nv\r\n$1\r\nv\r\n", 9);
        let counts = prefixes.held.iter().map(|(.., counts)| (counts.requests, counts.hits, counts.misses));
        assert_eq!(counts.collect::<Vec<_>>(), [(0, 1, 1), (0, 1, 0)]);
    }
}
