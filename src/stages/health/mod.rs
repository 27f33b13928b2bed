//! Refuses at once what would go to a shard that is down, and ejects a failing shard: its keys get what the pool says.
//!
//! Learns from what happens on the connections and from probes, which whoever owns the sockets sends when one is due
//! ([`Health::probe_at`]) and tells of ([`Event::Probed`]). What a shard's state is and when it changes: `circuit`.
//!
//! Deciding is one look at a table: what is against a connection is written there when it changes.

mod circuit;
pub mod missing;

use super::{Event, Leg, Line, Micros, Notices, Refusal, Stage, Verdict};
use crate::error::{Cause, Failure, NO_TURN};
use circuit::Circuit;

/// Failures of a shard within so many microseconds are one: `span` where nothing else is wanted.
pub const SPAN: Micros = 100_000;

/// What the keys of an ejected shard get (`when_ejected`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Way {
    /// An error at once.
    #[default]
    Error,
    /// Reads are answered as if there were no such key, writes get the error.
    Miss,
    /// The other shards: it leaves the ring.
    Rehash,
    /// Others stand in for it.
    Gutter,
}

impl Way {
    /// Whether they go elsewhere, so that it matters that they do not come and go.
    #[must_use]
    pub fn moves(self) -> bool {
        matches!(self, Self::Rehash | Self::Gutter)
    }
}

/// twemproxy's keys, with their meanings, and hotring's own.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// What the keys of an ejected shard get.
    pub way: Way,
    /// Failures in a row that eject it (`server_failure_limit`).
    pub failure_limit: u32,
    /// Failures within so many microseconds count once; [`SPAN`].
    pub span: Micros,
    /// How long the keys of an ejected shard stay away at least, in microseconds (`server_retry_timeout`).
    pub retry_timeout: Micros,
    /// How often a shard is probed that nothing else is heard of, in microseconds; `None` for not at all.
    pub probe_interval: Option<Micros>,
    /// What chance begins with.
    pub seed: u64,
}

impl Config {
    /// Whether shards are ejected. Without probes and where it would be refused anyway, each connection speaks for itself.
    fn ejects(&self) -> bool {
        self.way != Way::Error || self.probe_interval.is_some()
    }
}

pub use crate::metrics::ServerState as State;

impl State {
    /// Whether its keys get what the pool says of an ejected shard's.
    #[must_use]
    pub fn is_out(self) -> bool {
        matches!(self, Self::Ejected | Self::HalfOpen)
    }
}

/// The stage.
#[derive(Debug)]
pub struct Health {
    config: Config,
    lanes: u32,
    shards: Vec<Circuit>,
    lines: Vec<Known>,
}

