//! `topology` and what belongs to it: who says which servers a pool has.
//!
//! Promises: what makes no sense beside a topology is told and not ignored. Nothing here knows a default.

use super::problems::{Report, quoted};
use super::servers;
use super::text::quoted as in_yaml;
use super::written::{Auth, Fields, PoolWritten, ServersWritten, Written, join, refuse_twice, scalar, some_time};
use super::yaml::Kind as NodeKind;
use crate::tls::Client;
use crate::units::{Address, Expected, Millis, whole};
use crate::upstream::WhenEjected;
pub(super) use crate::upstream::topology::Kind;
use crate::upstream::topology::{Announce, Asked, Master, REDIRECT_WAIT, TOPOLOGY_INTERVAL, Topology};
use std::path::Path;
use std::time::Duration;

/// What a pool says of its topology.
#[derive(Debug, Default)]
pub(super) struct TopologyWritten {
    kind: Option<Written<Kind>>,
    announce: Vec<Written<Announce>>,
    announced: Option<usize>,
    masters: Option<(usize, Vec<Written<Master>>)>,
    auth: Option<Written<Auth>>,
    interval: Option<Written<Duration>>,
    redirect_wait: Option<Written<Duration>>,
}

impl TopologyWritten {
    pub(super) fn kind(&self) -> Kind {
        self.kind.as_ref().map_or(Kind::Static, |kind| kind.value)
    }

    /// The names of what forms the ring, where sentinels say where that is.
    pub(super) fn masters(&self) -> impl Iterator<Item = &str> {
        self.masters.iter().flat_map(|(_, masters)| masters).map(|master| master.value.name.as_str())
    }
}

const ANNOUNCE: &str = "a map from what nodes call themselves to where they are, such as `{\"10.0.0.5:7001\": \
                        \"127.0.0.1:7001\"}` or, for all ports, `{10.0.0.5: 127.0.0.1}`";
const MASTERS: &str = "a list of the names that the sentinels watch, such as `[sessions-1, sessions-2]`";
const MASTER: &str = "a name that the sentinels watch, with a weight if need be: `sessions` or `sessions:2`";

impl Fields<'_, '_> {
    /// What a pool says of its topology.
    pub(super) fn topology(&mut self, dir: &Path) -> TopologyWritten {
        let (announced, announce) = self.announce();
        TopologyWritten {
            kind: self.value("topology", str::parse),
            announce,
            announced,
            masters: self.masters(),
            auth: self.auth("sentinel_auth", dir),
            interval: self.value("topology_interval", |text| match some_time(text) {
                Ok(span) if span >= Duration::from_millis(100) => Ok(span),
                _ => Err(Expected::new("a duration of at least `100ms` such as `30s`")),
            }),
            redirect_wait: self.value("redirect_wait", |text| text.parse().map(|span: Millis| span.into())),
        }
    }

    fn announce(&mut self) -> (Option<usize>, Vec<Written<Announce>>) {
        let Some(node) = self.get("announce") else { return (None, Vec::new()) };
        let key = join(&self.key, "announce");
        let Some(entries) = node.entries().filter(|entries| !entries.is_empty()) else {
            self.report.unfit(node, &key, &Expected::new(ANNOUNCE));
            return (Some(node.id), Vec::new());
        };
        refuse_twice(entries, &key, self.report);
        let mut rules = Vec::new();
        for (from, to) in entries {
            let Some(name) = from.text() else {
                self.report.unfit(from, &key, &Expected::new("what a node calls itself"));
                continue;
            };
            let whole = place(name);
            if whole.is_none() && !is_host(name) {
                self.report.unfit(from, &key, &Expected::new("what a node calls itself, `host:port` or `host`"));
                continue;
            }
            let parse = |text: &str| match &whole {
                Some(from) => match place(text) {
                    Some((host, port)) => Ok(Announce::Whole { from: from.clone(), to: Address::Tcp { host, port } }),
                    None => Err(Expected::new("where that is, as `host:port`")),
                },
                None if is_host(text) => Ok(Announce::Host { from: name.to_owned(), to: text.to_owned() }),
                None => Err(Expected::new("what that host is called here, without a port")),
            };
            rules.extend(scalar(to, &join(&key, name), self.report, parse));
        }
        (Some(node.id), rules)
    }

