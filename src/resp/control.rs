//! Control replies: the few small replies that are built or read whole, such as those to COMMAND, HELLO or CLIENT INFO,
//! and the backends' answers to a handshake. Owned trees, encoded and decoded by the `redis_protocol` crate; for RESP3
//! encoded here, as the crate's maps forget the order of their entries.
//!
//! Promises: whatever is encoded is one whole frame, and no bytes make decoding overflow the stack or reserve memory out
//! of proportion: depth, count and lengths are checked before the crate's recursive decoder sees them.
//! Does not: belong on the request path (it allocates), read RESP3, or keep bytes that are not UTF-8 in error replies.

use super::write;
use redis_protocol::resp2::{decode as wire_decode, encode as wire_encode, types::OwnedFrame, types::Resp2Frame};

/// How deep arrays may nest in a reply that is read. COMMAND INFO, the deepest in use, has 8.
pub const MAX_DEPTH: usize = 16;
/// How long a bulk string or a line may be in a reply that is read, in bytes.
pub const MAX_LENGTH: usize = 16 << 20;
/// How many frames a reply that is read may have in all.
pub const MAX_FRAMES: usize = 1 << 20;

/// A small reply, whole and owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// `+text`; line breaks in it are sent as spaces.
    Simple(String),
    /// `-text`, with its code (`ERR ...`); line breaks in it are sent as spaces.
    Error(String),
    /// `:number`
    Integer(i64),
    /// `$length bytes`
    Bulk(Vec<u8>),
    /// `*count frames`
    Array(Vec<Control>),
    /// `$-1`; a null array is read as this too. `_` in RESP3.
    Null,
    /// Pairs: `%` in RESP3, an array of keys and values in RESP2.
    Map(Vec<(Control, Control)>),
    /// Items without an order: `~` in RESP3, an array in RESP2.
    Set(Vec<Control>),
    /// Text for a person: `=` in RESP3, a bulk string in RESP2.
    Text(Vec<u8>),
}

/// Bytes that are no RESP2 reply, or one beyond the limits of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl Control {
    /// A bulk string of some text.
    pub fn bulk(text: impl AsRef<[u8]>) -> Self {
        Control::Bulk(text.as_ref().to_vec())
    }

    /// A simple string.
    pub fn simple(text: impl Into<String>) -> Self {
        Control::Simple(text.into())
    }
}

/// Appends the reply's bytes to `out`, as an app that speaks RESP3, or one that does not, wants them.
pub fn encode_for(resp3: bool, reply: &Control, out: &mut Vec<u8>) {
    if !resp3 {
        return encode(reply, out);
    }
    let items = match reply {
        Control::Simple(text) => return write::simple(out, one_line(text).as_bytes()),
        Control::Error(text) => return write::error(out, text.as_bytes()),
        Control::Integer(number) => return write::integer(out, *number),
        Control::Bulk(bytes) => return write::bulk(out, bytes),
        Control::Null => return write::null(out, true),
        Control::Text(text) => return write::text(out, text, true),
        Control::Map(pairs) => {
            write::map(out, pairs.len(), true);
            for (key, value) in pairs {
                encode_for(true, key, out);
                encode_for(true, value, out);
            }
            return;
        }
        Control::Array(items) => {
            write::array(out, items.len());
            items
        }
        Control::Set(items) => {
            write::set(out, items.len(), true);
            items
        }
    };
    for item in items {
        encode_for(true, item, out);
    }
}

/// Appends the reply's bytes to `out`, in RESP2.
pub fn encode(reply: &Control, out: &mut Vec<u8>) {
    let frame = to_frame(reply);
    let start = out.len();
    out.resize(start.saturating_add(frame.encode_len(false)), 0);
    // The buffer has the length the crate asked for, which is the only way its encoder can fail.
    let written = wire_encode::encode(out.get_mut(start..).unwrap_or_default(), &frame, false).unwrap_or(0);
    out.truncate(start.saturating_add(written));
}

/// The first reply in `bytes` and its length, or `None` when it is not whole or not a reply ([`parse`] tells which).
pub fn decode(bytes: &[u8]) -> Option<(Control, usize)> {
    parse(bytes).ok().flatten()
}

