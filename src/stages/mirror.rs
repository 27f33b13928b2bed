//! What of a pool's traffic is also sent to another pool (`mirror`), and when two replies say the same.
//!
//! Promises: whether a key is chosen depends on its name and the share alone, so that all processes and workers choose the same
//! keys at all times, and a greater share chooses all that a smaller one does. Keys with the same hash tag (`{...}`) are chosen
//! together. Who sends, and what for, is the engine's (`engine::mirror`).

use crate::command::Access;
use std::fmt;
use std::hash::Hasher;
use std::str::FromStr;

/// The whole of what there is, in the parts that a share is counted in.
pub const WHOLE: u32 = 1000;

/// Which requests a mirror gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Commands {
    /// Those that only read.
    Reads,
    /// Those that may change their keys.
    #[default]
    Writes,
    /// Both.
    All,
}

impl Commands {
    /// Every word, in the order in which they are told.
    pub const ALL: [(&str, Self); 3] = [("reads", Self::Reads), ("writes", Self::Writes), ("all", Self::All)];

    /// Whether requests of this kind are among them.
    #[must_use]
    pub fn have(self, access: Access) -> bool {
        match access {
            Access::Read => self != Self::Writes,
            Access::Write => self != Self::Reads,
            Access::Neither => false,
        }
    }
}

impl FromStr for Commands {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.iter().find(|(word, _)| *word == text).map(|&(_, commands)| commands).ok_or(())
    }
}

impl fmt::Display for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::ALL.iter().find(|(_, commands)| commands == self).map_or("", |(word, _)| word))
    }
}

/// What is also sent to another pool, and to which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirroring {
    /// The name of the other pool.
    pub to: String,
    /// Of how many keys, in parts of [`WHOLE`].
    pub share: u32,
    /// Which requests.
    pub commands: Commands,
    /// Of keys that begin so; of all where there are none.
    pub prefixes: Vec<Box<[u8]>>,
    /// Whether replies to reads are compared.
    pub compare: bool,
}

impl Mirroring {
    /// Whether requests for this key are mirrored.
    #[must_use]
    pub fn has(&self, key: &[u8]) -> bool {
        let begins = self.prefixes.is_empty() || self.prefixes.iter().any(|prefix| key.starts_with(prefix));
        begins && (self.share >= WHOLE || part_of(key) < u64::from(self.share))
    }
}

/// In which part of [`WHOLE`] a key is: FNV-1a of what decides its slot in a cluster, mixed (the finalizer of MurmurHash3), so that
/// it has nothing to do with where rings put keys.
fn part_of(key: &[u8]) -> u64 {
    let mut hash = tagged(key)
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (u128::from(hash ^ (hash >> 33)).wrapping_mul(u128::from(WHOLE)) >> 64) as u64
}

/// What stands between a key's first `{` and the next `}`, if that is anything; else the key.
fn tagged(key: &[u8]) -> &[u8] {
    let tag = || {
        let rest = key.get(key.iter().position(|&byte| byte == b'{')?.saturating_add(1)..)?;
        rest.get(..rest.iter().position(|&byte| byte == b'}')?).filter(|tag| !tag.is_empty())
    };
    tag().unwrap_or(key)
}

/// In which order the elements of a reply come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// It is part of what is said.
    Told,
    /// Any: a set.
    Any,
    /// Pairs, which come in any.
    Pairs,
}

/// Reads of one key whose replies say the same wherever the key has the same value, and in which order their elements come.
/// Absent on purpose: times to live, whatever is drawn by chance or goes in steps, and what is about a server.
const COMPARED: [(&str, Order); 52] = [
    ("bitcount", Order::Told),
    ("bitfield_ro", Order::Told),
    ("bitpos", Order::Told),
    ("exists", Order::Told),
    ("geodist", Order::Told),
    ("geohash", Order::Told),
    ("geopos", Order::Told),
    ("get", Order::Told),
    ("getbit", Order::Told),
    ("getrange", Order::Told),
    ("hexists", Order::Told),
    ("hget", Order::Told),
    ("hgetall", Order::Pairs),
    ("hkeys", Order::Any),
    ("hlen", Order::Told),
    ("hmget", Order::Told),
    ("hstrlen", Order::Told),
    ("hvals", Order::Any),
    ("lindex", Order::Told),
    ("llen", Order::Told),
    ("lpos", Order::Told),
    ("lrange", Order::Told),
    ("mget", Order::Told),
    ("pfcount", Order::Told),
    ("scard", Order::Told),
    ("sismember", Order::Told),
    ("smembers", Order::Any),
    ("smismember", Order::Told),
    ("strlen", Order::Told),
    ("substr", Order::Told),
    ("type", Order::Told),
    ("xlen", Order::Told),
    ("xrange", Order::Told),
    ("xrevrange", Order::Told),
    ("zcard", Order::Told),
    ("zcount", Order::Told),
    ("zlexcount", Order::Told),
    ("zmscore", Order::Told),
    ("zrange", Order::Told),
    ("zrangebylex", Order::Told),
    ("zrangebyscore", Order::Told),
    ("zrank", Order::Told),
    ("zrevrange", Order::Told),
    ("zrevrangebylex", Order::Told),
    ("zrevrangebyscore", Order::Told),
    ("zrevrank", Order::Told),
    ("zscore", Order::Told),
    ("json.get", Order::Told),
    ("json.mget", Order::Told),
    ("json.type", Order::Told),
    ("ts.get", Order::Told),
    ("ts.range", Order::Told),
];

