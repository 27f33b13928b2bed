//! E3b: the value is loaded anew shortly before its time is up, by one app, while the others are given what there is.

use crate::Options;
use crate::endpoints::{Endpoints, Mode, Size, servers};
use crate::stampede::{LOAD, SHARDS, TTL, herd, plan};
use hotring::demo::Wait;
use std::fmt::Write as _;
use std::time::Duration;

pub(crate) fn run(options: &Options) -> String {
    let apps = options.pick(200, 1000, 1000);
    let expiries = options.expiries.unwrap_or(options.pick(3, 5, 100));
    let size = Size { processes: options.processes.unwrap_or(10), pools: options.pools.unwrap_or(1), workers: 1 };
    let think = Duration::from_millis(200);
    let mut text = format!(
        "{SHARDS} redis-servers, {} processes of one worker, {apps} apps that rest {think:?} between two questions, on average. The key lives \
         {TTL:?}, a load takes {LOAD:?}, {expiries} times. Loads are early that begin while the value still lives; an app has waited if its \
         answer took half as long as a load, or longer. The first load of a key is never early: nobody knows yet how long one takes. So who waited for that one is counted by itself.\n\n\
         | | times | loads | mean | most | early | GETs | waits for the first load | for all others | nil after a wait | errors |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        size.processes * size.pools,
    );
    for mode in ["lease: fleet", "lease: local, cache_aside: true", "lease: fleet, cache_aside: true"].map(Mode::Misses)
    {
        if !options.wants(&mode.name()) {
            continue;
        }
        let (_redis, at) = servers(SHARDS);
        let plan = plan(think, 0);
        let endpoints = Endpoints::start(mode, size, &at, &plan.key, options);
        let tally = herd(plan, &endpoints.addresses, apps, expiries);
        let waited = |first: bool| {
            let its = |wait: &&Wait| wait.whole >= LOAD / 2 && (wait.expiry == 1) == first;
            tally.waits.iter().filter(its).count()
        };
        let line = format!(
            "| {} | {} | {} | {:.2} | {} | {} | {} | {} | {} | {} | {} |",
            mode.name(),
            tally.expiries.len(),
            tally.loads(),
            tally.mean(),
            tally.most(),
            tally.early,
            tally.answers,
            waited(true),
            waited(false),
            tally.late_nils.len(),
            tally.errors,
        );
        eprintln!("{line}");
        let _ = writeln!(text, "{line}");
    }
    text
}
