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
mod reading;
mod replicas;
pub mod summary;
mod upkeep;

pub use board::{Board, Page, Row, shown};
pub use choice::Choice;
pub use clock::Clock;
pub use config::{Config, Reads, Rule};
pub use copies::{Copies, Filled, Gone, Order, Wanted, name as copy_name, rewrite, tells};
pub use detector::Level;
pub use fence::{Fence, Place, Seen};
pub use ladder::Site;
pub use near::{ABSENT, Entry, Fill, LONGEST, Put, Tracked, Tracking, Value};
pub use reading::{ReadFrom, Reading};
pub use replicas::{MOST as MOST_REPLICAS, Replicas};
pub use upkeep::Turns;

use super::{AsItIs, Event, Leg, Micros, Notices, Stage, Verdict, key_hash};
use crate::chance::splitmix;
use crate::command::{Access, Keys};
use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
    /// Since when its reads are served so.
    pub since: Micros,
    /// What all workers have to have reached before anything of it is kept; see [`Fence::keep`].
    epoch: u64,
    /// What is kept of it here.
    pub entry: Option<Entry>,
    /// What is asked for, to be kept.
    pub fill: Option<Fill>,
    /// What is being written, to be kept here, in the order in which it is sent.
    pub puts: Vec<Put>,
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
    /// Bytes of what is being written, to be kept.
    putting: usize,
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
    reading: Reading,
    /// Whether reads of any key may go to replicas.
    reads: bool,
    lanes: u32,
    /// How many shards have numbers.
    shards: u32,
    /// The epoch that this worker has reached; see [`Fence::join`].
    reached: Arc<AtomicU64>,
    /// One that it is about to reach, when all that was asked before this time has been answered.
    reaching: Option<(u64, Micros)>,
}

impl Hot {
    /// For a pool. `seed` keeps apps from choosing keys that collide, and is the same for all workers, as the fence is.
    #[must_use]
    pub fn new(config: Config, seed: u64, fence: Arc<Fence>) -> Self {
        let serves = config.serves();
        let reached = fence.join();
        Self {
            config,
            seed,
            fence,
            keys: HashMap::default(),
            tracked: Vec::new(),
            kept: 0,
            putting: 0,
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
            reading: Reading::default(),
            reads: false,
            lanes: 1,
            shards: 1,
            reached,
            reaching: None,
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
        self.replicas.inherit(before.replicas);
        // What was asked through the other may still be on its way.
        (self.reached, self.reaching) = (before.reached, before.reaching);
    }

    /// Whether others wait for what this worker has asked for without taking note of it; then they wait for all that was asked for
    /// at this time and before.
    pub fn to_reach(&mut self, now: Micros) -> Option<Micros> {
        let epoch = self.fence.epoch();
        if !self.serves || self.reached.load(Ordering::Relaxed) >= epoch {
            return None;
        }
        Some(self.reaching.get_or_insert((epoch, now)).1)
    }

    /// All of it has been answered.
    pub fn reach(&mut self) {
        if let Some((epoch, _)) = self.reaching.take() {
            self.reached.store(epoch, Ordering::SeqCst);
        }
    }

    /// Whether all that other workers had on its way to a key when it became one that may be kept has been answered.
    #[must_use]
    pub fn all_know(&self, hash: u64) -> bool {
        self.keys.get(&hash).is_some_and(|key| self.fence.reached(key.epoch, &self.reached))
    }

    /// The same for a pool with replicas, each given with the shard it follows, where `shards` shards have numbers and `lanes`
    /// connections each.
    #[must_use]
    pub fn with_replicas(self, replicas: &[(u16, u16)], shards: u16, lanes: u16) -> Self {
        // Asked as often as whoever wants the newest needs it.
        let both = self.config.staleness.min(self.reading.staleness);
        let staleness = match (self.config.serves(), self.reads) {
            (true, true) => both,
            (false, true) => self.reading.staleness,
            (_, false) => self.config.staleness,
        };
        let replicas = Replicas::new(replicas, staleness);
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
        let (keys, reads) = (&self.keys, self.reads);
        let is_wanted = |shard| reads || keys.values().any(|key| key.shard == shard && key.means == Means::Replicas);
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

    /// The hash of a key, if that may be served otherwise than by its shard.
    #[must_use]
    pub fn known_hash(&self, key: &[u8]) -> Option<u64> {
        if !self.keeps() {
            return None;
        }
        let hash = self.hash(key);
        (self.keys.contains_key(&hash) || self.is_kept(hash)).then_some(hash)
    }

    /// Whether there are hot keys that are served otherwise than by their shards.
    #[must_use]
    #[inline]
    pub fn keeps(&self) -> bool {
        !self.keys.is_empty() || self.config.near_all || self.fence.keeps()
    }

    /// Whether a key may be kept here, or by another worker.
    #[must_use]
    pub fn is_kept(&self, hash: u64) -> bool {
        // One that is not may be with the session's next read.
        self.config.near_all
            || self.keys.get(&hash).is_some_and(|key| key.means == Means::Near)
            || self.fence.is_kept(hash)
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
            epoch: 0,
            entry: None,
            fill: None,
            puts: Vec::new(),
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
            key.epoch = self.fence.keep(hash, means == Means::Near);
            (key.since, key.settled) = (now, false);
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
        let puts = key.iter().flat_map(|key| &key.puts);
        self.putting = self.putting.saturating_sub(puts.map(|put| put.value.len()).sum());
        if key.as_ref().is_some_and(|key| key.means == Means::Near) {
            self.fence.keep(hash, false);
        }
        key
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
            // Whatever is read of such keys is taken note of, by every worker: nothing can be on its way that nobody knows of.
            (key.settled, key.admitted) = (true, true);
        }
    }
}

impl Stage for Hot {
    #[inline]
    fn decide(&self, leg: &mut Leg<'_>, now: Micros) -> Verdict {
        if leg.spec.access != Access::Read
            || (self.keys.is_empty() && !self.config.near_all && !self.reads && !self.fence.keeps())
        {
            return Verdict::Next;
        }
        self.choose(leg, now)
    }

