//! Which keys are asked for, or weigh, so much that they matter to their shard.
//!
//! Of all legs (below 20 000 a second) or of one in eight (above; at random, since pipelines have rhythms) the key is counted
//! in a [`Summary`], and the bytes of its reply in another. Every 250 ms a window is closed and the keys are judged:
//!
//! - *hot*: its share of the requests, or of the bytes, surely exceeds `phi` in the last second, in two of three windows; or
//!   it exceeds four times that in one window. `phi` is what one key may add to its shard's fair share of the load, divided
//!   by the number of shards. It is so until it was below half of that for two seconds, and for ten seconds at least.
//! - *warm*: its share of the requests surely exceeds `phi / 8` in the last eight seconds, in two of three windows; until
//!   it was seen so much less than half of that would be that chance does not explain it, and for ten seconds at least.
//!
//! Promises: "surely" means what was really counted of it, so no key that shares a counter with others is ever taken for hot;
//! with fewer than 16 samples none is. No clock: the engine's time is an argument; chance only from a seed. Memory is
//! [`Detector::BYTES`] and at most [`MOST_NAMES`] names of [`LONGEST_NAME`] bytes. Keys of different databases that are
//! called the same count as one. Longer keys are never hot.

use super::AsItIs;
use super::ladder::Standing;
use super::summary::{Counts, Summary};
use crate::chance::splitmix;
use crate::command::Access;
use crate::resp::Request;
use crate::stages::{Leg, Micros};
use std::collections::HashMap;
use std::hash::BuildHasherDefault;

/// How long a window is.
pub const WINDOW: Micros = 250_000;
/// Longest key that can be hot.
pub const LONGEST_NAME: usize = 256;
/// Most keys whose names are kept: 512, of 256 bytes and about as many beside; 256 KiB if all are as long as can be.
pub const MOST_NAMES: usize = 512;
/// Requests a second from which on one of [`STRIDE`] is counted.
const MANY: f32 = 20_000.0;
/// See [`MANY`].
const STRIDE: u32 = 8;
/// Legs that may be left out between two that are looked at: fewer than this, [`STRIDE`] less one on average.
const GAPS: u64 = 15;
/// Fewer samples tell nothing.
const SAMPLES: f32 = 16.0;
/// The same of replies, which weigh.
const REPLIES: f32 = 8.0;
/// A key that weighs less than this in the long memory is not noted for it, in bytes.
const LEAST_BYTES: f32 = 65536.0;
/// How much less a warm key needs than a hot one.
const WARM: f32 = 1.0 / 8.0;
/// How long a key is at least what it has become.
const RESIDENCE: Micros = 10_000_000;
/// Samples that a warm key must be short of half its threshold to be so no more: it happens by chance to a key on the
/// threshold once in ten thousand years.
const SHORT_OF: f32 = 12.0;
/// What is left of a key's own long memory after a window, as in [`Summary`].
const LONG: f32 = 31.0 / 32.0;
const SHORT: f32 = 3.0 / 4.0;
/// What is left of what a shard was sent after a window: ten seconds' worth.
const LOAD: f32 = 39.0 / 40.0;

/// How much a key matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Not at all; its name is known in case it will.
    #[default]
    Cold,
    /// Enough to be answered from memory.
    Warm,
    /// To its shard.
    Hot,
}

/// What was seen of something in the open window, and in the long memory with it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    window: f32,
    /// In about eight seconds, without the open window.
    pub long: f32,
}

impl Seen {
    pub(super) fn add(&mut self, weight: f32) {
        self.window += weight;
    }

    fn close(&mut self) -> f32 {
        self.long = self.long.mul_add(LONG, self.window);
        std::mem::take(&mut self.window)
    }
}

/// A key that is hot or warm or may become so.
#[derive(Debug)]
pub struct Key {
    /// The key.
    pub name: Box<[u8]>,
    /// Where it lives, as its last leg was sent.
    pub shard: u16,
    /// How much it matters.
    pub level: Level,
    /// Since when it is not cold.
    pub since: Micros,
    /// Of the requests, in the last second and longer.
    pub requests: Counts,
    /// Of the bytes of replies.
    pub bytes: Counts,
    /// Requests that can change nothing.
    pub reads: Seen,
    /// Requests that may.
    pub writes: Seen,
    /// Reads in the window that was closed last.
    pub read_lately: f32,
    /// Bytes of a reply: the largest one, fading.
    pub size: f32,
    /// It was last set only if it did not exist: a lock, most likely.
    pub lock: bool,
    /// What its reads are served by, and what that was good for.
    pub standing: Standing,
    hot_since: Micros,
    /// Replies that were weighed.
    weighed: Seen,
    hot_in: u8,
    warm_in: u8,
    below: u8,
    short_of: f32,
}

