//! What apps may see of each other's writes through several hotrings, for random histories on few keys, so that they are hot.
//!
//! Each run has HOTRING_OPS operations (150000; 10000000 for the full run) through HOTRING_PROCESSES hotrings (2) of two workers each
//! with eight apps each, and one app that writes to the shards directly. HOTRING_BINARY is another build, such as one that was
//! broken on purpose.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::print_stderr, reason = "what was seen is of interest when all is well, too")]

#[path = "chaos/mod.rs"]
mod chaos;
#[path = "histories/mod.rs"]
mod histories;
mod support;

use chaos::Process;
use histories::{Clock, History, Monitors, Naive, Plan, Report, Rule, Rules, Scope, check, run};
use std::time::Duration;
use support::{Redis, Relay, Scratch, Way, home, keys_on, pool};

const SHARDS: usize = 4;
const KEYS_OF_A_SHARD: usize = 2;
/// Where replicas are read from: a key that is written all the time never is.
const MANY_KEYS: usize = 60;
const STALENESS: Duration = Duration::from_secs(1);
/// How much later a read may begin than it is served, and what else comes between two clocks.
const SLACK: Duration = Duration::from_millis(50);

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

/// Works, with the pool's `hot_keys`, and gives what was found, and the part of all reads that the shards answered.
fn history(hot_keys: &[&str], rules: &Rules, naive: Option<(Duration, bool)>) -> (Report, f64) {
    history_of(hot_keys, rules, naive, (KEYS_OF_A_SHARD, &[]))
}

/// The same with so many keys of each shard, and replicas that lag by so much.
fn history_of(
    hot_keys: &[&str],
    rules: &Rules,
    naive: Option<(Duration, bool)>,
    (keys_of_a_shard, lags): (usize, &[Duration]),
) -> (Report, f64) {
    let redis: Vec<Redis> = (0..SHARDS).map(|_| Redis::tcp(&["--repl-diskless-sync-delay", "0"])).collect();
    let at: Vec<String> = redis.iter().map(|redis| redis.address().to_owned()).collect();
    let keys: Vec<String> = (0..SHARDS).flat_map(|shard| keys_on(shard, SHARDS, keys_of_a_shard)).collect();
    let dir = Scratch::new();
    let (mut replicas, mut listed) = (Vec::new(), Vec::new());
    for (shard, redis) in redis.iter().enumerate().filter(|_| !lags.is_empty()) {
        let mut own = Vec::new();
        for &lag in lags {
            let link = Relay::to(redis.address());
            link.delay(Way::ToProxy, lag);
            let (host, port) = link.address().rsplit_once(':').unwrap();
            let replica = Redis::start(&["--replicaof", host, port]);
            own.push(replica.address().to_owned());
            replicas.push((link, replica));
        }
        listed.push(format!("s{shard}: [{}]", own.join(", ")));
    }
    let listed = format!("replicas: {{{}}}", listed.join(", "));
    let mut lines = [&["^workers: 2", "^log: {level: off}"], hot_keys].concat();
    lines.extend((!lags.is_empty()).then_some(listed.as_str()));
    let config = dir.write("proxy.yaml", &pool(&at, &lines));
    let binary = std::env::var("HOTRING_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_hotring").to_owned());
    let processes: Vec<Process> = (0..number("HOTRING_PROCESSES", 2)).map(|_| Process::of(&binary, &config)).collect();
    let mut addresses: Vec<String> = processes.iter().map(|process| process.address().to_owned()).collect();
    let wrong: Vec<Naive> = naive
        .iter()
        .flat_map(|&(span, removes)| addresses.iter().map(move |at| Naive::before(at, span, removes)))
        .collect();
    if naive.is_some() {
        addresses = wrong.iter().map(|naive| naive.address().to_owned()).collect();
    }
    let clock = Clock::start();
    let monitors = Monitors::start(&at, &keys, clock);
    let direct: Vec<String> = keys.iter().map(|key| at[home(SHARDS, key.as_bytes())].clone()).collect();
    let plan = Plan { apps: 8, operations: number("HOTRING_OPS", 150_000), seed: 42 };
    let apps = run(&addresses, &direct, &keys, clock, &plan);
    let took = Duration::from_nanos(clock.now());
    let history = History { apps, logs: monitors.finish() };
    let report = check(&history, rules);
    let answered = history.logs.iter().map(|log| log.reads).sum::<u64>() as f64 / report.reads.max(1) as f64;
    eprintln!(
        "{hot_keys:?}: {} operations in {took:.1?}, {} reads, {:.1} % of them answered by the shards, {} overwritten before \
         they began, at most {:?} ago; {:?}",
        report.operations,
        report.reads,
        answered * 100.0,
        report.stale,
        Duration::from_nanos(report.oldest),
        report.counts,
    );
    (report, answered)
}

