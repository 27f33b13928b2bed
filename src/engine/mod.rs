//! The core: bytes of apps and shards in, bytes for shards and apps out. No socket, no clock, no chance, no waiting.
//!
//! ```text
//! submit   app's bytes -> requests -> legs -> flights in outboxes          (plan.rs, local.rs)
//! receive  shard's bytes -> replies -> slots -> outputs in request order   (merge.rs, window.rs)
//! flush    outboxes and outputs -> the sockets, one send each
//! fail     a connection broke: everyone who waited on it is told
//! tick     upkeep: timeouts, stages
//! ```
//!
//! One engine belongs to one worker and is never shared. It does not allocate for a request that is answered in order.

pub mod line;
mod local;
mod merge;
mod plan;
pub mod port;
pub mod window;

use crate::command::{Class, Spec};
use crate::error::{self, Cause, Failure};
use crate::metrics::{Full, PoolCounts};
use crate::resp::{Limits, ReplyError, Request, Scan, Skim, request, scan, skim, write};
use crate::stages::{Event, Leg, Micros, Notices, Path, Refusal, Verdict};
use line::{Line, State, Ticket, Waiter};
pub use local::{About, REDIS_VERSION};
use merge::Gather;
use port::{Port, Taken};
use slab::Slab;
use window::{Bounds, DIRECT, Session, Spare};

/// A session's number; used again after it ended.
pub type SessionId = u32;
/// A connection's number on this worker, over all pools.
pub type LineId = u32;

/// What a longer timeout counts as, in microseconds: a waiter's clock wraps after 71 minutes, and this leaves a minute and a
/// half to see that it is over.
pub const LONGEST_TIMEOUT: Micros = 70 * 60 * 1_000_000;

/// What the engine needs to know of a pool.
pub struct PoolConfig {
    /// Its name.
    pub name: String,
    /// The shards' names, for error texts and metrics.
    pub shards: Vec<String>,
    /// Connections to each shard.
    pub lanes: u16,
    /// Bounds of its sessions.
    pub bounds: Bounds,
    /// Bounds of its requests.
    pub limits: Limits,
    /// Most bytes queued to one connection before the sessions that fill it are not read.
    pub outbox: usize,
    /// How long a reply may take, in microseconds; at most [`LONGEST_TIMEOUT`].
    pub timeout: Option<Micros>,
    /// What apps must send with AUTH.
    pub password: Option<Box<[u8]>>,
    /// The stages.
    pub path: Path,
}

struct Pool {
    config: PoolConfig,
    first_line: LineId,
    counts: PoolCounts,
    timeout_text: &'static str,
}

/// What became of an app's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Submitted {
    /// How many bytes were used up.
    pub consumed: usize,
    /// What to do next.
    pub then: Then,
}

/// See [`Engine::holdings`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holdings {
    /// Split requests whose parts are under way.
    pub gathers: usize,
    /// Requests that share another's flight.
    pub joined: usize,
    /// Empty buffers kept to be used again.
    pub spare: usize,
    /// Their capacity in bytes.
    pub spare_bytes: usize,
}

/// What the shell does with a session next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Read on; the first unused byte begins a request that needs so many bytes at least.
    Read {
        /// Bytes from the first unused one.
        need: usize,
    },
    /// Do not read before the port's `wake`; keep the unused bytes.
    Pause,
    /// Read no more.
    Close,
}

/// One worker's core.
pub struct Engine {
    pools: Vec<Pool>,
    sessions: Slab<Box<Session>>,
    lines: Vec<Line>,
    gathers: Slab<Gather>,
    joined: Slab<(Ticket, u32, u32)>,
    spare: Spare,
    dirty_lines: Vec<LineId>,
    dirty_sessions: Vec<SessionId>,
    notices: Notices,
    plan: plan::Scratch,
    inline: Vec<u8>,
    generations: u32,
    ids: u64,
    id_step: u64,
    requests: u64,
    answered: u64,
    in_flight: u32,
    now: Micros,
    /// What INFO says of the process.
    about: About,
}

impl Engine {
    /// An engine without pools. Session ids begin at `first_id` and go up by `id_step`, so that several workers' differ.
    #[must_use]
    pub fn new(first_id: u64, id_step: u64) -> Self {
        Self {
            pools: Vec::new(),
            sessions: Slab::new(),
            lines: Vec::new(),
            gathers: Slab::new(),
            joined: Slab::new(),
            spare: Spare::default(),
            dirty_lines: Vec::new(),
            dirty_sessions: Vec::new(),
            notices: Notices::default(),
            plan: plan::Scratch::default(),
            inline: Vec::new(),
            generations: 0,
            ids: first_id,
            id_step,
            requests: 0,
            answered: 0,
            in_flight: 0,
            now: 0,
            about: About::default(),
        }
    }

