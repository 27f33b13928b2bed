//! Hot keys: which they are, and where their reads are served from.
//!
//! The [`detector`] says which keys are hot; for each of them the pool's configuration and what was measured say by which
//! [`Means`] its reads are served. Whatever does not come from the key's shard stays behind the writes of this process, for
//! any number of workers ([`Fence`]). Only reads that are all of a request, of a session's own database, are served so.

mod board;
mod choice;
mod clock;
mod config;
mod copies;
pub mod detector;
mod fence;
pub mod ladder;
mod near;
mod replicas;
pub mod summary;
mod upkeep;

pub use board::{Board, Page, Row};
pub use choice::Choice;
pub use clock::Clock;
pub use config::{Config, Reads, Rule};
pub use copies::{Copies, Filled, Gone, Order, Wanted, name as copy_name, rewrite, tells};
pub use detector::Level;
pub use fence::{Fence, Place, Seen};
pub use ladder::Site;
pub use near::{Entry, Fill, LONGEST, Put, Tracked, Tracking, Value};
pub use replicas::{MOST as MOST_REPLICAS, Replicas};
pub use upkeep::Turns;

use super::{AsItIs, Event, Leg, Micros, Notices, Stage, Verdict, key_hash};
use crate::chance::splitmix;
use crate::command::{Access, Keys};
use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasherDefault;
use std::sync::Arc;

/// How long, in microseconds, after a running pool has come to serve hot keys nothing is kept: until then all writes have been
/// answered that were sent before and not noted.
const HOLD: Micros = 6_000_000;

/// Keys that are let in though they are not hot: their longest, what each takes of the memory there is for values at least, and
/// how long one stays that nobody asks for, in microseconds, to twice that.
const LONGEST_ADMITTED: usize = 256;
const ADMITTED: usize = 512;
const UNUSED: Micros = 30_000_000;
/// Longest read that is sent elsewhere than to its key's shard, in bytes of the request: they are kept until it is answered.
const LONGEST_SPREAD: usize = 64 * 1024;

/// By which means reads of a hot key are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Means {
    /// By its shard, as any key's.
    #[default]
    Home,
    /// From memory.
    Near,
    /// By replicas of its shard.
    Replicas,
    /// By copies on so many shards, its own with them.
    Copies(u16),
}

/// A hot key.
#[derive(Debug)]
pub struct HotKey {
    /// The key.
    pub name: Box<[u8]>,
    /// Where it lives.
    pub shard: u16,
    /// How its reads are served.
    pub means: Means,
    /// Since when it is hot.
    pub since: Micros,
    /// What is kept of it here.
    pub entry: Option<Entry>,
    /// What is asked for, to be kept.
    pub fill: Option<Fill>,
    /// What is being written, to be kept here.
    pub put: Option<Put>,
    /// Not to be asked for before.
    pub not_before: Micros,
    /// Whether all that was on its way to its shard when it became hot has been answered.
    pub settled: bool,
    /// It was read since the last window in a way that memory cannot answer.
    pub looked_at: bool,
    /// It is here though it is not hot.
    pub admitted: bool,
    /// Times it was served from here since it was filled last.
    pub hits: u64,
    /// Times it was served otherwise than by its shard since it is hot, and read for that.
    pub served: u64,
    /// Times it was read to be kept here, or copied.
    pub fills: u64,
    /// Times its shard told that it has changed.
    pub changes: u64,
    /// What is known of its copies.
    pub copies: Option<Box<Copies>>,
}

/// The stage.
pub struct Hot {
    config: Config,
    seed: u64,
    fence: Arc<Fence>,
    keys: HashMap<u64, HotKey, BuildHasherDefault<AsItIs>>,
    /// By shard.
    tracked: Vec<Tracked>,
    /// Bytes of all entries.
    kept: usize,
    fills: u64,
    /// Whether any answer may come from elsewhere.
    serves: bool,
    /// Nothing is kept or copied before: writes that were not noted may still be on their way.
    not_before: Micros,
    /// When those were let go last that are here though they are not hot, and that nobody asks for.
    swept: Micros,
    detector: detector::Detector,
    site: Site,
    /// By shard: how many clients it tells of changes.
    trackers: Vec<u32>,
    would_serve: u64,
    /// A window was closed since it was asked for last.
    closed: bool,
    teller: upkeep::Teller,
    /// How loaded shards look from here that have copies.
    pub choice: Choice,
    /// Shards' clocks, by shard.
    clocks: Vec<Clock>,
    /// Copies that are to be taken away.
    gone: Vec<Gone>,
    /// The keys that have copies, by their hashes.
    copied: BTreeSet<u64>,
    replicas: Replicas,
    lanes: u32,
    /// How many shards have numbers.
    shards: u32,
}

