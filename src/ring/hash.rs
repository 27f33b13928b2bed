//! The twelve key hashes twemproxy offers, each giving the same 32 bits for the same key.
//!
//! Promises: equal to twemproxy 0.5.0 built for x86-64, on every CPU. Where its C code reads a key through `char`, bytes
//! from 0x80 on are sign-extended (x86 has a signed `char`, ARM has not), and so they are here. No input panics or
//! allocates.
//!
//! Does not promise quality: `crc32` has 15 bits, the FNV family hardly mixes a key's last byte into the high bits. None
//! of them withstands someone who chooses keys to collide.

use std::fmt;
use std::str::FromStr;

use md5::{Digest, Md5};

/// How a key becomes a 32-bit number: twemproxy's `hash:`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(non_camel_case_types, reason = "FNV-1a of 64 bits reads as nothing else")]
pub enum KeyHash {
    /// Bob Jenkins' one-at-a-time, with signed bytes.
    OneAtATime,
    /// The first four bytes of RFC 1321's digest, little-endian.
    Md5,
    /// CRC-16/XMODEM's table in a 32-bit register that is never cut to 16 bits; so *not* the slot function of Redis
    /// Cluster.
    Crc16,
    /// CRC-32 cut to 15 bits. Under `ketama` this sends all keys to one shard.
    Crc32,
    /// CRC-32 as in zlib.
    Crc32a,
    /// FNV-1, 64 bits, of which the low 32 are kept.
    Fnv1_64,
    /// FNV-1a with the low halves of the 64-bit constants, in 32-bit arithmetic. The default.
    #[default]
    Fnv1a_64,
    /// FNV-1, 32 bits, with signed bytes.
    Fnv1_32,
    /// FNV-1a, 32 bits, with signed bytes.
    Fnv1a_32,
    /// Paul Hsieh's SuperFastHash.
    Hsieh,
    /// Austin Appleby's MurmurHash2, seeded by the key's length.
    Murmur,
    /// Bob Jenkins' lookup3 (`hashlittle`) with 13 as the initial value.
    Jenkins,
}

impl KeyHash {
    /// All twelve, in the order twemproxy lists them.
    pub const ALL: [KeyHash; 12] = [
        KeyHash::OneAtATime,
        KeyHash::Md5,
        KeyHash::Crc16,
        KeyHash::Crc32,
        KeyHash::Crc32a,
        KeyHash::Fnv1_64,
        KeyHash::Fnv1a_64,
        KeyHash::Fnv1_32,
        KeyHash::Fnv1a_32,
        KeyHash::Hsieh,
        KeyHash::Murmur,
        KeyHash::Jenkins,
    ];

    /// The name in twemproxy's configuration.
    pub fn name(self) -> &'static str {
        match self {
            KeyHash::OneAtATime => "one_at_a_time",
            KeyHash::Md5 => "md5",
            KeyHash::Crc16 => "crc16",
            KeyHash::Crc32 => "crc32",
            KeyHash::Crc32a => "crc32a",
            KeyHash::Fnv1_64 => "fnv1_64",
            KeyHash::Fnv1a_64 => "fnv1a_64",
            KeyHash::Fnv1_32 => "fnv1_32",
            KeyHash::Fnv1a_32 => "fnv1a_32",
            KeyHash::Hsieh => "hsieh",
            KeyHash::Murmur => "murmur",
            KeyHash::Jenkins => "jenkins",
        }
    }

    /// The key's number. The caller decides about empty keys, whose number in a pool is 0 whatever this says.
    #[inline]
    pub fn hash(self, key: &[u8]) -> u32 {
        match self {
            KeyHash::OneAtATime => one_at_a_time(key),
            KeyHash::Md5 => md5_words(key)[0],
            KeyHash::Crc16 => crc16(key),
            KeyHash::Crc32 => (crc32(key) >> 16) & CRC32_MAX,
            KeyHash::Crc32a => crc32(key),
            KeyHash::Fnv1_64 => fnv1(key, FNV_64_INIT, FNV_64_PRIME),
            KeyHash::Fnv1a_64 => fnv1a(key, FNV_64_INIT, FNV_64_PRIME),
            KeyHash::Fnv1_32 => fnv1(key, FNV_32_INIT, FNV_32_PRIME),
            KeyHash::Fnv1a_32 => fnv1a(key, FNV_32_INIT, FNV_32_PRIME),
            KeyHash::Hsieh => hsieh(key),
            KeyHash::Murmur => murmur(key),
            KeyHash::Jenkins => jenkins(key),
        }
    }

    /// The largest number `hash` can give.
    pub(super) fn max(self) -> u32 {
        if self == KeyHash::Crc32 { CRC32_MAX } else { u32::MAX }
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for KeyHash {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<KeyHash, UnknownName> {
        let known = || KeyHash::ALL.iter().map(|hash| hash.name());
        KeyHash::ALL.into_iter().find(|hash| hash.name() == name).ok_or_else(|| UnknownName {
            what: "hash",
            name: name.to_owned(),
            known: known().collect(),
        })
    }
}

/// A name in the configuration that stands for nothing here; its message lists the names that do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownName {
    pub(super) what: &'static str,
    pub(super) name: String,
    pub(super) known: Vec<&'static str>,
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown {} `{}`; known are {}", self.what, self.name, self.known.join(", "))
    }
}

