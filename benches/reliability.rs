//! What apps notice while something breaks, behind hotring and, where it is installed, behind twemproxy: each fault in turn,
//! under the checked workload of `tests/chaos.rs`.
//!
//! ```sh
//! cargo bench --bench reliability -- --write
//! ```
//!
//! prints a table after less than three minutes and writes it to `docs/reliability.md`; without `--write` it only prints.
//! `cluster` does so with what befalls a Redis Cluster, which takes some minutes.
//! `--only WORD` runs the faults whose name has the word, `--hotring FILE` takes another build. Ends with 1 if hotring was
//! wrong, lost something, did something twice or let someone hang.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark talks to who started it")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark may panic, and has a clock")]

#[path = "../tests/chaos/mod.rs"]
mod chaos;
#[path = "reliability/cluster.rs"]
mod cluster;
#[path = "../tests/support/mod.rs"]
mod support;

use chaos::{Counts, DURABLE, Fault, Link, Plan, Process, Sample, USUAL, Workload};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::TcpStream;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::Duration;
use support::{Cut, Redis, Relay, Scratch, Way, free_port, pool, shards_with, wire};

/// Before anything is measured, before the fault, with it, and after it.
const WARM: Duration = Duration::from_millis(400);
const BEFORE: Duration = Duration::from_millis(1000);
const DURING: Duration = Duration::from_millis(1500);
const AFTER: Duration = Duration::from_millis(2300);
/// The pool's timeout, behind both proxies.
const TIMEOUT: Duration = Duration::from_secs(1);
/// A request that takes longer hangs.
const HANGS: Duration = Duration::from_secs(5);
/// A percentile is that of so long a time; shown is the median of them, which the rest of the machine disturbs less.
const SLICE: Duration = Duration::from_millis(100);
/// The shard that is made ill.
const ILL: usize = 1;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reliability.md");

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Nothing,
    Kill,
    KillEmpty,
    Freeze,
    Unreachable,
    Cut(Cut),
    CutReply,
    Hold(Way),
    Slow,
    Full,
    Garbage,
    Crowd,
    End,
}

const FAULTS: [(&str, What); 14] = [
    ("none", What::Nothing),
    ("kill -9, restart with its AOF", What::Kill),
    ("kill -9, restart empty", What::KillEmpty),
    ("SIGSTOP, SIGCONT", What::Freeze),
    ("port closed, all connections reset", What::Unreachable),
    ("FIN on all connections, 10 times", What::Cut(Cut::Fin)),
    ("RST on all connections, 10 times", What::Cut(Cut::Reset)),
    ("cut within a reply, 10 times", What::CutReply),
    ("black hole towards the shard", What::Hold(Way::ToServer)),
    ("black hole towards the proxy", What::Hold(Way::ToProxy)),
    ("500 ms slower", What::Slow),
    ("maxclients reached", What::Full),
    ("garbage in the place of a reply", What::Garbage),
    ("300 other apps vanish, 3 times", What::Crowd),
];
const RESTART: (&str, What) = ("SIGTERM to the proxy, the next one is there", What::End);

/// What stands before the servers.
enum Proxy {
    Ours(Process),
    Peer { child: Child, port: u16 },
}

impl Proxy {
    fn address(&self) -> String {
        match self {
            Self::Ours(process) => process.address().to_owned(),
            Self::Peer { port, .. } => format!("127.0.0.1:{port}"),
        }
    }

