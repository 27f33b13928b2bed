//! What a tenant is told, of which the prefix is taken away wherever a reply names keys or channels.
//!
//! Which commands' replies do is a short list; a test asks a real server all commands and compares what a tenant is told with
//! what somebody is told who has a server for himself. What does not have the prefix is nobody's to see: of a list it is left
//! out, elsewhere the reply is an error.

use super::names;
use super::requests::bulk;
use crate::acl::Prefix;
use crate::resp::reply::bulk as text_of;
use crate::resp::{ReplyResume, Skim, skim, write};

/// What is told of names in a command's reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::engine) enum Shape {
    /// Nothing.
    #[default]
    Nothing,
    /// Its first element is a key (BLPOP, LMPOP and their kin).
    First,
    /// Pairs of a key and what there is in it, or in RESP3 a map of those (XREAD).
    Streams,
    /// Behind a cursor is a list of keys (SCAN).
    Scan,
    /// A list of keys (KEYS).
    Keys,
    /// A list of channels (PUBSUB CHANNELS).
    Channels,
    /// Channels and numbers by turns (PUBSUB NUMSUB).
    Numbers,
    /// Only in errors: that a key or a group of it is not there (XPENDING, XCLAIM and so on).
    Errors,
    /// What a transaction's commands are told (EXEC).
    Exec,
}

impl Shape {
    /// That of a command's reply.
    #[inline]
    pub(super) fn of(name: &str) -> Self {
        // All of them begin with one of these.
        if !matches!(name.as_bytes().first(), Some(b'b' | b'l' | b'z' | b'x' | b's' | b'k' | b'p' | b'e')) {
            return Self::Nothing;
        }
        match name {
            "blpop" | "brpop" | "bzpopmin" | "bzpopmax" | "lmpop" | "blmpop" | "zmpop" | "bzmpop" => Self::First,
            "xread" | "xreadgroup" => Self::Streams,
            "scan" => Self::Scan,
            "keys" => Self::Keys,
            "pubsub|channels" | "pubsub|shardchannels" => Self::Channels,
            "pubsub|numsub" | "pubsub|shardnumsub" => Self::Numbers,
            "exec" => Self::Exec,
            _ => Self::of_first(name),
        }
    }

    /// The same of a command whose only name is its first argument: none of these lists names.
    #[inline]
    pub(super) fn of_first(name: &str) -> Self {
        if name.as_bytes().first() == Some(&b'x') { Self::Errors } else { Self::Nothing }
    }
}

/// The error for a reply that does not look as its command's replies do.
const MISFIT: &[u8] = b"-ERR a shard's reply does not fit the command\r\n";

/// Appends a reply as the tenant is told it; `queued` are the shapes of what an EXEC has carried out.
pub(super) fn view(shape: Shape, reply: &[u8], prefix: &Prefix, queued: &[Shape], out: &mut Vec<u8>) {
    let start = out.len();
    if one(shape, reply, prefix, queued, out).is_none() {
        out.truncate(start);
        out.extend_from_slice(MISFIT);
    }
}

fn one(shape: Shape, reply: &[u8], prefix: &Prefix, queued: &[Shape], out: &mut Vec<u8>) -> Option<()> {
    if reply.first() == Some(&b'-') {
        error(reply, prefix, out);
        return Some(());
    }
    if matches!(shape, Shape::Nothing | Shape::Errors) {
        out.extend_from_slice(reply);
        return Some(());
    }
    let Some(Parts { head, count, rest, kind }) = Parts::of(reply) else {
        out.extend_from_slice(reply);
        // A null, a number, a word: nothing that could be a list of names.
        return (reply.first() != Some(&b'$') || reply.starts_with(b"$-1")).then_some(());
    };
    let mut rest = rest;
    match shape {
        Shape::Nothing | Shape::Errors => {}
        Shape::First => {
            out.extend_from_slice(head);
            if count > 0 {
                key(take(&mut rest)?, prefix, out)?;
            }
            out.extend_from_slice(rest);
        }
        Shape::Streams => {
            out.extend_from_slice(head);
            for _ in 0..count {
                let mut pair = rest;
                if kind == b'%' {
                    key(take(&mut rest)?, prefix, out)?;
                    out.extend_from_slice(take(&mut rest)?);
                } else {
                    take(&mut rest)?;
                    pair = pair.get(..pair.len().checked_sub(rest.len())?)?;
                    one(Shape::First, pair, prefix, &[], out)?;
                }
            }
        }
        Shape::Scan => {
            out.extend_from_slice(head);
            out.extend_from_slice(take(&mut rest)?);
            one(Shape::Keys, take(&mut rest)?, prefix, &[], out)?;
        }
        Shape::Keys | Shape::Channels => {
            let (mut elements, mut kept) = (Vec::new(), 0u64);
            for _ in 0..count {
                let name = text_of(take(&mut rest)?)?;
                let own = match shape {
                    Shape::Keys => name.strip_prefix(prefix.plain()).map(|key| (&b""[..], key)),
                    _ => names::own(name, prefix.plain()),
                };
                if let Some((before, behind)) = own {
                    bulk(&mut elements, &[before, behind]);
                    kept = kept.saturating_add(1);
                }
            }
            out.push(kind);
            write::number(out, kept);
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(&elements);
        }
        Shape::Numbers => {
            out.extend_from_slice(head);
            for at in 0..count {
                let element = take(&mut rest)?;
                if at.is_multiple_of(2) {
                    let (before, behind) = names::own(text_of(element)?, prefix.plain())?;
                    bulk(out, &[before, behind]);
                } else {
                    out.extend_from_slice(element);
                }
            }
        }
        Shape::Exec => {
            if count != queued.len() as u64 {
                return None;
            }
            out.extend_from_slice(head);
            for shape in queued {
                one(*shape, take(&mut rest)?, prefix, &[], out)?;
            }
        }
    }
    Some(())
}

