//! Merges identical reads of hot keys: while one is out, the others wait behind it and then leave together, as one.
//!
//! A read may share the reply to a flight that is sent after the read was made: the shard executes it within the time in which
//! the read waits, so the read is linearizable, whoever writes, and by whatever path. Hence, for each read that is out, one
//! place where equal ones wait for the *next* flight; it leaves when the reply comes. A connection has at most one such flight out
//! at a time, and a read waits for one round trip more at the most. What has not left yet is joined as it is. A write of anyone
//! need not end the waiting: the next flight leaves behind it, and sees it.
//!
//! The session's own order holds since what waits leaves before anything else is done for its session, on the same connection.
//!
//! `relaxed` shares the reply to a flight that is out already, as singleflight does. That may be older than a write which was
//! acknowledged elsewhere before the read was made, by one round trip at the most. Writes through this worker end it.
//!
//! Only for keys that the detector has found hot, with replies that are not long: a cold key costs nothing here, and copies of a
//! long reply for many apps would all be made at once.
//!
//! Bounded: [`MOST`] places; who waits is in its session's window.

use super::{AsItIs, Event, Flight, Leg, Line, Micros, Notices, Stage, Verdict, key_hash};
use crate::units::Expected;
use slab::Slab;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::BuildHasherDefault;
use std::str::FromStr;

/// Most reads that are out, or stand in outboxes, and that others may share; with the longest there may be it bounds the memory
/// kept to 4 MiB.
const MOST: usize = 1024;

/// Which replies equal reads of a hot key may share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Merge {
    /// Only those to flights that leave after the reads were made.
    #[default]
    Strict,
    /// Those to flights that are out, too.
    Relaxed,
    /// None.
    Off,
}

impl FromStr for Merge {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        match text {
            "strict" => Ok(Self::Strict),
            "relaxed" => Ok(Self::Relaxed),
            "off" => Ok(Self::Off),
            _ => Err(Expected::new("one of `strict` `relaxed` `off`")),
        }
    }
}

impl fmt::Display for Merge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strict => "strict",
            Self::Relaxed => "relaxed",
            Self::Off => "off",
        })
    }
}

/// Those who wait for a flight: links of a chain that the engine keeps.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    first: u32,
    last: u32,
    count: u32,
    since: Micros,
}

/// A read that is out, or about to leave.
#[derive(Debug)]
struct Place {
    hash: u64,
    wire: Vec<u8>,
    flight: Flight,
    /// It may have left.
    left: bool,
    /// A write has been sent since, so nobody shares the reply any more.
    closed: bool,
    waiting: Option<Waiting>,
}

/// Whose turn it is when somebody begins to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nobody else waits.
    First,
    /// This one, by its link, was the last until now, and is to be linked to the new one.
    Behind(u32),
}

/// What is to be sent for those who waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    /// On which connection.
    pub line: Line,
    /// The first of those who waited.
    pub first: u32,
    /// How many there are.
    pub count: u32,
}

/// The stage.
pub struct Merging {
    merge: Merge,
    seed: u64,
    every: bool,
    /// Whether there is anything to be asked here.
    active: bool,
    hot: HashSet<u64, BuildHasherDefault<AsItIs>>,
    places: Slab<Place>,
    /// By the key's hash.
    by_key: HashMap<u64, Vec<u32>, BuildHasherDefault<AsItIs>>,
    /// Those that have not left, and the connections in whose outboxes they stand.
    fresh: Vec<(Line, u32)>,
    /// Emptied lists and buffers, to be used again.
    lists: Vec<Vec<u32>>,
    buffers: Vec<Vec<u8>>,
}

impl Merging {
    /// For a pool. `seed` is the same as that of the stage which knows the hot keys.
    #[must_use]
    pub fn new(merge: Merge, seed: u64) -> Self {
        Self {
            merge,
            seed,
            every: false,
            active: false,
            hot: HashSet::default(),
            places: Slab::new(),
            by_key: HashMap::default(),
            fresh: Vec::new(),
            lists: Vec::new(),
            buffers: Vec::new(),
        }
    }

    /// The same where every key is as good as hot.
    #[must_use]
    pub fn of_every_key(self) -> Self {
        let every = self.merge != Merge::Off;
        Self { every, active: every, ..self }
    }

