//! Clients that ask as fast as they are answered.

use super::keys::Keys;
use super::now;
use super::side::{Side, span};
use crate::chance::splitmix;
use crate::demo::App;
use crate::metrics::{LatencyHistogram, SharedHistogram, Snapshot};
use rustix::time::{ClockId, clock_gettime};
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::runtime::Builder;
use tokio::task::{JoinSet, LocalSet};
use tokio_util::sync::CancellationToken;

/// Who is told nothing for so long gives up.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether anybody is told anything.
const LOOK: Duration = Duration::from_millis(500);
/// Keys of an MGET.
const MANY: u64 = 10;
/// `mixed` writes one in so many.
const WRITES: u64 = 10;

/// What is asked, and by how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Connections.
    pub clients: u16,
    /// Threads of this process that they are dealt to.
    pub threads: u16,
    /// Requests that each of them sends at once.
    pub pipeline: u16,
    /// Bytes of a value.
    pub size: u32,
    /// Different keys.
    pub keys: u32,
    /// What is asked.
    pub workload: Workload,
    /// When a measurement is over.
    pub until: Until,
}

/// What is asked of keys that are drawn evenly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// GET.
    Get,
    /// SET.
    Set,
    /// Nine GET to one SET.
    Mixed,
    /// MGET of ten keys.
    Mget,
}

impl Workload {
    /// In a word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Set => "set",
            Self::Mixed => "mixed",
            Self::Mget => "mget",
        }
    }
}

/// When a measurement is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// When that many requests are answered.
    Requests(u64),
    /// When that time is.
    Time(Duration),
}

/// What keys are drawn from.
pub(super) struct Drawn<'a> {
    pub(super) keys: &'a Arc<Keys>,
    pub(super) seed: u64,
}

/// A measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// Requests that were answered.
    pub requests: u64,
    /// Those of them that were answered by an error.
    pub errors: u64,
    /// The last text of such an error.
    pub error: Option<String>,
    /// From the first request to the last reply.
    pub took: Duration,
    /// How long each reply took.
    pub latency: Snapshot,
    /// The CPU that asking took.
    pub own_cpu: Duration,
    /// That of `threads` that were asking.
    pub threads: u16,
    /// The CPU that the proxy took, where that can be known.
    pub cpu: Option<Duration>,
}

impl Measured {
    /// Replies a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.took.as_secs_f64().max(1e-9)
    }

    /// The microseconds that a share of the replies did not exceed, to within 6.25 %.
    #[must_use]
    pub fn quantile(&self, q: f64) -> f64 {
        self.latency.quantile(q).map_or(0.0, f64::from)
    }

    /// How busy the threads were that asked, from 0 to 1.
    #[must_use]
    pub fn busy(&self) -> f64 {
        self.own_cpu.as_secs_f64() / (self.took.as_secs_f64() * f64::from(self.threads)).max(1e-9)
    }

    /// The proxy's CPU for a request in microseconds, where that can be known.
    #[must_use]
    pub fn cpu_each(&self) -> Option<f64> {
        Some(self.cpu?.as_secs_f64() * 1e6 / (self.requests.max(1) as f64))
    }
}

/// What a thread counts.
#[derive(Default)]
struct Tally {
    requests: u64,
    errors: u64,
    error: Option<String>,
    latency: LatencyHistogram,
}

