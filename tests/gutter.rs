//! Servers that stand in for one that is ejected, and what is written there for a while.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use support::{Hotring, Redis, Scratch, eventually, key_on, shards};

/// Two servers, and a gutter of two others.
fn stand(more: &str) -> (Vec<Redis>, Vec<Redis>, Hotring) {
    let (redis, at) = shards(2);
    let (spare, spare_at) = shards(2);
    let yaml = format!(
        "pools:\n  main:\n    listen: 127.0.0.1:0\n    servers: [\"{}:1 s0\", \"{}:1 s1\"]\n    when_ejected: gutter:spare\n    \
         gutter_ttl: 60s\n    server_failure_limit: 1\n    server_retry_timeout: 1ms\n    probe_interval: 100ms\n    \
         timeout: 1m\n    connect_timeout: 1m\n{more}  \
         spare:\n    listen: 127.0.0.1:0\n    servers: [\"{}:1 s0\", \"{}:1 s1\"]\n    timeout: 1m\n    connect_timeout: 1m\n",
        at[0], at[1], spare_at[0], spare_at[1]
    );
    let hotring = Hotring::with_admin(&yaml);
    (redis, spare, hotring)
}

/// What of all keys that begin so the servers have, and the milliseconds that the longest lives; -1 is for ever.
fn left(servers: &[Redis], key: &str) -> Vec<i64> {
    let ttl =
        |redis: &Redis| redis.client().ask(&format!("PTTL {key}")).trim_matches([':', '\r', '\n']).parse().unwrap();
    servers.iter().map(ttl).filter(|&ttl: &i64| ttl != -2).collect()
}

#[test]
fn the_gutter_takes_the_keys_of_an_ejected_server_for_a_while() {
    let (mut redis, spare, hotring) = stand("");
    let mut app = hotring.app();
    let (a, b) = (key_on(0, 2), key_on(1, 2));
    assert_eq!(app.ask(&format!("MSET {a} 1 {b} 2")), "+OK\r\n");
    redis[1].kill();
    eventually("its keys are elsewhere", || app.ask(&format!("GET {b}")) == "$-1\r\n");
    // Each way in which something is written, each key with a TTL; a shorter one stays.
    assert_eq!(app.ask(&format!("SET {b} 3")), "+OK\r\n");
    assert_eq!(app.ask(&format!("GET {b}")), "$1\r\n3\r\n");
    let ttl = left(&spare, &b);
    assert!(matches!(ttl[..], [30_001..=60_000]), "{ttl:?}");
    assert_eq!(app.ask(&format!("SET {b} 4 PX 30000")), "+OK\r\n");
    let ttl = left(&spare, &b);
    assert!(matches!(ttl[..], [1..=30_000]), "{ttl:?}");
    let more: Vec<String> = (0..)
        .map(|n| format!("more{n}"))
        .filter(|key| hotring.page(&format!("/explain?pool=main&key={key}")).1.contains("stands in"))
        .take(4)
        .collect();
    assert_eq!(app.ask(&format!("MSET {} 1 {} 2 {a} 9", more[0], more[1])), "+OK\r\n");
    assert_eq!(app.ask(&format!("RPUSH {} x y", more[2])), ":2\r\n");
    assert_eq!(app.ask(&format!("EVAL return(redis.call('SET',KEYS[1],'z')) 1 {}", more[3])), "+OK\r\n");
    for key in &more {
        let ttl = left(&spare, key);
        assert!(matches!(ttl[..], [30_001..=60_000]), "{key}: {ttl:?}");
    }
    assert_eq!(app.ask(&format!("MGET {} {a} {}", more[0], more[1])), "*3\r\n$1\r\n1\r\n$1\r\n9\r\n$1\r\n2\r\n");
    // What stays home is written there, and for good.
    assert_eq!((left(&redis[..1], &a), left(&spare, &a)), (vec![-1], vec![]));
    // What needs a connection of its own is refused.
    assert_eq!(app.ask("MULTI"), "+OK\r\n");
    assert!(app.ask(&format!("SET {b} 5")).starts_with("-ERR shard s"));
    assert!(app.ask("EXEC").starts_with("-EXECABORT"));
    assert!(app.ask(&format!("BLPOP {b} 1")).contains("its gutter takes no such command"));
    let (_, rows) = hotring.page("/backends");
    assert!(rows.contains("spare/s0") && rows.contains("ejected"), "{rows}");
    // It returns, and so do its keys: nothing of the gutter is read any more.
    redis[1].restart();
    eventually("its keys are at home again", || {
        app.ask(&format!("GET {b}")) == "$-1\r\n" && {
            hotring.page(&format!("/explain?pool=main&key={b}")).1.contains("-> forwarded to s1")
        }
    });
    assert_eq!(app.ask(&format!("SET {b} 6")), "+OK\r\n");
    assert_eq!(left(&redis[1..], &b), [-1]);
}

