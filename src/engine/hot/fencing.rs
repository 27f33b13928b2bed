//! Tells the fence of every write that this worker sends, and of its reply; and keeps a session's own requests in order where
//! some of them are answered from elsewhere.
//!
//! All that goes to a shard passes [`Engine::send`](super::super::Engine), and there whatever is no plain read is looked at
//! once more: so nothing that writes can be forgotten, however it came there. A write within a transaction counts from when
//! EXEC is sent, as nothing happens before. Only in pools that answer from elsewhere at all.

use super::Note;
use crate::command::{self, Access, Class, Spec, flag};
use crate::engine::line::{Owner, Ticket, Waiter};
use crate::engine::misses::WHOLE;
use crate::engine::{Engine, LineId, SessionId};
use crate::resp::reply::Elements;
use crate::resp::{Limits, Request, Resume, request, scan};
use crate::stages::hot::Place;

/// What becomes of a reply of whose flight something was noted.
#[derive(Debug)]
pub(in crate::engine) enum Becomes {
    /// It is given to whom it is for.
    Told,
    /// It waits, under this number.
    Withheld(u32),
    /// It says that a key that has a lease is not there: the key's hash, and the key.
    Missed(u64, Vec<u8>),
    /// It may be told that a key is not there though it is, as its time is almost up: the key's hash, the key, and the number drawn.
    Due(u64, Vec<u8>, u64),
}

/// The elements of a reply, where they are asked for in their order: each is looked at once.
struct Walk<'a> {
    reply: Option<&'a [u8]>,
    elements: Option<Elements<'a>>,
    next: u32,
    last: Option<&'a [u8]>,
}

impl<'a> Walk<'a> {
    fn new(reply: Option<&'a [u8]>) -> Self {
        Self { reply, elements: None, next: 0, last: None }
    }

    /// The element with this number, if there is one. Of one element several things may be noted.
    fn element(&mut self, number: u32) -> Option<&'a [u8]> {
        if self.elements.is_none() || number.saturating_add(1) < self.next {
            (self.elements, self.next, self.last) = (self.reply.and_then(Elements::of), 0, None);
        }
        while self.next <= number {
            self.last = self.elements.as_mut().and_then(Iterator::next);
            self.last?;
            self.next = self.next.saturating_add(1);
        }
        self.last
    }
}

impl Engine {
    /// Notes what a flight that is about to be queued on this connection may change.
    #[cold]
    pub(in crate::engine) fn note_writes(&mut self, id: LineId, waiter: &Waiter, bytes: &[u8]) {
        let now = self.now;
        let Some(line) = self.lines.get_mut(id as usize) else { return };
        let Some(pool) = self.pools.get_mut(usize::from(line.pool)) else { return };
        if pool.config.leases.is_on() {
            self.note_leased_writes(id, waiter, bytes);
        }
        self.close_shared(id, bytes);
        let Some(line) = self.lines.get_mut(id as usize) else { return };
        let Some(pool) = self.pools.get_mut(usize::from(line.pool)) else { return };
        let hot = &mut pool.config.path.hot;
        // What the proxy says for its own sake on shared connections changes no key that anyone is answered for from here.
        let own = matches!(line.owner, Owner::Session(..));
        if !hot.serves() || (waiter.tag.class() == Class::Local && !own) {
            return;
        }
        let at_shard = Place::of_shard(line.shard);
        let mut places = Vec::new();
        let whole = Request::parse(bytes);
        let spec = whole.as_ref().and_then(|request| command::identify(request).ok());
        match (&whole, spec) {
            (Some(_), Some(spec)) if spec.name == "exec" => places = std::mem::take(&mut line.queued_writes),
            (_, Some(spec)) if spec.flags & flag::PUBSUB != 0 => return,
            (Some(request), Some(spec)) if spec.access != Access::Write => {
                // Those two are noted where it is known what they are answered with.
                if spec.access == Access::Read && (own || !matches!(spec.name, "get" | "mget")) {
                    self.note_looks(id, waiter, spec, request);
                }
                return;
            }
            (Some(request), Some(spec)) => {
                let named = command::keys(spec, request, &mut |index| {
                    let key = request.arg(index).unwrap_or_default();
                    places.push(Place::of_key(hot.hash(key)));
                });
                let script = spec.class == Class::Script && hot.config().any_script;
                if named.is_err() || places.is_empty() || script {
                    places.push(at_shard);
                }
                let session = self.sessions.get(waiter.ticket.session as usize);
                let multi = session.and_then(|session| session.special.as_ref()).is_some_and(|special| special.multi);
                if own && multi {
                    line.queued_writes.append(&mut places);
                }
            }
            // Of one that is passed on while it arrives the key is there: it may take its app as long as it likes.
            _ if line.arriving => {
                let mut resume = Resume::default();
                let _ = scan(bytes, &mut resume, &Limits::default());
                let key = request::front(bytes, &resume).map(|front| Place::of_key(hot.hash(front.key)));
                places.push(key.unwrap_or(at_shard));
            }
            _ => places.push(at_shard),
        }
        let serial = line.next_serial();
        // Before it begins, as that is how what happens besides is told from it.
        let put = match (&whole, spec) {
            // In another database the same name is another key.
            (Some(request), Some(spec))
                if spec.name == "set" && request.argc() == 3 && !own && line.dialect.db == 0 =>
            {
                let (key, value) = (request.arg(1).unwrap_or_default(), request.arg(2).unwrap_or_default());
                let hash = hot.hash(key);
                hot.begin_put(hash, (line.shard, id), value, now).map(|number| Note::Put(hash, number))
            }
            _ => None,
        };
        let session = self.sessions.get_mut(waiter.ticket.session as usize);
        if let Some(session) = session.filter(|_| !places.is_empty()) {
            session.writes = session.writes.saturating_add(1);
        }
        for place in places {
            hot.fence().begin(place);
            line.notes.push(serial, Note::Write(place));
        }
        if let Some(put) = put {
            line.notes.push(serial, put);
        }
    }

