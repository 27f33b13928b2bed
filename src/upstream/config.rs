//! What a pool's backend side is told: which servers, how patient to be with them, and where keys go.
//!
//! Promises: plain values, already checked when they come from a file. Does not promise that a server exists or answers.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::topology::Topology;
use crate::ring::{Distribution, KeyHash};
use crate::tls::Client;
use crate::units::{Address, Expected, Secret};

/// `timeout` where a `proxy.yaml` says nothing. A `nutcracker.yml` that says nothing waits for ever, as twemproxy does.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// `connect_timeout` where nothing is said.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// `dns_refresh` where nothing is said.
pub const DNS_REFRESH: Duration = Duration::from_secs(30);
/// `reconnect_rate` where nothing is said.
pub const RECONNECT_RATE: u32 = 50;
/// `server_connections` where nothing is said.
pub const SERVER_CONNECTIONS: u32 = 1;
/// `server_retry_timeout` where nothing is said.
pub const SERVER_RETRY_TIMEOUT: Duration = Duration::from_secs(30);
/// `server_failure_limit` where nothing is said.
pub const SERVER_FAILURE_LIMIT: u32 = 2;
/// `probe_interval` where nothing is said.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// `probe_timeout` where neither it nor `timeout` is said.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// `gutter_ttl` where nothing is said.
pub const GUTTER_TTL: Duration = Duration::from_secs(10);
/// `warm_for` where nothing is said.
pub const WARM_FOR: Duration = Duration::from_secs(3600);
/// `warm_rate` where nothing is said.
pub const WARM_RATE: u32 = 5000;
/// `max_outbox` where nothing is said, in bytes.
pub const MAX_OUTBOX: u64 = 8 << 20;
/// `databases` where nothing is said, as in redis.conf.
pub const DATABASES: u16 = 16;
/// `dedicated_connections` where nothing is said.
pub const DEDICATED_CONNECTIONS: u32 = 256;
/// `maxmemory` of one embedded node where nothing is said, in bytes.
pub const MAXMEMORY: u64 = 64 << 20;

/// The backend side of one pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The shards. Where there is a topology they are what it says, none until it is known.
    pub servers: Servers,
    /// Who says what the servers are.
    pub topology: Topology,
    /// How long a reply may take from the moment its request was enqueued; `None` waits for ever.
    pub timeout: Option<Duration>,
    /// How long a connection attempt with its handshake may take.
    pub connect_timeout: Duration,
    /// Connections to each server, at least 1, for each worker.
    pub server_connections: u32,
    /// Connect to every server at start instead of at the first request for it.
    pub preconnect: bool,
    /// Take a server out of the ring after `server_failure_limit` failures in a row.
    pub auto_eject_hosts: bool,
    /// How long the keys of an ejected server stay elsewhere at least, where they went elsewhere.
    pub server_retry_timeout: Duration,
    /// Failures in a row that eject a server, at least 1.
    pub server_failure_limit: u32,
    /// What the keys of an ejected server get; `None` leaves it to `auto_eject_hosts`.
    pub when_ejected: Option<WhenEjected>,
    /// How long at most what is written to a gutter lives there, at least a millisecond.
    pub gutter_ttl: Duration,
    /// How often a server is asked whether it is well, while no replies tell; `None` is not at all.
    pub probe_interval: Option<Duration>,
    /// How long it may take to answer that; see [`Config::probe_within`].
    pub probe_timeout: Option<Duration>,
    /// How often one worker asks each server for INFO.
    pub info_interval: Option<Duration>,
    /// `SO_KEEPALIVE` on connections to servers.
    pub tcpkeepalive: bool,
    /// `TCP_USER_TIMEOUT` on connections to servers: how long sent bytes may stay unacknowledged; `None` leaves it to the
    /// kernel.
    pub tcp_user_timeout: Option<Duration>,
    /// How long what a name was resolved to is used, and how often it is asked whether a server has moved; `None` asks
    /// before each connection and never moves one.
    pub dns_refresh: Option<Duration>,
    /// Connections opened to each server a second, for each worker, at least 1; `None` bounds nothing.
    pub reconnect_rate: Option<u32>,
    /// How many of them may be opened at once, at least 1.
    pub reconnect_burst: u32,
    /// How TLS is spoken to the servers; `None` is not at all. Never over a unix socket.
    pub tls: Option<Client>,
    /// The user of `AUTH user password`; `None` sends the password alone.
    pub user: Option<String>,
    /// What to `AUTH` with at every server.
    pub password: Option<Secret>,
    /// The database to `SELECT` after connecting; 0 sends nothing.
    pub db: u32,
    /// Databases that apps may `SELECT`, counted from 0; 1 where `db` is not 0.
    pub databases: u16,
    /// Whether apps may speak RESP3; the servers must then, too.
    pub resp3: bool,
    /// Most connections to each server, for each worker, that sessions have for themselves: transactions, blocking commands.
    pub dedicated_connections: u32,
    /// Commands that are carried on such a connection since they take long, in lower case.
    pub slow_commands: Vec<String>,
    /// Bytes that may wait to be sent on one connection before the sessions that fill it are paused.
    pub max_outbox: u64,
    /// Where replicas of the servers are, by the servers' names: reads of hot keys may be served by them. They are spoken to as
    /// the servers are.
    pub replicas: Vec<(String, Vec<Address>)>,
    /// In which zones servers and replicas are, by where they are; of others it is asked.
    pub zones: Vec<(Address, String)>,
    /// Whether connections to replicas begin with READONLY: nodes of a cluster answer reads as replicas only then.
    pub readonly: bool,
    /// Where keys are looked for that are not at their home, for a while.
    pub warm_from: Option<WarmFrom>,
    /// For how long, from the change on.
    pub warm_for: Duration,
    /// Questions a second there, over all workers, at least 1.
    pub warm_rate: u32,
}

