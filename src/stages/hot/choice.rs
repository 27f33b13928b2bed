//! Which of several shards that have the same a read is sent to.
//!
//! Two of them are drawn and the one that is less loaded takes it ("the power of two choices": M. Mitzenmacher, IEEE TPDS
//! 12(10), 2001). The load is what is on its way there, this read with it, times the latency: the peak of the last replies,
//! which sinks to their mean, and to that of an idle shard when none come. So a shard that has become slow is left alone at
//! the first sign of it and is tried again after a while.
//!
//! Where neither is busy, the one takes it that has been sent less by this worker, whatever for: many processes before the same
//! shards see the same mix, so that each fills the valleys that all of them leave.
//!
//! It goes by what this worker has seen itself. Many processes that know nothing of each other choose well nevertheless,
//! since no two draw the same pairs and each sees the others' load in the latency. Does not know of health, nor of what a
//! shard has: who may be chosen is said each time.

use crate::stages::Micros;

/// Time in which a peak that nothing confirms loses a half of its height.
const HALF_LIFE: f64 = 500_000.0;
/// The latency of a shard of which nothing is known, and the least that counts: what lies below it is not the shard's doing.
const IDLE: f64 = 100.0;

/// Latencies that differ by less than this factor tell nothing of load.
const ALIKE: f64 = 2.0;
/// So many bytes of replies are as much work as a request.
const REQUEST: f32 = 1024.0;
/// What is left of the requests of former windows after one more.
const FADES: f32 = 15.0 / 16.0;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// By the shards' numbers.
    shards: Vec<Load>,
    /// The newest time that it was told.
    now: Micros,
}

#[derive(Clone, Copy, Debug, Default)]
struct Load {
    open: u32,
    latency: f64,
    told: Micros,
    /// Requests that were sent there, fading.
    sent: f32,
}

impl Load {
    /// What is left of the latency after a while without news.
    fn latency(&self, now: Micros) -> f64 {
        let age = now.saturating_sub(self.told) as f64;
        (self.latency * (-age / HALF_LIFE).exp2()).max(IDLE)
    }

    fn cost(&self, now: Micros) -> f64 {
        (f64::from(self.open) + 1.0) * self.latency(now)
    }
}

impl Choice {
    /// Nothing is known of any shard.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The one of these shards that is to be asked; `draw` is any number. Of no shards it is 0, which is none of theirs.
    #[must_use]
    pub fn pick(&self, candidates: &[u16], draw: u64) -> u16 {
        let (Some(&only), count) = (candidates.first(), candidates.len() as u64) else { return 0 };
        if count == 1 {
            return only;
        }
        // Two different places, each pair as likely as any other.
        let first = (draw >> 32).wrapping_mul(count) >> 32;
        let second = (draw & 0xffff_ffff).wrapping_mul(count.saturating_sub(1)) >> 32;
        let second = if second >= first { second.saturating_add(1) } else { second };
        let at = |place: u64| candidates.get(place as usize).copied().unwrap_or(only);
        let (first, second) = (at(first), at(second));
        let [one, other] =
            [first, second].map(|shard| self.shards.get(usize::from(shard)).copied().unwrap_or_default());
        let [near, far] = [one, other].map(|load| load.latency(self.now));
        // One that is only a little farther away is as good: else it would never be asked while nobody is busy.
        let alike = near < ALIKE * far && far < ALIKE * near;
        let less = if !alike {
            other.cost(self.now) < one.cost(self.now)
        } else if one.open.abs_diff(other.open) > 1 || one.sent == other.sent {
            other.open < one.open
        } else {
            other.sent < one.sent
        };
        if less { second } else { first }
    }

    fn load(&mut self, shard: u16) -> Option<&mut Load> {
        let needed = usize::from(shard).saturating_add(1);
        if self.shards.len() < needed {
            self.shards.resize(needed, Load::default());
        }
        self.shards.get_mut(usize::from(shard))
    }

    /// So many requests were sent to a shard, whatever for.
    pub fn saw(&mut self, shard: u16, requests: f32) {
        if let Some(load) = self.load(shard) {
            load.sent += requests;
        }
    }

