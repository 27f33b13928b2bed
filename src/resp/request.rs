//! Finds requests in what an app sent: RESP arrays of bulk strings, and Redis' inline form.

use super::{Header, header};
use std::fmt;

/// Bounds on one request. What exceeds them is answered with Redis' own protocol error, and the connection ends.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most arguments of a request, its name included (1,048,576 was Redis' own bound before 7.0).
    pub arguments: u32,
    /// Longest argument in bytes (Redis' `proto-max-bulk-len`).
    pub bulk: u64,
    /// Longest request in bytes, all of it.
    pub request: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { arguments: 1024 * 1024, bulk: 512 << 20, request: 1 << 30 }
    }
}

impl Limits {
    /// What Redis grants to a client that has not authenticated: 10 arguments of 16 KiB.
    pub const UNAUTHENTICATED: Self = Self { arguments: 10, bulk: 16 * 1024, request: 256 * 1024 };
}

/// The count from which on Redis calls any number of arguments invalid.
const MOST_REDIS: u32 = i32::MAX as u32;

/// Longest inline request, as in Redis (`PROTO_INLINE_MAX_SIZE`).
pub const LONGEST_INLINE: usize = 64 * 1024;

/// How far an incomplete request has been read, so that no byte of it is looked at again.
#[derive(Debug, Clone, Copy, Default)]
pub struct Resume {
    at: u32,
    left: u32,
    argc: u32,
}

/// Where an argument stands in its request.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

/// Arguments whose place is remembered while scanning: the name and the two behind it.
pub(super) const REMEMBERED: usize = 3;

/// What [`scan`] found at the front of the buffer.
#[derive(Debug)]
pub enum Scan<'a> {
    /// A whole request; it takes `request.wire().len()` bytes.
    Request(Request<'a>),
    /// A whole inline request: its line without the line end, and how many bytes it takes with it.
    Inline {
        /// The line, without CR and LF.
        line: &'a [u8],
        /// Bytes to consume.
        len: usize,
    },
    /// Bytes that ask for nothing (an empty line, `*0`): consume them, answer nothing.
    Nothing(usize),
    /// More bytes are needed; scanning again is pointless before the buffer holds `need` of them.
    Incomplete {
        /// Bytes from the start of this request that must be there, at least.
        need: usize,
    },
}

/// Why a request cannot be read. Its display is the text that Redis sends behind `-ERR `.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolError {
    /// The number behind `*` is no count, or above the limit.
    MultibulkLength,
    /// Something other than `$` where an argument must begin.
    ExpectedBulk(u8),
    /// The number behind `$` is no length, or above the limit.
    BulkLength,
    /// An argument that does not end with CRLF. Redis skips two bytes unseen; a proxy must not pass such a frame on.
    Unterminated,
    /// The whole request is above the limit.
    TooBig,
    /// An inline request without an end in 64 KiB.
    TooBigInline,
    /// Quotes that do not match in an inline request.
    UnbalancedQuotes,
    /// More arguments than an app may send before it authenticated.
    UnauthenticatedMultibulk,
    /// A longer argument than an app may send before it authenticated.
    UnauthenticatedBulk,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Protocol error: ")?;
        match self {
            Self::MultibulkLength => f.write_str("invalid multibulk length"),
            // As Redis, which puts a blank where the byte would end the line.
            Self::ExpectedBulk(b'\r' | b'\n') => f.write_str("expected '$', got ' '"),
            Self::ExpectedBulk(got) if got.is_ascii() => write!(f, "expected '$', got '{}'", char::from(*got)),
            Self::ExpectedBulk(_) => f.write_str("expected '$', got '?'"),
            Self::BulkLength => f.write_str("invalid bulk length"),
            Self::Unterminated => f.write_str("bulk string without CRLF at its end"),
            Self::TooBig => f.write_str("request too big"),
            Self::TooBigInline => f.write_str("too big inline request"),
            Self::UnbalancedQuotes => f.write_str("unbalanced quotes in request"),
            Self::UnauthenticatedMultibulk => f.write_str("unauthenticated multibulk length"),
            Self::UnauthenticatedBulk => f.write_str("unauthenticated bulk length"),
        }
    }
}

