//! What this worker keeps of a hot key in memory, and when it may be served.
//!
//! An entry is the reply to a read on the shard's *tracked* connection, on which the shard tells of every change of what was
//! read there. It is served only as long as
//! - nothing was heard of the key since, nor was the connection lost (the *term*);
//! - the newest request on that connection that has been answered was sent at most `staleness` ago (the *proof*): a shard
//!   writes replies and news in the order of what happens there, so all that happened before that request has been heard;
//! - no write to the key through this process has been answered since, and none of who asks is on its way ([`super::Fence`]);
//! - its time to live, counted from before it was read, is not over, nor is [`LONGEST`].
//!
//! So an answer is never older than `staleness`, whatever the network does, and never older than what this process wrote.

use super::fence::{Place, Seen, Told};
use super::{Hot, HotKey, Means};
use crate::resp::write;
use crate::stages::{Line, Micros, key_hash};
use std::rc::Rc;

/// How long an entry is served at most: a key that is read nowhere but here looks idle to its shard, which may evict it.
pub const LONGEST: Micros = 30_000_000;
/// Most writes of one key on their way of which each may be kept.
const MOST_PUTS: usize = 64;

/// What a key had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// There was no such key.
    Absent,
    /// The bulk string, as the shard worded it.
    Bulk(Rc<[u8]>),
}

impl Value {
    /// Of a reply to GET, in either protocol; nothing where it is an error.
    #[must_use]
    pub fn of(reply: &[u8]) -> Option<Self> {
        match reply.first()? {
            b'_' => Some(Self::Absent),
            b'$' if reply.get(1) == Some(&b'-') => Some(Self::Absent),
            b'$' => Some(Self::Bulk(reply.into())),
            _ => None,
        }
    }

    /// Whether a reply to GET says the same.
    #[must_use]
    pub fn is(&self, reply: &[u8]) -> bool {
        match self {
            Self::Absent => Self::of(reply) == Some(Self::Absent),
            Self::Bulk(bytes) => **bytes == *reply,
        }
    }

    /// Appends the reply to GET that says so.
    #[inline]
    pub fn write(&self, resp3: bool, out: &mut Vec<u8>) {
        match self {
            Self::Absent => write::null(out, resp3),
            Self::Bulk(bytes) => out.extend_from_slice(bytes),
        }
    }

    /// Bytes that it takes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Absent => 0,
            Self::Bulk(bytes) => bytes.len(),
        }
    }

    /// Whether it takes none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// See the module.
#[derive(Debug)]
pub struct Entry {
    /// What is served.
    pub value: Value,
    /// What was known of writes when it was asked for.
    pub(super) seen: Seen,
    /// The term of the tracked connection on which it was.
    pub(super) term: u32,
    /// When it was asked for.
    pub asked: Micros,
    /// When it may no longer be served.
    pub(super) until: Micros,
    /// It was written here and not read: the shard has told of that change, or will, and tells of no further one.
    pub(super) written: bool,
    /// Not before this does it expire, if that is known and nothing at all has been heard of it since.
    pub(super) dies: Option<Micros>,
}

/// What is written here, to become an entry when it is answered.
#[derive(Debug)]
pub struct Put {
    pub(super) value: Value,
    /// What is known of writes when it has been answered and nothing else has happened.
    pub(super) seen: Seen,
    /// How often something had been seen of the key, but for what it makes itself.
    pub(super) times: u64,
    pub(super) line: Line,
    pub(super) sent: Micros,
    pub(super) number: u64,
}

/// A read on the tracked connection that is on its way, to become an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    pub(super) seen: Seen,
    /// How often something had been seen of the key.
    pub(super) times: u64,
    pub(super) term: u32,
    pub(super) asked: Micros,
    /// Distinguishes it from those that were given up.
    pub number: u64,
    /// By what the engine knows it.
    pub link: u32,
}

/// Whether a shard tells of changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tracking {
    /// There is no connection on which it could.
    #[default]
    Off,
    /// It does.
    On,
    /// It does not, or not to this user: what is read is kept for `staleness` at most.
    Refused,
}

/// What is known of a shard's tracked connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tracked {
    /// Whether the shard tells of changes on it.
    pub tracking: Tracking,
    /// Goes up whenever all that was read on it is worth nothing any more.
    pub term: u32,
    /// When the newest request that has been answered was sent.
    pub proof: Micros,
}

