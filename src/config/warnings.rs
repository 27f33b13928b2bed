//! What is allowed but seldom meant.
//!
//! Promises: one sentence each, starting with the pool it is about; nothing here stops a start. What a ring makes of names
//! and weights is not told here but by the ring.

use super::{Config, Kind, Pool, hot, misses, reading, tls};
use crate::acl;
use crate::ring::{Distribution, KeyHash};
use crate::units::Address;
use crate::upstream::config::Servers;

/// All warnings of a configuration.
pub(super) fn of(config: &Config) -> Vec<String> {
    let mut out = Vec::new();
    if config.source.kind == Kind::Nutcracker && config.admin.is_none() {
        out.push(
            "a nutcracker.yml has no admin listener: no metrics, no health; add `--admin 127.0.0.1:9380`".to_owned(),
        );
    }
    for pool in &config.pools {
        let said = of_pool(pool, config.source.kind);
        out.extend(said.into_iter().map(|said| format!("pool `{}`: {said}", pool.name)));
    }
    out
}

fn of_pool(pool: &Pool, kind: Kind) -> Vec<String> {
    let mut out = Vec::new();
    let (downstream, upstream, ring) = (&pool.downstream, &pool.upstream, &pool.ring);
    if kind == Kind::Nutcracker && downstream.client_connections > 0 {
        let limit = downstream.client_connections;
        out.push(format!("`client_connections: {limit}` is obeyed; twemproxy reads it and does nothing"));
    }
    if downstream.reuseport && downstream.listeners().all(|(address, _)| matches!(address, Address::Unix { .. })) {
        out.push("`reuseport` does nothing for a Unix socket".to_owned());
    }
    let default = downstream.users.iter().any(|user| user.name == acl::DEFAULT);
    if !downstream.users.is_empty() && !default && downstream.password.is_none() {
        out.push(
            "`users` without `default` and without `client_auth`: an app that does not send AUTH may do everything; \
             `default: {nopass: true, rules: \"off\"}` shuts it out"
                .to_owned(),
        );
    }
    match &upstream.servers {
        Servers::Embedded { .. } => {
            if upstream.db > 0 {
                out.push("`redis_db` does nothing: embedded nodes have one database".to_owned());
            }
            if upstream.user.is_some() || (upstream.password.is_some() && upstream.password != downstream.password) {
                out.push("`server_auth` does nothing: embedded nodes ask for no password".to_owned());
            }
        }
        Servers::Static(_) => {
            if upstream.timeout.is_none() {
                out.push("no `timeout`: a server that hangs holds its requests for ever".to_owned());
            }
            if upstream.server_connections > 1 {
                out.push(
                    "`server_connections` above 1: a session keeps to one connection of a server, so order holds within a \
                     session only"
                        .to_owned(),
                );
            }
        }
    }
    out.extend(tls::warnings(upstream));
    out.extend(hot::warnings(&pool.hot, &upstream.servers));
    out.extend(reading::warnings(&pool.reading, upstream, pool.hot.near_all));
    out.extend(misses::warnings(&pool.misses, hot::keeps(&pool.hot)));
    if ring.distribution == Distribution::Random {
        out.push(
            "`distribution: random`: a key has no home, so reads find what writes stored only by chance".to_owned(),
        );
    }
    if ring.hash == KeyHash::Crc32 && ring.distribution == Distribution::Ketama {
        out.push(
            "`hash: crc32` has 15 bits, as in twemproxy: with `ketama` nearly all keys go to one server".to_owned(),
        );
    }
    out
}