    /// A shard has sent so many bytes: they are work as requests are.
    pub fn bore(&mut self, shard: u16, bytes: u64) {
        self.saw(shard, bytes as f32 / REQUEST);
    }

    /// A window is over: what was sent before counts for less.
    pub fn fade(&mut self) {
        self.shards.iter_mut().for_each(|load| load.sent *= FADES);
    }

    /// A read is sent to a shard.
    pub fn began(&mut self, shard: u16) {
        if let Some(load) = self.load(shard) {
            load.open = load.open.saturating_add(1);
        }
    }

    /// It was answered after so many microseconds.
    pub fn ended(&mut self, shard: u16, took: Micros, now: Micros) {
        self.now = self.now.max(now);
        if let Some(load) = self.load(shard) {
            load.open = load.open.saturating_sub(1);
            let age = now.saturating_sub(load.told) as f64;
            let (before, took) = (load.latency(now), took as f64);
            let weight = (-age / HALF_LIFE).exp2();
            // `latency` has sunk already by as much as nothing was heard.
            load.latency = if took >= before { took } else { load.latency.mul_add(weight, took * (1.0 - weight)) };
            load.told = now;
        }
    }

    /// It was not answered, and tells nothing.
    pub fn lost(&mut self, shard: u16) {
        if let Some(load) = self.load(shard) {
            load.open = load.open.saturating_sub(1);
        }
    }

