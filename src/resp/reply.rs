//! Finds where a shard's reply ends, without taking it apart.

use super::{Header, header};
use std::fmt;

/// How far an incomplete reply has been read, so that no element of it is looked at again.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReplyResume {
    at: usize,
    left: u64,
    started: bool,
}

/// What [`skim`] found at the front of the buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Skim {
    /// A whole reply of so many bytes.
    Reply(usize),
    /// More bytes are needed; skimming again is pointless before the buffer holds `need` of them.
    Incomplete {
        /// Bytes from the start of this reply that must be there, at least.
        need: usize,
    },
}

/// A shard that does not speak RESP; its connection cannot be read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyError {
    /// The first byte is of no known type.
    Type(u8),
    /// A length or count that is none, or above what Redis can send.
    Length,
    /// A bulk string without CRLF at its end.
    Unterminated,
    /// A status, error or number line of more than 64 KiB.
    LongLine,
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Type(byte) => write!(f, "a reply began with byte {byte:#04x}"),
            Self::Length => f.write_str("a reply had a malformed length"),
            Self::Unterminated => f.write_str("a bulk reply had no CRLF at its end"),
            Self::LongLine => f.write_str("a reply line had no end"),
        }
    }
}

impl std::error::Error for ReplyError {}

/// Longest status, error or number line. Redis' own are far shorter; scripts can make longer ones.
const LONGEST_LINE: usize = 64 * 1024;
/// Longest bulk string, Redis' hard bound for `proto-max-bulk-len` plus room.
const LONGEST_BULK: i64 = 1 << 30;
/// Most elements of one aggregate.
const MOST_ELEMENTS: i64 = 1 << 30;

/// Looks for a reply at the front of `bytes`.
///
/// Nested replies need no stack: a header of `n` elements adds `n` to how many frames are still to come, so that depth costs
/// nothing. All types of RESP2 and RESP3 are known, save RESP3's streamed strings and aggregates, which no server sends.
///
/// # Errors
/// Where the shard lies; see [`ReplyError`].
#[inline]
#[expect(
    clippy::arithmetic_side_effects,
    reason = "positions in a buffer, and lengths that have been found to be small"
)]
pub fn skim(bytes: &[u8], resume: &mut ReplyResume) -> Result<Skim, ReplyError> {
    let (mut at, mut left) = if resume.started { (resume.at, resume.left) } else { (0, 1) };
    while left > 0 {
        let Some(&kind) = bytes.get(at) else {
            *resume = ReplyResume { at, left, started: true };
            return Ok(Skim::Incomplete { need: at + 1 });
        };
        let need = match kind {
            b'$' | b'=' | b'!' => match header(bytes, at + 1) {
                Header::Value(-1, next) => {
                    at = next;
                    left -= 1;
                    continue;
                }
                Header::Value(len, start) if (0..=LONGEST_BULK).contains(&len) => {
                    let end = start + len as usize;
                    match bytes.get(end..end + 2) {
                        Some(b"\r\n") => {
                            at = end + 2;
                            left -= 1;
                            continue;
                        }
                        Some(_) => return Err(ReplyError::Unterminated),
                        None => end + 2,
                    }
                }
                Header::Unfinished => bytes.len() + 1,
                _ => return Err(ReplyError::Length),
            },
            b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => match line_end(bytes, at)? {
                Some(end) => {
                    at = end;
                    left -= 1;
                    continue;
                }
                None => bytes.len() + 1,
            },
            b'*' | b'~' | b'>' | b'%' | b'|' => match header(bytes, at + 1) {
                Header::Value(count, next) if (-1..=MOST_ELEMENTS).contains(&count) => {
                    let count = count.max(0) as u64;
                    let more = match kind {
                        b'%' | b'|' => 2 * count,
                        _ => count,
                    };
                    at = next;
                    // An attribute stands before the reply it belongs to.
                    left -= u64::from(kind != b'|');
                    left = left.checked_add(more).ok_or(ReplyError::Length)?;
                    continue;
                }
                Header::Unfinished => bytes.len() + 1,
                _ => return Err(ReplyError::Length),
            },
            other => return Err(ReplyError::Type(other)),
        };
        *resume = ReplyResume { at, left, started: true };
        return Ok(Skim::Incomplete { need });
    }
    *resume = ReplyResume::default();
    Ok(Skim::Reply(at))
}

/// The position behind the line that begins at `at`, if it has ended.
#[inline]
fn line_end(bytes: &[u8], at: usize) -> Result<Option<usize>, ReplyError> {
    let line = bytes.get(at..).unwrap_or_default();
    // Most lines are a handful of bytes (`+OK`, `:1`), for which a plain loop beats the vectorised search.
    let near = line.iter().take(16).position(|&b| b == b'\n');
    match near.or_else(|| memchr::memchr(b'\n', line.get(..LONGEST_LINE).unwrap_or(line))) {
        Some(end) => Ok(Some(at.saturating_add(end).saturating_add(1))),
        None if line.len() > LONGEST_LINE => Err(ReplyError::LongLine),
        None => Ok(None),
    }
}

/// The elements of an array reply, each with its header, for putting together the reply to a split request.
#[derive(Debug)]
pub struct Elements<'a> {
    bytes: &'a [u8],
    left: u64,
}

