//! Which keys weigh most in a stream, in bounded memory: Space-Saving (Metwally, Agrawal, El Abbadi: "Efficient computation of
//! frequent and top-k elements in data streams", 2005), in sets of 16 counters.
//!
//! A key counts in the set that its hash says. If it has no counter there, it takes over the set's least one, with what
//! that counted as its possible error. So finding a counter and the least one is one look at two cache lines, there is no
//! index, and nothing is ever moved.
//!
//! Promises: what [`Counts`] tells beside `over` was counted of this key, all of it: a lower bound. `over` is by how much more it
//! may have been while it had no counter. Upper bounds of keys without a counter are not told: decide on lower ones.
//! Nothing is allocated after it was made.

/// Counters of a set.
const WAYS: usize = 16;
/// Sets.
const SETS: usize = 32;
/// What is left of the short memory after a window: four windows' worth in the long run.
const SHORT: f32 = 3.0 / 4.0;
/// What is left of the long memory: 32 windows' worth.
const LONG: f32 = 31.0 / 32.0;

/// What was counted of a key, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// In the window that is open, or that is being closed.
    pub window: f32,
    /// In about the last four windows, without the open one.
    pub short: f32,
    /// In about the last 32 windows, without the open one.
    pub long: f32,
    /// How much more it may be in the long memory.
    pub over: f32,
}

impl Counts {
    fn close(&mut self) {
        self.short = self.short.mul_add(SHORT, self.window);
        self.long = self.long.mul_add(LONG, self.window);
        self.over *= LONG;
    }
}

/// Sixteen counters, by what they count; 0 is no key's hash.
#[derive(Clone, Debug, Default)]
struct Set {
    hashes: [u64; WAYS],
    window: [f32; WAYS],
    short: [f32; WAYS],
    long: [f32; WAYS],
    over: [f32; WAYS],
}

/// See the module.
#[derive(Debug)]
pub struct Summary {
    sets: Box<[Set; SETS]>,
    all: Counts,
}

impl Default for Summary {
    fn default() -> Self {
        Self { sets: Box::new(std::array::from_fn(|_| Set::default())), all: Counts::default() }
    }
}

impl Summary {
    /// The bytes that one takes.
    pub const BYTES: usize = size_of::<[Set; SETS]>().saturating_add(size_of::<Self>());

    /// Counts a key, which weighs so much. Returns all that was counted of it in the long memory and the open window.
    #[inline]
    pub fn add(&mut self, hash: u64, weight: f32) -> f32 {
        self.all.window += weight;
        let hash = hash.max(1);
        let Some(set) = self.sets.get_mut(place(hash)) else { return 0.0 };
        if let Some(way) = set.way(hash) {
            let Some(window) = set.window.get_mut(way) else { return 0.0 };
            *window += weight;
            return *window + set.long.get(way).copied().unwrap_or(0.0);
        }
        set.take_over(hash, weight);
        weight
    }

    /// Counts something that is no key's, or whose key does not matter.
    pub fn add_other(&mut self, weight: f32) {
        self.all.window += weight;
    }

    /// What was counted of a key.
    #[must_use]
    pub fn of(&self, hash: u64) -> Counts {
        let hash = hash.max(1);
        let found = self.sets.get(place(hash)).and_then(|set| set.counts(set.way(hash)?));
        found.unwrap_or_default()
    }

    /// What was counted of all.
    #[must_use]
    pub fn all(&self) -> Counts {
        self.all
    }

    /// A window is over: it becomes a part of both memories, which fade.
    pub fn close(&mut self) {
        self.all.close();
        for set in self.sets.iter_mut() {
            for (((window, short), long), over) in
                set.window.iter().zip(&mut set.short).zip(&mut set.long).zip(&mut set.over)
            {
                let mut counts = Counts { window: *window, short: *short, long: *long, over: *over };
                counts.close();
                (*short, *long, *over) = (counts.short, counts.long, counts.over);
            }
        }
    }

    /// The next window begins.
    pub fn open(&mut self) {
        self.all.window = 0.0;
        self.sets.iter_mut().for_each(|set| set.window = [0.0; WAYS]);
    }

