//! How one shard does: up, suspect, ejected, half-open. Pure, in the worker's time.
//!
//! ```text
//!            failure                  failures in a row                its time is over
//!   up ---------------> suspect ------------------------> ejected -----------------------> half-open
//!    ^ reply, late probe |                                   ^    a probe fails: backs off     |
//!    |<------------------+                                   +---------------------------------+
//!    |                                        a probe succeeds                                  |
//!    +------------------------------------------------------------------------------------------+
//! ```
//!
//! Failures are counted for the shard and not for each connection: those within one short span are one event that several
//! connections tell of, such as a crash that resets all of them. So the span begins with the failure that is counted, and
//! nothing is counted again until it is over; one that breaks every time is counted once a span.
//!
//! Nobody comes back by time alone. Where probes are off, a connection that shakes hands is the probe: its handshake ends
//! with a PING.

use super::{Config, Micros, State};
use crate::chance::splitmix;

/// The first wait of the prober after a failure, in microseconds; it doubles up to twice the interval.
const FIRST_WAIT: Micros = 20_000;
/// How often the time of a shard that does not stay well is doubled at most.
const MOST_DOUBLINGS: u32 = 3;

/// A shard that is out.
#[derive(Debug, Clone, Copy)]
struct Out {
    /// When it may be tried.
    until: Micros,
    half_open: bool,
}

/// One shard's state.
#[derive(Debug, Clone, Default)]
pub(super) struct Circuit {
    /// Failures in a row.
    pub(super) failures: u32,
    /// How often it was ejected.
    pub(super) ejections: u64,
    /// Why it is not well, as far as it is not.
    pub(super) reason: &'static str,
    /// Whether the last that was heard of it is that it answers.
    pub(super) well: bool,
    /// A reply came since the last probe was due.
    pub(super) heard: bool,
    /// When a probe is due; none before the shard is first used.
    pub(super) probe_at: Option<Micros>,
    counted_at: Option<Micros>,
    out: Option<Out>,
    /// Probes that failed in a row.
    missed: u32,
    /// When it came back last, and how long it had been away at least.
    back: Option<(Micros, Micros)>,
    doublings: u32,
    /// Where its chance goes on.
    draws: u64,
}

impl Circuit {
    /// `draws` is where its chance begins.
    pub(super) fn new(draws: u64) -> Self {
        Self { well: true, draws, ..Self::default() }
    }

    pub(super) fn state(&self) -> State {
        match self.out {
            Some(Out { half_open: true, .. }) => State::HalfOpen,
            Some(_) => State::Ejected,
            None if self.failures > 0 => State::Suspect,
            None => State::Up,
        }
    }

    pub(super) fn is_out(&self) -> bool {
        self.out.is_some()
    }

    /// A connection to it was opened, or a request has failed: from now on it is probed.
    pub(super) fn used(&mut self, config: &Config, now: Micros) {
        if let (None, Some(interval)) = (self.probe_at, config.probe_interval) {
            self.probe_at = Some(now + self.draw(config, interval));
        }
    }

    /// Something between half of `span` and all of it.
    fn draw(&mut self, config: &Config, span: Micros) -> Micros {
        self.draws = self.draws.wrapping_add(1);
        span / 2 + span.div_ceil(2) * (splitmix(config.seed.wrapping_add(self.draws)) % 1000) / 1000
    }

    /// A reply to a request came on one of its connections.
    #[inline]
    pub(super) fn replied(&mut self) {
        self.heard = true;
        self.failures = 0;
    }

    /// One of its connections told that it is not well; whether it is to be ejected for that. What does not count
    /// is known to tell of that connection only: it makes a probe due and no more.
    pub(super) fn failed(&mut self, config: &Config, reason: &'static str, counts: bool, now: Micros) -> bool {
        if self.well || self.probe_at.is_none() {
            self.missed = 0;
            let soon = now + self.draw(config, FIRST_WAIT);
            self.probe_at = config.probe_interval.map(|_| self.probe_at.map_or(soon, |at| at.min(soon)));
        }
        self.well = false;
        if !counts {
            return false;
        }
        self.reason = reason;
        if self.counted_at.is_some_and(|at| now.saturating_sub(at) < config.span) {
            self.failures = self.failures.max(1);
        } else {
            self.counted_at = Some(now);
            self.failures = self.failures.saturating_add(1);
        }
        let opens = self.out.is_none() && self.failures >= config.failure_limit && config.ejects();
        if opens {
            self.eject(config, now);
        }
        opens
    }