impl std::error::Error for ProtocolError {}

impl ProtocolError {
    /// The error as it is sent, with the unexpected byte as it came.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        let mut text = format!("ERR {self}").into_bytes();
        if let Self::ExpectedBulk(got @ 0x80..) = self
            && let [.., place, _] = text.as_mut_slice()
        {
            *place = *got;
        }
        text
    }
}

/// A whole request: its bytes, and where its arguments stand in them.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub(super) wire: &'a [u8],
    pub(super) argc: u32,
    pub(super) spans: [Span; REMEMBERED],
}

impl<'a> Request<'a> {
    /// Reads one request that fills `wire` exactly; for bytes that are already known to be well formed.
    #[must_use]
    pub fn parse(wire: &'a [u8]) -> Option<Self> {
        match scan(wire, &mut Resume::default(), &Limits::default()) {
            Ok(Scan::Request(request)) if request.wire.len() == wire.len() => Some(request),
            _ => None,
        }
    }

    /// Reads the request at the front of bytes that were put together here, whatever its length: what it was made from was within
    /// its limits.
    #[must_use]
    pub fn of_any_length(wire: &'a [u8]) -> Option<Self> {
        const ANY: Limits = Limits { arguments: u32::MAX, bulk: u64::MAX, request: u64::MAX };
        match scan(wire, &mut Resume::default(), &ANY) {
            Ok(Scan::Request(request)) => Some(request),
            _ => None,
        }
    }

    /// The bytes as they came, and as they go to a shard.
    #[must_use]
    pub fn wire(&self) -> &'a [u8] {
        self.wire
    }

    /// Number of arguments, the name included; at least 1.
    #[must_use]
    pub fn argc(&self) -> usize {
        self.argc as usize
    }

    /// The command's name as the app wrote it.
    #[must_use]
    pub fn name(&self) -> &'a [u8] {
        self.remembered(0)
    }

    /// Argument `index`; 0 is the name. Constant time for the first three, else linear.
    #[must_use]
    pub fn arg(&self, index: usize) -> Option<&'a [u8]> {
        if index >= self.argc() {
            None
        } else if index < REMEMBERED {
            Some(self.remembered(index))
        } else {
            self.args().nth(index)
        }
    }

    /// All arguments in order, the name first.
    #[must_use]
    pub fn args(&self) -> Args<'a> {
        Args { wire: self.wire, at: args_begin(self.wire), left: self.argc }
    }

    /// The arguments behind those whose places are remembered.
    pub(super) fn args_behind(&self) -> Args<'a> {
        let left = self.argc.saturating_sub(REMEMBERED as u32);
        Args { wire: self.wire, at: self.head_of(REMEMBERED), left }
    }

    /// Where the header of an argument begins, if the place of the one before is remembered.
    pub(super) fn head_of(&self, index: usize) -> usize {
        match index.checked_sub(1) {
            Some(before) => self.spans.get(before).map_or(0, |span| span.end as usize).saturating_add(2),
            None => args_begin(self.wire),
        }
    }

    fn remembered(&self, index: usize) -> &'a [u8] {
        self.spans.get(index).and_then(|s| self.wire.get(s.start as usize..s.end as usize)).unwrap_or_default()
    }
}

/// Walks the arguments of a request; see [`Request::args`].
#[derive(Debug, Clone)]
pub struct Args<'a> {
    wire: &'a [u8],
    at: usize,
    left: u32,
}

impl Args<'_> {
    /// Where the next argument's `$len` header begins in the request; behind the last one, the request's end.
    #[must_use]
    pub fn at(&self) -> usize {
        self.at
    }
}

impl<'a> Iterator for Args<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.left == 0 {
            return None;
        }
        let Header::Value(len, start) = header(self.wire, self.at.saturating_add(1)) else { return None };
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        let arg = self.wire.get(start..end)?;
        self.at = end.saturating_add(2);
        self.left = self.left.saturating_sub(1);
        Some(arg)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

