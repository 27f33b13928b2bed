//! Apps work on a real cluster through hotring and check every reply while slots move, nodes fail, come and go.
//!
//! Nothing is wrong, nothing that was acknowledged is lost, nothing is done twice, nobody hangs, nobody sees a redirection. Errors
//! are told for keys of the node that failed only, and no longer than until a second after Redis' own failover. What Redis
//! acknowledges while a primary fails it may undo, since it replicates in the background: that alone is forgiven, from the moment
//! in which the replica has all that was written before until that second is over.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "chaos/mod.rs"]
mod chaos;
mod support;

use chaos::{ClusterStand, Counts, Mover, Plan, USUAL};
use std::time::Duration;

const ALL: [usize; 3] = [0, 1, 2];
const OTHERS: [usize; 2] = [0, 2];
/// The primary that fails, and its replica.
const ILL: usize = 1;
const NEXT: usize = 4;

const PLAN: Plan = Plan { rest: Duration::from_micros(500), ..USUAL };

/// All went well but for what is forgiven; errors may have been told about these shards.
fn is_well(counts: &Counts, ill: &[usize]) {
    counts.only(ill);
    assert!(counts.untimely.is_empty(), "{counts:#?}");
}

#[test]
fn slots_move_back_and_forth_under_load() {
    let stand = ClusterStand::new(100, 500, Plan { seed: 31, ..PLAN });
    let mut mover = Mover::new(&stand.cluster, &ALL);
    for round in 0..3 {
        for (from, to) in [(0, 1), (1, 0)] {
            // A key at a time, so that slots are half here and half there for a while.
            mover.move_all(stand.slots[0].clone(), (from, to), 1 + round, || stand.work.goes_on(&ALL, 1));
            stand.work.goes_on(&ALL, 50);
        }
    }
    let redirects = stand.redirects();
    let (counts, _) = stand.work.finish();
    is_well(&counts, &[]);
    let came = |why: &str| redirects.iter().any(|(other, _)| other == why);
    assert!(came("moved") && came("ask"), "{redirects:?}");
}

#[test]
fn nodes_come_and_go_under_load() {
    let mut stand = ClusterStand::new(60, 200, Plan { seed: 32, ..PLAN });
    let slots = stand.slots.clone();
    for _ in 0..2 {
        let node = stand.cluster.add_node();
        let mut mover = Mover::new(&stand.cluster, &[0, 1, 2, node]);
        for (shard, slots) in slots.iter().enumerate() {
            mover.move_all(slots.clone().take(30), (shard, node), 10, || {});
        }
        stand.work.goes_on(&ALL, 100);
        for (shard, slots) in slots.iter().enumerate() {
            mover.move_all(slots.clone().take(30), (node, shard), 10, || {});
        }
        drop(mover);
        stand.remove(node);
        stand.work.goes_on(&ALL, 100);
    }
    let (counts, _) = stand.work.finish();
    is_well(&counts, &[]);
}

#[test]
fn a_failover_in_order_is_not_noticed() {
    let stand = ClusterStand::new(60, 0, Plan { seed: 33, ..PLAN });
    for (replica, primary) in [(NEXT, ILL), (ILL, NEXT)] {
        stand.cluster.failover(replica);
        stand.work.goes_on(&ALL, 200);
        assert_eq!(stand.cluster.owner(stand.slots[ILL].start), replica, "in the place of {primary}");
    }
    let (counts, _) = stand.work.finish();
    is_well(&counts, &[]);
}

#[test]
fn a_primary_is_killed_and_comes_back_as_a_replica() {
    let mut stand = ClusterStand::new(60, 0, Plan { seed: 34, ..PLAN });
    // It is one of two that the file names; the other is a replica, and is lost with it.
    let before = stand.work.counts();
    stand.begin_doubt(ILL, ILL, NEXT);
    stand.cluster.kill(ILL);
    stand.cluster.kill(5);
    stand.work.fails(ILL, &before, 20);
    stand.work.goes_on(&OTHERS, 100);
    let over = stand.failed_over(ILL, NEXT);
    stand.end_doubt(ILL, over);
    stand.work.goes_on(&ALL, 100);
    stand.cluster.restart(ILL);
    stand.cluster.restart(5);
    stand.cluster.agree();
    stand.work.goes_on(&ALL, 200);
    let (counts, _) = stand.work.finish();
    is_well(&counts, &[ILL]);
}

#[test]
fn a_primary_stands_still_and_goes_on_when_it_is_none_any_more() {
    // Shorter than Redis' own failover, so that apps go on meanwhile.
    let binary = env!("CARGO_BIN_EXE_hotring");
    let stand = ClusterStand::of(binary, 60, 0, "timeout: 2s", Plan { seed: 35, ..PLAN });
    let before = stand.work.counts();
    stand.begin_doubt(ILL, ILL, NEXT);
    stand.cluster.freeze(ILL);
    stand.work.goes_on(&OTHERS, 100);
    let over = stand.failed_over(ILL, NEXT);
    stand.end_doubt(ILL, over);
    stand.work.fails(ILL, &before, 1);
    // From now on it would have to take nothing back.
    stand.work.goes_on(&ALL, 100);
    stand.cluster.thaw(ILL);
    stand.cluster.agree();
    stand.work.goes_on(&ALL, 200);
    let (counts, _) = stand.work.finish();
    is_well(&counts, &[ILL]);
}
