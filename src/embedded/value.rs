//! What a key can hold: a string or a hash, with the encodings Redis would report for them.
//!
//! Encodings are kept for `OBJECT ENCODING` and for order: a small hash (`listpack`) answers in the order its fields came
//! in, as Redis' does; a large one in any order.

use bytes::{Bytes, BytesMut};
use indexmap::IndexMap;

use super::number;
use super::reply::Refusal;

/// Bytes a hash's field is counted with beside its name and value: two `Bytes`, a hash and an index, two allocations.
pub const FIELD_OVERHEAD: u64 = 112;

/// The most fields of a `listpack`, Redis' `hash-max-listpack-entries`.
const COMPACT_FIELDS: usize = 512;
/// The longest name or value in a `listpack`, Redis' `hash-max-listpack-value`.
const COMPACT_LENGTH: usize = 64;
/// The longest string Redis embeds in its object.
const EMBEDDED_LENGTH: usize = 44;

/// A key's value. A clone shares the bytes until one of the two is written.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// A string.
    Text(Text),
    /// A hash.
    Hash(Box<Hash>),
}

impl Value {
    /// Bytes the value is counted with.
    pub(super) fn size(&self) -> u64 {
        match self {
            Value::Text(text) => text.bytes.len() as u64,
            Value::Hash(hash) => hash.size,
        }
    }

    /// Its name in `TYPE`.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "string",
            Value::Hash(_) => "hash",
        }
    }

    /// Its name in `OBJECT ENCODING`.
    pub(super) fn encoding(&self) -> &'static str {
        match self {
            Value::Text(text) => match text.encoding {
                Encoding::Int => "int",
                Encoding::Embedded => "embstr",
                Encoding::Raw => "raw",
            },
            Value::Hash(hash) if hash.compact => "listpack",
            Value::Hash(_) => "hashtable",
        }
    }

    /// The string, or the refusal of a command that wanted one.
    pub(super) fn text(&self) -> Result<&Text, Refusal> {
        match self {
            Value::Text(text) => Ok(text),
            Value::Hash(_) => Err(Refusal::WRONG_TYPE),
        }
    }

    /// The hash, or the refusal of a command that wanted one.
    pub(super) fn hash(&self) -> Result<&Hash, Refusal> {
        match self {
            Value::Hash(hash) => Ok(hash),
            Value::Text(_) => Err(Refusal::WRONG_TYPE),
        }
    }
}

/// A string.
#[derive(Debug, Clone)]
pub(super) struct Text {
    bytes: Bytes,
    encoding: Encoding,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Int,
    Embedded,
    Raw,
}

impl Text {
    /// A value an app has given: an integer if it looks like one.
    pub(super) fn given(bytes: &[u8]) -> Text {
        match number::parse(bytes) {
            Some(_) => Text { bytes: Bytes::copy_from_slice(bytes), encoding: Encoding::Int },
            None => Text::computed(bytes),
        }
    }

    /// The result of float arithmetic, which Redis does not look at again.
    pub(super) fn computed(bytes: &[u8]) -> Text {
        let encoding = if bytes.len() <= EMBEDDED_LENGTH { Encoding::Embedded } else { Encoding::Raw };
        Text { bytes: Bytes::copy_from_slice(bytes), encoding }
    }

    /// An empty string that is to be written to in place.
    pub(super) fn buffer() -> Text {
        Text { bytes: Bytes::new(), encoding: Encoding::Raw }
    }

    /// An integer.
    pub(super) fn integer(number: i64) -> Text {
        Text { bytes: Bytes::from(number.to_string()), encoding: Encoding::Int }
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends `tail`; in place, with room to spare, unless the bytes are shared.
    pub(super) fn append(&mut self, tail: &[u8]) {
        self.edit(|bytes| bytes.extend_from_slice(tail));
    }

    /// Writes `part` from `offset` on, which makes the string as long as need be, with zero bytes where nothing was.
    pub(super) fn overwrite(&mut self, offset: usize, part: &[u8]) {
        self.edit(|bytes| {
            let end = offset + part.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[offset..end].copy_from_slice(part);
        });
    }

    fn edit(&mut self, edit: impl FnOnce(&mut BytesMut)) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut buffer = bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(shared.as_ref()));
        edit(&mut buffer);
        self.bytes = buffer.freeze();
        self.encoding = Encoding::Raw;
    }
}

