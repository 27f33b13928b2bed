//! Which connections are told of a key's change: what `WATCH` is made of.
//!
//! A connection that watches holds a flag, a key its watchers' flags, weakly: one that stops watching, or ends, just lets go
//! of its flag. What nobody holds any more is swept out when there may be more of it than of the rest, so that what is kept
//! is in proportion to what is watched.

use bytes::Bytes;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

/// Whether something that is watched has changed.
#[derive(Debug, Clone, Default)]
pub(super) struct Flag(Arc<AtomicBool>);

impl Flag {
    /// Whether it is raised.
    pub(super) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The watchers of all keys. The store's lock holds whatever is done here.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    keys: HashMap<Bytes, Vec<Weak<AtomicBool>>>,
    /// With how many keys it is time to sweep.
    full: usize,
}

/// Fewer keys than this are never swept.
const FEW: usize = 64;

impl Watchers {
    /// From now on a change of `key` raises `flag`.
    pub(super) fn add(&mut self, key: &Bytes, flag: &Flag) {
        let flags = self.keys.entry(key.clone()).or_default();
        flags.retain(|other| other.strong_count() > 0);
        flags.push(Arc::downgrade(&flag.0));
        if self.keys.len() > self.full.max(FEW) {
            self.keys.retain(|_, flags| flags.iter().any(|flag| flag.strong_count() > 0));
            self.full = self.keys.len() * 2;
        }
    }

    /// A key has changed, come or gone.
    #[inline]
    pub(super) fn changed(&mut self, key: &[u8]) {
        if !self.keys.is_empty()
            && let Some(flags) = self.keys.remove(key)
        {
            raise(&flags);
        }
    }

    /// All keys of a kind have changed.
    pub(super) fn changed_if(&mut self, kind: impl Fn(&[u8]) -> bool) {
        self.keys.retain(|key, flags| {
            let changed = kind(key);
            if changed {
                raise(flags);
            }
            !changed
        });
    }
}

fn raise(flags: &[Weak<AtomicBool>]) {
    for flag in flags.iter().filter_map(Weak::upgrade) {
        flag.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_to_those_that_watch_the_key() {
        let (mut watchers, one, other) = (Watchers::default(), Flag::default(), Flag::default());
        let (a, b) = (Bytes::from_static(b"a"), Bytes::from_static(b"b"));
        watchers.add(&a, &one);
        watchers.add(&b, &other);
        watchers.changed(b"a");
        watchers.changed(b"c");
        assert!(one.is_raised() && !other.is_raised());
        watchers.changed_if(|key| key == b"b");
        assert!(other.is_raised() && watchers.keys.is_empty());
    }

    #[test]
    fn keeps_little_of_what_nobody_watches_any_more() {
        let (mut watchers, lasting) = (Watchers::default(), Flag::default());
        watchers.add(&Bytes::from_static(b"lasting"), &lasting);
        for turn in 0..10_000 {
            let flag = Flag::default();
            watchers.add(&Bytes::from(format!("key:{turn}")), &flag);
            watchers.add(&Bytes::from_static(b"lasting"), &flag);
        }
        assert!(watchers.keys.len() <= FEW + 1, "{}", watchers.keys.len());
        assert!(watchers.keys[&b"lasting"[..]].len() <= 2);
        watchers.changed(b"lasting");
        assert!(lasting.is_raised());
    }
}
