//! From what was written to what is meant: defaults, and the checks that need more than one key.
//!
//! Promises: with nothing reported, the configuration is whole and its invariants hold. With something reported, what is
//! returned is for nobody's use.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::Path;

use super::problems::{Report, quoted};
use super::written::{FileWritten, PoolWritten, ServersWritten, Written};
use super::{
    ADMIN, Config, DRAIN, Drain, Kind, Log, MAX_PAUSE, MaxMemory, Pool, Source, WATCH, Workers, denials, hot, mirror,
    misses, reading, routes, servers, tls, topology, warm,
};
use crate::acl;
use crate::command::{self, Described, Treatment};
use crate::downstream::config::{
    self as downstream, BACKLOG, CLIENT_TCPKEEPALIVE, MAX_OUTPUT, MAX_PIPELINE, MAX_REQUEST,
};
use crate::engine::limits::Scope;
use crate::engine::slow;
use crate::ring::{Distribution, KeyHash};
use crate::stages::Merge;
use crate::stages::hot::MOST_REPLICAS;
use crate::units::{Address, Secret};
use crate::upstream::config::{self as upstream, RingConfig, Servers, WhenEjected};

const NOT_MEMCACHED: &str = "hotring speaks Redis, not memcached";

/// Builds the configuration and tells what does not fit together.
pub(super) fn build(file: FileWritten, path: &Path, report: &mut Report) -> Config {
    let kind = file.kind;
    let admin = match file.admin {
        Some(admin) => admin.value.map(|address| Written { value: address, at: admin.at }),
        None if kind == Kind::Proxy => ADMIN.parse().ok().map(|address| Written { value: address, at: 0 }),
        None => None,
    };
    check_listeners(admin.as_ref(), &file.pools, report);
    check_gutters(&file.pools, report);
    warm::check(&file.pools, report);
    mirror::check(&file.pools, report);
    routes::check(&file.pools, report);
    check_slow_commands(&file.commands, &file.pools, report);
    let mut pools: Vec<Pool> =
        file.pools.into_iter().map(|pool| self::pool(pool, &file.commands, kind, report)).collect();
    routes::bound_databases(&mut pools);
    Config {
        workers: value(file.workers, Workers::Count(NonZeroU16::MIN)),
        max_pause: value(file.max_pause, MAX_PAUSE),
        max_memory: value(file.max_memory, MaxMemory::Auto),
        admin: admin.map(|admin| admin.value),
        admin_token: file.admin_token.map(|token| token.value),
        admin_token_for_reads: value(file.admin_token_for_reads, false),
        admin_hosts: file.admin_hosts.into_iter().map(|host| host.value).collect(),
        watch: value(file.watch, Some(WATCH)),
        drain: Drain { delay: value(file.drain_delay, DRAIN.delay), timeout: value(file.drain_timeout, DRAIN.timeout) },
        log: Log {
            level: file.level.map(|w| w.value).unwrap_or_default(),
            format: file.format.map(|w| w.value).unwrap_or_default(),
            audit: file.audit.map(|w| w.value).unwrap_or_default(),
        },
        tracing: file.tracing,
        access_log: file.access_log,
        pools,
        commands: file.commands,
        handover: file.handover.map(|handover| handover.value),
        source: Source {
            path: path.to_owned(),
            kind,
            files: report.files(),
            secrets: report.secrets(path),
            admin_given: false,
        },
    }
}

fn value<T>(written: Option<Written<T>>, default: T) -> T {
    written.map_or(default, |written| written.value)
}

