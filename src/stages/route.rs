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
}

impl Placement {
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
}

impl Route {
    /// Routes over all shards of `placement`, each with `lanes` connections.
    #[must_use]
    pub fn new(placement: Placement, lanes: u16) -> Self {
        let live = vec![true; placement.shards.len()];
        let ring = placement.ring(&live);
        Self { placement, ring, live, lanes }
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
        }
    }
}

impl Stage for Route {
    #[inline]
    fn decide(&self, leg: &mut Leg<'_>, _now: Micros) -> Verdict {
        let position = self.ring.position(leg.key);
        match self.ring.shard_at(position, leg.number) {
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
        format!("position {:#010x} ({of}), home is {name}", self.ring.position(leg.key))
    }
}
