//! What a look-up costs and how evenly keys fall, for the distributions there are and for those that were rejected.
//!
//! `cargo bench --bench ring` prints nanoseconds and allocations a look-up (a 16-byte key: tag rule, hash, shard), then for
//! growing pools the heaviest shard's part of the keys as a multiple of the mean, and how many keys move when one shard
//! is added as a multiple of what has to move.
#![allow(unsafe_code, reason = "an allocator that counts can only be unsafe")]
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark reads the clock and prints")]
#![allow(missing_docs, unreachable_pub, dead_code, reason = "not a library, and it measures in its own way")]

mod support;

use std::hint::black_box;
use std::time::Instant;

use hotring::ring::{Distribution, KeyHash, Ring, Shard};
use support::counting::allocations;

const KEYS: usize = 1 << 16;
const ROUNDS: usize = 64;

fn main() {
    println!("ns a look-up (allocations a look-up), {KEYS} keys of 16 bytes, best of {ROUNDS} rounds");
    println!("{:<28}{:>16}{:>16}{:>16}", "shards", 3, 16, 64);
    let keys: Vec<String> = (0..KEYS).map(|i| format!("user:{:011}", i * 7_919)).collect();
    for (name, hash, distribution, tag) in [
        ("ketama", KeyHash::Fnv1a_64, Distribution::Ketama, None),
        ("ketama, hash_tag {}", KeyHash::Fnv1a_64, Distribution::Ketama, Some(*b"{}")),
        ("ketama, md5", KeyHash::Md5, Distribution::Ketama, None),
        ("ketama, murmur", KeyHash::Murmur, Distribution::Ketama, None),
        ("even", KeyHash::Fnv1a_64, Distribution::Even, None),
        ("modula", KeyHash::Fnv1a_64, Distribution::Modula, None),
        ("random", KeyHash::Fnv1a_64, Distribution::Random, None),
    ] {
        print!("{name:<28}");
        for count in [3, 16, 64] {
            let ring = Ring::new(&pool(count), &[], hash, distribution, tag);
            let (ns, allocations) = cost(&keys, |key| {
                let position = ring.position(key);
                ring.shard_at(position, position)
            });
            print!("{:>16}", format!("{ns:.1} ({allocations})"));
        }
        println!();
    }
    print!("{:<28}", "ketama, by hashring alone");
    for count in [3, 16, 64] {
        let ring = Ring::new(&pool(count), &[], KeyHash::Fnv1a_64, Distribution::Ketama, None);
        let mut out = [0];
        let (ns, allocations) =
            cost(&keys, |key| (ring.neighbours(ring.position(key), &mut out) == 1).then_some(out[0]));
        print!("{:>16}", format!("{ns:.1} ({allocations})"));
    }
    println!();
    println!("{:<28}{:>16}{:>16}{:>16}", "making a ring, ms", 3, 16, 64);
    for distribution in [Distribution::Ketama, Distribution::Even] {
        print!("{:<28}", distribution.name());
        for count in [3, 16, 64] {
            let start = Instant::now();
            black_box(Ring::new(&pool(count), &[], KeyHash::default(), distribution, None));
            print!("{:>16.2}", start.elapsed().as_secs_f64() * 1e3);
        }
        println!();
    }

    let people: Vec<String> = (0..1_000_000).map(|i| format!("user:{i}")).collect();
    for (set, keys) in [("user:0 to user:999999", &people[..]), ("user:0 to user:19999", &people[..20_000])] {
        println!("\nheaviest shard / mean (keys moved by one more shard / necessary), fnv1a_64, {set}");
        println!("{:<28}{:>16}{:>16}{:>16}{:>16}", "shards", 3, 5, 16, 64);
        for (name, place) in CANDIDATES {
            print!("{name:<28}");
            for count in [3, 5, 16, 64] {
                let (before, after) = (place(keys, count), place(keys, count + 1));
                let mut load = vec![0u32; count];
                before.iter().for_each(|&shard| load[usize::from(shard)] += 1);
                let heaviest = f64::from(*load.iter().max().unwrap_or(&0)) * count as f64 / keys.len() as f64;
                let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count() as f64;
                let moved = moved * (count + 1) as f64 / keys.len() as f64;
                print!("{:>16}", format!("{heaviest:.3} ({moved:.2})"));
            }
            println!();
        }
    }
}

