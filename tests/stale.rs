//! What a key had before it expired, told to those who would wait for what is being loaded (`stale`): when, for how long, and
//! never if anybody may have deleted it. At the level of the engine, where time is an argument, and with a real server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/stand.rs"]
mod stand;
mod support;

use hotring::engine::{LineId, SessionId};
use hotring::stages::Hot;
use hotring::stages::hot::{Config, Means, Reads, Tracking};
use hotring::stages::lease::{Expired, Key, Lease, Shared, Wanted};
use stand::{MS, NIL, Stand, leases, pool, push};
use support::{Hotring, eventually, now, shards};

const OLD: &str = "$1\r\n1\r\n";
const NEW: &str = "$1\r\n2\r\n";
const READ: &str = "CLIENT CACHING YES; GET k; PTTL k";
/// How long the key lives, and is told after that.
const LIFE: u64 = 200 * MS;
const STALE: u64 = 500 * MS;

fn wanted(lease: Lease) -> Wanted {
    Wanted { lease, stale: STALE, ..Wanted::default() }
}

/// One worker over one shard, which keeps `k` in memory.
struct World {
    s: Stand,
    tracker: LineId,
}

impl World {
    fn new(wanted: Wanted) -> Self {
        let mut pool = pool(1, 1, false);
        pool.leases = leases("", wanted);
        pool.path.hot = Hot::new(Config { reads: Reads::Near, ..Config::default() }, 7, Default::default());
        let mut s = Stand::of(pool, 6);
        s.engine.path_mut(0).unwrap().hot.enter(b"k", 0, Means::Near, 0);
        s.ask(5, "GET k");
        s.answer(OLD);
        s.app(5);
        let tracker = s.tracked();
        s.now += 10 * MS;
        Self { s, tracker }
    }

    /// What was read of `k` is in memory, and lives for `LIFE`.
    fn kept(wanted: Wanted) -> Self {
        let mut w = Self::new(wanted);
        w.reads(5);
        w.tracked(&format!("+OK\r\n{OLD}:{}\r\n", LIFE / MS));
        assert_eq!(w.s.app(5), OLD);
        w.s.ask(5, "GET k");
        assert_eq!((w.s.app(5).as_str(), w.asked().as_str(), w.s.sent().as_str()), (OLD, "", ""), "from memory");
        w
    }

    /// The same, and the shard has been asked whether it lives still: that and when is told behind this.
    fn over(wanted: Wanted) -> Self {
        let mut w = Self::kept(wanted);
        w.s.now += LIFE;
        w.reads(0);
        w
    }

    /// It has expired, by session 0, which holds the lease.
    fn expired(wanted: Wanted) -> Self {
        let holds = wanted.lease == Lease::Local;
        let mut w = Self::over(wanted);
        w.tracked("+OK\r\n_\r\n");
        w.tracked(&push("k"));
        w.tracked(":-2\r\n");
        if holds {
            assert_eq!(w.s.app(0), NIL);
        }
        w
    }

    /// A session asks on the tracked connection.
    fn reads(&mut self, session: SessionId) {
        self.asked();
        self.s.sent();
        self.s.ask(session, "GET k");
        assert_eq!((self.s.sent().as_str(), self.asked().as_str()), ("", READ));
    }

    /// What a session is told that finds nothing.
    fn misses(&mut self, session: SessionId) -> String {
        self.s.sent();
        self.asked();
        self.s.ask(session, "GET k");
        let (home, tracked) = (self.s.sent(), self.asked());
        if !home.is_empty() {
            self.s.answer(NIL);
        }
        if tracked.contains("GET") {
            self.tracked("+OK\r\n_\r\n:-2\r\n");
        }
        self.s.app(session)
    }

    fn tracked(&mut self, reply: &str) {
        self.s.answer_on(self.tracker, reply);
    }

    fn asked(&mut self) -> String {
        self.s.sent_on(self.tracker)
    }

    fn counts(&mut self) -> (u64, u64) {
        let counts = self.s.engine.pool_counts(0).unwrap();
        (counts.lease_stale, counts.lease_waits)
    }
}