/// What is known of a connection.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// What legs on it are refused with: its own failure, or that its shard is shut.
    refusal: Option<Refusal>,
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
        let of = |shard: u16| Circuit::new(u64::from(shard) << 32);
        Self {
            config,
            lanes: u32::from(lanes.max(1)),
            shards: (0..shards).map(of).collect(),
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
                // Where it was not probed so far, it is asked at once.
                let is_open = before.of_shard(shard).flatten().any(|line| line.open || line.failure.is_some());
                new.probe_at = new.probe_at.or(is_open.then_some(0));
            }
            for (set, known) in before.of_shard(shard).enumerate() {
                for (lane, &known) in known.iter().enumerate() {
                    let line = (set * self.stride()) as Line + u32::from(shard) * self.lanes + lane as Line;
                    if let Some(place) = self.line(line) {
                        *place = known;
                    }
                }
            }
            self.write(shard);
        }
    }

    /// Whether shards are probed.
    #[must_use]
    pub fn probes(&self) -> bool {
        self.config.probe_interval.is_some()
    }

    fn circuit(&self, shard: u16) -> Option<&Circuit> {
        self.shards.get(usize::from(shard))
    }

    /// How a shard does.
    #[must_use]
    pub fn state(&self, shard: u16) -> State {
        self.circuit(shard).map_or(State::Up, Circuit::state)
    }

    /// Whether a shard cannot be reached: all connections of a set are down, and none is open.
    #[must_use]
    pub fn is_down(&self, shard: u16) -> bool {
        let is_down = |lanes: &[Known]| lanes.iter().all(|line| line.failure.is_some());
        let is_open = |lanes: &[Known]| lanes.iter().any(|line| line.open);
        let any = |is_so: fn(&[Known]) -> bool| self.of_shard(shard).any(is_so);
        any(is_down) && !any(is_open)
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

    /// Whether the shard is well, as far as was heard: by its prober, or where there is none, by a connection.
    #[must_use]
    pub fn is_well(&self, shard: u16) -> bool {
        match self.config.probe_interval {
            Some(_) => self.circuit(shard).is_some_and(|circuit| circuit.well),
            None => self.of_shard(shard).flatten().any(|line| line.answered),
        }
    }

    /// When a probe of the shard is due; `None` where it is not probed, or not yet used.
    #[must_use]
    pub fn probe_at(&self, shard: u16) -> Option<Micros> {
        self.config.probe_interval.and_then(|_| self.circuit(shard)?.probe_at)
    }

    /// Whether the probe that is due is left out, since replies are the proof; the next one is appointed then.
    pub fn skips_probe(&mut self, shard: u16, now: Micros) -> bool {
        let config = self.config;
        self.shards.get_mut(usize::from(shard)).is_some_and(|circuit| circuit.skips(&config, now))
    }

    /// Why nothing may be sent to a shard on this connection, for what is sent to the shard and not for a key's sake.
    #[must_use]
    pub fn against(&self, shard: u16, line: Line) -> Option<Refusal> {
        if let Some(Known { failure: Some(failure), .. }) = self.lines.get(line as usize) {
            return Some(Refusal::Down(*failure));
        }
        let is_out = self.circuit(shard).is_some_and(Circuit::is_out);
        is_out.then_some(Refusal::Down(Failure { cause: Cause::ShardDown, reason: "ejected" }))
    }

    /// Whether a shard's keys go elsewhere now.
    #[must_use]
    pub fn sends_away(&self, shard: u16) -> bool {
        self.config.way.moves() && self.circuit(shard).is_some_and(Circuit::is_out)
    }

    /// Failures of a shard in a row.
    #[must_use]
    pub fn failures(&self, shard: u16) -> u32 {
        self.circuit(shard).map_or(0, |s| s.failures)
    }

    /// How often a shard was ejected.
    #[must_use]
    pub fn ejections(&self, shard: u16) -> u64 {
        self.circuit(shard).map_or(0, |s| s.ejections)
    }

    /// Why a shard was last said not to be well.
    #[must_use]
    pub fn reason(&self, shard: u16) -> &'static str {
        self.circuit(shard).map_or("", |s| s.reason)
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
            (0..self.shards.len() as u16).for_each(|shard| self.write(shard));
        }
        self.lines.get_mut(line as usize)
    }

    /// What everything for this shard is refused with, whatever its connections are like. One that left the ring is asked
    /// only what is pinned to it: that it answers is enough.
    fn is_shut(&self, shard: u16) -> Option<Refusal> {
        let circuit = self.circuit(shard).filter(|circuit| circuit.is_out())?;
        let failure = Failure { cause: Cause::ShardDown, reason: circuit.reason };
        match self.config.way {
            Way::Rehash | Way::Gutter if self.is_well(shard) => None,
            Way::Miss => Some(Refusal::Missing(failure)),
            Way::Rehash | Way::Gutter | Way::Error => Some(Refusal::Down(failure)),
        }
    }

    /// Brings the table of refusals up to date for a shard.
    fn write(&mut self, shard: u16) {
        let shut = self.is_shut(shard);
        let first = usize::from(shard) * self.lanes as usize;
        let last = first + self.lanes as usize;
        let stride = self.stride();
        for set in self.lines.chunks_mut(stride) {
            for known in set.get_mut(first..last).unwrap_or_default() {
                known.refusal = shut.or(known.failure.map(Refusal::Down));
            }
        }
    }

    fn failed(&mut self, line: Line, failure: Failure, now: Micros, notices: &mut Notices) {
        if let Some(known) = self.line(line) {
            let failure = Some(Failure { cause: Cause::ShardDown, reason: failure.reason });
            *known = Known { refusal: known.refusal, failure, answered: false, open: false };
        }
        let shard = self.shard_of(line);
        if line as usize >= self.stride() && failure.is_of_dialect() {
            // The shard does not speak that protocol, or lacks that database: it may serve everyone else well.
            return self.write(shard);
        }
        self.accuse(shard, failure.reason, true, now, notices);
    }

    /// Something tells against a shard; `counts` where it surely does.
    fn accuse(&mut self, shard: u16, reason: &'static str, counts: bool, now: Micros, notices: &mut Notices) {
        let config = self.config;
        let Some(circuit) = self.shards.get_mut(usize::from(shard)) else { return };
        let is_out = circuit.failed(&config, reason, counts, now);
        self.judged(shard, is_out, notices);
    }

    fn judged(&mut self, shard: u16, ejected: bool, notices: &mut Notices) {
        if ejected && self.config.way.moves() {
            notices.eject.push(shard);
        }
        self.write(shard);
    }

    /// A shard has answered: it comes back if it was ejected and its time is over.
    fn restored(&mut self, shard: u16, restored: bool, notices: &mut Notices) {
        // Whatever the pool says now, it may have said something else when it was ejected.
        if restored {
            notices.restore.push(shard);
        }
        self.write(shard);
    }

    /// A connection is open, or is to be.
    fn clear(&mut self, line: Line, open: bool) -> u16 {
        if let Some(known) = self.line(line) {
            known.failure = None;
            (known.open, known.answered) = (open, known.answered || open);
        }
        let shard = self.shard_of(line);
        self.write(shard);
        shard
    }

    fn probed(&mut self, shard: u16, missed: Option<Failure>, now: Micros, notices: &mut Notices) {
        let config = self.config;
        let Some(circuit) = self.shards.get_mut(usize::from(shard)) else { return };
        if let Some(failure) = missed {
            let is_out = circuit.missed(&config, failure.reason, now);
            self.judged(shard, is_out, notices);
        } else {
            let is_back = circuit.answered(&config, now);
            self.restored(shard, is_back, notices);
        }
    }
}

