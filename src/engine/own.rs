//! Connections that a session has for itself, for as long as a command or a transaction needs the shard to remember it.
//!
//! A shelf for each shard keeps what is not in use, clean: nothing is watched, no transaction is open, and all that was
//! asked on it is answered or its answer awaited for nobody. A session that leaves in the midst of something is tidied up
//! after (DISCARD, UNWATCH); one that leaves while its command blocks takes the connection with it, as the shard would
//! else hand an element to nobody.
//!
//! Bounded by `dedicated_connections` for each shard and worker. When all are in use, a request that needs one is refused at once:
//! a queue here would hold transactions behind commands that may block for ever. Those unused for [`REST`] are closed.

#![expect(clippy::arithmetic_side_effects, reason = "numbers of connections, which the config bounds")]

use super::line::{Dialect, Line, Owner, State, Ticket, Waiter};
use super::port::Port;
use super::special::{Pin, mode};
use super::{Engine, LineId, SessionId};
use crate::command::{Class, Spec, Tag};
use crate::error::{Cause, Failure};
use crate::resp::write;
use crate::stages::Micros;

/// How long an unused connection is kept, in microseconds.
const REST: Micros = 10_000_000;

/// A shard's connections that are for one session at a time.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    /// Those that are nobody's, and since when. The last is taken first, so that the first can grow old.
    free: Vec<(LineId, Micros)>,
    /// Numbers of those that have ended.
    ended: Vec<LineId>,
    /// Those in use or free.
    live: usize,
}

/// Whether a connection that is nobody's can be handed on as it is. One that a session has left before it was told all
/// cannot: whoever takes it may have to close it.
fn is_ready(line: &Line, dialect: Dialect) -> bool {
    let owed = |waiter: &Waiter| !matches!(waiter.part, Waiter::NOBODYS | Waiter::MUST_DO);
    line.dialect == dialect && !line.waiters.iter().any(owed)
}

impl Engine {
    /// Connections of all shards that sessions have for themselves now, or had and left open, by pool.
    #[must_use]
    pub fn own_connections(&self, pool: u16) -> usize {
        self.pools.get(usize::from(pool)).map_or(0, |pool| pool.own.iter().map(|shelf| shelf.live).sum())
    }

    /// Whether [`Engine::acquire`] would find a connection.
    pub(super) fn can_acquire(&self, id: SessionId, shard: u16) -> bool {
        let Some(session) = self.sessions.get(id as usize) else { return false };
        let Some(pool) = self.pools.get(usize::from(session.pool)) else { return false };
        let Some(shelf) = pool.own.get(usize::from(shard)) else { return false };
        let dialect = pool.dialect(session.base);
        let fits = |line: &Line| is_ready(line, dialect) || line.waiters.is_empty();
        shelf.live < pool.config.own
            || shelf.free.iter().any(|&(line, _)| self.lines.get(line as usize).is_some_and(fits))
    }

    /// A connection to `shard` for this session alone; `None` when there are as many as there may be.
    pub(super) fn acquire(&mut self, id: SessionId, shard: u16, port: &mut impl Port) -> Option<Pin> {
        let session = self.sessions.get(id as usize)?;
        let number = session.pool;
        let owner = Owner::Session(id, session.generation);
        let pool = self.pools.get_mut(usize::from(number))?;
        let dialect = pool.dialect(session.base);
        let most = pool.config.own;
        let shelf = pool.own.get_mut(usize::from(shard))?;
        let alike = |line: LineId| self.lines.get(line as usize).is_some_and(|line| is_ready(line, dialect));
        let line = if let Some(at) = shelf.free.iter().rposition(|&(line, _)| alike(line)) {
            shelf.free.remove(at).0
        } else {
            if shelf.live >= most {
                // One of another protocol or database makes room, unless someone still waits for replies on it.
                let at_rest = |line: LineId| self.lines.get(line as usize).is_some_and(|line| line.waiters.is_empty());
                let at = shelf.free.iter().rposition(|&(line, _)| at_rest(line))?;
                let (other, _) = shelf.free.remove(at);
                self.dismiss(other, port);
            }
            let pool = self.pools.get_mut(usize::from(number))?;
            let shelf = pool.own.get_mut(usize::from(shard))?;
            shelf.live += 1;
            shelf.ended.pop().unwrap_or_else(|| {
                // No stage knows it by a number: health is told by the shared ones, and nobody joins what goes on it.
                self.lines.push(Line::new(number, shard, u32::MAX, dialect));
                self.lines.len() as LineId - 1
            })
        };
        let in_cluster = self.pools.get(usize::from(number)).is_some_and(|pool| pool.cluster.is_some());
        let place = self.lines.get_mut(line as usize)?;
        // One that is older may be of a pool that was no cluster's then.
        if place.asked.is_some() != in_cluster {
            place.asked = in_cluster.then(Box::default);
        }
        place.dialect = dialect;
        place.owner = owner;
        place.arriving = false;
        Some(Pin { line, shard })
    }

