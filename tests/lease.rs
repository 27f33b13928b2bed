//! Keys that are not there, at the level of the engine: who is told so, who waits, and what ends that. Time is an argument.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "lease/fleet.rs"]
mod fleet;
#[path = "lease/sessions.rs"]
mod sessions;
#[path = "lease/several.rs"]
mod several;
#[path = "support/stand.rs"]
mod stand;

use hotring::error::{Cause, Failure};
use hotring::stages::lease::{Config, Lease, Leases, Rule, Shared, Wanted};
use stand::{MS, NIL, Stand, pool, request};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

fn wanted(lease: Lease) -> Wanted {
    Wanted { lease, ..Wanted::default() }
}

/// One worker over one shard, whose keys that begin with `k` have leases; several share a table.
impl Stand {
    fn new(wanted: Wanted, sessions: usize) -> Self {
        Self::worker(wanted, sessions, &Arc::new(Shared::new()), 0)
    }

    fn worker(wanted: Wanted, sessions: usize, shared: &Arc<Shared>, worker: u16) -> Self {
        Self::over(1, wanted, sessions, shared, worker)
    }

    fn over(shards: u16, wanted: Wanted, sessions: usize, shared: &Arc<Shared>, worker: u16) -> Self {
        let mut pool = pool(shards, 1, false);
        let config = Config::new(Wanted::default(), vec![Rule { prefix: b"k".as_slice().into(), wanted }]);
        pool.leases = Leases::new(Arc::new(config), Arc::clone(shared), worker);
        Self::of(pool, sessions)
    }

    fn local(sessions: usize) -> Self {
        Self::new(wanted(Lease::Local), sessions)
    }
}

#[test]
fn one_loads_and_the_others_get_what_it_writes() {
    let mut s = Stand::local(100);
    s.miss(0);
    assert_eq!(s.app(0), NIL);
    for session in 1..100 {
        s.miss(session);
        assert_eq!(s.app(session), "");
    }
    s.ask(0, "SET k v");
    assert_eq!(s.sent(), "SET k v");
    s.answer("+OK\r\n");
    assert_eq!(s.app(0), "+OK\r\n", "a write waits for nothing");
    assert_eq!(s.sent(), "GET k", "one read for all");
    s.answer("$1\r\nv\r\n");
    for session in 1..100 {
        assert_eq!(s.app(session), "$1\r\nv\r\n");
    }
    let counts = s.engine.pool_counts(0).unwrap();
    assert_eq!((counts.misses_leased, counts.lease_waits, counts.lease_waits_saved, counts.stampedes), (1, 99, 99, 1));
    assert_eq!((counts.lease_timeouts, counts.lease_holder_deaths, counts.lease_reads), (0, 0, 1));
    s.is_at_rest();
}

#[test]
fn a_hit_is_a_hit_and_other_keys_have_no_lease() {
    let mut s = Stand::local(2);
    s.ask(0, "GET k");
    s.sent();
    s.answer("$1\r\nv\r\n");
    assert_eq!(s.app(0), "$1\r\nv\r\n");
    for session in [0, 1] {
        s.ask(session, "GET j");
        s.answer(NIL);
        assert_eq!(s.app(session), NIL);
    }
    for (line, nil) in [("STRLEN k", ":0\r\n"), ("EXISTS k", ":0\r\n"), ("HGET k f", NIL)] {
        s.miss(0);
        s.app(0);
        s.ask(1, line);
        s.answer(nil);
        assert_eq!(s.app(1), nil, "{line}");
    }
    assert_eq!(s.engine.pool_counts(0).unwrap().lease_waits, 0);
}

#[test]
fn whoever_waits_is_read_on_and_answered_in_order() {
    let mut s = Stand::local(2);
    s.miss(0);
    s.send(1, &[request("GET k"), request("SET j 1"), request("GET j")].concat());
    s.sent();
    s.answer("$-1\r\n+OK\r\n$1\r\n1\r\n");
    assert_eq!(s.app(1), "");
    s.ask(0, "SET k v");
    s.answer("+OK\r\n");
    s.answer("$1\r\nv\r\n");
    assert_eq!(s.app(1), "$1\r\nv\r\n+OK\r\n$1\r\n1\r\n");
    s.is_at_rest();
}