/// The keys that are known by name, by their hashes.
pub(super) type Keys = HashMap<u64, Key, BuildHasherDefault<AsItIs>>;

/// What all keys are measured by.
#[derive(Clone, Copy, Debug)]
struct Measure {
    phi: f32,
    requests: Counts,
    bytes: Counts,
    /// What one sample stands for.
    sample: f32,
    now: Micros,
}

/// See the module.
#[derive(Debug)]
pub struct Detector {
    /// Legs that are not looked at before the next one that is.
    skip: u32,
    stride: u32,
    draws: u64,
    sampled: u32,
    requests: Summary,
    bytes: Summary,
    /// From where on a name is kept.
    note: (f32, f32),
    keys: Keys,
    opened: Micros,
    /// How long the short and the long memory are, in seconds.
    spans: (f32, f32),
    /// What each shard was sent: in the open window, and in about ten seconds.
    loads: Vec<(f32, f32)>,
    entered: u64,
    left: u64,
}

impl Detector {
    /// Bytes that are always taken; names and what belongs to them come on top.
    pub const BYTES: usize = Summary::BYTES.saturating_mul(2).saturating_add(size_of::<Self>());

    /// Nothing seen yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            skip: 0,
            stride: 1,
            draws: seed,
            sampled: 0,
            requests: Summary::default(),
            bytes: Summary::default(),
            note: (SAMPLES / 2.0, LEAST_BYTES),
            keys: HashMap::default(),
            opened: 0,
            spans: (0.0, 0.0),
            loads: Vec::new(),
            entered: 0,
            left: 0,
        }
    }

    /// Whether the next leg is not looked at.
    #[inline]
    pub fn skips(&mut self) -> bool {
        let skips = self.skip > 0;
        self.skip = self.skip.saturating_sub(1);
        skips
    }

    /// How many legs one that is looked at stands for.
    #[must_use]
    pub fn stride(&self) -> f32 {
        self.stride as f32
    }

    /// Looks at a leg whose key has this hash; `sent` if it goes to its shard.
    #[inline(never)]
    pub fn look(&mut self, hash: u64, leg: &Leg<'_>, sent: bool) {
        let sample = self.sample();
        if sent {
            self.load(leg.shard, sample);
        }
        if leg.key.is_empty() || leg.key.len() > LONGEST_NAME {
            return self.requests.add_other(sample);
        }
        let count = self.requests.add(hash, sample);
        let noted = count >= self.note.0 || {
            let bytes = self.bytes.of(hash);
            bytes.long + bytes.window >= self.note.1
        };
        if noted {
            self.note(hash, leg, sample);
        }
    }

    /// Looks at a read of a hot key that did not go to its shard.
    pub fn see(&mut self, hash: u64) {
        let sample = self.sample();
        self.requests.add(hash, sample);
        if let Some(key) = self.keys.get_mut(&hash) {
            key.reads.add(sample);
        }
    }

    /// What this sample stands for; says which one is the next.
    #[inline]
    fn sample(&mut self) -> f32 {
        let sample = self.stride as f32;
        self.sampled = self.sampled.saturating_add(1);
        if self.stride > 1 {
            self.draws = self.draws.wrapping_add(1);
            // From 0 to 14, so that one of eight is looked at in the long run.
            self.skip = (splitmix(self.draws) % GAPS) as u32;
        } else if self.sampled as f32 > MANY * (WINDOW as f32 / 1e6) {
            self.stride = STRIDE;
        }
        sample
    }

    fn load(&mut self, shard: u16, sample: f32) {
        let shard = usize::from(shard);
        if self.loads.len() <= shard {
            self.loads.resize(shard.saturating_add(1), (0.0, 0.0));
        }
        if let Some((window, _)) = self.loads.get_mut(shard) {
            *window += sample;
        }
    }

    fn note(&mut self, hash: u64, leg: &Leg<'_>, sample: f32) {
        if self.keys.len() >= MOST_NAMES && !self.keys.contains_key(&hash) {
            return;
        }
        let key = self.keys.entry(hash).or_insert_with(|| Key::new(leg.key, leg.shard));
        key.shard = leg.shard;
        match leg.spec.access {
            Access::Write => {
                key.writes.add(sample);
                key.see_write(leg);
            }
            Access::Read | Access::Neither => key.reads.add(sample),
        }
    }

    /// Counts the bytes of a reply to a leg that was looked at.
    pub fn weigh(&mut self, hash: u64, bytes: u64) {
        let (bytes, sample) = (bytes as f32, self.stride as f32);
        self.bytes.add(hash, bytes * sample);
        if let Some(key) = self.keys.get_mut(&hash) {
            key.weighed.add(1.0);
            key.size = if bytes > key.size { bytes } else { key.size + (bytes - key.size) / 16.0 };
        }
    }

    /// Whether the open window is to be closed.
    #[must_use]
    pub fn is_due(&self, now: Micros) -> bool {
        now.saturating_sub(self.opened) >= WINDOW
    }

    /// Closes the window and judges all keys. `phi` is the share from which on a key is hot, `most` how many may be hot or
    /// warm. Returns the hashes of those that are not known any more.
    pub fn close(&mut self, phi: f32, most: usize, now: Micros) -> Vec<u64> {
        let length = now.saturating_sub(self.opened) as f32 / 1e6;
        let first = self.opened == 0;
        self.opened = now;
        self.requests.close();
        self.bytes.close();
        self.loads.iter_mut().for_each(|(window, long)| *long = long.mul_add(LOAD, std::mem::take(window)));
        let measure =
            Measure { phi, requests: self.requests.all(), bytes: self.bytes.all(), sample: self.stride as f32, now };
        // The clock may have begun long before.
        let length = if first { length.min(WINDOW as f32 / 1e6) } else { length };
        self.spans = (self.spans.0.mul_add(SHORT, length), self.spans.1.mul_add(LONG, length));
        let mut gone = Vec::new();
        let mut held = 0;
        for (&hash, key) in &mut self.keys {
            let before = key.level;
            key.judge(self.requests.of(hash), self.bytes.of(hash), &measure);
            match (before, key.level) {
                (Level::Cold, Level::Warm | Level::Hot) => self.entered = self.entered.saturating_add(1),
                (Level::Warm | Level::Hot, Level::Cold) => {
                    self.left = self.left.saturating_add(1);
                    self.requests.forget(hash);
                }
                _ => {}
            }
            let known = key.requests.long >= self.note.0 / 2.0 || key.bytes.long >= self.note.1 / 2.0;
            match key.level {
                Level::Cold if !known => gone.push(hash),
                Level::Cold => {}
                Level::Warm | Level::Hot => held = usize::saturating_add(held, 1),
            }
        }
        self.keep_to(most, held);
        gone.iter().for_each(|hash| _ = self.keys.remove(hash));
        self.stride = if measure.requests.window > MANY * length.max(1e-3) { STRIDE } else { 1 };
        let sample = self.stride as f32;
        if self.stride == 1 {
            self.skip = 0;
        }
        self.note = (
            (phi * WARM / 2.0 * measure.requests.long).max(SAMPLES / 2.0 * sample),
            (phi / 2.0 * measure.bytes.long).max(LEAST_BYTES),
        );
        self.sampled = 0;
        self.requests.open();
        self.bytes.open();
        gone
    }

    /// Gives up the least ones where there are too many.
    fn keep_to(&mut self, most: usize, held: usize) {
        for _ in most..held {
            let rank = |key: &Key| (key.level, key.requests.long as u64);
            let least = self.keys.values_mut().filter(|key| key.level > Level::Cold).min_by_key(|key| rank(key));
            if let Some(key) = least {
                key.level = Level::Cold;
                self.left = self.left.saturating_add(1);
            }
        }
    }

    /// The keys that are known by name.
    pub fn keys(&self) -> impl Iterator<Item = (u64, &Key)> {
        self.keys.iter().map(|(&hash, key)| (hash, key))
    }

    /// The same, taken out to be changed; they come back with [`Detector::put_keys`].
    pub(super) fn take_keys(&mut self) -> Keys {
        std::mem::take(&mut self.keys)
    }

    /// See [`Detector::take_keys`].
    pub(super) fn put_keys(&mut self, keys: Keys) {
        self.keys = keys;
    }

    /// All requests, and all bytes.
    #[must_use]
    pub fn all(&self) -> (Counts, Counts) {
        (self.requests.all(), self.bytes.all())
    }

    /// How long the short and the long memory are, in seconds.
    #[must_use]
    pub fn spans(&self) -> (f32, f32) {
        self.spans
    }

    /// What each shard was sent in about ten seconds.
    pub fn loads(&self) -> impl Iterator<Item = f32> {
        self.loads.iter().map(|&(_, long)| long)
    }

    /// How many keys have become hot or warm, and cold again, since the last time.
    pub fn take_turns(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.entered), std::mem::take(&mut self.left))
    }
}

