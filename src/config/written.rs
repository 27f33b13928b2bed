//! What was written: each key read by itself, with the place it stood at. Nothing here knows a default.
//!
//! Promises: reads on after a wrong value, so that everything wrong is told; a key that could not be read is told here
//! and counts as left out further on. Does not compare keys with each other, but for those that name one password.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::denials::DenialsWritten;
use super::hot::HotWritten;
use super::keys::{self, Place};
use super::misses::MissesWritten;
use super::problems::{Report, quoted};
use super::reading::ReadingWritten;
use super::routes::RouteWritten;
use super::tls::TlsWritten;
use super::topology::TopologyWritten;
use super::yaml::{Kind as NodeKind, Node};
use super::{Audit, Format, Kind, Level, MaxMemory, Workers, nutcracker, servers, sight, warm};
use crate::acl::Account;
use crate::command::Described;
use crate::downstream::config::Unread;
use crate::engine::limits::Limit;
use crate::ring::{Distribution, KeyHash};
use crate::stages::Merge;
use crate::stages::mirror::Mirroring;
use crate::traces::{AccessLog, Tracing};
use crate::units::{Address, Expected, Millis, Secret, Size, whole};
use crate::upstream::config::{Eviction, Server, WarmFrom, WhenEjected};

/// A value and the node it was read from.
#[derive(Debug)]
pub(super) struct Written<T> {
    pub(super) value: T,
    pub(super) at: usize,
}

/// A whole file.
#[derive(Debug)]
pub(super) struct FileWritten {
    pub(super) kind: Kind,
    pub(super) workers: Option<Written<Workers>>,
    pub(super) max_pause: Option<Written<Duration>>,
    pub(super) max_memory: Option<Written<MaxMemory>>,
    /// `None` inside: `off`.
    pub(super) admin: Option<Written<Option<Address>>>,
    pub(super) admin_token: Option<Written<Secret>>,
    pub(super) admin_token_for_reads: Option<Written<bool>>,
    pub(super) admin_hosts: Vec<Written<String>>,
    /// `None` inside: `off`.
    pub(super) watch: Option<Written<Option<Duration>>>,
    pub(super) drain_delay: Option<Written<Duration>>,
    pub(super) drain_timeout: Option<Written<Duration>>,
    pub(super) handover: Option<Written<PathBuf>>,
    pub(super) level: Option<Written<Level>>,
    pub(super) format: Option<Written<Format>>,
    pub(super) audit: Option<Written<Audit>>,
    pub(super) tracing: Option<Tracing>,
    pub(super) access_log: Option<AccessLog>,
    pub(super) commands: Vec<Described>,
    pub(super) pools: Vec<PoolWritten>,
}

