//! No queue without a bound: who asks for more than fits waits or is closed, and nobody else notices.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use hotring::engine::port::{Port, Taken};
use hotring::engine::{LineId, SessionId};
use std::path::Path;
use support::{Client, FOREVER, Fake, Hotring, Redis, eventually, key_on, now, pool, shards, wire};

const MIB: usize = 1 << 20;

fn store(app: &mut Client, key: &str, bytes: usize) {
    assert_eq!(app.call(&[b"SET", key.as_bytes(), &vec![b'x'; bytes]]), b"+OK\r\n");
}

#[test]
fn an_app_that_does_not_read_is_closed_at_max_output() {
    let redis = Redis::start(&[]);
    let hotring = Hotring::with_admin(&pool(&[redis.address()], &["max_output: 1mb"]));
    let mut other = hotring.app();
    store(&mut other, "large", MIB);
    let mut slow = hotring.app();
    slow.send(&wire(&["GET", "large"]).repeat(64));
    eventually("it is closed", || {
        assert_eq!(other.ask("PING"), "+PONG\r\n");
        hotring.metric("hotring_client_output_limit_kills_total{pool=\"main\"}") == 1.0
    });
    assert_eq!(other.ask("STRLEN large"), ":1048576\r\n");
    let got = slow.rest();
    assert!(got.len() < 64 * MIB && got.starts_with(b"$1048576\r\nxxx"), "{} bytes", got.len());
    eventually("nothing is kept for it", || {
        hotring.metric("hotring_client_output_bytes{pool=\"main\"}") == 0.0
            && hotring.metric("hotring_requests_pending{pool=\"main\"}") == 0.0
            && hotring.metric("hotring_client_connections{pool=\"main\"}") == 1.0
    });
}

#[test]
fn one_reply_alone_never_closes_a_session() {
    let redis = Redis::start(&[]);
    let hotring = Hotring::over(&[redis.address()], &["max_output: 64kb"]);
    let mut app = hotring.app();
    store(&mut app, "large", 16 * MIB);
    for _ in 0..3 {
        assert_eq!(app.call(&["GET", "large"]).len(), 16 * MIB + "$16777216\r\n\r\n".len());
    }
}

#[test]
fn an_app_that_reads_late_gets_everything() {
    let redis = Redis::start(&[]);
    let hotring = Hotring::with_admin(&pool(&[redis.address()], &["max_pipeline: 4"]));
    let mut other = hotring.app();
    store(&mut other, "large", MIB);
    let mut slow = hotring.app();
    let mut requests = Vec::new();
    for n in 0..60 {
        requests.extend(wire(&["GET", "large"]));
        requests.extend(wire(&["SET", "n", &n.to_string()]));
    }
    slow.send(&requests);
    let mut most: f64 = 0.0;
    eventually("it is no longer read", || {
        assert_eq!(other.ask("PING"), "+PONG\r\n");
        most = most.max(hotring.metric("hotring_client_output_bytes{pool=\"main\"}"));
        hotring.metric("hotring_client_pauses_total{pool=\"main\",full=\"window\"}") > 0.0 && most > 0.0
    });
    assert!(most < (6 * MIB) as f64, "{most} bytes wait for it");
    for _ in 0..60 {
        assert_eq!(slow.reply().len(), MIB + "$1048576\r\n\r\n".len());
        assert_eq!(slow.text(), "+OK\r\n");
    }
    assert_eq!(slow.ask("GET n"), "$2\r\n59\r\n");
    assert_eq!(hotring.metric("hotring_client_output_limit_kills_total{pool=\"main\"}"), 0.0);
}

#[test]
fn a_full_window_is_not_read_beyond() {
    // Keeps its replies back until it is asked to let go of them; then it says how many there were.
    let keeper = Fake::start(|visit| {
        visit.shake_hands();
        let mut kept = 0;
        while let Some(request) = visit.request() {
            if request[1] == b"let go" {
                let replies = "$4\r\nkept\r\n".repeat(kept) + &format!(":{kept}\r\n");
                kept = 0;
                visit.send(replies.as_bytes());
            } else {
                kept += 1;
            }
        }
    });
    let hotring = Hotring::over(&[keeper.address()], &["max_pipeline: 8"]);
    let (mut app, mut other) = (hotring.app(), hotring.app());
    app.send(&wire(&["GET", "k"]).repeat(100));
    let (mut left, mut rounds) = (100, 0);
    eventually("all are through", || {
        let said = String::from_utf8(other.call(&["GET", "let go"])).unwrap();
        let kept: usize = said[1..].trim().parse().unwrap();
        assert!(kept <= 8, "{kept} of one session are open");
        (left, rounds) = (left - kept, rounds + usize::from(kept > 0));
        left == 0
    });
    assert!(rounds >= 100 / 8, "{rounds}");
    for _ in 0..100 {
        assert_eq!(app.text(), "$4\r\nkept\r\n");
    }
}

/// Sets so many values of 16 KB on their way from a thread of their own.
fn flood(app: &Client, key: &str, count: usize) -> std::thread::JoinHandle<()> {
    let mut writer = app.writer();
    let request = wire(&["SET", key, &"x".repeat(16_000)]);
    std::thread::spawn(move || (0..count).for_each(|_| writer.send(&request)))
}