impl Key {
    fn new(name: &[u8], shard: u16) -> Self {
        Self {
            name: name.into(),
            shard,
            level: Level::Cold,
            since: 0,
            requests: Counts::default(),
            bytes: Counts::default(),
            reads: Seen::default(),
            writes: Seen::default(),
            read_lately: 0.0,
            size: 0.0,
            lock: false,
            standing: Standing::default(),
            hot_since: 0,
            weighed: Seen::default(),
            hot_in: 0,
            warm_in: 0,
            below: 0,
            short_of: 0.0,
        }
    }

    /// Whether it is a lock: what deletes one or prolongs it tells nothing.
    fn see_write(&mut self, leg: &Leg<'_>) {
        match leg.spec.name {
            "setnx" | "msetnx" => self.lock = true,
            "set" => {
                let nx = |request: Request<'_>| request.args().skip(3).any(|word| word.eq_ignore_ascii_case(b"NX"));
                self.lock = Request::parse(leg.wire).is_some_and(nx);
            }
            "setex" | "psetex" | "getset" | "mset" => self.lock = false,
            _ => {}
        }
    }

    fn judge(&mut self, requests: Counts, bytes: Counts, of: &Measure) {
        (self.requests, self.bytes) = (requests, bytes);
        self.read_lately = self.reads.close();
        self.writes.close();
        self.weighed.close();
        let enough = SAMPLES * of.sample;
        let (hot, warm) = (of.phi, of.phi * WARM);
        let above = |share: f32, own: f32, all: f32| own > share * all;
        let by_requests = above(hot, requests.short, of.requests.short)
            && (requests.short >= enough || requests.long >= enough && above(hot, requests.long, of.requests.long));
        let by_bytes = self.weighed.long >= REPLIES && above(hot, bytes.short, of.bytes.short);
        let by_warmth = requests.long >= enough && above(warm, requests.long, of.requests.long);
        let flash = requests.window >= enough && above(4.0 * hot, requests.window, of.requests.window);
        // In a window in which nothing happened nothing was found out.
        let busy = of.requests.window > 0.0;
        if busy {
            let seen = requests.window > 0.0;
            self.hot_in = (self.hot_in << 1 | u8::from((by_requests || by_bytes) && seen)) & 0b111;
            self.warm_in = (self.warm_in << 1 | u8::from(by_warmth)) & 0b111;
        }
        let below =
            !above(hot / 2.0, requests.short, of.requests.short) && !above(hot / 2.0, bytes.short, of.bytes.short);
        self.below = if below || !busy { self.below.saturating_add(1) } else { 0 };
        let expected = if busy { warm / 2.0 * of.requests.window } else { of.sample };
        self.short_of = (self.short_of + expected - requests.window).max(0.0);
        let stays = |since: Micros| of.now.saturating_sub(since) < RESIDENCE;
        if flash || self.hot_in.count_ones() >= 2 {
            if self.level < Level::Hot {
                self.hot_since = of.now;
                self.below = 0;
            }
            if self.level == Level::Cold {
                self.since = of.now;
            }
            self.level = Level::Hot;
        }
        match self.level {
            Level::Hot if self.below >= 8 && !stays(self.hot_since) => {
                self.level = Level::Warm;
                self.hot_in = 0;
            }
            Level::Cold if self.warm_in.count_ones() >= 2 && busy => {
                self.level = Level::Warm;
                self.since = of.now;
                self.short_of = 0.0;
            }
            _ => {}
        }
        if self.level == Level::Warm && self.short_of >= SHORT_OF * of.sample && !stays(self.since) {
            self.level = Level::Cold;
            (self.hot_in, self.warm_in) = (0, 0);
        }
    }
}

#[cfg(test)]
#[path = "detector_tests.rs"]
mod tests;
