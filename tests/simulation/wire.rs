//! RESP once more, as plainly as possible, so that the scanner and the skimmer are not judged by themselves.

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply<'a> {
    Simple(&'a [u8]),
    Error(&'a [u8]),
    Integer(i64),
    Bulk(Option<&'a [u8]>),
    Array(Vec<Reply<'a>>),
    /// RESP2's `*-1`.
    NullArray,
    /// RESP3's.
    Null,
    /// RESP3's, names and values by turns.
    Map(Vec<Reply<'a>>),
    /// RESP3's.
    Push(Vec<Reply<'a>>),
}

impl Reply<'_> {
    /// Whether something in it belongs to this protocol alone.
    pub fn speaks(&self, resp3: bool) -> bool {
        match self {
            Self::Bulk(None) | Self::NullArray => !resp3,
            Self::Null | Self::Map(_) | Self::Push(_) => resp3,
            Self::Array(items) => items.iter().any(|item| item.speaks(resp3)),
            _ => false,
        }
    }
}

/// The request at the front of `bytes` and its length; `None` when it is not whole. Shards must get nothing else.
pub fn request(bytes: &[u8]) -> Option<(Vec<&[u8]>, usize)> {
    let (count, mut at) = number(bytes, 0, b'*')?;
    let mut args = Vec::new();
    for _ in 0..count {
        let (length, start) = number(bytes, at, b'$')?;
        let end = start + length as usize;
        let tail = bytes.get(end..end + 2)?;
        assert_eq!(tail, b"\r\n", "an argument on a shard's wire does not end");
        args.push(&bytes[start..end]);
        at = end + 2;
    }
    Some((args, at))
}

/// The reply at the front of `bytes` and its length; `None` when it is not whole.
pub fn reply(bytes: &[u8]) -> Option<(Reply<'_>, usize)> {
    let (text, next) = line(bytes, 0)?;
    match bytes[0] {
        b'+' => Some((Reply::Simple(text), next)),
        b'-' => Some((Reply::Error(text), next)),
        b':' => Some((Reply::Integer(parse(text)), next)),
        b'$' | b'=' => match parse(text) {
            -1 => Some((Reply::Bulk(None), next)),
            length => {
                let end = next + length as usize;
                assert_eq!(bytes.get(end..end + 2)?, b"\r\n", "a bulk reply does not end");
                Some((Reply::Bulk(Some(&bytes[next..end])), end + 2))
            }
        },
        b'_' => Some((Reply::Null, next)),
        b'*' if text == b"-1" => Some((Reply::NullArray, next)),
        kind @ (b'*' | b'%' | b'>') => {
            let mut at = next;
            let mut items = Vec::new();
            for _ in 0..parse(text) * if kind == b'%' { 2 } else { 1 } {
                let (item, length) = reply(&bytes[at..])?;
                items.push(item);
                at += length;
            }
            let whole = match kind {
                b'*' => Reply::Array(items),
                b'%' => Reply::Map(items),
                _ => Reply::Push(items),
            };
            Some((whole, at))
        }
        other => panic!("a reply to an app begins with {:?}", char::from(other)),
    }
}

fn number(bytes: &[u8], at: usize, kind: u8) -> Option<(i64, usize)> {
    assert_eq!(*bytes.get(at)?, kind, "a shard's wire at {at}: {:?}", String::from_utf8_lossy(bytes));
    let (text, next) = line(bytes, at)?;
    Some((parse(text), next))
}

/// What stands between the first byte at `at` and the line's end, and the position behind it.
fn line(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let end = at + bytes.get(at..)?.iter().position(|&b| b == b'\r')?;
    assert_eq!(*bytes.get(end + 1)?, b'\n', "a line does not end");
    Some((&bytes[at + 1..end], end + 2))
}

fn parse(text: &[u8]) -> i64 {
    std::str::from_utf8(text).unwrap().parse().unwrap()
}