/// One pool.
#[derive(Debug)]
pub(super) struct PoolWritten {
    pub(super) name: Written<String>,
    /// Its key in the file, such as `pools.main`.
    pub(super) key: String,
    pub(super) listen: Vec<Written<Address>>,
    /// Whether `listen` was there at all, readable or not.
    pub(super) has_listen: bool,
    pub(super) listen_strict: Vec<Written<Address>>,
    pub(super) tls: TlsWritten,
    pub(super) servers: Option<ServersWritten>,
    pub(super) topology: TopologyWritten,
    pub(super) maxmemory: Option<Written<u64>>,
    pub(super) eviction: Option<Written<Eviction>>,
    pub(super) hash: Option<Written<KeyHash>>,
    pub(super) hash_tag: Option<Written<[u8; 2]>>,
    pub(super) distribution: Option<Written<Distribution>>,
    /// `None` inside: for ever.
    pub(super) timeout: Option<Written<Option<Duration>>>,
    pub(super) connect_timeout: Option<Written<Duration>>,
    /// `None` inside: `off`.
    pub(super) dns_refresh: Option<Written<Option<Duration>>>,
    /// `None` inside: `off`.
    pub(super) reconnect_rate: Option<Written<Option<u32>>>,
    pub(super) reconnect_burst: Option<Written<u32>>,
    pub(super) server_connections: Option<Written<u32>>,
    pub(super) preconnect: Option<Written<bool>>,
    pub(super) tcpkeepalive: Option<Written<bool>>,
    /// `None` inside: `off`.
    pub(super) tcp_user_timeout: Option<Written<Option<Duration>>>,
    pub(super) auto_eject_hosts: Option<Written<bool>>,
    pub(super) server_retry_timeout: Option<Written<Duration>>,
    pub(super) server_failure_limit: Option<Written<u32>>,
    pub(super) when_ejected: Option<Written<WhenEjected>>,
    pub(super) gutter_ttl: Option<Written<Duration>>,
    /// `None` inside: `off`.
    pub(super) warm_from: Option<Written<Option<WarmFrom>>>,
    pub(super) warm_for: Option<Written<Duration>>,
    pub(super) warm_rate: Option<Written<u32>>,
    /// `None` inside: `off`.
    pub(super) probe_interval: Option<Written<Option<Duration>>>,
    pub(super) probe_timeout: Option<Written<Duration>>,
    pub(super) admin_commands: Option<Written<bool>>,
    pub(super) dedicated_connections: Option<Written<u32>>,
    pub(super) slow_commands: Vec<Written<String>>,
    pub(super) databases: Option<Written<u32>>,
    pub(super) resp3: Option<Written<bool>>,
    pub(super) max_outbox: Option<Written<u64>>,
    pub(super) backlog: Option<Written<u32>>,
    pub(super) reuseport: Option<Written<bool>>,
    pub(super) client_connections: Option<Written<u32>>,
    /// `None` inside: `off`.
    pub(super) client_tcpkeepalive: Option<Written<Option<Duration>>>,
    pub(super) max_pipeline: Option<Written<u32>>,
    pub(super) max_output: Option<Written<u64>>,
    /// `None` inside: `off`.
    pub(super) max_output_soft: Option<Written<Option<Unread>>>,
    pub(super) max_output_pubsub: Option<Written<Option<Unread>>>,
    pub(super) client_idle_timeout: Option<Written<Option<Duration>>>,
    pub(super) request_timeout: Option<Written<Option<Duration>>>,
    pub(super) auth_timeout: Option<Written<Option<Duration>>>,
    /// `None` inside: `off`.
    pub(super) max_auth_failures: Option<Written<Option<u32>>>,
    pub(super) max_request: Option<Written<u64>>,
    pub(super) coalesce: Option<Written<bool>>,
    pub(super) merge: Option<Written<Merge>>,
    pub(super) hot: Option<HotWritten>,
    pub(super) misses: Option<MissesWritten>,
    pub(super) mirror: Option<Written<Mirroring>>,
    pub(super) routes: Vec<RouteWritten>,
    /// `None` inside: `off`.
    pub(super) slowlog_slower_than: Option<Written<Option<Duration>>>,
    pub(super) slowlog_max_len: Option<Written<u32>>,
    pub(super) command_metrics: Option<Written<bool>>,
    pub(super) metrics_prefixes: Vec<Vec<u8>>,
    pub(super) info_interval: Option<Written<Option<Duration>>>,
    pub(super) redis: Option<Written<bool>>,
    /// Whether `redis` was there at all, readable or not.
    pub(super) has_redis: bool,
    pub(super) redis_auth: Option<Written<Secret>>,
    pub(super) server_auth: Option<Written<Auth>>,
    pub(super) client_auth: Option<Written<Auth>>,
    pub(super) users: Vec<Written<Account>>,
    pub(super) prefix: Option<Written<String>>,
    pub(super) rate_limits: Vec<Written<Limit>>,
    pub(super) denials: DenialsWritten,
    /// Beginnings of keys, each with a server's name.
    pub(super) pins: Vec<(String, Written<String>)>,
    /// Servers' names with where their replicas are.
    pub(super) replicas: Vec<(Written<String>, Vec<Written<Address>>)>,
    /// Who answers reads.
    pub(super) reading: ReadingWritten,
    pub(super) redis_db: Option<Written<u32>>,
    pub(super) db: Option<Written<u32>>,
}

impl PoolWritten {
    /// Where it listens, each with the key under which that stands.
    pub(super) fn listeners(&self) -> impl Iterator<Item = (&Written<Address>, &'static str)> {
        let strict = self.listen_strict.iter().map(|address| (address, "listen_strict"));
        let tls = self.tls.listen.iter().map(|address| (address, "listen_tls"));
        self.listen.iter().map(|address| (address, "listen")).chain(strict).chain(tls)
    }
}

/// The value of `servers`.
#[derive(Debug)]
pub(super) enum ServersWritten {
    Embedded(u16),
    List(Vec<Written<Server>>),
}

/// The value of `server_auth`, `client_auth` or `sentinel_auth`.
#[derive(Debug)]
pub(super) struct Auth {
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
}

const INTEGER: u32 = i32::MAX as u32;
const LARGEST: u64 = 1 << 40;
const MAX_EMBEDDED: u16 = 256;
const SERVERS: &str = "`embedded:N`, or a list of `host:port:weight [name]`";
const POOL: &str = "a pool: a map with `listen` and `servers`";
const SECRET_BYTES: u64 = 4096;