impl Hot {
    /// For a pool. `seed` keeps apps from choosing keys that collide, and is the same for all workers, as the fence is.
    #[must_use]
    pub fn new(config: Config, seed: u64, fence: Arc<Fence>) -> Self {
        let serves = config.serves();
        Self {
            config,
            seed,
            fence,
            keys: HashMap::default(),
            tracked: Vec::new(),
            kept: 0,
            fills: 0,
            serves,
            not_before: 0,
            swept: 0,
            detector: detector::Detector::new(seed),
            site: Site { shards: 1, replicas: false },
            trackers: Vec::new(),
            would_serve: 0,
            closed: false,
            teller: upkeep::Teller::default(),
            choice: Choice::new(),
            clocks: Vec::new(),
            gone: Vec::new(),
            copied: BTreeSet::new(),
            replicas: Replicas::default(),
            lanes: 1,
            shards: 1,
        }
    }

    /// Takes another's place in a pool that is configured anew. What is hot is known at the end of the open window.
    pub fn inherit(&mut self, mut before: Self, now: Micros) {
        let hashes: Vec<u64> = before.keys.keys().copied().collect();
        hashes.into_iter().for_each(|hash| _ = before.leave(hash));
        (self.gone, self.clocks, self.choice) = (before.gone, before.clocks, before.choice);
        self.not_before = if self.serves && !before.serves { now.saturating_add(HOLD) } else { before.not_before };
        self.detector = before.detector;
        self.trackers = before.trackers;
        self.tracked = before.tracked;
        self.fills = before.fills;
    }

    /// The same for a pool with replicas, each given with the shard it follows, where `shards` shards have numbers and `lanes`
    /// connections each.
    #[must_use]
    pub fn with_replicas(self, replicas: &[(u16, u16)], shards: u16, lanes: u16) -> Self {
        let replicas = Replicas::new(replicas, self.config.staleness);
        Self { replicas, lanes: u32::from(lanes.max(1)), shards: u32::from(shards.max(1)), ..self }
    }

    /// The replicas, and what is known of them.
    #[must_use]
    pub fn replicas(&self) -> &Replicas {
        &self.replicas
    }

    /// The same, to be changed.
    pub fn replicas_mut(&mut self) -> &mut Replicas {
        &mut self.replicas
    }

    /// The next shard that is to say how far it is, since keys of it are read from its replicas.
    pub fn next_to_ask(&mut self, now: Micros) -> Option<u16> {
        let keys = &self.keys;
        let is_wanted = |shard| keys.values().any(|key| key.shard == shard && key.means == Means::Replicas);
        self.replicas.next_due(is_wanted, now)
    }

    /// What is wanted.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether any answer may come from elsewhere than its key's shard, so that writes must be noted.
    #[must_use]
    #[inline]
    pub fn serves(&self) -> bool {
        self.serves
    }

    /// The fence.
    #[must_use]
    pub fn fence(&self) -> &Arc<Fence> {
        &self.fence
    }

