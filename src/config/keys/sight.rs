//! Pools: what is told about requests and servers.

use super::{Key, Place, own};

pub(super) const KEYS: &[Key] = &[
    own(
        Place::Pool,
        "slowlog_slower_than",
        "10ms",
        "requests that take as long or longer are told by SLOWLOG; `0` is all of them, `off` is none",
    ),
    own(Place::Pool, "slowlog_max_len", "128", "slow requests that each worker keeps for SLOWLOG"),
    own(
        Place::Pool,
        "command_metrics",
        "true",
        "requests, errors and latencies are also told by command, some 16 series each",
    ),
    own(
        Place::Pool,
        "metrics_prefixes",
        "",
        "a list of up to 64 beginnings of keys, such as `[\"user:\", \"session:\"]`: requests, bytes, hits and misses are also told \
         by the longest of them that keys have",
    ),
    own(
        Place::Pool,
        "info_interval",
        "off",
        "how often one worker asks each server for INFO, to tell its memory, clients, role and lag as metrics; several processes \
         need not all ask the same servers",
    ),
];
