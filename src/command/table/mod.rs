//! All commands, by family, and the index that finds them by name.
//!
//! Owned by hand: a test compares it with a real server's COMMAND. The index is built by the compiler, so that a look-up
//! is one multiplication and mostly one comparison of words, with nothing to initialise.

mod collections;
mod keyspace;
mod ordered;
pub(super) mod row;
mod server;
mod strings;

use super::Spec;
use super::more::taught;

const FAMILIES: [&[Spec]; 5] =
    [strings::COMMANDS, collections::COMMANDS, ordered::COMMANDS, keyspace::COMMANDS, server::COMMANDS];

/// How many commands there are, and how many subcommands.
const ROWS: (usize, usize) = rows();
/// How many of both: the numbers of [`Spec::number`] are below this.
pub const COUNT: usize = ROWS.0 + ROWS.1;

/// All commands that are not subcommands, family by family, each with its place as its number.
static COMMANDS: [Spec; ROWS.0] = commands();
/// All subcommands, those of a container side by side; their numbers go on.
static SUBCOMMANDS: [Spec; ROWS.1] = subcommands();

const fn rows() -> (usize, usize) {
    let (mut rows, mut below, mut family) = (0, 0, 0);
    while family < FAMILIES.len() {
        let mut row = 0;
        while row < FAMILIES[family].len() {
            below += FAMILIES[family][row].subcommands.len();
            row += 1;
        }
        rows += row;
        family += 1;
    }
    (rows, below)
}

const fn commands() -> [Spec; ROWS.0] {
    let mut all = [FAMILIES[0][0]; ROWS.0];
    let (mut at, mut below, mut family) = (0, 0, 0);
    while family < FAMILIES.len() {
        let mut row = 0;
        while row < FAMILIES[family].len() {
            let spec = FAMILIES[family][row];
            let (subcommands, _) = SUBCOMMANDS.split_at(below).1.split_at(spec.subcommands.len());
            below += subcommands.len();
            all[at] = spec.containing(subcommands).numbered(at);
            at += 1;
            row += 1;
        }
        family += 1;
    }
    all
}

const fn subcommands() -> [Spec; ROWS.1] {
    let mut all = [FAMILIES[0][0]; ROWS.1];
    let (mut at, mut family) = (0, 0);
    while family < FAMILIES.len() {
        let mut row = 0;
        while row < FAMILIES[family].len() {
            let below = FAMILIES[family][row].subcommands;
            let mut sub = 0;
            while sub < below.len() {
                all[at] = below[sub].numbered(ROWS.0 + at);
                at += 1;
                sub += 1;
            }
            row += 1;
        }
        family += 1;
    }
    all
}

/// Redis' command flags, as bits in the order in which COMMAND tells them; the names are in the same order.
#[allow(missing_docs, reason = "each is the Redis flag of that name")]
pub mod flag {
    pub const WRITE: u32 = 1;
    pub const READONLY: u32 = 1 << 1;
    pub const DENYOOM: u32 = 1 << 2;
    pub const ADMIN: u32 = 1 << 3;
    pub const PUBSUB: u32 = 1 << 4;
    pub const NOSCRIPT: u32 = 1 << 5;
    pub const BLOCKING: u32 = 1 << 6;
    pub const LOADING: u32 = 1 << 7;
    pub const STALE: u32 = 1 << 8;
    pub const SKIP_MONITOR: u32 = 1 << 9;
    pub const SKIP_SLOWLOG: u32 = 1 << 10;
    pub const ASKING: u32 = 1 << 11;
    pub const FAST: u32 = 1 << 12;
    pub const NO_AUTH: u32 = 1 << 13;
    pub const NO_MANDATORY_KEYS: u32 = 1 << 14;
    pub const NO_ASYNC_LOADING: u32 = 1 << 15;
    pub const NO_MULTI: u32 = 1 << 16;
    pub const ALLOW_BUSY: u32 = 1 << 17;
    pub const MOVABLE_KEYS: u32 = 1 << 18;
    /// Not one of Redis': perhaps to begin only when all that the session asked before is answered. COMMAND does not tell it.
    pub const SETTLED: u32 = 1 << 31;
}

/// The names of [`flag`]'s bits.
pub(super) const FLAGS: &[&str] = &[
    "write",
    "readonly",
    "denyoom",
    "admin",
    "pubsub",
    "noscript",
    "blocking",
    "loading",
    "stale",
    "skip_monitor",
    "skip_slowlog",
    "asking",
    "fast",
    "no_auth",
    "no_mandatory_keys",
    "no_async_loading",
    "no_multi",
    "allow_busy",
    "movablekeys",
];