/// Measures one side once; `None` if it was told to stop meanwhile.
///
/// # Errors
/// Where a connection cannot be made or ends, or nobody is told anything any more.
pub(super) fn measure(
    side: &Side,
    load: Load,
    drawn: &Drawn<'_>,
    stop: &CancellationToken,
) -> io::Result<Option<Measured>> {
    let claims = Arc::new(AtomicU64::new(match load.until {
        Until::Requests(count) => count,
        Until::Time(_) => 0,
    }));
    let threads = load.threads.clamp(1, load.clients.max(1));
    let latency = SharedHistogram::default();
    let done = std::thread::scope(|scope| -> io::Result<Vec<Thread>> {
        let (ready, is_ready) = mpsc::sync_channel(threads.into());
        let (mut begin, mut running) = (Vec::new(), Vec::new());
        for number in 0..threads {
            let (go, may_go) = mpsc::sync_channel(1);
            let (ready, claims) = (ready.clone(), &claims);
            let clients = (number..load.clients).step_by(threads.into()).map(u64::from).collect();
            let thread = move || Asking { side, load, drawn, stop, claims, clients }.run(&ready, &may_go);
            running.push(std::thread::Builder::new().name(format!("bench-{number}")).spawn_scoped(scope, thread)?);
            begin.push(go);
        }
        // Nobody asks before all are connected; a thread that cannot connect says so when it is joined.
        drop(ready);
        if is_ready.iter().take(threads.into()).all(|connected| connected) {
            let start = now();
            for go in &begin {
                let _ = go.send(start);
            }
        }
        drop(begin);
        let panicked = |_| Err(io::Error::other("a thread of the benchmark panicked"));
        let all: Vec<_> = running.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect();
        all.into_iter().collect()
    })?;
    if stop.is_cancelled() {
        return Ok(None);
    }
    let mut all = Measured {
        requests: 0,
        errors: 0,
        error: None,
        took: Duration::ZERO,
        latency: latency.snapshot(),
        own_cpu: Duration::ZERO,
        threads,
        cpu: None,
    };
    for Thread { mut tally, took, cpu } in done {
        tally.latency.fold_into(&latency);
        all.requests += tally.requests;
        all.errors += tally.errors;
        all.error = tally.error.or(all.error);
        all.took = all.took.max(took);
        all.own_cpu += cpu;
    }
    all.latency = latency.snapshot();
    Ok(Some(all))
}

/// What came of a thread.
struct Thread {
    tally: Tally,
    took: Duration,
    cpu: Duration,
}

/// A thread's part.
struct Asking<'a> {
    side: &'a Side,
    load: Load,
    drawn: &'a Drawn<'a>,
    stop: &'a CancellationToken,
    /// Requests that nobody has begun yet.
    claims: &'a Arc<AtomicU64>,
    /// Its clients, by number.
    clients: Vec<u64>,
}

impl Asking<'_> {
    fn run(self, ready: &mpsc::SyncSender<bool>, may_go: &mpsc::Receiver<Instant>) -> io::Result<Thread> {
        let connected = self.connect();
        let _ = ready.send(connected.is_ok());
        let (runtime, apps) = connected?;
        // Another thread could not connect, and says so.
        let Ok(start) = may_go.recv() else {
            return Ok(Thread { tally: Tally::default(), took: Duration::ZERO, cpu: Duration::ZERO });
        };
        let cpu = || span(clock_gettime(ClockId::ThreadCPUTime));
        let (before, tally) = (cpu(), Rc::new(RefCell::new(Tally::default())));
        let asked = LocalSet::new().block_on(&runtime, self.ask(apps, start, &tally));
        let took = start.elapsed();
        let cpu = cpu().saturating_sub(before);
        asked.map(|()| Thread { tally: tally.take(), took, cpu })
    }

    fn connect(&self) -> io::Result<(tokio::runtime::Runtime, Vec<App>)> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let apps = runtime.block_on(async {
            let mut apps = Vec::new();
            for _ in &self.clients {
                tokio::select! {
                    app = self.side.connect() => apps.push(app?),
                    () = self.stop.cancelled() => return Ok(Vec::new()),
                }
            }
            io::Result::Ok(apps)
        })?;
        Ok((runtime, apps))
    }

    async fn ask(&self, apps: Vec<App>, start: Instant, tally: &Rc<RefCell<Tally>>) -> io::Result<()> {
        let end = match self.load.until {
            Until::Requests(_) => None,
            Until::Time(time) => Some(start + time),
        };
        let mut all = JoinSet::new();
        for (app, number) in apps.into_iter().zip(&self.clients) {
            let place = splitmix(self.drawn.seed ^ (number << 32)) >> 8;
            let (keys, claims) = (Arc::clone(self.drawn.keys), Arc::clone(self.claims));
            let client = Client { app, keys, claims, load: self.load, end, place, tally: Rc::clone(tally) };
            all.spawn_local(client.work());
        }
        let mut look = tokio::time::interval(LOOK);
        let mut last = (0, start);
        loop {
            tokio::select! {
                ended = all.join_next() => match ended {
                    None => return Ok(()),
                    Some(Ok(ended)) => ended?,
                    Some(Err(_)) => return Err(io::Error::other("a client of the benchmark panicked")),
                },
                () = self.stop.cancelled() => return Ok(()),
                _ = look.tick() => {
                    let (requests, at) = (tally.borrow().requests, now());
                    if requests != last.0 {
                        last = (requests, at);
                    } else if at - last.1 > PATIENCE {
                        return Err(io::Error::new(io::ErrorKind::TimedOut, "nothing is answered any more"));
                    }
                }
            }
        }
    }
}

