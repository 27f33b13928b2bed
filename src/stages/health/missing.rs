//! What a shard answers to a read of a key that it does not have, for a shard that is ejected (`when_ejected: miss`).
//!
//! Promises: byte for byte what Redis 7 answers, in both protocols; a test asks a real one. Only for forms whose arguments
//! are surely well formed: what a shard would perhaps answer with an error is refused, as writes are. Commands whose keys may
//! live on several shards are told of part by part ([`part`]).

use crate::command::{Merge, Spec, flag};
use crate::resp::{Request, write};

/// The commands of one key that are answered for, in the order of the list below.
pub const ANSWERED: &[&str] = &[
    "get",
    "dump",
    "strlen",
    "getrange",
    "substr",
    "getbit",
    "bitcount",
    "bitpos",
    "type",
    "ttl",
    "pttl",
    "expiretime",
    "pexpiretime",
    "hget",
    "hmget",
    "hgetall",
    "hkeys",
    "hvals",
    "hlen",
    "hexists",
    "hstrlen",
    "hrandfield",
    "hscan",
    "llen",
    "lindex",
    "lrange",
    "lpos",
    "scard",
    "smembers",
    "sismember",
    "smismember",
    "srandmember",
    "sscan",
    "zcard",
    "zscore",
    "zmscore",
    "zrank",
    "zrevrank",
    "zcount",
    "zrange",
    "zrevrange",
    "zrangebyscore",
    "zrevrangebyscore",
    "zrandmember",
    "zscan",
    "geopos",
    "geohash",
    "geodist",
    "xlen",
    "xrange",
    "xrevrange",
];

/// What is said.
enum Said {
    Null,
    Nulls(usize),
    NullArrays(usize),
    Number(i64),
    Zeros(usize),
    None,
    Empty,
    Array,
    Map,
    Set,
    Scan,
}

/// Appends the reply to a request for one key; false, and nothing is appended, where none is surely right.
#[must_use]
pub fn reply(spec: &Spec, request: &Request<'_>, resp3: bool, out: &mut Vec<u8>) -> bool {
    let Some(said) = said(spec.name, request) else { return false };
    match said {
        Said::Null => null(out, resp3),
        Said::Nulls(count) => {
            write::array(out, count);
            (0..count).for_each(|_| null(out, resp3));
        }
        Said::NullArrays(count) => {
            write::array(out, count);
            (0..count).for_each(|_| write::null_array(out, resp3));
        }
        Said::Number(number) => write::integer(out, number),
        Said::Zeros(count) => {
            write::array(out, count);
            (0..count).for_each(|_| write::integer(out, 0));
        }
        Said::None => write::simple(out, b"none"),
        Said::Empty => write::bulk(out, b""),
        Said::Array => write::array(out, 0),
        Said::Map => out.extend_from_slice(if resp3 { b"%0\r\n" } else { b"*0\r\n" }),
        Said::Set => out.extend_from_slice(if resp3 { b"~0\r\n" } else { b"*0\r\n" }),
        Said::Scan => out.extend_from_slice(b"*2\r\n$1\r\n0\r\n*0\r\n"),
    }
    true
}

/// Appends the reply to a part of a split request, with so many keys; false where it is none that only reads.
#[must_use]
pub fn part(spec: &Spec, merge: Merge, keys: usize, resp3: bool, out: &mut Vec<u8>) -> bool {
    match merge {
        _ if spec.flags & flag::READONLY == 0 => return false,
        Merge::Array => {
            write::array(out, keys);
            (0..keys).for_each(|_| null(out, resp3));
        }
        Merge::Sum => write::integer(out, 0),
        _ => return false,
    }
    true
}

fn null(out: &mut Vec<u8>, resp3: bool) {
    out.extend_from_slice(if resp3 { b"_\r\n" } else { b"$-1\r\n" });
}