/// Redis' ACL categories, as bits in the order in which COMMAND tells them.
pub(super) mod category {
    pub(in super::super) const KEYSPACE: u32 = 1;
    pub(in super::super) const READ: u32 = 1 << 1;
    pub(in super::super) const WRITE: u32 = 1 << 2;
    pub(in super::super) const SET: u32 = 1 << 3;
    pub(in super::super) const SORTED_SET: u32 = 1 << 4;
    pub(in super::super) const LIST: u32 = 1 << 5;
    pub(in super::super) const HASH: u32 = 1 << 6;
    pub(in super::super) const STRING: u32 = 1 << 7;
    pub(in super::super) const BITMAP: u32 = 1 << 8;
    pub(in super::super) const HYPERLOGLOG: u32 = 1 << 9;
    pub(in super::super) const GEO: u32 = 1 << 10;
    pub(in super::super) const STREAM: u32 = 1 << 11;
    pub(in super::super) const PUBSUB: u32 = 1 << 12;
    pub(in super::super) const ADMIN: u32 = 1 << 13;
    pub(in super::super) const FAST: u32 = 1 << 14;
    pub(in super::super) const SLOW: u32 = 1 << 15;
    pub(in super::super) const BLOCKING: u32 = 1 << 16;
    pub(in super::super) const DANGEROUS: u32 = 1 << 17;
    pub(in super::super) const CONNECTION: u32 = 1 << 18;
    pub(in super::super) const TRANSACTION: u32 = 1 << 19;
    pub(in super::super) const SCRIPTING: u32 = 1 << 20;
}

/// The names of [`category`]'s bits.
pub(super) const CATEGORIES: &[&str] = &[
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

/// All commands that are not subcommands, family by family.
pub fn all() -> impl Iterator<Item = &'static Spec> {
    COMMANDS.iter()
}

/// All commands and subcommands, in the order of their numbers.
pub fn numbered() -> impl Iterator<Item = &'static Spec> {
    COMMANDS.iter().chain(&SUBCOMMANDS)
}

/// The command of that name, in whatever case; a container for a subcommand's.
#[inline]
pub fn lookup(name: &[u8]) -> Option<&'static Spec> {
    let Some(packed) = pack(name) else { return taught(name) };
    let mut at = hash(packed);
    loop {
        let slot = &INDEX[at];
        let Some(spec) = slot.spec else { return taught(name) };
        if slot.name == packed && spec.name.len() == name.len() {
            return Some(spec);
        }
        at = (at + 1) % SLOTS;
    }
}

/// Slots of the index, some four to a command, so that few share one; a power of two.
const SLOTS: usize = 1024;
/// No command's name is longer, in bytes.
const LONGEST: usize = 24;

/// A name in lower case, as little-endian words with zeros after it.
type Packed = [u64; LONGEST / 8];

#[derive(Clone, Copy)]
struct Slot {
    name: Packed,
    spec: Option<&'static Spec>,
}

static INDEX: [Slot; SLOTS] = index();

const fn index() -> [Slot; SLOTS] {
    let mut slots = [Slot { name: [0; LONGEST / 8], spec: None }; SLOTS];
    let mut row = 0;
    while row < COMMANDS.len() {
        let spec = &COMMANDS[row];
        let name = packed_slowly(spec.name.as_bytes());
        let mut at = hash(name);
        while slots[at].spec.is_some() {
            at = (at + 1) % SLOTS;
        }
        slots[at] = Slot { name, spec: Some(spec) };
        row += 1;
    }
    slots
}

/// [`pack`] for the compiler, of a name in lower case.
const fn packed_slowly(name: &[u8]) -> Packed {
    assert!(name.len() <= LONGEST, "a command's name is too long for the index");
    let mut words = [0; LONGEST / 8];
    let mut at = 0;
    while at < name.len() {
        assert!(!name[at].is_ascii_uppercase(), "a command's name is in lower case");
        words[at / 8] |= (name[at] as u64) << (at % 8 * 8);
        at += 1;
    }
    words
}

/// Multiplicative hashing: the upper bits of a product with an odd number near 2^64 divided by the golden ratio. The rotations
/// are those with which the fewest of today's names share a slot.
const fn hash(name: Packed) -> usize {
    let mixed = name[0] ^ name[1].rotate_left(2) ^ name[2].rotate_left(47);
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SLOTS.trailing_zeros())) as usize
}

#[inline]
fn pack(name: &[u8]) -> Option<Packed> {
    Some(match name.len() {
        0..=8 => [word(name), 0, 0],
        9..=16 => [word(&name[..8]), word(&name[8..]), 0],
        17..=LONGEST => [word(&name[..8]), word(&name[8..16]), word(&name[16..])],
        _ => return None,
    })
}

/// Up to eight bytes as one word in lower case, read without a loop: in parts that overlap.
#[inline]
fn word(bytes: &[u8]) -> u64 {
    let length = bytes.len();
    let word = if let Some(whole) = bytes.first_chunk() {
        u64::from_le_bytes(*whole)
    } else if let (Some(low), Some(high)) = (bytes.first_chunk(), bytes.last_chunk()) {
        u64::from(u32::from_le_bytes(*low)) | u64::from(u32::from_le_bytes(*high)) << (8 * (length - 4))
    } else if length > 0 {
        let at = |index: usize| u64::from(bytes[index]) << (8 * index);
        at(0) | at(length / 2) | at(length - 1)
    } else {
        0
    };
    lower(word)
}

