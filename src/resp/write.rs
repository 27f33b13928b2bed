//! Appends small replies and requests to a buffer.

/// Appends a decimal number.
#[inline]
#[expect(clippy::arithmetic_side_effects, reason = "digits of a number; 20 of them hold any")]
pub fn number(out: &mut Vec<u8>, value: u64) {
    if value < 10 {
        out.push(b'0' + value as u8);
        return;
    }
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut value = value;
    while value > 0 {
        at -= 1;
        if let Some(digit) = digits.get_mut(at) {
            *digit = b'0' + (value % 10) as u8;
        }
        value /= 10;
    }
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
}

/// Appends `*count`, the head of an array.
#[inline]
pub fn array(out: &mut Vec<u8>, count: usize) {
    out.push(b'*');
    number(out, count as u64);
    out.extend_from_slice(b"\r\n");
}

/// Appends `$length`, the head of a bulk string.
#[inline]
#[expect(clippy::arithmetic_side_effects, reason = "digits of a number below 100")]
pub fn bulk_head(out: &mut Vec<u8>, length: usize) {
    match length {
        0..10 => out.extend_from_slice(&[b'$', b'0' + length as u8, b'\r', b'\n']),
        10..100 => {
            out.extend_from_slice(&[b'$', b'0' + (length / 10) as u8, b'0' + (length % 10) as u8, b'\r', b'\n']);
        }
        _ => {
            out.push(b'$');
            number(out, length as u64);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Appends a bulk string.
#[inline]
pub fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    bulk_head(out, bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends an integer reply.
pub fn integer(out: &mut Vec<u8>, value: i64) {
    out.push(b':');
    if value < 0 {
        out.push(b'-');
    }
    number(out, value.unsigned_abs());
    out.extend_from_slice(b"\r\n");
}

/// Appends an error reply. `text` begins with its code, such as `ERR`; bytes that would end the line become blanks.
pub fn error(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'-');
    out.extend(text.iter().map(|&b| if b == b'\r' || b == b'\n' { b' ' } else { b }));
    out.extend_from_slice(b"\r\n");
}

/// Appends a status reply. `text` holds no line end.
pub fn simple(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'+');
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

/// Appends the reply that there is nothing.
pub fn null(out: &mut Vec<u8>, resp3: bool) {
    out.extend_from_slice(if resp3 { b"_\r\n" } else { b"$-1\r\n" });
}

/// Appends the reply that there is no array.
pub fn null_array(out: &mut Vec<u8>, resp3: bool) {
    out.extend_from_slice(if resp3 { b"_\r\n" } else { b"*-1\r\n" });
}

/// Appends the head of a map of so many pairs; in RESP2 that of an array of keys and values.
pub fn map(out: &mut Vec<u8>, pairs: usize, resp3: bool) {
    head(out, if resp3 { b'%' } else { b'*' }, if resp3 { pairs } else { pairs.saturating_mul(2) });
}

/// Appends the head of a set; in RESP2 that of an array.
pub fn set(out: &mut Vec<u8>, count: usize, resp3: bool) {
    head(out, if resp3 { b'~' } else { b'*' }, count);
}

/// Appends text for a person: a verbatim string; in RESP2 a bulk string.
pub fn text(out: &mut Vec<u8>, text: &[u8], resp3: bool) {
    if resp3 {
        head(out, b'=', text.len().saturating_add(4));
        out.extend_from_slice(b"txt:");
        out.extend_from_slice(text);
        out.extend_from_slice(b"\r\n");
    } else {
        bulk(out, text);
    }
}

fn head(out: &mut Vec<u8>, kind: u8, count: usize) {
    out.push(kind);
    number(out, count as u64);
    out.extend_from_slice(b"\r\n");
}

/// Appends a request: an array of bulk strings.
pub fn request(out: &mut Vec<u8>, args: &[&[u8]]) {
    array(out, args.len());
    for arg in args {
        bulk(out, arg);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_they_are() {
        for n in [0, 9, 10, 99, 100, 12_345, u64::MAX] {
            let mut out = Vec::new();
            number(&mut out, n);
            assert_eq!(out, n.to_string().into_bytes());
        }
    }

    #[test]
    fn frames() {
        let mut out = Vec::new();
        request(&mut out, &[b"GET", b"k"]);
        integer(&mut out, i64::MIN);
        error(&mut out, b"ERR a\r\nb");
        simple(&mut out, b"OK");
        assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n:-9223372036854775808\r\n-ERR a  b\r\n+OK\r\n");
    }
}
