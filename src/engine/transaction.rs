//! Transactions and blocking commands: what a shard must remember for one app alone.
//!
//! A transaction is carried out by its shard, on a connection of the session's own, in the shard's words; hotring only
//! chooses the shard, by the first key that is named, and sees to it that no key of another shard slips in: such a command
//! is `-CROSSSLOT`, and the shard is made to refuse EXEC (by a command that it must refuse), so that nothing is half done.
//!
//! Order: a session's requests on its own connection and those on shared ones could overtake each other, so it changes from
//! one to the other only when all it has asked for is answered; [`Engine::may_begin`] sees to that.
//!
//! Before its first key a transaction has no shard: MULTI is answered here, and commands without keys are held back.

#![expect(clippy::arithmetic_side_effects, reason = "counters of 64 bits, and sizes of what is in memory")]

use super::plan::Apart;
use super::port::Port;
use super::special::{Pin, Special, mode};
use super::{Engine, SessionId};
use crate::command::{self, Access, Fault, Keys, Local, Need, Spec, Treatment, flag};
use crate::error::{self, CROSS_SHARD, Cause};
use crate::resp::{Limits, Request, Resume, Scan, scan, write};
use crate::stages::Micros;

/// Most bytes of commands that are held back until a transaction has a shard; beyond, it gets the first one.
const MOST_HELD: usize = 64 * 1024;

/// A command that every shard refuses for its form, upon which it also refuses EXEC.
const POISON: &[&[u8]] = &[b"GET"];

impl Engine {
    /// Whether a request may begin now. If not, the session is not read until all before it is answered.
    #[cold]
    pub(super) fn may_begin(
        &mut self,
        id: SessionId,
        named: Result<&'static Spec, &Fault>,
        request: &Request<'_>,
    ) -> bool {
        let Some(session) = self.sessions.get(id as usize) else { return true };
        if session.open_slots() == 0 {
            return true;
        }
        let aside = session.mode & mode::ASIDE != 0 && named.is_ok_and(|spec| self.is_aside(session.pool, spec));
        // A read that is answered from elsewhere, in its own time, must not see what is written behind it, nor may what is read
        // behind it be older.
        let overtakes = session.indirect > 0
            && named.is_ok_and(|spec| {
                spec.access != Access::Read
                    || self.reads_hot(session.pool, spec, request, (session.hot_reads == 0, session.writes == 0))
            });
        let overtakes =
            overtakes || (self.troubles > 0 && named.is_ok_and(|spec| self.is_in_trouble(session.pool, spec, request)));
        let Some(session) = self.sessions.get_mut(id as usize) else { return true };
        // Within a transaction everything goes the same way.
        let within = session.special.as_ref().is_some_and(|s| s.multi && !s.leaving && !s.blocked);
        let turns = aside
            || named.is_ok_and(|spec| {
                spec.flags & flag::SETTLED != 0 && !matches!(command::treatment(spec, request), Treatment::Forward)
            });
        let turns = turns || overtakes;
        let subscribing = session.special.as_ref().is_some_and(|s| s.subscribing);
        let waits = subscribing || if session.mode & mode::PINNED != 0 { !within } else { turns };
        if waits {
            session.paused = true;
            session.mode |= mode::WAITING;
        }
        !waits
    }

