//! Keys that are loaded anew shortly before they expire: who is told that they are not there, and what the others get. At the level
//! of the engine, where time is an argument, and with real servers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/stand.rs"]
mod stand;
mod support;

use hotring::engine::{LineId, SessionId};
use hotring::stages::lease::{Lease, Wanted};
use stand::{MS, NIL, Stand, leases, pool, push, request, users};
use std::time::Duration;
use support::{Hotring, eventually, now, shards};

const VALUE: &str = "$1\r\nv\r\n";
/// How long a load takes, and the value lives.
const LOAD: u64 = 100 * MS;
const LIFE: u64 = 1_000 * MS;

fn wanted(lease: Lease) -> Wanted {
    Wanted { lease, cache_aside: true, ..Wanted::default() }
}

/// One worker over one shard.
impl Stand {
    fn new(wanted: Wanted) -> Self {
        Self::with(wanted, false)
    }

    fn with(wanted: Wanted, coalesce: bool) -> Self {
        let mut pool = pool(1, 1, coalesce);
        pool.leases = leases("", wanted);
        Self::of(pool, 8)
    }

    /// The key was loaded once, and is about to expire.
    fn aged(wanted: Wanted) -> Self {
        let mut w = Self::new(wanted);
        w.loads("SET k v PX 1000");
        w.tick(LIFE - MS);
        w
    }

    /// Session 0 finds `k` missing, and writes it so when it has loaded it.
    fn loads(&mut self, write: &str) {
        assert_eq!(self.gets(0, NIL), NIL);
        self.tick(LOAD);
        self.writes(write);
    }

    fn writes(&mut self, write: &str) {
        self.ask(0, write);
        self.answer(if write.starts_with("SET") { "+OK\r\n" } else { ":1\r\n" });
        self.app(0);
        self.sent();
    }

    /// What a session is told that reads `k`, of which the shard says this.
    fn gets(&mut self, session: SessionId, reply: &str) -> String {
        self.sent();
        self.ask(session, "GET k");
        self.answer(reply);
        self.app(session)
    }

    /// Whether a read of a session fires before its value is over: then the shard is being asked.
    fn fires(&mut self, session: SessionId) -> bool {
        for _ in 0..20 {
            if self.gets(session, VALUE).is_empty() {
                return true;
            }
            assert_eq!(self.sent(), "GET k");
        }
        false
    }

    fn counts(&mut self) -> (u64, u64, u64) {
        let counts = self.engine.pool_counts(0).unwrap();
        (counts.early_refreshes, counts.misses_leased, counts.lease_waits)
    }
}

#[test]
fn one_loads_while_the_others_read() {
    let mut w = Stand::aged(wanted(Lease::Local));
    assert!(w.fires(1));
    assert_eq!(w.sent(), "GET k; PTTL k");
    w.answer(":1\r\n");
    assert_eq!(w.app(1), NIL);
    for session in [2, 3, 1] {
        assert_eq!(w.gets(session, VALUE), VALUE, "one at a time");
        assert_eq!(w.sent(), "GET k");
    }
    // It expires: who misses it finds it being loaded.
    w.tick(5 * MS);
    assert_eq!(w.gets(4, NIL), "");
    w.tick(20 * MS);
    w.ask(1, "SET k v PX 1000");
    w.answer("+OK\r\n");
    assert_eq!(w.app(1), "+OK\r\n");
    assert_eq!(w.sent(), "GET k; SET k v PX 1000; GET k");
    w.answer(VALUE);
    assert_eq!((w.app(4).as_str(), w.counts()), (VALUE, (1, 2, 1)));
    // And all anew.
    assert_eq!(w.gets(2, VALUE), VALUE);
    w.tick(LIFE - MS);
    assert!(w.fires(5));
    w.answer(":1\r\n");
    assert_eq!((w.app(5).as_str(), w.counts()), (NIL, (2, 3, 1)));
    w.is_at_rest();
}

#[test]
fn nothing_fires_long_before() {
    let mut w = Stand::new(wanted(Lease::Local));
    w.loads("SET k v PX 10000");
    for _ in 0..500 {
        assert_eq!(w.gets(1, VALUE), VALUE);
        w.tick(15 * MS);
        assert_eq!(w.sent(), "GET k");
    }
}

