//! E2d: all is well until, from one moment to the next, half of all requests are for one key.

use crate::Options;
use crate::histories::Chance;
use crate::load::{Crowd, name};
use crate::stand::{Did, Mode, Proxy, Witness, fill, proxies, spread};
use crate::support::{Scratch, now, shards};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SHARDS: usize = 16;
const RATE: f64 = 20_000.0;
const STEP: Duration = Duration::from_millis(250);
/// What counts as balanced, for so many steps.
const GOOD: f64 = 1.4;
const STEPS: usize = 4;

/// A step: when it ended, the quotient of the busiest shard and the mean, and whether a hotring calls the key hot.
struct Step {
    at: Duration,
    spread: f64,
    is_hot: Option<bool>,
}

pub(crate) fn run(options: &Options) -> String {
    let count = if options.quick { 4 } else { 10 };
    let [before, during] = if options.quick { [4, 8] } else { [10, 10] }.map(Duration::from_secs);
    let after = Duration::from_secs(20);
    let keys = 100_000;
    let (redis, at) = shards(SHARDS);
    fill(&redis, (0..keys).map(name).chain([FLASH.to_owned()]), &"x".repeat(100));
    let rate = options.rate.unwrap_or(RATE);
    let mut text = format!(
        "{SHARDS} redis-servers, {count} proxies, {keys} keys, uniform at {rate:.0} GETs a second; after {before:?} one key takes half \
         of them for {during:?}. Balanced again: the busiest shard has no more than {GOOD} times the mean for a second.\n\n\
         | | before: max / mean | the first second | at the end | balanced again after | forgotten after |\n\
         | --- | ---: | ---: | ---: | ---: | ---: |\n"
    );
    for mode in options.of(&["off", "near", "copies", "auto"].map(Mode::Reads)) {
        let dir = Scratch::new();
        let all = proxies(mode, count, &at, &dir, &[], options);
        let mut witness = Witness::of(&redis);
        let end = before + during + if mode == Mode::Reads("off") { Duration::from_secs(1) } else { after };
        let (began, over) = (now(), AtomicBool::new(false));
        let steps = std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut steps = Vec::new();
                let mut was: Vec<Did> = witness.ask();
                while !over.load(Ordering::Relaxed) {
                    std::thread::sleep(rest(began.elapsed()));
                    let did = witness.since(&was);
                    was.iter_mut().zip(&did).for_each(|(was, did)| {
                        (was.gets, was.all) = (was.gets + did.gets, was.all + did.all);
                        (was.micros, was.bytes) = (was.micros + did.micros, was.bytes + did.bytes);
                    });
                    let (_, _, quotient) = spread(did.iter().map(|did| did.gets));
                    steps.push(Step { at: began.elapsed(), spread: quotient, is_hot: is_hot(&all[0]) });
                }
                steps
            });
            let addresses: Vec<String> = all.iter().map(Proxy::address).collect();
            let mut crowd = Crowd::to(&addresses, 4, rate);
            let mut chance = Chance::of(1);
            let mut uniform = || name(chance.below(keys as u64) as usize);
            let mut coin = Chance::of(2);
            crowd.read(before, &mut uniform);
            // Through all proxies alike.
            crowd.read(during, || if coin.below(2) == 0 { FLASH.to_owned() } else { uniform() });
            crowd.read(end.saturating_sub(began.elapsed()), &mut uniform);
            over.store(true, Ordering::Relaxed);
            watch.join().unwrap()
        });
        text += &row(mode, &steps, before, before + during);
    }
    text
}

const FLASH: &str = "key:flash";

/// How long until the next step ends.
fn rest(since: Duration) -> Duration {
    STEP - Duration::from_nanos((since.as_nanos() % STEP.as_nanos()) as u64)
}

fn is_hot(proxy: &Proxy) -> Option<bool> {
    proxy.hot_keys().map(|page| page.contains(FLASH))
}

fn row(mode: Mode, steps: &[Step], from: Duration, to: Duration) -> String {
    eprintln!("{}: max / mean for each {STEP:?}:", mode.name());
    let line: Vec<String> = steps.iter().map(|step| format!("{:.2}", step.spread)).collect();
    eprintln!("{}", line.join(" "));
    let mean = |from: Duration, to: Duration| {
        let some: Vec<f64> =
            steps.iter().filter(|step| step.at > from && step.at <= to).map(|step| step.spread).collect();
        some.iter().sum::<f64>() / some.len().max(1) as f64
    };
    let during: Vec<&Step> = steps.iter().filter(|step| step.at > from && step.at <= to).collect();
    let balanced = during.windows(STEPS).find(|steps| steps.iter().all(|step| step.spread <= GOOD));
    let balanced =
        balanced.map_or("never".to_owned(), |steps| format!("{:.2?}", steps[0].at.saturating_sub(from + STEP)));
    let forgotten = match steps.iter().rev().find(|step| step.is_hot == Some(true)) {
        None if steps.iter().all(|step| step.is_hot.is_none()) => "not told".to_owned(),
        None => "never known".to_owned(),
        Some(last) if last.at == steps[steps.len() - 1].at => "not yet".to_owned(),
        Some(last) => format!("{:.2?}", last.at.saturating_sub(to)),
    };
    let second = Duration::from_secs(1);
    let mut text = String::new();
    let _ = writeln!(
        text,
        "| {} | {:.2} | {:.2} | {:.2} | {balanced} | {forgotten} |",
        mode.name(),
        mean(second, from),
        mean(from, from + second),
        mean(to.saturating_sub(second * 2), to),
    );
    text
}
