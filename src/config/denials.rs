//! The values of `deny_commands`, `read_only`, `max_key` and `max_value`: what nobody may do in a pool.
//!
//! Promises: what is denied is something that there is, the modules' commands under `commands` with it.

use super::problems::Report;
use super::written::{Fields, PoolWritten, Written, flag, join, scalar, size};
use super::yaml::Kind;
use crate::acl::{self, Denials};
use crate::command::Described;
use crate::units::{Expected, Size};

/// What a pool has of these keys.
#[derive(Debug)]
pub(super) struct DenialsWritten {
    /// As they stand there.
    commands: Vec<Written<String>>,
    read_only: Option<Written<bool>>,
    /// `None` inside: `off`.
    max_key: Option<Written<Option<u64>>>,
    max_value: Option<Written<Option<u64>>>,
}

impl Fields<'_, '_> {
    /// All of them. Whether there are such commands is asked when the modules' are known.
    pub(super) fn denials(&mut self) -> DenialsWritten {
        let most = |text: &str| match text {
            "off" => Ok(None),
            _ => size(text, 1).map(Some).map_err(|expected| Expected::new(format!("{expected}, or `off`"))),
        };
        DenialsWritten {
            commands: self.denied_commands(),
            read_only: self.value("read_only", flag),
            max_key: self.value("max_key", most),
            max_value: self.value("max_value", most),
        }
    }

    fn denied_commands(&mut self) -> Vec<Written<String>> {
        let Some(node) = self.get("deny_commands") else { return Vec::new() };
        let key = join(&self.key, "deny_commands");
        let word = |text: &str| match text.trim() {
            "" => Err(Expected::new("a list of commands such as `[KEYS, \"CONFIG SET\", \"@dangerous\"]`")),
            text => Ok(text.to_owned()),
        };
        match &node.kind {
            Kind::List(items) => {
                let item = |(i, node)| scalar(node, &format!("{key}[{i}]"), self.report, word);
                items.iter().enumerate().filter_map(item).collect()
            }
            _ => scalar(node, &key, self.report, word).into_iter().collect(),
        }
    }
}

/// Tells of what cannot be denied.
pub(super) fn check(commands: &[Described], pool: &PoolWritten, report: &mut Report) {
    for written in &pool.denials.commands {
        if let Err(expected) = acl::denial(&written.value, commands) {
            let said = format!("read {}, expected {expected}", super::problems::quoted(&written.value));
            report.add(written.at, format!("{}.deny_commands", pool.key), said);
        }
    }
}

/// What is meant.
pub(super) fn build(written: DenialsWritten, described: &[Described]) -> Denials {
    let word = |written: Written<String>| acl::denial(&written.value, described).ok();
    Denials {
        commands: written.commands.into_iter().filter_map(word).collect(),
        read_only: written.read_only.is_some_and(|written| written.value),
        max_key: written.max_key.and_then(|written| written.value),
        max_value: written.max_value.and_then(|written| written.value),
    }
}

/// As the lines of a file, without the pool's indent.
pub(super) fn lines(denials: &Denials) -> Vec<(&'static str, String)> {
    let most = |bytes: Option<u64>| bytes.map_or("off".to_owned(), |bytes| Size::from(bytes).to_string());
    let words: Vec<String> = denials.commands.iter().map(|word| super::text::quoted(&word.replace('|', " "))).collect();
    let denied = (!words.is_empty()).then(|| ("deny_commands", format!("[{}]", words.join(", "))));
    let rest = [
        ("read_only", denials.read_only.to_string()),
        ("max_key", most(denials.max_key)),
        ("max_value", most(denials.max_value)),
    ];
    denied.into_iter().chain(rest).collect()
}
