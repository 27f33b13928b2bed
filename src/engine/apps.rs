//! The apps' half of the engine: sessions, their bytes in, their replies in turn.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "counters of 64 bits, and positions within the bytes that were given"
)]

use super::deadlines::Watch;
use super::line::Ticket;
use super::port::{Port, Taken};
use super::special::mode;
use super::stream::Begun;
use super::watched::Looks;
use super::window::{DIRECT, Session};
use super::{Engine, SessionId, Submitted, Then};
use crate::error::Cause;
use crate::metrics::{Full, PoolCounts};
use crate::resp::{Limits, Request, Scan, request, scan, write};
use crate::stages::Micros;
use slab::Slab;

/// Requests that a session is served before others have their turn: 64 KiB, which are read at once, can be thousands.
const A_TURN: u32 = 512;

impl Engine {
    /// An app connected.
    pub fn open(&mut self, pool: u16) -> SessionId {
        self.generations = self.generations.wrapping_add(1);
        let id = self.ids;
        self.ids += self.id_step;
        let lanes = self.pools.get_mut(usize::from(pool)).map_or(1, |p| {
            p.counts.client_connects += 1;
            p.counts.client_connections += 1;
            p.config.dealt.max(1)
        });
        let lane = (id / self.id_step.max(1) % u64::from(lanes)) as u16;
        let number = self.sessions.insert(Box::new(Session::new(self.generations, pool, lane, id, true))) as SessionId;
        if self.watches.len() <= number as usize {
            self.watches.resize(number as usize + 1, Watch::default());
        }
        if let Some(watch) = self.watches.get_mut(number as usize) {
            *watch = Watch::new(self.now);
        }
        self.be_nobody(number);
        self.mark_aside(number);
        number
    }

    /// An app connected that is never answered from elsewhere than a key's shard, nor with another's reply.
    pub fn open_strict(&mut self, pool: u16) -> SessionId {
        let id = self.open(pool);
        if let Some(session) = self.sessions.get_mut(id as usize) {
            session.be_strict();
        }
        id
    }

    /// An app is gone, or its session has ended. Replies that are still under way will be dropped.
    pub fn close(&mut self, id: SessionId, broken: bool, port: &mut impl Port) {
        if self.trail_is_fresh() {
            self.address_trail(port);
        }
        self.leave_branches(id, port);
        self.leave_own(id, port);
        self.stop_listening(id);
        self.leave_leases(id);
        if self.samples.is_open() {
            self.sample_gone(id);
        }
        let Some(mut session) = self.sessions.try_remove(id as usize) else { return };
        if session.is_watched() {
            self.watched.forget(id);
        }
        if let Some(pool) = self.pools.get_mut(usize::from(session.pool)) {
            pool.counts.client_connections -= 1;
            pool.counts.client_output_bytes -= session.waiting() as u64;
            pool.counts.requests_pending -= session.unanswered() as u64;
            if pool.prefixes.is_on() {
                pool.prefixes.forget(id, session.unfilled());
            }
            if broken {
                pool.counts.client_err += 1;
            } else {
                pool.counts.client_eof += 1;
            }
        }
        session.took(session.output.len());
        session.release(&mut self.spare);
        if let Some(watch) = self.watches.get_mut(id as usize) {
            self.share.let_go(std::mem::take(watch).tail);
        }
        self.walk.forget(id);
        if self.sessions.is_empty() {
            self.sessions = Slab::new();
            self.watches = Vec::new();
        }
    }

    /// The app will send no more. Returns whether the session is done already.
    pub fn finish(&mut self, id: SessionId) -> bool {
        let Some(session) = self.sessions.get_mut(id as usize) else { return true };
        session.closing = true;
        session.is_done()
    }

    /// Whether the session has nothing left to do: it is ending and all its replies are out, or it was killed.
    #[must_use]
    pub fn is_over(&self, id: SessionId) -> bool {
        self.sessions.get(id as usize).is_none_or(|s| s.killed || (s.closing && s.is_done()))
    }

