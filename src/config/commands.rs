//! The value of `commands`: commands of modules, described by where their keys are.
//!
//! Promises: each has a name that is no command of Redis, and key positions that can be walked.

use super::keys::{self, Place};
use super::problems::Report;
use super::written::{Fields, join, refuse_twice};
use super::yaml::Node;
use crate::command::{self, Described};
use crate::units::Expected;

const MAX_NAME: usize = 64;
const KEYS: &str = "`first,last,step` such as `1,1,1` or `1,-1,1`, or `none`";

impl Fields<'_, '_> {
    /// The commands; none where the key is not there.
    pub(super) fn commands(&mut self) -> Vec<Described> {
        let Some(node) = self.get("commands") else { return Vec::new() };
        let Some(entries) = node.entries().filter(|entries| !entries.is_empty()) else {
            self.report.unfit(node, "commands", &Expected::new("a map of commands by name"));
            return Vec::new();
        };
        refuse_twice(entries, "commands", self.report);
        entries.iter().filter_map(|(name, command)| described(name, command, self.report)).collect()
    }
}

fn described(name: &Node, node: &Node, report: &mut Report) -> Option<Described> {
    let text = name.text().unwrap_or_default().to_ascii_lowercase();
    if text.is_empty() || text.len() > MAX_NAME || !text.bytes().all(|b| b.is_ascii_graphic() && b != b'|') {
        let expected = format!("the name of a command, of 1 to {MAX_NAME} characters without blanks");
        report.unfit(name, "commands", &Expected::new(expected));
        return None;
    }
    if command::all().any(|spec| spec.name == text) {
        report.unfit(name, "commands", &Expected::new("a command that hotring does not know by itself"));
        return None;
    }
    let key = join("commands", &text);
    let mut fields = Fields::open(node, key, &keys::names(Place::Command), report)?;
    fields.stands_at(name.id);
    fields.require("keys", KEYS);
    let keys = fields.value("keys", positions)?.value;
    let writes = fields.value("access", |text| match text {
        "read" => Ok(false),
        "write" => Ok(true),
        _ => Err(Expected::new("`read` or `write`")),
    });
    Some(Described { name: text, keys, writes: writes.is_none_or(|written| written.value) })
}

fn positions(text: &str) -> Result<Option<(u8, i16, u8)>, Expected> {
    if text == "none" {
        return Ok(None);
    }
    let unfit = || Expected::new(KEYS);
    let mut parts = text.split(',').map(str::trim);
    let (Some(first), Some(last), Some(step), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(unfit());
    };
    let first: u8 = first.parse().ok().filter(|&first| first > 0).ok_or_else(unfit)?;
    let last: i16 = last.parse().ok().filter(|&last| last < 0 || last >= i16::from(first)).ok_or_else(unfit)?;
    let step: u8 = step.parse().ok().filter(|&step| step > 0).ok_or_else(unfit)?;
    // As a byte, so that the number of arguments that it takes has room in a table.
    if (-255..=255).contains(&last) { Ok(Some((first, last, step))) } else { Err(unfit()) }
}
