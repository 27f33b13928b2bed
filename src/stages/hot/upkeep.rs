//! Four times a second: which keys are hot, what each is served by from now on, and what people are told of it.

use super::board::{Board, MOST, Page, Row};
use super::detector::{Detector, Key, Level, MOST_NAMES, WINDOW};
use super::ladder::{Facts, Site, choose};
use super::{Config, Hot, Means, Reads};
use crate::stages::{Leg, Micros};
use std::sync::Arc;

/// What has become of keys since it was asked for last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turns {
    /// Keys that have become hot or warm.
    pub entered: u64,
    /// Keys that are so no more.
    pub left: u64,
    /// Reads that would have been served from elsewhere, where that is only observed.
    pub would_serve: u64,
}

/// Whom to tell, and as which worker.
#[derive(Debug, Default)]
pub(super) struct Teller {
    pub(super) board: Arc<Board>,
    pub(super) worker: usize,
}

/// Bytes of the longest reply that is copied to many apps at once.
const LONGEST_MERGED: f32 = 65536.0;

impl Hot {
    /// What there is beside a key's shard.
    #[must_use]
    pub fn at(mut self, site: Site) -> Self {
        self.site = site;
        self
    }

    /// Tells this board, as this worker.
    #[must_use]
    pub fn telling(mut self, board: Arc<Board>, worker: usize) -> Self {
        // Workers look at different legs.
        self.detector = Detector::new(self.seed.wrapping_add((worker as u64) << 32));
        self.teller = Teller { board, worker };
        self
    }

    /// The board.
    #[must_use]
    pub fn board(&self) -> &Board {
        &self.teller.board
    }

    /// How many clients a shard tells of changes, this process with them.
    pub fn set_trackers(&mut self, shard: u16, clients: u32) {
        let shard = usize::from(shard);
        if self.trackers.len() <= shard {
            self.trackers.resize(shard.saturating_add(1), 1);
        }
        if let Some(known) = self.trackers.get_mut(shard) {
            *known = clients.max(1);
        }
    }

    /// A leg was sent to its shard. Returns its key's hash if the reply's length is to be told to [`Hot::weigh`].
    #[inline]
    pub fn count(&mut self, leg: &Leg<'_>) -> Option<u64> {
        if self.detector.skips() {
            return None;
        }
        Some(self.look(leg, true))
    }

    /// A leg was answered otherwise, or shares another's flight.
    #[inline]
    pub fn count_unsent(&mut self, leg: &Leg<'_>) {
        if !self.detector.skips() {
            self.look(leg, false);
        }
    }

    #[inline(never)]
    fn look(&mut self, leg: &Leg<'_>, sent: bool) -> u64 {
        let hash = leg.hot.unwrap_or_else(|| self.hash(leg.key));
        // Of one that was led here or there it was said where.
        if sent && self.serves && !leg.spread {
            self.choice.saw(leg.shard, self.detector.stride());
        }
        self.detector.look(hash, leg, sent);
        hash
    }

    /// A shard has sent a reply of so many bytes to one of the legs that are looked at.
    pub fn burden(&mut self, shard: u16, bytes: u64) {
        if self.serves {
            let all = bytes.saturating_mul(self.detector.stride() as u64);
            self.choice.bore(shard, all);
        }
    }

    /// The reply to such a leg has so many bytes.
    pub fn weigh(&mut self, hash: u64, bytes: u64) {
        self.detector.weigh(hash, bytes);
    }

    /// What has become of keys since the last time; nothing before a window has been closed.
    pub fn take_turns(&mut self) -> Option<Turns> {
        if !std::mem::take(&mut self.closed) {
            return None;
        }
        let (entered, left) = self.detector.take_turns();
        Some(Turns { entered, left, would_serve: std::mem::take(&mut self.would_serve) })
    }

    /// How many keys have become hot or warm that were not taken note of.
    #[cfg(test)]
    pub(super) fn entered(&mut self) -> u64 {
        self.detector.take_turns().0
    }

    /// How many keys are hot or warm.
    #[must_use]
    pub fn hot_keys(&self) -> usize {
        self.detector.keys().filter(|(_, key)| key.level > Level::Cold).count()
    }

    /// Hashes of the hot keys equal reads of which are worth merging: not those whose replies are long.
    pub fn merged(&self) -> impl Iterator<Item = u64> {
        let wanted = |key: &Key| key.level == Level::Hot && key.size <= LONGEST_MERGED;
        self.detector.keys().filter(move |(_, key)| wanted(key)).map(|(hash, _)| hash)
    }