    /// Whether the session must not be read now.
    #[must_use]
    pub fn is_paused(&self, id: SessionId) -> bool {
        self.sessions.get(id as usize).is_some_and(|s| s.paused)
    }

    /// Whether a command of the session waits for something to happen, or for the session's other replies: it is paused, and
    /// yet whether the app leaves has to be seen.
    #[must_use]
    pub fn is_waiting(&self, id: SessionId) -> bool {
        self.sessions.get(id as usize).is_some_and(|s| s.mode & mode::WAITING != 0)
    }

    /// Whether the session is of no use to an app that will send no more: a command of it waits for something to happen, or
    /// a request that is passed on while it arrives will never be whole.
    #[must_use]
    pub fn ends_with_app(&self, id: SessionId) -> bool {
        let Some(session) = self.sessions.get(id as usize) else { return true };
        session.special.as_ref().is_some_and(|special| special.blocked || special.stream.is_some())
            || self.has_blocked_branch(id)
    }

    /// Whether the session reads no more requests.
    #[must_use]
    pub fn is_closing(&self, id: SessionId) -> bool {
        self.sessions.get(id as usize).is_none_or(|s| s.closing)
    }

    /// The app's socket takes bytes again.
    pub fn app_writable(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(id as usize)
            && session.blocked
        {
            session.blocked = false;
            mark(&mut self.dirty_sessions, session, id);
        }
    }

    /// Bytes of an app: carries out every whole request in them, up to a turn's.
    pub fn submit(&mut self, id: SessionId, bytes: &[u8], now: Micros, port: &mut impl Port) -> Submitted {
        (self.now, self.away) = (now, 0);
        self.pass_from.get_or_insert(now);
        let (mut consumed, mut turn) = (0, A_TURN);
        loop {
            let Some(session) = self.sessions.get_mut(id as usize) else {
                return Submitted { consumed: bytes.len(), then: Then::Close };
            };
            let Some(pool) = self.pools.get_mut(usize::from(session.pool)) else {
                return Submitted { consumed: bytes.len(), then: Then::Close };
            };
            if session.closing || session.killed {
                return Submitted { consumed: bytes.len(), then: Then::Close };
            }
            if turn == 0 && consumed < bytes.len() {
                return Submitted { consumed, then: Then::Yield };
            }
            let streaming = session.mode & mode::STREAMING != 0;
            if session.paused || (!streaming && session.is_full(&pool.config.bounds)) {
                if !session.paused {
                    session.paused = true;
                    pool.counts.client_pauses[Full::Window] += 1;
                }
                return Submitted { consumed, then: Then::Pause };
            }
            if streaming {
                let rest = bytes.get(consumed..).unwrap_or_default();
                if rest.is_empty() {
                    return Submitted { consumed, then: Then::Read { need: 1 } };
                }
                if let Some(watch) = self.watches.get_mut(id as usize) {
                    watch.seen(now);
                }
                consumed += self.stream(id, rest, port);
                continue;
            }
            let long = pool.config.long;
            let limits = if session.authenticated { &pool.config.limits } else { &Limits::UNAUTHENTICATED };
            let rest = bytes.get(consumed..).unwrap_or_default();
            match scan(rest, &mut session.resume, limits) {
                Ok(Scan::Request(request)) => {
                    if !self.request(id, &request, port) {
                        return Submitted { consumed, then: Then::Pause };
                    }
                    consumed += request.wire().len();
                    turn -= 1;
                    self.take_answers(port);
                }
                Ok(Scan::Incomplete { need }) if need >= long => match self.begin_stream(id, rest, port) {
                    Begun::Not => return Submitted { consumed, then: Then::Read { need } },
                    Begun::Wait => return Submitted { consumed, then: Then::Pause },
                    Begun::Taken => consumed = bytes.len(),
                },
                Ok(Scan::Incomplete { need }) => return Submitted { consumed, then: Then::Read { need } },
                Ok(Scan::Nothing(len)) => consumed += len,
                Ok(Scan::Inline { line, len }) => {
                    if !self.inline_request(id, line, port) {
                        return Submitted { consumed, then: Then::Pause };
                    }
                    consumed += len;
                    turn -= 1;
                    self.take_answers(port);
                }
                Err(error) => self.protocol_error(id, error),
            }
        }
    }

