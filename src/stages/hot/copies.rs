//! Copies of a hot key on other shards: where they are, what they are called, what may be read of them, who takes them away.
//!
//! A key that is served at `r` shards has copies on the `r - 1` that follow its own on the ring, so that processes that want
//! more of them share those of processes that want fewer. A copy is never called as its key is: should it be left behind,
//! it must not be taken for the key. It is made when a read does not find it, by whoever is first, and *belongs* to that
//! worker: its shard's tracked connection tells that worker of the next change of the key, and it takes its copies away. A
//! copy that nobody takes away, since its maker is dead or cut off, ends at a time that was fixed before the key was read,
//! in its own shard's time: an answer is never older than `max_staleness`.
//!
//! What a process has written itself it never reads behind: for as long as a copy from before the write can live its reads go to
//! the key's shard ([`super::Fence::is_quiet`]).
//!
//! Deliberately absent: copies of keys that do not exist, and a copy's name in any other place than its key's.

use super::clock::Clock;
use super::{Hot, HotKey, Means, Place, Seen};
use crate::chance::splitmix;
use crate::resp::reply::{bulk, error_text, integer};
use crate::resp::{Request, write};
use crate::ring::tag_of;
use crate::stages::{Leg, Micros};

/// How copies' names begin.
const BEGINS: &[u8] = b"hk1:";
/// How much longer than `max_staleness` a process' own write keeps its reads at the key's shard: what a clock that is set anew,
/// or a server that knows no absolute times, may add to a copy's life.
const MARGIN: Micros = 300_000;
/// A key that has less of its life left is not copied.
const SHORTEST_LIFE: i64 = 50;
/// For how long a key is left alone that cannot be copied.
const BARRED: Micros = 10_000_000;
/// After another process was quicker.
const LOST: Micros = 20_000;

/// Commands that can be answered by a copy: they read one key, argument 1, and it does not matter when it expires, nor how the
/// server keeps it. No scans: a copy may be made anew between two steps.
#[must_use]
pub(super) fn may_read(command: &str) -> bool {
    matches!(
        command,
        "get"
            | "strlen"
            | "getrange"
            | "substr"
            | "digest"
            | "getbit"
            | "bitcount"
            | "bitpos"
            | "bitfield_ro"
            | "type"
            | "hget"
            | "hmget"
            | "hgetall"
            | "hkeys"
            | "hvals"
            | "hlen"
            | "hexists"
            | "hstrlen"
            | "hrandfield"
            | "llen"
            | "lindex"
            | "lrange"
            | "lpos"
            | "scard"
            | "smembers"
            | "sismember"
            | "smismember"
            | "srandmember"
            | "zcard"
            | "zscore"
            | "zmscore"
            | "zrank"
            | "zrevrank"
            | "zcount"
            | "zlexcount"
            | "zrange"
            | "zrevrange"
            | "zrangebyscore"
            | "zrevrangebyscore"
            | "zrangebylex"
            | "zrevrangebylex"
            | "zrandmember"
            | "geodist"
            | "geohash"
            | "geopos"
            | "geosearch"
            | "georadius_ro"
            | "georadiusbymember_ro"
            | "xlen"
            | "xrange"
            | "xrevrange"
    )
}