#[test]
fn keys_of_which_that_is_not_known_or_wanted_are_left_alone() {
    for writes in [
        ["SET k v", "SET k v"],
        ["SET k v PX 1000", "SET k v PX 1000 NX"],
        ["SET k v PX 1000", "SETNX k v"],
        ["SET k v PX 1000", "SET k v"],
        ["SET k v PX 1000", "PERSIST k"],
        ["SET k v PX 1000", "INCR k"],
        ["INCR k", "PEXPIRE k 1000"],
        ["SETNX k v", "PEXPIRE k 1000"],
        ["SET k v PX 1000", "DEL k"],
    ] {
        let mut w = Stand::new(wanted(Lease::Local));
        w.loads(writes[0]);
        w.writes(writes[1]);
        w.tick(LIFE - MS);
        assert!(!w.fires(1), "{writes:?}");
    }
    for writes in [["SET k v", "PEXPIRE k 1000"], ["SET k v PX 9000", "PEXPIRE k 1000"], ["SET k v", "PSETEX k 1000 v"]]
    {
        let mut w = Stand::new(wanted(Lease::Local));
        w.loads(writes[0]);
        w.writes(writes[1]);
        w.tick(LIFE - MS);
        assert!(w.fires(1), "{writes:?}");
    }
    // Not wanted; or nobody knows how long a load takes.
    assert!(!Stand::aged(Wanted { lease: Lease::Local, ..Wanted::default() }).fires(1));
    let mut w = Stand::new(wanted(Lease::Local));
    w.writes("SET k v PX 1000");
    w.tick(LIFE - MS);
    assert!(!w.fires(1));
    // In a transaction its key may be written in any way.
    let mut w = Stand::aged(wanted(Lease::Local));
    w.ask(2, "MULTI");
    w.ask(2, "SET k v");
    assert!(!w.fires(1));
}

#[test]
fn sessions_that_must_not_load_are_not_told() {
    let mut w = Stand::aged(wanted(Lease::Local));
    let strict = w.engine.open_strict(0);
    w.wires.apps.push(Vec::new());
    assert!(!w.fires(strict) && w.fires(2));
    let mut pool = pool(1, 1, false);
    pool.leases = leases("", wanted(Lease::Local));
    pool.users = users(&[("r", "~* +@read"), ("w", "~* +@all")]);
    let mut w = Stand::of(pool, 3);
    for (session, name) in [(0, "w"), (1, "r"), (2, "w")] {
        w.ask(session, &format!("AUTH {name} pass"));
        assert_eq!(w.app(session), "+OK\r\n");
    }
    w.loads("SET k v PX 1000");
    w.tick(LIFE - MS);
    assert!(!w.fires(1) && w.fires(2));
}

#[test]
fn what_the_shard_says_counts() {
    // It was written by somebody else, and lives on.
    let mut w = Stand::aged(wanted(Lease::Local));
    assert!(w.fires(1));
    w.answer(":1000\r\n");
    assert_eq!(w.app(1), VALUE);
    assert!(!w.fires(2), "that is known now");
    w.tick(LIFE - MS);
    assert!(w.fires(2));
    // So that it never expires; it is another one's; nothing is there any more.
    for said in [":-1\r\n", ":-2\r\n", "-NOPERM x\r\n"] {
        let mut w = Stand::aged(wanted(Lease::Local));
        assert!(w.fires(1));
        w.answer(said);
        assert_eq!((w.app(1).as_str(), w.counts().0), (VALUE, 0), "{said}");
        assert!(!w.fires(2));
        w.is_at_rest();
    }
    // A moment says nothing here; the shard is asked once.
    let mut w = Stand::new(wanted(Lease::Local));
    w.loads("SET k v PXAT 2000000000000");
    assert!(w.fires(1));
    w.answer(":2500\r\n");
    assert_eq!(w.app(1), VALUE);
    assert!(!w.fires(1));
    w.tick(2_500 * MS - MS);
    assert!(w.fires(1));
    w.answer(":1\r\n");
    assert_eq!(w.app(1), NIL);
}

#[test]
fn nobody_is_kept_back_for_long() {
    let mut w = Stand::aged(wanted(Lease::Local));
    assert!(w.fires(1));
    w.tick(40 * MS);
    assert_eq!(w.app(1), "");
    w.tick(10 * MS);
    assert_eq!(w.app(1), VALUE);
    w.answer(":1\r\n");
    assert_eq!((w.app(1).as_str(), w.counts().0), ("", 0));
    w.is_at_rest();
    // Nor does anything stay of a session that is gone.
    let mut w = Stand::aged(wanted(Lease::Local));
    assert!(w.fires(1));
    w.engine.close(1, false, &mut w.wires);
    w.answer(":1\r\n");
    assert_eq!(w.counts().0, 0);
    w.is_at_rest();
}

