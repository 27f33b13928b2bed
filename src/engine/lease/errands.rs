//! What is asked of shards for those who wait: the key again when it may have been written, and the lease key, by which all
//! processes of a fleet know whose turn it is.
//!
//! The lease key of `k` is `hotring:lease:k` (in a cluster `hotring:lease:{tag}k`, with a tag that leads to the slot of `k`), on the shard where `k` lives, whatever the ring says of that name: it goes on that
//! shard's tracked connection ([`super::super::hot::Tracker`]), on which the shard tells when either changes.

use super::is_nil;
use crate::engine::Engine;
use crate::engine::hot::Errand;
use crate::engine::port::Port;
use crate::resp::reply::Elements;
use crate::ring::tag_of;
use crate::stages::Micros;
use crate::stages::hot::Tracking;
use crate::stages::lease::{Claim, Found, Lease, Order};
use std::sync::Arc;

/// How lease keys begin.
const LEASE_KEY: &[u8] = b"hotring:lease:";

impl Engine {
    /// Reads a key again for those who wait for it here.
    pub(super) fn read_again(&mut self, pool: u16, hash: u64, name: &[u8]) -> Vec<Order> {
        let Some(place) = self.pools.get(usize::from(pool)) else { return Vec::new() };
        let home = place.config.path.route.home(name);
        let on = home.and_then(|shard| self.line_that_is_open(pool, shard));
        let fleet = place.config.leases.config().wanted(name).lease == Lease::Fleet;
        let tracked = home.filter(|_| fleet).and_then(|shard| self.tracked_line(pool, shard));
        let sent = match (tracked, on) {
            // What a shard has told of it tells of no more, unless it is read again where it does.
            (Some(on), _) => {
                let commands: [&[&[u8]]; 2] = [&[b"CLIENT", b"CACHING", b"YES"], &[b"GET", name]];
                self.run_errand(on, &commands, Errand::Woken(hash))
            }
            (None, Some(on)) => self.run_errand(on, &[&[b"GET", name]], Errand::Woken(hash)),
            (None, None) => None,
        };
        if sent.is_some() {
            if let Some(place) = self.pools.get_mut(usize::from(pool)) {
                place.counts.lease_reads += 1;
            }
            return Vec::new();
        }
        let now = self.now;
        let Some(place) = self.pools.get(usize::from(pool)) else { return Vec::new() };
        let leases = &place.config.leases;
        leases.shared().with(leases.worker(), |table| table.read(hash, leases.worker(), Found::Lost, now)).1
    }

    /// It was read, or could not be.
    pub(in crate::engine) fn woken(&mut self, pool: u16, hash: u64, reply: Option<&[u8]>) {
        let now = self.now;
        let found = match reply {
            Some(reply) if is_nil(reply) => Found::Nil,
            // That the key is of another type is what any read of it is told. Other errors may pass.
            Some(reply) if reply.first() != Some(&b'-') || reply.starts_with(b"-WRONGTYPE") => Found::Value,
            _ => Found::Lost,
        };
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        if let Some(reply) = reply.filter(|_| found == Found::Value) {
            let hot = &mut place.config.path.hot;
            if hot.keeps() && hot.is_kept(hash) {
                hot.passed(hash, reply);
            }
        }
        let leases = &place.config.leases;
        let worker = leases.worker();
        let (answered, orders) = leases.shared().with(worker, |table| table.read(hash, worker, found, now));
        for (link, id) in answered {
            self.end_wait(link, id, reply, None);
        }
        self.obey(pool, orders);
    }

    /// Asks for the lease key, and whether the key has been written meanwhile.
    pub(super) fn claim(&mut self, pool: u16, hash: u64, name: Arc<[u8]>, term: Micros) -> Vec<Order> {
        let home = self.pools.get(usize::from(pool)).and_then(|place| place.config.path.route.home(&name));
        let Some(on) = home.and_then(|shard| self.tracked_line(pool, shard)) else {
            return self.claim_is(pool, hash, &name, Claim::Refused);
        };
        let (key, span) = (self.lease_key(pool, &name), (term / 1000).max(1).to_string());
        let who = self.about.process.to_string();
        let commands: [&[&[u8]]; 3] = [
            &[b"SET", &key, who.as_bytes(), b"NX", b"PX", span.as_bytes()],
            &[b"CLIENT", b"CACHING", b"YES"],
            // Both at once: of whatever happens to either from then on the shard tells.
            &[b"MGET", &name, &key],
        ];
        match self.run_errand(on, &commands, Errand::Claim(hash, Arc::clone(&name))) {
            Some(_) => Vec::new(),
            None => self.claim_is(pool, hash, &name, Claim::Refused),
        }
    }

