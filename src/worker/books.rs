//! What a worker has counted, published; and what the log is told of shards.

use super::{MINUTE, ShardView};
use crate::bucket::Bucket;
use crate::downstream::farewell::Farewell;
use crate::engine::{Engine, LineId};
use crate::hub::Hub;
use crate::live::{Live, LivePool};
use crate::metrics::{
    BackendMetrics, CommandMetrics, Exporter, Label, LimitMetrics, PoolMetrics, PrefixMetrics, UserCounts, UserMetrics,
    WorkerMetrics,
};
use crate::stages::{Health, Micros, ShardState};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// What is folded by the ticker, and where to.
pub(super) struct Books {
    pools: Vec<PoolBook>,
    pub(super) worker: WorkerMetrics,
    exporter: Arc<Exporter>,
    /// Connections below this number have their handles.
    known: LineId,
    /// What [`Engine::changes`] said when the handles were made.
    pub(super) changes: u32,
}

struct PoolBook {
    name: Rc<str>,
    /// Whether it is configured.
    listed: bool,
    /// None for one that is not configured any more and has no sessions left.
    metrics: Option<PoolMetrics>,
    /// By their names, made when they are first seen.
    limits: BTreeMap<String, LimitMetrics>,
    /// The same.
    users: BTreeMap<String, UserMetrics>,
    /// By their names.
    commands: BTreeMap<&'static str, CommandMetrics>,
    /// By what they are.
    prefixes: BTreeMap<String, PrefixMetrics>,
    farewell: Farewell,
    /// For each shard its connections.
    shards: Vec<Vec<(LineId, BackendMetrics)>>,
    /// For each shard what was told last.
    told: Vec<Told>,
    /// The names of the shards, for the log.
    names: Vec<String>,
    /// How many of them were known not to tell of changes.
    untracked: u64,
    /// The same where leases are to be the fleet's.
    alone: u64,
    /// When the log was told of the worst miss last.
    worst: Micros,
    /// How many keys that a mirror answers otherwise for may be told of.
    mismatches: Bucket,
}

/// Such keys that the log is told of a second, and at once, by each worker.
const MISMATCHES: (u64, u64) = (1, 16);

impl Books {
    /// Makes the handles of the metrics.
    pub(super) fn open(live: &Live, exporter: Arc<Exporter>, worker: usize) -> Self {
        let worker = exporter.worker(worker);
        let mut books = Self { pools: Vec::new(), worker, exporter, known: 0, changes: 0 };
        books.renew(live);
        books
    }

    /// Makes the handles anew: pools and shards have come or gone. What was told of those that stay is remembered.
    pub(super) fn renew(&mut self, live: &Live) {
        let before = std::mem::take(&mut self.pools);
        let exporter = &self.exporter;
        let book = |(number, pool): (usize, &LivePool)| {
            // Of a shard that leaves nothing is known any more, should it come back.
            let stays = |shard: &usize| pool.numbers().any(|own| usize::from(own) == *shard);
            let told = |shard| Some(shard).filter(stays).and_then(|at| before.get(number)?.told.get(at)).copied();
            let names: Vec<String> = pool.shards.iter().map(|shard| shard.name.clone()).collect();
            let had = before.get(number).is_some_and(|book| book.metrics.is_some());
            PoolBook {
                name: pool.pool.name.as_str().into(),
                listed: pool.listed,
                metrics: (pool.listed || had).then(|| exporter.pool(&pool.pool.name)),
                limits: BTreeMap::new(),
                users: BTreeMap::new(),
                commands: BTreeMap::new(),
                prefixes: BTreeMap::new(),
                farewell: Farewell::default(),
                shards: names.iter().map(|_| Vec::new()).collect(),
                told: (0..names.len()).map(|shard| told(shard).unwrap_or_default()).collect(),
                names,
                untracked: 0,
                alone: 0,
                worst: 0,
                mismatches: Bucket::new(MISMATCHES.0, MISMATCHES.1),
            }
        };
        self.pools = live.pools.iter().enumerate().map(book).collect();
        self.known = 0;
    }

    /// Makes handles for connections that have come since the last time.
    fn meet(&mut self, engine: &Engine) {
        for id in self.known..engine.line_count() {
            let Some(line) = engine.line(id) else { continue };
            if engine.is_gone(line.pool, line.shard) {
                continue;
            }
            let Some(book) = self.pools.get_mut(usize::from(line.pool)) else { continue };
            let shard = usize::from(line.shard);
            if let (Some(lines), Some(name)) = (book.shards.get_mut(shard), book.names.get(shard)) {
                lines.push((id, self.exporter.backend(&book.name, name)));
            }
        }
        self.known = engine.line_count();
    }
}

