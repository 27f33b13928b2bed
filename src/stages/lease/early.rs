//! When keys expire, as far as that is known, and whether one of them is to be loaded anew before it does.
//!
//! That is decided for each read by itself, with a chance that grows as the end comes near: of a key that is read often one
//! read fires about so early that the load is done in time (Vattani, Chierichetti, Lowenstein: "Optimal probabilistic cache
//! stampede prevention", 2015). What is known is what writes that passed here have said. It is forgotten when something else
//! than SET writes the key, or SET with NX, which is how locks are held.
//!
//! Promises: a look costs no lock; what is told of a key was said of a key with the same hash. Does not promise to know what was
//! said: 65,536 keys are remembered at most, in groups of which the one that expires last is forgotten. Nor that it is
//! still so: others may have written the key since.

use super::jitter::number;
use crate::resp::Request;
use crate::stages::Micros;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Keys that are remembered, of a pool: 1 MiB where any is.
const PLACES: usize = 1 << 16;
const GROUP: usize = 4;
/// Rules there are at most, and the pool's own.
const RULES: usize = 257;
/// A key is not loaded anew earlier than so many loads before it expires.
const LOADS: u64 = 20;

/// Instead of when a key expires: nothing is known; it does, and the shard is to be asked when; never.
const NOTHING: u64 = 0;
const SOME_TIME: u64 = 1;
const NEVER: u64 = u64::MAX;

/// When a key expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// At this time.
    At(Micros),
    /// At a time that only its shard knows.
    SomeTime,
}

/// What a write says of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// Nothing that could be relied on.
    Nothing,
    Never,
    SomeTime,
    /// In so many milliseconds.
    In(u32),
}

/// What a write says of how long its key lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    said: Said,
    /// It writes no value: it counts only if what did is known.
    moves: bool,
    /// It was not carried out if it is answered with nil or 0.
    may_fail: bool,
}

impl Life {
    /// Whatever was known counts no more.
    pub const UNKNOWN: Self = Self { said: Said::Nothing, moves: false, may_fail: false };

    /// What this write says; `None` if it changes nothing.
    #[must_use]
    pub fn of(name: &str, request: &Request<'_>) -> Option<Self> {
        let life = |said, moves, may_fail| Some(Self { said, moves, may_fail });
        let time = |at, unit| request.arg(at).map_or(Said::Nothing, |text| span(text, unit));
        match name {
            "set" => Some(Self::of_set(request)),
            "setex" => life(time(2, 1000), false, false),
            "psetex" => life(time(2, 1), false, false),
            "expire" if request.argc() == 3 => life(time(2, 1000), true, true),
            "pexpire" if request.argc() == 3 => life(time(2, 1), true, true),
            "getex" if request.argc() == 2 => None,
            "getex" if request.arg(2).is_some_and(|option| option.eq_ignore_ascii_case(b"persist")) => {
                life(Said::Never, true, true)
            }
            "expire" | "pexpire" | "expireat" | "pexpireat" | "getex" => life(Said::SomeTime, true, true),
            "persist" => life(Said::Never, true, true),
            _ => Some(Self::UNKNOWN),
        }
    }

    fn of_set(request: &Request<'_>) -> Self {
        let (mut life, mut gets, mut only_if_there) =
            (Self { said: Said::Never, moves: false, may_fail: true }, false, false);
        let mut options = request.args().skip(3);
        while let Some(option) = options.next() {
            let is = |word: &str| option.eq_ignore_ascii_case(word.as_bytes());
            if is("ex") || is("px") {
                life.said = options.next().map_or(Said::Nothing, |text| span(text, if is("ex") { 1000 } else { 1 }));
            } else if is("exat") || is("pxat") {
                options.next();
                life.said = Said::SomeTime;
            } else if is("keepttl") {
                (life.said, life.moves) = (Said::SomeTime, true);
            } else if is("get") {
                gets = true;
            } else if is("xx") {
                only_if_there = true;
            } else {
                // NX, or what is not known here.
                return Self { may_fail: is("nx") && request.argc() < 7 && !gets, ..Self::UNKNOWN };
            }
        }
        // With GET nil is what was there before.
        life.may_fail = only_if_there || !gets;
        life
    }

