//! Whether a mirror answers as the pool itself does (`compare`).
//!
//! Of a read that is mirrored both replies are digested as they come; where they differ both sides are asked again, a few times
//! over more than a second, and only what differs each time is *confirmed*. A write that comes between the two halves of a
//! comparison makes them differ: by the next look that is over. Writes through this worker are noted, and a look they fall
//! into is repeated in place of being counted.
//!
//! Bounded: [`MOST`] comparisons a worker, each for [`LATE`] at most without an answer; requests of [`LONGEST`] bytes. Beyond, what is mirrored is not compared.

#![expect(clippy::arithmetic_side_effects, reason = "counters and times")]

use crate::command;
use crate::engine::port::Port;
use crate::engine::watched::Why;
use crate::engine::{Engine, SessionId};
use crate::metrics::{Compared, PoolCounts};
use crate::resp::Request;
use crate::stages::Micros;
use crate::stages::mirror::{Order, digest};
use slab::Slab;
use std::hash::{DefaultHasher, Hasher};

/// Comparisons under way.
const MOST: usize = 4096;
/// Longer requests are not compared, in bytes.
const LONGEST: usize = 4096;
/// How long both replies are waited for, in microseconds.
const LATE: Micros = 10_000_000;
/// After how long both sides are asked again, in microseconds, each time that they have differed.
const AGAIN: [Micros; 3] = [100_000, 300_000, 1_000_000];
/// Looks that writes have fallen into, beyond which nothing is said of the key.
const MOST_LOOKS: u8 = 10;
/// Places for notes of writes; keys share them.
const PLACES: usize = 4096;
/// Names of keys kept for the log.
const NAMES: usize = 16;

/// Which of two replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The pool's own.
    Own = 0,
    /// The mirror's.
    Mirror = 1,
}

impl Side {
    /// As it stands in the lowest bit.
    pub(super) fn of(bits: u32) -> Self {
        if bits & 1 == 0 { Self::Own } else { Self::Mirror }
    }
}

/// A key for which a mirror does not answer as its pool does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The key.
    pub key: Box<[u8]>,
    /// The command that was answered differently.
    pub command: &'static str,
}

struct Comparison {
    /// Never the same twice while anything may be told of it.
    number: u32,
    pool: u16,
    order: Order,
    key: Box<[u8]>,
    wire: Box<[u8]>,
    /// What was told of each side: nothing yet; something that says nothing; a digest.
    told: [Option<Option<u64>>; 2],
    /// When both are asked again; `None` while they are being asked.
    due: Option<Micros>,
    since: Micros,
    /// How often both were asked again undisturbed, and at all.
    again: u8,
    looks: u8,
    /// What was noted of writes of its key as it began.
    written: u32,
}

/// All comparisons of a worker.
#[derive(Default)]
pub(in crate::engine) struct Mirrors {
    comparisons: Slab<Comparison>,
    numbers: u32,
    /// By the hash of a key, how often such a key was written.
    written: Vec<u32>,
    confirmed: Vec<(u16, Mismatch)>,
    /// Kept so that choosing allocates nothing.
    pub(super) chosen: Vec<bool>,
}

fn place_of(key: &[u8]) -> usize {
    let mut hasher = DefaultHasher::new();
    hasher.write(key);
    hasher.finish() as usize % PLACES
}

impl Mirrors {
    /// Comparisons under way.
    pub(in crate::engine) fn len(&self) -> usize {
        self.comparisons.len()
    }

    /// A key is written.
    pub(super) fn is_written(&mut self, key: &[u8]) {
        // Nothing is compared yet where there are none.
        if let Some(place) = self.written.get_mut(place_of(key)) {
            *place = place.wrapping_add(1);
        }
    }

    fn writes_of(&self, key: &[u8]) -> u32 {
        self.written.get(place_of(key)).copied().unwrap_or(0)
    }

    fn begin(&mut self, pool: u16, (key, order): (&[u8], Order), wire: &[u8], now: Micros) -> Option<(u32, u32)> {
        if self.comparisons.len() >= MOST || wire.len() > LONGEST {
            return None;
        }
        if self.written.is_empty() {
            self.written = vec![0; PLACES];
        }
        self.numbers = self.numbers.wrapping_add(1);
        let comparison = Comparison {
            number: self.numbers,
            pool,
            order,
            key: key.into(),
            wire: wire.into(),
            told: [None; 2],
            due: None,
            since: now,
            again: 0,
            looks: 0,
            written: self.writes_of(key),
        };
        Some((self.comparisons.insert(comparison) as u32, self.numbers))
    }

