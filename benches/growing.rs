//! Growing: what a database notices when a cache of 8 servers becomes one of 10 under load, with and without `warm_from`. The database is a stub
//! within the load, so loads are counted exactly.
//!
//! ```sh
//! cargo bench --bench growing
//! ```
//!
//! prints a table. `--rate N` (requests a second), `--keys N`, `--processes N`, `--time SECONDS` take another measure, `--hotring FILE` another
//! build. `--write` writes the table to `docs/growing-results.md`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark talks to who started it")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark may panic, and has a clock")]

#[path = "../tests/chaos/mod.rs"]
mod chaos;
#[path = "../tests/histories/mod.rs"]
mod histories;
#[path = "hot/load.rs"]
#[allow(dead_code, reason = "each program uses its part")]
mod load;
#[path = "support/page.rs"]
mod page;
#[path = "hot/stand.rs"]
#[allow(dead_code, reason = "each program uses its part")]
mod stand;
#[path = "../tests/support/mod.rs"]
mod support;

use chaos::Process;
use histories::Chance;
use hotring::demo::{Answer, App};
use load::{Zipf, name, part};
use rustix::process::Signal;
use stand::fill;
use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};
use support::{Redis, Scratch, pool};
use tokio::runtime::Builder;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, sleep_until};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/growing-results.md");
const HEAD: &str = "# Growing, measured\n\n\
    What `benches/growing.rs` found. Loads are counted where they happen, in a stub of a database.\n";
const BEFORE: usize = 8;
const AFTER: usize = 10;
const APPS: usize = 200;
const LOAD: Duration = Duration::from_millis(20);
const REST: Duration = Duration::from_secs(2);

/// What was asked for.
pub(crate) struct Options {
    rate: f64,
    keys: usize,
    processes: usize,
    time: Duration,
    pub(crate) hotring: String,
}

/// What became of it.
#[derive(Default)]
struct Seen {
    changed: Cell<Option<Instant>>,
    /// Loads, and reads that began, since the change; loads in its first second.
    loads: Cell<u64>,
    first: Cell<u64>,
    early: Cell<u64>,
    reads: Cell<u64>,
    errors: Cell<u64>,
    took: RefCell<Vec<Duration>>,
}

fn add(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let given: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let hotring = env!("CARGO_BIN_EXE_hotring").to_owned();
    let time = Duration::from_secs(20);
    let mut options = Options { rate: 10_000.0, keys: 20_000, processes: 2, time, hotring };
    let (mut bench, mut write) = (false, false);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_default();
        match argument.as_str() {
            // `cargo test --benches` starts benchmarks without it: there is nothing to measure then.
            "--bench" => bench = true,
            // The one experiment there is.
            "grow" => {}
            "--write" => write = true,
            "--rate" => options.rate = value().parse().unwrap(),
            "--keys" => options.keys = value().parse().unwrap(),
            "--processes" => options.processes = value().parse().unwrap(),
            "--time" => options.time = Duration::from_secs(value().parse().unwrap()),
            "--hotring" => options.hotring = value(),
            other => {
                eprintln!(
                    "{other}? There are --rate N, --keys N, --processes N, --time SECONDS, --hotring FILE, --write"
                );
                return ExitCode::FAILURE;
            }
        }
    }
    if !bench {
        return ExitCode::SUCCESS;
    }
    let text = measure(&options);
    println!("{text}");
    if write {
        let words: Vec<&str> = given.iter().map(String::as_str).filter(|word| *word != "--write").collect();
        page::write(PAGE, HEAD, "growing", ("grow", "From 8 servers to 10"), &words, &text);
    }
    ExitCode::SUCCESS
}

