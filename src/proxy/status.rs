//! `/status`: what the process knows of itself, put together from what is there anyway.

use super::history::{Recent, round, unix_millis};
use super::source::Shared;
use crate::admin::Backend;
use crate::admin::status::{
    HotKey, Listener, Misses, Observed, Pool, Process, Ring, SECTORS, Shard, Spared, Status, Topology, VERSION,
};
use crate::admin::{self, Readiness};
use crate::downstream::config::Manner;
use crate::live::{Live, LivePool};
use crate::ring::{Distribution, NOBODY, SLOTS};
use crate::stages::hot::{Level, Row};
use crate::upstream::Servers;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

/// Rings as they are drawn, with what they were made of: a look at the points of all servers costs milliseconds.
#[derive(Default)]
pub(super) struct Rings {
    of: Option<Arc<Live>>,
    /// For each pool, in the order of the file.
    drawn: Vec<Drawn>,
}

/// A pool's ring, and the share and the slots of each server in the pool's order.
type Drawn = (Ring, Vec<(f64, Option<u32>)>);

/// All of it.
pub(super) fn of(shared: &Shared) -> Status {
    let live = shared.live();
    let backends = shared.backends_of(&live);
    let drawn = drawn(&shared.rings, &live);
    let histories = shared.histories.lock().unwrap_or_else(PoisonError::into_inner);
    let boards = shared.boards();
    let pools = live.listed().zip(drawn).map(|((number, pool), (ring, shares))| {
        let name = &pool.pool.name;
        let recent = histories.of(name);
        let own = backends.iter().filter(|backend| backend.pool == *name);
        let reason = |shard: u16| {
            let views = boards.iter().filter_map(|board| board.get(usize::from(number))?.get(usize::from(shard)));
            views.map(|view| view.reason).find(|reason| !reason.is_empty()).unwrap_or_default().to_owned()
        };
        let shards = pool.numbers().zip(own).map(|(shard, backend)| {
            let at = pool.order.iter().position(|own| *own == shard);
            let (share, slots) = at.and_then(|at| shares.get(at)).copied().unwrap_or_default();
            self::shard(shared, &recent, backend, (share, slots), reason(shard))
        });
        self::pool(shared, pool, &recent, shards.collect(), ring)
    });
    let pools = pools.collect();
    Status { version: VERSION, now: unix_millis(), process: process(shared, &live), pools }
}

fn process(shared: &Shared, live: &Live) -> Process {
    let value = |name| shared.exporter.value(name, &[]);
    let now = unix_millis();
    let started = value("hotring_start_time_seconds") / 1000;
    Process {
        hotring: env!("CARGO_PKG_VERSION").to_owned(),
        process: std::process::id(),
        started,
        uptime_seconds: now.saturating_sub(started) / 1000,
        workers: shared.desks.len() as u64,
        not_ready: match admin::Source::ready(shared) {
            Readiness::Ready(_) => Vec::new(),
            Readiness::NotReady(reasons) => reasons,
        },
        config_path: live.config.source.path.display().to_string(),
        config_hash: value("hotring_config_hash"),
        config_loaded: value("hotring_config_loaded_timestamp_seconds") / 1000,
        has_token: live.config.admin_token.is_some(),
        last_reload: shared.last_reload.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        memory_bytes: value("hotring_worker_memory_bytes"),
        memory_limit_bytes: shared.budget.most(),
        panics: value("hotring_panics_total"),
    }
}

fn shard(
    shared: &Shared,
    recent: &Recent<'_>,
    backend: &Backend,
    (share, slots): (f64, Option<u32>),
    last_error: String,
) -> Shard {
    Shard {
        name: backend.name.clone(),
        address: backend.address.clone(),
        role: backend.role.clone(),
        state: backend.state.clone(),
        last_error,
        ejects: shared.exporter.value("hotring_server_ejects_total", &[&backend.pool, &backend.name]),
        share,
        slots,
        connections: backend.connections,
        requests: recent.sent(&backend.name),
        in_queue: backend.in_queue,
        out_queue: backend.out_queue,
    }
}