fn pool(written: PoolWritten, commands: &[Described], kind: Kind, report: &mut Report) -> Pool {
    check_redis(&written, kind, report);
    check_embedded(&written, report);
    check_servers(&written, report);
    check_users(&written, report);
    check_limits(&written, report);
    denials::check(commands, &written, report);
    check_pins(&written, report);
    hot::check(&written, report);
    misses::check(&written, report);
    topology::check(&written, report);
    tls::check(&written, report);
    check_replicas(&written, report);
    reading::check(&written, report);
    let password = written.redis_auth.map(|auth| {
        let other = [("server_auth", &written.server_auth), ("client_auth", &written.client_auth)];
        for (name, other) in other {
            if let Some(other) = other {
                let key = format!("{}.{name}", written.key);
                report.add(other.at, key, "given beside `redis_auth`, which is both `server_auth` and `client_auth`");
            }
        }
        auth.value
    });
    if let (Some(redis_db), Some(db)) = (&written.redis_db, &written.db) {
        let (first, last, name, other) = if db.at > redis_db.at {
            (redis_db.at, db.at, "db", "redis_db")
        } else {
            (db.at, redis_db.at, "redis_db", "db")
        };
        report.twice(last, first, format!("{}.{name}", written.key), format!("given as `{other}` too"));
    }
    let (user, server_password) = match written.server_auth {
        Some(auth) => (auth.value.user, auth.value.password),
        None => (None, password.clone()),
    };
    let client_password: Option<Secret> = match written.client_auth {
        Some(auth) => auth.value.password,
        None => password,
    };
    let timeout = if kind == Kind::Nutcracker { None } else { Some(upstream::TIMEOUT) };
    let timeout = value(written.timeout, timeout);
    let server_connections = value(written.server_connections, upstream::SERVER_CONNECTIONS);
    let dedicated_connections = value(written.dedicated_connections, upstream::DEDICATED_CONNECTIONS);
    let (kind, mut asked) = (written.topology.kind(), Vec::new());
    let servers = match written.servers {
        Some(ServersWritten::Embedded(count)) => Servers::Embedded {
            count,
            maxmemory: value(written.maxmemory, upstream::MAXMEMORY),
            eviction: written.eviction.map(|written| written.value).unwrap_or_default(),
        },
        Some(ServersWritten::List(list)) if kind != topology::Kind::Static => {
            asked.extend(list.into_iter().map(|server| server.value.address));
            Servers::Static(Vec::new())
        }
        Some(ServersWritten::List(list)) => Servers::Static(list.into_iter().map(|server| server.value).collect()),
        None => Servers::Static(Vec::new()),
    };
    let (server_tls, sentinel_tls) = (written.tls.server(), written.tls.sentinel());
    let (encrypted, tls) = written.tls.side();
    let db = value(written.db.or(written.redis_db), 0);
    Pool {
        name: written.name.value,
        downstream: downstream::Config {
            listen: written.listen.into_iter().map(|address| address.value).collect(),
            strict: written.listen_strict.into_iter().map(|address| address.value).collect(),
            encrypted,
            tls,
            backlog: value(written.backlog, BACKLOG),
            reuseport: value(written.reuseport, false),
            client_connections: value(written.client_connections, 0),
            client_tcpkeepalive: value(written.client_tcpkeepalive, Some(CLIENT_TCPKEEPALIVE)),
            max_pipeline: value(written.max_pipeline, MAX_PIPELINE),
            max_output: value(written.max_output, MAX_OUTPUT),
            max_output_soft: value(written.max_output_soft, None),
            max_output_pubsub: value(written.max_output_pubsub, Some(downstream::MAX_OUTPUT_PUBSUB)),
            client_idle_timeout: value(written.client_idle_timeout, None),
            request_timeout: value(written.request_timeout, Some(downstream::REQUEST_TIMEOUT)),
            auth_timeout: value(written.auth_timeout, Some(downstream::AUTH_TIMEOUT)),
            max_auth_failures: value(written.max_auth_failures, Some(downstream::MAX_AUTH_FAILURES)),
            max_request: value(written.max_request, MAX_REQUEST),
            password: client_password,
            admin_commands: value(written.admin_commands, false),
            users: written.users.into_iter().map(|user| user.value).collect(),
            prefix: value(written.prefix, String::new()),
        },
        upstream: upstream::Config {
            servers,
            topology: topology::build(written.topology, asked, sentinel_tls),
            timeout,
            connect_timeout: value(written.connect_timeout, upstream::CONNECT_TIMEOUT),
            dns_refresh: value(written.dns_refresh, Some(upstream::DNS_REFRESH)),
            reconnect_rate: value(written.reconnect_rate, Some(upstream::RECONNECT_RATE)),
            // Whoever may have a connection gets it at once; a storm is what comes on top.
            reconnect_burst: value(written.reconnect_burst, server_connections + dedicated_connections),
            server_connections,
            preconnect: value(written.preconnect, false),
            auto_eject_hosts: value(written.auto_eject_hosts, false),
            server_retry_timeout: value(written.server_retry_timeout, upstream::SERVER_RETRY_TIMEOUT),
            server_failure_limit: value(written.server_failure_limit, upstream::SERVER_FAILURE_LIMIT).max(1),
            when_ejected: written.when_ejected.map(|written| written.value),
            gutter_ttl: value(written.gutter_ttl, upstream::GUTTER_TTL),
            warm_from: value(written.warm_from, None),
            warm_for: value(written.warm_for, upstream::WARM_FOR),
            warm_rate: value(written.warm_rate, upstream::WARM_RATE),
            probe_interval: value(written.probe_interval, Some(upstream::PROBE_INTERVAL)),
            info_interval: value(written.info_interval, None),
            probe_timeout: written.probe_timeout.map(|written| written.value),
            tcpkeepalive: value(written.tcpkeepalive, false),
            tcp_user_timeout: value(written.tcp_user_timeout, timeout),
            tls: server_tls,
            user,
            password: server_password,
            db,
            slow_commands: written.slow_commands.into_iter().map(|name| name.value).collect(),
            dedicated_connections,
            // Apps of a pool that has a database of its own are on that one, as with twemproxy.
            databases: if db == 0 && kind != topology::Kind::Cluster {
                value(written.databases, u32::from(upstream::DATABASES)) as u16
            } else {
                1
            },
            resp3: value(written.resp3, true),
            max_outbox: value(written.max_outbox, upstream::MAX_OUTBOX),
            replicas: written
                .replicas
                .into_iter()
                .map(|(server, list)| (server.value, list.into_iter().map(|address| address.value).collect()))
                .collect(),
            zones: written.reading.zones,
            readonly: false,
        },
        ring: RingConfig {
            hash: value(written.hash, KeyHash::Fnv1a_64),
            distribution: value(written.distribution, Distribution::Ketama),
            hash_tag: written.hash_tag.map(|written| written.value),
            pins: written.pins.into_iter().map(|(start, server)| (start, server.value)).collect(),
        },
        hot: written.hot.map(|hot| hot.config).unwrap_or_default(),
        misses: written.misses.map(|misses| misses.config).unwrap_or_default(),
        mirror: written.mirror.map(|mirror| mirror.value),
        routes: routes::value(written.routes),
        reading: written.reading.reading,
        slowlog: slow::Config {
            slower_than: value(written.slowlog_slower_than, Some(slow::SLOWER_THAN)),
            max_len: value(written.slowlog_max_len, slow::MAX_LEN),
        },
        command_metrics: value(written.command_metrics, true),
        metrics_prefixes: written.metrics_prefixes,
        coalesce: value(written.coalesce, false),
        merge: value(written.merge, Merge::default()),
        rate_limits: written.rate_limits.into_iter().map(|limit| limit.value).collect(),
        denials: denials::build(written.denials, commands),
    }
}