/// A connection at work.
struct Client {
    app: App,
    keys: Arc<Keys>,
    claims: Arc<AtomicU64>,
    load: Load,
    end: Option<Instant>,
    /// Where it is in its sequence of numbers.
    place: u64,
    tally: Rc<RefCell<Tally>>,
}

impl Client {
    async fn work(mut self) -> io::Result<()> {
        let mut names = vec![Vec::new(); MANY as usize];
        loop {
            let count = match self.end {
                Some(end) if now() >= end => 0,
                Some(_) => u64::from(self.load.pipeline),
                None => claim(&self.claims, self.load.pipeline.into()),
            };
            if count == 0 {
                return Ok(());
            }
            for _ in 0..count {
                self.add(&mut names);
            }
            let sent = now();
            self.app.flush().await?;
            for _ in 0..count {
                let reply = self.app.reply().await?;
                let micros = u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX);
                let mut tally = self.tally.borrow_mut();
                tally.requests += 1;
                tally.latency.record(micros);
                if let [b'-', text @ ..] = reply {
                    tally.errors += 1;
                    tally.error = Some(String::from_utf8_lossy(text).trim_end().to_owned());
                }
            }
        }
    }

    /// Adds a request.
    fn add(&mut self, names: &mut [Vec<u8>]) {
        self.place += 1;
        let drawn = splitmix(self.place);
        let Some(name) = names.first_mut() else { return };
        self.keys.name(drawn >> 8, name);
        match self.load.workload {
            Workload::Get => self.app.add(&[b"GET", name]),
            Workload::Set => self.keys.add_set(&mut self.app, name),
            Workload::Mixed if drawn.is_multiple_of(WRITES) => self.keys.add_set(&mut self.app, name),
            Workload::Mixed => self.app.add(&[b"GET", name]),
            Workload::Mget => {
                for (name, number) in names.iter_mut().zip(drawn >> 8..) {
                    self.keys.name(splitmix(number), name);
                }
                let words: Vec<&[u8]> = [&b"MGET"[..]].into_iter().chain(names.iter().map(Vec::as_slice)).collect();
                self.app.add(&words);
            }
        }
    }
}

/// Takes so many of what is left, or what is.
fn claim(left: &AtomicU64, wanted: u64) -> u64 {
    let before = left.fetch_update(Relaxed, Relaxed, |left| Some(left.saturating_sub(wanted))).unwrap_or(0);
    before.min(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is() {
        let left = AtomicU64::new(10);
        assert_eq!([(); 4].map(|()| claim(&left, 4)), [4, 4, 2, 0]);
    }

    #[test]
    fn a_measurement_tells_what_it_costs() {
        let (shared, mut latency) = (SharedHistogram::default(), LatencyHistogram::default());
        (1..=100).for_each(|_| latency.record(10));
        latency.fold_into(&shared);
        let measured = Measured {
            requests: 100,
            errors: 0,
            error: None,
            took: Duration::from_millis(10),
            latency: shared.snapshot(),
            own_cpu: Duration::from_millis(10),
            threads: 2,
            cpu: Some(Duration::from_millis(1)),
        };
        assert_eq!((measured.rate(), measured.quantile(0.99), measured.busy()), (10_000.0, 10.0, 0.5));
        assert_eq!(measured.cpu_each(), Some(10.0));
    }
}