    /// Whether a write that was answered so has changed nothing.
    #[must_use]
    pub fn failed(self, reply: &[u8]) -> bool {
        reply.first() == Some(&b'-')
            || (self.may_fail && matches!(reply, b"$-1\r\n" | b"_\r\n" | b"*-1\r\n" | b":0\r\n"))
    }
}

/// How long a text says, in this many milliseconds.
fn span(text: &[u8], unit: u64) -> Said {
    match number(text).map(|time| u32::try_from(time.saturating_mul(unit))) {
        Some(Ok(span)) => Said::In(span),
        // The shard can still be asked when it matters.
        Some(Err(_)) => Said::SomeTime,
        None => Said::Nothing,
    }
}

/// Whether a key that lives this long is to be loaded anew, which takes as long as `fill`, as `draw` decides, a number drawn by lot.
#[must_use]
pub fn fires(fill: Micros, left: Micros, draw: u64) -> bool {
    if left >= fill.saturating_mul(LOADS) {
        return false;
    }
    // Above 0, and at most 1.
    let part = ((draw >> 11).saturating_add(1)) as f64 / (1_u64 << 53) as f64;
    -part.ln() * fill as f64 >= left as f64
}

/// The hash is kept mixed with the time, so that halves of two writes are not taken for one.
#[derive(Debug, Default)]
struct Place {
    mark: AtomicU64,
    until: AtomicU64,
}

impl Place {
    fn read(&self) -> (u64, u64) {
        let until = self.until.load(Ordering::SeqCst);
        (self.mark.load(Ordering::SeqCst) ^ until, until)
    }

    fn has(&self, hash: u64) -> Option<u64> {
        let (of, until) = self.read();
        (of == hash && until != NOTHING).then_some(until)
    }

    fn write(&self, hash: u64, until: u64) {
        self.until.store(NOTHING, Ordering::SeqCst);
        self.mark.store(hash ^ until, Ordering::SeqCst);
        self.until.store(until, Ordering::SeqCst);
    }
}

/// See the module; of one pool, over all workers.
#[derive(Debug)]
pub struct Early {
    /// How long keys of each rule take to load; 0 is not known.
    fills: Box<[AtomicU64]>,
    places: OnceLock<Box<[Place]>>,
}

impl Default for Early {
    fn default() -> Self {
        Self { fills: (0..RULES).map(|_| AtomicU64::new(0)).collect(), places: OnceLock::new() }
    }
}

impl Early {
    fn group(&self, hash: u64) -> &[Place] {
        let Some(places) = self.places.get() else { return &[] };
        let (groups, _) = places.as_chunks::<GROUP>();
        groups.get((hash >> 40) as usize & (PLACES / GROUP).saturating_sub(1)).map_or(&[], <[Place; GROUP]>::as_slice)
    }

    /// How long keys of a rule take to load, if that is known.
    #[must_use]
    pub fn fill(&self, rule: usize) -> Option<Micros> {
        self.fills.get(rule).map(|fill| fill.load(Ordering::SeqCst)).filter(|&fill| fill > 0)
    }

    pub(super) fn set_fill(&self, rule: usize, fill: Option<Micros>) {
        if let Some((place, fill)) = self.fills.get(rule).zip(fill) {
            place.store(fill.max(1), Ordering::SeqCst);
        }
    }

    /// When a key expires, if that is known and it does.
    #[must_use]
    #[inline]
    pub fn until(&self, hash: u64) -> Option<Until> {
        match self.group(hash).iter().find_map(|place| place.has(hash))? {
            NEVER => None,
            SOME_TIME => Some(Until::SomeTime),
            at => Some(Until::At(at)),
        }
    }

