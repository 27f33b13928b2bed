//! E4: how old what is read may be, while someone writes straight at the shard, and while things break.

use crate::Options;
use crate::chaos::{Link, Reply};
use crate::histories::{Clock, Nanos};
use crate::load::part;
use crate::stand::{Mode, Proxy, proxies};
use crate::support::{Redis, Relay, Scratch, Way, home, wire};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SHARDS: usize = 4;
const KEY: &str = "version";
/// GETs a second through each proxy.
const READS: u64 = 250;
/// `max_staleness`.
const STALENESS: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Nothing,
    /// The connections that are told of changes end, again and again.
    Untracked,
    /// Nothing reaches the proxies from the key's shard.
    Deaf,
    Slow,
    FreezeHome,
    FreezeOthers,
    KillHalf,
}

const FAULTS: [(&str, What); 6] = [
    ("CLIENT KILL of the tracked connections, every 500 ms", What::Untracked),
    ("3 s without a byte from the shard to the proxies", What::Deaf),
    ("300 ms slower from the shard to the proxies", What::Slow),
    ("SIGSTOP of the key's shard for 3 s", What::FreezeHome),
    ("SIGSTOP of all other shards for 3 s", What::FreezeOthers),
    ("kill -9 of half of the proxies", What::KillHalf),
];

pub(crate) fn run(options: &Options) -> String {
    let count = if options.quick { 4 } else { 20 };
    let mut text = format!(
        "{SHARDS} redis-servers, {count} proxies that each read one key {READS} times a second; someone else writes its next \
         version straight at the shard. A read is stale by the time between the acknowledgement of the next version and its own \
         beginning. `max_staleness: {STALENESS:?}`.\n\n\
         | reads | writes/s | while | reads | by the shards | errors | stale | p50 | p99 | max |\n\
         | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    );
    // The shard's own word is never stale: so much for the clocks.
    text += &one("off", 100, ("nothing happens", What::Nothing), count, options);
    for reads in ["near", "copies"] {
        for rate in [10, 100] {
            text += &one(reads, rate, ("nothing happens", What::Nothing), count, options);
        }
        for fault in FAULTS.into_iter().filter(|(name, _)| name.contains(&options.only)) {
            text += &one(reads, 10, fault, count, options);
        }
    }
    text
}

struct Seen {
    /// When a read began and which version it returned.
    reads: Vec<(Nanos, usize)>,
    errors: u64,
}

fn one(reads: &'static str, rate: u64, (name, what): (&str, What), count: usize, options: &Options) -> String {
    let redis: Vec<Redis> = (0..SHARDS).map(|_| Redis::tcp(&[])).collect();
    let relays: Vec<Relay> = redis.iter().map(|redis| Relay::to(redis.address())).collect();
    let at: Vec<String> = relays.iter().map(|relay| relay.address().to_owned()).collect();
    let home = home(SHARDS, KEY.as_bytes());
    let dir = Scratch::new();
    let mut all = proxies(Mode::Reads(reads), count, &at, &dir, &["timeout: 1s"], options);
    let addresses: Vec<String> = all.iter().map(Proxy::address).collect();
    let (clock, over) = (Clock::start(), AtomicBool::new(false));
    let time = if options.quick { Duration::from_secs(6) } else { options.time.max(Duration::from_secs(8)) };
    let shard = redis[home].address().to_owned();
    // Promoted before anything is measured.
    let warm = Duration::from_secs(2);
    let (acknowledged, seen) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(&shard, rate, clock, &over));
        let readers: Vec<_> = addresses.iter().map(|at| scope.spawn(|| read(at, clock, &over))).collect();
        std::thread::sleep(warm + time / 4);
        disturb(what, &redis, &relays, home, &mut all);
        std::thread::sleep((warm + time).saturating_sub(Duration::from_nanos(clock.now())).max(Duration::from_secs(2)));
        over.store(true, Ordering::Relaxed);
        let seen: Vec<Seen> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        (writer.join().unwrap(), seen)
    });
    let gets: u64 = redis.iter().map(|redis| redis.calls("get")).sum();
    let from = warm.as_nanos() as u64;
    let total: usize = seen.iter().map(|seen| seen.reads.len()).sum();
    let mut ages: Vec<Nanos> = seen
        .iter()
        .flat_map(|seen| &seen.reads)
        .filter(|(start, _)| *start >= from)
        .map(|&(start, version)| acknowledged.get(version + 1).map_or(0, |next| start.saturating_sub(*next)))
        .collect();
    let stale = ages.iter().filter(|age| **age > 0).count();
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|of| Duration::from_nanos(part(&mut ages, of)));
    let errors: u64 = seen.iter().map(|seen| seen.errors).sum();
    let row = format!(
        "| {reads} | {rate} | {name} | {} | {:.1} % | {errors} | {:.2} % | {p50:.1?} | {p99:.1?} | {max:.1?} |",
        ages.len(),
        100.0 * gets as f64 / total.max(1) as f64,
        100.0 * stale as f64 / ages.len().max(1) as f64,
    );
    eprintln!("{row}");
    row + "\n"
}

