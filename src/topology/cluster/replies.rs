//! What the nodes of a cluster answer, read: `CLUSTER INFO`, `CLUSTER SHARDS` (Redis 7, Valkey) and `CLUSTER SLOTS` (before).
//!
//! Promises: pure; any reply gives a layout or an error. Fields that are not known are passed over. Nodes are in the order
//! of their ids, so that two nodes of one cluster give the same layout.

use super::super::{Layout, MOST_NODES, NOBODY, Node, Replica, SLOTS};
use crate::resp::control::Control;
use crate::units::Address;
use crate::upstream::topology::Asked;
use std::collections::{BTreeMap, BTreeSet};

/// What `CLUSTER INFO` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// `cluster_state:ok`
    pub ok: bool,
    /// `cluster_current_epoch`
    pub epoch: u64,
}

/// Reads the reply to `CLUSTER INFO`; `None` where it tells no state.
#[must_use]
pub fn info(reply: &Control) -> Option<Info> {
    let text = text(reply)?;
    let value = |name: &str| text.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'));
    let epoch = value("cluster_current_epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
    Some(Info { ok: value("cluster_state")? == "ok", epoch })
}

/// A layout, and whether nobody is missing in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What there is.
    pub layout: Layout,
    /// Whether all slots are served, by nodes that are well.
    pub settled: bool,
}

/// A node as it is described.
#[derive(Clone, Debug)]
struct Seen {
    id: String,
    address: Address,
    name: String,
    announced: Vec<String>,
    zone: Option<String>,
    is_well: bool,
}

/// Nodes while they are gathered: by id, each with its replicas, and who has which slots.
#[derive(Default)]
struct Gathered {
    primaries: BTreeMap<String, (Seen, Vec<Seen>)>,
    slots: Vec<(u16, u16, String)>,
    count: usize,
}

const ODD: &str = "its answer is not understood";

/// Reads the reply to `CLUSTER SHARDS` of the node at `at`; with `tls` the ports are those for TLS. (`CLUSTER SLOTS` and
/// redirections tell those of the kind that they are asked at.)
///
/// # Errors
/// What is wrong with it.
pub fn shards(reply: &Control, at: &Address, asked: &Asked, tls: bool) -> Result<Found, String> {
    let mut gathered = Gathered::default();
    for shard in items(reply).ok_or(ODD)? {
        let nodes = field(shard, "nodes").and_then(items).ok_or(ODD)?;
        let (mut primaries, mut replicas) = (Vec::new(), Vec::new());
        for node in nodes {
            let string = |name| field(node, name).and_then(text);
            // Without one it does not listen for TLS, or for nothing else.
            let Some(port) =
                field(node, if tls { "tls-port" } else { "port" }).and_then(number).and_then(|n| u16::try_from(n).ok())
            else {
                continue;
            };
            let hosts = [string("endpoint"), string("ip"), string("hostname")];
            let zone = string("availability-zone").or_else(|| string("availability_zone"));
            let seen = Seen {
                id: string("id").ok_or(ODD)?.to_owned(),
                zone: zone.filter(|zone| !zone.is_empty()).map(str::to_owned),
                is_well: string("health") != Some("fail"),
                ..seen(hosts, port, at, asked)
            };
            gathered.count(1)?;
            match string("role") {
                Some("master" | "primary") => primaries.push(seen),
                _ => replicas.push(seen),
            }
        }
        let mut ranges = Vec::new();
        let bounds = field(shard, "slots").and_then(items).ok_or(ODD)?;
        for pair in bounds.chunks(2) {
            let [first, last] = pair else { return Err(ODD.into()) };
            ranges.push(range(first, last)?);
        }
        // The one that was, and the one that is since: it is among them for a while.
        primaries.sort_by_key(|seen| !seen.is_well);
        let mut primaries = primaries.into_iter();
        // Where there is none, nobody serves the slots until a replica is chosen.
        let Some(first) = primaries.next() else { continue };
        if !first.is_well && ranges.is_empty() {
            continue;
        }
        gathered.slots.extend(ranges.into_iter().map(|(from, to)| (from, to, first.id.clone())));
        gathered.primaries.insert(first.id.clone(), (first, replicas));
        let others = primaries.filter(|seen| seen.is_well);
        gathered.primaries.extend(others.map(|seen| (seen.id.clone(), (seen, Vec::new()))));
    }
    gathered.found()
}

/// Reads the reply to `CLUSTER SLOTS` of the node at `at`. It tells only of nodes that have slots, and of replicas that are
/// well.
///
/// # Errors
/// What is wrong with it.
pub fn slots(reply: &Control, at: &Address, asked: &Asked) -> Result<Found, String> {
    let mut gathered = Gathered::default();
    for entry in items(reply).ok_or(ODD)? {
        let Some([first, last, primary, replicas @ ..]) = items(entry) else { return Err(ODD.into()) };
        let (from, to) = range(first, last)?;
        let node = |node: &Control| {
            let Some([endpoint, port, more @ ..]) = items(node) else { return None };
            let port = number(port).and_then(|n| u16::try_from(n).ok())?;
            let pairs = more.get(1).and_then(items).unwrap_or_default();
            let meta = |name: &str| {
                pairs.chunks(2).find_map(|pair| match pair {
                    [key, value] if text(key) == Some(name) => text(value),
                    _ => None,
                })
            };
            let seen = seen([text(endpoint), meta("ip"), meta("hostname")], port, at, asked);
            // Before Redis 4 they have none.
            let id = more.first().and_then(text).map_or_else(|| seen.address.to_string(), str::to_owned);
            Some(Seen { id, ..seen })
        };
        let primary = node(primary).ok_or(ODD)?;
        gathered.slots.push((from, to, primary.id.clone()));
        let replicas: Vec<Seen> = replicas.iter().filter_map(node).collect();
        if !gathered.primaries.contains_key(&primary.id) {
            gathered.count(replicas.len().saturating_add(1))?;
            gathered.primaries.insert(primary.id.clone(), (primary, replicas));
        }
    }
    gathered.found()
}

