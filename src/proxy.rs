//! The process: binds, starts the workers and the admin listener, waits for a signal, stops.

use crate::admin::{self, Backend, Explanation, Readiness};
use crate::config::{Config, Pool, Workers};
use crate::downstream::listener::{Bound, SocketFile, bind_unix};
use crate::embedded::{self, Node};
use crate::metrics::{BuildCounts, EmbeddedCounts, EmbeddedMetrics, Exporter, ProcessCounts};
use crate::resp::write;
use crate::units::Address;
use crate::upstream::{self, Servers};
use crate::worker::{self, Question, Seat, Setup, ShardView, shards};
use std::fmt;
use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections on their way to a worker, at most.
const DEALT: usize = 1024;
/// Questions that wait for a worker, at most.
const QUESTIONS: usize = 16;
/// Connections to the admin listener that the kernel may hold ready.
const ADMIN_BACKLOG: i32 = 128;
/// How often embedded nodes remove what has expired.
const EXPIRY: Duration = Duration::from_millis(100);

/// Why the process cannot start.
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
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { who, address, error } => write!(f, "{who}: cannot listen on {address}: {error}"),
            Self::System(error) => write!(f, "cannot start: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// A running process: its workers, and what the admin listener knows of it.
pub struct Proxy {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<io::Result<()>>>,
    shutdown: CancellationToken,
    bound: Vec<(String, String)>,
    nodes: Arc<Vec<Vec<Arc<Node>>>>,
}

/// What is asked of the process from outside.
struct Shared {
    config: Arc<Config>,
    exporter: Arc<Exporter>,
    desks: Vec<mpsc::Sender<Question>>,
    boards: Vec<Arc<Mutex<Vec<Vec<ShardView>>>>>,
    stopping: AtomicBool,
}

impl Proxy {
    /// Binds all listeners and starts the workers.
    ///
    /// # Errors
    /// Where an address cannot be bound, or the system refuses a thread.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let workers = match config.workers {
            Workers::Count(count) => usize::from(count.get()),
            Workers::Auto => std::thread::available_parallelism().map_or(1, usize::from),
        };
        let mut listeners = Vec::new();
        let mut bound = Vec::new();
        for (number, pool) in config.pools.iter().enumerate() {
            for address in &pool.downstream.listen {
                let listener = Bound::new(address, &pool.downstream).map_err(|error| StartError::Bind {
                    who: format!("pool {}", pool.name),
                    address: address.to_string(),
                    error,
                })?;
                bound.push((pool.name.clone(), listener.address()));
                listeners.push((number as u16, listener));
            }
        }
        let port = listeners.iter().find_map(|(_, l)| l.port()).unwrap_or(0);
        let nodes: Arc<Vec<Vec<Arc<Node>>>> = Arc::new(config.pools.iter().map(make_nodes).collect());
        let exporter = Arc::new(Exporter::new());
        let open: Arc<Vec<AtomicUsize>> = Arc::new(config.pools.iter().map(|_| AtomicUsize::new(0)).collect());
        let shutdown = CancellationToken::new();
        let (mut seats, mut receivers) = (Vec::new(), Vec::new());
        for _ in 0..workers {
            let (sender, receiver) = mpsc::channel(DEALT);
            seats.push(Seat { sender, load: Arc::new(AtomicUsize::new(0)) });
            receivers.push(receiver);
        }
        // The one draw of the process: everything that needs chance is seeded from it.
        let seed = RandomState::new().hash_one(std::process::id());
        let scripts = Arc::default();
        let (mut desks, mut boards, mut threads) = (Vec::new(), Vec::new(), Vec::new());
        for (number, dealt) in receivers.into_iter().enumerate() {
            let (desk, questions) = mpsc::channel(QUESTIONS);
            let board = Arc::new(Mutex::new(Vec::new()));
            let setup = Setup {
                number,
                workers,
                config: Arc::clone(&config),
                listeners: if number == 0 { std::mem::take(&mut listeners) } else { Vec::new() },
                seats: if number == 0 { seats.clone() } else { Vec::new() },
                dealt,
                questions,
                open: Arc::clone(&open),
                exporter: Arc::clone(&exporter),
                nodes: Arc::clone(&nodes),
                board: Arc::clone(&board),
                shutdown: shutdown.clone(),
                port,
                seed,
                scripts: Arc::clone(&scripts),
            };
            let (started, is_started) = oneshot::channel();
            let thread = std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || worker::run(setup, started))
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
        let shared = Arc::new(Shared { config, exporter, desks, boards, stopping: AtomicBool::new(false) });
        Ok(Self { shared, threads, shutdown, bound, nodes })
    }

    /// Where it listens: pool and address, in the order of the config file. Port 0 has become a real one.
    #[must_use]
    pub fn addresses(&self) -> &[(String, String)] {
        &self.bound
    }

    /// What the admin listener asks.
    #[must_use]
    pub fn source(&self) -> Arc<dyn admin::Source> {
        Arc::clone(&self.shared) as Arc<dyn admin::Source>
    }

    /// Stops: no new connections, open requests get their replies within the grace time.
    ///
    /// # Errors
    /// Where a worker had failed.
    pub fn stop(self) -> io::Result<()> {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.shutdown.cancel();
        for thread in self.threads {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("a worker panicked")))?;
        }
        Ok(())
    }

    /// Serves the admin listener until `stop` is done, then stops.
    ///
    /// # Errors
    /// Where the admin address cannot be bound, or a worker failed.
    pub fn run(
        self,
        admin_address: Option<&Address>,
        ready: impl FnOnce(&Self, Option<&str>),
        stop: impl Future<Output = ()>,
    ) -> Result<(), StartError> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(StartError::System)?;
        runtime.block_on(async {
            let tasks = TaskTracker::new();
            let admin_bound = match admin_address {
                None => None,
                Some(address) => {
                    let bad = |error| StartError::Bind { who: "admin".into(), address: address.to_string(), error };
                    let (listener, file, at) = bind_admin(address).await.map_err(bad)?;
                    let source = self.source();
                    let shutdown = self.shutdown.clone();
                    tasks.spawn(async move {
                        let _file = file;
                        if let Err(error) = admin::serve(listener, source, shutdown).await {
                            tracing::error!(%error, "the admin listener ended");
                        }
                    });
                    Some(at)
                }
            };
            let (exporter, nodes, shutdown) =
                (Arc::clone(&self.shared.exporter), Arc::clone(&self.nodes), self.shutdown.clone());
            let names: Vec<(String, Vec<String>)> = self
                .shared
                .config
                .pools
                .iter()
                .map(|p| (p.name.clone(), shards(p).into_iter().map(|s| s.name).collect()))
                .collect();
            tasks.spawn(housekeeping(exporter, nodes, names, self.threads.len(), shutdown));
            let mut stop = pin!(stop);
            // Looked at once before anybody is told that it runs: from then on a signal stops it in order.
            let stopped = poll_fn(|cx| Poll::Ready(stop.as_mut().poll(cx).is_ready())).await;
            ready(&self, admin_bound.as_deref());
            if !stopped {
                stop.await;
            }
            self.shared.stopping.store(true, Ordering::Relaxed);
            self.shutdown.cancel();
            tasks.close();
            tasks.wait().await;
            Ok(())
        })?;
        self.stop().map_err(StartError::System)
    }
}

