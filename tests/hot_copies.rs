//! Copies of hot keys on real servers: who is asked, what apps see, and what is left of them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

#[path = "hot_copies/found.rs"]
mod found;
#[allow(dead_code, unreachable_pub, reason = "shared with tests that use all of it")]
#[path = "support/engine.rs"]
mod memory;
#[path = "hot_copies/sidecar.rs"]
mod sidecar;

use hotring::stages::hot::{Config, Reads};
use sidecar::Sidecar;
use support::{FOREVER, Redis, now, shards};

const MS: u64 = 1_000;

fn config(staleness: u64) -> Config {
    Config { reads: Reads::Copies, staleness, ..Config::default() }
}

/// What a server says, in one line.
fn say(redis: &Redis, words: &str) -> String {
    redis.client().ask(words).trim_end().to_owned()
}

/// Reads until every copy has been made.
fn fill(sidecar: &mut Sidecar, servers: &[Redis], key: &str) {
    let copies = sidecar.copies(key);
    sidecar.until("every copy is made", |sidecar| {
        sidecar.ask(0, &["GET", key]);
        copies.iter().all(|(shard, name)| say(&servers[usize::from(*shard)], &format!("EXISTS {name}")) == ":1")
    });
}

#[test]
fn the_reads_of_one_key_are_spread() {
    let (servers, at) = shards(4);
    let mut sidecar = Sidecar::new(&at, Config::default(), 8, now());
    sidecar.ask(0, &["SET", "k", "v"]);
    let gets = |servers: &[Redis]| servers.iter().map(|redis| redis.calls("get")).collect::<Vec<_>>();
    for _ in 0..200 {
        sidecar.ask(0, &["GET", "k"]);
    }
    let plain = gets(&servers);
    assert_eq!(plain.iter().max(), Some(&200), "one shard has it all: {plain:?}");
    // A write of this process' own keeps its reads at home: the value is written past it.
    let mut sidecar = Sidecar::new(&at, config(60_000 * MS), 8, now());
    sidecar.enter("k", 4);
    for n in 0..4000 {
        assert_eq!(sidecar.ask(n % 8, &["GET", "k"]), "$1\r\nv\r\n");
    }
    let reads: Vec<u64> = gets(&servers).iter().zip(plain).map(|(after, before)| after - before).collect();
    let most = *reads.iter().max().unwrap() as f64;
    let mean = reads.iter().sum::<u64>() as f64 / 4.0;
    assert!(most / mean < 2.0, "{reads:?}");
    let [_, hits, fills, ..] = sidecar.counts();
    assert!(hits > 2000 && fills == 3, "{hits} {fills}");
}

#[test]
fn who_writes_past_the_process_is_seen_at_once() {
    let (servers, at) = shards(3);
    // Nothing ends by itself while this test runs.
    let mut sidecar = Sidecar::new(&at, config(60_000 * MS), 2, now());
    let home = &servers[usize::from(sidecar.home("k"))];
    for (n, write) in ["SET k 1", "INCR k", "APPEND k 7", "SET k 5 PX 100000", "GETSET k 9", "DEL k", "SET k 3"]
        .into_iter()
        .cycle()
        .take(21)
        .enumerate()
    {
        home.client().ask(write);
        if n == 0 {
            sidecar.enter("k", 3);
        }
        let has = home.client().ask("GET k");
        // A copy that this process had made is gone as soon as its news is here.
        sidecar.until("reads tell what was written", |sidecar| (0..8).all(|_| sidecar.ask(0, &["GET", "k"]) == has));
        if !has.starts_with("$-1") {
            // It is copied again, for the next writer to outrun.
            assert_eq!(sidecar.ask_copies(0, &["GET", "k"]), has);
        }
    }
}

