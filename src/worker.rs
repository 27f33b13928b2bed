//! One thread: a runtime, an engine, and the tasks around it. The only place that reads the clocks and sleeps.
//!
//! ```text
//! acceptor   worker 0 only: takes connections and deals them to the worker with the fewest sessions
//! sessions   one for each app: reads requests into the engine
//! lines      one for each connection to a shard: opens it, reads replies into the engine
//! flusher    one: sends everything that waits, once for each pass of the scheduler; then perhaps rests a moment
//! ticker     one: timeouts, upkeep of the stages, folding of the counters
//! desk       one: answers questions from the admin listener
//! ```

use crate::acl::Users;
use crate::config::{Config, Pool};
use crate::downstream::listener::{Accepted, Bound, Listener};
use crate::downstream::session::Session;
use crate::embedded::Node;
use crate::engine::window::Bounds;
use crate::engine::{About, Engine, LineId, PoolConfig, Scripts};
use crate::error::{Cause, MAX_CLIENTS};
use crate::hub::{Clock, Hub, Socket, give_up};
use crate::lines::Lines;
use crate::metrics::{BackendMetrics, Exporter, PoolMetrics, WorkerCounts, WorkerMetrics};
use crate::pace::{Observation, Pacer};
use crate::resp::Limits;
use crate::ring::Shard;
use crate::stages::{Coalesce, Health, HealthConfig, Path, Placement, Route, ShardState};
use crate::upstream::Servers;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, Write};
use std::num::NonZeroU64;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// The ticker's step while something is under way, and while nothing is.
const TICK: Duration = Duration::from_millis(10);
const IDLE_TICK: Duration = Duration::from_millis(250);
/// How often counters are folded while something is under way.
const FOLD: u64 = 100_000;
/// How long sessions may take to finish when the process stops.
const GRACE: Duration = Duration::from_secs(5);

/// Everything a worker starts with.
pub struct Setup {
    /// Its number.
    pub number: usize,
    /// How many there are.
    pub workers: usize,
    /// The whole configuration.
    pub config: Arc<Config>,
    /// Worker 0: all listeners, with their pools.
    pub listeners: Vec<(u16, Bound)>,
    /// Where accepted connections are dealt to, one seat for each worker.
    pub seats: Vec<Seat>,
    /// Connections dealt to this worker.
    pub dealt: mpsc::Receiver<Dealt>,
    /// Questions for this worker.
    pub questions: mpsc::Receiver<Question>,
    /// Open sessions of each pool, over all workers.
    pub open: Arc<Vec<AtomicUsize>>,
    /// The metrics.
    pub exporter: Arc<Exporter>,
    /// Embedded nodes, by pool and shard.
    pub nodes: Arc<Vec<Vec<Arc<Node>>>>,
    /// How this worker sees the shards, by pool.
    pub board: Arc<Mutex<Vec<Vec<ShardView>>>>,
    /// Ends it.
    pub shutdown: CancellationToken,
    /// The port that INFO tells.
    pub port: u16,
    /// What chance begins with.
    pub seed: u64,
    /// The scripts that passed through.
    pub scripts: Arc<Scripts>,
}

/// A worker's place at the table where connections are dealt.
#[derive(Clone)]
pub struct Seat {
    /// Takes a connection.
    pub sender: mpsc::Sender<Dealt>,
    /// Its open sessions.
    pub load: Arc<AtomicUsize>,
}

/// An accepted connection on its way to a worker.
pub struct Dealt {
    accepted: Accepted,
    pool: u16,
    place: Place,
}