fn make_nodes(pool: &Pool) -> Vec<Arc<Node>> {
    match &pool.upstream.servers {
        Servers::Embedded { count, maxmemory, eviction } => {
            let eviction = match eviction {
                upstream::Eviction::Lru => embedded::Eviction::Lru,
                upstream::Eviction::Lfu => embedded::Eviction::Lfu,
            };
            let config = embedded::Config { maxmemory: *maxmemory, eviction };
            (0..*count).map(|_| Arc::new(Node::new(&config))).collect()
        }
        Servers::Static(_) => Vec::new(),
    }
}

/// Binds the admin listener; a unix socket's file is removed with what is returned for it.
async fn bind_admin(address: &Address) -> io::Result<(admin::Listener, Option<SocketFile>, String)> {
    match address {
        Address::Tcp { host, port } => {
            let listener = tokio::net::TcpListener::bind((host.as_str(), *port)).await?;
            let at = listener.local_addr()?.to_string();
            Ok((listener.into(), None, at))
        }
        Address::Unix { path, mode } => {
            let (listener, file) = bind_unix(path, *mode, ADMIN_BACKLOG)?;
            Ok((tokio::net::UnixListener::from_std(listener)?.into(), Some(file), path.display().to_string()))
        }
    }
}

fn unix_micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64)
}