#[test]
fn a_read_is_not_told_of_what_its_session_writes_behind_it() {
    for write in ["SET k 2", "MSET j 1 k 2", "EVAL x 0"] {
        let mut s = Stand::local(2);
        s.miss(0);
        s.miss(1);
        assert_eq!(s.app(1), "");
        s.ask(1, write);
        assert_eq!(s.app(1), NIL, "{write}");
        s.answer("+OK\r\n");
        assert_eq!(s.app(1), "+OK\r\n");
        s.is_at_rest();
    }
}

#[test]
fn two_reads_of_a_session_do_not_go_back_in_time() {
    let mut s = Stand::local(2);
    s.miss(0);
    s.miss(1);
    s.ask(1, "GET k");
    s.answer("$3\r\nnew\r\n");
    assert_eq!(s.app(1), "$3\r\nnew\r\n$3\r\nnew\r\n");
    s.is_at_rest();
}

#[test]
fn who_writes_beside_hotring_is_noticed_by_the_next_read() {
    let mut s = Stand::local(3);
    s.miss(0);
    s.miss(1);
    s.ask(2, "GET k");
    s.sent();
    s.answer("$1\r\nv\r\n");
    assert_eq!(s.app(2), "$1\r\nv\r\n");
    assert_eq!(s.sent(), "GET k");
    s.answer("$1\r\nv\r\n");
    assert_eq!(s.app(1), "$1\r\nv\r\n");
    s.is_at_rest();
}

#[test]
fn when_the_one_who_loads_is_gone_the_oldest_loads() {
    let mut s = Stand::local(4);
    (0..4).for_each(|session| s.miss(session));
    s.close(0);
    assert_eq!((s.app(1).as_str(), s.app(2).as_str(), s.app(3).as_str()), (NIL, "", ""));
    s.close(2);
    s.ask(1, "SET k v");
    s.answer("+OK\r\n");
    s.answer("$1\r\nv\r\n");
    assert_eq!(s.app(3), "$1\r\nv\r\n");
    let counts = s.engine.pool_counts(0).unwrap();
    assert_eq!((counts.lease_holder_deaths, counts.misses_leased, counts.lease_waits_saved), (1, 2, 1));
    s.is_at_rest();
}

#[test]
fn when_the_process_or_the_pool_ends_nobody_waits() {
    for all in [true, false] {
        let mut s = Stand::local(3);
        (0..3).for_each(|session| s.miss(session));
        s.sent();
        s.ask(2, "MGET k l");
        s.answer("*2\r\n$-1\r\n$1\r\nl\r\n");
        if all {
            s.engine.finish_all(&mut s.wires);
        } else {
            s.engine.finish_pool(0, &mut s.wires);
        }
        s.engine.flush(&mut s.wires);
        assert_eq!((s.app(1).as_str(), s.app(2)), (NIL, format!("{NIL}*2\r\n$-1\r\n$1\r\nl\r\n")));
        assert!((0..3).all(|session| s.engine.is_over(session)));
        s.is_at_rest();
    }
}

#[test]
fn who_waits_in_vain_is_told_so_one_by_one_and_nobody_waits_twice_as_long() {
    let mut s = Stand::local(12);
    (0..12).for_each(|session| s.miss(session));
    assert_eq!(s.app(0), NIL);
    s.tick(290 * MS);
    assert!((1..12).all(|session| s.app(session).is_empty()));
    s.tick(20 * MS);
    assert_eq!((1..12).filter(|&session| !s.app(session).is_empty()).count(), 1, "one");
    s.tick(100 * MS);
    assert_eq!((1..12).filter(|&session| !s.app(session).is_empty()).count(), 0, "not before a load's time");
    s.tick(60 * MS);
    assert_eq!((1..12).filter(|&session| !s.app(session).is_empty()).count(), 1);
    s.tick(140 * MS);
    assert_eq!((1..12).filter(|&session| s.app(session) == NIL).count(), 9, "all who have waited twice as long");
    assert_eq!(s.engine.pool_counts(0).unwrap().lease_timeouts, 11);
    s.is_at_rest();
}

