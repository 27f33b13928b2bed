//! Replies in the connection's protocol, appended to the reader's buffer, and the refusals commands give, word for word Redis'.

use std::borrow::Cow;
use std::io::Write as _;

/// Where replies go, and how they are worded.
#[derive(Debug)]
pub(super) struct Replies {
    /// The replies so far.
    pub(super) bytes: Vec<u8>,
    /// Whether RESP3 is spoken, else RESP2.
    pub(super) resp3: bool,
}

/// An error reply: what follows the `-`, with its code (`ERR`, `WRONGTYPE`, `OOM`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal(Cow<'static, [u8]>);

impl Refusal {
    /// The command met a key of another type.
    pub(super) const WRONG_TYPE: Refusal =
        Refusal::text("WRONGTYPE Operation against a key holding the wrong kind of value");
    /// The arguments do not form the command's options.
    pub(super) const SYNTAX: Refusal = Refusal::text("ERR syntax error");
    /// An argument or a value is no 64 bit integer.
    pub(super) const NOT_AN_INTEGER: Refusal = Refusal::text("ERR value is not an integer or out of range");
    /// An argument or a value is no number.
    pub(super) const NOT_A_FLOAT: Refusal = Refusal::text("ERR value is not a valid float");
    /// The sum of two integers is none.
    pub(super) const OVERFLOW: Refusal = Refusal::text("ERR increment or decrement would overflow");
    /// The sum of two numbers is none.
    pub(super) const NOT_FINITE: Refusal = Refusal::text("ERR increment would produce NaN or Infinity");
    /// A key to be renamed does not exist.
    pub(super) const NO_SUCH_KEY: Refusal = Refusal::text("ERR no such key");
    /// A string would pass the largest size there is.
    pub(super) const TOO_LONG: Refusal = Refusal::text("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    /// The value alone is larger than the node's `maxmemory`.
    pub(super) const OUT_OF_MEMORY: Refusal = Refusal::text("OOM command not allowed when used memory > 'maxmemory'.");

    /// A refusal of fixed text.
    pub(super) const fn text(text: &'static str) -> Refusal {
        Refusal(Cow::Borrowed(text.as_bytes()))
    }

    /// The wrong number of arguments for `command`.
    pub(super) fn arity(command: &str) -> Refusal {
        format!("ERR wrong number of arguments for '{command}' command").into()
    }

    /// An expire time of `command` that is no time.
    pub(super) fn expire_time(command: &str) -> Refusal {
        format!("ERR invalid expire time in '{command}' command").into()
    }

    /// Appends the error reply. Line ends in the text, which may quote a request, become spaces; at its end they go.
    pub(super) fn write(&self, out: &mut Replies) {
        let end = self.0.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
        let out = &mut out.bytes;
        out.push(b'-');
        out.extend(self.0[..end].iter().map(|&byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
        out.extend_from_slice(b"\r\n");
    }
}

impl From<&'static str> for Refusal {
    fn from(text: &'static str) -> Refusal {
        Refusal::text(text)
    }
}

impl From<String> for Refusal {
    fn from(text: String) -> Refusal {
        Refusal(Cow::Owned(text.into_bytes()))
    }
}

impl From<Vec<u8>> for Refusal {
    fn from(text: Vec<u8>) -> Refusal {
        Refusal(Cow::Owned(text))
    }
}

/// `+OK`.
pub(super) fn ok(out: &mut Replies) {
    out.bytes.extend_from_slice(b"+OK\r\n");
}

/// A status of one line.
pub(super) fn status(out: &mut Replies, text: &str) {
    out.bytes.push(b'+');
    out.bytes.extend_from_slice(text.as_bytes());
    out.bytes.extend_from_slice(b"\r\n");
}

/// An integer.
pub(super) fn integer(out: &mut Replies, number: i64) {
    header(out, b':', number);
}

/// A count or a length; none here comes near the end of an `i64`.
pub(super) fn length(out: &mut Replies, number: usize) {
    integer(out, i64::try_from(number).unwrap_or(i64::MAX));
}

/// `:1` or `:0`.
pub(super) fn boolean(out: &mut Replies, yes: bool) {
    integer(out, i64::from(yes));
}

/// A bulk string.
pub(super) fn bulk(out: &mut Replies, text: &[u8]) {
    header(out, b'$', i64::try_from(text.len()).unwrap_or(i64::MAX));
    out.bytes.extend_from_slice(text);
    out.bytes.extend_from_slice(b"\r\n");
}

/// The bulk string that is none.
pub(super) fn nil(out: &mut Replies) {
    out.bytes.extend_from_slice(if out.resp3 { b"_\r\n" } else { b"$-1\r\n" });
}

/// The array that is none.
pub(super) fn no_array(out: &mut Replies) {
    out.bytes.extend_from_slice(if out.resp3 { b"_\r\n" } else { b"*-1\r\n" });
}

/// A bulk string or none.
pub(super) fn bulk_or_nil(out: &mut Replies, text: Option<&[u8]>) {
    match text {
        Some(text) => bulk(out, text),
        None => nil(out),
    }
}

/// The header of an array; its elements are to follow.
pub(super) fn array(out: &mut Replies, count: usize) {
    header(out, b'*', i64::try_from(count).unwrap_or(i64::MAX));
}

/// The header of so many pairs, a map in RESP3; names and values are to follow in turn.
pub(super) fn map(out: &mut Replies, pairs: usize) {
    let (kind, count) = if out.resp3 { (b'%', pairs) } else { (b'*', pairs * 2) };
    header(out, kind, i64::try_from(count).unwrap_or(i64::MAX));
}

/// The header of one of several pairs that keep their order: an array of its own in RESP3, nothing in RESP2, where
/// [`pairs`] counted both.
pub(super) fn pair(out: &mut Replies) {
    if out.resp3 {
        array(out, 2);
    }
}

/// The header of an array of pairs, each to begin with [`pair`].
pub(super) fn pairs(out: &mut Replies, count: usize) {
    let count = if out.resp3 { count } else { count * 2 };
    array(out, count);
}

/// Text for people.
pub(super) fn verbatim(out: &mut Replies, text: &[u8]) {
    if out.resp3 {
        header(out, b'=', i64::try_from(text.len() + 4).unwrap_or(i64::MAX));
        out.bytes.extend_from_slice(b"txt:");
        out.bytes.extend_from_slice(text);
        out.bytes.extend_from_slice(b"\r\n");
    } else {
        bulk(out, text);
    }
}

fn header(out: &mut Replies, kind: u8, number: i64) {
    out.bytes.push(kind);
    // Writing to a Vec does not fail.
    let _ = write!(out.bytes, "{number}\r\n");
}
