//! Integers as Redis reads them: strictly, so that what is read and written again is the same bytes.

use super::reply::Refusal;

/// The largest argument and string, Redis' `proto-max-bulk-len`.
pub(super) const MAX_BULK: i64 = 512 * 1024 * 1024;

/// A 64 bit integer in its canonical form: no sign but a minus, no leading zeros, no spaces, no `-0`.
pub(super) fn parse(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    match digits {
        b"0" if digits.len() == text.len() => return Some(0),
        [b'1'..=b'9', rest @ ..] if digits.len() <= 19 && rest.iter().all(u8::is_ascii_digit) => {}
        _ => return None,
    }
    // Only ASCII digits are left, so this fails by overflow alone.
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// An integer argument.
pub(super) fn integer(text: &[u8]) -> Result<i64, Refusal> {
    parse(text).ok_or(Refusal::NOT_AN_INTEGER)
}

/// An argument that must fit C's `int`.
pub(super) fn small_integer(text: &[u8]) -> Result<i32, Refusal> {
    i32::try_from(integer(text)?)
        .map_err(|_| format!("ERR value is out of range, value must between {} and {}", i32::MIN, i32::MAX).into())
}

/// Turns Redis' inclusive range, in which negative numbers count from the end, into positions; `None` is an empty range.
pub(super) fn range(mut start: i64, mut end: i64, length: usize) -> Option<(usize, usize)> {
    let length = i64::try_from(length).ok()?;
    if start < 0 && end < 0 && start > end {
        return None;
    }
    if start < 0 {
        start = (start + length).max(0);
    }
    if end < 0 {
        end = (end + length).max(0);
    }
    end = end.min(length - 1);
    if start > end { None } else { Some((start as usize, end as usize)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_canonical() {
        for (text, number) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("99999999999999999999", None),
            ("", None),
            ("-", None),
            ("-0", None),
            ("+1", None),
            ("01", None),
            ("1 ", None),
            (" 1", None),
            ("1.0", None),
            ("--1", None),
        ] {
            assert_eq!(parse(text.as_bytes()), number, "{text:?}");
        }
    }

    #[test]
    fn ranges_clamp() {
        assert_eq!(range(0, -1, 5), Some((0, 4)));
        assert_eq!(range(-3, 100, 5), Some((2, 4)));
        assert_eq!(range(-100, -4, 5), Some((0, 1)));
        assert_eq!(range(-1, -2, 5), None);
        assert_eq!(range(5, 6, 5), None);
        assert_eq!(range(0, -1, 0), None);
        assert_eq!(range(i64::MIN, i64::MAX, 5), Some((0, 4)));
    }
}
