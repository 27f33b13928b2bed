//! `listen_strict`: sessions that are always answered by the keys' own servers.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/engine.rs"]
#[allow(unreachable_pub, dead_code, reason = "shared with benchmarks")]
mod harness;
mod support;

use harness::{engine, key_on, request};
use hotring::stages::hot::{Means, Tracking, Value};
use support::{Client, Hotring, Redis, Scratch, Site, eventually, free_port, pool, wire};

/// How many reads reach the server of a pipeline of so many equal ones, which are read at once.
fn reads(redis: &Redis, app: &mut Client, count: usize) -> u64 {
    let before = redis.calls("get");
    app.send(&wire(&["GET", "k"]).repeat(count));
    for _ in 0..count {
        assert_eq!(app.text(), "$1\r\nv\r\n");
    }
    redis.calls("get") - before
}

/// A pool with both kinds of listeners, at these addresses.
fn file(redis: &Redis, listen: &str, strict: &str, keys: &[&str]) -> String {
    let (listen, strict) = (format!("listen: {listen}"), format!("listen_strict: {strict}"));
    let keys = [&[listen.as_str(), &strict, "coalesce: true", "^watch: off"], keys].concat();
    pool(&[redis.address()], &keys)
}

const ANYWHERE: &str = "127.0.0.1:0";

#[test]
fn a_strict_session_shares_no_reply_on_any_worker() {
    let redis = Redis::start(&[]);
    let dir = Scratch::new();
    let socket = dir.file("strict.sock");
    let strict = format!("[\"{ANYWHERE}\", {socket}]");
    let hotring = Hotring::start(&file(&redis, ANYWHERE, &strict, &["^workers: 2"]));
    assert_eq!(hotring.app().ask("SET k v"), "+OK\r\n");
    // Dealt to both workers, in turn.
    let mut usual: Vec<Client> = (0..2).map(|_| hotring.app()).collect();
    let mut strict: Vec<Client> = (0..2).map(|_| Client::connect(hotring.address(1))).collect();
    strict.extend((0..2).map(|_| Client::connect(&socket)));
    for app in &mut usual {
        assert!(reads(&redis, app, 500) < 500);
    }
    for app in &mut strict {
        assert_eq!(reads(&redis, app, 500), 500);
    }
}

#[test]
fn what_is_kept_in_memory_is_not_for_a_strict_session() {
    let (mut engine, mut wires) = engine(harness::pool(2, 1, false), 1);
    wires.apps.push(Vec::new());
    let (usual, strict) = (0, engine.open_strict(0));
    let key = key_on(&engine, 1);
    let hot = &mut engine.path_mut(0).unwrap().hot;
    hot.enter(key.as_bytes(), 1, Means::Near, 0);
    hot.track(1, Tracking::On, 0);
    let hash = hot.hash(key.as_bytes());
    let fill = hot.begin_fill(hash, 0).unwrap();
    assert!(hot.end_fill(hash, fill.number, Value::of(b"$4\r\nkept\r\n"), -1, 0));
    let get = request(&format!("GET {key}"));
    for (session, kept) in [(usual, true), (strict, false), (usual, true)] {
        engine.submit(session, &get, 1, &mut wires);
        engine.flush(&mut wires);
        let sent = wires.shards.iter_mut().map(std::mem::take).fold(Vec::new(), |all, some| [all, some].concat());
        let got = std::mem::take(&mut wires.apps[session as usize]);
        let wanted = if kept { (b"$4\r\nkept\r\n".to_vec(), Vec::new()) } else { (Vec::new(), get.clone()) };
        assert!((&got, sent.starts_with(&wanted.1)) == (&wanted.0, true), "{}", sent.escape_ascii());
        assert_eq!(sent.is_empty(), kept);
    }
    engine.receive(1, b"$3\r\nnew\r\n", 2, &mut wires).unwrap();
    engine.flush(&mut wires);
    assert_eq!(wires.apps[strict as usize], b"$3\r\nnew\r\n");
}

#[test]
fn a_reload_opens_closes_and_turns_them() {
    let redis = Redis::start(&[]);
    let [one, two] = [(); 2].map(|()| format!("127.0.0.1:{}", free_port()));
    let plain =
        |listen: &str| pool(&[redis.address()], &[&format!("listen: {listen}"), "coalesce: true", "^watch: off"]);
    let site = Site::new(&plain(&one));
    let mut old = Client::connect(&one);
    assert_eq!(old.ask("SET k v"), "+OK\r\n");
    let take = |yaml: String| {
        let (status, told) = site.reload(&yaml);
        assert_eq!(status, 200, "{told}");
    };
    let strict = |address: &str| reads(&redis, &mut Client::connect(address), 500) == 500;
    // One comes.
    take(file(&redis, &one, &two, &[]));
    assert_eq!((strict(&one), strict(&two)), (false, true));
    let (_, told) = site.hotring.page("/config");
    assert!(told.contains(&format!("    listen: {one}\n    listen_strict: {two}\n")), "{told}");
    // They change places: the sockets stay open, and who is connected keeps what was promised.
    let mut kept = Client::connect(&two);
    assert_eq!(kept.ask("PING"), "+PONG\r\n");
    take(file(&redis, &two, &one, &[]));
    assert_eq!((strict(&one), strict(&two)), (true, false));
    assert_eq!(reads(&redis, &mut kept, 500), 500);
    assert!(reads(&redis, &mut old, 500) < 500);
    // One goes.
    take(plain(&two));
    eventually("it is closed", || Client::try_connect(&one).is_err());
    assert!(!strict(&two));
    assert_eq!(reads(&redis, &mut kept, 500), 500);
    // What cannot be had changes nothing.
    let taken = std::net::TcpListener::bind(ANYWHERE).unwrap();
    let (status, _) = site.reload(&file(&redis, &two, &taken.local_addr().unwrap().to_string(), &[]));
    assert_ne!(status, 200);
    assert!(!strict(&two));
}