impl Stage for Health {
    #[inline]
    fn decide(&self, leg: &mut Leg<'_>, _now: Micros) -> Verdict {
        match self.lines.get(leg.line as usize) {
            Some(Known { refusal: None, .. }) => Verdict::Next,
            Some(Known { refusal: Some(refusal), .. }) => Verdict::Refuse(*refusal),
            // Of a set that nobody has used so far.
            None => self.is_shut(leg.shard).map_or(Verdict::Next, Verdict::Refuse),
        }
    }

    #[inline]
    fn observe(&mut self, event: &Event<'_>, now: Micros, notices: &mut Notices) {
        match *event {
            Event::Replied(line) => {
                let number = self.shard_of(line);
                if let Some(shard) = self.shards.get_mut(usize::from(number)) {
                    shard.replied();
                }
            }
            Event::Failed(line, failure) => self.failed(line, failure, now, notices),
            // Nothing is held against it, and nothing for its shard.
            Event::Closed(line) => {
                if let Some(known) = self.line(line) {
                    known.open = false;
                }
            }
            Event::Reopening(line) => {
                self.clear(line, false);
            }
            Event::Connected(line) => {
                let number = self.clear(line, true);
                let config = self.config;
                if let Some(shard) = self.shards.get_mut(usize::from(number)) {
                    shard.used(&config, now);
                    // Else its prober says so.
                    let restored = config.probe_interval.is_none() && shard.restore(now);
                    self.restored(number, restored, notices);
                }
            }
            Event::Answered(number) => {
                if let Some(shard) = self.shards.get_mut(usize::from(number)) {
                    shard.replied();
                }
            }
            Event::Lost(number, failure) => {
                // Without a prober nobody would try again: such a connection is opened once.
                let tells = !failure.is_of_dialect() && failure.reason != NO_TURN;
                let counts = self.probes() && failure.cause == Cause::Connect && tells;
                self.accuse(number, failure.reason, counts, now, notices);
            }
            Event::Probed(number, missed) => self.probed(number, missed, now, notices),
            _ => {}
        }
    }

    fn tick(&mut self, now: Micros, notices: &mut Notices) {
        let mut index = 0;
        while let Some(shard) = self.shards.get_mut(index) {
            if shard.is_out() {
                shard.tick(now);
                let number = index as u16;
                let restored = self.config.probe_interval.is_none()
                    && self.is_well(number)
                    && self.shards.get_mut(index).is_some_and(|shard| shard.restore(now));
                if restored {
                    self.restored(number, restored, notices);
                }
            }
            index += 1;
        }
    }

