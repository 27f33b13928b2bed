//! What the simulation found, each by itself and at once.

use super::support::{Wires, engine, key_on, pool, request};
use hotring::engine::{Engine, Then};
use hotring::error::{Cause, Failure};

const LOST: Failure = Failure { cause: Cause::Lost, reason: "connection reset" };

fn submit(engine: &mut Engine, wires: &mut Wires, session: u32, line: &str) {
    let wire = request(line);
    assert_eq!(engine.submit(session, &wire, 0, wires).consumed, wire.len());
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// One part was carried out, the other never left: "nothing was sent" would invite the app to repeat what has run.
#[test]
fn a_split_request_of_which_a_part_has_run_is_not_said_to_be_unsent() {
    let (mut engine, mut wires) = engine(pool(2, 1, false), 1);
    let (a, b) = (key_on(&engine, 0), key_on(&engine, 1));
    submit(&mut engine, &mut wires, 0, &format!("MSET {a} 1 {b} 2"));
    engine.fail(1, LOST, 0, &mut wires);
    engine.flush(&mut wires);
    assert_eq!(text(&wires.shards[0]), text(&request(&format!("MSET {a} 1"))));
    engine.receive(0, b"+OK\r\n", 0, &mut wires).unwrap();
    engine.flush(&mut wires);
    assert_eq!(text(&wires.apps[0]), "-ERR shard s1 was lost (connection reset); the command may have run\r\n");
}

/// A shard that finds a request malformed, or too big, answers before it has all of it, and closes.
#[test]
fn sessions_go_on_when_a_shard_answers_early_and_closes() {
    let mut config = pool(1, 1, false);
    config.outbox = 10;
    let (mut engine, mut wires) = engine(config, 1);
    wires.room = Some(20);
    submit(&mut engine, &mut wires, 0, "SET key a-value-that-does-not-fit");
    engine.flush(&mut wires);
    let more = engine.submit(0, &request("PING"), 0, &mut wires);
    assert_eq!(more.then, Then::Pause);
    engine.receive(0, b"-ERR Protocol error: invalid bulk length\r\n", 0, &mut wires).unwrap();
    wires.woken.clear();
    assert!(engine.closed(0, 0, &mut wires), "nobody waits for a reply");
    assert_eq!(wires.woken, [0]);
    assert!(!engine.is_paused(0));
    let more = engine.submit(0, &request("PING"), 0, &mut wires);
    assert_eq!(more.then, Then::Read { need: 1 });
}

/// An answer to a request that has not left answers nothing, and whoever waits must still be told.
#[test]
fn an_answer_before_the_question_costs_nobody_his_own() {
    let (mut engine, mut wires) = engine(pool(1, 1, false), 1);
    submit(&mut engine, &mut wires, 0, "GET key");
    assert!(engine.receive(0, b"+OK\r\n", 0, &mut wires).is_err());
    let garbage = Failure { cause: Cause::Garbage, reason: "no reply" };
    engine.fail(0, garbage, 0, &mut wires);
    engine.flush(&mut wires);
    assert_eq!(text(&wires.apps[0]), "-ERR shard s0 broke the protocol (no reply); nothing was sent\r\n");
    assert_eq!(engine.in_flight(), 0);
}

/// The session asked for the length first. Were its GET to share the other session's, which is on the wire before that, it
/// could see an older value than the length it has seen.
#[test]
fn a_session_shares_no_read_that_runs_before_what_it_asked_for_earlier() {
    let (mut engine, mut wires) = engine(pool(1, 1, true), 3);
    submit(&mut engine, &mut wires, 0, "GET key");
    submit(&mut engine, &mut wires, 1, "STRLEN key");
    submit(&mut engine, &mut wires, 1, "GET key");
    submit(&mut engine, &mut wires, 2, "GET key");
    engine.flush(&mut wires);
    let expected = [request("GET key"), request("STRLEN key"), request("GET key")].concat();
    assert_eq!(text(&wires.shards[0]), text(&expected), "the third session shares, the second does not");
    engine.receive(0, b"$3\r\nold\r\n:5\r\n$5\r\nnewer\r\n", 0, &mut wires).unwrap();
    engine.flush(&mut wires);
    let replies: Vec<String> = wires.apps.iter().map(|bytes| text(bytes)).collect();
    assert_eq!(replies, ["$3\r\nold\r\n", ":5\r\n$5\r\nnewer\r\n", "$5\r\nnewer\r\n"]);
}

/// An engine of one shard whose connections that sessions have for themselves are opened by the test: numbers 1 and on.
fn engine_of_one(sessions: usize) -> (Engine, Wires) {
    let (engine, mut wires) = engine(pool(1, 1, false), sessions);
    wires.shards.resize(9, Vec::new());
    (engine, wires)
}

/// The watch went with one connection, the wait behind it with another; the transaction must not be carried out as if the
/// key had been watched all the time.
#[test]
fn a_lost_watch_stays_lost_when_another_connection_breaks() {
    let (mut engine, mut wires) = engine_of_one(1);
    submit(&mut engine, &mut wires, 0, "WATCH key");
    engine.flush(&mut wires);
    engine.connected(1, 0);
    engine.flush(&mut wires);
    engine.receive(1, b"+OK\r\n", 0, &mut wires).unwrap();
    for line in ["GET key", "BLPOP key 0"] {
        submit(&mut engine, &mut wires, 0, line);
        engine.flush(&mut wires);
        engine.fail(1, LOST, 0, &mut wires);
        engine.ended(1);
        engine.flush(&mut wires);
    }
    wires.apps[0].clear();
    ["MULTI", "SET key 1", "EXEC"].iter().for_each(|line| submit(&mut engine, &mut wires, 0, line));
    engine.flush(&mut wires);
    engine.connected(1, 0);
    engine.flush(&mut wires);
    engine.receive(1, b"+OK\r\n+QUEUED\r\n", 0, &mut wires).unwrap();
    engine.flush(&mut wires);
    assert_eq!(text(&wires.apps[0]), "+OK\r\n+QUEUED\r\n*-1\r\n");
}

/// RESET leaves a transaction whose commands are not answered yet. The next session, that leaves while it waits for an
/// element, takes its connection with it, and must not take those answers.
#[test]
fn who_leaves_a_transaction_gets_the_answers_it_is_owed() {
    let (mut engine, mut wires) = engine_of_one(2);
    ["MULTI", "GET key", "RESET"].iter().for_each(|line| submit(&mut engine, &mut wires, 0, line));
    engine.flush(&mut wires);
    engine.connected(1, 0);
    engine.flush(&mut wires);
    submit(&mut engine, &mut wires, 1, "BLPOP key 0");
    engine.flush(&mut wires);
    engine.close(1, false, &mut wires);
    engine.receive(1, b"+OK\r\n+QUEUED\r\n", 0, &mut wires).unwrap();
    engine.flush(&mut wires);
    assert_eq!(text(&wires.apps[0]), "+OK\r\n+QUEUED\r\n+RESET\r\n");
}

/// The session is not read because the connection takes no more of its long request. A shard that answers that early loses
/// the connection, and the session must go on.
#[test]
fn a_session_goes_on_when_its_long_request_is_answered_early() {
    let mut config = pool(1, 1, false);
    (config.outbox, config.long) = (10, 60);
    let (mut engine, mut wires) = engine(config, 1);
    (wires.shards, wires.room) = (vec![Vec::new(); 9], Some(20));
    let wire = request(&format!("SET key {}", "x".repeat(100)));
    assert_eq!(engine.submit(0, &wire[..50], 0, &mut wires).consumed, 50);
    engine.flush(&mut wires);
    engine.connected(1, 0);
    engine.flush(&mut wires);
    assert_eq!(engine.submit(0, &wire[50..], 0, &mut wires).then, Then::Pause);
    engine.receive(1, b"-ERR Protocol error: invalid bulk length\r\n", 0, &mut wires).unwrap();
    engine.flush(&mut wires);
    assert!(engine.is_given_up(1), "the shard would take what comes next for the rest");
    assert!(!engine.is_paused(0));
}