#[test]
fn who_would_wait_is_told_what_there_was() {
    let mut w = World::expired(wanted(Lease::Local));
    for session in 1..5 {
        assert_eq!(w.misses(session), OLD);
    }
    assert_eq!(w.misses(0), NIL, "who loads");
    assert_eq!(w.counts(), (4, 0));
    w.s.ask(0, "SET k 2");
    w.s.answer("+OK\r\n");
    assert_eq!(w.s.app(0), "+OK\r\n");
    w.s.is_at_rest();
    assert_eq!(w.misses(1), NIL, "it has been written, and is gone again: another term");
    assert_eq!(w.misses(2), "");
}

#[test]
fn it_is_told_to_all_who_have_joined_the_read_that_found_nothing() {
    let mut w = World::over(wanted(Lease::Local));
    w.s.ask(1, "GET k");
    w.s.ask(2, "GET k");
    w.tracked("+OK\r\n_\r\n");
    w.tracked(&push("k"));
    w.tracked(":-2\r\n");
    assert_eq!((w.s.app(0).as_str(), w.s.app(1).as_str(), w.s.app(2).as_str()), (NIL, OLD, OLD));
}

#[test]
fn not_for_longer_than_is_wanted() {
    let mut w = World::expired(wanted(Lease::Local));
    w.s.now += STALE - 10 * MS;
    assert_eq!(w.misses(1), OLD);
    w.s.now += 10 * MS;
    assert_eq!(w.misses(2), "", "it waits");
    let mut w = World::kept(wanted(Lease::Local));
    // Nobody has asked for it for a long time: that it expired then is what counts.
    w.s.now += LIFE + STALE;
    w.reads(0);
    w.tracked("+OK\r\n_\r\n");
    w.tracked(&push("k"));
    w.tracked(":-2\r\n");
    assert_eq!((w.s.app(0).as_str(), w.misses(1).as_str()), (NIL, ""));
}

#[test]
fn what_may_have_been_deleted_is_never_told() {
    // The shard tells of it before it says that there is nothing: another has deleted it, or has found it expired.
    let mut w = World::over(wanted(Lease::Local));
    w.tracked(&push("k"));
    w.tracked("+OK\r\n_\r\n:-2\r\n");
    assert_eq!((w.s.app(0).as_str(), w.misses(1).as_str(), w.counts().0), (NIL, "", 0));
    // The same between two replies.
    let mut w = World::over(wanted(Lease::Local));
    w.tracked("+OK\r\n");
    w.tracked(&push("k"));
    w.tracked("_\r\n:-2\r\n");
    assert_eq!((w.s.app(0).as_str(), w.misses(1).as_str()), (NIL, ""));
    // Its time is not over: of a SWAPDB a shard tells nobody.
    let mut w = World::kept(wanted(Lease::Local));
    w.s.engine.path_mut(0).unwrap().hot.lose(0, Tracking::On);
    w.reads(5);
    w.tracked(&format!("+OK\r\n{OLD}:{}\r\n", 1000 * LIFE / MS));
    w.s.now += 31_000 * MS;
    w.s.app(5);
    w.s.ask(0, "GET k");
    w.tracked("+OK\r\n_\r\n:-2\r\n");
    assert_eq!((w.s.app(0).as_str(), w.misses(1).as_str(), w.counts().0), (NIL, "", 0));
    // All keys.
    let mut w = World::over(wanted(Lease::Local));
    w.tracked(">2\r\n$10\r\ninvalidate\r\n_\r\n");
    w.tracked("+OK\r\n_\r\n:-2\r\n");
    assert_eq!((w.s.app(0).as_str(), w.misses(1).as_str()), (NIL, ""));
}

