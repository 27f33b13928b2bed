//! `read_from` and what belongs to it: who answers reads in a pool whose servers have replicas.
//!
//! Promises: every word is known, no beginning stands twice, and who is to be chosen by zones can be. That there are replicas is
//! no condition: what is read from nobody else is read from the servers, and whoever seems to want something else is warned.

use super::problems::Report;
use super::text::quoted;
use super::written::{Fields, PoolWritten, ServersWritten, Written, join, refuse_twice, scalar};
use super::yaml::Node;
use super::{hot, keys, servers};
use crate::stages::hot::{ReadFrom, Reading};
use crate::units::{Address, Expected, Millis};
use crate::upstream::config::{Config, Servers, WhenEjected};
use std::time::Duration;

const ZONE: &str = "the name of a zone such as `eu-west-1a`";

/// What was written, and where.
#[derive(Debug)]
pub(super) struct ReadingWritten {
    pub(super) reading: Reading,
    /// Each word, with its key.
    words: Vec<(String, Written<ReadFrom>)>,
    /// Where servers and replicas are.
    pub(super) zones: Vec<(Address, String)>,
}

impl<'n> Fields<'n, '_> {
    /// Who answers reads.
    pub(super) fn reading(&mut self) -> ReadingWritten {
        let (mut reading, mut words) = (Reading::default(), Vec::new());
        if let Some(written) = self.value("read_from", word) {
            reading.from = written.value;
            words.push((join(&self.key, "read_from"), written));
        }
        for (prefix, key, node) in self.named("read_from_prefixes", "a map from how keys begin to words such as `any`")
        {
            if let Some(written) = scalar(node, &key, self.report, word) {
                reading.rules.push((prefix.as_bytes().into(), written.value));
                words.push((key, written));
            }
        }
        if let Some(staleness) = self.value("read_staleness", hot::staleness) {
            reading.staleness = u64::try_from(staleness.value.as_micros()).unwrap_or(u64::MAX);
        }
        reading.zone = self.value("zone", zone).map(|zone| zone.value.into());
        let mut zones = Vec::new();
        let such_as = "a map from addresses to zones such as `{\"10.0.0.21:6379\": eu-west-1a}`";
        for (address, key, node) in self.named("zones", such_as) {
            let named = servers::address(&address);
            let zone = scalar(node, &key, self.report, zone);
            match named {
                Ok((address, _)) => zones.extend(zone.map(|zone| (address, zone.value))),
                Err(expected) => self.report.add(node.id, key, format!("read `{address}`, expected {expected}")),
            }
        }
        ReadingWritten { reading, words, zones }
    }

    /// The entries of a map from names: each with its key in words.
    fn named(&mut self, name: &str, expected: &'static str) -> Vec<(String, String, &'n Node)> {
        let Some(node) = self.get(name) else { return Vec::new() };
        let key = join(&self.key, name);
        let Some(entries) = node.entries().filter(|entries| !entries.is_empty()) else {
            self.report.unfit(node, &key, &Expected::new(expected));
            return Vec::new();
        };
        refuse_twice(entries, &key, self.report);
        let named = entries.iter().filter_map(|(name, value)| Some((name.text()?.to_owned(), value)));
        named.map(|(name, value)| (name.clone(), join(&key, &name), value)).collect()
    }
}

fn word(text: &str) -> Result<ReadFrom, Expected> {
    text.parse().map_err(|()| {
        let known = ReadFrom::ALL.map(|(word, _)| word);
        let words = format!("one of `{}`", known.join("` `"));
        match keys::meant(text, &known) {
            Some(meant) => Expected::new(format!("{words}; did you mean `{meant}`?")),
            None => Expected::new(words),
        }
    })
}

fn zone(text: &str) -> Result<String, Expected> {
    let named = !text.is_empty() && text.len() <= 128 && !text.contains(|c: char| c.is_whitespace() || c.is_control());
    if named { Ok(text.to_owned()) } else { Err(Expected::new(ZONE)) }
}

/// What is asked for can be done.
pub(super) fn check(pool: &PoolWritten, report: &mut Report) {
    let ReadingWritten { reading, words, .. } = &pool.reading;
    let embedded = matches!(pool.servers, Some(ServersWritten::Embedded(_)));
    let gutter = matches!(&pool.when_ejected, Some(Written { value: WhenEjected::Gutter(_), .. }));
    for (key, Written { value, at }) in words {
        if embedded && *value != ReadFrom::Primary {
            let said = format!("read `{value}`, expected `primary`: embedded nodes have no replicas");
            report.add(*at, key, said);
        } else if value.needs_zone() && reading.zone.is_none() {
            report.add(*at, key, format!("`{value}` goes by zones: name the one of this hotring with `zone`"));
        } else if gutter && *value == ReadFrom::Replica {
            let said = "`replica` with `when_ejected: gutter`: who stands in for a server has no replicas, expected `prefer_replica`";
            report.add(*at, key, said);
        }
    }
}

/// What is allowed but seldom meant.
pub(super) fn warnings(reading: &Reading, upstream: &Config, near_all: bool) -> Vec<String> {
    let mut out = Vec::new();
    let Servers::Static(list) = &upstream.servers else { return out };
    if !reading.is_on() {
        return out;
    }
    // Where others say which servers there are, they say which replicas these have.
    let listed = upstream.topology.asked().is_none();
    let bare = list.iter().filter(|server| listed && !upstream.replicas.iter().any(|(name, _)| *name == server.name));
    let names: Vec<String> = bare.map(|server| quoted(&server.name)).collect();
    if !names.is_empty() {
        let refused = reading.wanted().any(|from| from == ReadFrom::Replica);
        let what = if refused { "reads of its keys with `replica` are refused" } else { "it answers all reads itself" };
        out.push(format!("`read_from`: no `replicas` for {}: {what}", names.join(", ")));
    }
    if near_all {
        out.push("`read_from` does nothing with `near_all`: every key that is read is kept in memory".to_owned());
    }
    out
}

/// The effective settings.
pub(super) fn lines(reading: &Reading, zones: &[(Address, String)]) -> Vec<String> {
    let Reading { from, rules, staleness, zone } = reading;
    let mut out = Vec::new();
    out.push(format!("read_from: {from}"));
    if !rules.is_empty() {
        out.push("read_from_prefixes:".to_owned());
    }
    let rule =
        |(prefix, from): &(Box<[u8]>, ReadFrom)| format!("  {}: {from}", quoted(&String::from_utf8_lossy(prefix)));
    out.extend(rules.iter().map(rule));
    out.push(format!("read_staleness: {}", Millis::from(Duration::from_micros(*staleness))));
    out.extend(zone.iter().map(|zone| format!("zone: {}", quoted(zone))));
    if !zones.is_empty() {
        out.push("zones:".to_owned());
    }
    out.extend(zones.iter().map(|(address, zone)| format!("  {}: {}", quoted(&address.to_string()), quoted(zone))));
    out
}
