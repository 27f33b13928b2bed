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

mod books;
mod doors;
mod pool;
mod samples;
mod turns;
mod welcome;

use books::{Books, fold};
use doors::Doors;
pub use pool::engine;
use pool::pool_config;
use welcome::welcome;

use crate::audit;
use crate::chance::splitmix;
use crate::contain::{contain, contained};
use crate::downstream::config::Manner;
use crate::downstream::listener::{Accepted, Bound};
use crate::engine::budget::Budget;
use crate::engine::lease::HEAD;
use crate::engine::{About, Scripts};
use crate::hub::{Clock, Hub, give_up};
use crate::lines::Lines;
use crate::live::{Live, LivePool};
use crate::metrics::{Exporter, WorkerCounts};
use crate::pace::{Observation, Pacer};
use crate::stages::fault::Rule;
use crate::stages::{Micros, ShardState};
use crate::traces::Outlets;
use crate::upstream::dial::LOOK_UPS;
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io::{self};
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
    /// Where sampled requests go.
    pub outlets: Outlets,
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
    /// How they are served.
    pub manner: Manner,
}

/// What a worker is asked to do.
pub enum Order {
    /// To say what would become of a request.
    Explain(Question),
    /// To go on with another configuration.
    Reload(Reload),
    /// To inject faults by other rules.
    Faults(FaultRules),
    /// To go on with other slots of a pool's shards, by its number; nothing else is different.
    Slots(u16, Arc<Live>),
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

/// By which rules faults are injected into a pool's requests, in place of those before.
pub struct FaultRules {
    /// The pool's number.
    pub pool: u16,
    /// Which change of the rules it is: a later one stands, whichever comes first.
    pub change: u64,
    /// The rules, each with how long it lasts.
    pub rules: Vec<(Rule, Micros)>,
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
    /// Why it was last said not to be well; empty if it never was.
    pub reason: &'static str,
    /// Open connections.
    pub connections: u64,
    /// Requests not sent yet.
    pub in_queue: u64,
    /// Requests without a reply yet.
    pub out_queue: u64,
}

/// Milliseconds since 1970.
fn wall_clock() -> u64 {
    wall_clock_micros() / 1000
}

/// Microseconds since 1970.
fn wall_clock_micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64)
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
    engine.set_sampling(samples::sampling(&setup.live), sample_seed(setup.seed, setup.number));
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
    if setup.number == 0 {
        lines.publish(Arc::clone(&setup.exporter));
    }
    spawn_needed(&hub, "the one who opens connections", Rc::clone(&lines).run());
    spawn_needed(&hub, "the one who hears the other workers", hear(Rc::clone(&hub), others));
    let outlets = setup.outlets.clone();
    let ticker = ticker(Rc::clone(&hub), books, Rc::clone(&live), Rc::clone(&tally), Arc::clone(&setup.board), outlets);
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
                    let Dealt { accepted, whose, place } = dealt;
                    let pool = whose.pool;
                    if let Ok(stream) = accepted.attach() {
                        welcome(&hub, &running, stream, whose, place);
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
    while let Ok(Dealt { accepted, whose, place }) = setup.dealt.try_recv() {
        if let Ok(stream) = accepted.attach() {
            welcome(&hub, &running, stream, whose, place);
        }
    }
    finish(&hub, &setup.halt).await;
    samples::hand_over(&hub, &running.borrow(), &setup.outlets);
    tell_trail(&hub);
    Ok(())
}

/// Tells the audit log what there is.
fn tell_trail(hub: &Hub) {
    let (noted, suppressed) = hub.with(|engine, sockets| engine.take_trail(sockets));
    if suppressed > 0 || !noted.is_empty() {
        audit::tell(&noted, suppressed);
    }
}

/// Where the draws of a worker's samples begin.
fn sample_seed(seed: u64, worker: usize) -> u64 {
    splitmix(seed ^ splitmix(worker as u64))
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

/// Sends everything that waits, once for each pass of the scheduler.
async fn flusher(hub: Rc<Hub>, mut pacer: Pacer, tally: Rc<RefCell<WorkerCounts>>) {
    poll_fn(|cx| -> Poll<()> {
        hub.poll_flush(cx);
        let (observation, began) = {
            let mut engine = hub.engine();
            let began = engine.take_pass();
            (Observation { now: hub.now(), replies: engine.answered(), in_flight: engine.pending() }, began)
        };
        let pause = pacer.after_flush(&observation, thread_cpu);
        let mut tally = tally.borrow_mut();
        tally.passes += 1;
        if let Some(began) = began {
            tally.pass_duration.record(observation.now.saturating_sub(began).try_into().unwrap_or(u32::MAX));
        }
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
    outlets: Outlets,
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
        tell_trail(&hub);
        for (number, pool) in (0..).zip(&live.borrow().pools) {
            if pool.pool.upstream.topology.asked().is_some() && hub.engine().take_wish(number) {
                pool.wish.notify_one();
            }
        }
        samples::hand_over(&hub, &live.borrow(), &outlets);
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
                Order::Faults(FaultRules { pool, change, rules, done }) => {
                    let now = self.hub.now();
                    self.hub.with(|engine, _| engine.set_faults(pool, change, rules, now));
                    // Whoever asked may have gone.
                    let _ = done.send(());
                }
                Order::Slots(pool, live) => {
                    let now = self.hub.now();
                    if let Some(slots) = live.pools.get(usize::from(pool)).and_then(|pool| pool.slots.clone()) {
                        self.hub.with(|engine, sockets| engine.set_slots(pool, slots, now, sockets));
                    }
                    *self.live.borrow_mut() = live;
                }
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
        let (before_it, sampling) = (samples::sampling(&running), samples::sampling(&live));
        if before_it != sampling {
            self.hub.engine().set_sampling(sampling, sample_seed(self.seed, self.doors.number));
        }
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
