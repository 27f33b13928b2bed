//! Refuses at once what would go to a shard that is down, and ejects a failing shard from the ring where the pool says so.
//!
//! Passive: it learns from what happens on the connections. A shard comes back only when a connection to it has been opened
//! and has answered its handshake, which ends with a PING.

use super::{Event, Leg, Line, Micros, Notices, Refusal, Stage, Verdict};
use crate::error::{Cause, Failure};

/// twemproxy's keys, with their meanings.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Whether a failing shard leaves the ring (`auto_eject_hosts`).
    pub eject: bool,
    /// Failures in a row that eject it (`server_failure_limit`).
    pub failure_limit: u32,
    /// How long an ejected shard stays away at least, in microseconds (`server_retry_timeout`).
    pub retry_timeout: Micros,
}

/// How a shard does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing is known against it.
    Up,
    /// Its connections are lost or refused; they are being tried again.
    Down,
    /// Out of the ring.
    Ejected,
}

#[derive(Debug, Clone, Default)]
struct Shard {
    failures: u32,
    ejected_until: Option<Micros>,
    ejections: u64,
}

/// The stage.
#[derive(Debug)]
pub struct Health {
    config: Config,
    lanes: u32,
    shards: Vec<Shard>,
    lines: Vec<Known>,
}

/// What is known of a connection.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// The failure that keeps it down; `None` while nothing is against it.
    failure: Option<Failure>,
    /// The last that was heard of it is that it answered; one that was never opened has not.
    answered: bool,
    /// It is open.
    open: bool,
}

impl Health {
    /// For `shards` shards with `lanes` connections each.
    #[must_use]
    pub fn new(config: Config, shards: u16, lanes: u16) -> Self {
        Self {
            config,
            lanes: u32::from(lanes.max(1)),
            shards: vec![Shard::default(); usize::from(shards)],
            lines: vec![Known::default(); usize::from(shards) * usize::from(lanes)],
        }
    }

    /// Takes another's place in a pool that is configured anew: what is known of the shards that `stay` and of their
    /// connections is known further on. There may be more shards and more connections to each than before.
    pub fn inherit(&mut self, before: &Self, stay: &[u16]) {
        for &shard in stay {
            let index = usize::from(shard);
            if let (Some(new), Some(old)) = (self.shards.get_mut(index), before.shards.get(index)) {
                new.clone_from(old);
            }
            for (set, known) in before.of_shard(shard).enumerate() {
                for (lane, &known) in known.iter().enumerate() {
                    let line = (set * self.stride()) as Line + u32::from(shard) * self.lanes + lane as Line;
                    if let Some(place) = self.line(line) {
                        *place = known;
                    }
                }
            }
        }
    }

    /// How a shard does: down when all its connections are.
    #[must_use]
    pub fn state(&self, shard: u16) -> State {
        if self.shards.get(usize::from(shard)).is_some_and(|s| s.ejected_until.is_some()) {
            return State::Ejected;
        }
        let is_down = |lanes: &[Known]| lanes.iter().all(|line| line.failure.is_some());
        let is_open = |lanes: &[Known]| lanes.iter().any(|line| line.open);
        let any = |is_so: fn(&[Known]) -> bool| self.of_shard(shard).any(is_so);
        if any(is_down) && !any(is_open) { State::Down } else { State::Up }
    }

    /// Connections of a set; each protocol and database has one.
    fn stride(&self) -> usize {
        (self.shards.len() * self.lanes as usize).max(1)
    }

    /// What is known of a shard's connections, set by set: apps may all use another than the first.
    fn of_shard(&self, shard: u16) -> impl Iterator<Item = &[Known]> {
        let first = usize::from(shard) * self.lanes as usize;
        let last = first + self.lanes as usize;
        self.lines.chunks(self.stride()).filter_map(move |set| set.get(first..last))
    }

    /// Whether a connection to the shard is well, as far as was heard.
    fn answers(&self, shard: u16) -> bool {
        self.of_shard(shard).flatten().any(|line| line.answered)
    }