/// Every address is listened on once. Port 0 is another port each time.
fn check_listeners(admin: Option<&Written<Address>>, pools: &[PoolWritten], report: &mut Report) {
    let mut seen: Vec<(&Address, usize, &str)> = Vec::new();
    if let Some(admin) = admin {
        seen.push((&admin.value, admin.at, "admin"));
    }
    for pool in pools {
        for (listen, name) in pool.listeners() {
            let same = |(address, ..): &&(&Address, usize, &str)| listen.value.is_same_place(address);
            let key = format!("{}.{name}", pool.key);
            match seen.iter().find(same) {
                _ if matches!(listen.value, Address::Tcp { port: 0, .. }) => {}
                Some((address, 0, _)) => {
                    report.add(
                        listen.at,
                        key,
                        format!("{} is where `admin` is by default", quoted(&address.to_string())),
                    );
                }
                Some((address, first, of)) => {
                    let said = format!("{} is listened on by {} too", quoted(&address.to_string()), quoted(of));
                    report.twice(listen.at, *first, key, said);
                }
                None => seen.push((&listen.value, listen.at, &pool.key)),
            }
        }
    }
}

/// Only what goes as it is to one shard, or to all, can be carried on a connection of its own.
fn check_slow_commands(commands: &[Described], pools: &[PoolWritten], report: &mut Report) {
    for pool in pools {
        for name in &pool.slow_commands {
            let taught = commands.iter().any(|command| command.name.eq_ignore_ascii_case(&name.value));
            let spec = command::lookup(name.value.as_bytes());
            let said = match spec.map(|spec| spec.treatment) {
                _ if taught => continue,
                Some(Treatment::Forward | Treatment::Broadcast(_)) => continue,
                Some(Treatment::Own(_)) => "has a dedicated connection anyway",
                Some(_) => "is not carried as it is to a server",
                None => "is no command that hotring knows",
            };
            report.add(name.at, format!("{}.slow_commands", pool.key), format!("{} {said}", quoted(&name.value)));
        }
    }
}