impl std::error::Error for UnknownName {}

/// The four little-endian words of an md5 digest. One call gives ketama four points.
pub(super) fn md5_words(bytes: &[u8]) -> [u32; 4] {
    let digest: [u8; 16] = Md5::digest(bytes).into();
    let (words, _) = digest.as_chunks::<4>();
    std::array::from_fn(|i| words.get(i).map_or(0, |word| u32::from_le_bytes(*word)))
}

/// Low halves of the 64-bit constants: multiplication modulo 2^32 needs no more, and only 32 bits of the result are kept.
const FNV_64_INIT: u32 = 0x8422_2325;
const FNV_64_PRIME: u32 = 0x1b3;
const FNV_32_INIT: u32 = 0x811c_9dc5;
const FNV_32_PRIME: u32 = 0x0100_0193;

const CRC32_MAX: u32 = 0x7fff;

/// A byte as C's `(uint32_t) char` reads it where `char` is signed.
#[inline]
fn signed(byte: u8) -> u32 {
    byte as i8 as u32
}

#[inline]
fn fnv1(key: &[u8], init: u32, prime: u32) -> u32 {
    key.iter().fold(init, |hash, &byte| hash.wrapping_mul(prime) ^ signed(byte))
}

#[inline]
fn fnv1a(key: &[u8], init: u32, prime: u32) -> u32 {
    key.iter().fold(init, |hash, &byte| (hash ^ signed(byte)).wrapping_mul(prime))
}

fn one_at_a_time(key: &[u8]) -> u32 {
    let mut hash = key.iter().fold(0u32, |hash, &byte| {
        let hash = hash.wrapping_add(signed(byte));
        let hash = hash.wrapping_add(hash << 10);
        hash ^ (hash >> 6)
    });
    hash = hash.wrapping_add(hash << 3);
    hash ^= hash >> 11;
    hash.wrapping_add(hash << 15)
}

static CRC16_TABLE: [u32; 256] = crc16_table();
static CRC32_TABLE: [u32; 256] = crc32_table();

