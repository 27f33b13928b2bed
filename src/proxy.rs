//! The process: binds, starts the workers and the admin listener, waits for a signal, stops.

use crate::admin::{self, Backend, Explanation, Readiness};
use crate::config::{self, Config, Pool, Workers};
use crate::downstream::listener::{Bound, SocketFile, bind_unix};
use crate::embedded::{self, Node};
use crate::engine::budget::Budget;
use crate::handover::{self, Taken};
use crate::live::{Live, Place};
use crate::memory;
use crate::metrics::{BuildCounts, EmbeddedCounts, EmbeddedMetrics, Exporter, ProcessCounts, Reloaded};
use crate::reload::{ReloadCounts, Watched, keep_what_needs_a_restart, report, settings};
use crate::resp::write;
use crate::ring::KeyHash;
use crate::stages::ShardState;
use crate::units::Address;
use crate::worker::{self, Listening, Order, Question, Reload, Seat, Setup, ShardView};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

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
/// What the admin listener's name begins with when it is handed over.
const ADMIN: &str = "admin ";
const ENDED: &str = "the worker has ended";
const STOPPING: &str = "hotring is stopping";
/// Connections to the admin listener that the kernel may hold ready.
const ADMIN_BACKLOG: i32 = 128;
/// How often embedded nodes remove what has expired.
const EXPIRY: Duration = Duration::from_millis(100);

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
}

/// A listener of a pool, as the process knows it.
struct Door {
    number: u64,
    pool: String,
    /// As it is configured.
    address: Address,
    /// Where it is; port 0 has become a real one.
    at: String,
    /// Its socket once more, for the process that may replace this one.
    copy: Option<OwnedFd>,
    /// Set when its file is another process'.
    stays: Option<Arc<AtomicBool>>,
}

/// What is asked of the process from outside.
struct Shared {
    live: Mutex<Arc<Live>>,
    exporter: Arc<Exporter>,
    desks: Vec<mpsc::Sender<Order>>,
    boards: Vec<Arc<Mutex<Vec<Vec<ShardView>>>>>,
    budget: Arc<Budget>,
    stopping: AtomicBool,
    /// What was wrong with the last file that was not taken; empty if the last one was.
    refused: Mutex<String>,
    /// Reloads that were asked for over the admin listener.
    asks: mpsc::Sender<Ask>,
    asked: Mutex<Option<mpsc::Receiver<Ask>>>,
    reloads: Mutex<ReloadCounts>,
}