    /// A request of a session that is in a transaction, or watches keys. Returns whether it was dealt with; if not it is
    /// carried out as any other.
    pub(super) fn pinned(
        &mut self,
        id: SessionId,
        named: Result<&'static Spec, &Fault>,
        request: &Request<'_>,
        port: &mut impl Port,
    ) -> bool {
        let Some(special) = self.special(id) else { return false };
        let (multi, pin) = (special.multi, special.pin);
        match named {
            // Redis ends a transaction, and its watch, upon an EXEC of whatever form.
            Err(Fault::Arity(spec)) if spec.name == "exec" => {
                self.leave_own(id, port);
                false
            }
            Ok(spec) if matches!(spec.treatment, Treatment::Own(Need::Transaction)) => {
                self.transaction(id, spec, request, port);
                true
            }
            Ok(spec) if matches!(spec.treatment, Treatment::Local(Local::Quit | Local::Reset)) => {
                self.leave_own(id, port);
                false
            }
            named if multi => {
                self.queue(id, named, request, port);
                true
            }
            // A watching session asks the shard that watches for it on the same connection.
            Ok(spec) => {
                let Some(pin) = pin else { return false };
                let treatment = self.treatment(id, spec, request);
                let blocks = matches!(treatment, Treatment::Own(Need::Blocking));
                if !(blocks || matches!(treatment, Treatment::Forward)) {
                    return false;
                }
                match self.home(id, spec, request) {
                    Ok(Some(shard)) if shard == pin.shard => {
                        if blocks {
                            self.set_blocked(id, pin, spec, command::own_wait(spec.name, request));
                        }
                        self.send_own(id, pin, spec, request.wire(), port);
                        true
                    }
                    Ok(Some(_)) if blocks => {
                        self.cannot(id, Apart::SeveralShards);
                        true
                    }
                    _ => false,
                }
            }
            Err(_) => false,
        }
    }

    /// MULTI, EXEC, DISCARD, WATCH and UNWATCH.
    pub(super) fn transaction(
        &mut self,
        id: SessionId,
        spec: &'static Spec,
        request: &Request<'_>,
        port: &mut impl Port,
    ) {
        let Some(session) = self.sessions.get_mut(id as usize) else { return };
        let (multi, sent, pin) = match &session.special {
            Some(special) => (special.multi, special.sent, special.pin),
            None => (false, false, None),
        };
        match spec.name {
            "multi" if multi => self.syntax(id, "ERR MULTI calls can not be nested"),
            "multi" => {
                session.mode |= mode::PINNED;
                let special = session.special();
                (special.multi, special.sent) = (true, pin.is_some());
                match pin {
                    Some(pin) => self.send_own(id, pin, spec, request.wire(), port),
                    None => self.answer_with(id, None, |out| write::simple(out, b"OK")),
                }
            }
            "watch" if multi => self.syntax(id, "ERR WATCH inside MULTI is not allowed"),
            "watch" => self.watch(id, spec, request, port),
            "unwatch" if multi => self.queue(id, Ok(spec), request, port),
            "unwatch" => match (pin, session.special.as_mut()) {
                (Some(pin), Some(special)) => {
                    (special.watching, special.leaving) = (false, true);
                    self.send_own(id, pin, spec, request.wire(), port);
                }
                (_, special) => {
                    if let Some(special) = special {
                        special.leave();
                    }
                    session.unpin_if_plain();
                    self.answer_with(id, None, |out| write::simple(out, b"OK"));
                }
            },
            "discard" if !multi => self.syntax(id, "ERR DISCARD without MULTI"),
            "exec" if !multi => self.syntax(id, "ERR EXEC without MULTI"),
            "exec" => self.exec(id, spec, request, port),
            _ => match (sent, pin) {
                (true, Some(pin)) => self.end_with(id, pin, spec, request, port),
                _ => {
                    self.leave_own(id, port);
                    self.answer_with(id, None, |out| write::simple(out, b"OK"));
                }
            },
        }
    }

