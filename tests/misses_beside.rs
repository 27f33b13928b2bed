//! `ttl_jitter`, `miss_budget` and `absent_ids`: in virtual time, and against real servers.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unreachable_pub, dead_code, reason = "parts of one test")]

mod support;

#[path = "support/engine.rs"]
mod inner;

use hotring::engine::{Engine, PoolConfig};
use hotring::stages::Hot;
use hotring::stages::hot::{self, Means, Reads};
use hotring::stages::lease::{Config, Lease, Leases, Rule, Shared, Wanted};
use inner::{Wires, request};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use support::{Hotring, Site, eventually, keys_on, now, pool, shards};

const SECOND: u64 = 1_000_000;
const NIL: &str = "$-1\r\n";
const BUSY: &str = "-BUSY the miss budget of 'a:' is used up: the key is not there, and too many are being loaded; nothing was changed, slow down\r\n";

fn rule(prefix: &str, wanted: Wanted) -> Config {
    Config::new(Wanted::default(), vec![Rule { prefix: prefix.as_bytes().into(), wanted }])
}

fn jitter(part: u16) -> Config {
    rule("a:", Wanted { ttl_jitter: part, ..Wanted::default() })
}

fn budget(rate: u32) -> Config {
    rule("a:", Wanted { miss_budget: Some(rate), ..Wanted::default() })
}

/// An engine over one shard, with two sessions.
fn engine(misses: Config, coalesce: bool) -> (Engine, Wires) {
    inner::engine(PoolConfig { misses, ..inner::pool(1, 1, coalesce) }, 2)
}

/// What the shard is sent when the session sends this.
fn sent((engine, wires): &mut (Engine, Wires), bytes: &[u8]) -> Vec<u8> {
    wires.shards[0].clear();
    engine.submit(0, bytes, 0, wires);
    engine.flush(wires);
    std::mem::take(&mut wires.shards[0])
}

/// What the first session is told when it asks this and the shard replies so.
fn told((engine, wires): &mut (Engine, Wires), line: &str, reply: &str, at: u64) -> String {
    wires.apps[0].clear();
    wires.shards[0].clear();
    engine.submit(0, &request(line), at, wires);
    engine.flush(wires);
    if !wires.shards[0].is_empty() {
        engine.receive(0, reply.as_bytes(), at, wires).unwrap();
        engine.flush(wires);
    }
    String::from_utf8_lossy(&wires.apps[0]).into_owned()
}

#[test]
fn times_to_live_are_shortened_also_in_pipelines_and_nothing_else_changes() {
    let mut it = engine(jitter(100), false);
    let lines = ["SET a:1 EX EX 6000 GET", "GET a:1", "SETEX a:2 6000 v", "SET b:1 v EX 6000", "PEXPIRE a:1 6000000"];
    let asked: Vec<u8> = lines.iter().flat_map(|line| request(line)).collect();
    let out = String::from_utf8(sent(&mut it, &asked)).unwrap();
    let words: Vec<&str> = out.split("\r\n").collect();
    let before = String::from_utf8(asked).unwrap();
    let changed: Vec<(usize, &str, &str)> = before
        .split("\r\n")
        .zip(&words)
        .enumerate()
        .filter(|(_, (a, b))| a != *b)
        .map(|(n, (a, b))| (n, a, *b))
        .collect();
    let of: Vec<&str> = changed.iter().map(|(_, before, _)| *before).collect();
    assert_eq!(of, ["6000", "6000", "6000000"], "{out}");
    for (_, before, after) in changed {
        let (before, after): (u64, u64) = (before.parse().unwrap(), after.parse().unwrap());
        assert!((before * 9 / 10..before).contains(&after), "{after} of {before}");
    }
    assert_eq!(it.0.pool_counts(0).unwrap().ttl_shortened, 3);
    // The same seed, the same times; and another length of the number is another length in its header.
    let mut again = engine(jitter(100), false);
    assert_eq!(sent(&mut again, &lines.iter().flat_map(|line| request(line)).collect::<Vec<u8>>()), out.as_bytes());
    let short = String::from_utf8(sent(&mut engine(jitter(500), false), &request("SET a:1 v EX 10"))).unwrap();
    assert!(short.contains("EX\r\n$1\r\n") || short.contains("EX\r\n$2\r\n10"), "{short}");
}

