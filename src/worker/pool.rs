//! What the engine needs to know of a pool, from what the process runs.

use crate::acl::{Guard, Users};
use crate::config::Pool;
use crate::downstream::config::Unread;
use crate::engine::deadlines::{Deadlines, Soft};
use crate::engine::window::Bounds;
use crate::engine::{Engine, PoolConfig};
use crate::live::{Live, LivePool, Place, shards};
use crate::resp::Limits;
use crate::stages::hot::Site;
use crate::stages::lease::Leases;
use crate::stages::warm::{Former, Warmth};
use crate::stages::{Coalesce, Health, HealthConfig, Hot, Merging, Path, Placement, Route, SPAN, Way};
use crate::upstream::{Servers, Topology, WhenEjected};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Builds the engine of a worker; no sockets.
#[must_use]
pub fn engine(live: &Live, number: usize, workers: usize, seed: u64) -> Engine {
    crate::command::teach(&live.config.commands);
    let mut engine = Engine::new(number as u64 + 1, workers as u64);
    for pool in &live.pools {
        engine.add_pool(pool_config(pool, 1, seed, number));
    }
    engine
}

/// What the engine needs to know of a pool that has numbers for `lanes` connections to each shard at least.
pub(super) fn pool_config(live: &LivePool, lanes: u16, seed: u64, worker: usize) -> PoolConfig {
    let pool = &*live.pool;
    let upstream = &pool.upstream;
    let dealt = match upstream.servers {
        // One is enough where nothing is sent.
        Servers::Embedded { .. } => 1,
        Servers::Static(_) => u16::try_from(upstream.server_connections).unwrap_or(u16::MAX).max(1),
    };
    let lanes = lanes.max(dealt);
    let count = live.shards.len() as u16;
    let placement = Placement {
        shards: if live.listed { shards(pool) } else { Vec::new() },
        numbers: live.order.clone(),
        hash: pool.ring.hash,
        distribution: pool.ring.distribution,
        hash_tag: pool.ring.hash_tag,
        pins: pins(live),
        slots: live.slots.clone().filter(|_| live.listed),
    };
    let health = HealthConfig {
        way: match upstream.ejected() {
            WhenEjected::Error => Way::Error,
            WhenEjected::Miss => Way::Miss,
            WhenEjected::Rehash => Way::Rehash,
            WhenEjected::Gutter(_) => Way::Gutter,
        },
        failure_limit: upstream.server_failure_limit,
        span: SPAN,
        retry_timeout: upstream.server_retry_timeout.as_micros() as u64,
        probe_interval: match upstream.servers {
            Servers::Embedded { .. } => None,
            Servers::Static(_) => upstream.probe_interval.map(|interval| interval.as_micros() as u64),
        },
        seed,
    };
    let bulk = match upstream.servers {
        // An embedded node takes no longer argument than Redis does: it could not say where the next request begins.
        Servers::Embedded { .. } => pool.downstream.max_request.min(Limits::default().bulk),
        Servers::Static(_) => pool.downstream.max_request,
    };
    let route = Route::new(placement, lanes);
    let route = match &live.gutter {
        Some(gutter) => route.with_gutter(Placement {
            shards: shards(gutter),
            numbers: live.spare.clone(),
            hash: pool.ring.hash,
            distribution: pool.ring.distribution,
            hash_tag: pool.ring.hash_tag,
            pins: Vec::new(),
            slots: None,
        }),
        None => route,
    };
    let route = route.with_replicas(live.replicas.clone());
    let former = former(live);
    let route = match &former {
        Some((former, _)) => route.with_former(former.shards()),
        None => route,
    };
    PoolConfig {
        follows: live.listed && upstream.topology.asked().is_some(),
        nodes: live.spellings().map(|(spelling, shard)| (spelling.as_bytes().into(), shard)).collect(),
        redirect_wait: match upstream.topology {
            Topology::Cluster { redirect_wait, .. } => redirect_wait.as_micros() as u64,
            _ => 0,
        },
        name: pool.name.clone(),
        shards: live.shards.iter().map(|shard| shard.name.clone()).collect(),
        lanes,
        dealt,
        gutter_ttl: if live.gutter.is_some() { upstream.gutter_ttl.as_millis() as u64 } else { 0 },
        bounds: Bounds {
            open: pool.downstream.max_pipeline.max(1) as usize,
            output: usize::try_from(pool.downstream.max_output).unwrap_or(usize::MAX),
        },
        limits: Limits { bulk, request: bulk.saturating_mul(2).min(u64::from(u32::MAX)), ..Limits::default() },
        admin: pool.downstream.admin_commands,
        databases: match upstream.servers {
            Servers::Embedded { .. } => 1,
            Servers::Static(_) => upstream.databases,
        },
        resp3: upstream.resp3,
        own: upstream.dedicated_connections as usize,
        aside: upstream.slow_commands.iter().filter_map(|name| crate::command::lookup(name.as_bytes())).collect(),
        long: crate::engine::stream::LONG,
        channels: matches!(upstream.servers, Servers::Static(_)),
        outbox: usize::try_from(upstream.max_outbox).unwrap_or(usize::MAX),
        timeout: upstream.timeout.map(|t| t.as_micros() as u64),
        deadlines: deadlines(pool),
        slowlog: pool.slowlog,
        rate_limits: pool.rate_limits.clone(),
        prefixes: pool.metrics_prefixes.clone(),
        by_command: pool.command_metrics,
        misses: pool.misses.clone(),
        former,
        routes: pool.routes.clone(),
        mirror: pool.mirror.clone().map(Arc::new),
        seed: seed ^ worker as u64,
        // The configuration is checked: what is wrong with a rule has been told, and nobody gets in by it.
        users: Arc::new(
            Users::new(&pool.downstream.users, pool.downstream.password.as_ref())
                .unwrap_or_default()
                .with_prefix(&pool.downstream.prefix)
                .counted_in(&live.heads),
        ),
        auth_failures: pool.downstream.max_auth_failures,
        guard: Guard::new(&pool.denials),
        leases: Leases::new(Arc::new(pool.misses.clone()), Arc::clone(&live.leases), worker as u16),
        path: Path {
            route,
            hot: Hot::new(pool.hot.clone(), seed, Arc::clone(&live.fence))
                .at(Site { shards: live.order.len() as u16, replicas: !live.replicas.is_empty() })
                .telling(Arc::clone(&live.board), worker)
                .reading(pool.reading.clone())
                .with_replicas(&live.replicas, count, lanes)
                .in_zones(zones(live)),
            merging: Merging::new(pool.merge, seed),
            coalesce: Coalesce::new(pool.coalesce, usize::from(count) * usize::from(lanes), seed),
            health: Health::new(health, count, lanes),
        },
    }
}

