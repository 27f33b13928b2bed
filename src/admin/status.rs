//! What `/status` tells, as types: written as JSON by the admin listener, and read again by whoever shows it.
//!
//! Promises: fields are added, and none changes its meaning, as long as [`VERSION`] stays. Rates are those of the last
//! seconds ([`Rates`]), counters those since the start of the process. All is a copy: reading it holds nobody up.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of the form.
pub const VERSION: u32 = 1;
/// Parts that a ring is drawn with.
pub const SECTORS: u32 = 360;
/// Seconds that a history goes back.
pub const HISTORY: usize = 240;

/// The whole process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`VERSION`].
    pub version: u32,
    /// When this was said, in milliseconds since 1970.
    pub now: u64,
    /// The process itself.
    pub process: Process,
    /// The pools, in the order of the file.
    pub pools: Vec<Pool>,
}

/// What there is once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Which hotring this is, such as `0.1.0`.
    pub hotring: String,
    /// Its number in the system.
    pub process: u32,
    /// When it started, in milliseconds since 1970.
    pub started: u64,
    /// For how long it runs.
    pub uptime_seconds: u64,
    /// Threads that serve requests.
    pub workers: u64,
    /// Why it is not to be given traffic; empty where it is ready.
    pub not_ready: Vec<String>,
    /// The file.
    pub config_path: String,
    /// A number made from the running configuration; the same in processes that run the same.
    pub config_hash: u64,
    /// When the running configuration was loaded, in milliseconds since 1970.
    pub config_loaded: u64,
    /// Whether the configuration can be read anew, and more, by who shows the token.
    pub has_token: bool,
    /// The last reload, if there was one.
    pub last_reload: Option<Reload>,
    /// Bytes that apps and servers make it hold.
    pub memory_bytes: u64,
    /// The bound of that (`max_memory`), if there is one.
    pub memory_limit_bytes: Option<u64>,
    /// Mistakes of hotring's own.
    pub panics: u64,
}

/// The configuration was read again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reload {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// Whether it runs now; else the one before still does.
    pub taken: bool,
    /// What changed, or what is wrong with it: for people, some lines.
    pub told: String,
}

/// A pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// `servers`, `embedded`, `cluster` or `sentinel`.
    pub kind: String,
    /// Where apps connect to.
    pub listeners: Vec<Listener>,
    /// Connections of apps.
    pub apps: u64,
    /// Connections to servers, all together.
    pub server_connections: u64,
    /// What apps ask for.
    pub requests: Rates,
    /// Requests without a reply yet.
    pub pending: u64,
    /// How long requests took.
    pub latency: Latency,
    /// Error replies of hotring's own.
    pub errors: Rates,
    /// The same by cause; only those that there were.
    pub errors_by_cause: BTreeMap<String, Rates>,
    /// Error replies of servers, passed on.
    pub server_errors: Rates,
    /// Its servers: those on the ring first, in the order that [`Ring::sectors`] counts in.
    pub shards: Vec<Shard>,
    /// How many times the average the busiest server was sent in about ten seconds; 1 is even.
    pub imbalance: f64,
    /// Keys that are hot or warm, more than are told of, perhaps.
    pub hot_keys_count: u64,
    /// The hottest of them, the hottest first.
    pub hot_keys: Vec<HotKey>,
    /// What servers were spared, by how.
    pub spared: Spared,
    /// Keys that were not there.
    pub misses: Misses,
    /// What would have been done, were it not only observed.
    pub observed: Observed,
    /// Who says which servers there are, if that is not the file.
    pub topology: Option<Topology>,
    /// Whose which part of the keys is.
    pub ring: Ring,
    /// The last minutes.
    pub history: History,
}

/// Where apps connect to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Listener {
    /// As it stands in the file.
    pub address: String,
    /// Whether its sessions are answered by keys' own servers only.
    pub strict: bool,
    /// Whether apps speak TLS there.
    #[serde(default)]
    pub tls: bool,
}

/// A counter, and how fast it grows: on average over the last three seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Since the process started.
    pub total: u64,
    /// A second.
    pub per_second: f64,
}

