//! The value of `misses`: what is done when keys are asked for that are not there.
//!
//! Promises: every number is within its bounds, no two beginnings are the same, every file of ids could be read and has some,
//! and nothing is asked for that the pool's servers cannot do. What is left out of a beginning is as for all keys.

use super::hot::{from_thousandths, thousandths, two_words};
use super::keys::{self, Place};
use super::problems::Report;
use super::text::quoted;
use super::written::{Fields, PoolWritten, ServersWritten, Written, flag, join, number};
use super::yaml::{Kind, Node};
use crate::stages::Micros;
use crate::stages::lease::absent::Ids;
use crate::stages::lease::{Config, Lease, Rule, Wanted};
use crate::units::{Expected, Millis};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::Read;
use std::path::Path;
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;

const MAX_PREFIXES: usize = 256;
/// Bytes of a file of ids.
const MAX_IDS: u64 = 1 << 30;
/// Bytes of what is told of an id that does not exist.
const MAX_REPLY: usize = 4096;
/// Thousandths by which times to live are shortened.
const MOST_JITTER: u32 = 500;
const MOST_MISSES: u32 = 1_000_000_000;
const SECOND: u64 = 1_000_000;
const NIL: &str = "nil";

/// What was written, and where something was asked for.
#[derive(Debug)]
pub(super) struct MissesWritten {
    pub(super) config: Config,
    /// Each `lease`, with its key.
    leases: Vec<(String, Written<Lease>)>,
}

impl<'n> Fields<'n, '_> {
    /// What is done when keys are not there; `None` where the key is not there itself.
    pub(super) fn misses(&mut self, dir: &Path) -> Option<MissesWritten> {
        let mut fields = self.fields("misses", Place::Misses)?;
        let (mut all, mut rules, mut leases) = (Wanted::default(), Vec::new(), Vec::new());
        fields.wanted(&mut all, &mut leases);
        let mut seen: Vec<Written<Box<[u8]>>> = Vec::new();
        for (i, node) in fields.beginnings().iter().enumerate() {
            let key = format!("{}[{i}]", join(&fields.key, "prefixes"));
            let Some(mut entry) = Fields::open(node, key, &keys::names(Place::MissPrefix), fields.report) else {
                continue;
            };
            entry.require("prefix", "how keys begin, such as `product:`");
            let prefix = entry.value("prefix", |text| match text {
                "" => Err(Expected::new("how keys begin, such as `product:`")),
                text => Ok(text.as_bytes().into()),
            });
            let mut wanted = all.clone();
            entry.wanted(&mut wanted, &mut leases);
            wanted.absent_ids = entry.ids(dir);
            let Some(prefix) = prefix else { continue };
            if let Some(first) = seen.iter().find(|other| other.value == prefix.value) {
                let key = join(&entry.key, "prefix");
                entry.report.twice(prefix.at, first.at, key, "the same `prefix` is given already");
            }
            rules.push(Rule { prefix: prefix.value.clone(), wanted });
            seen.push(prefix);
        }
        Some(MissesWritten { config: Config::new(all, rules), leases })
    }

    fn beginnings(&mut self) -> &'n [Node] {
        let Some(node) = self.get("prefixes") else { return &[] };
        match &node.kind {
            Kind::List(items) if (1..=MAX_PREFIXES).contains(&items.len()) => items,
            _ => {
                let such_as = "`{prefix: \"product:\", lease: local}`";
                let expected = Expected::new(format!("a list of 1 to {MAX_PREFIXES} beginnings such as {such_as}"));
                self.report.unfit(node, &join(&self.key, "prefixes"), &expected);
                &[]
            }
        }
    }

    /// The keys that may stand in the map and in its entries.
    fn wanted(&mut self, to: &mut Wanted, leases: &mut Vec<(String, Written<Lease>)>) {
        if let Some(lease) = self.value("lease", lease) {
            to.lease = lease.value;
            leases.push((join(&self.key, "lease"), lease));
        }
        let mut span = |name, range: std::ops::RangeInclusive<Micros>, said| {
            let read = self.value(name, |text| {
                let span = text.parse::<Millis>().ok().map(|span| micros(span.into()));
                span.filter(|span| range.contains(span)).ok_or_else(|| Expected::new(said))
            });
            read.map(|written| written.value)
        };
        let wait = span("lease_wait", SECOND / 20..=60 * SECOND, "a duration from `50ms` to `60s` such as `1s`");
        let term = span("lease_term", SECOND / 2..=60 * SECOND, "a duration from `500ms` to `60s` such as `10s`");
        let stale = span("stale", 0..=60 * SECOND, "a duration from `0s` to `60s` such as `1s`");
        to.stale = stale.unwrap_or(to.stale);
        to.longest_wait = wait.unwrap_or(to.longest_wait);
        to.longest_term = term.unwrap_or(to.longest_term);
        let waits = self.value("same_connection", two_words(NIL, "wait"));
        to.same_connection_waits = waits.map_or(to.same_connection_waits, |written| written.value);
        to.cache_aside = self.value("cache_aside", flag).map_or(to.cache_aside, |written| written.value);
        to.guards = self.value("guard_stale_set", flag).map_or(to.guards, |written| written.value);
        to.ttl_jitter = self.value("ttl_jitter", jitter).map_or(to.ttl_jitter, |written| written.value);
        to.miss_budget = self.value("miss_budget", budget).map_or(to.miss_budget, |written| written.value);
        if let Some(reply) = self.value("absent_reply", absent_reply) {
            to.absent_reply = reply.value;
        }
    }

    /// The ids that exist. The file is noted as one that the configuration depends on.
    fn ids(&mut self, dir: &Path) -> Option<Ids> {
        if let Some(name) = self.get("absent_ids").and_then(Node::text) {
            self.report.depends_on(dir.join(name));
        }
        self.value("absent_ids", |text| ids(text, dir)).map(|written| written.value)
    }
}

