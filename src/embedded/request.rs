//! Requests as they stand in an outbox: RESP arrays of bulk strings, cut into slices of the buffer.
//!
//! Promises Redis' limits and its wording of protocol errors, and to allocate nothing from a length the sender merely
//! claims. Absent on purpose: inline requests (a proxy never sends them) and resuming within a request.

use super::reply::Refusal;

/// The largest argument, Redis' `proto-max-bulk-len`.
pub(super) const MAX_BULK: i64 = 512 * 1024 * 1024;
/// The longest header line (`*3`, `$5`) that is waited for.
const MAX_LINE: usize = 64 * 1024;

/// What stood at the beginning of the buffer.
pub(super) enum Parsed {
    /// A request of this many bytes. Empty arrays are complete and have no arguments; Redis gives them no reply.
    Complete(usize),
    /// The beginning of one.
    Incomplete,
    /// No request.
    Invalid(Refusal),
}

/// Parses one request and appends its arguments to `args`, which stays in an undefined state unless it was complete.
pub(super) fn parse<'a>(buffer: &'a [u8], args: &mut Vec<&'a [u8]>) -> Parsed {
    match parse_array(buffer, args) {
        Ok(Some(length)) => Parsed::Complete(length),
        Ok(None) => Parsed::Incomplete,
        Err(refusal) => Parsed::Invalid(refusal),
    }
}

fn parse_array<'a>(buffer: &'a [u8], args: &mut Vec<&'a [u8]>) -> Result<Option<usize>, Refusal> {
    match buffer.first() {
        Some(b'*') => {}
        Some(&other) => return Err(unexpected('*', other)),
        None => return Ok(None),
    }
    let Some((line, mut at)) = line(buffer, 1, "mbulk count")? else { return Ok(None) };
    let count = match super::number::parse(line) {
        Some(count) if count <= i64::from(i32::MAX) => count,
        _ => return Err(Refusal::from("ERR Protocol error: invalid multibulk length")),
    };
    for _ in 0..count {
        match buffer.get(at) {
            Some(b'$') => {}
            Some(&other) => return Err(unexpected('$', other)),
            None => return Ok(None),
        }
        let Some((line, start)) = self::line(buffer, at + 1, "bulk count")? else { return Ok(None) };
        let length = match super::number::parse(line) {
            Some(length) if (0..=MAX_BULK).contains(&length) => length as usize,
            _ => return Err(Refusal::from("ERR Protocol error: invalid bulk length")),
        };
        // What stands where the closing CR LF belongs is skipped unseen, as Redis does.
        if buffer.len() < start + length + 2 {
            return Ok(None);
        }
        args.push(&buffer[start..start + length]);
        at = start + length + 2;
    }
    Ok(Some(at))
}

/// The header line from `start` up to its CR LF, and where the next byte after it is.
fn line<'a>(buffer: &'a [u8], start: usize, what: &str) -> Result<Option<(&'a [u8], usize)>, Refusal> {
    let rest = buffer.get(start..).unwrap_or_default();
    let window = &rest[..rest.len().min(MAX_LINE)];
    match window.iter().position(|&byte| byte == b'\r') {
        Some(end) if rest.len() >= end + 2 => Ok(Some((&rest[..end], start + end + 2))),
        None if rest.len() > MAX_LINE => Err(format!("ERR Protocol error: too big {what} string").into()),
        _ => Ok(None),
    }
}

fn unexpected(wanted: char, found: u8) -> Refusal {
    let mut text = format!("ERR Protocol error: expected '{wanted}', got '").into_bytes();
    text.extend([found, b'\'']);
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Length and arguments of a request.
    type Cut = (usize, Vec<Vec<u8>>);

    fn outcome(buffer: &[u8]) -> Result<Option<Cut>, String> {
        let mut args = Vec::new();
        match parse(buffer, &mut args) {
            Parsed::Complete(length) => Ok(Some((length, args.iter().map(|arg| arg.to_vec()).collect()))),
            Parsed::Incomplete => Ok(None),
            Parsed::Invalid(refusal) => {
                let mut text = Vec::new();
                refusal.write(&mut text);
                Err(String::from_utf8_lossy(&text).trim_end().to_owned())
            }
        }
    }

    #[test]
    fn cuts_a_request_wherever_the_buffer_ends() {
        let request = b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n";
        for end in 0..request.len() {
            assert_eq!(outcome(&request[..end]), Ok(None), "at {end}");
        }
        let args = vec![b"GET".to_vec(), b"a\r\nb".to_vec()];
        assert_eq!(outcome(request), Ok(Some((request.len(), args.clone()))));
        assert_eq!(outcome(&[request, &b"*1\r\n"[..]].concat()), Ok(Some((request.len(), args))));
    }

    #[test]
    fn empty_arrays_are_requests_of_nothing() {
        assert_eq!(outcome(b"*0\r\n"), Ok(Some((4, vec![]))));
        assert_eq!(outcome(b"*-1\r\n"), Ok(Some((5, vec![]))));
    }

    #[test]
    fn refuses_what_is_no_request() {
        let error = |text: &str| Err(format!("-ERR Protocol error: {text}"));
        assert_eq!(outcome(b"GET a\r\n"), error("expected '*', got 'G'"));
        assert_eq!(outcome(b"*x\r\n"), error("invalid multibulk length"));
        assert_eq!(outcome(b"*2147483648\r\n"), error("invalid multibulk length"));
        assert_eq!(outcome(b"*1\r\n:1\r\n"), error("expected '$', got ':'"));
        assert_eq!(outcome(b"*1\r\n$-1\r\n"), error("invalid bulk length"));
        assert_eq!(outcome(b"*1\r\n$536870913\r\n"), error("invalid bulk length"));
        assert_eq!(outcome(&[&b"*"[..], &[b'1'; MAX_LINE + 1]].concat()), error("too big mbulk count string"));
        assert_eq!(outcome(&[&b"*1\r\n$"[..], &[b'1'; MAX_LINE + 1]].concat()), error("too big bulk count string"));
    }
}