/// A hash.
#[derive(Debug, Clone)]
pub(super) struct Hash {
    fields: IndexMap<Bytes, Bytes>,
    compact: bool,
    size: u64,
}

impl Hash {
    /// An empty one, which no key may hold for longer than a command.
    pub(super) fn new() -> Hash {
        Hash { fields: IndexMap::new(), compact: true, size: 0 }
    }

    /// Bytes it is counted with.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// How many fields there are.
    pub(super) fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether it is small enough for Redis to keep it in one piece and in order.
    pub(super) fn is_compact(&self) -> bool {
        self.compact
    }

    /// A field's value.
    pub(super) fn get(&self, field: &[u8]) -> Option<&[u8]> {
        self.fields.get(field).map(Bytes::as_ref)
    }

    /// The field at a position below `len`. Positions are those of the order of insertion while the hash is compact;
    /// beyond that a removal moves the last field into the gap, and nothing else moves.
    pub(super) fn at(&self, position: usize) -> Option<(&[u8], &[u8])> {
        self.fields.get_index(position).map(|(field, value)| (field.as_ref(), value.as_ref()))
    }

    /// All fields with their values.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|(field, value)| (field.as_ref(), value.as_ref()))
    }

    /// By how much the hash would grow, in bytes it is counted with, by setting `field` to `value`.
    pub(super) fn growth(&self, field: &[u8], value: &[u8]) -> u64 {
        match self.get(field) {
            Some(old) => (value.len() as u64).saturating_sub(old.len() as u64),
            None => field_size(field, value),
        }
    }

    /// Gives up being compact if the field or its value, about to be set, is too long for it.
    pub(super) fn prepare(&mut self, field: &[u8], value: &[u8]) {
        self.compact &= field.len() <= COMPACT_LENGTH && value.len() <= COMPACT_LENGTH;
    }

    /// Sets a field and returns whether it is new.
    pub(super) fn set(&mut self, field: &[u8], value: &[u8]) -> bool {
        self.prepare(field, value);
        let value = Bytes::copy_from_slice(value);
        self.size += field_size(field, &value);
        let new = match self.fields.get_mut(field) {
            Some(old) => {
                self.size -= field_size(field, old);
                *old = value;
                false
            }
            None => self.fields.insert(Bytes::copy_from_slice(field), value).is_none(),
        };
        self.compact &= self.fields.len() <= COMPACT_FIELDS;
        new
    }

    /// Removes a field and returns whether it was there.
    pub(super) fn remove(&mut self, field: &[u8]) -> bool {
        let removed = if self.compact { self.fields.shift_remove(field) } else { self.fields.swap_remove(field) };
        if let Some(value) = &removed {
            self.size -= field_size(field, value);
        }
        removed.is_some()
    }
}

fn field_size(field: &[u8], value: &[u8]) -> u64 {
    field.len() as u64 + value.len() as u64 + FIELD_OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_knows_its_size() {
        let mut hash = Hash::new();
        assert!(hash.set(b"ab", b"cde"));
        assert_eq!(hash.size, 5 + FIELD_OVERHEAD);
        assert_eq!(hash.growth(b"ab", b"cdefg"), 2);
        assert!(!hash.set(b"ab", b"x"));
        assert_eq!(hash.size, 3 + FIELD_OVERHEAD);
        assert!(hash.remove(b"ab"));
        assert!(!hash.remove(b"ab"));
        assert_eq!((hash.size, hash.len()), (0, 0));
    }

    #[test]
    fn a_compact_hash_keeps_its_order() {
        let mut hash = Hash::new();
        for field in [b"a", b"b", b"c", b"d"] {
            hash.set(field, b"1");
        }
        hash.remove(b"b");
        hash.set(b"a", b"2");
        assert_eq!(hash.iter().map(|(field, _)| field).collect::<Vec<_>>(), [b"a", b"c", b"d"]);
        hash.set(b"e", &[b'x'; 65]);
        assert!(!hash.is_compact());
    }

    #[test]
    fn a_clone_is_not_written_through() {
        let original = Text::given(b"abc");
        let mut copy = original.clone();
        copy.overwrite(5, b"z");
        copy.append(b"!");
        assert_eq!((original.bytes(), copy.bytes()), (&b"abc"[..], &b"abc\0\0z!"[..]));
    }
}
