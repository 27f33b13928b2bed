//! Who answers reads, at the level of the engine: every word of `read_from`, what is pinned to the shard, and what becomes of a
//! replica that does not serve. Time is an argument.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/followed.rs"]
#[allow(dead_code, reason = "each program uses its part")]
mod followed;
#[path = "support/engine.rs"]
#[allow(unreachable_pub, dead_code, reason = "shared with benchmarks")]
mod support;

use followed::{Stand, bulk};
use hotring::engine::{LineId, SessionId};
use hotring::error::{Cause, Failure};
use hotring::ring::{SLOTS, slot_of};
use hotring::stages::hot::{Config, ReadFrom, Reading};
use hotring::stages::{Hot, Placement, Route};
use std::sync::Arc;
use support::{engine, pool_of, request};

const MS: u64 = 1_000;
const S: u64 = 1_000_000;
const LOST: Failure = Failure { cause: Cause::Lost, reason: "connection reset" };
const UNFIT: &str = "-ERR shard s0 is down (none of its replicas is fit to be read from); nothing was sent\r\n";
const INFO: &str = "*2\r\n$4\r\nINFO\r\n$11\r\nreplication\r\n";
const ZONE: &str = "*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n";

impl Stand {
    fn with(reading: Reading) -> Self {
        let mut pool = pool_of(&[0], 3, 1, true);
        let pairs = [(1, 0), (2, 0)];
        pool.path.hot = Hot::new(Config::default(), 7, Default::default()).reading(reading).with_replicas(&pairs, 3, 1);
        let route = std::mem::replace(&mut pool.path.route, support::pool(1, 1, false).path.route);
        pool.path.route = route.with_replicas(pairs.to_vec());
        pool.timeout = Some(5 * S);
        let (engine, wires) = engine(pool, 3);
        Self::over(engine, wires)
    }

    /// A node of a cluster with two replicas, and another node, on connection 3; all slots are the first one's.
    fn cluster(from: ReadFrom) -> Self {
        let mut pool = pool_of(&[0, 3], 4, 1, false);
        let pairs = [(1, 0), (2, 0)];
        let reading = Reading { from, ..Reading::default() };
        pool.path.hot = Hot::new(Config::default(), 7, Default::default()).reading(reading).with_replicas(&pairs, 4, 1);
        let placement = Placement {
            shards: Vec::new(),
            numbers: vec![0, 3],
            hash: Default::default(),
            distribution: Default::default(),
            hash_tag: None,
            pins: Vec::new(),
            slots: Some(Arc::new(vec![0; SLOTS])),
        };
        pool.path.route = Route::new(placement, 1).with_replicas(pairs.to_vec());
        pool.follows = true;
        pool.nodes = [(0, "10.0.0.1:1"), (3, "10.0.0.2:1")].map(|(n, at)| (at.as_bytes().into(), n)).to_vec();
        let (engine, wires) = engine(pool, 3);
        let mut stand = Self::over(engine, wires);
        stand.prove(&[1, 2]);
        stand
    }

    fn of(from: ReadFrom) -> Self {
        Self::with(Reading { from, ..Reading::default() })
    }

    /// The same, with replicas that are proven to be up to date.
    fn proven(from: ReadFrom) -> Self {
        let mut stand = Self::of(from);
        stand.prove(&[1, 2]);
        stand
    }

    /// Lets the shard and these replicas tell how far they are, each after its time.
    fn prove(&mut self, replicas: &[LineId]) {
        self.tick(250 * MS);
        let mut asked = replicas.to_vec();
        asked.sort_by_key(|&line| self.takes[line as usize]);
        asked.insert(0, 0);
        let mut since = self.now;
        for line in asked {
            let told = self.sent(line);
            assert!(told.starts_with(INFO), "{line}: {told}");
            self.now = self.now.max(since + self.takes[line as usize] - 10);
            self.answer(line, &self.standing(line));
            if line == 0 {
                since = self.now;
            }
            if self.sent(line).contains(ZONE) {
                let zone = self.zones[line as usize];
                let told = if zone.is_empty() { String::new() } else { format!("availability_zone:{zone}\r\n") };
                self.answer(line, &bulk(&format!("# Server\r\nserver_name:valkey\r\n{told}tcp_port:6379\r\n")));
            }
        }
        // Those that were not to answer are left with their questions.
        (0..3).for_each(|line| drop(self.sent(line)));
    }

