//! Pools: where apps connect, which servers there are, and how they are reached, watched and left out.

use super::{Key, Place, own, twemproxy};

pub(super) const KEYS: &[Key] = &[
    twemproxy(
        "listen",
        "",
        "where apps connect to: `host:port`, `[::1]:6379`, `/path` or `/path 0666` (octal mode of the socket), or a list; required \
         but for a pool that is another's `mirror`, or that another's `routes` lead to",
    ),
    twemproxy(
        "servers",
        "required",
        "`embedded:N` for N cache nodes in this process, or a list of `host:port:weight [name]`, `/path:weight [name]` or \
         `{address, weight, name}`; with a `topology`, where to ask it for: the seeds of a cluster, or the sentinels, each \
         `host:port`",
    ),
    own(
        Place::Pool,
        "topology",
        "static",
        "who says which servers there are: `static`, this file; `cluster`, the nodes of a Redis Cluster; `sentinel`, Redis \
         Sentinels",
    ),
    own(
        Place::Pool,
        "topology_interval",
        "30s",
        "how often the topology is asked for without a reason; whatever tells of a change has it asked for at once",
    ),
    own(
        Place::Pool,
        "announce",
        "",
        "where nodes are reached from here that call themselves otherwise, such as `{\"10.0.0.5:7001\": \"127.0.0.1:7001\"}` or, \
         for all ports of a host, `{10.0.0.5: 127.0.0.1}`",
    ),
    own(
        Place::Pool,
        "masters",
        "",
        "with `topology: sentinel`, the names that the sentinels watch: the pool's servers, on the ring under these names, \
         `NAME:WEIGHT` where they are not alike",
    ),
    own(Place::Pool, "sentinel_auth", "", "user and password sent to the sentinels"),
    own(
        Place::Pool,
        "redirect_wait",
        "2s",
        "with `topology: cluster`, how long a request may wait until its slot is served again, while the cluster moves it or \
         has lost a node",
    ),
    own(Place::Pool, "maxmemory", "64mb", "memory of each embedded node"),
    own(
        Place::Pool,
        "eviction",
        "lru",
        "what a full embedded node gives up: `lru` the longest unused, `lfu` the least used",
    ),
    twemproxy(
        "hash",
        "fnv1a_64",
        "hash of a key: `one_at_a_time`, `md5`, `crc16`, `crc32`, `crc32a`, `fnv1_64`, `fnv1a_64`, `fnv1_32`, `fnv1a_32`, \
         `hsieh`, `murmur` or `jenkins`",
    ),
    twemproxy("hash_tag", "", "two characters, such as `\"{}\"`: only what stands between them in a key is hashed"),
    twemproxy(
        "distribution",
        "ketama",
        "how hashes are spread over servers: `ketama`, `modula`, `random`, or `even` for a more even ketama",
    ),
    twemproxy(
        "timeout",
        "5s",
        "longest wait for a reply; `off` waits for ever, which is what a nutcracker.yml means by none",
    ),
    own(Place::Pool, "connect_timeout", "1s", "longest wait for a connection to a server, all its addresses together"),
    own(
        Place::Pool,
        "dns_refresh",
        "30s",
        "how long what a server's name was resolved to is used; connections follow a name that leads elsewhere; `off` resolves \
         before each connection and never moves one",
    ),
    own(
        Place::Pool,
        "reconnect_rate",
        "50",
        "connections opened to each server a second, for each worker, further ones wait; `off` is no limit",
    ),
    own(
        Place::Pool,
        "reconnect_burst",
        "257",
        "connections that may be opened at once before `reconnect_rate` counts; `server_connections` and \
         `dedicated_connections` together where it is left out",
    ),
    twemproxy("server_connections", "1", "connections to each server, for each worker"),
    twemproxy("preconnect", "false", "connect to all servers at start"),
    twemproxy(
        "tcpkeepalive",
        "false",
        "keepalive probes on connections to servers; those that may wait for ever have them always",
    ),
    own(
        Place::Pool,
        "tcp_user_timeout",
        "5s",
        "how long bytes sent to a server may stay unacknowledged before the connection counts as lost; as `timeout` where it \
         is left out; `off` leaves it to the kernel",
    ),
    twemproxy("auto_eject_hosts", "false", "take a failing server out of the ring for `server_retry_timeout`"),
    twemproxy("server_retry_timeout", "30s", "how long the keys of an ejected server stay elsewhere at least"),
    twemproxy("server_failure_limit", "2", "failures in a row that eject a server"),
    own(
        Place::Pool,
        "when_ejected",
        "",
        "what the keys of an ejected server get: `error` at once; `miss`, where reads are answered as if there were no such \
         key; `rehash`, the other servers, and when it returns it may serve values from before; `gutter:POOL`, the servers of \
         that pool, where what is written lives for `gutter_ttl`. Unset it is `rehash` with `auto_eject_hosts`, `error` without",
    ),
    own(
        Place::Pool,
        "gutter_ttl",
        "10s",
        "how long at most what is written to a gutter lives there; its servers must be Redis 7 or newer",
    ),
    own(
        Place::Pool,
        "warm_from",
        "off",
        "where GET and MGET look for keys that are not at their home: `previous`, where they lived before the last change of servers; or the \
         name of another pool. What is found is copied",
    ),
    own(Place::Pool, "warm_for", "1h", "for how long they do, from the change on: at most `168h`"),
    own(Place::Pool, "warm_rate", "5000", "questions a second to former homes; beyond, a miss is a miss"),
    own(
        Place::Pool,
        "probe_interval",
        "1s",
        "how often each worker asks a server that it uses whether it is well, while no replies tell; `off` never asks",
    ),
    own(
        Place::Pool,
        "probe_timeout",
        "",
        "longest wait for the answer; unset it is `timeout`, or `1s` where that is `off`",
    ),
    own(
        Place::Pool,
        "admin_commands",
        "refuse",
        "`allow` forwards what asks for one server's own state (LATENCY, MEMORY ...) to the pool's first server",
    ),
    own(
        Place::Pool,
        "dedicated_connections",
        "256",
        "most connections to each server, for each worker, that sessions have for themselves: transactions, blocking commands",
    ),
    own(
        Place::Pool,
        "slow_commands",
        "",
        "a list of commands that take long, such as `[KEYS, EVAL]`: carried on a dedicated connection, so that nobody's \
         requests wait behind them",
    ),
    own(Place::Pool, "databases", "16", "databases that apps may SELECT; with a `redis_db` other than 0 only that one"),
    own(Place::Pool, "resp3", "true", "let apps speak RESP3 (HELLO 3); `false` for servers older than Redis 6"),
    own(Place::Pool, "max_outbox", "8mb", "bytes waiting for one server connection before its sessions are paused"),
];