#[test]
fn what_locks_or_compares_times_is_left_alone_and_so_are_other_keys() {
    let mut it = engine(jitter(500), false);
    for line in [
        "SET a:1 v EX 600 NX",
        "EXPIRE a:1 600 GT",
        "EXPIREAT a:1 4000000000",
        "GETEX a:1 EX 600",
        "SET a: v EX 9",
        "SET b:1 v EX 600",
    ] {
        assert_eq!(sent(&mut it, &request(line)), request(line), "{line}");
    }
    let strict = it.0.open_strict(0);
    it.1.apps.push(Vec::new());
    it.0.submit(strict, &request("SET a:1 v EX 600"), 0, &mut it.1);
    it.0.flush(&mut it.1);
    assert_eq!(it.1.shards[0], request("SET a:1 v EX 600"));
    assert_eq!(it.0.pool_counts(0).unwrap().ttl_shortened, 0);
}

#[test]
fn no_more_are_told_of_misses_than_the_budget_has() {
    let mut it = engine(budget(10), false);
    // A tenth of a second's at once, then as they flow in.
    assert_eq!(told(&mut it, "GET a:1", NIL, 0), NIL);
    assert_eq!(told(&mut it, "GET a:1", NIL, 0), BUSY);
    assert_eq!(told(&mut it, "GET a:1", "$1\r\nv\r\n", 0), "$1\r\nv\r\n", "what is there is told");
    assert_eq!(told(&mut it, "GET b:1", NIL, 0), NIL, "other keys have no budget");
    assert_eq!(told(&mut it, "GET a:1", "-ERR x\r\n", 0), "-ERR x\r\n");
    let nils = (1..=3000).filter(|ms| told(&mut it, "GET a:1", NIL, ms * 1000) == NIL).count();
    assert_eq!(nils, 30, "ten a second for three seconds");
    let counts = it.0.pool_counts(0).unwrap();
    assert_eq!(counts.misses_refused, 1 + 3000 - 30);
    // Nothing is held back and nothing is noted for ever.
    assert_eq!((it.0.in_flight(), it.0.holdings().joined), (0, 0));
}

#[test]
fn an_mget_counts_its_nils_and_is_refused_as_a_whole() {
    let mut it = engine(budget(30), false);
    assert_eq!(
        told(&mut it, "MGET a:1 b:1 a:2", "*3\r\n$-1\r\n$-1\r\n$1\r\nv\r\n", 0),
        "*3\r\n$-1\r\n$-1\r\n$1\r\nv\r\n"
    );
    assert_eq!(
        told(&mut it, "MGET b:1 a:1 a:2 a:3", "*4\r\n$1\r\nv\r\n$-1\r\n$-1\r\n$-1\r\n", 0),
        BUSY,
        "two are left"
    );
    assert_eq!(told(&mut it, "MGET a:1 b:1 a:2", "*3\r\n$-1\r\n$-1\r\n$-1\r\n", 0), "*3\r\n$-1\r\n$-1\r\n$-1\r\n");
    assert_eq!(told(&mut it, "GET a:1", NIL, 0), BUSY);
    // One that misses more than there ever are at once is told when there are as many as can be, and paid back.
    let many = format!("*20\r\n{}", NIL.repeat(20));
    let line = format!("MGET{}", " a:1".repeat(20));
    assert_eq!(told(&mut it, &line, &many, SECOND), many);
    assert_eq!(told(&mut it, "GET a:1", NIL, SECOND + SECOND / 2), BUSY);
    assert_eq!(told(&mut it, "GET a:1", NIL, SECOND * 2), NIL);
}

#[test]
fn parts_of_an_mget_on_several_shards_are_refused_with_it() {
    let mut it = inner::engine(PoolConfig { misses: budget(10), ..inner::pool(2, 1, false) }, 1);
    let key = |shard| {
        (0..).map(|n| format!("a:{n}")).find(|key| {
            let route = &it.0.path(0).unwrap().route;
            Some(route.shards()[usize::from(route.ring().shard_of(key.as_bytes()).unwrap())]) == Some(shard)
        })
    };
    let line = format!("MGET {} {}", key(0).unwrap(), key(1).unwrap());
    let mut told = |at: u64| {
        it.1.apps[0].clear();
        it.0.submit(0, &request(&line), at, &mut it.1);
        it.0.flush(&mut it.1);
        for shard in 0..2 {
            it.0.receive(shard, b"*1\r\n$-1\r\n", at, &mut it.1).unwrap();
        }
        it.0.flush(&mut it.1);
        String::from_utf8_lossy(&it.1.apps[0]).into_owned()
    };
    assert_eq!(told(0), BUSY, "one at a time is all there is");
    assert_eq!(told(0), BUSY);
}

