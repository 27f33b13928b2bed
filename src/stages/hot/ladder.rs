//! By which means the reads of a hot key are served: a ladder, of which the first rung that bears is taken.
//!
//! ```text
//! memory     if the value is short, and telling of its changes costs its shard little, and what is read is used often enough
//! replicas   if there are any
//! copies     if it is read much more often than written, so that copies live long enough
//! its shard  otherwise
//! ```
//!
//! A warm key matters too little for more than memory. A lock, and what is written nearly as often as read, is served by its
//! shard only.

use super::detector::Level;
use super::{Config, Means, Reads};
use crate::stages::Micros;

/// Most work that telling of a key's changes may make its shard, in tracking clients times changes a second: about 2 % of
/// a core.
const MOST_TELLING: f32 = 2500.0;
/// Fewer answers from what was read once are not worth it.
const LEAST_HITS: f32 = 4.0;
/// After so many windows memory was of no use to a key that nobody has read from it.
const IDLE: u32 = 8;
/// Longest that this process' writes may keep reads from copies, as a multiple of the time between two of them.
const MOST_PINNED: f32 = 2.0;
/// Reads for each write from which on copies live long enough.
const COPIES_FROM: f32 = 20.0;
/// Reads a second from which on copies are worth their making, or bytes a second.
const COPIES_RATE: (f32, f32) = (8.0, 1e6);
/// Reads for each write below which nothing but its shard serves a key.
const HOME_BELOW: f32 = 4.0;
/// How long memory is not tried again after it was of no use, at first and at last.
const BAN: (Micros, Micros) = (10_000_000, 160_000_000);
/// How long a number of copies stands.
const HOLD: Micros = 10_000_000;
/// Numbers of copies: more would be changes for nothing.
const STEPS: [u16; 10] = [2, 3, 4, 6, 8, 12, 16, 24, 32, 64];

/// What there is beside the key's shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// Shards, its own with them.
    pub shards: u16,
    /// Whether they have replicas.
    pub replicas: bool,
}

/// What is known of a key.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// What is wanted for it.
    pub wanted: Reads,
    /// How much it matters.
    pub level: Level,
    /// Whether it is a lock.
    pub lock: bool,
    /// Bytes of its value, about.
    pub size: f32,
    /// Its share of the pool's requests or bytes.
    pub share: f32,
    /// Reads a second.
    pub reads: f32,
    /// Writes a second, this process' or those that were heard of.
    pub writes: f32,
    /// Clients that the shard must tell of its changes.
    pub trackers: f32,
}

/// What a key's reads are served by, and what came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Standing {
    /// What was chosen last.
    pub means: Means,
    /// Why it is not more, in words for a person.
    pub why: &'static str,
    /// Since when so many copies are wanted.
    held: Option<(u16, Micros)>,
    /// Answers from memory, and what was read for them, fading.
    hits: f32,
    fills: f32,
    /// What the key's own counts were when they were looked at last.
    before: (u64, u64, u64),
    /// Memory is of no use until then, and for how long it was found so.
    banned: (Micros, Micros),
    /// Windows in which it was served from memory and nobody read it in a way that memory can answer.
    idle: u32,
    /// Answers from memory in the window that was closed last.
    pub served: u64,
    /// Changes that were heard of, fading.
    pub changes: f32,
}

impl Standing {
    /// Takes note of how often a key was answered from memory, was read for that, and was changed, all since it is hot.
    /// `elsewhere`: it was read lately in a way that memory cannot answer.
    pub fn learn(&mut self, served: u64, fills: u64, changes: u64, elsewhere: bool, now: Micros) {
        let since = |now: u64, before: u64| if now < before { now } else { now.saturating_sub(before) };
        self.served = since(served, self.before.0);
        let fills_lately = since(fills, self.before.1) as f32;
        let changes_lately = since(changes, self.before.2) as f32;
        self.before = (served, fills, changes);
        self.changes = self.changes.mul_add(31.0 / 32.0, changes_lately);
        self.hits = self.hits.mul_add(31.0 / 32.0, self.served as f32);
        self.fills = self.fills.mul_add(31.0 / 32.0, fills_lately);
        // Another type than a string, or commands that look at a part of it.
        let unused = self.means == Means::Near && self.served == 0 && fills_lately == 0.0;
        self.idle = if unused { self.idle.saturating_add(u32::from(elsewhere)) } else { 0 };
        if self.idle >= IDLE || (self.fills >= 4.0 && self.hits < LEAST_HITS * self.fills) {
            self.idle = 0;
            let span = self.banned.1.saturating_mul(2).clamp(BAN.0, BAN.1);
            self.banned = (now.saturating_add(span), span);
            (self.hits, self.fills) = (0.0, 0.0);
        } else if self.fills >= 4.0 && self.hits > 4.0 * LEAST_HITS * self.fills {
            self.banned.1 = 0;
        }
    }