#[test]
fn a_write_or_a_delete_ends_it() {
    for (line, reply) in [("DEL k", ":0\r\n"), ("SET k 2", "+OK\r\n"), ("EVAL x 0", NIL), ("FLUSHALL", "+OK\r\n")] {
        let mut w = World::expired(wanted(Lease::Local));
        assert_eq!(w.misses(1), OLD);
        w.s.ask(4, line);
        w.s.answer(reply);
        assert_eq!(w.s.app(4), reply, "{line}");
        assert!([NIL, ""].contains(&w.misses(2).as_str()), "{line}");
        assert_eq!(w.counts().0, 1, "{line}");
    }
    // Before it expired: no news of it came, which is on its way.
    let mut w = World::kept(wanted(Lease::Local));
    w.s.ask(4, "DEL k");
    w.s.answer(":1\r\n");
    w.s.now += LIFE;
    assert_eq!(w.misses(0), NIL);
    assert_eq!(w.misses(1), "");
}

#[test]
fn who_is_writing_it_is_not_told_what_was_before() {
    let mut w = World::expired(wanted(Lease::Local));
    w.s.sent();
    w.s.ask(1, "DEL k");
    w.s.ask(1, "GET k");
    assert_eq!(w.s.sent(), "DEL k; GET k");
    w.s.answer(&format!(":0\r\n{NIL}"));
    assert_eq!(w.s.app(1), ":0\r\n", "it waits");
    assert_eq!(w.counts(), (0, 1));
}

#[test]
fn news_of_it_end_it() {
    let mut w = World::expired(wanted(Lease::Local));
    assert_eq!(w.misses(1), OLD);
    w.tracked(&push("k"));
    assert_eq!(w.misses(2), NIL, "somebody has written it elsewhere, and deleted it: another term");
    assert_eq!((w.misses(3).as_str(), w.counts().0), ("", 1));
    let mut w = World::expired(wanted(Lease::Local));
    w.tracked(">2\r\n$10\r\ninvalidate\r\n_\r\n");
    assert_eq!(w.misses(2), "");
}

#[test]
fn a_value_that_is_found_ends_it() {
    let mut w = World::expired(wanted(Lease::Local));
    w.s.sent();
    w.s.ask(1, "STRLEN k");
    w.s.ask(1, "GET k");
    w.s.answer(&format!(":1\r\n{NEW}"));
    assert_eq!(w.s.app(1), format!(":1\r\n{NEW}"));
    assert!([NIL, ""].contains(&w.misses(2).as_str()));
    assert_eq!(w.counts().0, 0);
}

#[test]
fn elements_of_arrays_are_told_too() {
    let mut w = World::expired(wanted(Lease::Local));
    w.s.ask(1, "MGET k j");
    w.s.answer("*2\r\n$-1\r\n$1\r\nj\r\n");
    w.s.flush();
    assert_eq!(w.s.app(1), format!("*2\r\n{OLD}$1\r\nj\r\n"));
    assert_eq!(w.asked(), READ);
    w.tracked("+OK\r\n_\r\n:-2\r\n");
    w.s.is_at_rest();
}

#[test]
fn where_that_is_only_observed_it_is_counted() {
    let mut w = World::expired(wanted(Lease::Observe));
    assert_eq!(w.s.app(0), NIL);
    assert_eq!(w.misses(1), NIL);
    let counts = w.s.engine.pool_counts(0).unwrap();
    assert_eq!((counts.lease_stale, counts.lease_stale_observed, counts.lease_observed), (0, 1, 1));
}

#[test]
fn without_it_they_wait() {
    let mut w = World::expired(Wanted { stale: 0, ..wanted(Lease::Local) });
    assert_eq!((w.misses(1).as_str(), w.counts()), ("", (0, 1)));
}

#[test]
fn in_a_fleet_the_first_waits_to_be_told_whose_turn_it_is() {
    let claims = "SET hotring:lease:k 0 NX PX 2000; CLIENT CACHING YES; MGET k hotring:lease:k";
    for (won, reply) in [(true, "+OK\r\n+OK\r\n*2\r\n_\r\n$1\r\n0\r\n"), (false, "_\r\n+OK\r\n*2\r\n_\r\n$1\r\n9\r\n")]
    {
        let mut w = World::expired(wanted(Lease::Fleet));
        assert_eq!((w.asked().as_str(), w.s.app(0).as_str()), (claims, ""));
        w.s.ask(1, "GET k");
        if !w.s.sent().is_empty() {
            w.s.answer(NIL);
        }
        let (told, asked) = (w.s.app(1), w.asked());
        w.tracked(reply);
        if asked.contains("GET") {
            w.tracked("+OK\r\n_\r\n:-2\r\n");
        }
        assert_eq!(told + &w.s.app(1), OLD);
        assert_eq!(w.s.app(0), if won { NIL } else { OLD });
        assert_eq!(w.misses(2), OLD);
    }
}

