//! The value of `rate_limits`: how much may be asked for.
//!
//! Promises: each limit bounds something, applies to one thing, and has a name of its own. Whether a user exists is compared
//! in `build`.

use super::keys::{self, Place};
use super::problems::Report;
use super::written::{Fields, Written, join, size, some_time};
use super::yaml::{Kind, Node};
use crate::engine::limits::{BURST, Limit, Scope};
use crate::units::{Expected, whole};
use std::time::Duration;

const MAX_NAME: usize = 128;
const MAX_LIMITS: usize = 64;
const MOST: u64 = 1_000_000_000;

impl Fields<'_, '_> {
    /// The limits; none where the key is not there.
    pub(super) fn rate_limits(&mut self) -> Vec<Written<Limit>> {
        let Some(node) = self.get("rate_limits") else { return Vec::new() };
        let key = join(&self.key, "rate_limits");
        let items = match &node.kind {
            Kind::List(items) if (1..=MAX_LIMITS).contains(&items.len()) => items,
            _ => {
                let expected = format!("a list of 1 to {MAX_LIMITS} limits such as `{{requests: 1000/s}}`");
                self.report.unfit(node, &key, &Expected::new(expected));
                return Vec::new();
            }
        };
        let mut limits: Vec<Written<Limit>> = Vec::new();
        for (i, node) in items.iter().enumerate() {
            let key = format!("{key}[{i}]");
            let Some(limit) = limit(node, key.clone(), self.report) else { continue };
            let same = limits.iter().find(|other| other.value.name == limit.value.name);
            let alike = |other: &&Written<Limit>| {
                matches!(other.value.on, Scope::Prefix(_)) && other.value.on == limit.value.on
            };
            if let Some(other) = same {
                self.report.twice(limit.at, other.at, key, "has the name of another limit, give it one of its own");
            } else if let Some(other) = limits.iter().find(alike) {
                self.report.twice(limit.at, other.at, key, "the same `prefix` has a limit already");
            }
            limits.push(limit);
        }
        limits
    }
}

fn limit(node: &Node, key: String, report: &mut Report) -> Option<Written<Limit>> {
    let mut fields = Fields::open(node, key, &keys::names(Place::Limit), report)?;
    let requests = fields.value("requests", |text| {
        let count = text.strip_suffix("/s").and_then(|text| whole(text.trim())).filter(|n| (1..=MOST).contains(n));
        count.ok_or_else(|| Expected::new(format!("requests a second such as `1000/s`, 1 to {MOST}")))
    });
    let flow = |text: &str| {
        let bytes = text.strip_suffix("/s").and_then(|text| size(text.trim(), 1).ok());
        bytes.ok_or_else(|| Expected::new("a size a second such as `10mb/s`"))
    };
    let bytes = fields.value("bytes", flow);
    let reply_bytes = fields.value("reply_bytes", flow);
    let burst = fields.value("burst", |text| {
        let span = some_time(text).ok().filter(|span| *span <= Duration::from_secs(3600));
        span.ok_or_else(|| Expected::new("a duration above 0 such as `1s`, at most `1h`"))
    });
    let text = |what: &'static str| {
        move |text: &str| match text {
            "" => Err(Expected::new(what)),
            text => Ok(text.to_owned()),
        }
    };
    let user = fields.value("user", text("the name of a user"));
    let prefix = fields.value("prefix", text("how keys begin"));
    let name = fields.value("name", |text| {
        let fits = (1..=MAX_NAME).contains(&text.len()) && !text.contains(char::is_control);
        if fits { Ok(text.to_owned()) } else { Err(Expected::new(format!("a name of 1 to {MAX_NAME} characters"))) }
    });
    if ["requests", "bytes", "reply_bytes"].iter().all(|name| fields.get(name).is_none()) {
        let said = "missing, expected at least one of `requests`, `bytes`, `reply_bytes`";
        fields.report.add(fields.at, join(&fields.key, "requests"), said);
    }
    if let (Some(user), Some(prefix)) = (&user, &prefix) {
        let key = join(&fields.key, "prefix");
        fields.report.twice(
            prefix.at,
            user.at,
            key,
            "given beside `user`, a limit is on one of them or on the whole pool",
        );
    }
    if let (Some(bytes), Some(prefix)) = (&reply_bytes, &prefix) {
        let key = join(&fields.key, "reply_bytes");
        let said = "given beside `prefix`, replies are counted of a user or of the whole pool";
        fields.report.twice(bytes.at, prefix.at, key, said);
    }
    let on = match (user, prefix) {
        (Some(user), _) => Scope::User(user.value),
        (None, Some(prefix)) => Scope::Prefix(prefix.value.into_bytes()),
        (None, None) => Scope::Pool,
    };
    let name = name.map(|name| name.value).unwrap_or_else(|| match &on {
        Scope::Pool => "pool".to_owned(),
        Scope::User(user) => format!("user {user}"),
        Scope::Prefix(prefix) => format!("prefix {}", String::from_utf8_lossy(prefix)),
    });
    let (requests, bytes) = (requests.map(|written| written.value), bytes.map(|written| written.value));
    let reply_bytes = reply_bytes.map(|written| written.value);
    let burst = burst.map_or(BURST, |written| written.value);
    Some(Written { value: Limit { name, requests, bytes, reply_bytes, burst, on }, at: fields.at })
}
