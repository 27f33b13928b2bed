//! Merges identical reads that are about to leave on the same connection: one goes, all get its reply.
//!
//! Only what has not left yet can be joined ("next flight"), so merging is linearizable: the shard executes the read after
//! every joined request was made. Nor may it run before what the session asked for earlier and still waits for: a session with
//! open requests joins only reads that were made after them. A write to the key, of anyone on this worker, ends joining for it; a command whose keys are
//! not known ends it for all. Off by default.
//!
//! Bounded: what can be joined lives until the next flush, [`MOST`] reads at the most; further ones are sent by themselves.

use super::{AsItIs, Event, Flight, Leg, Line, Micros, Notices, Stage, Verdict, key_hash};
use crate::command::Access;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasherDefault;

/// Most reads that wait to be joined at once; bounds the memory of a burst.
const MOST: usize = 1024;
/// The stage.
pub struct Coalesce {
    enabled: bool,
    seed: u64,
    /// By the key's hash: the reads of that key which have not left.
    open: HashMap<u64, Vec<Read>, BuildHasherDefault<AsItIs>>,
    /// What to forget when a connection's outbox leaves.
    by_line: Vec<Vec<u64>>,
    count: usize,
    /// Emptied lists and buffers, to be used again.
    lists: Vec<Vec<Read>>,
    buffers: Vec<Vec<u8>>,
}

struct Read {
    wire: Vec<u8>,
    flight: Flight,
}

impl Read {
    fn is(&self, leg: &Leg<'_>) -> bool {
        self.flight.line == leg.line && self.wire == leg.wire
    }
}

impl Coalesce {
    /// For a pool with `lines` connections. `seed` keeps apps from choosing keys that collide.
    #[must_use]
    pub fn new(enabled: bool, lines: usize, seed: u64) -> Self {
        Self {
            enabled,
            seed,
            open: HashMap::default(),
            by_line: if enabled { vec![Vec::new(); lines] } else { Vec::new() },
            count: 0,
            lists: Vec::new(),
            buffers: Vec::new(),
        }
    }

    /// Reads that can be joined now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.count
    }

    fn find(&self, leg: &Leg<'_>) -> Option<Flight> {
        let reads = self.open.get(&key_hash(self.seed, leg.key))?;
        let read = reads.iter().find(|r| r.is(leg))?;
        let fits = leg.after.is_none_or(|after| read.flight.number.wrapping_sub(after).cast_signed() >= 0);
        fits.then_some(read.flight)
    }

    fn lead(&mut self, leg: &Leg<'_>, flight: Flight) {
        let hash = key_hash(self.seed, leg.key);
        let reads = match self.open.entry(hash) {
            // Whoever may share the older one may share the newer one, too.
            Entry::Occupied(reads) if reads.get().iter().any(|read| read.is(leg)) => {
                reads.into_mut().iter_mut().filter(|read| read.is(leg)).for_each(|read| read.flight = flight);
                return;
            }
            _ if self.count >= MOST => return,
            Entry::Occupied(reads) => reads.into_mut(),
            Entry::Vacant(place) => place.insert(self.lists.pop().unwrap_or_default()),
        };
        let mut wire = self.buffers.pop().unwrap_or_default();
        wire.extend_from_slice(leg.wire);
        reads.push(Read { wire, flight });
        self.count = self.count.saturating_add(1);
        // Connections of another protocol or database come when they are first used.
        if self.by_line.len() <= flight.line as usize {
            self.by_line.resize_with((flight.line as usize).saturating_add(1), Vec::new);
        }
        if let Some(line) = self.by_line.get_mut(flight.line as usize) {
            line.push(hash);
        }
    }

    fn forget(&mut self, hash: u64, line: Option<Line>) {
        let Entry::Occupied(mut reads) = self.open.entry(hash) else { return };
        let before = reads.get().len();
        let buffers = &mut self.buffers;
        reads.get_mut().retain_mut(|read| {
            let stays = line.is_some_and(|line| read.flight.line != line);
            if !stays {
                let mut wire = std::mem::take(&mut read.wire);
                wire.clear();
                buffers.push(wire);
            }
            stays
        });
        let gone = before.saturating_sub(reads.get().len());
        debug_assert!(gone <= self.count, "more reads forgotten than were kept");
        self.count = self.count.saturating_sub(gone);
        if reads.get().is_empty() {
            self.lists.push(reads.remove());
        }
    }
}

impl Stage for Coalesce {
    #[inline]
    fn decide(&self, leg: &mut Leg<'_>, _now: Micros) -> Verdict {
        if !self.enabled || !leg.can_be_shared() {
            return Verdict::Next;
        }
        self.find(leg).map_or(Verdict::Next, Verdict::Join)
    }

    #[inline]
    fn observe(&mut self, event: &Event<'_>, _now: Micros, _notices: &mut Notices) {
        if !self.enabled {
            return;
        }
        match event {
            Event::Sent(leg, flight) if leg.can_be_shared() => self.lead(leg, *flight),
            Event::Sent(leg, _) if leg.spec.access != Access::Read => {
                if leg.key.is_empty() {
                    for line in 0..self.by_line.len() as Line {
                        self.left(line);
                    }
                } else {
                    self.forget(key_hash(self.seed, leg.key), None);
                }
            }
            Event::Left(line) | Event::Failed(line, _) => self.left(*line),
            _ => {}
        }
    }

    fn explain(&self, leg: &Leg<'_>, verdict: Verdict, _now: Micros) -> String {
        match verdict {
            Verdict::Next if !self.enabled => "off".into(),
            Verdict::Next if !leg.can_be_shared() => "not a read that can be shared".into(),
            Verdict::Next => "no identical read is about to leave".into(),
            other => other.to_string(),
        }
    }
}

