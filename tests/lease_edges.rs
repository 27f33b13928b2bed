//! Keys that are not there, where much comes together: long requests, full windows, transactions, servers that refuse. Time is an
//! argument.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/engine.rs"]
#[allow(unreachable_pub, dead_code, reason = "other tests use the rest")]
mod support;

use hotring::engine::{Engine, LineId, PoolConfig, SessionId};
use hotring::stages::lease::{Config, Lease, Leases, Rule, Shared, Wanted};
use std::sync::Arc;
use support::{Wires, engine, pool, request};

const MS: u64 = 1_000;
const NIL: &str = "$-1\r\n";

/// One worker over one shard, whose keys that begin with `k` have leases.
struct Stand {
    engine: Engine,
    wires: Wires,
    now: u64,
}

/// A pool whose keys that begin with `k` have leases of this kind.
fn leased(lease: Lease, shared: &Arc<Shared>) -> PoolConfig {
    let mut pool = pool(1, 1, false);
    let wanted = Wanted { lease, ..Wanted::default() };
    let config = Config::new(Wanted::default(), vec![Rule { prefix: b"k".as_slice().into(), wanted }]);
    pool.leases = Leases::new(Arc::new(config), Arc::clone(shared), 0);
    pool.bounds.output = 64 * 1024;
    pool
}

impl Stand {
    fn new(lease: Lease, sessions: usize) -> Self {
        Self::of(leased(lease, &Arc::new(Shared::new())), sessions)
    }

    fn of(pool: PoolConfig, sessions: usize) -> Self {
        let (engine, wires) = engine(pool, sessions);
        Self { engine, wires, now: 1_000_000 }
    }

    fn send(&mut self, session: SessionId, bytes: &[u8]) {
        self.now += 10;
        let submitted = self.engine.submit(session, bytes, self.now, &mut self.wires);
        assert_eq!(submitted.consumed, bytes.len());
        self.engine.flush(&mut self.wires);
    }

    fn ask(&mut self, session: SessionId, line: &str) {
        self.send(session, &request(line));
    }

    fn answer_on(&mut self, line: LineId, reply: &str) {
        self.now += 10;
        let used = self.engine.receive(line, reply.as_bytes(), self.now, &mut self.wires).unwrap();
        assert_eq!(used.0, reply.len());
        self.engine.flush(&mut self.wires);
    }

    fn answer(&mut self, reply: &str) {
        self.answer_on(0, reply);
    }

    fn miss(&mut self, session: SessionId) {
        self.ask(session, "GET k");
        self.answer(NIL);
    }

    fn app(&mut self, session: SessionId) -> String {
        String::from_utf8(std::mem::take(&mut self.wires.apps[session as usize])).unwrap()
    }

    fn tick(&mut self, span: u64) {
        self.now += span;
        assert!(self.engine.tick(self.now, &mut self.wires).is_empty());
        self.engine.flush(&mut self.wires);
    }

    /// A connection that was asked for is open.
    fn opened(&mut self) -> LineId {
        let line = self.wires.wanted.pop().unwrap();
        self.engine.connected(line, self.now);
        self.engine.flush(&mut self.wires);
        line
    }

    /// What a connection was sent since, each request's words.
    fn sent_on(&mut self, line: LineId) -> String {
        let text = String::from_utf8(std::mem::take(&mut self.wires.shards[line as usize])).unwrap();
        let words = text.split("\r\n").filter(|line| !line.starts_with('$') && !line.is_empty());
        let words: Vec<&str> = words.map(|word| if word.starts_with('*') { "|" } else { word }).collect();
        words.join(" ")
    }

    fn is_at_rest(&mut self) {
        let held = self.engine.holdings();
        assert_eq!((held.waits, held.arrays, held.errands, self.engine.in_flight()), (0, 0, 0, 0));
        let counts = self.engine.pool_counts(0).unwrap();
        assert_eq!(
            (counts.lease_waiting.get(), counts.requests_pending.get(), counts.client_output_bytes.get()),
            (0, 0, 0)
        );
    }
}