    /// Whether anything is to be told of what is sent.
    #[must_use]
    #[inline]
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// Whether replies to what is out are shared.
    #[must_use]
    #[inline]
    pub fn is_relaxed(&self) -> bool {
        self.merge == Merge::Relaxed
    }

    /// Reads that are out, or about to leave, and may be shared or waited behind.
    #[must_use]
    pub fn out(&self) -> usize {
        self.places.len()
    }

    /// From now on these keys are hot, by their hashes.
    pub fn are_hot(&mut self, hashes: impl Iterator<Item = u64>) {
        self.hot.clear();
        if self.merge != Merge::Off {
            self.hot.extend(hashes);
        }
        self.weigh();
    }

    fn weigh(&mut self) {
        self.active = self.every || !self.hot.is_empty() || !self.places.is_empty();
    }

    fn find(&self, hash: u64, leg: &Leg<'_>) -> Option<(u32, &Place)> {
        let numbers = self.by_key.get(&hash)?;
        let places = numbers.iter().filter_map(|&number| Some((number, self.places.get(number as usize)?)));
        places.into_iter().find(|(_, place)| place.flight.line == leg.line && place.wire == leg.wire)
    }

    /// A leg was sent. Returns the number of its place, if others may share its reply or wait behind it; the engine tells when
    /// it comes.
    pub fn lead(&mut self, leg: &Leg<'_>, flight: Flight) -> Option<u32> {
        if leg.spread || !leg.can_be_shared() {
            return None;
        }
        let hash = key_hash(self.seed, leg.key);
        let known = self.find(hash, leg).map(|(number, _)| number);
        if let Some(number) = known {
            let place = self.places.get_mut(number as usize)?;
            if place.left {
                self.fresh.push((flight.line, number));
            }
            (place.flight, place.left, place.closed) = (flight, false, false);
            return Some(number);
        }
        if !(self.every || self.hot.contains(&hash)) || self.places.len() >= MOST {
            return None;
        }
        let mut wire = self.buffers.pop().unwrap_or_default();
        wire.extend_from_slice(leg.wire);
        let place = Place { hash, wire, flight, left: false, closed: false, waiting: None };
        let number = self.places.insert(place) as u32;
        let lists = &mut self.lists;
        self.by_key.entry(hash).or_insert_with(|| lists.pop().unwrap_or_default()).push(number);
        self.fresh.push((flight.line, number));
        Some(number)
    }

    /// The flight whose reply may be shared though it is out.
    #[must_use]
    pub fn open(&self, number: u32) -> Option<Flight> {
        let place = self.places.get(number as usize)?;
        (self.is_relaxed() && place.waiting.is_none()).then_some(place.flight)
    }

    /// Somebody, by this link, waits behind a read that is out; `None` if there is no such read.
    pub fn wait(&mut self, number: u32, link: u32, now: Micros) -> Option<Turn> {
        let place = self.places.get_mut(number as usize)?;
        Some(match &mut place.waiting {
            Some(waiting) => {
                waiting.count = waiting.count.saturating_add(1);
                Turn::Behind(std::mem::replace(&mut waiting.last, link))
            }
            none => {
                *none = Some(Waiting { first: link, last: link, count: 1, since: now });
                Turn::First
            }
        })
    }

    /// Whether a request is what is waited for in this place.
    #[must_use]
    pub fn is_same(&self, number: u32, wire: &[u8]) -> bool {
        self.places.get(number as usize).is_some_and(|place| place.wire == wire)
    }

    /// Those who wait in this place leave; its request is written to `wire`. The next flight is told as any other.
    pub fn take(&mut self, number: u32, wire: &mut Vec<u8>) -> Option<Shared> {
        let place = self.places.get_mut(number as usize)?;
        let waiting = place.waiting.take()?;
        wire.extend_from_slice(&place.wire);
        Some(Shared { line: place.flight.line, first: waiting.first, count: waiting.count })
    }

    /// A reply came, or will not come, to a flight that was given this place. Returns whether others wait for the next one.
    pub fn landed(&mut self, number: u32, line: Line, serial: u64) -> bool {
        let place = self.places.get(number as usize);
        let Some(place) = place.filter(|place| (place.flight.line, place.flight.serial) == (line, serial)) else {
            return false;
        };
        let waited_for = place.waiting.is_some();
        if !waited_for {
            self.forget(number);
        }
        waited_for
    }

