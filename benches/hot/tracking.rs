//! E7: what those who want to be told of changes cost the shard, and what hotring does when there are too many of them.

use crate::Options;
use crate::chaos::Link;
use crate::load::part;
use crate::stand::{Mode, proxies};
use crate::support::{Client, Redis, Scratch, now, wire};
use std::fmt::Write as _;
use std::time::Duration;

const KEY: &str = "celebrity";

pub(crate) fn run(options: &Options) -> String {
    let clients = if options.quick { 200 } else { 1000 };
    let time = options.time.min(Duration::from_secs(10));
    let mut text = format!(
        "One redis-server, {clients} connections that track one key and read it again whenever they are told that it changed, as a \
         client library with a cache does; the CPU of the server's main thread for each write, and PING of somebody else meanwhile.\n\n\
         | writes/s | CPU of the shard | for each write | PING p50 | p99 |\n| ---: | ---: | ---: | ---: | ---: |\n"
    );
    for rate in [1u64, 20, 100] {
        let redis = Redis::tcp(&[]);
        let mut trackers: Vec<Client> = (0..clients).map(|_| redis.client()).collect();
        for tracker in &mut trackers {
            tracker.send(b"HELLO 3\r\nCLIENT TRACKING ON\r\n");
            tracker.reply();
            tracker.reply();
            tracker.ask(&format!("GET {KEY}"));
        }
        let (start, busy) = (now(), cpu(&redis));
        let (mut writes, mut pings) = (0u64, Vec::new());
        let (mut writer, mut other) = (redis.client(), redis.client());
        while start.elapsed() < time {
            writer.ask(&format!("SET {KEY} {writes}"));
            writes += 1;
            let asked = now();
            other.ask("PING");
            pings.push(asked.elapsed());
            for tracker in &mut trackers {
                tracker.reply();
                tracker.send(&wire(&["GET", KEY]));
            }
            for tracker in &mut trackers {
                tracker.reply();
            }
            let due = Duration::from_secs_f64(writes as f64 / rate as f64);
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
        let (took, busy) = (start.elapsed().as_secs_f64(), cpu(&redis) - busy);
        let _ = writeln!(
            text,
            "| {:.0} | {:.1} % | {:.2} ms | {:.1?} | {:.1?} |",
            writes as f64 / took,
            100.0 * busy / took,
            1e3 * busy / writes as f64,
            part(&mut pings, 0.5),
            part(&mut pings, 0.99),
        );
    }
    text += &chosen(options, clients);
    text
}

/// By what hotring with `reads: auto` serves such a key, with and without so many others who track keys.
fn chosen(options: &Options, clients: usize) -> String {
    let mut text = "\nWhat `reads: auto` makes of it, with as many others at the key's shard:\n\n\
                    | others that track | writes/s | told of the key |\n| ---: | ---: | --- |\n"
        .to_owned();
    for (others, rate) in [(0, 1u64), (0, 20), (clients, 1), (clients, 20)] {
        let redis: Vec<Redis> = (0..4).map(|_| Redis::tcp(&[])).collect();
        let at: Vec<String> = redis.iter().map(|redis| redis.address().to_owned()).collect();
        let dir = Scratch::new();
        let proxy = proxies(Mode::Reads("auto"), 1, &at, &dir, &[], options).remove(0);
        let home = crate::support::home(at.len(), KEY.as_bytes());
        let mut trackers: Vec<Client> = (0..others).map(|_| redis[home].client()).collect();
        for tracker in &mut trackers {
            tracker.send(b"HELLO 3\r\nCLIENT TRACKING ON\r\n");
            tracker.reply();
            tracker.reply();
        }
        let mut writer = redis[home].client();
        let mut link = Link::to(&proxy.address()).unwrap();
        let (start, mut written) = (now(), 0);
        while start.elapsed() < Duration::from_secs(15) {
            if start.elapsed().as_secs_f64() * rate as f64 > f64::from(written) {
                writer.ask(&format!("SET {KEY} {written}"));
                written += 1;
            }
            link.send(&wire(&["GET", KEY])).unwrap();
            link.reply().unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        let page = proxy.hot_keys().unwrap_or_else(|| "no such page".to_owned());
        let line = page.lines().find(|line| line.contains(KEY)).unwrap_or(page.lines().next().unwrap_or("nothing"));
        let _ = writeln!(text, "| {others} | {rate} | `{}` |", line.trim().replace('|', "\\|"));
    }
    text
}

/// Seconds on a CPU so far.
fn cpu(redis: &Redis) -> f64 {
    let page = redis.client().ask("INFO cpu");
    let of =
        |name: &str| page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok()).unwrap_or(0.0);
    of("used_cpu_user_main_thread:") + of("used_cpu_sys_main_thread:")
}
