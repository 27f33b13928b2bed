//! The table of a pool, as its workers share it, and how each of them sees it.
//!
//! Promises: whoever does not have to do with a key that is being loaded never takes the lock; all others hold it for as long
//! as the table needs to change, and ring the other workers' bells outside of it.

use super::early::Early;
use super::table::{Key, Order, Table};
use super::{Config, Lease};
use std::fmt;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

const PLACES: usize = 1 << 12;
/// Bytes of a key's name; longer ones have no lease, so that what all entries take is bounded.
const LONGEST_NAME: usize = 1024;

/// Wakes a worker, so that it takes its orders.
pub type Bell = Arc<dyn Fn() + Send + Sync>;

/// How many entries there are by a part of their keys' hashes: most keys have none, and that costs one look.
#[derive(Debug)]
pub(super) struct Sieve(Box<[AtomicU16]>);

impl Default for Sieve {
    fn default() -> Self {
        Self((0..PLACES).map(|_| AtomicU16::new(0)).collect())
    }
}

impl Sieve {
    fn place(&self, hash: u64) -> Option<&AtomicU16> {
        self.0.get((hash >> 52) as usize)
    }

    /// Entries are fewer than what a place counts to.
    pub(super) fn add(&self, hash: u64) {
        self.place(hash).map(|place| place.fetch_add(1, Ordering::SeqCst));
    }

    pub(super) fn take(&self, hash: u64) {
        self.place(hash).map(|place| place.fetch_sub(1, Ordering::SeqCst));
    }

    fn may_have(&self, hash: u64) -> bool {
        self.place(hash).is_none_or(|place| place.load(Ordering::SeqCst) > 0)
    }
}

/// See the module.
#[derive(Default)]
pub struct Shared {
    sieve: Arc<Sieve>,
    early: Arc<Early>,
    table: Mutex<Table>,
    /// How many entries there are.
    entries: AtomicUsize,
    /// By worker.
    bells: Mutex<Vec<Option<Bell>>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

impl Shared {
    /// For a pool.
    #[must_use]
    pub fn new() -> Self {
        let (sieve, early) = (Arc::<Sieve>::default(), Arc::<Early>::default());
        Self {
            table: Mutex::new(Table::with(Arc::clone(&sieve), Arc::clone(&early))),
            sieve,
            early,
            entries: AtomicUsize::new(0),
            bells: Mutex::default(),
        }
    }

    /// By what a worker is woken.
    pub fn hear(&self, worker: u16, bell: Bell) {
        let mut bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        let worker = usize::from(worker);
        if bells.len() <= worker {
            bells.resize_with(worker.saturating_add(1), || None);
        }
        if let Some(place) = bells.get_mut(worker) {
            *place = Some(bell);
        }
    }

    /// When keys expire.
    #[must_use]
    #[inline]
    pub fn early(&self) -> &Early {
        &self.early
    }

    /// Whether there is no entry at all.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.entries.load(Ordering::SeqCst) == 0
    }

    /// Whether a key may have an entry.
    #[must_use]
    #[inline]
    pub fn may_have(&self, hash: u64) -> bool {
        self.sieve.may_have(hash)
    }

    /// Uses the table for a worker. Returns what it is to do; others who have something to do are woken.
    pub fn with<T>(&self, worker: u16, use_it: impl FnOnce(&mut Table) -> T) -> (T, Vec<Order>) {
        let (done, own, others) = {
            let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
            let done = use_it(&mut table);
            let own = table.take_orders(worker);
            self.entries.store(table.entries(), Ordering::SeqCst);
            (done, own, table.busy().collect::<Vec<_>>())
        };
        if !others.is_empty() {
            let bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
            for bell in others.iter().filter_map(|&other| bells.get(usize::from(other))?.as_ref()) {
                bell();
            }
        }
        (done, own)
    }
}

/// What a worker needs to know.
#[derive(Debug)]
pub struct Leases {
    config: Arc<Config>,
    shared: Arc<Shared>,
    worker: u16,
    on: bool,
    fleet: bool,
    early: bool,
}

impl Default for Leases {
    fn default() -> Self {
        Self::new(Arc::default(), Arc::new(Shared::new()), 0)
    }
}

impl Leases {
    /// For a worker, by its number.
    #[must_use]
    pub fn new(config: Arc<Config>, shared: Arc<Shared>, worker: u16) -> Self {
        let wanted = [config.all()].into_iter().chain(config.rules().iter().map(|rule| &rule.wanted));
        let fleet = wanted.into_iter().any(|wanted| wanted.lease == Lease::Fleet);
        Self { on: config.leases(), early: config.refreshes(), fleet, config, shared, worker }
    }

    /// Whether any key may have a lease, or is watched for one.
    #[must_use]
    #[inline]
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Whether any lease is of all processes.
    #[must_use]
    pub fn is_fleet(&self) -> bool {
        self.fleet
    }

    /// Whether any key may be loaded anew before it expires.
    #[must_use]
    #[inline]
    pub fn refreshes(&self) -> bool {
        self.early
    }

    /// Whether this one may.
    #[must_use]
    pub fn may_refresh(&self, name: &[u8]) -> bool {
        let wanted = self.config.wanted(name);
        self.early && wanted.cache_aside && wanted.lease != Lease::Off
    }

    /// Whether any key's value may be told after it has expired.
    #[must_use]
    #[inline]
    pub fn tells_stale(&self) -> bool {
        self.config.tells_stale()
    }

    /// Whether what was loaded of this key may have to be kept from being written.
    #[must_use]
    pub fn guards(&self, name: &[u8]) -> bool {
        let wanted = self.config.wanted(name);
        let is = self.config.guards() && wanted.guards && wanted.lease.holds();
        is && !wanted.same_connection_waits && name.len() <= LONGEST_NAME
    }

    /// Whether its lease is of all processes.
    #[must_use]
    pub fn is_fleet_key(&self, name: &[u8]) -> bool {
        self.fleet && self.config.wanted(name).lease == Lease::Fleet
    }

    /// What is wanted.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What all workers share.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The worker's number.
    #[must_use]
    pub fn worker(&self) -> u16 {
        self.worker
    }

    /// What is wanted for a key; nothing for one that has no lease.
    #[must_use]
    pub fn key<'a>(&'a self, hash: u64, name: &'a [u8]) -> Option<Key<'a>> {
        let (rule, wanted) = match self.config.rule_of(name) {
            Some((at, rule)) => (at.saturating_add(1), &rule.wanted),
            None => (0, self.config.all()),
        };
        (wanted.lease != Lease::Off && name.len() <= LONGEST_NAME).then_some(Key { hash, name, wanted, rule })
    }

    /// Whether a key has a lease, or is watched for one.
    #[must_use]
    #[inline]
    pub fn concerns(&self, name: &[u8]) -> bool {
        self.on && name.len() <= LONGEST_NAME && self.config.wanted(name).lease != Lease::Off
    }
}
