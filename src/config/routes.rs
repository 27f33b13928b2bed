//! The value of `routes`: which of a pool's keys live in other pools.
//!
//! Promises: each pool that is named is there, is another one, leads to none itself and can answer whatever an app of this pool may
//! ask it.

use super::problems::{Report, quoted};
use super::written::{Fields, PoolWritten, ServersWritten, Written, join, refuse_twice, scalar};
use super::{Pool, text};
use crate::downstream::config::MAX_REQUEST;
use crate::resp::Limits;
use crate::stages::routes::Routes;
use crate::units::Expected;
use crate::upstream::config::{DATABASES, Servers};

/// Most routes of a pool.
pub(super) const MOST: usize = 256;
/// The longest beginning of keys, in bytes.
const LONGEST: usize = 512;

/// A route: how keys begin, and the name of the pool.
pub(super) type RouteWritten = (String, Written<String>);

impl Fields<'_, '_> {
    /// Pools by how keys begin; none where the key is not there.
    pub(super) fn routes(&mut self) -> Vec<RouteWritten> {
        let Some(node) = self.get("routes") else { return Vec::new() };
        let key = join(&self.key, "routes");
        let expected = || {
            Expected::new(format!(
                "a map of 1 to {MOST} beginnings of keys, each with the name of a pool, such as `{{\"user:\": users}}`"
            ))
        };
        let Some(entries) = node.entries().filter(|entries| (1..=MOST).contains(&entries.len())) else {
            self.report.unfit(node, &key, &expected());
            return Vec::new();
        };
        refuse_twice(entries, &key, self.report);
        let mut routes = Vec::new();
        for (start, name) in entries {
            let Some(beginning) = start.text().filter(|text| (1..=LONGEST).contains(&text.len())) else {
                self.report.unfit(start, &key, &Expected::new(format!("how keys begin, in 1 to {LONGEST} bytes")));
                continue;
            };
            let pool = |text: &str| match text {
                "" => Err(Expected::new("the name of a pool")),
                text => Ok(text.to_owned()),
            };
            routes.extend(
                scalar(name, &join(&key, beginning), self.report, pool).map(|name| (beginning.to_owned(), name)),
            );
        }
        routes
    }
}

/// What the file says, to be looked up.
pub(super) fn value(routes: Vec<RouteWritten>) -> Routes {
    Routes::new(routes.into_iter().map(|(start, pool)| (start.into_bytes().into(), pool.value)).collect())
}

/// Whether a route of any pool leads to this one.
pub(super) fn lead_to(pools: &[PoolWritten], name: &str) -> bool {
    pools.iter().any(|pool| pool.routes.iter().any(|(_, to)| to.value == name))
}

/// What does not fit together.
pub(super) fn check(pools: &[PoolWritten], report: &mut Report) {
    for pool in pools {
        let mut told: Vec<&str> = Vec::new();
        for (start, to) in &pool.routes {
            if told.contains(&to.value.as_str()) {
                continue;
            }
            if let Some(said) = against(pools, pool, &to.value) {
                told.push(&to.value);
                report.add(to.at, format!("{}.routes.{start}", pool.key), said);
            }
        }
    }
}

/// What is against a route from a pool to another.
fn against(pools: &[PoolWritten], pool: &PoolWritten, to: &str) -> Option<String> {
    if pool.name.value == to {
        return Some("a pool's keys are its own without a route".to_owned());
    }
    let Some(other) = pools.iter().find(|other| other.name.value == to) else {
        return Some(format!("there is no pool {}", quoted(to)));
    };
    let named = quoted(to);
    if !other.routes.is_empty() {
        return Some(format!("pool {named} has `routes` itself; name the pool where the keys live"));
    }
    if other.prefix.as_ref().is_some_and(|prefix| !prefix.value.is_empty()) {
        return Some(format!("pool {named} has a `prefix`, which is put before what its own apps name"));
    }
    let (resp3, theirs) = (is(&pool.resp3, true), is(&other.resp3, true));
    if resp3 && !theirs {
        return Some(format!("pool {named} has `resp3: false`, and this one speaks it to apps"));
    }
    if let Some(own) = pool.databases.as_ref().map(|own| own.value).filter(|&own| own > databases(other)) {
        let theirs = databases(other);
        return Some(format!("pool {named} has {theirs} of the {own} `databases` that apps of this one may select"));
    }
    let longest = pool.max_request.as_ref().map_or(MAX_REQUEST, |longest| longest.value);
    if matches!(other.servers, Some(ServersWritten::Embedded(_))) && longest > Limits::default().bulk {
        return Some(format!("pool {named} is embedded, and takes no request as long as `max_request` of this one"));
    }
    None
}

/// How many databases apps of a pool may select.
fn databases(pool: &PoolWritten) -> u32 {
    let own = pool.db.as_ref().or(pool.redis_db.as_ref()).is_some_and(|db| db.value != 0);
    let embedded = matches!(pool.servers, Some(ServersWritten::Embedded(_)));
    if own || embedded || pool.topology.kind() == super::topology::Kind::Cluster {
        return 1;
    }
    pool.databases.as_ref().map_or(DATABASES.into(), |databases| databases.value)
}

/// Apps may select the databases that there are wherever their keys live.
pub(super) fn bound_databases(pools: &mut [Pool]) {
    let databases = |pool: &Pool| match pool.upstream.servers {
        Servers::Embedded { .. } => 1,
        Servers::Static(_) => pool.upstream.databases,
    };
    let all: Vec<(String, u16)> = pools.iter().map(|pool| (pool.name.clone(), databases(pool))).collect();
    for pool in pools {
        let led_to = all.iter().filter(|(name, _)| pool.routes.iter().any(|(_, to)| to == name));
        let least = led_to.map(|&(_, databases)| databases).min();
        pool.upstream.databases = least.map_or(pool.upstream.databases, |least| pool.upstream.databases.min(least));
    }
}

fn is(written: &Option<Written<bool>>, default: bool) -> bool {
    written.as_ref().map_or(default, |written| written.value)
}

/// The map as lines of a file.
pub(super) fn lines(routes: &Routes) -> Vec<String> {
    let line = |(start, pool): (&[u8], &str)| {
        format!("{}: {}", text::quoted(&String::from_utf8_lossy(start)), text::quoted(pool))
    };
    routes.iter().map(line).collect()
}
