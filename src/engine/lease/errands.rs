//! What is asked of shards for those who wait: the key again when it may have been written, and the lease key, by which all
//! processes of a fleet know whose turn it is.
//!
//! The lease key of `k` is `hotring:lease:k`, on the shard where `k` lives, whatever the ring says of that name: it goes on that
//! shard's tracked connection ([`super::super::hot::Tracker`]), on which the shard tells when either changes.

use super::is_nil;
use crate::engine::Engine;
use crate::engine::hot::Errand;
use crate::engine::port::Port;
use crate::stages::Micros;
use crate::stages::hot::Tracking;
use crate::stages::lease::{Claim, Found, Lease, Order};
use std::sync::Arc;

impl Engine {
    /// Reads a key again for those who wait for it here.
    pub(super) fn read_again(&mut self, pool: u16, hash: u64, name: &[u8]) -> Vec<Order> {
        let Some(place) = self.pools.get(usize::from(pool)) else { return Vec::new() };
        let home = place.config.path.route.home(name);
        let on = home.map(|shard| place.line(u32::from(shard) * u32::from(place.config.lanes)));
        let sent = on.and_then(|on| self.run_errand(on, &[&[b"GET", name]], Errand::Woken(hash)));
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
        let _ = (hash, term);
        self.claim_is(pool, hash, &name, Claim::Refused)
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
        let _ = (pool, name);
    }

    /// Upkeep: the connections on which shards tell of changes, where leases are the whole fleet's.
    pub(super) fn open_trackers(&mut self, pool: u16, port: &mut impl Port) {
        let _ = (pool, port, Tracking::On, Lease::Fleet);
    }
}
