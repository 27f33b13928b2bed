//! What a cluster's nodes redirect: sent on, in order, and never seen by an app. Nodes are scripted here; real ones are in
//! tests/cluster.rs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use hotring::engine::{Engine, PoolConfig, SessionId};
use hotring::error::{Cause, Failure};
use hotring::resp::write;
use hotring::ring::{SLOTS, slot_of};
use hotring::stages::{Placement, Route};
use std::sync::Arc;

#[path = "support/engine.rs"]
#[allow(unreachable_pub, dead_code, reason = "shared with benchmarks")]
mod inner;

use inner::{Wires, request};

const WAIT: u64 = 2_000_000;

/// A cluster of so many nodes, all of whose slots are the first's.
fn cluster(nodes: u16) -> PoolConfig {
    let mut config = inner::pool(nodes, 1, false);
    config.follows = true;
    config.redirect_wait = WAIT;
    config.nodes = (0..nodes).map(|node| (format!("10.0.0.{node}:7000").into_bytes().into(), node)).collect();
    let placement = Placement {
        shards: Vec::new(),
        numbers: (0..nodes).collect(),
        hash: Default::default(),
        distribution: Default::default(),
        hash_tag: None,
        pins: Vec::new(),
        slots: Some(Arc::new(vec![0; SLOTS])),
    };
    config.path.route = Route::new(placement, 1);
    config
}

struct World {
    engine: Engine,
    wires: Wires,
    now: u64,
}

impl World {
    fn new(config: PoolConfig, sessions: usize) -> Self {
        let (engine, wires) = inner::engine(config, sessions);
        Self { engine, wires, now: 0 }
    }

    /// Returns how many bytes were taken.
    fn ask(&mut self, session: SessionId, line: &str) -> usize {
        let wire = request(line);
        let taken = self.engine.submit(session, &wire, self.now, &mut self.wires).consumed;
        self.engine.flush(&mut self.wires);
        taken
    }