/// Where keys are looked for that are not at their home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WarmFrom {
    /// Where they lived before the servers changed last.
    Previous,
    /// In the pool of this name.
    Pool(String),
}

impl FromStr for WarmFrom {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        match text {
            "" => Err(Expected::new("`previous`, the name of a pool, or `off`")),
            "previous" => Ok(Self::Previous),
            pool => Ok(Self::Pool(pool.to_owned())),
        }
    }
}

impl fmt::Display for WarmFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Previous => f.write_str("previous"),
            Self::Pool(pool) => f.write_str(pool),
        }
    }
}

impl Config {
    /// What the keys of an ejected server get.
    #[must_use]
    pub fn ejected(&self) -> &WhenEjected {
        match &self.when_ejected {
            Some(way) => way,
            None if self.auto_eject_hosts => &WhenEjected::Rehash,
            None => &WhenEjected::Error,
        }
    }

    /// How long a server may take to answer a probe: as long as any other request, where nothing else is said.
    #[must_use]
    pub fn probe_within(&self) -> Duration {
        self.probe_timeout.or(self.timeout).unwrap_or(PROBE_TIMEOUT)
    }
}

/// What the keys of an ejected server get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhenEjected {
    /// An error at once.
    Error,
    /// Reads are answered as if there were no such key, writes get the error.
    Miss,
    /// The other servers of the pool.
    Rehash,
    /// The servers of the pool of this name, for a while.
    Gutter(String),
}

impl FromStr for WhenEjected {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        match text {
            "error" => Ok(Self::Error),
            "miss" => Ok(Self::Miss),
            "rehash" => Ok(Self::Rehash),
            _ => match text.strip_prefix("gutter:") {
                Some(pool) if !pool.is_empty() => Ok(Self::Gutter(pool.to_owned())),
                _ => Err(Expected::new("`error`, `miss`, `rehash` or `gutter:POOL`")),
            },
        }
    }
}

impl fmt::Display for WhenEjected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error => f.write_str("error"),
            Self::Miss => f.write_str("miss"),
            Self::Rehash => f.write_str("rehash"),
            Self::Gutter(pool) => write!(f, "gutter:{pool}"),
        }
    }
}

/// Where a pool's keys live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Servers {
    /// Cache nodes inside this process.
    Embedded {
        /// How many, at least 1.
        count: u16,
        /// Bytes that one node may hold.
        maxmemory: u64,
        /// What a full node gives up first.
        eviction: Eviction,
    },
    /// A fixed list, in the order of the file; at least one, names unique.
    Static(Vec<Server>),
}

/// What a full embedded node gives up first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Eviction {
    /// The key longest unused.
    #[default]
    Lru,
    /// The key least often used.
    Lfu,
}

impl FromStr for Eviction {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "lru" => Ok(Self::Lru),
            "lfu" => Ok(Self::Lfu),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Eviction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lru => "lru",
            Self::Lfu => "lfu",
        })
    }
}

/// One backend server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where it listens; a Unix address carries no mode here.
    pub address: Address,
    /// Its share of the keys relative to the others, at least 1.
    pub weight: u32,
    /// The name the file gave it, if it gave one.
    pub alias: Option<String>,
    /// Its label on the ring, by twemproxy's rules: the alias; else `host:port` as written, `host` alone when the port is
    /// 11211; else the socket's path with a `:` behind it. Placement depends on it, so it is never normalised.
    pub name: String,
}

/// Where a key goes among a pool's servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingConfig {
    /// What maps a key to a number.
    pub hash: KeyHash,
    /// What maps that number to a server.
    pub distribution: Distribution,
    /// The characters around the part of a key that is hashed, such as `{` and `}`.
    pub hash_tag: Option<[u8; 2]>,
    /// Beginnings of keys, each with the name of the server where such keys live whatever the ring says.
    pub pins: Vec<(String, String)>,
}