/// Appends a copy's name as a bulk string.
fn write_name(copy: u16, slot: Option<u16>, key: &[u8], out: &mut Vec<u8>) {
    let mut begins = Vec::with_capacity(24);
    write_beginning(copy, slot, &mut begins);
    out.push(b'$');
    write::number(out, begins.len().saturating_add(key.len()) as u64);
    out.extend_from_slice(b"\r\n");
    for part in [&begins, key, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

fn write_beginning(copy: u16, slot: Option<u16>, out: &mut Vec<u8>) {
    out.extend_from_slice(BEGINS);
    if let Some(slot) = slot {
        for part in [b"{", tag_of(slot).as_bytes(), b"}"] {
            out.extend_from_slice(part);
        }
    }
    write::number(out, u64::from(copy));
    out.push(b':');
}

/// What the copy with this number of a key is called: `hk1:<number>:<key>`, or `hk1:{<tag>}<number>:<key>` where it is to be in a
/// certain slot.
#[must_use]
pub fn name(copy: u16, slot: Option<u16>, key: &[u8]) -> Vec<u8> {
    let mut name = Vec::new();
    write_beginning(copy, slot, &mut name);
    name.extend_from_slice(key);
    name
}

/// Appends the same request, made of a copy in this slot. Returns false, and appends nothing, if it names no key.
#[must_use]
pub fn rewrite(request: &Request<'_>, copy: u16, slot: Option<u16>, out: &mut Vec<u8>) -> bool {
    let mut args = request.args();
    args.next();
    let from = args.at();
    let Some(key) = args.next() else { return false };
    let wire = request.wire();
    out.extend_from_slice(wire.get(..from).unwrap_or_default());
    write_name(copy, slot, key, out);
    out.extend_from_slice(wire.get(args.at()..).unwrap_or_default());
    true
}

/// Whether what a copy's shard replies tells something that only a copy can. If not there may be none: what a read of a key
/// that does not exist is answered with, and any error, is asked again where the key lives.
#[must_use]
pub fn tells(reply: &[u8]) -> bool {
    if matches!(reply.first(), None | Some(b'-' | b'!')) {
        return false;
    }
    // A key that does not exist is answered for with nothings alone, however many.
    let mut lines = reply.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines.any(|line| match line.first() {
        None | Some(b'*' | b'~' | b'%' | b'_') => false,
        Some(b'$') => line != b"$-1" && line != b"$0",
        Some(b':') => !matches!(line, b":0" | b":-1" | b":-2"),
        Some(b'#') => line != b"#f",
        _ => line != b"+none",
    })
}

/// What this worker knows of the copies of a key.
#[derive(Debug, Default)]
pub struct Copies {
    /// The shards where it is served, its own first. A copy's number is its place here.
    places: Vec<u16>,
    /// The slots that copies are in at those, where slots count; by number, too.
    slots: Vec<Option<u16>>,
    /// The shards' connections, by which a leg is led elsewhere.
    lanes: u16,
    /// How often the ring had changed when the places were looked up, and for how many they were.
    drawn: Option<(u32, u16)>,
    /// By number; the first stands for the key itself.
    copies: Vec<Copy>,
    /// It is no string: it is copied as DUMP tells it.
    dumped: bool,
    /// Not read at copies before, since there can be none.
    barred: Micros,
    /// That is since it does not exist, or not for long: its shard tells when that changes.
    fleeting: bool,
}

#[derive(Debug, Default)]
struct Copy {
    /// It was made by this worker and ends at this time at the latest; and in which attempt.
    owned: Option<(Micros, u64)>,
    /// It is being made.
    fill: Option<Copying>,
    /// Another process has made it: until this time it is there, unless it has been taken away.
    others: Micros,
    /// Not to be made before.
    not_before: Micros,
}

#[derive(Clone, Copy, Debug)]
struct Copying {
    number: u64,
    seen: Seen,
    asked: Micros,
    dumped: bool,
    /// What was read has been sent to the copy's shard.
    sent: bool,
}

impl Copies {
    /// The shards where it is served, its own first.
    #[must_use]
    pub fn places(&self) -> &[u16] {
        &self.places
    }

    /// The shards where copies are.
    pub fn others(&self) -> impl Iterator<Item = u16> {
        self.places.iter().skip(1).copied()
    }

    /// The slot of a copy.
    #[must_use]
    pub fn slot(&self, copy: u16) -> Option<u16> {
        self.slots.get(usize::from(copy)).copied().flatten()
    }

    /// The numbers of the copies that this worker has made and not taken away.
    pub fn owned(&self) -> impl Iterator<Item = u16> {
        (0..).zip(&self.copies).filter(|(_, copy)| copy.owned.is_some()).map(|(number, _)| number)
    }
}

/// A copy that is to be taken away: its shard and its name.
pub type Gone = (u16, Vec<u8>);

/// What is to be read of a key, to be copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The key.
    pub key: Box<[u8]>,
    /// Where it lives.
    pub home: u16,
    /// It is copied as DUMP tells it, whatever it is; if not it is a string.
    pub dumped: bool,
    /// Longest value that is copied, in bytes.
    pub longest: usize,
    /// The attempt's number.
    pub number: u64,
}

/// What became of a copy that was sent to its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// It is there.
    Made,
    /// Another process was quicker: it is there and is that one's.
    Lost,
    /// The shard does not take it.
    Refused,
}