    /// What a node was sent since it was last asked.
    fn sent(&mut self, node: usize) -> String {
        let words = String::from_utf8(std::mem::take(&mut self.wires.shards[node])).unwrap();
        let lines: Vec<&str> = words.split("\r\n").filter(|word| !word.starts_with('$')).collect();
        lines
            .join(" ")
            .split('*')
            .map(|request| request.split_once(' ').map_or("", |(_, rest)| rest.trim()))
            .filter(|r| !r.is_empty())
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn reply(&mut self, node: u32, reply: &str) {
        let bytes = format!("{reply}\r\n");
        self.engine.receive(node, bytes.as_bytes(), self.now, &mut self.wires).unwrap();
        self.engine.flush(&mut self.wires);
    }

    fn later(&mut self, micros: u64) {
        self.now += micros;
        let overdue = self.engine.tick(self.now, &mut self.wires);
        assert!(overdue.is_empty(), "{overdue:?}");
        self.engine.flush(&mut self.wires);
    }

    fn told(&mut self, session: usize) -> String {
        String::from_utf8(std::mem::take(&mut self.wires.apps[session])).unwrap().replace("\r\n", " ").trim().to_owned()
    }

    fn waiting(&mut self) -> u64 {
        self.engine.pool_counts(0).unwrap().redirects_waiting.get()
    }
}

fn moved(key: &str, node: u16) -> String {
    format!("-MOVED {} 10.0.0.{node}:7000", slot_of(key.as_bytes()))
}

#[test]
fn what_has_moved_is_sent_on_and_known_from_then_on() {
    let mut it = World::new(cluster(3), 2);
    it.ask(0, "SET k v");
    assert_eq!(it.sent(0), "SET k v");
    it.reply(0, &moved("k", 1));
    assert_eq!((it.told(0).as_str(), it.sent(1).as_str()), ("", "SET k v"));
    it.reply(1, "+OK");
    assert_eq!(it.told(0), "+OK");
    it.ask(1, "GET k");
    it.ask(1, "GET other");
    assert_eq!((it.sent(0), it.sent(1)), ("GET other".into(), "GET k".into()));
    assert!(it.engine.take_wish(0) && !it.engine.take_wish(0), "the cluster is to be asked, once");
    assert_eq!(it.engine.in_flight(), 2);
}

#[test]
fn who_is_asked_once_is_told_so_and_nothing_is_remembered() {
    let mut it = World::new(cluster(2), 1);
    it.ask(0, "GET k");
    it.sent(0);
    it.reply(0, &moved("k", 1).replace("MOVED", "ASK"));
    assert_eq!(it.sent(1), "ASKING, GET k");
    it.reply(1, "+OK");
    assert_eq!(it.told(0), "", "the answer to ASKING is nobody's");
    it.reply(1, "$1\r\nv");
    assert_eq!(it.told(0), "$1 v");
    it.ask(0, "GET k");
    assert_eq!((it.sent(0), it.sent(1)), ("GET k".into(), String::new()));
}

#[test]
fn nothing_goes_the_new_way_before_what_has_gone_the_old_one() {
    let mut it = World::new(cluster(2), 2);
    it.ask(0, "SET k 1");
    it.ask(0, "SET k 2");
    assert_eq!(it.sent(0), "SET k 1, SET k 2");
    it.reply(0, &moved("k", 1));
    assert_eq!(it.sent(1), "SET k 1");
    // The second is still on its way to the old node: a third must not be there before it.
    assert_eq!(it.ask(0, "SET k 3"), 0, "it has to wait");
    assert_eq!((it.sent(0), it.sent(1)), (String::new(), String::new()));
    // Nobody else's requests wait, who has nothing under way.
    assert!(it.ask(1, "GET k") > 0);
    assert_eq!(it.sent(1), "GET k");
    it.reply(0, &moved("k", 1));
    assert_eq!(it.sent(1), "SET k 2");
    it.reply(1, "+OK");
    it.reply(1, "$1\r\n1");
    it.reply(1, "+OK");
    assert_eq!(it.told(0), "+OK +OK");
    assert!(it.ask(0, "SET k 3") > 0);
    assert_eq!(it.sent(1), "SET k 3");
    it.later(10_000);
    // Then all is as ever.
    assert!(it.ask(0, "SET k 4") > 0);
    assert_eq!(it.sent(1), "SET k 4");
}

#[test]
fn slots_that_the_cluster_tells_of_keep_that_order_too() {
    let mut it = World::new(cluster(2), 1);
    it.ask(0, "SET k 1");
    it.sent(0);
    it.engine.set_slots(0, Arc::new(vec![1; SLOTS]), 0, &mut it.wires);
    assert_eq!(it.ask(0, "SET k 2"), 0, "it has to wait");
    it.reply(0, &moved("k", 1));
    assert_eq!(it.sent(1), "SET k 1");
    it.reply(1, "+OK");
    assert!(it.ask(0, "SET k 2") > 0);
    assert_eq!(it.sent(1), "SET k 2");
}

#[test]
fn a_slot_between_two_nodes_is_tried_again_until_the_wait_is_over() {
    let mut it = World::new(cluster(2), 2);
    it.ask(0, "SUNION {k}a {k}b");
    assert_eq!(it.sent(0), "SUNION {k}a {k}b");
    it.reply(0, "-TRYAGAIN Multiple keys request during rehashing of slot");
    assert_eq!((it.told(0), it.waiting(), it.sent(0)), (String::new(), 1, String::new()));
    assert!(it.engine.in_flight() > 0, "somebody looks after it");
    it.later(20_000);
    assert_eq!((it.sent(0).as_str(), it.waiting()), ("SUNION {k}a {k}b", 0));
    it.reply(0, "*0");
    assert_eq!(it.told(0), "*0");
    // And one that never comes to an end is told as it is.
    it.ask(1, "SUNION {k}a {k}b");
    let mut tries = 0;
    while it.told(1).is_empty() {
        if !it.sent(0).is_empty() {
            tries += 1;
            it.reply(0, "-TRYAGAIN no");
            if !it.wires.apps[1].is_empty() {
                break;
            }
        }
        it.later(10_000);
        assert!(it.now < 2 * WAIT + 1_000_000);
    }
    assert!((10..60).contains(&tries), "{tries}");
    assert!(it.now >= WAIT);
    assert_eq!(it.waiting(), 0);
}

#[test]
fn nodes_that_send_each_other_a_request_do_not_do_so_for_ever() {
    let mut it = World::new(cluster(2), 1);
    it.ask(0, "GET k");
    let mut hops = 0;
    while it.wires.apps[0].is_empty() {
        for node in [0u16, 1] {
            if !it.sent(usize::from(node)).is_empty() {
                hops += 1;
                it.reply(u32::from(node), &moved("k", 1 - node));
            }
        }
        it.later(10_000);
        assert!(it.now < 2 * WAIT);
    }
    assert!((10..60).contains(&hops), "{hops}");
    assert_eq!(it.told(0), "-TRYAGAIN the slot of this key is moving from one node to another; nothing was done");
    assert_eq!(it.engine.pool_counts(0).unwrap().errors[Cause::Moving], 1);
}

#[test]
fn a_node_that_is_not_known_yet_is_waited_for() {
    let mut it = World::new(cluster(2), 1);
    it.ask(0, "SET k v");
    it.sent(0);
    it.reply(0, &format!("-MOVED {} 10.0.0.9:7000", slot_of(b"k")));
    assert_eq!((it.told(0), it.waiting()), (String::new(), 1));
    assert!(it.engine.take_wish(0));
    it.engine.set_slots(0, Arc::new(vec![1; SLOTS]), 0, &mut it.wires);
    it.engine.flush(&mut it.wires);
    assert_eq!((it.sent(1).as_str(), it.waiting()), ("SET k v", 0));
}

#[test]
fn a_node_that_does_not_name_its_host_means_its_own() {
    let mut it = World::new(cluster(2), 1);
    it.engine.path_mut(0).unwrap();
    for spelled in [":7000", "?:7000"] {
        it.ask(0, "GET k");
        it.sent(0);
        it.reply(0, &format!("-ASK {} {spelled}", slot_of(b"k")));
        assert_eq!(it.sent(0), "ASKING, GET k");
        it.reply(0, "+OK");
        it.reply(0, "$-1");
        assert_eq!(it.told(0), "$-1");
    }
}

#[test]
fn keys_of_several_slots_are_asked_for_slot_by_slot() {
    let mut it = World::new(cluster(2), 1);
    it.ask(0, "MGET a b {a}c");
    assert_eq!(it.sent(0), "MGET a {a}c, MGET b");
    it.reply(0, "*2\r\n$1\r\n1\r\n$1\r\n3");
    it.reply(0, &moved("b", 1));
    assert_eq!(it.sent(1), "MGET b");
    it.reply(1, "*1\r\n$1\r\n2");
    assert_eq!(it.told(0), "*3 $1 1 $1 2 $1 3");
    it.ask(0, "SUNION a b");
    assert_eq!(it.told(0), "-CROSSSLOT Keys in request don't hash to the same slot");
}

#[test]
fn a_slot_that_is_nobodys_is_refused_in_redis_words() {
    let mut config = cluster(2);
    config.path.route.give_all(Arc::new(vec![hotring::ring::NOBODY; SLOTS]));
    let mut it = World::new(config, 1);
    it.ask(0, "GET k");
    assert_eq!(it.told(0), "-CLUSTERDOWN Hash slot not served");
    assert!(it.engine.take_wish(0));
}

#[test]
fn what_was_redirected_is_lost_with_its_new_connection() {
    let mut it = World::new(cluster(2), 1);
    it.ask(0, "SET k v");
    it.sent(0);
    it.reply(0, &moved("k", 1));
    let failure = Failure { cause: Cause::Lost, reason: "reset" };
    it.engine.fail(1, failure, 0, &mut it.wires);
    it.engine.flush(&mut it.wires);
    assert_eq!(it.told(0), "-ERR shard s1 was lost (reset); the command may have run");
    assert_eq!(it.engine.in_flight(), 0);
}

#[test]
fn errors_that_redirect_nothing_are_passed_on() {
    let mut it = World::new(cluster(2), 1);
    let mut wire = Vec::new();
    write::request(&mut wire, &[b"GET", b"k"]);
    it.ask(0, "GET k");
    it.reply(0, "-WRONGTYPE Operation against a key holding the wrong kind of value");
    assert_eq!(it.told(0), "-WRONGTYPE Operation against a key holding the wrong kind of value");
    it.ask(0, "SET k v");
    it.reply(0, "-READONLY You can't write against a read only replica.");
    assert_eq!(it.told(0), "-READONLY You can't write against a read only replica.");
    assert!(it.engine.take_wish(0), "it is no primary any more");
}

#[test]
fn a_command_that_blocks_moves_with_its_slot() {
    let mut it = World::new(cluster(2), 1);
    it.wires.shards.resize(8, Vec::new());
    it.ask(0, "BLPOP k 0");
    // Its own connection to the first node, which is opened for it.
    it.engine.connected(2, 0);
    it.engine.flush(&mut it.wires);
    assert_eq!(it.sent(2), "BLPOP k 0");
    it.reply(2, &moved("k", 1));
    it.engine.connected(3, 0);
    it.engine.flush(&mut it.wires);
    assert_eq!((it.told(0), it.sent(3)), (String::new(), "BLPOP k 0".into()));
    assert_eq!(it.engine.holdings().blocked, 1);
    it.reply(3, "*2\r\n$1\r\nk\r\n$1\r\nv");
    assert_eq!(it.told(0), "*2 $1 k $1 v");
    assert_eq!(it.engine.holdings().blocked, 0);
    assert!(it.ask(0, "GET k") > 0);
    assert_eq!(it.sent(1), "GET k", "all know where it is now");
}

#[test]
fn what_a_script_says_itself_does_not_have_it_run_again() {
    let mut it = World::new(cluster(2), 1);
    let call = "EVAL s 1 k";
    for said in ["-TRYAGAIN x", "-CLUSTERDOWN x", "-MOVED 1 10.0.0.1:7000", "-ASK 1 10.0.0.1:7000"] {
        it.ask(0, call);
        assert_eq!(it.sent(0), call);
        it.reply(0, said);
        assert_eq!((it.told(0).as_str(), it.waiting()), (said, 0));
    }
    it.later(3_000_000);
    assert_eq!((it.sent(0), it.sent(1)), (String::new(), String::new()));
    // The node's own word for the slot of its keys: it has not run.
    it.ask(0, call);
    it.sent(0);
    it.reply(0, &moved("k", 1));
    assert_eq!(it.sent(1), call);
}

#[test]
fn a_transaction_whose_slot_moves_ends_in_redis_words() {
    let mut it = World::new(cluster(2), 1);
    it.wires.shards.resize(8, Vec::new());
    it.ask(0, "MULTI");
    it.ask(0, "SET k v");
    it.engine.connected(2, 0);
    it.engine.flush(&mut it.wires);
    assert_eq!(it.sent(2), "MULTI, SET k v");
    it.reply(2, "+OK");
    it.reply(2, "+QUEUED");
    it.ask(0, "EXEC");
    it.reply(2, &moved("k", 1));
    assert_eq!(
        it.told(0),
        "+OK +QUEUED -EXECABORT Transaction discarded because the slot of its keys has moved; nothing of it was carried out"
    );
    assert!(it.ask(0, "GET k") > 0);
    assert_eq!(it.sent(1), "GET k");
}

#[test]
fn notes_of_a_write_go_with_it() {
    // A read of the same key that asks behind it, at the same node, is not answered from elsewhere meanwhile; and nothing is left.
    let mut it = World::new(cluster(2), 1);
    for _ in 0..100 {
        it.ask(0, "SET k v");
        it.sent(0);
        it.sent(1);
        it.reply(0, &moved("k", 1).replace("MOVED", "ASK"));
        it.reply(1, "+OK");
        it.reply(1, "+OK");
        assert_eq!(it.told(0), "+OK");
    }
    let held = it.engine.holdings();
    assert_eq!((held.gathers, held.errands, held.joined, it.engine.in_flight()), (0, 0, 0, 0));
}

#[test]
fn what_comes_back_to_a_node_is_not_overtaken_there() {
    let mut it = World::new(cluster(2), 1);
    it.ask(0, "SET k 1");
    it.ask(0, "SET k 2");
    it.sent(0);
    // The nodes contradict each other: the first is sent back behind the second, which is still on its way to the old one.
    it.reply(0, &moved("k", 1));
    assert_eq!(it.sent(1), "SET k 1");
    it.reply(1, &moved("k", 0));
    assert_eq!((it.sent(0), it.waiting()), (String::new(), 1), "it must not stand behind the second");
    it.later(20_000);
    assert_eq!(it.sent(0), "");
    it.reply(0, &moved("k", 1));
    assert_eq!((it.sent(0).as_str(), it.sent(1).as_str()), ("", "SET k 1, SET k 2"));
    it.reply(1, "+OK");
    it.reply(1, "+OK");
    assert_eq!((it.told(0).as_str(), it.waiting()), ("+OK +OK", 0));
    it.later(1);
    assert_eq!(it.engine.holdings().troubles, 0);
}

#[test]
fn who_waits_for_what_stands_still_elsewhere_is_told_in_time() {
    let mut it = World::new(cluster(2), 1);
    it.ask(0, "SET k 1");
    it.ask(0, "GET other");
    it.sent(0);
    it.reply(0, &moved("k", 1));
    it.reply(1, &moved("k", 0));
    // The old node does not answer what is on its way to it.
    it.later(WAIT + 1);
    assert_eq!(it.told(0), "-TRYAGAIN the slot of this key is moving from one node to another; nothing was done");
    assert_eq!(it.waiting(), 0);
    it.reply(0, "$-1");
    it.later(1);
    assert_eq!((it.told(0).as_str(), it.engine.in_flight(), it.engine.holdings().troubles), ("$-1", 0, 0));
}

#[test]
fn what_is_redirected_is_no_older_than_what_stands_before_it() {
    let mut config = cluster(2);
    config.timeout = Some(100_000);
    let mut it = World::new(config, 2);
    it.ask(0, "GET k");
    it.later(40_000);
    it.engine.set_slots(
        0,
        Arc::new((0..SLOTS).map(|n| u16::from(n == usize::from(slot_of(b"l")))).collect()),
        it.now,
        &mut it.wires,
    );
    it.ask(1, "GET l");
    it.reply(0, &moved("k", 1));
    it.later(90_000);
    // The first that waits is answered within its time; the redirected one, which came to the node with it, has its own.
    it.reply(1, "$1\r\nl");
    it.later(5_000);
    it.reply(1, "$1\r\nk");
    assert_eq!((it.told(1).as_str(), it.told(0).as_str()), ("$1 l", "$1 k"));
}

#[test]
fn reads_that_wait_behind_one_that_moves_are_not_overtaken() {
    let mut config = cluster(2);
    config.path.merging = hotring::stages::Merging::new(hotring::stages::Merge::Strict, 7).of_every_key();
    let mut it = World::new(config, 2);
    it.ask(0, "GET k");
    assert_eq!(it.sent(0), "GET k");
    it.ask(1, "GET k");
    assert_eq!(it.sent(0), "", "it waits behind the other");
    it.engine.set_slots(0, Arc::new(vec![1; SLOTS]), 0, &mut it.wires);
    it.engine.flush(&mut it.wires);
    assert_eq!(it.sent(0), "GET k", "it goes the old way, as the other has");
    it.reply(0, &moved("k", 1));
    assert_eq!(it.ask(1, "SET k 1"), 0, "its read may be on its way");
    it.reply(0, &moved("k", 1));
    assert_eq!(it.sent(1), "GET k, GET k");
}

#[test]
fn a_read_that_is_sent_anew_on_the_next_connection_keeps_its_slot_in_trouble() {
    let mut it = World::new(cluster(2), 1);
    let wire = request("GET k");
    assert_eq!(it.engine.submit(0, &wire, 0, &mut it.wires).consumed, wire.len());
    it.engine.set_slots(0, Arc::new(vec![1; SLOTS]), 0, &mut it.wires);
    // Lost before any of it has left: it waits for the next connection to the old node.
    let failure = Failure { cause: Cause::Lost, reason: "reset" };
    it.engine.fail(0, failure, 0, &mut it.wires);
    it.later(1);
    assert_eq!(it.ask(0, "SET k 1"), 0, "it has to wait");
    it.engine.connected(0, 0);
    it.engine.flush(&mut it.wires);
    assert_eq!(it.sent(0), "GET k");
    it.reply(0, &moved("k", 1));
    it.reply(1, "$-1");
    assert_eq!((it.sent(1).as_str(), it.told(0).as_str()), ("GET k", "$-1"));
    it.later(1);
    assert!(it.ask(0, "SET k 1") > 0);
    assert_eq!(it.sent(1), "SET k 1");
}

#[test]
fn what_waits_is_not_overtaken_by_what_was_on_its_way_behind_it() {
    let mut it = World::new(cluster(2), 1);
    it.ask(0, "SET k 1");
    it.ask(0, "SET k 2");
    it.sent(0);
    it.reply(0, "-CLUSTERDOWN The cluster is down");
    assert_eq!(it.waiting(), 1);
    // It would be due, but the second is still on its way.
    it.later(20_000);
    assert_eq!(it.sent(0), "");
    it.reply(0, &moved("k", 1).replace("MOVED", "ASK"));
    assert_eq!((it.sent(1).as_str(), it.sent(0).as_str()), ("", "SET k 1, SET k 2"), "both, in turn");
    it.reply(0, "+OK");
    it.reply(0, "+OK");
    it.later(10_000);
    assert_eq!((it.told(0).as_str(), it.waiting(), it.engine.holdings().troubles), ("+OK +OK", 0, 0));
}

#[test]
fn what_waits_stays_in_its_protocol_though_nodes_come() {
    let mut it = World::new(cluster(2), 1);
    it.ask(0, "HELLO 3");
    let opened = it.engine.line_count();
    (2..opened).for_each(|line| it.engine.connected(line, 0));
    it.told(0);
    it.ask(0, "HGETALL k");
    it.ask(0, "GET k");
    assert_eq!(it.sent(2), "HGETALL k, GET k", "where RESP3 is spoken");
    it.reply(2, "-CLUSTERDOWN The cluster is down");
    it.reply(2, "-CLUSTERDOWN The cluster is down");
    assert_eq!(it.waiting(), 2);
    it.engine.reload(0, cluster(5), it.now, &mut it.wires);
    it.later(200_000);
    assert_eq!((it.sent(0), it.sent(2)), (String::new(), "HGETALL k, GET k".into()));
    it.reply(2, "%0");
    it.reply(2, "_");
    assert_eq!(it.told(0), "%0 _");
}

#[test]
fn a_pool_that_becomes_a_cluster_follows_on_the_connections_that_it_has() {
    let mut before = cluster(2);
    before.follows = false;
    before.nodes.clear();
    before.path = inner::pool(2, 1, false).path;
    let mut it = World::new(before, 1);
    let key = inner::key_on(&it.engine, 0);
    it.ask(0, &format!("SET {key} before"));
    it.sent(0);
    it.reply(0, "+OK");
    it.engine.reload(0, cluster(2), it.now, &mut it.wires);
    it.told(0);
    it.ask(0, &format!("SET {key} v"));
    assert_eq!(it.sent(0), format!("SET {key} v"));
    it.reply(0, &moved(&key, 1));
    assert_eq!((it.told(0), it.sent(1)), (String::new(), format!("SET {key} v")));
}

#[test]
fn what_waits_in_a_cluster_that_is_none_any_more_is_sent_nowhere() {
    let mut it = World::new(cluster(2), 1);
    it.ask(0, "SET k v");
    it.sent(0);
    it.reply(0, "-CLUSTERDOWN The cluster is down");
    it.engine.reload(0, inner::pool(2, 1, false), it.now, &mut it.wires);
    it.later(200_000);
    assert_eq!((it.sent(0), it.sent(1)), (String::new(), String::new()), "its home is another's to say now");
    assert_eq!(it.told(0), "-TRYAGAIN the slot of this key is moving from one node to another; nothing was done");
    assert_eq!((it.waiting(), it.engine.holdings().troubles), (0, 0));
}

#[test]
fn where_nothing_waits_what_has_moved_is_sent_on_all_the_same() {
    let mut config = cluster(2);
    config.redirect_wait = 0;
    let mut it = World::new(config, 1);
    it.ask(0, "SET k v");
    it.sent(0);
    it.reply(0, &moved("k", 1));
    assert_eq!((it.told(0), it.sent(1)), (String::new(), "SET k v".into()));
    it.reply(1, "-CLUSTERDOWN The cluster is down");
    assert_eq!(it.told(0), "-CLUSTERDOWN The cluster is down");
}

#[test]
fn a_transaction_where_no_node_is_known_yet_is_told_that() {
    let mut it = World::new(cluster(0), 1);
    for line in ["MULTI", "PING", "EXEC"] {
        it.ask(0, line);
    }
    assert_eq!(it.told(0), "+OK +QUEUED -CLUSTERDOWN Hash slot not served");
    it.ask(0, "WATCH k");
    assert_eq!(it.told(0), "-CLUSTERDOWN Hash slot not served");
    it.ask(0, "PING");
    assert_eq!(it.told(0), "+PONG");
}

#[test]
fn who_listens_to_a_channel_goes_on_when_its_slot_is_nobodys_for_a_while() {
    const TOLD: &str = "*3\r\n$10\r\nssubscribe\r\n$1\r\nc\r\n:1";
    let mut it = World::new(cluster(2), 2);
    it.ask(0, "SSUBSCRIBE c");
    let first = it.engine.line_count() - 1;
    assert_eq!(it.wires.wanted.pop(), Some(first));
    it.engine.connected(first, 0);
    it.engine.flush(&mut it.wires);
    assert_eq!(it.sent(first as usize), "ssubscribe c");
    it.reply(first, TOLD);
    assert!(it.told(0).contains("ssubscribe"));
    // The slot moves, and the node that is to have it does not serve it yet.
    it.engine.set_slots(0, Arc::new(vec![1; SLOTS]), 0, &mut it.wires);
    let second = it.engine.line_count() - 1;
    assert_eq!(it.wires.wanted.pop(), Some(second));
    it.engine.connected(second, 0);
    it.later(1);
    assert_eq!(it.sent(second as usize), "ssubscribe c");
    it.ask(1, "SSUBSCRIBE c");
    it.reply(second, "-CLUSTERDOWN Hash slot not served");
    assert_eq!(it.told(1), "-CLUSTERDOWN Hash slot not served", "who has only come is told");
    it.later(50_000);
    assert_eq!(it.sent(second as usize), "");
    it.later(200_000);
    assert_eq!(it.sent(second as usize), "ssubscribe c");
    it.reply(second, TOLD);
    it.reply(second, "*3\r\n$8\r\nsmessage\r\n$1\r\nc\r\n$2\r\nhi");
    assert_eq!((it.told(0).as_str(), it.told(1)), ("*3 $8 smessage $1 c $2 hi", String::new()));
}

#[test]
fn a_redirection_on_a_connection_of_a_sessions_own_says_nothing_of_other_nodes() {
    let mut it = World::new(cluster(2), 1);
    it.wires.shards.resize(8, Vec::new());
    let failure = Failure { cause: Cause::Lost, reason: "the server closed the connection" };
    it.engine.fail(1, failure, it.now, &mut it.wires);
    let failures = |it: &World| it.engine.path(0).unwrap().health.failures(1);
    assert_eq!(failures(&it), 1);
    it.ask(0, "BLPOP k 0");
    it.engine.connected(2, 0);
    it.engine.flush(&mut it.wires);
    it.reply(2, &moved("k", 1));
    assert_eq!(failures(&it), 1, "it has not said anything");
}
