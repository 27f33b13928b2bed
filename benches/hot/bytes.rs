//! E2e: a key that is not asked for often, but is large.

use crate::Options;
use crate::load::{Crowd, name};
use crate::stand::{Mode, Proxy, Witness, fill, proxies, spread};
use crate::support::{Scratch, shards};
use std::fmt::Write as _;
use std::time::Duration;

const SHARDS: usize = 8;
const LARGE: usize = 512 * 1024;

pub(crate) fn run(options: &Options) -> String {
    let count = if options.quick { 2 } else { 4 };
    // The large key's share of all requests, and those.
    let (often, rate) = (20, options.rate.unwrap_or(2000.0));
    let keys = 10_000;
    let (redis, at) = shards(SHARDS);
    fill(&redis, (0..keys).map(name), &"x".repeat(100));
    fill(&redis, std::iter::once("key:large".to_owned()), &"x".repeat(LARGE));
    let mut text = format!(
        "{SHARDS} redis-servers, {count} proxies, {keys} keys of 100 bytes and one of {LARGE}, which is one request in {often} of \
         {rate:.0} a second (not of 10000: this machine cannot move 260 MB/s for all of them).\n\n\
         | | Requests/s | bytes sent by the shards | bytes: max / mean | GETs: max / mean |\n| --- | ---: | ---: | ---: | ---: |\n"
    );
    for mode in options.of(&["off", "copies", "auto", "near, near_value: 1mb"].map(Mode::Reads)) {
        let dir = Scratch::new();
        let all = proxies(mode, count, &at, &dir, &[], options);
        let addresses: Vec<String> = all.iter().map(Proxy::address).collect();
        let mut crowd = Crowd::to(&addresses, 4, rate);
        let mut turn = 0usize;
        let mut key = || {
            turn += 1;
            if turn.is_multiple_of(often + 1) { "key:large".to_owned() } else { name(turn * 7919 % keys) }
        };
        crowd.read(Duration::from_secs(5), &mut key);
        let mut witness = Witness::of(&redis);
        let before = witness.ask();
        let done = crowd.read(options.time, &mut key);
        let did = witness.since(&before);
        let (_, mean, bytes) = spread(did.iter().map(|did| did.bytes));
        let (_, _, gets) = spread(did.iter().map(|did| did.gets));
        let _ = writeln!(
            text,
            "| {} | {:.0} | {:.0} MB | {bytes:.2} | {gets:.2} |",
            mode.name(),
            done.rate(),
            mean * SHARDS as f64 / 1e6
        );
    }
    text
}