    /// Why nothing may be sent to a shard on this connection, for what is sent to the shard and not for a key's sake.
    #[must_use]
    pub fn against(&self, shard: u16, line: Line) -> Option<Refusal> {
        if let Some(Known { failure: Some(failure), .. }) = self.lines.get(line as usize) {
            return Some(Refusal::Down(*failure));
        }
        let ejected = self.state(shard) == State::Ejected;
        ejected.then_some(Refusal::Down(Failure { cause: Cause::ShardDown, reason: "ejected" }))
    }

    /// Failures of a shard in a row.
    #[must_use]
    pub fn failures(&self, shard: u16) -> u32 {
        self.shards.get(usize::from(shard)).map_or(0, |s| s.failures)
    }

    /// How often a shard was ejected.
    #[must_use]
    pub fn ejections(&self, shard: u16) -> u64 {
        self.shards.get(usize::from(shard)).map_or(0, |s| s.ejections)
    }

    fn shard_of(&self, line: Line) -> u16 {
        let shards = self.shards.len().max(1) as u32;
        (line / self.lanes % shards) as u16
    }

    /// A connection; room is made for one of another protocol or database, which comes when it is first used, and for all of
    /// its set.
    fn line(&mut self, line: Line) -> Option<&mut Known> {
        let sets = line as usize / self.stride() + 1;
        if self.lines.len() < sets * self.stride() {
            self.lines.resize(sets * self.stride(), Known::default());
        }
        self.lines.get_mut(line as usize)
    }

    fn failed(&mut self, line: Line, failure: Failure, now: Micros, notices: &mut Notices) {
        if let Some(known) = self.line(line) {
            let failure = Some(Failure { cause: Cause::ShardDown, reason: failure.reason });
            *known = Known { failure, answered: false, open: false };
        }
        if line as usize >= self.stride() && failure.is_of_dialect() {
            // The shard does not speak that protocol, or lacks that database: it may serve everyone else well.
            return;
        }
        let number = self.shard_of(line);
        let config = self.config;
        let Some(shard) = self.shards.get_mut(usize::from(number)) else { return };
        shard.failures = shard.failures.saturating_add(1);
        if config.eject && shard.ejected_until.is_none() && shard.failures >= config.failure_limit {
            shard.ejected_until = Some(now + config.retry_timeout);
            shard.ejections += 1;
            notices.eject.push(number);
        }
    }

    /// Brings back an ejected shard whose time has come, if a connection to it is well.
    fn restore(&mut self, number: u16, now: Micros, notices: &mut Notices) {
        let well = self.answers(number);
        if let Some(shard) = self.shards.get_mut(usize::from(number))
            && shard.ejected_until.is_some_and(|until| now >= until)
            && well
        {
            shard.ejected_until = None;
            shard.failures = 0;
            notices.restore.push(number);
        }
    }
}

impl Stage for Health {
    #[inline]
    fn decide(&self, leg: &mut Leg<'_>, _now: Micros) -> Verdict {
        match self.lines.get(leg.line as usize) {
            Some(Known { failure: Some(failure), .. }) => Verdict::Refuse(Refusal::Down(*failure)),
            _ => Verdict::Next,
        }
    }

    #[inline]
    fn observe(&mut self, event: &Event<'_>, now: Micros, notices: &mut Notices) {
        match *event {
            Event::Replied(line) => {
                let number = self.shard_of(line);
                if let Some(shard) = self.shards.get_mut(usize::from(number)) {
                    shard.failures = 0;
                }
            }
            Event::Failed(line, failure) => self.failed(line, failure, now, notices),
            // Nothing is held against it, and nothing for its shard.
            Event::Closed(line) => {
                if let Some(known) = self.line(line) {
                    known.open = false;
                }
            }
            Event::Connected(line) => {
                if let Some(known) = self.line(line) {
                    *known = Known { failure: None, answered: true, open: true };
                }
                self.restore(self.shard_of(line), now, notices);
            }
            _ => {}
        }
    }

    fn tick(&mut self, now: Micros, notices: &mut Notices) {
        for number in 0..self.shards.len() as u16 {
            self.restore(number, now, notices);
        }
    }

