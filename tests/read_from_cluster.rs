//! Reads that the replicas of a real Redis Cluster answer, while slots move, nodes change their parts and replicas die.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use hotring::ring::slot_of;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use support::{Cluster, Hotring, eventually};

const PRIMARIES: usize = 2;

fn stand(word: &str) -> (Cluster, Hotring) {
    let cluster = Cluster::start(PRIMARIES, 2);
    let more = [&format!("read_from: {word}"), "topology_interval: 1s", "probe_interval: 100ms"];
    let hotring = Hotring::with_admin(&cluster.yaml(&[0, 1], &more));
    (cluster, hotring)
}

/// Reads that the replicas have answered, nodes being what they were at the start.
fn replica_reads(cluster: &Cluster) -> u64 {
    let replicas = cluster.alive().filter(|&node| node >= PRIMARIES);
    replicas.map(|node| cluster.redis(node).calls("get")).sum()
}

/// Several apps write keys of their own, now and then, and read them all the time: every answer must be what was written last.
/// Meanwhile this is done; then all ends. Returns how many reads there were.
fn checked(hotring: &Hotring, keys: &[String], meanwhile: impl FnOnce()) -> u64 {
    let (ends, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for (number, keys) in keys.chunks(keys.len().div_ceil(4)).enumerate() {
            let (ends, reads, mut app) = (&ends, &reads, hotring.app());
            scope.spawn(move || {
                let mut round = 0;
                while !ends.load(Ordering::Relaxed) {
                    round += 1;
                    for key in keys {
                        assert_eq!(app.ask(&format!("SET {key} {number}-{round:05}")), "+OK\r\n");
                    }
                    for _ in 0..100 {
                        for key in keys {
                            assert_eq!(
                                app.ask(&format!("GET {key}")),
                                format!("$7\r\n{number}-{round:05}\r\n"),
                                "{key}"
                            );
                            reads.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
        let stop = scopeguard(&ends);
        meanwhile();
        drop(stop);
    });
    reads.into_inner()
}

/// Ends the apps also when what is done meanwhile fails.
fn scopeguard(ends: &AtomicBool) -> impl Drop + '_ {
    struct Guard<'a>(&'a AtomicBool);
    impl Drop for Guard<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    Guard(ends)
}

#[test]
fn nobody_notices_that_slots_move_while_replicas_are_read_from() {
    let (cluster, hotring) = stand("prefer_replica");
    let tagged: Vec<String> = (0..8).map(|n| format!("{{moving}}:{n}")).collect();
    let keys = [tagged, cluster.keys_at(0, 4), cluster.keys_at(1, 4)].concat();
    let slot = slot_of(b"moving");
    let mut at_replicas = 0;
    let reads = checked(&hotring, &keys, || {
        for _ in 0..4 {
            let from = cluster.owner(slot);
            let to = 1 - from;
            let before = replica_reads(&cluster);
            eventually("replicas are read from", || replica_reads(&cluster) > before + 500);
            // A key at a time, with reads between.
            cluster.begin_move(slot, to);
            while cluster.move_keys(slot, to, 1) > 0 {
                let before = replica_reads(&cluster);
                eventually("it is read meanwhile", || replica_reads(&cluster) > before + 50);
            }
            cluster.end_move(slot, to);
        }
        at_replicas = replica_reads(&cluster);
    });
    assert!(at_replicas > reads / 10, "{at_replicas} of {reads}");
}

#[test]
fn a_failover_and_the_death_of_replicas_cost_no_read() {
    let (mut cluster, hotring) = stand("any");
    let keys = [cluster.keys_at(0, 6), cluster.keys_at(1, 6)].concat();
    let read_on = |cluster: &Cluster, nodes: &[usize]| {
        for &node in nodes {
            let before = cluster.redis(node).calls("get");
            eventually("it is read from", || cluster.redis(node).calls("get") > before + 50);
        }
    };
    checked(&hotring, &keys, || {
        read_on(&cluster, &[0, 1, 2, 3]);
        // They change their parts, and change them back: who is read from says READONLY first.
        let (replica, primary) = (PRIMARIES, 0);
        cluster.failover(replica);
        read_on(&cluster, &[0, 1, 2, 3]);
        cluster.failover(primary);
        read_on(&cluster, &[0, 1, 2, 3]);
        cluster.kill(3);
        read_on(&cluster, &[0, 1, 2]);
        cluster.restart(3);
        read_on(&cluster, &[0, 1, 2, 3]);
        cluster.freeze(2);
        read_on(&cluster, &[0, 1, 3]);
        cluster.thaw(2);
        read_on(&cluster, &[0, 1, 2, 3]);
    });
}
