//! Redis Cluster's way of placing keys: 16384 slots, each of which belongs to one shard. Which slot a key has is the same
//! everywhere (CRC16 of what stands in its first `{}`, or of all of it); which shard a slot has, the cluster says.
//!
//! Source: the Redis Cluster specification, "Key distribution model" and "Hash tags".

use std::sync::{Arc, OnceLock};

/// How many slots there are.
pub const SLOTS: usize = 16384;
/// In [`Slots`]: nobody's.
pub const NOBODY: u16 = u16::MAX;

/// For each slot the number of its shard, or [`NOBODY`].
pub type Slots = Arc<Vec<u16>>;

/// The slot of a key.
#[must_use]
#[inline]
pub fn slot_of(key: &[u8]) -> u16 {
    crc16(tagged(key)) & (SLOTS as u16 - 1)
}

/// Four bytes a step, since each step waits for the one before: every request comes by here.
///
/// Source: slicing, M. Kounavis and F. Berry, "A systematic approach to building high performance software-based CRC generators"
/// (2005).
#[inline]
fn crc16(key: &[u8]) -> u16 {
    let table = |number: usize, byte: u8| TABLES[number][usize::from(byte)];
    let (fours, rest) = key.as_chunks::<4>();
    let crc = fours.iter().fold(0u16, |crc, &[a, b, c, d]| {
        let [high, low] = crc.to_be_bytes();
        table(3, a ^ high) ^ table(2, b ^ low) ^ table(1, c) ^ table(0, d)
    });
    rest.iter().fold(crc, |crc, &byte| (crc << 8) ^ table(0, (crc >> 8) as u8 ^ byte))
}

/// What a byte makes of the checksum, with so many bytes of 0 behind it.
static TABLES: [[u16; 256]; 4] = tables();

/// Polynomial 0x1021, most significant bit first.
const fn tables() -> [[u16; 256]; 4] {
    let mut tables = [[0u16; 256]; 4];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bits = 0;
        while bits < 32 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bits += 1;
            if bits % 8 == 0 {
                tables[bits / 8 - 1][byte] = crc;
            }
        }
        byte += 1;
    }
    tables
}

/// What counts of a key: what is between the first `{` and the first `}` behind it, if that is something; or all of it.
#[inline]
fn tagged(key: &[u8]) -> &[u8] {
    let tag = key.iter().position(|&byte| byte == b'{').and_then(|at| {
        let inner = key.get(at + 1..)?;
        inner.get(..inner.iter().position(|&byte| byte == b'}')?)
    });
    tag.filter(|tag| !tag.is_empty()).unwrap_or(key)
}

/// A short text whose slot is this one, for names that are to be in a certain slot. Always the same: the least number in
/// decimals. Made for all slots when first asked, which takes some milliseconds.
#[must_use]
pub fn tag_of(slot: u16) -> &'static str {
    static TAGS: OnceLock<Vec<String>> = OnceLock::new();
    let tags = TAGS.get_or_init(|| {
        let mut tags = vec![String::new(); SLOTS];
        let mut left = SLOTS;
        for number in 0u32.. {
            if left == 0 {
                break;
            }
            let text = number.to_string();
            if let Some(tag) = tags.get_mut(usize::from(slot_of(text.as_bytes()))).filter(|tag| tag.is_empty()) {
                *tag = text;
                left -= 1;
            }
        }
        tags
    });
    tags.get(usize::from(slot)).map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_that_redis_tells() {
        // CLUSTER KEYSLOT of redis-server 7.
        for (key, slot) in
            [("foo", 12182), ("123456789", 12739), ("", 0), ("{user1000}.following", 3443), ("foo{}{bar}", 8363)]
        {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"{user1000}.followers"));
        assert_eq!(slot_of(b"foo{bar}{zap}"), slot_of(b"bar"));
    }

    #[test]
    fn four_bytes_at_once_are_four_bytes_in_turn() {
        let in_turn = |key: &[u8]| super::super::hash::crc16(key) as u16;
        for length in 0..200usize {
            let key: Vec<u8> = (0..length).map(|at| (at * 151 + length * 31 + at * at) as u8).collect();
            assert_eq!(crc16(&key), in_turn(&key), "{length} bytes");
        }
    }

    #[test]
    fn every_slot_has_a_tag() {
        for slot in 0..SLOTS as u16 {
            let tag = tag_of(slot);
            assert!(!tag.is_empty() && tag.len() <= 6);
            assert_eq!(slot_of(format!("hk1:{{{tag}}}1:any{{thing}}").as_bytes()), slot);
        }
    }
}
