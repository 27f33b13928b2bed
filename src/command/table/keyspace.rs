//! Commands on keys of any type, scripts and functions, transactions, publish and subscribe.

use super::super::{Merge, Need, Spec, Treatment, Why, key};
use super::row::*;

const KEYSPACE: Family = Family::of(category::KEYSPACE);
const DANGEROUS: Family = Family::of(category::KEYSPACE | category::DANGEROUS);
const SORT: Family = Family::of(category::SET | category::SORTED_SET | category::LIST | category::DANGEROUS);
const CONTAINER: Family = Family::of(0);
const SCRIPTING: Family = Family::of(category::SCRIPTING);
const TRANSACTION: Family = Family::of(category::TRANSACTION).own(Need::Transaction);
const CHANNELS: Family = Family::of(0).own(Need::Subscription);

/// Flags of whatever runs a script.
const RUNS: u32 = NOSCRIPT | STALE | SKIP_MONITOR | NO_MANDATORY_KEYS;

pub(super) const COMMANDS: &[Spec] = &[
    KEYSPACE.write("copy", -3, TWO, DENYOOM).unless(key::SAME_DATABASE),
    KEYSPACE.read("dbsize", 1, NONE, FAST).broadcast(Merge::Sum),
    KEYSPACE.write("del", -2, ALL, 0).split(Merge::Sum),
    KEYSPACE.read("dump", 2, ONE, 0),
    KEYSPACE.read("exists", -2, ALL, FAST).split(Merge::Sum),
    KEYSPACE.write("expire", -3, ONE, FAST),
    KEYSPACE.write("expireat", -3, ONE, FAST),
    KEYSPACE.read("expiretime", 2, ONE, FAST),
    KEYSPACE.write("move", 3, ONE, FAST).unless(key::OTHER_DATABASE),
    KEYSPACE.write("persist", 2, ONE, FAST),
    KEYSPACE.write("pexpire", -3, ONE, FAST),
    KEYSPACE.write("pexpireat", -3, ONE, FAST),
    KEYSPACE.read("pexpiretime", 2, ONE, FAST),
    KEYSPACE.read("pttl", 2, ONE, FAST),
    KEYSPACE.read("randomkey", 1, NONE, 0).broadcast(Merge::Draw),
    KEYSPACE.write("rename", 3, TWO, 0),
    KEYSPACE.write("renamenx", 3, TWO, FAST),
    KEYSPACE.read("scan", -2, NONE, 0).broadcast(Merge::InTurn),
    KEYSPACE.read("touch", -2, ALL, FAST).split(Merge::Sum),
    KEYSPACE.read("ttl", 2, ONE, FAST),
    KEYSPACE.read("type", 2, ONE, FAST),
    KEYSPACE.write("unlink", -2, ALL, FAST).split(Merge::Sum),
    DANGEROUS.write("flushall", -1, NONE, 0).broadcast(Merge::AllOk),
    DANGEROUS.write("flushdb", -1, NONE, 0).broadcast(Merge::AllOk),
    DANGEROUS.read("keys", 2, NONE, 0).broadcast(Merge::Concat),
    DANGEROUS.write("migrate", -6, key::MIGRATE, 0).refused(Why::Admin),
    DANGEROUS.write("restore", -4, ONE, DENYOOM),
    DANGEROUS.write("restore-asking", -4, ONE, DENYOOM | ASKING).refused(Why::Cluster),
    DANGEROUS.write("swapdb", 3, NONE, FAST).refused(Why::Admin),
    SORT.write("sort", -2, key::SORT, DENYOOM).unless(key::NO_PATTERN),
    SORT.read("sort_ro", -2, key::SORT_RO, 0).unless(key::NO_PATTERN),
    CONTAINER.other("object", -2, NONE, 0).containing(OBJECT),
    SCRIPTING.other("eval", -3, key::SCRIPT, RUNS).may_write(),
    SCRIPTING.read("eval_ro", -3, key::SCRIPT, RUNS),
    SCRIPTING.other("evalsha", -3, key::SCRIPT, RUNS).may_write(),
    SCRIPTING.read("evalsha_ro", -3, key::SCRIPT, RUNS),
    SCRIPTING.other("fcall", -3, key::FUNCTION, RUNS).may_write(),
    SCRIPTING.read("fcall_ro", -3, key::FUNCTION, RUNS),
    CONTAINER.other("function", -2, NONE, 0).containing(FUNCTION),
    CONTAINER.other("script", -2, NONE, 0).containing(SCRIPT),
    TRANSACTION.other("discard", 1, NONE, NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY),
    TRANSACTION.other("exec", 1, NONE, NOSCRIPT | LOADING | STALE | SKIP_SLOWLOG),
    TRANSACTION.other("multi", 1, NONE, NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY),
    TRANSACTION.other("unwatch", 1, NONE, NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY),
    TRANSACTION.other("watch", -2, ALL, NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY),
    CHANNELS.other("psubscribe", -2, NONE, PUBSUB | NOSCRIPT | LOADING | STALE),
    CHANNELS.other("publish", 3, NONE, PUBSUB | LOADING | STALE | FAST).treated(Treatment::Publish),
    CHANNELS.other("punsubscribe", -1, NONE, PUBSUB | NOSCRIPT | LOADING | STALE),
    CHANNELS.other("spublish", 3, ONE, PUBSUB | LOADING | STALE | FAST).treated(Treatment::Publish),
    CHANNELS.other("ssubscribe", -2, ALL, PUBSUB | NOSCRIPT | LOADING | STALE),
    CHANNELS.other("subscribe", -2, NONE, PUBSUB | NOSCRIPT | LOADING | STALE),
    CHANNELS.other("sunsubscribe", -1, ALL, PUBSUB | NOSCRIPT | LOADING | STALE),
    CHANNELS.other("unsubscribe", -1, NONE, PUBSUB | NOSCRIPT | LOADING | STALE),
    CHANNELS.other("pubsub", -2, NONE, 0).containing(CHANNEL_TABLES),
];