    /// Reads on their way to a shard.
    #[must_use]
    pub fn open(&self, shard: u16) -> u32 {
        self.shards.get(usize::from(shard)).map_or(0, |load| load.open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::splitmix;
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    #[test]
    fn idle_shards_are_drawn_alike() {
        let choice = Choice::new();
        let mut drawn = [0_u32; 5];
        for n in 0..50_000 {
            drawn[usize::from(choice.pick(&[0, 1, 2, 3, 4], splitmix(n)))] += 1;
        }
        assert!(drawn.iter().all(|count| (9_500..10_500).contains(count)), "{drawn:?}");
        assert_eq!((choice.pick(&[7], 3), choice.pick(&[], 3)), (7, 0));
    }

    #[test]
    fn valleys_are_filled() {
        let mut choice = Choice::new();
        let mut asked = [100_u32, 400, 250, 0];
        for (shard, &load) in (0..).zip(&asked) {
            choice.saw(shard, load as f32);
        }
        for n in 0..2000 {
            let shard = choice.pick(&[0, 1, 2, 3], splitmix(n));
            choice.saw(shard, 1.0);
            asked[usize::from(shard)] += 1;
        }
        assert!(asked.iter().all(|asked| (670..706).contains(asked)), "{asked:?}");
        choice.fade();
        assert!(choice.shards.iter().all(|load| load.sent < 670.0));
    }

    #[test]
    fn the_one_with_less_on_its_way_is_asked() {
        let mut choice = Choice::new();
        choice.began(3);
        assert!((0..100).all(|n| choice.pick(&[3, 9], splitmix(n)) == 9));
        choice.began(9);
        choice.began(9);
        assert!((0..100).all(|n| choice.pick(&[3, 9], splitmix(n)) == 3));
        choice.ended(9, 10, 10);
        choice.lost(9);
        assert_eq!((choice.open(3), choice.open(9)), (1, 0));
        assert!((0..100).all(|n| choice.pick(&[3, 9], splitmix(n)) == 9));
    }

    #[test]
    fn those_that_are_idle_are_asked_alike_though_some_are_farther_away() {
        let mut choice = Choice::new();
        let mut asked = [0_u32; 4];
        for n in 0..40_000_u64 {
            let shard = choice.pick(&[0, 1, 2, 3], splitmix(n));
            choice.began(shard);
            asked[usize::from(shard)] += 1;
            choice.ended(shard, 250 + 50 * u64::from(shard), n * 400);
        }
        assert!(asked.iter().all(|count| (9_000..11_000).contains(count)), "{asked:?}");
    }

    #[test]
    fn a_slow_one_is_left_alone_at_once_and_tried_again_later() {
        let mut choice = Choice::new();
        choice.ended(0, 200_000, 1_000_000);
        choice.ended(1, 300, 1_000_000);
        assert!((0..100).all(|n| choice.pick(&[0, 1], splitmix(n)) == 1));
        // What is told of others is time, too.
        choice.ended(1, 300, 3_000_000);
        assert!((0..100).all(|n| choice.pick(&[0, 1], splitmix(n)) == 1));
        choice.ended(1, 300, 8_000_000);
        assert!((0..100).all(|n| choice.pick(&[0, 1], splitmix(n)) == 0));
    }

    #[test]
    fn a_peak_sinks_to_the_mean_of_what_follows() {
        let mut choice = Choice::new();
        choice.ended(0, 50_000, 0);
        for n in 1..=4_000 {
            choice.ended(0, 800, n * 1_000);
        }
        let latency = choice.shards[0].latency(4_000_000);
        assert!((790.0..1_200.0).contains(&latency), "{latency}");
    }

    /// Zipf's distribution over keys that live on 16 shards, those that are hot on as many as their share asks for, read by
    /// 20 processes that know nothing of each other, at 75 % of what the shards can do. Returns the greatest share of a
    /// shard's time that was asked for, and the 99th percentile of the time in its queue in microseconds.
    fn busiest(chooses: bool) -> (f64, u64) {
        const SHARDS: usize = 16;
        const PROCESSES: usize = 20;
        const KEYS: usize = 20_000;
        const REQUESTS: u64 = 250_000;
        const SERVICE: u64 = 100;
        let mut sums: Vec<f64> = Vec::new();
        for rank in 1..=KEYS {
            sums.push(sums.last().unwrap_or(&0.0) + (rank as f64).powf(-1.2));
        }
        let all = *sums.last().unwrap();
        let homes: Vec<Vec<u16>> = (0..KEYS)
            .map(|key| {
                let share = (key as f64 + 1.0).powf(-1.2) / all;
                let wanted = ((share * SHARDS as f64 / 0.25).ceil() as usize).clamp(1, SHARDS);
                let first = splitmix(key as u64) as usize;
                (0..wanted).map(|n| ((first + n * 5) % SHARDS) as u16).collect()
            })
            .collect();
        let mut choices = vec![Choice::new(); PROCESSES];
        let (mut free_at, mut work) = ([0_u64; SHARDS], [0_u64; SHARDS]);
        let mut under_way: BinaryHeap<Reverse<(u64, usize, u16, u64)>> = BinaryHeap::new();
        let mut waits = Vec::new();
        let mut at = 0.0;
        for n in 0..REQUESTS {
            let draw = |what: u64| splitmix(n * 4 + what + (1 << 40));
            let unit = |draw: u64| ((draw >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
            at -= unit(draw(0)).ln() * SERVICE as f64 / (SHARDS as f64 * 0.75);
            let now = at as u64;
            while let Some(Reverse((end, process, shard, took))) =
                under_way.peek().copied().filter(|next| next.0.0 <= now)
            {
                under_way.pop();
                choices[process].ended(shard, took, end);
            }
            let key = sums.partition_point(|&sum| sum < unit(draw(1)) * all).min(KEYS - 1);
            let process = draw(2) as usize % PROCESSES;
            let homes = &homes[key];
            let shard = match chooses {
                true => choices[process].pick(homes, draw(3)),
                false => homes[draw(3) as usize % homes.len()],
            };
            choices[process].began(shard);
            let place = usize::from(shard);
            free_at[place] = free_at[place].max(now) + SERVICE;
            work[place] += SERVICE;
            waits.push(free_at[place] - now);
            under_way.push(Reverse((free_at[place] + 100, process, shard, free_at[place] + 100 - now)));
        }
        waits.sort_unstable();
        (*work.iter().max().unwrap() as f64 / at, waits[waits.len() * 99 / 100])
    }

    #[test]
    fn two_choices_hold_where_chance_overloads_a_shard() {
        let ((random, random_wait), (chosen, chosen_wait)) = (busiest(false), busiest(true));
        assert!(random > 1.0, "else there is nothing to do better: {random}");
        assert!(chosen < 1.0 && chosen_wait * 10 < random_wait, "{chosen} {chosen_wait} {random_wait}");
    }
}