#[test]
fn all_who_share_a_reply_count() {
    let mut it = engine(budget(10), true);
    let ask = |it: &mut (Engine, Wires), at: u64| {
        it.1.apps.iter_mut().for_each(Vec::clear);
        for session in 0..2 {
            it.0.submit(session, &request("GET a:1"), at, &mut it.1);
        }
        it.0.flush(&mut it.1);
        it.0.receive(0, NIL.as_bytes(), at, &mut it.1).unwrap();
        it.0.flush(&mut it.1);
        it.1.apps.iter().map(|app| String::from_utf8_lossy(app).into_owned()).collect::<Vec<_>>()
    };
    // What holds one gives two when it is full, and then nothing until both have flown in.
    assert_eq!(ask(&mut it, 0), [NIL, NIL]);
    assert_eq!(it.0.pool_counts(0).unwrap().joined_requests, 1);
    assert_eq!(ask(&mut it, SECOND / 10), [BUSY, BUSY]);
    assert_eq!(ask(&mut it, SECOND / 5), [NIL, NIL]);
}

#[test]
fn misses_that_are_known_from_memory_count_too() {
    let mut config = PoolConfig { misses: budget(10), ..inner::pool(1, 1, false) };
    config.path.hot = Hot::new(hot::Config { reads: Reads::Near, ..Default::default() }, 7, Default::default());
    let mut it = inner::engine(config, 2);
    it.0.path_mut(0).unwrap().hot.enter(b"a:1", 0, Means::Near, 0);
    assert_eq!(told(&mut it, "GET a:1", NIL, 1), NIL);
    let tracker = it.1.wanted.pop().unwrap();
    it.0.connected(tracker, 1);
    it.0.flush(&mut it.1);
    it.0.receive(tracker, b"+OK\r\n", 1, &mut it.1).unwrap();
    // Read once more, to be kept; who waits for that is sent home, where it counts.
    assert_eq!(told(&mut it, "GET a:1", "", 2), "");
    it.0.receive(tracker, b"+OK\r\n$-1\r\n:-2\r\n", 2, &mut it.1).unwrap();
    it.0.flush(&mut it.1);
    assert_eq!(it.1.shards[0], request("GET a:1"));
    it.0.receive(0, NIL.as_bytes(), 2, &mut it.1).unwrap();
    it.0.flush(&mut it.1);
    assert_eq!(it.1.apps[0], BUSY.as_bytes());
    let from_memory = |it: &mut (Engine, Wires), line: &str, at: u64| {
        let told = told(it, line, NIL, at);
        assert_eq!(it.1.shards[0], b"", "{line}: nobody is asked");
        told
    };
    assert_eq!(from_memory(&mut it, "GET a:1", SECOND * 3 / 10), NIL);
    assert_eq!(from_memory(&mut it, "GET a:1", SECOND * 3 / 10), BUSY);
    assert_eq!(from_memory(&mut it, "MGET a:1", SECOND * 3 / 10), BUSY);
    assert_eq!(from_memory(&mut it, "MGET a:1", SECOND * 45 / 100), format!("*1\r\n{NIL}"));
    assert_eq!(it.0.pool_counts(0).unwrap().misses_refused, 3);
}

/// Who waits for the value takes nothing of the budget: it is counted who is told in the end.
#[test]
fn those_who_wait_for_a_lease_count_when_they_are_told() {
    let wanted = Wanted { lease: Lease::Local, miss_budget: Some(1), ..Wanted::default() };
    let misses = rule("a:", wanted);
    let leases = Leases::new(Arc::new(misses.clone()), Arc::new(Shared::new()), 0);
    let mut it = inner::engine(PoolConfig { misses, leases, ..inner::pool(1, 1, false) }, 3);
    let ask = |it: &mut (Engine, Wires), session: u32, line: &str, at: u64| {
        it.1.shards[0].clear();
        it.0.submit(session, &request(line), at, &mut it.1);
        it.0.flush(&mut it.1);
        if !it.1.shards[0].is_empty() {
            it.0.receive(0, NIL.as_bytes(), at, &mut it.1).unwrap();
            it.0.flush(&mut it.1);
        }
        String::from_utf8(std::mem::take(&mut it.1.apps[session as usize])).unwrap()
    };
    assert_eq!(ask(&mut it, 0, "GET a:1", 1), NIL);
    for session in [1, 2] {
        assert_eq!(ask(&mut it, session, "GET a:1", 1), "", "it waits");
    }
    assert_eq!(ask(&mut it, 0, "GET a:2", 1), BUSY, "the one that there was is taken");
    assert_eq!(it.0.holdings().waits, 2);
    // Nobody writes it: they are told one after the other, and only one of them that it may load.
    let mut told = Vec::new();
    for at in (0..40).map(|n| 1 + n * SECOND / 20) {
        it.0.tick(at, &mut it.1);
        it.0.flush(&mut it.1);
        it.1.apps
            .iter_mut()
            .filter(|app| !app.is_empty())
            .for_each(|app| told.push(String::from_utf8(std::mem::take(app)).unwrap()));
    }
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|told| told == NIL || told == BUSY) && told.contains(&BUSY.to_owned()), "{told:?}");
    assert_eq!(it.0.holdings().waits, 0);
}