    /// EXEC of a session in a transaction.
    fn exec(&mut self, id: SessionId, spec: &'static Spec, request: &Request<'_>, port: &mut impl Port) {
        let Some(session) = self.sessions.get_mut(id as usize) else { return };
        let resp3 = session.resp3;
        let Some(special) = &mut session.special else { return };
        if !special.held.is_empty() && !special.dirty && special.pin.is_none() && !special.lost && !special.watch_lost {
            // Nothing named a key: any shard will do, and the first is one that a reader of the documentation can know.
            let first = self.first_shard(id);
            if self.pin_to(id, first, port).is_none() {
                self.leave_own(id, port);
                return;
            }
        }
        let Some(special) = self.special(id) else { return };
        if let (true, Some(pin), false) = (special.sent, special.pin, special.watch_lost) {
            return self.end_with(id, pin, spec, request, port);
        }
        let (dirty, lost, watch_lost) = (special.dirty, special.lost, special.watch_lost);
        self.leave_own(id, port);
        if lost {
            self.answer_with(id, Some(Cause::Lost), |out| write::error(out, error::TRANSACTION_LOST.as_bytes()));
        } else if dirty {
            let text = b"EXECABORT Transaction discarded because of previous errors.";
            self.answer_with(id, Some(Cause::Syntax), |out| write::error(out, text));
        } else if watch_lost {
            // Nobody can tell whether a watched key changed meanwhile: as if one had.
            self.answer_with(id, None, |out| out.extend_from_slice(if resp3 { b"_\r\n" } else { b"*-1\r\n" }));
        } else {
            self.answer_with(id, None, |out| write::array(out, 0));
        }
    }

    /// EXEC or DISCARD, upon whose reply the connection is given back.
    fn end_with(&mut self, id: SessionId, pin: Pin, spec: &'static Spec, request: &Request<'_>, port: &mut impl Port) {
        if let Some(special) = self.special(id) {
            special.leaving = true;
        }
        self.send_own(id, pin, spec, request.wire(), port);
    }

    fn watch(&mut self, id: SessionId, spec: &'static Spec, request: &Request<'_>, port: &mut impl Port) {
        let shard = match self.home(id, spec, request) {
            Ok(shard) => shard.unwrap_or_else(|| self.first_shard(id)),
            Err(apart) => return self.cannot(id, apart),
        };
        let pin = match self.special(id).and_then(|special| special.pin) {
            Some(pin) if pin.shard != shard => return self.cannot(id, Apart::SeveralShards),
            Some(pin) => pin,
            None => match self.acquire(id, shard, port) {
                Some(pin) => pin,
                None => return self.exhausted(id, shard),
            },
        };
        let Some(session) = self.sessions.get_mut(id as usize) else { return };
        session.mode |= mode::PINNED;
        let special = session.special();
        (special.pin, special.watching) = (Some(pin), true);
        self.send_own(id, pin, spec, request.wire(), port);
    }

    /// A command within a transaction.
    fn queue(
        &mut self,
        id: SessionId,
        named: Result<&'static Spec, &Fault>,
        request: &Request<'_>,
        port: &mut impl Port,
    ) {
        let Some(special) = self.special(id) else { return };
        let pin = special.pin.filter(|_| special.sent);
        if special.lost {
            return self
                .answer_with(id, Some(Cause::Lost), |out| write::error(out, error::TRANSACTION_LOST.as_bytes()));
        }
        let spec = match named {
            Ok(spec) => spec,
            Err(fault) => {
                self.faulty(id, request, fault);
                return self.spoil(id, port);
            }
        };
        self.note_script(spec, request);
        if let Some(special) = self.special(id) {
            special.queued += 1;
        }
        let home = match self.treatment(id, spec, request) {
            Treatment::Refuse(why) => {
                self.unsupported(id, why.text());
                return self.spoil(id, port);
            }
            Treatment::Local(Local::Ping | Local::Echo | Local::Time) | Treatment::Own(Need::Transaction) => Ok(None),
            Treatment::Broadcast(_) if !self.has_several_shards(id) => Ok(Some(self.first_shard(id))),
            Treatment::Local(_) | Treatment::Own(Need::Subscription) | Treatment::Broadcast(_) => {
                self.unsupported(id, error::NOT_IN_TRANSACTION);
                return self.spoil(id, port);
            }
            Treatment::Publish => self.common_home(id, spec, &[1], request).map(|(_, shard)| Some(shard)),
            Treatment::Forward | Treatment::Split(_) | Treatment::Own(Need::Blocking) => self.home(id, spec, request),
        };
        let pin = match (home, pin) {
            (Err(apart), _) => {
                self.cannot(id, apart);
                return self.spoil(id, port);
            }
            (Ok(None), None) => {
                let wire = request.wire();
                let room = self.special(id).is_some_and(|s| s.held.len() + wire.len() <= MOST_HELD);
                if room {
                    if let Some(special) = self.special(id) {
                        special.held.extend_from_slice(wire);
                    }
                    return self.answer_with(id, None, |out| write::simple(out, b"QUEUED"));
                }
                let first = self.first_shard(id);
                self.pin_to(id, first, port)
            }
            (Ok(None), Some(pin)) => Some(pin),
            (Ok(Some(shard)), None) => self.pin_to(id, shard, port),
            (Ok(Some(shard)), Some(pin)) if shard != pin.shard => {
                self.cannot(id, Apart::SeveralShards);
                return self.spoil(id, port);
            }
            (Ok(Some(_)), Some(pin)) => Some(pin),
        };
        if let Some(pin) = pin {
            self.send_own(id, pin, spec, request.wire(), port);
        }
    }