impl Tracked {
    /// Whether all that happened at the shard `staleness` ago and before has been heard of.
    #[must_use]
    #[inline]
    pub fn proves(&self, staleness: Micros, now: Micros) -> bool {
        match self.tracking {
            Tracking::On => now.saturating_sub(self.proof) <= staleness,
            // What is kept is bounded by itself.
            Tracking::Refused => true,
            Tracking::Off => false,
        }
    }
}

impl Hot {
    /// What is kept of a key, whether it may be served or not: for whoever has asked that just before.
    #[must_use]
    pub fn kept_entry(&self, hash: u64) -> Option<&Entry> {
        self.keys.get(&hash)?.entry.as_ref()
    }

    /// Where a shard's tracked connection stands.
    #[must_use]
    pub fn tracked(&self, shard: u16) -> Tracked {
        self.tracked.get(usize::from(shard)).copied().unwrap_or_default()
    }

    fn tracked_mut(&mut self, shard: u16) -> Option<&mut Tracked> {
        if self.tracked.len() <= usize::from(shard) {
            self.tracked.resize(usize::from(shard).saturating_add(1), Tracked::default());
        }
        self.tracked.get_mut(usize::from(shard))
    }

    /// A shard's tracked connection can be read on from now on.
    pub fn track(&mut self, shard: u16, tracking: Tracking, now: Micros) {
        if let Some(tracked) = self.tracked_mut(shard) {
            (tracked.tracking, tracked.proof) = (tracking, now);
        }
    }

    /// Shards that do not tell of changes though they can be reached.
    #[must_use]
    pub fn untracked(&self) -> usize {
        self.tracked.iter().filter(|tracked| tracked.tracking == Tracking::Refused).count()
    }

    /// A request that was sent on it at this time has been answered.
    #[inline]
    pub fn prove(&mut self, shard: u16, sent: Micros) {
        if let Some(tracked) = self.tracked_mut(shard) {
            tracked.proof = tracked.proof.max(sent);
        }
    }

    /// It is lost, or the shard has forgotten what was read on it: nothing that is kept of its keys is served any more.
    pub fn lose(&mut self, shard: u16, tracking: Tracking) {
        if let Some(tracked) = self.tracked_mut(shard) {
            tracked.tracking = tracking;
            tracked.term = tracked.term.wrapping_add(1);
        }
        let hashes: Vec<u64> = self.keys.iter().filter(|(_, key)| key.shard == shard).map(|(&hash, _)| hash).collect();
        for hash in hashes {
            self.drop_entry(hash);
            self.release(hash);
        }
    }

    /// What is kept of a key, if it may be served now: to a session that has `no_writes` on their way, or to any.
    #[must_use]
    #[inline]
    pub fn entry(&self, hash: u64, no_writes: bool, now: Micros) -> Option<&Entry> {
        let key = self.keys.get(&hash)?;
        let entry = key.entry.as_ref()?;
        let tracked = self.tracked.get(usize::from(key.shard))?;
        let good = entry.term == tracked.term
            && tracked.proves(self.config.staleness, now)
            && now < entry.until
            && self.fence.allows(entry.seen, no_writes, hash, key.shard);
        good.then_some(entry)
    }

    /// Something of a key was served from here.
    #[inline]
    pub fn served(&mut self, hash: u64) {
        if let Some(key) = self.keys.get_mut(&hash) {
            key.hits = key.hits.saturating_add(1);
            key.served = key.served.saturating_add(1);
            if !self.detector.skips() {
                self.detector.see(hash);
            }
        }
    }

    /// Whether a read of a key that is served from memory, but is not there, may be answered with what is being read to be kept,
    /// or that may be begun.
    pub(super) fn may_fill(&self, hash: u64, key: &HotKey, no_writes: bool, now: Micros) -> bool {
        let tracked = self.tracked(key.shard);
        if tracked.tracking == Tracking::Off || !key.settled || now < self.not_before {
            return false;
        }
        match key.fill {
            // Whoever asks now must not be told what was before a write of this process.
            // Nor what was before something that anyone has seen.
            Some(fill) => {
                fill.term == tracked.term
                    && self.fence.allows(fill.seen, no_writes, hash, key.shard)
                    && self.fence.times(hash) == fill.times
            }
            None => now >= key.not_before && (no_writes || self.fence.see_still(hash, key.shard).is_some()),
        }
    }

