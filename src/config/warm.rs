//! `warm_from`, `warm_for` and `warm_rate`: where keys are looked for that are not at their home.
//!
//! Promises: a pool that is named is there, has servers, and is another one; and keys have a home.

use super::problems::{Report, quoted};
use super::written::{PoolWritten, ServersWritten, Written};
use crate::ring::Distribution;
use crate::units::{Expected, Millis};
use crate::upstream::config::WarmFrom;
use crate::upstream::topology::Kind;
use std::time::Duration;

/// The longest `warm_for`.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);
const LEAST: Duration = Duration::from_secs(1);

pub(super) fn from(text: &str) -> Result<Option<WarmFrom>, Expected> {
    match text {
        "off" => Ok(None),
        text => text.parse().map(Some),
    }
}

pub(super) fn span(text: &str) -> Result<Duration, Expected> {
    let span = text.parse::<Millis>().ok().map(Duration::from).filter(|span| (LEAST..=LONGEST).contains(span));
    span.ok_or_else(|| Expected::new("a duration from `1s` to `168h` such as `1h`"))
}

/// What does not fit together.
pub(super) fn check(pools: &[PoolWritten], report: &mut Report) {
    let embedded = |pool: &PoolWritten| matches!(pool.servers, Some(ServersWritten::Embedded(_)));
    let random =
        |pool: &PoolWritten| pool.distribution.as_ref().is_some_and(|written| written.value == Distribution::Random);
    let asked = |pool: &PoolWritten| pool.topology.kind() != Kind::Static;
    for pool in pools {
        let Some(Written { value: Some(from), at }) = &pool.warm_from else { continue };
        let key = format!("{}.warm_from", pool.key);
        let other = match from {
            WarmFrom::Previous => None,
            WarmFrom::Pool(name) => Some((name, pools.iter().find(|other| other.name.value == *name))),
        };
        let said = match other {
            _ if embedded(pool) => "is for pools of servers: embedded nodes are in this process".to_owned(),
            _ if random(pool) => "is for keys that have a home; with `distribution: random` they have none".to_owned(),
            _ if asked(pool) => "is for `topology: static`: elsewhere keys are moved by others".to_owned(),
            Some((_, Some(other))) if asked(other) => "names a pool whose `topology` is not `static`".to_owned(),
            Some((name, None)) => format!("there is no pool {}", quoted(name)),
            Some((_, Some(other))) if other.name.value == pool.name.value => {
                "a pool cannot be its own past; `previous` is where its keys lived before".to_owned()
            }
            Some((name, Some(other))) if embedded(other) => {
                format!("pool {} has no servers, expected one that has", quoted(name))
            }
            Some((name, Some(other))) if random(other) => {
                format!("in pool {} keys have no home, it has `distribution: random`", quoted(name))
            }
            _ => continue,
        };
        report.add(*at, key, said);
    }
}