#[test]
fn what_does_not_fit_is_not_kept() {
    let (key, shared) = (Wanted { stale: STALE, ..wanted(Lease::Local) }, Shared::new());
    let key = |hash, name| Key { hash, name, wanted: &key, rule: 0 };
    let expired = |bytes: usize| Expired {
        value: vec![b'x'; bytes].into(),
        seen: (0, 0),
        shard: 0,
        worker: 0,
        died: 10,
        until: 20,
        echo: false,
    };
    let _ = shared.with(0, |table| {
        table.expire(&key(1, b"a"), expired(60), 100, 11);
        table.expire(&key(2, b"b"), expired(60), 100, 11);
        assert_eq!([1, 2].map(|hash| table.expired(hash, 11).is_some()), [true, false]);
        // What is told no more takes nothing any more.
        table.forget_expired(1);
        table.expire(&key(2, b"b"), expired(60), 100, 11);
        assert!(table.expired(2, 19).is_some() && table.expired(2, 20).is_none());
        table.tick(3_000_000);
        assert_eq!(table.entries(), 0);
        table.expire(&key(1, b"a"), expired(100), 100, 11);
        assert!(table.expired(1, 11).is_some());
    });
}

/// A hotring with a real server, which keeps all that is read in memory.
fn real(at: &[String]) -> Hotring {
    let lines = ["hot_keys: {reads: near, near_all: true}", "misses: {lease: local, stale: 30s}"];
    Hotring::with_admin(&support::pool(at, &lines))
}

#[test]
fn a_real_server_says_that_it_has_expired() {
    let (_redis, at) = shards(1);
    let hotring = real(&at);
    let (mut holder, mut other) = (hotring.app(), hotring.app());
    // A server that has swept the key away by itself just before it is asked says nothing of why it is gone: then another time.
    eventually("a value is told that has expired", || {
        assert_eq!(holder.ask("SET k old PX 150"), "+OK\r\n");
        let start = now();
        while holder.ask("GET k") != NIL {
            assert!(start.elapsed() < support::FOREVER);
        }
        let told = other.ask("GET k") == "$3\r\nold\r\n";
        if told {
            // As long as nobody writes it.
            assert_eq!(other.ask("GET k"), "$3\r\nold\r\n");
            assert_eq!((other.ask("DEL k"), other.ask("GET k").as_str()), (":0\r\n".to_owned(), NIL));
        }
        assert_eq!(holder.ask("SET k new"), "+OK\r\n");
        assert_eq!(other.ask("GET k"), "$3\r\nnew\r\n");
        told
    });
    eventually("they are counted", || hotring.metric("hotring_lease_stale_total{pool=\"main\"}") >= 2.0);
}

#[test]
fn a_real_server_says_that_it_was_deleted() {
    let (redis, at) = shards(1);
    let hotring = real(&at);
    let (mut holder, mut other, mut beside) = (hotring.app(), hotring.app(), redis[0].client());
    for _ in 0..3 {
        assert_eq!(holder.ask("SET k old PX 10000"), "+OK\r\n");
        let hits = || hotring.metric("hotring_near_hits_total{pool=\"main\"}");
        let before = hits();
        eventually("it is kept", || {
            assert_eq!(holder.ask("GET k"), "$3\r\nold\r\n");
            hits() > before
        });
        assert_eq!(beside.ask("DEL k"), ":1\r\n");
        eventually("it is known", || holder.ask("GET k") == NIL);
        assert_eq!(other.ask("GET k"), NIL, "in its time");
    }
    assert_eq!(hotring.metric("hotring_lease_stale_total{pool=\"main\"}"), 0.0);
}
