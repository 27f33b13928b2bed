//! The process: binds, starts the workers and the admin listener, waits for a signal, stops.

mod doors;
mod faults;
mod history;
mod hotkeys;
mod housekeeping;
mod source;
mod status;
mod topologies;
mod usage;
mod warm;

use crate::admin;
use crate::chance::splitmix;
use crate::config::{self, Config, Workers};
use crate::downstream::config::Manner;
use crate::downstream::listener::SocketFile;
use crate::engine::budget::Budget;
use crate::handover::Taken;
use crate::hub::Clock;
use crate::live::Live;
use crate::memory;
use crate::metrics::Exporter;
use crate::plan;
use crate::reload::{Watched, keep_what_needs_a_restart, report, settings};
use crate::traces::{self, Outlets, Record};
use crate::worker::{self, Listening, Order, Reload, Seat, Setup, Whose};
use doors::{ADMIN, AdminDoor, Door, accept_taker, admin_listener, bind_admin, name_of, open_door, take_over};
use housekeeping::housekeeping;
use source::Shared;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::net::UnixListener;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use topologies::{News, Notes, Topologies, ask_first};

/// Connections on their way to a worker, at most.
const DEALT: usize = 1024;
/// Questions that wait for a worker, at most.
const QUESTIONS: usize = 16;
/// Reloads that wait for the one before them, at most.
const ASKS: usize = 4;
/// Signals that wait, at most.
const SIGNALS: usize = 4;
/// Longer than anybody waits.
const LONG: Duration = Duration::from_secs(3600);
const ENDED: &str = "the worker has ended";
const STOPPING: &str = "hotring is stopping";

/// Listeners that are opened, closed (by number), and given to another pool.
type DoorChanges = (Vec<Listening>, Vec<u64>, Vec<(u64, Whose)>);

