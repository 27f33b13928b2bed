//! Writes of keys that have leases: what ends a term, and wakes those who wait.

use super::is_nil;
use crate::command::{self, Access, Class, flag};
use crate::engine::hot::{Becomes, Note};
use crate::engine::line::{Owner, Ticket, Waiter};
use crate::engine::{Engine, LineId};
use crate::resp::{Limits, Request, Resume, request, scan};
use crate::stages::Micros;
use crate::stages::lease::{Conn, Life, Write};

/// Those of them after which there is none.
const DELETES: [&str; 3] = ["del", "unlink", "getdel"];
/// Writes that leave no value where there was none.
const EMPTY: [&str; 9] = ["del", "unlink", "getdel", "expire", "pexpire", "expireat", "pexpireat", "persist", "getex"];

impl Engine {
    /// Notes what a flight that is about to be queued on this connection may write of keys that have leases.
    #[cold]
    pub(in crate::engine) fn note_leased_writes(&mut self, id: LineId, waiter: &Waiter, bytes: &[u8]) {
        let Some(line) = self.lines.get_mut(id as usize) else { return };
        let Some(pool) = self.pools.get(usize::from(line.pool)) else { return };
        let own = matches!(line.owner, Owner::Session(..));
        if line.dialect.db != 0 || (waiter.tag.class() == Class::Local && !own) {
            return;
        }
        let (leases, hot) = (&pool.config.leases, &pool.config.path.hot);
        let mut notes: Vec<Note> = Vec::new();
        let mut guarded: Vec<(Box<[u8]>, bool)> = Vec::new();
        let whole = Request::parse(bytes);
        let spec = whole.as_ref().and_then(|request| command::identify(request).ok());
        let session = self.sessions.get(waiter.ticket.session as usize);
        let multi = session.and_then(|session| session.special.as_ref()).is_some_and(|special| special.multi);
        match (&whole, spec) {
            (Some(_), Some(spec)) if spec.name == "exec" => notes = std::mem::take(&mut line.queued_leased),
            (_, Some(spec)) if spec.flags & flag::PUBSUB != 0 || spec.access != Access::Write => return,
            (Some(request), Some(spec)) => {
                let fills = !EMPTY.contains(&spec.name);
                let mut any = false;
                let named = command::keys(spec, request, &mut |index| {
                    any = true;
                    let key = request.arg(index).unwrap_or_default();
                    if leases.concerns(key) {
                        notes.push(Note::Wrote(hot.hash(key), fills));
                        // A script may do nothing to it.
                        let known = spec.class != Class::Script && leases.guards(key);
                        if known && (fills || DELETES.contains(&spec.name)) {
                            guarded.push((key.into(), !fills));
                        }
                    }
                    if leases.refreshes() && leases.may_refresh(key) {
                        let life = Life::of(spec.name, request);
                        notes.extend(life.map(|life| Note::Lives(hot.hash(key), life)));
                    }
                });
                if named.is_err() || !any || spec.class == Class::Script {
                    notes.push(Note::WroteAny);
                }
            }
            _ if line.arriving => {
                let mut resume = Resume::default();
                let _ = scan(bytes, &mut resume, &Limits::default());
                match request::front(bytes, &resume) {
                    Some(front) if leases.concerns(front.key) => {
                        notes.push(Note::Wrote(hot.hash(front.key), true));
                        // That may stand behind what is not there yet.
                        if leases.refreshes() {
                            notes.push(Note::Lives(hot.hash(front.key), Life::UNKNOWN));
                        }
                    }
                    Some(_) => {}
                    None => notes.push(Note::WroteAny),
                }
            }
            _ => notes.push(Note::WroteAny),
        }
        if own && multi && spec.is_none_or(|spec| spec.name != "exec") {
            // Nothing of a transaction happens before EXEC.
            line.queued_leased.extend(notes.into_iter().filter_map(|note| match note {
                Note::Wrote(hash, fills) => Some(Note::Executed(hash, fills)),
                Note::Lives(hash, _) => {
                    // How long it lives from then on is not known.
                    leases.shared().early().forget(hash);
                    None
                }
                note => Some(note),
            }));
            line.queued_leased.extend(guarded.iter().map(|(key, _)| Note::Overtakes(hot.hash(key))));
            return;
        }
        let serial = line.next_serial();
        let mut executed: Vec<u64> = Vec::new();
        for &note in &notes {
            match note {
                Note::Overtakes(hash) => executed.push(hash),
                note => line.notes.push(serial, note),
            }
        }
        let by = Conn { worker: leases.worker(), session: waiter.ticket.session, generation: waiter.ticket.generation };
        let pool = line.pool;
        for (key, deletes) in guarded {
            self.overtakes(pool, by, &key, deletes);
        }
        executed.into_iter().for_each(|hash| self.overtakes_key(pool, by, hash));
        // What was asked for before it is written must not be answered with what is written.
        for link in self.waits.of(waiter.ticket) {
            // Other threads of its app, as it says itself.
            let Some(held) = self.waits.held.get(link as usize).filter(|held| !held.same_waits || held.kept.is_some())
            else {
                continue;
            };
            let concerns = |note: &Note| match note {
                Note::Wrote(hash, _) | Note::Executed(hash, _) | Note::Lives(hash, _) => *hash == held.hash,
                _ => true,
            };
            if notes.iter().any(concerns) {
                self.give_up_wait(held.pool, held.hash, link, held.id);
            }
        }
    }

