//! The connection, the server, the cluster.

use super::super::{Local, Merge, Spec, Why};
use super::row::*;

const CONNECTION: Family = Family::of(category::CONNECTION);
const CLIENTS: Family = CONNECTION.local(Local::Client);
/// What reaches beyond the connection it is sent on.
const ALL_CLIENTS: Family = CONNECTION.refused(Why::Admin);
const COMMANDS_OF: Family = CONNECTION.local(Local::Command);
const SERVER: Family = Family::of(0);
const ADMIN_ONLY: Family = SERVER.refused(Why::Admin);
const ONE_SERVER: Family = SERVER.refused(Why::OneServer);
const OWN: Family = SERVER.local(Local::Hotring);
const SLOW: Family = SERVER.local(Local::Slowlog);
const CLUSTER_ONLY: Family = SERVER.refused(Why::Cluster);
/// Flags of most administration.
const ANY_TIME: u32 = ADMIN | NOSCRIPT | LOADING | STALE;

pub(super) const COMMANDS: &[Spec] = &[
    CONNECTION.other("asking", 1, NONE, FAST).refused(Why::Cluster),
    CONNECTION.other("auth", -2, NONE, NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY).local(Local::Auth),
    CONNECTION.local(Local::Command).other("command", -1, NONE, LOADING | STALE).containing(COMMAND),
    CONNECTION.other("echo", 2, NONE, LOADING | STALE | FAST).local(Local::Echo),
    CONNECTION.other("hello", -1, NONE, NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY).local(Local::Hello),
    CONNECTION.other("ping", -1, NONE, FAST).local(Local::Ping),
    CONNECTION.other("quit", -1, NONE, NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY).local(Local::Quit),
    CONNECTION.other("readonly", 1, NONE, LOADING | STALE | FAST).local(Local::Readonly),
    CONNECTION.other("readwrite", 1, NONE, LOADING | STALE | FAST).local(Local::Readwrite),
    CONNECTION.other("reset", 1, NONE, NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY).local(Local::Reset),
    CONNECTION.other("select", 2, NONE, LOADING | STALE | FAST).local(Local::Select),
    CONNECTION.other("wait", 3, NONE, BLOCKING).treated(BLOCKS),
    CONNECTION.other("waitaof", 4, NONE, BLOCKING).treated(BLOCKS),
    SERVER.local(Local::Client).other("client", -2, NONE, 0).containing(CLIENT),
    SERVER.other("time", 1, NONE, LOADING | STALE | FAST).local(Local::Time),
    Family::of(category::DANGEROUS).other("info", -1, NONE, LOADING | STALE).local(Local::Info),
    Family::of(category::ADMIN | category::DANGEROUS)
        .other("lastsave", 1, NONE, LOADING | STALE | FAST)
        .broadcast(Merge::Least),
    Family::of(category::ADMIN | category::DANGEROUS)
        .other("role", 1, NONE, NOSCRIPT | LOADING | STALE | FAST)
        .local(Local::Role),
    ADMIN_ONLY.other("bgrewriteaof", 1, NONE, ADMIN | NOSCRIPT | NO_ASYNC_LOADING),
    ADMIN_ONLY.other("bgsave", -1, NONE, ADMIN | NOSCRIPT | NO_ASYNC_LOADING),
    ADMIN_ONLY.other("debug", -2, NONE, ANY_TIME),
    ADMIN_ONLY.other("failover", -1, NONE, ADMIN | NOSCRIPT | STALE),
    ADMIN_ONLY.other("monitor", 1, NONE, ANY_TIME),
    ADMIN_ONLY.other("psync", -3, NONE, ADMIN | NOSCRIPT | NO_ASYNC_LOADING | NO_MULTI),
    ADMIN_ONLY.other("replconf", -1, NONE, ANY_TIME | ALLOW_BUSY),
    ADMIN_ONLY.other("replicaof", 3, NONE, ADMIN | NOSCRIPT | STALE | NO_ASYNC_LOADING),
    ADMIN_ONLY.other("save", 1, NONE, ADMIN | NOSCRIPT | NO_ASYNC_LOADING | NO_MULTI),
    ADMIN_ONLY.other("shutdown", -1, NONE, ANY_TIME | NO_MULTI | ALLOW_BUSY),
    ADMIN_ONLY.other("slaveof", 3, NONE, ADMIN | NOSCRIPT | STALE | NO_ASYNC_LOADING),
    ADMIN_ONLY.other("sync", 1, NONE, ADMIN | NOSCRIPT | NO_ASYNC_LOADING | NO_MULTI),
    ADMIN_ONLY.other("acl", -2, NONE, 0).containing(ACL),
    SERVER.local(Local::Config).other("config", -2, NONE, 0).containing(CONFIG),
    ADMIN_ONLY.other("module", -2, NONE, 0).containing(MODULE),
    SERVER.read("lolwut", -1, NONE, FAST),
    ONE_SERVER.other("commandlog", -2, NONE, 0).containing(COMMANDLOG),
    ONE_SERVER.other("latency", -2, NONE, 0).containing(LATENCY),
    ONE_SERVER.other("memory", -2, NONE, 0).containing(MEMORY),
    SLOW.other("slowlog", -2, NONE, 0).containing(SLOWLOG),
    OWN.other("hotring", -2, NONE, 0).containing(HOTRING),
    CLUSTER_ONLY.other("cluster", -2, NONE, 0).containing(CLUSTER),
];

