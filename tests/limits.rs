//! `rate_limits`: what is over a limit is refused at once and nothing of it is sent; what is not is none the slower.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unreachable_pub, dead_code, reason = "parts of one test")]

mod support;

#[path = "support/engine.rs"]
mod inner;

use hotring::acl::{Account, Users};
use hotring::engine::limits::{BURST, Limit, Scope};
use hotring::engine::{Engine, PoolConfig};
use hotring::units::Secret;
use inner::{Wires, request};
use std::sync::Arc;
use support::{Hotring, eventually, now, pool, shards};

const SECOND: u64 = 1_000_000;

fn limit(name: &str, requests: u64, on: Scope) -> Limit {
    Limit { name: name.to_owned(), requests: Some(requests), bytes: None, reply_bytes: None, burst: BURST, on }
}

fn text(name: &str) -> String {
    format!("-ERR rate limited: the limit '{name}' of this pool is reached; nothing was sent, slow down\r\n")
}

/// An engine over one shard, with one session.
fn engine(rate_limits: Vec<Limit>) -> (Engine, Wires) {
    inner::engine(PoolConfig { rate_limits, ..inner::pool(1, 1, false) }, 1)
}

/// What the session is told at once when it sends this, and how many requests the shard is sent.
fn ask((engine, wires): &mut (Engine, Wires), line: &str, now: u64) -> (String, usize) {
    wires.apps[0].clear();
    wires.shards[0].clear();
    engine.submit(0, &request(line), now, wires);
    engine.flush(wires);
    let sent = wires.shards[0].split(|&byte| byte == b'*').count() - 1;
    let replies = b"+OK\r\n".repeat(sent);
    engine.receive(0, &replies, now, wires).unwrap();
    engine.flush(wires);
    (String::from_utf8_lossy(&wires.apps[0]).into_owned(), sent)
}

#[test]
fn over_the_limit_nothing_is_sent_until_time_has_passed() {
    let mut it = engine(vec![limit("pool", 2, Scope::Pool)]);
    assert_eq!(ask(&mut it, "SET a 1", 0), ("+OK\r\n".into(), 1));
    assert_eq!(ask(&mut it, "GET a", 0), ("+OK\r\n".into(), 1));
    assert_eq!(ask(&mut it, "GET a", 0), (text("pool"), 0));
    // Not what says who it is, and what leaves.
    assert!(ask(&mut it, "HELLO 2", 0).0.starts_with('*'));
    assert_eq!(ask(&mut it, "RESET", 0).0, "+RESET\r\n");
    assert_eq!(ask(&mut it, "PING", 0).0, text("pool"));
    assert_eq!(ask(&mut it, "GET a", SECOND / 2), ("+OK\r\n".into(), 1));
    assert_eq!(ask(&mut it, "GET a", SECOND / 2), (text("pool"), 0));
    assert_eq!(ask(&mut it, "QUIT", SECOND / 2).0, "+OK\r\n");
}

#[test]
fn keys_count_by_how_they_begin() {
    let on = |text: &str| Scope::Prefix(text.into());
    let mut it = engine(vec![limit("a", 3, on("team-a:")), limit("deep", 1, on("team-a:deep:"))]);
    assert_eq!(ask(&mut it, "MSET team-a:1 x team-a:2 x other x", 0).1, 1);
    assert_eq!(ask(&mut it, "DEL team-a:1 team-a:2", 0), (text("a"), 0), "one was left, and each key counts");
    assert_eq!(ask(&mut it, "GET team-a:1", 0).1, 1);
    assert_eq!(ask(&mut it, "EVAL x 1 team-a:1", 0), (text("a"), 0));
    assert_eq!(ask(&mut it, "GET team-a:deep:1", 0).1, 1);
    assert_eq!(ask(&mut it, "GET team-a:deep:1", 0), (text("deep"), 0));
    for free in ["GET team-b", "GET team-a", "PING", "ECHO team-a:1", "SET k team-a:1"] {
        assert!(!ask(&mut it, free, 0).0.contains("rate limited"), "{free}");
    }
}

#[test]
fn a_refused_command_spoils_its_transaction_and_what_frames_it_is_free() {
    let (redis, at) = shards(1);
    let hotring = Hotring::over(&at, &["rate_limits: [{requests: 1/s, burst: 3s}]"]);
    let mut app = hotring.app();
    assert_eq!(app.ask("MULTI"), "+OK\r\n");
    let said: Vec<String> = (0..60).map(|n| app.ask(&format!("SET k{n} v"))).collect();
    assert_eq!(said[0], "+QUEUED\r\n");
    assert!(said.contains(&text("pool")), "{said:?}");
    let ended = app.ask("EXEC");
    assert!(ended.starts_with("-EXECABORT "), "{ended}");
    assert_eq!(redis[0].client().ask("DBSIZE"), ":0\r\n");
    // A transaction that is within the limit is carried out.
    eventually("there is room again", || {
        assert_eq!(app.ask("MULTI"), "+OK\r\n");
        let queued = app.ask("SET k v") == "+QUEUED\r\n";
        app.ask("EXEC") == "*1\r\n+OK\r\n" && queued
    });
}