    /// One of the replies came; `None` if there will be none.
    pub(super) fn told(
        &mut self,
        (link, number): (u32, u32),
        side: Side,
        reply: Option<&[u8]>,
        (counts, now): (&mut PoolCounts, Micros),
    ) {
        let found = self.comparisons.get_mut(link as usize).filter(|comparison| comparison.number == number);
        let Some(comparison) = found.filter(|comparison| comparison.due.is_none()) else { return };
        let Some(place) = comparison.told.get_mut(side as usize) else { return };
        *place = Some(reply.and_then(|reply| digest(reply, comparison.order)));
        let [Some(own), Some(mirror)] = comparison.told else { return };
        let first = comparison.looks == 0;
        let (Some(own), Some(mirror)) = (own, mirror) else {
            counts.mirror_compared[Compared::Unknown] += u64::from(first);
            counts.mirror_comparing -= 1;
            self.comparisons.remove(link as usize);
            return;
        };
        if own == mirror {
            counts.mirror_compared[Compared::Equal] += u64::from(first);
            counts.mirror_comparing -= 1;
            self.comparisons.remove(link as usize);
            return;
        }
        counts.mirror_compared[Compared::Different] += u64::from(first);
        let (key, written) = (comparison.key.clone(), comparison.written);
        let undisturbed = self.writes_of(&key) == written;
        let Some(comparison) = self.comparisons.get_mut(link as usize) else { return };
        comparison.again += u8::from(undisturbed && !first);
        comparison.looks = comparison.looks.saturating_add(1);
        match AGAIN.get(usize::from(comparison.again)) {
            Some(wait) if comparison.looks <= MOST_LOOKS => {
                comparison.due = Some(now.saturating_add(*wait));
                comparison.told = [None; 2];
            }
            Some(_) => {
                counts.mirror_comparing -= 1;
                self.comparisons.remove(link as usize);
            }
            None => {
                counts.mirror_confirmed += 1;
                counts.mirror_comparing -= 1;
                let Comparison { pool, key, wire, .. } = self.comparisons.remove(link as usize);
                let command = Request::parse(&wire).and_then(|request| command::identify(&request).ok());
                if self.confirmed.len() < NAMES {
                    let command = command.map_or("", |spec| spec.name);
                    self.confirmed.push((pool, Mismatch { key, command }));
                }
            }
        }
    }
}

impl Engine {
    /// Begins to compare the reply to a session's next request with that of its copy. Returns by what it is known.
    pub(super) fn compare_with_mirror(
        &mut self,
        id: SessionId,
        (key, order): (&[u8], Order),
        request: &Request<'_>,
    ) -> Option<(u32, u32)> {
        let session = self.sessions.get_mut(id as usize)?;
        let (number, slot) = (session.pool, session.next_slot());
        let Some(known) = self.mirrors.begin(number, (key, order), request.wire(), self.now) else {
            if let Some(pool) = self.pools.get_mut(usize::from(number)) {
                pool.counts.mirror_compared[Compared::Unknown] += 1;
            }
            return None;
        };
        if let Some(pool) = self.pools.get_mut(usize::from(number)) {
            pool.counts.mirror_comparing += 1;
        }
        self.watched.watch(session, id, slot, Why::Compare(known.0, known.1));
        Some(known)
    }

    /// Upkeep: asks both sides again where they differed, and gives up what nobody tells anything of.
    pub(in crate::engine) fn look_after_mirrors(&mut self, port: &mut impl Port) {
        if self.mirrors.comparisons.is_empty() {
            return;
        }
        let now = self.now;
        let (mut due, mut late) = (Vec::new(), Vec::new());
        for (link, comparison) in &self.mirrors.comparisons {
            match comparison.due {
                Some(at) if at <= now => due.push(link),
                None if now.saturating_sub(comparison.since) >= LATE => late.push(link),
                _ => {}
            }
        }
        for link in late {
            self.end_comparison(link);
        }
        for link in due {
            if self.compare_again(link, port).is_none() {
                self.end_comparison(link);
            }
        }
    }

    fn end_comparison(&mut self, link: usize) {
        let Some(comparison) = self.mirrors.comparisons.try_remove(link) else { return };
        if let Some(pool) = self.pools.get_mut(usize::from(comparison.pool)) {
            pool.counts.mirror_comparing -= 1;
            pool.counts.mirror_compared[Compared::Unknown] += u64::from(comparison.looks == 0);
        }
    }

    fn compare_again(&mut self, link: usize, port: &mut impl Port) -> Option<()> {
        let now = self.now;
        let comparison = self.mirrors.comparisons.get(link)?;
        let (pool, number, key) = (comparison.pool, comparison.number, comparison.key.clone());
        let wire = comparison.wire.clone();
        let request = Request::parse(&wire)?;
        let spec = command::identify(&request).ok()?;
        let to = self.mirror_of(pool).ok()?;
        let (own, _) = self.mirror_home(pool, spec, &key, &request).ok()?;
        let (mirror, _) = self.mirror_home(to, spec, &key, &request).ok()?;
        let written = self.mirrors.writes_of(&key);
        let comparison = self.mirrors.comparisons.get_mut(link)?;
        (comparison.due, comparison.since, comparison.written) = (None, now, written);
        let known = Some((link as u32, number));
        self.send_looked_at((pool, Side::Own), own, &wire, spec, known, port);
        self.send_looked_at((pool, Side::Mirror), mirror, &wire, spec, known, port);
        Some(())
    }

