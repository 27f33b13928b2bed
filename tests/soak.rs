//! A long day in a short time: faults drawn by lot, a config that changes, a thousand clients that come and go, and apps that
//! check every reply. At the end, with everybody gone, the process holds no more than it held before.
//!
//! `HOTRING_SECONDS=600 HOTRING_SEED=<seed> cargo test --test soak -- --nocapture` goes on for ten minutes; a failure names its
//! seed. The seed decides which faults come and in which order, not what the machine does meanwhile.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::print_stderr, reason = "a long run tells how far it is")]

#[path = "chaos/mod.rs"]
mod chaos;
mod support;

use chaos::{Counts, DURABLE, Fault, Gone, Link, Plan, Process, Reply, USUAL, Workload};
use hotring::chance::splitmix;
use rustix::process::{Resource, Signal, getrlimit, setrlimit};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use support::{Client, Cut, Redis, Relay, Scratch, Way, eventually, key_on, now, pool, shards_with, wire};

/// What the test suite runs for; as long again the process rests.
const SECONDS: u64 = 20;
/// Faults at the least, however slow the machine is.
const FAULTS: u32 = 20;
/// Clients that come and go, and the threads that have them.
const CLIENTS: usize = 1000;
const THREADS: usize = 4;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

struct Stand {
    redis: Vec<Redis>,
    relays: Vec<Relay>,
    hotring: Process,
    dir: Scratch,
    chance: u64,
}

impl Stand {
    fn new(seed: u64) -> Self {
        let (redis, at) = shards_with(3, &DURABLE);
        let relays: Vec<Relay> = at.iter().map(|server| Relay::to(server)).collect();
        let dir = Scratch::new();
        let config = dir.write("proxy.yaml", &config(&relays, 5000));
        Self { hotring: Process::start(&config), redis, relays, dir, chance: seed }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.chance = self.chance.wrapping_add(1);
        splitmix(self.chance) % below
    }

    /// Has the process take up what it keeps for good: a bounded number of buffers, as large as they were once needed. Else it
    /// would do so by and by, and look as if it leaked.
    fn fill(&self) {
        let [one, two] = [0, 1].map(|shard| key_on(shard, 3));
        assert_eq!(self.hotring.app().call(&[&b"SET"[..], two.as_bytes(), &vec![b'x'; 60 * 1024]]), b"+OK\r\n");
        self.redis[0].freeze();
        let asked = [wire(&["GET", &one]), wire(&["GET", &two])].concat();
        let mut links: Vec<Link> = (0..300)
            .map(|_| {
                let mut link = Link::to(self.hotring.address()).unwrap();
                link.send(&asked).unwrap();
                link
            })
            .collect();
        // The second reply waits for the first, which does not come.
        for link in &mut links {
            assert!(matches!(link.reply(), Ok(Reply::Error(_))));
            assert!(matches!(link.reply(), Ok(Reply::Text(_))));
        }
        self.redis[0].thaw();
        // Who is well has had its time; from now on nobody who is not is waited for that long.
        self.dir.write("proxy.yaml", &config(&self.relays, 1000));
        self.hotring.signal(Signal::HUP);
        eventually("the first change is taken", || self.reloads() == 1.0);
    }

    /// How often another config was taken.
    fn reloads(&self) -> f64 {
        self.hotring.metrics().get("hotring_config_reloads_total{result=\"taken\"}").copied().unwrap_or(0.0)
    }

    /// All of it for so long; what apps have seen.
    fn work(&mut self, plan: Plan, time: Duration) -> Counts {
        let work = Workload::start(self.hotring.address(), 3, plan);
        let crowd = Crowd::start(self.hotring.address(), plan.seed);
        let end = now() + time;
        let mut faults = 0;
        while now() < end || faults < FAULTS {
            self.fault(&work, end);
            faults += 1;
        }
        let hung = crowd.end();
        let (mut counts, _) = work.finish();
        if hung > 0 {
            *counts.faults.entry(Fault::Hung).or_default() += hung;
        }
        counts
    }

    /// Something happens to a shard for as long as the others serve so many requests more.
    fn fault(&mut self, work: &Workload, end: Instant) {
        let shard = self.draw(3) as usize;
        let others = [(shard + 1) % 3, (shard + 2) % 3];
        let (long, short) = (20 + self.draw(400), 5 + self.draw(40));
        let (redis, relay) = (&mut self.redis[shard], &self.relays[shard]);
        match splitmix(self.chance) % 12 {
            0 => {
                relay.refuse();
                redis.kill();
                work.goes_on(&others, long);
                redis.restart();
                relay.heal();
            }
            1 => work.emptying(shard, || {
                redis.kill();
                work.goes_on(&others, short);
                // What it had written is not there when it comes back.
                redis.forget();
                redis.restart();
            }),
            2 => {
                redis.freeze();
                work.goes_on(&others, long);
                redis.thaw();
            }
            3 => relay.cut(Cut::Fin),
            4 => relay.cut(Cut::Reset),
            5 => relay.cut_within_a_reply(),
            6 => relay.spoil(),
            7 => relay.hold(Way::ToServer),
            8 => relay.hold(Way::ToProxy),
            9 => relay.delay(Way::ToServer, Duration::from_millis(short * 5)),
            10 => relay.refuse(),
            _ => {
                // A process that cannot read its config anew says so and goes on.
                let timeout = 900 + self.draw(300);
                self.dir.write("proxy.yaml", &config(&self.relays, timeout));
                self.hotring.signal(Signal::HUP);
            }
        }
        work.goes_on(&others, short);
        self.relays[shard].heal();
        // Not every fault comes upon the last.
        if self.draw(3) == 0 && now() < end {
            work.goes_on(&[shard], short);
        }
    }