    fn masters(&mut self) -> Option<(usize, Vec<Written<Master>>)> {
        let node = self.get("masters")?;
        let key = join(&self.key, "masters");
        let NodeKind::List(items) = &node.kind else {
            let one = scalar(node, &key, self.report, |text| master(text).map_err(|_| Expected::new(MASTERS)));
            return Some((node.id, one.into_iter().collect()));
        };
        if items.is_empty() {
            self.report.add(node.id, key, "the list is empty; name at least one");
            return Some((node.id, Vec::new()));
        }
        let mut masters: Vec<Written<Master>> = Vec::new();
        for (i, item) in items.iter().enumerate() {
            let key = format!("{key}[{i}]");
            let Some(one) = scalar(item, &key, self.report, master) else { continue };
            if let Some(first) = masters.iter().find(|other| other.value.name == one.value.name) {
                self.report.twice(one.at, first.at, key, format!("{} stands twice", quoted(&one.value.name)));
            }
            masters.push(one);
        }
        Some((node.id, masters))
    }
}

/// `host:port` or `[v6]:port`.
fn place(text: &str) -> Option<(String, u16)> {
    match text.parse() {
        Ok(Address::Tcp { host, port }) if port > 0 => Some((host, port)),
        _ => None,
    }
}

fn is_host(text: &str) -> bool {
    let v6 = text.parse::<std::net::Ipv6Addr>().is_ok();
    v6 || (!text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || "/:[]".contains(c)))
}

/// Sentinel itself takes letters, digits, `.`, `-` and `_`.
fn master(text: &str) -> Result<Master, Expected> {
    let (name, weight) = text.split_once(':').map_or((text, None), |(name, weight)| (name, Some(weight)));
    let named = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b));
    let weight = weight.map_or(Some(1), |weight| {
        whole(weight).and_then(|n| u32::try_from(n).ok()).filter(|n| (1..=servers::MAX_WEIGHT).contains(n))
    });
    match weight.filter(|_| named) {
        Some(weight) => Ok(Master { name: name.to_owned(), weight }),
        None => Err(Expected::new(MASTER)),
    }
}

/// Tells what does not fit together.
pub(super) fn check(pool: &PoolWritten, report: &mut Report) {
    let written = &pool.topology;
    let kind = written.kind();
    let mut refuse = |at: Option<usize>, name: &str, said: &str| {
        if let Some(at) = at {
            report.add(at, format!("{}.{name}", pool.key), said);
        }
    };
    let announced = written.announced;
    let masters = written.masters.as_ref().map(|(at, _)| *at);
    let auth = written.auth.as_ref().map(|auth| auth.at);
    let interval = written.interval.as_ref().map(|interval| interval.at);
    let redirect_wait = written.redirect_wait.as_ref().map(|wait| wait.at);
    if kind == Kind::Static {
        refuse(announced, "announce", "is for `topology: cluster` or `sentinel`: here the file says where servers are");
        refuse(interval, "topology_interval", "is for `topology: cluster` or `sentinel`: here nobody is asked");
    }
    if kind != Kind::Sentinel {
        refuse(masters, "masters", "is for `topology: sentinel`");
        refuse(auth, "sentinel_auth", "is for `topology: sentinel`");
    }
    if kind != Kind::Cluster {
        refuse(redirect_wait, "redirect_wait", "is for `topology: cluster`");
    }
    let Some(topology) = written.kind.as_ref().filter(|_| kind != Kind::Static) else { return };
    let replicas = pool.replicas.first().map(|(server, _)| server.at);
    match kind {
        Kind::Cluster => {
            let slots = "is not for `topology: cluster`: there a key's slot says where it lives";
            refuse(pool.distribution.as_ref().map(|w| w.at), "distribution", slots);
            refuse(pool.hash.as_ref().map(|w| w.at), "hash", slots);
            refuse(
                pool.hash_tag.as_ref().map(|w| w.at),
                "hash_tag",
                "is not for `topology: cluster`: there it is `{}`",
            );
            refuse(pool.pins.first().map(|(_, server)| server.at), "pin", slots);
            let eject = "is not for `topology: cluster`: no other node has the keys of one that is down";
            refuse(pool.auto_eject_hosts.as_ref().filter(|w| w.value).map(|w| w.at), "auto_eject_hosts", eject);
            let elsewhere = |w: &&Written<WhenEjected>| matches!(w.value, WhenEjected::Rehash | WhenEjected::Gutter(_));
            let when_ejected = pool.when_ejected.as_ref().filter(elsewhere);
            let said = "is not for `topology: cluster`, expected `error` or `miss`: no other node may have the keys";
            refuse(when_ejected.map(|w| w.at), "when_ejected", said);
            let one = "a cluster has one database, expected";
            let databases = pool.databases.as_ref().filter(|w| w.value != 1);
            refuse(databases.map(|w| w.at), "databases", &format!("{one} `1`"));
            for (name, db) in [("redis_db", &pool.redis_db), ("db", &pool.db)] {
                refuse(db.as_ref().filter(|w| w.value != 0).map(|w| w.at), name, &format!("{one} `0`"));
            }
            refuse(replicas, "replicas", "is not for `topology: cluster`: its nodes say which replicas there are");
        }
        Kind::Sentinel => {
            refuse(replicas, "replicas", "is not for `topology: sentinel`: sentinels say which replicas there are");
            if masters.is_none() {
                report.add(topology.at, format!("{}.masters", pool.key), format!("missing, expected {MASTERS}"));
            }
        }
        Kind::Static => {}
    }
    let who = if kind == Kind::Cluster { "a seed" } else { "a sentinel" };
    match &pool.servers {
        Some(ServersWritten::Embedded(_)) => {
            let said = format!("`{kind}` is for pools of servers: embedded nodes are in this process");
            report.add(topology.at, format!("{}.topology", pool.key), said);
        }
        Some(ServersWritten::List(list)) => {
            for (i, server) in list.iter().enumerate() {
                let said = match &server.value {
                    server if matches!(server.address, Address::Unix { .. }) => {
                        format!("{who} is reached by `host:port`, not by a unix socket")
                    }
                    server if server.alias.is_some() => format!("{who} is on no ring, expected no name"),
                    server if server.weight != 1 => format!("{who} is on no ring, expected no weight"),
                    _ => continue,
                };
                report.add(server.at, format!("{}.servers[{i}]", pool.key), said);
            }
        }
        None => {}
    }
}

