//! Sources of servers that are not the configuration file: the nodes of a Redis Cluster, and Redis Sentinels.
//!
//! A source is asked and answers with a [`Layout`]: which servers there are, which replicas they have, and, in a cluster,
//! which slots each of them serves. Everything else of a pool (connections, metrics, health, hot keys) works on what
//! [`resolved`] makes of it and does not know who said so.
//!
//! Promises: whatever a server answers, nothing here panics or holds more than [`talk::LONGEST`] bytes of it; an answer is
//! whole or it is an error; nobody is waited for longer than the pool's `connect_timeout`. Does not know what runs: that is
//! `live`'s and `proxy`'s.

// What comes from a network must not end a session by a panic; tests may.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::arithmetic_side_effects,
        clippy::panic,
        clippy::unreachable
    )
)]

pub mod cluster;
#[expect(clippy::arithmetic_side_effects, reason = "spans of seconds, which the config bounds")]
pub mod pace;
pub mod sentinel;
pub mod talk;

pub use crate::ring::{NOBODY, SLOTS};
use crate::stages::hot::MOST_REPLICAS;
use crate::units::Address;
use crate::upstream::{self, Server, Servers, Topology};
use std::future::pending;
use std::time::Duration;
use talk::Access;

/// More nodes than this are no layout. Redis Cluster is made for a thousand.
pub const MOST_NODES: usize = 2048;

/// Which servers there are, and what each has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The primaries in an order that does not change as long as they do not; names and addresses are unique.
    pub nodes: Vec<Node>,
    /// For each of [`SLOTS`] slots the place in `nodes` of who serves it, or [`NOBODY`]; `None` where keys are placed by the
    /// ring of the pool's distribution.
    pub slots: Option<Vec<u16>>,
}

/// A primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is known by to those who were asked.
    pub id: String,
    /// What it is called in metrics and logs, and on the ring.
    pub name: String,
    /// Its share of the keys relative to the others, where there is a ring.
    pub weight: u32,
    /// Where it is reached from here.
    pub address: Address,
    /// How it may be spelled in a redirection, each `host:port`; of a cluster only.
    pub announced: Vec<String>,
    /// Those who follow it and are well, as far as those who were asked know.
    pub replicas: Vec<Replica>,
}

/// Who follows a primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Where it is reached from here.
    pub address: Address,
    /// Where it stands, if that is told.
    pub zone: Option<String>,
    /// How it may be spelled in a redirection, each `host:port`, once it takes its primary's place; of a cluster only.
    pub announced: Vec<String>,
}

impl Layout {
    /// How many slots a node serves; `None` where there are none.
    #[must_use]
    pub fn slots_of(&self, node: usize) -> Option<usize> {
        let slots = self.slots.as_ref()?;
        Some(slots.iter().filter(|&&at| usize::from(at) == node).count())
    }

    /// Whether only the slots are others.
    #[must_use]
    pub fn has_nodes_of(&self, other: &Self) -> bool {
        self.nodes == other.nodes
    }
}

/// What a source answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What there is.
    pub layout: Layout,
    /// Whether that is how it should be: nobody who is needed is missing, and no change is known to be under way. What is
    /// not settled is asked for again soon.
    pub settled: bool,
}

/// Who is asked.
#[derive(Debug)]
pub enum Source {
    /// The nodes of a cluster.
    Cluster(cluster::Source),
    /// Sentinels.
    Sentinel(sentinel::Source),
}

/// What a source must know of a pool: where this is the same for two, so are their sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Who says what the servers are.
    pub topology: Topology,
    /// How the pool's servers are spoken to.
    pub access: Access,
    /// How long one who is asked may take, a connection included.
    pub patience: Duration,
}

impl Settings {
    /// Of a pool; `None` where the file says which servers there are.
    #[must_use]
    pub fn of(config: &upstream::Config) -> Option<Self> {
        config.topology.asked()?;
        let (user, password, tls) = (config.user.clone(), config.password.clone(), config.tls.clone());
        let access = Access { user, password, tls };
        Some(Self { topology: config.topology.clone(), access, patience: config.connect_timeout })
    }