fn pool(shared: &Shared, pool: &LivePool, recent: &Recent<'_>, shards: Vec<Shard>, ring: Ring) -> Pool {
    let name = &pool.pool.name;
    let value = |metric| shared.exporter.value(metric, &[name]);
    let rates = |metric| recent.rates(metric, "");
    let page = pool.board.all();
    let topology = &pool.pool.upstream.topology;
    let told = topology.asked().map(|_| shared.topologies.of(name));
    let downstream = &pool.pool.downstream;
    let kind = match (&pool.pool.upstream.servers, &told) {
        (_, Some(_)) => topology.kind().to_string(),
        (Servers::Embedded { .. }, None) => "embedded".to_owned(),
        (Servers::Static(_), None) => "servers".to_owned(),
    };
    Pool {
        name: name.clone(),
        kind,
        listeners: downstream
            .listeners()
            .map(|(address, manner)| Listener {
                address: address.to_string(),
                strict: manner == Manner::Strict,
                tls: manner == Manner::Encrypted,
            })
            .collect(),
        apps: value("hotring_client_connections"),
        server_connections: shards.iter().map(|shard| shard.connections).sum(),
        requests: recent.requests(),
        pending: value("hotring_requests_pending"),
        latency: recent.latency(),
        errors: recent.errors(),
        errors_by_cause: recent.errors_by_cause(),
        server_errors: rates("hotring_shard_errors_total"),
        imbalance: (page.imbalance(&pool.order) * 1000.0).round() / 1000.0,
        hot_keys_count: page.keys as u64,
        hot_keys: page.rows.iter().map(|row| hot_key(row, pool)).collect(),
        spared: Spared {
            from_memory: rates("hotring_near_hits_total"),
            by_copies: rates("hotring_copy_hits_total"),
            by_replicas: rates("hotring_replica_reads_total"),
            joined: rates("hotring_joined_requests_total"),
        },
        misses: Misses {
            leased: rates("hotring_misses_leased_total"),
            stampedes: rates("hotring_stampedes_total"),
            loads_saved: rates("hotring_lease_waits_saved_total"),
            waiting: value("hotring_lease_waiting"),
            timeouts: rates("hotring_lease_timeouts_total"),
            stale: rates("hotring_lease_stale_total"),
            early: rates("hotring_early_refreshes_total"),
        },
        observed: Observed {
            hot_would_serve: rates("hotring_hot_would_serve_total"),
            lease_would_wait: rates("hotring_lease_observed_total"),
            stale_would_tell: rates("hotring_lease_stale_observed_total"),
            early_would_load: rates("hotring_early_observed_total"),
        },
        topology: told.map(|told| Topology {
            age_seconds: shared.topologies.age(&told).map(|age| round(age as f64 / 1e6)),
            error: told.error,
        }),
        ring,
        history: recent.history(),
        shards,
    }
}

fn hot_key(row: &Row, pool: &LivePool) -> HotKey {
    let share = |share: f64| (share * 10_000.0).round() / 10_000.0;
    HotKey {
        key: shown(&row.key),
        level: if row.level == Level::Hot { "hot" } else { "warm" }.to_owned(),
        shard: pool.name_of(row.shard).to_owned(),
        share: share(row.share.0),
        share_of_bytes: share(row.share_of_bytes),
        requests: round(row.requests),
        reads: round(row.reads),
        writes: round(row.writes),
        saved: round(row.saved),
        served_by: row.served_by(),
        why: row.why.to_owned(),
        seconds: round(row.age as f64 / 1e6),
    }
}

/// A key as text from which its bytes can be told.
fn shown(key: &[u8]) -> String {
    let mut text = String::with_capacity(key.len());
    let escape = |bytes: &[u8], text: &mut String| {
        for byte in bytes {
            let _ = write!(text, "\\x{byte:02x}");
        }
    };
    for chunk in key.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                c if c.is_control() => escape(c.encode_utf8(&mut [0; 4]).as_bytes(), &mut text),
                c => text.push(c),
            }
        }
        escape(chunk.invalid(), &mut text);
    }
    text
}

/// The pools' rings, made anew when something else runs.
fn drawn(rings: &Mutex<Rings>, live: &Arc<Live>) -> Vec<Drawn> {
    let mut rings = rings.lock().unwrap_or_else(PoisonError::into_inner);
    if !rings.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, live)) {
        *rings = Rings { of: Some(Arc::clone(live)), drawn: live.listed().map(|(_, pool)| draw(pool)).collect() };
    }
    rings.drawn.clone()
}

fn draw(pool: &LivePool) -> Drawn {
    let place = |shard: u16| pool.order.iter().position(|own| *own == shard).map_or(-1, |at| at as i32);
    match &pool.slots {
        Some(slots) => {
            let count = |own: &u16| slots.iter().filter(|slot| *slot == own).count();
            let shares = pool.order.iter().map(count).map(|n| (n as f64 / SLOTS as f64, Some(n as u32)));
            let middle = |sector: u32| (2 * sector as usize + 1) * SLOTS / (2 * SECTORS as usize);
            let sectors = (0..SECTORS).map(|sector| place(slots.get(middle(sector)).copied().unwrap_or(NOBODY)));
            (Ring { of: "slots".to_owned(), sectors: sectors.collect() }, shares.collect())
        }
        None => {
            let ring = pool.ring();
            let random = pool.pool.ring.distribution == Distribution::Random;
            // Places in the file's order, which is that of the pool.
            let sectors = ring.sectors(SECTORS).into_iter().map(|owner| owner.map_or(-1, i32::from));
            let shares = ring.shares().into_iter().map(|share| (share, None));
            (Ring { of: if random { "none" } else { "hash" }.to_owned(), sectors: sectors.collect() }, shares.collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_can_be_told_from_their_text() {
        for (key, text) in [
            (&b"user:1"[..], "user:1"),
            ("größe<img>".as_bytes(), "größe<img>"),
            (b"a\\x00", "a\\\\x00"),
            (b"a\x00\n\xff\xc3", "a\\x00\\x0a\\xff\\xc3"),
            ("\u{85}".as_bytes(), "\\xc2\\x85"),
        ] {
            assert_eq!(shown(key), text);
        }
    }
}