#[test]
fn every_read_command_is_answered_as_at_home() {
    let (servers, at) = shards(3);
    let seed: &[(&str, &[&str])] = &[
        ("str", &["SET str hello"]),
        ("num", &["SET num 12"]),
        ("hash", &["HSET hash a 1 b 2 c three"]),
        ("list", &["RPUSH list a b c b"]),
        ("set", &["SADD set one"]),
        ("zset", &["ZADD zset 1 a 2 b 3.5 c"]),
        ("lex", &["ZADD lex 0 a 0 b 0 c"]),
        ("geo", &["GEOADD geo 13.361389 38.115556 Palermo 15.087269 37.502669 Catania"]),
        ("stream", &["XADD stream 1-1 f v", "XADD stream 2-1 g w", "XGROUP CREATE stream grp 0"]),
    ];
    let reads: &[&str] = &[
        "GET str",
        "STRLEN str",
        "GETRANGE str 1 3",
        "SUBSTR str 0 1",
        "GETBIT str 1",
        "BITCOUNT str",
        "BITPOS str 1",
        "BITFIELD_RO str GET u8 0",
        "TYPE str",
        "GET num",
        "HGET hash a",
        "HMGET hash a nope c",
        "HGETALL hash",
        "HKEYS hash",
        "HVALS hash",
        "HLEN hash",
        "HEXISTS hash a",
        "HSTRLEN hash c",
        "TYPE hash",
        "LLEN list",
        "LINDEX list 0",
        "LRANGE list 0 -1",
        "LPOS list b RANK 2",
        "SCARD set",
        "SMEMBERS set",
        "SISMEMBER set one",
        "SMISMEMBER set one two",
        "SRANDMEMBER set",
        "ZCARD zset",
        "ZSCORE zset c",
        "ZMSCORE zset a nope",
        "ZRANK zset b",
        "ZREVRANK zset a",
        "ZCOUNT zset 1 2",
        "ZLEXCOUNT lex [a [b",
        "ZRANGE zset 0 -1 WITHSCORES",
        "ZREVRANGE zset 0 1",
        "ZRANGEBYSCORE zset 1 (3 LIMIT 0 5",
        "ZREVRANGEBYSCORE zset +inf 2",
        "ZRANGEBYLEX lex [a [b",
        "ZREVRANGEBYLEX lex + -",
        "GEODIST geo Palermo Catania km",
        "GEOHASH geo Palermo",
        "GEOPOS geo Catania",
        "GEOSEARCH geo FROMLONLAT 15 37 BYRADIUS 200 km ASC",
        "GEORADIUS_RO geo 15 37 200 km ASC",
        "GEORADIUSBYMEMBER_RO geo Palermo 200 km ASC",
        "XLEN stream",
        "XRANGE stream - +",
        "XREVRANGE stream + - COUNT 1",
    ];
    // What a missing copy would be answered with, and errors: told at home.
    let at_home: &[&str] = &[
        "HGET hash nope",
        "HEXISTS hash nope",
        "SISMEMBER set two",
        "GETBIT str 0",
        "ZSCORE zset nope",
        "LPOS list x",
        "GET hash",
        "HGET str f",
        "LRANGE str 0 1",
        "XLEN zset",
        "GETRANGE str x y",
        "TTL str",
        "XPENDING stream grp",
    ];
    for resp3 in [false, true] {
        let mut sidecar = Sidecar::new(&at, config(20_000 * MS), 2, now());
        for (key, writes) in seed {
            let mut home = servers[usize::from(sidecar.home(key))].client();
            if !resp3 {
                writes.iter().for_each(|write| assert!(!home.ask(write).starts_with('-'), "{write}"));
            }
            sidecar.enter(key, 3);
        }
        let mut plain = Sidecar::new(&at, Config::default(), 2, now());
        if resp3 {
            sidecar.ask(0, &["HELLO", "3"]);
            plain.ask(0, &["HELLO", "3"]);
        }
        for line in reads {
            let words: Vec<&str> = line.split(' ').collect();
            let expected = plain.ask(0, &words);
            assert_eq!(sidecar.ask_copies(0, &words), expected, "{line}");
        }
        for line in at_home {
            let words: Vec<&str> = line.split(' ').collect();
            let expected = plain.ask(0, &words);
            for _ in 0..6 {
                assert_eq!(sidecar.ask(0, &words), expected, "{line}");
            }
        }
    }
}

#[test]
fn nobody_reads_behind_what_was_written_through_the_same_process() {
    let (_servers, at) = shards(3);
    let from = now();
    let staleness = 200 * MS;
    let mut sidecars: Vec<Sidecar> = (0..2).map(|_| Sidecar::new(&at, config(staleness), 3, from)).collect();
    sidecars[0].ask(0, &["SET", "k", "0"]);
    for sidecar in &mut sidecars {
        sidecar.enter("k", 3);
    }
    let (mut version, mut hits) = (0_u64, 0);
    let mut next = [0_u64; 2];
    while from.elapsed().as_millis() < 5_000 || version <= 8 || hits <= 100 {
        assert!(from.elapsed() < FOREVER, "{version} {hits}");
        for n in 0..2 {
            let sidecar = &mut sidecars[n];
            if sidecar.now() >= next[n] {
                version += 1;
                assert_eq!(sidecar.ask(1, &["SET", "k", &version.to_string()]), "+OK\r\n");
                let now = sidecar.now();
                next[n] = now + (700 + 400 * n as u64) * MS;
                // Whoever asks the writer from now on sees it, or what came later.
                for session in [0, 1, 2] {
                    assert_eq!(read(sidecar, session), version);
                }
            }
        }
        // The other one may be behind, but not by more than it says.
        let (written, seen) = (version, [read(&mut sidecars[0], 0), read(&mut sidecars[1], 0)]);
        assert!(seen.iter().all(|&seen| seen <= written));
        hits = sidecars.iter_mut().map(|sidecar| sidecar.counts()[1]).sum();
    }
}

fn read(sidecar: &mut Sidecar, session: u32) -> u64 {
    let reply = sidecar.ask(session, &["GET", "k"]);
    reply.lines().nth(1).and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{reply:?}"))
}

