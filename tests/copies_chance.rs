//! Copies of hot keys under chance: several processes, servers with clocks of their own that keep keys and tell of changes,
//! messages that are late, connections that break, processes that die. Time is an argument, and so is chance.
//!
//! What is held: whoever reads through a process sees at least what was written through it and answered before he asked, no
//! read sees what its session wrote behind it, and nothing is older than `max_staleness`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "copies_chance/world.rs"]
mod world;

#[allow(dead_code, unreachable_pub, reason = "shared with tests that use all of it")]
#[path = "support/engine.rs"]
mod support;

use world::{Faults, World};

fn all(late: u64) -> Faults {
    Faults { late, breaks: 400_000, deaths: 1_500_000, direct: true }
}

#[test]
fn nothing_is_read_that_may_not_be() {
    let (mut hits, mut reads, mut behind) = (0, 0, 0);
    for seed in 0..12 {
        let mut world = World::new(seed, all(if seed % 3 == 0 { 2 } else { 20 }));
        world.run(20_000_000);
        assert_eq!(world.wrong, Vec::<String>::new(), "seed {seed}");
        (hits, reads, behind) = (hits + world.hits(), reads + world.reads, behind + world.behind);
    }
    assert!(hits > 5_000 && behind > 100, "{reads} reads, {hits} at copies, {behind} of what was overwritten");
}

#[test]
fn where_nothing_breaks_copies_are_used_well() {
    let mut world = World::new(99, Faults { late: 0, breaks: u64::MAX, deaths: u64::MAX, direct: false });
    world.run(20_000_000);
    assert_eq!(world.wrong, Vec::<String>::new());
    assert!(world.hits() * 4 > world.reads, "{} of {}", world.hits(), world.reads);
}