    /// Whether a read of a key that is served from memory would be sent home now: by this command, which is in lower case, of a
    /// session whose reads are `free` to be answered from elsewhere and that has `no_writes` on their way.
    #[must_use]
    pub fn goes_home(&self, key: &[u8], command: &str, (free, no_writes): (bool, bool), now: Micros) -> bool {
        let hash = self.hash(key);
        let stays = |key: &HotKey| match command {
            "get" => self.entry(hash, no_writes, now).is_some() || self.may_fill(hash, key, no_writes, now),
            // An element of an array waits for nothing that is being read.
            "mget" => self.entry(hash, no_writes, now).is_some(),
            _ => false,
        };
        self.keys.get(&hash).is_some_and(|key| key.means == Means::Near && !(free && stays(key)))
    }

    /// Begins to read a key on its shard's tracked connection; nothing if it is not to be.
    pub fn begin_fill(&mut self, hash: u64, now: Micros) -> Option<Fill> {
        let key = self.keys.get_mut(&hash)?;
        let tracked = self.tracked.get(usize::from(key.shard)).copied()?;
        if key.means != Means::Near
            || key.fill.is_some()
            || tracked.tracking == Tracking::Off
            || now < key.not_before.max(self.not_before)
        {
            return None;
        }
        let seen = self.fence.see(hash, key.shard);
        self.fills = self.fills.wrapping_add(1);
        let times = self.fence.times(hash);
        let fill = Fill { seen, times, term: tracked.term, asked: now, number: self.fills, link: u32::MAX };
        key.fill = Some(fill);
        key.fills = key.fills.saturating_add(1);
        Some(fill)
    }

    /// By what the engine knows a fill that has begun.
    pub fn link_fill(&mut self, hash: u64, link: u32) {
        if let Some(fill) = self.keys.get_mut(&hash).and_then(|key| key.fill.as_mut()) {
            fill.link = link;
        }
    }

    /// What was read: its time to live in milliseconds is as PTTL tells it, negative for none. Returns whether it is kept.
    pub fn end_fill(&mut self, hash: u64, number: u64, value: Option<Value>, ttl: i64, now: Micros) -> bool {
        // Whoever asked for it is told, kept or not.
        let told = value.as_ref().map(|value| self.value_hash(value));
        let told = told.map_or(Told { news: false, times: 0 }, |told| self.tell_fence(hash, told));
        let Some(key) = self.keys.get_mut(&hash) else { return false };
        let Some(fill) = key.fill.take_if(|fill| fill.number == number) else { return false };
        let seen = if told.news { fill.seen.after_one_change() } else { fill.seen };
        let Some(value) = value.filter(|value| value.len() <= self.config.longest_near) else {
            // Asking again and again would cost more than it is worth.
            key.not_before = now.saturating_add(10_000_000);
            return false;
        };
        let tracked = self.tracked.get(usize::from(key.shard)).copied().unwrap_or_default();
        let longest = match tracked.tracking {
            Tracking::On => LONGEST,
            Tracking::Refused => self.config.staleness,
            Tracking::Off => return false,
        };
        let span = match (ttl, &value) {
            (-1, Value::Bulk(_)) | (-2, Value::Absent) => longest,
            (0.., Value::Bulk(_)) => longest.min((ttl as u64).saturating_mul(1000)),
            // It came or went between the two.
            _ => return false,
        };
        let room = self.config.near_memory.saturating_sub(self.kept);
        let before = key.entry.as_ref().map_or(0, |entry| entry.value.len());
        // Something that came in between may be newer than this, though it is what had been seen before.
        let overtaken = told.news && told.times != fill.times;
        if overtaken
            || fill.term != tracked.term
            || !self.fence.stands(seen, hash, key.shard)
            || value.len() > room.saturating_add(before)
        {
            return false;
        }
        let until = fill.asked.saturating_add(span);
        self.kept = self.kept.saturating_sub(before).saturating_add(value.len());
        let dies = u64::try_from(ttl).ok().filter(|_| tracked.tracking == Tracking::On);
        let dies = dies.map(|ttl| fill.asked.saturating_add(ttl.saturating_mul(1000)));
        key.entry = Some(Entry { value, seen, term: fill.term, asked: fill.asked, until, written: false, dies });
        key.hits = 0;
        true
    }

