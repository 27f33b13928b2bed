//! A value that was loaded before somebody else wrote or deleted its key, and is not written (`guard_stale_set`). At the level of
//! the engine, where time is an argument, and with real servers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/stand.rs"]
mod stand;
mod support;

use hotring::engine::{LineId, SessionId};
use hotring::stages::lease::{Lease, Wanted};
use stand::{MS, NIL, Stand, leases, pool, push};
use support::{Hotring, eventually, shards};

const OK: &str = "+OK\r\n";

fn wanted(lease: Lease) -> Wanted {
    Wanted { lease, guards: true, ..Wanted::default() }
}

fn stand(wanted: Wanted) -> Stand {
    let mut pool = pool(1, 1, false);
    pool.leases = leases("k", wanted);
    pool.misses = pool.leases.config().clone();
    Stand::of(pool, 6)
}

/// Session 0 has been told to load `k`.
fn loading(wanted: Wanted) -> Stand {
    let mut s = stand(wanted);
    s.miss(0);
    assert_eq!(s.app(0), NIL);
    s
}

/// Whether a write of a session is sent; if not it is answered OK.
fn sends(s: &mut Stand, session: SessionId, line: &str) -> bool {
    s.sent();
    s.ask(session, line);
    if s.sent() == line {
        s.answer(OK);
        assert_eq!(s.app(session), OK, "{line}");
        return true;
    }
    assert_eq!(s.app(session), OK, "{line}");
    false
}

fn writes(s: &mut Stand, session: SessionId, line: &str, reply: &str) {
    s.ask(session, line);
    s.answer(reply);
    s.app(session);
}

fn dropped(s: &mut Stand) -> u64 {
    s.engine.pool_counts(0).unwrap().stale_sets
}

#[test]
fn what_was_deleted_while_it_was_loaded_is_not_written() {
    for (line, reply) in [("DEL k", ":0\r\n"), ("UNLINK j k", ":1\r\n"), ("SET k new", OK), ("GETDEL k", NIL)] {
        let mut s = loading(wanted(Lease::Local));
        writes(&mut s, 1, line, reply);
        assert!(!sends(&mut s, 0, "SET k old EX 60"), "{line}");
        assert_eq!(dropped(&mut s), 1);
        assert!(sends(&mut s, 0, "SET k old EX 60"), "once");
        s.is_at_rest();
    }
}

#[test]
fn what_a_transaction_does_counts_and_what_a_script_may_do_does_not() {
    let mut s = loading(wanted(Lease::Local));
    s.ask(1, "MULTI");
    s.ask(1, "DEL k");
    let own = s.opened();
    assert_eq!(s.sent_on(own), "MULTI; DEL k");
    s.answer_on(own, "+OK\r\n+QUEUED\r\n");
    s.ask(1, "EXEC");
    assert_eq!(s.sent_on(own), "EXEC");
    s.answer_on(own, "*1\r\n:0\r\n");
    assert!(!sends(&mut s, 0, "SET k old"));
    let mut s = loading(wanted(Lease::Local));
    writes(&mut s, 1, "EVAL x 1 k", OK);
    assert!(sends(&mut s, 0, "SET k old"));
}

#[test]
fn from_when_it_is_sent() {
    let mut s = loading(wanted(Lease::Local));
    s.sent();
    s.ask(1, "DEL k");
    s.ask(0, "SET k old");
    assert_eq!((s.sent().as_str(), s.app(0).as_str()), ("DEL k", OK));
}

