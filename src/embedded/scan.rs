//! Walking over keys and fields: `KEYS`, `SCAN`, `HSCAN`, `RANDOMKEY`.
//!
//! A cursor is the number of positions not yet visited; scans go from the end to the beginning. Together with how the
//! maps remove (the last element moves into the gap) that gives Redis' promise: what is there all through a scan is seen at
//! least once.

use bytes::Bytes;

use super::commands::{Call, Outcome};
use super::number::integer;
use super::reply::{self, Refusal, Replies};
use super::value::Value;
use crate::glob;

/// How many positions a scan visits unless told.
const DEFAULT_COUNT: usize = 10;
/// After so many keys drawn whose time was up Redis gives up looking for another.
const MAX_DRAWS: usize = 100;

/// `KEYS pattern`
pub(super) fn keys(call: &mut Call<'_>) -> Outcome {
    let pattern = Pattern(Some(call.args[1]));
    let found: Vec<&[u8]> = (0..call.store.len())
        .filter_map(|position| call.store.at(position))
        .map(|(key, _)| key.as_ref())
        .filter(|key| pattern.matches(key) && !call.store.is_due(key))
        .collect();
    reply::array(call.out, found.len());
    found.iter().for_each(|key| reply::bulk(call.out, key));
    Ok(())
}

/// `SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]`
pub(super) fn scan(call: &mut Call<'_>) -> Outcome {
    let cursor = parse_cursor(call.args[1])?;
    let options = Options::parse(&call.args[2..], true)?;
    let (positions, next) = window(cursor, options.count, call.store.len());
    // Keys that match and whose time is up are dropped on the way.
    let matching: Vec<Bytes> = positions
        .rev()
        .filter_map(|position| call.store.at(position))
        .filter(|(key, _)| options.pattern.matches(key))
        .map(|(key, _)| key.clone())
        .collect();
    let found: Vec<&[u8]> = matching
        .iter()
        .filter(|key| call.store.peek(key).is_some_and(|entry| options.allows(&entry.value)))
        .map(Bytes::as_ref)
        .collect();
    reply_page(call.out, next, &found);
    Ok(())
}

/// `HSCAN key cursor [MATCH pattern] [COUNT count]`; a small hash comes whole and in order.
pub(super) fn hscan(call: &mut Call<'_>) -> Outcome {
    let cursor = parse_cursor(call.args[2])?;
    let Some(value) = call.store.read(call.args[1]) else {
        reply_page(call.out, 0, &[]);
        return Ok(());
    };
    let hash = value.hash()?;
    let options = Options::parse(&call.args[3..], false)?;
    let (positions, next) =
        if hash.is_compact() { (0..hash.len(), 0) } else { window(cursor, options.count, hash.len()) };
    let found: Vec<&[u8]> = positions
        .filter_map(|position| hash.at(position))
        .filter(|(field, _)| options.pattern.matches(field))
        .flat_map(|(field, value)| [field, value])
        .collect();
    reply_page(call.out, next, &found);
    Ok(())
}

/// `RANDOMKEY`
pub(super) fn randomkey(call: &mut Call<'_>) -> Outcome {
    for _ in 0..MAX_DRAWS {
        if call.store.len() == 0 {
            break;
        }
        let position = call.store.pick(call.store.len());
        let Some(key) = call.store.at(position).map(|(key, _)| key.clone()) else { break };
        if call.store.peek(&key).is_some() {
            reply::bulk(call.out, &key);
            return Ok(());
        }
    }
    reply::nil(call.out);
    Ok(())
}

/// A glob, or none.
struct Pattern<'a>(Option<&'a [u8]>);

impl Pattern<'_> {
    fn matches(&self, text: &[u8]) -> bool {
        self.0.is_none_or(|pattern| pattern == b"*" || glob::matches(pattern, text))
    }
}

struct Options<'a> {
    pattern: Pattern<'a>,
    count: usize,
    kind: Option<&'a [u8]>,
}

impl<'a> Options<'a> {
    fn parse(args: &[&'a [u8]], with_kind: bool) -> Result<Options<'a>, Refusal> {
        let mut options = Options { pattern: Pattern(None), count: DEFAULT_COUNT, kind: None };
        for pair in args.chunks(2) {
            let &[option, value] = pair else { return Err(Refusal::SYNTAX) };
            match option.to_ascii_uppercase().as_slice() {
                b"COUNT" => {
                    let count = integer(value)?;
                    if count < 1 {
                        return Err(Refusal::SYNTAX);
                    }
                    options.count = usize::try_from(count).unwrap_or(usize::MAX);
                }
                b"MATCH" => options.pattern = Pattern(Some(value)),
                b"TYPE" if with_kind => options.kind = Some(value),
                _ => return Err(Refusal::SYNTAX),
            }
        }
        Ok(options)
    }

    fn allows(&self, value: &Value) -> bool {
        self.kind.is_none_or(|kind| kind.eq_ignore_ascii_case(value.kind().as_bytes()))
    }
}

/// The positions a scan visits next and the cursor it goes on with.
fn window(cursor: u64, count: usize, length: usize) -> (std::ops::Range<usize>, usize) {
    let end = if cursor == 0 { length } else { usize::try_from(cursor).unwrap_or(usize::MAX).min(length) };
    let start = end.saturating_sub(count);
    (start..end, start)
}

/// A cursor as C's `strtoul` reads it: the sign is allowed and nothing at all is 0.
fn parse_cursor(text: &[u8]) -> Result<u64, Refusal> {
    const INVALID: Refusal = Refusal::text("ERR invalid cursor");
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if text.is_empty() {
        return Ok(0);
    }
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(INVALID);
    }
    let number: u64 = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(INVALID)?;
    Ok(if negative { number.wrapping_neg() } else { number })
}

fn reply_page(out: &mut Replies, next: usize, found: &[&[u8]]) {
    reply::array(out, 2);
    reply::bulk(out, next.to_string().as_bytes());
    reply::array(out, found.len());
    found.iter().for_each(|text| reply::bulk(out, text));
}