/// Reads a document. `path` is the file's, for what it names relative to itself.
pub(super) fn read(root: &Node, kind: Kind, path: &Path, report: &mut Report) -> FileWritten {
    let nothing = FileWritten {
        kind,
        workers: None,
        max_pause: None,
        max_memory: None,
        admin: None,
        admin_token: None,
        admin_token_for_reads: None,
        admin_hosts: Vec::new(),
        watch: None,
        drain_delay: None,
        drain_timeout: None,
        handover: None,
        level: None,
        format: None,
        audit: None,
        tracing: None,
        access_log: None,
        commands: Vec::new(),
        pools: Vec::new(),
    };
    let dir = path.parent().unwrap_or(Path::new(""));
    if kind == Kind::Nutcracker {
        return FileWritten { pools: pools(root, "", kind, dir, report), ..nothing };
    }
    if !matches!(root.kind, NodeKind::Map(_)) {
        report.unfit(root, "", &Expected::new("a map with `pools`"));
        return nothing;
    }
    let Some(mut top) = Fields::open(root, String::new(), &keys::names(Place::Top), report) else { return nothing };
    let workers = top.value("workers", workers);
    let max_pause = top.value("max_pause", max_pause);
    let max_memory = top.value("max_memory", max_memory);
    let admin = top.value("admin", admin);
    let admin_token = top.admin_token(dir);
    let admin_token_for_reads = top.admin_token_for_reads();
    let admin_hosts = top.admin_hosts();
    let watch = top.value("watch", watch);
    let (mut drain_delay, mut drain_timeout) = (None, None);
    if let Some(mut drain) = top.fields("drain", Place::Drain) {
        drain_delay = drain.value("delay", |text| text.parse().map(|m: Millis| m.into()));
        drain_timeout = drain.value("timeout", some_time);
    }
    let handover = top.value("handover", socket_path);
    let (mut level, mut format, mut audit) = (None, None, None);
    if let Some(mut log) = top.fields("log", Place::Log) {
        level = log.value("level", str::parse);
        format = log.value("format", str::parse);
        audit = log.value("audit", str::parse);
    }
    let tracing = top.tracing();
    let access_log = top.access_log();
    let commands = top.commands();
    let pools = match top.require("pools", "at least one pool") {
        Some(node) => pools(node, "pools", kind, dir, report),
        None => Vec::new(),
    };
    FileWritten {
        workers,
        max_pause,
        max_memory,
        admin,
        admin_token,
        admin_token_for_reads,
        admin_hosts,
        watch,
        drain_delay,
        drain_timeout,
        handover,
        level,
        format,
        audit,
        tracing,
        access_log,
        commands,
        pools,
        ..nothing
    }
}

fn pools(node: &Node, key: &str, kind: Kind, dir: &Path, report: &mut Report) -> Vec<PoolWritten> {
    let Some(entries) = node.entries().filter(|entries| !entries.is_empty()) else {
        report.unfit(node, key, &Expected::new("a map of pools by name"));
        return Vec::new();
    };
    refuse_twice(entries, key, report);
    entries.iter().filter_map(|(name, pool)| self::pool(name, pool, key, kind, dir, report)).collect()
}