#[test]
fn without_it_or_without_that_it_is_written() {
    let mut s = loading(Wanted { guards: false, ..wanted(Lease::Local) });
    writes(&mut s, 1, "DEL k", ":0\r\n");
    assert!(sends(&mut s, 0, "SET k old"));
    let mut s = loading(wanted(Lease::Local));
    assert!(sends(&mut s, 0, "SET k old"));
    // Its own are no one else's.
    let mut s = loading(wanted(Lease::Local));
    writes(&mut s, 0, "DEL k", ":0\r\n");
    assert!(sends(&mut s, 0, "SET k old"));
    // Another's is not what was loaded, nor is that of who has not been told to.
    let mut s = loading(wanted(Lease::Local));
    writes(&mut s, 1, "DEL k", ":0\r\n");
    assert!(sends(&mut s, 2, "SET k new") && sends(&mut s, 1, "SET k new"));
    assert_eq!(dropped(&mut s), 0);
    // What changes no value deletes none.
    let mut s = loading(wanted(Lease::Local));
    writes(&mut s, 1, "EXPIRE k 60", ":0\r\n");
    assert!(sends(&mut s, 0, "SET k old"));
    // Threads that share a connection cannot be told from one another.
    let mut s = loading(Wanted { same_connection_waits: true, ..wanted(Lease::Local) });
    writes(&mut s, 1, "DEL k", ":0\r\n");
    assert!(sends(&mut s, 0, "SET k old"));
}

#[test]
fn what_is_answered_otherwise_than_ok_is_carried_out() {
    for line in ["SET k old NX", "SET k old GET EX 60", "SETNX k old", "APPEND k old", "HSET k f old"] {
        let mut s = loading(wanted(Lease::Local));
        writes(&mut s, 1, "DEL k", ":0\r\n");
        assert!(sends(&mut s, 0, line), "{line}");
    }
    for line in ["SETEX k 60 old", "PSETEX k 60 old", "set k old px 5"] {
        let mut s = loading(wanted(Lease::Local));
        writes(&mut s, 1, "DEL k", ":0\r\n");
        assert!(!sends(&mut s, 0, line), "{line}");
    }
    let mut s = loading(wanted(Lease::Local));
    writes(&mut s, 1, "DEL k", ":0\r\n");
    assert!(sends(&mut s, 0, "SET j old"), "another key");
}

#[test]
fn who_asks_again_loads_anew() {
    let mut s = loading(wanted(Lease::Local));
    writes(&mut s, 1, "DEL k", ":0\r\n");
    s.miss(0);
    assert_eq!(s.app(0), NIL);
    assert!(sends(&mut s, 0, "SET k new"));
    let mut s = loading(wanted(Lease::Local));
    writes(&mut s, 1, "SET k new", OK);
    s.ask(0, "GET k");
    s.answer("$3\r\nnew\r\n");
    s.app(0);
    assert!(sends(&mut s, 0, "SET k newer"));
    // But not once more than it was told to.
    let mut s = loading(wanted(Lease::Local));
    writes(&mut s, 1, "DEL k", ":0\r\n");
    s.miss(0);
    writes(&mut s, 1, "DEL k", ":0\r\n");
    s.app(0);
    assert!(!sends(&mut s, 0, "SET k old"));
}

#[test]
fn a_key_that_is_deleted_is_loaded_anew_by_who_waits() {
    let mut s = loading(wanted(Lease::Local));
    s.miss(1);
    s.miss(2);
    assert_eq!(s.app(1), "");
    writes(&mut s, 3, "DEL k", ":0\r\n");
    assert_eq!(s.sent(), "DEL k; GET k");
    s.answer(NIL);
    assert_eq!((s.app(1).as_str(), s.app(2).as_str()), (NIL, ""));
    assert!(!sends(&mut s, 0, "SET k old"), "it was told to before");
    assert_eq!(s.app(2), "");
    s.ask(1, "SET k new");
    assert_eq!(s.sent(), "SET k new");
    s.answer(OK);
    s.answer("$3\r\nnew\r\n");
    assert_eq!(s.app(2), "$3\r\nnew\r\n");
    s.app(1);
    s.is_at_rest();
}

#[test]
fn who_was_too_slow_does_not_overwrite_who_loaded_after_it() {
    let mut s = loading(wanted(Lease::Local));
    s.miss(1);
    s.tick(2_001 * MS);
    s.tick(1);
    assert_eq!(s.app(1), NIL, "its term is over");
    assert!(sends(&mut s, 1, "SET k new"));
    assert!(!sends(&mut s, 0, "SET k old"));
    // It is remembered for as long as the longest term.
    let mut s = loading(Wanted { longest_term: 1_000 * MS, ..wanted(Lease::Local) });
    writes(&mut s, 1, "DEL k", ":0\r\n");
    s.tick(1_001 * MS);
    assert!(sends(&mut s, 0, "SET k old"));
    for _ in 0..3 {
        s.tick(3_000 * MS);
    }
    s.is_at_rest();
}