/// Looks for a request at the front of `bytes`.
///
/// `resume` carries over what is known of an incomplete request; pass the same one with the same bytes and more behind
/// them, or a fresh one at the start of a request. It is fresh again after anything but [`Scan::Incomplete`].
///
/// # Errors
/// What Redis would answer with a protocol error; the connection cannot be read any further.
#[inline]
#[expect(
    clippy::arithmetic_side_effects,
    reason = "positions in a buffer; a length is added with a check and refused above the limit"
)]
pub fn scan<'a>(bytes: &'a [u8], resume: &mut Resume, limits: &Limits) -> Result<Scan<'a>, ProtocolError> {
    let Some(&first) = bytes.first() else { return Ok(Scan::Incomplete { need: 1 }) };
    if first != b'*' {
        return scan_inline(bytes);
    }
    let mut spans = [Span::default(); REMEMBERED];
    let resumed = resume.argc != 0;
    let (mut at, argc, mut left) = if resumed {
        (resume.at as usize, resume.argc, resume.left)
    } else {
        match header(bytes, 1) {
            Header::Unfinished => return Ok(Scan::Incomplete { need: bytes.len() + 1 }),
            Header::Malformed => return Err(ProtocolError::MultibulkLength),
            Header::Value(count, at) if count <= 0 => return Ok(Scan::Nothing(at)),
            Header::Value(count, at) => match u32::try_from(count) {
                Ok(count) if count <= limits.arguments => (at, count, count),
                Ok(0..=MOST_REDIS) if limits.arguments <= Limits::UNAUTHENTICATED.arguments => {
                    return Err(ProtocolError::UnauthenticatedMultibulk);
                }
                _ => return Err(ProtocolError::MultibulkLength),
            },
        }
    };
    while left > 0 {
        let need = match bytes.get(at) {
            None => at + 1,
            Some(b'$') => match header(bytes, at + 1) {
                Header::Unfinished => bytes.len() + 1,
                Header::Malformed => return Err(ProtocolError::BulkLength),
                Header::Value(len, start) => {
                    let len = bulk_length(len, limits)?;
                    let end = start.saturating_add(len);
                    if end as u64 > limits.request || u32::try_from(end).is_err() {
                        return Err(ProtocolError::TooBig);
                    }
                    match bytes.get(end..end + 2) {
                        Some(b"\r\n") => {
                            if let Some(span) = spans.get_mut((argc - left) as usize) {
                                *span = Span { start: start as u32, end: end as u32 };
                            }
                            at = end + 2;
                            left -= 1;
                            continue;
                        }
                        Some(_) => return Err(ProtocolError::Unterminated),
                        None => end + 2,
                    }
                }
            },
            Some(&other) => return Err(ProtocolError::ExpectedBulk(other)),
        };
        *resume = Resume { at: at as u32, left, argc };
        return Ok(Scan::Incomplete { need });
    }
    *resume = Resume::default();
    let mut request = Request { wire: bytes.get(..at).unwrap_or_default(), argc, spans };
    if resumed {
        // The places found in earlier calls were not kept: an idle session should not carry them.
        let mut args = request.args();
        for span in request.spans.iter_mut().take(argc as usize) {
            let Some(arg) = args.next() else { break };
            let end = args.at - 2;
            *span = Span { start: (end - arg.len()) as u32, end: end as u32 };
        }
    }
    Ok(Scan::Request(request))
}

/// The front of a request that is still arriving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Front<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Its first argument.
    pub key: &'a [u8],
    /// Number of arguments, the name included.
    pub argc: u32,
    /// Bytes up to the end of the argument that is arriving, its line end included.
    pub expected: u64,
    /// Arguments behind that one.
    pub more: u32,
    /// Where what stands behind its first argument begins.
    pub behind: usize,
}

