//! What a tenant's names are called on the servers, and back: keys, channels, and patterns of both.
//!
//! A channel has the prefix before it as a key has, but for those by which a server tells of its keys: in `__keyspace@0__:key`
//! it stands before the key, and `__keyevent@0__:set` is as it is, since there the key is the message.

use crate::acl::Prefix;

/// How channels begin that tell of what happens to one key, and where in their name that begins.
const KEYSPACE: &[u8] = b"__keyspace@";
/// How channels begin that tell of the keys to which one thing happens.
const KEYEVENT: &[u8] = b"__keyevent@";
/// What stands before the key or the event.
const BEHIND: &[u8] = b"__:";

/// Where the prefix stands in a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// At so many bytes from its beginning.
    At(usize),
    /// It is not in it.
    Nowhere,
    /// It cannot be told: a pattern that leaves open where the key begins.
    Open,
}

/// Whether what is published on a channel is a key.
pub(super) fn is_event(channel: &[u8]) -> bool {
    channel.starts_with(KEYEVENT)
}

/// Where the prefix stands in a channel, or a pattern of channels.
pub(super) fn place(name: &[u8]) -> Place {
    if is_event(name) {
        Place::Nowhere
    } else if name.starts_with(KEYSPACE) {
        behind(name).map_or(Place::Open, Place::At)
    } else {
        Place::At(0)
    }
}

/// Where a channel names its key.
fn behind(name: &[u8]) -> Option<usize> {
    name.windows(BEHIND.len()).position(|window| window == BEHIND).map(|at| at.saturating_add(BEHIND.len()))
}

/// A name on the servers as the tenant knows it, in two parts of it; `None` if it is not the tenant's.
pub(super) fn own<'a>(name: &'a [u8], prefix: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    match place(name) {
        Place::Nowhere => Some((name, b"")),
        Place::Open => None,
        Place::At(at) => {
            let (before, rest) = name.split_at_checked(at)?;
            Some((before, rest.strip_prefix(prefix)?))
        }
    }
}

/// The same of a channel, or of a pattern.
pub(super) fn own_topic<'a>(name: &'a [u8], pattern: bool, prefix: &Prefix) -> Option<(&'a [u8], &'a [u8])> {
    own(name, if pattern { prefix.pattern() } else { prefix.plain() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_has_the_prefix_where_its_key_is() {
        assert_eq!(place(b"news"), Place::At(0));
        assert_eq!(place(b"__keyspace@0__:k"), Place::At(15));
        assert_eq!(place(b"__keyspace@*__:k*"), Place::At(15));
        assert_eq!(place(b"__keyspace@0__:a__:b"), Place::At(15));
        assert_eq!(place(b"__keyspace@*"), Place::Open);
        assert_eq!(place(b"__keyevent@0__:set"), Place::Nowhere);
        assert_eq!(own(b"t:news", b"t:"), Some((&b""[..], &b"news"[..])));
        assert_eq!(own(b"__keyspace@0__:t:k", b"t:"), Some((&b"__keyspace@0__:"[..], &b"k"[..])));
        assert_eq!(own(b"__keyspace@0__:u:k", b"t:"), None);
        assert_eq!(own(b"u:news", b"t:"), None);
        assert_eq!(own(b"__keyevent@0__:set", b"t:"), Some((&b"__keyevent@0__:set"[..], &b""[..])));
    }
}
