//! Who loads a key that is not there, and who waits for it: of one pool, over all workers of the process.
//!
//! A key that was found missing has an *entry*. Somebody *holds* it: a connection that was told nil and is expected to write
//! the key, for a *term*. Others *wait*. Whatever the table wants done, it puts into the orders of the worker that it concerns.
//!
//! Promises, of keys with a lease, whatever the order in which things happen:
//! - one holder a key and term in this process, and of all processes in `fleet` as long as the shard tells of changes;
//! - each wait ends: by a value, or by nil, no later than twice `lease_wait` after it began (and the next [`Table::tick`]);
//! - who holds anything does not wait (but where `same_connection: wait` is asked for), so that no two wait for each other;
//! - a write that is answered after somebody began to wait makes that one's worker read the key again;
//! - nil that was read before a write was answered makes nobody load the key again.
//!
//! Bounded: [`MOST_ENTRIES`] keys, [`MOST_WAITS`] waits; beyond both nil is told at once.
//! Time is an argument; nothing here is sent.

use super::barred::Barred;
use super::early::Early;
use super::expired::Expired;
use super::guard::Loader;
use super::pace::Pace;
use super::refresh::Expiry;
use super::shared::Sieve;
use super::{Lease, Wanted};
use crate::stages::{AsItIs, Micros};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::sync::Arc;

/// Most keys with an entry.
pub const MOST_ENTRIES: usize = 1 << 14;
/// Most waits.
pub const MOST_WAITS: usize = 1 << 16;
/// How long, in microseconds, it is remembered that a key was written: longer than a reply is under way.
pub(super) const KEEP: Micros = 2_000_000;

/// A connection of an app, over all workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conn {
    /// Its worker.
    pub worker: u16,
    /// Its session there.
    pub session: u32,
    /// That session's generation.
    pub generation: u32,
}

/// A key that was found missing.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    /// Its hash.
    pub hash: u64,
    /// Its name.
    pub name: &'a [u8],
    /// What is wanted for it.
    pub wanted: &'a Wanted,
    /// The number of the rule that says so: keys of one rule take equally long to load.
    pub rule: usize,
}

/// A read that found it missing.
#[derive(Clone, Copy, Debug)]
pub struct Reader {
    /// Whose.
    pub conn: Conn,
    /// By what its worker knows it.
    pub link: u32,
    /// When it was asked.
    pub asked: Micros,
    /// Whether it may wait, as far as its connection is concerned.
    pub may_wait: bool,
    /// Whether it may be told what the key had before it expired, where it would have to wait.
    pub takes_expired: bool,
}

/// What it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nil: the key has no lease, or this connection must not wait.
    Nil,
    /// Nil, and it is expected to write the key.
    Holds,
    /// Nil; it would have to wait if that were not only observed.
    Observed,
    /// Nothing for now; the wait's number.
    Wait(u64),
    /// What the key had before it expired ([`Table::expired`]).
    Expired,
}

/// See [`Table::miss`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    /// What the reader gets.
    pub then: Then,
    /// This is the second who finds it missing in its term: a stampede begins.
    pub stampede: bool,
}

/// Why a wait ends with nil.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is its turn to load.
    Turn,
    /// It has waited for as long as is allowed.
    Late,
    /// Its connection has come to hold something.
    Holds,
    /// Nobody writes the key.
    Barred,
}

/// What a worker is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// To tell nil to whoever waits there under this link, with this number.
    Nil {
        /// The worker's own.
        link: u32,
        /// The table's.
        id: u64,
        /// Why.
        why: Why,
    },
    /// To tell whoever waits there what the key had before it expired, if that may be.
    Expired {
        /// The worker's own.
        link: u32,
        /// The table's.
        id: u64,
    },
    /// To read a key again and tell [`Table::read`] of it.
    Read {
        /// The key's.
        hash: u64,
        /// The key.
        name: Arc<[u8]>,
    },
    /// To ask for the lease key, and tell [`Table::claimed`].
    Claim {
        /// The key's.
        hash: u64,
        /// The key.
        name: Arc<[u8]>,
        /// For how long.
        term: Micros,
    },
    /// To give the lease key back.
    Release {
        /// The key.
        name: Arc<[u8]>,
    },
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Something: whoever waited since before it was sent is answered with that.
    Value,
    /// Nothing.
    Nil,
    /// It was not answered.
    Lost,
}

/// What came of asking for a lease key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The key has a value.
    Value,
    /// It is this process' turn.
    Won,
    /// Another process has it.
    Lost,
    /// It could not be asked for.
    Refused,
}

