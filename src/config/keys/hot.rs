//! Under `hot_keys`.

use super::{Key, Place, own};

pub(super) const KEYS: &[Key] = &[
    own(
        Place::HotKeys,
        "reads",
        "off",
        "where reads of a hot key may be answered from: `off`, its server only; `observe`, the same, and what `auto` would do \
         is counted; `near`, memory here, which the server tells of changes; `replicas` of its server; `copies` on other \
         servers; `auto`, what is best for the key. With the last four an answer may be up to `max_staleness` old",
    ),
    own(
        Place::HotKeys,
        "extra_load",
        "0.25",
        "how much one key may add to its server's fair share of the load, as a part of that share, before it is hot",
    ),
    own(
        Place::HotKeys,
        "max_staleness",
        "1s",
        "an answer that does not come from the key's server is never older than this: `200ms` to `60s`. A session sees what was \
         written through this hotring before it asked, however long this is. Of a SWAPDB at a server Redis tells nobody: what is \
         in memory then lives for 30s at most",
    ),
    own(Place::HotKeys, "max_copies", "16", "at how many servers a key is at most, its own with them: 2 to 64"),
    own(
        Place::HotKeys,
        "near_memory",
        "16mb",
        "bytes of hot keys' values that each worker keeps in memory; `max_memory` does not count them",
    ),
    own(Place::HotKeys, "near_value", "64kb", "longest value that is kept in memory"),
    own(
        Place::HotKeys,
        "near_all",
        "false",
        "keep every key that is read and whose `reads` is `near` or `auto`, hot or not; for few keys that are read often, as \
         each costs its server memory, too",
    ),
    own(
        Place::HotKeys,
        "near_writes",
        "false",
        "keep what is written here by a plain `SET`, too: the server does not tell of the next change of it, so that one that \
         others make is seen after `max_staleness`",
    ),
    own(Place::HotKeys, "copy_value", "1mb", "longest value that is copied to other servers"),
    own(
        Place::HotKeys,
        "choice",
        "balanced",
        "which copy is read: `balanced`, the less busy of two; `sticky`, always the same one for a session, which then \
         sees an older value after a newer only in the moment in which a copy is made or taken away",
    ),
    own(
        Place::HotKeys,
        "wait_for_copies",
        "false",
        "answer a write only when the copies of its key are gone, or the servers where they are cannot be reached",
    ),
    own(
        Place::HotKeys,
        "scripts",
        "any",
        "`any`: a script may change keys that it does not declare, so after one nothing that was kept or copied before it \
         is answered; `declared`: scripts change only the keys that they declare",
    ),
    own(
        Place::HotKeys,
        "audit",
        "0",
        "of how many answers from memory one is compared with what the key's server has; `0` is none",
    ),
    own(Place::HotKeys, "prefixes", "", "a list of what is wanted for keys that begin alike, in place of `reads`"),
    own(Place::HotPrefix, "prefix", "required", "how the keys begin; of several beginnings the longest counts"),
    own(
        Place::HotPrefix,
        "reads",
        "required",
        "as `reads` under `hot_keys`, with the same bound on the age of an answer; `off` is how keys are left alone",
    ),
];
