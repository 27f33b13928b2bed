//! Commands that take long, on connections of their own: nobody waits behind them, and nothing else is different.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use support::{Client, Fake, Hotring, eventually, key_on, pool, shards, wire};

/// A server that answers at once, but for EVAL: that it answers when it is told to. It tells when one has come.
fn server() -> (Fake, Receiver<()>, Sender<()>) {
    let (came, has_come) = channel();
    let (go, may_go) = channel::<()>();
    let (came, may_go) = (Mutex::new(came), Arc::new(Mutex::new(may_go)));
    let fake = Fake::start(move |visit| {
        visit.shake_hands();
        while let Some(request) = visit.request() {
            if request[0] == b"EVAL" {
                came.lock().unwrap().send(()).unwrap();
                // An end is as good.
                let _ = may_go.lock().unwrap().recv();
                visit.send(b"+slow\r\n");
            } else {
                visit.send(b"+quick\r\n");
            }
        }
    });
    (fake, has_come, go)
}

#[test]
fn others_do_not_wait_behind_a_slow_command() {
    let (fake, has_come, go) = server();
    let hotring = Hotring::over(&[fake.address()], &["slow_commands: [eval, KEYS]", "probe_interval: off"]);
    let (mut slow, mut other) = (hotring.app(), hotring.app());
    assert_eq!(slow.ask("GET k"), "+quick\r\n");
    slow.send(&[wire(&["SET", "k", "1"]), wire(&["EVAL", "x", "1", "k"]), wire(&["GET", "k"])].concat());
    has_come.recv().unwrap();
    for _ in 0..10 {
        assert_eq!(other.ask("GET k"), "+quick\r\n");
    }
    assert_eq!(fake.visits(), 2, "what is shared, and one of the session's own");
    go.send(()).unwrap();
    assert_eq!(
        [slow.text(), slow.text(), slow.text()],
        ["+quick\r\n", "+slow\r\n", "+quick\r\n"],
        "its own order holds"
    );
    slow.send(&wire(&["EVAL", "x", "1", "k"]));
    has_come.recv().unwrap();
    go.send(()).unwrap();
    assert_eq!(slow.text(), "+slow\r\n");
    assert_eq!(fake.visits(), 2, "it is used again");
}

#[test]
fn a_slow_command_has_the_timeout_of_the_pool() {
    let (fake, has_come, _go) = server();
    let hotring = Hotring::over(&[fake.address()], &["slow_commands: EVAL", "timeout: 3s"]);
    let (mut slow, mut other) = (hotring.app(), hotring.app());
    assert_eq!(other.ask("GET k"), "+quick\r\n");
    slow.send(&wire(&["EVAL", "x", "1", "k"]));
    has_come.recv().unwrap();
    let mut said = Vec::new();
    std::thread::scope(|scope| {
        let late = scope.spawn(|| slow.text());
        while !late.is_finished() {
            said.push(other.ask("GET k"));
        }
        let text = late.join().unwrap();
        assert!(text.starts_with("-ERR shard s0 timed out ") && text.ends_with("may have run\r\n"), "{text}");
    });
    assert!(said.iter().all(|reply| reply == "+quick\r\n"), "the shared connection is not concerned");
    assert_eq!(slow.ask("GET k"), "+quick\r\n");
}

#[test]
fn an_app_that_leaves_leaves_no_connection_behind() {
    let (fake, has_come, go) = server();
    let keys = ["slow_commands: EVAL", "dedicated_connections: 1", "probe_interval: off"];
    let hotring = Hotring::with_admin(&pool(&[fake.address()], &keys));
    for n in 1..=3 {
        let mut slow = hotring.app();
        slow.send(&wire(&["EVAL", "x", "1", "k"]));
        has_come.recv().unwrap();
        slow.reset();
        eventually("it is gone", || hotring.metric("hotring_client_connections{pool=\"main\"}") == 0.0);
        go.send(()).unwrap();
        let orphans = "hotring_orphan_replies_total{pool=\"main\"}";
        eventually("its reply is dropped", || hotring.metric(orphans) == f64::from(n));
    }
    assert_eq!(fake.visits(), 1, "the connection is used again");
}