const CLIENT: &[Spec] = &[
    ALL_CLIENTS.other("client|caching", 3, NONE, NOSCRIPT | LOADING | STALE),
    CLIENTS.other("client|getname", 2, NONE, NOSCRIPT | LOADING | STALE),
    CLIENTS.other("client|getredir", 2, NONE, NOSCRIPT | LOADING | STALE),
    CLIENTS.help("client|help"),
    CLIENTS.other("client|id", 2, NONE, NOSCRIPT | LOADING | STALE),
    CLIENTS.other("client|info", 2, NONE, NOSCRIPT | LOADING | STALE),
    CLIENTS.other("client|kill", -3, NONE, ANY_TIME),
    CLIENTS.other("client|list", -2, NONE, ANY_TIME),
    CLIENTS.other("client|no-evict", 3, NONE, ANY_TIME),
    ALL_CLIENTS.other("client|pause", -3, NONE, ANY_TIME),
    CLIENTS.other("client|reply", 3, NONE, NOSCRIPT | LOADING | STALE | SETTLED),
    CLIENTS.other("client|setname", 3, NONE, NOSCRIPT | LOADING | STALE),
    ALL_CLIENTS.other("client|tracking", -3, NONE, NOSCRIPT | LOADING | STALE),
    CLIENTS.other("client|trackinginfo", 2, NONE, NOSCRIPT | LOADING | STALE),
    CLIENTS.other("client|unblock", -3, NONE, ANY_TIME),
    ALL_CLIENTS.other("client|unpause", 2, NONE, ANY_TIME),
    ALL_CLIENTS.other("client|capa", -3, NONE, NOSCRIPT | LOADING | STALE),
    ALL_CLIENTS.other("client|import-source", 3, NONE, NOSCRIPT | LOADING | STALE),
    CLIENTS.other("client|no-touch", 3, NONE, NOSCRIPT | LOADING | STALE),
    CLIENTS.other("client|setinfo", 4, NONE, NOSCRIPT | LOADING | STALE),
];

const COMMAND: &[Spec] = &[
    COMMANDS_OF.other("command|count", 2, NONE, LOADING | STALE),
    COMMANDS_OF.other("command|docs", -2, NONE, LOADING | STALE),
    COMMANDS_OF.other("command|getkeys", -3, NONE, LOADING | STALE),
    COMMANDS_OF.other("command|getkeysandflags", -3, NONE, LOADING | STALE),
    COMMANDS_OF.help("command|help"),
    COMMANDS_OF.other("command|info", -2, NONE, LOADING | STALE),
    COMMANDS_OF.other("command|list", -2, NONE, LOADING | STALE),
];

