//! Hot keys that are read from replicas, at the level of the engine: who is asked, and what becomes of a replica that does not
//! serve. Time is an argument.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/followed.rs"]
#[allow(dead_code, reason = "each program uses its part")]
mod followed;
#[path = "support/engine.rs"]
#[allow(unreachable_pub, dead_code, reason = "shared with benchmarks")]
mod support;

use followed::Stand;
use hotring::engine::{LineId, SessionId};
use hotring::error::{Cause, Failure};
use hotring::stages::Hot;
use hotring::stages::hot::{Config, Means, Reads};
use support::{engine, pool_of, request};

const MS: u64 = 1_000;
const S: u64 = 1_000_000;
const LOST: Failure = Failure { cause: Cause::Lost, reason: "connection reset" };

impl Stand {
    fn new(coalesce: bool) -> Self {
        let mut pool = pool_of(&[0], 3, 1, coalesce);
        let pairs = [(1, 0), (2, 0)];
        let config = Config { reads: Reads::Replicas, ..Config::default() };
        pool.path.hot = Hot::new(config, 7, Default::default()).with_replicas(&pairs, 3, 1);
        let route = hotring::stages::Route::new(placement(), 1);
        pool.path.route = route.with_replicas(pairs.to_vec());
        pool.timeout = Some(5 * S);
        let (engine, wires) = engine(pool, 3);
        let mut stand = Self::over(engine, wires);
        let now = stand.now;
        stand.engine.path_mut(0).unwrap().hot.enter(b"k", 0, Means::Replicas, now);
        stand
    }

    /// The same, with replicas that are proven to be up to date.
    fn proven() -> Self {
        let mut stand = Self::new(false);
        stand.prove(&[1, 2]);
        stand
    }

    /// Lets the shard and these replicas tell how far they are.
    fn prove(&mut self, replicas: &[LineId]) {
        self.tick(250 * MS);
        let asks = "*2\r\n$4\r\nINFO\r\n$11\r\nreplication\r\n";
        assert_eq!(self.sent(0), asks);
        assert_eq!([self.sent(1), self.sent(2)], ["", ""], "only behind the shard");
        self.answer(0, &self.standing(0));
        for &replica in replicas {
            assert_eq!(self.sent(replica), asks, "{replica}");
            self.answer(replica, &self.standing(replica));
        }
        (1..3).for_each(|line| drop(self.sent(line)));
    }

    /// Reads `k` so many times, one after the other, each answered at once. Returns which connections were asked how often.
    fn reads(&mut self, count: usize) -> [usize; 3] {
        let mut asked = [0; 3];
        for _ in 0..count {
            let line = self.read(0);
            asked[line as usize] += 1;
            self.answer(line, "$1\r\nv\r\n");
            assert_eq!(self.app(0), "$1\r\nv\r\n");
        }
        asked
    }

    /// Reads `k`; the connection that was asked.
    fn read(&mut self, session: SessionId) -> LineId {
        assert!(self.ask(session, "GET k"));
        let asked: Vec<LineId> = (0..3).filter(|&line| !self.sent(line).is_empty()).collect();
        assert_eq!(asked.len(), 1);
        asked[0]
    }

    /// Reads `k` until a replica is asked for it; which one.
    fn read_away(&mut self, session: SessionId) -> LineId {
        loop {
            match self.read(session) {
                0 => {
                    self.answer(0, "$1\r\nv\r\n");
                    self.app(session);
                }
                replica => return replica,
            }
        }
    }

    fn counts(&mut self) -> (u64, u64, u64) {
        let counts = self.engine.pool_counts(0).unwrap();
        (counts.replica_reads, counts.replica_second_tries, counts.replicas_behind.get())
    }

    fn is_at_rest(&self) {
        let held = self.engine.holdings();
        assert_eq!((self.engine.in_flight(), held.spreads, held.errands, held.joined), (0, 0, 0, 0));
    }
}

fn placement() -> hotring::stages::Placement {
    hotring::stages::Placement {
        pins: Vec::new(),
        slots: None,
        numbers: vec![0],
        shards: vec![hotring::ring::Shard { name: "s0".into(), weight: 1 }],
        hash: hotring::ring::KeyHash::Fnv1a_64,
        distribution: hotring::ring::Distribution::Ketama,
        hash_tag: None,
    }
}

