//! E2b: few keys are nearly all of the load and are written, too; nothing that is read may be wrong.

use crate::Options;
use crate::chaos::{Link, Reply};
use crate::histories::{Chance, Clock, History, Kind, Monitors, Nanos, Op, Print, Rules, Said, Scope, check};
use crate::load::{name, part};
use crate::stand::{Mode, proxies, ring};
use crate::support::{Redis, Scratch, wire};
use std::fmt::Write as _;

const SHARDS: usize = 4;
const KEYS: usize = 1000;
const HOT: u64 = 10;
const WORKERS: usize = 32;
const LENGTH: usize = 128;
/// Every key is kept, and what is written through the proxy, too; the same for a proxy of one worker.
const ALL: &str = "near, near_all: true, near_writes: true";
const ALL_OF_ONE: &str = "near, near_all: true, near_writes: true, audit: 0";

/// The last mode is none: every worker asks the shard itself.
pub(crate) fn run(options: &Options) -> String {
    let operations = if options.quick { 20_000 } else { 100_000 };
    let mut text = format!(
        "{SHARDS} redis-servers, one proxy of two workers, {KEYS} keys of {LENGTH} bytes, 99 % of the requests for {HOT} of them, 95 \
         GET to 5 SET, {WORKERS} apps, {operations} operations, as fast as they are answered. Every value read is checked: a \
         mismatch is one that was neither the last that was acknowledged nor one that was being written; \"older than read \
         before\" are those behind an earlier read.\n\n\
         | | GETs | GETs at the shards | SETs | mismatches | older than read before | requests/s | p50 | p99 |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    );
    let modes = [None, Some("off"), Some("near"), Some("copies"), Some("auto"), Some(ALL), Some(ALL_OF_ONE)];
    for mode in modes.into_iter().filter(|mode| mode.is_none_or(|reads| reads.contains(&options.only))) {
        text += &one(mode, operations, options);
    }
    text
}

fn one(reads: Option<&'static str>, operations: usize, options: &Options) -> String {
    let redis: Vec<Redis> = (0..SHARDS).map(|_| Redis::tcp(&[])).collect();
    let shards: Vec<String> = redis.iter().map(|redis| redis.address().to_owned()).collect();
    let dir = Scratch::new();
    let workers = if reads == Some(ALL_OF_ONE) { "^workers: 1" } else { "^workers: 2" };
    let proxy = reads.map(|reads| proxies(Mode::Reads(reads), 1, &shards, &dir, &[workers], options).remove(0));
    let keys: Vec<String> = (0..KEYS).map(name).collect();
    let clock = Clock::start();
    let ring = ring(SHARDS);
    let home = |key: usize| usize::from(ring.shard_at(ring.position(keys[key].as_bytes()), 0).unwrap());
    let monitors = Monitors::start(&shards, &keys, clock);
    let app = |number: usize| {
        let mut links: Vec<Link> = match &proxy {
            Some(proxy) => vec![Link::to(&proxy.address()).unwrap()],
            None => shards.iter().map(|shard| Link::to(shard).unwrap()).collect(),
        };
        let mut chance = Chance::of(42 + number as u64);
        let mut done: Vec<Op> = Vec::new();
        for turn in 0..operations / WORKERS {
            let key =
                if chance.below(100) < 99 { chance.below(HOT) } else { HOT + chance.below(KEYS as u64 - HOT) } as usize;
            let link = if links.len() > 1 { &mut links[home(key)] } else { &mut links[0] };
            let kind = if chance.below(100) < 95 { Kind::Get } else { Kind::Set };
            let value = format!("{:0>LENGTH$}", format!("{number}:{turn}"));
            let start = clock.now();
            let said = if kind == Kind::Get {
                link.send(&wire(&["GET", &keys[key]])).unwrap();
                match link.reply().unwrap() {
                    Reply::Text(text) => Said::Value(Print::of(&text)),
                    Reply::Nothing => Said::Value(Print::ABSENT),
                    _ => Said::Error,
                }
            } else {
                link.send(&wire(&["SET", &keys[key], &value])).unwrap();
                if matches!(link.reply().unwrap(), Reply::Line(_)) { Said::Ok } else { Said::Error }
            };
            let argument = Print::of(value.as_bytes());
            done.push(Op { process: 0, key: key as u16, kind, argument, start, end: clock.now(), said });
        }
        done
    };
    let apps: Vec<Vec<Op>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..WORKERS).map(|number| scope.spawn(move || app(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let seconds = clock.now() as f64 / 1e9;
    if let Some(proxy) = &proxy {
        let of = |name: &str| proxy.metric(&format!("hotring_near_{name}_total"));
        let [hits, fills, changes] = ["hits", "fills", "invalidations"].map(of);
        eprintln!(
            "{reads:?}: near hits {hits}, fills {fills}, invalidations {changes}; {}",
            proxy.hot_keys().unwrap_or_default()
        );
    }
    let history = History { apps, logs: monitors.finish() };
    let mut took: Vec<Nanos> = history.apps.iter().flatten().map(|op| op.end - op.start).collect();
    let writes = history.apps.iter().flatten().filter(|op| op.kind == Kind::Set).count();
    let gets: u64 = history.logs.iter().map(|log| log.reads).sum();
    let mismatches = check(&history, &Rules { scope: Scope::Process, monotonic: false, staleness: None });
    let all = check(&history, &Rules::STRICT);
    if !all.counts.is_empty() {
        eprintln!("{reads:?}: {:#?}", all.examples);
    }
    let (wrong, backwards) = (mismatches.counts.values().sum::<u64>(), all.counts.values().sum::<u64>());
    let mut text = String::new();
    let name = match reads {
        None => "no proxy".to_owned(),
        Some(ALL_OF_ONE) => Mode::Reads(ALL).name() + ", one worker",
        Some(reads) => Mode::Reads(reads).name(),
    };
    let _ = writeln!(
        text,
        "| {name} | {} | {gets} | {writes} | {wrong} | {} | {:.0} | {:.0} us | {:.0} us |",
        mismatches.reads,
        backwards - wrong.min(backwards),
        took.len() as f64 / seconds,
        part(&mut took, 0.5) as f64 / 1e3,
        part(&mut took, 0.99) as f64 / 1e3,
    );
    text
}
