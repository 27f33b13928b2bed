//! Misses: what a database notices when keys that many ask for are gone, with and without what hotring does about it. The database is
//! a stub within the load, so what is counted is counted exactly: a load takes its time, and is written back.
//!
//! ```sh
//! cargo bench --bench misses -- e3a
//! ```
//!
//! prints a table for each experiment that is named, or for all: e3a (a key that a thousand apps ask for expires), local (the same at
//! one process), e3b (it is refreshed early), e3c (many threads on one connection), e8 (a shard loses all it has), e9 (many keys
//! that are set at once expire). `--quick` takes fewer apps, `--full` as many expiries as the tables need, `--expiries N`,
//! `--rate N` (requests a second), `--processes N` and `--pools N` (hotrings, and endpoints in each of them) another measure, `--only
//! WORD` those rows whose name has the word, `--hotring FILE` another build. `--write` writes the tables to `docs/misses-results.md`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark talks to who started it")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark may panic, and has a clock")]

#[path = "../tests/chaos/mod.rs"]
mod chaos;
#[path = "misses/cold.rs"]
mod cold;
#[path = "misses/early.rs"]
mod early;
#[path = "misses/endpoints.rs"]
mod endpoints;
#[path = "../tests/histories/mod.rs"]
mod histories;
#[path = "misses/jitter.rs"]
mod jitter;
#[path = "hot/load.rs"]
#[allow(dead_code, reason = "each program uses its part")]
mod load;
#[path = "support/page.rs"]
mod page;
#[path = "misses/shared.rs"]
mod shared;
#[path = "misses/stampede.rs"]
mod stampede;
#[path = "hot/stand.rs"]
#[allow(dead_code, reason = "each program uses its part")]
mod stand;
#[path = "../tests/support/mod.rs"]
mod support;

use rustix::process::{Resource, getrlimit, setrlimit};
use std::process::ExitCode;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/misses-results.md");

const EXPERIMENTS: [(&str, &str); 6] = [
    ("e3a", "A key that a thousand apps ask for"),
    ("local", "The same at one process"),
    ("e3b", "Refreshed early"),
    ("e3c", "Many threads on one connection"),
    ("e8", "A shard that lost all it had"),
    ("e9", "Keys that are set at once"),
];

/// What was asked for.
pub(crate) struct Options {
    quick: bool,
    full: bool,
    expiries: Option<usize>,
    rate: Option<f64>,
    processes: Option<usize>,
    pools: Option<usize>,
    only: String,
    hotring: String,
}

impl Options {
    /// One of three measures.
    pub(crate) fn pick<T>(&self, quick: T, usual: T, full: T) -> T {
        if self.quick {
            quick
        } else if self.full {
            full
        } else {
            usual
        }
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        name.contains(&self.only)
    }
}

fn measure(name: &str, options: &Options) -> String {
    match name {
        "e3a" => stampede::fleet(options),
        "local" => stampede::local(options),
        "e3b" => early::run(options),
        "e3c" => shared::run(options),
        "e8" => cold::run(options),
        _ => jitter::run(options),
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (mut write, mut bench) = (false, false);
    let mut names: Vec<String> = Vec::new();
    let hotring = env!("CARGO_BIN_EXE_hotring").to_owned();
    let (expiries, rate, processes, pools) = (None, None, None, None);
    let mut options =
        Options { quick: false, full: false, expiries, rate, processes, pools, only: String::new(), hotring };
    let given: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_default();
        match argument.as_str() {
            // `cargo test --benches` starts benchmarks without it: there is nothing to measure then.
            "--bench" => bench = true,
            "--write" => write = true,
            "--quick" => options.quick = true,
            "--full" => options.full = true,
            "--expiries" => options.expiries = value().parse().ok(),
            "--rate" => options.rate = value().parse().ok(),
            "--processes" => options.processes = value().parse().ok(),
            "--pools" => options.pools = value().parse().ok(),
            "--only" => options.only = value(),
            "--hotring" => options.hotring = value(),
            name if EXPERIMENTS.iter().any(|(one, _)| *one == name) => names.push(name.to_owned()),
            other => {
                let all: Vec<&str> = EXPERIMENTS.iter().map(|(name, _)| *name).collect();
                eprintln!(
                    "{other}? There are {}, --quick, --full, --write, --expiries N, --rate N, --processes N, --pools N, \
                     --only WORD, --hotring FILE",
                    all.join(", ")
                );
                return ExitCode::FAILURE;
            }
        }
    }
    if !bench {
        return ExitCode::SUCCESS;
    }
    // A thousand apps here, and as many at a proxy.
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
    for (name, title) in EXPERIMENTS {
        if !names.is_empty() && !names.iter().any(|one| one == name) {
            continue;
        }
        let text = measure(name, &options);
        println!("{title}\n\n{text}");
        if write {
            let words: Vec<&str> =
                given.iter().map(String::as_str).filter(|word| !names.iter().any(|one| one == word)).collect();
            page::write(PAGE, HEAD, "misses", (name, title), &words, &text);
        }
    }
    ExitCode::SUCCESS
}

const HEAD: &str = "# Misses, measured\n\n\
    What `benches/misses.rs` found. Loads are counted where they happen, in a stub of a database, so they depend on the machine only as far as \
    it delays what is to happen at the same time; times do, and this one also runs the shards, all proxies and the load.\n";