/// A reload that somebody waits for.
struct Ask {
    /// Whether only to say what would change.
    dry: bool,
    answer: oneshot::Sender<Result<String, String>>,
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
        let live = Arc::new(Live::first(config, Instant::now()));
        let (mut doors, mut listeners) = (Vec::new(), Vec::new());
        for (pool, place) in live.listed() {
            for address in &place.pool.downstream.listen {
                let given = taken.as_mut().and_then(|taken| taken.find(&name_of(address)));
                let copy = live.config.handover.is_some();
                let (door, listening) = open_door(doors.len() as u64, pool, &place.pool, address, given, copy)?;
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
        // The one draw of the process: everything that needs chance is seeded from it.
        let seed = RandomState::new().hash_one(std::process::id());
        let scripts = Arc::default();
        let budget = Arc::new(Budget::new(live.config.max_memory.bytes(memory::limit), workers));
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
                seed,
                scripts: Arc::clone(&scripts),
                budget: Arc::clone(&budget),
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
        });
        Ok(Self { shared, threads, shutdown, halt, ended, doors, taken, watched })
    }

    /// Where it listens: pool and address, in the order of the config file. Port 0 has become a real one.
    #[must_use]
    pub fn addresses(&self) -> Vec<(String, String)> {
        self.doors.iter().map(|door| (door.pool.clone(), door.at.clone())).collect()
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
            let (tasks, quit) = (TaskTracker::new(), CancellationToken::new());
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
            let ask = tokio::select! {
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

    /// Listens for a process that is to replace this one.
    fn offer(&self, config: &Config) -> Result<Option<(UnixListener, SocketFile)>, StartError> {
        let Some(path) = &config.handover else { return Ok(None) };
        let bad = |error| StartError::Bind { who: "handover".into(), address: path.display().to_string(), error };
        let (listener, file) = handover::listen(path).map_err(bad)?;
        Ok(Some((UnixListener::from_std(listener).map_err(bad)?, file)))
    }

    /// Gives the listeners to a process that has asked for them. Returns whether it serves now; this one then accepts nothing
    /// more.
    async fn hand_over(
        &mut self,
        taker: UnixStream,
        admin: &AdminDoor,
        handover: Option<&(UnixListener, SocketFile)>,
        signals: &mut Signals,
    ) -> bool {
        let listeners = || -> io::Result<Vec<(String, OwnedFd)>> {
            let copies = self.doors.iter().map(|door| (name_of(&door.address), &door.copy));
            let copies = copies.chain([(admin.name.clone(), &admin.copy)]);
            copies.filter_map(|(name, copy)| Some(copy.as_ref()?.try_clone().map(|copy| (name, copy)))).collect()
        };
        let both_ends = || -> io::Result<_> {
            let taker = taker.into_std()?;
            Ok((taker.try_clone()?, taker, listeners()?))
        };
        let given = match both_ends() {
            Ok((end, taker, listeners)) => {
                tracing::info!("another process asks for the listeners");
                let giving = tokio::task::spawn_blocking(move || handover::give(taker, &listeners));
                tokio::select! {
                    given = giving => given,
                    () = signals.told_to_stop() => {
                        // Whoever waits for its word is woken. It may be serving all the same, so the files are its own.
                        let _ = end.shutdown(Shutdown::Both);
                        self.leave_files(admin, handover);
                        return true;
                    }
                }
            }
            Err(error) => Ok(Err(error)),
        };
        match given {
            Ok(Ok(true)) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "the other process has not taken over: this one goes on");
                return false;
            }
            Ok(Ok(false)) | Err(_) => return false,
        }
        tracing::info!("the other process serves now: this one accepts nothing more and ends");
        self.leave_files(admin, handover);
        admin.quit.cancel();
        let (done, is_done) = oneshot::channel();
        let close = self.doors.drain(..).map(|door| door.number).collect();
        let order = Reload { live: self.shared.live(), open: Vec::new(), close, hand_over: Vec::new(), done };
        if let Some(desk) = self.shared.desks.first()
            && desk.send(Order::Reload(order)).await.is_ok()
        {
            let _ = is_done.await;
        }
        true
    }

    /// The files of unix sockets are another process' now.
    fn leave_files(&self, admin: &AdminDoor, handover: Option<&(UnixListener, SocketFile)>) {
        let files = self.doors.iter().filter_map(|door| door.stays.as_ref()).chain(&admin.stays).cloned();
        let files = files.chain(handover.map(|(_, file)| file.stays()));
        files.for_each(|stays| stays.store(true, Ordering::Relaxed));
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
        let next = Arc::new(now.next(config, Instant::now()));
        let mut told = report(&settings(&now.config, &next.config), &now.changes(&next), &restart);
        if dry {
            return Ok(told);
        }
        tracing::info!("{}", told.trim_end());
        let (open, close, hand_over) = self.change_doors(&next)?;
        let (mut open, mut close, mut hand_over) = (Some(open), Some(close), Some(hand_over));
        for desk in &self.shared.desks {
            let (done, is_done) = oneshot::channel();
            // The doors are the first worker's.
            let order = Reload {
                live: Arc::clone(&next),
                open: open.take().unwrap_or_default(),
                close: close.take().unwrap_or_default(),
                hand_over: hand_over.take().unwrap_or_default(),
                done,
            };
            desk.send(Order::Reload(order)).await.map_err(|_| ENDED)?;
            is_done.await.map_err(|_| ENDED)?;
        }
        *self.shared.live.lock().unwrap_or_else(PoisonError::into_inner) = next;
        told += "taken\n";
        Ok(told)
    }

    /// Binds what is new, before anything else is changed, and finds what is not wanted any more.
    #[expect(clippy::type_complexity, reason = "the three parts of an order, named where it is made")]
    fn change_doors(&mut self, next: &Live) -> Result<(Vec<Listening>, Vec<u64>, Vec<(u64, u16)>), String> {
        let mut before: Vec<Door> = std::mem::take(&mut self.doors);
        let (mut doors, mut open, mut moved) = (Vec::new(), Vec::new(), Vec::new());
        let mut number = before.iter().map(|door| door.number + 1).max().unwrap_or(0);
        let mut failed = None;
        for (pool, place) in next.listed() {
            for address in &place.pool.downstream.listen {
                let any_port = matches!(address, Address::Tcp { port: 0, .. });
                let same = |door: &Door| {
                    if any_port {
                        door.address == *address && door.pool == place.pool.name
                    } else {
                        door.address.is_same_place(address)
                    }
                };
                if let Some(at) = before.iter().position(same) {
                    let door = before.remove(at);
                    if door.pool != place.pool.name {
                        moved.push((door.number, pool));
                    }
                    doors.push(door);
                    continue;
                }
                match open_door(number, pool, &place.pool, address, None, next.config.handover.is_some()) {
                    Ok((door, listening)) => {
                        number += 1;
                        doors.push(door);
                        open.push(listening);
                    }
                    Err(error) => failed = failed.or(Some(error.to_string())),
                }
            }
        }
        if let Some(error) = failed {
            // Those just bound are closed again.
            let fresh: Vec<u64> = open.iter().map(|listening| listening.number).collect();
            doors.retain(|door| !fresh.contains(&door.number));
            doors.append(&mut before);
            self.doors = doors;
            return Err(error);
        }
        for door in &mut doors {
            // Only now: had anything failed, it would be the pool's that it was.
            let pool = moved.iter().find(|(number, _)| *number == door.number).map(|&(_, pool)| usize::from(pool));
            if let Some(place) = pool.and_then(|pool| next.pools.get(pool)) {
                door.pool.clone_from(&place.pool.name);
            }
        }
        self.doors = doors;
        Ok((open, before.into_iter().map(|door| door.number).collect(), moved))
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

/// Opens a listener, or takes the one that another process has `given`. A `copy` of it is kept if it may be handed on.
fn open_door(
    number: u64,
    pool: u16,
    config: &Pool,
    address: &Address,
    given: Option<OwnedFd>,
    copy: bool,
) -> Result<(Door, Listening), StartError> {
    let bad = |error| StartError::Bind { who: format!("pool {}", config.name), address: address.to_string(), error };
    let bound = match given {
        Some(given) => Bound::inherited(address, given),
        None => Bound::new(address, &config.downstream),
    };
    let bound = bound.map_err(bad)?;
    let (copy, stays) =
        if copy { bound.copy().map(|(copy, stays)| (Some(copy), stays)).map_err(bad)? } else { (None, None) };
    let at = bound.address();
    let door = Door { number, pool: config.name.clone(), address: address.clone(), at, copy, stays };
    Ok((door, Listening { number, pool, bound }))
}

/// The admin listener, as the process knows it.
#[derive(Default)]
struct AdminDoor {
    /// What it is called when it is handed over: at another place it is another one.
    name: String,
    copy: Option<OwnedFd>,
    stays: Option<Arc<AtomicBool>>,
    /// Ends it.
    quit: CancellationToken,
}

/// What a listener is called when it is handed over: its place, whoever's it is.
fn name_of(address: &Address) -> String {
    match address {
        Address::Tcp { host, port } => format!("tcp {host} {port}"),
        Address::Unix { path, .. } => format!("unix {}", path.display()),
    }
}

/// The listeners of the process that listens there for one that replaces it.
fn take_over(path: &Path) -> Option<Taken> {
    match Taken::from(path) {
        Ok(Some(taken)) => {
            tracing::info!("taking over the listeners of the process that runs");
            Some(taken)
        }
        Ok(None) => None,
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "the listeners cannot be taken over");
            None
        }
    }
}

