//! Pools: the sessions of apps, what bounds them, and what is done with their requests.

use super::{Key, Place, own, twemproxy};

pub(super) const KEYS: &[Key] = &[
    twemproxy("backlog", "512", "connections the kernel holds ready before they are accepted"),
    twemproxy("reuseport", "false", "let other processes listen on the same address"),
    twemproxy("client_connections", "0", "sessions at a time, further ones are refused; `0` is no limit"),
    own(
        Place::Pool,
        "client_tcpkeepalive",
        "5m",
        "silence after which a client on TCP is probed, so that one that vanished is noticed; `off` never does",
    ),
    own(Place::Pool, "max_pipeline", "1024", "open requests of one session before no more are read from it"),
    own(
        Place::Pool,
        "max_output",
        "64mb",
        "bytes of unread replies with which a session that gets one more is closed; from a quarter of it, 1mb at most, no more requests are read",
    ),
    own(
        Place::Pool,
        "max_output_soft",
        "off",
        "such as `8mb 60s`: a session that has had more bytes of unread replies for so long is closed",
    ),
    own(Place::Pool, "max_output_pubsub", "8mb 1m", "the same for sessions that are subscribed to channels; or `off`"),
    own(
        Place::Pool,
        "client_idle_timeout",
        "off",
        "how long a session may ask for nothing before it is closed; not while it waits, is subscribed or within a transaction",
    ),
    own(
        Place::Pool,
        "request_timeout",
        "1m",
        "how long nothing may come of a request that is not whole yet before its session is closed; or `off`",
    ),
    own(
        Place::Pool,
        "auth_timeout",
        "10s",
        "how long a session may take to send its password, where one is demanded; or `off`",
    ),
    own(Place::Pool, "max_auth_failures", "16", "wrong passwords after which a session is closed; or `off`"),
    own(
        Place::Pool,
        "max_request",
        "512mb",
        "bytes of one argument of a request; a whole request may have twice as many",
    ),
    own(Place::Pool, "coalesce", "false", "let equal reads of any key that are about to leave share one reply"),
    own(
        Place::Pool,
        "merge",
        "strict",
        "which replies equal reads of a hot key share: `strict`, while one is out the others wait and leave together; \
         `relaxed`, they share the reply to the one that is out, which may be older than a write by one round trip; `off`, none",
    ),
    own(
        Place::Pool,
        "hot_keys",
        "",
        "what is done with keys that are asked for more than their server's share, see `reads`; left out, nothing",
    ),
    own(
        Place::Pool,
        "misses",
        "",
        "what is done when keys are asked for that are not there, so that not all apps load them at once; left out, nothing",
    ),
    own(
        Place::Pool,
        "mirror",
        "",
        "what of its requests is also sent to another pool, whose replies are dropped, or compared; left out, nothing",
    ),
    own(
        Place::Pool,
        "routes",
        "",
        "which of its keys live in other pools: a map from how keys begin to names of pools; of several that fit the longest \
         counts. All others are this pool's",
    ),
    own(
        Place::Pool,
        "listen_strict",
        "",
        "further addresses, as of `listen`, for sessions that get exactly Redis' answers: always the key's own server's, never \
         from memory, a replica or a copy (`hot_keys`), nor another session's reply (`merge`, `coalesce`)",
    ),
];