/// A session's place in the counts, as long as it is open.
struct Place {
    open: Arc<Vec<AtomicUsize>>,
    pool: u16,
    load: Arc<AtomicUsize>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(open) = self.open.get(usize::from(self.pool)) {
            open.fetch_sub(1, Ordering::Relaxed);
        }
        self.load.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A question to a live worker.
pub struct Question {
    /// The pool's number.
    pub pool: u16,
    /// The request asked about, as bytes on the wire.
    pub wire: Vec<u8>,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<String, String>>,
}

/// A shard as one worker sees it.
#[derive(Debug, Clone, Copy, Default)]
pub struct ShardView {
    /// Whether it is out of the ring.
    pub ejected: bool,
    /// Whether all connections to it are down.
    pub down: bool,
    /// Open connections.
    pub connections: u64,
    /// Requests not sent yet.
    pub in_queue: u64,
    /// Requests without a reply yet.
    pub out_queue: u64,
}

/// Builds the engine of a worker from the configuration; no sockets.
#[must_use]
pub fn engine(config: &Config, number: usize, workers: usize, seed: u64) -> Engine {
    crate::command::teach(&config.commands);
    let mut engine = Engine::new(number as u64 + 1, workers as u64);
    for pool in &config.pools {
        engine.add_pool(pool_config(pool, seed));
    }
    engine
}

fn pool_config(pool: &Pool, seed: u64) -> PoolConfig {
    let upstream = &pool.upstream;
    let shards = shards(pool);
    let count = shards.len() as u16;
    let lanes = match upstream.servers {
        // One is enough where nothing is sent.
        Servers::Embedded { .. } => 1,
        Servers::Static(_) => u16::try_from(upstream.server_connections).unwrap_or(u16::MAX).max(1),
    };
    let names = shards.iter().map(|s| s.name.clone()).collect();
    let placement = Placement {
        shards,
        hash: pool.ring.hash,
        distribution: pool.ring.distribution,
        hash_tag: pool.ring.hash_tag,
        pins: pins(pool),
    };
    let health = HealthConfig {
        eject: upstream.auto_eject_hosts,
        failure_limit: upstream.server_failure_limit,
        retry_timeout: upstream.server_retry_timeout.as_micros() as u64,
    };
    let bulk = match upstream.servers {
        // An embedded node takes no longer argument than Redis does: it could not say where the next request begins.
        Servers::Embedded { .. } => pool.downstream.max_request.min(Limits::default().bulk),
        Servers::Static(_) => pool.downstream.max_request,
    };
    PoolConfig {
        name: pool.name.clone(),
        shards: names,
        lanes,
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
        long: crate::engine::stream::LONG,
        channels: matches!(upstream.servers, Servers::Static(_)),
        outbox: usize::try_from(upstream.max_outbox).unwrap_or(usize::MAX),
        timeout: upstream.timeout.map(|t| t.as_micros() as u64),
        slowlog: pool.slowlog,
        // The configuration is checked: what is wrong with a rule has been told, and nobody gets in by it.
        users: Arc::new(Users::new(&pool.downstream.users, pool.downstream.password.as_ref()).unwrap_or_default()),
        path: Path {
            route: Route::new(placement, lanes),
            coalesce: Coalesce::new(pool.coalesce, usize::from(count) * usize::from(lanes), seed),
            health: Health::new(health, count, lanes),
        },
    }
}

/// What is pinned, by the shards' numbers.
fn pins(pool: &Pool) -> Vec<(Box<[u8]>, u16)> {
    let shards = shards(pool);
    let number = |name: &str| shards.iter().position(|shard| shard.name == name).map(|at| at as u16);
    pool.ring.pins.iter().filter_map(|(start, name)| Some((start.as_bytes().into(), number(name)?))).collect()
}

/// A pool's shards, as the ring wants them.
#[must_use]
pub fn shards(pool: &Pool) -> Vec<Shard> {
    match &pool.upstream.servers {
        Servers::Embedded { count, .. } => {
            (1..=*count).map(|n| Shard { name: format!("embedded-{n}"), weight: 1 }).collect()
        }
        Servers::Static(servers) => servers.iter().map(|s| Shard { name: s.name.clone(), weight: s.weight }).collect(),
    }
}

/// Milliseconds since 1970.
fn wall_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// Runs a worker on this thread until the shutdown. `started` is told once everything is in place.
///
/// # Errors
/// Where the runtime cannot be made or a listener cannot be watched.
pub fn run(setup: Setup, started: oneshot::Sender<()>) -> io::Result<()> {
    // Without this a pause of some microseconds takes 50 longer (prctl(2), PR_SET_TIMERSLACK). Where it is not allowed the
    // controller of the pause finds out by itself that long pauses do not pay.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let runtime = Builder::new_current_thread().enable_io().enable_time().build_local(LocalOptions::default())?;
    let ended = runtime.block_on(serve(setup, started));
    // A look-up that its name server does not answer must not hold the stop.
    runtime.shutdown_background();
    ended
}

async fn serve(mut setup: Setup, started: oneshot::Sender<()>) -> io::Result<()> {
    let clock = Clock::start();
    let mut engine = engine(&setup.config, setup.number, setup.workers, setup.seed);
    engine.share(Arc::clone(&setup.scripts));
    engine.describe(About { process: std::process::id(), port: setup.port, epoch: wall_clock() * 1000 });
    let hub = Hub::new(engine, clock);
    let tally = Rc::new(RefCell::new(WorkerCounts::default()));
    tokio::task::spawn_local(flusher(
        Rc::clone(&hub),
        Pacer::new(setup.config.max_pause.as_micros() as u32, setup.number as u32),
        Rc::clone(&tally),
    ));
    let books = open_books(&setup);
    let lines = Lines::new(Rc::clone(&hub), &setup.config, Arc::clone(&setup.nodes), setup.seed, wall_clock);
    let from_the_start = hub.engine().line_count();
    (0..from_the_start).for_each(|line| lines.start(line, false));
    tokio::task::spawn_local(lines.run());
    tokio::task::spawn_local(ticker(Rc::clone(&hub), books, Rc::clone(&tally), Arc::clone(&setup.board)));
    tokio::task::spawn_local(desk(Rc::clone(&hub), setup.questions));
    let limits: Rc<[usize]> =
        setup.config.pools.iter().map(|p| p.downstream.client_connections as usize).collect::<Vec<_>>().into();
    for (pool, bound) in setup.listeners.drain(..) {
        let table = Table {
            hub: Rc::clone(&hub),
            number: setup.number,
            seats: setup.seats.clone(),
            open: Arc::clone(&setup.open),
            limits: Rc::clone(&limits),
            pool,
        };
        tokio::task::spawn_local(accept(table, bound.start()?, setup.shutdown.clone()));
    }
    // A stopped main thread needs no answer.
    let _ = started.send(());
    loop {
        tokio::select! {
            biased;
            () = setup.shutdown.cancelled() => break,
            dealt = setup.dealt.recv() => match dealt {
                Some(dealt) => {
                    let hub = Rc::clone(&hub);
                    if let Ok(stream) = dealt.accepted.attach() {
                        let (pool, place) = (dealt.pool, dealt.place);
                        tokio::task::spawn_local(Session::new(hub, stream, pool, place));
                    }
                }
                None => break,
            },
        }
    }
    setup.shutdown.cancelled().await;
    finish(&hub).await;
    Ok(())
}

/// Lets sessions have the replies they wait for, within the grace time.
async fn finish(hub: &Hub) {
    hub.with(|engine, sockets| engine.finish_all(sockets));
    let end = hub.now() + GRACE.as_micros() as u64;
    while hub.engine().session_count() > 0 && hub.now() < end {
        tokio::time::sleep(TICK).await;
    }
}

/// What is folded by the ticker, and where to.
struct Books {
    pools: Vec<PoolBook>,
    worker: WorkerMetrics,
    exporter: Arc<Exporter>,
    /// Connections below this number have their handles.
    known: LineId,
}

struct PoolBook {
    name: Rc<str>,
    metrics: PoolMetrics,
    /// For each shard its connections.
    shards: Vec<Vec<(LineId, BackendMetrics)>>,
    /// For each shard how often it was ejected, and whether it is out: what was told last.
    ejections: Vec<(u64, bool)>,
    /// The names of the shards, for the log.
    names: Vec<String>,
}

/// Makes the handles of the metrics.
fn open_books(setup: &Setup) -> Books {
    let book = |pool: &Pool| {
        let names: Vec<String> = shards(pool).into_iter().map(|shard| shard.name).collect();
        PoolBook {
            name: pool.name.as_str().into(),
            metrics: setup.exporter.pool(&pool.name),
            shards: names.iter().map(|_| Vec::new()).collect(),
            ejections: vec![(0, false); names.len()],
            names,
        }
    };
    Books {
        pools: setup.config.pools.iter().map(book).collect(),
        worker: setup.exporter.worker(setup.number),
        exporter: Arc::clone(&setup.exporter),
        known: 0,
    }
}

impl Books {
    /// Makes handles for connections that have come since the last time.
    fn meet(&mut self, engine: &Engine) {
        for id in self.known..engine.line_count() {
            let Some(line) = engine.line(id) else { continue };
            let Some(book) = self.pools.get_mut(usize::from(line.pool)) else { continue };
            let shard = usize::from(line.shard);
            if let (Some(lines), Some(name)) = (book.shards.get_mut(shard), book.names.get(shard)) {
                lines.push((id, self.exporter.backend(&book.name, name)));
            }
        }
        self.known = engine.line_count();
    }
}

/// Where accepted connections are dealt from.
struct Table {
    hub: Rc<Hub>,
    number: usize,
    seats: Vec<Seat>,
    open: Arc<Vec<AtomicUsize>>,
    limits: Rc<[usize]>,
    pool: u16,
}

async fn accept(table: Table, listener: Listener, shutdown: CancellationToken) {
    let pool = usize::from(table.pool);
    loop {
        let stream = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            stream = listener.accept() => stream,
        };
        let limit = table.limits.get(pool).copied().unwrap_or(0);
        let Some(open) = table.open.get(pool) else { return };
        if limit > 0 && open.load(Ordering::Relaxed) >= limit {
            turn_away(&table, stream);
            continue;
        }
        // The fewest sessions; among equals the first.
        let Some((seat_number, seat)) =
            table.seats.iter().enumerate().min_by_key(|(_, seat)| seat.load.load(Ordering::Relaxed))
        else {
            return;
        };
        open.fetch_add(1, Ordering::Relaxed);
        seat.load.fetch_add(1, Ordering::Relaxed);
        let place = Place { open: Arc::clone(&table.open), pool: table.pool, load: Arc::clone(&seat.load) };
        if seat_number == table.number {
            let (hub, pool) = (Rc::clone(&table.hub), table.pool);
            tokio::task::spawn_local(Session::new(hub, stream, pool, place));
        } else if let Ok(accepted) = Accepted::detach(stream) {
            // Full means that the worker is behind; accepting then waits, and the kernel's backlog fills.
            let _ = seat.sender.send(Dealt { accepted, pool: table.pool, place }).await;
        }
    }
}

