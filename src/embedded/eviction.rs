//! Which keys go when memory is short; the only place of the node that names moka.
//!
//! moka is used as the order of eviction alone: it knows keys and weights, the store holds the values. moka defers its
//! bookkeeping; [`Evictor::settle`] makes it up, so that within the store's lock its decisions are exact and immediate.
//! Its clock plays no part: no entry is given a time to live there.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::Eviction;

/// One run of moka's bookkeeping evicts a bounded number of keys. This many runs in a row are far more than any command
/// can make necessary; a bound, so that nothing ever waits here for good.
const MAX_ROUNDS: usize = 10_000;

/// The order of eviction of a node with a `maxmemory`.
pub(super) struct Evictor {
    order: Cache<Bytes, u32>,
    victims: Arc<Mutex<Vec<Bytes>>>,
    capacity: u64,
}

impl Evictor {
    /// An empty order for `capacity` bytes.
    pub(super) fn new(capacity: u64, eviction: Eviction) -> Evictor {
        let victims = Arc::new(Mutex::new(Vec::new()));
        let listener = Arc::clone(&victims);
        let order = Cache::builder()
            .max_capacity(capacity)
            .eviction_policy(match eviction {
                Eviction::Lru => EvictionPolicy::lru(),
                Eviction::Lfu => EvictionPolicy::tiny_lfu(),
            })
            .weigher(|_key: &Bytes, weight: &u32| *weight)
            .eviction_listener(move |key: Arc<Bytes>, _weight, cause| {
                if cause == RemovalCause::Size {
                    listener.lock().unwrap_or_else(PoisonError::into_inner).push(key.as_ref().clone());
                }
            })
            .build();
        Evictor { order, victims, capacity }
    }

    /// The most bytes there may be.
    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// A key is there, weighs this many bytes and has been used. Beyond 4 GiB it counts as 4 GiB.
    pub(super) fn place(&self, key: &Bytes, weight: u64) {
        self.order.insert(key.clone(), u32::try_from(weight).unwrap_or(u32::MAX));
    }

    /// A key has been used or, where it is not there, asked for.
    pub(super) fn touch(&self, key: &[u8]) {
        self.order.get(key);
    }

    /// A key is gone.
    pub(super) fn forget(&self, key: &[u8]) {
        self.order.invalidate(key);
    }

    /// Makes up the bookkeeping and returns the keys that have to go.
    pub(super) fn settle(&self) -> Vec<Bytes> {
        for _ in 0..MAX_ROUNDS {
            self.order.run_pending_tasks();
            if self.order.weighted_size() <= self.capacity {
                break;
            }
        }
        let mut victims = std::mem::take(&mut *self.victims.lock().unwrap_or_else(PoisonError::into_inner));
        // A command that writes many keys may have put one back after it had to go.
        victims.retain(|key| !self.order.contains_key(key));
        victims
    }
}