/// Why the process cannot start, or go on.
#[derive(Debug)]
pub enum StartError {
    /// An address cannot be listened on.
    Bind {
        /// Whose address: a pool's name, or `admin`.
        who: String,
        /// The address.
        address: String,
        /// Why not.
        error: io::Error,
    },
    /// The system refuses a thread or a runtime.
    System(io::Error),
    /// A worker could not go on; it says why.
    Worker(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { who, address, error } => write!(f, "{who}: cannot listen on {address}: {error}"),
            Self::System(error) => write!(f, "cannot start: {error}"),
            Self::Worker(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

/// A running process: its workers, and what the admin listener knows of it.
pub struct Proxy {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<io::Result<()>>>,
    shutdown: CancellationToken,
    halt: CancellationToken,
    /// Ends when all workers have.
    ended: mpsc::Receiver<()>,
    doors: Vec<Door>,
    /// What the process that this one replaces has given.
    taken: Option<Taken>,
    watched: Watched,
    topologies: Topologies,
    /// What workers have sampled, for spans and for lines, and the number that spans' are drawn from.
    sampled: Option<(mpsc::Receiver<Record>, mpsc::Receiver<Record>, u64)>,
    /// The tasks of [`Proxy::run`].
    tasks: TaskTracker,
}

/// What a process is told while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// To finish what it has begun and stop; told twice, to stop at once.
    Stop,
    /// To read its configuration again.
    Reload,
}

impl Proxy {
    /// Binds all listeners and starts the workers.
    ///
    /// # Errors
    /// Where an address cannot be bound, or the system refuses a thread.
    #[expect(clippy::disallowed_methods, reason = "whole minutes of the process' life, for the numbers of shards")]
    pub fn start(config: Config) -> Result<Self, StartError> {
        let workers = match config.workers {
            Workers::Count(count) => usize::from(count.get()),
            Workers::Auto => std::thread::available_parallelism().map_or(1, usize::from),
        };
        // Before anything that takes its time: what is changed meanwhile is a change.
        let watched = Watched::new(&config);
        let mut taken = config.handover.as_deref().and_then(take_over);
        // The one draw of the process: everything that needs chance is seeded from it.
        let seed = RandomState::new().hash_one(std::process::id());
        let (mut topologies, notes) = (Topologies::new(splitmix(seed)), Notes::default());
        let mut fresh = topologies.prepare(&config);
        let mut live = Live::first(config, Instant::now());
        if !fresh.is_empty() {
            let runtime = Builder::new_current_thread().enable_all().build().map_err(StartError::System)?;
            for (pool, answer) in runtime.block_on(ask_first(&mut fresh)) {
                if let Some(layout) = notes.take_first(&pool, answer) {
                    live = live.with_layout(&pool, layout, Instant::now());
                }
            }
            // A name that its server does not answer must not hold the start.
            runtime.shutdown_background();
            topologies.adopt(fresh, &live.config);
        }
        let live = Arc::new(live);
        let (mut doors, mut listeners) = (Vec::new(), Vec::new());
        for (pool, place) in live.listed() {
            for (address, manner) in place.pool.downstream.listeners() {
                let given = taken.as_mut().and_then(|taken| taken.find(&name_of(address)));
                let copy = live.config.handover.is_some();
                let (door, listening) =
                    open_door(doors.len() as u64, Whose { pool, manner }, &place.pool, address, given, copy)?;
                doors.push(door);
                listeners.push(listening);
            }
        }
        let port = listeners.iter().find_map(|l| l.bound.port()).unwrap_or(0);
        let exporter = Arc::new(Exporter::new());
        let (shutdown, halt) = (CancellationToken::new(), CancellationToken::new());
        let (ending, ended) = mpsc::channel(1);
        let (mut seats, mut receivers) = (Vec::new(), Vec::new());
        for _ in 0..workers {
            let (sender, receiver) = mpsc::channel(DEALT);
            seats.push(Seat { sender, load: Arc::new(AtomicUsize::new(0)) });
            receivers.push(receiver);
        }
        let clock = Clock::start();
        let scripts = Arc::default();
        let budget = Arc::new(Budget::new(live.config.max_memory.bytes(memory::limit), workers));
        let (outlets, to_collector, to_log) = Outlets::new();
        let sampled = Some((to_collector, to_log, splitmix(!seed)));
        let (mut desks, mut boards, mut threads) = (Vec::new(), Vec::new(), Vec::new());
        for (number, dealt) in receivers.into_iter().enumerate() {
            let (desk, orders) = mpsc::channel(QUESTIONS);
            let board = Arc::new(Mutex::new(Vec::new()));
            let setup = Setup {
                number,
                workers,
                live: Arc::clone(&live),
                listeners: if number == 0 { std::mem::take(&mut listeners) } else { Vec::new() },
                seats: if number == 0 { seats.clone() } else { Vec::new() },
                dealt,
                orders,
                exporter: Arc::clone(&exporter),
                board: Arc::clone(&board),
                shutdown: shutdown.clone(),
                halt: halt.clone(),
                port,
                clock,
                seed,
                scripts: Arc::clone(&scripts),
                budget: Arc::clone(&budget),
                outlets: outlets.clone(),
            };
            let (started, is_started) = oneshot::channel();
            let ending = ending.clone();
            let thread = std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || {
                    let _ending = ending;
                    worker::run(setup, started)
                })
                .map_err(StartError::System)?;
            if is_started.blocking_recv().is_err() {
                let error = match thread.join() {
                    Ok(Err(error)) => error,
                    _ => io::Error::other("a worker ended at its start"),
                };
                return Err(StartError::System(error));
            }
            desks.push(desk);
            boards.push(board);
            threads.push(thread);
        }
        let (asks, asked) = mpsc::channel(ASKS);
        let shared = Arc::new(Shared {
            live: Mutex::new(live),
            exporter,
            desks,
            boards,
            budget,
            stopping: AtomicBool::new(false),
            refused: Mutex::default(),
            asks,
            asked: Mutex::new(Some(asked)),
            reloads: Mutex::default(),
            actions: Mutex::default(),
            histories: Mutex::default(),
            rings: Mutex::default(),
            last_reload: Mutex::default(),
            faults: Mutex::default(),
            topologies: notes,
            outlets,
        });
        let tasks = TaskTracker::new();
        Ok(Self { shared, threads, shutdown, halt, ended, doors, taken, watched, topologies, sampled, tasks })
    }

    /// Where it listens: pool and address, in the order of the config file. Port 0 has become a real one.
    #[must_use]
    pub fn addresses(&self) -> Vec<(String, String)> {
        self.doors.iter().map(|door| (door.pool.clone(), door.at.clone())).collect()
    }

    /// Whether it speaks TLS at this one of its addresses.
    #[must_use]
    pub fn encrypts(&self, address: &str) -> bool {
        self.doors.iter().any(|door| door.at == address && door.manner == Manner::Encrypted)
    }

    /// What the admin listener asks.
    #[must_use]
    pub fn source(&self) -> Arc<dyn admin::Source> {
        Arc::clone(&self.shared) as Arc<dyn admin::Source>
    }

    /// Stops: no new connections, open requests get their replies within `drain.timeout`.
    ///
    /// # Errors
    /// Where a worker had failed.
    pub fn stop(mut self) -> io::Result<()> {
        let runtime = Builder::new_current_thread().enable_time().build()?;
        runtime.block_on(self.wind_down(std::future::pending()));
        self.join()
    }

    /// Serves the admin listener and follows the configuration until it is told to stop; then stops as `drain` says.
    /// `watch` starts, on the runtime, whatever tells signals.
    ///
    /// # Errors
    /// Where the admin address cannot be bound, or a worker failed.
    pub fn run(
        mut self,
        ready: impl FnOnce(&Self, Option<&str>),
        watch: impl FnOnce(mpsc::Sender<Signal>),
    ) -> Result<(), StartError> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(StartError::System)?;
        let ended = runtime.block_on(async {
            let (tasks, quit) = (self.tasks.clone(), CancellationToken::new());
            self.topologies.run(&self.shared.live(), &tasks);
            let config = Arc::clone(&self.shared.live().config);
            let mut admin = AdminDoor::default();
            let admin_bound = match &config.admin {
                None => None,
                Some(address) => {
                    let bad = |error| StartError::Bind { who: "admin".into(), address: address.to_string(), error };
                    admin.name = format!("{ADMIN}{}", name_of(address));
                    let given = self.taken.as_mut().and_then(|taken| taken.find(&admin.name));
                    let (bound, at) = bind_admin(address, given).await.map_err(bad)?;
                    if config.handover.is_some() {
                        (admin.copy, admin.stays) =
                            bound.copy().map(|(copy, stays)| (Some(copy), stays)).map_err(bad)?;
                    }
                    let (listener, file) = admin_listener(bound).map_err(bad)?;
                    let (source, quit) = (self.source(), admin.quit.clone());
                    tasks.spawn(async move {
                        let _file = file;
                        if let Err(error) = admin::serve(listener, source, quit).await {
                            tracing::error!(%error, "the admin listener ended");
                        }
                    });
                    Some(at)
                }
            };
            tasks.spawn(housekeeping(Arc::clone(&self.shared), self.threads.len(), quit.clone()));
            tasks.spawn(history::keep(Arc::clone(&self.shared), quit.clone()));
            if let Some((to_collector, to_log, seed)) = self.sampled.take() {
                let shared = Arc::clone(&self.shared);
                let settings = move || shared.live().config.tracing.clone();
                let tally = Arc::clone(self.shared.outlets.tally());
                tasks.spawn(traces::spans::run(settings, to_collector, Arc::clone(&tally), seed, quit.clone()));
                let shared = Arc::clone(&self.shared);
                let settings = move || shared.live().config.access_log.clone();
                tasks.spawn(traces::access::run(settings, to_log, tally, quit.clone()));
            }
            let (sender, signals) = mpsc::channel(SIGNALS);
            let mut signals = Signals { from: signals, stop: false, again: false };
            watch(sender);
            let mut handover = self.offer(&config)?;
            if let Some(taken) = self.taken.take() {
                if let Err(error) = taken.confirm() {
                    tracing::warn!(%error, "the process that gave its listeners cannot be told that this one serves");
                }
                // The files were the other's until then.
                let files = self.doors.iter().filter_map(|door| door.stays.as_ref()).chain(&admin.stays);
                files.for_each(|stays| stays.store(false, Ordering::Relaxed));
            }
            if let (Some((_, file)), Some(path)) = (&mut handover, &config.handover) {
                file.move_to(path).map_err(|error| StartError::Bind {
                    who: "handover".into(),
                    address: path.display().to_string(),
                    error,
                })?;
            }
            ready(&self, admin_bound.as_deref());
            self.follow(&mut signals, &admin, handover.as_ref()).await;
            self.drain(&mut signals).await;
            admin.quit.cancel();
            quit.cancel();
            self.topologies.quit();
            tasks.close();
            tasks.wait().await;
            Ok(())
        });
        // A file that is still being read must not hold the stop.
        runtime.shutdown_background();
        ended?;
        self.join().map_err(StartError::Worker)
    }