/// What is known of a request of which [`scan`] has said that it is incomplete, by what it has noted in `resume`; `None`
/// before its first argument is all there, and the header of the one that is arriving.
///
/// Looks at its first two arguments and the last only: a request of a million arguments may ask this at every read.
#[must_use]
pub fn front<'a>(bytes: &'a [u8], resume: &Resume) -> Option<Front<'a>> {
    let (argc, left) = (resume.argc, resume.left);
    if argc.checked_sub(left)? < 2 {
        return None;
    }
    let mut args = Args { wire: bytes, at: args_begin(bytes), left: argc };
    let (name, key) = (args.next()?, args.next()?);
    let behind = args.at();
    let Header::Value(len, start) = header(bytes, (resume.at as usize).checked_add(1)?) else { return None };
    let end = start.checked_add(usize::try_from(len).ok()?)?;
    Some(Front { name, key, argc, expected: end.checked_add(2)? as u64, more: left.checked_sub(1)?, behind })
}

/// The argument that is arriving of a request that is not whole yet.
#[derive(Debug, Clone, Copy)]
pub struct Arriving<'a> {
    /// The request's name.
    pub name: &'a [u8],
    /// Which argument it is; the name would be 0.
    pub index: u32,
    /// Bytes that it has, as its header says.
    pub bytes: u64,
    /// Number of arguments, the name included.
    pub argc: u32,
    /// Bytes up to its end, its line end included.
    pub expected: u64,
    /// Arguments behind it.
    pub more: u32,
    wire: &'a [u8],
}

impl<'a> Arriving<'a> {
    /// The arguments that are there, the name first.
    #[must_use]
    pub fn args(&self) -> Args<'a> {
        Args { wire: self.wire, at: args_begin(self.wire), left: self.index }
    }
}

/// Which argument is arriving of a request of which [`scan`] has said that it is incomplete, by what it has noted in `resume`;
/// `None` before the name is all there, and the header of the argument.
///
/// Looks at the name and the last argument only, as [`front`] does.
#[must_use]
pub fn arriving<'a>(bytes: &'a [u8], resume: &Resume) -> Option<Arriving<'a>> {
    let (argc, left) = (resume.argc, resume.left);
    let index = argc.checked_sub(left).filter(|&index| index > 0)?;
    let name = Args { wire: bytes, at: args_begin(bytes), left: 1 }.next()?;
    let Header::Value(len, start) = header(bytes, (resume.at as usize).checked_add(1)?) else { return None };
    let end = start.checked_add(usize::try_from(len).ok()?)?;
    let (length, expected) = (u64::try_from(len).ok()?, end.checked_add(2)? as u64);
    Some(Arriving { name, index, bytes: length, argc, expected, more: left.checked_sub(1)?, wire: bytes })
}

/// Where a request's first argument begins.
fn args_begin(wire: &[u8]) -> usize {
    match header(wire, 1) {
        Header::Value(_, at) => at,
        _ => wire.len(),
    }
}

/// The length of an argument from its header, `$length` with its line end.
///
/// # Errors
/// As [`scan`].
pub fn argument(bytes: &[u8], limits: &Limits) -> Result<u64, ProtocolError> {
    match (bytes.first(), header(bytes, 1)) {
        (Some(b'$'), Header::Value(len, at)) if at == bytes.len() => Ok(bulk_length(len, limits)? as u64),
        (Some(b'$'), _) | (None, _) => Err(ProtocolError::BulkLength),
        (Some(&other), _) => Err(ProtocolError::ExpectedBulk(other)),
    }
}

fn bulk_length(len: i64, limits: &Limits) -> Result<usize, ProtocolError> {
    match usize::try_from(len) {
        Ok(len) if len as u64 <= limits.bulk => Ok(len),
        Ok(len) if limits.arguments <= Limits::UNAUTHENTICATED.arguments && len as u64 <= Limits::default().bulk => {
            Err(ProtocolError::UnauthenticatedBulk)
        }
        _ => Err(ProtocolError::BulkLength),
    }
}

#[cold]
#[expect(clippy::arithmetic_side_effects, reason = "positions in a buffer, or one behind it")]
fn scan_inline(bytes: &[u8]) -> Result<Scan<'_>, ProtocolError> {
    let window = bytes.get(..=LONGEST_INLINE).unwrap_or(bytes);
    let Some(end) = memchr::memchr(b'\n', window) else {
        return if window.len() <= LONGEST_INLINE {
            Ok(Scan::Incomplete { need: bytes.len() + 1 })
        } else {
            Err(ProtocolError::TooBigInline)
        };
    };
    let line = window.get(..end).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.iter().copied().all(is_blank) {
        return Ok(Scan::Nothing(end + 1));
    }
    Ok(Scan::Inline { line, len: end + 1 })
}