    /// Gives a transaction its shard: MULTI, and whatever was held back. Answers with an error if it cannot.
    fn pin_to(&mut self, id: SessionId, shard: u16, port: &mut impl Port) -> Option<Pin> {
        let Some(pin) = self.acquire(id, shard, port) else {
            self.exhausted(id, shard);
            self.spoil(id, port);
            return None;
        };
        let special = self.special(id)?;
        (special.pin, special.sent) = (Some(pin), true);
        let (held, dirty) = (std::mem::take(&mut special.held), special.dirty);
        let mut wire = Vec::new();
        write::request(&mut wire, &[b"MULTI"]);
        self.send_for_nobody(id, pin.line, &wire, port);
        let mut rest = held.as_slice();
        while let Ok(Scan::Request(request)) = scan(rest, &mut Resume::default(), &Limits::default()) {
            let wire = request.wire();
            self.send_for_nobody(id, pin.line, wire, port);
            rest = rest.get(wire.len()..).unwrap_or_default();
        }
        if dirty {
            self.spoil(id, port);
        }
        Some(pin)
    }

    /// Sees to it that EXEC will be refused.
    pub(super) fn spoil(&mut self, id: SessionId, port: &mut impl Port) {
        // Where the transaction is: in a branch, if the session's keys live elsewhere.
        let id = self.bound_branch(id).unwrap_or(id);
        let Some(special) = self.special(id).filter(|special| special.multi) else { return };
        special.dirty = true;
        if let (Some(pin), true) = (special.pin, special.sent) {
            let mut wire = Vec::new();
            write::request(&mut wire, POISON);
            self.send_for_nobody(id, pin.line, &wire, port);
        }
    }

    /// A command that may wait for something to happen.
    pub(super) fn block(&mut self, id: SessionId, spec: &'static Spec, request: &Request<'_>, port: &mut impl Port) {
        let shard = match self.home(id, spec, request) {
            Ok(Some(shard)) => shard,
            // WAIT: each shard would tell of its own replicas.
            Ok(None) if self.has_several_shards(id) || self.has_routes(id) => {
                return self.unsupported(id, error::ONE_SHARD_ONLY);
            }
            Ok(None) => self.first_shard(id),
            Err(apart) => return self.cannot(id, apart),
        };
        // A session that watches keeps the connection that watches for it.
        let pin = match self.special(id).and_then(|special| special.pin) {
            Some(pin) if pin.shard == shard => pin,
            Some(_) => return self.cannot(id, Apart::SeveralShards),
            None => match self.acquire(id, shard, port) {
                Some(pin) => pin,
                None => return self.exhausted(id, shard),
            },
        };
        if matches!(spec.keys, Keys::None) {
            // It asks for what went before on its own connection: this makes that all that went before at the shard.
            let mut wire = Vec::new();
            write::request(&mut wire, &[b"PING"]);
            self.send_for_nobody(id, pin.line, &wire, port);
        }
        if let Some(session) = self.sessions.get_mut(id as usize) {
            session.mode |= mode::PINNED;
            session.special().pin = Some(pin);
        }
        self.set_blocked(id, pin, spec, command::own_wait(spec.name, request));
        self.send_own(id, pin, spec, request.wire(), port);
    }

