//! Apps that cost little: one thread, many connections, a rate that is not exceeded.

use crate::chaos::{Link, Reply};
use crate::histories::Chance;
use crate::support::{now, wire};
use std::time::{Duration, Instant};

/// Ranks that are asked for as Zipf says: the probability of rank n is proportional to n to the power of -s.
pub(crate) struct Zipf(Vec<f64>);

impl Zipf {
    pub(crate) fn of(ranks: usize, s: f64) -> Self {
        let mut sum = 0.0;
        let mut sums: Vec<f64> = (1..=ranks)
            .map(|rank| {
                sum += (rank as f64).powf(-s);
                sum
            })
            .collect();
        sums.iter_mut().for_each(|part| *part /= sum);
        Self(sums)
    }

    /// From 0 on.
    pub(crate) fn draw(&self, chance: &mut Chance) -> usize {
        let part = chance.part();
        self.0.partition_point(|&sum| sum < part).min(self.0.len() - 1)
    }
}

/// Connections that each have one request on its way at a time, or so many.
pub(crate) struct Crowd {
    links: Vec<Link>,
    depth: usize,
    began: Instant,
    /// Requests a second of all of them; 0 is as many as are answered.
    rate: f64,
    due: f64,
}

/// What became of requests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    pub(crate) took: Duration,
}

impl Done {
    pub(crate) fn rate(&self) -> f64 {
        self.requests as f64 / self.took.as_secs_f64()
    }
}

impl Crowd {
    /// So many connections to each of these.
    pub(crate) fn to(addresses: &[String], each: usize, rate: f64) -> Self {
        let all = (0..each).flat_map(|_| addresses.iter());
        let links = all.map(|address| Link::to(address).unwrap()).collect();
        Self { links, depth: 1, began: now(), rate, due: 0.0 }
    }

    /// Each of them has so many requests on its way, which leave as one.
    pub(crate) fn pipelined(self, depth: usize) -> Self {
        Self { depth, ..self }
    }

    /// GETs keys for such a time; `key` says which.
    pub(crate) fn read(&mut self, time: Duration, mut key: impl FnMut() -> String) -> Done {
        let start = now();
        let mut done = Done::default();
        // What was missed before is not made up for.
        self.due = self.due.max(start.duration_since(self.began).as_secs_f64());
        while start.elapsed() < time {
            for link in &mut self.links {
                let all: Vec<u8> = (0..self.depth).flat_map(|_| wire(&["GET", &key()])).collect();
                link.send(&all).unwrap();
            }
            for link in &mut self.links {
                for _ in 0..self.depth {
                    done.errors += u64::from(matches!(link.reply().unwrap(), Reply::Error(_)));
                }
            }
            let round = self.links.len() * self.depth;
            done.requests += round as u64;
            if self.rate > 0.0 {
                self.due += round as f64 / self.rate;
                let ahead = self.due - self.began.elapsed().as_secs_f64();
                if ahead > 0.0 {
                    std::thread::sleep(Duration::from_secs_f64(ahead));
                } else if ahead < -0.1 {
                    self.due -= ahead;
                }
            }
        }
        done.took = start.elapsed();
        done
    }
}

/// How long a GET of one key takes, asked now and then until told to end.
pub(crate) fn probe(address: &str, key: &str, pause: Duration, goes_on: impl Fn() -> bool) -> Vec<Duration> {
    let mut link = Link::to(address).unwrap();
    let request = wire(&["GET", key]);
    let mut took = Vec::new();
    while goes_on() {
        let start = now();
        link.send(&request).unwrap();
        link.reply().unwrap();
        took.push(start.elapsed());
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
    }
    took
}

/// The value below which such a part of them is.
pub(crate) fn part<T: Copy + Ord + Default>(all: &mut [T], of: f64) -> T {
    all.sort_unstable();
    all.get(((all.len() as f64 * of) as usize).min(all.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// The name of a key by its number. Names that differ in their last letter only would live on one shard, most of them: that is
/// how FNV-1a is.
pub(crate) fn name(number: usize) -> String {
    format!("item:{:016x}", (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}