/// Answers in Redis' words and closes.
fn turn_away(table: &Table, stream: Socket) {
    if let Some(counts) = table.hub.engine().pool_counts(table.pool) {
        counts.client_refused += 1;
        counts.errors[Cause::MaxClients] += 1;
    }
    let text = format!("-{MAX_CLIENTS}\r\n");
    if let Ok(accepted) = Accepted::detach(stream) {
        // A new socket takes these few bytes at once; an app that has gone does not miss them.
        let _ = match accepted {
            Accepted::Tcp(mut socket) => socket.write(text.as_bytes()),
            Accepted::Unix(mut socket) => socket.write(text.as_bytes()),
        };
    }
}

/// Sends everything that waits, once for each pass of the scheduler.
async fn flusher(hub: Rc<Hub>, mut pacer: Pacer, tally: Rc<RefCell<WorkerCounts>>) {
    poll_fn(|cx| -> Poll<()> {
        hub.poll_flush(cx);
        let observation = {
            let engine = hub.engine();
            Observation { now: hub.now(), replies: engine.answered(), in_flight: engine.pending() }
        };
        let pause = pacer.after_flush(&observation, thread_cpu);
        let mut tally = tally.borrow_mut();
        tally.passes += 1;
        if pause > 0 {
            // This blocks the whole worker, on purpose: everything has just been sent, and what arrives meanwhile is taken
            // with one epoll_wait and answered with fewer, larger calls on all four sides. A timer of the runtime would be
            // a millisecond, a timerfd would cost the wake-ups that are to be saved.
            std::thread::sleep(Duration::from_micros(u64::from(pause)));
            tally.paused += u64::from(pause);
            tally.pause.set(u64::from(pacer.level()));
        }
        Poll::Pending
    })
    .await;
}