/// A key, without the prefix; a null stays one.
fn key(element: &[u8], prefix: &Prefix, out: &mut Vec<u8>) -> Option<()> {
    bulk(out, &[text_of(element)?.strip_prefix(prefix.plain())?]);
    Some(())
}

/// An error of a stream, which quotes the key: `NOGROUP No such key 'k' or consumer group 'g'`, and `NOGROUP No such consumer
/// group 'g' for key name 'k'`.
fn error(reply: &[u8], prefix: &Prefix, out: &mut Vec<u8>) {
    let at = if reply.starts_with(b"-NOGROUP No such key '") {
        Some(b"-NOGROUP No such key '".len())
    } else if reply.starts_with(b"-NOGROUP ") {
        let word = b"for key name '";
        reply.windows(word.len()).rposition(|window| window == word).map(|at| at.saturating_add(word.len()))
    } else {
        None
    };
    match at.and_then(|at| reply.split_at_checked(at)) {
        Some((before, behind)) => {
            out.extend_from_slice(before);
            out.extend_from_slice(behind.strip_prefix(prefix.plain()).unwrap_or(behind));
        }
        None => out.extend_from_slice(reply),
    }
}

/// An aggregate.
struct Parts<'a> {
    kind: u8,
    head: &'a [u8],
    count: u64,
    rest: &'a [u8],
}

impl<'a> Parts<'a> {
    /// `None` for what is none, or null.
    fn of(reply: &'a [u8]) -> Option<Self> {
        let kind = *reply.first().filter(|kind| b"*~%>".contains(kind))?;
        let end = memchr::memchr(b'\n', reply)?.checked_add(1)?;
        let (head, rest) = reply.split_at_checked(end)?;
        let digits = head.get(1..head.len().checked_sub(2)?)?;
        let count = std::str::from_utf8(digits).ok()?.parse().ok()?;
        Some(Self { kind, head, count, rest })
    }
}

/// The next element.
fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let Ok(Skim::Reply(length)) = skim(rest, &mut ReplyResume::default()) else { return None };
    let (element, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(element)
}