struct Fleet {
    s: Stand,
    tracker: LineId,
}

impl Fleet {
    fn loading() -> Self {
        let mut s = stand(wanted(Lease::Fleet));
        s.tick(MS);
        let tracker = s.tracked();
        s.miss(0);
        s.sent_on(tracker);
        s.answer_on(tracker, "+OK\r\n+OK\r\n*2\r\n_\r\n$1\r\n0\r\n");
        assert_eq!(s.app(0), NIL);
        Self { s, tracker }
    }

    fn asked(&mut self) -> String {
        self.s.sent_on(self.tracker)
    }
}

#[test]
fn what_other_processes_write_or_delete_counts_when_it_is_heard() {
    for key in ["k", "hotring:lease:k"] {
        let mut f = Fleet::loading();
        f.s.answer_on(f.tracker, &push(key));
        assert!(!sends(&mut f.s, 0, "SET k old"), "{key}");
    }
    // A lease that is over by itself is nobody's delete.
    let mut f = Fleet::loading();
    f.s.now += 1_950 * MS;
    f.s.answer_on(f.tracker, &push("hotring:lease:k"));
    assert!(sends(&mut f.s, 0, "SET k old"));
}

#[test]
fn a_delete_is_told_to_the_other_processes() {
    let mut f = Fleet::loading();
    f.s.ask(1, "DEL k");
    assert_eq!((f.s.sent().as_str(), f.asked().as_str()), ("DEL k", "DEL hotring:lease:k"));
    f.s.answer_on(f.tracker, &format!("{}:1\r\n", push("hotring:lease:k")));
    f.s.answer(":0\r\n");
    assert!(!sends(&mut f.s, 0, "SET k old"));
    let mut f = Fleet::loading();
    f.s.ask(1, "SET k v");
    f.s.answer(OK);
    assert_eq!(f.asked(), "DEL hotring:lease:k", "given back, once");
}

const LINES: &str = "misses: {lease: LEASE, guard_stale_set: true}";

#[test]
fn with_a_real_server() {
    let (_redis, at) = shards(1);
    let hotring = Hotring::with_admin(&support::pool(&at, &["^workers: 2", &LINES.replace("LEASE", "local")]));
    let (mut holder, mut other) = (hotring.app(), hotring.app());
    assert_eq!(holder.ask("GET k"), NIL);
    assert_eq!((other.ask("DEL k"), holder.ask("SET k old")), (":0\r\n".to_owned(), OK.to_owned()));
    assert_eq!(other.ask("EXISTS k"), ":0\r\n");
    assert_eq!((holder.ask("GET k").as_str(), other.ask("SET k new").as_str()), (NIL, OK));
    assert_eq!((holder.ask("SET k old EX 60").as_str(), other.ask("GET k").as_str()), (OK, "$3\r\nnew\r\n"));
    eventually("they are counted", || hotring.metric("hotring_stale_sets_total{pool=\"main\"}") >= 2.0);
}

#[test]
fn in_a_fleet() {
    let (redis, at) = shards(1);
    let line = LINES.replace("LEASE", "fleet");
    let hotrings: Vec<_> = (0..2).map(|_| Hotring::with_admin(&support::pool(&at, &[&line]))).collect();
    let (mut holder, mut other, mut beside) = (hotrings[0].app(), hotrings[1].app(), redis[0].client());
    eventually("they hear of changes", || beside.ask("INFO clients").contains("tracking_clients:2"));
    let invalidations = || hotrings[0].metric("hotring_near_invalidations_total{pool=\"main\"}");
    for (line, reply) in [("DEL k", ":0\r\n"), ("SET k new", OK)] {
        assert_eq!(holder.ask("GET k"), NIL, "{line}");
        let before = invalidations();
        assert_eq!(other.ask(line), reply);
        eventually("it is heard", || invalidations() > before);
        assert_eq!(holder.ask("SET k old"), OK);
        assert_eq!(beside.ask("GET k"), if line == "DEL k" { NIL } else { "$3\r\nnew\r\n" });
    }
}