    /// Reads so many times, one after the other, each answered at once. Returns which connections were asked how often.
    fn reads(&mut self, count: usize) -> [usize; 3] {
        let mut asked = [0; 3];
        for _ in 0..count {
            let line = self.read(0, "GET k");
            asked[line as usize] += 1;
            self.answer(line, "$1\r\nv\r\n");
            assert_eq!(self.app(0), "$1\r\nv\r\n");
        }
        asked
    }

    /// Reads; the connection that was asked.
    fn read(&mut self, session: SessionId, line: &str) -> LineId {
        assert!(self.ask(session, line));
        let asked: Vec<LineId> = (0..3).filter(|&line| !self.sent(line).is_empty()).collect();
        assert_eq!(asked.len(), 1, "{line}");
        asked[0]
    }

    fn is_at_rest(&self) {
        let held = self.engine.holdings();
        assert_eq!((held.spreads, held.joined), (0, 0));
    }

    /// Replica reads, second tries, reads that were kept at the shard.
    fn counts(&mut self) -> (u64, u64, u64) {
        let counts = self.engine.pool_counts(0).unwrap();
        (counts.replica_reads, counts.replica_second_tries, counts.reads_kept)
    }

    fn explained(&self) -> String {
        self.engine.explain(0, &request("GET k"), self.now).unwrap()
    }
}

#[test]
fn each_word_is_done() {
    for (from, expected) in [
        (ReadFrom::Primary, [60, 0, 0]),
        (ReadFrom::Any, [20, 20, 20]),
        // Whoever is as near as the others stays with the first.
        (ReadFrom::Nearest, [60, 0, 0]),
    ] {
        let mut stand = Stand::of(from);
        if from != ReadFrom::Primary {
            stand.prove(&[1, 2]);
        }
        assert_eq!(stand.reads(60), expected, "{from}");
        stand.is_at_rest();
    }
    for from in [ReadFrom::PreferReplica, ReadFrom::Replica] {
        let mut stand = Stand::proven(from);
        let asked = stand.reads(60);
        assert!(asked[0] == 0 && asked[1].abs_diff(asked[2]) < 20, "{from} {asked:?}");
        assert_eq!(stand.counts(), (60, 0, 0));
        stand.is_at_rest();
    }
}

#[test]
fn where_it_is_off_nobody_is_asked_for_its_sake() {
    let mut stand = Stand::of(ReadFrom::Primary);
    stand.tick(250 * MS);
    assert_eq!([0, 1, 2].map(|line| stand.sent(line)), ["", "", ""]);
}

#[test]
fn of_keys_that_begin_alike_the_longest_beginning_counts() {
    let rules =
        vec![(b"far:".as_slice().into(), ReadFrom::Replica), (b"far:lock".as_slice().into(), ReadFrom::Primary)];
    let mut stand = Stand::with(Reading { rules, ..Reading::default() });
    stand.prove(&[1, 2]);
    for (key, away) in [("k", false), ("far:1", true), ("far:lock:1", false)] {
        for _ in 0..20 {
            let line = stand.read(0, &format!("GET {key}"));
            assert_eq!(line > 0, away, "{key}");
            stand.answer(line, "$1\r\nv\r\n");
        }
    }
}

#[test]
fn only_reads_of_one_key_that_any_server_answers_alike_go_away() {
    let mut stand = Stand::proven(ReadFrom::Replica);
    for line in ["TTL k", "DUMP k", "HSCAN k 0", "MGET k k", "EXISTS k", "DBSIZE"] {
        assert_eq!(stand.read(0, line), 0, "{line}");
        stand.answer(0, ":1\r\n");
    }
    for line in ["HGETALL k", "ZRANGE k 0 -1", "STRLEN k", "GET k"] {
        let at = stand.read(0, line);
        assert!(at > 0, "{line}");
        stand.answer(at, ":1\r\n");
    }
}