const ACL: &[Spec] = &[
    ADMIN_ONLY.other("acl|cat", -2, NONE, NOSCRIPT | LOADING | STALE),
    ADMIN_ONLY.other("acl|deluser", -3, NONE, ANY_TIME),
    ADMIN_ONLY.other("acl|dryrun", -4, NONE, ANY_TIME),
    ADMIN_ONLY.other("acl|genpass", -2, NONE, NOSCRIPT | LOADING | STALE),
    ADMIN_ONLY.other("acl|getuser", 3, NONE, ANY_TIME),
    ADMIN_ONLY.help("acl|help"),
    ADMIN_ONLY.other("acl|list", 2, NONE, ANY_TIME),
    ADMIN_ONLY.other("acl|load", 2, NONE, ANY_TIME),
    ADMIN_ONLY.other("acl|log", -2, NONE, ANY_TIME),
    ADMIN_ONLY.other("acl|save", 2, NONE, ANY_TIME),
    ADMIN_ONLY.other("acl|setuser", -3, NONE, ANY_TIME),
    ADMIN_ONLY.other("acl|users", 2, NONE, ANY_TIME),
    SERVER.local(Local::Acl).other("acl|whoami", 2, NONE, NOSCRIPT | LOADING | STALE),
];

const CONFIG: &[Spec] = &[
    SERVER.local(Local::Config).other("config|get", -3, NONE, ANY_TIME),
    SERVER.help("config|help"),
    ADMIN_ONLY.other("config|resetstat", 2, NONE, ANY_TIME),
    ADMIN_ONLY.other("config|rewrite", 2, NONE, ANY_TIME),
    ADMIN_ONLY.other("config|set", -4, NONE, ANY_TIME),
];

const MODULE: &[Spec] = &[
    ADMIN_ONLY.help("module|help"),
    ADMIN_ONLY.other("module|list", 2, NONE, ADMIN | NOSCRIPT),
    ADMIN_ONLY.other("module|load", -3, NONE, ADMIN | NOSCRIPT | NO_ASYNC_LOADING),
    ADMIN_ONLY.other("module|loadex", -3, NONE, ADMIN | NOSCRIPT | NO_ASYNC_LOADING),
    ADMIN_ONLY.other("module|unload", 3, NONE, ADMIN | NOSCRIPT | NO_ASYNC_LOADING),
];

const COMMANDLOG: &[Spec] = &[
    ONE_SERVER.other("commandlog|get", -4, NONE, ADMIN | LOADING | STALE),
    ONE_SERVER.help("commandlog|help"),
    ONE_SERVER.other("commandlog|len", 3, NONE, ADMIN | LOADING | STALE),
    ONE_SERVER.other("commandlog|reset", 3, NONE, ADMIN | LOADING | STALE),
];

const LATENCY: &[Spec] = &[
    ONE_SERVER.other("latency|doctor", 2, NONE, ANY_TIME),
    ONE_SERVER.other("latency|graph", 3, NONE, ANY_TIME),
    ONE_SERVER.help("latency|help"),
    ONE_SERVER.other("latency|histogram", -2, NONE, ANY_TIME),
    ONE_SERVER.other("latency|history", 3, NONE, ANY_TIME),
    ONE_SERVER.other("latency|latest", 2, NONE, ANY_TIME),
    ONE_SERVER.other("latency|reset", -2, NONE, ANY_TIME),
];

const MEMORY: &[Spec] = &[
    ONE_SERVER.other("memory|doctor", 2, NONE, 0),
    ONE_SERVER.help("memory|help"),
    ONE_SERVER.other("memory|malloc-stats", 2, NONE, 0),
    ONE_SERVER.other("memory|purge", 2, NONE, 0),
    ONE_SERVER.other("memory|stats", 2, NONE, 0),
    SERVER.read("memory|usage", -3, SECOND, 0),
];