/// A gutter is another pool of servers, with no gutter of its own.
fn check_gutters(pools: &[PoolWritten], report: &mut Report) {
    let gutter = |pool: &PoolWritten| match &pool.when_ejected {
        Some(Written { value: WhenEjected::Gutter(name), at }) => Some((name.clone(), *at)),
        _ => None,
    };
    for pool in pools {
        let Some((name, at)) = gutter(pool) else { continue };
        let key = format!("{}.when_ejected", pool.key);
        let other = pools.iter().find(|other| other.name.value == name);
        let said = match other {
            _ if matches!(pool.servers, Some(ServersWritten::Embedded(_))) => {
                "is for pools of servers: embedded nodes are not ejected".to_owned()
            }
            None => format!("there is no pool {}", quoted(&name)),
            Some(other) if other.name.value == pool.name.value => "a pool cannot be its own gutter".to_owned(),
            Some(other) if matches!(other.servers, Some(ServersWritten::Embedded(_))) => {
                format!("pool {} has no servers, expected one that has", quoted(&name))
            }
            Some(other) if other.topology.kind() == topology::Kind::Cluster => {
                format!("pool {} is a cluster, expected one whose servers have a ring", quoted(&name))
            }
            Some(other) if gutter(other).is_some() => {
                format!("pool {} has a gutter itself, expected one that has none", quoted(&name))
            }
            Some(_) => continue,
        };
        report.add(at, key, said);
    }
}

fn check_redis(pool: &PoolWritten, kind: Kind, report: &mut Report) {
    let key = format!("{}.redis", pool.key);
    match &pool.redis {
        Some(redis) if !redis.value => {
            report.add(redis.at, key, format!("read `false`, expected `true`: {NOT_MEMCACHED}"))
        }
        None if kind == Kind::Nutcracker && !pool.has_redis => {
            let name = quoted(&pool.name.value);
            let said = format!("missing, expected `redis: true`: without it pool {name} is memcached; {NOT_MEMCACHED}");
            report.add(pool.name.at, key, said);
        }
        _ => {}
    }
}

fn check_embedded(pool: &PoolWritten, report: &mut Report) {
    if !matches!(pool.servers, Some(ServersWritten::List(_))) {
        return;
    }
    let maxmemory = pool.maxmemory.as_ref().map(|written| ("maxmemory", written.at));
    let eviction = pool.eviction.as_ref().map(|written| ("eviction", written.at));
    for (name, at) in maxmemory.into_iter().chain(eviction) {
        report.add(at, format!("{}.{name}", pool.key), "is for `servers: embedded:N` only; a server has its own");
    }
}

fn check_servers(pool: &PoolWritten, report: &mut Report) {
    let Some(ServersWritten::List(list)) = &pool.servers else { return };
    let key = |i: usize| format!("{}.servers[{i}]", pool.key);
    let mut seen = HashMap::new();
    for (i, server) in list.iter().enumerate() {
        let name = &server.value.name;
        match seen.get(name) {
            Some(first) => report.twice(server.at, *first, key(i), format!("{} names two servers", quoted(name))),
            None => drop(seen.insert(name, server.at)),
        }
        if pool.listeners().any(|(listen, _)| reaches(&listen.value, &server.value.address)) {
            let address = quoted(&server.value.address.to_string());
            report.add(server.at, key(i), format!("{address} is where this pool listens, it would talk to itself"));
        }
    }
    let weights: u64 = list.iter().map(|server| u64::from(server.value.weight)).sum();
    let modula = matches!(&pool.distribution, Some(written) if written.value == Distribution::Modula);
    if let (true, Some(last)) = (modula && weights > servers::MAX_WEIGHT.into(), list.last()) {
        let said = format!("weights add up to {weights}, expected at most {} with `modula`", servers::MAX_WEIGHT);
        report.add(last.at, format!("{}.servers", pool.key), said);
    }
}