#[test]
fn a_users_limit_comes_with_auth_and_goes_with_reset() {
    let account = |name: &str, password: Option<&str>| Account {
        name: name.to_owned(),
        passwords: password.map(Secret::new).into_iter().collect(),
        nopass: password.is_none(),
        rules: "on +@all ~* &*".to_owned(),
        read_only: false,
        connections: None,
        prefix: None,
    };
    let users = Users::new(&[account("default", None), account("app", Some("pw"))], None).unwrap();
    let limits = vec![limit("app", 1, Scope::User("app".into()))];
    let pool = PoolConfig { rate_limits: limits, users: Arc::new(users), ..inner::pool(1, 1, false) };
    let mut it = inner::engine(pool, 1);
    for _ in 0..5 {
        assert_eq!(ask(&mut it, "GET a", 0).1, 1);
    }
    assert_eq!(ask(&mut it, "AUTH app pw", 0).0, "+OK\r\n");
    assert_eq!([ask(&mut it, "GET a", 0).1, ask(&mut it, "GET a", 0).1], [1, 0]);
    assert_eq!(ask(&mut it, "AUTH app pw", 0).0, "+OK\r\n");
    assert_eq!(ask(&mut it, "RESET", 0).0, "+RESET\r\n");
    assert_eq!(ask(&mut it, "GET a", 0).1, 1);
}

#[test]
fn limits_can_come_and_go_while_sessions_are_open() {
    let mut it = engine(Vec::new());
    assert_eq!(ask(&mut it, "GET a", 0).1, 1);
    let reload = |it: &mut (Engine, Wires), rate_limits: Vec<Limit>| {
        it.0.reload(0, PoolConfig { rate_limits, ..inner::pool(1, 1, false) }, 0, &mut it.1);
    };
    reload(&mut it, vec![limit("new", 1, Scope::Pool)]);
    assert_eq!([ask(&mut it, "GET a", 0).1, ask(&mut it, "GET a", 0).1], [1, 0]);
    reload(&mut it, vec![limit("new", 1, Scope::Pool)]);
    assert_eq!(ask(&mut it, "GET a", 0).1, 0, "one that stays goes on from where it is");
    reload(&mut it, Vec::new());
    assert_eq!(ask(&mut it, "GET a", 0).1, 1);
}

#[test]
fn real_servers_see_no_more_than_the_limits_let_through() {
    let (redis, at) = shards(2);
    let keys = [
        "^workers: 2",
        "users: {default: {nopass: true, rules: \"+@all ~* &*\"}, batch: {password: pw, rules: \"+@all ~* &*\"}}",
        "rate_limits: [{requests: 5/s, burst: 2s, user: batch}, {bytes: 1kb/s, prefix: \"big:\", name: big values}]",
    ];
    let hotring = Hotring::with_admin(&pool(&at, &keys));
    let (mut app, mut batch) = (hotring.app(), hotring.app());
    for n in 0..100 {
        assert_eq!(app.ask(&format!("SET k{n} v")), "+OK\r\n");
    }
    assert_eq!(batch.ask("AUTH batch pw"), "+OK\r\n");
    let start = now();
    let said: Vec<String> = (0..40).map(|n| batch.ask(&format!("INCR n{n}"))).collect();
    let most = 11 + 5 * start.elapsed().as_secs() as usize + 5;
    let through = said.iter().filter(|said| *said == ":1\r\n").count();
    let refused = said.iter().filter(|said| **said == text("user batch")).count();
    // Its worker's half of ten at once, and what flows in meanwhile.
    assert!((5..=most).contains(&through) && through + refused == 40, "{said:?}");
    assert_eq!(redis.iter().map(|redis| redis.calls("incr")).sum::<u64>(), through as u64);
    let big = "x".repeat(100_000);
    assert_eq!(app.ask(&format!("SET big:1 {big}")), "+OK\r\n", "larger than the burst, and nothing was asked before");
    assert_eq!(app.ask("GET big:1"), text("big values"));
    assert_eq!(app.ask("GET k1"), "$1\r\nv\r\n");
    eventually("they are counted", || {
        hotring.metric("hotring_errors_total{pool=\"main\",cause=\"rate_limited\"}") == refused as f64 + 1.0
            && hotring.metric("hotring_rate_limited_total{pool=\"main\",limit=\"user batch\"}") == refused as f64
            && hotring.metric("hotring_rate_limited_total{pool=\"main\",limit=\"big values\"}") == 1.0
    });
    eventually("it may again", || batch.ask("GET n1").starts_with('$'));
}
