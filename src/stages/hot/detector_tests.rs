use super::*;
use crate::chance::splitmix;
use crate::command::lookup;
use crate::stages::hot::{Config, Fence, Hot, Means, Reads, Site};
use crate::stages::{Leg, Notices, Stage};
use std::fmt::Write;
use std::sync::Arc;

/// Keys drawn by Zipf's law, by their ranks from 0.
struct Zipf {
    sums: Vec<f64>,
    draws: u64,
}

impl Zipf {
    fn new(keys: usize, skew: f64, seed: u64) -> Self {
        let mut sum = 0.0;
        let sums = (1..=keys).map(|rank| {
            sum += (rank as f64).powf(-skew);
            sum
        });
        Self { sums: sums.collect(), draws: splitmix(seed) }
    }

    fn draw(&mut self) -> usize {
        self.draws = self.draws.wrapping_add(1);
        let at = splitmix(self.draws) as f64 / u64::MAX as f64 * self.sums.last().unwrap();
        self.sums.partition_point(|&sum| sum < at)
    }

    /// The share of the keys of these ranks.
    fn share(&self, ranks: impl Iterator<Item = usize>) -> f64 {
        let of = |rank: usize| self.sums[rank] - rank.checked_sub(1).map_or(0.0, |before| self.sums[before]);
        ranks.map(of).sum::<f64>() / self.sums.last().unwrap()
    }
}

/// A worker's stage and its clock.
struct World {
    hot: Hot,
    now: Micros,
    name: String,
    asked: u64,
}

impl World {
    fn new(shards: u16, seed: u64) -> Self {
        let config = Config { reads: Reads::Auto, ..Config::default() };
        let hot = Hot::new(config, seed, Arc::<Fence>::default()).at(Site { shards, replicas: false });
        Self { hot, now: 1_000_000_000, name: String::new(), asked: 0 }
    }

    fn leg(&mut self, command: &str, key: usize, wire: &[u8], reply: u64) {
        self.name.clear();
        write!(self.name, "key:{key}").unwrap();
        let leg = Leg::new(lookup(command.as_bytes()).unwrap(), self.name.as_bytes(), wire);
        if let Some(hash) = self.hot.count(&leg) {
            self.hot.weigh(hash, reply);
        }
    }

    /// So many reads a second for so many milliseconds, each of which has a number of its own.
    fn run(&mut self, rate: u64, millis: u64, mut draw: impl FnMut(u64) -> usize) {
        for milli in 0..millis {
            for _ in (milli * rate / 1000)..((milli + 1) * rate / 1000) {
                self.asked += 1;
                let key = draw(self.asked);
                self.leg("get", key, b"", 100);
            }
            self.now += 1000;
            self.hot.tick(self.now, &mut Notices::default());
        }
    }

    fn hash(&self, key: usize) -> u64 {
        self.hot.hash(format!("key:{key}").as_bytes())
    }

    fn level(&self, key: usize) -> Level {
        let hash = self.hash(key);
        self.hot.detector.keys().find(|&(known, _)| known == hash).map_or(Level::Cold, |(_, key)| key.level)
    }

    /// Keys that are hot or warm, as they are served.
    fn found(&self) -> Vec<usize> {
        let number = |name: &[u8]| std::str::from_utf8(name).unwrap().trim_start_matches("key:").parse().unwrap();
        let mut found: Vec<usize> = self.hot.keys().map(|(_, key)| number(&key.name)).collect();
        found.sort_unstable();
        found
    }
}

#[test]
fn the_hottest_are_found() {
    for (skew, rate, seed) in [(0.99, 4_000, 1), (0.99, 50_000, 2), (1.2, 4_000, 3), (1.2, 50_000, 4)] {
        let (mut world, mut zipf) = (World::new(16, seed), Zipf::new(1_000_000, skew, seed));
        world.run(rate, 10_000, |_| zipf.draw());
        let found = world.found();
        assert!((0..20).all(|rank| found.contains(&rank)), "{skew} at {rate}: {found:?}");
        assert!(found.iter().all(|&rank| rank < 120), "{skew} at {rate}: {found:?}");
        for rank in 0..1_000 {
            let share = zipf.share(rank..rank + 1);
            let level = world.level(rank);
            assert!(level == Level::Hot || share < 0.0157 * 1.15, "{rank} with {share}: {level:?}");
            assert!(level != Level::Hot || share > 0.0157 * 0.7, "{rank} with {share}: {level:?}");
        }
    }
}

#[test]
fn what_is_kept_in_memory_answers_what_it_should_at_zipf_1_2() {
    for rate in [2_000, 10_000, 50_000] {
        let (mut world, mut zipf) = (World::new(16, 5), Zipf::new(1_000_000, 1.2, rate));
        world.run(rate, 5_000, |_| zipf.draw());
        let (mut hits, mut asks) = (0, 0);
        let known = &mut std::collections::HashSet::new();
        for _ in 0..15 {
            world.run(rate, 1_000, |n| {
                let key = zipf.draw();
                if n % 4 == 0 {
                    asks += 1;
                    hits += u32::from(known.contains(&key));
                }
                key
            });
            known.clear();
            known.extend(world.found());
        }
        let share = f64::from(hits) / f64::from(asks) * 15.0 / 14.0;
        assert!((0.58..0.66).contains(&share), "{share} at {rate}");
    }
}

#[test]
fn where_all_keys_are_alike_none_is_hot() {
    for rate in [1_000, 60_000] {
        let mut world = World::new(64, 6);
        world.run(rate, 10_000, |n| (splitmix(n ^ (rate << 40)) % 1_000_000) as usize);
        assert_eq!((world.found(), world.hot.entered()), (vec![], 0));
    }
}