fn clean(report: &Report) {
    assert!(report.counts.is_empty(), "{:?}\n{:#?}", report.counts, report.examples);
}

const NEAR: Rules =
    Rules { scope: Scope::Process, monotonic: true, staleness: Some((STALENESS.as_nanos() + SLACK.as_nanos()) as u64) };
const COPIES: Rules = Rules { monotonic: false, ..NEAR };

#[test]
fn without_hot_keys_it_is_linearizable() {
    clean(&history(&[], &Rules::STRICT, None).0);
}

#[test]
fn coalesced_reads_are_linearizable() {
    clean(&history(&["coalesce: true"], &Rules::STRICT, None).0);
}

/// Which is how it is by default: all keys are hot here.
#[test]
fn merged_reads_of_hot_keys_are_linearizable() {
    let (report, answered) = history(&["merge: strict"], &Rules::STRICT, None);
    clean(&report);
    assert!(answered < 0.9, "hardly any reads were merged: the shards answered {answered}");
}

/// Sharing the reply to a read that is out already is not.
#[test]
fn merging_with_what_is_out_is_found_out() {
    // A few of a hundred thousand reads: more is done if none was.
    let found = (0..10).any(|_| {
        let (report, answered) = history(&["merge: relaxed"], &Rules::STRICT, None);
        assert!(answered < 0.9, "hardly any reads were merged: the shards answered {answered}");
        report.count(Rule::OwnWrite) + report.count(Rule::Backwards) > 0
    });
    assert!(found, "nothing was found out");
}

#[test]
fn from_memory_nobody_misses_a_write_of_his_hotring_goes_back_or_reads_what_is_too_old() {
    let (report, answered) = history(&["hot_keys: {reads: near}"], &NEAR, None);
    clean(&report);
    assert!(answered < 0.995, "hardly anything was answered from memory: the shards answered {answered}");
}

#[test]
fn from_memory_with_what_was_written_there_nobody_misses_goes_back_or_reads_what_is_too_old() {
    let (report, answered) = history(&["hot_keys: {reads: near, near_all: true, near_writes: true}"], &NEAR, None);
    clean(&report);
    assert!(answered < 0.9, "hardly anything was answered from memory: the shards answered {answered}");
}

#[test]
fn from_copies_nobody_misses_a_write_of_his_hotring_or_reads_what_is_too_old() {
    clean(&history(&["hot_keys: {reads: copies}"], &COPIES, None).0);
}

#[test]
fn by_whatever_is_best_nobody_misses_a_write_of_his_hotring_or_reads_what_is_too_old() {
    // What that is depends on how fast the machine is: keys that change too often for memory are copied, which are shards, too.
    clean(&history(&["hot_keys: {reads: auto}"], &COPIES, None).0);
}

/// Replicas that lag by 5 and by 100 ms.
#[test]
fn from_replicas_nobody_misses_a_write_of_his_hotring_or_reads_what_is_too_old() {
    let lags = [5, 100].map(Duration::from_millis);
    for word in ["prefer_replica", "any", "replica"] {
        let (report, answered) = history_of(&[&format!("read_from: {word}")], &COPIES, None, (MANY_KEYS, &lags));
        clean(&report);
        assert!(answered < 0.97, "hardly anything was answered by replicas: the shards answered {answered}");
    }
}

/// A cache that knows of no writes, before hotring: all of it is found out.
#[test]
fn a_cache_that_forgets_nothing_is_found_out() {
    let rules = Rules { staleness: Some(Duration::from_millis(100).as_nanos() as u64), ..NEAR };
    let (report, _) = history(&[], &rules, Some((Duration::from_millis(400), false)));
    for rule in [Rule::OwnWrite, Rule::Stale] {
        assert!(report.count(rule) > 0, "{rule:?}: {:?}", report.counts);
    }
}

/// One that removes what it keeps when a write is sent, but not what is read meanwhile: that is the fence's part.
#[test]
fn a_cache_without_a_fence_is_found_out() {
    let (report, _) = history(&[], &NEAR, Some((Duration::from_millis(50), true)));
    assert!(report.count(Rule::OwnWrite) > 0, "{:?}", report.counts);
}