#[test]
fn a_full_outbox_pauses_only_the_sessions_that_hit_it() {
    let (redis, at) = shards(2);
    let hotring = Hotring::with_admin(&pool(&at, &["max_outbox: 64kb", "timeout: off"]));
    let [a, b] = [0, 1].map(|shard| key_on(shard, 2));
    let mut other = hotring.app();
    assert_eq!(other.ask(&format!("MSET {a} 1 {b} 2")), "+OK\r\n");
    redis[1].freeze();
    let mut apps: Vec<Client> = (0..3).map(|_| hotring.app()).collect();
    let floods: Vec<_> = apps.iter().map(|app| flood(app, &b, 1000)).collect();
    let mut most: f64 = 0.0;
    eventually("the outbox is full and they are paused", || {
        assert_eq!(other.ask(&format!("GET {a}")), "$1\r\n1\r\n");
        most = hotring.metric("hotring_server_in_queue_bytes{pool=\"main\",backend=\"s1\"}");
        most > 65536.0 && hotring.metric("hotring_client_pauses_total{pool=\"main\",full=\"outbox\"}") >= 3.0
    });
    for _ in 0..50 {
        assert_eq!(other.ask(&format!("GET {a}")), "$1\r\n1\r\n");
    }
    most = most.max(hotring.metric("hotring_server_in_queue_bytes{pool=\"main\",backend=\"s1\"}"));
    assert!(most < 65536.0 + 4.0 * 17_000.0, "{most} bytes wait");
    redis[1].thaw();
    for app in &mut apps {
        for _ in 0..1000 {
            assert_eq!(app.text(), "+OK\r\n");
        }
    }
    floods.into_iter().for_each(|flood| flood.join().unwrap());
    assert_eq!(redis[1].calls("set"), 3000);
    assert_eq!(other.ask(&format!("STRLEN {b}")), ":16000\r\n");
}

#[test]
fn sessions_that_wait_for_an_outbox_hear_of_its_end() {
    let (redis, at) = shards(2);
    let hotring = Hotring::over(&at, &["max_outbox: 64kb", "timeout: 3s", "connect_timeout: 3s"]);
    let [a, b] = [0, 1].map(|shard| key_on(shard, 2));
    let mut apps: Vec<Client> = (0..2).map(|_| hotring.app()).collect();
    assert_eq!(apps[0].ask(&format!("MSET {a} 1 {b} 2")), "+OK\r\n");
    redis[1].freeze();
    let start = now();
    let floods: Vec<_> = apps.iter().map(|app| flood(app, &b, 1000)).collect();
    let text = "-ERR shard s1 timed out (no answer within the pool's timeout); ";
    let down = "-ERR shard s1 is down (no answer within ";
    let mut replies = Vec::new();
    for app in &mut apps {
        replies.extend((0..1000).map(|_| app.text()));
        assert_eq!(app.ask(&format!("GET {a}")), "$1\r\n1\r\n");
    }
    let other = replies.iter().find(|reply| !reply.starts_with(text) && !reply.starts_with(down));
    assert_eq!(other, None);
    assert!(replies.contains(&format!("{text}the command may have run\r\n")));
    // Each of them has waited once, and not for each of what it had asked.
    assert!(start.elapsed() < FOREVER / 2);
    floods.into_iter().for_each(|flood| flood.join().unwrap());
    redis[1].thaw();
    eventually("the shard is back", || apps[0].ask(&format!("SET {b} 1")) == "+OK\r\n");
}

#[test]
fn sessions_beyond_client_connections_are_refused_in_redis_words() {
    let redis = Redis::start(&[]);
    for workers in ["^workers: 1", "^workers: 2"] {
        let hotring = Hotring::over(&[redis.address()], &["client_connections: 3", workers]);
        let mut apps: Vec<Client> = (0..3).map(|_| hotring.app()).collect();
        for app in &mut apps {
            assert_eq!(app.ask("PING"), "+PONG\r\n");
        }
        for _ in 0..3 {
            assert_eq!(hotring.app().rest(), b"-ERR max number of clients reached\r\n");
        }
        for app in &mut apps {
            assert_eq!(app.ask("SET k v"), "+OK\r\n");
        }
        drop(apps.pop());
        eventually("a place is free again", || {
            let mut app = hotring.app();
            // It may be closed before it has taken this.
            let _ = app.try_send(&wire(&["PING"]));
            let said = app.reply();
            assert!(said == b"+PONG\r\n" || said == b"-ERR max number of clients reached\r\n");
            said == b"+PONG\r\n"
        });
    }
}

#[test]
fn an_embedded_node_is_not_given_a_longer_argument_than_it_takes() {
    let hotring =
        Hotring::start("admin: off\npools: {a: {listen: 127.0.0.1:0, servers: embedded:1, max_request: 2gb}}\n");
    let mut app = hotring.app();
    app.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870913\r\n");
    assert_eq!(app.text(), "-ERR Protocol error: invalid bulk length\r\n");
    assert_eq!(hotring.app().ask("SET k v"), "+OK\r\n");
}