    /// A write was carried out that says this.
    pub fn wrote(&self, hash: u64, life: Life, now: Micros) {
        if life.moves && !self.group(hash).iter().any(|place| place.has(hash).is_some()) {
            return;
        }
        match life.said {
            Said::Nothing => self.forget(hash),
            Said::Never => self.set(hash, NEVER, now),
            Said::SomeTime => self.set(hash, SOME_TIME, now),
            Said::In(span) => self.expires(hash, now.saturating_add(u64::from(span).saturating_mul(1000)), now),
        }
    }

    /// It is known when a key expires.
    pub fn expires(&self, hash: u64, at: Micros, now: Micros) {
        self.set(hash, at.clamp(SOME_TIME.saturating_add(1), NEVER.saturating_sub(1)), now);
    }

    fn set(&self, hash: u64, until: u64, now: Micros) {
        self.places.get_or_init(|| (0..PLACES).map(|_| Place::default()).collect());
        let group = self.group(hash);
        let own = group.iter().position(|place| place.has(hash).is_some());
        // First what is of no use any more, then what will be of use last.
        let worth = |place: &Place| match place.read().1 {
            SOME_TIME => SOME_TIME,
            at if at <= now => NEVER,
            at => at,
        };
        let at = own.or_else(|| (0..group.len()).max_by_key(|&at| group.get(at).map_or(0, worth)));
        for (n, place) in group.iter().enumerate() {
            if Some(n) == at {
                place.write(hash, until);
            } else if place.has(hash).is_some() {
                place.until.store(NOTHING, Ordering::SeqCst);
            }
        }
    }

    /// Nothing is known of a key any more.
    pub fn forget(&self, hash: u64) {
        for place in self.group(hash).iter().filter(|place| place.has(hash).is_some()) {
            place.until.store(NOTHING, Ordering::SeqCst);
        }
    }