fn measure(options: &Options) -> String {
    let Options { rate, keys, processes, time, .. } = options;
    let mut text = format!(
        "{BEFORE} redis-servers become {AFTER} while {APPS} apps ask {processes} processes of one worker for {keys} keys, Zipf 1.0, {rate:.0} requests \
         a second, of which one in twenty is a SET. All keys are there before. A load takes {LOAD:?} and is written back. Counted from the change \
         on, for {time:?}.\n\n\
         | | loads | in the first second | of those without `warm_from` | reads | nils of them | p50 | p99 | answered by the old home | copied | \
         errors |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    );
    let mut without = None;
    for (name, grows, lines) in [
        ("no change", false, &[][..]),
        ("without", true, &[]),
        ("`warm_from: previous`", true, &["warm_from: previous"]),
    ] {
        let line = run(options, name, grows, lines, &mut without);
        eprint!("{line}");
        text += &line;
    }
    text
}

fn run(options: &Options, called: &str, grows: bool, lines: &[&str], without: &mut Option<u64>) -> String {
    let redis: Vec<Redis> = (0..AFTER).map(|_| Redis::start(&[])).collect();
    let at: Vec<String> = redis.iter().map(|redis| redis.address().to_owned()).collect();
    fill(&redis[..BEFORE], (0..options.keys).map(name), "value");
    let dir = Scratch::new();
    let lines: Vec<&str> =
        ["^log: {level: off}", "^workers: 1", "^watch: off"].into_iter().chain(lines.iter().copied()).collect();
    let yaml = |servers: &[String]| pool(servers, &lines).replace("admin: off", "admin: 127.0.0.1:0");
    let config = dir.write("proxy.yaml", &yaml(&at[..BEFORE]));
    let mut processes: Vec<Process> = (0..options.processes).map(|_| Process::of(&options.hotring, &config)).collect();
    let seen = Rc::new(Seen::default());
    let tasks = LocalSet::new();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    tasks.block_on(&runtime, async {
        let zipf = Rc::new(Zipf::of(options.keys, 1.0));
        let each = Duration::from_secs_f64(APPS as f64 / options.rate);
        for (number, process) in processes.iter().cycle().take(APPS).enumerate() {
            let app = App::to(process.address()).await.unwrap();
            spawn_local(ask(Rc::clone(&seen), app, Rc::clone(&zipf), each, number as u64));
        }
        sleep(REST).await;
        assert_eq!(seen.early.get(), 0, "all keys are there");
        if grows {
            dir.write("proxy.yaml", &yaml(&at));
        }
        seen.changed.set(Some(Instant::now()));
        processes.iter_mut().for_each(|process| process.signal(Signal::HUP));
        sleep(options.time).await;
    });
    let metric = |series: &str| -> f64 {
        let of = |process: &Process| -> f64 {
            let all = process.metrics();
            all.iter().filter(|(name, _)| name.starts_with(series)).map(|(_, value)| value).sum()
        };
        processes.iter().map(of).sum()
    };
    let (hits, copies) = (metric("hotring_warm_hits_total"), metric("hotring_warm_copies_total"));
    let (loads, reads) = (seen.loads.get(), seen.reads.get());
    let [p50, p99] = [0.5, 0.99].map(|of| part(&mut seen.took.borrow_mut(), of));
    if grows {
        without.get_or_insert(loads);
    }
    let share = without
        .filter(|_| grows)
        .map_or("".to_owned(), |all| format!("{:.2} %", loads as f64 * 100.0 / all.max(1) as f64));
    let mut text = String::new();
    let _ = writeln!(
        text,
        "| {called} | {loads} | {} | {share} | {reads} | {:.2} % | {p50:.1?} | {p99:.1?} | {hits} | {copies} | {} |",
        seen.first.get(),
        loads as f64 * 100.0 / reads.max(1) as f64,
        seen.errors.get(),
    );
    text
}

/// An app that asks for keys at a rate of its own, and loads what is not there.
async fn ask(seen: Rc<Seen>, mut app: App, zipf: Rc<Zipf>, each: Duration, number: u64) {
    let mut chance = Chance::of(number + 1);
    let mut due = tokio::time::Instant::now() + each.mul_f64(chance.part());
    loop {
        sleep_until(due).await;
        // What could not be asked while an answer was out is not made up for.
        due = (due + each).max(tokio::time::Instant::now());
        let key = name(zipf.draw(&mut chance));
        if chance.part() < 0.05 {
            let set = app.ask(&[b"SET", key.as_bytes(), b"newer"]).await;
            if !matches!(set, Ok(Answer::Done)) {
                add(&seen.errors);
            }
            continue;
        }
        let asked = Instant::now();
        let answer = app.ask(&[b"GET", key.as_bytes()]).await;
        let since = seen.changed.get().map(|changed| changed.elapsed());
        if since.is_some() {
            add(&seen.reads);
            seen.took.borrow_mut().push(asked.elapsed());
        }
        match answer {
            Ok(Answer::Value(_)) => {}
            Ok(Answer::Nil) => {
                add(if since.is_some() { &seen.loads } else { &seen.early });
                if since.is_some_and(|since| since < Duration::from_secs(1)) {
                    add(&seen.first);
                }
                sleep(LOAD).await;
                let set = app.ask(&[b"SET", key.as_bytes(), b"value"]).await;
                if !matches!(set, Ok(Answer::Done)) {
                    add(&seen.errors);
                }
            }
            _ => add(&seen.errors),
        }
    }
}
