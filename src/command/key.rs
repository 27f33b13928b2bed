//! Where the keys of a request are, and what is wrong with it where that cannot be told.
//!
//! Promises: indexes in rising order, none when the answer is an error, no key walked twice: a request of n arguments
//! costs O(n), one of [`Keys::One`] nothing. Errors are worded as Redis words them.
//! Does not: look for errors beyond what hides the keys; the server finds those.

use super::{Access, Keys, Need, Spec, Treatment, Unless, Why};
use crate::resp::Request;

const NOT_INTEGER: &str = "ERR value is not an integer or out of range";
const NEGATIVE: &str = "ERR Number of keys can't be negative";
const TOO_MANY: &str = "ERR Number of keys can't be greater than number of args";
const NOT_POSITIVE: &str = "ERR numkeys should be greater than 0";
const SYNTAX: &str = "ERR syntax error";

/// Keys that follow their number.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    /// The index of the number; the first key follows it.
    pub at: u8,
    /// Whether argument 1 is a key too, the one stored to.
    pub stores: bool,
    /// The number's limits, in words.
    pub words: Words,
}

/// What a command says of a wrong number of keys.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    least: i64,
    not_integer: &'static str,
    too_few: &'static str,
    too_many: &'static str,
}

/// Calls with the index of each key, as [`keys`] does.
type Find = fn(&Request<'_>, &mut dyn FnMut(usize)) -> Result<(), &'static str>;

/// Keys found by a function of the arguments.
#[derive(Clone, Copy, Debug)]
pub struct Movable {
    /// The index of the key that is always there.
    pub first: u8,
    find: Find,
}

/// EVAL and EVALSHA: no keys are fine.
pub(super) const SCRIPT: Keys = Keys::Counted(Counted {
    at: 2,
    stores: false,
    words: Words { least: 0, not_integer: NOT_INTEGER, too_few: NEGATIVE, too_many: TOO_MANY },
});
/// FCALL, which has words of its own.
pub(super) const FUNCTION: Keys = Keys::Counted(Counted {
    at: 2,
    stores: false,
    words: Words { least: 0, not_integer: "ERR Bad number of keys provided", too_few: NEGATIVE, too_many: TOO_MANY },
});
/// SINTERCARD.
pub(super) const CARDINALITY: Keys = Keys::Counted(Counted {
    at: 1,
    stores: false,
    words: Words { least: 1, not_integer: NOT_POSITIVE, too_few: NOT_POSITIVE, too_many: TOO_MANY },
});
/// XREAD.
pub(super) const STREAMS: Keys = Keys::Streams { group: false };
/// XREADGROUP.
pub(super) const GROUP_STREAMS: Keys = Keys::Streams { group: true };
/// SORT.
pub(super) const SORT: Keys = Keys::Movable(Movable { first: 1, find: sort });
/// SORT_RO, which has no STORE.
pub(super) const SORT_RO: Keys = Keys::Movable(Movable { first: 1, find: first_only });
/// GEORADIUS, whose options begin at argument 6.
pub(super) const GEORADIUS: Keys = Keys::Movable(Movable { first: 1, find: |request, f| georadius(request, 6, f) });
/// GEORADIUSBYMEMBER, whose options begin at argument 5.
pub(super) const GEORADIUSBYMEMBER: Keys =
    Keys::Movable(Movable { first: 1, find: |request, f| georadius(request, 5, f) });
/// MIGRATE.
pub(super) const MIGRATE: Keys = Keys::Movable(Movable { first: 3, find: migrate });

/// LMPOP, ZMPOP (the number at 1) and their blocking kin (at 2).
pub(super) const fn pop(at: u8) -> Keys {
    let words = Words { least: 1, not_integer: NOT_POSITIVE, too_few: NOT_POSITIVE, too_many: SYNTAX };
    Keys::Counted(Counted { at, stores: false, words })
}

/// The set operations on sorted sets; `none` is what they say of no keys, which has their name.
pub(super) const fn operation(stores: bool, none: &'static str) -> Keys {
    let words = Words { least: 1, not_integer: NOT_INTEGER, too_few: none, too_many: SYNTAX };
    Keys::Counted(Counted { at: if stores { 2 } else { 1 }, stores, words })
}

/// XREAD with BLOCK waits.
pub(super) const NOT_BLOCKING: Unless =
    Unless { words: "with BLOCK on a connection of the app's own", treats: |request| blocks(request, false) };
/// XREADGROUP with BLOCK waits.
pub(super) const GROUP_NOT_BLOCKING: Unless =
    Unless { words: "with BLOCK on a connection of the app's own", treats: |request| blocks(request, true) };
/// Refuses SORT with patterns: the keys they stand for are known to no one but the shard that does not have them.
pub(super) const NO_PATTERN: Unless = Unless {
    words: "refused with a BY or GET pattern that names other keys",
    treats: |r| sort_pattern(r).map(Treatment::Refuse),
};
/// Refuses MOVE where there is one database.
pub(super) const OTHER_DATABASE: Unless =
    Unless { words: "refused where a pool has one database", treats: |_| Some(Treatment::Refuse(Why::Database)) };
/// Refuses COPY to another database where there is one.
pub(super) const SAME_DATABASE: Unless = Unless {
    words: "refused with a DB other than 0 where a pool has one database",
    treats: |r| copy_database(r).map(Treatment::Refuse),
};

/// Calls `f` with the index of each key among the arguments (the name is 0), in rising order. An error is a text for the
/// app, without the `-` before and the line break after it; then `f` was not called. A container's spec is as good as
/// its subcommand's. Channels of sharded publish and subscribe count as keys: they are placed as keys are.
pub fn keys(spec: &Spec, request: &Request<'_>, f: &mut dyn FnMut(usize)) -> Result<(), &'static str> {
    match spec.leaf(request).keys {
        Keys::One => {
            if request.argc() > 1 {
                f(1);
            }
            Ok(())
        }
        Keys::None => Ok(()),
        Keys::Range { first, last, step } => range(spec, request.argc(), (first, last, step), f),
        Keys::Counted(counted) => counted.find(request, f),
        Keys::Streams { group } => {
            let streams = streams(request, group)?;
            (streams.first..streams.first + streams.count).for_each(f);
            Ok(())
        }
        Keys::Movable(movable) => (movable.find)(request, f),
    }
}

/// Like [`keys`], with the key itself beside its index; the arguments are walked once, however many keys there are.
pub fn each_key<'a>(
    spec: &Spec,
    request: &Request<'a>,
    f: &mut dyn FnMut(usize, &'a [u8]),
) -> Result<(), &'static str> {
    let mut args = request.args();
    let mut next = 0;
    keys(spec, request, &mut |at| {
        if let Some(key) = args.nth(at - next) {
            f(at, key);
        }
        next = at + 1;
    })
}

fn range(
    spec: &Spec,
    argc: usize,
    (first, last, step): (u8, i16, u8),
    f: &mut dyn FnMut(usize),
) -> Result<(), &'static str> {
    let step = usize::from(step);
    if step == 2 && argc.is_multiple_of(2) {
        // A key without a value.
        return Err(if spec.name == "mset" {
            "ERR wrong number of arguments for 'mset' command"
        } else {
            "ERR wrong number of arguments for 'msetnx' command"
        });
    }
    let end = match usize::try_from(last) {
        Ok(last) => (last + 1).min(argc),
        Err(_) => (argc + 1).saturating_sub(last.unsigned_abs().into()),
    };
    (usize::from(first)..end).step_by(step.max(1)).for_each(f);
    Ok(())
}