fn bulk(length: usize) -> String {
    format!("${length}\r\n{}\r\n", "x".repeat(length))
}

#[test]
fn what_piles_up_behind_a_wait_ends_the_wait_and_not_the_session() {
    let mut s = Stand::new(Lease::Local, 2);
    s.miss(0);
    s.send(1, &[request("GET k"), request("GET j").repeat(20)].concat());
    s.answer(NIL);
    assert_eq!(s.app(1), "");
    for _ in 0..20 {
        // The app reads all that it is sent.
        s.answer(&bulk(8 * 1024));
        assert!(!s.engine.is_over(1), "it would have read them");
    }
    assert_eq!(s.app(1), NIL.to_owned() + &bulk(8 * 1024).repeat(20));
    s.is_at_rest();
}

#[test]
fn what_an_array_has_got_while_it_waits_counts_as_waiting() {
    let mut s = Stand::new(Lease::Local, 2);
    s.ask(0, "MGET k1 k2");
    s.answer("*2\r\n$-1\r\n$-1\r\n");
    s.ask(1, "MGET k1 k2");
    s.answer("*2\r\n$-1\r\n$-1\r\n");
    let before = s.engine.pool_counts(0).unwrap().client_output_bytes.get();
    s.app(0);
    s.ask(0, "SET k1 x");
    s.answer("+OK\r\n");
    s.answer(&bulk(5_000));
    let held = s.engine.pool_counts(0).unwrap().client_output_bytes.get() - before;
    assert!((5_000..6_000).contains(&held), "{held}");
    s.ask(0, "SET k2 x");
    s.answer("+OK\r\n");
    s.answer("$1\r\nx\r\n");
    assert_eq!(s.app(1), format!("*2\r\n{}$1\r\nx\r\n", bulk(5_000)));
    s.is_at_rest();
}

#[test]
fn an_array_that_waits_is_one_request() {
    let mut s = Stand::new(Lease::Local, 3);
    s.ask(0, "MGET k1 k2 k3");
    s.answer("*3\r\n$-1\r\n$-1\r\n$-1\r\n");
    s.ask(1, "MGET k1 k2 k3");
    s.answer("*3\r\n$-1\r\n$-1\r\n$-1\r\n");
    s.send(2, &request("GET j").repeat(2));
    assert_eq!(s.engine.pending(), 2, "those of which a shard has been asked");
    assert_eq!(s.engine.in_flight(), 3);
}

#[test]
fn a_lone_reader_that_writes_within_transactions_has_written() {
    let mut s = Stand::new(Lease::Local, 3);
    for round in 0..3 {
        s.miss(0);
        s.app(0);
        // By another connection of the app's, as pooled clients do.
        s.ask(2, "MULTI");
        s.ask(2, "SET k v");
        if round == 0 {
            s.opened();
        }
        s.answer_on(1, "+OK\r\n+QUEUED\r\n");
        s.ask(2, "EXEC");
        s.answer_on(1, "*1\r\n+OK\r\n");
        assert_eq!(s.engine.pool_counts(0).unwrap().lease_unwritten, 0);
        s.tick(5_000 * MS);
        s.tick(3_000 * MS);
    }
    assert_eq!(s.engine.pool_counts(0).unwrap().lease_unwritten, 0, "it was written each time");
    s.miss(0);
    s.miss(1);
    assert_eq!(s.app(1), "", "and has a lease still");
}