#[test]
fn a_read_is_told_of_what_was_there_before_its_session_wrote() {
    for same_connection_waits in [false, true] {
        let mut w = Stand::aged(Wanted { same_connection_waits, ..wanted(Lease::Local) });
        assert!(w.fires(1));
        w.ask(1, "SET k w");
        w.ask(1, "GET k");
        assert_eq!(w.app(1), VALUE);
        w.answer(":1\r\n+OK\r\n$1\r\nw\r\n");
        assert_eq!(w.app(1), "+OK\r\n$1\r\nw\r\n");
        assert_eq!(w.counts().0, 0);
        w.is_at_rest();
    }
}

#[test]
fn what_is_written_meanwhile_is_not_loaded_again() {
    let mut w = Stand::aged(wanted(Lease::Local));
    assert!(w.fires(1));
    w.ask(2, "SET k w PX 1000");
    w.answer(":1\r\n+OK\r\n");
    w.app(1);
    for _ in 0..20 {
        assert_eq!(w.gets(3, VALUE), VALUE);
    }
    w.is_at_rest();
}

#[test]
fn who_loads_and_is_gone_or_does_not_write_is_waited_for_no_longer() {
    let mut w = Stand::aged(wanted(Lease::Local));
    assert!(w.fires(1));
    w.answer(":1\r\n");
    assert_eq!(w.app(1), NIL);
    w.tick(5 * MS);
    assert_eq!(w.gets(2, NIL), "");
    w.engine.close(1, false, &mut w.wires);
    w.engine.flush(&mut w.wires);
    assert_eq!(w.app(2), NIL, "the next one loads");
    w.tick(LOAD);
    w.writes("SET k v PX 1000");
    // Twice in a row nobody writes: the key is left alone for a while.
    let mut w = Stand::new(wanted(Lease::Local));
    w.loads("SET k v PX 3000");
    w.tick(2_990 * MS - 1_100 * MS);
    for _ in 0..2 {
        let mut tries = 0;
        while !w.fires(1) {
            w.tick(10 * MS);
            tries += 1;
            assert!(tries < 100);
        }
        w.answer(":10\r\n");
        assert_eq!(w.app(1), NIL);
        w.tick(500 * MS);
        w.engine.pool_counts(0).unwrap();
        // As if it had been written by somebody else.
        w.writes("PEXPIRE k 10");
    }
    assert_eq!((w.engine.pool_counts(0).unwrap().lease_unwritten, w.fires(1)), (2, false));
}

#[test]
fn of_those_who_share_a_flight_one_loads() {
    let mut w = Stand::with(wanted(Lease::Local), true);
    w.loads("SET k v PX 1000");
    w.tick(LIFE - MS);
    w.sent();
    for session in 1..5 {
        w.engine.submit(session, &request("GET k"), w.now, &mut w.wires);
    }
    w.engine.flush(&mut w.wires);
    assert_eq!(w.sent(), "GET k");
    w.answer(VALUE);
    let told: Vec<String> = (1..5).map(|session| w.app(session)).collect();
    assert_eq!((told.iter().filter(|told| *told == VALUE).count(), w.sent().as_str()), (3, "PTTL k"));
    w.answer(":1\r\n");
    assert_eq!((1..5).map(|session| w.app(session)).collect::<String>(), NIL);
    w.is_at_rest();
}

#[test]
fn what_is_only_observed_is_told_to_nobody() {
    let mut w = Stand::aged(wanted(Lease::Observe));
    assert!(!w.fires(1));
    let counts = w.engine.pool_counts(0).unwrap();
    assert_eq!((counts.early_observed, counts.early_refreshes), (1, 0), "once for each time it is written");
}

#[test]
fn a_budget_of_misses_that_is_used_up_refuses_nobody_early() {
    let mut pool = pool(1, 1, false);
    pool.leases = leases("", Wanted { miss_budget: Some(1), ..wanted(Lease::Local) });
    pool.misses = pool.leases.config().clone();
    let mut w = Stand::of(pool, 8);
    w.loads("SET k v PX 120");
    w.tick(119 * MS);
    assert!(w.fires(1));
    w.answer(":1\r\n");
    assert_eq!(w.app(1), VALUE);
    w.is_at_rest();
}