    /// Notes what a flight that is about to be queued on this connection, and changes nothing, tells of hot keys.
    pub(in crate::engine) fn note_looks(
        &mut self,
        id: LineId,
        waiter: &Waiter,
        spec: &'static Spec,
        request: &Request<'_>,
    ) {
        let Some(line) = self.lines.get_mut(id as usize) else { return };
        let Some(pool) = self.pools.get(usize::from(line.pool)) else { return };
        let hot = &pool.config.path.hot;
        let mut looks = Vec::new();
        let _ = command::keys(spec, request, &mut |index| {
            looks.extend(hot.kept_hash(request.arg(index).unwrap_or_default()));
        });
        let session = self.sessions.get(waiter.ticket.session as usize);
        let multi = session.and_then(|session| session.special.as_ref()).is_some_and(|special| special.multi);
        if multi && matches!(line.owner, Owner::Session(..)) {
            // Read when EXEC is carried out. That nothing is served from here meanwhile does no harm.
            line.queued_writes.extend(looks.into_iter().map(Place::of_key));
            return;
        }
        let serial = line.next_serial();
        for note in looks.into_iter().map(Note::Look) {
            self.note_read(waiter.ticket, note, id, serial);
        }
    }

    /// A reply of so many bytes came of whose flight something was noted; before anyone is given it. `None` for one that was
    /// not kept whole. Returns what becomes of the reply.
    #[cold]
    pub(in crate::engine) fn noted(
        &mut self,
        (id, serial): (LineId, u64),
        ticket: Ticket,
        reply: Option<&[u8]>,
        length: u64,
    ) -> Becomes {
        let Some((pool, shard)) = self.lines.get(id as usize).map(|line| (line.pool, line.shard)) else {
            return Becomes::Told;
        };
        let (mut copied, mut wrote, mut missed) = (false, false, None);
        let mut walk = Walk::new(reply);
        while let Some(note) = self.lines.get_mut(id as usize).and_then(|line| line.notes.next(serial)) {
            if let Note::Count(budget, element) = note {
                self.see_miss(budget, if element == WHOLE { reply } else { walk.element(element) });
                continue;
            }
            if matches!(note, Note::Miss(..) | Note::Wrote(..) | Note::Lives(..) | Note::WroteAny | Note::Executed(..))
            {
                missed = self.leased(id, ticket, note, reply).or(missed);
                continue;
            }
            let Some(place) = self.pools.get_mut(usize::from(pool)) else { return Becomes::Told };
            if let Note::Shared(number) = note {
                let line = self.lines.get(id as usize).map_or(0, |line| line.number);
                if place.config.path.merging.landed(number, line, serial) {
                    self.landed.push((pool, number));
                }
                continue;
            }
            let hot = &mut place.config.path.hot;
            match note {
                Note::Weigh(hash, of) => {
                    let length = length.checked_div(u64::from(of)).unwrap_or(length);
                    hot.weigh(hash, length);
                    hot.burden(shard, length);
                }
                Note::Write(place) => {
                    hot.fence().end(place, self.now);
                    copied |= hot.written(place);
                    wrote = true;
                }
                Note::Timed(sent) => hot.choice.ended(shard, self.now.saturating_sub(sent), self.now),
                Note::Put(hash, number) => hot.end_put(hash, number, reply == Some(b"+OK\r\n")),
                Note::Read(_) | Note::Look(_) | Note::Element(..) => {
                    // One that was passed on as it came cannot be compared: as if it were another.
                    match note {
                        Note::Look(hash) => hot.looked_at(hash),
                        Note::Read(hash) => hot.passed(hash, reply.unwrap_or_default()),
                        Note::Element(hash, index) => {
                            hot.passed(hash, walk.element(index).unwrap_or_default());
                        }
                        _ => {}
                    }
                    let session = self.sessions.get_mut(ticket.session as usize);
                    if let Some(session) = session.filter(|session| session.generation == ticket.generation) {
                        // A count that has reached its end stays there until all is answered.
                        session.hot_reads = session.hot_reads.saturating_sub(u8::from(session.hot_reads < u8::MAX));
                    }
                }
                Note::Count(..)
                | Note::Miss(..)
                | Note::Wrote(..)
                | Note::Lives(..)
                | Note::WroteAny
                | Note::Executed(..)
                | Note::Shared(_)
                | Note::Overtakes(_) => {}
            }
        }
        let session = self.sessions.get_mut(ticket.session as usize).filter(|s| s.generation == ticket.generation);
        if let Some(session) = session.filter(|_| wrote) {
            // A count that has reached its end stays there until all is answered.
            session.writes = session.writes.saturating_sub(u8::from(session.writes < u8::MAX));
        }
        if let Some(becomes) = missed {
            return becomes;
        }
        let held = if copied { self.take_copies_away_first(pool, reply.is_some()) } else { None };
        held.map_or(Becomes::Told, Becomes::Withheld)
    }

