//! Pools: where keys live, whoever answers reads of them, and an entry of `servers`.

use super::{Key, Place, own, twemproxy};

pub(super) const KEYS: &[Key] = &[
    own(
        Place::Pool,
        "pin",
        "",
        "a server where all keys live, or servers by how keys begin, such as `{\"celery:\": s1}`; the longest beginning counts",
    ),
    own(
        Place::Pool,
        "replicas",
        "",
        "where replicas of the servers are, by the servers' names, such as `{s1: [10.0.0.21:6379, 10.0.0.22:6379]}`: reads of hot \
         keys may be served by them, and of others by `read_from`",
    ),
    own(
        Place::Pool,
        "read_from",
        "primary",
        "who answers reads of one key: `primary`, its server; `prefer_replica`, a replica, else the server; `replica`, replicas only; \
         `any`, all of them in turn; `nearest`, whoever answers soonest; `az_affinity`, a replica in `zone`, else any, else the \
         server; `az_affinity_replicas_and_primary`, the server in `zone` before replicas elsewhere. Of a replica an answer may be \
         up to `read_staleness` old",
    ),
    own(
        Place::Pool,
        "read_from_prefixes",
        "",
        "the same by how keys begin, such as `{\"product:\": any, \"lock:\": primary}`; the longest beginning counts",
    ),
    own(
        Place::Pool,
        "read_staleness",
        "1s",
        "what a replica answers by `read_from` is never older than this: `200ms` to `60s`. A session sees what was written through \
         this hotring before it asked, however long this is",
    ),
    own(Place::Pool, "zone", "", "the availability zone in which this hotring runs, such as `eu-west-1a`"),
    own(
        Place::Pool,
        "zones",
        "",
        "in which zones servers and replicas are, by address, such as `{\"10.0.0.21:6379\": eu-west-1a}`; of the others Valkey is \
         asked for its `availability-zone`",
    ),
    twemproxy("redis_db", "0", "database that is selected at the servers"),
    own(Place::Pool, "db", "0", "the same as `redis_db`"),
    own(Place::Server, "address", "required", "where the server listens: `host:port` or `/path`"),
    own(Place::Server, "weight", "1", "share of the keys relative to the other servers"),
    own(Place::Server, "name", "", "name on the ring; keys stay where they are when the address behind a name changes"),
];
