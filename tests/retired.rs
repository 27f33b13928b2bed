//! Shards that leave a pool while it runs, in virtual time.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/engine.rs"]
#[allow(unreachable_pub, dead_code, reason = "shared with the benchmarks")]
mod inner;

use hotring::engine::line::{Owner, State};
use hotring::engine::reload::DRAIN;
use hotring::engine::{Engine, LineId};
use inner::{Wires, engine, key_on, pool, pool_of, request};

fn ask(engine: &mut Engine, wires: &mut Wires, session: u32, line: &str) {
    let wire = request(line);
    assert_eq!(engine.submit(session, &wire, 1, wires).consumed, wire.len());
    engine.flush(wires);
}

/// The connection that was sent something last.
fn used(wires: &mut Wires) -> LineId {
    let line = wires.shards.iter().rposition(|sent| !sent.is_empty()).unwrap();
    wires.shards.iter_mut().for_each(Vec::clear);
    line as LineId
}

#[test]
fn an_idle_shard_is_closed_at_once_and_a_busy_one_when_it_has_answered() {
    let (mut engine, mut wires) = engine(pool(3, 1, false), 1);
    let key = key_on(&engine, 1);
    ask(&mut engine, &mut wires, 0, &format!("GET {key}"));
    engine.reload(0, pool_of(&[2], 3, 1, false), 2, &mut wires);
    assert_eq!(wires.given_up, [0]);
    assert!(!engine.is_gone(0, 1));
    assert_eq!(engine.receive(1, b"$1\r\nv\r\n", 3, &mut wires), Ok((7, 1)));
    engine.flush(&mut wires);
    assert_eq!((wires.apps[0].as_slice(), wires.given_up.as_slice()), (&b"$1\r\nv\r\n"[..], &[0, 1][..]));
    assert!(engine.tick(4, &mut wires).is_empty());
    assert!(engine.is_gone(0, 1) && engine.is_gone(0, 0) && !engine.is_gone(0, 2));
    // From then on its keys have another home.
    wires.shards.iter_mut().for_each(Vec::clear);
    ask(&mut engine, &mut wires, 0, &format!("GET {key}"));
    assert_eq!(used(&mut wires), 2);
}

#[test]
fn what_never_ends_is_ended_after_the_drain() {
    let (mut engine, mut wires) = engine(pool(2, 1, false), 2);
    let key = key_on(&engine, 0);
    ask(&mut engine, &mut wires, 0, &format!("BLPOP {key} 0"));
    let own = *wires.wanted.last().unwrap();
    engine.connected(own, 1);
    engine.flush(&mut wires);
    assert!(matches!(engine.line(own).unwrap().owner, Owner::Session(0, _)));
    engine.reload(0, pool_of(&[1], 2, 1, false), 10, &mut wires);
    assert!(engine.tick(10 + DRAIN, &mut wires).is_empty());
    let overdue = engine.tick(11 + DRAIN, &mut wires);
    let [(line, failure)] = overdue[..] else { panic!("{overdue:?}") };
    assert_eq!((line, failure.reason), (own, "its server is no longer in the configuration"));
    engine.fail(line, failure, 11 + DRAIN, &mut wires);
    engine.flush(&mut wires);
    let text = "-ERR shard s0 was lost (its server is no longer in the configuration); the command may have run\r\n";
    assert_eq!(String::from_utf8_lossy(&wires.apps[0]), text);
    engine.ended(own);
    engine.tick(12 + DRAIN, &mut wires);
    assert!(engine.is_gone(0, 0));
}

#[test]
fn a_connection_that_opens_as_its_shard_leaves_is_closed() {
    let mut engine = Engine::new(1, 1);
    let mut wires = Wires { apps: vec![Vec::new()], ..Wires::default() };
    engine.add_pool(pool(2, 1, false));
    engine.open(0);
    engine.opening(0);
    engine.reload(0, pool_of(&[1], 2, 1, false), 1, &mut wires);
    engine.connected(0, 2);
    assert_eq!(engine.line(0).unwrap().state, State::Up);
    wires.given_up.clear();
    engine.tick(3, &mut wires);
    assert_eq!((wires.given_up.as_slice(), engine.line(0).unwrap().state), (&[0][..], State::Idle));
    assert!(engine.is_retired(0));
    // It comes back and is used again.
    engine.reload(0, pool(2, 1, false), 4, &mut wires);
    assert!(!engine.is_retired(0));
    let key = key_on(&engine, 0);
    ask(&mut engine, &mut wires, 0, &format!("GET {key}"));
    assert_eq!(wires.wanted.last(), Some(&0));
}