/// The first reply in `bytes` and its length; `Ok(None)` when more bytes are needed.
pub fn parse(bytes: &[u8]) -> Result<Option<(Control, usize)>, Malformed> {
    let Some(length) = whole(bytes)? else { return Ok(None) };
    match wire_decode::decode(bytes.get(..length).unwrap_or_default()) {
        Ok(Some((frame, used))) if used == length => Ok(Some((from_frame(frame), used))),
        _ => Err(Malformed),
    }
}

/// The length of the first reply, found without recursion and without reading past a limit.
#[expect(clippy::arithmetic_side_effects, reason = "positions in a buffer, and lengths and counts within the limits")]
fn whole(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    let mut at = 0;
    let mut frames = 0;
    // How many frames are still to come in each array that is open.
    let mut open: Vec<usize> = Vec::new();
    loop {
        frames += 1;
        if frames > MAX_FRAMES {
            return Err(Malformed);
        }
        let Some((kind, line, next)) = line(bytes, at)? else { return Ok(None) };
        at = next;
        match kind {
            b'+' | b'-' | b':' => {}
            b'$' => {
                if let Some(length) = length(line)? {
                    match bytes.get(at + length..at + length + 2) {
                        Some(b"\r\n") => at += length + 2,
                        Some(_) => return Err(Malformed),
                        None => return Ok(None),
                    }
                }
            }
            b'*' => {
                if let Some(count @ 1..) = length(line)? {
                    if open.len() == MAX_DEPTH || count > MAX_FRAMES {
                        return Err(Malformed);
                    }
                    open.push(count);
                    continue;
                }
            }
            _ => return Err(Malformed),
        }
        loop {
            let Some(left) = open.last_mut() else { return Ok(Some(at)) };
            *left -= 1;
            if *left > 0 {
                break;
            }
            open.pop();
        }
    }
}

/// A frame's kind, the rest of its first line, and where the line after it begins.
#[allow(clippy::type_complexity, reason = "three parts of one line, read by one caller")]
fn line(bytes: &[u8], at: usize) -> Result<Option<(u8, &[u8], usize)>, Malformed> {
    let Some((&kind, rest)) = bytes.get(at..).and_then(<[u8]>::split_first) else { return Ok(None) };
    if !b"+-:$*".contains(&kind) {
        return Err(Malformed);
    }
    match rest.iter().take(MAX_LENGTH).position(|&byte| byte == b'\r' || byte == b'\n') {
        Some(end) => {
            let (text, ending) = rest.split_at(end);
            match ending {
                [b'\r', b'\n', ..] => Ok(Some((kind, text, at.saturating_add(end).saturating_add(3)))),
                [b'\r'] => Ok(None),
                _ => Err(Malformed),
            }
        }
        None if rest.len() >= MAX_LENGTH => Err(Malformed),
        None => Ok(None),
    }
}

/// A length or count in a header; `None` is the null's -1.
fn length(digits: &[u8]) -> Result<Option<usize>, Malformed> {
    if digits == b"-1" {
        return Ok(None);
    }
    let leading_zero = digits.len() > 1 && digits.starts_with(b"0");
    if digits.is_empty() || leading_zero || digits.len() > 10 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Malformed);
    }
    let digit = |digit: &u8| usize::from(digit.wrapping_sub(b'0'));
    let value = digits.iter().fold(0_usize, |value, next| value.saturating_mul(10).saturating_add(digit(next)));
    if value > MAX_LENGTH { Err(Malformed) } else { Ok(Some(value)) }
}

fn to_frame(reply: &Control) -> OwnedFrame {
    match reply {
        Control::Simple(text) => OwnedFrame::SimpleString(one_line(text).into_bytes()),
        Control::Error(text) => OwnedFrame::Error(one_line(text)),
        Control::Integer(number) => OwnedFrame::Integer(*number),
        Control::Bulk(bytes) => OwnedFrame::BulkString(bytes.clone()),
        Control::Array(items) | Control::Set(items) => OwnedFrame::Array(items.iter().map(to_frame).collect()),
        Control::Map(pairs) => {
            OwnedFrame::Array(pairs.iter().flat_map(|(key, value)| [to_frame(key), to_frame(value)]).collect())
        }
        Control::Text(text) => OwnedFrame::BulkString(text.clone()),
        Control::Null => OwnedFrame::Null,
    }
}