/// The next process that wants to replace this one; never, if that is not wanted.
async fn accept_taker(handover: Option<&(UnixListener, SocketFile)>) -> UnixStream {
    let Some((listener, _)) = handover else { return std::future::pending().await };
    loop {
        match listener.accept().await {
            Ok((taker, _)) => return taker,
            // Out of descriptors, say: it will come again.
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}

/// Binds the admin listener, or takes the one that another process has given. Returns where it is.
async fn bind_admin(address: &Address, given: Option<OwnedFd>) -> io::Result<(Bound, String)> {
    let bound = match (given, address) {
        (Some(given), _) => Bound::inherited(address, given)?,
        (None, Address::Tcp { host, port }) => {
            let listener = tokio::net::TcpListener::bind((host.as_str(), *port)).await?;
            Bound::Tcp(listener.into_std()?)
        }
        (None, Address::Unix { path, mode }) => {
            let (listener, file) = bind_unix(path, *mode, ADMIN_BACKLOG)?;
            Bound::Unix(listener, file)
        }
    };
    let at = bound.address();
    Ok((bound, at))
}

/// A unix socket's file is removed with what is returned for it.
fn admin_listener(bound: Bound) -> io::Result<(admin::Listener, Option<SocketFile>)> {
    Ok(match bound {
        Bound::Tcp(listener) => (tokio::net::TcpListener::from_std(listener)?.into(), None),
        Bound::Unix(listener, file) => (UnixListener::from_std(listener)?.into(), Some(file)),
    })
}

fn unix_micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64)
}