    fn eject(&mut self, config: &Config, now: Micros) {
        let soon_again = self.back.is_some_and(|(at, hold)| now.saturating_sub(at) < hold);
        self.doublings = if soon_again { (self.doublings + 1).min(MOST_DOUBLINGS) } else { 0 };
        let hold = match self.doublings {
            _ if !config.way.moves() => 0,
            0 => config.retry_timeout,
            // Between half and all of the doubled time: at least what it was.
            n => self.draw(config, config.retry_timeout.saturating_mul(1 << n)),
        };
        self.back = Some((now, hold));
        self.out = Some(Out { until: now.saturating_add(hold), half_open: false });
        self.ejections += 1;
    }

    /// Its time may be over.
    pub(super) fn tick(&mut self, now: Micros) {
        if let Some(out) = &mut self.out
            && now >= out.until
        {
            out.half_open = true;
        }
    }

    /// Brings it back, if its time is over; whether it did. To be asked when it has just answered.
    pub(super) fn restore(&mut self, now: Micros) -> bool {
        if self.out.is_none_or(|out| now < out.until) {
            return false;
        }
        self.out = None;
        self.failures = 0;
        let hold = self.back.map_or(0, |(_, hold)| hold);
        self.back = Some((now, hold));
        true
    }

    /// Whether the probe that is due can be left out: replies are the proof. If so, the next one is appointed.
    pub(super) fn skips(&mut self, config: &Config, now: Micros) -> bool {
        let proven = self.well && self.failures == 0 && self.out.is_none() && std::mem::take(&mut self.heard);
        if let (true, Some(interval)) = (proven, config.probe_interval) {
            self.probe_at = Some(now + self.draw(config, interval));
        }
        proven
    }

    /// A probe was answered; whether the shard is back.
    pub(super) fn answered(&mut self, config: &Config, now: Micros) -> bool {
        let interval = config.probe_interval.unwrap_or(Micros::MAX / 4);
        self.missed = 0;
        self.well = true;
        self.heard = false;
        let restored = self.restore(now);
        // One that answers its prober and breaks what apps ask is not well for that: what failed lately still counts.
        if self.out.is_none() && self.counted_at.is_none_or(|at| now.saturating_sub(at) >= interval) {
            self.failures = 0;
        }
        let next = now + self.draw(config, interval);
        self.probe_at = Some(self.out.map_or(next, |out| next.min(out.until.max(now + 1))));
        restored
    }

    /// A probe was not answered, or in a way that says that the shard does not serve; whether it is to be ejected.
    pub(super) fn missed(&mut self, config: &Config, reason: &'static str, now: Micros) -> bool {
        let opens = self.failed(config, reason, true, now);
        self.missed = self.missed.saturating_add(1);
        let most = config.probe_interval.unwrap_or(FIRST_WAIT).saturating_mul(2);
        let wait = FIRST_WAIT.saturating_mul(1 << self.missed.min(20)).min(most);
        let next = now + self.draw(config, wait);
        self.probe_at = Some(next);
        if let Some(out) = &mut self.out {
            out.half_open = false;
            out.until = out.until.max(next);
        }
        opens
    }
}

#[cfg(test)]
mod tests {
    use super::super::Way;
    use super::*;

    const SECOND: Micros = 1_000_000;

    fn config(way: Way) -> Config {
        Config {
            way,
            failure_limit: 2,
            span: 100_000,
            retry_timeout: 30 * SECOND,
            probe_interval: Some(SECOND),
            seed: 7,
        }
    }

    #[test]
    fn what_many_connections_tell_at_once_is_one_failure() {
        let (config, mut shard) = (config(Way::Rehash), Circuit::new(0));
        for n in 0..500 {
            assert!(!shard.failed(&config, "connection reset", true, SECOND + n * 150));
        }
        assert_eq!((shard.failures, shard.state()), (1, State::Suspect));
        assert!(shard.failed(&config, "connection refused", true, SECOND + 100_000), "another one, later");
        assert_eq!((shard.state(), shard.ejections, shard.reason), (State::Ejected, 1, "connection refused"));
    }

    #[test]
    fn a_reply_in_between_starts_the_count_anew_and_so_does_a_late_probe() {
        let (config, mut shard) = (config(Way::Rehash), Circuit::new(0));
        for n in 0..10 {
            assert!(!shard.failed(&config, "", true, n * SECOND));
            shard.replied();
            assert_eq!(shard.state(), State::Up);
        }
        shard.failed(&config, "", true, 20 * SECOND);
        shard.answered(&config, 20 * SECOND + 20_000);
        assert_eq!(shard.state(), State::Suspect, "it answers its prober only, perhaps");
        shard.answered(&config, 21 * SECOND);
        assert_eq!(shard.state(), State::Up);
    }

