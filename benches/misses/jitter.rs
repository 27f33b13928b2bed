//! E9: keys that are set within a second do not expire within one.

use crate::Options;
use crate::endpoints::{Endpoints, Mode, Size, servers};
use crate::load::name;
use crate::support::{Client, Redis, now, wire};
use std::fmt::Write as _;
use std::time::Duration;

const SHARDS: usize = 3;
const KEYS: usize = 10_000;
const TTL: u64 = 60;
/// The part of their time to live by which expiries are spread.
const SPREAD: f64 = 0.1;
/// What a rate is taken over, in milliseconds.
const STEP: u64 = 250;
const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn run(options: &Options) -> String {
    let mut text = format!(
        "{SHARDS} redis-servers, one process, {KEYS} times `SET key value EX {TTL}`, within a second or as fast as they are answered; then each server is asked when \
         each key expires. The rate of expiries is that of {STEP} ms; its mean is over the {:.0} s by which `ttl_jitter: {SPREAD}` may \
         spread them.\n\n\
         | | SETs within | first to last expiry | earliest | expiries in {STEP} ms, most | peak / mean |\n\
         | --- | ---: | ---: | ---: | ---: | ---: |\n",
        TTL as f64 * SPREAD,
    );
    let size = Size { processes: 1, pools: 1, workers: 1 };
    let modes = [Mode::Nutcracker, Mode::Misses(""), Mode::Misses("ttl_jitter: 0.1")];
    for (mode, pause) in modes.into_iter().flat_map(|mode| [(mode, SECOND), (mode, Duration::ZERO)]) {
        if !mode.is_there() || !options.wants(&mode.name()) {
            continue;
        }
        let (redis, at) = servers(SHARDS);
        let endpoints = Endpoints::start(mode, size, &at, "", options);
        let mut app = Client::connect(&endpoints.addresses[0]);
        let mut clock = redis[0].client();
        let (start, began) = (millis(&mut clock), now());
        for (number, some) in (0..KEYS).collect::<Vec<_>>().chunks(100).enumerate() {
            // Due at its part of the time, whatever the ones before it took.
            let due = pause * number as u32 * 100 / KEYS as u32;
            std::thread::sleep(due.saturating_sub(began.elapsed()));
            let bytes: Vec<u8> =
                some.iter().flat_map(|&key| wire(&["SET", &name(key), "value", "EX", &TTL.to_string()])).collect();
            app.send(&bytes);
            app.exactly(b"+OK\r\n".len() * some.len());
        }
        let took = millis(&mut clock) - start;
        let mut expiries: Vec<u64> = redis.iter().flat_map(times).collect();
        assert_eq!(expiries.len(), KEYS);
        expiries.sort_unstable();
        let (first, last) = (expiries[0], expiries[KEYS - 1]);
        // Any span of that length.
        let most =
            (0..KEYS).map(|at| expiries[at..].partition_point(|&time| time < expiries[at] + STEP)).max().unwrap();
        let mean = KEYS as f64 * STEP as f64 / (TTL as f64 * SPREAD * 1000.0);
        let line = format!(
            "| {} | {took} ms | {:.2} s | after {:.2} s | {most} | {:.2} |",
            if mode == Mode::Misses("") { "hotring".to_owned() } else { mode.name() },
            (last - first) as f64 / 1000.0,
            (first - start) as f64 / 1000.0,
            most as f64 / mean,
        );
        eprintln!("{line}");
        let _ = writeln!(text, "{line}");
    }
    text
}

/// A server's clock, in milliseconds of Unix time.
fn millis(client: &mut Client) -> u64 {
    let text = client.ask("TIME");
    let mut numbers = text.lines().filter_map(|line| line.parse::<u64>().ok());
    numbers.next().unwrap() * 1000 + numbers.next().unwrap() / 1000
}

/// When the keys of a server expire.
fn times(redis: &Redis) -> Vec<u64> {
    let mut client = redis.client();
    let page = client.ask("KEYS *");
    let keys: Vec<&str> = page.lines().filter(|line| line.starts_with("item:")).collect();
    for some in keys.chunks(100) {
        client.send(&some.iter().flat_map(|key| wire(&["PEXPIRETIME", key])).collect::<Vec<u8>>());
    }
    keys.iter().map(|_| client.text().trim_start_matches(':').trim_end().parse().unwrap()).collect()
}
