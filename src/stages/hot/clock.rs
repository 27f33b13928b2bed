//! A shard's clock, as it looks from here: so that what is sent to it can say when it ends, however long it is on its way.
//!
//! The shard is asked for its time now and then. Its answer was true at some moment between question and answer; it is taken
//! for that of the answer, so that a time that is told in its clock is never later than it was meant, and earlier by what the
//! question took at most.

use super::copies::End;
use crate::resp::reply::{Elements, bulk};
use crate::stages::Micros;

/// After how long a shard is asked again.
const ASK: Micros = 60_000_000;
/// For how long an answer is good.
const GOOD: Micros = 150_000_000;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// Here, and in microseconds there at that moment or before.
    known: Option<(Micros, u64)>,
    asking: bool,
    /// The shard knows no absolute times (before Redis 6.2).
    pub relative: bool,
}

impl Clock {
    /// Whether the shard is to be asked; if so it is taken to have been.
    pub fn ask(&mut self, now: Micros) -> bool {
        let due = !self.asking && self.known.is_none_or(|(heard, _)| now.saturating_sub(heard) >= ASK);
        self.asking |= due;
        due
    }

    /// The reply to TIME, or an error.
    pub fn told(&mut self, reply: &[u8], now: Micros) {
        self.asking = false;
        let mut parts = Elements::of(reply).into_iter().flatten().filter_map(bulk).filter_map(number);
        if let (Some(seconds), Some(micros)) = (parts.next(), parts.next()) {
            self.known = Some((now, seconds.saturating_mul(1_000_000).saturating_add(micros)));
        }
    }

    /// The shard may be another one now.
    pub fn lost(&mut self) {
        self.known = None;
        self.relative = false;
    }

    /// When something ends that lives so long from a time of ours; nothing while the shard's time is not known, or when it
    /// is over already.
    #[must_use]
    pub fn end(&self, from: Micros, life: Micros, now: Micros) -> Option<End> {
        let until = from.saturating_add(life);
        if self.relative {
            let left = until.saturating_sub(now) / 1000;
            return (left > 0).then_some(End::After(left));
        }
        let (heard, there) = self.known.filter(|&(heard, _)| now.saturating_sub(heard) <= GOOD)?;
        let end = there.saturating_add(until).saturating_sub(heard) / 1000;
        (until > now && end > 0).then_some(End::At(end))
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &[u8] = b"*2\r\n$10\r\n1700000000\r\n$6\r\n250000\r\n";

    #[test]
    fn times_are_told_in_the_shards_clock() {
        let mut clock = Clock::default();
        assert_eq!(clock.end(5_000_000, 1_000_000, 5_000_000), None, "not known");
        assert!(clock.ask(5_000_000) && !clock.ask(5_000_000), "once at a time");
        clock.told(TIME, 5_000_400);
        // What was read before the clock was known counts from then, too.
        assert_eq!(clock.end(5_000_400, 1_000_000, 5_000_500), Some(End::At(1_700_000_001_250)));
        assert_eq!(clock.end(4_000_400, 1_500_000, 5_000_500), Some(End::At(1_700_000_000_750)));
        assert_eq!(clock.end(4_000_000, 1_000_000, 5_000_500), None, "over");
        clock.relative = true;
        assert_eq!(clock.end(5_000_000, 1_000_000, 5_250_000), Some(End::After(750)));
        assert_eq!(clock.end(5_000_000, 1_000_000, 5_999_500), None);
    }

    #[test]
    fn it_is_asked_anew_and_forgotten() {
        let mut clock = Clock::default();
        assert!(clock.ask(0));
        clock.told(b"-ERR no such thing\r\n", 10);
        assert_eq!(clock.end(10, 1_000_000, 10), None);
        assert!(clock.ask(10));
        clock.told(TIME, 20);
        assert!(!clock.ask(ASK + 19) && clock.ask(ASK + 20));
        assert!(clock.end(GOOD, 1_000_000, GOOD).is_some());
        assert_eq!(clock.end(GOOD, 1_000_000, GOOD + 21), None, "too long ago");
        clock.lost();
        assert_eq!(clock.end(30, 1_000_000, 30), None);
    }
}