fn pool(name: &Node, node: &Node, key: &str, kind: Kind, dir: &Path, report: &mut Report) -> Option<PoolWritten> {
    let text = name.text().unwrap_or_default();
    if text.is_empty() || text.len() > 128 || text.contains(char::is_control) {
        report.unfit(name, key, &Expected::new("the name of a pool, of 1 to 128 characters"));
        return None;
    }
    let nutcracker = kind == Kind::Nutcracker;
    let key = join(key, text);
    let known = if nutcracker { keys::twemproxy_names() } else { keys::names(Place::Pool) };
    if node.entries().is_none() {
        report.unfit(node, &key, &Expected::new(POOL));
        return None;
    }
    let mut pool = Fields::open(node, key.clone(), &known, report)?;
    pool.stands_at(name.id);
    let listen_tls = match pool.get("listen_tls").filter(|_| !nutcracker) {
        Some(node) => pool.listen("listen_tls", node, false),
        None => Vec::new(),
    };
    let has_listen = pool.get("listen").or(pool.get("listen_tls")).is_some();
    let listen = match pool.get("listen") {
        Some(node) => pool.listen("listen", node, nutcracker),
        None => Vec::new(),
    };
    let listen_strict = match pool.get("listen_strict").filter(|_| !nutcracker) {
        Some(node) => pool.listen("listen_strict", node, false),
        None => Vec::new(),
    };
    let servers = pool.require("servers", SERVERS).and_then(|node| pool.servers(node, nutcracker));
    Some(PoolWritten {
        name: Written { value: text.to_owned(), at: name.id },
        key,
        listen,
        has_listen,
        listen_strict,
        tls: pool.tls(listen_tls, dir),
        servers,
        topology: pool.topology(dir),
        maxmemory: pool.value("maxmemory", |text| size(text, 1 << 20)),
        eviction: pool.value("eviction", |text| text.parse().map_err(|()| Expected::new("`lru` or `lfu`"))),
        hash: pool.value("hash", hash),
        hash_tag: pool.value("hash_tag", hash_tag),
        distribution: pool.value("distribution", distribution),
        timeout: pool.value("timeout", patience),
        connect_timeout: pool.value("connect_timeout", some_time),
        dns_refresh: pool.value("dns_refresh", |text| time_or_off(text, "30s")),
        reconnect_rate: pool.value("reconnect_rate", |text| match text {
            "off" => Ok(None),
            _ => number(text, 1, 1_000_000).map(Some).map_err(|e| Expected::new(format!("{e}, or `off`"))),
        }),
        reconnect_burst: pool.value("reconnect_burst", |text| number(text, 1, 1_000_000)),
        server_connections: pool.value("server_connections", |text| number(text, 1, 1024)),
        preconnect: pool.value("preconnect", flag),
        tcpkeepalive: pool.value("tcpkeepalive", flag),
        tcp_user_timeout: pool.value("tcp_user_timeout", |text| time_or_off(text, "10s")),
        auto_eject_hosts: pool.value("auto_eject_hosts", flag),
        server_retry_timeout: pool.value("server_retry_timeout", |text| text.parse().map(|m: Millis| m.into())),
        // twemproxy takes 0 and ejects at the first failure, as with 1.
        server_failure_limit: pool.value("server_failure_limit", |text| number(text, u32::from(!nutcracker), INTEGER)),
        when_ejected: pool.value("when_ejected", str::parse),
        gutter_ttl: pool.value("gutter_ttl", some_time),
        warm_from: pool.value("warm_from", warm::from),
        warm_for: pool.value("warm_for", warm::span),
        warm_rate: pool.value("warm_rate", |text| number(text, 1, 1_000_000)),
        probe_interval: pool.value("probe_interval", patience),
        probe_timeout: pool.value("probe_timeout", some_time),
        admin_commands: pool.value("admin_commands", |text| match text {
            "allow" => Ok(true),
            "refuse" => Ok(false),
            _ => Err(Expected::new("`allow` or `refuse`")),
        }),
        dedicated_connections: pool.value("dedicated_connections", |text| number(text, 0, 65_536)),
        slow_commands: pool.slow_commands(),
        databases: pool.value("databases", |text| number(text, 1, 1024)),
        resp3: pool.value("resp3", flag),
        max_outbox: pool.value("max_outbox", |text| size(text, 1 << 16)),
        backlog: pool.value("backlog", |text| number(text, 0, INTEGER)),
        reuseport: pool.value("reuseport", flag),
        client_connections: pool.value("client_connections", |text| number(text, 0, INTEGER)),
        client_tcpkeepalive: pool.value("client_tcpkeepalive", |text| time_or_off(text, "5m")),
        max_pipeline: pool.value("max_pipeline", |text| number(text, 1, 1_000_000)),
        max_output: pool.value("max_output", |text| size(text, 1 << 16)),
        max_output_soft: pool.value("max_output_soft", unread),
        max_output_pubsub: pool.value("max_output_pubsub", unread),
        client_idle_timeout: pool.value("client_idle_timeout", standing),
        request_timeout: pool.value("request_timeout", standing),
        auth_timeout: pool.value("auth_timeout", standing),
        max_auth_failures: pool.value("max_auth_failures", |text| match text {
            "off" => Ok(None),
            _ => number(text, 1, 1_000_000).map(Some).map_err(|e| Expected::new(format!("{e}, or `off`"))),
        }),
        max_request: pool.value("max_request", |text| size(text, 1 << 10)),
        coalesce: pool.value("coalesce", flag),
        merge: pool.value("merge", str::parse),
        hot: pool.hot_keys(),
        misses: pool.misses(dir),
        mirror: pool.mirror(),
        routes: pool.routes(),
        slowlog_slower_than: pool.value("slowlog_slower_than", slower_than),
        slowlog_max_len: pool.value("slowlog_max_len", |text| number(text, 0, 100_000)),
        command_metrics: pool.value("command_metrics", flag),
        metrics_prefixes: pool.metrics_prefixes(),
        info_interval: pool.value("info_interval", sight::interval),
        redis: pool.value("redis", flag),
        has_redis: pool.get("redis").is_some(),
        redis_auth: pool.secret("redis_auth"),
        server_auth: pool.auth("server_auth", dir),
        client_auth: pool.auth("client_auth", dir),
        users: pool.users(dir),
        prefix: pool.prefix(),
        rate_limits: pool.rate_limits(),
        denials: pool.denials(),
        pins: pool.pins(),
        replicas: pool.replicas(),
        reading: pool.reading(),
        redis_db: pool.value("redis_db", |text| number(text, 0, INTEGER)),
        db: pool.value("db", |text| number(text, 0, INTEGER)),
    })
}