#[test]
fn reads_are_spread_once_the_replicas_are_proven() {
    let mut stand = Stand::new(false);
    assert_eq!(stand.reads(20), [20, 0, 0]);
    stand.prove(&[1, 2]);
    let asked = stand.reads(300);
    assert!(asked.iter().all(|&count| count > 60), "{asked:?}");
    assert_eq!(stand.counts().0, (asked[1] + asked[2]) as u64);
    stand.is_at_rest();
    // Nobody tells any more: it is soon no longer known.
    stand.now += S;
    assert_eq!(stand.reads(20), [20, 0, 0]);
    stand.tick(0);
    assert_eq!(stand.counts().2, 2);
}

#[test]
fn only_the_reads_that_any_server_answers_alike_are_spread() {
    for line in [
        "TTL k",
        "PTTL k",
        "DUMP k",
        "HSCAN k 0",
        "SSCAN k 0",
        "SET k v",
        "GETDEL k",
        "EXISTS k",
        "MGET k k",
        "DBSIZE",
        "KEYS *",
        "EVAL x 1 k",
    ] {
        let mut stand = Stand::proven();
        for _ in 0..20 {
            assert!(stand.ask(0, line));
            assert!(!stand.sent(0).is_empty(), "{line}");
            assert_eq!([stand.sent(1), stand.sent(2)], ["", ""], "{line}");
            stand.answer(0, ":1\r\n");
        }
    }
    for line in ["HGETALL k", "ZRANGE k 0 -1", "STRLEN k"] {
        let mut stand = Stand::proven();
        let mut asked = [0; 3];
        for _ in 0..60 {
            assert!(stand.ask(0, line));
            let at = (0..3).find(|&at| !stand.sent(at).is_empty()).unwrap();
            asked[at as usize] += 1;
            stand.answer(at, ":1\r\n");
        }
        assert!(asked.iter().all(|&count| count > 5), "{line} {asked:?}");
    }
}

#[test]
fn a_write_is_seen_by_those_who_ask_behind_it() {
    let mut stand = Stand::proven();
    assert!(stand.ask(1, "SET k new"));
    assert!(stand.sent(0).contains("SET"));
    let read = |stand: &mut Stand| {
        assert!(stand.ask(0, "GET k"));
        assert!(stand.sent(0).contains("GET"), "while it is on its way, too");
    };
    read(&mut stand);
    stand.answer(0, "+OK\r\n$1\r\nv\r\n");
    stand.app(0);
    assert_eq!(stand.reads(30), [30, 0, 0]);
    stand.offset += 30;
    stand.prove(&[1]);
    let asked = stand.reads(60);
    assert!(asked[1] > 10 && asked[2] == 0, "the other has not told since: {asked:?}");
}

#[test]
fn a_session_does_not_see_what_it_writes_behind_a_read() {
    let mut stand = Stand::proven();
    let replica = stand.read_away(0);
    assert!(!stand.ask(0, "SET k new"), "it waits");
    assert_eq!(stand.sent(0), "");
    stand.answer(replica, "$1\r\nv\r\n");
    assert_eq!(stand.app(0), "$1\r\nv\r\n");
    assert!(stand.wires.woken.contains(&0));
    assert!(stand.ask(0, "SET k new"));
    assert!(stand.sent(0).contains("SET"));
    // Others need not wait.
    let mut stand = Stand::proven();
    stand.read_away(0);
    assert!(stand.ask(1, "SET k new"));
}

#[test]
fn what_a_replica_refuses_is_asked_of_the_shard() {
    for (error, is_left_out) in [
        ("-LOADING Redis is loading the dataset in memory\r\n", true),
        ("-MASTERDOWN Link with MASTER is down\r\n", true),
        ("-MOVED 1 10.0.0.1:1\r\n", true),
        ("-NOAUTH Authentication required.\r\n", true),
        ("-ERR unknown command 'GET'\r\n", true),
        ("-WRONGTYPE Operation against a key holding the wrong kind of value\r\n", false),
        ("-ERR something\r\n", false),
    ] {
        let mut stand = Stand::proven();
        let replica = stand.read_away(0);
        stand.answer(replica, error);
        assert_eq!(stand.app(0), "");
        assert!(stand.sent(0).contains("GET"), "{error}");
        stand.answer(0, "-WRONGTYPE as the shard says\r\n");
        assert_eq!(stand.app(0), "-WRONGTYPE as the shard says\r\n", "the last word");
        assert_eq!(stand.counts().1, 1);
        let asked = stand.reads(60);
        assert_eq!(asked[replica as usize] == 0, is_left_out, "{error} {asked:?}");
        // It may try again after a while, once it has told how far it is.
        stand.now += S;
        stand.prove(&[1, 2]);
        assert!(stand.reads(60)[replica as usize] > 0, "{error}");
        stand.is_at_rest();
    }
}