#[test]
fn more_connections_and_shards_leave_everybody_on_his_own() {
    let (mut engine, mut wires) = engine(pool(2, 2, false), 4);
    let keys = [key_on(&engine, 0), key_on(&engine, 1)];
    // Two of the sessions speak RESP3, which makes another set.
    for session in [2, 3] {
        ask(&mut engine, &mut wires, session, "HELLO 3");
    }
    let mut before = Vec::new();
    for session in 0..4 {
        for key in &keys {
            let lines = engine.line_count();
            ask(&mut engine, &mut wires, session, &format!("GET {key}"));
            for line in 0..engine.line_count().max(lines) {
                if engine.line(line).unwrap().state == State::Opening {
                    engine.connected(line, 1);
                }
            }
            engine.flush(&mut wires);
            before.push(used(&mut wires));
        }
    }
    let first: Vec<LineId> = before.clone();
    assert_eq!(first.iter().collect::<std::collections::HashSet<_>>().len(), 8, "{first:?}");
    let wider = |members: &[u16], lanes| pool_of(members, 5, lanes, false);
    engine.reload(0, wider(&[0, 1], 3), 5, &mut wires);
    // The same keys live on the same shards, and every session is where it was.
    let mut after = Vec::new();
    for session in 0..4 {
        for key in &keys {
            ask(&mut engine, &mut wires, session, &format!("GET {key}"));
            engine.flush(&mut wires);
            after.push(used(&mut wires));
        }
    }
    assert_eq!(before, after);
    // The new shards' connections are new ones, in both protocols.
    engine.reload(0, wider(&[3, 4], 3), 6, &mut wires);
    let lines = engine.line_count();
    wires.wanted.clear();
    for session in 0..4 {
        let key = key_on(&engine, 4);
        ask(&mut engine, &mut wires, session, &format!("GET {key}"));
    }
    assert_eq!(engine.line_count(), lines);
    assert_eq!(wires.wanted.len(), 4, "each has one of its own: two lanes, two protocols");
    assert!(wires.wanted.iter().all(|&line| engine.line(line).unwrap().shard == 4));
}

#[test]
fn what_is_known_of_a_shard_stays_known_and_of_one_that_comes_back_does_not() {
    use hotring::error::{Cause, Failure};
    let (mut engine, mut wires) = engine(pool(2, 1, false), 1);
    let (a, b) = (key_on(&engine, 0), key_on(&engine, 1));
    let failure = Failure { cause: Cause::Connect, reason: "connection refused" };
    engine.fail(0, failure, 1, &mut wires);
    let down = |engine: &mut Engine, wires: &mut Wires, key: &str| {
        wires.apps[0].clear();
        ask(engine, wires, 0, &format!("GET {key}"));
        wires.apps[0].starts_with(b"-ERR shard s0 is down")
    };
    engine.reload(0, pool(2, 1, false), 2, &mut wires);
    assert!(down(&mut engine, &mut wires, &a) && !down(&mut engine, &mut wires, &b));
    engine.reload(0, pool_of(&[1], 2, 1, false), 3, &mut wires);
    engine.reload(0, pool(2, 1, false), 4, &mut wires);
    assert!(!down(&mut engine, &mut wires, &a));
}

#[test]
fn a_connection_that_opens_long_after_its_shard_has_left_is_closed() {
    let mut engine = Engine::new(1, 1);
    let mut wires = Wires { apps: vec![Vec::new()], ..Wires::default() };
    engine.add_pool(pool(2, 1, false));
    engine.open(0);
    engine.opening(0);
    engine.reload(0, pool_of(&[1], 2, 1, false), 1, &mut wires);
    // The shard has nothing left to finish, as far as is known.
    engine.tick(2, &mut wires);
    engine.connected(0, 3);
    wires.given_up.clear();
    engine.tick(4, &mut wires);
    assert_eq!((wires.given_up.as_slice(), engine.line(0).unwrap().state), (&[0][..], State::Idle));
    assert!(engine.is_gone(0, 0));
}

#[test]
fn what_waits_for_a_connection_as_its_shard_leaves_is_still_sent() {
    let mut engine = Engine::new(1, 1);
    let mut wires = Wires { apps: vec![Vec::new()], ..Wires::default() };
    engine.add_pool(pool(2, 1, false));
    engine.open(0);
    let key = key_on(&engine, 0);
    ask(&mut engine, &mut wires, 0, &format!("GET {key}"));
    assert_eq!(wires.wanted, [0]);
    engine.reload(0, pool_of(&[1], 2, 1, false), 1, &mut wires);
    assert!(!engine.is_retired(0), "it is to be opened all the same");
    engine.connected(0, 2);
    engine.flush(&mut wires);
    assert!(!wires.shards[0].is_empty());
    engine.receive(0, b"$1\r\nv\r\n", 3, &mut wires).unwrap();
    engine.flush(&mut wires);
    assert_eq!(wires.apps[0], b"$1\r\nv\r\n");
    assert!(engine.is_retired(0) && engine.line(0).unwrap().state == State::Idle);
}

#[test]
fn connections_that_are_added_lead_to_nobody_who_has_left() {
    let (mut engine, mut wires) = engine(pool(2, 1, false), 1);
    engine.reload(0, pool_of(&[1], 2, 1, false), 1, &mut wires);
    let before = engine.line_count();
    engine.reload(0, pool_of(&[1], 2, 2, false), 2, &mut wires);
    let added: Vec<(u16, bool)> =
        (before..engine.line_count()).map(|id| (engine.line(id).unwrap().shard, engine.is_retired(id))).collect();
    assert_eq!(added, [(0, true), (1, false)]);
}

#[test]
fn a_shard_that_could_not_be_listened_to_as_it_left_can_be_when_it_is_back() {
    use hotring::error::{Cause, Failure};
    let (mut engine, mut wires) = engine(pool(2, 1, false), 1);
    ask(&mut engine, &mut wires, 0, "PSUBSCRIBE *");
    let ears: Vec<LineId> = wires.wanted.clone();
    let ear = ears.iter().copied().find(|&ear| engine.line(ear).unwrap().shard == 0).unwrap();
    engine.reload(0, pool_of(&[1], 2, 1, false), 1, &mut wires);
    // It was just being opened.
    engine.fail(ear, Failure { cause: Cause::Connect, reason: "no answer" }, 2, &mut wires);
    assert!(engine.is_retired(ear));
    wires.wanted.clear();
    engine.reload(0, pool(2, 1, false), 3, &mut wires);
    assert_eq!(wires.wanted, [ear], "what is listened to everywhere is listened to there again");
}