/// Whose turn it is to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tenure {
    /// Nobody's.
    Vacant,
    /// This worker asks whether it is this process'; if so it is this connection's that loads already.
    Claiming { worker: u16, since: Micros, heir: Option<Conn> },
    /// This connection's.
    Held { by: Conn, since: Micros, until: Micros, wrote: bool, claimed: Option<u16> },
    /// Another process'; this worker is told of changes.
    Elsewhere { worker: u16, since: Micros, until: Micros },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    pub(super) id: u64,
    pub(super) link: u32,
    pub(super) conn: Conn,
    pub(super) until: Micros,
    pub(super) hard: Micros,
}

/// A worker's read under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) worker: u16,
    /// The last wait that it is for.
    pub(super) upto: u64,
    /// Something has happened since it was sent.
    pub(super) again: bool,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Arc<[u8]>,
    pub(super) rule: usize,
    pub(super) lease: Lease,
    pub(super) same_waits: bool,
    pub(super) longest_term: Micros,
    pub(super) guards: bool,
    pub(super) tenure: Tenure,
    /// It had a value when its term began, which then expires.
    pub(super) expiry: Option<Expiry>,
    /// What it had before it expired.
    pub(super) expired: Option<Expired>,
    /// Who has come to load it, and has not written it.
    pub(super) loaders: Vec<Loader>,
    pub(super) waits: VecDeque<Wait>,
    /// It is among those for which somebody waits.
    waited: bool,
    /// Not before this has any of them waited for long enough, or for twice that.
    pub(super) soon: (Micros, Micros),
    pub(super) reads: Vec<Reading>,
    /// When a write was answered last; 0 for never.
    pub(super) written: Micros,
    /// When it was closed last.
    pub(super) closed: Micros,
    /// No further nil is told before to those who are late.
    pub(super) drip: Micros,
    /// When to read again what could not be read.
    pub(super) retry: Option<Micros>,
    /// Others who found it missing in this term.
    pub(super) herd: u32,
    pub(super) due: Micros,
}

/// What a connection has to do with leases.
#[derive(Debug, Default)]
pub(super) struct Ties {
    pub(super) holds: Vec<u64>,
    /// Hashes of keys that it waits for, once for each wait.
    pub(super) waits: Vec<u64>,
}

/// The worst that has happened to one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Worst {
    /// The key.
    pub name: Arc<[u8]>,
    /// How many others found it missing in one term.
    pub herd: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Table {
    pub(super) entries: HashMap<u64, Entry, BuildHasherDefault<AsItIs>>,
    pub(super) sieve: Arc<Sieve>,
    early: Arc<Early>,
    pub(super) due: BTreeSet<(Micros, u64)>,
    pub(super) ties: HashMap<Conn, Ties>,
    paces: Vec<Pace>,
    pub(super) barred: Barred,
    pub(super) waiting: usize,
    /// Bytes of what keys had before they expired.
    pub(super) expired_bytes: usize,
    /// Keys for which somebody waits.
    waited: BTreeSet<u64>,
    ids: u64,
    /// By worker.
    orders: Vec<Vec<Order>>,
    worst: Option<Worst>,
}

impl Table {
    pub(super) fn with(sieve: Arc<Sieve>, early: Arc<Early>) -> Self {
        Self { sieve, early, ..Self::default() }
    }

