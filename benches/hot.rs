//! Hot keys: what they do to shards, with and without what hotring does about them. What a shard did is what it says itself.
//!
//! ```sh
//! cargo bench --bench hot -- e2a
//! ```
//!
//! prints a table for each experiment that is named, or for all: e1 (what a read costs), e2a (the balance of shards under Zipf),
//! e2b (few keys that are written, too, every value checked), e2c (e2a from memory only), e2d (a key that becomes hot at once), e2e
//! (a large one), e2f (the balance of a cluster's nodes), e4 (how old an answer is, and with faults), e7 (what tracking costs a shard). `--quick` takes fewer processes and
//! less time, `--seconds N` and `--rate N` (requests a second) another measure, `--only WORD` those faults of e4 and those
//! proxies of the others whose name has the word, `--hotring FILE` another build. `--write` writes the tables to `docs/hot-keys-results.md`, and of e2a
//! the picture `docs/hot-keys.svg`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark talks to who started it")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark may panic, and has a clock")]

#[path = "hot/balance.rs"]
mod balance;
#[path = "hot/bytes.rs"]
mod bytes;
#[path = "../tests/chaos/mod.rs"]
mod chaos;
#[path = "hot/flash.rs"]
mod flash;
#[path = "../tests/histories/mod.rs"]
mod histories;
#[path = "hot/load.rs"]
mod load;
#[path = "hot/nodes.rs"]
mod nodes;
#[path = "support/page.rs"]
mod page;
#[path = "hot/picture.rs"]
mod picture;
#[path = "hot/plain.rs"]
mod plain;
#[path = "hot/skew.rs"]
mod skew;
#[path = "hot/stale.rs"]
mod stale;
#[path = "hot/stand.rs"]
mod stand;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "hot/tracking.rs"]
mod tracking;

use stand::Mode;
use std::process::ExitCode;
use std::time::Duration;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/hot-keys-results.md");
const PICTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/hot-keys.svg");

const EXPERIMENTS: [(&str, &str); 9] = [
    ("e1", "What a read costs"),
    ("e2a", "The balance of shards"),
    ("e2b", "Few keys, written too, every value checked"),
    ("e2c", "The balance of shards, from memory"),
    ("e2d", "A key that becomes hot at once"),
    ("e2e", "A large key"),
    ("e2f", "The balance of a cluster's nodes"),
    ("e4", "How old an answer is"),
    ("e7", "What tracking costs a shard"),
];

/// What was asked for.
pub(crate) struct Options {
    quick: bool,
    time: Duration,
    rate: Option<f64>,
    only: String,
    hotring: String,
}

impl Options {
    /// Those of several kinds of proxies that are to be measured.
    pub(crate) fn of(&self, modes: &[Mode]) -> Vec<Mode> {
        modes.iter().copied().filter(|mode| mode.is_there() && mode.name().contains(&self.only)).collect()
    }
}

fn measure(name: &str, options: &Options, write: bool) -> String {
    let all = ["off", "copies", "near", "auto"].map(Mode::Reads);
    match name {
        "e1" => plain::run(options),
        "e2a" => {
            let (text, rows) = balance::run(options, &[&all[..], &[Mode::Nutcracker]].concat());
            if write {
                std::fs::write(PICTURE, picture::draw(&rows)).unwrap();
            }
            text
        }
        "e2b" => skew::run(options),
        "e2c" => balance::run(options, &[all[0], all[2]]).0,
        "e2d" => flash::run(options),
        "e2e" => bytes::run(options),
        "e2f" => nodes::run(options),
        "e4" => stale::run(options),
        _ => tracking::run(options),
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (mut write, mut bench, mut seconds) = (false, false, None);
    let mut names: Vec<String> = Vec::new();
    let hotring = env!("CARGO_BIN_EXE_hotring").to_owned();
    let mut options = Options { quick: false, time: Duration::ZERO, rate: None, only: String::new(), hotring };
    let given: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_default();
        match argument.as_str() {
            // `cargo test --benches` starts benchmarks without it: there is nothing to measure then.
            "--bench" => bench = true,
            "--write" => write = true,
            "--quick" => options.quick = true,
            "--seconds" => seconds = value().parse().ok(),
            "--rate" => options.rate = value().parse().ok(),
            "--only" => options.only = value(),
            "--hotring" => options.hotring = value(),
            name if EXPERIMENTS.iter().any(|(one, _)| *one == name) => names.push(name.to_owned()),
            other => {
                eprintln!(
                    "{other}? There are e1, e2a to e2f, e4, e7, --quick, --write, --seconds N, --rate N, --only WORD, --hotring FILE"
                );
                return ExitCode::FAILURE;
            }
        }
    }
    if !bench {
        return ExitCode::SUCCESS;
    }
    options.time = Duration::from_secs(seconds.unwrap_or(if options.quick { 5 } else { 20 }));
    for (name, title) in EXPERIMENTS {
        if !names.is_empty() && !names.iter().any(|one| one == name) {
            continue;
        }
        let text = measure(name, &options, write);
        println!("{title}\n\n{text}");
        if write {
            let words: Vec<&str> =
                given.iter().map(String::as_str).filter(|word| !names.iter().any(|one| one == word)).collect();
            page::write(PAGE, HEAD, "hot", (name, title), &words, &text);
        }
    }
    ExitCode::SUCCESS
}

const HEAD: &str = "# Hot keys, measured\n\n\
    What `benches/hot.rs` found. Calls and bytes are what the shards say of themselves (`INFO`), so they do not depend on the machine; \
    times do, and this one also runs the shards, all proxies and the load.\n";
