//! What metrics and people are told of a pool's hot keys, each time the detector has closed a window.

use crate::engine::Pool;

impl Pool {
    /// Takes over what has come of the stage since the last time; the gauges are about all workers.
    pub(in crate::engine) fn tell_of_hot_keys(&mut self) {
        let path = &mut self.config.path;
        let Some(turns) = path.hot.take_turns() else { return };
        path.merging.are_hot(path.hot.merged());
        let all = path.hot.board().all();
        let counts = &mut self.counts;
        counts.near_bytes.set(path.hot.kept() as u64);
        counts.hot_entered = counts.hot_entered.saturating_add(turns.entered);
        counts.hot_left = counts.hot_left.saturating_add(turns.left);
        counts.hot_would_serve = counts.hot_would_serve.saturating_add(turns.would_serve);
        counts.hot_keys.0 = all.keys as u64;
        counts.hot_key_share.0 = (all.largest_share() * 1e6) as u64;
        counts.shard_imbalance.0 = (all.imbalance(path.route.shards()) * 1e6) as u64;
    }
}