const OBJECT: &[Spec] = &[
    KEYSPACE.read("object|encoding", 3, SECOND, 0),
    KEYSPACE.read("object|freq", 3, SECOND, 0),
    KEYSPACE.help("object|help"),
    KEYSPACE.read("object|idletime", 3, SECOND, 0),
    KEYSPACE.read("object|refcount", 3, SECOND, 0),
];

const FUNCTION: &[Spec] = &[
    SCRIPTING.write("function|delete", 3, NONE, NOSCRIPT).broadcast(Merge::AllOk),
    SCRIPTING.other("function|dump", 2, NONE, NOSCRIPT),
    SCRIPTING.write("function|flush", -2, NONE, NOSCRIPT).broadcast(Merge::AllOk),
    SCRIPTING.help("function|help"),
    SCRIPTING.other("function|kill", 2, NONE, NOSCRIPT | ALLOW_BUSY).broadcast(Merge::AnyOk),
    SCRIPTING.other("function|list", -2, NONE, NOSCRIPT),
    SCRIPTING.write("function|load", -3, NONE, DENYOOM | NOSCRIPT).broadcast(Merge::Alike),
    SCRIPTING.write("function|restore", -3, NONE, DENYOOM | NOSCRIPT).broadcast(Merge::AllOk),
    SCRIPTING.other("function|stats", 2, NONE, NOSCRIPT | ALLOW_BUSY),
];

const SCRIPT: &[Spec] = &[
    SCRIPTING.other("script|debug", 3, NONE, NOSCRIPT).refused(Why::Admin),
    SCRIPTING.other("script|exists", -3, NONE, NOSCRIPT).broadcast(Merge::Every),
    SCRIPTING.other("script|flush", -2, NONE, NOSCRIPT).broadcast(Merge::AllOk),
    SCRIPTING.help("script|help"),
    SCRIPTING.other("script|kill", 2, NONE, NOSCRIPT | ALLOW_BUSY).broadcast(Merge::AnyOk),
    SCRIPTING.other("script|load", 3, NONE, NOSCRIPT | STALE).broadcast(Merge::Alike),
    SCRIPTING.other("script|show", 3, NONE, NOSCRIPT),
];

const CHANNEL_TABLES: &[Spec] = &[
    CHANNELS.other("pubsub|channels", -2, NONE, PUBSUB | LOADING | STALE).broadcast(Merge::Union),
    CHANNELS.help("pubsub|help"),
    CHANNELS.other("pubsub|numpat", 2, NONE, PUBSUB | LOADING | STALE).broadcast(Merge::Most),
    CHANNELS.other("pubsub|numsub", -2, NONE, PUBSUB | LOADING | STALE).broadcast(Merge::Pairs),
    CHANNELS.other("pubsub|shardchannels", -2, NONE, PUBSUB | LOADING | STALE).broadcast(Merge::Union),
    CHANNELS.other("pubsub|shardnumsub", -2, NONE, PUBSUB | LOADING | STALE).broadcast(Merge::Pairs),
];