/// The best round's nanoseconds a key and all allocations a key.
fn cost(keys: &[String], mut look_up: impl FnMut(&[u8]) -> Option<u16>) -> (f64, u64) {
    let before = allocations();
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for key in keys {
            black_box(look_up(black_box(key.as_bytes())));
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e9 / keys.len() as f64);
    }
    (best, (allocations() - before).div_ceil((ROUNDS * keys.len()) as u64))
}

fn pool(count: usize) -> Vec<Shard> {
    (1..=count).map(|i| Shard { name: format!("server{i}"), weight: 1 }).collect()
}

/// A distribution's name and what it makes of keys in a pool of so many shards.
type Candidate = (&'static str, fn(&[String], usize) -> Vec<u16>);

const CANDIDATES: [Candidate; 7] = [
    ("ketama", |keys, count| ours(keys, count, Distribution::Ketama)),
    ("even", |keys, count| ours(keys, count, Distribution::Even)),
    ("modula", |keys, count| ours(keys, count, Distribution::Modula)),
    ("circle of 1000, unscattered", |keys, count| circle(keys, count, 1000, |hash| hash)),
    ("circle of 160, scattered", |keys, count| circle(keys, count, 160, mix)),
    ("rendezvous", rendezvous),
    ("maglev, 65537 slots", maglev),
];

fn ours(keys: &[String], count: usize, distribution: Distribution) -> Vec<u16> {
    let ring = Ring::new(&pool(count), &[], KeyHash::Fnv1a_64, distribution, None);
    keys.iter().map(|key| ring.shard_of(key.as_bytes()).unwrap_or(0)).collect()
}

fn circle(keys: &[String], count: usize, points: u32, place: fn(u32) -> u32) -> Vec<u16> {
    let mut circle: Vec<(u32, u16)> =
        (0..count as u16).flat_map(|shard| (0..points).map(move |i| (draw(shard, i), shard))).collect();
    circle.sort_unstable();
    let owner = |at| circle.get(circle.partition_point(|point| point.0 < at)).unwrap_or(&circle[0]).1;
    keys.iter().map(|key| owner(place(KeyHash::Fnv1a_64.hash(key.as_bytes())))).collect()
}

/// The highest of one draw a shard: even and minimal in moves, but a look-up costs a draw a shard.
fn rendezvous(keys: &[String], count: usize) -> Vec<u16> {
    let owner = |hash| (0..count as u16).max_by_key(|&shard| draw(shard, hash)).unwrap_or(0);
    keys.iter().map(|key| owner(KeyHash::Fnv1a_64.hash(key.as_bytes()))).collect()
}

/// Google's Maglev (NSDI 2016, section 3.4): shards take turns to claim slots, each by its own permutation.
fn maglev(keys: &[String], count: usize) -> Vec<u16> {
    const SLOTS: u32 = 65_537;
    let mut slots = vec![u16::MAX; SLOTS as usize];
    let mut turns: Vec<(u32, u32)> =
        (0..count as u16).map(|shard| (draw(shard, 0) % SLOTS, draw(shard, 1) % (SLOTS - 1) + 1)).collect();
    for turn in 0..slots.len() {
        let (next, skip) = &mut turns[turn % count];
        while slots[*next as usize] != u16::MAX {
            *next = (*next + *skip) % SLOTS;
        }
        slots[*next as usize] = (turn % count) as u16;
    }
    keys.iter().map(|key| slots[(mix(KeyHash::Fnv1a_64.hash(key.as_bytes())) % SLOTS) as usize]).collect()
}

fn draw(shard: u16, i: u32) -> u32 {
    mix(mix(i).wrapping_add(mix(u32::from(shard) + 0x9e37_79b9)))
}

fn mix(hash: u32) -> u32 {
    let hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    let hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}