/// The entries of a map while they are read.
pub(super) struct Fields<'n, 'r> {
    entries: &'n [(Node, Node)],
    pub(super) key: String,
    /// The node that stands for the map when one of its keys is missing.
    pub(super) at: usize,
    pub(super) report: &'r mut Report,
}

impl<'n, 'r> Fields<'n, 'r> {
    /// Opens a map; tells of keys that are unknown or stand twice, or that it is no map.
    pub(super) fn open(node: &'n Node, key: String, known: &[&'static str], report: &'r mut Report) -> Option<Self> {
        let Some(entries) = node.entries() else {
            report.unfit(node, &key, &Expected::new(format!("a map with `{}`", known.join("`, `"))));
            return None;
        };
        refuse_twice(entries, &key, report);
        for (name, value) in entries {
            let Some(text) = name.text() else {
                report.unfit(name, &key, &Expected::new("a key"));
                continue;
            };
            if known.contains(&text) {
                continue;
            }
            let said = match known.contains(&"pools") && nutcracker::is_pool(value) {
                true => "unknown key, a pool stands under `pools`".to_owned(),
                false => keys::unknown(text, known),
            };
            report.add(name.id, join(&key, text), said);
        }
        Some(Self { entries, key, at: node.id, report })
    }

    pub(super) fn stands_at(&mut self, at: usize) {
        self.at = at;
    }

    pub(super) fn get(&self, name: &str) -> Option<&'n Node> {
        self.entries.iter().find(|(key, _)| key.text() == Some(name)).map(|(_, value)| value)
    }

    pub(super) fn require(&mut self, name: &str, expected: &str) -> Option<&'n Node> {
        let node = self.get(name);
        if node.is_none() {
            self.report.add(self.at, join(&self.key, name), format!("missing, expected {expected}"));
        }
        node
    }

    /// The value of a key that is a scalar. `parse` must refuse an empty text: that is what it is shown in place of
    /// anything else, to hear what was expected.
    pub(super) fn value<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, Expected>) -> Option<Written<T>> {
        let node = self.get(name)?;
        let key = join(&self.key, name);
        scalar(node, &key, self.report, parse)
    }

    pub(super) fn fields(&mut self, name: &str, place: Place) -> Option<Fields<'n, '_>> {
        let node = self.get(name)?;
        Fields::open(node, join(&self.key, name), &keys::names(place), self.report)
    }

    /// One server for all keys, or servers by how keys begin.
    fn pins(&mut self) -> Vec<(String, Written<String>)> {
        let Some(node) = self.get("pin") else { return Vec::new() };
        let key = join(&self.key, "pin");
        let expected = "the name of a server, or a map from how keys begin to such names";
        let server = |text: &str| if text.is_empty() { Err(Expected::new(expected)) } else { Ok(text.to_owned()) };
        let Some(entries) = node.entries().filter(|entries| !entries.is_empty()) else {
            return scalar(node, &key, self.report, server).map(|name| (String::new(), name)).into_iter().collect();
        };
        refuse_twice(entries, &key, self.report);
        let mut pins = Vec::new();
        for (start, name) in entries {
            let Some(text) = start.text() else {
                self.report.unfit(start, &key, &Expected::new("how keys begin"));
                continue;
            };
            pins.extend(scalar(name, &join(&key, text), self.report, server).map(|name| (text.to_owned(), name)));
        }
        pins
    }

    /// Where the servers' replicas are, by the servers' names.
    fn replicas(&mut self) -> Vec<(Written<String>, Vec<Written<Address>>)> {
        let Some(node) = self.get("replicas") else { return Vec::new() };
        let key = join(&self.key, "replicas");
        let Some(entries) = node.entries().filter(|entries| !entries.is_empty()) else {
            let expected = "a map from servers' names to lists of addresses such as `{s1: [10.0.0.21:6379]}`";
            self.report.unfit(node, &key, &Expected::new(expected));
            return Vec::new();
        };
        refuse_twice(entries, &key, self.report);
        let mut replicas = Vec::new();
        for (server, list) in entries {
            let Some(name) = server.text() else {
                self.report.unfit(server, &key, &Expected::new("the name of a server"));
                continue;
            };
            let key = join(&key, name);
            let address = |text: &str| servers::address(text).map(|(address, _)| address);
            let addresses = match &list.kind {
                NodeKind::List(items) if items.is_empty() => {
                    self.report.add(list.id, key, "the list is empty; name at least one replica");
                    continue;
                }
                NodeKind::List(items) => {
                    let item = |(i, node)| scalar(node, &format!("{key}[{i}]"), self.report, address);
                    items.iter().enumerate().filter_map(item).collect()
                }
                _ => scalar(list, &key, self.report, address).into_iter().collect(),
            };
            replicas.push((Written { value: name.to_owned(), at: server.id }, addresses));
        }
        replicas
    }

    fn listen(&mut self, name: &str, node: &'n Node, nutcracker: bool) -> Vec<Written<Address>> {
        let key = join(&self.key, name);
        let parse = |text: &str| match text.parse()? {
            Address::Tcp { port: 0, .. } if nutcracker => Err(Expected::new("a port from 1 to 65535")),
            address => Ok(address),
        };
        match &node.kind {
            NodeKind::List(items) if !nutcracker && !items.is_empty() => {
                let item = |(i, node)| scalar(node, &format!("{key}[{i}]"), self.report, parse);
                items.iter().enumerate().filter_map(item).collect()
            }
            _ => scalar(node, &key, self.report, parse).into_iter().collect(),
        }
    }

    /// Whether there are such commands is asked when the modules' are known.
    fn slow_commands(&mut self) -> Vec<Written<String>> {
        let Some(node) = self.get("slow_commands") else { return Vec::new() };
        let key = join(&self.key, "slow_commands");
        let name = |text: &str| {
            let named = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
            if named {
                Ok(text.to_ascii_lowercase())
            } else {
                Err(Expected::new("a list of commands such as `[KEYS, EVAL]`"))
            }
        };
        match &node.kind {
            NodeKind::List(items) => {
                let item = |(i, node)| scalar(node, &format!("{key}[{i}]"), self.report, name);
                items.iter().enumerate().filter_map(item).collect()
            }
            _ => scalar(node, &key, self.report, name).into_iter().collect(),
        }
    }

    fn servers(&mut self, node: &'n Node, nutcracker: bool) -> Option<ServersWritten> {
        let key = join(&self.key, "servers");
        if let NodeKind::List(items) = &node.kind
            && !items.is_empty()
        {
            let item = |(i, node)| self.server(node, format!("{key}[{i}]"), nutcracker);
            return Some(ServersWritten::List(items.iter().enumerate().filter_map(item).collect()));
        }
        if matches!(node.kind, NodeKind::List(_)) {
            self.report.add(node.id, key, "the list is empty; name at least one server");
            return None;
        }
        let embedded = |text: &str| match text.strip_prefix("embedded:").filter(|_| !nutcracker) {
            Some(count) => number(count, 1, MAX_EMBEDDED.into())
                .map_err(|_| Expected::new(format!("`embedded:N` with N from 1 to {MAX_EMBEDDED}"))),
            None => Err(Expected::new(if nutcracker { "a list of `host:port:weight [name]`" } else { SERVERS })),
        };
        let count = scalar(node, &key, self.report, embedded)?.value;
        Some(ServersWritten::Embedded(count.try_into().unwrap_or(MAX_EMBEDDED)))
    }

    fn server(&mut self, node: &'n Node, key: String, nutcracker: bool) -> Option<Written<Server>> {
        if node.entries().is_none() || nutcracker {
            return scalar(node, &key, self.report, |text| servers::entry(text, nutcracker));
        }
        let mut server = Fields::open(node, key, &keys::names(Place::Server), self.report)?;
        server.require("address", "a server's address such as `10.0.0.1:6379`");
        let address = server.value("address", servers::address);
        let weight = server.value("weight", servers::weight).map_or(1, |weight| weight.value);
        let alias = server.value("name", servers::alias).map(|alias| alias.value);
        let Written { value: (address, label), .. } = address?;
        Some(Written { value: servers::server(address, label, weight, alias), at: node.id })
    }

    pub(super) fn secret(&mut self, name: &str) -> Option<Written<Secret>> {
        let node = self.get(name)?;
        secret(node, &join(&self.key, name), self.report)
    }

    pub(super) fn auth(&mut self, name: &str, dir: &Path) -> Option<Written<Auth>> {
        let node = self.get(name)?;
        let key = join(&self.key, name);
        if node.text().is_some() {
            self.report.unfit_secret(node, &key, &Expected::new("a map with `password`"));
            return None;
        }
        let mut known = keys::names(Place::Auth);
        known.retain(|known| *known != "user" || name != "client_auth");
        let mut auth = Fields::open(node, key, &known, self.report)?;
        let user = auth.value("user", user).filter(|_| name != "client_auth").map(|user| user.value);
        let password = auth.password(dir);
        Some(Written { value: Auth { user, password }, at: node.id })
    }

    /// A password in a file, which is noted as one that the configuration depends on.
    pub(super) fn password_file(&mut self, dir: &Path) -> Option<Written<Secret>> {
        self.secret_file("password_file", dir)
    }

    /// The same under another name.
    pub(super) fn secret_file(&mut self, name: &str, dir: &Path) -> Option<Written<Secret>> {
        if let Some(path) = self.get(name).and_then(Node::text) {
            self.report.depends_on(dir.join(path));
            self.report.keeps_secret(dir.join(path));
        }
        self.value(name, |text| from_file(text, dir))
    }

    fn password(&mut self, dir: &Path) -> Option<Secret> {
        let given = ["password", "password_env", "password_file"];
        let given: Vec<&str> = given.into_iter().filter(|name| self.get(name).is_some()).collect();
        match given[..] {
            ["password"] => self.secret("password").map(|secret| secret.value),
            ["password_env"] => self.value("password_env", from_env).map(|secret| secret.value),
            ["password_file"] => self.password_file(dir).map(|secret| secret.value),
            _ => {
                let said =
                    if given.is_empty() { "missing, expected one of" } else { "given twice, expected only one of" };
                let said = format!("{said} `password`, `password_env`, `password_file`");
                self.report.add(self.at, join(&self.key, "password"), said);
                None
            }
        }
    }
}