fn said(name: &str, request: &Request<'_>) -> Option<Said> {
    let argc = request.argc();
    let arg = |index: usize| request.arg(index).unwrap_or_default();
    let whole = |index: usize| whole(arg(index));
    let is = |index: usize, word: &str| arg(index).eq_ignore_ascii_case(word.as_bytes());
    let span = || whole(2).is_some() && whole(3).is_some();
    let with_scores = || argc == 4 || (argc == 5 && is(4, "withscores"));
    Some(match (name, argc) {
        ("get" | "dump" | "srandmember" | "hrandfield" | "zrandmember", 2) => Said::Null,
        ("srandmember" | "hrandfield" | "zrandmember", 3) if whole(2).is_some() => Said::Array,
        ("strlen" | "llen" | "hlen" | "scard" | "zcard" | "xlen" | "bitcount", 2) => Said::Number(0),
        ("ttl" | "pttl" | "expiretime" | "pexpiretime", 2) => Said::Number(-2),
        ("type", 2) => Said::None,
        ("hgetall", 2) => Said::Map,
        ("smembers", 2) => Said::Set,
        ("hkeys" | "hvals", 2) => Said::Array,
        ("hget" | "zscore" | "lpos" | "zrank" | "zrevrank", 3) | ("geodist", 4) => Said::Null,
        ("hexists" | "hstrlen" | "sismember", 3) => Said::Number(0),
        ("hmget" | "zmscore" | "geohash", 3..) => Said::Nulls(argc.saturating_sub(2)),
        ("smismember", 3..) => Said::Zeros(argc.saturating_sub(2)),
        ("geopos", 3..) => Said::NullArrays(argc.saturating_sub(2)),
        ("lindex", 3) if whole(2).is_some() => Said::Null,
        ("lrange", 4) if span() => Said::Array,
        ("getrange" | "substr", 4) if span() => Said::Empty,
        ("getbit", 3) if whole(2).is_some_and(|at| at >= 0) => Said::Number(0),
        ("bitcount", 4) if span() => Said::Number(0),
        ("bitcount", 5) if span() && (is(4, "byte") || is(4, "bit")) => Said::Number(0),
        ("bitpos", 3) if arg(2) == b"0" => Said::Number(0),
        ("bitpos", 3) if arg(2) == b"1" => Said::Number(-1),
        ("zrange" | "zrevrange", 4 | 5) if span() && with_scores() => Said::Array,
        ("zcount", 4) if score(arg(2)) && score(arg(3)) => Said::Number(0),
        ("zrangebyscore" | "zrevrangebyscore", 4 | 5) if score(arg(2)) && score(arg(3)) && with_scores() => Said::Array,
        ("xrange" | "xrevrange", 4) if matches!((arg(2), arg(3)), (b"-", b"+") | (b"+", b"-")) => Said::Array,
        ("hscan" | "sscan" | "zscan", 3..) if cursor(arg(2)) && scans(request) => Said::Scan,
        _ => return None,
    })
}

/// A whole number of moderate size, written as Redis writes it.
fn whole(text: &[u8]) -> Option<i32> {
    let number: i32 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == text).then_some(number)
}

/// A bound of a range of scores.
fn score(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"(").unwrap_or(text);
    let plain = text.strip_prefix(b"-").unwrap_or(text);
    let digits = !plain.is_empty() && plain.len() < 16 && plain.iter().all(u8::is_ascii_digit);
    digits || matches!(text, b"-inf" | b"+inf" | b"inf")
}

fn cursor(text: &[u8]) -> bool {
    !text.is_empty() && text.len() < 19 && text.iter().all(u8::is_ascii_digit)
}

/// Whether what follows the cursor is well formed.
fn scans(request: &Request<'_>) -> bool {
    let mut options = request.args().skip(3);
    while let Some(option) = options.next() {
        let Some(value) = options.next() else { return false };
        let fits = option.eq_ignore_ascii_case(b"match")
            || (option.eq_ignore_ascii_case(b"count") && whole(value).is_some_and(|count| count > 0));
        if !fits {
            return false;
        }
    }
    true
}