pub(super) fn crc16(key: &[u8]) -> u32 {
    key.iter().fold(0, |crc, &byte| (crc << 8) ^ CRC16_TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

fn crc32(key: &[u8]) -> u32 {
    !key.iter().fold(!0, |crc, &byte| (crc >> 8) ^ CRC32_TABLE[usize::from(crc as u8 ^ byte)])
}

/// Polynomial 0x1021, most significant bit first.
const fn crc16_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = (i as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[i] = crc as u32;
        i += 1;
    }
    table
}

/// Polynomial 0x04c11db7, least significant bit first.
const fn crc32_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 0 { crc >> 1 } else { (crc >> 1) ^ 0xedb8_8320 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
}

fn hsieh(key: &[u8]) -> u32 {
    if key.is_empty() {
        return 0;
    }
    let pair = |a: u8, b: u8| u32::from(u16::from_le_bytes([a, b]));
    let (blocks, rest) = key.as_chunks::<4>();
    let mut hash = 0u32;
    for &[a, b, c, d] in blocks {
        hash = hash.wrapping_add(pair(a, b));
        hash = (hash << 16) ^ (pair(c, d) << 11) ^ hash;
        hash = hash.wrapping_add(hash >> 11);
    }
    match *rest {
        [a, b, c] => {
            hash = hash.wrapping_add(pair(a, b));
            hash ^= hash << 16;
            hash ^= signed(c) << 18; // the one byte read as `char`
            hash = hash.wrapping_add(hash >> 11);
        }
        [a, b] => {
            hash = hash.wrapping_add(pair(a, b));
            hash ^= hash << 11;
            hash = hash.wrapping_add(hash >> 17);
        }
        [a] => {
            hash = hash.wrapping_add(u32::from(a));
            hash ^= hash << 10;
            hash = hash.wrapping_add(hash >> 1);
        }
        _ => {}
    }
    for (left, right) in [(3, 5), (4, 17), (25, 6)] {
        hash ^= hash << left;
        hash = hash.wrapping_add(hash >> right);
    }
    hash
}

fn murmur(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let length = key.len() as u32; // C's cast; a key of 4 GiB cannot come here
    let mut hash = 0xdead_beef_u32.wrapping_mul(length) ^ length;
    let (blocks, rest) = key.as_chunks::<4>();
    for block in blocks {
        let word = u32::from_le_bytes(*block).wrapping_mul(M);
        let word = (word ^ (word >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ word;
    }
    if !rest.is_empty() {
        hash = (hash ^ little_endian(rest)).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

fn jenkins(key: &[u8]) -> u32 {
    let init = 0xdead_beef_u32.wrapping_add(key.len() as u32).wrapping_add(13);
    let (mut a, mut b, mut c) = (init, init, init);
    let mut rest = key;
    while rest.len() > 12 {
        let (block, tail) = rest.split_at(12);
        let words = jenkins_words(block);
        (a, b, c) = jenkins_mix(a.wrapping_add(words[0]), b.wrapping_add(words[1]), c.wrapping_add(words[2]));
        rest = tail;
    }
    if rest.is_empty() {
        return c;
    }
    let words = jenkins_words(rest);
    (a, b, c) = (a.wrapping_add(words[0]), b.wrapping_add(words[1]), c.wrapping_add(words[2]));
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

/// Up to twelve bytes as three little-endian words, zeros where there are no bytes.
fn jenkins_words(bytes: &[u8]) -> [u32; 3] {
    let mut words = [0; 3];
    for (word, part) in words.iter_mut().zip(bytes.chunks(4)) {
        *word = little_endian(part);
    }
    words
}

fn jenkins_mix(mut a: u32, mut b: u32, mut c: u32) -> (u32, u32, u32) {
    for (first, second, third) in [(4, 6, 8), (16, 19, 4)] {
        a = a.wrapping_sub(c) ^ c.rotate_left(first);
        c = c.wrapping_add(b);
        b = b.wrapping_sub(a) ^ a.rotate_left(second);
        a = a.wrapping_add(c);
        c = c.wrapping_sub(b) ^ b.rotate_left(third);
        b = b.wrapping_add(a);
    }
    (a, b, c)
}

/// At most four bytes as a little-endian number.
fn little_endian(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |word, &byte| (word << 8) | u32::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What twemproxy's own test suite expects of "apple".
    #[test]
    fn apple() {
        let expected = [
            ("one_at_a_time", 2_297_466_611),
            ("md5", 3_195_025_439),
            ("crc16", 3_662_830_516),
            ("crc32", 10_542),
            ("crc32a", 2_838_417_488),
            ("fnv1_64", 473_199_127),
            ("fnv1a_64", 1_488_911_807),
            ("fnv1_32", 67_176_023),
            ("fnv1a_32", 280_767_167),
            ("hsieh", 3_738_850_110),
            ("murmur", 4_142_305_122),
            ("jenkins", 1_442_444_624),
        ];
        for (name, number) in expected {
            let hash: KeyHash = name.parse().unwrap();
            assert_eq!(hash.hash(b"apple"), number, "{name}");
            assert_eq!(hash.to_string(), name);
        }
        assert_eq!(expected.len(), KeyHash::ALL.len());
    }

    #[test]
    fn ketama_points_of_a_label() {
        let words = md5_words(b"server1-8");
        assert_eq!((words[0], words[3]), (3_853_726_576, 2_667_054_752));
    }

    #[test]
    fn bytes_from_0x80_are_negative() {
        let unsigned = (FNV_64_INIT ^ 0xff).wrapping_mul(FNV_64_PRIME);
        assert_eq!(KeyHash::Fnv1a_64.hash(b"\xff"), (!FNV_64_INIT).wrapping_mul(FNV_64_PRIME));
        assert_ne!(KeyHash::Fnv1a_64.hash(b"\xff"), unsigned);
    }

    #[test]
    fn unknown_names_are_told_what_is_known() {
        let message = "sha1".parse::<KeyHash>().unwrap_err().to_string();
        assert!(message.contains("`sha1`") && message.contains("fnv1a_64") && message.contains("jenkins"), "{message}");
    }
}