#[test]
fn without_a_gutter_that_is_well_there_is_the_error() {
    let (mut redis, mut spare, hotring) = stand("");
    let mut app = hotring.app();
    let b = key_on(1, 2);
    assert_eq!(app.ask(&format!("SET {b} 1")), "+OK\r\n");
    redis[1].kill();
    eventually("its keys are elsewhere", || app.ask(&format!("GET {b}")) == "$-1\r\n");
    for redis in &mut spare {
        redis.kill();
    }
    eventually("nobody stands in", || app.ask(&format!("GET {b}")).starts_with("-ERR shard s1 is down ("));
    for redis in &mut spare {
        redis.restart();
    }
    eventually("they stand in again", || app.ask(&format!("SET {b} 2")) == "+OK\r\n");
    redis[1].restart();
    eventually("it is home again", || app.ask(&format!("GET {b}")) == "$-1\r\n");
}

#[test]
fn a_gutter_comes_and_goes_with_the_configuration() {
    let (mut redis, at) = shards(2);
    let (spare, spare_at) = shards(1);
    let yaml = |way: &str| {
        format!(
            "watch: off\npools:\n  main:\n    listen: 127.0.0.1:0\n    servers: [\"{}:1 s0\", \"{}:1 s1\"]\n    when_ejected: {way}\n    \
             server_failure_limit: 1\n    server_retry_timeout: 1ms\n    probe_interval: 100ms\n    timeout: 1m\n    \
             connect_timeout: 1m\n  spare:\n    listen: \
             127.0.0.1:0\n    servers: [\"{}:1 s0\"]\n    timeout: 1m\n    connect_timeout: 1m\n",
            at[0], at[1], spare_at[0]
        )
    };
    let dir = Scratch::new();
    let path = dir.write("proxy.yaml", &yaml("error"));
    let hotring = Hotring::with_file(&yaml("error"), std::path::Path::new(&path));
    let mut app = hotring.app();
    let b = key_on(1, 2);
    assert_eq!(app.ask(&format!("SET {b} 1")), "+OK\r\n");
    redis[1].kill();
    eventually("it is down", || app.ask(&format!("GET {b}")).starts_with("-ERR shard s1 is down"));
    dir.write("proxy.yaml", &yaml("gutter:spare"));
    let (status, told) = hotring.ask_admin("POST", "/reload", "");
    assert_eq!(status, 200, "{told}");
    eventually("somebody stands in", || app.ask(&format!("SET {b} 2")) == "+OK\r\n");
    assert_eq!(spare[0].client().ask("DBSIZE"), ":1\r\n");
    dir.write("proxy.yaml", &yaml("error"));
    assert_eq!(hotring.ask_admin("POST", "/reload", "").0, 200);
    eventually("nobody stands in", || app.ask(&format!("GET {b}")).starts_with("-ERR shard s1 is down"));
    eventually("its connections are closed", || spare[0].connections() <= 1);
}