    /// The shelf of a connection that is for one session at a time.
    fn shelf(&mut self, id: LineId) -> Option<&mut Shelf> {
        let line = self.lines.get(id as usize)?;
        self.pools.get_mut(usize::from(line.pool))?.own.get_mut(usize::from(line.shard))
    }

    /// Takes a connection off its shelf for good.
    fn take_off(&mut self, id: LineId) {
        if let Some(shelf) = self.shelf(id) {
            shelf.live = shelf.live.saturating_sub(1);
            shelf.free.retain(|&(line, _)| line != id);
        }
    }

    /// Puts a connection back on its shelf. Whatever is still to come on it comes before what the next session asks.
    pub(super) fn give_back(&mut self, id: LineId) {
        let Some(line) = self.lines.get_mut(id as usize) else { return };
        line.owner = Owner::Free;
        line.queued_writes.clear();
        line.queued_leased.clear();
        (line.patient, line.arriving) = (false, false);
        let now = self.now;
        if let Some(shelf) = self.shelf(id) {
            shelf.free.push((id, now));
        }
    }

    /// Ends a connection that is nobody's any more, whatever it waits for.
    pub(super) fn dismiss(&mut self, id: LineId, port: &mut impl Port) {
        let Some(line) = self.lines.get_mut(id as usize) else { return };
        let open = line.state != State::Idle;
        let lost = line.drain();
        let paused = std::mem::take(&mut line.paused);
        line.owner = Owner::Free;
        (line.patient, line.arriving) = (false, false);
        line.state = State::Down(Failure { cause: Cause::Lost, reason: "given up" });
        self.in_flight = self.in_flight.saturating_sub(lost.len() as u32);
        self.take_off(id);
        if open {
            port.give_up(id);
        } else {
            self.ended(id);
        }
        self.drop_notes(id);
        // There is no outbox any more that they could wait for.
        self.resume(&paused, port);
    }

    /// Whether nobody wants this connection any more though its task still runs.
    #[must_use]
    pub fn is_given_up(&self, id: LineId) -> bool {
        self.lines.get(id as usize).is_none_or(|line| line.owner == Owner::Free && matches!(line.state, State::Down(_)))
    }

    /// Whether a connection has failed and is being tried again.
    #[must_use]
    pub fn is_down(&self, id: LineId) -> bool {
        self.lines.get(id as usize).is_some_and(|line| matches!(line.state, State::Down(_)))
    }

    /// Whether a connection is to be left alone until it is asked for: its shard is the pool's no more, and nobody who asked
    /// before waits on it.
    #[must_use]
    pub fn is_retired(&self, id: LineId) -> bool {
        self.lines.get(id as usize).is_some_and(|line| line.retired && line.waiters.is_empty())
    }

    /// The shell's task for a session's own connection has ended; its number may be used again.
    pub fn ended(&mut self, id: LineId) {
        let Some(line) = self.lines.get_mut(id as usize) else { return };
        line.state = State::Idle;
        if !matches!(line.owner, Owner::Shared | Owner::Ear | Owner::Tracker)
            && let Some(shelf) = self.shelf(id)
        {
            shelf.ended.push(id);
        }
    }

    /// A connection that is for one session at a time broke, or its server closed it: it leaves the shelf, and the session
    /// that has it is told.
    pub(super) fn own_lost(&mut self, id: LineId) {
        let Some(line) = self.lines.get_mut(id as usize) else { return };
        let owner = std::mem::replace(&mut line.owner, Owner::Free);
        let blocked = std::mem::take(&mut line.patient);
        line.arriving = false;
        let pool = line.pool;
        self.close_all_shared(pool);
        self.take_off(id);
        if blocked {
            self.blocked = self.blocked.saturating_sub(1);
        }
        if let Owner::Session(session, generation) = owner
            && let Some(session) = self.sessions.get_mut(session as usize)
            && session.generation == generation
            && let Some(special) = &mut session.special
        {
            special.lost();
            session.unpin_if_plain();
        }
    }

