//! A command in 16 bits: what is kept of it for each request on its way, so that its reply can be accounted for.

use super::{Class, all};

/// A command's latency class, in the lower three bits, and a hash of its name in the other thirteen. No two commands of the
/// table with the same class have the same one: a test sees to it, so the name can be found again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag(u16);

/// Where the hash begins: a number with which no two commands of one class share theirs.
const SEED: u32 = 3;
/// Bits of the class.
const CLASS: u16 = 7;

impl Tag {
    /// Of what is no command of an app's.
    #[must_use]
    pub const fn nameless(class: Class) -> Self {
        Self(class as u16)
    }

    pub(super) const fn new(class: Class, name: &str) -> Self {
        Self(hash(name, SEED)).of(class)
    }

    /// The same name in another class.
    pub(super) const fn of(self, class: Class) -> Self {
        Self(self.0 & !CLASS | class as u16)
    }

    /// Another one of the same class.
    pub(super) const fn next(self) -> Self {
        Self(self.0.wrapping_add(CLASS + 1))
    }

    /// The latency class.
    #[must_use]
    #[inline]
    pub const fn class(self) -> Class {
        match self.0 & CLASS {
            0 => Class::Read,
            1 => Class::Write,
            2 => Class::Multi,
            3 => Class::Script,
            4 => Class::Local,
            _ => Class::Refused,
        }
    }

    /// The hash of the name: a number below 2^13 by which a table finds it.
    #[must_use]
    #[inline]
    pub const fn place(self) -> usize {
        (self.0 >> CLASS.count_ones()) as usize
    }

    /// The command's name, as in [`super::Spec::name`]. Walks over the table.
    #[must_use]
    #[cold]
    pub fn name(self) -> Option<&'static str> {
        let specs = all().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands));
        let known = specs.chain(super::more::all_taught()).find(|spec| spec.tag == self);
        known.map(|spec| spec.name)
    }
}

/// FNV-1a's steps from another start; the upper thirteen bits.
const fn hash(name: &str, seed: u32) -> u16 {
    let name = name.as_bytes();
    let (mut hash, mut at) = (seed, 0);
    while at < name.len() {
        hash = (hash ^ name[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    (hash >> 16) as u16 & !CLASS
}

#[cfg(test)]
mod tests {
    use super::super::Spec;
    use super::*;
    use std::collections::HashSet;

    fn specs() -> impl Iterator<Item = &'static Spec> {
        all().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands))
    }

    /// Whether all commands of a class are told apart.
    fn tells_apart(seed: u32) -> bool {
        let mut seen = HashSet::new();
        specs().all(|spec| seen.insert((spec.class, hash(spec.name, seed))))
    }

    #[test]
    fn no_two_commands_of_a_class_have_the_same_tag() {
        assert!(tells_apart(SEED), "take {:?} for SEED", (1..100_000).find(|&seed| tells_apart(seed)));
    }

    #[test]
    fn class_and_name_come_back() {
        for spec in specs() {
            assert_eq!((spec.tag.class(), spec.tag.name()), (spec.class, Some(spec.name)));
        }
        assert_eq!(Tag::nameless(Class::Local).class(), Class::Local);
        assert_eq!(Tag::nameless(Class::Refused).name(), None);
    }
}
