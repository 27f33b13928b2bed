//! One memory budget for the process: as it fills, who holds most goes first, and nothing is sent that is not answered.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/engine.rs"]
#[allow(unreachable_pub, dead_code, reason = "shared with benchmarks")]
mod inner;
mod support;

use hotring::engine::Engine;
use hotring::engine::budget::Budget;
use inner::{Wires, request};
use std::sync::Arc;
use support::{Client, Hotring, Redis, eventually, pool, wire};

const MIB: usize = 1 << 20;
const REFUSED: &str =
    "-OOM command not allowed when hotring's memory budget ('max_memory') is used up; nothing was sent\r\n";

/// An engine with so many sessions and a budget of so many bytes.
fn engine(most: usize, sessions: usize) -> (Engine, Wires, Arc<Budget>) {
    let (mut engine, mut wires) = inner::engine(inner::pool(1, 1, false), sessions);
    let budget = Arc::new(Budget::new(Some(most as u64), 1));
    engine.budget_with(Arc::clone(&budget), 0);
    engine.tick(1, &mut wires);
    (engine, wires, budget)
}

fn ask(engine: &mut Engine, wires: &mut Wires, session: u32, line: &str) -> String {
    let bytes = request(line);
    assert_eq!(engine.submit(session, &bytes, 2, wires).consumed, bytes.len());
    engine.flush(wires);
    String::from_utf8(std::mem::take(&mut wires.apps[session as usize])).unwrap()
}

#[test]
fn without_room_requests_are_refused_and_nothing_is_sent() {
    let (mut engine, mut wires, budget) = engine(MIB, 3);
    assert_eq!(ask(&mut engine, &mut wires, 0, "GET k"), "");
    assert_eq!(ask(&mut engine, &mut wires, 1, "SUBSCRIBE c"), "");
    assert_eq!(ask(&mut engine, &mut wires, 2, "MULTI"), "+OK\r\n");
    engine.reply_buffer(0, 2 * MIB);
    engine.tick(3, &mut wires);
    assert!(budget.is_full() && budget.held() == engine.held());
    wires.shards.iter_mut().for_each(Vec::clear);
    for line in ["GET k", "SET k v", "MGET a b", "PUBLISH c m", "EVAL 1 0", "DBSIZE"] {
        assert_eq!(ask(&mut engine, &mut wires, 0, line), "", "the reply under way comes first");
    }
    assert_eq!(wires.shards.concat(), b"");
    engine.receive(0, b"$1\r\nv\r\n", 4, &mut wires).unwrap();
    engine.flush(&mut wires);
    assert_eq!(String::from_utf8_lossy(&wires.apps[0]), "$1\r\nv\r\n".to_owned() + &REFUSED.repeat(6));
    wires.apps[0].clear();
    assert_eq!(ask(&mut engine, &mut wires, 0, "PING"), "+PONG\r\n", "what adds nothing is answered");
    assert_eq!(ask(&mut engine, &mut wires, 0, "BLPOP l 0"), REFUSED);
    assert_eq!(ask(&mut engine, &mut wires, 0, "SUBSCRIBE d"), REFUSED);
    // A transaction is spoilt, as Redis has it.
    assert_eq!(ask(&mut engine, &mut wires, 2, "INCR k"), REFUSED);
    assert!(ask(&mut engine, &mut wires, 2, "EXEC").starts_with("-EXECABORT "));
    // A long argument is not begun, and is read away.
    let front = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2000000\r\n";
    assert_eq!(engine.submit(0, front, 5, &mut wires).consumed, front.len());
    engine.submit(0, &[b'x'; 2_000_000], 5, &mut wires);
    assert_eq!(ask(&mut engine, &mut wires, 0, "\r\n").split("\r\n").next().unwrap(), &REFUSED[..REFUSED.len() - 2]);
    assert_eq!(wires.shards.concat(), b"");
    let refused = engine.pool_counts(0).unwrap().errors[hotring::error::Cause::Memory];
    assert_eq!(refused, 10);
    engine.reply_buffer(2 * MIB, 0);
    engine.tick(6, &mut wires);
    assert_eq!(ask(&mut engine, &mut wires, 0, "GET k"), "");
    assert!(wires.shards.concat().ends_with(&request("GET k")));
}

#[test]
fn from_four_fifths_on_who_has_more_than_a_fair_share_waits() {
    let (mut engine, mut wires, _) = engine(10 * MIB, 2);
    assert!(engine.request_buffer(0, 7 * MIB), "there is room");
    assert!(engine.request_buffer(1, 2 * MIB), "less than a half");
    assert!(!engine.is_paused(0));
    engine.tick(2, &mut wires);
    assert!(engine.is_paused(0) && !engine.is_paused(1));
    assert!(engine.request_buffer(1, 2 * MIB + 100_000), "the other goes on");
    // The other's request is whole: there is room again.
    engine.request_buffer(1, 0);
    wires.woken.clear();
    engine.tick(3, &mut wires);
    assert!(!engine.is_paused(0) && wires.woken == [0]);
    assert!(engine.request_buffer(0, 7 * MIB + MIB / 2));
    assert!(!engine.request_buffer(0, 9 * MIB) && engine.is_paused(0), "it need not wait for the tick");
    assert!(!engine.is_over(0));
    engine.close(0, false, &mut wires);
    engine.tick(4, &mut wires);
    assert_eq!(engine.held(), 0);
}