    fn terminate(&mut self) {
        match self {
            Self::Ours(process) => {
                process.signal(Signal::TERM);
                process.end();
            }
            Self::Peer { child, .. } => {
                let pid = rustix::process::Pid::from_child(child);
                let _ = rustix::process::kill_process(pid, Signal::TERM);
                let _ = child.wait();
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Self::Peer { child, .. } = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

struct Bench {
    hotring: String,
    dir: Scratch,
}

impl Bench {
    fn start(&self, ours: bool, servers: &[&str]) -> Proxy {
        if ours {
            let timeout = format!("timeout: {}ms", TIMEOUT.as_millis());
            let config = self.dir.write("proxy.yaml", &pool(servers, &["^log: {level: off}", &timeout]));
            return Proxy::Ours(Process::of(&self.hotring, &config));
        }
        let (port, statistics) = (free_port(), free_port().to_string());
        let mut text =
            format!("main:\n  listen: 127.0.0.1:{port}\n  hash: fnv1a_64\n  distribution: ketama\n  redis: true\n");
        let _ = writeln!(text, "  timeout: {}\n  backlog: 1024\n  servers:", TIMEOUT.as_millis());
        for (number, server) in servers.iter().enumerate() {
            let _ = writeln!(text, "    - {server}:1 s{number}");
        }
        let config = self.dir.write("nutcracker.yml", &text);
        let mut command = Command::new(nutcracker().unwrap());
        command.args(["-c", &config, "-s", &statistics, "-a", "127.0.0.1"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        support::eventually("nutcracker listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Proxy::Peer { child, port }
    }

    /// One fault behind one proxy.
    fn run(&self, ours: bool, what: What) -> Row {
        let (mut redis, at) = shards_with(3, if what == What::Kill { &DURABLE } else { &[] });
        let relays: Vec<Relay> = at.iter().map(|server| Relay::to(server)).collect();
        let servers: Vec<&str> = relays.iter().map(Relay::address).collect();
        let mut proxy = self.start(ours, &servers);
        let plan = Plan { apps: 8, rest: Duration::from_millis(2), deep: false, large: false, record: true, ..USUAL };
        let work = Workload::start(&proxy.address(), 3, plan);
        sleep(WARM);
        let clock = || work.shared.began.elapsed();
        let begun = clock();
        sleep(BEFORE);
        let ill = clock();
        match what {
            What::KillEmpty => work.emptying(ILL, || {
                relays[ILL].refuse();
                redis[ILL].kill();
                sleep(DURING);
                redis[ILL].restart();
                relays[ILL].heal();
            }),
            What::End => {
                let next = self.start(ours, &servers);
                *work.shared.address.lock().unwrap() = next.address();
                proxy.terminate();
                proxy = next;
                sleep(DURING);
            }
            _ => disturb(what, &mut redis[ILL], &relays[ILL], &proxy),
        }
        let well = clock();
        sleep(AFTER);
        let (counts, samples) = work.finish();
        drop(proxy);
        Row::of(counts, &samples, [begun, ill, well], what)
    }
}

/// Makes a shard ill for a while and well again.
fn disturb(what: What, redis: &mut Redis, relay: &Relay, proxy: &Proxy) {
    match what {
        What::Kill => {
            relay.refuse();
            redis.kill();
            sleep(DURING);
            redis.restart();
            relay.heal();
        }
        What::Freeze => {
            redis.freeze();
            sleep(DURING);
            redis.thaw();
        }
        What::Unreachable => {
            relay.refuse();
            relay.cut(Cut::Reset);
            sleep(DURING);
            relay.heal();
        }
        What::Cut(_) | What::CutReply | What::Garbage => {
            for _ in 0..10 {
                match what {
                    What::Cut(how) => relay.cut(how),
                    What::Garbage => relay.spoil(),
                    _ => relay.cut_within_a_reply(),
                }
                sleep(DURING / 10);
            }
        }
        What::Hold(way) => {
            relay.hold(way);
            sleep(DURING);
            relay.heal();
        }
        What::Slow => {
            relay.delay(Way::ToProxy, Duration::from_millis(500));
            sleep(DURING);
            relay.heal();
        }
        What::Full => {
            let mut admin = redis.client();
            admin.ask("CONFIG SET maxclients 1");
            admin.ask("CLIENT KILL TYPE normal SKIPME yes");
            sleep(DURING);
            admin.ask("CONFIG SET maxclients 10000");
        }
        What::Crowd => {
            let request = wire(&["MGET", "a", "b", "c", "d", "e", "f"]).repeat(20);
            for _ in 0..3 {
                let crowd = (0..300).filter_map(|_| {
                    let mut link = Link::to(&proxy.address()).ok()?;
                    link.send(&request).ok()?;
                    Some(link)
                });
                crowd.collect::<Vec<_>>().into_iter().for_each(Link::reset);
                sleep(DURING / 3);
            }
        }
        What::Nothing | What::KillEmpty | What::End => sleep(DURING),
    }
}

/// A line of the table.
struct Row {
    counts: Counts,
    hangs: u64,
    /// The 99th percentile of requests to the other shards before and with the fault, and the longest with it.
    p99: [Duration; 2],
    longest: Duration,
    /// Until 99 of 100 requests to the ill shard went well, if they did.
    back: Option<Duration>,
}

/// The value below which such a part of them is.
fn part(mut all: Vec<Duration>, of: usize, parts: usize) -> Option<Duration> {
    all.sort_unstable();
    all.get(all.len() * of / parts).copied()
}

impl Row {
    fn of(counts: Counts, samples: &[Sample], [begun, ill, well]: [Duration; 3], what: What) -> Self {
        let concerns = |sample: &Sample| sample.shard == ILL || matches!(what, What::End | What::Crowd | What::Nothing);
        let others = |from: Duration, to: Duration| {
            let all = matches!(what, What::End | What::Crowd | What::Nothing);
            let asked = samples.iter().filter(|one| (from..to).contains(&one.at) && (all || one.shard != ILL));
            let mut slices: BTreeMap<u128, Vec<Duration>> = BTreeMap::new();
            for one in asked {
                slices.entry(one.at.as_millis() / SLICE.as_millis()).or_default().push(one.took);
            }
            let longest = slices.values().flatten().max().copied().unwrap_or_default();
            let mut all: Vec<Duration> = slices.into_values().filter_map(|took| part(took, 99, 100)).collect();
            all.retain(|took| !took.is_zero());
            (part(all, 1, 2).unwrap_or_default(), longest)
        };
        let slow = samples.iter().filter(|one| one.took > HANGS).count() as u64;
        let hangs = slow.max(counts.faults(Fault::Hung));
        // From which request on they go well, seen from the end.
        let mut after: Vec<&Sample> = samples.iter().filter(|one| concerns(one) && one.at + one.took >= well).collect();
        after.sort_unstable_by_key(|one| one.at + one.took);
        let (mut failed, mut back) = (0, None);
        for (count, one) in (1..).zip(after.iter().rev()) {
            failed += u64::from(!one.went_well);
            if one.went_well && failed * 100 <= count {
                back = Some((one.at + one.took).saturating_sub(well));
            }
        }
        let ((before, _), (with, longest)) = (others(begun, ill), others(ill, well));
        Self { hangs, p99: [before, with], longest, back, counts }
    }

    fn is_clean(&self) -> bool {
        self.counts.faults.is_empty() && self.hangs == 0
    }

    fn line(&self, fault: &str, proxy: &str) -> String {
        let counts = &self.counts;
        let ms = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
        let [before, with] = self.p99;
        let back = self.back.map_or("never".to_owned(), |time| format!("{} ms", time.as_millis()));
        let mut errors: Vec<_> = counts.errors.iter().collect();
        errors.sort_unstable_by_key(|(_, times)| std::cmp::Reverse(**times));
        let mut saw: Vec<String> = errors.iter().take(3).map(|(text, times)| format!("{times} x `{text}`")).collect();
        if errors.len() > 3 {
            let rest: u64 = errors[3..].iter().map(|(_, times)| **times).sum();
            saw.push(format!("{rest} x others"));
        }
        if counts.closed > 0 {
            saw.push(format!("{} requests on closed connections", counts.closed));
        }
        if saw.is_empty() {
            saw.push("nothing".to_owned());
        }
        let [wrong, lost, twice] = [Fault::Wrong, Fault::Lost, Fault::Twice].map(|fault| counts.faults(fault));
        format!(
            "| {fault} | {proxy} | {} | {wrong} | {lost} | {twice} | {} | {} -> {} ms ({:.1}x) | {} ms | {back} | {} |",
            counts.requests,
            self.hangs,
            ms(before),
            ms(with),
            with.as_secs_f64() / before.as_secs_f64().max(1e-6),
            ms(self.longest),
            saw.join("; "),
        )
    }
}

fn nutcracker() -> Option<&'static str> {
    ["nutcracker", "/usr/sbin/nutcracker", "/usr/local/sbin/nutcracker"]
        .into_iter()
        .find(|name| Command::new(name).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok())
}

/// All faults of shards, behind both proxies; the table, and whether hotring's rows are as they should be.
fn measure_all(hotring: String, only: &str) -> (String, bool) {
    let bench = Bench { hotring, dir: Scratch::new() };
    let mut table = String::from(
        "| Fault | Proxy | Requests | Wrong | Lost | Twice | Hangs | p99 of the other shards, before -> with it | Longest there | 99 % again after | What apps saw |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n",
    );
    let mut clean = true;
    for (name, what) in FAULTS.into_iter().chain([RESTART]).filter(|(name, _)| name.contains(only)) {
        for (ours, proxy) in [(true, "hotring"), (false, "nutcracker")] {
            if ours || nutcracker().is_some() {
                let row = bench.run(ours, what);
                clean &= !ours || row.is_clean();
                if !row.is_clean() {
                    eprintln!("{proxy}, {name}: {:#?}", row.counts);
                }
                let line = row.line(name, proxy);
                println!("{line}");
                table += &line;
                table.push('\n');
            }
        }
    }
    (table, clean)
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (mut write, mut measure, mut is_cluster, mut only) = (false, false, false, String::new());
    let mut hotring = env!("CARGO_BIN_EXE_hotring").to_owned();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // `cargo test --benches` starts benchmarks without it: there is nothing to measure then.
            "--bench" => measure = true,
            "--write" => write = true,
            "cluster" => is_cluster = true,
            "--only" => only = arguments.next().unwrap_or_default(),
            "--hotring" => hotring = arguments.next().unwrap_or_default(),
            other => {
                eprintln!("{other}? There are cluster, --write, --only WORD and --hotring FILE");
                return ExitCode::FAILURE;
            }
        }
    }
    if !measure {
        return ExitCode::SUCCESS;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    let (table, clean) = if is_cluster { cluster::measure(&hotring, &only) } else { measure_all(hotring, &only) };
    let table = format!("On {cores} cores shared with the load, a {build} build.\n\n{table}");
    if write {
        let page = std::fs::read_to_string(PAGE).unwrap();
        let name = if is_cluster { "cluster" } else { "faults" };
        let (begin, end) = (format!("<!-- measured: {name} -->\n"), format!("<!-- /measured: {name} -->"));
        let (head, rest) = page.split_once(&begin).expect("the page has a place for it");
        let (_, tail) = rest.split_once(&end).expect("that ends");
        std::fs::write(PAGE, format!("{head}{begin}\n{table}\n{end}{tail}")).unwrap();
    }
    if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