/// How replies to a command are compared; `None` where they are not.
#[must_use]
pub fn order_of(command: &str) -> Option<Order> {
    COMPARED.iter().find(|(name, _)| *name == command).map(|&(_, order)| order)
}

/// What a reply says, in 64 bits: the same for two replies that say the same, whichever protocol each is worded in. `None` for an
/// error that says something of the server and not of the key, and for what is no reply.
///
/// Of RESP3's words those are known that RESP2 says otherwise: null, numbers with a point, maps and sets, pairs as arrays of their
/// own.
#[must_use]
pub fn digest(reply: &[u8], order: Order) -> Option<u64> {
    let mut leaves = Leaves { rest: reply };
    let (mut all, mut count, mut first) = (0_u64, 0_u64, None);
    while let Some(leaf) = leaves.next_hash()? {
        count = count.wrapping_add(1);
        match order {
            Order::Told => all = mixed(all, leaf),
            Order::Any => all = all.wrapping_add(leaf),
            Order::Pairs => match first.take() {
                None => first = Some(leaf),
                Some(name) => all = all.wrapping_add(mixed(name, leaf)),
            },
        }
    }
    Some(mixed(mixed(all, count), first.unwrap_or(0)))
}

fn mixed(before: u64, next: u64) -> u64 {
    hash_of(0, &[before.to_le_bytes(), next.to_le_bytes()].concat())
}

/// SipHash with fixed keys: nobody who could choose values has anything to win.
fn hash_of(kind: u8, bytes: &[u8]) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write_u8(kind);
    hasher.write(bytes);
    hasher.finish()
}

/// The parts of a reply that have no parts, in their order.
struct Leaves<'a> {
    rest: &'a [u8],
}