/// Turns an inline request's line into the array form, appended to `out`.
///
/// Splits as Redis' `sdssplitargs` does: blanks separate; `"..."` knows `\n \r \t \b \a \xHH` and `\` before any other
/// byte; `'...'` knows only `\'`.
///
/// # Errors
/// [`ProtocolError::UnbalancedQuotes`] where a quote does not end, or is followed by something other than a blank.
pub fn expand_inline(line: &[u8], out: &mut Vec<u8>) -> Result<(), ProtocolError> {
    let mut args: Vec<Vec<u8>> = Vec::new();
    let mut rest = line;
    loop {
        while let [b, tail @ ..] = rest
            && is_blank(*b)
        {
            rest = tail;
        }
        if rest.is_empty() {
            break;
        }
        let (arg, tail) = inline_argument(rest)?;
        args.push(arg);
        rest = tail;
    }
    super::write::array(out, args.len());
    for arg in &args {
        super::write::bulk(out, arg);
    }
    Ok(())
}

/// What may stand between arguments, as C's `isspace`; only four of these end one.
fn is_blank(byte: u8) -> bool {
    byte == 0x0b || byte.is_ascii_whitespace()
}

fn inline_argument(mut rest: &[u8]) -> Result<(Vec<u8>, &[u8]), ProtocolError> {
    let ends = |tail: &[u8]| tail.first().copied().is_none_or(is_blank);
    let mut arg = Vec::new();
    loop {
        match rest {
            [] => return Ok((arg, rest)),
            [b' ' | b'\t' | b'\r' | b'\n', ..] => return Ok((arg, rest)),
            [b'"', tail @ ..] => {
                rest = tail;
                loop {
                    match rest {
                        [] => return Err(ProtocolError::UnbalancedQuotes),
                        [b'"', tail @ ..] if ends(tail) => return Ok((arg, tail)),
                        [b'"', ..] => return Err(ProtocolError::UnbalancedQuotes),
                        [b'\\', b'x', high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                            arg.push(hex(*high) << 4 | hex(*low));
                            rest = tail;
                        }
                        [b'\\', escaped, tail @ ..] => {
                            arg.push(match escaped {
                                b'n' => b'\n',
                                b'r' => b'\r',
                                b't' => b'\t',
                                b'b' => 8,
                                b'a' => 7,
                                other => *other,
                            });
                            rest = tail;
                        }
                        [b, tail @ ..] => {
                            arg.push(*b);
                            rest = tail;
                        }
                    }
                }
            }
            [b'\'', tail @ ..] => {
                rest = tail;
                loop {
                    match rest {
                        [] => return Err(ProtocolError::UnbalancedQuotes),
                        [b'\\', b'\'', tail @ ..] => {
                            arg.push(b'\'');
                            rest = tail;
                        }
                        [b'\'', tail @ ..] if ends(tail) => return Ok((arg, tail)),
                        [b'\'', ..] => return Err(ProtocolError::UnbalancedQuotes),
                        [b, tail @ ..] => {
                            arg.push(*b);
                            rest = tail;
                        }
                    }
                }
            }
            [b, tail @ ..] => {
                arg.push(*b);
                rest = tail;
            }
        }
    }
}

