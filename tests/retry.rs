//! Reads that never left are sent on the next connection, once and in order; nothing else is.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/engine.rs"]
#[allow(unreachable_pub, dead_code, reason = "shared with benchmarks")]
mod inner;

use hotring::engine::{Engine, PoolConfig};
use hotring::error::{Cause, Failure};
use hotring::stages::{Health, HealthConfig, SPAN, Way};
use inner::{Wires, request};

const LOST: Failure = Failure { cause: Cause::Lost, reason: "closed by the server" };
const REFUSED: Failure = Failure { cause: Cause::Connect, reason: "connection refused" };
const UNSENT: &str = "-ERR shard s0 was lost (closed by the server); nothing was sent\r\n";
const SENT: &str = "-ERR shard s0 was lost (closed by the server); the command may have run\r\n";

fn engine(change: impl FnOnce(&mut PoolConfig), sessions: usize) -> (Engine, Wires) {
    let mut config = inner::pool(1, 1, false);
    config.timeout = Some(5_000_000);
    change(&mut config);
    inner::engine(config, sessions)
}

fn submit(engine: &mut Engine, wires: &mut Wires, session: u32, lines: &[&str]) {
    let bytes: Vec<u8> = lines.iter().flat_map(|line| request(line)).collect();
    assert_eq!(engine.submit(session, &bytes, 1, wires).consumed, bytes.len());
}

/// What a session has been sent since the last time.
fn told(engine: &mut Engine, wires: &mut Wires, session: u32) -> String {
    engine.flush(wires);
    String::from_utf8(std::mem::take(&mut wires.apps[session as usize])).unwrap()
}

/// What the shard has been sent since the last time, its requests' words.
fn sent(engine: &mut Engine, wires: &mut Wires) -> String {
    engine.flush(wires);
    String::from_utf8(std::mem::take(&mut wires.shards[0])).unwrap()
}

fn wire(lines: &[&str]) -> String {
    String::from_utf8(lines.iter().flat_map(|line| request(line)).collect()).unwrap()
}

#[test]
fn unsent_reads_are_sent_again_and_writes_never() {
    let (mut engine, mut wires) = engine(|_| {}, 3);
    submit(&mut engine, &mut wires, 0, &["GET a", "GET b"]);
    submit(&mut engine, &mut wires, 1, &["GET c", "SET d 1", "GET d", "MGET e f"]);
    submit(&mut engine, &mut wires, 2, &["INCR g"]);
    engine.fail(0, LOST, 2, &mut wires);
    assert_eq!(told(&mut engine, &mut wires, 0), "");
    assert_eq!(told(&mut engine, &mut wires, 1), "", "the first of it is to come");
    assert_eq!(told(&mut engine, &mut wires, 2), UNSENT);
    assert_eq!(sent(&mut engine, &mut wires), "");
    engine.connected(0, 3);
    assert_eq!(sent(&mut engine, &mut wires), wire(&["GET a", "GET b", "GET c"]));
    engine.receive(0, b"+a\r\n+b\r\n+c\r\n", 4, &mut wires).unwrap();
    assert_eq!(told(&mut engine, &mut wires, 0), "+a\r\n+b\r\n");
    assert_eq!(told(&mut engine, &mut wires, 1), "+c\r\n".to_owned() + &UNSENT.repeat(3));
    assert_eq!(engine.pool_counts(0).unwrap().retried_reads, 3);
    assert_eq!((engine.in_flight(), engine.pending()), (0, 0));
    let holdings = engine.holdings();
    assert_eq!((holdings.gathers, holdings.joined), (0, 0));
}

#[test]
fn who_waits_for_a_shard_that_is_gone_is_told_so_by_the_next_probe() {
    let probes = |config: &mut PoolConfig| {
        let health = HealthConfig {
            way: Way::Error,
            failure_limit: 2,
            span: SPAN,
            retry_timeout: 30_000_000,
            probe_interval: Some(1_000_000),
            seed: 7,
        };
        config.path.health = Health::new(health, 1, 1);
    };
    let (mut engine, mut wires) = engine(probes, 1);
    submit(&mut engine, &mut wires, 0, &["GET a"]);
    engine.fail(0, LOST, 2, &mut wires);
    assert_eq!(told(&mut engine, &mut wires, 0), "");
    engine.probed(0, 0, None, 3, &mut wires);
    assert_eq!(told(&mut engine, &mut wires, 0), "", "it may be back");
    engine.probed(0, 0, Some(REFUSED), 4, &mut wires);
    assert_eq!(
        told(&mut engine, &mut wires, 0),
        "-ERR shard s0 cannot be reached (connection refused); nothing was sent\r\n"
    );
    assert_eq!((engine.in_flight(), engine.pending()), (0, 0));
}

#[test]
fn what_may_have_left_is_not_sent_again() {
    let (mut engine, mut wires) = engine(|_| {}, 2);
    submit(&mut engine, &mut wires, 0, &["GET a", "GET b"]);
    // Of the second one a part has left.
    wires.room = Some(wire(&["GET a", "GET b"]).len() - 5);
    engine.flush(&mut wires);
    submit(&mut engine, &mut wires, 0, &["GET c"]);
    submit(&mut engine, &mut wires, 1, &["GET d"]);
    engine.fail(0, LOST, 2, &mut wires);
    assert_eq!(told(&mut engine, &mut wires, 0), SENT.repeat(2), "the third is to come");
    wires.room = None;
    wires.shards[0].clear();
    engine.connected(0, 3);
    assert_eq!(sent(&mut engine, &mut wires), wire(&["GET c", "GET d"]));
    engine.receive(0, b"+c\r\n+d\r\n", 4, &mut wires).unwrap();
    assert_eq!(told(&mut engine, &mut wires, 0), "+c\r\n");
    assert_eq!(told(&mut engine, &mut wires, 1), "+d\r\n");
}