#[test]
fn a_replica_that_is_lost_costs_no_error() {
    let mut stand = Stand::proven();
    let replica = stand.read_away(0);
    stand.engine.fail(replica, LOST, stand.now, &mut stand.wires);
    stand.flush();
    assert_eq!(stand.app(0), "");
    assert!(stand.sent(0).contains("GET"));
    stand.answer(0, "$1\r\nv\r\n");
    assert_eq!(stand.app(0), "$1\r\nv\r\n");
    assert_eq!(stand.reads(60)[replica as usize], 0);
    // Nor does one that cannot be reached.
    stand.now += 2 * S;
    stand.tick(250 * MS);
    stand.sent(0);
    stand.answer(0, &stand.standing(0));
    assert_eq!(stand.sent(replica), "", "it is down");
    stand.engine.reopening(replica);
    stand.engine.connected(replica, stand.now);
    stand.flush();
    let other = 3 - replica;
    stand.sent(other);
    stand.answer(other, &stand.standing(other));
    stand.prove(&[1, 2]);
    assert!(stand.reads(60).iter().all(|&count| count > 0));
    stand.is_at_rest();
}

#[test]
fn a_replica_that_stands_still_is_not_waited_for() {
    let mut stand = Stand::proven();
    let replica = stand.read_away(0);
    stand.tick(100 * MS);
    assert_eq!(stand.sent(0), "", "it may still come");
    stand.tick(101 * MS);
    assert!(stand.sent(0).contains("GET"));
    assert_eq!(stand.reads_behind(replica), [20, 0]);
    stand.answer(0, "$1\r\nv\r\n");
    assert_eq!(stand.app(0), "$1\r\nv\r\n");
    assert_eq!(stand.counts().1, 1);
    // What it says at last is for nobody.
    stand.answer(replica, "$3\r\nold\r\n");
    assert_eq!(stand.app(0), "");
    stand.is_at_rest();
}

impl Stand {
    /// Of 20 reads of another session how many were asked of the shard or the other replica, and of this one.
    fn reads_behind(&mut self, replica: LineId) -> [usize; 2] {
        let mut asked = [0; 2];
        for _ in 0..20 {
            let line = self.read(1);
            asked[usize::from(line == replica)] += 1;
            if line == 0 {
                // Behind the one that was sent there again.
                self.answer(0, "$1\r\nv\r\n");
            } else {
                self.answer(line, "$1\r\nv\r\n");
            }
        }
        asked
    }
}

#[test]
fn a_session_that_has_left_leaves_nothing_behind() {
    for reply in ["$1\r\nv\r\n", "-LOADING\r\n"] {
        let mut stand = Stand::proven();
        let replica = stand.read_away(0);
        stand.engine.close(0, true, &mut stand.wires);
        stand.answer(replica, reply);
        assert_eq!(stand.sent(0), "", "nobody waits for it");
        stand.is_at_rest();
        assert_eq!(stand.engine.pool_counts(0).unwrap().requests_pending.get(), 0);
    }
}

#[test]
fn reads_that_are_spread_are_not_joined() {
    let mut stand = Stand::new(true);
    stand.prove(&[1, 2]);
    let mut bytes = Vec::new();
    (0..30).for_each(|_| bytes.extend(request("GET k")));
    for session in [0, 1] {
        stand.engine.submit(session, &bytes, stand.now, &mut stand.wires);
    }
    stand.flush();
    let asked: Vec<usize> = (0..3).map(|line| stand.sent(line).matches("GET").count()).collect();
    assert!(asked.iter().sum::<usize>() == 60 && asked.iter().all(|&count| count > 10), "{asked:?}");
    for (line, count) in (0..).zip(asked) {
        stand.answer(line, &"$1\r\nv\r\n".repeat(count));
    }
    assert_eq!(stand.app(0), "$1\r\nv\r\n".repeat(30));
    stand.is_at_rest();
}

#[test]
fn a_shard_that_is_down_is_told_as_ever() {
    let mut stand = Stand::proven();
    let replica = stand.read_away(0);
    stand.engine.fail(0, LOST, stand.now, &mut stand.wires);
    stand.answer(replica, "-LOADING\r\n");
    assert!(stand.app(0).starts_with("-ERR shard s0 is down"));
    assert!(stand.ask(0, "GET k"));
    assert!(stand.app(0).starts_with("-ERR shard s0 is down"), "nobody knows what it has");
    stand.is_at_rest();
}