#[test]
fn budgets_that_stay_go_on_when_the_configuration_changes() {
    let mut it = engine(budget(10), false);
    assert_eq!([told(&mut it, "GET a:1", NIL, 0), told(&mut it, "GET a:1", NIL, 0)], [NIL, BUSY]);
    let reload = |it: &mut (Engine, Wires), misses: Config| {
        it.0.reload(0, PoolConfig { misses, ..inner::pool(1, 1, false) }, 0, &mut it.1);
    };
    let both = Config::new(Wanted { ttl_jitter: 500, ..Wanted::default() }, budget(10).rules().to_vec());
    reload(&mut it, both);
    assert_eq!(told(&mut it, "GET a:1", NIL, 0), BUSY);
    assert_ne!(sent(&mut it, &request("SET b v EX 600000")), request("SET b v EX 600000"), "it came while it was open");
    it.0.receive(0, b"+OK\r\n", 0, &mut it.1).unwrap();
    it.0.flush(&mut it.1);
    reload(&mut it, budget(1000));
    assert_eq!(told(&mut it, "GET a:1", NIL, 0), NIL);
    assert_eq!(sent(&mut it, &request("SET b v EX 600000")), request("SET b v EX 600000"));
}

/// Ten thousand keys that are SET for a minute within a second expire spread over six; without it all at once.
#[test]
fn what_is_written_together_does_not_expire_together() {
    const KEYS: usize = 10_000;
    let (redis, _) = shards(1);
    let expiries = |misses: Config, name: &str| {
        let mut it = engine(misses, false);
        let asked: Vec<u8> = (0..KEYS).flat_map(|n| request(&format!("SET a:{name}{n} v EX 60"))).collect();
        let mut bytes = Vec::new();
        let mut rest = &asked[..];
        while !rest.is_empty() {
            let used = it.0.submit(0, rest, 0, &mut it.1).consumed;
            it.0.flush(&mut it.1);
            let more = std::mem::take(&mut it.1.shards[0]);
            let replies = b"+OK\r\n".repeat(more.split(|&byte| byte == b'*').count() - 1);
            it.0.receive(0, &replies, 0, &mut it.1).unwrap();
            it.0.flush(&mut it.1);
            bytes.extend(more);
            rest = &rest[used..];
        }
        let mut client = redis[0].client();
        let start = now();
        client.send(&bytes);
        (0..KEYS).for_each(|_| assert_eq!(client.text(), "+OK\r\n"));
        let asked: Vec<u8> = (0..KEYS).flat_map(|n| request(&format!("PTTL a:{name}{n}"))).collect();
        client.send(&asked);
        // By the second in which each expires, counted from the first write.
        let mut seconds = [0_usize; 62];
        for _ in 0..KEYS {
            let left: u64 = client.text().trim_start_matches(':').trim_end().parse().unwrap();
            let end = left + u64::try_from(start.elapsed().as_millis()).unwrap();
            seconds[usize::try_from(end / 1000).unwrap().min(61)] += 1;
        }
        seconds
    };
    let peak_over_mean = |seconds: &[usize; 62]| {
        let used = seconds.iter().filter(|&&n| n > KEYS / 100).count();
        *seconds.iter().max().unwrap() as f64 / (KEYS as f64 / used as f64)
    };
    let spread = expiries(jitter(100), "x");
    assert!(spread[..54].iter().sum::<usize>() == 0, "{spread:?}");
    assert!(peak_over_mean(&spread) <= 1.3, "{spread:?}");
    assert!(*spread.iter().max().unwrap() < KEYS / 5, "{spread:?}");
    let at_once = expiries(jitter(0), "y");
    assert!(*at_once.iter().max().unwrap() > KEYS / 3, "{at_once:?}");
}