    /// Sets what INFO, HELLO and TIME tell of the process.
    pub fn describe(&mut self, about: About) {
        self.about = about;
    }

    /// Adds a pool; returns its number and its connections' numbers, shard by shard, lane by lane.
    pub fn add_pool(&mut self, config: PoolConfig) -> (u16, std::ops::Range<LineId>) {
        let number = self.pools.len() as u16;
        let first = self.lines.len() as LineId;
        let shards = config.shards.len() as u16;
        for shard in 0..shards {
            for lane in 0..config.lanes {
                let line = u32::from(shard) * u32::from(config.lanes) + u32::from(lane);
                self.lines.push(Line::new(number, shard, line));
            }
        }
        let timeout_text = "no answer within the pool's timeout";
        self.pools.push(Pool { config, first_line: first, counts: PoolCounts::default(), timeout_text });
        (number, first..self.lines.len() as LineId)
    }

    // --- sessions -------------------------------------------------------------------------------------------------

    /// An app connected.
    pub fn open(&mut self, pool: u16) -> SessionId {
        self.generations = self.generations.wrapping_add(1);
        let id = self.ids;
        self.ids += self.id_step;
        let (lanes, open) = self.pools.get_mut(usize::from(pool)).map_or((1, true), |p| {
            p.counts.client_connects += 1;
            p.counts.client_connections += 1;
            (p.config.lanes.max(1), p.config.password.is_none())
        });
        let lane = (id / self.id_step.max(1) % u64::from(lanes)) as u16;
        self.sessions.insert(Box::new(Session::new(self.generations, pool, lane, id, open))) as SessionId
    }