    /// A read found a key missing.
    pub fn miss(&mut self, key: Key<'_>, reader: Reader, now: Micros) -> Missed {
        let told = |then| Missed { then, stampede: false };
        if !self.entries.contains_key(&key.hash) {
            if key.wanted.lease == Lease::Off || self.barred.has(key.hash, now) || self.entries.len() >= MOST_ENTRIES {
                return told(Then::Nil);
            }
            self.entries.insert(key.hash, Entry::new(&key));
            self.sieve.add(key.hash);
        }
        let holds = self.ties.get(&reader.conn).is_some_and(|ties| !ties.holds.is_empty());
        let full = self.waiting >= MOST_WAITS;
        let Some(entry) = self.entries.get_mut(&key.hash) else { return told(Then::Nil) };
        if *entry.name != *key.name {
            return told(Then::Nil);
        }
        entry.loaders.retain(|loader| loader.conn != reader.conn || !loader.overtaken);
        let observes = entry.lease == Lease::Observe;
        let same = matches!(entry.tenure, Tenure::Held { by, .. } if by == reader.conn);
        let vacant = entry.tenure == Tenure::Vacant;
        // What it was told may be older than the last write.
        let stale = entry.written != 0 && entry.written >= reader.asked && !observes;
        if vacant && !stale && entry.waits.is_empty() {
            entry.herd = 0;
            if entry.lease == Lease::Fleet && (!reader.may_wait || full || (holds && !entry.same_waits)) {
                // It is told nil at once, and holds if that is this process' turn.
                self.claim(key.hash, reader.conn.worker, now);
                self.inherits(key.hash, reader.conn);
                self.settle(key.hash);
                return told(Then::Nil);
            }
            if entry.lease == Lease::Fleet {
                let id = self.wait(key, reader, now);
                self.claim(key.hash, reader.conn.worker, now);
                self.settle(key.hash);
                return told(Then::Wait(id));
            }
            self.hold(key.hash, reader.conn, None, now);
            self.settle(key.hash);
            return told(Then::Holds);
        }
        entry.herd = entry.herd.saturating_add(1);
        let stampede = entry.herd == 1;
        if self.worst.as_ref().is_none_or(|worst| worst.herd < entry.herd) {
            self.worst = Some(Worst { name: Arc::clone(&entry.name), herd: entry.herd });
        }
        if observes {
            return Missed { then: Then::Observed, stampede };
        }
        if !reader.may_wait || full || ((same || holds) && !entry.same_waits) {
            self.settle(key.hash);
            return Missed { then: Then::Nil, stampede };
        }
        if reader.takes_expired && !stale {
            self.settle(key.hash);
            return Missed { then: Then::Expired, stampede };
        }
        // Once it has expired the shard does not tell of it again until it is asked again.
        let first = entry.expiry.is_some() && entry.waits.is_empty() && entry.lease == Lease::Fleet;
        let id = self.wait(key, reader, now);
        if stale || first {
            self.wake_worker(key.hash, reader.conn.worker);
        }
        self.settle(key.hash);
        Missed { then: Then::Wait(id), stampede }
    }

    /// Appends a wait.
    fn wait(&mut self, key: Key<'_>, reader: Reader, now: Micros) -> u64 {
        self.ids = self.ids.wrapping_add(1);
        let span = self.pace(key.rule).wait(key.wanted.longest_wait);
        let Some(entry) = self.entries.get_mut(&key.hash) else { return self.ids };
        let (until, hard) = (now.saturating_add(span), now.saturating_add(span.saturating_mul(2)));
        entry.soon = (entry.soon.0.min(until), entry.soon.1.min(hard));
        entry.waits.push_back(Wait { id: self.ids, link: reader.link, conn: reader.conn, until, hard });
        self.ties.entry(reader.conn).or_default().waits.push(key.hash);
        self.waiting = self.waiting.saturating_add(1);
        self.ids
    }

    /// A connection is to load the key. It waits for nothing any more.
    pub(super) fn hold(&mut self, hash: u64, by: Conn, claimed: Option<u16>, now: Micros) {
        let Some(entry) = self.entries.get(&hash) else { return };
        let term = self.pace(entry.rule).term(entry.longest_term);
        let Some(entry) = self.entries.get_mut(&hash) else { return };
        entry.tenure = Tenure::Held { by, since: now, until: now.saturating_add(term), wrote: false, claimed };
        entry.expiry = None;
        entry.begins_to_load(by, now);
        let same_waits = entry.same_waits;
        let ties = self.ties.entry(by).or_default();
        ties.holds.push(hash);
        if same_waits {
            return;
        }
        for waited in std::mem::take(&mut ties.waits) {
            self.end_waits_of(waited, by, Why::Holds);
        }
    }

    /// What is being claimed is for a connection that loads already.
    fn inherits(&mut self, hash: u64, conn: Conn) {
        if let Some(Entry { tenure: Tenure::Claiming { heir: heir @ None, .. }, .. }) = self.entries.get_mut(&hash) {
            *heir = Some(conn);
            self.ties.entry(conn).or_default().holds.push(hash);
        }
    }

    /// Tells nil to a connection's waits for a key; its ties are no longer those of a waiter.
    fn end_waits_of(&mut self, hash: u64, conn: Conn, why: Why) {
        let Some(entry) = self.entries.get_mut(&hash) else { return };
        if why == Why::Holds && entry.waits.front().is_some_and(|wait| wait.conn == conn) {
            // It loads all that it has asked for together.
            self.inherits(hash, conn);
        }
        let Some(entry) = self.entries.get_mut(&hash) else { return };
        let mut ended = Vec::new();
        entry.waits.retain(|wait| {
            let ends = wait.conn == conn;
            if ends {
                ended.push(*wait);
            }
            !ends
        });
        self.waiting = self.waiting.saturating_sub(ended.len());
        for wait in ended {
            self.order(conn.worker, Order::Nil { link: wait.link, id: wait.id, why });
        }
        self.settle(hash);
    }