/// This thread's CPU time in microseconds.
fn thread_cpu() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}

/// Looks after timeouts, stages and counters.
async fn ticker(
    hub: Rc<Hub>,
    mut books: Books,
    tally: Rc<RefCell<WorkerCounts>>,
    board: Arc<Mutex<Vec<Vec<ShardView>>>>,
) {
    let mut folded = 0;
    let mut requests = 0;
    loop {
        let busy = hub.engine().in_flight() > 0;
        if busy {
            tokio::time::sleep(TICK).await;
        } else {
            hub.set_idle(true);
            // Time out or not: there is something to look after.
            let _ = tokio::time::timeout(IDLE_TICK, hub.busy.notified()).await;
            hub.set_idle(false);
        }
        let now = hub.now();
        let overdue = hub.with(|engine, sockets| engine.tick(now, sockets));
        for (line, failure) in overdue {
            give_up(&hub, line, failure);
        }
        hub.sockets().look_after();
        if now >= folded + FOLD {
            folded = now;
            let total = hub.engine().requests();
            let mut tally = tally.borrow_mut();
            tally.requests += total - requests;
            requests = total;
            books.worker.fold(&mut tally);
            let view = fold(&hub, &mut books);
            *board.lock().unwrap_or_else(PoisonError::into_inner) = view;
        }
    }
}

