//! Sampled requests on their way from the engine to whoever tells of them, with the names of what they met.

use super::wall_clock_micros;
use crate::engine::samples::{Sample, Sampling};
use crate::hub::Hub;
use crate::live::{Live, LivePool, Place};
use crate::traces::{Outlets, Record};
use std::sync::Arc;

/// Which requests the engine is to look at closely.
pub(super) fn sampling(live: &Live) -> Sampling {
    let config = &live.config;
    Sampling {
        trace: config.tracing.as_ref().map(|tracing| tracing.wanted).unwrap_or_default(),
        log: config.access_log.as_ref().map(|log| log.wanted).unwrap_or_default(),
    }
}

/// Hands over what the engine has sampled since the last time.
pub(super) fn hand_over(hub: &Hub, live: &Live, outlets: &Outlets) {
    let (samples, lost) = hub.engine().take_samples();
    if lost > 0 {
        outlets.lost(lost);
    }
    if samples.is_empty() {
        return;
    }
    // Each time anew: this clock is set from time to time, and the engine's is not.
    let began = wall_clock_micros().saturating_sub(hub.now());
    let mut names: Vec<(u16, Arc<str>)> = Vec::new();
    for sample in samples {
        let Some(pool) = live.pools.get(usize::from(sample.pool)) else { continue };
        let known = names.iter().find(|(number, _)| *number == sample.pool).map(|(_, name)| Arc::clone(name));
        let name = known.unwrap_or_else(|| {
            let name: Arc<str> = pool.pool.name.as_str().into();
            names.push((sample.pool, Arc::clone(&name)));
            name
        });
        outlets.put(record(sample, name, pool, began));
    }
}

fn record(sample: Sample, name: Arc<str>, pool: &LivePool, began: u64) -> Record {
    let place = |number: u16| {
        let shard = pool.shards.get(usize::from(number))?;
        let address = match &shard.place {
            Place::Server { address, .. } => Some(address.clone()),
            Place::Node(_) => None,
        };
        Some((shard.name.clone(), address))
    };
    let shards = sample.parts.iter().map(|part| part.shard.and_then(place)).collect();
    Record { time: began.saturating_add(sample.at), pool: name, shards, sample }
}