#[test]
fn the_nearest_is_asked_until_another_is_clearly_nearer() {
    let mut stand = Stand::of(ReadFrom::Nearest);
    stand.takes = [900, 400, 700];
    stand.prove(&[1, 2]);
    assert_eq!(stand.reads(20), [0, 20, 0]);
    // Only a little nearer.
    stand.takes = [900, 400, 350];
    (0..20).for_each(|_| stand.prove(&[1, 2]));
    assert_eq!(stand.reads(20), [0, 20, 0]);
    stand.takes = [900, 400, 200];
    (0..20).for_each(|_| stand.prove(&[1, 2]));
    assert_eq!(stand.reads(20), [0, 0, 20]);
    // It does not tell any more; the next one is the nearest then.
    (0..5).for_each(|_| stand.prove_without_2());
    assert_eq!(stand.reads(20), [0, 20, 0]);
    stand.takes = [100, 900, 900];
    (0..20).for_each(|_| stand.prove_without_2());
    assert_eq!(stand.reads(20), [20, 0, 0]);
}

impl Stand {
    /// The second replica does not serve.
    fn prove_without_2(&mut self) {
        self.prove(&[1]);
        self.answer(2, "-LOADING Redis is loading the dataset in memory\r\n");
    }
}

#[test]
fn those_in_the_same_zone_come_first() {
    let zone = Some("a".into());
    for (from, zones, expected) in [
        (ReadFrom::AzAffinity, ["a", "b", "a"], [false, false, true]),
        (ReadFrom::AzAffinity, ["a", "b", "c"], [false, true, true]),
        (ReadFrom::AzAffinity, ["a", "", ""], [false, true, true]),
        (ReadFrom::AzAffinityReplicasAndPrimary, ["a", "b", "a"], [false, false, true]),
        (ReadFrom::AzAffinityReplicasAndPrimary, ["a", "b", "c"], [true, false, false]),
        (ReadFrom::AzAffinityReplicasAndPrimary, ["b", "c", ""], [false, true, true]),
    ] {
        let reading = || Reading { from, zone: zone.clone(), ..Reading::default() };
        let mut told = Stand::with(reading());
        told.zones = zones;
        told.prove(&[1, 2]);
        let mut given = Stand::with(reading());
        let hot = &mut given.engine.path_mut(0).unwrap().hot;
        let places = (0..).zip(zones).filter(|(_, zone)| !zone.is_empty());
        *hot = std::mem::replace(hot, Hot::new(Config::default(), 7, Default::default())).in_zones(places);
        // Whoever has told something else is not believed.
        given.zones = zones.map(|zone| if zone.is_empty() { "" } else { "a" });
        given.prove(&[1, 2]);
        for mut stand in [told, given] {
            let asked = stand.reads(40);
            assert_eq!(asked.map(|count| count > 0), expected, "{from} {zones:?} {asked:?}");
        }
    }
}

#[test]
fn what_was_written_here_is_read_at_the_shard_until_a_replica_has_it() {
    for from in [ReadFrom::PreferReplica, ReadFrom::Replica, ReadFrom::Any, ReadFrom::Nearest] {
        let mut stand = Stand::of(from);
        stand.takes = [900, 300, 300];
        stand.prove(&[1, 2]);
        assert!(stand.ask(1, "SET k new"));
        assert!(stand.sent(0).contains("SET"));
        assert_eq!(stand.read(0, "GET k"), 0, "while it is on its way");
        let other = stand.read(2, "GET other");
        stand.answer(other, if other == 0 { "+OK\r\n$1\r\nv\r\n$1\r\no\r\n" } else { "$1\r\no\r\n" });
        if other > 0 {
            stand.answer(0, "+OK\r\n$1\r\nv\r\n");
        }
        stand.app(0);
        assert_eq!(stand.reads(10), [10, 0, 0], "{from}: once it is answered");
        stand.offset += 30;
        stand.prove(&[1]);
        let asked = stand.reads(30);
        assert!(asked[1] > 5 && asked[2] == 0, "{from}: the other has not told since: {asked:?}");
    }
}