/// The same with a shard that tells of changes.
struct Fleet {
    w: Stand,
    tracker: LineId,
}

const TURN: &str = "SET hotring:lease:k 0 NX PX 500; CLIENT CACHING YES; MGET k hotring:lease:k; PTTL k";
const WON: &str = "+OK\r\n+OK\r\n*2\r\n$1\r\nv\r\n$1\r\n0\r\n:1\r\n";
const LOST: &str = "_\r\n+OK\r\n*2\r\n$1\r\nv\r\n$1\r\n9\r\n:1\r\n";

impl Fleet {
    /// Its turn is being asked for by session 1.
    fn asks() -> Self {
        let mut w = Stand::new(wanted(Lease::Fleet));
        w.tick(MS);
        let tracker = w.wires.wanted.pop().unwrap();
        w.engine.connected(tracker, w.now);
        w.engine.flush(&mut w.wires);
        w.answer_on(tracker, "+OK\r\n");
        w.sent_on(tracker);
        w.ask(0, "GET k");
        w.answer(NIL);
        w.answer_on(tracker, "+OK\r\n+OK\r\n*2\r\n_\r\n$1\r\n0\r\n");
        assert_eq!(w.app(0), NIL);
        w.tick(LOAD);
        w.writes("SET k v PX 1000");
        w.answer_on(tracker, &push("k"));
        assert!(w.sent_on(tracker).ends_with("INFO clients; DEL hotring:lease:k"));
        w.answer_on(tracker, "$0\r\n\r\n:1\r\n");
        w.tick(LIFE - MS);
        assert_eq!(w.sent_on(tracker), "");
        assert!(w.fires(1));
        let mut f = Self { w, tracker };
        assert_eq!(f.asked(), TURN);
        f
    }

    fn asked(&mut self) -> String {
        self.w.sent_on(self.tracker)
    }

    fn tracked(&mut self, reply: &str) {
        self.w.answer_on(self.tracker, reply);
    }
}

#[test]
fn the_process_whose_turn_it_is_loads() {
    let mut f = Fleet::asks();
    f.tracked(WON);
    assert_eq!(f.w.app(1), NIL);
    // That it expires is not that it was written.
    f.w.tick(5 * MS);
    f.tracked(&push("k"));
    assert_eq!(f.asked(), "");
    assert_eq!(f.w.gets(2, NIL), "");
    // The shard tells no more of it, until it is asked again.
    assert_eq!(f.asked(), "CLIENT CACHING YES; GET k");
    f.tracked("+OK\r\n_\r\n");
    assert_eq!((f.asked().as_str(), f.w.app(2).as_str()), ("", ""));
    f.w.ask(1, "SET k v PX 1000");
    f.w.answer("+OK\r\n");
    assert_eq!(f.asked(), "CLIENT CACHING YES; GET k");
    f.tracked("+OK\r\n$1\r\nv\r\n");
    assert_eq!((f.w.app(2).as_str(), f.asked().as_str()), (VALUE, "DEL hotring:lease:k"));
    f.tracked(":1\r\n");
    assert_eq!(f.w.counts(), (1, 2, 2));
    f.w.is_at_rest();
}

#[test]
fn a_load_that_is_done_in_time_gives_the_lease_back() {
    let mut f = Fleet::asks();
    f.tracked(WON);
    f.w.ask(1, "SET k v PX 1000");
    f.w.answer("+OK\r\n");
    assert_eq!(f.asked(), "DEL hotring:lease:k");
    f.tracked(&push("k"));
    f.tracked(":1\r\n");
    f.w.is_at_rest();
    // Written through another process: the shard tells, before it could have expired.
    let mut f = Fleet::asks();
    f.tracked(WON);
    f.tracked(&push("k"));
    assert_eq!(f.asked(), "DEL hotring:lease:k");
}

