//! A bucket of tokens: so many a second, so many at once. For whatever must not happen too often.
//!
//! Promises: exact integer arithmetic in the caller's own time; within any span it gives at most what is in it and what
//! flows in, but for the last taker, who may overdraw it. Does not read a clock and does not wait.

/// Parts of a token. As many as a second has microseconds, so that what flows in is counted without a rest.
const PARTS: i64 = 1_000_000;
/// More than this is as good as no limit; products with [`PARTS`] stay far from their end.
const MOST: u64 = 1 << 42;

/// See the module.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// Tokens a second, and so parts a microsecond.
    rate: u64,
    /// Parts it holds when it is full.
    most: i64,
    /// Parts in it; below 0 when it is overdrawn.
    level: i64,
    /// When `level` was right, in microseconds.
    at: u64,
}

impl Bucket {
    /// A full bucket that `rate` tokens a second flow into, at least 1, and that holds `burst`, at least 1.
    #[must_use]
    pub fn new(rate: u64, burst: u64) -> Self {
        let most = burst.clamp(1, MOST) as i64 * PARTS;
        Self { rate: rate.clamp(1, MOST), most, level: most, at: 0 }
    }

    fn fill(&mut self, now: u64) {
        // A clock that goes back brings nothing and takes nothing.
        let flown = now.saturating_sub(self.at).saturating_mul(self.rate);
        self.at = self.at.max(now);
        self.level = self.level.saturating_add(i64::try_from(flown).unwrap_or(i64::MAX)).min(self.most);
    }

    /// Microseconds until `tokens` can be had; 0 is now. More than the bucket can hold are given when it is full.
    #[must_use]
    pub fn wait(&mut self, tokens: u64, now: u64) -> u64 {
        self.fill(now);
        let wanted = (tokens.min(MOST) as i64 * PARTS).min(self.most);
        u64::try_from(wanted.saturating_sub(self.level)).unwrap_or(0).div_ceil(self.rate)
    }

    /// Takes tokens, whether they are there or not: whoever comes next waits until they have flown in.
    pub fn draw(&mut self, tokens: u64, now: u64) {
        self.fill(now);
        self.level = self.level.saturating_sub(tokens.min(MOST) as i64 * PARTS);
    }

    /// Takes tokens if they are there. Returns whether they were.
    pub fn take(&mut self, tokens: u64, now: u64) -> bool {
        let there = self.wait(tokens, now) == 0;
        if there {
            self.draw(tokens, now);
        }
        there
    }

    /// Takes a token that may be still to come. Returns how many microseconds to wait for it; `None`, and nothing is taken,
    /// where that is longer than `longest`.
    pub fn reserve(&mut self, now: u64, longest: u64) -> Option<u64> {
        let wait = self.wait(1, now);
        (wait <= longest).then(|| {
            self.draw(1, now);
            wait
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn gives_its_burst_at_once_and_then_its_rate() {
        let mut bucket = Bucket::new(10, 5);
        assert_eq!((0..100).filter(|_| bucket.take(1, 0)).count(), 5);
        // Ten a second, however often it is asked.
        assert_eq!((1..=3000).filter(|ms| bucket.take(1, ms * 1000)).count(), 30);
        // What is not taken is kept up to the burst.
        assert_eq!((0..100).filter(|_| bucket.take(1, 100 * SECOND)).count(), 5);
    }

    #[test]
    fn those_who_reserve_wait_in_turn_and_no_longer_than_they_may() {
        let mut bucket = Bucket::new(10, 2);
        let waits: Vec<Option<u64>> = (0..6).map(|_| bucket.reserve(0, 250_000)).collect();
        assert_eq!(waits, [Some(0), Some(0), Some(100_000), Some(200_000), None, None]);
        // Those who were refused took nothing.
        assert_eq!(bucket.reserve(100_000, 250_000), Some(200_000));
    }

    #[test]
    fn more_than_it_holds_is_given_when_it_is_full_and_paid_back() {
        let mut bucket = Bucket::new(100, 10);
        assert!(bucket.take(50, 0));
        assert!(!bucket.take(1, SECOND * 4 / 10), "forty of the fifty have not flown in by then");
        assert!(bucket.take(1, SECOND * 41 / 100));
    }

    #[test]
    fn no_rest_is_lost_and_no_clock_breaks_it() {
        let mut bucket = Bucket::new(3, 1);
        // A third of a second is no whole number of microseconds; three of them are a second all the same.
        let taken = (0..=30 * SECOND).step_by(7).filter(|&now| bucket.take(1, now)).count();
        assert!((90..=91).contains(&taken), "{taken}");
        for now in [0, u64::MAX, 5, u64::MAX] {
            let mut bucket = Bucket::new(u64::MAX, u64::MAX);
            bucket.draw(u64::MAX, now);
            bucket.draw(u64::MAX, now / 2);
            let _ = (bucket.take(u64::MAX, now), bucket.wait(u64::MAX, 0), bucket.reserve(now, u64::MAX));
        }
    }
}
