//! Channels that move: where a shard is ejected or comes back, or the configuration has others, PUBLISH goes to another one,
//! and whoever listens goes along.
//!
//! What is published between the move and the new home's word that it is subscribed is lost, as with any reconnect.

use super::{Name, Topic, is_everywhere};
use crate::engine::Engine;
use crate::engine::port::Port;
use crate::stages::{Leg, Micros, Path, Stage, Verdict};

/// The shard where a channel is published; `None` where all are ejected. A shard that is down is one all the same.
fn home(path: &Path, name: &[u8], now: Micros) -> Option<u16> {
    let spec = crate::command::lookup(b"publish")?;
    let mut leg = Leg { alone: false, ..Leg::new(spec, name, b"") };
    (path.route.decide(&mut leg, now) == Verdict::Next).then_some(leg.shard)
}

impl Engine {
    /// Subscribes at their new homes the channels of those pools whose ring has changed.
    pub(in crate::engine) fn follow_homes(&mut self, port: &mut impl Port) {
        for pool in 0..self.pools.len() {
            let Some(place) = self.pools.get_mut(pool) else { return };
            let changes = place.config.path.route.changes();
            let again = place.channels.again.take_if(|at| self.now >= *at).is_some();
            if std::mem::replace(&mut place.channels.changes, changes) != changes || again {
                self.move_channels(pool as u16, port);
            }
        }
    }

    #[cold]
    fn move_channels(&mut self, pool: u16, port: &mut impl Port) {
        let Some(place) = self.pools.get(usize::from(pool)) else { return };
        let path = &place.config.path;
        let moved = |(name, topic): (&Name, &Topic)| {
            let homes = if is_everywhere(name.0, &name.1, place.cluster.is_some()) {
                path.route.shards().to_vec()
            } else {
                vec![home(path, &name.1, self.now)?]
            };
            (topic.shards != homes).then(|| (name.clone(), homes))
        };
        let moved: Vec<(Name, Vec<u16>)> = place.channels.topics.iter().filter_map(moved).collect();
        for (name, homes) in moved {
            let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
            let Some(topic) = place.channels.topics.get_mut(&name) else { continue };
            topic.confirmed.retain(|shard| homes.contains(shard));
            let before = std::mem::replace(&mut topic.shards, homes.clone());
            for &shard in before.iter().filter(|shard| !homes.contains(shard)) {
                self.ask_ear(pool, shard, &name, name.0.words().1, false);
            }
            let new = homes.into_iter().filter(|shard| !before.contains(shard)).collect();
            self.listen(pool, &name, new, port);
            // The shards that had not answered yet may be those that have left.
            self.confirm(pool, &name);
        }
    }
}
