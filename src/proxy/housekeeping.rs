//! What the process does on the side.

use super::source::Shared;
use super::topologies::Told;
use super::usage::Usage;
use crate::audit;
use crate::config::Pool;
use crate::embedded::{self, Node};
use crate::live::{Live, Place};
use crate::log;
use crate::memory;
use crate::metrics::{
    AdminAction, BuildCounts, CertificateCounts, CertificateMetrics, EmbeddedCounts, EmbeddedMetrics, Label,
    ProcessCounts, Reloaded, TopologyCounts, TopologyMetrics, TraceDropped,
};
use crate::ring::KeyHash;
use crate::tls::{Client, Expiry, Server};
use crate::upstream::Topology;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;

/// How often embedded nodes remove what has expired.
const EXPIRY: Duration = Duration::from_millis(100);

fn unix_micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64)
}

/// When which file with certificates of a pool expires, each file once.
fn expiries(pool: &Pool) -> Vec<Expiry> {
    let sentinel = match &pool.upstream.topology {
        Topology::Sentinel { tls, .. } => tls.as_ref(),
        _ => None,
    };
    let own = pool.downstream.tls.iter().flat_map(Server::expiries);
    let servers = pool.upstream.tls.iter().chain(sentinel).flat_map(Client::expiries);
    let mut found: Vec<Expiry> = own.chain(servers).cloned().collect();
    found.sort_by(|one, other| one.file.cmp(&other.file));
    found.dedup_by(|one, other| one.file == other.file);
    found
}