    fn set_blocked(&mut self, id: SessionId, pin: Pin, spec: &'static Spec, waits: Option<Micros>) {
        self.blocked += 1;
        if let Some(line) = self.lines.get_mut(pin.line as usize) {
            (line.patient, line.waits) = (true, waits);
        }
        if let Some(special) = self.special(id) {
            (special.blocked, special.waits_in) = (true, spec.name);
        }
    }

    /// The one shard of a request's keys; `None` when it names none.
    pub(super) fn home(
        &mut self,
        id: SessionId,
        spec: &'static Spec,
        request: &Request<'_>,
    ) -> Result<Option<u16>, Apart> {
        if matches!(spec.keys, Keys::None) {
            return Ok(None);
        }
        let mut keys = std::mem::take(&mut self.plan.keys);
        keys.clear();
        let home = match command::keys(spec, request, &mut |index| keys.push(index as u32)) {
            Err(text) => Err(Apart::Malformed(text)),
            Ok(()) if keys.is_empty() => Ok(None),
            Ok(()) => {
                keys.sort_unstable();
                self.common_home(id, spec, &keys, request).map(|(_, shard)| Some(shard))
            }
        };
        self.plan.keys = keys;
        match home {
            Ok(Some(shard)) if self.stands_in(id, shard) => Err(Self::no_stand_in(shard)),
            home => home,
        }
    }

    /// The shard for what names no key: the one where all keys live, or the first.
    pub(super) fn first_shard(&self, id: SessionId) -> u16 {
        let pool = self.sessions.get(id as usize).and_then(|session| self.pools.get(usize::from(session.pool)));
        pool.and_then(|pool| pool.first_shard()).unwrap_or(0)
    }

    /// Tells why a request cannot go to one shard.
    pub(super) fn cannot(&mut self, id: SessionId, apart: Apart) {
        match apart {
            Apart::Refused(reason, shard) => self.refused(id, reason, shard),
            Apart::SeveralShards => {
                self.answer_with(id, Some(Cause::CrossShard), |out| write::error(out, CROSS_SHARD.as_bytes()));
            }
            Apart::NoRoom => self.no_room(id),
            Apart::Malformed(text) => self.syntax(id, text),
        }
    }

    /// All connections that sessions may have for themselves are in use.
    pub(super) fn exhausted(&mut self, id: SessionId, shard: u16) {
        let Some(session) = self.sessions.get(id as usize) else { return };
        let Some(pool) = self.pools.get(usize::from(session.pool)) else { return };
        if pool.config.path.route.shards().is_empty() {
            return self.refused(id, pool.nobody(), shard);
        }
        let name = pool.config.shards.get(usize::from(shard)).map_or("", String::as_str);
        let text =
            format!("ERR all {} dedicated connections to shard {name} are in use; nothing was sent", pool.config.own);
        self.answer_with(id, Some(Cause::Exhausted), |out| write::error(out, text.as_bytes()));
    }

    fn syntax(&mut self, id: SessionId, text: &str) {
        self.answer_with(id, Some(Cause::Syntax), |out| write::error(out, text.as_bytes()));
    }

    pub(super) fn unsupported(&mut self, id: SessionId, text: &str) {
        self.answer_with(id, Some(Cause::Unsupported), |out| write::error(out, text.as_bytes()));
    }

    fn special(&mut self, id: SessionId) -> Option<&mut Special> {
        self.sessions.get_mut(id as usize)?.special.as_deref_mut()
    }
}