/// What is pinned is pinned to a server of the pool.
fn check_pins(pool: &PoolWritten, report: &mut Report) {
    let names: Vec<String> = match &pool.servers {
        _ if pool.topology.kind() == topology::Kind::Cluster => return,
        _ if pool.topology.kind() == topology::Kind::Sentinel => pool.topology.masters().map(str::to_owned).collect(),
        Some(ServersWritten::List(servers)) => servers.iter().map(|server| server.value.name.clone()).collect(),
        Some(ServersWritten::Embedded(count)) => (1..=*count).map(|n| format!("embedded-{n}")).collect(),
        None => return,
    };
    if names.is_empty() {
        return;
    }
    for (start, server) in pool.pins.iter().filter(|(_, server)| !names.contains(&server.value)) {
        let at = if start.is_empty() { String::new() } else { format!(".{start}") };
        let said = format!("`{}` is no server of this pool, expected one of `{}`", server.value, names.join("`, `"));
        report.add(server.at, format!("{}.pin{at}", pool.key), said);
    }
}

/// A replica is one of a server of the pool, and stands once in it.
fn check_replicas(pool: &PoolWritten, report: &mut Report) {
    if pool.topology.kind() != topology::Kind::Static {
        return;
    }
    let servers = match &pool.servers {
        Some(ServersWritten::List(servers)) => servers,
        Some(ServersWritten::Embedded(_)) => {
            let said = "is for pools of servers: embedded nodes have no replicas";
            pool.replicas.first().into_iter().for_each(|(server, _)| {
                report.add(server.at, format!("{}.replicas", pool.key), said);
            });
            return;
        }
        None => return,
    };
    let mut seen: Vec<&Written<Address>> = Vec::new();
    for (server, addresses) in &pool.replicas {
        let key = format!("{}.replicas.{}", pool.key, server.value);
        if !servers.iter().any(|own| own.value.name == server.value) {
            let names: Vec<&str> = servers.iter().map(|server| server.value.name.as_str()).collect();
            let said =
                format!("`{}` is no server of this pool, expected one of `{}`", server.value, names.join("`, `"));
            report.add(server.at, key.clone(), said);
        }
        if addresses.len() > MOST_REPLICAS {
            let said = format!("{} replicas, expected at most {MOST_REPLICAS}", addresses.len());
            report.add(server.at, key.clone(), said);
        }
        for (i, address) in addresses.iter().enumerate() {
            let (key, told) = (format!("{key}[{i}]"), quoted(&address.value.to_string()));
            if let Some(first) = seen.iter().find(|other| other.value.is_same_place(&address.value)) {
                report.twice(address.at, first.at, key, format!("{told} stands twice"));
            } else if let Some(own) = servers.iter().find(|own| own.value.address.is_same_place(&address.value)) {
                let said = format!("{told} is the server {} itself, expected a replica", quoted(&own.value.name));
                report.add(address.at, key, said);
            } else if pool.listen.iter().any(|listen| reaches(&listen.value, &address.value)) {
                report.add(address.at, key, format!("{told} is where this pool listens, it would talk to itself"));
            }
            seen.push(address);
        }
    }
}

/// The user `default` has one place where its password stands.
fn check_users(pool: &PoolWritten, report: &mut Report) {
    let Some(default) = pool.users.iter().find(|user| user.value.name == acl::DEFAULT) else { return };
    let client_auth = pool.client_auth.as_ref().map(|auth| ("client_auth", auth.at));
    let redis_auth = pool.redis_auth.as_ref().map(|auth| ("redis_auth", auth.at));
    for (name, at) in client_auth.into_iter().chain(redis_auth) {
        let said = "for apps this is the password of the user `default`, who is given under `users` too";
        report.twice(at, default.at, format!("{}.{name}", pool.key), said);
    }
}

/// A limit on a user is on one that there is.
fn check_limits(pool: &PoolWritten, report: &mut Report) {
    for (i, limit) in pool.rate_limits.iter().enumerate() {
        let Scope::User(name) = &limit.value.on else { continue };
        if name != acl::DEFAULT && !pool.users.iter().any(|user| user.value.name == *name) {
            let said = format!("{} is no user of this pool", quoted(name));
            report.add(limit.at, format!("{}.rate_limits[{i}].user", pool.key), said);
        }
    }
}

/// Whether who connects to `server` comes out at `listen`, as far as that can be seen without resolving names.
fn reaches(listen: &Address, server: &Address) -> bool {
    match (listen, server) {
        (Address::Tcp { host: any, port: p }, Address::Tcp { host, port: q })
            if matches!(any.as_str(), "0.0.0.0" | "::") =>
        {
            let loopback = host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
            p == q && (loopback || host.eq_ignore_ascii_case("localhost"))
        }
        _ => listen.is_same_place(server),
    }
}
