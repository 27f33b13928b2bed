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
use crate::config::Pool;
use crate::contain::{contain, contained};
use crate::downstream::config::Unread;
use crate::downstream::farewell::Farewell;
use crate::downstream::listener::{Accepted, Bound, Came, Listener};
use crate::downstream::reserve::Reserve;
use crate::downstream::session::Session;
use crate::engine::budget::Budget;
use crate::engine::deadlines::{Deadlines, Soft};
use crate::engine::lease::HEAD;
use crate::engine::window::Bounds;
use crate::engine::{About, Engine, LineId, PoolConfig, Scripts};
use crate::error::{Cause, MAX_CLIENTS, OUT_OF_MEMORY};
use crate::hub::{Clock, Hub, Socket, give_up};
use crate::lines::Lines;
use crate::live::{Live, LivePool, shards};
use crate::metrics::{BackendMetrics, Exporter, Label, LimitMetrics, PoolMetrics, WorkerCounts, WorkerMetrics};
use crate::pace::{Observation, Pacer};
use crate::resp::Limits;
use crate::stages::hot::Site;
use crate::stages::lease::Leases;
use crate::stages::{
    Coalesce, Health, HealthConfig, Hot, Merging, Micros, Path, Placement, Route, SPAN, ShardState, Way,
};
use crate::upstream::dial::LOOK_UPS;
use crate::upstream::{Servers, WhenEjected};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::io::{self, Write};
use std::num::NonZeroU64;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// The ticker's step while something is under way, and while nothing is.
const TICK: Duration = Duration::from_millis(10);
/// The same while replies may have to pass others that wait in their connection.
const SHORT_TICK: Duration = Duration::from_micros(HEAD);
const IDLE_TICK: Duration = Duration::from_millis(250);
/// How often the log is told of the worst stampede.
const MINUTE: Micros = 60_000_000;
/// How often counters are folded while something is under way.
const FOLD: u64 = 100_000;

/// Everything a worker starts with.
pub struct Setup {
    /// Its number.
    pub number: usize,
    /// How many there are.
    pub workers: usize,
    /// What runs at the start.
    pub live: Arc<Live>,
    /// Worker 0: all listeners.
    pub listeners: Vec<Listening>,
    /// Where accepted connections are dealt to, one seat for each worker.
    pub seats: Vec<Seat>,
    /// Connections dealt to this worker.
    pub dealt: mpsc::Receiver<Dealt>,
    /// What this worker is asked to do.
    pub orders: mpsc::Receiver<Order>,
    /// The metrics.
    pub exporter: Arc<Exporter>,
    /// How this worker sees the shards, by the numbers of pools and shards.
    pub board: Arc<Mutex<Vec<Vec<ShardView>>>>,
    /// Ends it: no new connections, open requests get their replies.
    pub shutdown: CancellationToken,
    /// Ends it at once.
    pub halt: CancellationToken,
    /// The port that INFO tells.
    pub port: u16,
    /// What all workers call the time.
    pub clock: Clock,
    /// What chance begins with.
    pub seed: u64,
    /// The scripts that passed through.
    pub scripts: Arc<Scripts>,
    /// What all workers may hold together.
    pub budget: Arc<Budget>,
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
    whose: Whose,
    place: Place,
}

/// A session's place in the counts, as long as it is open.
struct Place {
    open: Arc<AtomicUsize>,
    load: Arc<AtomicUsize>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.load.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A listener of a pool.
pub struct Listening {
    /// Its number in the process.
    pub number: u64,
    /// Whose it is.
    pub whose: Whose,
    /// The socket.
    pub bound: Bound,
}

/// Whose a listener is, and what its sessions may expect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whose {
    /// The number of its pool.
    pub pool: u16,
    /// Whether they are never answered from elsewhere than a key's server.
    pub strict: bool,
}

/// What a worker is asked to do.
pub enum Order {
    /// To say what would become of a request.
    Explain(Question),
    /// To go on with another configuration.
    Reload(Reload),
}