/// Publishes what was counted since the last time.
pub(super) fn fold(hub: &Hub, books: &mut Books) -> Vec<Vec<ShardView>> {
    let now = hub.now();
    let mut engine = hub.engine();
    books.meet(&engine);
    let mut views = Vec::with_capacity(books.pools.len());
    for (number, book) in books.pools.iter_mut().enumerate() {
        let pool = number as u16;
        if let Some(counts) = engine.pool_counts(pool) {
            book.farewell.note(&book.name, counts, now);
            let untracked = counts.untracked.get();
            if std::mem::replace(&mut book.untracked, untracked) < untracked {
                let reason = "a server refuses CLIENT TRACKING: what is kept of its keys lives for max_staleness only";
                tracing::warn!(pool = %book.name, servers = untracked, reason, "untracked");
            }
            let alone = counts.lease_untracked.get();
            if std::mem::replace(&mut book.alone, alone) < alone {
                let reason = "a server refuses CLIENT TRACKING: leases of its keys are of this process only";
                tracing::warn!(pool = %book.name, servers = alone, reason, "untracked");
            }
            let is_over = !book.listed && counts.client_connections.get() == 0;
            if let Some(metrics) = &mut book.metrics {
                metrics.fold(counts);
            }
            if is_over {
                (book.metrics, book.limits, book.users) = (None, BTreeMap::new(), BTreeMap::new());
                (book.commands, book.prefixes) = (BTreeMap::new(), BTreeMap::new());
            }
        }
        for rule in engine.take_ended_faults(pool) {
            tracing::warn!(pool = %book.name, rule = %rule, "a rule for faults has ended");
        }
        for mismatch in engine.take_mismatches(pool) {
            if book.mismatches.take(1, now) {
                let key = String::from_utf8_lossy(&mismatch.key).escape_debug().to_string();
                tracing::warn!(pool = %book.name, key, command = mismatch.command, "the mirror answers otherwise");
            }
        }
        if now.saturating_sub(book.worst) >= MINUTE {
            book.worst = now;
            if let Some(worst) = engine.take_worst_miss(pool) {
                let key = String::from_utf8_lossy(&worst.name).escape_debug().to_string();
                tracing::info!(pool = %book.name, key, clients = worst.herd, "the worst stampede of the last minute");
            }
        }
        let (exporter, limits, name) = (&books.exporter, &mut book.limits, &book.name);
        if book.metrics.is_some() {
            engine.command_counts(pool, |command, counts| {
                book.commands.entry(command).or_insert_with(|| exporter.command(name, command)).fold(counts);
            });
            engine.prefix_counts(pool, |prefix, counts| {
                book.prefixes.entry(prefix.to_owned()).or_insert_with(|| exporter.prefix(name, prefix)).fold(counts);
            });
            engine.limit_counts(pool, |limit, counts| {
                limits.entry(limit.to_owned()).or_insert_with(|| exporter.limit(name, limit)).fold(counts);
            });
            let users = &mut book.users;
            engine.user_counts(pool, |user, sessions, most| {
                let mut counts = UserCounts::default();
                (counts.connections.0, counts.most.0) = (sessions as u64, most.unwrap_or(0).into());
                users.entry(user.to_owned()).or_insert_with(|| exporter.user(name, user)).fold(&mut counts);
            });
        }
        let mut pool_view = Vec::with_capacity(book.shards.len());
        for (index, lines) in book.shards.iter_mut().enumerate() {
            let shard = index as u16;
            let mut view = ShardView::default();
            let mut ejected_anew = 0;
            if let (Some(path), Some(told)) = (engine.path(pool), book.told.get_mut(index)) {
                let health = &path.health;
                (view.state, view.down, view.reason) =
                    (health.state(shard), health.is_down(shard), health.reason(shard));
                let name = book.names.get(index).map_or("", String::as_str);
                ejected_anew = told.look(&book.name, name, health, shard);
            }
            for (lane, (line, metrics)) in lines.iter_mut().enumerate() {
                let Some(line) = engine.line_mut(*line) else { continue };
                let counts = line.measure();
                if lane == 0 {
                    // A shard's own, and not its connections': told with the first.
                    counts.server_ejected.set(u64::from(view.state.is_out()));
                    for state in <ShardState as Label>::ALL {
                        counts.server_state[*state].set(u64::from(view.state == *state));
                    }
                    counts.server_ejects += ejected_anew;
                }
                view.connections += counts.server_connections.get();
                view.in_queue += counts.in_queue.get();
                view.out_queue += counts.out_queue.get();
                metrics.fold(counts);
            }
            pool_view.push(view);
        }
        views.push(pool_view);
    }
    views
}

/// What the log was told of a shard last.
#[derive(Clone, Copy, Default)]
struct Told {
    state: ShardState,
    ejections: u64,
}

impl Told {
    /// Writes what has changed since, each change once. Returns how often it was ejected since.
    fn look(&mut self, pool: &str, name: &str, health: &Health, shard: u16) -> u64 {
        let now = Self { state: health.state(shard), ejections: health.ejections(shard) };
        let before = std::mem::replace(self, now);
        let (state, failures, reason) = (self.state, health.failures(shard), health.reason(shard));
        let anew = self.ejections.saturating_sub(before.ejections);
        // Out and back between two looks are both told.
        if anew > 0 {
            tracing::warn!(pool, shard = name, failures, reason, "ejected");
        }
        if !state.is_out() && (before.state.is_out() || anew > 0) {
            tracing::info!(pool, shard = name, "well again: no longer ejected");
        } else if state == ShardState::Suspect && before.state == ShardState::Up {
            tracing::warn!(pool, shard = name, failures, reason, "suspect");
        } else if state == ShardState::Up && before.state == ShardState::Suspect {
            tracing::info!(pool, shard = name, "well again");
        }
        anew
    }
}
