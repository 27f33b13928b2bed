//! Under `misses`.

use super::{Key, Place, own};

pub(super) const KEYS: &[Key] = &[
    own(
        Place::Misses,
        "lease",
        "off",
        "who is told of a key that is not there: `off`, everybody; `observe`, the same, and what `local` would save is counted; \
         `local`, one client of this hotring, which is to load and SET it while the others wait for the value; `fleet`, one \
         client of all hotrings",
    ),
    own(
        Place::Misses,
        "lease_wait",
        "1s",
        "longest that a reader waits for the value: `50ms` to `60s`. Within that it is twice as long as loads of the key take",
    ),
    own(
        Place::Misses,
        "lease_term",
        "10s",
        "longest that the one who loads is waited for before another one is told: `500ms` to `60s`. Within that it is four times \
         as long as loads of the key take",
    ),
    own(
        Place::Misses,
        "same_connection",
        "nil",
        "what a connection gets that is loading a key and asks for it again: `nil`, at once, or `wait`, as others do; for apps \
         whose threads share one connection",
    ),
    own(
        Place::Misses,
        "cache_aside",
        "false",
        "tell one client shortly before a key expires that it is not there, so that it is loaded while the others still read it; for \
         keys that are written by SET, and anew whenever they are found missing",
    ),
    own(
        Place::Misses,
        "stale",
        "0s",
        "for how long after a key has expired, `0s` to `60s`, those who would wait for it are told at once what it had, while one loads \
         it; of keys that `hot_keys` keeps in memory and that nobody has written or deleted",
    ),
    own(
        Place::Misses,
        "guard_stale_set",
        "false",
        "answer OK to the SET of one who was told to load a key, and do nothing, if somebody else has written or deleted the key \
         since; for keys that are only SET by who has found them missing, on the same connection",
    ),
    own(
        Place::Misses,
        "ttl_jitter",
        "0",
        "the part by which times to live of 10s and more are shortened at most, each by chance, so that what is written together does \
         not expire together: `0` to `0.5`",
    ),
    own(
        Place::Misses,
        "miss_budget",
        "off",
        "how many GETs and MGETs a second may be told that a key is not there; further ones are refused, so that a database that \
         would have to load them all is not asked. Each prefix has its own, shared by all workers",
    ),
    own(
        Place::Misses,
        "absent_reply",
        "nil",
        "what a GET gets of a key whose id is not in `absent_ids`: `nil`, or a text",
    ),
    own(Place::Misses, "prefixes", "", "a list of what else is wanted for keys that begin alike"),
    own(Place::MissPrefix, "prefix", "required", "how the keys begin; of several beginnings the longest counts"),
    own(
        Place::MissPrefix,
        "lease",
        "",
        "as under `misses`, which is what counts where it is left out; so are the next keys",
    ),
    own(Place::MissPrefix, "lease_wait", "", "as under `misses`"),
    own(Place::MissPrefix, "lease_term", "", "as under `misses`"),
    own(Place::MissPrefix, "same_connection", "", "as under `misses`"),
    own(Place::MissPrefix, "cache_aside", "", "as under `misses`"),
    own(Place::MissPrefix, "stale", "", "as under `misses`"),
    own(Place::MissPrefix, "guard_stale_set", "", "as under `misses`"),
    own(Place::MissPrefix, "ttl_jitter", "", "as under `misses`"),
    own(Place::MissPrefix, "miss_budget", "", "as under `misses`; the prefix has it for itself"),
    own(
        Place::MissPrefix,
        "absent_ids",
        "",
        "file of the ids that exist, one a line, relative to this one: a GET of the prefix and anything else is answered at once \
         with `absent_reply`, and no server is asked",
    ),
    own(Place::MissPrefix, "absent_reply", "", "as under `misses`"),
];
