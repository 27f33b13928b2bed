//! Who stands still is closed in time, and who waits for others never is.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/engine.rs"]
#[allow(unreachable_pub, dead_code, reason = "shared with benchmarks")]
mod inner;
mod support;

use hotring::engine::deadlines::{Deadlines, Soft};
use hotring::engine::port::{Port, Taken};
use hotring::engine::{Engine, LineId, SessionId};
use hotring::metrics::Closed;
use hotring::stages::fault::{Effect, Rule, WHOLE};
use inner::{Wires, request};
use support::{Client, Hotring, Redis, eventually, pool, shards, wire};

const SECOND: u64 = 1_000_000;

/// An engine with these deadlines and so many sessions at second 0.
fn engine(deadlines: Deadlines, sessions: usize) -> (Engine, Wires) {
    let mut config = inner::pool(1, 1, false);
    config.deadlines = deadlines;
    inner::engine(config, sessions)
}

fn submit(engine: &mut Engine, wires: &mut Wires, session: u32, line: &str, second: u64) {
    let bytes = request(line);
    assert_eq!(engine.submit(session, &bytes, second * SECOND, wires).consumed, bytes.len());
    engine.flush(wires);
}

/// Ticks from one second to another, ten times a second.
fn pass(engine: &mut Engine, wires: &mut impl Port, from: u64, to: u64) {
    for step in from * 10..=to * 10 {
        engine.tick(step * SECOND / 10, wires);
        engine.flush(wires);
    }
}

fn over(engine: &Engine, sessions: u32) -> Vec<u32> {
    (0..sessions).filter(|&id| engine.is_over(id)).collect()
}

#[test]
fn who_asks_for_nothing_is_closed_unless_it_waits() {
    let (mut engine, mut wires) = engine(Deadlines { idle: Some(30 * SECOND), ..Deadlines::default() }, 7);
    submit(&mut engine, &mut wires, 1, "GET k", 0);
    submit(&mut engine, &mut wires, 2, "SUBSCRIBE c", 0);
    submit(&mut engine, &mut wires, 3, "BLPOP l 0", 0);
    submit(&mut engine, &mut wires, 4, "MULTI", 0);
    submit(&mut engine, &mut wires, 5, "PING", 0);
    let front = b"*2\r\n$3\r\nGET\r\n$1\r\n";
    let taken = engine.submit(6, front, 0, &mut wires).consumed;
    engine.request_buffer(6, front.len() - taken);
    pass(&mut engine, &mut wires, 0, 25);
    submit(&mut engine, &mut wires, 5, "PING", 25);
    pass(&mut engine, &mut wires, 25, 29);
    assert_eq!(over(&engine, 7), [0_u32; 0]);
    pass(&mut engine, &mut wires, 29, 32);
    assert_eq!(over(&engine, 7), [0], "the others wait, or did something");
    // Its reply has come: from now on it is idle.
    engine.receive(0, b"$1\r\nv\r\n", 32 * SECOND, &mut wires).unwrap();
    engine.flush(&mut wires);
    pass(&mut engine, &mut wires, 32, 54);
    assert_eq!(over(&engine, 7), [0]);
    pass(&mut engine, &mut wires, 54, 57);
    assert_eq!(over(&engine, 7), [0, 5]);
    pass(&mut engine, &mut wires, 57, 64);
    assert_eq!(over(&engine, 7), [0, 1, 5]);
    pass(&mut engine, &mut wires, 64, 1000);
    assert_eq!(over(&engine, 7), [0, 1, 5]);
    assert_eq!(engine.pool_counts(0).unwrap().client_closed[Closed::Idle], 3);
}