impl Coalesce {
    fn left(&mut self, line: Line) {
        let Some(place) = self.by_line.get_mut(line as usize) else { return };
        let mut hashes = std::mem::take(place);
        for hash in hashes.drain(..) {
            self.forget(hash, Some(line));
        }
        if let Some(place) = self.by_line.get_mut(line as usize) {
            *place = hashes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::LONGEST_SHARED as LONGEST;
    use super::*;
    use crate::command::lookup;

    struct Bench {
        stage: Coalesce,
        serial: u64,
    }

    impl Bench {
        fn new() -> Self {
            Self { stage: Coalesce::new(true, 4, 7), serial: 0 }
        }

        /// Asks what becomes of a request and tells the stage that it did.
        fn ask(&mut self, words: &[&str], line: Line) -> Verdict {
            self.ask_after(words, line, None)
        }

        /// The same for a session that waits for the reply to request `after`.
        fn ask_after(&mut self, words: &[&str], line: Line, after: Option<u32>) -> Verdict {
            let mut wire = Vec::new();
            let args: Vec<&[u8]> = words.iter().map(|w| w.as_bytes()).collect();
            crate::resp::write::request(&mut wire, &args);
            let key = args.get(1).copied().unwrap_or_default();
            let mut leg = Leg { line, after, ..Leg::new(lookup(args[0]).unwrap(), key, &wire) };
            let verdict = self.stage.decide(&mut leg, 0);
            let mut notices = Notices::default();
            match verdict {
                Verdict::Next => {
                    let flight = Flight { line, serial: self.serial, number: self.serial as u32 };
                    self.serial += 1;
                    self.stage.observe(&Event::Sent(&leg, flight), 0, &mut notices);
                }
                Verdict::Join(flight) => self.stage.observe(&Event::Joined(&leg, flight), 0, &mut notices),
                Verdict::Near | Verdict::Behind(_) | Verdict::Refuse(_) => {}
            }
            verdict
        }

        fn left(&mut self, line: Line) {
            self.stage.observe(&Event::Left(line), 0, &mut Notices::default());
        }
    }

    #[test]
    fn joins_the_same_read_on_the_same_connection() {
        let mut b = Bench::new();
        assert_eq!(b.ask(&["GET", "k"], 0), Verdict::Next);
        assert_eq!(b.ask(&["GET", "k"], 0), Verdict::Join(Flight { line: 0, serial: 0, number: 0 }));
        assert_eq!(b.ask(&["GET", "k"], 1), Verdict::Next, "another connection may overtake");
        assert_eq!(b.ask(&["STRLEN", "k"], 0), Verdict::Next, "another read");
        assert_eq!(b.ask(&["GET", "other"], 0), Verdict::Next);
    }

    #[test]
    fn a_session_joins_nothing_older_than_what_it_waits_for() {
        let mut b = Bench::new();
        b.ask(&["GET", "k"], 0);
        b.ask(&["GET", "other"], 0);
        assert_eq!(b.ask_after(&["GET", "k"], 0, Some(1)), Verdict::Next);
        let newer = Verdict::Join(Flight { line: 0, serial: 2, number: 2 });
        assert_eq!(b.ask_after(&["GET", "k"], 0, Some(2)), newer, "its own");
        assert_eq!(b.ask(&["GET", "k"], 0), newer);
        assert_eq!(b.stage.waiting(), 2, "the older one is forgotten");
    }

    #[test]
    fn nothing_joins_what_has_left() {
        let mut b = Bench::new();
        b.ask(&["GET", "k"], 0);
        b.left(0);
        assert_eq!(b.ask(&["GET", "k"], 0), Verdict::Next);
        assert_eq!(b.ask(&["GET", "k"], 0), Verdict::Join(Flight { line: 0, serial: 1, number: 1 }));
    }

    #[test]
    fn a_write_ends_joining() {
        let mut b = Bench::new();
        b.ask(&["GET", "k"], 0);
        b.ask(&["SET", "k", "v"], 0);
        assert_eq!(b.ask(&["GET", "k"], 0), Verdict::Next);
        assert_eq!(b.ask(&["SET", "other", "v"], 0), Verdict::Next);
        assert!(matches!(b.ask(&["GET", "k"], 0), Verdict::Join(_)), "a write to another key does not");
    }

    #[test]
    fn writes_and_chance_are_never_joined() {
        let mut b = Bench::new();
        for words in [&["INCR", "k"][..], &["SET", "k", "v"], &["SRANDMEMBER", "k"], &["GETEX", "k"]] {
            assert_eq!(b.ask(words, 0), Verdict::Next);
            assert_eq!(b.ask(words, 0), Verdict::Next, "{words:?}");
        }
    }

    #[test]
    fn what_waits_is_bounded_and_let_go() {
        let mut b = Bench::new();
        for i in 0..2 * MOST {
            b.ask(&["GET", &i.to_string()], 0);
        }
        assert_eq!(b.stage.count, MOST);
        b.left(0);
        assert_eq!((b.stage.count, b.stage.open.len()), (0, 0));
    }

    #[test]
    fn long_reads_are_not_kept() {
        let mut b = Bench::new();
        let key = "k".repeat(LONGEST);
        assert_eq!(b.ask(&["GET", &key], 0), Verdict::Next);
        assert_eq!(b.ask(&["GET", &key], 0), Verdict::Next);
        assert_eq!(b.stage.waiting(), 0);
    }

    #[test]
    fn off_means_off() {
        let mut b = Bench { stage: Coalesce::new(false, 4, 7), serial: 0 };
        b.ask(&["GET", "k"], 0);
        assert_eq!(b.ask(&["GET", "k"], 0), Verdict::Next);
    }
}