#[test]
fn waits_follow_how_long_loading_takes() {
    let mut s = Stand::local(3);
    s.miss(0);
    s.now += 400 * MS;
    s.ask(0, "SET k v");
    s.answer("+OK\r\n");
    s.now += 3_000 * MS;
    s.app(0);
    s.miss(0);
    s.miss(1);
    s.tick(780 * MS);
    assert_eq!(s.app(1), "", "twice 400 ms");
    s.tick(30 * MS);
    assert_eq!(s.app(1), NIL);
}

#[test]
fn keys_that_nobody_writes_are_asked_for_without_leases() {
    let mut s = Stand::local(3);
    for _ in 0..2 {
        s.miss(0);
        s.miss(1);
        s.app(0);
        s.tick(2_100 * MS);
        s.tick(1_000 * MS);
        s.app(0);
        s.app(1);
        s.tick(2_100 * MS);
    }
    for session in [0, 1, 2] {
        s.miss(session);
        assert_eq!(s.app(session), NIL);
    }
    s.is_at_rest();
    s.tick(31_000 * MS);
    s.miss(0);
    s.miss(1);
    assert_eq!((s.app(0).as_str(), s.app(1).as_str()), (NIL, ""), "after a while they are tried again");
}

#[test]
fn a_nil_that_is_older_than_the_write_makes_nobody_load() {
    let shared = Arc::new(Shared::new());
    let mut a = Stand::worker(wanted(Lease::Local), 2, &shared, 0);
    let mut b = Stand::worker(wanted(Lease::Local), 2, &shared, 1);
    a.miss(0);
    // The other worker's question is answered before the write, and its answer takes longer.
    b.ask(0, "GET k");
    b.sent();
    a.now += 1_000;
    a.ask(0, "SET k v");
    a.answer("+OK\r\n");
    b.now = a.now;
    b.answer(NIL);
    assert_eq!((b.app(0).as_str(), b.sent().as_str()), ("", "GET k"));
    b.answer("$1\r\nv\r\n");
    assert_eq!(b.app(0), "$1\r\nv\r\n");
    a.is_at_rest();
    b.is_at_rest();
}

#[test]
fn all_workers_share_one_lease() {
    let shared = Arc::new(Shared::new());
    let rung = Arc::new(AtomicU32::new(0));
    let mut a = Stand::worker(wanted(Lease::Local), 3, &shared, 0);
    let mut b = Stand::worker(wanted(Lease::Local), 3, &shared, 1);
    let bell = Arc::clone(&rung);
    b.engine.wake_by(Arc::new(move || _ = bell.fetch_add(1, Ordering::SeqCst)));
    a.miss(0);
    a.miss(1);
    (0..3).for_each(|session| b.miss(session));
    assert_eq!((a.app(0).as_str(), b.app(0).as_str()), (NIL, ""));
    a.ask(0, "SET k v");
    a.answer("+OK\r\n");
    assert_eq!(rung.load(Ordering::SeqCst), 1);
    b.orders();
    assert_eq!((a.sent().as_str(), b.sent().as_str()), ("SET k v; GET k", "GET k"), "one read a worker");
    a.answer("$1\r\nv\r\n");
    b.answer("$1\r\nv\r\n");
    assert_eq!(a.app(1), "$1\r\nv\r\n");
    assert!((0..3).all(|session| b.app(session) == "$1\r\nv\r\n"));
    // And whose turn it is passes from one to the other.
    (a.now, b.now) = (a.now + MS, a.now + MS);
    b.miss(0);
    a.miss(0);
    b.close(0);
    a.orders();
    assert_eq!(a.app(0), "+OK\r\n".to_owned() + NIL);
    a.is_at_rest();
    b.is_at_rest();
}

