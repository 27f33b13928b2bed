//! Channels that move: where a shard is ejected or comes back, PUBLISH goes to another one, and whoever listens goes along.
//!
//! What is published between the move and the new home's word that it is subscribed is lost, as with any reconnect.

use super::{Kind, Name, Topic, tells_of_keys};
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
            if std::mem::replace(&mut place.channels.changes, changes) != changes {
                self.move_channels(pool as u16, port);
            }
        }
    }

    #[cold]
    fn move_channels(&mut self, pool: u16, port: &mut impl Port) {
        let Some(place) = self.pools.get(usize::from(pool)) else { return };
        let moved = |(name, topic): (&Name, &Topic)| {
            let everywhere = name.0 == Kind::Pattern || tells_of_keys(&name.1);
            let home = if everywhere { None } else { home(&place.config.path, &name.1, self.now) };
            home.filter(|&home| topic.shards != [home]).map(|home| (name.clone(), home))
        };
        let moved: Vec<(Name, u16)> = place.channels.topics.iter().filter_map(moved).collect();
        for (name, home) in moved {
            let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
            let Some(topic) = place.channels.topics.get_mut(&name) else { continue };
            topic.confirmed.clear();
            for shard in std::mem::replace(&mut topic.shards, vec![home]) {
                self.ask_ear(pool, shard, &name, name.0.words().1, false);
            }
            self.listen(pool, &name, port);
        }
    }
}
