//! Names of keys that are at home where they are wanted.

use super::workload::Homes;
use hotring::ring::{Distribution, KeyHash, Ring, Shard, slot_of};

/// The names that one app draws from; no two are alike, and no other app has any of them.
pub(crate) struct Names<'a> {
    homes: &'a Homes,
    ring: Option<Ring>,
    of: String,
    next: u64,
}

impl<'a> Names<'a> {
    pub(crate) fn new(homes: &'a Homes, seed: u64, app: u64) -> Self {
        let ring = match homes {
            Homes::Ring(count) => {
                let shards: Vec<Shard> = (0..*count).map(|n| Shard { name: format!("s{n}"), weight: 1 }).collect();
                Some(Ring::new(&shards, &[], KeyHash::Fnv1a_64, Distribution::Ketama, None))
            }
            Homes::Slots(_) => None,
        };
        Self { homes, ring, of: format!("{seed}:app{app}"), next: 0 }
    }

    /// A name at home there.
    pub(crate) fn one(&mut self, home: usize) -> String {
        loop {
            let name = format!("{}:{}", self.next, self.of);
            self.next += 1;
            let is_there = match (&self.ring, self.homes) {
                (Some(ring), _) => ring.shard_at(ring.position(name.as_bytes()), 0).map(usize::from) == Some(home),
                (None, Homes::Slots(ranges)) => ranges[home].contains(&slot_of(name.as_bytes())),
                (None, Homes::Ring(_)) => false,
            };
            if is_there {
                // A tag all of it: what is appended to it stays with it.
                return if self.ring.is_some() { name } else { format!("{{{name}}}") };
            }
        }
    }

    /// So many names at home there; where there are slots, in one.
    pub(crate) fn some(&mut self, home: usize, count: usize) -> Vec<String> {
        if self.ring.is_some() {
            return (0..count).map(|_| self.one(home)).collect();
        }
        let name = self.one(home);
        (0..count).map(|number| format!("{name}:{number}")).collect()
    }
}