impl Leaves<'_> {
    /// The next one; nothing at the end, and `None` where nothing can be said of the reply.
    fn next_hash(&mut self) -> Option<Option<u64>> {
        loop {
            let Some((&mark, rest)) = self.rest.split_first() else { return Some(None) };
            let end = rest.windows(2).position(|two| two == b"\r\n")?;
            let (line, behind) = (rest.get(..end)?, rest.get(end.saturating_add(2)..)?);
            self.rest = behind;
            let leaf = match mark {
                b'_' => hash_of(b'_', b""),
                b'$' | b'*' if line == b"-1" => hash_of(b'_', b""),
                b'$' | b'=' => {
                    let length: usize = std::str::from_utf8(line).ok()?.parse().ok()?;
                    let text = behind.get(..length)?;
                    self.rest = behind.get(length.checked_add(2)?..)?;
                    hash_of(b'$', if mark == b'=' { text.get(4..)? } else { text })
                }
                // What RESP2 says in a bulk string.
                b',' => hash_of(b'$', line),
                b'#' => hash_of(b':', if line == b"t" { b"1" } else { b"0" }),
                b':' | b'+' | b'(' => hash_of(mark, line),
                b'*' | b'%' | b'~' if line == b"0" => hash_of(b'*', b""),
                b'*' | b'%' | b'~' => continue,
                b'-' if line.starts_with(b"WRONGTYPE ") => hash_of(b'-', b"WRONGTYPE"),
                _ => return None,
            };
            return Some(Some(leaf));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirroring(share: u32, prefixes: &[&str]) -> Mirroring {
        Mirroring {
            to: "other".into(),
            share,
            commands: Commands::All,
            prefixes: prefixes.iter().map(|prefix| prefix.as_bytes().into()).collect(),
            compare: false,
        }
    }

    #[test]
    fn a_share_is_a_share_of_the_keys_and_the_same_ones_always() {
        for (share, least, most) in [(0, 0, 0), (1, 50, 150), (250, 24_000, 26_000), (WHOLE, 100_000, 100_000)] {
            let mirroring = mirroring(share, &[]);
            let chosen = (0..100_000).filter(|n| mirroring.has(format!("key:{n}").as_bytes())).count();
            assert!((least..=most).contains(&chosen), "{share}: {chosen}");
        }
        let (less, more) = (mirroring(100, &[]), mirroring(101, &[]));
        let keys = || (0..10_000).map(|n| format!("user:{n}"));
        assert!(keys().all(|key| !less.has(key.as_bytes()) || more.has(key.as_bytes())));
        // Pinned: another release must choose the same keys.
        let chosen: Vec<usize> = (0..40).filter(|n| mirroring(250, &[]).has(format!("key:{n}").as_bytes())).collect();
        assert_eq!(chosen, [1, 5, 7, 11, 23, 26, 29, 33]);
    }

    #[test]
    fn keys_of_one_tag_are_chosen_together() {
        let mirroring = mirroring(500, &[]);
        for n in 0..100 {
            let one = mirroring.has(format!("{{user:{n}}}:a").as_bytes());
            assert_eq!(mirroring.has(format!("b:{{user:{n}}}").as_bytes()), one);
            assert_eq!(mirroring.has(format!("user:{n}").as_bytes()), one);
        }
        assert_eq!((tagged(b"a{}b"), tagged(b"{x"), tagged(b"{x}{y}")), (&b"a{}b"[..], &b"{x"[..], &b"x"[..]));
    }

    #[test]
    fn only_keys_that_begin_so() {
        let mirroring = mirroring(WHOLE, &["a:", "b:"]);
        assert!(mirroring.has(b"a:1") && mirroring.has(b"b:1") && !mirroring.has(b"c:1"));
    }

    fn says(reply: &str, order: Order) -> Option<u64> {
        digest(reply.as_bytes(), order)
    }

    #[test]
    fn the_same_is_said_in_either_protocol() {
        for (two, three) in [
            ("$-1\r\n", "_\r\n"),
            ("*-1\r\n", "_\r\n"),
            ("$3\r\n1.5\r\n", ",1.5\r\n"),
            ("*2\r\n$1\r\na\r\n$1\r\nb\r\n", "%1\r\n$1\r\na\r\n$1\r\nb\r\n"),
            (
                "*4\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$1\r\n2\r\n",
                "*2\r\n*2\r\n$1\r\na\r\n,1\r\n*2\r\n$1\r\nb\r\n,2\r\n",
            ),
            (":1\r\n", "#t\r\n"),
            ("*0\r\n", "~0\r\n"),
        ] {
            assert!(says(two, Order::Told).is_some());
            assert_eq!(says(two, Order::Told), says(three, Order::Told), "{two:?}");
        }
        for (one, other) in [
            ("$1\r\na\r\n", "$1\r\nb\r\n"),
            ("$-1\r\n", "$0\r\n\r\n"),
            ("*0\r\n", "*-1\r\n"),
            (":1\r\n", "$1\r\n1\r\n"),
            ("*2\r\n:1\r\n:2\r\n", "*2\r\n:2\r\n:1\r\n"),
            ("*1\r\n:1\r\n", "*2\r\n:1\r\n:1\r\n"),
            ("-WRONGTYPE x\r\n", "$-1\r\n"),
        ] {
            assert_ne!(says(one, Order::Told), says(other, Order::Told), "{one:?}");
        }
    }

    #[test]
    fn sets_have_no_order_and_pairs_stay_together() {
        let (ab, ba) = ("*2\r\n$1\r\na\r\n$1\r\nb\r\n", "*2\r\n$1\r\nb\r\n$1\r\na\r\n");
        assert_eq!(says(ab, Order::Any), says(ba, Order::Any));
        assert_ne!(says(ab, Order::Pairs), says(ba, Order::Pairs));
        let (one, other) = ("*4\r\n:1\r\n:2\r\n:3\r\n:4\r\n", "*4\r\n:3\r\n:4\r\n:1\r\n:2\r\n");
        assert_eq!(says(one, Order::Pairs), says(other, Order::Pairs));
        assert_ne!(says(one, Order::Pairs), says("*4\r\n:1\r\n:4\r\n:3\r\n:2\r\n", Order::Pairs));
    }

    #[test]
    fn an_error_of_a_servers_own_says_nothing() {
        for none in ["-ERR no\r\n", "-LOADING x\r\n", "$5\r\nab", "x", "$x\r\n"] {
            assert_eq!(says(none, Order::Told), None, "{none:?}");
        }
        assert_eq!(says("-WRONGTYPE a\r\n", Order::Told), says("-WRONGTYPE b\r\n", Order::Told));
    }

    #[test]
    fn what_is_compared_are_reads() {
        for (name, _) in COMPARED {
            let spec = crate::command::lookup(name.as_bytes());
            assert!(spec.is_none_or(|spec| spec.access == Access::Read), "{name}");
        }
        assert!(order_of("ttl").is_none() && order_of("srandmember").is_none() && order_of("get") == Some(Order::Told));
    }
}