    /// The long memory of a key believes what the short one says: what it was is over.
    pub fn forget(&mut self, hash: u64) {
        // Where next to nothing happened there is nothing to believe.
        let scale = if self.all.short > 16.0 { self.all.long / self.all.short } else { 0.0 };
        let hash = hash.max(1);
        let Some(set) = self.sets.get_mut(place(hash)) else { return };
        let Some(way) = set.way(hash) else { return };
        let short = set.short.get(way).copied().unwrap_or(0.0);
        if let (Some(long), Some(over)) = (set.long.get_mut(way), set.over.get_mut(way)) {
            *long = long.min(short * scale);
            *over = over.min(*long);
        }
    }
}

/// Other bits than the table of hot keys and the fence take.
#[inline]
fn place(hash: u64) -> usize {
    (hash >> 24) as usize % SETS
}

impl Set {
    /// Without branches: which of them it is cannot be guessed.
    #[inline]
    fn way(&self, hash: u64) -> Option<usize> {
        let mut found = WAYS;
        for (way, &known) in self.hashes.iter().enumerate() {
            found = if known == hash { way } else { found };
        }
        (found < WAYS).then_some(found)
    }

    fn counts(&self, way: usize) -> Option<Counts> {
        Some(Counts {
            window: *self.window.get(way)?,
            short: *self.short.get(way)?,
            long: *self.long.get(way)?,
            over: *self.over.get(way)?,
        })
    }

    fn take_over(&mut self, hash: u64, weight: f32) {
        let (mut least, mut at) = (f32::INFINITY, 0);
        let known = self.window.iter().zip(&self.long).zip(&self.over).enumerate();
        for (way, ((window, long), over)) in known {
            let count = window + long + over;
            (least, at) = if count < least { (count, way) } else { (least, at) };
        }
        if let (Some(known), Some(window), Some(short), Some(long), Some(over)) = (
            self.hashes.get_mut(at),
            self.window.get_mut(at),
            self.short.get_mut(at),
            self.long.get_mut(at),
            self.over.get_mut(at),
        ) {
            (*known, *window, *short, *long, *over) = (hash, weight, 0.0, 0.0, least);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::splitmix;
    use std::collections::HashMap;

    #[test]
    fn lower_bounds_hold_and_heavy_keys_stay() {
        let mut summary = Summary::default();
        let mut truth: HashMap<u64, f32> = HashMap::new();
        for n in 0..200_000 {
            let draw = splitmix(n);
            // Half of the stream is ten keys.
            let key = if draw & 1 == 0 { splitmix(draw >> 1 & 7) } else { splitmix(draw % 50_000) };
            summary.add(key, 1.0);
            *truth.entry(key).or_default() += 1.0;
        }
        assert_eq!(summary.all().window, 200_000.0);
        for (&key, &count) in &truth {
            assert!(summary.of(key).window <= count);
        }
        for key in (0..8).map(splitmix) {
            let counts = summary.of(key);
            assert!(counts.window > 0.99 * truth[&key], "{counts:?} of {}", truth[&key]);
            assert!(counts.window + counts.over >= truth[&key]);
        }
    }

    #[test]
    fn memories_fade_alike() {
        let mut summary = Summary::default();
        for _ in 0..200 {
            (0..50).for_each(|_| _ = summary.add(7, 1.0));
            (0..50).for_each(|_| summary.add_other(1.0));
            summary.close();
            let (one, all) = (summary.of(7), summary.all());
            assert!((one.short / all.short - 0.5).abs() < 1e-3 && (one.long / all.long - 0.5).abs() < 1e-3);
            summary.open();
        }
        assert!((summary.all().short - 400.0).abs() < 1.0 && (summary.all().long - 3200.0).abs() < 20.0);
        (0..40).for_each(|_| summary.close());
        summary.forget(7);
        assert!(summary.of(7).long < 0.1);
    }

    #[test]
    fn is_small() {
        const { assert!(2 * Summary::BYTES <= 25 << 10) };
    }
}