fn from_frame(frame: OwnedFrame) -> Control {
    match frame {
        OwnedFrame::SimpleString(bytes) => Control::Simple(String::from_utf8_lossy(&bytes).into_owned()),
        OwnedFrame::Error(text) => Control::Error(text),
        OwnedFrame::Integer(number) => Control::Integer(number),
        OwnedFrame::BulkString(bytes) => Control::Bulk(bytes),
        OwnedFrame::Array(frames) => Control::Array(frames.into_iter().map(from_frame).collect()),
        OwnedFrame::Null => Control::Null,
    }
}

/// A line break inside a simple reply would begin another reply.
fn one_line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn control() -> impl Strategy<Value = Control> {
        let leaf = prop_oneof![
            any::<String>().prop_map(Control::Simple),
            any::<String>().prop_map(Control::Error),
            any::<i64>().prop_map(Control::Integer),
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(Control::Bulk),
            Just(Control::Null),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| proptest::collection::vec(inner, 0..6).prop_map(Control::Array))
    }

    /// What a reply looks like to who reads it.
    fn sent(reply: &Control) -> Control {
        match reply {
            Control::Simple(text) => Control::Simple(one_line(text)),
            Control::Error(text) => Control::Error(one_line(text)),
            Control::Array(items) => Control::Array(items.iter().map(sent).collect()),
            other => other.clone(),
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(reply in control(), tail in proptest::collection::vec(any::<u8>(), 0..8)) {
            let mut wire = b"before".to_vec();
            encode(&reply, &mut wire);
            let length = wire.len() - 6;
            wire.extend(&tail);
            prop_assert_eq!(decode(&wire[6..]), Some((sent(&reply), length)));
            prop_assert_eq!(&wire[..6], b"before");
        }

        #[test]
        fn a_part_of_a_reply_is_not_yet_one(reply in control()) {
            let mut wire = Vec::new();
            encode(&reply, &mut wire);
            for cut in 0..wire.len() {
                prop_assert_eq!(parse(&wire[..cut]), Ok(None));
            }
        }

        #[test]
        fn any_bytes_are_survived(bytes in "[-+:$*0-9a\r\n]{0,40}") {
            if let Some((_, used)) = decode(bytes.as_bytes()) {
                prop_assert!(used <= bytes.len());
            }
        }
    }

    #[test]
    fn every_kind_has_its_bytes() {
        let reply = Control::Array(vec![
            Control::simple("OK"),
            Control::Error("ERR no\r\nway".into()),
            Control::Integer(-7),
            Control::bulk("a\r\nb"),
            Control::Null,
            Control::Array(vec![]),
        ]);
        let mut wire = Vec::new();
        encode(&reply, &mut wire);
        assert_eq!(wire, b"*6\r\n+OK\r\n-ERR no  way\r\n:-7\r\n$4\r\na\r\nb\r\n$-1\r\n*0\r\n");
        assert_eq!(decode(b"*-1\r\n"), Some((Control::Null, 5)));
    }

    #[test]
    fn each_protocol_has_its_forms() {
        let pair = (Control::bulk("k"), Control::Set(vec![Control::simple("a")]));
        let reply = Control::Array(vec![Control::Map(vec![pair]), Control::Text(b"t\n".to_vec()), Control::Null]);
        for (resp3, expected) in [
            (false, &b"*3\r\n*2\r\n$1\r\nk\r\n*1\r\n+a\r\n$2\r\nt\n\r\n$-1\r\n"[..]),
            (true, b"*3\r\n%1\r\n$1\r\nk\r\n~1\r\n+a\r\n=6\r\ntxt:t\n\r\n_\r\n"),
        ] {
            let mut wire = Vec::new();
            encode_for(resp3, &reply, &mut wire);
            assert_eq!(wire, expected);
        }
    }

    #[test]
    fn limits_hold_before_anything_is_built() {
        assert_eq!(parse(&b"*1\r\n".repeat(1_000_000)), Err(Malformed));
        let mut deep = b"*1\r\n".repeat(MAX_DEPTH);
        assert_eq!(parse(&deep), Ok(None));
        deep.extend(b":1\r\n");
        assert!(decode(&deep).is_some());
        for wire in [
            "*99999999\r\n",
            "$99999999\r\n",
            "$-2\r\n",
            "$+1\r\n",
            "*01\r\n",
            "$\r\n",
            "$1\r\nab\r\n",
            "?\r\n",
            ":x\r\n",
            "+a\nb\r\n",
        ] {
            assert_eq!(parse(wire.as_bytes()), Err(Malformed), "{wire:?}");
        }
        assert_eq!(decode(b"-ERR \xff\r\n"), None);
    }
}