/// Requests and replies that are held back on purpose: their sessions wait for hotring, and are idle from the reply on.
#[test]
fn who_waits_for_a_fault_that_is_injected_is_not_idle() {
    let deadlines = Deadlines { idle: Some(30 * SECOND), request: Some(10 * SECOND), ..Deadlines::default() };
    let (mut engine, mut wires) = engine(deadlines, 4);
    let rule = |id, command: &str, effect| {
        let rule = Rule { id, commands: vec![command.into()], prefix: None, share: WHOLE, effect };
        (rule, 1000 * SECOND)
    };
    let (request, reply) = (Effect::DelayRequest(50 * SECOND), Effect::DelayReply(50 * SECOND));
    engine.set_faults(0, 1, vec![rule(1, "get", request), rule(2, "incr", reply)], 0);
    // 0 and 1 are held back with their requests, one with them in a buffer that is known and one not; 2 with its reply.
    let get = inner::request("GET k");
    for session in [0, 1] {
        assert_eq!(engine.submit(session, &get, 0, &mut wires).consumed, 0, "it may not begin");
    }
    engine.request_buffer(0, get.len());
    submit(&mut engine, &mut wires, 2, "INCR n", 0);
    engine.receive(0, b":1\r\n", SECOND, &mut wires).unwrap();
    engine.flush(&mut wires);
    pass(&mut engine, &mut wires, 0, 49);
    assert_eq!(over(&engine, 4), [3], "the last one asks for nothing");
    assert!(wires.woken.iter().all(|id| ![0, 1].contains(id)) && wires.apps[2].is_empty());
    // They go on where they were.
    pass(&mut engine, &mut wires, 49, 52);
    assert_eq!(wires.apps[2], b":1\r\n");
    for session in [0, 1] {
        assert!(wires.woken.contains(&session) && !engine.is_paused(session));
        assert_eq!(engine.submit(session, &get, 52 * SECOND, &mut wires).consumed, get.len());
    }
    engine.request_buffer(0, 0);
    engine.flush(&mut wires);
    pass(&mut engine, &mut wires, 52, 79);
    assert_eq!(over(&engine, 4), [3], "two wait for a reply, and one has had it for less than its time");
    pass(&mut engine, &mut wires, 79, 84);
    assert_eq!(over(&engine, 4), [2, 3], "it asks for nothing since its reply came");
    engine.receive(0, b"$-1\r\n$-1\r\n", 84 * SECOND, &mut wires).unwrap();
    engine.flush(&mut wires);
    pass(&mut engine, &mut wires, 84, 113);
    assert_eq!(over(&engine, 4), [2, 3]);
    pass(&mut engine, &mut wires, 113, 117);
    assert_eq!(over(&engine, 4), [0, 1, 2, 3]);
    assert_eq!(engine.pool_counts(0).unwrap().client_closed[Closed::HalfSent], 0);
}

#[test]
fn who_stops_in_the_midst_of_a_request_is_closed() {
    let (mut engine, mut wires) = engine(Deadlines { request: Some(10 * SECOND), ..Deadlines::default() }, 4);
    // 0 stops, 1 goes on byte by byte, 2 uploads and stops, 3 is not read.
    for session in [0, 1, 3] {
        engine.request_buffer(session, 100);
    }
    let front = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2000000\r\n";
    assert_eq!(engine.submit(2, front, 0, &mut wires).consumed, front.len());
    wires.shards.resize(2, Vec::new());
    submit(&mut engine, &mut wires, 3, "GET k", 0);
    assert_eq!(engine.submit(3, &request("BLPOP l 0"), 0, &mut wires).consumed, 0);
    assert!(engine.is_paused(3));
    for second in 0..9 {
        pass(&mut engine, &mut wires, second, second + 1);
        engine.request_buffer(1, 101 + second as usize);
    }
    assert_eq!(over(&engine, 4), [0_u32; 0]);
    pass(&mut engine, &mut wires, 9, 12);
    assert_eq!(over(&engine, 4), [0, 2]);
    pass(&mut engine, &mut wires, 12, 17);
    assert_eq!(over(&engine, 4), [0, 2]);
    pass(&mut engine, &mut wires, 17, 22);
    assert_eq!(over(&engine, 4), [0, 1, 2]);
    assert_eq!(engine.pool_counts(0).unwrap().client_closed[Closed::HalfSent], 3);
}

/// Apps that take nothing.
struct Deaf;

impl Port for Deaf {
    fn to_app(&mut self, _: SessionId, _: &[u8]) -> Taken {
        Taken::Full(0)
    }

    fn to_shard(&mut self, _: LineId, bytes: &[u8]) -> Taken {
        Taken::Some(bytes.len())
    }

    fn wake(&mut self, _: SessionId) {}

    fn open(&mut self, _: LineId) {}
}