    /// A reply came on a connection of a session's own: perhaps the last it needed it for.
    pub(super) fn own_answered(&mut self, id: LineId, port: &mut impl Port) {
        let Some(line) = self.lines.get_mut(id as usize) else { return };
        let Owner::Session(owner, generation) = line.owner else { return };
        let pool = line.pool;
        if !line.waiters.is_empty() {
            return;
        }
        self.close_all_shared(pool);
        let Some(line) = self.lines.get_mut(id as usize) else { return };
        if std::mem::take(&mut line.patient) {
            self.blocked = self.blocked.saturating_sub(1);
        }
        let unheard = std::mem::take(&mut line.arriving);
        let Some(session) = self.sessions.get_mut(owner as usize).filter(|s| s.generation == generation) else {
            // One of several that a session had which has ended.
            return self.give_back(id);
        };
        let Some(special) = &mut session.special else { return };
        if special.pin.is_none_or(|pin| pin.line != id) {
            // One of several that carry a command for all shards.
            if session.open_slots() == 0 {
                session.unpin_if_plain();
            }
            return self.give_back(id);
        }
        special.blocked = false;
        if special.leaving || !(special.multi || special.watching) {
            // A watch that was lost before is not made good by another command.
            let watch_lost = special.watch_lost && !special.leaving;
            special.leave();
            special.watch_lost = watch_lost;
            session.unpin_if_plain();
            if unheard {
                // It did not wait for the end of the request, and so would take what comes next for that.
                self.dismiss(id, port);
            } else {
                self.give_back(id);
            }
        }
    }

    /// Takes a session's own connection along to the protocol and the database that the session has changed to since it has
    /// it: what the shard remembers, it remembers for the connection.
    pub(super) fn follow(&mut self, id: SessionId, on: LineId, port: &mut impl Port) {
        let Some(session) = self.sessions.get(id as usize) else { return };
        let Some(wanted) = self.pools.get(usize::from(session.pool)).map(|pool| pool.dialect(session.base)) else {
            return;
        };
        let Some(line) = self.lines.get_mut(on as usize) else { return };
        let now = std::mem::replace(&mut line.dialect, wanted);
        let mut wire = Vec::new();
        if now.db != wanted.db {
            // Counted as apps do: a pool with a database of its own has no other one.
            write::request(&mut wire, &[b"SELECT", wanted.db.to_string().as_bytes()]);
            self.send_unasked(id, on, &wire, Waiter::MUST_DO, port);
        }
        if now.resp3 != wanted.resp3 {
            wire.clear();
            write::request(&mut wire, &[b"HELLO", if wanted.resp3 { b"3" } else { b"2" }]);
            self.send_unasked(id, on, &wire, Waiter::MUST_DO, port);
        }
    }

    /// Sends a request on the session's own connection.
    pub(super) fn send_own(&mut self, id: SessionId, pin: Pin, spec: &'static Spec, wire: &[u8], port: &mut impl Port) {
        self.follow(id, pin.line, port);
        let Some((_, ticket)) = self.open_slot(id) else { return };
        let waiter = Waiter { part: self.part_on(pin.line), ..self.waiter(ticket, spec) };
        self.send(pin.line, waiter, wire, port);
    }

    /// How a reply on this connection is accounted for: one that may wait as long as it likes tells no latency.
    fn part_on(&self, line: LineId) -> u16 {
        if self.lines.get(line as usize).is_some_and(|line| line.patient) { Waiter::UNTIMED } else { Waiter::WHOLE }
    }

    /// Sends a command of the proxy's own on a session's own connection; its reply is for nobody.
    pub(super) fn send_for_nobody(&mut self, id: SessionId, line: LineId, wire: &[u8], port: &mut impl Port) {
        self.send_unasked(id, line, wire, Waiter::NOBODYS, port);
    }

    fn send_unasked(&mut self, id: SessionId, line: LineId, wire: &[u8], part: u16, port: &mut impl Port) {
        let generation = self.sessions.get(id as usize).map_or(0, |s| s.generation);
        let ticket = Ticket { session: id, generation, slot: 0 };
        let waiter =
            Waiter { ticket, at: self.now as u32, link: Waiter::NOBODY, part, tag: Tag::nameless(Class::Local) };
        self.send(line, waiter, wire, port);
    }