#[test]
fn transactions_and_long_values_keep_their_times() {
    let (redis, at) = shards(1);
    let hotring = Hotring::over(&at, &["misses: {ttl_jitter: 0.5}"]);
    let mut app = hotring.app();
    let ttl =
        |key: &str| redis[0].client().ask(&format!("TTL {key}")).trim_start_matches(':').trim().parse::<u64>().unwrap();
    for n in 0..5 {
        assert_eq!(app.ask("MULTI"), "+OK\r\n");
        assert_eq!(app.ask(&format!("SET t{n} v EX 100000")), "+QUEUED\r\n");
        assert_eq!(app.ask("EXEC"), "*1\r\n+OK\r\n");
        assert!(ttl(&format!("t{n}")) > 99_900);
    }
    let long = "x".repeat(2 << 20);
    assert_eq!(app.call(&["SET", "long", &long, "EX", "100000"]), b"+OK\r\n");
    assert!(ttl("long") > 99_900);
    let shorter = (0..10).filter(|n| {
        assert_eq!(app.ask(&format!("SET s{n} v EX 100000")), "+OK\r\n");
        ttl(&format!("s{n}")) < 99_900
    });
    assert!(shorter.count() >= 8);
}

/// One of three servers loses all it has, under load: no more loads a second reach the database than the budget has.
#[test]
fn a_cold_server_does_not_melt_the_database() {
    const RATE: u64 = 100;
    const COLD: usize = 150;
    let (redis, at) = shards(3);
    let budget = format!("misses: {{miss_budget: {RATE}}}");
    let hotring = Hotring::with_admin(&pool(&at, &["^workers: 2", &budget]));
    let keys: Vec<String> = (0..3).flat_map(|shard| keys_on(shard, 3, COLD)).collect();
    let mut app = hotring.app();
    for key in &keys {
        assert_eq!(app.ask(&format!("SET {key} v")), "+OK\r\n");
    }
    assert_eq!(redis[1].client().ask("FLUSHALL"), "+OK\r\n");
    let (loads, refused, start) = (AtomicU64::new(0), AtomicU64::new(0), now());
    std::thread::scope(|scope| {
        for first in 0..6 {
            let (keys, loads, refused, hotring) = (&keys, &loads, &refused, &hotring);
            scope.spawn(move || {
                let mut app = hotring.app();
                // Until all is warm again.
                let mut warm = 0;
                for key in keys.iter().cycle().skip(first * 75) {
                    match app.ask(&format!("GET {key}")).as_str() {
                        "$-1\r\n" => {
                            loads.fetch_add(1, Ordering::Relaxed);
                            assert_eq!(app.ask(&format!("SET {key} v")), "+OK\r\n");
                            warm = 0;
                        }
                        "$1\r\nv\r\n" => warm += 1,
                        busy => {
                            assert!(busy.starts_with("-BUSY the miss budget of this pool is used up"), "{busy}");
                            refused.fetch_add(1, Ordering::Relaxed);
                            warm = 0;
                        }
                    }
                    if warm == keys.len() {
                        break;
                    }
                }
            });
        }
    });
    let (loads, took) = (loads.into_inner(), start.elapsed().as_secs_f64());
    let most = RATE as f64 * took + RATE as f64 / 10.0;
    assert!(loads >= COLD as u64 && loads as f64 <= most, "{loads} loads in {took} s");
    assert!(took >= 1.0, "{took}");
    assert!(refused.into_inner() > 0);
    eventually("what was refused is told", || hotring.metric("hotring_misses_refused_total{pool=\"main\"}") > 0.0);
    assert!(hotring.metric("hotring_errors_total{pool=\"main\",cause=\"miss_budget\"}") > 0.0);
    let (_, said) = hotring.page("/explain?command=get&key=any");
    assert!(said.contains(&format!("  misses     if it is not there: miss_budget {RATE}\n")), "{said}");
}