    #[test]
    fn one_that_answers_its_prober_and_breaks_what_is_asked_is_ejected() {
        let (config, mut shard) = (config(Way::Rehash), Circuit::new(0));
        shard.failed(&config, "", true, 0);
        shard.answered(&config, 20_000);
        assert!(shard.failed(&config, "", true, 200_000));
    }

    #[test]
    fn comes_back_by_a_probe_after_its_time_and_never_by_time_alone() {
        let (config, mut shard) = (config(Way::Rehash), Circuit::new(0));
        shard.failed(&config, "", true, 0);
        assert!(shard.missed(&config, "", 200_000));
        assert!(!shard.answered(&config, SECOND), "too early, though its connections may be opened");
        assert!(shard.well && shard.state() == State::Ejected);
        shard.tick(30 * SECOND);
        assert_eq!(shard.state(), State::Ejected);
        shard.tick(1000 * SECOND);
        assert_eq!(shard.state(), State::HalfOpen);
        assert!(!shard.missed(&config, "", 1000 * SECOND));
        assert_eq!(shard.state(), State::Ejected);
        shard.tick(1003 * SECOND);
        assert!(shard.state() == State::HalfOpen && shard.answered(&config, 1003 * SECOND));
        assert_eq!((shard.state(), shard.failures), (State::Up, 0));
    }

    #[test]
    fn the_prober_backs_off_and_never_waits_longer_than_two_intervals() {
        for seed in 0..50 {
            let config = Config { seed, ..config(Way::Error) };
            let (mut shard, mut now, mut waits) = (Circuit::new(0), 5 * SECOND, Vec::new());
            shard.failed(&config, "", true, now);
            for _ in 0..12 {
                let due = shard.probe_at.unwrap();
                waits.push(due - now);
                now = due;
                shard.missed(&config, "", now);
            }
            assert!((10_000..=20_000).contains(&waits[0]), "{waits:?}");
            assert!(waits.windows(2).take(5).all(|w| w[0] <= w[1]), "{waits:?}");
            assert!(waits[9..].iter().all(|&w| (SECOND..=2 * SECOND).contains(&w)), "{waits:?}");
        }
    }

    #[test]
    fn where_no_key_moves_the_first_probe_that_succeeds_is_enough() {
        for way in [Way::Error, Way::Miss] {
            let (config, mut shard) = (config(way), Circuit::new(0));
            shard.failed(&config, "", true, 0);
            assert!(shard.missed(&config, "", 200_000) && shard.state() == State::Ejected);
            assert!(shard.answered(&config, shard.probe_at.unwrap()));
        }
    }

    #[test]
    fn one_that_does_not_stay_well_stays_away_longer_each_time_up_to_a_bound() {
        let (config, mut shard) = (config(Way::Rehash), Circuit::new(0));
        let (mut now, mut away) = (0, Vec::new());
        for _ in 0..8 {
            shard.failed(&config, "", true, now);
            assert!(shard.failed(&config, "", true, now + 100_000));
            let out = now + 100_000;
            while !shard.answered(&config, now) {
                now += SECOND / 10;
            }
            away.push((now - out) / SECOND);
            now += SECOND;
        }
        assert_eq!(away[0], 29 + 1, "twemproxy's meaning");
        assert!(away.iter().all(|&s| (30..=240).contains(&s)) && away[6] >= 119, "{away:?}");
        // Well for long: forgiven.
        now += 1000 * SECOND;
        shard.failed(&config, "", true, now);
        shard.failed(&config, "", true, now + 100_000);
        assert!(shard.answered(&config, now + 31 * SECOND));
    }

    #[test]
    fn replies_make_probes_needless_while_it_is_well() {
        let (config, mut shard) = (config(Way::Error), Circuit::new(0));
        assert_eq!(shard.probe_at, None, "who never used it need not know");
        shard.used(&config, 0);
        let due = shard.probe_at.unwrap();
        assert!((SECOND / 2..=SECOND).contains(&due));
        shard.replied();
        assert!(shard.skips(&config, due) && shard.probe_at.unwrap() > due);
        let due = shard.probe_at.unwrap();
        assert!(!shard.skips(&config, due), "nothing came since");
        shard.replied();
        shard.failed(&config, "", false, due);
        assert!(!shard.skips(&config, due), "a connection broke");
    }

    #[test]
    fn without_probes_none_is_due_and_errors_stay_each_connections_own() {
        let (config, mut shard) = (Config { probe_interval: None, ..config(Way::Error) }, Circuit::new(0));
        shard.used(&config, 0);
        for n in 0..10 {
            assert!(!shard.failed(&config, "", true, n * SECOND));
        }
        assert_eq!((shard.probe_at, shard.state()), (None, State::Suspect));
    }
}
