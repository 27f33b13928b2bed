//! A mistake of hotring's own costs the session or the connection in whose turn it shows, and nobody else; it is told and
//! counted. Builds with debug assertions panic where a test asks for it.
#![cfg(debug_assertions)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/engine.rs"]
#[allow(dead_code, unreachable_pub, reason = "this test uses a part")]
mod memory;
mod support;

use hotring::engine::port::{Port, Taken};
use hotring::engine::{Engine, LineId, SessionId};
use std::panic::{AssertUnwindSafe, catch_unwind};
use support::{Client, Hotring, Redis, eventually, pool, shards, wire};

const PANICS: &str = "hotring_panics_total{worker=\"0\"}";

fn panic_of(place: &str) -> String {
    format!("(a panic of the {place})")
}

#[test]
fn a_panic_in_a_session_ends_that_session() {
    let (_redis, at) = shards(2);
    let hotring = Hotring::with_admin(&pool(&at, &[]));
    let mut others: Vec<Client> = (0..4).map(|_| hotring.app()).collect();
    for round in 1..=3 {
        let mut app = hotring.app();
        assert_eq!(app.ask("SET mine 1"), "+OK\r\n");
        // What others have under way when it happens is answered, each with its own.
        for (n, other) in others.iter_mut().enumerate() {
            other.send(&wire(&["SET", &format!("k{n}"), &format!("{round}:{n}")]).repeat(20));
            other.send(&wire(&["GET", &format!("k{n}")]));
        }
        app.send(&wire(&["ECHO", &panic_of("session")]));
        assert_eq!(app.rest(), b"");
        for (n, other) in others.iter_mut().enumerate() {
            (0..20).for_each(|_| assert_eq!(other.text(), "+OK\r\n"));
            assert_eq!(other.text(), format!("$3\r\n{round}:{n}\r\n"));
            assert_eq!(
                other.ask("MGET k0 k1 mine"),
                format!("*3\r\n$3\r\n{round}:0\r\n$3\r\n{round}:1\r\n$1\r\n1\r\n")
            );
        }
        eventually("it is counted", || {
            hotring.metric(PANICS) == f64::from(round)
                && hotring.metric("hotring_client_connections{pool=\"main\"}") == 4.0
                && hotring.metric("hotring_client_err_total{pool=\"main\"}") == f64::from(round)
        });
    }
    hotring.stop().unwrap();
}

#[test]
fn a_panic_of_a_connection_to_a_shard_is_an_error_for_who_waits_on_it() {
    let redis = Redis::start(&[]);
    let hotring = Hotring::with_admin(&pool(&[redis.address()], &[]));
    let (mut app, mut other) = (hotring.app(), hotring.app());
    assert_eq!(redis.client().call(&["SET", "bad", &panic_of("connection")]), b"+OK\r\n");
    assert_eq!(other.ask("SET k v"), "+OK\r\n");
    // Nobody is left without a reply.
    app.send(&wire(&["GET", "bad"]));
    other.send(&wire(&["GET", "k"]).repeat(50));
    let lost = "-ERR shard s0 was lost (given up because of an error in hotring itself); the command may have run\r\n";
    let down = "-ERR shard s0 is down (given up because of an error in hotring itself); nothing was sent\r\n";
    let said = app.text();
    assert!(said.contains("a panic of") || said == lost, "{said}");
    for _ in 0..50 {
        let said = other.text();
        assert!(said == "$1\r\nv\r\n" || said == lost || said == down, "{said}");
    }
    eventually("the connection is there again", || {
        let said = other.ask("GET k");
        assert!(said == "$1\r\nv\r\n" || said == down, "{said}");
        said == "$1\r\nv\r\n"
    });
    // One of a session's own, too.
    assert_eq!(app.ask("WATCH k"), "+OK\r\n");
    app.send(&wire(&["GET", "bad"]));
    let said = app.text();
    assert!(said.contains("a panic of") || said.starts_with("-ERR shard s0 was lost"), "{said}");
    assert_eq!(app.ask("MULTI"), "+OK\r\n");
    assert_eq!(app.ask("GET k"), "+QUEUED\r\n");
    assert_eq!(app.ask("EXEC"), "*-1\r\n");
    assert_eq!(app.ask("GET k"), "$1\r\nv\r\n");
    eventually("both are counted", || hotring.metric(PANICS) == 2.0);
    hotring.stop().unwrap();
}

#[test]
fn a_panic_of_an_embedded_node_is_an_error_for_that_request() {
    let hotring = Hotring::start("admin: off\npools: {a: {listen: 127.0.0.1:0, servers: embedded:1}}\n");
    let (mut app, mut other) = (hotring.app(), hotring.app());
    assert_eq!(app.ask("SET k v"), "+OK\r\n");
    app.send(&[wire(&["GET", "k"]), wire(&["SET", "k", &panic_of("node")]), wire(&["GET", "k"])].concat());
    assert_eq!(app.text(), "$1\r\nv\r\n");
    assert_eq!(
        app.text(),
        "-ERR shard embedded-1 was lost (given up because of an error in hotring itself); the command may have run\r\n"
    );
    assert_eq!(app.text(), "$1\r\nv\r\n");
    assert_eq!(other.ask("GET k"), "$1\r\nv\r\n");
}