/// A node by how its host is spelled (as clients are to call it, by address, by name) and its port.
fn seen(hosts: [Option<&str>; 3], port: u16, at: &Address, asked: &Asked) -> Seen {
    let mut known: Vec<&str> = Vec::new();
    for host in hosts.into_iter().flatten().filter(|host| !host.is_empty() && *host != "?") {
        if !known.contains(&host) {
            known.push(host);
        }
    }
    let own = match at {
        Address::Tcp { host, .. } => host.as_str(),
        Address::Unix { .. } => "localhost",
    };
    // Who says nothing of where it is, is where it was asked.
    let called = match hosts[0] {
        Some(host) if known.contains(&host) => host,
        _ => own,
    };
    let direct = Address::Tcp { host: called.to_owned(), port };
    let address = known.iter().find_map(|host| asked.reached(host, port)).or_else(|| asked.reached(called, port));
    let mut announced: Vec<String> = known.iter().map(|host| format!("{host}:{port}")).collect();
    // As redirections then spell it.
    match hosts[0] {
        Some("?") => announced.push(format!("?:{port}")),
        Some("") | None => announced.push(format!(":{port}")),
        Some(_) => {}
    }
    Seen {
        id: String::new(),
        address: address.unwrap_or_else(|| direct.clone()),
        name: direct.to_string(),
        announced,
        zone: None,
        is_well: true,
    }
}

impl Gathered {
    fn count(&mut self, more: usize) -> Result<(), String> {
        self.count = self.count.saturating_add(more);
        if self.count > MOST_NODES { Err(format!("it tells of more than {MOST_NODES} nodes")) } else { Ok(()) }
    }

    fn found(self) -> Result<Found, String> {
        let mut table = vec![NOBODY; SLOTS];
        let ids: Vec<&String> = self.primaries.keys().collect();
        let mut settled = true;
        for (from, to, id) in &self.slots {
            let Ok(at) = ids.binary_search(&id) else { return Err(ODD.into()) };
            for slot in table.get_mut(usize::from(*from)..=usize::from(*to)).unwrap_or_default() {
                *slot = u16::try_from(at).unwrap_or(NOBODY);
            }
            settled &= self.primaries.get(id).is_some_and(|(primary, _)| primary.is_well);
        }
        if self.slots.is_empty() {
            return Err("it knows of nobody who serves slots".into());
        }
        settled &= !table.contains(&NOBODY);
        let mut nodes: Vec<Node> = Vec::with_capacity(self.primaries.len());
        for (primary, replicas) in self.primaries.into_values() {
            if let Some(other) = nodes.iter().find(|node| node.address.is_same_place(&primary.address)) {
                let (one, other, at) = (&primary.name, &other.name, &primary.address);
                return Err(format!("the nodes {other} and {one} would both be at {at}: see `announce`"));
            }
            let replica = |seen: Seen| Replica { address: seen.address, zone: seen.zone, announced: seen.announced };
            let mut replicas: Vec<Replica> = replicas.into_iter().filter(|seen| seen.is_well).map(replica).collect();
            replicas.sort_by_key(|replica| replica.address.to_string());
            replicas.dedup_by(|one, other| one.address == other.address);
            let Seen { id, address, name, announced, .. } = primary;
            nodes.push(Node { id, name, weight: 1, address, announced, replicas });
        }
        // What could be two nodes is none.
        let mut spelled: BTreeMap<String, usize> = BTreeMap::new();
        for spelling in nodes.iter().flat_map(|node| &node.announced) {
            let count = spelled.entry(spelling.clone()).or_default();
            *count = count.saturating_add(1);
        }
        let mut names = BTreeSet::new();
        for node in &mut nodes {
            node.announced.retain(|spelling| spelled.get(spelling) == Some(&1));
            if !names.insert(node.name.clone()) {
                return Err(format!("two nodes call themselves {}", node.name));
            }
        }
        Ok(Found { layout: Layout { nodes, slots: Some(table) }, settled })
    }
}

fn range(first: &Control, last: &Control) -> Result<(u16, u16), String> {
    let slot = |reply| number(reply).and_then(|n| u16::try_from(n).ok()).filter(|&n| usize::from(n) < SLOTS);
    match (slot(first), slot(last)) {
        (Some(from), Some(to)) if from <= to => Ok((from, to)),
        _ => Err(ODD.into()),
    }
}

fn items(reply: &Control) -> Option<&[Control]> {
    match reply {
        Control::Array(items) => Some(items),
        _ => None,
    }
}

fn text(reply: &Control) -> Option<&str> {
    match reply {
        Control::Bulk(bytes) | Control::Text(bytes) => std::str::from_utf8(bytes).ok(),
        Control::Simple(text) => Some(text),
        _ => None,
    }
}

fn number(reply: &Control) -> Option<i64> {
    match reply {
        Control::Integer(number) => Some(*number),
        other => text(other)?.parse().ok(),
    }
}

/// The value of a field in a map, which RESP2 has as an array of keys and values.
fn field<'a>(map: &'a Control, name: &str) -> Option<&'a Control> {
    items(map)?.chunks(2).find_map(|pair| match pair {
        [key, value] if text(key) == Some(name) => Some(value),
        _ => None,
    })
}