#[test]
fn where_nobody_is_fit_the_shard_is_read_or_nobody() {
    for from in [ReadFrom::PreferReplica, ReadFrom::Any, ReadFrom::Nearest] {
        let mut stand = Stand::of(from);
        assert_eq!(stand.reads(10), [10, 0, 0], "{from}: nobody has told yet");
        stand.prove(&[1, 2]);
        stand.now += 2 * S;
        assert_eq!(stand.reads(10), [10, 0, 0], "{from}: what was told is too long ago");
        assert_eq!(stand.counts().2, 20);
    }
    let mut stand = Stand::of(ReadFrom::Replica);
    assert_eq!(stand.reads(10), [10, 0, 0], "nothing is held against those that were not asked yet");
    stand.prove(&[1, 2]);
    assert!(stand.explained().contains("read_from replica: 2 of 2 replicas are fit, this one from a replica"));
    stand.now += 4 * S;
    assert!(stand.ask(0, "GET k"));
    assert_eq!(stand.app(0), UNFIT);
    let told = stand.explained();
    assert!(
        told.contains("read_from replica: 0 of 2 replicas are fit") && told.contains("refused: ERR shard s0"),
        "{told}"
    );
    assert!(stand.ask(0, "SET k v"), "writes are the shard's");
    assert!(stand.sent(0).contains("SET"));
    stand.answer(0, "+OK\r\n");
    stand.app(0);
    stand.prove(&[1, 2]);
    assert_eq!(stand.reads(10)[0], 0);
    // Both are gone.
    for replica in [1, 2] {
        stand.engine.fail(replica, LOST, stand.now, &mut stand.wires);
    }
    assert!(stand.ask(0, "GET k"));
    assert_eq!(stand.app(0), UNFIT);
    stand.is_at_rest();
}

#[test]
fn what_one_replica_does_not_answer_is_asked_elsewhere_once() {
    for error in
        ["-LOADING Redis is loading\r\n", "-MASTERDOWN Link with MASTER is down\r\n", "-MOVED 1 10.0.0.1:1\r\n", ""]
    {
        for from in [ReadFrom::PreferReplica, ReadFrom::Replica] {
            let mut stand = Stand::proven(from);
            let first = stand.read(0, "GET k");
            assert!(first > 0);
            match error {
                "" => stand.engine.fail(first, LOST, stand.now, &mut stand.wires),
                error => stand.answer(first, error),
            }
            stand.flush();
            let second = if from == ReadFrom::Replica { 3 - first } else { 0 };
            assert_eq!(stand.app(0), "");
            assert!(stand.sent(second).contains("GET"), "{from} {error}");
            stand.answer(second, "$1\r\nv\r\n");
            assert_eq!(stand.app(0), "$1\r\nv\r\n");
            assert_eq!(stand.counts().1, 1);
            assert_eq!(stand.reads(30)[first as usize], 0, "it is left out");
            // No third try.
            if from == ReadFrom::Replica && !error.is_empty() {
                let mut stand = Stand::proven(from);
                let first = stand.read(0, "GET k");
                stand.answer(first, error);
                stand.sent(3 - first);
                stand.answer(3 - first, error);
                assert_eq!(stand.app(0), UNFIT);
                stand.is_at_rest();
            }
            stand.is_at_rest();
        }
    }
}

#[test]
fn one_that_stands_still_is_not_waited_for() {
    for from in [ReadFrom::PreferReplica, ReadFrom::Replica] {
        let mut stand = Stand::proven(from);
        let first = stand.read(0, "GET k");
        stand.tick(201 * MS);
        let second = if from == ReadFrom::Replica { 3 - first } else { 0 };
        assert!(stand.sent(second).contains("GET"), "{from}");
        if second > 0 {
            assert!(!stand.ask(0, "SET k w"), "a write waits for it");
        }
        stand.answer(second, "$1\r\nv\r\n");
        assert_eq!(stand.app(0), "$1\r\nv\r\n");
        stand.answer(first, "$3\r\nold\r\n");
        assert_eq!(stand.app(0), "", "what it says at last is for nobody");
        stand.is_at_rest();
    }
}