    /// The shard has answered that, or the connection is lost.
    pub(in crate::engine) fn lease_was_claimed(&mut self, pool: u16, hash: u64, name: &Arc<[u8]>, replies: &[Vec<u8>]) {
        let mut over = false;
        let claim = match replies {
            [set, caching, both] if caching == b"+OK\r\n" && set.first() != Some(&b'-') => {
                let won = set == b"+OK\r\n";
                let mut both = Elements::of(both).into_iter().flatten();
                let (value, lease) = (both.next(), both.next());
                over = lease.is_none_or(is_nil);
                let claim = match value {
                    Some(value) if is_nil(value) && won => Claim::Won,
                    Some(value) if is_nil(value) => Claim::Lost,
                    Some(_) => Claim::Value,
                    None => Claim::Refused,
                };
                if won && claim != Claim::Won {
                    self.release_lease(pool, name);
                }
                claim
            }
            [set, ..] => {
                if set == b"+OK\r\n" {
                    self.release_lease(pool, name);
                }
                Claim::Refused
            }
            [] => Claim::Refused,
        };
        let orders = self.claim_is(pool, hash, name, claim);
        self.obey(pool, orders);
        if claim == Claim::Lost && over {
            // It was given back between the two.
            self.lease_key_changed(pool, hash);
        }
    }

    /// What came of that.
    fn claim_is(&mut self, pool: u16, hash: u64, name: &Arc<[u8]>, claim: Claim) -> Vec<Order> {
        let now = self.now;
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return Vec::new() };
        let leases = &place.config.leases;
        let worker = leases.worker();
        leases.shared().with(worker, |table| table.claimed(hash, name, worker, claim, now)).1
    }

    /// Gives a lease key back.
    pub(super) fn release_lease(&mut self, pool: u16, name: &[u8]) {
        let home = self.pools.get(usize::from(pool)).and_then(|place| place.config.path.route.home(name));
        // Where it cannot be said it ends by itself.
        if let Some(on) = home.and_then(|shard| self.tracked_line(pool, shard)) {
            let key = self.lease_key(pool, name);
            self.run_errand(on, &[&[b"DEL", &key]], Errand::Released);
        }
    }

    fn lease_key_changed(&mut self, pool: u16, hash: u64) {
        let now = self.now;
        let Some(place) = self.pools.get(usize::from(pool)) else { return };
        let leases = &place.config.leases;
        let ((), orders) = leases.shared().with(leases.worker(), |table| table.lease_changed(hash, now));
        self.obey(pool, orders);
    }

    /// A shard tells that a key has changed.
    pub(in crate::engine) fn heard_of(&mut self, pool: u16, key: &[u8]) {
        let Some(place) = self.pools.get(usize::from(pool)).filter(|place| place.config.leases.is_on()) else { return };
        let (leases, hot) = (&place.config.leases, &place.config.path.hot);
        if let Some(name) = key.strip_prefix(LEASE_KEY) {
            let name = key_of(name, place.cluster.is_some());
            let hash = hot.hash(name);
            if leases.shared().may_have(hash) {
                self.lease_key_changed(pool, hash);
            }
            return;
        }
        let (hash, now) = (hot.hash(key), self.now);
        if leases.shared().may_have(hash) {
            let worker = leases.worker();
            let ((), orders) = leases.shared().with(worker, |table| {
                table.heard(hash, worker);
                table.changed(hash, now);
            });
            self.obey(pool, orders);
        }
    }

    /// A shard does not tell any more of what was asked here, or all its keys are gone.
    pub(in crate::engine) fn heard_no_more(&mut self, pool: u16, shard: u16) {
        let now = self.now;
        let Some(place) = self.pools.get(usize::from(pool)) else { return };
        let (leases, route) = (&place.config.leases, &place.config.path.route);
        if !leases.is_on() || leases.shared().is_empty() {
            return;
        }
        let own = leases.worker();
        let hears = |name: &[u8], worker: u16| worker != own || route.home(name) != Some(shard);
        let ((), orders) = leases.shared().with(own, |table| {
            table.heard_nothing(shard, own);
            table.deaf(hears, now);
        });
        self.obey(pool, orders);
    }

    /// Upkeep: the connections on which shards tell of changes, where leases are the whole fleet's.
    pub(super) fn open_trackers(&mut self, pool: u16, port: &mut impl Port) {
        let Some(place) = self.pools.get(usize::from(pool)) else { return };
        let fleet = place.config.leases.is_fleet();
        let shards = if fleet { place.config.path.route.shards().to_vec() } else { Vec::new() };
        let mut refused = 0;
        for shard in shards {
            self.tracker(pool, shard, port);
            let tracked = self.pools.get(usize::from(pool)).map(|place| place.config.path.hot.tracked(shard).tracking);
            refused += u64::from(tracked == Some(Tracking::Refused));
        }
        if let Some(place) = self.pools.get_mut(usize::from(pool)) {
            place.counts.lease_untracked.set(refused);
        }
    }
}

/// The key of which a name is the lease key, behind [`LEASE_KEY`].
fn key_of(name: &[u8], cluster: bool) -> &[u8] {
    let tag = name.iter().position(|&byte| byte == b'}').filter(|_| cluster);
    tag.and_then(|end| name.get(end.saturating_add(1)..)).unwrap_or(name)
}

impl Engine {
    /// The lease key of a key: of the same slot, where slots count.
    pub(super) fn lease_key(&self, pool: u16, name: &[u8]) -> Vec<u8> {
        let slot = self.pools.get(usize::from(pool)).and_then(|place| place.config.path.route.slot(name));
        match slot {
            Some(slot) => [LEASE_KEY, b"{", tag_of(slot).as_bytes(), b"}", name].concat(),
            None => [LEASE_KEY, name].concat(),
        }
    }
}