    /// Takes what a node in this process has answered, so that the app is not read on while its replies fill its output.
    #[inline]
    fn take_answers(&mut self, port: &mut impl Port) {
        while let Some((line, answers)) = port.answer() {
            if self.receive(line, &answers, self.now, port).is_err() {
                debug_assert!(false, "an in-process node broke the protocol");
            }
        }
    }

    #[cold]
    fn inline_request(&mut self, id: SessionId, line: &[u8], port: &mut impl Port) -> bool {
        let mut wire = std::mem::take(&mut self.inline);
        wire.clear();
        let mut taken = true;
        match request::expand_inline(line, &mut wire) {
            Ok(()) => {
                if let Some(request) = Request::parse(&wire) {
                    taken = self.request(id, &request, port);
                }
            }
            Err(error) => self.protocol_error(id, error),
        }
        self.inline = wire;
        taken
    }

    #[cold]
    pub(super) fn protocol_error(&mut self, id: SessionId, error: request::ProtocolError) {
        self.answer_with(id, Some(Cause::Protocol), |out| write::error(out, &error.text()));
        if let Some(session) = self.sessions.get_mut(id as usize) {
            session.closing = true;
        }
    }

    /// Answers the session's newest request at once, in its turn.
    pub(super) fn answer_with(&mut self, id: SessionId, cause: Option<Cause>, fill: impl FnOnce(&mut Vec<u8>)) {
        let mut reply = self.spare.take();
        fill(&mut reply);
        let Some(session) = self.sessions.get_mut(id as usize) else { return };
        let number = session.pool;
        let ticket = Ticket { session: id, generation: session.generation, slot: session.open() };
        if let Some(pool) = self.pools.get_mut(usize::from(number)) {
            pool.counts.requests_pending += 1;
            if let Some(cause) = cause {
                pool.counts.errors[cause] += 1;
                if let Some(tag) = self.asking {
                    pool.commands.failed(tag);
                }
            }
        }
        self.sample_refused(ticket, cause);
        self.complete(number, ticket, &reply, None);
        self.spare.put(reply);
    }

    /// Ends a session at once, whatever it waits for: another one asked for it.
    pub(super) fn end_session(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(id as usize) {
            session.killed = true;
            mark(&mut self.dirty_sessions, session, id);
        }
    }

    /// Puts a reply into its slot, and into the output when its turn has come; drops it when its session is gone.
    #[inline]
    pub(super) fn complete(&mut self, pool: u16, ticket: Ticket, reply: &[u8], port: Option<&mut dyn Port>) {
        if self.samples.is_open() {
            self.sample_answered(ticket, reply, reply.len() as u64);
        }
        self.complete_as::<false>(pool, ticket, reply, port);
    }