impl Hot {
    /// The keys that are served at copies and whose shards have to be looked up, with how many shards each wants. `changes`
    /// is how often the ring has changed.
    pub fn unplaced(&self, changes: u32) -> Vec<(u64, u16)> {
        let wants = |(&hash, key): (&u64, &HotKey)| match key.means {
            Means::Copies(count) => {
                let drawn = key.copies.as_ref().and_then(|copies| copies.drawn);
                (drawn != Some((changes, count))).then_some((hash, count))
            }
            _ => None,
        };
        self.keys.iter().filter_map(wants).collect()
    }

    /// Where a key is served from now on: at these shards of so many connections each, its own first, and in which of their
    /// slots. What this worker made elsewhere is to be taken away.
    pub fn place(&mut self, hash: u64, places: Vec<(u16, Option<u16>)>, lanes: u16, drawn: (u32, u16)) {
        let (places, slots): (Vec<u16>, Vec<Option<u16>>) = places.into_iter().unzip();
        let Some(key) = self.keys.get_mut(&hash) else { return };
        let copies = key.copies.get_or_insert_default();
        copies.drawn = Some(drawn);
        copies.lanes = lanes;
        // Where there are more of them, those that there were stay where they are.
        let stays = |copies: &Copies| places.starts_with(&copies.places) && slots.starts_with(&copies.slots);
        if !stays(copies) {
            self.release(hash);
        }
        let Some(copies) = self.keys.get_mut(&hash).and_then(|key| key.copies.as_mut()) else { return };
        if !stays(copies) {
            copies.copies.clear();
        }
        copies.copies.resize_with(places.len(), Copy::default);
        (copies.places, copies.slots) = (places, slots);
        self.copied.insert(hash);
    }

    /// Leads a leg to a copy of its key, if it may be read there; `lanes` and `places` are as they were placed.
    pub(super) fn lead(&self, key: &HotKey, hash: u64, leg: &mut Leg<'_>, now: Micros) {
        let Some(copies) = key.copies.as_ref().filter(|copies| copies.places.len() > 1) else { return };
        let span = self.config.staleness.saturating_add(MARGIN);
        if !leg.free || now < copies.barred.max(self.not_before) || !may_read(leg.spec.name) {
            return;
        }
        if !self.fence.is_quiet(hash, key.shard, span, now) {
            return;
        }
        let shard = if self.config.sticky {
            let count = copies.places.len() as u64;
            let at = splitmix(u64::from(leg.session)).checked_rem(count).unwrap_or_default();
            copies.places.get(at as usize).copied().unwrap_or(key.shard)
        } else {
            self.choice.pick(&copies.places, splitmix(u64::from(leg.number) ^ self.seed))
        };
        let Some(copy) = copies.places.iter().position(|&place| place == shard).filter(|&copy| copy > 0) else {
            return;
        };
        leg.copy = copy as u16;
        leg.shard = shard;
        let lanes = u32::from(copies.lanes);
        leg.line = leg.base.saturating_add(u32::from(shard).saturating_mul(lanes)).saturating_add(u32::from(leg.lane));
    }

    /// A copy was not found by this command, which is in lower case. Begins to make it, if it is to be made.
    pub fn begin_copy(&mut self, hash: u64, copy: u16, command: &str, now: Micros) -> Option<Wanted> {
        let key = self.keys.get_mut(&hash)?;
        let copies = key.copies.as_mut()?;
        let place = copies.copies.get_mut(usize::from(copy)).filter(|_| copy > 0)?;
        // Only of GET it is sure that there is none; all others may have found nothing in what is there.
        let there = (place.owned.is_some_and(|(until, _)| now < until) || now < place.others) && command != "get";
        if place.fill.is_some() || there || now < place.not_before.max(copies.barred).max(self.not_before) {
            return None;
        }
        let seen = self.fence.see_still(hash, key.shard)?;
        if !matches!(command, "get" | "strlen" | "getrange" | "substr" | "type") {
            copies.dumped = true;
        }
        self.fills = self.fills.wrapping_add(1);
        let number = self.fills;
        place.fill = Some(Copying { number, seen, asked: now, dumped: copies.dumped, sent: false });
        key.fills = key.fills.saturating_add(1);
        let longest = self.config.longest_copy;
        Some(Wanted { key: key.name.clone(), home: key.shard, dumped: copies.dumped, longest, number })
    }