impl<'a> Elements<'a> {
    /// Over a whole reply; `None` if it is no array.
    #[must_use]
    pub fn of(reply: &'a [u8]) -> Option<Self> {
        Self::in_aggregate(b'*', reply)
    }

    /// Over a whole push of RESP3; `None` if it is none.
    #[must_use]
    pub fn of_push(push: &'a [u8]) -> Option<Self> {
        Self::in_aggregate(b'>', push)
    }

    fn in_aggregate(kind: u8, reply: &'a [u8]) -> Option<Self> {
        match (reply.first(), header(reply, 1)) {
            (Some(&first), Header::Value(count, at)) if first == kind => {
                Some(Self { bytes: reply.get(at..)?, left: u64::try_from(count).ok()? })
            }
            _ => None,
        }
    }

    /// The bytes of those that are still to come.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// How many are still to come.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.left == 0 {
            return None;
        }
        let Ok(Skim::Reply(len)) = skim(self.bytes, &mut ReplyResume::default()) else { return None };
        let (element, rest) = self.bytes.split_at_checked(len)?;
        self.bytes = rest;
        self.left = self.left.saturating_sub(1);
        Some(element)
    }
}

/// The number in an integer reply (`:n`).
#[must_use]
pub fn integer(reply: &[u8]) -> Option<i64> {
    match (reply.first(), header(reply, 1)) {
        (Some(b':'), Header::Value(n, _)) => Some(n),
        _ => None,
    }
}

/// The bytes of a bulk reply.
#[must_use]
pub fn bulk(reply: &[u8]) -> Option<&[u8]> {
    match (reply.first(), header(reply, 1)) {
        (Some(b'$'), Header::Value(length, at)) => {
            let end = at.checked_add(usize::try_from(length).ok()?)?;
            reply.get(at..end)
        }
        _ => None,
    }
}

/// The text of an error reply, without `-` and the line end.
#[must_use]
pub fn error_text(reply: &[u8]) -> Option<&[u8]> {
    let text = reply.strip_prefix(b"-")?;
    text.strip_suffix(b"\r\n").or(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLIES: &[&[u8]] = &[
        b"+OK\r\n",
        b"-ERR no\r\n",
        b":-12\r\n",
        b"$-1\r\n",
        b"$0\r\n\r\n",
        b"$3\r\nabc\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"*2\r\n$1\r\na\r\n*2\r\n:1\r\n$-1\r\n",
        b"_\r\n",
        b"#t\r\n",
        b",3.14\r\n",
        b"(12345678901234567890\r\n",
        b"=7\r\ntxt:abc\r\n",
        b"!5\r\nERR x\r\n",
        b"%1\r\n+a\r\n*1\r\n:1\r\n",
        b"~2\r\n:1\r\n:2\r\n",
        b"|1\r\n+a\r\n:1\r\n$1\r\nx\r\n",
        b">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n",
    ];

    #[test]
    fn every_type_ends_where_it_ends_cut_anywhere() {
        for reply in REPLIES {
            let mut resume = ReplyResume::default();
            for end in 0..reply.len() {
                match skim(&reply[..end], &mut resume) {
                    Ok(Skim::Incomplete { need }) => assert!(need > end && need <= reply.len()),
                    other => panic!("{other:?} for {:?}", String::from_utf8_lossy(reply)),
                }
            }
            let mut more = reply.to_vec();
            more.extend_from_slice(b"+NEXT\r\n");
            assert_eq!(skim(&more, &mut resume), Ok(Skim::Reply(reply.len())));
        }
    }

    #[test]
    fn depth_costs_nothing() {
        let mut deep = b"*1\r\n".repeat(100_000);
        deep.extend_from_slice(b":1\r\n");
        assert_eq!(skim(&deep, &mut ReplyResume::default()), Ok(Skim::Reply(deep.len())));
    }

    #[test]
    fn liars_are_found_out() {
        for (bytes, error) in [
            (&b"hello\r\n"[..], ReplyError::Type(b'h')),
            (b"$x\r\n", ReplyError::Length),
            (b"$-2\r\n", ReplyError::Length),
            (b"*99999999999\r\n", ReplyError::Length),
            (b"$1\r\nabc", ReplyError::Unterminated),
            (b"$?\r\n", ReplyError::Length),
        ] {
            assert_eq!(skim(bytes, &mut ReplyResume::default()), Err(error));
        }
    }

    #[test]
    fn elements_of_an_array() {
        let all: Vec<_> = Elements::of(b"*3\r\n$1\r\na\r\n$-1\r\n*1\r\n:1\r\n").unwrap().collect();
        assert_eq!(all, [&b"$1\r\na\r\n"[..], b"$-1\r\n", b"*1\r\n:1\r\n"]);
        assert!(Elements::of(b"+OK\r\n").is_none());
    }

    #[test]
    fn numbers() {
        assert_eq!(integer(b":42\r\n"), Some(42));
        assert_eq!(integer(b":-42\r\n"), Some(-42));
        assert_eq!(integer(b"+42\r\n"), None);
        assert_eq!(bulk(b"$2\r\n42\r\n"), Some(&b"42"[..]));
        assert_eq!((bulk(b"$-1\r\n"), bulk(b"+42\r\n")), (None, None));
    }
}