    /// Waits until nobody is left, and nothing of anybody, and all who came have gone once; the memory it has then, in KiB.
    fn rest(&self, files: usize) -> usize {
        let gauges =
            ["client_output_bytes", "requests_pending", "server_in_queue", "server_in_queue_bytes", "server_out_queue"];
        eventually("nothing is left of anybody", || {
            // It may have closed what nobody used.
            self.touch();
            let page = self.hotring.metrics();
            let of = |name: &str| -> f64 {
                let begin = format!("hotring_{name}{{");
                page.iter().filter(|(series, _)| series.starts_with(&begin)).map(|(_, value)| value).sum()
            };
            let [came, left, lost, here] =
                ["connects_total", "eof_total", "err_total", "connections"].map(|name| of(&format!("client_{name}")));
            came >= 1.0
                && came == left + lost + here
                && here <= 1.0
                && gauges.iter().all(|gauge| of(gauge) == 0.0)
                // Each shard may have a prober's connection beside, which comes when nobody else asks it anything.
                && self.hotring.files() <= files.saturating_add(self.redis.len())
        });
        self.hotring.memory().0
    }

    /// Asks each shard something.
    fn touch(&self) {
        let mut app = self.hotring.app();
        for shard in 0..3 {
            app.ask(&format!("GET {}", key_on(shard, 3)));
        }
    }
}

fn config(relays: &[Relay], timeout: u64) -> String {
    let at: Vec<&str> = relays.iter().map(Relay::address).collect();
    let keys = ["^log: {level: off}", &format!("connect_timeout: {}ms", timeout / 2), &format!("timeout: {timeout}ms")];
    pool(&at, &keys).replace("admin: off", "admin: 127.0.0.1:0")
}

/// Clients that connect, ask, and leave, in peace or not.
struct Crowd {
    over: Arc<AtomicBool>,
    hung: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    fn start(address: &str, seed: u64) -> Self {
        let (over, hung) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let start = |thread: usize| {
            let (over, hung, address) = (Arc::clone(&over), Arc::clone(&hung), address.to_owned());
            let mut chance = splitmix(seed ^ ((thread as u64) << 40));
            std::thread::spawn(move || {
                let mut links: Vec<Option<Link>> = (0..CLIENTS / THREADS).map(|_| None).collect();
                while !over.load(Ordering::Acquire) {
                    chance = chance.wrapping_add(1);
                    let lot = splitmix(chance);
                    let place = lot as usize % links.len();
                    let Some(mut link) = links[place].take() else {
                        links[place] = visit(&address, lot >> 32);
                        continue;
                    };
                    match (lot >> 20) % 4 {
                        0 => link.reset(),
                        1 => drop(link),
                        _ => match link.reply() {
                            Ok(_) if link.send(&request(lot >> 32)).is_ok() => links[place] = Some(link),
                            Err(Gone::Hung) => drop(hung.fetch_add(1, Ordering::AcqRel)),
                            _ => {}
                        },
                    }
                    std::thread::park_timeout(Duration::from_micros(100));
                }
            })
        };
        let threads = (0..THREADS).map(start).collect();
        Self { over, hung, threads }
    }

    /// All leave; how many waited in vain.
    fn end(self) -> u64 {
        self.over.store(true, Ordering::Release);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        self.hung.load(Ordering::Acquire)
    }
}

/// A client with a request on its way.
fn visit(address: &str, lot: u64) -> Option<Link> {
    let mut link = Link::to(address).ok()?;
    link.send(&request(lot)).ok()?;
    Some(link)
}

fn request(lot: u64) -> Vec<u8> {
    let key = format!("crowd:{}", lot % 1000);
    match lot / 1000 % 6 {
        0 => wire(&["SET", &key, &"x".repeat((lot % 3000) as usize)]),
        1 => wire(&["MGET", &key, "crowd:1", "crowd:2", "crowd:3"]),
        2 => [wire(&["MULTI"]), wire(&["GET", &key])].concat(),
        3 => wire(&["GET", &key]).repeat(10),
        _ => wire(&["GET", &key]),
    }
}

#[test]
fn after_all_of_it_the_process_is_as_it_was() {
    let seed = number("HOTRING_SEED").unwrap_or(1);
    let seconds = number("HOTRING_SECONDS").unwrap_or(SECONDS);
    eprintln!("HOTRING_SEED={seed} HOTRING_SECONDS={seconds}");
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let mut stand = Stand::new(seed);
    stand.touch();
    let files = stand.hotring.files();
    let plan = Plan { seed, rest: Duration::from_millis(1), ..USUAL };
    stand.fill();
    // The rest of what it needs it has taken after a while.
    let warm = Duration::from_secs((seconds / 2).min(60));
    stand.work(plan, warm).is_clean();
    let before = stand.rest(files);
    let plan = Plan { seed: seed ^ 0x5eed, ..plan };
    let counts = stand.work(plan, Duration::from_secs(seconds) - warm);
    counts.is_clean();
    assert_eq!(counts.closed, 0, "seed {seed}: {counts:#?}");
    let after = stand.rest(files);
    eprintln!("{} requests; {before} KiB before, {after} KiB after, {files} files", counts.requests);
    // Where the last of what it frees lies, and so what the system counts, is chance: a long run tells more.
    let most = if seconds >= 300 { before / 20 } else { before / 5 };
    assert!(after <= before + most, "seed {seed}: {before} KiB before, {after} KiB after");
    let reloads = stand.reloads();
    assert!(reloads > 1.0, "{reloads}: the config never changed");
    let mut app: Client = stand.hotring.app();
    assert_eq!(app.ask("PING"), "+PONG\r\n");
}