pub(super) fn join(key: &str, name: &str) -> String {
    if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") }
}

pub(super) fn refuse_twice(entries: &[(Node, Node)], key: &str, report: &mut Report) {
    let mut seen = std::collections::HashMap::new();
    for (name, _) in entries {
        let Some(text) = name.text() else { continue };
        match seen.get(text) {
            Some(first) => report.twice(name.id, *first, join(key, text), "given twice"),
            None => drop(seen.insert(text, name.id)),
        }
    }
}

pub(super) fn scalar<T>(
    node: &Node,
    key: &str,
    report: &mut Report,
    parse: impl Fn(&str) -> Result<T, Expected>,
) -> Option<Written<T>> {
    match parse(node.text().unwrap_or_default()) {
        Ok(value) => Some(Written { value, at: node.id }),
        Err(expected) => {
            report.unfit(node, key, &expected);
            None
        }
    }
}

/// A scalar that is not for everybody's eyes.
pub(super) fn secret(node: &Node, key: &str, report: &mut Report) -> Option<Written<Secret>> {
    match node.text().filter(|text| !text.is_empty()) {
        Some(text) => {
            // The hash of a password is for nobody's eyes either, and yet no password.
            if !text.starts_with("sha256:") {
                report.holds_secret();
            }
            Some(Written { value: Secret::new(text), at: node.id })
        }
        None => {
            report.unfit_secret(node, key, &Expected::new("a password"));
            None
        }
    }
}

