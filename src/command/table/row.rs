//! How a row of the table is written: a family of commands has its ACL categories and its treatment in common, a command
//! its name, arity, keys and flags; what is particular to it follows.

use super::super::{Access, Class, Keys, Local, Merge, Need, Spec, Tag, Treatment, Unless, Why};
pub(super) use super::category;
pub(super) use super::flag::*;

/// The number of a command that is not in the table.
pub(super) const UNNUMBERED: u16 = u16::MAX;

/// No key.
pub(super) const NONE: Keys = Keys::None;
/// Argument 1.
pub(super) const ONE: Keys = Keys::One;
/// Arguments 1 and 2.
pub(super) const TWO: Keys = Keys::Range { first: 1, last: 2, step: 1 };
/// All arguments.
pub(super) const ALL: Keys = Keys::Range { first: 1, last: -1, step: 1 };
/// All arguments but the last, which is a timeout.
pub(super) const ALL_BUT_LAST: Keys = Keys::Range { first: 1, last: -2, step: 1 };
/// Every other argument: a value follows each key.
pub(super) const PAIRS: Keys = Keys::Range { first: 1, last: -1, step: 2 };
/// Argument 2, after a subcommand.
pub(super) const SECOND: Keys = Keys::Range { first: 2, last: 2, step: 1 };

/// Commands that wait, on a connection of the session's own.
pub(super) const BLOCKS: Treatment = Treatment::Own(Need::Blocking);

/// What the commands of a family have in common.
#[derive(Clone, Copy)]
pub(super) struct Family {
    categories: u32,
    treatment: Treatment,
}

impl Family {
    /// Commands of these ACL categories, forwarded unless told otherwise.
    pub(super) const fn of(categories: u32) -> Self {
        Family { categories, treatment: Treatment::Forward }
    }

    /// The family, refused.
    pub(super) const fn refused(self, why: Why) -> Self {
        Family { treatment: Treatment::Refuse(why), ..self }
    }

    /// The family, on a connection of the session's own.
    pub(super) const fn own(self, need: Need) -> Self {
        Family { treatment: Treatment::Own(need), ..self }
    }

    /// The family, answered by hotring.
    pub(super) const fn local(self, local: Local) -> Self {
        Family { treatment: Treatment::Local(local), ..self }
    }

    /// A command with Redis' `readonly` flag.
    pub(super) const fn read(self, name: &'static str, arity: i16, keys: Keys, flags: u32) -> Spec {
        self.spec(name, arity, keys, flags | READONLY, Access::Read)
    }

    /// A command with Redis' `write` flag.
    pub(super) const fn write(self, name: &'static str, arity: i16, keys: Keys, flags: u32) -> Spec {
        self.spec(name, arity, keys, flags | WRITE, Access::Write)
    }

    /// A command with neither.
    pub(super) const fn other(self, name: &'static str, arity: i16, keys: Keys, flags: u32) -> Spec {
        self.spec(name, arity, keys, flags, Access::Neither)
    }

    /// The HELP of a container, whose name is with it.
    pub(super) const fn help(self, name: &'static str) -> Spec {
        self.local(Local::Help).other(name, 2, NONE, LOADING | STALE)
    }

    const fn spec(self, name: &'static str, arity: i16, keys: Keys, flags: u32, access: Access) -> Spec {
        let (categories, treatment) = (self.categories, self.treatment);
        let class = class(access, treatment, categories);
        let flags = flags | settled(treatment);
        let (tag, number) = (Tag::new(class, name), UNNUMBERED);
        let (subcommands, unless) = (&[], None);
        Spec { name, arity, access, keys, treatment, flags, categories, class, tag, number, subcommands, unless }
    }
}

/// A command that the configuration describes.
pub(in super::super) fn named(name: &'static str, arity: i16, keys: Keys, access: Access) -> Spec {
    let flags = if matches!(access, Access::Write) { WRITE } else { READONLY };
    Family::of(0).spec(name, arity, keys, flags, access)
}

impl Spec {
    /// The command, split over shards.
    pub(super) const fn split(self, merge: Merge) -> Self {
        self.treated(Treatment::Split(merge))
    }

    /// The command, sent to every shard.
    pub(super) const fn broadcast(self, merge: Merge) -> Self {
        self.treated(Treatment::Broadcast(merge))
    }

    /// The command, refused.
    pub(super) const fn refused(self, why: Why) -> Self {
        self.treated(Treatment::Refuse(why))
    }

    /// The command, answered by hotring.
    pub(super) const fn local(self, local: Local) -> Self {
        self.treated(Treatment::Local(local))
    }

    /// The command, treated like this.
    pub(super) const fn treated(self, treatment: Treatment) -> Self {
        let flags = self.flags & !SETTLED | settled(treatment);
        Spec { treatment, flags, ..self.in_class(class(self.access, treatment, self.categories)) }
    }

    /// The command, refused for some arguments.
    pub(super) const fn unless(self, unless: Unless) -> Self {
        Spec { unless: Some(unless), flags: self.flags | SETTLED, ..self }
    }

    /// A command without Redis' `write` flag that may write all the same.
    pub(super) const fn may_write(self) -> Self {
        Spec { access: Access::Write, ..self.in_class(class(Access::Write, self.treatment, self.categories)) }
    }

    const fn in_class(self, class: Class) -> Self {
        Spec { class, tag: self.tag.of(class), ..self }
    }

    /// The command, as the one in this place of the table.
    pub(super) const fn numbered(self, number: usize) -> Self {
        assert!(number < UNNUMBERED as usize, "more commands than numbers");
        Spec { number: number as u16, ..self }
    }

    /// Its place in the table, below [`COUNT`](super::COUNT); none has a command that the configuration describes.
    #[must_use]
    #[inline]
    pub fn number(&self) -> Option<usize> {
        (self.number != UNNUMBERED).then_some(usize::from(self.number))
    }

    /// A command that is further named by its first argument.
    pub(super) const fn containing(self, subcommands: &'static [Spec]) -> Self {
        Spec { subcommands, ..self }
    }
}

/// The flag of those that begin only when all before them is answered.
const fn settled(treatment: Treatment) -> u32 {
    match treatment {
        Treatment::Own(_) | Treatment::Local(Local::Hello | Local::Select | Local::Reset) => SETTLED,
        _ => 0,
    }
}

const fn class(access: Access, treatment: Treatment, categories: u32) -> Class {
    match (treatment, access) {
        (Treatment::Local(_), _) => Class::Local,
        (Treatment::Refuse(_), _) => Class::Refused,
        (Treatment::Split(_) | Treatment::Broadcast(_), _) => Class::Multi,
        (Treatment::Own(Need::Transaction | Need::Subscription), _) => Class::Local,
        (Treatment::Forward | Treatment::Own(_), _) if categories & category::SCRIPTING != 0 => Class::Script,
        (Treatment::Publish, _) => Class::Write,
        (Treatment::Forward | Treatment::Own(_), Access::Write) => Class::Write,
        (Treatment::Forward | Treatment::Own(_), _) => Class::Read,
    }
}