impl Counted {
    fn find(&self, request: &Request<'_>, f: &mut dyn FnMut(usize)) -> Result<(), &'static str> {
        let at = usize::from(self.at);
        let Some(number) = request.arg(at) else { return Ok(()) };
        let number = integer(number).ok_or(self.words.not_integer)?;
        if number < self.words.least {
            return Err(self.words.too_few);
        }
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        if number > request.argc() - at - 1 {
            return Err(self.words.too_many);
        }
        if self.stores {
            f(1);
        }
        (at + 1..=at + number).for_each(f);
        Ok(())
    }
}

/// What the options of XREAD and XREADGROUP say.
struct Streams {
    /// The first key's index.
    first: usize,
    count: usize,
    blocking: bool,
}

fn streams(request: &Request<'_>, group: bool) -> Result<Streams, &'static str> {
    let mut args = request.args().enumerate().skip(1);
    let (mut blocking, mut grouped) = (false, false);
    while let Some((at, option)) = args.next() {
        let more = request.argc() - at - 1;
        if is(option, "STREAMS") && more > 0 {
            if !more.is_multiple_of(2) {
                // Redis says this of XREADGROUP too.
                return Err(
                    "ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified.",
                );
            }
            if group && !grouped {
                return Err("ERR Missing GROUP option for XREADGROUP");
            }
            return Ok(Streams { first: at + 1, count: more / 2, blocking });
        } else if is(option, "COUNT") && more > 0 {
            args.next();
        } else if is(option, "BLOCK") && more > 0 {
            blocking = true;
            args.next();
        } else if is(option, "GROUP") && more > 1 {
            if !group {
                return Err("ERR The GROUP option is only supported by XREADGROUP. You called XREAD instead.");
            }
            grouped = true;
            args.nth(1);
        } else if is(option, "NOACK") {
            if !group {
                return Err("ERR The NOACK option is only supported by XREADGROUP. You called XREAD instead.");
            }
        } else {
            return Err(SYNTAX);
        }
    }
    Err(SYNTAX)
}

fn blocks(request: &Request<'_>, group: bool) -> Option<Treatment> {
    streams(request, group).is_ok_and(|streams| streams.blocking).then_some(Treatment::Own(Need::Blocking))
}

fn first_only(request: &Request<'_>, f: &mut dyn FnMut(usize)) -> Result<(), &'static str> {
    if request.argc() > 1 {
        f(1);
    }
    Ok(())
}

/// The key, and the last STORE's: the only one Redis writes to.
fn sort(request: &Request<'_>, f: &mut dyn FnMut(usize)) -> Result<(), &'static str> {
    first_only(request, f)?;
    let mut stored = None;
    sort_options(request, |option, at, _| {
        if is(option, "STORE") {
            stored = Some(at);
        }
    });
    stored.into_iter().for_each(f);
    Ok(())
}

fn sort_pattern(request: &Request<'_>) -> Option<Why> {
    let mut found = None;
    sort_options(request, |option, _, value| {
        // Without a star it names nothing: Redis then does not sort, or gives nil.
        if (is(option, "BY") || is(option, "GET")) && value.contains(&b'*') {
            found = Some(Why::Pattern);
        }
    });
    found
}

/// Calls `f` with each option of SORT that has a value, the value's index, and the value.
fn sort_options(request: &Request<'_>, mut f: impl FnMut(&[u8], usize, &[u8])) {
    let mut args = request.args().enumerate().skip(2);
    while let Some((_, option)) = args.next() {
        if is(option, "LIMIT") {
            args.nth(1);
        } else if (is(option, "BY") || is(option, "GET") || is(option, "STORE"))
            && let Some((at, value)) = args.next()
        {
            f(option, at, value);
        }
    }
}

/// The key, and that of the last STORE or STOREDIST: the only one Redis writes to.
fn georadius(request: &Request<'_>, options: usize, f: &mut dyn FnMut(usize)) -> Result<(), &'static str> {
    first_only(request, f)?;
    let mut args = request.args().enumerate().skip(options);
    let mut stored = None;
    while let Some((_, option)) = args.next() {
        if is(option, "STORE") || is(option, "STOREDIST") {
            stored = args.next().map(|(at, _)| at).or(stored);
        }
    }
    stored.into_iter().for_each(f);
    Ok(())
}

/// Argument 3, or, when that is empty, all that follows KEYS.
fn migrate(request: &Request<'_>, f: &mut dyn FnMut(usize)) -> Result<(), &'static str> {
    let Some(key) = request.arg(3) else { return Ok(()) };
    let mut args = request.args().enumerate().skip(6);
    while let Some((at, option)) = args.next() {
        if is(option, "KEYS") && at + 1 < request.argc() {
            if !key.is_empty() {
                return Err("ERR When using MIGRATE KEYS option, the key argument must be set to the empty string");
            }
            (at + 1..request.argc()).for_each(f);
            return Ok(());
        } else if is(option, "AUTH") {
            args.next();
        } else if is(option, "AUTH2") {
            args.nth(1);
        }
    }
    f(3);
    Ok(())
}

fn copy_database(request: &Request<'_>) -> Option<Why> {
    let mut args = request.args().skip(3);
    while let Some(option) = args.next() {
        if is(option, "DB") && args.next().is_some_and(|database| database != b"0") {
            return Some(Why::Database);
        }
    }
    None
}

fn is(argument: &[u8], word: &str) -> bool {
    argument.eq_ignore_ascii_case(word.as_bytes())
}

/// An integer as strictly as Redis reads one: no sign but a minus, no zero in front, no space.
pub fn integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let first = *digits.first()?;
    let plain = first.is_ascii_digit() && (first != b'0' || text == b"0");
    if plain { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

impl Spec {
    /// Whether a request of this command can be told to be about keys at all.
    pub fn has_keys(&self) -> bool {
        self.access != Access::Neither && !matches!(self.keys, Keys::None)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{wire, words};
    use super::super::{identify, lookup};
    use super::*;

    fn found(line: &str) -> Result<Vec<usize>, &'static str> {
        let wire = words(line);
        let request = Request::parse(&wire).expect("a request");
        let mut indexes = Vec::new();
        keys(identify(&request).expect("a known command"), &request, &mut |at| indexes.push(at))?;
        Ok(indexes)
    }

    #[test]
    fn keys_are_found_wherever_they_are() {
        for (line, expected) in [
            ("PING", &[] as &[usize]),
            ("GET k", &[1]),
            ("MGET a b c", &[1, 2, 3]),
            ("MSET a 1 b 2", &[1, 3]),
            ("LCS a b LEN", &[1, 2]),
            ("BITOP AND d a b", &[2, 3, 4]),
            ("BLPOP a b 0", &[1, 2]),
            ("ZUNIONSTORE d 2 a b WEIGHTS 1 2", &[1, 3, 4]),
            ("EVAL x 0 a", &[]),
            ("EVALSHA x 2 a b c", &[3, 4]),
            ("XREAD COUNT 2 STREAMS a b 0 0", &[4, 5]),
            ("XREADGROUP GROUP g streams STREAMS streams >", &[5]),
            ("SORT k BY store GET store STORE a STORE b", &[1, 9]),
            ("SORT k STORE store GET #", &[1, 3]),
            ("SORT_RO k STORE a", &[1]),
            ("GEORADIUS k 1 2 3 m STORE a STOREDIST b", &[1, 9]),
            ("GEORADIUSBYMEMBER k store 3 m STORE a", &[1, 6]),
            ("MIGRATE h 1 k 0 5 AUTH keys", &[3]),
            ("MEMORY USAGE k SAMPLES 5", &[2]),
            ("SUNSUBSCRIBE", &[]),
        ] {
            assert_eq!(found(line).as_deref(), Ok(expected), "{line}");
        }
    }

    #[test]
    fn numbers_are_read_as_strictly_as_redis_reads_them() {
        for wrong in ["", "-", "+1", " 1", "1 ", "01", "-0", "-01", "1x", "9223372036854775808"] {
            assert_eq!(integer(wrong.as_bytes()), None, "{wrong:?}");
        }
        assert_eq!(integer(b"0"), Some(0));
        assert_eq!(integer(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(found("EVAL x 9223372036854775807 a"), Err(TOO_MANY));
        assert_eq!(found("EVAL x -9223372036854775808 a"), Err(NEGATIVE));
    }

    #[test]
    fn an_error_comes_before_any_key() {
        let wire = words("MSET a 1 b");
        let request = Request::parse(&wire).expect("a request");
        let mset = lookup(b"mset").expect("a command");
        let outcome = keys(mset, &request, &mut |_| panic!("a key of a malformed request"));
        assert_eq!(outcome, Err("ERR wrong number of arguments for 'mset' command"));
    }

    #[test]
    fn keys_come_with_their_bytes_in_one_walk() {
        let wire = wire(&[b"ZUNIONSTORE" as &[u8], b"d", b"2", b"a\r\n", b"", b"WEIGHTS", b"1", b"2"]);
        let request = Request::parse(&wire).expect("a request");
        let mut seen = Vec::new();
        each_key(lookup(b"zunionstore").expect("a command"), &request, &mut |at, key| seen.push((at, key)))
            .expect("well formed");
        assert_eq!(seen, [(1, b"d" as &[u8]), (3, b"a\r\n"), (4, b"")]);
    }

    #[test]
    fn no_request_however_short_is_a_panic() {
        for spec in super::super::all() {
            for spec in std::iter::once(spec).chain(spec.subcommands) {
                for length in 1..10 {
                    let mut args: Vec<&str> = spec.name.split('|').collect();
                    args.resize(length, "STORE");
                    let wire = wire(&args);
                    let request = Request::parse(&wire).expect("a request");
                    let mut last = 0;
                    let _ = keys(spec, &request, &mut |at| {
                        assert!(at > last && at < length, "{} {at}", spec.name);
                        last = at;
                    });
                }
            }
        }
    }
}