    /// A connection was given up with all that waited on it: none of its writes will be answered.
    pub(in crate::engine) fn drop_notes(&mut self, id: LineId) {
        let now = self.now;
        let Some(line) = self.lines.get_mut(id as usize) else { return };
        line.queued_writes.clear();
        line.queued_leased.clear();
        let Some(pool) = self.pools.get_mut(usize::from(line.pool)) else { return };
        let mut wrote = Vec::new();
        while let Some(note) = line.notes.next(u64::MAX) {
            match note {
                Note::Miss(_, _, length) => drop(line.notes.take_name(length)),
                Note::Wrote(..) | Note::Lives(..) | Note::WroteAny | Note::Executed(..) => wrote.push(note),
                Note::Write(place) => pool.config.path.hot.fence().end(place, now),
                Note::Timed(_) => pool.config.path.hot.choice.lost(line.shard),
                Note::Put(hash, number) => pool.config.path.hot.end_put(hash, number, false),
                Note::Read(_) | Note::Look(_) | Note::Element(..) => {}
                Note::Weigh(..) | Note::Count(..) | Note::Shared(_) | Note::Overtakes(_) => {}
            }
        }
        // Whether they were carried out is not known.
        for note in wrote {
            self.leased(id, Ticket { session: u32::MAX, generation: 0, slot: 0 }, note, None);
        }
    }

    /// A read of a hot key, by its hash, was sent home: until it is answered its session is not told of that key from
    /// elsewhere, where it may be older.
    pub(in crate::engine) fn note_read(&mut self, ticket: Ticket, note: Note, on: LineId, serial: u64) {
        if let Some(line) = self.lines.get_mut(on as usize) {
            line.notes.push(serial, note);
        }
        if let Some(session) = self.sessions.get_mut(ticket.session as usize) {
            session.hot_reads = session.hot_reads.saturating_add(1);
        }
    }

    /// The same for a read that shares another's flight.
    pub(in crate::engine) fn note_joined(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(id as usize) {
            session.hot_reads = u8::MAX;
        }
    }

    /// A read of this session is answered from elsewhere, in its own time: until it is, no write of the session is sent, which
    /// it might otherwise see.
    pub(in crate::engine) fn begin_indirect(&mut self, ticket: Ticket) {
        if let Some(session) = self.sessions.get_mut(ticket.session as usize) {
            session.indirect = session.indirect.saturating_add(1);
        }
    }

    /// It is answered; to be called before its reply is given to the app.
    pub(in crate::engine) fn end_indirect(&mut self, ticket: Ticket) {
        let session = self.sessions.get_mut(ticket.session as usize);
        // A count that has reached its end stays there until all is answered.
        if let Some(session) = session.filter(|s| s.generation == ticket.generation && s.indirect < u8::MAX) {
            session.indirect = session.indirect.saturating_sub(1);
        }
    }

    /// Whether a read asks, among others, for a key that is served from memory and would be sent home now, by a session whose
    /// reads are `free` to be answered from elsewhere, and which has `no_writes` on their way.
    pub(in crate::engine) fn reads_hot(
        &self,
        pool: u16,
        spec: &'static Spec,
        request: &Request<'_>,
        (free, no_writes): (bool, bool),
    ) -> bool {
        let Some(pool) = self.pools.get(usize::from(pool)) else { return false };
        let hot = &pool.config.path.hot;
        let mut found = false;
        let _ = command::keys(spec, request, &mut |index| {
            found |= request.arg(index).is_some_and(|key| hot.goes_home(key, spec.name, (free, no_writes), self.now));
        });
        found
    }
}