    /// Follows the configuration until it is time to stop.
    async fn follow(
        &mut self,
        signals: &mut Signals,
        admin: &AdminDoor,
        handover: Option<&(UnixListener, SocketFile)>,
    ) {
        let asked = self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut asked = asked.unwrap_or_else(|| mpsc::channel(1).1);
        let mut watch = self.shared.live().config.watch;
        // Goes on while others ask for this and that, who could keep it from ever being over.
        let mut look = pin!(tokio::time::sleep(watch.unwrap_or(LONG)));
        loop {
            let warm = self.warm_left();
            let ask = tokio::select! {
                () = tokio::time::sleep(warm.unwrap_or(LONG)), if warm.is_some() => {
                    self.cool_down().await;
                    continue;
                }
                // A worker could not go on.
                () = self.shutdown.cancelled() => return,
                signal = signals.next() => match signal {
                    // Told in the log.
                    Signal::Reload => None,
                    Signal::Stop => return,
                },
                taker = accept_taker(handover) => {
                    if self.hand_over(taker, admin, handover, signals).await {
                        return;
                    }
                    continue;
                }
                Some(ask) = asked.recv() => Some(ask),
                Some(news) = self.topologies.news.recv() => {
                    if let Err(error) = self.take_news(news).await {
                        tracing::error!(error, "the topology cannot be taken");
                    }
                    continue;
                }
                () = &mut look, if watch.is_some() => {
                    look.set(tokio::time::sleep(watch.unwrap_or(LONG)));
                    if !self.watched.has_settled() {
                        continue;
                    }
                    tracing::info!("the configuration has changed: reading it again");
                    None
                }
            };
            let dry = ask.as_ref().is_some_and(|ask| ask.dry);
            if !dry {
                self.watched.look();
            }
            let answer = self.reload(dry, signals).await;
            let config = Arc::clone(&self.shared.live().config);
            if watch != config.watch {
                watch = config.watch;
                look.set(tokio::time::sleep(watch.unwrap_or(LONG)));
            }
            if let Some(ask) = ask {
                // Whoever asked may have gone.
                let _ = ask.answer.send(answer);
            }
        }
    }