    /// What was read of a key to be copied, and its time to live as PTTL tells it. Returns what makes the copy; nothing where it
    /// is not to be made.
    pub fn copy(&mut self, hash: u64, (copy, number): (u16, u64), read: (&[u8], &[u8]), now: Micros) -> Option<Order> {
        let key = self.keys.get_mut(&hash)?;
        let copies = key.copies.as_mut()?;
        let shard = copies.places.get(usize::from(copy)).copied()?;
        let place = copies.copies.get_mut(usize::from(copy))?;
        let fill = place.fill.take_if(|fill| fill.number == number && !fill.sent)?;
        let (value, ttl) = (bulk(read.0), integer(read.1));
        let Some((_, ttl)) = value
            .zip(ttl)
            .filter(|(value, ttl)| (*ttl == -1 || *ttl >= SHORTEST_LIFE) && value.len() <= self.config.longest_copy)
        else {
            let wrong = error_text(read.0).is_some_and(|text| text.starts_with(b"WRONGTYPE"));
            copies.dumped |= wrong;
            // Of one that expires soon, or does not exist, there may be more to copy soon.
            copies.fleeting = ttl.is_some_and(|ttl| ttl != -1 && ttl < SHORTEST_LIFE);
            let wait = match copies.fleeting {
                _ if wrong => 0,
                true => self.config.staleness,
                false => BARRED,
            };
            copies.barred = fill.asked.saturating_add(wait);
            return None;
        };
        if !self.fence.holds(fill.seen, hash, key.shard) {
            return None;
        }
        let clock = self.clocks.get(usize::from(shard))?;
        let life = u64::try_from(ttl).map_or(u64::MAX, |ttl| ttl.saturating_mul(1000)).min(self.config.staleness);
        let end = clock.end(fill.asked, life, now)?;
        place.owned = Some((fill.asked.saturating_add(life), number));
        place.fill = Some(Copying { sent: true, ..fill });
        let slot = copies.slots.get(usize::from(copy)).copied().flatten();
        Some(Order::new(shard, name(copy, slot, &key.name), fill.dumped, end))
    }

    /// A copy's shard answers.
    pub fn end_copy(&mut self, hash: u64, copy: u16, number: u64, reply: &[u8], now: Micros) -> Option<Filled> {
        let copies = self.keys.get_mut(&hash)?.copies.as_mut()?;
        let shard = copies.places.get(usize::from(copy)).copied()?;
        let place = copies.copies.get_mut(usize::from(copy))?;
        let fill = place.fill.take_if(|fill| fill.number == number)?;
        let filled = match reply {
            b"+OK\r\n" => return Some(Filled::Made),
            b"$-1\r\n" => Filled::Lost,
            _ if reply.starts_with(b"-BUSYKEY") => Filled::Lost,
            _ => Filled::Refused,
        };
        if filled == Filled::Lost {
            place.owned.take_if(|(_, of)| *of == number);
            place.others = fill.asked.saturating_add(self.config.staleness);
            place.not_before = now.saturating_add(LOST);
        } else if error_text(reply).is_some_and(|text| text.to_ascii_lowercase().starts_with(b"err syntax error")) {
            // It knows no absolute times. It is asked again with what it knows.
            if let Some(clock) = self.clocks.get_mut(usize::from(shard)) {
                clock.relative = true;
            }
        } else {
            // It has no room for it, may not be asked so, is of an older version, or its connection is lost: then it may
            // have made it all the same, and it stays this worker's.
            place.not_before = now.saturating_add(self.config.staleness);
        }
        Some(filled)
    }

    /// A copy is not made after all.
    pub fn end_copy_without(&mut self, hash: u64, copy: u16, number: u64) {
        let copies = self.keys.get_mut(&hash).and_then(|key| key.copies.as_mut());
        if let Some(place) = copies.and_then(|copies| copies.copies.get_mut(usize::from(copy))) {
            place.fill.take_if(|fill| fill.number == number && !fill.sent);
        }
    }

    /// A copy was missed that cannot be made now: for a moment reads stay at home, where they would be sent on to.
    pub fn rest(&mut self, hash: u64, now: Micros) {
        if let Some(copies) = self.keys.get_mut(&hash).and_then(|key| key.copies.as_mut()) {
            copies.barred = copies.barred.max(now.saturating_add(LOST));
        }
    }

