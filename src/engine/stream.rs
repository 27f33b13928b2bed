//! Requests with an argument too long to be held: passed on to their shard while they arrive.
//!
//! From [`LONG`] bytes on (`PoolConfig::long`), an argument behind the key goes as it comes, on a connection of the session's own, so that a slow
//! upload holds up nobody, and no more of it is in memory than an outbox takes (`max_outbox`). It begins only when all before
//! it is answered, as everything on a connection of a session's own. Where the request cannot go anywhere its app is told at
//! once, and the rest of it is read away.
//!
//! Its time to live is not shortened (`ttl_jitter`): it may stand behind what is not there yet.
//!
//! Held as a whole like any other request: what has its long argument before its key, several keys (MSET) or none; what is
//! sent within a transaction, by a limited user (but for one who is limited only by a prefix), or to an embedded node; and what finds all dedicated connections in use. What is
//! too long for its pool (`max_key`, `max_value`) is read away, whatever it is.

#![expect(clippy::arithmetic_side_effects, reason = "counters of 64 bits")]

use super::line::Waiter;
use super::plan::Apart;
use super::port::Port;
use super::sight::Arriving;
use super::special::{Pin, mode};
use super::{Engine, LineId, SessionId, leg_of, refusal, tenant};
use crate::command::{self, Keys, Spec, Treatment};
use crate::resp::request::{self, ProtocolError};
use crate::stages::Refusal;

/// Arguments from this length on are passed on while they arrive.
pub const LONG: usize = 1 << 20;
/// The longest header of an argument: `$`, the digits of a length, CR, LF.
const LONGEST_HEADER: usize = 32;

/// A request that is passed on while it arrives.
#[derive(Debug)]
pub struct Stream {
    /// Where it goes; nowhere if it is only read away.
    line: Option<LineId>,
    /// Bytes to come of the argument that is arriving, its line end with them.
    left: u64,
    /// Arguments behind it.
    more: u32,
    /// What has come of the next one's header.
    header: Vec<u8>,
    /// Bytes so far.
    total: u64,
    /// By which of `metrics_prefixes` it is counted.
    counted: Option<Arriving>,
}

impl Stream {
    /// From now on it goes nowhere.
    pub(super) fn read_away(&mut self) {
        self.line = None;
    }
}

/// What [`Engine::begin_stream`] made of the front of a request.
pub(super) enum Begun {
    /// It is not for this; it has to be held.
    Not,
    /// It has to wait for the replies to those before it.
    Wait,
    /// All that is there was taken.
    Taken,
}

