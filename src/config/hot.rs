//! The value of `hot_keys`: what is done with keys that are asked for more than their share.
//!
//! Promises: every number is within its bounds, no two beginnings are the same, and nothing is asked for that the pool's
//! servers cannot do. Which keys are hot, and what is done with each, is not decided here.

use super::keys::{self, Place};
use super::problems::Report;
use super::text::quoted;
use super::written::{Fields, PoolWritten, ServersWritten, Written, flag, join, number, size};
use super::yaml::{Kind, Node};
use crate::stages::hot::{Config, Reads, Rule};
use crate::units::{Expected, Millis, Size};
use crate::upstream::config::Servers;
use std::str::FromStr;
use std::time::Duration;

const MAX_PREFIXES: usize = 256;
/// No less than the longest value that is kept where nothing is said of it.
const LEAST_MEMORY: u64 = 64 << 10;
const FRESHEST: Duration = Duration::from_millis(200);
const STALEST: Duration = Duration::from_secs(60);
const FEWEST: u32 = 2;
const MOST: u32 = 64;

/// What was written, and where something was asked for.
#[derive(Debug)]
pub(super) struct HotWritten {
    pub(super) config: Config,
    /// Each `reads`, with its key.
    reads: Vec<(String, Written<Reads>)>,
}

impl Fields<'_, '_> {
    /// What is done with hot keys; `None` where the key is not there.
    pub(super) fn hot_keys(&mut self) -> Option<HotWritten> {
        let mut fields = self.fields("hot_keys", Place::HotKeys)?;
        let mut config = Config::default();
        let mut reads = Vec::new();
        if let Some(written) = fields.value("reads", self::reads) {
            config.reads = written.value;
            reads.push((join(&fields.key, "reads"), written));
        }
        let set = |to: &mut _, written: Option<Written<_>>| written.map_or((), |written| *to = written.value);
        set(&mut config.extra_load, fields.value("extra_load", share));
        if let Some(staleness) = fields.value("max_staleness", staleness) {
            config.staleness = u64::try_from(staleness.value.as_micros()).unwrap_or(u64::MAX);
        }
        if let Some(most) = fields.value("max_copies", |text| number(text, FEWEST, MOST)) {
            config.most_copies = most.value.try_into().unwrap_or(config.most_copies);
        }
        let bytes = |to: &mut usize, written: &Option<Written<u64>>| {
            if let Some(written) = written {
                *to = written.value.try_into().unwrap_or(usize::MAX);
            }
        };
        bytes(&mut config.near_memory, &fields.value("near_memory", |text| size(text, LEAST_MEMORY)));
        let near_value = fields.value("near_value", |text| size(text, 1));
        bytes(&mut config.longest_near, &near_value);
        if let Some(all) = fields.value("near_all", flag) {
            config.near_all = all.value;
        }
        if let Some(keep) = fields.value("near_writes", flag) {
            config.keep_writes = keep.value;
        }
        bytes(&mut config.longest_copy, &fields.value("copy_value", |text| size(text, 1)));
        if let Some(value) = near_value.filter(|_| config.longest_near > config.near_memory) {
            let memory = Size::from(config.near_memory as u64);
            let said = format!("more than `near_memory`, which is {memory}: a value of that length is never kept");
            fields.report.add(value.at, join(&fields.key, "near_value"), said);
        }
        let (choice, scripts) = (two_words("balanced", "sticky"), two_words("declared", "any"));
        if let Some(sticky) = fields.value("choice", choice) {
            config.sticky = sticky.value;
        }
        if let Some(wait) = fields.value("wait_for_copies", flag) {
            config.wait_for_copies = wait.value;
        }
        if let Some(any) = fields.value("scripts", scripts) {
            config.any_script = any.value;
        }
        set(&mut config.audit, fields.value("audit", |text| number(text, 0, u32::MAX)));
        fields.prefixes(&mut config.rules, &mut reads);
        Some(HotWritten { config, reads })
    }