    /// Ends waits of a key without an order: whoever asks for it answers them. Returns whether there were any.
    pub(super) fn forget_waits(&mut self, hash: u64, gone: &[Wait]) {
        self.waiting = self.waiting.saturating_sub(gone.len());
        for wait in gone {
            let Some(ties) = self.ties.get_mut(&wait.conn) else { continue };
            if let Some(at) = ties.waits.iter().position(|&of| of == hash) {
                ties.waits.swap_remove(at);
            }
            if ties.waits.is_empty() && ties.holds.is_empty() {
                self.ties.remove(&wait.conn);
            }
        }
    }

    /// A wait is answered by its worker for reasons of its own, or nobody waits any more. Returns whether it was there.
    pub fn release(&mut self, hash: u64, id: u64) -> bool {
        let Some(entry) = self.entries.get_mut(&hash) else { return false };
        // Their numbers rise.
        let Ok(at) = entry.waits.binary_search_by_key(&id, |wait| wait.id) else { return false };
        let gone: Vec<Wait> = entry.waits.remove(at).into_iter().collect();
        self.forget_waits(hash, &gone);
        self.settle(hash);
        true
    }

    /// A connection is gone. Returns how many keys it was loading.
    pub fn gone(&mut self, conn: Conn, now: Micros) -> usize {
        let Some(mut ties) = self.ties.remove(&conn) else { return 0 };
        ties.waits.dedup();
        for hash in ties.waits {
            if let Some(entry) = self.entries.get_mut(&hash) {
                let before = entry.waits.len();
                entry.waits.retain(|wait| wait.conn != conn);
                self.waiting = self.waiting.saturating_sub(before.saturating_sub(entry.waits.len()));
                self.settle(hash);
            }
        }
        let held = ties.holds.len();
        for hash in ties.holds {
            self.vacate(hash, now);
            self.next(hash, now);
            self.settle(hash);
        }
        held
    }

    /// Nobody loads the key any more; it is known no better than before.
    pub(super) fn vacate(&mut self, hash: u64, now: Micros) {
        let Some(entry) = self.entries.get_mut(&hash) else { return };
        let before = std::mem::replace(&mut entry.tenure, Tenure::Vacant);
        entry.closed = now;
        entry.expiry = None;
        let (by, until, claimed) = match before {
            Tenure::Held { by, until, claimed, .. } => (by, until, claimed),
            Tenure::Claiming { heir: Some(by), .. } => (by, 0, None),
            _ => return,
        };
        let name = Arc::clone(&entry.name);
        let idle = if let Some(ties) = self.ties.get_mut(&by) {
            ties.holds.retain(|&held| held != hash);
            ties.holds.is_empty() && ties.waits.is_empty()
        } else {
            false
        };
        if idle {
            self.ties.remove(&by);
        }
        // After its time is over the lease key may be another process'.
        if let Some(worker) = claimed
            && now < until
        {
            self.order(worker, Order::Release { name });
        }
    }

    pub(super) fn order(&mut self, worker: u16, order: Order) {
        let worker = usize::from(worker);
        if self.orders.len() <= worker {
            self.orders.resize_with(worker.saturating_add(1), Vec::new);
        }
        if let Some(orders) = self.orders.get_mut(worker) {
            orders.push(order);
        }
    }

    /// Takes what a worker is to do.
    pub fn take_orders(&mut self, worker: u16) -> Vec<Order> {
        self.orders.get_mut(usize::from(worker)).map(std::mem::take).unwrap_or_default()
    }

    /// The workers that have something to do.
    pub fn busy(&self) -> impl Iterator<Item = u16> {
        self.orders.iter().zip(0..).filter(|(orders, _)| !orders.is_empty()).map(|(_, worker)| worker)
    }

    /// How long keys of a rule take to load.
    #[must_use]
    pub fn pace(&self, rule: usize) -> Pace {
        self.paces.get(rule).copied().unwrap_or_default()
    }

    pub(super) fn learn(&mut self, rule: usize, learn: impl FnOnce(&mut Pace)) {
        if self.paces.len() <= rule {
            self.paces.resize(rule.saturating_add(1), Pace::default());
        }
        if let Some(pace) = self.paces.get_mut(rule) {
            learn(pace);
            self.early.set_fill(rule, pace.fill());
        }
    }