/// What the process does on the side: expiry in embedded nodes, and the metrics that no worker owns.
async fn housekeeping(
    exporter: Arc<Exporter>,
    nodes: Arc<Vec<Vec<Arc<Node>>>>,
    names: Vec<(String, Vec<String>)>,
    workers: usize,
    shutdown: CancellationToken,
) {
    let mut process = exporter.process();
    let mut counts = ProcessCounts::default();
    counts.start_time.0 = unix_micros();
    counts.workers.0 = workers as u64;
    counts.config_loaded.0 = unix_micros();
    process.fold(&mut counts);
    let mut build = exporter.build(env!("CARGO_PKG_VERSION"));
    let mut build_counts = BuildCounts::default();
    build_counts.info.0 = 1;
    build.fold(&mut build_counts);
    let mut books: Vec<(Arc<Node>, EmbeddedMetrics, EmbeddedCounts, embedded::Stats)> = Vec::new();
    for ((pool, shards), nodes) in names.iter().zip(nodes.iter()) {
        for (shard, node) in shards.iter().zip(nodes) {
            let metrics = exporter.embedded(pool, shard);
            books.push((Arc::clone(node), metrics, EmbeddedCounts::default(), embedded::Stats::default()));
        }
    }
    let mut rounds: u32 = 0;
    loop {
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
        rounds += 1;
        if rounds.is_multiple_of(50) {
            exporter.upkeep();
        }
        // Without embedded nodes there is only the exporter to look after.
        let wait = if books.is_empty() { EXPIRY * 50 } else { EXPIRY };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
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
        let down: Vec<String> = admin::Source::backends(self)
            .into_iter()
            .filter(|b| b.state != "up" && b.state != "idle")
            .map(|b| format!("shard {}/{} is {}", b.pool, b.name, b.state))
            .collect();
        // A shard that is down is answered for with errors; taking the proxy away would not make it better.
        Readiness::Ready(down.join("\n"))
    }

    fn config(&self) -> String {
        self.config.masked_yaml()
    }

    fn explain(&self, pool: Option<String>, request: Vec<Vec<u8>>) -> Explanation {
        let number = match &pool {
            None if self.config.pools.len() == 1 => Some(0),
            None => None,
            Some(name) => self.config.pools.iter().position(|p| p.name == *name),
        };
        let names: Vec<&str> = self.config.pools.iter().map(|p| p.name.as_str()).collect();
        let unknown = format!("say which pool: {}", names.join(", "));
        let desk = self.desks.first().cloned();
        Box::pin(async move {
            let number = number.ok_or(unknown)?;
            let args: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
            let mut wire = Vec::new();
            write::request(&mut wire, &args);
            let (answer, told) = oneshot::channel();
            let question = Question { pool: number as u16, wire, answer };
            let desk = desk.ok_or("no worker")?;
            desk.send(question).await.map_err(|_| "the worker has ended")?;
            told.await.map_err(|_| "the worker has ended")?
        })
    }

    fn backends(&self) -> Vec<Backend> {
        let boards: Vec<Vec<Vec<ShardView>>> =
            self.boards.iter().map(|b| b.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect();
        let mut rows = Vec::new();
        for (number, pool) in self.config.pools.iter().enumerate() {
            for (index, shard) in shards(pool).into_iter().enumerate() {
                let views: Vec<ShardView> = boards.iter().filter_map(|b| b.get(number)?.get(index)).copied().collect();
                let connections = views.iter().map(|v| v.connections).sum();
                let state = if views.iter().any(|v| v.ejected) {
                    "ejected"
                } else if !views.is_empty() && views.iter().all(|v| v.down) {
                    "down"
                } else if connections == 0 {
                    "idle"
                } else {
                    "up"
                };
                let address = match &pool.upstream.servers {
                    Servers::Embedded { .. } => "in this process".into(),
                    Servers::Static(servers) => servers.get(index).map(|s| s.address.to_string()).unwrap_or_default(),
                };
                rows.push(Backend {
                    pool: pool.name.clone(),
                    name: shard.name,
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