#[test]
fn the_others_read_what_there_is() {
    let mut f = Fleet::asks();
    f.tracked(LOST);
    assert_eq!((f.w.app(1).as_str(), f.asked().as_str()), (VALUE, ""));
    assert!(!f.w.fires(2), "it is being loaded");
    // And wait once it is over.
    f.w.tick(5 * MS);
    assert_eq!(f.w.gets(2, NIL), "");
    assert_eq!(f.asked(), "CLIENT CACHING YES; GET k");
    f.tracked("+OK\r\n_\r\n");
    assert_eq!(f.asked(), "SET hotring:lease:k 0 NX PX 500; CLIENT CACHING YES; MGET k hotring:lease:k");
    f.tracked("_\r\n+OK\r\n*2\r\n_\r\n$1\r\n9\r\n");
    f.tracked(&push("k"));
    f.tracked("+OK\r\n$1\r\nv\r\n");
    assert_eq!((f.w.app(2).as_str(), f.w.counts().0), (VALUE, 0));
    f.w.is_at_rest();
}

#[test]
fn a_turn_that_is_of_no_use_is_given_back() {
    // It was written meanwhile, or is gone; or the shard does not tell of it.
    for (said, told) in [
        ("+OK\r\n+OK\r\n*2\r\n$1\r\nv\r\n$1\r\n0\r\n:1000\r\n", VALUE),
        ("+OK\r\n+OK\r\n*2\r\n_\r\n$1\r\n0\r\n:-2\r\n", VALUE),
        ("+OK\r\n-ERR x\r\n*2\r\n$1\r\nv\r\n$1\r\n0\r\n:1\r\n", NIL),
    ] {
        let mut f = Fleet::asks();
        f.tracked(said);
        assert_eq!((f.w.app(1).as_str(), f.asked().as_str()), (told, "DEL hotring:lease:k"), "{said}");
    }
    // Whoever has waited for it is gone.
    let mut f = Fleet::asks();
    f.w.engine.close(1, false, &mut f.w.wires);
    f.tracked(WON);
    assert_eq!(f.asked(), "DEL hotring:lease:k");
}

/// Apps of several hotrings ask for a key in turn, as fast as they can; whoever is told nil loads it and writes it again.
fn rounds(hotrings: &[&Hotring], redis: &support::Redis) {
    let mut apps: Vec<_> = (0..6).map(|n| hotrings[n % hotrings.len()].app()).collect();
    let mut client = redis.client();
    let load = |apps: &mut Vec<support::Client>, by: usize| {
        let done = now() + Duration::from_millis(60);
        eventually("it is loaded", || now() >= done);
        assert_eq!(apps[by].ask("SET popular value PX 1500"), "+OK\r\n");
    };
    assert_eq!(apps[0].ask("GET popular"), "$-1\r\n");
    load(&mut apps, 0);
    let (mut loads, mut early, start) = (0, 0, now());
    while loads < 4 {
        assert!(start.elapsed() < support::FOREVER);
        for n in 0..apps.len() {
            let reply = apps[n].ask("GET popular");
            if reply != "$-1\r\n" {
                assert_eq!(reply, "$5\r\nvalue\r\n");
                continue;
            }
            let left: i64 = client.ask("PTTL popular").trim().trim_start_matches(':').parse().unwrap();
            // Unless this test is given no turn for as long as that.
            if left > 150 {
                early += 1;
                for other in (0..apps.len()).filter(|other| *other != n) {
                    assert_eq!(apps[other].ask("GET popular"), "$5\r\nvalue\r\n", "{left}");
                }
            }
            load(&mut apps, n);
            loads += 1;
        }
    }
    assert!(early > 0);
    let counted = || hotrings.iter().map(|h| h.metric("hotring_early_refreshes_total{pool=\"main\"}")).sum::<f64>();
    eventually("they are counted", || counted() >= f64::from(early));
    drop(apps);
    eventually("no lease is left", || client.ask("KEYS hotring:lease:*") == "*0\r\n");
}

#[test]
fn with_a_real_server_loads_are_early() {
    let (redis, at) = shards(1);
    let hotring =
        Hotring::with_admin(&support::pool(&at, &["^workers: 2", "misses: {lease: local, cache_aside: true}"]));
    rounds(&[&hotring], &redis[0]);
}

#[test]
fn in_a_fleet_too() {
    let (redis, at) = shards(1);
    let misses = "misses: {lease: fleet, cache_aside: true}";
    let hotrings: Vec<_> = (0..2).map(|_| Hotring::with_admin(&support::pool(&at, &[misses]))).collect();
    let mut client = redis[0].client();
    eventually("they hear of changes", || client.ask("INFO clients").contains("tracking_clients:2"));
    rounds(&hotrings.iter().collect::<Vec<_>>(), &redis[0]);
}
