//! How many sessions each user of a pool has, over all workers.
//!
//! Promises: a user's number stays with its name when the configuration changes, and a seat is given back however its session
//! ends. The lock is taken when users are made, never for a request.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The numbers of a pool's users, by name.
#[derive(Debug, Default)]
pub struct Headcount(Mutex<BTreeMap<Box<str>, Arc<AtomicUsize>>>);

impl Headcount {
    /// The number of this user.
    pub(super) fn of(&self, name: &str) -> Arc<AtomicUsize> {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever is gone and has no session left is forgotten.
        users.retain(|_, count| Arc::strong_count(count) > 1);
        Arc::clone(users.entry(name.into()).or_default())
    }
}

/// A session's place among those of its user; given back when it is dropped.
#[derive(Debug)]
pub struct Seat(Arc<AtomicUsize>);

impl Seat {
    /// A place, whether there is room or not.
    pub(super) fn take(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }

    /// A place, if less than `most` are taken.
    pub(super) fn ask(count: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let more = |taken: usize| (taken < most).then(|| taken.saturating_add(1));
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Self(Arc::clone(count)))
    }

    /// Whether it is among these.
    pub(super) fn is_of(&self, count: &Arc<AtomicUsize>) -> bool {
        Arc::ptr_eq(&self.0, count)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_given_back_and_outlive_a_change_of_configuration() {
        let heads = Headcount::default();
        let before = heads.of("app");
        let first = Seat::ask(&before, 2).expect("room");
        let after = heads.of("app");
        let second = Seat::ask(&after, 2).expect("room");
        assert!(first.is_of(&after) && Seat::ask(&after, 2).is_none());
        let beyond = Seat::take(&after);
        drop((first, second));
        assert_eq!(before.load(Ordering::Relaxed), 1);
        drop(beyond);
        drop((before, after));
        assert!(Seat::ask(&heads.of("other"), 0).is_none());
        assert_eq!(heads.0.lock().expect("a lock").len(), 1, "who is gone is forgotten");
    }
}
