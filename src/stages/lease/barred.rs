//! Keys that nobody writes after they were found missing ("hit for miss"): waiting for them would be in vain.
//!
//! After [`STRIKES`] terms in a row in which nobody wrote, a key is asked for without any lease for [`REST`]. Bounded: of more than
//! [`MOST`] such keys those are forgotten whose time is over, and else all; then they have to be found out again.

use crate::stages::{AsItIs, Micros};
use std::collections::HashMap;
use std::hash::BuildHasherDefault;

const STRIKES: u8 = 2;
const REST: Micros = 30_000_000;
const MOST: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Barred {
    /// By the keys' hashes: how many terms ended so, and until when that counts.
    keys: HashMap<u64, (u8, Micros), BuildHasherDefault<AsItIs>>,
}

impl Barred {
    /// A term ended without a write. Returns whether there is to be none for a while.
    pub(super) fn strike(&mut self, hash: u64, now: Micros) -> bool {
        if self.keys.len() >= MOST && !self.keys.contains_key(&hash) {
            self.keys.retain(|_, (_, until)| *until > now);
            if self.keys.len() >= MOST {
                self.keys.clear();
            }
        }
        let (strikes, until) = self.keys.entry(hash).or_insert((0, 0));
        if *until <= now {
            *strikes = 0;
        }
        *strikes = strikes.saturating_add(1);
        *until = now.saturating_add(REST);
        *strikes >= STRIKES
    }

    /// It was written.
    pub(super) fn forgive(&mut self, hash: u64) {
        if !self.keys.is_empty() {
            self.keys.remove(&hash);
        }
    }

    /// Whether it is asked for without a lease.
    #[must_use]
    pub(super) fn has(&self, hash: u64, now: Micros) -> bool {
        self.keys.get(&hash).is_some_and(|&(strikes, until)| strikes >= STRIKES && until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_in_a_row_are_enough_for_a_while() {
        let mut barred = Barred::default();
        assert!(!barred.strike(1, 0) && !barred.has(1, 0));
        assert!(
            barred.strike(1, 10) && barred.has(1, 10 + REST - 1) && !barred.has(1, 10 + REST) && !barred.has(2, 10)
        );
        assert!(!barred.strike(1, 10 + REST), "it is over");
        barred.forgive(1);
        assert!(!barred.strike(1, 11 + REST), "not in a row");
    }

    #[test]
    fn they_are_bounded() {
        let mut barred = Barred::default();
        for hash in 0..3 * MOST as u64 {
            barred.strike(hash, hash);
            assert!(barred.keys.len() <= MOST);
        }
    }
}