    /// How often it is asked without a reason.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.topology.asked().map_or(upstream::topology::TOPOLOGY_INTERVAL, |asked| asked.interval)
    }
}

impl Source {
    /// For a pool with these settings; `None` where the file says which servers there are. `seed` is where chance begins.
    #[must_use]
    pub fn new(settings: &Settings, seed: u64) -> Option<Self> {
        match &settings.topology {
            Topology::Static => None,
            Topology::Cluster { asked, .. } => {
                let source = cluster::Source::new(asked.clone(), settings.access.clone(), settings.patience, seed);
                Some(Self::Cluster(source))
            }
            Topology::Sentinel { .. } => Some(Self::Sentinel(sentinel::Source::new(settings.clone(), seed))),
        }
    }

    /// Asks. May be given up at any time, and asked again.
    ///
    /// # Errors
    /// Why nobody gave an answer, for people.
    pub async fn ask(&mut self) -> Result<Answer, String> {
        match self {
            Self::Cluster(source) => source.ask().await,
            Self::Sentinel(source) => source.ask().await,
        }
    }

    /// Returns when something was heard that is worth asking for; true if that is that there is another primary, and no time
    /// is to be lost. May be given up at any time, and called again.
    pub async fn heard(&mut self) -> bool {
        match self {
            // A cluster tells nobody.
            Self::Cluster(_) => pending().await,
            Self::Sentinel(source) => source.heard().await,
        }
    }
}

/// A pool's servers as its topology has them.
#[must_use]
pub fn resolved(config: &upstream::Config, layout: &Layout) -> upstream::Config {
    let server = |node: &Node| Server {
        address: node.address.clone(),
        weight: node.weight,
        alias: None,
        name: node.name.clone(),
    };
    let replicas = |node: &Node| {
        let list = node.replicas.iter().take(MOST_REPLICAS).map(|replica| replica.address.clone());
        (node.name.clone(), list.collect::<Vec<_>>())
    };
    let told = layout.nodes.iter().flat_map(|node| &node.replicas);
    let told = told.filter_map(|replica| Some((replica.address.clone(), replica.zone.clone()?)));
    upstream::Config {
        // What the file says comes first, and is believed.
        zones: config.zones.iter().cloned().chain(told).collect(),
        readonly: layout.slots.is_some(),
        servers: Servers::Static(layout.nodes.iter().map(server).collect()),
        replicas: layout.nodes.iter().filter(|node| !node.replicas.is_empty()).map(replicas).collect(),
        ..config.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_come_with_their_zones_and_what_the_file_says_of_these_comes_first() {
        let at = |text: &str| text.parse::<Address>().unwrap_or_else(|_| panic!("{text}"));
        let replica = |address: &str, zone: Option<&str>| Replica {
            address: at(address),
            zone: zone.map(str::to_owned),
            announced: Vec::new(),
        };
        let replicas = vec![replica("10.0.0.2:1", Some("b")), replica("10.0.0.3:1", None)];
        let (id, name, address) = ("id".to_owned(), "10.0.0.1:1".to_owned(), at("10.0.0.1:1"));
        let node = Node { id, name, weight: 1, address, announced: Vec::new(), replicas };
        let mut layout = Layout { nodes: vec![node], slots: Some(vec![0; SLOTS]) };
        let mut config = upstream::connection::tests::config();
        config.zones = vec![(at("10.0.0.2:1"), "a".to_owned())];
        let told = resolved(&config, &layout);
        let zone = |zone: &str| (at("10.0.0.2:1"), zone.to_owned());
        assert_eq!(told.zones, [zone("a"), zone("b")]);
        assert!(told.readonly, "a node of a cluster wants to hear that it is only read from");
        layout.slots = None;
        assert!(!resolved(&config, &layout).readonly);
    }
}