    /// Carries what a session's own connection was asked, and was not answered there, on one to another shard. Returns that; none, and
    /// nothing is changed, if the session needs this one for more than that, or there is none to be had.
    pub(super) fn move_own(&mut self, id: LineId, shard: u16, port: &mut impl Port) -> Option<LineId> {
        let line = self.lines.get(id as usize).filter(|line| line.waiters.is_empty())?;
        let Owner::Session(owner, generation) = line.owner else { return None };
        let session = self.sessions.get_mut(owner as usize).filter(|session| session.generation == generation)?;
        let special = session.special.as_ref()?;
        if special.multi || special.watching || special.leaving || special.pin.is_none_or(|pin| pin.line != id) {
            return None;
        }
        let pin = self.acquire(owner, shard, port)?;
        let line = self.lines.get_mut(id as usize)?;
        let patience = (std::mem::take(&mut line.patient), line.waits);
        self.give_back(id);
        self.follow(owner, pin.line, port);
        if let Some(line) = self.lines.get_mut(pin.line as usize) {
            (line.patient, line.waits) = patience;
        }
        self.sessions.get_mut(owner as usize)?.special().pin = Some(pin);
        Some(pin.line)
    }

    /// A session that has a connection of its own leaves it: as it ends, or resets itself.
    pub(super) fn leave_own(&mut self, id: SessionId, port: &mut impl Port) {
        if let Some(branch) = self.bound_branch(id) {
            self.leave_own(branch, port);
        }
        let Some(session) = self.sessions.get_mut(id as usize) else { return };
        session.mode &= !mode::PINNED;
        let Some(special) = &mut session.special else { return };
        let (pin, blocked) = (special.pin, special.blocked);
        let broken = pin.is_some_and(|pin| self.lines.get(pin.line as usize).is_some_and(|line| line.arriving));
        let undo: &[&[u8]] = match (special.sent, special.leaving, special.watching) {
            (true, false, _) => &[b"DISCARD"],
            (_, _, true) => &[b"UNWATCH"],
            _ => &[],
        };
        special.leave();
        let Some(pin) = pin else { return };
        if blocked {
            self.blocked = self.blocked.saturating_sub(1);
        }
        if blocked || broken {
            return self.dismiss(pin.line, port);
        }
        if !undo.is_empty() {
            let mut wire = Vec::new();
            write::request(&mut wire, undo);
            self.send_for_nobody(id, pin.line, &wire, port);
        }
        self.give_back(pin.line);
    }

    /// Ends the wait of a session's blocking command: as if its time were over, or with an error. Returns whether it waited.
    ///
    /// The shard is not asked, since nobody there could be: its connection is given up, and what it watched with it.
    pub(super) fn unblock(&mut self, id: SessionId, with_error: bool, port: &mut impl Port) -> bool {
        let Some(session) = self.sessions.get_mut(id as usize) else { return false };
        let (number, generation, resp3) = (session.pool, session.generation, session.resp3);
        let Some(special) = session.special.as_mut().filter(|special| special.blocked) else { return false };
        let (Some(pin), waits_in) = (special.pin, special.waits_in) else { return false };
        let waiters = self.lines.get(pin.line as usize).map(|line| &line.waiters);
        let Some(ticket) = waiters.and_then(|waiters| waiters.back()).map(|waiter| waiter.ticket) else { return false };
        if (ticket.session, ticket.generation) != (id, generation) {
            return false;
        }
        special.lost();
        session.unpin_if_plain();
        self.blocked = self.blocked.saturating_sub(1);
        self.dismiss(pin.line, port);
        let mut reply = self.spare.take();
        match waits_in {
            _ if with_error => write::error(&mut reply, b"UNBLOCKED client unblocked via CLIENT UNBLOCK"),
            "wait" => write::integer(&mut reply, 0),
            "waitaof" => reply.extend_from_slice(b"*2\r\n:0\r\n:0\r\n"),
            _ => write::null_array(&mut reply, resp3),
        }
        self.complete(number, ticket, &reply, None);
        self.spare.put(reply);
        true
    }

    /// Closes what has not been used for long.
    pub(super) fn age_own(&mut self, port: &mut impl Port) {
        let now = self.now;
        for number in 0..self.pools.len() {
            let Some(pool) = self.pools.get_mut(number) else { return };
            let retired = |line: LineId| self.lines.get(line as usize).is_some_and(|line| line.retired);
            let old =
                |&(line, since): &(LineId, Micros)| (now.saturating_sub(since) > REST || retired(line)).then_some(line);
            let aged: Vec<LineId> = pool.own.iter().flat_map(|shelf| shelf.free.iter().filter_map(old)).collect();
            for line in aged {
                // One whose tidying up is still to be answered is not at rest.
                if self.lines.get(line as usize).is_some_and(|line| line.waiters.is_empty()) {
                    self.dismiss(line, port);
                }
            }
        }
    }
}