    /// Closes a window: keys enter and leave, and are served by other means.
    pub(super) fn close(&mut self, now: Micros) {
        self.choice.fade();
        let phi = share(&self.config, self.site);
        let gone = self.detector.close(phi, most(self.site.shards), now);
        gone.into_iter().for_each(|hash| _ = self.leave(hash));
        let (requests, bytes) = self.detector.all();
        let (_, span) = self.detector.spans();
        // One borrows the other.
        let mut keys = self.detector.take_keys();
        for (&hash, key) in &mut keys {
            if let Some(hot) = self.keys.get_mut(&hash) {
                let elsewhere = std::mem::take(&mut hot.looked_at);
                key.standing.learn(hot.served, hot.fills, hot.changes, elsewhere, now);
            } else {
                key.standing.learn(0, 0, 0, false, now);
            }
            if key.level == Level::Cold {
                if key.standing.means != Means::Home {
                    key.standing.take((Means::Home, ""), now);
                    self.leave(hash);
                }
                continue;
            }
            let rate = |count: f32| if span > 0.0 { count / span } else { 0.0 };
            let trackers = self.trackers.get(usize::from(key.shard)).copied().unwrap_or(1);
            let facts = Facts {
                wanted: self.config.reads_of(&key.name),
                level: key.level,
                lock: key.lock,
                size: key.size,
                share: part(key.requests.short, requests.short).max(part(key.bytes.short, bytes.short)),
                reads: rate(key.reads.long),
                // Of this process' writes its own shard tells, too.
                writes: rate(key.writes.long.max(key.standing.changes)),
                trackers: trackers as f32,
            };
            let site = Site { replicas: self.replicas.has(key.shard), ..self.site };
            let chosen = choose(&self.config, site, &facts, &key.standing, now);
            key.standing.take(chosen, now);
            if chosen.0 != Means::Home && facts.wanted.serves() {
                // It may live elsewhere now.
                if self.keys.get(&hash).is_some_and(|known| known.shard != key.shard) {
                    self.leave(hash);
                }
                self.enter(&key.name, key.shard, chosen.0, now);
            } else {
                if chosen.0 != Means::Home {
                    self.would_serve = self.would_serve.saturating_add(key.read_lately as u64);
                }
                self.leave(hash);
            }
        }
        self.detector.put_keys(keys);
        self.closed = true;
        self.tell(now);
    }

    /// Writes this worker's page.
    fn tell(&self, now: Micros) {
        let (requests, bytes) = self.detector.all();
        let (short, span) = self.detector.spans();
        let rate = |count: f32, span: f32| if span > 0.0 { f64::from(count / span) } else { 0.0 };
        let mut page = Page {
            rows: Vec::new(),
            keys: self.hot_keys(),
            requests: rate(requests.short, short),
            bytes: rate(bytes.short, short),
            loads: self.detector.loads().map(|load| rate(load, 10.0)).collect(),
        };
        let row = |key: &Key| Row {
            key: key.name.clone(),
            shard: key.shard,
            requests: rate(key.requests.short, short),
            bytes: rate(key.bytes.short, short),
            reads: rate(key.reads.long, span),
            writes: rate(key.writes.long, span),
            saved: rate(key.standing.served as f32, WINDOW as f32 / 1e6),
            share: {
                let over = f64::from(part(key.requests.over, requests.long));
                let surely = f64::from(part(key.requests.short, requests.short));
                (surely, (surely + over).min(1.0))
            },
            share_of_bytes: f64::from(part(key.bytes.short, bytes.short)),
            level: key.level,
            means: key.standing.means,
            observed: self.config.reads_of(&key.name) == Reads::Observe,
            why: key.standing.why,
            age: now.saturating_sub(key.since),
        };
        page.rows.extend(self.detector.keys().filter(|(_, key)| key.level > Level::Cold).map(|(_, key)| row(key)));
        page.sort();
        page.rows.truncate(MOST);
        self.teller.board.put(self.teller.worker, page);
    }
}

fn part(own: f32, all: f32) -> f32 {
    if all > 0.0 { (own / all).min(1.0) } else { 0.0 }
}

/// The share from which on a key is hot: what it adds to its shard's fair share of the load is more than is wanted.
fn share(config: &Config, site: Site) -> f32 {
    (config.extra_load as f32 / 1000.0 / f32::from(site.shards.max(1))).clamp(1e-5, 0.5)
}

/// How many keys may be hot or warm: for `n` shards the `n ln n` hottest are enough to even out any distribution (Fan, Lim,
/// Andersen, Kaminsky: "Small cache, big effect", 2011).
fn most(shards: u16) -> usize {
    let n = f32::from(shards.max(1));
    ((4.0 * n * n.ln()) as usize).clamp(64, MOST_NAMES)
}
