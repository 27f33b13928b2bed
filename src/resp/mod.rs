//! Bytes to frames and back: RESP, Redis' wire protocol.
//!
//! [`scan`] finds where a request ends and where its arguments stand; [`skim`] finds where a
//! reply ends. Neither copies, allocates, recurses or looks at a byte twice, however small the pieces in which bytes arrive.
//! Both refuse what Redis refuses, so that nothing malformed ever reaches a shard's shared connection.
//!
//! Deliberately absent: a tree of frames. The proxy passes bytes through; the few replies of its own are written by
//! [`mod@write`], larger ones by [`control`], the only place that names `redis_protocol`.

// What comes from a network must not end a session by a panic; tests may.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::arithmetic_side_effects,
        clippy::panic,
        clippy::unreachable
    )
)]

pub mod control;
mod insert;
pub mod reply;
pub mod request;
pub mod write;

pub use insert::Insert;
pub use reply::{ReplyError, ReplyResume, Skim, skim};
pub use request::{Args, Arriving, Limits, ProtocolError, Request, Resume, Scan, arriving, scan};

/// What became of reading a `<number>\r\n` header.
enum Header {
    /// The number and the position behind its line.
    Value(i64, usize),
    /// The line has not ended yet.
    Unfinished,
    /// Not a number as Redis writes one.
    Malformed,
}

/// Longest number line that is looked at: sign, 19 digits, CR, LF.
const LONGEST_NUMBER: usize = 22;

/// Reads a decimal number and its CRLF at `at`.
///
/// As strict as Redis' `string2ll`: no `+`, no leading zero, no `-0`. What hotring accepts is passed on unchanged, so
/// anything laxer would let one app break the connection that all apps share.
#[inline]
#[expect(clippy::arithmetic_side_effects, reason = "positions in a buffer; the number itself is added up with checks")]
fn header(bytes: &[u8], at: usize) -> Header {
    let Some(line) = bytes.get(at..) else { return Header::Unfinished };
    let (negative, digits) = match line.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, line),
    };
    let mut value: i64 = 0;
    let mut index = 0;
    while let Some(&byte) = digits.get(index) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        let Some(next) = value.checked_mul(10).and_then(|v| v.checked_add(i64::from(digit))) else {
            return Header::Malformed;
        };
        value = next;
        index += 1;
    }
    let leading_zero = index > 1 && digits.first() == Some(&b'0');
    if leading_zero || (negative && index > 0 && value == 0) {
        return Header::Malformed;
    }
    match (digits.get(index), digits.get(index + 1)) {
        (Some(b'\r'), Some(b'\n')) if index > 0 => {
            Header::Value(if negative { -value } else { value }, at + usize::from(negative) + index + 2)
        }
        (None, _) | (Some(b'\r'), None) if line.len() < LONGEST_NUMBER && (index > 0 || digits.is_empty()) => {
            Header::Unfinished
        }
        _ => Header::Malformed,
    }
}