fn micros(span: Duration) -> Micros {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

fn words() -> Expected {
    let words: Vec<String> = Lease::ALL.iter().map(|(word, _)| format!("`{word}`")).collect();
    Expected::new(format!("one of {}", words.join(" ")))
}

fn lease(text: &str) -> Result<Lease, Expected> {
    Lease::from_str(text).map_err(|()| match keys::meant(text, &Lease::ALL.map(|(word, _)| word)) {
        Some(meant) => Expected::new(format!("{}; did you mean `{meant}`?", words())),
        None => words(),
    })
}

fn jitter(text: &str) -> Result<u16, Expected> {
    let part = thousandths(text).filter(|part| *part <= MOST_JITTER).and_then(|part| part.try_into().ok());
    part.ok_or_else(|| Expected::new("a number from 0 to 0.5 such as `0.1`"))
}

fn budget(text: &str) -> Result<Option<u32>, Expected> {
    match text {
        "off" => Ok(None),
        _ => number(text, 1, MOST_MISSES).map(Some).map_err(|e| Expected::new(format!("{e}, or `off`"))),
    }
}

fn absent_reply(text: &str) -> Result<Option<Box<str>>, Expected> {
    match text {
        NIL => Ok(None),
        _ if (1..=MAX_REPLY).contains(&text.len()) => Ok(Some(text.into())),
        _ => Err(Expected::new(format!("`{NIL}`, or a text of 1 to {MAX_REPLY} bytes"))),
    }
}

/// The hash by which ids are known is another one in each process, and the same whenever a list is read again.
fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| RandomState::new().hash_one(MAX_IDS))
}

fn ids(name: &str, dir: &Path) -> Result<Ids, Expected> {
    if name.is_empty() {
        return Err(Expected::new("the path of a file of ids, one a line"));
    }
    let mut text = Vec::new();
    let read = File::open(dir.join(name)).and_then(|file| file.take(MAX_IDS + 1).read_to_end(&mut text));
    match read {
        Err(e) => Err(Expected::new(format!("a file that can be read: {}", super::problems::quoted(&e.to_string())))),
        Ok(bytes) if bytes as u64 > MAX_IDS => Err(Expected::new("a file of at most 1gb")),
        // A list that was cut to nothing would make all there is absent.
        Ok(_) => Some(Ids::new(name, &text, seed()))
            .filter(|ids| ids.listed() > 0)
            .ok_or_else(|| Expected::new("a file of at least one id")),
    }
}

/// What the pool's servers must be able to do.
pub(super) fn check(pool: &PoolWritten, report: &mut Report) {
    let Some(misses) = &pool.misses else { return };
    let embedded = matches!(pool.servers, Some(ServersWritten::Embedded(_)));
    let old = pool.resp3.as_ref().is_some_and(|resp3| !resp3.value);
    for (key, Written { value, at }) in misses.leases.iter().filter(|(_, lease)| lease.value == Lease::Fleet) {
        if embedded {
            let said =
                format!("read `{value}`, expected `local`: embedded nodes are in this process, no other has them");
            report.add(*at, key, said);
        } else if old {
            let said = format!(
                "`{value}` is for servers that speak RESP3, which tell of changes; this pool has `resp3: false`"
            );
            report.add(*at, key, said);
        }
    }
}