    /// A key that is served from memory is about to be set to this, at its shard, on this connection. Returns the number by which
    /// its reply is told, if that is to be kept. To be called before the fence is told that it begins.
    pub fn begin_put(&mut self, hash: u64, (shard, line): (u16, Line), value: &[u8], now: Micros) -> Option<u64> {
        let longest = self.config.longest_near;
        let key = self.keys.get_mut(&hash).filter(|key| key.means == Means::Near && key.shard == shard)?;
        let busy = key.puts.len() >= MOST_PUTS || self.putting.saturating_add(value.len()) > self.config.near_memory;
        if !self.config.keep_writes || busy || value.len() > longest || now < self.not_before {
            return None;
        }
        let mut bulk = Vec::with_capacity(value.len().saturating_add(16));
        write::bulk(&mut bulk, value);
        self.fills = self.fills.wrapping_add(1);
        let seen = self.fence.see(hash, shard).after_one_change();
        self.putting = self.putting.saturating_add(bulk.len());
        let times = self.fence.times(hash);
        key.puts.push(Put { value: Value::Bulk(bulk.into()), seen, times, line, sent: now, number: self.fills });
        Some(self.fills)
    }

    /// It was answered, as `done` says, and the fence has been told.
    ///
    /// It is what the key has if no other write was answered since it was sent, but for those that were sent before it on the
    /// same connection. Of those that are on their way nobody was told anything.
    pub fn end_put(&mut self, hash: u64, number: u64, done: bool) {
        let Some(key) = self.keys.get_mut(&hash) else { return };
        let Some(at) = key.puts.iter().position(|put| put.number == number) else { return };
        let (put, shard) = (key.puts.remove(at), key.shard);
        self.putting = self.putting.saturating_sub(put.value.len());
        let told = self.value_hash(&put.value);
        let stands = done && self.fence.stands(put.seen, hash, shard);
        let told = if stands { self.fence.tell(hash, told) } else { Told { news: false, times: put.times } };
        // Somebody may have seen what was there before it and is there again, and not only what it makes.
        let overtaken = told.times != put.times;
        let Some(key) = self.keys.get_mut(&hash) else { return };
        for later in key.puts.iter_mut().filter(|later| later.line == put.line) {
            later.seen = later.seen.after_one_change().after_changes(u64::from(told.news));
            later.times = Told::after(later.times, u64::from(stands));
        }
        let tracked = self.tracked.get(usize::from(shard)).copied().unwrap_or_default();
        let before = key.entry.as_ref().map_or(0, |entry| entry.value.len());
        let room = self.config.near_memory.saturating_sub(self.kept).saturating_add(before);
        if !stands
            || overtaken
            || put.value.len() > room
            || tracked.tracking == Tracking::Off
            || key.means != Means::Near
        {
            return;
        }
        let seen = put.seen.after_changes(u64::from(told.news));
        let (value, asked, until) = (put.value, put.sent, put.sent.saturating_add(self.config.staleness));
        self.kept = self.kept.saturating_sub(before).saturating_add(value.len());
        key.entry = Some(Entry { value, seen, term: tracked.term, asked, until, written: true, dies: None });
    }

    /// The key was seen to have this; see [`Fence::tell`].
    pub(super) fn tell_fence(&mut self, hash: u64, value: u64) -> Told {
        let told = self.fence.tell(hash, value);
        if self.keys.get(&hash).is_some_and(|key| !key.puts.is_empty()) {
            // What was seen of a write before it was answered is no change to what it makes.
            let seed = self.seed;
            let puts = self.keys.get_mut(&hash).map(|key| &mut key.puts);
            for put in puts.into_iter().flatten().filter(|put| value_hash(seed, &put.value) == value) {
                put.seen = put.seen.after_changes(u64::from(told.news));
                put.times = Told::after(put.times, 1);
            }
        }
        told
    }

