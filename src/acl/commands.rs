//! Sets of commands, one bit for each command and subcommand of the table.
//!
//! A command's number is the rank of its place in memory: the table is static, and its rows stand side by side in a
//! few runs, so a number is found with a handful of comparisons and without the command's name.

use std::sync::LazyLock;

use crate::command::{self, Access, Spec, flag};
use crate::resp::Request;

/// Commands in the order of their numbers, and where they are.
struct Table {
    specs: Vec<&'static Spec>,
    runs: Vec<Run>,
}

/// Rows that follow each other in memory.
struct Run {
    address: usize,
    first: usize,
    count: usize,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut specs: Vec<&'static Spec> =
        command::all().flat_map(|spec| [spec].into_iter().chain(spec.subcommands)).collect();
    specs.sort_by_key(|spec| address(spec));
    let mut runs: Vec<Run> = Vec::new();
    for (number, spec) in specs.iter().enumerate() {
        match runs.last_mut() {
            Some(run) if run.address + run.count * size_of::<Spec>() == address(spec) => run.count += 1,
            _ => runs.push(Run { address: address(spec), first: number, count: 1 }),
        }
    }
    Table { specs, runs }
});

fn address(spec: &Spec) -> usize {
    std::ptr::from_ref(spec).addr()
}

/// The number of a command, if it is the table's own and no copy.
pub(super) fn number(spec: &Spec) -> Option<usize> {
    let table = &*TABLE;
    let at = table.runs.partition_point(|run| run.address <= address(spec)).checked_sub(1)?;
    let run = table.runs.get(at)?;
    let row = (address(spec) - run.address) / size_of::<Spec>();
    (row < run.count).then_some(run.first + row)
}

/// All commands and subcommands, in the order of their numbers.
pub(super) fn numbered() -> &'static [&'static Spec] {
    &TABLE.specs
}

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
            bits: vec![0; numbered().len().div_ceil(64)].into(),
            arguments: Vec::new(),
            described_read: false,
            described_write: false,
        }
    }

    /// `+@all` or `-@all`.
    pub(super) fn set_all(&mut self, allow: bool) {
        for (number, _) in numbered().iter().enumerate() {
            self.set_bit(number, allow);
        }
        self.arguments.clear();
        (self.described_read, self.described_write) = (allow, allow);
    }

    /// `+@category` or `-@category`; `category` is a bit of [`Spec::categories`].
    pub(super) fn set_category(&mut self, category: u32, allow: bool) {
        for spec in numbered().iter().filter(|spec| spec.categories() & category != 0) {
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
            if let Some(number) = number(spec) {
                self.set_bit(number, allow);
                self.arguments.retain(|(of, _)| *of != number);
            }
        }
    }

    /// `+command|argument`, where `argument` is no subcommand.
    pub(super) fn allow_argument(&mut self, spec: &Spec, argument: &str) {
        if let Some(number) = number(spec) {
            self.arguments.push((number, argument.into()));
        }
    }

    /// Takes away all that may write: commands with Redis' `write` flag, and scripts that are not `_RO`.
    pub(super) fn deny_writes(&mut self) {
        for spec in numbered().iter().filter(|spec| spec.access == Access::Write || spec.flags & flag::WRITE != 0) {
            self.set(spec, false);
        }
        self.described_write = false;
    }

    pub(super) fn are_all(&self) -> bool {
        self.described_read && self.described_write && (0..numbered().len()).all(|number| self.has(number))
    }

    /// Whether a request of this command may run. One that the table does not have is described in the configuration: it is
    /// in `@all`, and in `@read` or `@write` by what it is said to do.
    pub(super) fn allow(&self, spec: &Spec, request: &Request<'_>) -> bool {
        let Some(number) = number(spec) else {
            // A copy of a row of the table is in no set.
            let described = command::lookup(spec.name.as_bytes()).is_none_or(|found| number(found).is_none());
            return described && if spec.access == Access::Read { self.described_read } else { self.described_write };
        };
        self.has(number) || (!self.arguments.is_empty() && self.allow_by_argument(number, request))
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_its_number() {
        assert!(numbered().len() > 350);
        for (expected, spec) in numbered().iter().enumerate() {
            assert_eq!(number(spec), Some(expected), "{}", spec.name);
        }
        let runs = TABLE.runs.len();
        assert!(runs < 64, "{runs} runs");
    }

    #[test]
    fn a_copy_has_none() {
        let copy = *command::lookup(b"get").expect("a command");
        assert_eq!(number(&copy), None);
    }
}
