//! Keys that are loaded anew shortly before they expire: of those who read one, one is told that it is not there.
//!
//! A read fires when its reply comes, so that what its session has written before counts. Its reply is kept back until the shard
//! has said how long the key really lives, and, in a fleet, whose turn it is; then it is nil if it is this one's, and else what
//! it was. Nobody else waits for that, and this one no longer than [`PATIENCE`].
//!
//! Deliberately absent: elements of MGET, replies that are passed on while they arrive, and what is answered from memory, by a
//! replica or a copy. Another read will do.

use super::{Engine, Held, may_write, takes_part};
use crate::engine::LineId;
use crate::engine::hot::Errand;
use crate::engine::line::Waiter;
use crate::engine::port::Port;
use crate::resp::reply::{Elements, integer};
use crate::resp::write;
use crate::stages::Micros;
use crate::stages::lease::{Conn, Expiry, Lease, Until, Why, fires};
use std::sync::Arc;

/// How long, in microseconds, a value is kept back at most.
const PATIENCE: Micros = 50_000;
/// The numbers of reads that are kept back for this; the table counts from 0.
const FIRST: u64 = 1 << 63;

/// A read that has fired, while its shard is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Asking {
    /// Which read it is.
    link: u32,
    id: u64,
    /// The key.
    hash: u64,
    name: Arc<[u8]>,
    draw: u64,
    /// When the shard was asked.
    sent: Micros,
    /// For its lease key, too.
    claims: bool,
}

impl Engine {
    /// A read of a key has found a value: whether it is to be told that there is none, if that may be. Returns the number drawn.
    #[inline]
    pub(super) fn falls_due(&mut self, pool: u16, hash: u64, name: &[u8]) -> Option<u64> {
        let now = self.now;
        let place = self.pools.get_mut(usize::from(pool))?;
        let leases = &place.config.leases;
        let early = leases.shared().early();
        let until = early.until(hash)?;
        let key = leases.key(hash, name).filter(|_| leases.may_refresh(name))?;
        let fill = early.fill(key.rule)?;
        match until {
            // Of which the shard only says when.
            Until::SomeTime => Some(u64::MAX),
            Until::At(at) if at <= now => {
                early.forget(hash);
                None
            }
            Until::At(at) => {
                let draw = place.misses.draw(place.config.seed);
                fires(fill, at - now, draw).then_some(draw)
            }
        }
    }

    /// Such a reply has come.
    #[cold]
    pub(in crate::engine) fn fell_due(
        &mut self,
        (id, pool): (LineId, u16),
        waiter: &Waiter,
        (hash, name, draw): (u64, &[u8], u64),
        reply: &[u8],
        port: &mut impl Port,
    ) {
        let mut waiter = *waiter;
        let alone = matches!(waiter.part, Waiter::WHOLE | Waiter::SPREAD);
        if alone && self.keep_back(pool, &waiter, (hash, name, draw), reply).is_some() {
            if waiter.part == Waiter::SPREAD {
                waiter = self.spread_missed(&waiter);
            }
            // Who shares its flight is given the value.
            let Some((ticket, at, link)) = self.joined.try_remove(waiter.link as usize) else { return };
            (waiter.ticket, waiter.at, waiter.link) = (ticket, at, link);
        }
        self.land(id, pool, &waiter, reply, port);
    }

    /// Keeps a reply back and asks the shard.
    fn keep_back(
        &mut self,
        pool: u16,
        waiter: &Waiter,
        (hash, name, draw): (u64, &[u8], u64),
        reply: &[u8],
    ) -> Option<()> {
        let now = self.now;
        let Waiter { ticket, at, tag, .. } = *waiter;
        let session = self.sessions.get(ticket.session as usize);
        session.filter(|s| s.generation == ticket.generation && takes_part(s) && may_write(s, name))?;
        let place = self.pools.get_mut(usize::from(pool))?;
        let leases = &place.config.leases;
        let (key, early) = (leases.key(hash, name)?, leases.shared().early());
        let until = early.until(hash)?;
        let same_waits = key.wanted.same_connection_waits;
        if key.wanted.lease == Lease::Observe {
            // Once for each time that it is written.
            place.counts.early_observed += u64::from(until != Until::SomeTime && early.take(hash, until));
            return None;
        }
        let fleet = key.wanted.lease == Lease::Fleet && until != Until::SomeTime;
        let conn = Conn { worker: leases.worker(), session: ticket.session, generation: ticket.generation };
        let (term, orders) = leases.shared().with(conn.worker, |table| table.may_refresh(&key, conn, now));
        let taken = term.is_some() && early.take(hash, until);
        self.obey(pool, orders);
        let term = term.filter(|_| taken)?;
        self.waits.kept = self.waits.kept.wrapping_add(1);
        let id = FIRST | self.waits.kept;
        let held = Held {
            id,
            hash,
            pool,
            ticket,
            at,
            tag,
            element: None,
            since: now,
            same_waits,
            budget: None,
            behind: None,
            kept: Some(reply.to_vec()),
        };
        let link = self.waits.held.insert(held) as u32;
        let asking = Asking { link, id, hash, name: name.into(), draw, sent: now, claims: fleet };
        let sent = fleet.then(|| self.ask_for_turn(pool, &asking, term)).flatten();
        if sent.or_else(|| self.ask_how_long(pool, Asking { claims: false, ..asking })).is_none() {
            self.waits.held.remove(link as usize);
            return None;
        }
        // As parts of split requests: one that is kept back counts as waiting for its session.
        if let (Some(session), Some(place)) =
            (self.sessions.get_mut(ticket.session as usize), self.pools.get_mut(usize::from(pool)))
        {
            place.counts.client_output_bytes += session.hold(reply.len());
        }
        self.waits.by_session.entry(ticket.session).or_default().insert((hash, link));
        self.waits.keeps.push_back((now.saturating_add(PATIENCE), link, id));
        Some(())
    }