    fn prefixes(&mut self, rules: &mut Vec<Rule>, reads: &mut Vec<(String, Written<Reads>)>) {
        let Some(node) = self.get("prefixes") else { return };
        let key = join(&self.key, "prefixes");
        let items = match &node.kind {
            Kind::List(items) if (1..=MAX_PREFIXES).contains(&items.len()) => items,
            _ => {
                let such_as = "`{prefix: \"product:\", reads: auto}`";
                let expected = Expected::new(format!("a list of 1 to {MAX_PREFIXES} beginnings such as {such_as}"));
                return self.report.unfit(node, &key, &expected);
            }
        };
        let mut seen: Vec<Written<Box<[u8]>>> = Vec::new();
        for (i, node) in items.iter().enumerate() {
            let key = format!("{key}[{i}]");
            let Some((prefix, wanted)) = rule(node, key.clone(), self.report) else { continue };
            if let Some(first) = seen.iter().find(|other| other.value == prefix.value) {
                let key = join(&key, "prefix");
                self.report.twice(prefix.at, first.at, key, "the same `prefix` is given already");
            }
            rules.push(Rule { prefix: prefix.value.clone(), reads: wanted.value });
            reads.push((join(&key, "reads"), wanted));
            seen.push(prefix);
        }
    }
}

/// How keys begin, and what is wanted for them.
type RuleWritten = (Written<Box<[u8]>>, Written<Reads>);

fn rule(node: &Node, key: String, report: &mut Report) -> Option<RuleWritten> {
    let mut fields = Fields::open(node, key, &keys::names(Place::HotPrefix), report)?;
    fields.require("prefix", "how keys begin, such as `product:`");
    fields.require("reads", &words().to_string());
    let prefix = fields.value("prefix", |text| match text {
        "" => Err(Expected::new("how keys begin, such as `product:`")),
        text => Ok(text.as_bytes().into()),
    });
    prefix.zip(fields.value("reads", reads))
}

fn words() -> Expected {
    let words: Vec<String> = Reads::ALL.iter().map(|(word, _)| format!("`{word}`")).collect();
    Expected::new(format!("one of {}", words.join(" ")))
}

fn reads(text: &str) -> Result<Reads, Expected> {
    Reads::from_str(text).map_err(|()| {
        let known = Reads::ALL.map(|(word, _)| word);
        match keys::meant(text, &known) {
            Some(meant) => Expected::new(format!("{}; did you mean `{meant}`?", words())),
            None => words(),
        }
    })
}

/// A part of the fair share, in thousandths.
fn share(text: &str) -> Result<u32, Expected> {
    let share = thousandths(text).filter(|share| (10..=1000).contains(share));
    share.ok_or_else(|| Expected::new("a number from 0.01 to 1.0 such as `0.25`"))
}

/// A number of at most three places behind its point, in thousandths.
pub(super) fn thousandths(text: &str) -> Option<u32> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 3 {
        return None;
    }
    let part: u32 = format!("{part:0<3}").parse().ok()?;
    whole.parse::<u32>().ok()?.checked_mul(1000)?.checked_add(part)
}