    /// Reads the configuration again and goes on with it, or says what would change. The answer is for people; all of it is
    /// logged, too.
    ///
    /// # Errors
    /// What is wrong with it, in which case nothing has changed.
    async fn reload(&mut self, dry: bool, signals: &mut Signals) -> Result<String, String> {
        let done = self.try_reload(dry, signals).await;
        if dry || signals.stop {
            return done;
        }
        let (taken, told) = (done.is_ok(), done.clone().unwrap_or_else(|problems| problems));
        let note = admin::status::Reload { at: history::unix_millis(), taken, told };
        *self.shared.last_reload.lock().unwrap_or_else(PoisonError::into_inner) = Some(note);
        let mut counts = self.shared.reloads.lock().unwrap_or_else(PoisonError::into_inner);
        let mut refused = self.shared.refused.lock().unwrap_or_else(PoisonError::into_inner);
        match &done {
            Ok(_) => {
                counts.done += 1;
                refused.clear();
            }
            Err(problems) => {
                counts.refused += 1;
                tracing::error!("the configuration is not taken, the last good one stays:\n{problems}");
                refused.clone_from(problems);
            }
        }
        done
    }

    #[expect(clippy::disallowed_methods, reason = "whole minutes of the process' life, for the numbers of shards")]
    async fn try_reload(&mut self, dry: bool, signals: &mut Signals) -> Result<String, String> {
        let now = self.shared.live();
        let path = now.config.source.path.clone();
        // Files are small, but a disk may hang: the signals must not.
        let reading = tokio::task::spawn_blocking(move || config::load(&path));
        let read = tokio::select! {
            read = reading => read,
            () = signals.told_to_stop() => return Err(STOPPING.into()),
        };
        let mut config = read.map_err(|error| error.to_string())?.map_err(|problems| problems.to_string())?;
        if !dry {
            // Also if it is refused for another reason: these are the files that may be mended.
            self.watched.follow(&config);
        }
        let restart = keep_what_needs_a_restart(&now.config, &mut config);
        let mut fresh = if dry { Vec::new() } else { self.topologies.prepare(&config) };
        let mut known = now.next(config, Instant::now());
        if !fresh.is_empty() {
            let answers = tokio::select! {
                answers = ask_first(&mut fresh) => answers,
                () = signals.told_to_stop() => return Err(STOPPING.into()),
            };
            for (pool, answer) in answers {
                if let Some(layout) = self.shared.topologies.take_first(&pool, answer) {
                    known = known.with_layout(&pool, layout, Instant::now());
                }
            }
        }
        let next = Arc::new(known);
        let led = plan::warnings(&now, &next);
        let changes = report(&settings(&now.config, &next.config), &now.changes(&next), &restart);
        let mut told = led.clone() + &changes;
        if dry {
            return Ok(told);
        }
        tracing::info!("{}", changes.trim_end());
        if !led.is_empty() {
            tracing::warn!("{}", led.trim_end());
        }
        let (open, close, hand_over) = self.change_doors(&next)?;
        self.order_reload(&next, (open, close, hand_over)).await?;
        next.config.pools.iter().for_each(|pool| pool.misses.settle());
        self.topologies.adopt(fresh, &next.config);
        self.topologies.run(&next, &self.tasks);
        *self.shared.live.lock().unwrap_or_else(PoisonError::into_inner) = next;
        told += "taken\n";
        Ok(told)
    }

