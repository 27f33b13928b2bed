//! RESP once more, as plainly as possible, so that the scanner and the skimmer are not judged by themselves.

/// A reply of RESP2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply<'a> {
    Simple(&'a [u8]),
    Error(&'a [u8]),
    Integer(i64),
    Bulk(Option<&'a [u8]>),
    Array(Vec<Reply<'a>>),
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
        b'$' => match parse(text) {
            -1 => Some((Reply::Bulk(None), next)),
            length => {
                let end = next + length as usize;
                assert_eq!(bytes.get(end..end + 2)?, b"\r\n", "a bulk reply does not end");
                Some((Reply::Bulk(Some(&bytes[next..end])), end + 2))
            }
        },
        b'*' => {
            let mut at = next;
            let mut items = Vec::new();
            for _ in 0..parse(text) {
                let (item, length) = reply(&bytes[at..])?;
                items.push(item);
                at += length;
            }
            Some((Reply::Array(items), at))
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
