//! How long loading a key takes, and what follows from that: how long to wait for the value, and for whoever loads it.

use crate::stages::Micros;

/// The longest wait while nothing is known, and the least ever.
const FIRST_WAIT: Micros = 300_000;
const LEAST_WAIT: Micros = 50_000;
/// The same for terms.
const FIRST_TERM: Micros = 2_000_000;
const LEAST_TERM: Micros = 500_000;
/// Between two nils that are given to those who have waited in vain, while nothing is known, and the least ever.
const FIRST_STEP: Micros = 150_000;
const LEAST_STEP: Micros = 10_000;

/// The time from when someone was told that a key is not there to when the key was written, smoothed: each new one counts a
/// quarter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    fill: Option<Micros>,
}

impl Pace {
    /// A key was written so long after someone was told that it is not there.
    pub fn saw(&mut self, took: Micros) {
        self.fill = Some(match self.fill {
            None => took,
            Some(before) => before.saturating_sub(before / 4).saturating_add(took / 4),
        });
    }

    /// Another process wrote a key so long after it was found to be loading it: it takes no less. Who finds that late knows little: that
    /// only ever makes waits longer, also those while nothing is known.
    pub fn heard(&mut self, took: Micros) {
        if self.fill.unwrap_or(FIRST_STEP) < took {
            self.saw(took);
        }
    }

    /// How long loading takes, in microseconds, if that is known.
    #[must_use]
    pub fn fill(&self) -> Option<Micros> {
        self.fill
    }

    /// How long a reader waits before it may be its turn to be told nil: twice as long as loading takes.
    #[must_use]
    pub fn wait(&self, longest: Micros) -> Micros {
        self.fill.map_or(FIRST_WAIT, |fill| fill.saturating_mul(2).max(LEAST_WAIT)).min(longest)
    }

    /// How long whoever loads is waited for: four times as long as loading takes.
    #[must_use]
    pub fn term(&self, longest: Micros) -> Micros {
        self.fill.map_or(FIRST_TERM, |fill| fill.saturating_mul(4).max(LEAST_TERM)).min(longest)
    }

    /// How long after one of those who have waited in vain the next one is told nil.
    #[must_use]
    pub fn step(&self) -> Micros {
        self.fill.unwrap_or(FIRST_STEP).max(LEAST_STEP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_hears_of_the_end_of_a_load_only_does_not_take_it_for_all_of_it() {
        let mut pace = Pace::default();
        pace.heard(3_000);
        assert_eq!((pace.fill(), pace.wait(1_000_000)), (None, 300_000));
        pace.heard(200_000);
        assert_eq!(pace.wait(1_000_000), 400_000);
        pace.heard(3_000);
        assert_eq!(pace.wait(1_000_000), 400_000);
    }

    #[test]
    fn waits_and_terms_follow_what_loading_takes() {
        let mut pace = Pace::default();
        assert_eq!((pace.wait(1_000_000), pace.term(10_000_000)), (300_000, 2_000_000));
        assert_eq!((pace.wait(100_000), pace.term(1_000_000)), (100_000, 1_000_000), "what is configured is the most");
        pace.saw(200_000);
        assert_eq!((pace.wait(1_000_000), pace.term(10_000_000), pace.step()), (400_000, 800_000, 200_000));
        (0..50).for_each(|_| pace.saw(1_000));
        assert_eq!((pace.wait(1_000_000), pace.term(10_000_000), pace.step()), (50_000, 500_000, 10_000));
        (0..50).for_each(|_| pace.saw(60_000_000));
        assert_eq!((pace.wait(1_000_000), pace.term(10_000_000)), (1_000_000, 10_000_000));
    }
}