    /// A reply came, or never will, of whose flight this was noted. Returns what becomes of it, if
    /// its app is not just given it.
    #[cold]
    pub(in crate::engine) fn leased(
        &mut self,
        id: LineId,
        ticket: Ticket,
        note: Note,
        reply: Option<&[u8]>,
    ) -> Option<Becomes> {
        let line = self.lines.get_mut(id as usize)?;
        let (pool, failed) = (line.pool, reply.is_some_and(|reply| reply.first() == Some(&b'-')));
        match note {
            Note::Miss(hash, at, length) => {
                let missed = reply.is_some_and(is_nil);
                let found = reply.is_some_and(|reply| reply.first() == Some(&b'$')) && !missed;
                let place = self.pools.get(usize::from(pool));
                let refreshes = place.is_some_and(|pool| pool.config.leases.refreshes());
                let warm = place.is_some_and(|pool| pool.warm.is_some());
                let taken = line.notes.take_name(length);
                let mut name = Vec::new();
                if missed || (found && (refreshes || warm)) {
                    name.extend(taken);
                } else {
                    drop(taken);
                }
                if missed {
                    return Some(Becomes::Missed(hash, name));
                }
                if found && warm {
                    self.found_at_home(pool, &name);
                }
                if !failed {
                    self.found(pool, ticket, hash, at, reply);
                }
                if found && refreshes {
                    let draw = self.falls_due(pool, hash, &name)?;
                    return Some(Becomes::Due(hash, name, draw));
                }
            }
            Note::Wrote(hash, fills) if !failed => self.leased_was_written(pool, ticket, Some(hash), fills),
            // One that was given up since what it watched has changed is answered with nil.
            Note::Executed(hash, fills)
                if reply.is_none_or(|reply| reply.first() == Some(&b'*') && reply != b"*-1\r\n") =>
            {
                self.leased_was_written(pool, ticket, Some(hash), fills);
            }
            Note::Lives(hash, life) => {
                let pool = self.pools.get(usize::from(pool))?;
                let early = pool.config.leases.shared().early();
                match reply {
                    Some(reply) if life.failed(reply) => {}
                    Some(_) => early.wrote(hash, life, self.now),
                    None => early.forget(hash),
                }
            }
            // Of a script that fails it is not known how far it came.
            Note::WroteAny => self.leased_was_written(pool, ticket, None, false),
            _ => {}
        }
        None
    }

    /// A write was answered, or may have been carried out: of a key, by its hash, or of any.
    #[cold]
    pub(in crate::engine) fn leased_was_written(&mut self, pool: u16, ticket: Ticket, hash: Option<u64>, fills: bool) {
        let now = self.now;
        let Some(place) = self.pools.get(usize::from(pool)) else { return };
        let leases = &place.config.leases;
        if leases.shared().is_empty() || hash.is_some_and(|hash| !leases.shared().may_have(hash)) {
            return;
        }
        let by = Conn { worker: leases.worker(), session: ticket.session, generation: ticket.generation };
        let ((), orders) = leases.shared().with(by.worker, |table| match hash {
            Some(hash) => table.written(hash, Write { by: Some(by), fills }, now),
            None => table.written_any(now),
        });
        self.obey(pool, orders);
    }

    /// A read of a key that has a lease has found something.
    #[inline]
    pub(in crate::engine) fn found(&mut self, pool: u16, ticket: Ticket, hash: u64, at: u32, reply: Option<&[u8]>) {
        let Some(place) = self.pools.get(usize::from(pool)) else { return };
        if place.config.leases.shared().may_have(hash) {
            self.found_late(pool, ticket, hash, at, reply);
        }
    }

    /// The same where somebody may wait for it.
    #[cold]
    fn found_late(&mut self, pool: u16, ticket: Ticket, hash: u64, at: u32, reply: Option<&[u8]>) {
        let now = self.now;
        let asked: Micros = now.saturating_sub(u64::from((now as u32).wrapping_sub(at)));
        // The session's own earlier reads of it must not be told anything newer.
        for link in self.waits.of_key(ticket, hash) {
            let Some(held) = self.waits.held.get(link as usize) else { continue };
            let id = held.id;
            let Some(place) = self.pools.get(usize::from(pool)) else { return };
            let leases = &place.config.leases;
            let (_, orders) = leases.shared().with(leases.worker(), |table| table.release(hash, id));
            self.end_wait(link, id, reply, None);
            self.obey(pool, orders);
        }
        let Some(place) = self.pools.get(usize::from(pool)) else { return };
        let leases = &place.config.leases;
        let conn = Conn { worker: leases.worker(), session: ticket.session, generation: ticket.generation };
        let ((), orders) = leases.shared().with(conn.worker, |table| {
            table.learnt(hash, conn);
            table.seen(hash, asked, now);
        });
        self.obey(pool, orders);
    }
}