/// The bytes of a word in lower case. Adding to the lower seven bits of each byte carries into its top bit where the
/// byte is at least `A`, or above `Z`; bytes that had the top bit are no letters.
const fn lower(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let seven = word & (ONES * 0x7f);
    let from_a = seven + ONES * (0x80 - b'A' as u64);
    let above_z = seven + ONES * (0x7f - b'Z' as u64);
    let upper = from_a & !above_z & !word & (ONES * 0x80);
    word | upper >> 2
}

#[cfg(test)]
mod tests {
    use super::super::{Access, Keys, Treatment};
    use super::row::UNNUMBERED;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_command_is_found_in_any_case_and_nothing_else_is() {
        for spec in all() {
            let name = spec.name.as_bytes();
            let upper = name.to_ascii_uppercase();
            for spelled in [name, &upper] {
                assert!(lookup(spelled).is_some_and(|found| std::ptr::eq(found, spec)), "{}", spec.name);
            }
            assert_eq!(pack(&upper), Some(packed_slowly(name)), "{}", spec.name);
            for byte in [b'\0', b'\x7f', b'~'] {
                assert!(lookup(&[name, &[byte]].concat()).is_none(), "{}", spec.name);
            }
        }
        for unknown in [&b""[..], b"\0", b"foo", b"g\x65\xf4", b"xinfo|stream", &[b'x'; 25], &[0; 24]] {
            assert!(lookup(unknown).is_none(), "{unknown:?}");
        }
    }

    #[test]
    fn hardly_any_command_shares_its_slot() {
        let longest = all().map(|spec| {
            let home = hash(packed_slowly(spec.name.as_bytes()));
            let found = (0..SLOTS).find(|way| INDEX[(home + way) % SLOTS].spec.is_some_and(|s| std::ptr::eq(s, spec)));
            found.expect("every command is in the index")
        });
        let ways: Vec<usize> = longest.collect();
        assert!(ways.iter().all(|&way| way < 8), "{:?}", ways.iter().max());
        assert!(ways.iter().filter(|&&way| way == 0).count() * 10 > ways.len() * 7);
        for name in ["get", "set", "mget", "del", "hget", "incr", "expire", "exists", "ttl", "setex"] {
            let home = hash(packed_slowly(name.as_bytes()));
            assert!(INDEX[home].spec.is_some_and(|spec| spec.name == name), "{name} is not in its own slot");
        }
    }

    proptest! {
        #[test]
        fn packing_is_lower_case_of_letters_only(name in proptest::collection::vec(any::<u8>(), 0..=LONGEST)) {
            let expected = packed_slowly(&name.to_ascii_lowercase());
            prop_assert_eq!(pack(&name), Some(expected));
        }
    }

    #[test]
    fn every_command_has_its_number() {
        const { assert!(COUNT > 350 && COUNT < UNNUMBERED as usize) };
        assert_eq!(numbered().count(), COUNT);
        for (number, spec) in numbered().enumerate() {
            assert_eq!(spec.number(), Some(number), "{}", spec.name);
        }
        // What a request leads to are the same rows.
        for container in all() {
            for sub in container.subcommands {
                let found = numbered().find(|spec| spec.name == sub.name);
                assert!(found.is_some_and(|found| std::ptr::eq(found, sub)), "{}", sub.name);
            }
        }
    }

    #[test]
    fn the_table_holds_together() {
        let mut names = std::collections::HashSet::new();
        for container in all() {
            for spec in std::iter::once(container).chain(container.subcommands) {
                assert!(names.insert(spec.name), "{} twice", spec.name);
                assert_ne!(spec.arity, 0, "{}", spec.name);
                let routed = matches!(
                    spec.treatment,
                    Treatment::Forward | Treatment::Split(_) | Treatment::Own(crate::command::Need::Blocking)
                );
                // WAIT is about all keys, and goes where there is one shard.
                let about_all = spec.name.starts_with("wait");
                // What any shard can tell, so that the first one does.
                let any_shard = ["function|dump", "function|list", "function|stats", "script|show", "lolwut"];
                if routed && !about_all && !any_shard.contains(&spec.name) && spec.subcommands.is_empty() {
                    assert!(!matches!(spec.keys, Keys::None), "{} has no key to go by", spec.name);
                    assert_ne!(spec.access, Access::Neither, "{}", spec.name);
                }
                if spec.flags & flag::WRITE != 0 {
                    assert_eq!(spec.access, Access::Write, "{}", spec.name);
                }
                // A key's index must be within the arguments that the arity promises.
                if matches!(spec.keys, Keys::One) {
                    assert!(spec.arity.unsigned_abs() >= 2, "{}", spec.name);
                }
            }
            for sub in container.subcommands {
                assert!(sub.name.starts_with(&format!("{}|", container.name)), "{}", sub.name);
            }
        }
    }
}