    /// How long it takes until keys of some pool are not looked for any more where they lived before.
    #[expect(clippy::disallowed_methods, reason = "minutes of the process' life")]
    fn warm_left(&self) -> Option<Duration> {
        self.shared.live().next_cooled(Instant::now())
    }

    /// Keys of some pool are not looked for any more where they lived before.
    #[expect(clippy::disallowed_methods, reason = "minutes of the process' life, and the numbers of shards")]
    async fn cool_down(&self) {
        let now = self.shared.live();
        let next = Arc::new(now.next((*now.config).clone(), Instant::now()));
        for (_, pool) in next.listed() {
            let over = pool.former.as_ref().filter(|former| former.numbers.is_empty());
            let was = now.pools.iter().find(|before| before.pool.name == pool.pool.name);
            if over.is_some() && was.is_some_and(|was| !was.is_same(pool)) {
                tracing::info!(pool = %pool.pool.name, "`warm_for` is over: keys are not looked for any more where they lived before");
            }
        }
        // A worker that has ended ends the process.
        if self.order_reload(&next, DoorChanges::default()).await.is_ok() {
            *self.shared.live.lock().unwrap_or_else(PoisonError::into_inner) = next;
        }
    }

    /// Has all workers go on with something else; the doors are the first one's.
    async fn order_reload(&self, next: &Arc<Live>, doors: DoorChanges) -> Result<(), &'static str> {
        let mut doors = Some(doors);
        for desk in &self.shared.desks {
            let (done, is_done) = oneshot::channel();
            let (open, close, hand_over) = doors.take().unwrap_or_default();
            let order = Reload { live: Arc::clone(next), open, close, hand_over, done };
            desk.send(Order::Reload(order)).await.map_err(|_| ENDED)?;
            is_done.await.map_err(|_| ENDED)?;
        }
        Ok(())
    }

    /// Goes on with what was told of a pool's topology, if that is something else.
    #[expect(clippy::disallowed_methods, reason = "whole minutes of the process' life, for the numbers of shards")]
    async fn take_news(&self, news: News) -> Result<(), &'static str> {
        let Some(pool) = self.topologies.pool_of(&news) else { return Ok(()) };
        let at = Instant::now();
        let Some(layout) = topologies::take(&self.shared, &pool, &news.answer, at) else { return Ok(()) };
        let now = self.shared.live();
        let next = Arc::new(now.with_layout(&pool, layout, at));
        let of = |live: &Live| live.number(&pool).and_then(|number| live.pools.get(usize::from(number)).cloned());
        let only_slots = of(&now).zip(of(&next)).is_some_and(|(before, after)| before.differs_by_slots(&after));
        match next.number(&pool).filter(|_| only_slots) {
            Some(number) => {
                for desk in &self.shared.desks {
                    desk.send(Order::Slots(number, Arc::clone(&next))).await.map_err(|_| ENDED)?;
                }
            }
            None => self.order_reload(&next, DoorChanges::default()).await?,
        }
        *self.shared.live.lock().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    /// Stops in order: not ready first, then no new connections, then the end of what has begun.
    async fn drain(&mut self, signals: &mut Signals) {
        signals.stop = false;
        let drain = self.shared.live().config.drain;
        self.shared.stopping.store(true, Ordering::Relaxed);
        if !drain.delay.is_zero() && !self.shutdown.is_cancelled() {
            tracing::info!("not ready any more; listeners close in {:?}", drain.delay);
            tokio::select! {
                () = tokio::time::sleep(drain.delay) => {}
                () = signals.told_to_stop() => self.halt.cancel(),
            }
        }
        self.wind_down(signals.told_to_stop()).await;
    }

    /// Closes the listeners, and sessions as they have what they asked for; until `hurry` ends or `drain.timeout` is over.
    async fn wind_down(&mut self, hurry: impl Future<Output = ()>) {
        let timeout = self.shared.live().config.drain.timeout;
        self.shared.stopping.store(true, Ordering::Relaxed);
        // What is kept for another process keeps the sockets open: apps would be let in and wait for nothing.
        self.doors.clear();
        self.shutdown.cancel();
        tokio::select! {
            _ = self.ended.recv() => return,
            () = tokio::time::sleep(timeout) => tracing::warn!("some sessions did not end within drain.timeout"),
            () = hurry => tracing::warn!("told again to stop: stopping at once"),
        }
        self.halt.cancel();
        let _ = self.ended.recv().await;
    }

    fn join(self) -> io::Result<()> {
        for thread in self.threads {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("a worker panicked")))?;
        }
        Ok(())
    }
}

/// What the process is told, also while it does something else.
struct Signals {
    from: mpsc::Receiver<Signal>,
    /// It was told to stop, and that was not taken yet.
    stop: bool,
    /// The same, to read its configuration again.
    again: bool,
}

impl Signals {
    async fn next(&mut self) -> Signal {
        if self.stop {
            return Signal::Stop;
        }
        if std::mem::take(&mut self.again) {
            return Signal::Reload;
        }
        match self.from.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }

    /// Returns when it is told to stop, which is remembered, as is what else it is told.
    async fn told_to_stop(&mut self) {
        loop {
            match self.from.recv().await {
                Some(Signal::Stop) => {
                    self.stop = true;
                    return;
                }
                Some(Signal::Reload) => self.again = true,
                None => std::future::pending().await,
            }
        }
    }
}