/// What the process does on the side: expiry in embedded nodes, and the metrics that no worker owns.
async fn housekeeping(shared: Arc<Shared>, workers: usize, quit: CancellationToken) {
    let exporter = &shared.exporter;
    let mut process = exporter.process();
    let mut counts = ProcessCounts::default();
    counts.start_time.0 = unix_micros();
    counts.workers.0 = workers as u64;
    let mut build = exporter.build(env!("CARGO_PKG_VERSION"));
    let mut build_counts = BuildCounts::default();
    build_counts.info.0 = 1;
    build.fold(&mut build_counts);
    let mut live = None;
    let mut books: Vec<(Arc<Node>, EmbeddedMetrics, EmbeddedCounts, embedded::Stats)> = Vec::new();
    let mut rounds: u32 = 0;
    loop {
        let now = shared.live();
        if !live.as_ref().is_some_and(|live| Arc::ptr_eq(live, &now)) {
            counts.config_loaded.0 = unix_micros();
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
        {
            let reloads = std::mem::take(&mut *shared.reloads.lock().unwrap_or_else(PoisonError::into_inner));
            counts.reloads[Reloaded::Taken] += reloads.done;
            counts.reloads[Reloaded::Refused] += reloads.refused;
            counts.config_refused.0 = u64::from(!shared.refused().is_empty());
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

impl Shared {
    fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn refused(&self) -> String {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl admin::Source for Shared {
    fn metrics(&self) -> String {
        self.exporter.render()
    }

    fn ready(&self) -> Readiness {
        if self.stopping.load(Ordering::Relaxed) {
            return Readiness::NotReady(vec!["stopping".into()]);
        }
        let down = admin::Source::backends(self)
            .into_iter()
            .filter(|b| b.state != "up" && b.state != "idle")
            .map(|b| format!("shard {}/{} is {}", b.pool, b.name, b.state));
        let refused = self.refused();
        let file = (!refused.is_empty()).then(|| format!("the last configuration was not taken: {refused}"));
        // A shard that is down is answered for with errors; taking the proxy away would not make it better. Nor would it
        // a file that is wrong: the last good one is served.
        Readiness::Ready(down.chain(file).collect::<Vec<_>>().join("\n"))
    }

    fn config(&self) -> String {
        self.live().config.masked_yaml()
    }

    fn reload(&self, dry: bool) -> Explanation {
        let asks = self.asks.clone();
        Box::pin(async move {
            let (answer, told) = oneshot::channel();
            asks.send(Ask { dry, answer }).await.map_err(|_| STOPPING)?;
            told.await.map_err(|_| STOPPING)?
        })
    }

    fn explain(&self, pool: Option<String>, request: Vec<Vec<u8>>) -> Explanation {
        let live = self.live();
        let number = match &pool {
            None if live.config.pools.len() == 1 => live.listed().next().map(|(number, _)| number),
            None => None,
            Some(name) => live.number(name),
        };
        let names: Vec<&str> = live.config.pools.iter().map(|p| p.name.as_str()).collect();
        let unknown = format!("say which pool: {}", names.join(", "));
        let desk = self.desks.first().cloned();
        Box::pin(async move {
            let number = number.ok_or(unknown)?;
            let args: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
            let mut wire = Vec::new();
            write::request(&mut wire, &args);
            let (answer, told) = oneshot::channel();
            let question = Question { pool: number, wire, answer };
            let desk = desk.ok_or("no worker")?;
            desk.send(Order::Explain(question)).await.map_err(|_| ENDED)?;
            told.await.map_err(|_| ENDED)?
        })
    }

    fn backends(&self) -> Vec<Backend> {
        let boards: Vec<Vec<Vec<ShardView>>> =
            self.boards.iter().map(|b| b.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect();
        let mut rows = Vec::new();
        for (number, pool) in self.live().listed() {
            for shard in pool.numbers() {
                let view =
                    |board: &Vec<Vec<ShardView>>| board.get(usize::from(number))?.get(usize::from(shard)).copied();
                let views: Vec<ShardView> = boards.iter().filter_map(view).collect();
                let connections = views.iter().map(|v| v.connections).sum();
                let any = |state| views.iter().any(|v| v.state == state);
                let state = if any(ShardState::Ejected) {
                    "ejected"
                } else if any(ShardState::HalfOpen) {
                    "half-open"
                } else if !views.is_empty() && views.iter().all(|v| v.down) {
                    "down"
                } else if any(ShardState::Suspect) {
                    "suspect"
                } else if connections == 0 {
                    "idle"
                } else {
                    "up"
                };
                let address = match pool.shards.get(usize::from(shard)).map(|shard| &shard.place) {
                    Some(Place::Server { address, .. }) => address.to_string(),
                    _ => "in this process".into(),
                };
                rows.push(Backend {
                    pool: pool.pool.name.clone(),
                    name: pool.name_of(shard).to_owned(),
                    address,
                    state: state.into(),
                    connections,
                    in_queue: views.iter().map(|v| v.in_queue).sum(),
                    out_queue: views.iter().map(|v| v.out_queue).sum(),
                });
            }
        }
        rows
    }
}
