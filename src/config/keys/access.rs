//! Pools: passwords, users, prefixes, limits and what is refused.

use super::{Key, Place, own, twemproxy};

/// In a pool itself.
pub(super) const POOL: &[Key] = &[
    twemproxy("redis", "true", "must be `true`: hotring speaks Redis, not memcached"),
    twemproxy("redis_auth", "", "password sent to the servers and demanded from apps"),
    own(Place::Pool, "server_auth", "", "user and password sent to the servers"),
    own(Place::Pool, "client_auth", "", "password demanded from apps"),
    own(
        Place::Pool,
        "users",
        "",
        "users by name with what each may do; one named `default` is who has not sent AUTH, and without it that is a user \
         who may do everything",
    ),
    own(
        Place::Pool,
        "prefix",
        "",
        "how the keys and channels of its apps begin on the servers, such as `team-a:`: added to every one that they name and \
         taken from every one that they are told",
    ),
    own(
        Place::Pool,
        "rate_limits",
        "",
        "a list of limits on requests and their bytes, of the pool, of a user or of keys that begin alike; what is over one is \
         refused at once",
    ),
    own(
        Place::Pool,
        "deny_commands",
        "",
        "a list of commands, subcommands and categories that nobody may run, such as `[KEYS, \"CONFIG SET\", \"@dangerous\"]`: \
         they are refused with NOPERM",
    ),
    own(
        Place::Pool,
        "read_only",
        "false",
        "refuse whatever may write with READONLY, as a replica does; scripts, too, but for EVAL_RO, EVALSHA_RO and FCALL_RO",
    ),
    own(
        Place::Pool,
        "max_key",
        "off",
        "bytes that a key may have, such as `512b`; requests with a longer one are refused",
    ),
    own(
        Place::Pool,
        "max_value",
        "off",
        "bytes that an argument of a write may have that is no key, such as `1mb`: values, members, scripts; requests with a \
         longer one are refused",
    ),
];

/// In its maps: `server_auth` and the like, `users`, `rate_limits`.
pub(super) const MAPS: &[Key] = &[
    own(Place::Auth, "user", "", "user name, at the servers only; left out, the password is sent alone"),
    own(Place::Auth, "password", "", "the password itself"),
    own(Place::Auth, "password_env", "", "environment variable that holds the password"),
    own(
        Place::Auth,
        "password_file",
        "",
        "file that holds the password, relative to this one; a newline at its end is cut",
    ),
    own(
        Place::User,
        "password",
        "",
        "a password of the user: plain, or `sha256:` and its SHA-256 in 64 hexadecimal digits",
    ),
    own(Place::User, "passwords", "", "a list of passwords, each of which is taken, so that one can replace another"),
    own(Place::User, "password_env", "", "environment variable that holds a password"),
    own(Place::User, "password_file", "", "file that holds a password"),
    own(Place::User, "nopass", "false", "take any password; `default` then needs none"),
    own(
        Place::User,
        "rules",
        "required",
        "what the user may do in the words of Redis' ACL: `+@read`, `-flushall`, `+config|get`, `~app:*`, `%R~app:*`, \
         `&news:*`, `on`, `off` and so on; later ones win",
    ),
    own(Place::User, "read_only", "false", "deny all commands that may write, whatever the rules say"),
    own(
        Place::User,
        "connections",
        "",
        "sessions that may be logged in as the user at a time, over all workers; further ones are refused and closed",
    ),
    own(
        Place::User,
        "prefix",
        "",
        "how the user's keys and channels begin on the servers, in place of the pool's `prefix`, which it is if left out; `\"\"` \
         leaves them as they are",
    ),
    own(Place::Limit, "requests", "", "requests a second such as `1000/s`; with `prefix` each key counts"),
    own(Place::Limit, "bytes", "", "bytes of requests a second such as `10mb/s`"),
    own(
        Place::Limit,
        "reply_bytes",
        "",
        "bytes of replies a second such as `50mb/s`, not with `prefix`: with more than that given, requests are refused until it is \
         made up for",
    ),
    own(Place::Limit, "burst", "1s", "so much of it may come at once after as long a rest"),
    own(
        Place::Limit,
        "user",
        "",
        "the user whose sessions it is on; without `user` and `prefix` it is on the whole pool",
    ),
    own(Place::Limit, "prefix", "", "how the keys begin that it is on; of several beginnings the longest counts"),
    own(Place::Limit, "name", "", "what it is called in errors and metrics; left out, by what it is on"),
];