    /// What a server says of the memory that a key takes, which is to be copied as it is dumped. Returns whether it is to be
    /// read.
    pub fn fits(&mut self, hash: u64, (copy, number): (u16, u64), reply: &[u8]) -> bool {
        let most = self.config.longest_copy.saturating_mul(4) as u64;
        let Some(copies) = self.keys.get_mut(&hash).and_then(|key| key.copies.as_mut()) else { return false };
        let fill = copies.copies.get_mut(usize::from(copy)).map(|place| &mut place.fill);
        let Some(fill) = fill.and_then(|fill| fill.take_if(|fill| fill.number == number && !fill.sent)) else {
            return false;
        };
        // Of a key that does not exist it says nothing, and there is as little to be copied.
        if integer(reply).and_then(|bytes| u64::try_from(bytes).ok()).is_some_and(|bytes| bytes <= most) {
            if let Some(place) = copies.copies.get_mut(usize::from(copy)) {
                place.fill = Some(fill);
            }
            return true;
        }
        let wait = if matches!(reply, b"_\r\n" | b"$-1\r\n") { self.config.staleness } else { BARRED };
        copies.barred = fill.asked.saturating_add(wait);
        false
    }

    /// Whatever copies this worker has made of a key are to be taken away, and none of what is being made is made.
    pub(super) fn release(&mut self, hash: u64) {
        let Some(key) = self.keys.get_mut(&hash) else { return };
        let Some(copies) = key.copies.as_mut() else { return };
        if std::mem::take(&mut copies.fleeting) {
            copies.barred = 0;
        }
        let slots = copies.slots.clone();
        for ((number, copy), (&shard, slot)) in (0..).zip(&mut copies.copies).zip(copies.places.iter().zip(slots)) {
            copy.fill.take_if(|fill| !fill.sent);
            copy.others = 0;
            if copy.owned.take().is_some() {
                self.gone.push((shard, name(number, slot, &key.name)));
            }
        }
    }

    /// The fence was told what a key was seen to have, and nothing else: that is no reason not to make a copy of what may be
    /// older. If it is older the key's shard tells of it.
    pub(super) fn told(&mut self, hash: u64) {
        let copies = self.keys.get_mut(&hash).and_then(|key| key.copies.as_mut());
        for fill in copies.into_iter().flat_map(|copies| &mut copies.copies).filter_map(|copy| copy.fill.as_mut()) {
            fill.seen = fill.seen.after_one_change();
        }
    }

    /// A write through this process was answered: all copies of the key that may be the one are to be taken away, whoever
    /// made them. Returns whether there may be any.
    pub fn written(&mut self, place: Place) -> bool {
        let Some(hashes) = place.keys().filter(|_| !self.copied.is_empty()) else { return false };
        let hashes: Vec<u64> = self.copied.range(hashes).copied().collect();
        for &hash in &hashes {
            self.release(hash);
            let Some(key) = self.keys.get(&hash) else { continue };
            let places = key.copies.as_ref().map_or(&[][..], |copies| &copies.places);
            for (number, &shard) in (0..).zip(places).skip(1) {
                let slot = key.copies.as_ref().and_then(|copies| copies.slot(number));
                let gone = (shard, name(number, slot, &key.name));
                if !self.gone.contains(&gone) {
                    self.gone.push(gone);
                }
            }
        }
        !hashes.is_empty()
    }

    /// The copies that are to be taken away; told once.
    pub fn take_gone(&mut self) -> Vec<Gone> {
        std::mem::take(&mut self.gone)
    }

    /// Whether there are any.
    #[must_use]
    #[inline]
    pub fn has_gone(&self) -> bool {
        !self.gone.is_empty()
    }

    /// What is known of a shard's time.
    pub fn clock(&mut self, shard: u16) -> Option<&mut Clock> {
        let at = usize::from(shard);
        if self.clocks.len() <= at {
            self.clocks.resize(at.saturating_add(1), Clock::default());
        }
        self.clocks.get_mut(at)
    }
}

/// When a copy ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At this time of its shard's clock, in milliseconds.
    At(u64),
    /// So many milliseconds from when it is made: its shard knows no absolute times.
    After(u64),
}

/// What makes a copy, unless there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Where.
    pub shard: u16,
    name: Vec<u8>,
    time: Vec<u8>,
    dumped: bool,
    absolute: bool,
}

impl Order {
    fn new(shard: u16, name: Vec<u8>, dumped: bool, end: End) -> Self {
        let (absolute, time) = match end {
            End::At(time) => (true, time),
            End::After(time) => (false, time),
        };
        Self { shard, name, time: time.to_string().into_bytes(), dumped, absolute }
    }