    fn explain(&self, leg: &Leg<'_>, verdict: Verdict, _now: Micros) -> String {
        let state = match self.state(leg.shard) {
            State::Up => "the shard is well",
            State::Suspect => "the shard is suspect: it failed lately",
            State::Ejected => "the shard is ejected",
            State::HalfOpen => "the shard is ejected, and comes back with the next probe that it answers",
        };
        match verdict {
            Verdict::Next => state.to_owned(),
            other if self.state(leg.shard) == State::Up => other.to_string(),
            other => format!("{state}; {other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: Failure = Failure { cause: Cause::Connect, reason: "connection refused" };
    const SECOND: Micros = 1_000_000;

    fn health(way: Way, probe_interval: Option<Micros>) -> Health {
        let config = Config { way, failure_limit: 2, span: 1, retry_timeout: 1000, probe_interval, seed: 7 };
        Health::new(config, 3, 2)
    }

    fn verdict(health: &Health, line: Line) -> Verdict {
        let spec = crate::command::lookup(b"get").unwrap();
        let shard = (line / 2 % 3) as u16;
        let mut leg = Leg { line, shard, ..Leg::new(spec, b"k", b"") };
        health.decide(&mut leg, 0)
    }

    fn reason(verdict: Verdict) -> &'static str {
        match verdict {
            Verdict::Refuse(Refusal::Down(failure) | Refusal::Missing(failure)) => failure.reason,
            _ => "",
        }
    }

    #[test]
    fn refuses_while_a_connection_is_down() {
        let (mut health, mut notices) = (health(Way::Error, None), Notices::default());
        assert_eq!(verdict(&health, 2), Verdict::Next);
        health.observe(&Event::Failed(2, REFUSED), 0, &mut notices);
        assert_eq!(reason(verdict(&health, 2)), "connection refused");
        assert_eq!((verdict(&health, 3), health.is_down(1)), (Verdict::Next, false));
        health.observe(&Event::Failed(3, REFUSED), 0, &mut notices);
        assert!(health.is_down(1));
        health.observe(&Event::Connected(2), 0, &mut notices);
        assert_eq!((verdict(&health, 2), health.is_down(1)), (Verdict::Next, false));
        assert!(notices.eject.is_empty());
    }

    #[test]
    fn is_down_when_a_whole_set_is_and_nothing_is_open() {
        let (mut health, mut notices) = (health(Way::Error, None), Notices::default());
        health.observe(&Event::Connected(6), 0, &mut notices);
        health.observe(&Event::Failed(0, REFUSED), 0, &mut notices);
        health.observe(&Event::Failed(1, REFUSED), 0, &mut notices);
        assert!(!health.is_down(0), "one of another set is open");
        health.observe(&Event::Closed(6), 0, &mut notices);
        assert!(health.is_down(0));
    }

    #[test]
    fn what_a_shard_does_not_speak_is_held_against_that_connection_only() {
        let (mut health, mut notices) = (health(Way::Rehash, Some(SECOND)), Notices::default());
        let failure = Failure { cause: Cause::Connect, reason: crate::error::NO_RESP3 };
        for now in 0..9 {
            health.observe(&Event::Failed(6, failure), now * SECOND, &mut notices);
            health.observe(&Event::Lost(0, failure), now * SECOND, &mut notices);
        }
        assert_eq!((health.failures(0), health.state(0)), (0, State::Up));
        assert_eq!(reason(verdict(&health, 6)), crate::error::NO_RESP3);
        assert_eq!(verdict(&health, 0), Verdict::Next);
    }

    #[test]
    fn a_sessions_own_connections_tell_of_the_shard_when_it_cannot_be_reached() {
        let (mut health, mut notices) = (health(Way::Rehash, Some(SECOND)), Notices::default());
        let broken = Failure { cause: Cause::Lost, reason: "connection reset" };
        for now in 0..9 {
            health.observe(&Event::Lost(0, broken), now * SECOND, &mut notices);
        }
        assert_eq!(health.state(0), State::Up);
        health.observe(&Event::Lost(0, REFUSED), 10 * SECOND, &mut notices);
        assert_eq!(health.state(0), State::Suspect);
        health.observe(&Event::Answered(0), 11 * SECOND, &mut notices);
        health.observe(&Event::Lost(0, REFUSED), 12 * SECOND, &mut notices);
        assert!(notices.eject.is_empty());
        health.observe(&Event::Lost(0, REFUSED), 13 * SECOND, &mut notices);
        assert_eq!((notices.eject.as_slice(), health.state(0)), (&[0][..], State::Ejected));
        // Without probes nobody would open another one, and so nobody would see that it is back.
        let (mut unprobed, mut notices) = (self::health(Way::Rehash, None), Notices::default());
        for now in 0..9 {
            unprobed.observe(&Event::Lost(0, REFUSED), now * SECOND, &mut notices);
        }
        assert_eq!(unprobed.state(0), State::Up);
    }

    #[test]
    fn an_ejected_shard_is_shut_on_every_connection_of_every_set() {
        let (mut health, mut notices) = (health(Way::Error, Some(SECOND)), Notices::default());
        health.observe(&Event::Connected(9), 0, &mut notices);
        for now in [0, 10] {
            health.observe(&Event::Probed(1, Some(REFUSED)), now, &mut notices);
        }
        assert_eq!(health.state(1), State::Ejected);
        for line in [2, 3, 8, 9, 14, 999 * 6 + 2] {
            assert_eq!(reason(verdict(&health, line)), "connection refused", "{line}");
        }
        assert_eq!(verdict(&health, 4), Verdict::Next);
        health.observe(&Event::Connected(20), 11, &mut notices);
        assert_eq!(reason(verdict(&health, 20)), "connection refused", "room was made for it meanwhile");
        health.observe(&Event::Failed(3, REFUSED), 20, &mut notices);
        health.observe(&Event::Probed(1, None), 5 * SECOND, &mut notices);
        assert_eq!((health.state(1), verdict(&health, 2)), (State::Up, Verdict::Next));
        assert_eq!(reason(verdict(&health, 3)), "connection refused", "until it is opened anew");
        health.observe(&Event::Reopening(3), 5 * SECOND, &mut notices);
        assert_eq!(verdict(&health, 3), Verdict::Next);
        assert!(notices.eject.is_empty(), "no key moved");
    }

    #[test]
    fn what_is_pinned_to_an_ejected_shard_gets_through_as_soon_as_it_answers() {
        let (mut health, mut notices) = (health(Way::Rehash, Some(SECOND)), Notices::default());
        for now in [0, 10] {
            health.observe(&Event::Probed(1, Some(REFUSED)), now, &mut notices);
        }
        assert_eq!((notices.eject.as_slice(), reason(verdict(&health, 2))), (&[1][..], "connection refused"));
        health.observe(&Event::Probed(1, None), 20, &mut notices);
        assert_eq!((health.state(1), verdict(&health, 2)), (State::Ejected, Verdict::Next));
        assert!(health.against(1, 2).is_some(), "it is not asked for all keys");
    }

    #[test]
    fn without_probes_a_connection_that_shakes_hands_is_the_probe() {
        let (mut health, mut notices) = (health(Way::Rehash, None), Notices::default());
        health.observe(&Event::Failed(0, REFUSED), 0, &mut notices);
        health.observe(&Event::Failed(0, REFUSED), 10, &mut notices);
        assert_eq!(notices.eject, [0]);
        health.tick(2000, &mut notices);
        assert_eq!((notices.restore.as_slice(), health.state(0)), (&[][..], State::HalfOpen));
        health.observe(&Event::Connected(0), 2001, &mut notices);
        assert_eq!((notices.restore.as_slice(), health.state(0)), (&[0][..], State::Up));
    }

    #[test]
    fn a_shard_that_answers_early_waits_for_its_time() {
        let (mut health, mut notices) = (health(Way::Rehash, None), Notices::default());
        health.observe(&Event::Failed(0, REFUSED), 0, &mut notices);
        health.observe(&Event::Failed(0, REFUSED), 1, &mut notices);
        health.observe(&Event::Connected(0), 10, &mut notices);
        assert_eq!(health.state(0), State::Ejected);
        health.tick(1001, &mut notices);
        assert_eq!(notices.restore, [0]);
    }

    #[test]
    fn a_connection_that_was_closed_in_peace_still_tells_that_the_shard_answers() {
        let (mut health, mut notices) = (health(Way::Rehash, None), Notices::default());
        health.observe(&Event::Failed(0, REFUSED), 0, &mut notices);
        health.observe(&Event::Failed(0, REFUSED), 1, &mut notices);
        health.observe(&Event::Connected(0), 2, &mut notices);
        health.observe(&Event::Closed(0), 3, &mut notices);
        health.tick(5000, &mut notices);
        assert_eq!((notices.restore.as_slice(), health.state(0)), (&[0][..], State::Up));
    }
}
