//! When a topology is asked for: seldom without a reason, soon with one, and never so often that a thousand sidecars that
//! have the same reason are a storm.
//!
//! Promises: pure; spans are arguments and results. Two with different seeds ask at different times.

use crate::chance::splitmix;
use std::time::Duration;

/// The least time between two questions, and the wait after the first that changed nothing.
const LEAST: Duration = Duration::from_millis(500);
/// The most that it grows to while answers change nothing.
const MOST: Duration = Duration::from_secs(5);
/// The most that it grows to while something is known to be missing.
const UNSETTLED: Duration = Duration::from_secs(2);
/// Those who hear of the same do not ask in the same moment.
const SPREAD: Duration = Duration::from_millis(50);

/// The pace of one pool's questions.
#[derive(Debug)]
pub struct Pace {
    gap: Duration,
    chance: u64,
}

impl Pace {
    /// `seed` is where chance begins.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { gap: LEAST, chance: seed }
    }

    /// How long after an answer it is asked again without a reason: `interval`, a fifth more or less.
    pub fn idle(&mut self, interval: Duration) -> Duration {
        interval * 4 / 5 + self.share(interval * 2 / 5)
    }

    /// How long to wait with a reason to ask, `since` after the last answer.
    pub fn wait(&mut self, since: Duration) -> Duration {
        let gap = self.gap * 3 / 4 + self.share(self.gap / 2);
        gap.saturating_sub(since).max(self.share(SPREAD))
    }

    /// There was an answer, or none. One that changed something may be the first of several.
    pub fn answered(&mut self, changed: bool, settled: bool) {
        let most = if settled { MOST } else { UNSETTLED };
        self.gap = if changed { LEAST } else { (self.gap * 2).min(most) };
    }

    /// It was asked without a reason: what comes next is no repetition.
    pub fn rested(&mut self) {
        self.gap = LEAST;
    }

    fn share(&mut self, of: Duration) -> Duration {
        self.chance = self.chance.wrapping_add(1);
        of * (splitmix(self.chance) % 1024) as u32 / 1024
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_while_nothing_changes_and_differs() {
        let (mut one, mut other) = (Pace::new(1), Pace::new(2));
        assert!((0..20).any(|_| one.wait(Duration::ZERO) != other.wait(Duration::ZERO)));
        for _ in 0..20 {
            let wait = one.wait(Duration::ZERO);
            assert!(wait >= LEAST * 3 / 4 && wait <= LEAST * 5 / 4, "{wait:?}");
            assert!(one.wait(LEAST * 2) <= SPREAD);
        }
        (0..10).for_each(|_| one.answered(false, true));
        assert!(one.wait(Duration::ZERO) >= MOST * 3 / 4 && one.wait(Duration::ZERO) <= MOST * 5 / 4);
        one.answered(false, false);
        assert!(one.wait(Duration::ZERO) <= UNSETTLED * 5 / 4);
        one.answered(true, true);
        assert!(one.wait(Duration::ZERO) <= LEAST * 5 / 4);
        let idle = one.idle(Duration::from_secs(30));
        assert!(idle >= Duration::from_secs(24) && idle <= Duration::from_secs(36), "{idle:?}");
    }
}