    /// Keys for which somebody waits, by their hashes.
    #[must_use]
    pub fn waited(&self) -> Vec<u64> {
        self.waited.iter().copied().collect()
    }

    /// The name of a key with an entry.
    #[must_use]
    pub fn name(&self, hash: u64) -> Option<Arc<[u8]>> {
        self.entries.get(&hash).map(|entry| Arc::clone(&entry.name))
    }

    /// Waits there are.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Entries there are.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    /// Whether a worker is reading a key again.
    #[must_use]
    pub fn is_read(&self, hash: u64, worker: u16) -> bool {
        self.entries.get(&hash).is_some_and(|entry| entry.reads.iter().any(|reading| reading.worker == worker))
    }

    /// The connection that is loading a key.
    #[must_use]
    pub fn holder(&self, hash: u64) -> Option<Conn> {
        match self.entries.get(&hash)?.tenure {
            Tenure::Held { by, .. } => Some(by),
            _ => None,
        }
    }

    /// The worst key since this was asked last.
    pub fn take_worst(&mut self) -> Option<Worst> {
        self.worst.take()
    }

    /// Notes when an entry is to be looked at next.
    pub(super) fn settle(&mut self, hash: u64) {
        let Some(entry) = self.entries.get_mut(&hash) else { return };
        let due = entry.next_due();
        if due != entry.due {
            self.due.remove(&(entry.due, hash));
            self.due.insert((due, hash));
            entry.due = due;
        }
        self.note_waited(hash);
    }

    /// Notes whether somebody waits for a key.
    pub(super) fn note_waited(&mut self, hash: u64) {
        let Some(entry) = self.entries.get_mut(&hash) else { return };
        if entry.waited == entry.waits.is_empty() {
            entry.waited = !entry.waited;
            if entry.waited {
                self.waited.insert(hash)
            } else {
                self.waited.remove(&hash)
            };
        }
    }

    pub(super) fn remove(&mut self, hash: u64) {
        self.forget_expired(hash);
        if let Some(entry) = self.entries.remove(&hash) {
            self.due.remove(&(entry.due, hash));
            self.waited.remove(&hash);
            self.sieve.take(hash);
        }
    }
}

impl Entry {
    pub(super) fn new(key: &Key<'_>) -> Self {
        Self {
            name: key.name.into(),
            rule: key.rule,
            lease: key.wanted.lease,
            same_waits: key.wanted.same_connection_waits,
            longest_term: key.wanted.longest_term,
            guards: key.wanted.guards && key.wanted.lease.holds() && !key.wanted.same_connection_waits,
            tenure: Tenure::Vacant,
            expiry: None,
            expired: None,
            loaders: Vec::new(),
            waits: VecDeque::new(),
            waited: false,
            soon: (Micros::MAX, Micros::MAX),
            reads: Vec::new(),
            written: 0,
            closed: 0,
            drip: 0,
            retry: None,
            herd: 0,
            due: 0,
        }
    }

    /// Whether somebody loads it.
    pub(super) fn is_loaded(&self) -> bool {
        matches!(self.tenure, Tenure::Held { .. } | Tenure::Elsewhere { .. })
    }

    /// Whether nothing is to be known of it any more.
    pub(super) fn is_over(&self, now: Micros) -> bool {
        let idle = self.tenure == Tenure::Vacant && self.waits.is_empty() && self.reads.is_empty();
        idle && now >= self.kept_until()
    }

    /// Until when something is to be known of it though nobody loads it or waits for it.
    fn kept_until(&self) -> Micros {
        let expired = self.expired.as_ref().map_or(0, |expired| expired.until);
        let loaders = self.loaders.iter().map(|loader| loader.until).max().unwrap_or(0);
        self.closed.saturating_add(KEEP).max(expired).max(loaders)
    }

    pub(super) fn next_due(&self) -> Micros {
        let tenure = match self.tenure {
            Tenure::Vacant if self.waits.is_empty() && self.reads.is_empty() => self.kept_until(),
            Tenure::Vacant => Micros::MAX,
            Tenure::Claiming { since, .. } => since.saturating_add(super::turns::PATIENCE),
            Tenure::Held { until, .. } | Tenure::Elsewhere { until, .. } => until,
        };
        let (soon, hard) = if self.waits.is_empty() { (Micros::MAX, Micros::MAX) } else { self.soon };
        let wait = if soon == Micros::MAX { soon } else { soon.max(self.drip) };
        tenure.min(wait).min(hard).min(self.retry.unwrap_or(Micros::MAX))
    }
}