    /// A connection is given up: nothing is out on it. Who waits must have left before.
    pub fn lost(&mut self, line: Line) {
        let numbers: Vec<u32> = self.numbers(|place| place.flight.line == line).collect();
        numbers.into_iter().for_each(|number| self.forget(number));
    }

    fn numbers(&self, which: impl Fn(&Place) -> bool) -> impl Iterator<Item = u32> {
        self.places.iter().filter(move |(_, place)| which(place)).map(|(number, _)| number as u32)
    }

    /// Places in which somebody waits, on one connection or on all.
    #[must_use]
    pub fn waited_in(&self, line: Option<Line>) -> Vec<u32> {
        self.numbers(|place| place.waiting.is_some() && line.is_none_or(|line| place.flight.line == line)).collect()
    }

    /// Places in which somebody has waited since before this time.
    #[must_use]
    pub fn waited_since(&self, before: Micros) -> Vec<u32> {
        self.numbers(|place| place.waiting.is_some_and(|waiting| waiting.since < before)).collect()
    }

    /// A key is written, or any may be: nobody shares what was read before.
    pub fn close(&mut self, key: Option<&[u8]>) {
        let hash = key.map(|key| key_hash(self.seed, key));
        let closed =
            self.places.iter_mut().map(|(_, place)| place).filter(|place| hash.is_none_or(|h| h == place.hash));
        closed.for_each(|place| place.closed = true);
    }

    fn forget(&mut self, number: u32) {
        let Some(place) = self.places.try_remove(number as usize) else { return };
        debug_assert!(place.waiting.is_none(), "who waits is forgotten");
        if !place.left {
            self.fresh.retain(|(_, fresh)| *fresh != number);
        }
        let mut wire = place.wire;
        wire.clear();
        self.buffers.push(wire);
        if let Some(numbers) = self.by_key.get_mut(&place.hash) {
            numbers.retain(|&other| other != number);
            if numbers.is_empty() {
                self.lists.extend(self.by_key.remove(&place.hash));
            }
        }
        self.weigh();
    }
}

impl Stage for Merging {
    #[inline]
    fn decide(&self, leg: &mut Leg<'_>, _now: Micros) -> Verdict {
        if !self.active {
            return Verdict::Next;
        }
        self.choose(leg)
    }

    #[inline]
    fn observe(&mut self, event: &Event<'_>, _now: Micros, _notices: &mut Notices) {
        if let Event::Left(line) = event
            && !self.fresh.is_empty()
        {
            let places = &mut self.places;
            self.fresh.retain(|&(of, number)| {
                if of == *line
                    && let Some(place) = places.get_mut(number as usize)
                {
                    place.left = true;
                }
                of != *line
            });
        }
    }

    fn explain(&self, leg: &Leg<'_>, verdict: Verdict, _now: Micros) -> String {
        match verdict {
            Verdict::Next if self.merge == Merge::Off => "off".into(),
            Verdict::Next if !leg.can_be_shared() => "not a read that can be shared".into(),
            Verdict::Next if !(self.every || self.hot.contains(&key_hash(self.seed, leg.key))) => "not hot".into(),
            Verdict::Next => "no identical read is out".into(),
            Verdict::Behind(_) if self.is_relaxed() => "shares the reply to an identical read that is out".into(),
            Verdict::Behind(_) => "waits behind an identical read that is out".into(),
            other => other.to_string(),
        }
    }
}

impl Merging {
    fn choose(&self, leg: &Leg<'_>) -> Verdict {
        if !leg.shares || leg.spread || self.places.is_empty() || !leg.can_be_shared() {
            return Verdict::Next;
        }
        let Some((number, place)) = self.find(key_hash(self.seed, leg.key), leg) else { return Verdict::Next };
        if place.waiting.is_some() {
            return Verdict::Behind(number);
        }
        let fits = leg.after.is_none_or(|after| place.flight.number.wrapping_sub(after).cast_signed() >= 0);
        match (place.left, self.is_relaxed()) {
            (false, _) if fits => Verdict::Join(place.flight),
            (true, false) => Verdict::Behind(number),
            (true, true) if fits && !place.closed => Verdict::Behind(number),
            _ => Verdict::Next,
        }
    }
}