#[test]
fn a_panic_of_the_flusher_ends_the_process() {
    let redis = Redis::start(&[]);
    for workers in ["^workers: 1", "^workers: 2"] {
        let hotring = Hotring::over(&[redis.address()], &[workers]);
        let mut apps: Vec<Client> = (0..4).map(|_| hotring.app()).collect();
        for app in &mut apps {
            assert_eq!(app.ask("SET k v"), "+OK\r\n");
        }
        apps[0].send(&wire(&["ECHO", &panic_of("flusher")]));
        for app in &mut apps {
            assert_eq!(app.rest(), b"");
        }
        let error = hotring.stop().unwrap_err().to_string();
        assert_eq!(error, "cannot go on: the flusher panicked (asked for in the flusher)");
    }
}

#[test]
fn every_profile_unwinds() {
    let manifest = std::fs::read_to_string("Cargo.toml").unwrap();
    assert!(
        !manifest.lines().any(|line| line.trim_start().starts_with("panic")),
        "nothing is contained where a panic aborts"
    );
}

/// Sockets of which one app's panics.
#[derive(Default)]
struct Traps {
    apps: [Vec<u8>; 4],
    shard: Vec<u8>,
    trapped: Option<SessionId>,
}

impl Port for Traps {
    fn to_app(&mut self, session: SessionId, bytes: &[u8]) -> Taken {
        assert_ne!(Some(session), self.trapped, "trapped");
        self.apps[session as usize].extend_from_slice(bytes);
        Taken::Some(bytes.len())
    }

    fn to_shard(&mut self, _line: LineId, bytes: &[u8]) -> Taken {
        self.shard.extend_from_slice(bytes);
        Taken::Some(bytes.len())
    }

    fn wake(&mut self, _session: SessionId) {}

    fn open(&mut self, _line: LineId) {}
}

fn ask(engine: &mut Engine, port: &mut Traps, id: SessionId, words: &[&str]) {
    let bytes = wire(words);
    assert_eq!(engine.submit(id, &bytes, 0, port).consumed, bytes.len());
}

#[test]
fn who_waits_for_a_reply_that_nobody_gives_is_ended_and_nobody_else() {
    let mut engine = Engine::new(1, 1);
    let mut port = Traps::default();
    let (number, lines) = engine.add_pool(memory::pool(1, 1, true));
    lines.for_each(|line| engine.connected(line, 0));
    let [a, b, c, d] = [(); 4].map(|()| engine.open(number));
    ask(&mut engine, &mut port, a, &["GET", "long"]);
    ask(&mut engine, &mut port, b, &["GET", "k"]);
    // Shares b's flight.
    ask(&mut engine, &mut port, c, &["GET", "k"]);
    ask(&mut engine, &mut port, d, &["SET", "other", "1"]);
    engine.flush(&mut port);
    assert_eq!(engine.mend(&mut port), 0, "all of them are waited for");
    assert_eq!(engine.in_flight(), 3);

    let long = [b"$20000\r\n".to_vec(), vec![b'x'; 20_000], b"\r\n".to_vec()].concat();
    port.trapped = Some(a);
    let panicked = catch_unwind(AssertUnwindSafe(|| engine.receive(0, &long, 0, &mut port)));
    assert!(panicked.is_err(), "a long reply goes to its app at once");
    assert_eq!(engine.mend(&mut port), 1);
    assert!(engine.is_over(a) && ![b, c, d].iter().any(|&id| engine.is_over(id)));

    assert_eq!(engine.receive(0, b"$1\r\nv\r\n+OK\r\n", 0, &mut port), Ok((12, 1)));
    port.trapped = None;
    engine.flush(&mut port);
    assert_eq!(port.apps, [&b""[..], b"$1\r\nv\r\n", b"$1\r\nv\r\n", b"+OK\r\n"]);
    [a, b, c, d].iter().for_each(|&id| engine.close(id, false, &mut port));
    let held = engine.holdings();
    assert_eq!((engine.in_flight(), engine.session_count(), held.gathers, held.joined), (0, 0, 0, 0));
}

#[test]
fn what_was_about_to_leave_leaves_all_the_same() {
    let mut engine = Engine::new(1, 1);
    let mut port = Traps::default();
    let (number, lines) = engine.add_pool(memory::pool(1, 1, false));
    lines.for_each(|line| engine.connected(line, 0));
    let [a, b] = [(); 2].map(|()| engine.open(number));
    ask(&mut engine, &mut port, a, &["ECHO", "a"]);
    ask(&mut engine, &mut port, b, &["ECHO", "b"]);
    port.trapped = Some(a);
    assert!(catch_unwind(AssertUnwindSafe(|| engine.flush(&mut port))).is_err());
    port.trapped = None;
    engine.flush(&mut port);
    assert_eq!(port.apps[1], b"", "lost with the list of those to be flushed");
    assert_eq!(engine.mend(&mut port), 0);
    engine.flush(&mut port);
    assert_eq!(&port.apps[..2], [&b"$1\r\na\r\n"[..], b"$1\r\nb\r\n"]);
}