impl Engine {
    /// Looks whether an incomplete request, of which `bytes` are there, is to be passed on as it comes, and begins.
    #[cold]
    pub(super) fn begin_stream(&mut self, id: SessionId, bytes: &[u8], port: &mut impl Port) -> Begun {
        let Some(session) = self.sessions.get_mut(id as usize) else { return Begun::Not };
        if !session.authenticated {
            return Begun::Not;
        }
        if session.mode & mode::GUARDED != 0
            && let Some(begun) = self.look_at_front(id, bytes, port)
        {
            return begun;
        }
        let Some(session) = self.sessions.get_mut(id as usize) else { return Begun::Not };
        // Of a session that is limited only by a prefix, which is put before the key.
        let prefix = session.prefix().cloned();
        if session.mode & mode::LONG_WAY & !(mode::ASIDE | mode::GUARDED) != 0 {
            return Begun::Not;
        }
        let Some(front) = request::front(bytes, &session.resume).filter(|front| front.expected > bytes.len() as u64)
        else {
            return Begun::Not;
        };
        let Some(spec) = command::lookup(front.name).filter(|spec| fits(spec, front.argc)) else { return Begun::Not };
        let number = session.pool;
        let base = session.base;
        let open = session.open_slots();
        let Some(pool) = self.pools.get(usize::from(number)) else { return Begun::Not };
        if port.is_in_process(pool.line(base)) {
            return Begun::Not;
        }
        let changed = prefix.map(|prefix| tenant::front(&prefix, &front, bytes));
        let key = changed.as_ref().map_or(front.key, |(key, _)| key);
        if pool.moved(key).is_some() || !pool.faults.faults.is_empty() || self.is_led(id, key) {
            // It is looked at when it is whole: the key may have to be forgotten elsewhere first, a fault be injected, or it may live in
            // another pool.
            return Begun::Not;
        }
        let home = self.stream_home(id, spec, key);
        if home.as_ref().is_ok_and(|&shard| !self.can_acquire(id, shard) || self.stands_in(id, shard)) {
            // Better held as a whole than refused.
            return Begun::Not;
        }
        if open > 0 {
            let Some(session) = self.sessions.get_mut(id as usize) else { return Begun::Not };
            session.paused = true;
            session.mode |= mode::WAITING;
            return Begun::Wait;
        }
        let home = if self.share.full { Err(Apart::NoRoom) } else { home };
        self.requests += 1;
        self.next_in_order();
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return Begun::Not };
        pool.counts.requests[spec.class] += 1;
        pool.counts.request_bytes += bytes.len() as u64;
        pool.commands.asked(spec.tag);
        let counted = if pool.prefixes.is_on() {
            let slot = self.sessions.get(id as usize).map_or(0, |session| session.next_slot());
            pool.prefixes.arrives((id, slot), spec, key, bytes.len() as u64)
        } else {
            None
        };
        self.asking = Some(spec.tag);
        self.skip_long(number, spec, key);
        let pin = self.pin_stream(id, home, port);
        if let Some(pin) = pin {
            self.streams_key(number, key);
            let bytes = changed.as_ref().map_or(bytes, |(_, bytes)| bytes);
            self.depart_stream(id, pin, spec, bytes, port);
        }
        let Some(session) = self.sessions.get_mut(id as usize) else { return Begun::Taken };
        session.mode |= mode::STREAMING;
        session.resume = crate::resp::Resume::default();
        session.special().stream = Some(Stream {
            line: pin.map(|pin| pin.line),
            left: front.expected.saturating_sub(bytes.len() as u64),
            more: front.more,
            header: Vec::new(),
            total: bytes.len() as u64,
            counted,
        });
        Begun::Taken
    }

    /// Reads a request away of which these bytes are there. Its argument that is arriving ends at `expected`, and there are `more`
    /// behind it.
    pub(super) fn read_away_from(
        &mut self,
        id: SessionId,
        spec: &'static Spec,
        expected: u64,
        more: u32,
        bytes: &[u8],
    ) {
        self.requests += 1;
        self.next_in_order();
        let Some(session) = self.sessions.get_mut(id as usize) else { return };
        if let Some(pool) = self.pools.get_mut(usize::from(session.pool)) {
            pool.counts.requests[spec.class] += 1;
            pool.counts.request_bytes += bytes.len() as u64;
        }
        let total = bytes.len() as u64;
        session.mode |= mode::STREAMING;
        session.resume = crate::resp::Resume::default();
        let left = expected.saturating_sub(total);
        session.special().stream = Some(Stream { line: None, left, more, header: Vec::new(), total, counted: None });
    }

    /// A connection to the key's shard; none, and the app has been told, if there is none to be had.
    fn pin_stream(&mut self, id: SessionId, home: Result<u16, Apart>, port: &mut impl Port) -> Option<Pin> {
        let shard = match home {
            Ok(shard) => shard,
            Err(apart) => {
                self.cannot(id, apart);
                return None;
            }
        };
        let pin = self.acquire(id, shard, port);
        if pin.is_none() {
            self.exhausted(id, shard);
        }
        pin
    }

    fn stream_home(&self, id: SessionId, spec: &'static Spec, key: &[u8]) -> Result<u16, Apart> {
        let gone = Err(Apart::Refused(Refusal::NoShard, 0));
        let Some(session) = self.sessions.get(id as usize) else { return gone };
        let Some(pool) = self.pools.get(usize::from(session.pool)) else { return gone };
        let mut leg = leg_of(session, spec, key, b"", self.order);
        // Nobody shares it.
        leg.alone = false;
        let refused = refusal(pool.config.path.decide(&mut leg, self.now));
        refused.map_or(Ok(leg.shard), |reason| Err(Apart::Refused(reason, leg.shard)))
    }

    fn depart_stream(&mut self, id: SessionId, pin: Pin, spec: &'static Spec, bytes: &[u8], port: &mut impl Port) {
        let Some(session) = self.sessions.get_mut(id as usize) else { return };
        session.mode |= mode::PINNED;
        session.special().pin = Some(pin);
        let Some((_, ticket)) = self.open_slot(id) else { return };
        // How long it takes is the app's doing.
        let waiter = Waiter { part: Waiter::UNTIMED, ..self.waiter(ticket, spec) };
        if let Some(line) = self.lines.get_mut(pin.line as usize) {
            line.arriving = true;
        }
        self.send(pin.line, waiter, bytes, port);
    }

    /// More of a request that is passed on as it comes. Returns how many bytes were used up.
    pub(super) fn stream(&mut self, id: SessionId, bytes: &[u8], port: &mut impl Port) -> usize {
        let mut used = 0;
        loop {
            let Some(session) = self.sessions.get_mut(id as usize) else { return bytes.len() };
            let Some(pool) = self.pools.get_mut(usize::from(session.pool)) else { return bytes.len() };
            let limits = pool.config.limits;
            let Some(stream) = session.special.as_mut().and_then(|special| special.stream.as_mut()) else {
                session.mode &= !mode::STREAMING;
                return used;
            };
            let rest = bytes.get(used..).unwrap_or_default();
            let line = stream.line;
            if stream.left == 0 && stream.more == 0 {
                session.mode &= !mode::STREAMING;
                session.special().stream = None;
                if let Some(line) = line {
                    self.arrived(line);
                }
                return used;
            }
            if rest.is_empty() || session.paused {
                return used;
            }
            if stream.left > 0 {
                let count = usize::try_from(stream.left).unwrap_or(usize::MAX).min(rest.len());
                stream.left = stream.left.saturating_sub(count as u64);
                stream.total = stream.total.saturating_add(count as u64);
                pool.counts.request_bytes += count as u64;
                if let Some(counted) = stream.counted {
                    pool.prefixes.more(counted, count as u64);
                }
                used = used.saturating_add(count);
                if let Some(line) = line {
                    self.append(line, id, rest.get(..count).unwrap_or_default(), port);
                }
                continue;
            }
            let end = rest.iter().take(LONGEST_HEADER).position(|&byte| byte == b'\n').map(|at| at.saturating_add(1));
            let part = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
            stream.header.extend_from_slice(part);
            pool.counts.request_bytes += part.len() as u64;
            if let Some(counted) = stream.counted {
                pool.prefixes.more(counted, part.len() as u64);
            }
            used = used.saturating_add(part.len());
            if end.is_none() && stream.header.len() < LONGEST_HEADER {
                continue;
            }
            let header = std::mem::take(&mut stream.header);
            match request::argument(&header, &limits) {
                Ok(length) if stream.total.saturating_add(length).saturating_add(2) <= limits.request => {
                    stream.left = length.saturating_add(2);
                    stream.more = stream.more.saturating_sub(1);
                    stream.total = stream.total.saturating_add(header.len() as u64);
                    if let Some(line) = line {
                        self.append(line, id, &header, port);
                    }
                }
                wrong => {
                    session.mode &= !mode::STREAMING;
                    session.special().stream = None;
                    // The shard has the front of a request that will never be whole: its connection goes with it.
                    self.break_off(id, line, port);
                    self.protocol_error(id, wrong.err().unwrap_or(ProtocolError::TooBig));
                    return bytes.len();
                }
            }
        }
    }

    /// All of it is there: from now on the shard's reply is due.
    fn arrived(&mut self, on: LineId) {
        let now = self.now as u32;
        if let Some(line) = self.lines.get_mut(on as usize) {
            line.arriving = false;
            if let Some(waiter) = line.waiters.back_mut() {
                waiter.at = now;
            }
        }
    }

    /// Gives up the connection of a request that will not be whole; it is not answered by anybody.
    fn break_off(&mut self, id: SessionId, line: Option<LineId>, port: &mut impl Port) {
        let Some(line) = line else { return };
        let waits = self.lines.get(line as usize).is_some_and(|line| !line.waiters.is_empty());
        self.leave_own(id, port);
        if waits && let Some(session) = self.sessions.get_mut(id as usize) {
            // Its slot is the only one.
            if let Some(pool) = self.pools.get_mut(usize::from(session.pool)) {
                pool.counts.requests_pending -= 1;
                pool.prefixes.forget(id, session.unfilled());
            }
            session.advance(&mut self.spare);
        }
    }
}

/// Whether a command with so many arguments may be passed on as it comes: its one key is argument 1.
fn fits(spec: &Spec, argc: u32) -> bool {
    let least = u32::from(spec.arity.unsigned_abs());
    let right = if spec.arity < 0 { argc >= least } else { argc == least };
    right && matches!(spec.keys, Keys::One) && spec.treatment == Treatment::Forward && spec.subcommands.is_empty()
}