#[test]
fn a_session_that_has_left_leaves_nothing_behind() {
    for reply in ["$1\r\nv\r\n", "-LOADING\r\n"] {
        let mut stand = Stand::proven(ReadFrom::Replica);
        let first = stand.read(0, "GET k");
        stand.engine.close(0, true, &mut stand.wires);
        stand.answer(first, reply);
        assert_eq!([0, 1, 2].map(|line| stand.sent(line).contains("GET")), [false; 3]);
        stand.is_at_rest();
        assert_eq!(stand.engine.pool_counts(0).unwrap().requests_pending.get(), 0);
    }
}

#[test]
fn transactions_and_other_databases_are_the_shards() {
    let mut stand = Stand::proven(ReadFrom::Replica);
    assert!(stand.ask(0, "MULTI"));
    assert!(stand.ask(0, "GET k"));
    assert_eq!([1, 2].map(|line| stand.sent(line)), ["", ""]);
    let asked = stand.read(1, "GET k");
    assert!(asked > 0, "others' are not");
}

#[test]
fn a_new_connection_is_given_time_to_tell() {
    let mut stand = Stand::proven(ReadFrom::Replica);
    stand.now += 10 * S;
    stand.prove(&[1, 2]);
    for line in [1, 2] {
        stand.engine.fail(line, LOST, stand.now, &mut stand.wires);
        stand.engine.reopening(line);
        stand.engine.connected(line, stand.now);
    }
    assert_eq!(stand.reads(5), [5, 0, 0]);
    stand.now += 4 * S;
    assert!(stand.ask(0, "GET k"));
    assert_eq!(stand.app(0), UNFIT);
}

#[test]
fn in_a_cluster_the_node_has_the_last_word_on_what_is_not_there() {
    let slot = slot_of(b"k");
    for from in [ReadFrom::PreferReplica, ReadFrom::Replica] {
        for nothing in ["$-1\r\n", ":0\r\n", "*2\r\n$-1\r\n$-1\r\n"] {
            let mut stand = Stand::cluster(from);
            let replica = stand.read(0, "GET k");
            stand.answer(replica, nothing);
            assert_eq!(stand.app(0), "", "it may be on its way to another node");
            assert!(stand.sent(0).contains("GET"));
            stand.answer(0, &format!("-ASK {slot} 10.0.0.2:1\r\n"));
            assert!(stand.sent(3).contains("ASKING"));
            stand.answer(3, "+OK\r\n$1\r\nv\r\n");
            assert_eq!(stand.app(0), "$1\r\nv\r\n");
            let replica = stand.read(0, "GET k");
            assert!(replica > 0, "it is not held against the replica");
            stand.answer(replica, "$1\r\nv\r\n");
            assert_eq!(stand.app(0), "$1\r\nv\r\n");
            stand.is_at_rest();
        }
    }
}

#[test]
fn in_a_cluster_a_replica_that_sends_on_is_left_out_and_teaches_nothing() {
    let slot = slot_of(b"k");
    let mut stand = Stand::cluster(ReadFrom::PreferReplica);
    let replica = stand.read(0, "GET k");
    stand.answer(replica, &format!("-MOVED {slot} 10.0.0.2:1\r\n"));
    assert!(
        stand.sent(0).contains("GET") && stand.sent(3).is_empty(),
        "the node that has the slot, as far as is known"
    );
    assert!(stand.engine.take_wish(0), "but it is asked whether it has");
    stand.answer(0, &format!("-MOVED {slot} 10.0.0.2:1\r\n"));
    assert!(stand.sent(3).contains("GET"));
    stand.answer(3, "$1\r\nv\r\n");
    assert_eq!(stand.app(0), "$1\r\nv\r\n");
    // The other node has no replicas.
    assert!(stand.ask(0, "GET k"));
    assert!(stand.sent(3).contains("GET"));
    stand.answer(3, "$1\r\nv\r\n");
    stand.is_at_rest();
}