#[test]
fn a_transaction_that_did_nothing_ends_no_term() {
    let mut s = Stand::new(Lease::Local, 3);
    s.miss(0);
    s.ask(2, "WATCH w");
    s.opened();
    s.answer_on(1, "+OK\r\n");
    s.ask(2, "MULTI");
    s.ask(2, "SET k v");
    s.answer_on(1, "+OK\r\n+QUEUED\r\n");
    s.ask(2, "EXEC");
    s.answer_on(1, "*-1\r\n");
    s.miss(1);
    assert_eq!(s.app(1), "");
    // And what is discarded is no part of the next one.
    s.ask(2, "MULTI");
    s.ask(2, "SET k v");
    s.answer_on(1, "+OK\r\n+QUEUED\r\n");
    s.ask(2, "DISCARD");
    s.answer_on(1, "+OK\r\n");
    s.sent_on(0);
    s.ask(2, "MULTI");
    s.ask(2, "SET j v");
    s.answer_on(1, "+OK\r\n+QUEUED\r\n");
    s.ask(2, "EXEC");
    s.answer_on(1, "*1\r\n+OK\r\n");
    assert_eq!(s.sent_on(0), "");
}

#[test]
fn a_server_that_lets_nobody_see_the_lease_key_makes_nobody_wait_in_vain() {
    let mut s = Stand::new(Lease::Fleet, 2);
    s.tick(MS);
    let tracker = s.opened();
    s.answer_on(tracker, "+OK\r\n");
    s.sent_on(tracker);
    s.miss(0);
    s.answer_on(tracker, "+OK\r\n+OK\r\n-NOPERM this user has no permissions to run the 'mget' command\r\n");
    assert_eq!(s.app(0), NIL, "as if it were alone");
    s.miss(1);
    assert_eq!(s.app(1), "");
}

#[test]
fn one_array_of_many_equal_keys_does_not_hold_up_the_worker() {
    // What takes time in proportion to the square of their number takes minutes here.
    const MANY: usize = 60_000;
    let mut s = Stand::new(Lease::Local, 2);
    s.miss(0);
    let mget = format!("MGET{}", " k".repeat(MANY));
    s.ask(1, &mget);
    s.answer(&format!("*{MANY}\r\n{}", NIL.repeat(MANY)));
    assert_eq!(s.app(1), "");
    s.ask(0, "SET k v");
    s.answer("+OK\r\n");
    s.answer("$1\r\nv\r\n");
    assert_eq!(s.app(1), format!("*{MANY}\r\n{}", "$1\r\nv\r\n".repeat(MANY)));
    s.is_at_rest();
    s.now += 3_000 * MS;
    s.app(0);
    // And where none of them waits in the end.
    s.miss(0);
    s.ask(1, &mget);
    s.answer(&format!("*{MANY}\r\n{}", NIL.repeat(MANY)));
    s.engine.close(1, false, &mut s.wires);
    assert_eq!(s.engine.holdings().waits, 0);
}

#[test]
fn who_waits_for_what_has_no_lease_any_more_is_told_at_once() {
    for lease in [Lease::Off, Lease::Observe] {
        let shared = Arc::new(Shared::new());
        let mut s = Stand::of(leased(Lease::Local, &shared), 3);
        s.miss(0);
        s.send(1, &[request("GET k"), request("MGET j k")].concat());
        s.answer(&(NIL.to_owned() + "*2\r\n$1\r\nj\r\n$-1\r\n"));
        s.engine.reload(0, leased(Lease::Local, &shared), s.now, &mut s.wires);
        s.engine.flush(&mut s.wires);
        assert_eq!(s.app(1), "", "nothing has changed");
        s.engine.reload(0, leased(lease, &shared), s.now, &mut s.wires);
        s.engine.flush(&mut s.wires);
        assert_eq!(s.app(1), NIL.to_owned() + "*2\r\n$1\r\nj\r\n$-1\r\n");
        s.is_at_rest();
    }
}

#[test]
fn the_last_of_very_many_keys_counts_in_its_budget() {
    // What takes time in proportion to the square of their number takes minutes here.
    const MANY: usize = 70_000;
    let mut pool = pool(1, 1, false);
    pool.misses = Config::new(Wanted { miss_budget: Some(1), ..Wanted::default() }, Vec::new());
    let mut s = Stand::of(pool, 1);
    s.ask(0, &format!("MGET{}", " k".repeat(MANY)));
    s.answer(&format!("*{MANY}\r\n{}{NIL}", "$1\r\nv\r\n".repeat(MANY - 1)));
    assert!(s.app(0).ends_with(NIL));
    s.ask(0, "GET k");
    s.answer(NIL);
    assert!(s.app(0).starts_with("-BUSY"), "it was the second");
}