/// Writes one version after the other; gives when each was acknowledged.
fn write(shard: &str, rate: u64, clock: Clock, over: &AtomicBool) -> Vec<Nanos> {
    let mut link = Link::to(shard).unwrap();
    let mut acknowledged = Vec::new();
    while !over.load(Ordering::Relaxed) {
        link.send(&wire(&["SET", KEY, &acknowledged.len().to_string()])).unwrap();
        link.reply().unwrap();
        acknowledged.push(clock.now());
        std::thread::sleep(Duration::from_micros(1_000_000 / rate));
    }
    acknowledged
}

fn read(address: &str, clock: Clock, over: &AtomicBool) -> Seen {
    let mut seen = Seen { reads: Vec::new(), errors: 0 };
    let request = wire(&["GET", KEY]);
    let Ok(mut link) = Link::to(address) else { return seen };
    let mut due = clock.now();
    while !over.load(Ordering::Relaxed) {
        let start = clock.now();
        // Who is killed is not read any more.
        if link.send(&request).is_err() {
            return seen;
        }
        match link.reply() {
            Ok(Reply::Text(text)) => seen.reads.push((start, std::str::from_utf8(&text).unwrap().parse().unwrap())),
            Ok(Reply::Nothing) => {}
            Ok(_) => seen.errors += 1,
            Err(_) => return seen,
        }
        due = due.max(start) + 1_000_000_000 / READS;
        std::thread::sleep(Duration::from_nanos(due.saturating_sub(clock.now())));
    }
    seen
}

fn disturb(what: What, redis: &[Redis], relays: &[Relay], home: usize, all: &mut [Proxy]) {
    let ill = Duration::from_secs(3);
    let others = |redis: &[Redis], act: fn(&Redis)| {
        redis.iter().enumerate().filter(|(number, _)| *number != home).for_each(|(_, redis)| act(redis));
    };
    match what {
        What::Nothing => {}
        What::Untracked => {
            let mut client = redis[home].client();
            for _ in 0..4 {
                let list = client.ask("CLIENT LIST");
                for line in list.lines() {
                    let word = |name: &str| line.split(' ').find_map(|word| word.trim().strip_prefix(name));
                    // A client that tracks keys has this flag.
                    if let (Some(id), true) = (word("id="), word("flags=").is_some_and(|flags| flags.contains('t'))) {
                        client.ask(&format!("CLIENT KILL ID {id}"));
                    }
                }
                std::thread::sleep(Duration::from_millis(500));
            }
        }
        What::Deaf | What::Slow => {
            if what == What::Deaf {
                relays[home].hold(Way::ToProxy);
            } else {
                relays[home].delay(Way::ToProxy, Duration::from_millis(300));
            }
            std::thread::sleep(ill);
            relays[home].heal();
        }
        What::FreezeHome => {
            redis[home].freeze();
            std::thread::sleep(ill);
            redis[home].thaw();
        }
        What::FreezeOthers => {
            others(redis, Redis::freeze);
            std::thread::sleep(ill);
            others(redis, Redis::thaw);
        }
        What::KillHalf => {
            let half = all.len() / 2;
            all[..half].iter_mut().for_each(Proxy::kill);
        }
    }
}