#[test]
fn copies_end_by_themselves() {
    let (servers, at) = shards(3);
    let mut sidecar = Sidecar::new(&at, config(300 * MS), 2, now());
    servers[usize::from(sidecar.home("k"))].client().ask("SET k v");
    sidecar.enter("k", 3);
    let (shard, name) = sidecar.copies("k").remove(0);
    let mut client = servers[usize::from(shard)].client();
    let mut ttl = String::new();
    sidecar.until("it is made", |sidecar| {
        sidecar.ask(0, &["GET", "k"]);
        ttl = client.ask(&format!("PTTL {name}")).trim_end().to_owned();
        ttl != ":-2"
    });
    let left: i64 = ttl[1..].parse().unwrap();
    assert!((0..=300).contains(&left), "{ttl}");
    // Nobody reads any more, and nobody takes it away.
    support::eventually("it is gone", || client.ask(&format!("EXISTS {name}")) == ":0\r\n");
    assert_eq!(sidecar.counts()[4], 0);
}

#[test]
fn a_copy_does_not_outlive_its_key() {
    let (servers, at) = shards(3);
    let mut sidecar = Sidecar::new(&at, config(60_000 * MS), 2, now());
    let mut home = servers[usize::from(sidecar.home("k"))].client();
    home.ask("SET k v PX 3000");
    sidecar.enter("k", 3);
    let copies = sidecar.copies("k");
    sidecar.until("copies are made", |sidecar| {
        sidecar.ask(0, &["GET", "k"]);
        sidecar.counts()[2] == 2
    });
    for (shard, name) in &copies {
        let left: i64 = say(&servers[usize::from(*shard)], &format!("PTTL {name}"))[1..].parse().unwrap();
        assert!(left <= 3000, "{left}");
    }
    support::eventually("it has expired", || home.ask("EXISTS k") == ":0\r\n");
    // Its own deadline came first, up to the clocks' milliseconds.
    sidecar.until("copies, too", |sidecar| sidecar.ask(0, &["GET", "k"]) == "$-1\r\n");
}

#[test]
fn what_a_killed_process_leaves_is_no_older_than_it_may_be() {
    let (servers, at) = shards(3);
    let from = now();
    let staleness = 400 * MS;
    let mut reader = Sidecar::new(&at, config(staleness), 2, from);
    let mut home = servers[usize::from(reader.home("k"))].client();
    let mut behind = 0;
    for round in 0.. {
        // In time for a read or not is the machine's doing, too.
        if round >= 4 && behind > 0 {
            break;
        }
        assert!(round < 40, "it was never behind: nothing was left to be read");
        home.ask(&format!("SET k {round}"));
        let mut filler = Sidecar::new(&at, config(staleness), 2, from);
        filler.enter("k", 3);
        if round == 0 {
            reader.enter("k", 3);
        }
        fill(&mut filler, &servers, "k");
        // Its connections break, and nobody is there to take its copies away.
        drop(filler);
        home.ask(&format!("SET k {}", round + 100));
        let written = reader.now();
        loop {
            let asked = reader.now();
            let seen = read(&mut reader, 0);
            if seen != round + 100 {
                behind += 1;
                // Servers expire by the millisecond, and by clocks of their own.
                assert!(asked <= written + staleness + 20 * MS, "{} us after the write", asked - written);
            }
            if asked > written + staleness + 100 * MS {
                break;
            }
        }
    }
}

#[test]
fn when_all_is_flushed_copies_go_with_it() {
    let (servers, at) = shards(3);
    let mut sidecar = Sidecar::new(&at, config(60_000 * MS), 2, now());
    let mut home = servers[usize::from(sidecar.home("k"))].client();
    home.ask("SET k v");
    sidecar.enter("k", 3);
    fill(&mut sidecar, &servers, "k");
    home.ask("FLUSHALL");
    sidecar.until("copies are gone", |sidecar| (0..8).all(|_| sidecar.ask(0, &["GET", "k"]) == "$-1\r\n"));
}

#[test]
fn a_copy_has_one_owner() {
    let (servers, at) = shards(2);
    let from = now();
    let mut sidecars: Vec<Sidecar> = (0..3).map(|_| Sidecar::new(&at, config(60_000 * MS), 2, from)).collect();
    let mut home = servers[usize::from(sidecars[0].home("k"))].client();
    home.ask("SET k v");
    for sidecar in &mut sidecars {
        sidecar.enter("k", 2);
    }
    for _ in 0..2 {
        for sidecar in &mut sidecars {
            assert_eq!(sidecar.ask_copies(0, &["GET", "k"]), "$1\r\nv\r\n");
        }
    }
    let fills: u64 = sidecars.iter_mut().map(|sidecar| sidecar.counts()[2]).sum();
    assert_eq!(fills, 1);
    let (shard, name) = sidecars[0].copies("k").remove(0);
    home.ask("SET k w");
    let owner = sidecars.iter_mut().position(|sidecar| sidecar.counts()[2] == 1).unwrap();
    sidecars[owner].until("its owner takes it away", |sidecar| {
        sidecar.pump();
        say(&servers[usize::from(shard)], &format!("EXISTS {name}")) == ":0"
    });
}