    /// Keys of a pool for which its mirror surely answers otherwise, of those found since the last time; some of them, if
    /// they are many.
    pub fn take_mismatches(&mut self, pool: u16) -> Vec<Mismatch> {
        let (found, rest) = std::mem::take(&mut self.mirrors.confirmed).into_iter().partition(|(of, _)| *of == pool);
        self.mirrors.confirmed = rest;
        let found: Vec<(u16, Mismatch)> = found;
        found.into_iter().map(|(_, mismatch)| mismatch).collect()
    }

    /// A comparison is told the reply that its session gets.
    pub(in crate::engine) fn own_reply(
        mirrors: &mut Mirrors,
        known: (u32, u32),
        reply: &[u8],
        told: (&mut PoolCounts, Micros),
    ) {
        mirrors.told(known, Side::Own, Some(reply), told);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(counts: &PoolCounts) -> [u64; 4] {
        let compared = |result| counts.mirror_compared[result];
        let [equal, different, unknown] = [Compared::Equal, Compared::Different, Compared::Unknown].map(compared);
        [equal, different, unknown, counts.mirror_confirmed]
    }

    fn look(mirrors: &mut Mirrors, known: (u32, u32), replies: [&[u8]; 2], counts: &mut PoolCounts) {
        mirrors.told(known, Side::Mirror, Some(replies[1]), (counts, 0));
        mirrors.told(known, Side::Own, Some(replies[0]), (counts, 0));
    }

    /// As the upkeep does.
    fn again(mirrors: &mut Mirrors, (link, _): (u32, u32)) {
        let written = mirrors.writes_of(b"k");
        let comparison = mirrors.comparisons.get_mut(link as usize).unwrap();
        assert!(comparison.due.take().is_some());
        comparison.written = written;
    }

    const WIRE: &[u8] = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
    const DIFFER: [&[u8]; 2] = [b":1\r\n", b":2\r\n"];

    fn begun(mirrors: &mut Mirrors) -> (u32, u32) {
        mirrors.begin(0, (b"k", Order::Told), WIRE, 0).unwrap()
    }

    #[test]
    fn what_differs_each_time_is_confirmed() {
        let (mut mirrors, mut counts) = (Mirrors::default(), PoolCounts::default());
        counts.mirror_comparing.set(100);
        let known = begun(&mut mirrors);
        look(&mut mirrors, known, DIFFER, &mut counts);
        for left in [3, 2, 1] {
            assert_eq!(counted(&counts), [0, 1, 0, 0], "{left} to go");
            again(&mut mirrors, known);
            look(&mut mirrors, known, DIFFER, &mut counts);
        }
        assert_eq!((counted(&counts), mirrors.len()), ([0, 1, 0, 1], 0));
        assert_eq!(mirrors.confirmed, [(0, Mismatch { key: (*b"k").into(), command: "get" })]);
    }

    #[test]
    fn what_is_right_again_is_not_nor_what_was_written_meanwhile() {
        let (mut mirrors, mut counts) = (Mirrors::default(), PoolCounts::default());
        counts.mirror_comparing.set(100);
        let known = begun(&mut mirrors);
        look(&mut mirrors, known, DIFFER, &mut counts);
        again(&mut mirrors, known);
        look(&mut mirrors, known, [b":2\r\n", b":2\r\n"], &mut counts);
        assert_eq!((counted(&counts), mirrors.len()), ([0, 1, 0, 0], 0));
        let known = begun(&mut mirrors);
        look(&mut mirrors, known, DIFFER, &mut counts);
        for _ in 0..MOST_LOOKS {
            again(&mut mirrors, known);
            mirrors.is_written(b"k");
            look(&mut mirrors, known, DIFFER, &mut counts);
        }
        assert_eq!((counted(&counts), mirrors.len()), ([0, 2, 0, 0], 0), "it is given up, and not confirmed");
    }

    #[test]
    fn what_says_nothing_is_not_compared() {
        let (mut mirrors, mut counts) = (Mirrors::default(), PoolCounts::default());
        counts.mirror_comparing.set(100);
        let known = begun(&mut mirrors);
        look(&mut mirrors, known, [b":1\r\n", b"-LOADING x\r\n"], &mut counts);
        let lost = begun(&mut mirrors);
        mirrors.told(lost, Side::Mirror, None, (&mut counts, 0));
        mirrors.told((lost.0, lost.1 + 1), Side::Own, Some(b":1\r\n"), (&mut counts, 0));
        assert_eq!(mirrors.len(), 1, "another's number is not its own");
        mirrors.told(lost, Side::Own, Some(b":1\r\n"), (&mut counts, 0));
        let same = begun(&mut mirrors);
        look(&mut mirrors, same, [b"$-1\r\n", b"_\r\n"], &mut counts);
        assert_eq!((counted(&counts), mirrors.len()), ([1, 0, 2, 0], 0));
        for _ in 0..MOST {
            begun(&mut mirrors);
        }
        assert!(mirrors.begin(0, (b"k", Order::Told), WIRE, 0).is_none(), "bounded");
    }
}