    /// Asks how long a key lives.
    fn ask_how_long(&mut self, pool: u16, asking: Asking) -> Option<u32> {
        let place = self.pools.get(usize::from(pool))?;
        let shard = place.config.path.route.home(&asking.name)?;
        let on = place.line(u32::from(shard) * u32::from(place.config.lanes));
        let name = Arc::clone(&asking.name);
        self.run_errand(on, &[&[b"PTTL", &name]], Errand::Early(Box::new(asking)))
    }

    /// The same, and for the lease key before: what another process has written before it gave that back is seen.
    fn ask_for_turn(&mut self, pool: u16, asking: &Asking, term: Micros) -> Option<u32> {
        let home = self.pools.get(usize::from(pool))?.config.path.route.home(&asking.name)?;
        let on = self.tracked_line(pool, home)?;
        let (key, span) = (self.lease_key(pool, &asking.name), (term / 1000).max(1).to_string());
        let who = self.about.process.to_string();
        let commands: [&[&[u8]]; 4] = [
            &[b"SET", &key, who.as_bytes(), b"NX", b"PX", span.as_bytes()],
            &[b"CLIENT", b"CACHING", b"YES"],
            &[b"MGET", &asking.name, &key],
            &[b"PTTL", &asking.name],
        ];
        self.run_errand(on, &commands, Errand::Early(Box::new(asking.clone())))
    }

    /// The shard has answered that, or the connection is lost.
    pub(in crate::engine) fn turn_was_told(&mut self, pool: u16, asking: &Asking, replies: &[Vec<u8>]) {
        let now = self.now;
        let Asking { link, id, hash, sent, .. } = *asking;
        let won = asking.claims && replies.first().is_some_and(|set| set == b"+OK\r\n");
        let lost = asking.claims && replies.first().is_some_and(|set| super::is_nil(set));
        // That it could not be asked for leaves the turn to this process alone, as with what is missing.
        let heard = replies.get(1).is_some_and(|caching| caching == b"+OK\r\n");
        let there =
            replies.get(2).and_then(|both| Elements::of(both)?.next()).is_some_and(|value| !super::is_nil(value));
        let left = replies.last().and_then(|left| integer(left)).and_then(|left| u64::try_from(left).ok());
        let left = left.filter(|&left| left > 0 && (there || !asking.claims)).map(|left| left.saturating_mul(1000));
        let held = self.waits.held.get(link as usize).filter(|held| held.id == id).map(|held| held.ticket);
        let mut turn = false;
        if let Some(place) = self.pools.get_mut(usize::from(pool)) {
            let leases = &place.config.leases;
            let early = leases.shared().early();
            if let Some(left) = left {
                early.expires(hash, now.saturating_add(left), now);
            }
            let key = leases.key(hash, &asking.name).filter(|_| leases.may_refresh(&asking.name));
            let due = key
                .zip(left)
                .filter(|(key, left)| early.fill(key.rule).is_some_and(|fill| fires(fill, *left, asking.draw)));
            let mut orders = Vec::new();
            if let (Some((key, left)), Some(ticket)) = (due, held) {
                let worker = leases.worker();
                let term = (sent, Expiry { after: sent.saturating_add(left), before: now.saturating_add(left) });
                let conn = Conn { worker, session: ticket.session, generation: ticket.generation };
                if lost {
                    orders = leases.shared().with(worker, |t| t.refreshed_elsewhere(&key, worker, term, now)).1;
                } else if self.may_tell_early(pool, &asking.name)
                    && let Some(place) = self.pools.get(usize::from(pool))
                    && let leases = &place.config.leases
                    && let Some(key) = leases.key(hash, &asking.name)
                {
                    let claimed = (won && heard).then_some(worker);
                    let refresh = leases.shared().with(worker, |t| t.refresh(&key, (conn, claimed), term, now));
                    (turn, orders) = refresh;
                }
            }
            self.obey(pool, orders);
        }
        if won && !(turn && heard) {
            self.release_lease(pool, &asking.name);
        }
        self.end_wait(link, id, None, turn.then_some(Why::Turn));
    }

    /// A read that was kept back for this is answered: with nil if it is its turn, and else with what it has found.
    pub(super) fn end_keeping(&mut self, held: &Held, kept: &[u8], why: Option<Why>) {
        let turn = why == Some(Why::Turn);
        let Some(place) = self.pools.get_mut(usize::from(held.pool)) else { return };
        place.counts.early_refreshes += u64::from(turn);
        place.counts.misses_leased += u64::from(turn);
        let mut resp3 = false;
        if let Some(session) = self.sessions.get_mut(held.ticket.session as usize)
            && session.generation == held.ticket.generation
        {
            place.counts.client_output_bytes -= session.let_go(kept.len());
            resp3 = session.resp3;
        }
        let mut nil = Vec::new();
        if turn {
            write::null(&mut nil, resp3);
        }
        let told = if turn { &nil } else { kept };
        self.clock(held.pool, held.tag, held.at, told);
        self.complete(held.pool, held.ticket, told, None);
    }

    /// Upkeep: who was kept back for long enough is given what it has found.
    pub(super) fn let_keeps_go(&mut self) {
        let now = self.now;
        while let Some(&(_, link, id)) = self.waits.keeps.front().filter(|(until, ..)| *until <= now) {
            self.waits.keeps.pop_front();
            self.end_wait(link, id, None, None);
        }
    }
}