/// The same, as it is written.
pub(super) fn from_thousandths(number: u32) -> String {
    let text = format!("{}.{:03}", number / 1000, number % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

pub(super) fn staleness(text: &str) -> Result<Duration, Expected> {
    let span = text.parse::<Millis>().ok().map(Duration::from).filter(|span| (FRESHEST..=STALEST).contains(span));
    span.ok_or_else(|| Expected::new("a duration from `200ms` to `60s` such as `1s`"))
}

/// Whether it is the second of two words.
pub(super) fn two_words(first: &'static str, second: &'static str) -> impl Fn(&str) -> Result<bool, Expected> {
    move |text| match text {
        text if text == first => Ok(false),
        text if text == second => Ok(true),
        _ => Err(Expected::new(format!("`{first}` or `{second}`"))),
    }
}

/// What the pool's servers must be able to do.
pub(super) fn check(pool: &PoolWritten, report: &mut Report) {
    let Some(hot) = &pool.hot else { return };
    let embedded = matches!(pool.servers, Some(ServersWritten::Embedded(_)));
    let old = pool.resp3.as_ref().is_some_and(|resp3| !resp3.value);
    for (key, Written { value, at }) in &hot.reads {
        if embedded && value.serves() {
            let said =
                format!("read `{value}`, expected `off` or `observe`: embedded nodes are in this process anyway");
            report.add(*at, key, said);
        } else if old && matches!(value, Reads::Auto | Reads::Near) {
            let said = format!(
                "`{value}` is for servers that speak RESP3, which tell of changes; this pool has `resp3: false`"
            );
            report.add(*at, key, said);
        }
    }
}

/// Whether what is read of any key may be kept in memory.
pub(super) fn keeps(hot: &Config) -> bool {
    let mut all = std::iter::once(hot.reads).chain(hot.rules.iter().map(|rule| rule.reads));
    all.any(|reads| matches!(reads, Reads::Near | Reads::Auto))
}

/// What is allowed but seldom meant.
pub(super) fn warnings(hot: &Config, servers: &Servers) -> Vec<String> {
    let mut out = Vec::new();
    for rule in &hot.rules {
        let shorter = |other: &&Rule| other.prefix.len() < rule.prefix.len() && rule.prefix.starts_with(&other.prefix);
        let anyway = hot.rules.iter().filter(shorter).max_by_key(|other| other.prefix.len());
        if anyway.map_or(hot.reads, |other| other.reads) == rule.reads {
            let (prefix, reads) = (quoted(&String::from_utf8_lossy(&rule.prefix)), rule.reads);
            out.push(format!("`hot_keys`: prefix {prefix} changes nothing, its keys have `reads: {reads}` without it"));
        }
    }
    let copies = hot.reads == Reads::Copies || hot.rules.iter().any(|rule| rule.reads == Reads::Copies);
    if copies && matches!(servers, Servers::Static(list) if list.len() == 1) {
        out.push("`hot_keys` with `reads: copies`: with one server there is none to copy to".to_owned());
    }
    out
}

/// The map as lines of a file, each key with its value.
pub(super) fn lines(hot: &Config) -> Vec<String> {
    let Config { reads, rules, extra_load, staleness, most_copies, near_memory, longest_near, longest_copy, .. } = hot;
    let Config { near_all, keep_writes, .. } = hot;
    let share = from_thousandths(*extra_load);
    let size = |bytes: usize| Size::from(bytes as u64);
    let mut out = vec![
        format!("reads: {reads}"),
        format!("extra_load: {share}"),
        format!("max_staleness: {}", Millis::from(Duration::from_micros(*staleness))),
        format!("max_copies: {most_copies}"),
        format!("near_memory: {}", size(*near_memory)),
        format!("near_value: {}", size(*longest_near)),
        format!("near_all: {near_all}"),
        format!("near_writes: {keep_writes}"),
        format!("copy_value: {}", size(*longest_copy)),
        format!("choice: {}", if hot.sticky { "sticky" } else { "balanced" }),
        format!("wait_for_copies: {}", hot.wait_for_copies),
        format!("scripts: {}", if hot.any_script { "any" } else { "declared" }),
        format!("audit: {}", hot.audit),
    ];
    if !rules.is_empty() {
        out.push("prefixes:".to_owned());
    }
    let rule = |rule: &Rule| {
        format!("  - {{prefix: {}, reads: {}}}", quoted(&String::from_utf8_lossy(&rule.prefix)), rule.reads)
    };
    out.extend(rules.iter().map(rule));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_thousandths() {
        for (text, thousandths) in
            [("0.25", 250), ("0.01", 10), ("1", 1000), ("1.0", 1000), ("0.125", 125), ("00.5", 500)]
        {
            assert_eq!(share(text).ok(), Some(thousandths), "{text}");
        }
        for text in ["", ".5", "0.", "0", "0.009", "1.001", "2", "-0.5", "25%", "0.2500", "1e-1", "0.+5", "99999999999"]
        {
            assert!(share(text).is_err(), "{text}");
        }
    }
}
