//! E1: what a hot key costs on its way to the shard and back, and what it costs from memory.

use crate::Options;
use crate::histories::Chance;
use crate::load::{Crowd, name, part, probe};
use crate::stand::{Mode, Proxy, fill, proxies};
use crate::support::{Scratch, now, shards};
use std::fmt::Write as _;
use std::time::Duration;

const SHARDS: usize = 3;
const ROUNDS: usize = 3;

/// Requests that an app has on its way.
const DEPTHS: [usize; 2] = [1, 32];

/// What was seen of one mode.
#[derive(Default)]
struct Seen {
    rates: Vec<u64>,
    /// Nanoseconds of the proxy for a request.
    costs: Vec<u64>,
    alone: Vec<Duration>,
}

pub(crate) fn run(options: &Options) -> String {
    let keys = 10_000;
    let (redis, at) = shards(SHARDS);
    fill(&redis, (0..keys).map(name), &"x".repeat(100));
    let modes = options.of(&["off", "observe", "near"].map(Mode::Reads));
    let dir = Scratch::new();
    let all: Vec<Proxy> = modes.iter().map(|&mode| proxies(mode, 1, &at, &dir, &[], options).remove(0)).collect();
    let mut text = format!(
        "{SHARDS} redis-servers, one proxy of one worker, 16 apps without pause, half of their GETs for one key; then that key \
         alone by one app. The median of {ROUNDS} rounds, which have all modes in turn. Where apps have many requests on their \
         way, it is the proxy that is measured, and not how many times a second this machine reads and writes sockets.\n\n\
         | | requests on the way of each app | GETs/s | | the proxy's CPU a GET | | the hot key alone: p50 | p99 |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    );
    for depth in DEPTHS {
        let mut seen: Vec<Seen> = modes.iter().map(|_| Seen::default()).collect();
        // Each round has all of them, so that what else happens on the machine meets all.
        for _ in 0..ROUNDS {
            for (proxy, seen) in all.iter().zip(&mut seen) {
                let mut crowd = Crowd::to(&[proxy.address()], 16, 0.0).pipelined(depth);
                let mut chance = Chance::of(7);
                let mut key = || if chance.below(2) == 0 { name(0) } else { name(chance.below(keys as u64) as usize) };
                crowd.read(Duration::from_millis(1500), &mut key);
                let before = proxy.cpu();
                let done = crowd.read(options.time.min(Duration::from_secs(3)), &mut key);
                seen.rates.push(done.rate() as u64);
                seen.costs.push(((proxy.cpu() - before) * 1000.0 / done.requests as f64) as u64);
                // Still hot, and nobody else asks.
                let (end, start) = (Duration::from_millis(300), now());
                seen.alone.extend(probe(&proxy.address(), &name(0), Duration::ZERO, || start.elapsed() < end));
            }
        }
        let mut first = None;
        for (mode, mut seen) in modes.iter().zip(seen) {
            let [p50, p99] = [0.5, 0.99].map(|of| part(&mut seen.alone, of));
            let (rate, cost) = (part(&mut seen.rates, 0.5) as f64, part(&mut seen.costs, 0.5) as f64);
            let (rate_of_first, cost_of_first) = *first.get_or_insert((rate, cost));
            let _ = writeln!(
                text,
                "| {} | {depth} | {rate:.0} | {:.2}x | {cost:.0} ns | {:.2}x | {p50:.1?} | {p99:.1?} |",
                mode.name(),
                rate / rate_of_first,
                cost / cost_of_first,
            );
        }
    }
    text
}