    /// The hash by which a key is known here and to the fence.
    #[must_use]
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        key_hash(self.seed, key)
    }

    /// A hot key, by its hash.
    #[must_use]
    pub fn key(&self, hash: u64) -> Option<&HotKey> {
        self.keys.get(&hash)
    }

    /// The hash of a key, if that is one that may be kept here.
    #[must_use]
    #[inline]
    pub fn kept_hash(&self, key: &[u8]) -> Option<u64> {
        if !self.keeps() {
            return None;
        }
        let hash = self.hash(key);
        self.is_kept(hash).then_some(hash)
    }

    /// Whether there are hot keys that are served otherwise than by their shards.
    #[must_use]
    #[inline]
    pub fn keeps(&self) -> bool {
        !self.keys.is_empty() || self.config.near_all || self.fence.keeps()
    }

    /// Whether a hot key may be kept here, or by another worker.
    #[must_use]
    pub fn is_kept(&self, hash: u64) -> bool {
        self.keys.get(&hash).is_some_and(|key| key.means == Means::Near) || self.fence.is_kept(hash)
    }

    /// What is kept of a key, whether it may be served or not: for whoever has asked that just before.
    #[must_use]
    pub fn kept_entry(&self, hash: u64) -> Option<&Entry> {
        self.keys.get(&hash)?.entry.as_ref()
    }

    /// The same, to be changed.
    pub fn key_mut(&mut self, hash: u64) -> Option<&mut HotKey> {
        self.keys.get_mut(&hash)
    }

    /// All hot keys.
    pub fn keys(&self) -> impl Iterator<Item = (u64, &HotKey)> {
        self.keys.iter().map(|(&hash, key)| (hash, key))
    }

    /// A key is hot: from now on it is served by these means.
    pub fn enter(&mut self, name: &[u8], shard: u16, means: Means, now: Micros) {
        let hash = self.hash(name);
        let key = self.keys.entry(hash).or_insert_with(|| HotKey {
            name: name.into(),
            shard,
            means: Means::Home,
            since: now,
            entry: None,
            fill: None,
            put: None,
            not_before: now,
            settled: false,
            admitted: false,
            looked_at: false,
            hits: 0,
            served: 0,
            fills: 0,
            changes: 0,
            copies: None,
        });
        if !matches!(means, Means::Copies(_)) && key.copies.is_some() {
            self.release(hash);
        }
        let Some(key) = self.keys.get_mut(&hash) else { return };
        let before = std::mem::replace(&mut key.means, means);
        if (before == Means::Near) != (means == Means::Near) {
            // Known to all workers before anything is kept, so that none tells of it what the others do not hear of.
            self.fence.keep(hash, means == Means::Near);
        }
        if !matches!(means, Means::Copies(_)) {
            key.copies = None;
            self.copied.remove(&hash);
        }
        if means != Means::Near {
            self.drop_entry(hash);
        }
    }

    /// A key is hot no more.
    pub fn leave(&mut self, hash: u64) -> Option<HotKey> {
        self.drop_entry(hash);
        self.release(hash);
        self.copied.remove(&hash);
        let key = self.keys.remove(&hash);
        if key.as_ref().is_some_and(|key| key.means == Means::Near) {
            self.fence.keep(hash, false);
        }
        key
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

    /// What is kept of a key, if it may be served to a session now.
    #[must_use]
    #[inline]
    pub fn entry(&self, hash: u64, now: Micros) -> Option<&Entry> {
        let key = self.keys.get(&hash)?;
        let entry = key.entry.as_ref()?;
        let tracked = self.tracked.get(usize::from(key.shard))?;
        let good = entry.term == tracked.term
            && tracked.proves(self.config.staleness, now)
            && now < entry.until
            && self.fence.holds(entry.seen, hash, key.shard);
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
    fn may_fill(&self, hash: u64, key: &HotKey, now: Micros) -> bool {
        let tracked = self.tracked(key.shard);
        if tracked.tracking == Tracking::Off || !key.settled || now < self.not_before {
            return false;
        }
        match key.fill {
            // Whoever asks now must not be told what was before a write of this process.
            Some(fill) => fill.term == tracked.term && self.fence.holds(fill.seen, hash, key.shard),
            None => now >= key.not_before && self.fence.see(hash, key.shard).is_some(),
        }
    }

    /// Whether a read of a key that is served from memory would be sent home now: by this command, which is in lower case, of a
    /// session whose reads are `free` to be answered from elsewhere.
    #[must_use]
    pub fn goes_home(&self, key: &[u8], command: &str, free: bool, now: Micros) -> bool {
        let hash = self.hash(key);
        let stays = |key: &HotKey| match command {
            "get" => self.entry(hash, now).is_some() || self.may_fill(hash, key, now),
            // An element of an array waits for nothing that is being read.
            "mget" => self.entry(hash, now).is_some(),
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
        let seen = self.fence.see(hash, key.shard)?;
        self.fills = self.fills.wrapping_add(1);
        let fill = Fill { seen, term: tracked.term, asked: now, number: self.fills, link: u32::MAX };
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
        let news = value.as_ref().is_some_and(|value| self.fence.tell(hash, self.value_hash(value)));
        let Some(key) = self.keys.get_mut(&hash) else { return false };
        let Some(fill) = key.fill.take_if(|fill| fill.number == number) else { return false };
        let seen = if news { fill.seen.after_one_change() } else { fill.seen };
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
        if fill.term != tracked.term
            || !self.fence.holds(seen, hash, key.shard)
            || value.len() > room.saturating_add(before)
        {
            return false;
        }
        let until = fill.asked.saturating_add(span);
        self.kept = self.kept.saturating_sub(before).saturating_add(value.len());
        key.entry = Some(Entry { value, seen, term: fill.term, asked: fill.asked, until, written: false });
        key.hits = 0;
        true
    }

    /// A key that is served from memory is about to be set to this, at its shard. Returns the number by which its reply is told,
    /// if that is to be kept.
    pub fn begin_put(&mut self, hash: u64, shard: u16, value: &[u8], now: Micros) -> Option<u64> {
        let seen = self.fence.see(hash, shard)?.after_one_write();
        let longest = self.config.longest_near;
        let key = self.keys.get_mut(&hash).filter(|key| key.means == Means::Near && key.shard == shard)?;
        if !self.config.keep_writes || value.len() > longest || now < self.not_before {
            return None;
        }
        let mut bulk = Vec::with_capacity(value.len().saturating_add(16));
        crate::resp::write::bulk(&mut bulk, value);
        self.fills = self.fills.wrapping_add(1);
        key.put = Some(Put { value: Value::Bulk(bulk.into()), seen, sent: now, number: self.fills });
        Some(self.fills)
    }

    /// It was answered, as `done` says, and the fence has been told.
    pub fn end_put(&mut self, hash: u64, number: u64, done: bool) {
        let Some(key) = self.keys.get_mut(&hash) else { return };
        let Some(put) = key.put.take_if(|put| put.number == number) else { return };
        let tracked = self.tracked.get(usize::from(key.shard)).copied().unwrap_or_default();
        let before = key.entry.as_ref().map_or(0, |entry| entry.value.len());
        let room = self.config.near_memory.saturating_sub(self.kept).saturating_add(before);
        let fits = put.value.len() <= room && tracked.tracking != Tracking::Off;
        if !(done && fits && self.fence.holds(put.seen, hash, key.shard)) {
            return;
        }
        let until = put.sent.saturating_add(self.config.staleness);
        let (value, asked) = (put.value, put.sent);
        let told = self.value_hash(&value);
        let seen = if self.fence.tell(hash, told) { put.seen.after_one_change() } else { put.seen };
        let Some(key) = self.keys.get_mut(&hash) else { return };
        self.kept = self.kept.saturating_sub(before).saturating_add(value.len());
        key.entry = Some(Entry { value, seen, term: tracked.term, asked, until, written: true });
    }

    /// Whether a key that is not known is to be, since all that may be served from memory are.
    fn admits(&self, leg: &Leg<'_>) -> bool {
        leg.alone
            && leg.free
            && is_whole_read(leg)
            && leg.key.len() <= LONGEST_ADMITTED
            && self.keys.len() < self.config.near_memory / ADMITTED
            && matches!(self.config.reads_of(leg.key), Reads::Near | Reads::Auto)
    }

    /// Lets go of keys that were let in though they are not hot, and that nobody has asked for since this was asked last.
    pub fn forget_unused(&mut self) {
        if !self.config.near_all {
            return;
        }
        let unused = |key: &HotKey| key.admitted && key.served == 0 && key.fill.is_none();
        let hashes: Vec<u64> = self.keys.iter().filter(|(_, key)| unused(key)).map(|(&hash, _)| hash).collect();
        for hash in hashes {
            self.leave(hash);
        }
        self.keys.values_mut().filter(|key| key.admitted).for_each(|key| key.served = 0);
    }

    /// Lets a key in that is not hot.
    pub fn admit(&mut self, leg: &Leg<'_>, hash: u64, now: Micros) {
        self.enter(leg.key, leg.shard, Means::Near, now);
        if let Some(key) = self.keys.get_mut(&hash) {
            // All reads of such keys let them in or are counted: none can be on its way that its session is not held to.
            (key.settled, key.admitted) = (true, true);
        }
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
        // The change that it was made of.
        if key.entry.as_ref().is_some_and(|entry| entry.written) {
            return None;
        }
        // What is on its way was read before, or may have been.
        key.fill = None;
        self.drop_entry(hash);
        self.release(hash);
        Some(hash)
    }

    /// A reply to GET came on another connection. If it says something else than what was seen last, nothing that is kept is
    /// served any more: whoever has seen this must not be told the other afterwards.
    pub fn passed(&mut self, hash: u64, reply: &[u8]) {
        // It may be another worker that keeps it.
        let value = Value::of(reply).map_or(0, |value| self.value_hash(&value));
        let news = self.fence.tell(hash, value);
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
        match value {
            Value::Absent => 1,
            Value::Bulk(bytes) => self.hash(bytes).max(2),
        }
    }

    fn drop_entry(&mut self, hash: u64) {
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

impl Stage for Hot {
    #[inline]
    fn decide(&self, leg: &mut Leg<'_>, now: Micros) -> Verdict {
        if (self.keys.is_empty() && !self.config.near_all && !self.fence.keeps()) || leg.spec.access != Access::Read {
            return Verdict::Next;
        }
        self.choose(leg, now)
    }

    fn observe(&mut self, event: &Event<'_>, now: Micros, notices: &mut Notices) {
        let _ = (now, notices);
        if let Event::Failed(line, _) | Event::Connected(line) | Event::Closed(line) = event
            && !self.replicas.is_empty()
        {
            let shard = line.checked_div(self.lanes).and_then(|place| place.checked_rem(self.shards));
            self.replicas.forget(shard.unwrap_or(0) as u16);
        }
    }

    fn tick(&mut self, now: Micros, _notices: &mut Notices) {
        if self.detector.is_due(now) {
            self.close(now);
        }
        if now.saturating_sub(self.swept) >= UNUSED {
            self.swept = now;
            self.forget_unused();
        }
    }

    fn explain(&self, leg: &Leg<'_>, verdict: Verdict, now: Micros) -> String {
        match (verdict, leg.hot.and_then(|hash| self.keys.get(&hash))) {
            (Verdict::Near, _) => "hot: answered from memory".into(),
            (_, Some(key)) if leg.copy > 0 => format!("hot, served by {:?}, this one by copy {}", key.means, leg.copy),
            (_, Some(key)) if key.means == Means::Replicas => {
                let mut found = [0; MOST_REPLICAS + 1];
                let hash = leg.hot.unwrap_or_default();
                let count = self.replicas.usable(hash, key.shard, &self.fence, now, &mut found).saturating_sub(1);
                format!("hot, read from its shard or one of {count} replicas that are known to be up to date")
            }
            (_, Some(key)) => format!("hot, served by {:?}", key.means),
            _ if !self.serves => "off".into(),
            _ => "not hot".into(),
        }
    }
}

/// Whether a leg reads all of a string, and nothing else: GET, or an element of MGET.
fn is_whole_read(leg: &Leg<'_>) -> bool {
    if leg.alone { leg.spec.name == "get" } else { leg.spec.name == "mget" }
}

impl Hot {
    fn choose(&self, leg: &mut Leg<'_>, now: Micros) -> Verdict {
        if !is_whole_read(leg) && !leg.alone {
            return Verdict::Next;
        }
        let hash = self.hash(leg.key);
        let known = self.keys.get(&hash);
        let Some(key) = known.filter(|key| *key.name == *leg.key && key.shard == leg.shard) else {
            // One that lives elsewhere now must leave first.
            leg.fill = self.config.near_all
                && known.is_none()
                && self.admits(leg)
                && self.fence.see(hash, leg.shard).is_some();
            // By another worker; and where every key may be let in the next read may do that.
            if self.config.near_all || self.fence.is_kept(hash) {
                leg.hot = Some(hash);
            }
            return Verdict::Next;
        };
        leg.hot = Some(hash);
        match key.means {
            Means::Copies(_) if leg.alone => {
                self.lead(key, hash, leg, now);
                Verdict::Next
            }
            Means::Near if leg.free && is_whole_read(leg) => {
                if self.entry(hash, now).is_some() {
                    return Verdict::Near;
                }
                leg.fill = leg.alone && self.may_fill(hash, key, now);
                Verdict::Next
            }
            Means::Replicas if leg.free && leg.alone && may_spread(leg) => {
                self.spread(leg, hash, now);
                Verdict::Next
            }
            _ => Verdict::Next,
        }
    }

    /// Chooses one of the shards that have the key.
    fn spread(&self, leg: &mut Leg<'_>, hash: u64, now: Micros) {
        let mut found = [0; MOST_REPLICAS + 1];
        let count = self.replicas.usable(hash, leg.shard, &self.fence, now, &mut found);
        if count < 2 || now < self.not_before {
            return;
        }
        let home = u32::from(leg.shard);
        let shard =
            self.choice.pick(found.get(..count).unwrap_or_default(), splitmix(self.seed ^ u64::from(leg.number)));
        (leg.spread, leg.shard) = (true, shard);
        // Numbers of connections wrap as little as they did when the leg was routed.
        leg.line = leg.line.wrapping_sub(home.wrapping_mul(self.lanes));
        leg.line = leg.line.wrapping_add(u32::from(shard).wrapping_mul(self.lanes));
    }
}

/// Whether a read may be answered by any server that has the key. Not what differs between two that have the same: cursors,
/// times to live by each server's clock, how a value is stored.
fn may_spread(leg: &Leg<'_>) -> bool {
    const OWN: [&str; 8] = ["hscan", "sscan", "zscan", "ttl", "pttl", "expiretime", "pexpiretime", "dump"];
    matches!(leg.spec.keys, Keys::One) && leg.wire.len() <= LONGEST_SPREAD && !OWN.contains(&leg.spec.name)
}