/// Appends a message as a tenant gets it; nothing, if it is not for it.
pub(super) fn message(frame: &[u8], prefix: &Prefix, out: &mut Vec<u8>) -> Option<()> {
    let Parts { head, mut rest, count, .. } = Parts::of(frame)?;
    let (start, word) = (out.len(), take(&mut rest)?);
    let told = (|| {
        out.extend_from_slice(head);
        out.extend_from_slice(word);
        if count > 3 {
            let (before, behind) = names::own_topic(text_of(take(&mut rest)?)?, true, prefix)?;
            bulk(out, &[before, behind]);
        }
        let channel = text_of(take(&mut rest)?)?;
        let (before, behind) = names::own_topic(channel, false, prefix)?;
        bulk(out, &[before, behind]);
        // Of sharded channels none tells of keys.
        if names::is_event(channel) {
            key(take(&mut rest)?, prefix, out)?;
        }
        out.extend_from_slice(rest);
        Some(())
    })();
    if told.is_none() {
        out.truncate(start);
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seen(shape: Shape, reply: &str) -> String {
        let mut out = Vec::new();
        view(shape, reply.as_bytes(), &Prefix::new("t:").unwrap(), &[Shape::Nothing, Shape::First], &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn names_in_replies_are_the_tenants() {
        for (shape, reply, expected) in [
            (Shape::First, "*2\r\n$3\r\nt:k\r\n$3\r\nt:v\r\n", "*2\r\n$1\r\nk\r\n$3\r\nt:v\r\n"),
            (Shape::First, "*-1\r\n", "*-1\r\n"),
            (Shape::First, "_\r\n", "_\r\n"),
            (Shape::First, "$-1\r\n", "$-1\r\n"),
            (Shape::First, "-WRONGTYPE t:k\r\n", "-WRONGTYPE t:k\r\n"),
            (Shape::Streams, "*1\r\n*2\r\n$3\r\nt:k\r\n*0\r\n", "*1\r\n*2\r\n$1\r\nk\r\n*0\r\n"),
            (Shape::Streams, "%1\r\n$3\r\nt:k\r\n*0\r\n", "%1\r\n$1\r\nk\r\n*0\r\n"),
            (Shape::Scan, "*2\r\n$1\r\n7\r\n*2\r\n$3\r\nt:k\r\n$3\r\nu:k\r\n", "*2\r\n$1\r\n7\r\n*1\r\n$1\r\nk\r\n"),
            (Shape::Keys, "*2\r\n$3\r\nu:k\r\n$2\r\nt:\r\n", "*1\r\n$0\r\n\r\n"),
            (Shape::Keys, "~1\r\n$3\r\nt:k\r\n", "~1\r\n$1\r\nk\r\n"),
            (
                Shape::Channels,
                "*3\r\n$3\r\nt:c\r\n$3\r\nu:c\r\n$18\r\n__keyspace@0__:t:k\r\n",
                "*2\r\n$1\r\nc\r\n$16\r\n__keyspace@0__:k\r\n",
            ),
            (Shape::Numbers, "*2\r\n$3\r\nt:c\r\n:1\r\n", "*2\r\n$1\r\nc\r\n:1\r\n"),
            (
                Shape::Exec,
                "*2\r\n$3\r\nt:v\r\n*2\r\n$3\r\nt:k\r\n$1\r\nv\r\n",
                "*2\r\n$3\r\nt:v\r\n*2\r\n$1\r\nk\r\n$1\r\nv\r\n",
            ),
            (Shape::Exec, "*-1\r\n", "*-1\r\n"),
            (
                Shape::Errors,
                "-NOGROUP No such key 't:k' or consumer group 'g'\r\n",
                "-NOGROUP No such key 'k' or consumer group 'g'\r\n",
            ),
            (
                Shape::Errors,
                "-NOGROUP No such consumer group 'for key name 't:' for key name 't:k'\r\n",
                "-NOGROUP No such consumer group 'for key name 't:' for key name 'k'\r\n",
            ),
        ] {
            assert_eq!(seen(shape, reply), expected, "{shape:?} {reply}");
        }
    }

    #[test]
    fn what_is_not_the_tenants_is_not_told() {
        for (shape, reply) in [
            (Shape::First, "*2\r\n$3\r\nu:k\r\n$1\r\nv\r\n"),
            (Shape::Streams, "*1\r\n*2\r\n$3\r\nu:k\r\n*0\r\n"),
            (Shape::Numbers, "*2\r\n$3\r\nu:c\r\n:1\r\n"),
            (Shape::Exec, "*1\r\n$3\r\nt:v\r\n"),
            (Shape::Keys, "$3\r\nu:k\r\n"),
        ] {
            assert_eq!(seen(shape, reply).as_bytes(), MISFIT, "{shape:?} {reply}");
        }
    }

    proptest! {
        /// Whatever a server says: what is told of keys is told without the prefix, and nothing is a panic.
        #[test]
        fn no_reply_is_a_panic(parts in proptest::collection::vec(0usize..12, 0..12)) {
            const PARTS: [&str; 12] = [
                "*2\r\n", "$3\r\nt:k\r\n", "$1\r\n7\r\n", "%1\r\n", "*-1\r\n", "_\r\n", ":1\r\n", "-NOGROUP x\r\n", "*99999999999\r\n",
                "~1\r\n", "$-1\r\n", "$9\r\nx",
            ];
            let reply: String = parts.iter().map(|&part| PARTS[part]).collect();
            for shape in [Shape::First, Shape::Streams, Shape::Scan, Shape::Keys, Shape::Channels, Shape::Numbers, Shape::Exec] {
                // What comes first there is no name: it is what was asked, or a cursor.
                let is_open = matches!(shape, Shape::Exec | Shape::Scan);
                prop_assert!(is_open || !seen(shape, &reply).starts_with("*2\r\n$3\r\nt:k"), "{shape:?}");
            }
            let mut out = Vec::new();
            let _ = message(reply.as_bytes(), &Prefix::new("t:").unwrap(), &mut out);
        }
    }

    #[test]
    fn messages_are_told_to_whom_they_are_for() {
        let told = |frame: &str| {
            let mut out = Vec::new();
            message(frame.as_bytes(), &Prefix::new("t:").unwrap(), &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            told("*3\r\n$7\r\nmessage\r\n$3\r\nt:c\r\n$3\r\nt:x\r\n"),
            "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$3\r\nt:x\r\n"
        );
        assert_eq!(
            told("*4\r\n$8\r\npmessage\r\n$3\r\nt:*\r\n$3\r\nt:c\r\n$1\r\nx\r\n"),
            "*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\nc\r\n$1\r\nx\r\n"
        );
        let event =
            |key: &str| format!("*3\r\n$7\r\nmessage\r\n$18\r\n__keyevent@0__:set\r\n${}\r\n{key}\r\n", key.len());
        assert_eq!(told(&event("t:k")), event("k"));
        assert_eq!(told(&event("u:k")), "");
        assert_eq!(told("*3\r\n$7\r\nmessage\r\n$3\r\nu:c\r\n$3\r\nt:x\r\n"), "");
    }
}