#[test]
fn who_does_not_read_is_closed_after_a_while() {
    let soft = |bytes, span| Some(Soft { bytes, span: span * SECOND });
    let deadlines = Deadlines { unread: soft(10_000, 5), unread_pubsub: soft(10_000, 50), ..Deadlines::default() };
    let (mut engine, _) = engine(deadlines, 4);
    let long = format!("ECHO {}", "x".repeat(6_000));
    let echo = |engine: &mut Engine, id, count: usize| {
        let bytes = request(&long).repeat(count);
        assert_eq!(engine.submit(id, &bytes, SECOND, &mut Deaf).consumed, bytes.len());
        engine.flush(&mut Deaf);
    };
    echo(&mut engine, 0, 2);
    echo(&mut engine, 1, 1);
    // In RESP3 a subscriber may ask for anything.
    engine.submit(2, &request("HELLO 3"), 0, &mut Deaf);
    engine.submit(2, &request("SUBSCRIBE c"), 0, &mut Deaf);
    engine.receive(0, b"", 0, &mut Deaf).unwrap();
    echo(&mut engine, 3, 2);
    pass(&mut engine, &mut Deaf, 1, 5);
    assert_eq!(over(&engine, 4), [0_u32; 0]);
    // It reads in time.
    engine.app_writable(3);
    engine.flush(&mut Wires { apps: vec![Vec::new(); 4], ..Wires::default() });
    engine.tick(5 * SECOND, &mut Deaf);
    pass(&mut engine, &mut Deaf, 5, 9);
    assert_eq!(over(&engine, 4), [0]);
    echo(&mut engine, 3, 2);
    pass(&mut engine, &mut Deaf, 9, 13);
    assert_eq!(over(&engine, 4), [0], "it begins anew");
    pass(&mut engine, &mut Deaf, 13, 17);
    assert_eq!(over(&engine, 4), [0, 3]);
    assert_eq!(engine.pool_counts(0).unwrap().client_closed[Closed::Unread], 2);
}

#[test]
fn a_thousand_sessions_are_looked_at_however_the_ticks_come() {
    for step in [SECOND / 100, SECOND / 4, 3 * SECOND] {
        let (mut engine, mut wires) = engine(Deadlines { idle: Some(5 * SECOND), ..Deadlines::default() }, 1000);
        let mut now = 0;
        while now <= 10 * SECOND {
            now += step;
            engine.tick(now, &mut wires);
            engine.flush(&mut wires);
        }
        assert_eq!(over(&engine, 1000).len(), 1000, "{step}");
    }
}

#[test]
fn sockets_are_closed_in_time() {
    let redis = Redis::start(&[]);
    let keys = ["client_idle_timeout: 3s", "request_timeout: 3s", "auth_timeout: 3s", "client_auth: {password: x}"];
    let hotring = Hotring::with_admin(&pool(&[redis.address()], &keys));
    let log_in = || {
        let mut app = hotring.app();
        assert_eq!(app.ask("AUTH x"), "+OK\r\n");
        app
    };
    let closed = |why: &str| hotring.metric(&format!("hotring_client_closed_total{{pool=\"main\",why=\"{why}\"}}"));
    // Who is not let in stays so though it talks.
    let mut nobody = hotring.app();
    eventually("it is closed for want of a password", || {
        nobody.try_send(&wire(&["PING"])).is_err() || closed("no_auth") == 1.0
    });
    assert!(nobody.rest().starts_with(b"-NOAUTH "));
    let mut blocked = log_in();
    blocked.send(&wire(&["BLPOP", "l", "0"]));
    let mut subscriber = log_in();
    subscriber.ask("SUBSCRIBE c");
    let mut half = log_in();
    half.send(b"*2\r\n$3\r\nGET\r\n$10\r\nabc");
    assert_eq!(log_in().rest(), b"");
    assert_eq!(half.rest(), b"");
    eventually("both are counted", || closed("half_sent") == 1.0 && closed("idle") == 1.0);
    let mut other = log_in();
    assert_eq!(other.ask("LPUSH l v"), ":1\r\n");
    assert_eq!(blocked.text(), "*2\r\n$1\r\nl\r\n$1\r\nv\r\n");
    other.ask("PUBLISH c m");
    assert_eq!(subscriber.text(), "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n");
}

#[test]
fn a_subscriber_that_does_not_read_is_closed() {
    let (_redis, at) = shards(1);
    let hotring = Hotring::with_admin(&pool(&at, &["max_output_pubsub: 100kb 200ms"]));
    let mut slow = hotring.app();
    slow.ask("SUBSCRIBE c");
    let mut other = hotring.app();
    let message = "x".repeat(100_000);
    eventually("it is closed", || {
        other.call(&["PUBLISH", "c", &message]);
        hotring.metric("hotring_client_closed_total{pool=\"main\",why=\"unread\"}") == 1.0
    });
    let _: Client = other;
    assert!(!slow.rest().is_empty());
}