    /// The same, with a reply that has been looked at, for names too, if `SEEN`.
    #[inline]
    pub(super) fn complete_as<const SEEN: bool>(
        &mut self,
        number: u16,
        ticket: Ticket,
        reply: &[u8],
        port: Option<&mut dyn Port>,
    ) {
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        let session = self.sessions.get_mut(ticket.session as usize);
        let Some(session) = session.filter(|s| s.generation == ticket.generation) else {
            pool.counts.orphans += 1;
            return;
        };
        if !SEEN && session.is_watched() {
            let (mirrors, counts, now) = (&mut self.mirrors, &mut pool.counts, self.now);
            if let Some(span) = self.watched.saw(session, ticket, reply, Looks { mirrors, counts, now }) {
                return self.hold_back(number, ticket, reply, span, port);
            }
        }
        if !SEEN && session.is_marked() {
            let view = self.view_of(ticket.session, ticket.slot, reply);
            self.complete_as::<true>(number, ticket, view.as_deref().unwrap_or(reply), port);
            return view.into_iter().for_each(|view| self.spare.put(view));
        }
        pool.counts.replies += 1;
        pool.counts.reply_bytes += reply.len() as u64;
        if pool.prefixes.is_on() {
            pool.prefixes.answered((ticket.session, ticket.slot), reply, reply.len() as u64);
        }
        pool.counts.requests_pending -= 1;
        self.answered += 1;
        if session.killed {
            session.skip(ticket.slot, &mut self.spare);
            return;
        }
        if session.mode & (mode::MUTED | mode::LIMITED) != 0 || session.is_branch() {
            if session.mode & mode::MUTED != 0 && session.takes_no(ticket.slot) {
                session.skip(ticket.slot, &mut self.spare);
                mark(&mut self.dirty_sessions, session, ticket.session);
                return;
            }
            pool.limits.replied(session, reply.len() as u64, self.now);
            if session.is_branch() {
                session.skip(ticket.slot, &mut self.spare);
                return self.branch_answered(ticket, reply, port);
            }
        }
        pool.counts.client_output_bytes += reply.len() as u64;
        if session.is_head(ticket.slot) {
            let mut rest = reply;
            if reply.len() >= DIRECT
                && session.output.is_empty()
                && !session.blocked
                && let Some(port) = port
            {
                rest = offer(session, ticket.session, reply, port);
            }
            pool.counts.client_output_bytes -= (reply.len() - rest.len()) as u64;
            if !rest.is_empty() {
                session.append(rest, &mut self.spare);
            }
            session.advance(&mut self.spare);
            mark(&mut self.dirty_sessions, session, ticket.session);
        } else {
            let mut kept = self.spare.take();
            kept.extend_from_slice(reply);
            session.keep(ticket.slot, kept, &mut self.spare);
            if self.waits.len() > 0 && session.is_crowded(&pool.config.bounds) {
                self.uncrowd(ticket);
                return self.bound_output(ticket, reply.len());
            }
        }
        // One reply never ends a session, however long; a reply that comes while too much waits does.
        if session.waiting() > pool.config.bounds.output.saturating_add(reply.len()) {
            kill(session, &mut pool.counts);
            mark(&mut self.dirty_sessions, session, ticket.session);
        }
    }
}

impl Engine {
    /// Ends a session that has too much waiting as a reply of so many bytes comes.
    #[cold]
    pub(super) fn bound_output(&mut self, ticket: Ticket, length: usize) {
        let Some(session) = self.sessions.get_mut(ticket.session as usize) else { return };
        let Some(pool) = self.pools.get_mut(usize::from(session.pool)) else { return };
        if !session.killed && session.waiting() > pool.config.bounds.output.saturating_add(length) {
            kill(session, &mut pool.counts);
            mark(&mut self.dirty_sessions, session, ticket.session);
        }
    }
}

/// Puts a session on the list of those to be flushed, once.
#[inline]
pub(super) fn mark(dirty: &mut Vec<SessionId>, session: &mut Session, id: SessionId) {
    if !session.dirty {
        session.dirty = true;
        dirty.push(id);
    }
}

/// Offers bytes to an app for which nothing waits. Returns what its socket did not take.
pub(super) fn offer<'a>(session: &mut Session, id: SessionId, bytes: &'a [u8], port: &mut dyn Port) -> &'a [u8] {
    match port.to_app(id, bytes) {
        Taken::Some(n) => bytes.get(n..).unwrap_or_default(),
        Taken::Full(n) => {
            session.blocked = true;
            bytes.get(n..).unwrap_or_default()
        }
        Taken::Gone => &[],
    }
}

#[cold]
pub(super) fn kill(session: &mut Session, counts: &mut PoolCounts) {
    session.killed = true;
    counts.client_output_limit_kills += 1;
}