    fn observe(&mut self, event: &Event<'_>, now: Micros, _notices: &mut Notices) {
        if let Event::Failed(line, _) | Event::Connected(line) | Event::Closed(line) = event
            && !self.replicas.is_empty()
        {
            let shard = line.checked_div(self.lanes).and_then(|place| place.checked_rem(self.shards));
            let shard = shard.unwrap_or(0) as u16;
            match event {
                Event::Connected(_) => self.replicas.meet(shard, now),
                _ => self.replicas.forget(shard),
            }
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
                let place = (hash, key.shard);
                let count = self.replicas.usable(place, self.config.staleness, &self.fence, now, &mut found);
                let count = count.saturating_sub(1);
                format!("hot, read from its shard or one of {count} replicas that are known to be up to date")
            }
            (_, Some(key)) => match self.explain_reading(leg, now) {
                Some(reading) => format!("hot, {reading}"),
                None => format!("hot, served by {:?}", key.means),
            },
            _ if !self.serves => "off".into(),
            _ if leg.spec.access != Access::Read => "not hot".into(),
            _ => self.explain_reading(leg, now).unwrap_or_else(|| "not hot".into()),
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
                && (leg.no_writes || self.fence.see_still(hash, leg.shard).is_some());
            // By another worker; and where every key may be let in the next read may do that.
            if self.config.near_all || self.fence.is_kept(hash) {
                leg.hot = Some(hash);
                return Verdict::Next;
            }
            return self.read_from(leg, hash, now);
        };
        leg.hot = Some(hash);
        match key.means {
            Means::Copies(_) if leg.alone => {
                self.lead(key, hash, leg, now);
                Verdict::Next
            }
            Means::Near if leg.free && is_whole_read(leg) => {
                if self.entry(hash, leg.no_writes, now).is_some() {
                    return Verdict::Near;
                }
                leg.fill = leg.alone && self.may_fill(hash, key, leg.no_writes, now);
                Verdict::Next
            }
            Means::Replicas if self.reads && self.reading.of(leg.key) == ReadFrom::Replica => {
                self.read_from(leg, hash, now)
            }
            Means::Replicas if leg.free && leg.alone && may_spread(leg) => {
                self.spread(leg, hash, now);
                Verdict::Next
            }
            Means::Home => self.read_from(leg, hash, now),
            _ => Verdict::Next,
        }
    }

    /// Chooses one of the shards that have the key.
    fn spread(&self, leg: &mut Leg<'_>, hash: u64, now: Micros) {
        let mut found = [0; MOST_REPLICAS + 1];
        let count = self.replicas.usable((hash, leg.shard), self.config.staleness, &self.fence, now, &mut found);
        if count < 2 || now < self.not_before {
            return;
        }
        let shard =
            self.choice.pick(found.get(..count).unwrap_or_default(), splitmix(self.seed ^ u64::from(leg.number)));
        self.lead_to(leg, shard);
    }
}

/// Whether a read may be answered by any server that has the key. Not what differs between two that have the same: cursors,
/// times to live by each server's clock, how a value is stored.
fn may_spread(leg: &Leg<'_>) -> bool {
    const OWN: [&str; 8] = ["hscan", "sscan", "zscan", "ttl", "pttl", "expiretime", "pexpiretime", "dump"];
    matches!(leg.spec.keys, Keys::One) && leg.wire.len() <= LONGEST_SPREAD && !OWN.contains(&leg.spec.name)
}
