//! `coalesce: true`: equal reads that are about to leave together go once, and nobody reads older than they may.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use support::{Client, Hotring, Redis, eventually, key_on, pool, shards, wire};

/// Lets requests pile up before the first connection to the server: it is there, but stands still.
fn pile_up(redis: &Redis, hotring: &Hotring, apps: &mut [Client], requests: &[u8]) {
    redis.freeze();
    for app in apps.iter_mut() {
        app.send(requests);
    }
    let mut other = hotring.app();
    for _ in 0..2 {
        assert_eq!(other.ask("PING"), "+PONG\r\n");
    }
    redis.thaw();
}

const PATIENT: [&str; 2] = ["connect_timeout: 60s", "timeout: off"];

#[test]
fn equal_reads_of_many_sessions_go_once() {
    let redis = Redis::start(&[]);
    assert_eq!(redis.client().ask("SET k v"), "+OK\r\n");
    let keys = [&PATIENT[..], &["coalesce: true"]].concat();
    let hotring = Hotring::with_admin(&pool(&[redis.address()], &keys));
    let mut apps: Vec<Client> = (0..50).map(|_| hotring.app()).collect();
    pile_up(&redis, &hotring, &mut apps, &wire(&["GET", "k"]).repeat(20));
    for app in &mut apps {
        for _ in 0..20 {
            assert_eq!(app.text(), "$1\r\nv\r\n");
        }
    }
    assert_eq!(redis.calls("get"), 1);
    eventually("it is counted", || hotring.metric("hotring_joined_requests_total{pool=\"main\"}") == 999.0);
    assert_eq!(hotring.metric("hotring_request_duration_seconds_count{pool=\"main\",class=\"read\"}"), 1000.0);
}

#[test]
fn off_by_default_every_read_goes() {
    let redis = Redis::start(&[]);
    let hotring = Hotring::over(&[redis.address()], &PATIENT);
    let mut apps: Vec<Client> = (0..10).map(|_| hotring.app()).collect();
    pile_up(&redis, &hotring, &mut apps, &wire(&["GET", "k"]).repeat(20));
    for app in &mut apps {
        for _ in 0..20 {
            assert_eq!(app.text(), "$-1\r\n");
        }
    }
    assert_eq!(redis.calls("get"), 200);
}

#[test]
fn pipelines_of_a_warm_connection_join_too() {
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, &["coalesce: true"]);
    let hot = key_on(1, 3);
    let mut apps: Vec<Client> = (0..10).map(|_| hotring.app()).collect();
    assert_eq!(apps[0].ask(&format!("SET {hot} v")), "+OK\r\n");
    for _ in 0..10 {
        for app in &mut apps {
            app.send(&wire(&["GET", &hot]).repeat(100));
        }
        for app in &mut apps {
            assert_eq!(app.exactly(700), b"$1\r\nv\r\n".repeat(100));
        }
    }
    let calls = redis[1].calls("get");
    assert!((1..=1000).contains(&calls), "10,000 reads came as {calls}");
}

#[test]
fn a_write_in_between_is_seen_by_what_follows() {
    let redis = Redis::start(&[]);
    assert_eq!(redis.client().ask("SET k old"), "+OK\r\n");
    let keys = [&PATIENT[..], &["coalesce: true"]].concat();
    let hotring = Hotring::over(&[redis.address()], &keys);
    let mut apps = vec![hotring.app()];
    let requests = [
        wire(&["GET", "k"]),
        wire(&["GET", "k"]),
        wire(&["SET", "k", "new"]),
        wire(&["GET", "k"]),
        wire(&["GET", "k"]),
        wire(&["MSET", "k", "newer", "x", "y"]),
        wire(&["GET", "k"]),
        wire(&["GET", "k"]),
        wire(&["STRLEN", "k"]),
        wire(&["EVAL", "return redis.call('SET',KEYS[1],'newest')", "1", "k"]),
        wire(&["GET", "k"]),
        wire(&["DEL", "k"]),
        wire(&["GET", "k"]),
        wire(&["MGET", "k", "x"]),
    ];
    pile_up(&redis, &hotring, &mut apps, &requests.concat());
    for reply in [
        "$3\r\nold\r\n",
        "$3\r\nold\r\n",
        "+OK\r\n",
        "$3\r\nnew\r\n",
        "$3\r\nnew\r\n",
        "+OK\r\n",
        "$5\r\nnewer\r\n",
        "$5\r\nnewer\r\n",
        ":5\r\n",
        "+OK\r\n",
        "$6\r\nnewest\r\n",
        ":1\r\n",
        "$-1\r\n",
        "*2\r\n$-1\r\n$1\r\ny\r\n",
    ] {
        assert_eq!(apps[0].text(), reply);
    }
    assert_eq!(redis.calls("get"), 5);
}