#[test]
fn a_flash_is_seen_at_once_and_forgotten_soon() {
    for rate in [1_000, 15_000, 40_000] {
        let mut world = World::new(16, 7);
        let uniform = |n: u64| (splitmix(n) % 1_000_000) as usize + 1;
        world.run(rate, 3_000, uniform);
        assert!(world.found().is_empty());
        world.run(rate, 1_000, |n| if splitmix(n) & 1024 == 0 { 0 } else { uniform(n) });
        assert_eq!((world.found(), world.level(0)), (vec![0], Level::Hot), "{rate}");
        world.run(rate, 9_000, |n| if splitmix(n) & 1024 == 0 { 0 } else { uniform(n) });
        let mut seconds = 0;
        while !world.found().is_empty() && seconds < 16 {
            world.run(rate, 1_000, uniform);
            seconds += 1;
        }
        assert!(seconds <= 15, "{seconds} s at {rate}");
        world.run(rate, 5_000, uniform);
        assert_eq!((world.found(), world.hot.entered()), (vec![], 1));
    }
}

#[test]
fn an_app_that_pauses_is_forgotten_too() {
    let mut world = World::new(16, 8);
    world.run(1_000, 2_000, |_| 0);
    assert_eq!(world.found(), [0]);
    world.run(0, 15_000, |_| 0);
    assert!(world.found().is_empty());
    world.run(1_000, 1_000, |_| 1);
    assert_eq!(world.found(), [1]);
}

#[test]
fn a_long_value_is_found_by_its_bytes() {
    for rate in [5_000, 30_000] {
        let mut world = World::new(16, 9);
        for _ in 0..200 {
            world.run(rate, 50, |n| (splitmix(n) % 100_000) as usize + 1);
            // Twenty a second.
            world.leg("get", 0, b"", 512 << 10);
        }
        assert_eq!((world.found(), world.level(0)), (vec![0], Level::Hot));
        let key = world.hot.key(world.hash(0)).unwrap();
        // Too long for memory, and too seldom read for copies at this rate.
        assert!(matches!(key.means, Means::Copies(_)), "{:?}", key.means);
    }
}

#[test]
fn locks_are_served_by_their_shard() {
    let mut world = World::new(4, 10);
    for _ in 0..10 {
        world.run(1_000, 500, |n| (splitmix(n) % 1000) as usize + 1);
        for _ in 0..500 {
            world.leg(
                "set",
                0,
                b"*6\r\n$3\r\nSET\r\n$5\r\nkey:0\r\n$1\r\nv\r\n$2\r\nnx\r\n$2\r\nPX\r\n$3\r\n100\r\n",
                5,
            );
        }
        (0..2500).for_each(|_| world.leg("get", 0, b"", 5));
    }
    assert_eq!((world.found(), world.level(0)), (vec![], Level::Hot));
    // One that is set otherwise is not a lock any more.
    for _ in 0..4 {
        world.leg("set", 0, b"*3\r\n$3\r\nSET\r\n$5\r\nkey:0\r\n$2\r\nnx\r\n", 5);
        world.run(1_000, 500, |n| (splitmix(n) % 1000) as usize + 1);
        (0..2500).for_each(|_| world.leg("get", 0, b"", 5));
    }
    assert_eq!(world.found(), [0]);
}

#[test]
fn no_more_are_hot_than_there_may_be() {
    let mut world = World::new(16, 11);
    let mut detector = Detector::new(1);
    for round in 1..=40 {
        for n in 0..4_000_u64 {
            let key = format!("{}", n % 40);
            let hash = world.hot.hash(key.as_bytes());
            detector.look(hash, &Leg::new(lookup(b"get").unwrap(), key.as_bytes(), b""), true);
        }
        detector.close(0.01, 30, round * WINDOW);
    }
    assert_eq!(detector.keys().filter(|(_, key)| key.level > Level::Cold).count(), 30);
    world.hot.tick(world.now, &mut Notices::default());
}

#[test]
fn names_that_are_too_long_are_not_kept() {
    let mut detector = Detector::new(1);
    let (long, longer) = ([b'k'; LONGEST_NAME], [b'k'; LONGEST_NAME + 1]);
    for round in 1..10 {
        for _ in 0..1_000 {
            detector.look(1, &Leg::new(lookup(b"get").unwrap(), &long, b""), true);
            detector.look(2, &Leg::new(lookup(b"get").unwrap(), &longer, b""), true);
        }
        detector.close(0.01, 30, round * WINDOW);
    }
    assert_eq!(detector.keys().map(|(hash, _)| hash).collect::<Vec<_>>(), [1]);
    assert!((detector.keys().next().unwrap().1.requests.short / detector.all().0.short - 0.5).abs() < 0.01);
}

#[test]
fn one_of_eight_is_looked_at_where_there_are_many() {
    let mut detector = Detector::new(3);
    let leg = Leg::new(lookup(b"get").unwrap(), b"k", b"");
    let mut looked = 0;
    for n in 0..1_000_000 {
        if n % 10_000 == 0 {
            detector.close(0.01, 30, WINDOW * (1 + n / 10_000));
        }
        if !detector.skips() {
            looked += 1;
            detector.look(7, &leg, true);
        }
    }
    assert!((120_000..140_000).contains(&looked), "{looked}");
    assert!((detector.all().0.short / 40_000.0 - 1.0).abs() < 0.1, "{}", detector.all().0.short);
}

#[test]
fn is_small() {
    const { assert!(Detector::BYTES <= 32 << 10) };
    assert!(MOST_NAMES * (size_of::<Key>() + 8 + LONGEST_NAME) <= 256 << 10, "{}", size_of::<Key>());
}