/// What is meant; `at` are the addresses under `servers`, `tls` is how sentinels are spoken to.
pub(super) fn build(written: TopologyWritten, at: Vec<Address>, tls: Option<Client>) -> Topology {
    let kind = written.kind();
    let asked = Asked {
        at,
        announce: written.announce.into_iter().map(|rule| rule.value).collect(),
        interval: written.interval.map_or(TOPOLOGY_INTERVAL, |interval| interval.value),
    };
    match kind {
        Kind::Static => Topology::Static,
        Kind::Cluster => {
            Topology::Cluster { asked, redirect_wait: written.redirect_wait.map_or(REDIRECT_WAIT, |wait| wait.value) }
        }
        Kind::Sentinel => {
            let masters = written.masters.into_iter().flat_map(|(_, masters)| masters);
            let (user, password) = written.auth.map_or((None, None), |auth| (auth.value.user, auth.value.password));
            Topology::Sentinel { asked, masters: masters.map(|master| master.value).collect(), user, password, tls }
        }
    }
}

/// The lines of the effective configuration, but for passwords.
pub(super) fn lines(topology: &Topology) -> Vec<String> {
    let Some(asked) = topology.asked() else { return vec!["topology: static".into()] };
    let mut lines = vec![format!("topology: {}", topology.kind())];
    lines.push(format!("topology_interval: {}", Millis::from(asked.interval)));
    if let Topology::Cluster { redirect_wait, .. } = topology {
        lines.push(format!("redirect_wait: {}", Millis::from(*redirect_wait)));
    }
    if !asked.announce.is_empty() {
        lines.push("announce:".into());
    }
    for rule in &asked.announce {
        let (from, to) = match rule {
            Announce::Whole { from: (host, port), to } => {
                (Address::Tcp { host: host.clone(), port: *port }.to_string(), to.to_string())
            }
            Announce::Host { from, to } => (from.clone(), to.clone()),
        };
        lines.push(format!("  {}: {}", in_yaml(&from), in_yaml(&to)));
    }
    if let Topology::Sentinel { masters, .. } = topology {
        let masters: Vec<String> =
            masters.iter().map(|master| in_yaml(&format!("{}:{}", master.name, master.weight))).collect();
        lines.push(format!("masters: [{}]", masters.join(", ")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masters_may_have_weights() {
        assert_eq!(master("a").unwrap(), Master { name: "a".into(), weight: 1 });
        assert_eq!(master("a-1.b_c:3").unwrap(), Master { name: "a-1.b_c".into(), weight: 3 });
        for text in ["", ":1", "a:", "a:0", "a:-1", "a b", "a:1:1", "ä"] {
            assert!(master(text).is_err(), "{text}");
        }
    }
}