/// What the process does on the side: expiry in embedded nodes, and the metrics that no worker owns.
pub(super) async fn housekeeping(shared: Arc<Shared>, workers: usize, quit: CancellationToken) {
    let exporter = &shared.exporter;
    let mut process = exporter.process();
    let mut counts = ProcessCounts::default();
    counts.start_time.0 = unix_micros();
    counts.process_start = counts.start_time;
    let mut usage = Usage::default();
    counts.workers.0 = workers as u64;
    let mut build = exporter.build(env!("CARGO_PKG_VERSION"));
    let mut build_counts = BuildCounts::default();
    build_counts.info.0 = 1;
    build.fold(&mut build_counts);
    let mut live = None;
    let mut books: Vec<(Arc<Node>, EmbeddedMetrics, EmbeddedCounts, embedded::Stats)> = Vec::new();
    let mut topologies: Vec<(String, TopologyMetrics, TopologyCounts, Told)> = Vec::new();
    let mut certificates: Vec<(CertificateMetrics, CertificateCounts)> = Vec::new();
    let mut rounds: u32 = 0;
    let mut summed = 0;
    loop {
        let now = shared.live();
        if !live.as_ref().is_some_and(|live| Arc::ptr_eq(live, &now)) {
            // A topology that changes is no other configuration.
            let same = live.as_ref().is_some_and(|live: &Arc<Live>| Arc::ptr_eq(&live.config, &now.config));
            if !same {
                counts.config_loaded.0 = unix_micros();
            }
            shared.budget.set(now.config.max_memory.bytes(memory::limit));
            counts.memory_limit.0 = shared.budget.most().unwrap_or(0);
            counts.config_hash.0 = u64::from(KeyHash::Fnv1a_64.hash(now.config.masked_yaml().as_bytes()));
            let mut before = std::mem::take(&mut books);
            for (_, pool) in now.listed() {
                for shard in pool.order.iter().filter_map(|&number| pool.shards.get(usize::from(number))) {
                    let Place::Node(node) = &shard.place else { continue };
                    let known = before.iter().position(|(other, ..)| Arc::ptr_eq(other, node));
                    books.push(known.map(|at| before.swap_remove(at)).unwrap_or_else(|| {
                        let metrics = exporter.embedded(&pool.pool.name, &shard.name);
                        (Arc::clone(node), metrics, EmbeddedCounts::default(), embedded::Stats::default())
                    }));
                }
            }
            let known = std::mem::take(&mut certificates);
            for (_, pool) in now.listed() {
                for expiry in expiries(&pool.pool) {
                    let metrics = exporter.certificate(&pool.pool.name, &expiry.file.display().to_string());
                    certificates.push((metrics, CertificateCounts::default()));
                    if let Some((_, counts)) = certificates.last_mut() {
                        counts.expires.0 = expiry.at.saturating_mul(1_000_000);
                    }
                }
            }
            drop(known);
            let mut before = std::mem::take(&mut topologies);
            for (_, pool) in now.listed().filter(|(_, pool)| pool.pool.upstream.topology.asked().is_some()) {
                let name = &pool.pool.name;
                let known = before.iter().position(|(other, ..)| other == name);
                topologies.push(known.map(|at| before.swap_remove(at)).unwrap_or_else(|| {
                    (name.clone(), exporter.topology(name), TopologyCounts::default(), Told::default())
                }));
            }
            live = Some(now);
        }
        for (node, metrics, counts, told) in &mut books {
            node.expire_cycle(unix_micros() / 1000);
            let now = node.stats();
            counts.keys.set(now.keys);
            counts.bytes.set(now.bytes);
            counts.hits += now.hits - told.hits;
            counts.misses += now.misses - told.misses;
            counts.evictions += now.evictions - told.evictions;
            counts.expired += now.expired - told.expired;
            *told = now;
            metrics.fold(counts);
        }
        for (metrics, counts) in &mut certificates {
            metrics.fold(counts);
        }
        for (pool, metrics, counts, told) in &mut topologies {
            let now = shared.topologies.of(pool);
            counts.refreshes += now.refreshes - told.refreshes;
            counts.errors += now.errors - told.errors;
            counts.changes += now.changes - told.changes;
            counts.age.0 = shared.topologies.age(&now).unwrap_or(0);
            counts.unknown.0 = u64::from(now.at.is_none());
            *told = now;
            metrics.fold(counts);
        }
        {
            let reloads = std::mem::take(&mut *shared.reloads.lock().unwrap_or_else(PoisonError::into_inner));
            counts.reloads[Reloaded::Taken] += reloads.done;
            counts.reloads[Reloaded::Refused] += reloads.refused;
            let actions = std::mem::take(&mut *shared.actions.lock().unwrap_or_else(PoisonError::into_inner));
            AdminAction::ALL.iter().for_each(|&outcome| counts.admin_actions[outcome] += actions[outcome]);
            counts.config_refused.0 = u64::from(!shared.refused().is_empty());
        }
        let now = unix_micros();
        if now.abs_diff(summed) >= 1_000_000 {
            summed = now;
            counts.audit_suppressed += audit::summary();
            counts.log_dropped += log::dropped();
        }
        {
            let sampled = shared.outlets.tally().take();
            counts.traces_exported += sampled.exported;
            counts.trace_failures += sampled.failures;
            for (why, count) in <TraceDropped as Label>::ALL.iter().zip(sampled.dropped) {
                counts.traces_dropped[*why] += count;
            }
            counts.access_lines += sampled.lines;
            counts.access_dropped += sampled.lines_dropped;
            let (spans, lines) = shared.outlets.waiting();
            (counts.traces_waiting.0, counts.access_waiting.0) = (spans, lines);
        }
        // Embedded nodes are looked at five times as often as there is anything new to tell.
        if rounds.is_multiple_of(if books.is_empty() { 1 } else { 5 }) {
            usage.measure(&mut counts);
        }
        process.fold(&mut counts);
        rounds += 1;
        if rounds.is_multiple_of(50) {
            exporter.upkeep();
        }
        // Without embedded nodes there is little to look after.
        let wait = if books.is_empty() { EXPIRY * 5 } else { EXPIRY };
        tokio::select! {
            () = quit.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}