fn sorted(reply: &str) -> Vec<String> {
    let mut words: Vec<String> = reply.split("\r\n").map(str::to_owned).collect();
    words.sort();
    words
}

#[test]
fn replies_are_the_same_with_and_without() {
    let (_redis, at) = shards(3);
    let keys: Vec<String> = (0..3).map(|shard| key_on(shard, 3)).collect();
    let some = "slow_commands: [KEYS, EVAL, EVALSHA, SMEMBERS, DBSIZE, GET, RANDOMKEY]";
    for more in [&[][..], &[some], &[some, "dedicated_connections: 0"], &[some, "dedicated_connections: 1"]] {
        let hotring = Hotring::over(&at, more);
        let mut app = hotring.app();
        let mut other: Client = hotring.app();
        assert_eq!(app.ask("FLUSHALL"), "+OK\r\n");
        for key in &keys {
            assert_eq!(app.ask(&format!("SET {key} v")), "+OK\r\n");
        }
        let all: String = keys.iter().map(|key| format!("${}\r\n{key}\r\n", key.len())).collect();
        let all = format!("*3\r\n{all}");
        for _ in 0..5 {
            assert_eq!(sorted(&app.ask("KEYS *")), sorted(&all), "{more:?}");
            assert_eq!(app.ask("DBSIZE"), ":3\r\n");
            assert_eq!(app.ask(&format!("GET {}", keys[1])), "$1\r\nv\r\n");
            assert!(app.ask("RANDOMKEY").starts_with('$'));
        }
        assert_eq!(other.ask("DBSIZE"), ":3\r\n");
        // In a row, and within a transaction.
        let mut row = wire(&["KEYS", "*"]);
        row.extend(wire(&["SET", &keys[0], "w"]));
        row.extend(wire(&["GET", &keys[0]]));
        row.extend(wire(&["DBSIZE"]));
        app.send(&row);
        assert_eq!(sorted(&app.text()), sorted(&all));
        assert_eq!([app.text(), app.text(), app.text()], ["+OK\r\n", "$1\r\nw\r\n", ":3\r\n"]);
        assert_eq!(app.ask(&format!("SADD {}s a", keys[2])), ":1\r\n");
        assert_eq!(app.ask(&format!("SMEMBERS {}s", keys[2])), "*1\r\n$1\r\na\r\n");
        if !more.contains(&"dedicated_connections: 0") {
            assert_eq!(app.ask("MULTI"), "+OK\r\n");
            assert_eq!(app.ask(&format!("GET {}", keys[0])), "+QUEUED\r\n");
            assert_eq!(app.ask("EXEC"), "*1\r\n$1\r\nw\r\n");
        }
        // A script that its shard has forgotten is sent again in full.
        assert_eq!(app.call(&["EVAL", "return 1", "1", &keys[0]]), b":1\r\n");
        assert_eq!(app.ask("SELECT 0"), "+OK\r\n");
        for key in &keys {
            let name = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
            assert_eq!(app.ask(&format!("EVALSHA {name} 1 {key}")), ":1\r\n");
        }
        assert_eq!(app.call(&["EVAL", "return 2", "0"]), b":2\r\n");
        assert!(app.ask("EVAL x 2 a b").starts_with('-'));
        assert!(app.ask("HELLO 3").starts_with('%'));
        assert_eq!(app.ask(&format!("SMEMBERS {}s", keys[2])), "~1\r\n$1\r\na\r\n");
    }
}

#[test]
fn a_lost_shard_is_told_of_and_the_rest_goes_on() {
    let (mut redis, at) = shards(2);
    let hotring = Hotring::over(&at, &["slow_commands: [KEYS]"]);
    let mut app = hotring.app();
    assert_eq!(app.ask("KEYS *"), "*0\r\n");
    redis.pop();
    eventually("it is told", || app.ask("KEYS *").starts_with("-ERR shard s1 "));
    let key = key_on(0, 2);
    assert_eq!(app.ask(&format!("SET {key} v")), "+OK\r\n");
    assert_eq!(app.ask("PING"), "+PONG\r\n");
}