fn hex(digit: u8) -> u8 {
    // The caller has looked: it is one.
    char::from(digit).to_digit(16).unwrap_or(0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> Vec<Vec<u8>> {
        match scan(bytes, &mut Resume::default(), &Limits::default()) {
            Ok(Scan::Request(r)) => {
                assert_eq!(r.wire(), bytes);
                (0..r.argc()).map(|i| r.arg(i).unwrap().to_vec()).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn error(bytes: &[u8]) -> String {
        scan(bytes, &mut Resume::default(), &Limits::default()).unwrap_err().to_string()
    }

    #[test]
    fn finds_arguments() {
        assert_eq!(whole(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"), [b"GET".to_vec(), b"k".to_vec()]);
        assert_eq!(whole(b"*1\r\n$0\r\n\r\n"), [b""]);
        assert_eq!(whole(b"*5\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n$1\r\ne\r\n").len(), 5);
    }

    #[test]
    fn resumes_at_every_byte_without_looking_back() {
        let bytes = b"*4\r\n$4\r\nMSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n$3\r\nk:2\r\n";
        let mut resume = Resume::default();
        for end in 1..bytes.len() {
            let before = resume.at;
            match scan(&bytes[..end], &mut resume, &Limits::default()) {
                Ok(Scan::Incomplete { need }) => assert!(need > end && need <= bytes.len(), "{need} at {end}"),
                other => panic!("{other:?}"),
            }
            assert!(resume.at >= before);
        }
        match scan(bytes, &mut resume, &Limits::default()) {
            Ok(Scan::Request(r)) => assert_eq!(r.args().collect::<Vec<_>>(), [&b"MSET"[..], b"k", b"value", b"k:2"]),
            other => panic!("{other:?}"),
        }
        assert_eq!(resume.argc, 0);
    }

    #[test]
    fn asks_for_a_long_body_at_once() {
        let Ok(Scan::Incomplete { need }) =
            scan(b"*2\r\n$3\r\nGET\r\n$1000\r\nx", &mut Resume::default(), &Limits::default())
        else {
            panic!()
        };
        assert_eq!(need, 13 + 7 + 1000 + 2);
    }

    #[test]
    fn refuses_what_redis_refuses_in_its_words() {
        assert_eq!(error(b"*x\r\n"), "Protocol error: invalid multibulk length");
        assert_eq!(error(b"*1048577\r\n"), "Protocol error: invalid multibulk length");
        assert_eq!(error(b"*99999999999999999999\r\n"), "Protocol error: invalid multibulk length");
        assert_eq!(error(b"*01\r\n"), "Protocol error: invalid multibulk length");
        assert_eq!(error(b"*+1\r\n"), "Protocol error: invalid multibulk length");
        assert_eq!(error(b"*1\r\n:1\r\n"), "Protocol error: expected '$', got ':'");
        assert_eq!(error(b"*1\r\n$-1\r\n"), "Protocol error: invalid bulk length");
        assert_eq!(error(b"*1\r\n$99999999999\r\n"), "Protocol error: invalid bulk length");
        assert_eq!(error(b"*1\r\n$3\r\nabcXY"), "Protocol error: bulk string without CRLF at its end");
        assert_eq!(error(&[b'a'; LONGEST_INLINE + 1]), "Protocol error: too big inline request");
        let strict = scan(b"*11\r\n", &mut Resume::default(), &Limits::UNAUTHENTICATED).unwrap_err();
        assert_eq!(strict.to_string(), "Protocol error: unauthenticated multibulk length");
    }

    #[test]
    fn empty_requests_ask_for_nothing() {
        for bytes in [&b"*0\r\n"[..], b"*-1\r\n", b"\r\n", b"  \n"] {
            match scan(bytes, &mut Resume::default(), &Limits::default()) {
                Ok(Scan::Nothing(len)) => assert_eq!(len, bytes.len()),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn inline_requests_split_as_redis_splits_them() {
        let expand = |line: &[u8]| {
            let mut out = Vec::new();
            expand_inline(line, &mut out).map(|()| whole(&out))
        };
        assert_eq!(expand(b"SET k  'a b'").unwrap(), [b"SET".to_vec(), b"k".to_vec(), b"a b".to_vec()]);
        assert_eq!(expand(br#"ECHO "\x41\n\q""#).unwrap()[1], b"A\nq");
        assert_eq!(expand(br"ECHO 'it\'s'").unwrap()[1], b"it's");
        assert_eq!(expand(b"ECHO \"a"), Err(ProtocolError::UnbalancedQuotes));
        assert_eq!(expand(b"ECHO 'a'b"), Err(ProtocolError::UnbalancedQuotes));
    }
}