    /// A fill has found nothing, and what else it reads is still on its way: what the key had if it is proven that it has expired,
    /// and by nothing else than this read. Returns that, when it expired at the earliest, and what is known of writes.
    ///
    /// A shard tells on the tracked connection that a key was deleted, or has expired by another's doing, before it answers what
    /// comes behind that; but that it has expired by a read on this very connection behind that read's reply (Redis 7 and
    /// later). So whoever is told nil, and has heard nothing since it was told a value with a time to live, knows that this
    /// time is over and nobody has touched the key. An entry that was written here counts for nothing.
    #[must_use]
    pub fn expired(&mut self, hash: u64, number: u64, now: Micros) -> Option<(Rc<[u8]>, Micros, Seen)> {
        let key = self.keys.get(&hash)?;
        let (shard, entry) = (key.shard, key.entry.as_ref()?);
        let fill = key.fill.filter(|fill| fill.number == number)?;
        let tracked = self.tracked(shard);
        let Value::Bulk(value) = &entry.value else { return None };
        let heard_all = tracked.tracking == Tracking::On && entry.term == tracked.term && fill.term == tracked.term;
        if !heard_all || entry.written || !self.fence.stands(entry.seen, hash, shard) {
            return None;
        }
        // SWAPDB takes keys away of which a shard tells nobody.
        let died = entry.dies.filter(|&dies| now >= dies)?;
        let (value, seen) = (Rc::clone(value), entry.seen);
        // What is told next is what is known already.
        let news = self.tell_fence(hash, ABSENT).news;
        let seen = seen.after_changes(u64::from(news));
        self.fence.stands(seen, hash, shard).then_some((value, died, seen))
    }

    /// A fill was lost.
    pub fn end_fill_without(&mut self, hash: u64, number: u64) {
        if let Some(key) = self.keys.get_mut(&hash) {
            key.fill.take_if(|fill| fill.number == number);
        }
    }

    /// The shard tells that a key has changed. Returns its hash, if it is a hot one.
    pub fn changed(&mut self, name: &[u8]) -> Option<u64> {
        let hash = self.hash(name);
        let key = self.keys.get_mut(&hash)?;
        key.changes = key.changes.saturating_add(1);
        // What is on its way was read before, or may have been; but for what is behind a change that was made here.
        if let Some(entry) = &mut key.entry {
            // The change that it was made of.
            if entry.written {
                return None;
            }
            let seen = self.fence.see(hash, key.shard).after_one_change();
            if key.puts.iter().any(|put| put.seen == seen) {
                // Most likely what is being written here, of which nobody has been told. If it is not, this is no older than what
                // has not been heard of may be.
                let proof = self.tracked.get(usize::from(key.shard)).map_or(0, |tracked| tracked.proof);
                entry.until = entry.until.min(proof.saturating_add(self.config.staleness));
                entry.dies = None;
                return None;
            }
        }
        key.fill = None;
        self.drop_entry(hash);
        self.release(hash);
        Some(hash)
    }

    /// A reply to GET came on another connection. If it says something else than what was seen last, nothing that is kept is
    /// served any more: whoever has seen this must not be told the other afterwards.
    pub fn passed(&mut self, hash: u64, reply: &[u8]) {
        // It may be another worker that keeps it.
        let value = Value::of(reply).map_or(OTHER, |value| self.value_hash(&value));
        let news = self.tell_fence(hash, value).news;
        let Some(key) = self.keys.get_mut(&hash) else { return };
        // What is on its way may have been read before.
        key.fill = None;
        if news || key.entry.as_ref().is_some_and(|entry| !entry.value.is(reply)) {
            self.drop_entry(hash);
        }
        if news {
            self.told(hash);
        }
    }

    /// The same for a read of another kind, that tells something of the key which cannot be compared.
    pub fn looked_at(&mut self, hash: u64) {
        self.fence.change(Place::of_key(hash));
        let Some(key) = self.keys.get_mut(&hash) else { return };
        key.fill = None;
        key.looked_at = true;
        self.drop_entry(hash);
    }

    fn value_hash(&self, value: &Value) -> u64 {
        value_hash(self.seed, value)
    }

    pub(super) fn drop_entry(&mut self, hash: u64) {
        if let Some(entry) = self.keys.get_mut(&hash).and_then(|key| key.entry.take()) {
            self.kept = self.kept.saturating_sub(entry.value.len());
        }
    }

    /// Bytes that are kept.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.kept
    }
}

/// What the fence is told of what a key has; in its upper bits, as it looks at no others.
fn value_hash(seed: u64, value: &Value) -> u64 {
    match value {
        Value::Absent => ABSENT,
        Value::Bulk(bytes) => key_hash(seed, bytes),
    }
}

/// The same where there is none, and where there is something else than a string.
pub const ABSENT: u64 = 1 << 62;
const OTHER: u64 = 1 << 61;
