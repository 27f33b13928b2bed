//! Sets of commands, one bit for each command and subcommand of the table, by its number.

use crate::command::{self, Access, Spec, flag, numbered};
use crate::resp::Request;

/// Commands that are allowed.
#[derive(Clone, Debug)]
pub(super) struct Commands {
    bits: Box<[u64]>,
    /// Commands allowed with one first argument only (`+select|0`).
    arguments: Vec<(usize, Box<str>)>,
    /// Whether described commands (`commands:`), which are in no table, may read.
    described_read: bool,
    /// Whether they may write.
    described_write: bool,
}

impl Commands {
    pub(super) fn none() -> Self {
        Self {
            bits: vec![0; command::COUNT.div_ceil(64)].into(),
            arguments: Vec::new(),
            described_read: false,
            described_write: false,
        }
    }

    /// `+@all` or `-@all`.
    pub(super) fn set_all(&mut self, allow: bool) {
        (0..command::COUNT).for_each(|number| self.set_bit(number, allow));
        self.arguments.clear();
        (self.described_read, self.described_write) = (allow, allow);
    }

    /// `+@category` or `-@category`; `category` is a bit of [`Spec::categories`].
    pub(super) fn set_category(&mut self, category: u32, allow: bool) {
        for spec in numbered().filter(|spec| spec.categories() & category != 0) {
            self.set(spec, allow);
        }
        if command::category("read") == Some(category) {
            self.described_read = allow;
        } else if command::category("write") == Some(category) {
            self.described_write = allow;
        }
    }

    /// `+command` or `-command`, with all of its subcommands.
    pub(super) fn set(&mut self, spec: &Spec, allow: bool) {
        for spec in [spec].into_iter().chain(spec.subcommands) {
            if let Some(number) = spec.number() {
                self.set_bit(number, allow);
                self.arguments.retain(|(of, _)| *of != number);
            }
        }
    }

    /// `+command|argument`, where `argument` is no subcommand.
    pub(super) fn allow_argument(&mut self, spec: &Spec, argument: &str) {
        if let Some(number) = spec.number() {
            self.arguments.push((number, argument.into()));
        }
    }

    /// Takes away all that may write: commands with Redis' `write` flag, and scripts that are not `_RO`.
    pub(super) fn deny_writes(&mut self) {
        for spec in numbered().filter(|spec| spec.access == Access::Write || spec.flags & flag::WRITE != 0) {
            self.set(spec, false);
        }
        self.described_write = false;
    }

    pub(super) fn are_all(&self) -> bool {
        self.described_read && self.described_write && (0..command::COUNT).all(|number| self.has(number))
    }

    /// Whether a request of this command may run. One that the table does not have is described in the configuration: it is
    /// in `@all`, and in `@read` or `@write` by what it is said to do.
    #[inline]
    pub(super) fn allow(&self, spec: &Spec, request: &Request<'_>) -> bool {
        let Some(number) = spec.number() else {
            return if spec.access == Access::Read { self.described_read } else { self.described_write };
        };
        self.has(number) || (!self.arguments.is_empty() && self.allow_by_argument(number, request))
    }

    #[cold]
    fn allow_by_argument(&self, number: usize, request: &Request<'_>) -> bool {
        let Some(given) = request.arg(1) else { return false };
        self.arguments.iter().any(|(of, argument)| *of == number && argument.as_bytes().eq_ignore_ascii_case(given))
    }

    fn has(&self, number: usize) -> bool {
        self.bits.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    fn set_bit(&mut self, number: usize, allow: bool) {
        if let Some(word) = self.bits.get_mut(number / 64) {
            let bit = 1 << (number % 64);
            *word = if allow { *word | bit } else { *word & !bit };
        }
    }
}