/// A change of what runs.
pub struct Reload {
    /// What runs from now on.
    pub live: Arc<Live>,
    /// Worker 0: listeners that are new.
    pub open: Vec<Listening>,
    /// Worker 0: listeners that are closed, by number.
    pub close: Vec<u64>,
    /// Worker 0: listeners that are another pool's now, or strict and were not, or the other way round.
    pub hand_over: Vec<(u64, Whose)>,
    /// Told when it is done.
    pub done: oneshot::Sender<()>,
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
    /// How it does.
    pub state: ShardState,
    /// Whether all connections to it are down.
    pub down: bool,
    /// Open connections.
    pub connections: u64,
    /// Requests not sent yet.
    pub in_queue: u64,
    /// Requests without a reply yet.
    pub out_queue: u64,
}

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
fn pool_config(live: &LivePool, lanes: u16, seed: u64, worker: usize) -> PoolConfig {
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
        }),
        None => route,
    };
    let route = route.with_replicas(live.replicas.clone());
    PoolConfig {
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
        misses: pool.misses.clone(),
        seed: seed ^ worker as u64,
        // The configuration is checked: what is wrong with a rule has been told, and nobody gets in by it.
        users: Arc::new(Users::new(&pool.downstream.users, pool.downstream.password.as_ref()).unwrap_or_default()),
        leases: Leases::new(Arc::new(pool.misses.clone()), Arc::clone(&live.leases), worker as u16),
        path: Path {
            route,
            hot: Hot::new(pool.hot.clone(), seed, Arc::clone(&live.fence))
                .at(Site { shards: live.order.len() as u16, replicas: !live.replicas.is_empty() })
                .telling(Arc::clone(&live.board), worker)
                .with_replicas(&live.replicas, count, lanes),
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

/// What is pinned, by the shards' numbers.
fn pins(live: &LivePool) -> Vec<(Box<[u8]>, u16)> {
    let number = |name: &str| live.order.iter().copied().find(|&shard| live.name_of(shard) == name);
    let pins = live.pool.ring.pins.iter();
    pins.filter_map(|(start, name)| Some((start.as_bytes().into(), number(name)?))).collect()
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
    // However it ends, the other workers and the process end with it: apps must not be dealt to a worker that is not there.
    let _with_it = setup.shutdown.clone().drop_guard();
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        // Only look-ups of names use them, one for each name at a time.
        .max_blocking_threads(LOOK_UPS)
        .build_local(LocalOptions::default())?;
    let ended = runtime.block_on(serve(setup, started));
    // A look-up that its name server does not answer must not hold the stop.
    runtime.shutdown_background();
    ended
}

async fn serve(mut setup: Setup, started: oneshot::Sender<()>) -> io::Result<()> {
    let clock = setup.clock;
    let mut engine = engine(&setup.live, setup.number, setup.workers, setup.seed);
    engine.share(Arc::clone(&setup.scripts));
    engine.budget_with(Arc::clone(&setup.budget), setup.number);
    engine.describe(About { process: std::process::id(), port: setup.port, epoch: wall_clock() * 1000 });
    let others = Arc::new(Notify::new());
    let bell = Arc::clone(&others);
    engine.wake_by(Arc::new(move || bell.notify_one()));
    let hub = Hub::new(engine, clock);
    let tally = Rc::new(RefCell::new(WorkerCounts::default()));
    let pacer = Pacer::new(setup.live.config.max_pause.as_micros() as u32, setup.number as u32);
    spawn_needed(&hub, "the flusher", flusher(Rc::clone(&hub), pacer, Rc::clone(&tally)));
    let books = Books::open(&setup.live, Arc::clone(&setup.exporter), setup.number);
    let live = Rc::new(RefCell::new(Arc::clone(&setup.live)));
    let lines = Rc::new(Lines::new(Rc::clone(&hub), Arc::clone(&setup.live), setup.seed, wall_clock));
    let from_the_start = hub.engine().line_count();
    (0..from_the_start).for_each(|line| lines.start(line, false));
    spawn_needed(&hub, "the one who opens connections", Rc::clone(&lines).run());
    spawn_needed(&hub, "the one who hears the other workers", hear(Rc::clone(&hub), others));
    let ticker = ticker(Rc::clone(&hub), books, Rc::clone(&live), Rc::clone(&tally), Arc::clone(&setup.board));
    spawn_needed(&hub, "the ticker", ticker);
    let doors = Doors {
        hub: Rc::clone(&hub),
        number: setup.number,
        seats: std::mem::take(&mut setup.seats).into(),
        live: Rc::clone(&live),
        shutdown: setup.shutdown.clone(),
        reserve: Rc::default(),
        open: HashMap::new(),
    };
    let running = Rc::clone(&live);
    let mut desk = Desk { hub: Rc::clone(&hub), lines, live, doors, seed: setup.seed };
    for listening in setup.listeners.drain(..) {
        desk.doors.open(listening)?;
    }
    spawn_needed(&hub, "the desk", desk.run(setup.orders));
    // A stopped main thread needs no answer.
    let _ = started.send(());
    loop {
        tokio::select! {
            biased;
            () = setup.shutdown.cancelled() => break,
            text = hub.broken_down() => return Err(io::Error::other(text)),
            dealt = setup.dealt.recv() => match dealt {
                Some(dealt) => {
                    let Dealt { accepted, whose: Whose { pool, strict }, place } = dealt;
                    if let Ok(stream) = accepted.attach() {
                        tokio::task::spawn_local(Session::new(Rc::clone(&hub), stream, pool, strict, place));
                    }
                    if !running.borrow().pools.get(usize::from(pool)).is_some_and(|pool| pool.listed) {
                        // Its pool has left while it was on its way.
                        hub.with(|engine, sockets| engine.finish_pool(pool, sockets));
                    }
                }
                None => break,
            },
        }
    }
    setup.shutdown.cancelled().await;
    while let Ok(Dealt { accepted, whose: Whose { pool, strict }, place }) = setup.dealt.try_recv() {
        if let Ok(stream) = accepted.attach() {
            tokio::task::spawn_local(Session::new(Rc::clone(&hub), stream, pool, strict, place));
        }
    }
    finish(&hub, &setup.halt).await;
    Ok(())
}

/// Starts a task that the worker cannot be without. One that panics is not started again: what it was about to do is not
/// known (a reply that nobody sends any more is an app that hangs), while a process that ends is soon started again.
fn spawn_needed(hub: &Rc<Hub>, whose: &'static str, task: impl Future<Output = ()> + 'static) {
    let hub = Rc::clone(hub);
    tokio::task::spawn_local(async move {
        if let Err(message) = contained(task).await {
            hub.break_down(whose, &message);
        }
    });
}

/// Lets sessions have the replies they wait for, until the process is told to halt.
async fn finish(hub: &Hub, halt: &CancellationToken) {
    loop {
        // Each time, as some may still be on their way from the listener.
        hub.with(|engine, sockets| engine.finish_all(sockets));
        if hub.engine().session_count() == 0 || halt.is_cancelled() {
            return;
        }
        let _ = tokio::time::timeout(TICK, halt.cancelled()).await;
    }
}

/// What is folded by the ticker, and where to.
struct Books {
    pools: Vec<PoolBook>,
    worker: WorkerMetrics,
    exporter: Arc<Exporter>,
    /// Connections below this number have their handles.
    known: LineId,
    /// What [`Engine::changes`] said when the handles were made.
    changes: u32,
}

struct PoolBook {
    name: Rc<str>,
    /// Whether it is configured.
    listed: bool,
    /// None for one that is not configured any more and has no sessions left.
    metrics: Option<PoolMetrics>,
    /// By their names, made when they are first seen.
    limits: BTreeMap<String, LimitMetrics>,
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
}

impl Books {
    /// Makes the handles of the metrics.
    fn open(live: &Live, exporter: Arc<Exporter>, worker: usize) -> Self {
        let worker = exporter.worker(worker);
        let mut books = Self { pools: Vec::new(), worker, exporter, known: 0, changes: 0 };
        books.renew(live);
        books
    }

    /// Makes the handles anew: pools and shards have come or gone. What was told of those that stay is remembered.
    fn renew(&mut self, live: &Live) {
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
                farewell: Farewell::default(),
                shards: names.iter().map(|_| Vec::new()).collect(),
                told: (0..names.len()).map(|shard| told(shard).unwrap_or_default()).collect(),
                names,
                untracked: 0,
                alone: 0,
                worst: 0,
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

/// The listeners of the process; on worker 0.
struct Doors {
    hub: Rc<Hub>,
    number: usize,
    seats: Rc<[Seat]>,
    live: Rc<RefCell<Arc<Live>>>,
    shutdown: CancellationToken,
    reserve: Rc<Reserve>,
    /// By number.
    open: HashMap<u64, Door>,
}

/// A listener that is open.
struct Door {
    /// Closes it.
    closing: CancellationToken,
    /// Whose it is.
    whose: Rc<Cell<Whose>>,
    /// Ends when it is closed.
    is_closed: oneshot::Receiver<()>,
}

impl Doors {
    /// Begins to accept.
    fn open(&mut self, listening: Listening) -> io::Result<()> {
        let listener = listening.bound.start()?;
        let (closing, whose) = (self.shutdown.child_token(), Rc::new(Cell::new(listening.whose)));
        let table = Table {
            hub: Rc::clone(&self.hub),
            number: self.number,
            seats: Rc::clone(&self.seats),
            live: Rc::clone(&self.live),
            whose: Rc::clone(&whose),
            reserve: Rc::clone(&self.reserve),
        };
        let (open, is_closed) = oneshot::channel::<()>();
        let (hub, stop) = (Rc::clone(&self.hub), closing.clone());
        spawn_needed(&hub, "a listener", async move {
            accept(table, listener, stop).await;
            drop(open);
        });
        self.open.insert(listening.number, Door { closing, whose, is_closed });
        Ok(())
    }

    /// Accepts nothing more; what is returned ends when the listener is closed.
    fn close(&mut self, number: u64) -> Option<oneshot::Receiver<()>> {
        let Door { closing, is_closed, .. } = self.open.remove(&number)?;
        closing.cancel();
        Some(is_closed)
    }
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

/// Where accepted connections are dealt from.
struct Table {
    hub: Rc<Hub>,
    number: usize,
    seats: Rc<[Seat]>,
    live: Rc<RefCell<Arc<Live>>>,
    whose: Rc<Cell<Whose>>,
    reserve: Rc<Reserve>,
}

async fn accept(table: Table, listener: Listener, closing: CancellationToken) {
    loop {
        let stream = tokio::select! {
            biased;
            () = closing.cancelled() => return,
            came = listener.accept(&table.reserve) => match came {
                Came::App(stream) => stream,
                Came::Beyond(stream) => {
                    table.reserve.complain(table.hub.now());
                    turn_away(&table, table.whose.get().pool, stream, Cause::MaxClients, MAX_CLIENTS);
                    table.reserve.keep();
                    continue;
                }
            },
        };
        let whose = table.whose.get();
        let Whose { pool, strict } = whose;
        let Some((limit, open)) = table
            .live
            .borrow()
            .pools
            .get(usize::from(pool))
            .map(|live| (live.pool.downstream.client_connections as usize, Arc::clone(&live.open)))
        else {
            return;
        };
        if limit > 0 && open.load(Ordering::Relaxed) >= limit {
            turn_away(&table, pool, stream, Cause::MaxClients, MAX_CLIENTS);
            continue;
        }
        if table.hub.engine().budget().is_full() {
            turn_away(&table, pool, stream, Cause::Memory, OUT_OF_MEMORY);
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
        let place = Place { open, load: Arc::clone(&seat.load) };
        if seat_number == table.number {
            tokio::task::spawn_local(Session::new(Rc::clone(&table.hub), stream, pool, strict, place));
        } else if let Ok(accepted) = Accepted::detach(stream) {
            // Full means that the worker is behind; accepting then waits, and the kernel's backlog fills.
            let _ = seat.sender.send(Dealt { accepted, whose, place }).await;
        }
    }
}

/// Answers with an error and closes.
fn turn_away(table: &Table, pool: u16, stream: Socket, cause: Cause, text: &str) {
    if let Some(counts) = table.hub.engine().pool_counts(pool) {
        counts.client_refused += 1;
        counts.errors[cause] += 1;
    }
    let text = format!("-{text}\r\n");
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

/// Does what other workers' doings want done here.
async fn hear(hub: Rc<Hub>, others: Arc<Notify>) {
    loop {
        others.notified().await;
        let now = hub.now();
        hub.with(|engine, _| engine.take_orders(now));
    }
}

/// Looks after timeouts, stages and counters.
async fn ticker(
    hub: Rc<Hub>,
    mut books: Books,
    live: Rc<RefCell<Arc<Live>>>,
    tally: Rc<RefCell<WorkerCounts>>,
    board: Arc<Mutex<Vec<Vec<ShardView>>>>,
) {
    let mut folded = 0;
    let mut requests = 0;
    loop {
        let busy = hub.engine().in_flight() > 0;
        if busy {
            let step = if hub.engine().has_heads() { SHORT_TICK } else { TICK };
            tokio::time::sleep(step).await;
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
            tally.panics += hub.take_panics();
            tally.memory.set(hub.engine().held());
            requests = total;
            books.worker.fold(&mut tally);
            let changes = hub.engine().changes();
            if std::mem::replace(&mut books.changes, changes) != changes {
                books.renew(&live.borrow());
            }
            let view = fold(&hub, &mut books);
            *board.lock().unwrap_or_else(PoisonError::into_inner) = view;
        }
    }
}

/// Publishes what was counted since the last time.
fn fold(hub: &Hub, books: &mut Books) -> Vec<Vec<ShardView>> {
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
                (book.metrics, book.limits) = (None, BTreeMap::new());
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
            engine.limit_counts(pool, |limit, counts| {
                limits.entry(limit.to_owned()).or_insert_with(|| exporter.limit(name, limit)).fold(counts);
            });
        }
        let mut pool_view = Vec::with_capacity(book.shards.len());
        for (index, lines) in book.shards.iter_mut().enumerate() {
            let shard = index as u16;
            let mut view = ShardView::default();
            let mut ejected_anew = 0;
            if let (Some(path), Some(told)) = (engine.path(pool), book.told.get_mut(index)) {
                let health = &path.health;
                (view.state, view.down) = (health.state(shard), health.is_down(shard));
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

/// Where a worker takes its orders.
struct Desk {
    hub: Rc<Hub>,
    lines: Rc<Lines>,
    live: Rc<RefCell<Arc<Live>>>,
    doors: Doors,
    seed: u64,
}

impl Desk {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        while let Some(order) = orders.recv().await {
            match order {
                Order::Explain(question) => {
                    let now = self.hub.now();
                    let explain = || self.hub.engine().explain(question.pool, &question.wire, now);
                    let told = contain(explain).unwrap_or_else(|message| {
                        self.hub.panicked("an explanation", &message);
                        Err("hotring could not tell, because of an error of its own".into())
                    });
                    // Whoever asked may have gone.
                    let _ = question.answer.send(told);
                }
                Order::Reload(reload) => self.reload(reload).await,
            }
        }
    }

    /// Goes on with another configuration, between two requests.
    async fn reload(&mut self, reload: Reload) {
        let Reload { live, open, close, hand_over, done } = reload;
        let running = Arc::clone(&self.live.borrow());
        if running.config.commands != live.config.commands {
            crate::command::teach(&live.config.commands);
        }
        // First where connections lead to: the engine may want some at once.
        self.lines.renew(Arc::clone(&live));
        let before = self.hub.engine().line_count();
        let now = self.hub.now();
        self.hub.with(|engine, sockets| {
            for (number, pool) in (0..).zip(&live.pools) {
                let same = |before: &LivePool| before.listed == pool.listed && before.is_same(pool);
                if running.pools.get(usize::from(number)).is_some_and(same) {
                    continue;
                }
                let config = pool_config(pool, engine.lanes(number), self.seed, self.doors.number);
                engine.reload(number, config, now, sockets);
                if !pool.listed {
                    engine.finish_pool(number, sockets);
                }
            }
        });
        let after = self.hub.engine().line_count();
        (before..after).for_each(|line| self.lines.start(line, false));
        *self.live.borrow_mut() = live;
        let closed: Vec<_> = close.into_iter().filter_map(|number| self.doors.close(number)).collect();
        for (number, whose) in hand_over {
            if let Some(door) = self.doors.open.get(&number) {
                door.whose.set(whose);
            }
        }
        for listening in open {
            let number = listening.number;
            if let Err(error) = self.doors.open(listening) {
                tracing::error!(number, %error, "a listener cannot be watched");
            }
        }
        for is_closed in closed {
            // Its address may be bound anew by the next change, and its file must not be removed after that.
            let _ = is_closed.await;
        }
        // Whoever asked may have gone.
        let _ = done.send(());
    }
}
