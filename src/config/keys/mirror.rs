//! Under `mirror`.

use super::{Key, Place, own};

pub(super) const KEYS: &[Key] = &[
    own(
        Place::Mirror,
        "pool",
        "required",
        "the name of the other pool; its servers may be a cluster's, or watched by sentinels",
    ),
    own(
        Place::Mirror,
        "share",
        "1",
        "of how many keys: `0.001` to `1`. Whether a key is mirrored depends on its name alone, and on its `{tag}` if it has one",
    ),
    own(Place::Mirror, "commands", "writes", "`reads`, `writes` or `all`"),
    own(
        Place::Mirror,
        "compare",
        "false",
        "compare the replies to reads of one key; where they differ both sides are asked again before it is told",
    ),
    own(Place::Mirror, "prefixes", "", "a list of how the keys begin that are mirrored; left out, all"),
];