#[test]
fn a_script_is_followed_by_no_read_of_keys_that_nobody_waits_for() {
    let mut s = Stand::new(Lease::Local, 3);
    s.ask(0, "MGET k1 k2 k3");
    s.answer("*3\r\n$-1\r\n$-1\r\n$-1\r\n");
    s.ask(1, "GET k2");
    s.answer(NIL);
    s.sent_on(0);
    s.ask(2, "EVAL x 0");
    s.answer("$-1\r\n");
    assert_eq!(s.sent_on(0), "| EVAL x 0 | GET k2");
    s.answer("$1\r\nv\r\n");
    assert_eq!(s.app(1), "$1\r\nv\r\n");
    s.ask(2, "EVAL x 0");
    s.answer("$-1\r\n");
    assert_eq!(s.sent_on(0), "| EVAL x 0");
}

#[test]
fn what_has_to_wait_for_all_before_it_is_not_kept_by_a_wait_that_it_may_end() {
    let mut pool = pool(1, 1, false);
    let wanted = Wanted { lease: Lease::Local, same_connection_waits: true, ..Wanted::default() };
    pool.leases = Leases::new(Arc::new(Config::new(wanted, Vec::new())), Arc::new(Shared::new()), 0);
    let mut s = Stand::of(pool, 1);
    s.miss(0);
    assert_eq!(s.app(0), NIL);
    // Other threads of the same app wait for what the first one is about to write, within a transaction.
    s.send(0, &request("GET k").repeat(3));
    s.answer(&NIL.repeat(3));
    assert_eq!(s.engine.submit(0, &request("MULTI"), s.now, &mut s.wires).consumed, 0);
    s.tick(MS);
    assert_eq!(s.app(0), "");
    s.tick(3 * MS);
    assert_eq!(s.app(0), NIL.repeat(3));
    assert_eq!(s.wires.woken, [0]);
    s.ask(0, "MULTI");
    assert_eq!(s.app(0), "+OK\r\n");
    s.is_at_rest();
}

#[test]
fn a_window_full_of_waits_has_room_for_the_write_that_ends_them() {
    let mut pool = pool(1, 1, false);
    let wanted = Wanted { lease: Lease::Local, same_connection_waits: true, ..Wanted::default() };
    pool.leases = Leases::new(Arc::new(Config::new(wanted, Vec::new())), Arc::new(Shared::new()), 0);
    pool.bounds.open = 4;
    let mut s = Stand::of(pool, 1);
    s.miss(0);
    assert_eq!(s.app(0), NIL);
    s.send(0, &request("GET k").repeat(4));
    s.answer(&NIL.repeat(4));
    assert_eq!(s.engine.submit(0, &request("SET k v"), s.now, &mut s.wires).consumed, 0, "the window is full");
    s.tick(MS);
    s.tick(3 * MS);
    assert_eq!(s.app(0), NIL.repeat(2), "no more of them than there has to be room for");
    assert_eq!(s.wires.woken, [0]);
    s.ask(0, "SET k v");
    s.answer("+OK\r\n");
    s.answer("$1\r\nv\r\n");
    assert_eq!(s.app(0), "$1\r\nv\r\n".repeat(2) + "+OK\r\n");
    s.is_at_rest();
}

#[test]
fn keys_with_very_long_names_have_no_lease() {
    let mut s = Stand::new(Lease::Local, 2);
    let key = format!("k{}", "x".repeat(2_000));
    for session in [0, 1] {
        s.send(session, &[request(&format!("GET {key}")), request(&format!("MGET j {key}"))].concat());
        s.answer(&(NIL.to_owned() + "*2\r\n$1\r\nj\r\n$-1\r\n"));
        assert_eq!(s.app(session), NIL.to_owned() + "*2\r\n$1\r\nj\r\n$-1\r\n");
    }
    s.is_at_rest();
}
