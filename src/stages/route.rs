//! Finds a key's home: the shard that the ring gives it, and the session's connection to that shard.

use super::{Event, Leg, Micros, Notices, Refusal, Stage, Verdict};
use crate::ring::{Distribution, KeyHash, Ring, Shard};

/// What the ring is built from.
#[derive(Debug, Clone)]
pub struct Placement {
    /// The shards in the order of the config file.
    pub shards: Vec<Shard>,
    /// How keys are hashed.
    pub hash: KeyHash,
    /// How hashes are dealt to shards.
    pub distribution: Distribution,
    /// What counts of a key.
    pub hash_tag: Option<[u8; 2]>,
    /// Keys that begin so live on that shard, whatever the ring says and whether it is ejected or not; of several beginnings
    /// the longest counts.
    pub pins: Vec<(Box<[u8]>, u16)>,
}

impl Placement {
    /// The shard where a key is pinned to.
    fn pinned(&self, key: &[u8]) -> Option<u16> {
        let fitting = self.pins.iter().filter(|(beginning, _)| key.starts_with(beginning));
        fitting.max_by_key(|(beginning, _)| beginning.len()).map(|&(_, shard)| shard)
    }

    /// The one shard where all keys live, if it is pinned or there is only one.
    #[must_use]
    pub fn only(&self) -> Option<u16> {
        match (self.shards.len(), self.pins.as_slice()) {
            (1, _) => Some(0),
            (_, [(beginning, shard)]) if beginning.is_empty() => Some(*shard),
            _ => None,
        }
    }

    /// The ring over the shards that are live.
    #[must_use]
    pub fn ring(&self, live: &[bool]) -> Ring {
        Ring::new(&self.shards, live, self.hash, self.distribution, self.hash_tag)
    }
}

/// The stage. Owns the ring; ejected shards leave it and come back.
pub struct Route {
    placement: Placement,
    ring: Ring,
    live: Vec<bool>,
    lanes: u16,
    changes: u32,
}

impl Route {
    /// Routes over all shards of `placement`, each with `lanes` connections.
    #[must_use]
    pub fn new(placement: Placement, lanes: u16) -> Self {
        let live = vec![true; placement.shards.len()];
        let ring = placement.ring(&live);
        Self { placement, ring, live, lanes, changes: 0 }
    }

    /// The ring as it is now.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    fn set(&mut self, shard: u16, live: bool) {
        if let Some(place) = self.live.get_mut(usize::from(shard))
            && *place != live
        {
            *place = live;
            self.ring = self.placement.ring(&self.live);
            self.changes = self.changes.wrapping_add(1);
        }
    }
}

impl Route {
    /// How often the ring has changed; wraps.
    #[must_use]
    pub fn changes(&self) -> u32 {
        self.changes
    }

    /// See [`Placement::only`].
    #[must_use]
    pub fn only(&self) -> Option<u16> {
        self.placement.only()
    }
}

impl Stage for Route {
    #[inline]
    fn decide(&self, leg: &mut Leg<'_>, _now: Micros) -> Verdict {
        let home = if self.placement.pins.is_empty() { None } else { self.placement.pinned(leg.key) };
        match home.or_else(|| self.ring.shard_at(self.ring.position(leg.key), leg.number)) {
            Some(shard) => {
                leg.shard = shard;
                leg.line = leg.base + u32::from(shard) * u32::from(self.lanes) + u32::from(leg.lane);
                Verdict::Next
            }
            None => Verdict::Refuse(Refusal::NoShard),
        }
    }

    fn observe(&mut self, event: &Event<'_>, _now: Micros, _notices: &mut Notices) {
        match event {
            Event::Ejected(shard) => self.set(*shard, false),
            Event::Restored(shard) => self.set(*shard, true),
            _ => {}
        }
    }

    fn explain(&self, leg: &Leg<'_>, verdict: Verdict, _now: Micros) -> String {
        if verdict != Verdict::Next {
            return verdict.to_string();
        }
        let hashed = self.ring.tagged(leg.key);
        let of = if hashed.len() == leg.key.len() { "the key's hash" } else { "the hash of its hash tag" };
        let name = self.placement.shards.get(usize::from(leg.shard)).map_or("", |s| s.name.as_str());
        if self.placement.pinned(leg.key).is_some() {
            return format!("pinned to {name}");
        }
        format!("position {:#010x} ({of}), home is {name}", self.ring.position(leg.key))
    }
}
