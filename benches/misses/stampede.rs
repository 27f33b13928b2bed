//! E3a: a key that many apps ask for expires, again and again.

use crate::Options;
use crate::endpoints::{Endpoints, Mode, Size, servers};
use crate::load::part;
use hotring::demo::{Herd, Plan, Tally, Wait};
use std::fmt::Write as _;
use std::time::{Duration, Instant};
use tokio::runtime::Builder;
use tokio::task::LocalSet;
use tokio::time::sleep;

pub(crate) const SHARDS: usize = 3;
pub(crate) const KEY: &str = "product:1";
pub(crate) const TTL: Duration = Duration::from_secs(2);
pub(crate) const LOAD: Duration = Duration::from_millis(100);
/// A herd that sees no expiry for so long has come to nothing.
const STUCK: Duration = Duration::from_secs(20);

/// Of so many loads one is broken off, where apps die.
const DIES: u64 = 20;

/// The same where there are so few loads that none would be.
fn few(expiries: usize) -> u64 {
    if expiries < DIES as usize { 2 } else { DIES }
}

/// What is usual: `think` is what makes a thousand apps bearable for a machine that runs everything.
pub(crate) fn plan(think: Duration, dies: u64) -> Plan {
    Plan { key: KEY.to_owned(), ttl: TTL, load: LOAD, think, dies }
}

/// Many processes with many pools: every pool stands for a sidecar, and knows nothing of the others but what the shards tell it.
pub(crate) fn fleet(options: &Options) -> String {
    let apps = options.pick(200, 1000, 1000);
    let expiries = options.expiries.unwrap_or(options.pick(2, 2, 100));
    let (processes, pools) = (options.processes.unwrap_or(10), options.pools.unwrap_or(options.pick(2, 10, 10)));
    let size = Size { processes, pools, workers: 1 };
    let think = Duration::from_millis(200);
    let (dies, few) = (DIES, few(expiries));
    let mut text = format!(
        "{SHARDS} redis-servers. {processes} processes of one worker, each hotring with {pools} pools, which stand for {} sidecars; {apps} apps ask \
         for one key and rest {think:?} between two questions, on average. The key lives {TTL:?}, a load takes {LOAD:?}, {expiries} \
         expiries. Where apps die, one load of {few} is broken off halfway and its app's connection closed (one of {dies} where there are more).\n\n{TITLES}",
        processes * pools,
    );
    let calm =
        [Mode::Direct, Mode::Nutcracker, Mode::Misses(""), Mode::Misses("lease: local"), Mode::Misses("lease: fleet")];
    let deadly = [(calm[2], dies), (calm[3], dies), (calm[4], few)];
    let all = calm.map(|mode| (mode, 0)).into_iter().chain(deadly);
    for (mode, dies) in all.filter(|&(mode, _)| mode.is_there()) {
        let name = mode.name() + if dies > 0 { ", apps die" } else { "" };
        if options.wants(&name) {
            text += &row(&name, mode, size, plan(think, dies), apps, expiries, options);
        }
    }
    text
}

/// One process of two workers.
pub(crate) fn local(options: &Options) -> String {
    let apps = options.pick(200, 1000, 1000);
    let expiries = options.expiries.unwrap_or(options.pick(2, 5, 100));
    let size = Size { processes: 1, pools: 1, workers: 2 };
    let think = Duration::from_millis(200);
    let mut text = format!(
        "{SHARDS} redis-servers, one process (of hotring: with two workers), {apps} apps that rest {think:?} between two questions, on average. The key \
         lives {TTL:?}, a load takes {LOAD:?}, {expiries} expiries. Where apps die, one load of {} is broken off halfway and its app's \
         connection closed.\n\n{TITLES}",
        few(expiries),
    );
    let calm = [Mode::Nutcracker, Mode::Misses(""), Mode::Misses("lease: local")];
    for (mode, dies) in calm.map(|mode| (mode, 0)).into_iter().chain([(calm[2], few(expiries))]) {
        let name = mode.name() + if dies > 0 { ", apps die" } else { "" };
        if mode.is_there() && options.wants(&name) {
            text += &row(&name, mode, size, plan(think, dies), apps, expiries, options);
        }
    }
    text
}

pub(crate) const TITLES: &str = "Waits are those of apps that were given the value of a load which another app had \
    begun; \"beyond the load\" is what they waited longer than a load takes, \"behind the write\" the time from the moment the app that loaded \
    it sent its SET.\n\n\
    | | expiries | loads | an expiry: mean | most | deaths | GETs | waits | wait p50 | p99 | beyond the load, p99 | behind the write, p50 | p99 | nil \
    after a wait | errors |\n\
    | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n";

fn row(name: &str, mode: Mode, size: Size, plan: Plan, apps: usize, expiries: usize, options: &Options) -> String {
    let (_redis, at) = servers(SHARDS);
    let endpoints = Endpoints::start(mode, size, &at, &plan.key, options);
    let load = plan.load;
    let tally = herd(plan, &endpoints.addresses, apps, expiries);
    if let Some(error) = &tally.error {
        eprintln!("{name}: the last error: {error}");
    }
    let each: Vec<String> = tally.expiries.iter().map(u64::to_string).collect();
    eprintln!("{name}: loads of each expiry: {}", each.join(" "));
    for nil in tally.late_nils.iter().take(10) {
        eprintln!("{name}: nil after {:?}, {:?} behind the write", nil.whole, nil.behind);
    }
    let [whole, behind] = [|wait: &Wait| wait.whole, |wait: &Wait| wait.behind].map(|of| {
        let mut all: Vec<Duration> = tally.waits.iter().map(of).collect();
        [0.5, 0.99].map(|at| part(&mut all, at))
    });
    let waited = !tally.waits.is_empty();
    let millis = |time: Duration| if waited { format!("{:.1} ms", time.as_secs_f64() * 1e3) } else { "-".to_owned() };
    let mut text = String::new();
    let _ = writeln!(
        text,
        "| {name} | {} | {} | {:.2} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
        tally.expiries.len(),
        tally.loads(),
        tally.mean(),
        tally.most(),
        tally.deaths,
        tally.answers,
        tally.waits.len(),
        millis(whole[0]),
        millis(whole[1]),
        millis(whole[1].saturating_sub(load)),
        millis(behind[0]),
        millis(behind[1]),
        tally.late_nils.len(),
        tally.errors,
    );
    eprint!("{text}");
    text
}

/// Lets a herd see so many expiries.
pub(crate) fn herd(plan: Plan, addresses: &[String], apps: usize, expiries: usize) -> Tally {
    let (tasks, runtime) = (LocalSet::new(), Builder::new_current_thread().enable_all().build().unwrap());
    tasks.block_on(&runtime, async {
        let herd = Herd::start(plan, addresses, apps).await.unwrap();
        let (mut seen, mut since) = (0, Instant::now());
        while !herd.is_over(expiries) {
            sleep(Duration::from_millis(20)).await;
            let now = herd.tally().expiries.len();
            if now > seen {
                (seen, since) = (now, Instant::now());
            }
            if since.elapsed() > STUCK {
                eprintln!("no expiry for {STUCK:?}: {:?}", herd.tally());
                break;
            }
        }
        let tally = herd.tally().clone();
        tally.first(expiries)
    })
}
