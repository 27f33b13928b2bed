//! Commands that are known to take long, on a connection of the session's own, so that nobody else's requests wait behind them.
//!
//! A pool names them (`slow_commands`); there are none by default. One is carried as a command that blocks is, with the same
//! order: it begins when all that its session asked for before is answered, and what the session asks next waits for its
//! reply. Unlike one that blocks it has the pool's `timeout`. A shard that is a single thread does one thing at a time all the
//! same; where it is a proxy itself or has threads, the others' requests are done meanwhile, and a timeout costs nobody else
//! a connection.
//!
//! A command for all shards is carried so to each of them. Where no connection is to be had it goes on the shared one, as
//! without this: better late than refused. What is split by its keys always does.

#![expect(clippy::arithmetic_side_effects, reason = "a count of what happened does not overflow in a process' life")]
use super::line::Waiter;
use super::merge::Gather;
use super::port::Port;
use super::special::{Pin, mode};
use super::{Engine, SessionId};
use crate::command::{Class, Merge, Spec, Treatment};
use crate::resp::Request;

impl Engine {
    /// Whether a session of this pool carries a command aside.
    pub(super) fn is_aside(&self, pool: u16, spec: &'static Spec) -> bool {
        let pool = self.pools.get(usize::from(pool));
        pool.is_some_and(|pool| {
            pool.config.aside.iter().any(|&slow| std::ptr::eq(slow, spec) || slow.name == spec.name)
        })
    }

    /// The bit of a session's mode that makes its requests ask for this.
    pub(super) fn mark_aside(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(id as usize) else { return };
        // What a branch has begun it ends, also where there are no routes any more.
        let some = self.pools.get(usize::from(session.pool)).is_some_and(|pool| pool.looks_at_requests())
            || session.has_branches();
        session.mode = session.mode & !mode::ASIDE | if some { mode::ASIDE } else { 0 };
    }

    /// Carries a request of a session, which waits for nothing, on a connection of its own. Returns whether it did.
    #[cold]
    pub(super) fn aside(
        &mut self,
        id: SessionId,
        spec: &'static Spec,
        request: &Request<'_>,
        port: &mut impl Port,
    ) -> bool {
        let Some(session) = self.sessions.get(id as usize) else { return true };
        if session.open_slots() > 0 || !self.is_aside(session.pool, spec) {
            return false;
        }
        match self.treatment(id, spec, request) {
            Treatment::Broadcast(merge) if self.has_several_shards(id) => {
                self.all_aside(id, spec, merge, request, port)
            }
            Treatment::Forward | Treatment::Broadcast(_) => {
                let shard = match self.home(id, spec, request) {
                    Ok(shard) => shard.unwrap_or_else(|| self.first_shard(id)),
                    // It is told why in the usual way.
                    Err(_) => return false,
                };
                if self.line_to(id, shard).is_err() || !self.can_acquire(id, shard) {
                    return false;
                }
                let Some(pin) = self.acquire(id, shard, port) else { return false };
                let Some(session) = self.sessions.get_mut(id as usize) else { return true };
                session.mode |= mode::PINNED;
                session.special().pin = Some(pin);
                self.follow(id, pin.line, port);
                let Some((_, ticket)) = self.open_slot(id) else { return true };
                let mut waiter = self.waiter(ticket, spec);
                if spec.class == Class::Script {
                    self.note_script(spec, request);
                    self.attempt(spec, request, &mut waiter);
                }
                self.send(pin.line, waiter, request.wire(), port);
                true
            }
            _ => false,
        }
    }

    /// The same for a command that goes to every shard.
    fn all_aside(
        &mut self,
        id: SessionId,
        spec: &'static Spec,
        merge: Merge,
        request: &Request<'_>,
        port: &mut impl Port,
    ) -> bool {
        // One shard after the other, or several requests to each: those have their own ways.
        if matches!(merge, Merge::InTurn | Merge::Draw) {
            return false;
        }
        let Some(session) = self.sessions.get(id as usize) else { return true };
        let Some(pool) = self.pools.get(usize::from(session.pool)) else { return true };
        let room = pool.config.bounds.output;
        let shards: Vec<u16> = pool.config.path.route.shards().to_vec();
        if shards.is_empty()
            || shards.iter().any(|&shard| self.line_to(id, shard).is_err() || !self.can_acquire(id, shard))
        {
            return false;
        }
        self.note_script(spec, request);
        let pins: Vec<Pin> = shards.iter().filter_map(|&shard| self.acquire(id, shard, port)).collect();
        let Some((number, ticket)) = self.open_slot(id) else { return true };
        let mut waiter = self.waiter(ticket, spec);
        let parts = pins.len() as u16;
        let gather = Gather::over_shards(ticket, waiter.at, spec.tag, merge, parts, room, 0);
        waiter.link = self.gathers.insert(gather) as u32;
        if let Some(pool) = self.pools.get_mut(usize::from(number)) {
            pool.counts.fragments += u64::from(parts);
        }
        if let Some(session) = self.sessions.get_mut(id as usize) {
            // It waits for all of them; none of them is the one that it has for itself.
            session.mode |= mode::PINNED;
            session.special();
        }
        for (part, pin) in (0..).zip(pins) {
            self.follow(id, pin.line, port);
            self.send(pin.line, Waiter { part, ..waiter }, request.wire(), port);
        }
        true
    }
}