/// Publishes what was counted since the last time.
fn fold(hub: &Hub, books: &mut Books) -> Vec<Vec<ShardView>> {
    let mut engine = hub.engine();
    books.meet(&engine);
    let mut views = Vec::with_capacity(books.pools.len());
    for (number, book) in books.pools.iter_mut().enumerate() {
        let pool = number as u16;
        if let Some(counts) = engine.pool_counts(pool) {
            book.metrics.fold(counts);
        }
        let mut pool_view = Vec::with_capacity(book.shards.len());
        for (index, lines) in book.shards.iter_mut().enumerate() {
            let shard = index as u16;
            let (state, ejections, failures) = engine.path(pool).map_or((ShardState::Up, 0, 0), |path| {
                (path.health.state(shard), path.health.ejections(shard), path.health.failures(shard))
            });
            let mut view = ShardView {
                ejected: state == ShardState::Ejected,
                down: state != ShardState::Up,
                ..ShardView::default()
            };
            let mut ejected_anew = 0;
            if let Some(told) = book.ejections.get_mut(index) {
                let (pool, shard) = (&book.name, book.names.get(index).map_or("", String::as_str));
                ejected_anew = ejections - told.0;
                // Out and back between two looks are both told.
                if ejected_anew > 0 {
                    tracing::warn!(%pool, shard, failures, "ejected");
                }
                if !view.ejected && (told.1 || ejected_anew > 0) {
                    tracing::info!(%pool, shard, "back in the ring");
                }
                *told = (ejections, view.ejected);
            }
            for (lane, (line, metrics)) in lines.iter_mut().enumerate() {
                let Some(line) = engine.line_mut(*line) else { continue };
                let counts = line.measure();
                if lane == 0 {
                    // A shard's own, and not its connections': told with the first.
                    counts.server_ejected.set(u64::from(view.ejected));
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

/// Answers questions about what would become of a request.
async fn desk(hub: Rc<Hub>, mut questions: mpsc::Receiver<Question>) {
    while let Some(question) = questions.recv().await {
        let now = hub.now();
        let told = hub.engine().explain(question.pool, &question.wire, now);
        // Whoever asked may have gone.
        let _ = question.answer.send(told);
    }
}