#[test]
fn only_the_very_same_read_is_shared() {
    let redis = Redis::start(&[]);
    let keys = [&PATIENT[..], &["coalesce: true"]].concat();
    let hotring = Hotring::over(&[redis.address()], &keys);
    assert_eq!(redis.client().ask("RPUSH list a b c"), ":3\r\n");
    assert_eq!(redis.client().ask("SADD set a b c"), ":3\r\n");
    let mut apps: Vec<Client> = (0..5).map(|_| hotring.app()).collect();
    let requests = [
        wire(&["LRANGE", "list", "0", "0"]),
        wire(&["LRANGE", "list", "0", "1"]),
        wire(&["GET", "list"]),
        wire(&["SRANDMEMBER", "set"]),
        wire(&["INCR", "n"]),
        wire(&["GETDEL", "nothing"]),
    ];
    pile_up(&redis, &hotring, &mut apps, &requests.concat());
    let mut counted = Vec::new();
    for app in &mut apps {
        assert_eq!(app.text(), "*1\r\n$1\r\na\r\n");
        assert_eq!(app.text(), "*2\r\n$1\r\na\r\n$1\r\nb\r\n");
        assert_eq!(app.text(), "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n");
        assert!(app.text().starts_with("$1\r\n"));
        counted.push(app.text());
        assert_eq!(app.text(), "$-1\r\n");
    }
    counted.sort();
    assert_eq!(counted, [":1\r\n", ":2\r\n", ":3\r\n", ":4\r\n", ":5\r\n"]);
    let calls = ["lrange", "get", "srandmember", "incr", "getdel"].map(|command| redis.calls(command));
    assert_eq!(calls, [2, 1, 5, 5, 5]);
}

#[test]
fn those_who_share_a_read_share_its_failure() {
    let mut redis = Redis::start(&[]);
    let keys = [&PATIENT[..], &["coalesce: true"]].concat();
    let hotring = Hotring::over(&[redis.address()], &keys);
    let mut apps: Vec<Client> = (0..5).map(|_| hotring.app()).collect();
    redis.freeze();
    for app in &mut apps {
        app.send(&wire(&["GET", "k"]).repeat(3));
    }
    // One leaves before the answer.
    drop(apps.pop());
    let mut other = hotring.app();
    for _ in 0..2 {
        assert_eq!(other.ask("PING"), "+PONG\r\n");
    }
    redis.kill();
    for app in &mut apps {
        for _ in 0..3 {
            let said = app.text();
            assert!(said.starts_with("-ERR shard s0 ") && said.ends_with("; nothing was sent\r\n"), "{said}");
        }
    }
}

#[test]
fn nobody_reads_older_than_what_was_acknowledged() {
    let (_redis, at) = shards(2);
    let hotring = Hotring::over(&at, &["^workers: 2", "server_connections: 2", "coalesce: true"]);
    let acknowledged = Arc::new(AtomicU64::new(0));
    let key = key_on(1, 2);
    let mut writer = hotring.app();
    assert_eq!(writer.ask(&format!("SET {key} 0")), "+OK\r\n");
    let readers: Vec<_> = (0..6)
        .map(|_| {
            let (mut app, key, acknowledged) = (hotring.app(), key.clone(), Arc::clone(&acknowledged));
            std::thread::spawn(move || {
                let mut last = 0;
                while last < 300 {
                    let least = acknowledged.load(Ordering::SeqCst).max(last);
                    app.send(&wire(&["GET", &key]).repeat(5));
                    for _ in 0..5 {
                        let said = app.text();
                        let read: u64 = said.lines().nth(1).unwrap().parse().unwrap();
                        assert!(read >= least.max(last), "read {read}, {least} was acknowledged, {last} read before");
                        last = read;
                    }
                }
            })
        })
        .collect();
    for n in 1..=300 {
        assert_eq!(writer.ask(&format!("SET {key} {n}")), "+OK\r\n");
        acknowledged.store(n, Ordering::SeqCst);
    }
    for reader in readers {
        reader.join().unwrap();
    }
}
