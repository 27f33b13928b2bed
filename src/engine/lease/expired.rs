//! What a key had before it expired, for those who would wait for what is being loaded (`misses.stale`).
//!
//! Only what this process keeps in memory of hot keys can be told, and only if the tracked connection on which it was read
//! has proven that it has expired ([`Hot::expired`](crate::stages::Hot::expired)). Each who is told has been answered nil by the
//! key's shard, or by memory that is as good, just before: so it is never told in place of a newer value. It is looked up in the fence at
//! that time, so it is never told after a write or a DEL through this process either, nor to a session with such a write on its way.
//!
//! Deliberately absent: a proof by the clock. A key that somebody deletes in its last millisecond looks like one that has expired.

use super::{Engine, Held};
use crate::engine::line::Ticket;
use crate::stages::Micros;
use crate::stages::hot::Seen;
use crate::stages::lease::Expired;

impl Engine {
    /// What was read to keep a key here has found nothing.
    #[cold]
    pub(in crate::engine) fn may_have_expired(&mut self, pool: u16, (hash, number): (u64, u64), name: &[u8]) {
        let now = self.now;
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        let (leases, hot) = (&place.config.leases, &mut place.config.path.hot);
        let Some(key) = leases.key(hash, name).filter(|key| key.wanted.stale > 0) else { return };
        let Some((value, died, seen)) = hot.expired(hash, number, now) else { return };
        let Some(shard) = hot.key(hash).map(|key| key.shard) else { return };
        let room = hot.config().near_memory.saturating_sub(hot.kept());
        let (worker, until) = (leases.worker(), died.saturating_add(key.wanted.stale));
        let expired = Expired { value: (&*value).into(), seen: seen.parts(), shard, worker, died, until, echo: true };
        let ((), orders) = leases.shared().with(worker, |table| table.expire(&key, expired, room, now));
        self.obey(pool, orders);
    }

    /// All that the shard had to tell of that has come.
    pub(in crate::engine) fn heard_of_expiry(&mut self, pool: u16, hash: u64) {
        let Some(place) = self.pools.get(usize::from(pool)) else { return };
        let leases = &place.config.leases;
        if leases.tells_stale() && leases.shared().may_have(hash) {
            let worker = leases.worker();
            let ((), orders) = leases.shared().with(worker, |table| table.heard_all(hash, worker));
            self.obey(pool, orders);
        }
    }

    /// Whether a session may be told that now, of a key for which it is wanted for so long.
    pub(super) fn may_tell_expired(
        &self,
        pool: u16,
        (ticket, hash): (Ticket, u64),
        told: &Expired,
        span: Micros,
    ) -> bool {
        let session = self.sessions.get(ticket.session as usize);
        let Some(session) = session.filter(|session| session.generation == ticket.generation) else { return false };
        let Some(hot) = self.pools.get(usize::from(pool)).map(|place| &place.config.path.hot) else { return false };
        let allowed = hot.serves() && hot.fence().allows(Seen::of(told.seen), session.writes == 0, hash, told.shard);
        allowed && self.now < told.died.saturating_add(span)
    }

    /// A read that would have to wait is told what the key had.
    pub(super) fn tell_expired(&mut self, held: &Held, value: &[u8]) {
        if let Some(place) = self.pools.get_mut(usize::from(held.pool)) {
            place.counts.lease_stale += 1;
        }
        if let Some((array, index)) = held.element {
            return self.fill_element(array, index, Some(value));
        }
        self.clock(held.pool, held.tag, held.at, value);
        self.complete(held.pool, held.ticket, value, None);
    }

    /// The same for one that waits already, if that may be.
    pub(super) fn offer_expired(&mut self, pool: u16, link: u32, id: u64) {
        let now = self.now;
        let Some(held) = self.waits.held.get(link as usize).filter(|held| held.id == id) else { return };
        let (hash, ticket) = (held.hash, held.ticket);
        let Some(place) = self.pools.get(usize::from(pool)) else { return };
        let leases = &place.config.leases;
        let (told, orders) = leases.shared().with(leases.worker(), |table| {
            let span = table.name(hash).map_or(0, |name| leases.config().wanted(&name).stale);
            let told = table.expired(hash, now)?;
            let value = self.may_tell_expired(pool, (ticket, hash), told, span).then(|| told.value.clone())?;
            table.release(hash, id).then_some(value)
        });
        if let Some(value) = told {
            if let Some(place) = self.pools.get_mut(usize::from(pool)) {
                place.counts.lease_stale += 1;
            }
            self.end_wait(link, id, Some(&value), None);
        }
        self.obey(pool, orders);
    }
}