pub(super) fn flag(text: &str) -> Result<bool, Expected> {
    text.parse().map_err(|_| Expected::new("`true` or `false`"))
}

pub(super) fn number(text: &str, least: u32, most: u32) -> Result<u32, Expected> {
    let number = whole(text).and_then(|n| u32::try_from(n).ok()).filter(|n| (least..=most).contains(n));
    number.ok_or_else(|| Expected::new(format!("a whole number from {least} to {most}")))
}

pub(super) fn size(text: &str, least: u64) -> Result<u64, Expected> {
    let bytes = text.parse::<Size>()?.bytes();
    if (least..=LARGEST).contains(&bytes) {
        return Ok(bytes);
    }
    Err(Expected::new(format!("a size from {} to {}", Size::from(least), Size::from(LARGEST))))
}

fn workers(text: &str) -> Result<Workers, Expected> {
    if text == "auto" {
        return Ok(Workers::Auto);
    }
    let count = number(text, 1, 256).ok().and_then(|n| u16::try_from(n).ok()).and_then(|n| n.try_into().ok());
    count.map(Workers::Count).ok_or_else(|| Expected::new("a whole number from 1 to 256, or `auto`"))
}

fn max_pause(text: &str) -> Result<Duration, Expected> {
    let pause = if text == "off" { Some(Duration::ZERO) } else { text.parse().ok().map(|m: Millis| m.into()) };
    let pause = pause.filter(|pause| *pause <= Duration::from_millis(1));
    pause.ok_or_else(|| Expected::new("a duration of at most `1ms` such as `120us`, or `off`"))
}

fn socket_path(text: &str) -> Result<PathBuf, Expected> {
    match text.parse() {
        Ok(Address::Unix { path, mode: None }) => Ok(path),
        _ => Err(Expected::new("the path of a unix socket such as `/run/hotring/handover.sock`")),
    }
}

fn watch(text: &str) -> Result<Option<Duration>, Expected> {
    if text == "off" {
        return Ok(None);
    }
    let span = text.parse::<Millis>().map(Duration::from).ok().filter(|span| *span >= Duration::from_millis(100));
    span.map(Some).ok_or_else(|| Expected::new("a duration of at least `100ms` such as `2s`, or `off`"))
}