fn deadlines(pool: &Pool) -> Deadlines {
    let downstream = &pool.downstream;
    let micros = |span: Duration| span.as_micros() as u64;
    let soft = |unread: Unread| Soft { bytes: unread.bytes, span: micros(unread.span) };
    Deadlines {
        idle: downstream.client_idle_timeout.map(micros),
        request: downstream.request_timeout.map(micros),
        auth: downstream.auth_timeout.map(micros),
        unread: downstream.max_output_soft.map(soft),
        unread_pubsub: downstream.max_output_pubsub.map(soft),
    }
}

/// Where its keys lived before, as long as they are looked for there.
#[expect(clippy::disallowed_methods, reason = "how long that is yet; the process and not the worker says when it ends")]
fn former(live: &LivePool) -> Option<(Former, Arc<Warmth>)> {
    let former = live.former.as_ref().filter(|former| live.listed && !former.numbers.is_empty())?;
    let (pool, ring) = (&former.pool, &former.pool.ring);
    let names = shards(pool);
    let at = |name: &str| names.iter().position(|shard| shard.name == name);
    let number = |name: &str| at(name).and_then(|at| former.numbers.get(at)).copied();
    let pins = ring.pins.iter().filter_map(|(start, name)| Some((start.as_bytes().into(), number(name)?))).collect();
    let placement = Placement {
        numbers: former.numbers.clone(),
        hash: ring.hash,
        distribution: ring.distribution,
        hash_tag: ring.hash_tag,
        pins,
        slots: None,
        shards: names.clone(),
    };
    let left = former.left(Instant::now()).as_micros() as u64;
    Some((Former::new(placement, left, live.pool.upstream.warm_rate), Arc::clone(&former.warmth)))
}

/// In which zones servers are, by their numbers, as far as the configuration says.
fn zones(live: &LivePool) -> impl Iterator<Item = (u16, &str)> {
    let zones = &live.pool.upstream.zones;
    live.numbers().filter_map(move |number| {
        let Place::Server { address, .. } = &live.shards.get(usize::from(number))?.place else { return None };
        let (_, zone) = zones.iter().find(|(at, _)| at.is_same_place(address))?;
        Some((number, zone.as_str()))
    })
}

/// What is pinned, by the shards' numbers.
fn pins(live: &LivePool) -> Vec<(Box<[u8]>, u16)> {
    let number = |name: &str| live.order.iter().copied().find(|&shard| live.name_of(shard) == name);
    let pins = live.pool.ring.pins.iter();
    pins.filter_map(|(start, name)| Some((start.as_bytes().into(), number(name)?))).collect()
}
