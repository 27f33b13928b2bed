//! Keys that are not there, at the level of the engine: who is told so, who waits, and what ends that. Time is an argument.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/engine.rs"]
#[allow(unreachable_pub, dead_code, reason = "other tests use the rest")]
mod support;

use hotring::acl::{Account, Users};
use hotring::engine::{Engine, LineId, SessionId};
use hotring::error::{Cause, Failure};
use hotring::stages::Hot;
use hotring::stages::hot::{Means, Reads};
use hotring::stages::lease::{Config, Lease, Leases, Rule, Shared, Wanted};
use hotring::units::Secret;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use support::{Wires, engine, pool, request};

const MS: u64 = 1_000;
const NIL: &str = "$-1\r\n";

fn wanted(lease: Lease) -> Wanted {
    Wanted { lease, ..Wanted::default() }
}

/// One worker over one shard; several share a table.
struct Stand {
    engine: Engine,
    wires: Wires,
    now: u64,
    /// The connection that requests take.
    line: LineId,
}

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
        let (engine, wires) = engine(pool, sessions);
        Self { engine, wires, now: 1_000_000, line: 0 }
    }

    fn local(sessions: usize) -> Self {
        Self::new(wanted(Lease::Local), sessions)
    }

    fn ask(&mut self, session: SessionId, line: &str) {
        self.send(session, &request(line));
    }

    fn send(&mut self, session: SessionId, bytes: &[u8]) {
        self.now += 10;
        let submitted = self.engine.submit(session, bytes, self.now, &mut self.wires);
        assert_eq!(submitted.consumed, bytes.len());
        self.engine.flush(&mut self.wires);
    }

    fn answer(&mut self, reply: &str) {
        self.answer_on(self.line, reply);
    }

    fn answer_on(&mut self, line: LineId, reply: &str) {
        self.now += 10;
        let used = self.engine.receive(line, reply.as_bytes(), self.now, &mut self.wires).unwrap();
        assert_eq!(used.0, reply.len());
        self.engine.flush(&mut self.wires);
    }

    /// A session's `GET k` finds nothing.
    fn miss(&mut self, session: SessionId) {
        self.sent();
        self.ask(session, "GET k");
        assert_eq!(self.sent(), "GET k");
        self.answer(NIL);
    }

    fn app(&mut self, session: SessionId) -> String {
        String::from_utf8(std::mem::take(&mut self.wires.apps[session as usize])).unwrap()
    }

    /// The words of what the shard was sent since.
    fn sent(&mut self) -> String {
        self.sent_on(self.line)
    }

    fn sent_on(&mut self, line: LineId) -> String {
        let bytes = std::mem::take(&mut self.wires.shards[line as usize]);
        let text = String::from_utf8(bytes).unwrap();
        let mut words = Vec::new();
        for line in text.split("\r\n").filter(|line| !line.starts_with('$') && !line.is_empty()) {
            words.push(if line.starts_with('*') { "|" } else { line });
        }
        words.join(" ").trim_start_matches("| ").replace(" | ", "; ")
    }

    fn tick(&mut self, span: u64) {
        self.now += span;
        let overdue = self.engine.tick(self.now, &mut self.wires);
        assert!(overdue.is_empty());
        self.engine.flush(&mut self.wires);
    }

    fn orders(&mut self) {
        self.engine.take_orders(self.now);
        self.engine.flush(&mut self.wires);
    }

    fn close(&mut self, session: SessionId) {
        self.engine.close(session, false, &mut self.wires);
        self.engine.flush(&mut self.wires);
    }

    /// Nothing is left of what was.
    fn is_at_rest(&mut self) {
        let held = self.engine.holdings();
        assert_eq!((held.waits, held.arrays, held.errands, self.engine.in_flight()), (0, 0, 0, 0));
        assert_eq!(self.engine.pool_counts(0).unwrap().lease_waiting.get(), 0);
        assert_eq!(self.engine.pool_counts(0).unwrap().requests_pending.get(), 0);
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
fn sessions_that_load_do_not_wait() {
    let mut s = Stand::local(2);
    s.ask(0, "GET k1");
    s.answer(NIL);
    s.ask(1, "GET k2");
    s.answer(NIL);
    s.ask(0, "GET k2");
    s.answer(NIL);
    s.ask(1, "GET k1");
    s.answer(NIL);
    s.ask(1, "GET k2");
    s.answer(NIL);
    assert_eq!((s.app(0), s.app(1)), (NIL.repeat(2), NIL.repeat(3)));
    s.is_at_rest();
}

#[test]
fn whoever_comes_to_load_one_key_waits_for_no_other() {
    let mut s = Stand::local(3);
    s.ask(0, "GET k1");
    s.answer(NIL);
    s.ask(1, "GET k1");
    s.answer(NIL);
    assert_eq!(s.app(1), "");
    s.ask(1, "GET k2");
    s.answer(NIL);
    assert_eq!(s.app(1), NIL.repeat(2));
    s.is_at_rest();
}

#[test]
fn several_keys_in_any_order_never_lock_each_other() {
    let mut s = Stand::local(2);
    s.ask(0, "MGET k1 k2");
    s.answer("*2\r\n$-1\r\n$-1\r\n");
    assert_eq!(s.app(0), "*2\r\n$-1\r\n$-1\r\n", "it loads both");
    s.ask(1, "MGET k2 j k1");
    s.answer("*3\r\n$-1\r\n$1\r\nj\r\n$-1\r\n");
    assert_eq!(s.app(1), "");
    s.sent();
    s.ask(0, "SET k1 a");
    s.answer("+OK\r\n");
    assert_eq!(s.sent(), "SET k1 a; GET k1");
    s.answer("$1\r\na\r\n");
    assert_eq!(s.app(1), "");
    s.ask(0, "SET k2 b");
    s.answer("+OK\r\n");
    s.answer("$1\r\nb\r\n");
    assert_eq!(s.app(1), "*3\r\n$1\r\nb\r\n$1\r\nj\r\n$1\r\na\r\n");
    s.is_at_rest();
}

#[test]
fn an_array_that_loads_one_waits_for_none() {
    let mut s = Stand::local(2);
    s.ask(0, "GET k1");
    s.answer(NIL);
    s.ask(1, "MGET k1 k2");
    s.answer("*2\r\n$-1\r\n$-1\r\n");
    assert_eq!(s.app(1), "*2\r\n$-1\r\n$-1\r\n");
    s.is_at_rest();
}

#[test]
fn an_array_over_several_shards_waits_too() {
    let shared = Arc::new(Shared::new());
    let mut s = Stand::over(2, wanted(Lease::Local), 2, &shared, 0);
    let (a, b) = (support::key_on(&s.engine, 0), support::key_on(&s.engine, 1));
    s.ask(0, &format!("GET {a}"));
    s.answer_on(0, NIL);
    s.ask(1, &format!("MGET {b} {a}"));
    s.answer_on(0, "*1\r\n$-1\r\n");
    s.answer_on(1, "*1\r\n$1\r\nb\r\n");
    assert_eq!(s.app(1), "");
    s.ask(0, &format!("SET {a} 1"));
    s.answer_on(0, "+OK\r\n");
    s.answer_on(0, "$1\r\n1\r\n");
    assert_eq!(s.app(1), "*2\r\n$1\r\nb\r\n$1\r\n1\r\n");
    s.is_at_rest();
}

#[test]
fn an_array_whose_session_is_gone_is_forgotten() {
    let mut s = Stand::local(2);
    s.ask(0, "MGET k1 k2");
    s.answer("*2\r\n$-1\r\n$-1\r\n");
    s.ask(1, "MGET k1 k2");
    s.answer("*2\r\n$-1\r\n$-1\r\n");
    s.ask(0, "MGET k1 k2");
    s.close(1);
    s.close(0);
    s.answer("*2\r\n$-1\r\n$-1\r\n");
    assert_eq!(s.engine.holdings().arrays, 0);
    s.is_at_rest();
}

#[test]
fn those_who_must_not_wait_do_not() {
    let mut s = Stand::local(4);
    s.miss(0);
    s.ask(1, "CLIENT REPLY OFF");
    s.ask(1, "GET k");
    s.answer(NIL);
    s.ask(2, "MULTI");
    s.ask(2, "GET k");
    let own = s.wires.wanted.pop().unwrap();
    s.engine.connected(own, s.now);
    s.engine.flush(&mut s.wires);
    s.answer_on(own, "+OK\r\n+QUEUED\r\n");
    s.ask(2, "EXEC");
    s.answer_on(own, "*1\r\n$-1\r\n");
    assert_eq!(s.app(2), "+OK\r\n+QUEUED\r\n*1\r\n$-1\r\n");
    let strict = s.engine.open_strict(0);
    s.wires.apps.push(Vec::new());
    s.ask(strict, "GET k");
    s.answer(NIL);
    assert_eq!(s.app(strict), NIL);
    assert_eq!(s.engine.pool_counts(0).unwrap().lease_waits, 0);
}

#[test]
fn what_a_transaction_writes_wakes_those_who_wait() {
    let mut s = Stand::local(3);
    s.miss(0);
    s.miss(1);
    s.ask(2, "MULTI");
    s.ask(2, "SET k v");
    let own = s.wires.wanted.pop().unwrap();
    s.engine.connected(own, s.now);
    s.engine.flush(&mut s.wires);
    s.answer_on(own, "+OK\r\n+QUEUED\r\n");
    assert_eq!(s.sent(), "", "nothing has happened yet");
    s.ask(2, "EXEC");
    s.answer_on(own, "*1\r\n+OK\r\n");
    assert_eq!(s.sent(), "GET k");
    s.answer("$1\r\nv\r\n");
    assert_eq!(s.app(1), "$1\r\nv\r\n");
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

#[test]
fn one_connection_for_many_threads_waits_where_that_is_wanted() {
    let mut s = Stand::new(Wanted { same_connection_waits: true, ..wanted(Lease::Local) }, 1);
    s.send(0, &request("GET k").repeat(50));
    s.answer(&NIL.repeat(50));
    assert_eq!(s.app(0), NIL);
    s.sent();
    s.ask(0, "SET k v");
    s.answer("+OK\r\n");
    assert_eq!((s.app(0).as_str(), s.sent().as_str()), ("", "SET k v; GET k"));
    s.tick(MS);
    s.tick(5 * MS);
    s.answer("$1\r\nv\r\n");
    assert_eq!(s.app(0), "$1\r\nv\r\n".repeat(49) + "+OK\r\n");
    s.is_at_rest();
}

#[test]
fn users_who_may_not_write_hold_nothing() {
    let user = |name: &str, rules: &str| Account {
        name: name.into(),
        passwords: vec![Secret::new("pass")],
        nopass: false,
        rules: format!("on {rules}"),
        read_only: false,
    };
    let mut pool = pool(1, 1, false);
    let config = Config::new(wanted(Lease::Local), Vec::new());
    pool.leases = Leases::new(Arc::new(config), Arc::new(Shared::new()), 0);
    pool.users = Arc::new(Users::new(&[user("r", "~* +@read"), user("w", "~* +@all")], None).unwrap());
    let (engine, wires) = engine(pool, 3);
    let mut s = Stand { engine, wires, now: 1_000_000, line: 0 };
    for (session, name) in [(0, "r"), (1, "w"), (2, "w")] {
        s.ask(session, &format!("AUTH {name} pass"));
        assert_eq!(s.app(session), "+OK\r\n");
    }
    (0..3).for_each(|session| s.miss(session));
    assert_eq!((s.app(0).as_str(), s.app(1).as_str(), s.app(2).as_str()), (NIL, NIL, ""));
}

#[test]
fn keys_that_are_kept_in_memory_have_leases_too() {
    let mut pool = pool(1, 1, false);
    let config = Config::new(wanted(Lease::Local), Vec::new());
    pool.leases = Leases::new(Arc::new(config), Arc::new(Shared::new()), 0);
    let hot = hotring::stages::hot::Config { reads: Reads::Near, ..Default::default() };
    pool.path.hot = Hot::new(hot, 7, Default::default());
    let (engine, wires) = engine(pool, 4);
    let mut s = Stand { engine, wires, now: 1_000_000, line: 0 };
    s.engine.path_mut(0).unwrap().hot.enter(b"k", 0, Means::Near, 0);
    s.miss(0);
    assert_eq!(s.app(0), NIL);
    let tracker = s.wires.wanted.pop().unwrap();
    s.engine.connected(tracker, s.now);
    s.engine.flush(&mut s.wires);
    s.sent_on(tracker);
    s.answer_on(tracker, "+OK\r\n");
    s.now += 10 * MS;
    // What is read to be kept is nil: whoever joined that waits.
    s.sent();
    s.ask(1, "GET k");
    assert_eq!((s.sent().as_str(), s.sent_on(tracker).as_str()), ("", "CLIENT CACHING YES; GET k; PTTL k"));
    s.answer_on(tracker, "+OK\r\n_\r\n:-2\r\n");
    assert_eq!(s.app(1), "");
    // That there is nothing is kept, and yet nobody is told so from memory.
    s.miss(2);
    assert_eq!(s.app(2), "");
    s.ask(0, "SET k v");
    s.answer("+OK\r\n");
    s.answer("$1\r\nv\r\n");
    assert_eq!((s.app(1).as_str(), s.app(2).as_str()), ("$1\r\nv\r\n", "$1\r\nv\r\n"));
    s.is_at_rest();
}

struct Fleet {
    stand: Stand,
    tracker: LineId,
}

const LEASE: &str = "SET hotring:lease:k 0 NX PX 2000; CLIENT CACHING YES; MGET k hotring:lease:k";

impl Fleet {
    fn new() -> Self {
        let mut stand = Stand::new(wanted(Lease::Fleet), 4);
        stand.tick(MS);
        let tracker = stand.wires.wanted.pop().unwrap();
        stand.engine.connected(tracker, stand.now);
        stand.engine.flush(&mut stand.wires);
        assert_eq!(stand.sent_on(tracker), "CLIENT TRACKING ON OPTIN");
        stand.answer_on(tracker, "+OK\r\n");
        Self { stand, tracker }
    }

    /// Somebody misses `k`; the lease key is asked for, with this outcome.
    fn claims(&mut self, session: SessionId, reply: &str) {
        self.stand.miss(session);
        assert_eq!(self.stand.sent_on(self.tracker), LEASE);
        self.tracked(reply);
    }

    fn tracked(&mut self, reply: &str) {
        self.stand.answer_on(self.tracker, reply);
    }

    fn asked(&mut self) -> String {
        self.stand.sent_on(self.tracker)
    }
}

const READ: &str = "CLIENT CACHING YES; GET k";
const WON: &str = "+OK\r\n+OK\r\n*2\r\n_\r\n$1\r\n0\r\n";
const LOST: &str = "_\r\n+OK\r\n*2\r\n_\r\n$1\r\n9\r\n";

fn push(key: &str) -> String {
    format!(">2\r\n$10\r\ninvalidate\r\n*1\r\n${}\r\n{key}\r\n", key.len())
}

#[test]
fn the_process_that_wins_loads_and_gives_the_lease_back() {
    let mut f = Fleet::new();
    f.claims(0, WON);
    assert_eq!(f.stand.app(0), NIL);
    f.stand.miss(1);
    assert_eq!((f.stand.app(1).as_str(), f.asked().as_str()), ("", ""), "asked for once");
    f.stand.ask(0, "SET k v");
    f.stand.answer("+OK\r\n");
    assert_eq!(f.asked(), READ);
    f.tracked(&push("k"));
    f.tracked("+OK\r\n$1\r\nv\r\n");
    assert_eq!((f.stand.app(1).as_str(), f.asked().as_str()), ("$1\r\nv\r\n", "DEL hotring:lease:k"));
    f.tracked(":1\r\n");
    f.tracked(&push("hotring:lease:k"));
    assert_eq!(f.asked(), "");
    f.stand.is_at_rest();
}

#[test]
fn the_others_wait_until_their_shard_tells_of_the_key() {
    let mut f = Fleet::new();
    f.claims(0, LOST);
    f.stand.miss(1);
    assert_eq!((f.stand.app(0) + &f.stand.app(1)).as_str(), "");
    f.tracked(&push("k"));
    assert_eq!(f.asked(), READ);
    f.tracked(&push("hotring:lease:k"));
    assert_eq!(f.asked(), "", "what is being read tells more");
    f.tracked("+OK\r\n$1\r\nv\r\n");
    assert_eq!((f.stand.app(0).as_str(), f.stand.app(1).as_str()), ("$1\r\nv\r\n", "$1\r\nv\r\n"));
    f.stand.is_at_rest();
}

#[test]
fn a_lease_that_is_given_back_is_asked_for_again() {
    let mut f = Fleet::new();
    f.claims(0, LOST);
    f.tracked(&push("hotring:lease:k"));
    assert_eq!(f.asked(), LEASE);
    f.tracked(WON);
    assert_eq!(f.stand.app(0), NIL);
    f.stand.miss(1);
    f.stand.close(0);
    assert_eq!(f.asked(), format!("DEL hotring:lease:k; {LEASE}"), "its app is gone");
    f.tracked(&(":1\r\n".to_owned() + LOST));
    assert_eq!(f.stand.app(1), "", "another process was faster");
    // It had been given back just before it was looked at.
    f.tracked(&push("hotring:lease:k"));
    f.tracked("_\r\n+OK\r\n*2\r\n_\r\n_\r\n");
    assert_eq!(f.asked(), format!("{LEASE}; {LEASE}"));
    f.tracked("+OK\r\n+OK\r\n*2\r\n$1\r\nv\r\n$1\r\n0\r\n");
    assert_eq!(f.asked(), format!("DEL hotring:lease:k; {READ}"), "it was written meanwhile");
    f.tracked(":1\r\n+OK\r\n$1\r\nv\r\n");
    assert_eq!(f.stand.app(1), "$1\r\nv\r\n");
    f.stand.is_at_rest();
}

#[test]
fn without_news_from_the_shard_leases_are_of_the_process() {
    for reply in ["-NOPERM x\r\n+OK\r\n*2\r\n_\r\n_\r\n", "-OOM x\r\n+OK\r\n*2\r\n_\r\n_\r\n"] {
        let mut f = Fleet::new();
        f.claims(0, reply);
        f.stand.miss(1);
        assert_eq!((f.stand.app(0).as_str(), f.stand.app(1).as_str()), (NIL, ""));
    }
    // Not connected yet.
    let mut s = Stand::new(wanted(Lease::Fleet), 2);
    s.miss(0);
    s.miss(1);
    assert_eq!((s.app(0).as_str(), s.app(1).as_str()), (NIL, ""));
    // Refused.
    s.tick(MS);
    let tracker = s.wires.wanted.pop().unwrap();
    s.engine.connected(tracker, s.now);
    s.engine.flush(&mut s.wires);
    s.sent_on(tracker);
    s.answer_on(tracker, "-ERR unknown command\r\n");
    s.tick(MS);
    assert_eq!(s.engine.pool_counts(0).unwrap().lease_untracked.get(), 1);
}

#[test]
fn who_hears_nothing_any_more_asks_anew() {
    let mut f = Fleet::new();
    f.claims(0, LOST);
    f.tracked(">2\r\n$10\r\ninvalidate\r\n_\r\n");
    assert_eq!(f.asked(), LEASE, "all keys are gone, and so are leases");
    f.tracked(LOST);
    f.stand.miss(1);
    let lost = Failure { cause: Cause::Lost, reason: "reset" };
    f.stand.engine.fail(f.tracker, lost, f.stand.now, &mut f.stand.wires);
    f.stand.engine.flush(&mut f.stand.wires);
    assert_eq!((f.stand.app(0).as_str(), f.stand.app(1).as_str()), (NIL, ""), "as if it were alone");
    f.stand.ask(0, "SET k v");
    f.stand.answer("+OK\r\n");
    f.stand.answer("$1\r\nv\r\n");
    assert_eq!(f.stand.app(1), "$1\r\nv\r\n");
    f.stand.is_at_rest();
}

#[test]
fn an_array_of_a_fleet_loads_all_that_it_asks_for() {
    let mut f = Fleet::new();
    f.stand.ask(0, "MGET k1 k2");
    f.stand.answer("*2\r\n$-1\r\n$-1\r\n");
    f.tracked(WON);
    assert_eq!(f.stand.app(0), "*2\r\n$-1\r\n$-1\r\n");
    f.tracked(WON);
    f.stand.ask(1, "MGET k2 k1");
    f.stand.answer("*2\r\n$-1\r\n$-1\r\n");
    assert_eq!(f.stand.app(1), "");
    f.asked();
    f.stand.close(0);
    assert!(f.asked().contains("DEL hotring:lease:k1"), "both are given back");
}

#[test]
fn what_is_ready_behind_a_wait_ends_it_soon() {
    let mut s = Stand::new(Wanted { same_connection_waits: true, ..wanted(Lease::Local) }, 2);
    s.miss(0);
    s.send(0, &[request("GET k"), request("GET j")].concat());
    s.answer("$-1\r\n$1\r\nj\r\n");
    assert_eq!(s.app(0), NIL);
    s.tick(MS);
    assert_eq!(s.app(0), "");
    s.tick(2 * MS);
    assert_eq!(s.app(0), NIL.to_owned() + "$1\r\nj\r\n");
    s.is_at_rest();
}

#[test]
fn each_is_told_in_its_own_protocol() {
    let mut s = Stand::local(3);
    s.miss(0);
    s.ask(1, "HELLO 3");
    s.app(1);
    s.ask(1, "GET k");
    let line = (0..s.engine.line_count()).find(|&line| !s.wires.shards.get(line as usize).is_none_or(Vec::is_empty));
    let line = line.unwrap_or_else(|| {
        let wanted = s.wires.wanted.pop().unwrap();
        s.engine.connected(wanted, s.now);
        s.engine.flush(&mut s.wires);
        wanted
    });
    s.answer_on(line, "_\r\n");
    assert_eq!(s.app(1), "");
    s.tick(310 * MS);
    assert_eq!(s.app(1), "_\r\n");
}

#[test]
fn apps_that_all_speak_resp3_wake_those_who_wait() {
    let mut s = Stand::local(2);
    // As it is where nobody speaks RESP2: the connection for that is never opened.
    s.engine = Engine::new(1, 1);
    let mut pool = pool(1, 1, false);
    let config = Config::new(wanted(Lease::Local), Vec::new());
    pool.leases = Leases::new(Arc::new(config), Arc::new(Shared::new()), 0);
    let (pool, _) = s.engine.add_pool(pool);
    for session in 0..2 {
        assert_eq!(s.engine.open(pool), session);
        s.ask(session, "HELLO 3");
        s.app(session);
    }
    s.ask(0, "GET k");
    s.line = s.wires.wanted.pop().unwrap();
    s.engine.connected(s.line, s.now);
    s.engine.flush(&mut s.wires);
    s.answer("_\r\n");
    assert_eq!(s.app(0), "_\r\n");
    s.ask(1, "GET k");
    s.answer("_\r\n");
    s.sent();
    s.ask(0, "SET k v");
    s.answer("+OK\r\n");
    assert_eq!(s.sent(), "SET k v; GET k");
    s.answer("$1\r\nv\r\n");
    assert_eq!((s.app(0).as_str(), s.app(1).as_str()), ("+OK\r\n", "$1\r\nv\r\n"));
    s.is_at_rest();
}

#[test]
fn equal_reads_that_share_a_flight_are_one_load_too() {
    let mut pool = pool(1, 1, true);
    let config = Config::new(wanted(Lease::Local), Vec::new());
    pool.leases = Leases::new(Arc::new(config), Arc::new(Shared::new()), 0);
    let (engine, wires) = engine(pool, 5);
    let mut s = Stand { engine, wires, now: 1_000_000, line: 0 };
    for session in 0..5 {
        s.engine.submit(session, &request("GET k"), s.now, &mut s.wires);
    }
    s.engine.flush(&mut s.wires);
    assert_eq!(s.sent(), "GET k");
    s.answer(NIL);
    assert_eq!((0..5).filter(|&session| s.app(session) == NIL).count(), 1);
    s.ask(0, "SET k v");
    s.answer("+OK\r\n");
    s.answer("$1\r\nv\r\n");
    assert_eq!((0..5).filter(|&session| s.app(session).ends_with("$1\r\nv\r\n")).count(), 4);
    s.is_at_rest();
}