    /// An app is gone, or its session has ended. Replies that are still under way will be dropped.
    pub fn close(&mut self, id: SessionId, broken: bool) {
        let Some(mut session) = self.sessions.try_remove(id as usize) else { return };
        if let Some(pool) = self.pools.get_mut(usize::from(session.pool)) {
            pool.counts.client_connections -= 1;
            pool.counts.client_output_bytes -= session.waiting() as u64;
            pool.counts.requests_pending -= session.unanswered() as u64;
            if broken {
                pool.counts.client_err += 1;
            } else {
                pool.counts.client_eof += 1;
            }
        }
        session.sent = session.output.len();
        session.release(&mut self.spare);
        if self.sessions.is_empty() {
            self.sessions = Slab::new();
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

    /// Bytes of an app: carries out every whole request in them.
    pub fn submit(&mut self, id: SessionId, bytes: &[u8], now: Micros, port: &mut impl Port) -> Submitted {
        self.now = now;
        let mut consumed = 0;
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
            if session.paused || session.is_full(&pool.config.bounds) {
                if !session.paused {
                    session.paused = true;
                    pool.counts.client_pauses[Full::Window] += 1;
                }
                return Submitted { consumed, then: Then::Pause };
            }
            let limits = if session.authenticated { &pool.config.limits } else { &Limits::UNAUTHENTICATED };
            let rest = bytes.get(consumed..).unwrap_or_default();
            match scan(rest, &mut session.resume, limits) {
                Ok(Scan::Request(request)) => {
                    consumed += request.wire().len();
                    self.request(id, &request, port);
                    self.take_answers(port);
                }
                Ok(Scan::Incomplete { need }) => return Submitted { consumed, then: Then::Read { need } },
                Ok(Scan::Nothing(len)) => consumed += len,
                Ok(Scan::Inline { line, len }) => {
                    consumed += len;
                    self.inline_request(id, line, port);
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
    fn inline_request(&mut self, id: SessionId, line: &[u8], port: &mut impl Port) {
        let mut wire = std::mem::take(&mut self.inline);
        wire.clear();
        match request::expand_inline(line, &mut wire) {
            Ok(()) => {
                if let Some(request) = Request::parse(&wire) {
                    self.request(id, &request, port);
                }
            }
            Err(error) => self.protocol_error(id, error),
        }
        self.inline = wire;
    }

    #[cold]
    fn protocol_error(&mut self, id: SessionId, error: request::ProtocolError) {
        self.answer_with(id, Some(Cause::Protocol), |out| write::error(out, format!("ERR {error}").as_bytes()));
        if let Some(session) = self.sessions.get_mut(id as usize) {
            session.closing = true;
        }
    }

    // --- answers --------------------------------------------------------------------------------------------------

    /// Answers the session's newest request at once, in its turn.
    fn answer_with(&mut self, id: SessionId, cause: Option<Cause>, fill: impl FnOnce(&mut Vec<u8>)) {
        let mut reply = self.spare.take();
        fill(&mut reply);
        let Some(session) = self.sessions.get_mut(id as usize) else { return };
        if let (Some(cause), Some(pool)) = (cause, self.pools.get_mut(usize::from(session.pool))) {
            pool.counts.errors[cause] += 1;
        }
        let ticket = Ticket { session: id, generation: session.generation, slot: session.open() };
        if let Some(pool) = self.pools.get_mut(usize::from(session.pool)) {
            pool.counts.requests_pending += 1;
        }
        self.complete(ticket, &reply, None);
        self.spare.put(reply);
    }

    /// Puts a reply into its slot, and into the output when its turn has come.
    #[inline]
    fn complete(&mut self, ticket: Ticket, reply: &[u8], port: Option<&mut dyn Port>) {
        let session = self.sessions.get_mut(ticket.session as usize);
        let Some(session) = session.filter(|s| s.generation == ticket.generation) else { return };
        let Some(pool) = self.pools.get_mut(usize::from(session.pool)) else { return };
        pool.counts.replies += 1;
        pool.counts.reply_bytes += reply.len() as u64;
        pool.counts.requests_pending -= 1;
        self.answered += 1;
        if session.killed {
            session.skip(ticket.slot, &mut self.spare);
            return;
        }
        pool.counts.client_output_bytes += reply.len() as u64;
        if session.is_head(ticket.slot) {
            let mut rest = reply;
            if reply.len() >= DIRECT
                && session.output.is_empty()
                && !session.blocked
                && let Some(port) = port
            {
                match port.to_app(ticket.session, reply) {
                    Taken::Some(n) => rest = reply.get(n..).unwrap_or_default(),
                    Taken::Full(n) => {
                        rest = reply.get(n..).unwrap_or_default();
                        session.blocked = true;
                    }
                    Taken::Gone => rest = &[],
                }
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
        }
        // One reply never ends a session, however long; a reply that comes while too much waits does.
        if session.waiting() > pool.config.bounds.output.saturating_add(reply.len()) {
            kill(session, &mut pool.counts);
            mark(&mut self.dirty_sessions, session, ticket.session);
        }
    }

    /// Bytes of a shard: completes every whole reply in them. Returns how many were used up, and how many bytes the rest
    /// needs at least.
    ///
    /// # Errors
    /// The shard sent no reply, or one that nobody asked for; the connection must be given up with [`Engine::fail`].
    pub fn receive(
        &mut self,
        id: LineId,
        bytes: &[u8],
        now: Micros,
        port: &mut impl Port,
    ) -> Result<(usize, usize), Option<ReplyError>> {
        self.now = now;
        let mut consumed = 0;
        loop {
            let rest = bytes.get(consumed..).unwrap_or_default();
            if rest.is_empty() {
                return Ok((consumed, 1));
            }
            let Some(line) = self.lines.get_mut(id as usize) else { return Err(None) };
            let length = match skim(rest, &mut line.resume).map_err(Some)? {
                Skim::Incomplete { need } => return Ok((consumed, need)),
                Skim::Reply(length) => length,
            };
            let reply = rest.get(..length).unwrap_or_default();
            consumed += length;
            // A flight none of whose bytes have left cannot have been answered; its waiter must stay to be told.
            if line.base >= line.left {
                return Err(None);
            }
            let Some(waiter) = line.waiters.pop_front() else { return Err(None) };
            line.base += 1;
            line.counts.server_responses += 1;
            line.counts.server_response_bytes += length as u64;
            self.in_flight = self.in_flight.saturating_sub(1);
            let (pool, number) = (line.pool, line.number);
            if let Some(pool) = self.pools.get_mut(usize::from(pool)) {
                pool.config.path.observe(&Event::Replied(number), now, &mut self.notices);
                if reply.first() == Some(&b'-') {
                    pool.counts.shard_errors += 1;
                }
            }
            self.land(pool, &waiter, reply, port);
        }
    }

    /// Gives a flight's reply to everyone it is for.
    #[inline]
    fn land(&mut self, pool: u16, waiter: &Waiter, reply: &[u8], port: &mut impl Port) {
        if waiter.part == Waiter::WHOLE {
            self.clock(pool, waiter.class, waiter.at);
            if !self.is_awaited(waiter.ticket)
                && let Some(pool) = self.pools.get_mut(usize::from(pool))
            {
                pool.counts.orphans += 1;
            }
            self.complete(waiter.ticket, reply, Some(port));
            let mut next = waiter.link;
            while next != Waiter::NOBODY {
                let Some((ticket, at, link)) = self.joined.try_remove(next as usize) else { break };
                self.clock(pool, waiter.class, at);
                self.complete(ticket, reply, Some(port));
                next = link;
            }
        } else {
            let Some(gather) = self.gathers.get_mut(waiter.link as usize) else { return };
            if gather.take(waiter.part, reply, &mut self.spare) {
                let gather = self.gathers.remove(waiter.link as usize);
                let (ticket, at, class) = (gather.ticket, gather.at, gather.class);
                let mut merged = self.spare.take();
                gather.finish(&mut merged, &mut self.spare);
                self.clock(pool, class, at);
                self.complete(ticket, &merged, Some(port));
                self.spare.put(merged);
            }
        }
    }

    /// Whether the session that a reply is for is still there.
    #[inline]
    fn is_awaited(&self, ticket: Ticket) -> bool {
        self.sessions.get(ticket.session as usize).is_some_and(|s| s.generation == ticket.generation)
    }

    /// Notes how long a request took.
    #[inline]
    fn clock(&mut self, pool: u16, class: Class, at: u32) {
        let took = (self.now as u32).wrapping_sub(at);
        if let Some(pool) = self.pools.get_mut(usize::from(pool)) {
            pool.counts.request_duration[class].record(took);
        }
    }

    // --- connections ----------------------------------------------------------------------------------------------

    /// A connection is being opened.
    pub fn opening(&mut self, id: LineId) {
        if let Some(line) = self.lines.get_mut(id as usize)
            && line.state == State::Idle
        {
            line.state = State::Opening;
        }
    }

    /// A connection is open and its shard has answered the handshake.
    pub fn connected(&mut self, id: LineId, now: Micros) {
        self.now = now;
        let Some(line) = self.lines.get_mut(id as usize) else { return };
        line.state = State::Up;
        line.counts.server_connects += 1;
        if line.queued() > 0 && !line.dirty {
            line.dirty = true;
            self.dirty_lines.push(id);
        }
        let (pool, number) = (line.pool, line.number);
        self.tell(pool, &Event::Connected(number));
    }

    /// A connection's socket takes bytes again.
    pub fn shard_writable(&mut self, id: LineId) {
        if let Some(line) = self.lines.get_mut(id as usize)
            && line.blocked
        {
            line.blocked = false;
            if !line.dirty {
                line.dirty = true;
                self.dirty_lines.push(id);
            }
        }
    }

    /// The shard ended the connection in peace: nothing was under way. The next request opens it again.
    ///
    /// Returns false, and does nothing, when something was under way: that is a failure.
    pub fn closed(&mut self, id: LineId, now: Micros, port: &mut impl Port) -> bool {
        self.now = now;
        let Some(line) = self.lines.get_mut(id as usize) else { return true };
        if !line.waiters.is_empty() {
            return false;
        }
        line.counts.server_eof += 1;
        line.state = State::Idle;
        line.drain();
        // A shard that answers a request before all of it was sent, and then closes, leaves the rest in the outbox.
        let paused = std::mem::take(&mut line.paused);
        let (pool, number) = (line.pool, line.number);
        self.tell(pool, &Event::Closed(number));
        self.resume(&paused, port);
        true
    }

    /// A connection failed, or could not be opened: everyone who waits on it gets an error.
    pub fn fail(&mut self, id: LineId, failure: Failure, now: Micros, port: &mut impl Port) {
        self.now = now;
        let Some(line) = self.lines.get_mut(id as usize) else { return };
        match failure.cause {
            Cause::Connect => line.counts.server_connect_failures += 1,
            Cause::Timeout => line.counts.server_timedout += 1,
            _ => line.counts.server_err += 1,
        }
        line.state = State::Down(failure);
        let lost = line.drain();
        let paused = std::mem::take(&mut line.paused);
        let (pool, number, shard) = (line.pool, line.number, line.shard);
        self.in_flight = self.in_flight.saturating_sub(lost.len() as u32);
        self.tell(pool, &Event::Failed(number, failure));
        let mut reply = self.spare.take();
        for (waiter, sent) in lost {
            reply.clear();
            if let Some(pool) = self.pools.get_mut(usize::from(pool)) {
                let name = pool.config.shards.get(usize::from(shard)).map_or("", String::as_str);
                // Of a split request another part may have run, whatever became of this one.
                failure.write(name, sent || waiter.part != Waiter::WHOLE, &mut reply);
                pool.counts.errors[failure.cause] += 1;
            }
            self.land(pool, &waiter, &reply, port);
        }
        self.spare.put(reply);
        self.resume(&paused, port);
    }

    fn tell(&mut self, pool: u16, event: &Event<'_>) {
        if let Some(pool) = self.pools.get_mut(usize::from(pool)) {
            pool.config.path.observe(event, self.now, &mut self.notices);
        }
    }

    /// Lets sessions go on that waited for an outbox.
    fn resume(&mut self, paused: &[(SessionId, u32)], port: &mut impl Port) {
        for &(id, generation) in paused {
            let Some(session) = self.sessions.get_mut(id as usize) else { continue };
            if session.generation == generation && session.parked {
                session.parked = false;
                session.paused = false;
                port.wake(id);
            }
        }
    }

    // --- flush and tick -------------------------------------------------------------------------------------------

    /// Whether there is something to flush.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !(self.dirty_lines.is_empty() && self.dirty_sessions.is_empty())
    }

    /// Sends every outbox and every output that has something, each with one call.
    pub fn flush(&mut self, port: &mut impl Port) {
        let mut lines = std::mem::take(&mut self.dirty_lines);
        for id in lines.drain(..) {
            self.flush_line(id, port);
        }
        self.dirty_lines = lines;
        let mut sessions = std::mem::take(&mut self.dirty_sessions);
        for id in sessions.drain(..) {
            self.flush_session(id, port);
        }
        self.dirty_sessions = sessions;
    }

    fn flush_line(&mut self, id: LineId, port: &mut impl Port) {
        let Some(line) = self.lines.get_mut(id as usize) else { return };
        line.dirty = false;
        match line.state {
            State::Up => {}
            State::Idle => {
                line.state = State::Opening;
                port.open(id);
                return;
            }
            State::Opening | State::Down(_) => return,
        }
        while !line.blocked && line.queued() > 0 {
            match port.to_shard(id, line.outbox.get(line.out_at..).unwrap_or_default()) {
                Taken::Some(0) => break,
                Taken::Some(n) => line.took(n),
                Taken::Full(n) => {
                    if n > 0 {
                        line.took(n);
                    }
                    line.blocked = true;
                }
                // The connection's reader will say so; what waits here fails with it.
                Taken::Gone => break,
            }
        }
        // At half of the bound and not when all is out: others may keep a slow shard's outbox from ever being empty.
        let enough = self.pools.get(usize::from(line.pool)).map_or(0, |pool| pool.config.outbox / 2);
        let room = line.queued() <= enough;
        let paused = if room { std::mem::take(&mut line.paused) } else { Vec::new() };
        let (pool, number) = (line.pool, line.number);
        self.tell(pool, &Event::Left(number));
        if !paused.is_empty() {
            self.resume(&paused, port);
        }
    }

    fn flush_session(&mut self, id: SessionId, port: &mut impl Port) {
        let Some(session) = self.sessions.get_mut(id as usize) else { return };
        let Some(pool) = self.pools.get_mut(usize::from(session.pool)) else { return };
        session.dirty = false;
        let before = session.sent;
        while !session.blocked && !session.killed && session.sent < session.output.len() {
            match port.to_app(id, session.output.get(session.sent..).unwrap_or_default()) {
                Taken::Some(0) => break,
                Taken::Some(n) => session.sent += n,
                Taken::Full(n) => {
                    session.sent += n;
                    session.blocked = true;
                }
                Taken::Gone => session.killed = true,
            }
        }
        if session.killed {
            session.sent = session.output.len();
        }
        pool.counts.client_output_bytes -= (session.sent - before) as u64;
        session.release(&mut self.spare);
        if session.killed || (session.closing && session.is_done()) {
            port.wake(id);
        } else if session.paused && !session.parked && session.has_room(&pool.config.bounds) {
            session.paused = false;
            port.wake(id);
        }
    }

    /// Upkeep. Returns the connections whose oldest flight has waited longer than its pool's timeout; they must be given
    /// up, since a late reply could not be told from the next one.
    pub fn tick(&mut self, now: Micros) -> Vec<(LineId, Failure)> {
        self.now = now;
        for pool in &mut self.pools {
            pool.config.path.tick(now, &mut self.notices);
        }
        let mut overdue = Vec::new();
        for (id, line) in self.lines.iter().enumerate() {
            let Some(pool) = self.pools.get(usize::from(line.pool)) else { continue };
            let (Some(timeout), Some(front)) = (pool.config.timeout, line.waiters.front()) else { continue };
            if u64::from((now as u32).wrapping_sub(front.at)) > timeout.min(LONGEST_TIMEOUT) {
                overdue.push((id as LineId, Failure { cause: Cause::Timeout, reason: pool.timeout_text }));
            }
        }
        overdue
    }

    // --- looking in -----------------------------------------------------------------------------------------------

    /// Requests that were sent to shards, or wait to be, and have no reply yet.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Requests without a reply.
    #[must_use]
    pub fn pending(&self) -> u32 {
        self.pools.iter().map(|p| p.counts.requests_pending.get() as u32).sum()
    }

    /// Requests that got a reply since the start, however. With [`Engine::pending`] this tells their latency.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered
    }

    /// Sessions that are open.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// What is counted of a pool, to be folded, and for what the shell counts.
    pub fn pool_counts(&mut self, pool: u16) -> Option<&mut PoolCounts> {
        self.pools.get_mut(usize::from(pool)).map(|p| &mut p.counts)
    }

    /// A connection.
    #[must_use]
    pub fn line(&self, id: LineId) -> Option<&Line> {
        self.lines.get(id as usize)
    }

    /// A connection, to be folded.
    pub fn line_mut(&mut self, id: LineId) -> Option<&mut Line> {
        self.lines.get_mut(id as usize)
    }

    /// Every session ends as soon as it has its replies; used when the process stops.
    pub fn finish_all(&mut self, port: &mut impl Port) {
        for (id, session) in &mut self.sessions {
            session.closing = true;
            port.wake(id as SessionId);
        }
    }

    /// What the engine holds on to now; all but `spare` comes back to nothing when all requests are answered.
    #[must_use]
    pub fn holdings(&self) -> Holdings {
        let (spare, spare_bytes) = self.spare.size();
        Holdings { gathers: self.gathers.len(), joined: self.joined.len(), spare, spare_bytes }
    }

    /// Whether the app's socket is full.
    #[must_use]
    pub fn is_blocked(&self, id: SessionId) -> bool {
        self.sessions.get(id as usize).is_some_and(|s| s.blocked)
    }

    /// Requests read since the start.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// A pool's stages.
    #[must_use]
    pub fn path(&self, pool: u16) -> Option<&Path> {
        self.pools.get(usize::from(pool)).map(|p| &p.config.path)
    }

    /// What would become of a request, stage by stage and key by key; changes nothing.
    ///
    /// # Errors
    /// A text for a person, when there is no such pool or the request has no legs.
    pub fn explain(&self, pool: u16, wire: &[u8], now: Micros) -> Result<String, String> {
        plan::explain(self, pool, wire, now)
    }
}

/// Puts a session on the list of those to be flushed, once.
#[inline]
fn mark(dirty: &mut Vec<SessionId>, session: &mut Session, id: SessionId) {
    if !session.dirty {
        session.dirty = true;
        dirty.push(id);
    }
}

#[cold]
fn kill(session: &mut Session, counts: &mut PoolCounts) {
    session.killed = true;
    counts.client_output_limit_kills += 1;
}

/// The error reply for a refused leg.
fn refuse(refusal: Refusal, shard: &str, out: &mut Vec<u8>) {
    match refusal {
        Refusal::NoShard => error::no_shard(out),
        Refusal::Down(failure) => failure.write(shard, false, out),
    }
}

/// A leg with what the session brings.
fn leg_of<'a>(session: &Session, spec: &'static Spec, key: &'a [u8], wire: &'a [u8], number: u64) -> Leg<'a> {
    let after = (session.open_slots() > 0).then_some(session.newest);
    Leg { lane: session.lane, number: number as u32, after, ..Leg::new(spec, key, wire) }
}

/// The verdict and, where it is a refusal, what it refuses with.
fn refusal(verdict: Verdict) -> Option<Refusal> {
    match verdict {
        Verdict::Refuse(refusal) => Some(refusal),
        Verdict::Next | Verdict::Join(_) => None,
    }
}