    /// Whether memory was found to be of no use a short while ago.
    #[must_use]
    pub fn is_banned(&self, now: Micros) -> bool {
        now < self.banned.0
    }

    /// Takes what was chosen.
    pub fn take(&mut self, (means, why): (Means, &'static str), now: Micros) {
        (self.means, self.why) = (means, why);
        self.held = match (means, self.held) {
            (Means::Copies(wanted), Some((held, since))) if wanted == held => Some((held, since)),
            (Means::Copies(wanted), _) => Some((wanted, now)),
            _ => None,
        };
    }
}

/// What a key's reads are to be served by, and why by no more than that.
#[must_use]
pub fn choose(config: &Config, site: Site, facts: &Facts, standing: &Standing, now: Micros) -> (Means, &'static str) {
    let home = |why| (Means::Home, why);
    let wanted = match facts.wanted {
        Reads::Off => return home("reads: off"),
        Reads::Observe => Reads::Auto,
        wanted => wanted,
    };
    if facts.level == Level::Cold {
        return home("not hot any more");
    }
    if facts.lock {
        return home("last set with NX, as locks are");
    }
    if facts.reads < HOME_BELOW * facts.writes {
        return home("written too often");
    }
    let any = |of: Reads| wanted == of || wanted == Reads::Auto;
    let mut why = "";
    if any(Reads::Near) {
        why = if facts.size > config.longest_near as f32 {
            "too long for memory"
        } else if facts.writes * facts.trackers > MOST_TELLING {
            "changes too often for memory"
        } else if standing.is_banned(now) {
            "memory was of little use"
        } else {
            return (Means::Near, "");
        };
    }
    if facts.level < Level::Hot {
        return home(if why.is_empty() { "not hot enough for more than memory" } else { why });
    }
    if any(Reads::Replicas) {
        if site.replicas {
            return (Means::Replicas, why);
        }
        why = if why.is_empty() { "no replicas" } else { why };
    }
    if any(Reads::Copies) {
        if site.shards < 2 || config.most_copies < 2 {
            return home("no other shard");
        }
        if facts.size > config.longest_copy as f32 {
            return home("too long for copies");
        }
        // Each write holds reads at home for as long as a copy from before it may live.
        let pinned = facts.writes * (config.staleness as f32 / 1e6 + 0.3);
        if facts.reads < COPIES_FROM * facts.writes || pinned > MOST_PINNED {
            return home("written too often for copies");
        }
        if facts.reads < COPIES_RATE.0 && facts.reads * facts.size < COPIES_RATE.1 {
            return home("read too seldom for copies");
        }
        return (Means::Copies(copies(config, site, facts.share, standing, now)), why);
    }
    home(why)
}

/// On how many shards a key of this share is to be.
fn copies(config: &Config, site: Site, share: f32, standing: &Standing, now: Micros) -> u16 {
    if let Some((held, since)) = standing.held
        && now.saturating_sub(since) < HOLD
    {
        return held.min(config.most_copies).min(site.shards);
    }
    let extra = (config.extra_load as f32 / 1000.0).max(0.001);
    let needed = (f32::from(site.shards) * share / extra).ceil() as u16;
    let step = STEPS.into_iter().find(|&step| step >= needed).unwrap_or(u16::MAX);
    step.min(config.most_copies).min(site.shards)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: Site = Site { shards: 16, replicas: false };
    const FACTS: Facts = Facts {
        wanted: Reads::Auto,
        level: Level::Hot,
        lock: false,
        size: 100.0,
        share: 0.19,
        reads: 5000.0,
        writes: 1.0,
        trackers: 1.0,
    };

    fn means(site: Site, facts: Facts, standing: &Standing, now: Micros) -> Means {
        choose(&Config::default(), site, &facts, standing, now).0
    }

    #[test]
    fn the_first_rung_that_bears_is_taken() {
        let new = Standing::default();
        let replicas = Site { replicas: true, ..SITE };
        let long = Facts { size: 1e5, ..FACTS };
        for (site, facts, expected) in [
            (SITE, FACTS, Means::Near),
            (SITE, Facts { wanted: Reads::Off, ..FACTS }, Means::Home),
            (SITE, Facts { wanted: Reads::Observe, ..FACTS }, Means::Near),
            (SITE, Facts { level: Level::Warm, ..FACTS }, Means::Near),
            (SITE, Facts { lock: true, ..FACTS }, Means::Home),
            (SITE, Facts { writes: 1251.0, ..FACTS }, Means::Home),
            (SITE, long, Means::Copies(16)),
            (replicas, long, Means::Replicas),
            (SITE, Facts { level: Level::Warm, ..long }, Means::Home),
            (SITE, Facts { wanted: Reads::Near, ..long }, Means::Home),
            (SITE, Facts { wanted: Reads::Replicas, ..FACTS }, Means::Home),
            (SITE, Facts { size: 2e6, ..FACTS }, Means::Home),
            (SITE, Facts { trackers: 3000.0, ..FACTS }, Means::Copies(16)),
            (SITE, Facts { trackers: 3000.0, writes: 251.0, ..FACTS }, Means::Home),
            (Site { shards: 1, ..SITE }, long, Means::Home),
            (SITE, Facts { reads: 7.0, writes: 0.0, ..long }, Means::Home),
            (SITE, Facts { reads: 11.0, writes: 0.0, ..long }, Means::Copies(16)),
        ] {
            assert_eq!(means(site, facts, &new, 0), expected, "{site:?} {facts:?}");
        }
    }

    #[test]
    fn copies_follow_the_share_in_steps_and_stand_for_a_while() {
        let mut standing = Standing::default();
        let of = |share| Facts { wanted: Reads::Copies, share, ..FACTS };
        for (share, copies) in [(0.001, 2), (0.04, 3), (0.07, 6), (0.1, 8), (0.13, 12), (1.0, 16)] {
            assert_eq!(means(SITE, of(share), &standing, 0), Means::Copies(copies), "{share}");
        }
        assert_eq!(means(Site { shards: 3, ..SITE }, of(1.0), &standing, 0), Means::Copies(3));
        standing.take((Means::Copies(4), ""), 0);
        standing.take((Means::Copies(4), ""), HOLD - 1);
        assert_eq!(means(SITE, of(0.1), &standing, HOLD - 1), Means::Copies(4));
        assert_eq!(means(SITE, of(0.1), &standing, HOLD), Means::Copies(8));
    }

    #[test]
    fn memory_that_is_of_no_use_is_left_alone_for_longer_and_longer() {
        let mut standing = Standing::default();
        let (mut now, mut served, mut fills, mut spans) = (1, 0, 0, Vec::new());
        for _ in 0..6 {
            while !standing.is_banned(now) {
                (served, fills) = (served + 3, fills + 1);
                standing.learn(served, fills, 0, false, now);
                now += 250_000;
            }
            assert_eq!(means(SITE, FACTS, &standing, now), Means::Copies(16));
            let from = now;
            while standing.is_banned(now) {
                now += 250_000;
            }
            spans.push((now - from).div_ceil(10_000_000));
        }
        assert_eq!(spans, [1, 2, 4, 8, 16, 16]);
        for _ in 0..100 {
            (served, fills) = (served + 50, fills + 1);
            standing.learn(served, fills, 0, false, now);
        }
        assert!(!standing.is_banned(now));
    }
}