#[test]
fn ids_that_do_not_exist_are_asked_of_nobody() {
    let (redis, at) = shards(1);
    let yaml = |reply: &str| {
        let misses = format!("misses: {{prefixes: [{{prefix: \"p:\", absent_ids: ids.txt, absent_reply: {reply}}}]}}");
        pool(&at, &["^workers: 2", "listen: [\"127.0.0.1:0\"]", "listen_strict: [\"127.0.0.1:0\"]", &misses])
    };
    let dir = support::Scratch::new();
    dir.write("ids.txt", "1\n2\n");
    let path = dir.write("proxy.yaml", &yaml("nil"));
    let hotring = Hotring::with_file(&yaml("nil"), std::path::Path::new(&path));
    let site = Site { hotring, dir };
    let mut apps: Vec<_> = (0..4).map(|_| site.hotring.app()).collect();
    // So many that do not exist that one or the other is taken for one that may.
    let before = redis[0].calls("get");
    for n in 0..250 {
        for app in &mut apps {
            assert_eq!(app.ask(&format!("GET p:{}", 1000 + n)), NIL);
        }
    }
    let asked = redis[0].calls("get") - before;
    assert!(asked < 100, "{asked} of a thousand");
    // Those that exist are asked for, as are other keys, other commands, what is in a transaction and strict sessions.
    let nobody = (0..).map(|n| format!("p:nobody{n}"));
    let nobody = nobody.into_iter().find(|key| {
        let before = redis[0].calls("get");
        apps[0].ask(&format!("GET {key}"));
        redis[0].calls("get") == before
    });
    let nobody = nobody.unwrap();
    let before = redis[0].calls("get");
    for line in ["GET p:1", "GET p:2", "GET q:3", "GET p", "MGET p:1"] {
        apps[0].ask(line);
    }
    assert_eq!(redis[0].calls("get") - before, 4);
    assert_eq!(apps[0].ask("MULTI"), "+OK\r\n");
    assert_eq!(apps[0].ask(&format!("GET {nobody}")), "+QUEUED\r\n");
    assert_eq!(apps[0].ask("EXEC"), format!("*1\r\n{NIL}"));
    let mut strict = support::Client::connect(site.hotring.address(1));
    assert_eq!(strict.ask(&format!("GET {nobody}")), NIL);
    assert_eq!(redis[0].calls("get") - before, 6);
    let (_, said) = site.hotring.page(&format!("/explain?command=get&key={nobody}"));
    assert!(said.contains("`absent_ids`"), "{said}");
    assert!(said.ends_with("-> answered as if there were no such key\n"), "{said}");
    // What is written exists from then on, for all workers.
    for (n, app) in (0..).zip(apps.iter_mut()) {
        assert_eq!(app.ask(&format!("SET {nobody}{n} v")), "+OK\r\n");
    }
    for app in &mut apps {
        for n in 0..4 {
            assert_eq!(app.ask(&format!("GET {nobody}{n}")), "$1\r\nv\r\n");
        }
    }
    let long = "x".repeat(2 << 20);
    assert_eq!(apps[0].call(&["SET", "p:long", &long]), b"+OK\r\n");
    assert_eq!(apps[1].call(&["GET", "p:long"]).len(), long.len() + 12);
    assert_eq!(apps[0].ask("MULTI"), "+OK\r\n");
    assert_eq!(apps[0].ask("SET p:multi v"), "+QUEUED\r\n");
    assert_eq!(apps[0].ask("EXEC"), "*1\r\n+OK\r\n");
    assert_eq!(apps[1].ask("GET p:multi"), "$1\r\nv\r\n");
    // A list that cannot be read changes nothing.
    site.dir.write("ids.txt", "");
    let (status, said) = site.hotring.ask_admin("POST", "/reload", "");
    assert!(status >= 400 && said.contains("a file of at least one id"), "{status} {said}");
    assert_eq!(apps[0].ask(&format!("GET {nobody}")), NIL);
    assert_eq!(apps[0].ask("SET p:1 one"), "+OK\r\n");
    // Another one is taken, and what was written is not forgotten.
    site.dir.write("ids.txt", "2\n3\n");
    let (status, said) = site.reload(&yaml("none"));
    assert_eq!(status, 200, "{said}");
    assert_eq!(apps[2].ask(&format!("GET {nobody}")), "$4\r\nnone\r\n");
    let (_, said) = site.hotring.page(&format!("/explain?command=get&key={nobody}"));
    assert!(said.ends_with("-> answered with `absent_reply`\n"), "{said}");
    assert_eq!(apps[2].ask(&format!("GET {nobody}0")), "$1\r\nv\r\n");
    assert_eq!(apps[2].ask("GET p:3"), NIL);
    let series = |name: &str| site.hotring.metric(&format!("hotring_{name}{{pool=\"main\"}}"));
    eventually("the metrics tell", || series("absent_ids") >= 6.0 && series("absent_answered_total") > 900.0);
    assert!(series("absent_bytes") > 0.0 && series("absent_false_ratio") < 0.02);
}
