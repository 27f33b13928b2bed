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

pub(crate) fn run(options: &Options) -> String {
    let keys = 10_000;
    let (redis, at) = shards(SHARDS);
    fill(&redis, (0..keys).map(name), &"x".repeat(100));
    let modes = options.of(&["off", "observe", "near"].map(Mode::Reads));
    let dir = Scratch::new();
    let all: Vec<Proxy> = modes.iter().map(|&mode| proxies(mode, 1, &at, &dir, &[], options).remove(0)).collect();
    let mut seen = vec![(Vec::new(), Vec::new()); modes.len()];
    // Each round has all of them, so that what else happens on the machine meets all.
    for _ in 0..ROUNDS {
        for (proxy, (rates, took)) in all.iter().zip(&mut seen) {
            let mut crowd = Crowd::to(&[proxy.address()], 16, 0.0);
            let mut chance = Chance::of(7);
            let mut key = || if chance.below(2) == 0 { name(0) } else { name(chance.below(keys as u64) as usize) };
            crowd.read(Duration::from_millis(1500), &mut key);
            rates.push(crowd.read(options.time.min(Duration::from_secs(3)), &mut key).rate() as u64);
            // Still hot, and nobody else asks.
            let (end, start) = (Duration::from_millis(300), now());
            took.extend(probe(&proxy.address(), &name(0), Duration::ZERO, || start.elapsed() < end));
        }
    }
    let mut text = format!(
        "{SHARDS} redis-servers, one proxy of one worker, 16 apps without pause, half of their GETs for one key; then that key \
         alone by one app. The median of {ROUNDS} rounds.\n\n\
         | | GETs/s | the hot key alone: p50 | p99 |\n| --- | ---: | ---: | ---: |\n"
    );
    for (mode, (mut rates, mut took)) in modes.into_iter().zip(seen) {
        let [p50, p99] = [0.5, 0.99].map(|of| part(&mut took, of));
        let _ = writeln!(text, "| {} | {} | {p50:.1?} | {p99:.1?} |", mode.name(), part(&mut rates, 0.5));
    }
    text
}