#[test]
fn what_takes_keys_away_ends_no_term() {
    let mut s = Stand::local(3);
    s.miss(0);
    s.ask(2, "DEL k");
    s.answer(":0\r\n");
    s.miss(1);
    assert_eq!(s.app(1), "");
    s.ask(2, "DEL k");
    s.answer(":0\r\n");
    s.answer(NIL);
    s.ask(0, "SET k v");
    s.answer("+OK\r\n");
    s.answer("$1\r\nv\r\n");
    assert_eq!(s.app(1), "$1\r\nv\r\n");
    s.is_at_rest();
}

#[test]
fn what_is_written_while_a_key_is_read_again_is_read_after_that() {
    let mut s = Stand::local(3);
    s.miss(0);
    s.miss(1);
    s.ask(2, "DEL k");
    s.answer(":0\r\n");
    s.ask(0, "SET k v");
    assert_eq!(s.sent(), "DEL k; GET k; SET k v");
    s.answer("$-1\r\n+OK\r\n");
    assert_eq!(s.sent(), "GET k", "the first one came before the write");
    s.answer("$1\r\nv\r\n");
    assert_eq!(s.app(1), "$1\r\nv\r\n");
    // And where both come in the other order on another connection.
    let mut s = Stand::local(3);
    s.miss(0);
    s.miss(1);
    s.ask(2, "MULTI");
    s.ask(2, "SET k v");
    let own = s.wires.wanted.pop().unwrap();
    s.engine.connected(own, s.now);
    s.engine.flush(&mut s.wires);
    s.answer_on(own, "+OK\r\n+QUEUED\r\n");
    s.ask(0, "DEL k");
    s.answer(":0\r\n");
    s.sent();
    s.ask(2, "EXEC");
    s.answer_on(own, "*1\r\n+OK\r\n");
    s.answer(NIL);
    assert_eq!(s.sent(), "GET k", "it was asked for before");
    s.answer("$1\r\nv\r\n");
    assert_eq!(s.app(1), "$1\r\nv\r\n");
    s.is_at_rest();
}

#[test]
fn a_write_that_fails_ends_no_term() {
    let mut s = Stand::local(2);
    s.miss(0);
    s.miss(1);
    s.sent();
    s.ask(0, "SET k v");
    s.answer("-OOM command not allowed\r\n");
    assert_eq!(s.sent(), "SET k v");
    assert_eq!(s.app(1), "");
}

#[test]
fn when_the_shard_is_lost_the_wait_ends_in_its_time() {
    let mut s = Stand::local(2);
    s.miss(0);
    s.miss(1);
    s.ask(0, "SET k v");
    let lost = Failure { cause: Cause::Lost, reason: "reset" };
    s.engine.fail(s.line, lost, s.now, &mut s.wires);
    s.engine.flush(&mut s.wires);
    assert_eq!(s.app(1), "");
    s.sent();
    s.engine.connected(s.line, s.now);
    s.tick(30 * MS);
    assert_eq!(s.sent(), "GET k", "it may have been written");
    s.engine.fail(s.line, lost, s.now, &mut s.wires);
    s.tick(300 * MS);
    assert_eq!(s.app(1), NIL);
    s.is_at_rest();
}

#[test]
fn what_is_observed_waits_for_nobody() {
    let mut s = Stand::new(wanted(Lease::Observe), 5);
    for session in 0..5 {
        s.miss(session);
        assert_eq!(s.app(session), NIL);
    }
    s.ask(0, "SET k v");
    s.answer("+OK\r\n");
    let counts = s.engine.pool_counts(0).unwrap();
    assert_eq!((counts.lease_observed, counts.stampedes, counts.lease_waits), (4, 1, 0));
    let worst = s.engine.take_worst_miss(0).unwrap();
    assert_eq!((&*worst.name, worst.herd), (&b"k"[..], 4));
    assert_eq!(s.engine.take_worst_miss(0), None);
    s.is_at_rest();
}