const SLOWLOG: &[Spec] = &[
    SLOW.other("slowlog|get", -2, NONE, ADMIN | LOADING | STALE),
    SLOW.help("slowlog|help"),
    SLOW.other("slowlog|len", 2, NONE, ADMIN | LOADING | STALE),
    SLOW.other("slowlog|reset", 2, NONE, ADMIN | LOADING | STALE),
];

/// What no Redis has.
const HOTRING: &[Spec] = &[OWN.help("hotring|help"), OWN.other("hotring|hotkeys", -2, NONE, ADMIN | LOADING | STALE)];

const CLUSTER: &[Spec] = &[
    CLUSTER_ONLY.other("cluster|addslots", -3, NONE, ADMIN | STALE | NO_ASYNC_LOADING),
    CLUSTER_ONLY.other("cluster|addslotsrange", -4, NONE, ADMIN | STALE | NO_ASYNC_LOADING),
    CLUSTER_ONLY.other("cluster|bumpepoch", 2, NONE, ADMIN | STALE | NO_ASYNC_LOADING),
    CLUSTER_ONLY.other("cluster|count-failure-reports", 3, NONE, ADMIN | STALE),
    CLUSTER_ONLY.other("cluster|countkeysinslot", 3, NONE, STALE),
    CLUSTER_ONLY.other("cluster|delslots", -3, NONE, ADMIN | STALE | NO_ASYNC_LOADING),
    CLUSTER_ONLY.other("cluster|delslotsrange", -4, NONE, ADMIN | STALE | NO_ASYNC_LOADING),
    CLUSTER_ONLY.other("cluster|failover", -2, NONE, ADMIN | STALE | NO_ASYNC_LOADING),
    CLUSTER_ONLY.other("cluster|flushslots", 2, NONE, ADMIN | STALE | NO_ASYNC_LOADING),
    CLUSTER_ONLY.other("cluster|forget", 3, NONE, ADMIN | STALE | NO_ASYNC_LOADING),
    CLUSTER_ONLY.other("cluster|getkeysinslot", 4, NONE, STALE),
    CLUSTER_ONLY.help("cluster|help"),
    CLUSTER_ONLY.other("cluster|info", 2, NONE, STALE),
    CLUSTER_ONLY.other("cluster|keyslot", 3, NONE, STALE),
    CLUSTER_ONLY.other("cluster|links", 2, NONE, STALE),
    CLUSTER_ONLY.other("cluster|meet", -4, NONE, ADMIN | STALE | NO_ASYNC_LOADING),
    CLUSTER_ONLY.other("cluster|myid", 2, NONE, STALE),
    CLUSTER_ONLY.other("cluster|nodes", 2, NONE, STALE),
    CLUSTER_ONLY.other("cluster|replicas", 3, NONE, ADMIN | STALE),
    CLUSTER_ONLY.other("cluster|replicate", 3, NONE, ADMIN | STALE | NO_ASYNC_LOADING),
    CLUSTER_ONLY.other("cluster|reset", -2, NONE, ADMIN | NOSCRIPT | STALE),
    CLUSTER_ONLY.other("cluster|saveconfig", 2, NONE, ADMIN | STALE | NO_ASYNC_LOADING),
    CLUSTER_ONLY.other("cluster|set-config-epoch", 3, NONE, ADMIN | STALE | NO_ASYNC_LOADING),
    CLUSTER_ONLY.other("cluster|setslot", -4, NONE, ADMIN | STALE | NO_ASYNC_LOADING),
    CLUSTER_ONLY.other("cluster|shards", 2, NONE, STALE),
    CLUSTER_ONLY.other("cluster|slaves", 3, NONE, ADMIN | STALE),
    CLUSTER_ONLY.other("cluster|slots", 2, NONE, STALE),
    CLUSTER_ONLY.other("cluster|myshardid", 2, NONE, LOADING | STALE),
    CLUSTER_ONLY.other("cluster|slot-stats", -4, NONE, LOADING | STALE),
];