#[test]
fn who_holds_most_is_closed_first_and_one_at_a_time() {
    let (mut engine, mut wires, budget) = engine(4 * MIB, 3);
    for (session, bytes) in [(0, MIB), (1, 3 * MIB), (2, 2 * MIB)] {
        engine.request_buffer(session, bytes);
    }
    engine.tick(2, &mut wires);
    engine.flush(&mut wires);
    assert_eq!([0, 1, 2].map(|id| engine.is_over(id)), [false, true, false]);
    engine.close(1, false, &mut wires);
    engine.tick(3, &mut wires);
    assert_eq!([0, 2].map(|id| engine.is_over(id)), [false, false], "there is room again");
    assert!(!budget.is_full());
    assert_eq!(engine.pool_counts(0).unwrap().client_closed[hotring::metrics::Closed::Memory], 1);
}

#[test]
fn an_app_that_does_not_read_is_closed_before_others_suffer_for_long() {
    let redis = Redis::start(&[]);
    let yaml = pool(&[redis.address()], &["max_output: 1gb", "^max_memory: 8mb", "^workers: 2"]);
    let hotring = Hotring::with_admin(&yaml);
    let mut others: Vec<Client> = (0..4).map(|_| hotring.app()).collect();
    assert_eq!(others[0].call(&["SET", "large", &"x".repeat(MIB)]), b"+OK\r\n");
    let mut slow = hotring.app();
    slow.send(&wire(&["GET", "large"]).repeat(200));
    eventually("it is closed", || {
        for other in &mut others {
            let said = other.ask("STRLEN large");
            assert!(said == ":1048576\r\n" || said == REFUSED, "{said}");
        }
        hotring.metric("hotring_client_closed_total{pool=\"main\",why=\"memory\"}") == 1.0
    });
    assert!(slow.rest().len() < 200 * MIB);
    eventually("others are served", || others.iter_mut().all(|other| other.ask("STRLEN large") == ":1048576\r\n"));
    eventually("nothing is held any more", || {
        ["0", "1"].iter().all(|n| hotring.metric(&format!("hotring_worker_memory_bytes{{worker=\"{n}\"}}")) < 2e6)
    });
    assert_eq!(hotring.metric("hotring_memory_limit_bytes"), 8.0 * MIB as f64);
}

#[test]
fn half_requests_of_many_apps_are_held_up_to_the_budget() {
    let redis = Redis::start(&[]);
    let hotring = Hotring::with_admin(&pool(&[redis.address()], &["^max_memory: 8mb"]));
    let mut fine = hotring.app();
    // Not passed on as it comes: it may be about several shards.
    let mut half = b"*3\r\n$4\r\nMSET\r\n$1\r\nk\r\n$4000000\r\n".to_vec();
    half.extend(vec![b'x'; 3_500_000]);
    let apps: Vec<Client> = (0..8).map(|_| hotring.app()).collect();
    let floods: Vec<_> = apps
        .iter()
        .map(|app| {
            let (mut writer, half) = (app.writer(), half.clone());
            // Who is closed does not take all of it.
            std::thread::spawn(move || drop(writer.try_send(&half)))
        })
        .collect();
    eventually("some are closed", || {
        let held = hotring.metric("hotring_worker_memory_bytes{worker=\"0\"}");
        assert!(held < 16.0 * MIB as f64, "{held}");
        assert_eq!(fine.ask("PING"), "+PONG\r\n");
        hotring.metric("hotring_client_closed_total{pool=\"main\",why=\"memory\"}") >= 1.0
    });
    drop(apps);
    floods.into_iter().for_each(|flood| flood.join().unwrap());
    eventually("the rest goes on", || fine.ask("SET k v") == "+OK\r\n");
}

#[test]
fn without_room_new_connections_are_refused() {
    let redis = Redis::start(&[]);
    let yaml = pool(&[redis.address()], &["^max_memory: 1mb", "timeout: off"]);
    let hotring = Hotring::with_admin(&yaml);
    let mut other = hotring.app();
    assert_eq!(other.ask("SET k v"), "+OK\r\n");
    redis.freeze();
    // What a frozen server does not take is held for it and cannot be given up.
    let some = wire(&["SET", "k", &"x".repeat(1000)]).repeat(100);
    let mut apps = Vec::new();
    eventually("all is used up", || {
        let mut app = hotring.app();
        // It may be refused.
        let _ = app.try_send(&some);
        apps.push(app);
        hotring.metric("hotring_server_in_queue_bytes{pool=\"main\",backend=\"s0\"}") > MIB as f64
    });
    assert_eq!(other.ask("GET k"), REFUSED);
    assert_eq!(hotring.app().rest(), REFUSED.as_bytes());
    assert_eq!(other.ask("PING"), "+PONG\r\n");
    redis.thaw();
    eventually("there is room again", || other.ask("STRLEN k") == ":1000\r\n");
    eventually("it is counted", || hotring.metric("hotring_client_refused_total{pool=\"main\"}") >= 1.0);
    assert_eq!(hotring.app().ask("PING"), "+PONG\r\n");
}
