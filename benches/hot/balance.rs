//! E2a and E2c: who carries the load when few keys are most of it.

use crate::Options;
use crate::histories::Chance;
use crate::load::{Crowd, Done, Zipf, name, part, probe};
use crate::stand::{Did, Mode, Proxy, Witness, fill, proxies, spread};
use crate::support::{Scratch, shards};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

const SHARDS: usize = 16;
/// Requests a second of all apps together.
const RATE: f64 = 20_000.0;
const WARM: Duration = Duration::from_secs(5);
const ZIPF: f64 = 1.2;

/// What was counted behind one kind of proxy.
pub(crate) struct Row {
    pub(crate) mode: Mode,
    pub(crate) did: Vec<Did>,
    pub(crate) done: Done,
    /// Of a key that is hot, asked for alone.
    pub(crate) hot: [Duration; 2],
    pub(crate) near: f64,
}

/// Measures all; gives a table and what a picture needs.
pub(crate) fn run(options: &Options, modes: &[Mode]) -> (String, Vec<Row>) {
    let (count, keys) = if options.quick { (4, 100_000) } else { (20, 1_000_000) };
    let (redis, at) = shards(SHARDS);
    fill(&redis, (0..keys).map(name), &"x".repeat(100));
    let zipf = Zipf::of(keys, ZIPF);
    let mut witness = Witness::of(&redis);
    let mut rows = Vec::new();
    for mode in options.of(modes) {
        let dir = Scratch::new();
        let all = proxies(mode, count, &at, &dir, &[], options);
        let mut chance = Chance::of(42);
        let draw = || name(zipf.draw(&mut chance));
        let row = measure(mode, (&all, &mut witness), options.rate.unwrap_or(RATE), options.time, draw);
        eprintln!("{}: {:?}", mode.name(), row.did.iter().map(|did| did.gets).collect::<Vec<_>>());
        rows.push(row);
    }
    (table(&rows, count, keys), rows)
}

/// What the servers do while apps read the keys that are drawn, so many times a second through all of these proxies, and beside
/// them somebody the first key alone.
pub(crate) fn measure(
    mode: Mode,
    (all, witness): (&[Proxy], &mut Witness),
    rate: f64,
    time: Duration,
    mut draw: impl FnMut() -> String,
) -> Row {
    let addresses: Vec<String> = all.iter().map(Proxy::address).collect();
    let mut crowd = Crowd::to(&addresses, 4, rate);
    // 0 before it is measured, 1 meanwhile, 2 after it.
    let stage = AtomicU8::new(0);
    std::thread::scope(|scope| {
        let prober = scope.spawn(|| {
            let pause = Duration::from_millis(5);
            probe(&addresses[0], &name(0), pause, || stage.load(Ordering::Relaxed) == 0);
            probe(&addresses[0], &name(0), pause, || stage.load(Ordering::Relaxed) == 1)
        });
        crowd.read(WARM, &mut draw);
        let near = || all.iter().map(|proxy| proxy.metric("hotring_near_hits_total")).sum::<f64>();
        let (near_before, before) = (near(), witness.ask());
        stage.store(1, Ordering::Relaxed);
        let mut done = crowd.read(time, &mut draw);
        stage.store(2, Ordering::Relaxed);
        let did = witness.since(&before);
        let near = near() - near_before;
        let mut hot = prober.join().unwrap();
        done.requests += hot.len() as u64;
        Row { mode, did, done, hot: [0.5, 0.99].map(|of| part(&mut hot, of)), near }
    })
}

fn table(rows: &[Row], count: usize, keys: usize) -> String {
    let mut text = format!(
        "{SHARDS} redis-servers, {count} proxies of one worker, {keys} keys of 100 bytes, GET only, Zipf {ZIPF}. Calls as the \
         servers count them. \"Of plain\" is the busiest shard's GETs relative to the mean of `reads: off`, for as many \
         requests.\n\n\
         | | Requests/s | Errors | GETs at the shards | GETs: max / mean | all commands: max / mean | busiest, of plain | answered \
         elsewhere | the hottest key, p50 | p99 |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    );
    let plain = rows.iter().find(|row| row.mode == Mode::Reads("off"));
    let share = |row: &Row, gets: f64| gets / row.done.requests as f64;
    for row in rows {
        let (max, mean, quotient) = spread(row.did.iter().map(|did| did.gets));
        let (_, _, all) = spread(row.did.iter().map(|did| did.all));
        let of_plain =
            plain.map_or(0.0, |plain| share(row, max) / share(plain, spread(plain.did.iter().map(|did| did.gets)).1));
        let elsewhere = 1.0 - share(row, mean * SHARDS as f64);
        let _ = writeln!(
            text,
            "| {} | {:.0} | {} | {:.0} | {quotient:.2} | {all:.2} | {of_plain:.2} | {:.1} % (near hits: {:.1} %) | {:.2?} | {:.2?} |",
            row.mode.name(),
            row.done.rate(),
            row.done.errors,
            mean * SHARDS as f64,
            elsewhere.max(0.0) * 100.0,
            100.0 * row.near / row.done.requests as f64,
            row.hot[0],
            row.hot[1],
        );
    }
    text
}