fn max_memory(text: &str) -> Result<MaxMemory, Expected> {
    match text {
        "auto" => Ok(MaxMemory::Auto),
        "off" => Ok(MaxMemory::Off),
        _ => size(text, 1 << 20).map(MaxMemory::Bytes).map_err(|e| Expected::new(format!("{e}, or `auto`, or `off`"))),
    }
}

fn admin(text: &str) -> Result<Option<Address>, Expected> {
    if text == "off" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|e| Expected::new(format!("{e}, or `off`")))
}

fn patience(text: &str) -> Result<Option<Duration>, Expected> {
    match text {
        "off" | "-1" => Ok(None),
        _ => match text.parse::<Millis>() {
            Ok(millis) => Ok(Some(millis.into()).filter(|timeout: &Duration| !timeout.is_zero())),
            // That `off` is possible is told where the key is described: who writes a wrong duration wants a right one.
            Err(e) => Err(e),
        },
    }
}

/// `off`, `0`, which is off in Redis, or a time.
fn standing(text: &str) -> Result<Option<Duration>, Expected> {
    if text == "off" {
        return Ok(None);
    }
    let span = text.parse::<Millis>().map_err(|_| Expected::new("a duration such as `60s`, or `off`"))?;
    Ok(Some(span.into()).filter(|span: &Duration| !span.is_zero()))
}

fn unread(text: &str) -> Result<Option<Unread>, Expected> {
    if text == "off" {
        return Ok(None);
    }
    let (bytes, span) = text.split_once(' ').unwrap_or_default();
    let bytes = size(bytes, 1 << 10).ok();
    let span = some_time(span).ok();
    let both = bytes.zip(span).map(|(bytes, span)| Unread { bytes, span });
    both.map(Some).ok_or_else(|| Expected::new("a size of at least 1kb and a duration such as `8mb 60s`, or `off`"))
}

fn slower_than(text: &str) -> Result<Option<Duration>, Expected> {
    if text == "off" {
        return Ok(None);
    }
    let span = text.parse::<Millis>().map_err(|_| Expected::new("a duration such as `10ms`, or `off`"))?;
    Ok(Some(span.into()))
}

pub(super) fn some_time(text: &str) -> Result<Duration, Expected> {
    let span = Duration::from(text.parse::<Millis>()?);
    if span.is_zero() { Err(Expected::new("a duration above 0")) } else { Ok(span) }
}

fn time_or_off(text: &str, such_as: &str) -> Result<Option<Duration>, Expected> {
    match text {
        "off" => Ok(None),
        _ => some_time(text)
            .map(Some)
            .map_err(|_| Expected::new(format!("a duration above 0 such as `{such_as}`, or `off`"))),
    }
}

fn hash(text: &str) -> Result<KeyHash, Expected> {
    text.parse().map_err(|_| {
        Expected::new(
            "one of `one_at_a_time` `md5` `crc16` `crc32` `crc32a` `fnv1_64` `fnv1a_64` `fnv1_32` `fnv1a_32` `hsieh` \
             `murmur` `jenkins`",
        )
    })
}

fn distribution(text: &str) -> Result<Distribution, Expected> {
    text.parse().map_err(|_| Expected::new("one of `ketama` `modula` `random` `even`"))
}

fn hash_tag(text: &str) -> Result<[u8; 2], Expected> {
    text.as_bytes().try_into().map_err(|_| Expected::new("two characters such as `\"{}\"`"))
}

fn user(text: &str) -> Result<String, Expected> {
    if text.is_empty() { Err(Expected::new("a user name")) } else { Ok(text.to_owned()) }
}

pub(super) fn from_env(name: &str) -> Result<Secret, Expected> {
    // The standard library refuses such names by panicking or by never finding them.
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(Expected::new("the name of an environment variable"));
    }
    match std::env::var(name) {
        Ok(secret) if !secret.is_empty() => Ok(Secret::new(secret)),
        _ => Err(Expected::new("an environment variable that is set, not empty and UTF-8")),
    }
}

fn from_file(name: &str, dir: &Path) -> Result<Secret, Expected> {
    if name.is_empty() {
        return Err(Expected::new("the path of a file"));
    }
    let mut text = String::new();
    let read = File::open(dir.join(name)).and_then(|file| file.take(SECRET_BYTES + 1).read_to_string(&mut text));
    let secret = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    match read {
        Err(e) => Err(Expected::new(format!("a file that can be read: {}", quoted(&e.to_string())))),
        Ok(_) if secret.is_empty() => Err(Expected::new("a file that is not empty")),
        Ok(bytes) if bytes as u64 > SECRET_BYTES => {
            Err(Expected::new(format!("a file of at most {SECRET_BYTES} bytes")))
        }
        Ok(_) => Ok(Secret::new(secret)),
    }
}