    /// The request, with the bulk reply that was read.
    #[must_use]
    pub fn words<'a>(&'a self, value: &'a [u8]) -> Vec<&'a [u8]> {
        let value = bulk(value).unwrap_or_default();
        match (self.dumped, self.absolute) {
            (false, true) => vec![b"SET", &self.name, value, b"NX", b"PXAT", &self.time],
            (false, false) => vec![b"SET", &self.name, value, b"NX", b"PX", &self.time],
            (true, true) => vec![b"RESTORE", &self.name, &self.time, value, b"ABSTTL"],
            (true, false) => vec![b"RESTORE", &self.name, &self.time, value],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command;
    use crate::command::{Access, Keys};

    fn wire(words: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        write::request(&mut out, &words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>());
        out
    }

    #[test]
    fn a_request_is_made_of_a_copy() {
        for words in [&["GET", "k"][..], &["hget", "some key", "k"], &["LRANGE", "", "0", "-1"]] {
            let mut expected: Vec<&str> = words.to_vec();
            let name = format!("hk1:12:{}", words[1]);
            expected[1] = &name;
            let (request, mut out) = (wire(words), b"before".to_vec());
            assert!(rewrite(&Request::parse(&request).unwrap(), 12, None, &mut out));
            assert_eq!(out, [b"before".to_vec(), wire(&expected)].concat());
            assert_eq!(super::name(12, None, words[1].as_bytes()), name.as_bytes());
        }
        let (request, mut out) = (wire(&["PING"]), Vec::new());
        assert!(!rewrite(&Request::parse(&request).unwrap(), 1, None, &mut out) && out.is_empty());
    }

    #[test]
    fn only_what_a_missing_key_is_not_answered_with_tells_something() {
        for nothing in [
            "$-1\r\n",
            "_\r\n",
            "*-1\r\n",
            "$0\r\n\r\n",
            ":0\r\n",
            ":-1\r\n",
            ":-2\r\n",
            "*0\r\n",
            "~0\r\n",
            "%0\r\n",
            "*2\r\n$-1\r\n$-1\r\n",
            "*2\r\n:0\r\n:0\r\n",
            "*2\r\n*-1\r\n_\r\n",
            "+none\r\n",
            "#f\r\n",
            "",
            "-WRONGTYPE Operation\r\n",
            "-LOADING x\r\n",
            "!5\r\nERR x\r\n",
        ] {
            assert!(!tells(nothing.as_bytes()), "{nothing:?}");
        }
        for something in [
            "$1\r\nx\r\n",
            "$2\r\n\r\n\r\n",
            ":1\r\n",
            ":-12\r\n",
            "+string\r\n",
            "*2\r\n$-1\r\n$1\r\nx\r\n",
            ",1.5\r\n",
            "*1\r\n*2\r\n$3\r\n1-1\r\n*0\r\n",
            "#t\r\n",
            "$4\r\n:0\r\n\r\n",
            "(12\r\n",
            "=5\r\ntxt:x\r\n",
        ] {
            assert!(tells(something.as_bytes()), "{something:?}");
        }
    }

    #[test]
    fn what_may_be_read_of_a_copy_reads_one_key() {
        let mut count = 0;
        for spec in command::all().filter(|spec| may_read(spec.name)) {
            assert!(matches!(spec.keys, Keys::One) && spec.access == Access::Read, "{}", spec.name);
            count += 1;
        }
        assert_eq!(count, 51);
        for not in [
            "ttl",
            "pttl",
            "expiretime",
            "pexpiretime",
            "dump",
            "hscan",
            "sscan",
            "zscan",
            "httl",
            "xpending",
            "object",
        ] {
            assert!(!may_read(not), "{not}");
        }
    }

    #[test]
    fn copies_are_made_only_where_there_is_none_and_end() {
        let text = |end, dumped| {
            let mut out = Vec::new();
            write::request(&mut out, &Order::new(0, b"n".to_vec(), dumped, end).words(b"$1\r\nv\r\n"));
            String::from_utf8(out).unwrap()
        };
        let words = |words: &[&str]| String::from_utf8(wire(words)).unwrap();
        assert_eq!(text(End::At(17), false), words(&["SET", "n", "v", "NX", "PXAT", "17"]));
        assert_eq!(text(End::After(9), false), words(&["SET", "n", "v", "NX", "PX", "9"]));
        assert_eq!(text(End::At(17), true), words(&["RESTORE", "n", "17", "v", "ABSTTL"]));
        assert_eq!(text(End::After(9), true), words(&["RESTORE", "n", "9", "v"]));
    }
}