    /// The same if this is what is known; for one of those who ask at once.
    #[must_use]
    pub fn take(&self, hash: u64, until: Until) -> bool {
        let until = match until {
            Until::At(at) => at,
            Until::SomeTime => SOME_TIME,
        };
        let mut places = self.group(hash).iter().filter(|place| place.has(hash) == Some(until));
        places.any(|place| place.until.compare_exchange(until, NOTHING, Ordering::SeqCst, Ordering::SeqCst).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::splitmix;
    use crate::resp::write;

    fn life(line: &str) -> Option<Life> {
        let mut wire = Vec::new();
        write::request(&mut wire, &line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        let request = Request::parse(&wire).unwrap();
        Life::of(&String::from_utf8_lossy(request.name()).to_lowercase(), &request)
    }

    #[test]
    fn writes_say_how_long_their_key_lives() {
        let says = |said, moves, may_fail| Some(Life { said, moves, may_fail });
        for (line, life_of_it) in [
            ("SET k v", says(Said::Never, false, true)),
            ("SET k v EX 60", says(Said::In(60_000), false, true)),
            ("set k v px 1500 xx", says(Said::In(1_500), false, true)),
            ("SET k v GET EX 1", says(Said::In(1_000), false, false)),
            ("SET k v EXAT 2000000000", says(Said::SomeTime, false, true)),
            ("SET k v PXAT 2000000000000", says(Said::SomeTime, false, true)),
            ("SET k v EX 99999999999", says(Said::SomeTime, false, true)),
            ("SET k v KEEPTTL", says(Said::SomeTime, true, true)),
            ("SETEX k 60 v", says(Said::In(60_000), false, false)),
            ("PSETEX k 60 v", says(Said::In(60), false, false)),
            ("EXPIRE k 60", says(Said::In(60_000), true, true)),
            ("PEXPIRE k 60", says(Said::In(60), true, true)),
            ("EXPIRE k 60 GT", says(Said::SomeTime, true, true)),
            ("EXPIREAT k 2000000000", says(Said::SomeTime, true, true)),
            ("PERSIST k", says(Said::Never, true, true)),
            ("GETEX k", None),
            ("GETEX k EX 60", says(Said::SomeTime, true, true)),
            ("GETEX k PERSIST", says(Said::Never, true, true)),
            ("SET k v NX", says(Said::Nothing, false, true)),
            ("SET k v EX 60 NX", says(Said::Nothing, false, true)),
            ("SET k v NX EX 60 GET", Some(Life::UNKNOWN)),
            ("SET k v EX x", says(Said::Nothing, false, true)),
            ("SET k v IFEQ x", Some(Life::UNKNOWN)),
            ("SETNX k v", Some(Life::UNKNOWN)),
            ("INCR k", Some(Life::UNKNOWN)),
            ("DEL k", Some(Life::UNKNOWN)),
        ] {
            assert_eq!(life(line), life_of_it, "{line}");
        }
        let set = life("SET k v EX 60 XX").unwrap();
        assert!(set.failed(b"$-1\r\n") && set.failed(b"_\r\n") && set.failed(b"-OOM x\r\n") && !set.failed(b"+OK\r\n"));
        assert!(
            !life("SET k v EX 60 GET").unwrap().failed(b"$-1\r\n") && life("EXPIRE k 60").unwrap().failed(b":0\r\n")
        );
    }

    #[test]
    fn what_was_said_last_counts() {
        let early = Early::default();
        let wrote = |line: &str, now| early.wrote(7, life(line).unwrap(), now);
        assert_eq!(early.until(7), None);
        wrote("EXPIRE k 60", 5);
        assert_eq!(early.until(7), None, "nobody knows what wrote it");
        wrote("SET k v", 5);
        assert_eq!(early.until(7), None);
        wrote("EXPIRE k 60", 5);
        assert_eq!((early.until(7), early.until(8)), (Some(Until::At(60_000_005)), None));
        wrote("SET k v KEEPTTL", 6);
        assert_eq!(early.until(7), Some(Until::SomeTime));
        wrote("SET k v PX 1", 6);
        assert_eq!(early.until(7), Some(Until::At(1_006)));
        assert!(
            !early.take(7, Until::At(1_005)) && early.take(7, Until::At(1_006)) && !early.take(7, Until::At(1_006))
        );
        for forgets in ["INCR k", "SET k v NX EX 60", "DEL k", "PERSIST k"] {
            wrote("SET k v EX 60", 7);
            assert!(early.until(7).is_some());
            wrote(forgets, 8);
            assert_eq!(early.until(7), None, "{forgets}");
        }
        wrote("SET k v NX EX 60", 9);
        wrote("EXPIRE k 60", 9);
        assert_eq!(early.until(7), None, "a lock");
    }

    #[test]
    fn those_are_remembered_that_expire_first() {
        let early = Early::default();
        let hashes: Vec<u64> = (1..=9).collect();
        for &hash in hashes.iter().rev() {
            early.expires(hash, 1_000 + hash, 0);
        }
        let known =
            |early: &Early| hashes.iter().copied().filter(|&hash| early.until(hash).is_some()).collect::<Vec<_>>();
        assert_eq!(known(&early), [1, 2, 3, 4]);
        early.expires(9, 5_000, 1_002);
        assert_eq!(known(&early).len(), 4);
        assert!(
            early.until(9).is_some() && early.until(3).is_some() && early.until(4).is_some(),
            "what is over goes first"
        );
    }

    #[test]
    fn one_of_many_reads_fires_in_time_and_hardly_any_too_early() {
        let (fill, step, mut draw) = (100_000, 200, 0);
        let mut total = 0;
        for _ in 0..200 {
            // 5000 reads a second.
            let left = (0..20 * fill / step).rev().map(|n| n * step).find(|&left| {
                draw += 1;
                fires(fill, left, splitmix(draw))
            });
            let left = left.unwrap();
            assert!(left > fill, "{left}: it would expire while it is loaded");
            total += left;
        }
        // ln(500) loads before the end, as theory has it.
        assert!((5 * fill..9 * fill).contains(&(total / 200)), "{}", total / 200);
        assert!((0..100_000).all(|draw| !fires(fill, 20 * fill, splitmix(draw))) && fires(fill, 0, u64::MAX));
        assert!(!fires(fill, 1, u64::MAX) && fires(fill, 19 * fill, 0));
    }
}