    fn explain(&self, _leg: &Leg<'_>, verdict: Verdict, _now: Micros) -> String {
        match verdict {
            Verdict::Next => "the shard is well".to_owned(),
            other => other.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: Failure = Failure { cause: Cause::Connect, reason: "connection refused" };

    fn health(eject: bool) -> Health {
        Health::new(Config { eject, failure_limit: 2, retry_timeout: 1000 }, 3, 2)
    }

    fn verdict(health: &Health, line: Line) -> Verdict {
        let spec = crate::command::lookup(b"get").unwrap();
        let mut leg = Leg { line, ..Leg::new(spec, b"k", b"") };
        health.decide(&mut leg, 0)
    }

    #[test]
    fn refuses_while_a_connection_is_down() {
        let (mut health, mut notices) = (health(false), Notices::default());
        assert_eq!(verdict(&health, 2), Verdict::Next);
        health.observe(&Event::Failed(2, REFUSED), 0, &mut notices);
        assert!(matches!(verdict(&health, 2), Verdict::Refuse(Refusal::Down(f)) if f.reason == "connection refused"));
        assert_eq!((verdict(&health, 3), health.state(1)), (Verdict::Next, State::Up));
        health.observe(&Event::Failed(3, REFUSED), 0, &mut notices);
        assert_eq!(health.state(1), State::Down);
        health.observe(&Event::Connected(2), 0, &mut notices);
        assert_eq!((verdict(&health, 2), health.state(1)), (Verdict::Next, State::Up));
        assert!(notices.eject.is_empty());
    }

    #[test]
    fn what_is_for_the_shard_itself_is_refused_while_it_is_down_or_ejected() {
        let (mut health, mut notices) = (health(true), Notices::default());
        let reason = |health: &Health, line: Line| match health.against((line / 2) as u16, line) {
            Some(Refusal::Down(failure)) => failure.reason,
            _ => "",
        };
        assert_eq!(reason(&health, 2), "");
        health.observe(&Event::Failed(2, REFUSED), 0, &mut notices);
        assert_eq!((reason(&health, 2), reason(&health, 3)), ("connection refused", ""));
        health.observe(&Event::Failed(2, REFUSED), 0, &mut notices);
        health.observe(&Event::Connected(2), 1, &mut notices);
        assert_eq!((reason(&health, 2), reason(&health, 3), reason(&health, 0)), ("ejected", "ejected", ""));
    }

    #[test]
    fn ejects_after_failures_in_a_row_and_restores_after_a_probe() {
        let (mut health, mut notices) = (health(true), Notices::default());
        health.observe(&Event::Failed(0, REFUSED), 0, &mut notices);
        health.observe(&Event::Replied(1), 1, &mut notices);
        health.observe(&Event::Failed(0, REFUSED), 2, &mut notices);
        assert!(notices.eject.is_empty(), "a reply in between starts the count anew");
        health.observe(&Event::Failed(1, REFUSED), 3, &mut notices);
        assert_eq!((notices.eject.as_slice(), health.state(0)), (&[0][..], State::Ejected));
        health.tick(2000, &mut notices);
        assert!(notices.restore.is_empty(), "time alone does not bring it back");
        health.observe(&Event::Connected(0), 2001, &mut notices);
        assert_eq!((notices.restore.as_slice(), health.state(0)), (&[0][..], State::Up));
    }

    #[test]
    fn a_shard_that_answers_early_waits_for_its_time() {
        let (mut health, mut notices) = (health(true), Notices::default());
        health.observe(&Event::Failed(0, REFUSED), 0, &mut notices);
        health.observe(&Event::Failed(0, REFUSED), 0, &mut notices);
        health.observe(&Event::Connected(0), 10, &mut notices);
        assert_eq!(health.state(0), State::Ejected);
        health.tick(1000, &mut notices);
        assert_eq!(notices.restore, [0]);
    }

    #[test]
    fn a_connection_that_was_never_opened_does_not_bring_a_shard_back() {
        let (mut health, mut notices) = (health(true), Notices::default());
        health.observe(&Event::Connected(0), 0, &mut notices);
        health.observe(&Event::Failed(0, REFUSED), 1, &mut notices);
        health.observe(&Event::Failed(0, REFUSED), 2, &mut notices);
        assert_eq!(health.state(0), State::Ejected);
        health.tick(5000, &mut notices);
        assert_eq!((notices.restore.as_slice(), health.state(0)), (&[][..], State::Ejected));
        health.observe(&Event::Connected(0), 5001, &mut notices);
        assert_eq!((notices.restore.as_slice(), health.state(0)), (&[0][..], State::Up));
    }
}
