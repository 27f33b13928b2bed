//! What is counted and asked for those who look at the metrics: `metrics_prefixes` and `info_interval`.

use super::problems::Report;
use super::text::quoted;
use super::written::{Fields, Written, join, scalar};
use super::yaml::{Kind, Node};
use crate::units::{Expected, Millis};
use std::time::Duration;

/// Each is some series in every scrape.
const MOST: usize = 64;
const LONGEST: usize = 128;
/// A server answers INFO in some ten microseconds, and several processes may ask it.
const LEAST: Duration = Duration::from_millis(100);

/// `off`, or how often servers are asked for INFO.
pub(super) fn interval(text: &str) -> Result<Option<Duration>, Expected> {
    if text == "off" {
        return Ok(None);
    }
    let span: Duration = text.parse::<Millis>()?.into();
    if span < LEAST { Err(Expected::new("a duration of `100ms` or more, or `off`")) } else { Ok(Some(span)) }
}

impl Fields<'_, '_> {
    /// The beginnings of keys that are counted by; none where the key is not there.
    pub(super) fn metrics_prefixes(&mut self) -> Vec<Vec<u8>> {
        let Some(node) = self.get("metrics_prefixes") else { return Vec::new() };
        let key = join(&self.key, "metrics_prefixes");
        let Kind::List(items) = &node.kind else {
            self.report.unfit(node, &key, &expected());
            return Vec::new();
        };
        if items.len() > MOST {
            self.report.unfit(node, &key, &expected());
            return Vec::new();
        }
        let mut seen: Vec<Written<String>> = Vec::new();
        for (i, node) in items.iter().enumerate() {
            let key = format!("{key}[{i}]");
            let Some(prefix) = prefix(node, &key, self.report) else { continue };
            if let Some(first) = seen.iter().find(|other| other.value == prefix.value) {
                self.report.twice(prefix.at, first.at, key, "is given already");
            }
            seen.push(prefix);
        }
        seen.into_iter().map(|prefix| prefix.value.into_bytes()).collect()
    }
}

fn prefix(node: &Node, key: &str, report: &mut Report) -> Option<Written<String>> {
    scalar(node, key, report, |text| {
        let fits = (1..=LONGEST).contains(&text.len()) && !text.contains(|c: char| c == '\\' || c.is_control());
        if fits {
            return Ok(text.to_owned());
        }
        Err(Expected::new(format!("a beginning of keys of 1 to {LONGEST} bytes, without `\\` and control characters")))
    })
}

fn expected() -> Expected {
    Expected::new(format!("a list of up to {MOST} beginnings of keys such as `[\"user:\", \"session:\"]`"))
}

/// The list as it is written.
pub(super) fn list(prefixes: &[Vec<u8>]) -> String {
    let each: Vec<String> = prefixes.iter().map(|prefix| quoted(&String::from_utf8_lossy(prefix))).collect();
    format!("[{}]", each.join(", "))
}