#[test]
fn nothing_runs_ahead_of_a_write_that_failed() {
    let (mut engine, mut wires) = engine(|_| {}, 2);
    submit(&mut engine, &mut wires, 0, &["SET a 1"]);
    engine.flush(&mut wires);
    submit(&mut engine, &mut wires, 0, &["GET a"]);
    submit(&mut engine, &mut wires, 1, &["GET a"]);
    wires.shards[0].clear();
    engine.fail(0, LOST, 2, &mut wires);
    assert_eq!(told(&mut engine, &mut wires, 0), SENT.to_owned() + UNSENT, "it may still run, after the read");
    engine.connected(0, 3);
    assert_eq!(sent(&mut engine, &mut wires), wire(&["GET a"]), "the other session asked for nothing before");
}

#[test]
fn once_and_not_more_often() {
    let (mut engine, mut wires) = engine(|_| {}, 2);
    submit(&mut engine, &mut wires, 0, &["GET a"]);
    engine.fail(0, LOST, 2, &mut wires);
    engine.connected(0, 3);
    // It is open, and lost again before anything left.
    submit(&mut engine, &mut wires, 1, &["GET b"]);
    engine.fail(0, LOST, 4, &mut wires);
    assert_eq!(told(&mut engine, &mut wires, 0), UNSENT);
    assert_eq!(told(&mut engine, &mut wires, 1), "", "this one was not there the first time");
    // What was kept is told when the connection cannot be opened again.
    engine.fail(0, REFUSED, 5, &mut wires);
    let text = "-ERR shard s0 cannot be reached (connection refused); nothing was sent\r\n";
    assert_eq!(told(&mut engine, &mut wires, 1), text);
    // And so is what waited for its first time.
    let (mut engine, mut wires) =
        (Engine::new(1, 1), Wires { apps: vec![Vec::new()], shards: vec![Vec::new()], ..Wires::default() });
    let (pool, _) = engine.add_pool(inner::pool(1, 1, false));
    engine.open(pool);
    submit(&mut engine, &mut wires, 0, &["GET a"]);
    engine.flush(&mut wires);
    engine.fail(0, REFUSED, 2, &mut wires);
    assert_eq!(told(&mut engine, &mut wires, 0), text);
    assert_eq!(engine.in_flight(), 0);
}

#[test]
fn not_longer_than_the_timeout() {
    let (mut engine, mut wires) = engine(|_| {}, 1);
    submit(&mut engine, &mut wires, 0, &["GET a"]);
    engine.fail(0, LOST, 2, &mut wires);
    assert_eq!(engine.tick(4_900_000, &mut wires).len(), 0);
    let overdue = engine.tick(5_100_000, &mut wires);
    let [(0, failure)] = overdue[..] else { panic!("{overdue:?}") };
    engine.fail(0, failure, 5_100_000, &mut wires);
    let text = "-ERR shard s0 timed out (no answer within the pool's timeout); nothing was sent\r\n";
    assert_eq!(told(&mut engine, &mut wires, 0), text);
}

#[test]
fn who_joined_is_kept_with_it_and_who_left_is_not_asked_for() {
    let (mut engine, mut wires) = engine(|config| *config = inner::pool(1, 1, true), 3);
    submit(&mut engine, &mut wires, 0, &["GET a"]);
    submit(&mut engine, &mut wires, 1, &["GET a"]);
    submit(&mut engine, &mut wires, 2, &["GET b"]);
    engine.close(2, false, &mut wires);
    engine.fail(0, LOST, 2, &mut wires);
    engine.connected(0, 3);
    assert_eq!(sent(&mut engine, &mut wires), wire(&["GET a"]));
    engine.receive(0, b"+a\r\n", 4, &mut wires).unwrap();
    assert_eq!(told(&mut engine, &mut wires, 0) + &told(&mut engine, &mut wires, 1), "+a\r\n+a\r\n");
    assert_eq!((engine.in_flight(), engine.holdings().joined), (0, 0));
}

#[test]
fn a_shell_that_says_gone_loses_no_read() {
    let (mut engine, mut wires) = engine(|_| {}, 1);
    submit(&mut engine, &mut wires, 0, &["GET a"]);
    engine.flush(&mut Gone);
    engine.fail(0, LOST, 2, &mut wires);
    engine.connected(0, 3);
    assert_eq!(sent(&mut engine, &mut wires), wire(&["GET a"]));
}

/// A shard whose connection is gone when something is to be sent.
struct Gone;

impl hotring::engine::port::Port for Gone {
    fn to_app(&mut self, _: u32, _: &[u8]) -> hotring::engine::port::Taken {
        hotring::engine::port::Taken::Gone
    }

    fn to_shard(&mut self, _: u32, _: &[u8]) -> hotring::engine::port::Taken {
        hotring::engine::port::Taken::Gone
    }

    fn wake(&mut self, _: u32) {}

    fn open(&mut self, _: u32) {}
}