#[test]
fn many_long_replies_of_an_embedded_node_are_not_too_many() {
    let text = "admin: off\npools: {a: {listen: 127.0.0.1:0, servers: embedded:2, max_output: 4mb}}\n";
    let hotring = Hotring::with_admin(text);
    let mut app = hotring.app();
    store(&mut app, "large", MIB);
    app.send(&wire(&["GET", "large"]).repeat(64));
    app.send(&wire(&["MGET", "large", "none", "other"]));
    for _ in 0..64 {
        assert_eq!(app.reply().len(), MIB + "$1048576\r\n\r\n".len());
    }
    assert_eq!(app.reply().len(), MIB + "*3\r\n$1048576\r\n\r\n$-1\r\n$-1\r\n".len());
    assert_eq!(hotring.metric("hotring_client_output_limit_kills_total{pool=\"a\"}"), 0.0);
}

/// Takes so many bytes for a shard at a time, every byte for an app, and wakes nobody.
struct Sink(usize);

impl Port for Sink {
    fn to_app(&mut self, _: SessionId, bytes: &[u8]) -> Taken {
        Taken::Some(bytes.len())
    }

    fn to_shard(&mut self, _: LineId, bytes: &[u8]) -> Taken {
        if bytes.len() > self.0 { Taken::Full(self.0) } else { Taken::Some(bytes.len()) }
    }

    fn wake(&mut self, _: SessionId) {}

    fn open(&mut self, _: LineId) {}
}

#[test]
fn a_timeout_of_hours_ends_too() {
    let text = pool(&["127.0.0.1:1"], &["timeout: 3h"]);
    let config = hotring::config::parse(&text, Path::new("test.yaml")).unwrap();
    let live = hotring::live::Live::first(config, now());
    let mut engine = hotring::worker::engine(&live, 0, 1, 0);
    let session = engine.open(0);
    let minute = 60_000_000;
    engine.submit(session, &wire(&["GET", "k"]), minute, &mut Sink(usize::MAX));
    for passed in 1..70 {
        assert!(engine.tick((1 + passed) * minute, &mut Sink(usize::MAX)).is_empty(), "after {passed} minutes");
    }
    assert_eq!(engine.tick(72 * minute - 1, &mut Sink(usize::MAX)).len(), 1);
}

#[test]
fn who_waits_for_a_slow_shard_goes_on_before_its_outbox_is_empty() {
    let text = pool(&["127.0.0.1:1"], &["max_outbox: 64kb"]);
    let config = hotring::config::parse(&text, Path::new("test.yaml")).unwrap();
    let live = hotring::live::Live::first(config, now());
    let mut engine = hotring::worker::engine(&live, 0, 1, 0);
    engine.connected(0, 0);
    let session = engine.open(0);
    let request = wire(&[&b"SET"[..], b"k", &[b'v'; 10_000]]);
    engine.submit(session, &request.repeat(8), 0, &mut Sink(0));
    assert!(engine.is_paused(session), "its shard takes nothing");
    engine.flush(&mut Sink(10_000));
    assert!(engine.is_paused(session), "more than half waits");
    engine.shard_writable(0);
    engine.flush(&mut Sink(50_000));
    assert!(!engine.is_paused(session) && engine.line(0).unwrap().queued() > 0);
}

#[test]
fn parts_that_wait_for_a_shard_that_stands_still_are_bounded() {
    let (redis, at) = shards(3);
    let hotring = Hotring::with_admin(&pool(&at, &["max_output: 4mb", "timeout: off"]));
    let mut app = hotring.app();
    let keys: Vec<String> = (0..3).map(|shard| key_on(shard, 3)).collect();
    for key in &keys {
        assert_eq!(app.call(&["SET", key, &"x".repeat(100_000)]), b"+OK\r\n");
    }
    redis[1].freeze();
    let all = wire(&["MGET", &keys[0], &keys[1], &keys[2]]);
    app.send(&all.repeat(200));
    let kills = "hotring_client_output_limit_kills_total{pool=\"main\"}";
    eventually("it is ended", || {
        assert!(hotring.metric("hotring_client_output_bytes{pool=\"main\"}") < 6.0 * MIB as f64);
        hotring.metric(kills) == 1.0
    });
    // One alone is not, however much its parts are.
    let mut other = hotring.app();
    let many: Vec<&str> =
        std::iter::once("MGET").chain(std::iter::repeat_n(keys[0].as_str(), 60)).chain([keys[1].as_str()]).collect();
    other.send(&wire(&many));
    eventually("its part has come", || hotring.metric("hotring_client_output_bytes{pool=\"main\"}") > 5.0 * MIB as f64);
    redis[1].thaw();
    assert_eq!(other.reply().len(), 61 * (100_000 + 11) + "*61\r\n".len());
    assert_eq!(hotring.metric(kills), 1.0);
    eventually("nothing is counted any more", || hotring.metric("hotring_client_output_bytes{pool=\"main\"}") == 0.0);
}