/// Durations from reading a request to having its reply, of those that ended in the last three seconds; to within 6 %.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// How many ended.
    pub count: u64,
    /// A half took no longer, in microseconds; nothing where none ended.
    pub p50_micros: Option<u32>,
    /// So did 99 of 100.
    pub p99_micros: Option<u32>,
}

/// A server of a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Shard {
    /// Its name on the ring.
    pub name: String,
    /// Where it is.
    pub address: String,
    /// `primary`, `replica`, `gutter` or `former`.
    pub role: String,
    /// `up`, `idle` (no connection is wanted yet), `suspect`, `down`, `ejected` or `half-open` (ejected, and about to be tried again).
    pub state: String,
    /// Why it was last said not to be well; empty if it never was.
    pub last_error: String,
    /// Times it was ejected, by any worker.
    pub ejects: u64,
    /// Its part of the ring or of the slots, from 0 to 1.
    pub share: f64,
    /// The slots it serves, in a cluster.
    pub slots: Option<u32>,
    /// Open connections.
    pub connections: u64,
    /// Commands it was sent.
    pub requests: Rates,
    /// Commands that wait to be sent.
    pub in_queue: u64,
    /// Commands without a reply yet.
    pub out_queue: u64,
}

/// A hot key. Rates are a second, over about the last one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HotKey {
    /// The key as text: `\xNN` for each byte that is no text, `\\` for a backslash.
    pub key: String,
    /// `hot` or `warm`.
    pub level: String,
    /// Its home.
    pub shard: String,
    /// Its share of the pool's requests, from 0 to 1.
    pub share: f64,
    /// Its share of the bytes of replies.
    pub share_of_bytes: f64,
    /// Requests.
    pub requests: f64,
    /// Reads.
    pub reads: f64,
    /// Writes.
    pub writes: f64,
    /// Reads that its server was spared.
    pub saved: f64,
    /// Where its reads are served from: `shard`, `memory`, `replicas`, `copies on 3 shards`, `shard (observed: memory)`.
    pub served_by: String,
    /// Why nothing better serves it; may be empty.
    pub why: String,
    /// For how long it is hot or warm.
    pub seconds: f64,
}

/// What servers were spared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spared {
    /// Reads of hot keys answered from memory.
    pub from_memory: Rates,
    /// Those answered by copies on other servers.
    pub by_copies: Rates,
    /// Reads sent to replicas.
    pub by_replicas: Rates,
    /// Requests that got the reply to an equal one.
    pub joined: Rates,
}

/// Keys that were not there, with leases on them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Misses {
    /// Clients told that a key is not there, who are expected to write it.
    pub leased: Rates,
    /// Times a second client asked for a key that one was loading already.
    pub stampedes: Rates,
    /// Loads that were saved: reads that waited and got the value.
    pub loads_saved: Rates,
    /// Reads that wait now.
    pub waiting: u64,
    /// Reads that waited in vain.
    pub timeouts: Rates,
    /// Reads told what the key had before it expired, in place of waiting.
    pub stale: Rates,
    /// Clients told shortly before a key expired that it is not there.
    pub early: Rates,
}

/// What would have been done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// Reads of hot keys that would have been served from elsewhere.
    pub hot_would_serve: Rates,
    /// Reads of missing keys that would have waited.
    pub lease_would_wait: Rates,
    /// Reads that would have been told what the key had before.
    pub stale_would_tell: Rates,
    /// Early loads that there would have been.
    pub early_would_load: Rates,
}

/// Who says which servers there are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Topology {
    /// How long ago that was answered last; nothing where it never was.
    pub age_seconds: Option<f64>,
    /// Why it was not, if that was later.
    pub error: Option<String>,
}

/// Whose which part of the keys is, all servers being well.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ring {
    /// `hash`, `slots`, or `none` where keys have no home.
    pub of: String,
    /// For each of 360 equal parts the place in [`Pool::shards`] of whose its middle is; -1 is nobody.
    pub sectors: Vec<i32>,
}

/// Samples of each second, the oldest first, all lists of one length.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// When each was taken, in milliseconds since 1970.
    pub at: Vec<u64>,
    /// Requests a second.
    pub requests: Vec<f64>,
    /// Error replies of hotring's own a second.
    pub errors: Vec<f64>,
    /// 99 of 100 requests took no longer, in microseconds; nothing where none ended.
    pub p99_micros: Vec<Option<u32>>,
}