/// What is allowed but seldom meant, of a pool that `keeps` what it reads in memory, or does not.
pub(super) fn warnings(misses: &Config, keeps: bool) -> Vec<String> {
    let mut out = Vec::new();
    let each = misses.rules().iter().map(|rule| (Some(rule), &rule.wanted));
    for (rule, wanted) in [(None, misses.all())].into_iter().chain(each) {
        let of = rule.map_or(String::new(), |rule| format!("prefix {}: ", quoted(&prefix(rule))));
        // For all keys it may be meant for those beginnings that have a lease.
        let meant = if rule.is_some() { !misses.all().cache_aside } else { !misses.refreshes() };
        if wanted.cache_aside && wanted.lease == Lease::Off && meant {
            out.push(format!("`misses`: {of}`cache_aside` does nothing without `lease: local` or `lease: fleet`"));
        }
        let own = |is: fn(&Wanted) -> bool| is(wanted) && (rule.is_none() || !is(misses.all()));
        for (key, is, on) in [
            ("stale", (|wanted| wanted.stale > 0) as fn(&Wanted) -> bool, misses.tells_stale()),
            ("guard_stale_set", |wanted| wanted.guards, misses.guards()),
        ] {
            let elsewhere = rule.is_none() && on;
            if own(is) && !(wanted.lease.holds() || elsewhere || (wanted.lease == Lease::Observe && on)) {
                out.push(format!("`misses`: {of}`{key}` does nothing without `lease: local` or `lease: fleet`"));
            }
        }
        if own(|wanted| wanted.guards) && wanted.same_connection_waits {
            out.push(format!("`misses`: {of}`guard_stale_set` does nothing with `same_connection: wait`"));
        }
        if own(|wanted| wanted.stale > 0) && !keeps {
            out.push(format!(
                "`misses`: {of}`stale` does nothing without `hot_keys`, whose `reads` is `near` or `auto`: it is told from memory"
            ));
        }
        let Some(rule) = rule else { continue };
        if wanted.absent_reply.is_some() && wanted.absent_ids.is_none() && misses.all().absent_reply.is_none() {
            out.push(format!("`misses`: {of}`absent_reply` does nothing without `absent_ids`"));
        }
        let shorter = |other: &&Rule| other.prefix.len() < rule.prefix.len() && rule.prefix.starts_with(&other.prefix);
        let anyway = misses.rules().iter().filter(shorter).max_by_key(|other| other.prefix.len());
        // A budget of its own is something, even if it is as large.
        if anyway.map_or(misses.all(), |other| &other.wanted) == wanted && wanted.miss_budget.is_none() {
            out.push(format!("`misses`: {of}it changes nothing, its keys are treated so without it"));
        }
    }
    out
}

fn prefix(rule: &Rule) -> String {
    String::from_utf8_lossy(&rule.prefix).into_owned()
}

/// The map as lines of a file, each key with its value.
pub(super) fn lines(misses: &Config) -> Vec<String> {
    let mut out = keys_of(misses.all());
    if !misses.rules().is_empty() {
        out.push("prefixes:".to_owned());
    }
    let rule = |rule: &Rule| {
        let mut keys = vec![format!("prefix: {}", quoted(&prefix(rule)))];
        keys.extend(keys_of(&rule.wanted));
        keys.extend(rule.wanted.absent_ids.as_ref().map(|ids| format!("absent_ids: {}", quoted(ids.file()))));
        format!("  - {{{}}}", keys.join(", "))
    };
    out.extend(misses.rules().iter().map(rule));
    out
}

fn keys_of(wanted: &Wanted) -> Vec<String> {
    let span = |span: Micros| Millis::from(Duration::from_micros(span));
    vec![
        format!("lease: {}", wanted.lease),
        format!("lease_wait: {}", span(wanted.longest_wait)),
        format!("lease_term: {}", span(wanted.longest_term)),
        format!("same_connection: {}", if wanted.same_connection_waits { "wait" } else { NIL }),
        format!("cache_aside: {}", wanted.cache_aside),
        format!("stale: {}", span(wanted.stale)),
        format!("guard_stale_set: {}", wanted.guards),
        format!("ttl_jitter: {}", from_thousandths(wanted.ttl_jitter.into())),
        format!("miss_budget: {}", wanted.miss_budget.map_or("off".to_owned(), |count| count.to_string())),
        format!("absent_reply: {}", wanted.absent_reply.as_deref().map_or(NIL.to_owned(), quoted)),
    ]
}
