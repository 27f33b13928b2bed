//! Who says which servers a pool has: the file, the nodes of a Redis Cluster, or sentinels.
//!
//! Promises: plain values, already checked when they come from a file. Who asks is `crate::topology`.

use crate::tls::Client;
use crate::units::{Address, Expected, Secret};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// `topology_interval` where nothing is said.
pub const TOPOLOGY_INTERVAL: Duration = Duration::from_secs(30);
/// `redirect_wait` where nothing is said.
pub const REDIRECT_WAIT: Duration = Duration::from_secs(2);

/// Who says which servers a pool has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Topology {
    /// The file.
    #[default]
    Static,
    /// The nodes of a Redis Cluster, of which some are known from the start.
    Cluster {
        /// Where to ask.
        asked: Asked,
        /// How long a request may wait for a slot to be served again.
        redirect_wait: Duration,
    },
    /// Redis Sentinels.
    Sentinel {
        /// Where to ask.
        asked: Asked,
        /// What they watch and is to be this pool's, in the order of the ring; at least one, names unique.
        masters: Vec<Master>,
        /// The user of `AUTH user password` at the sentinels; `None` sends the password alone.
        user: Option<String>,
        /// What to `AUTH` with at the sentinels.
        password: Option<Secret>,
        /// How TLS is spoken to them; `None` is not at all.
        tls: Option<Client>,
    },
}

impl Topology {
    /// Where to ask; `None` where the file says all.
    #[must_use]
    pub fn asked(&self) -> Option<&Asked> {
        match self {
            Self::Static => None,
            Self::Cluster { asked, .. } | Self::Sentinel { asked, .. } => Some(asked),
        }
    }

    /// Whether keys have the slots of a Redis Cluster.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster { .. })
    }

    /// The word of the configuration.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Static => Kind::Static,
            Self::Cluster { .. } => Kind::Cluster,
            Self::Sentinel { .. } => Kind::Sentinel,
        }
    }
}

/// The value of `topology`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// The servers are those of the file.
    #[default]
    Static,
    /// They are the nodes of a Redis Cluster.
    Cluster,
    /// Sentinels say what they are.
    Sentinel,
}

impl FromStr for Kind {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        match text {
            "static" => Ok(Self::Static),
            "cluster" => Ok(Self::Cluster),
            "sentinel" => Ok(Self::Sentinel),
            _ => Err(Expected::new("`static`, `cluster` or `sentinel`")),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Static => "static",
            Self::Cluster => "cluster",
            Self::Sentinel => "sentinel",
        })
    }
}

/// Where the topology is asked for, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The seeds of a cluster, or the sentinels; at least one, TCP only.
    pub at: Vec<Address>,
    /// Where what nodes call themselves is reached from here.
    pub announce: Vec<Announce>,
    /// How often it is asked for without a reason.
    pub interval: Duration,
}

impl Asked {
    /// Where a node is reached from here that calls itself so: a rule for the whole address counts before one for the host.
    #[must_use]
    pub fn reached(&self, host: &str, port: u16) -> Option<Address> {
        let whole = self.announce.iter().find_map(|rule| match rule {
            Announce::Whole { from: (h, p), to } if h.eq_ignore_ascii_case(host) && *p == port => Some(to.clone()),
            _ => None,
        });
        whole.or_else(|| {
            self.announce.iter().find_map(|rule| match rule {
                Announce::Host { from, to } if from.eq_ignore_ascii_case(host) => {
                    Some(Address::Tcp { host: to.clone(), port })
                }
                _ => None,
            })
        })
    }
}

/// An entry of `announce`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announce {
    /// Of one node.
    Whole {
        /// What it calls itself.
        from: (String, u16),
        /// Where it is.
        to: Address,
    },
    /// Of all nodes of a host; the port stays.
    Host {
        /// What the host is called there.
        from: String,
        /// What it is called here.
        to: String,
    },
}

/// What sentinels watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Master {
    /// The name under which they do, and on the ring.
    pub name: String,
    /// Its share of the keys relative to the others, at least 1.
    pub weight: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_address_counts_before_its_host() {
        let to: Address = "127.0.0.1:7001".parse().unwrap();
        let announce = vec![
            Announce::Host { from: "10.0.0.5".into(), to: "127.0.0.9".into() },
            Announce::Whole { from: ("10.0.0.5".into(), 6379), to: to.clone() },
        ];
        let asked = Asked { at: Vec::new(), announce, interval: TOPOLOGY_INTERVAL };
        assert_eq!(asked.reached("10.0.0.5", 6379), Some(to));
        assert_eq!(asked.reached("10.0.0.5", 6380), Some("127.0.0.9:6380".parse().unwrap()));
        assert_eq!(asked.reached("10.0.0.6", 6379), None);
    }
}
