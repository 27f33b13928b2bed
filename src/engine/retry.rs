//! Reads none of whose bytes had left when their connection was lost are sent on the next one, once.
//!
//! They still stand in the outbox: the shard has never heard of them, and a read does no harm in any case. So an app does not
//! notice that a server closed a connection just as something was asked on it. They wait where they are until the connection
//! is open again, no longer than the pool's `timeout` from when they were read; if it cannot be opened, or the shard does not answer
//! its next probe, they are answered with that.
//!
//! Never: writes, whatever left or not; anything of which a byte may have left; parts of split requests, scripts and all that
//! is not answered as it is; what waited for a connection that could not be opened. Nor a read before which its session had
//! anything else than reads on this connection that fails now: it must not seem to have run ahead of that. What a session
//! asks from now on stands behind what is kept, as it is on the same connection.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "counters of 64 bits, and of requests, which are bounded by windows"
)]

use super::hot::Note;
use super::line::{Line, Owner, State, Ticket, Waiter};
use super::misses::WHOLE;
use super::port::Port;
use super::{Engine, LineId, SessionId};
use crate::command::{self, Class, Keys};
use crate::error::{Cause, Failure};
use crate::resp::{Limits, Request, Resume, Scan, scan};
use std::collections::HashSet;

/// What of a connection's outbox may be sent again.
pub(super) struct Unsent {
    /// Whole flights, in the order of their waiters.
    bytes: Vec<u8>,
    /// The first of them.
    serial: u64,
}

impl Unsent {
    /// Of a connection that fails, before it is drained; nothing where nothing is to be sent again.
    pub(super) fn of(line: &Line, failure: &Failure) -> Option<Self> {
        let lost = failure.cause == Cause::Lost && line.state == State::Up;
        if !lost || line.owner != Owner::Shared || line.retired || line.left >= line.next_serial() {
            return None;
        }
        Some(Self { bytes: line.outbox.get(line.whole_from..)?.to_vec(), serial: line.left.max(line.base) })
    }
}

impl Engine {
    /// Puts reads back into the outbox of their connection, which was drained. Returns the others, who are to be told.
    #[cold]
    pub(super) fn keep_reads(&mut self, id: LineId, unsent: &Unsent, lost: Vec<(Waiter, bool)>) -> Vec<(Waiter, bool)> {
        let Some(once) = self.lines.get(id as usize).map(|line| line.retried) else { return lost };
        let mut barred: HashSet<(SessionId, u32)> = HashSet::new();
        let (mut kept, mut outbox, mut told, mut flights) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut notes, mut misses) = (Vec::new(), Vec::new());
        let (mut rest, mut serial) = (unsent.bytes.as_slice(), unsent.serial);
        for (waiter, sent) in lost {
            let read = waiter.is_shareable() && waiter.tag.class() == Class::Read;
            let mut flight: &[u8] = &[];
            if !sent {
                // hotring wrote it, so it is whole; if not, nothing is kept from here on.
                if let Ok(Scan::Request(request)) = scan(rest, &mut Resume::default(), &Limits::default()) {
                    flight = rest.get(..request.wire().len()).unwrap_or_default();
                }
                rest = rest.get(flight.len()..).filter(|_| !flight.is_empty()).unwrap_or_default();
                serial += 1;
            }
            let tickets = self.all_of(&waiter, read);
            let free = tickets.iter().all(|ticket| !barred.contains(&(ticket.session, ticket.generation)));
            if !flight.is_empty() && read && serial > once && free && tickets.iter().any(|&t| self.waits(t)) {
                outbox.extend_from_slice(flight);
                flights.push(flight);
                notes.extend(self.note_again(id, flight).map(|note| (kept.len() as u64, note)));
                misses.push(self.leased_read(id, flight));
                notes.extend(self.note_count_again(id, flight).map(|note| (kept.len() as u64, note)));
                kept.push(waiter);
                continue;
            }
            if !read {
                barred.extend(tickets.iter().map(|ticket| (ticket.session, ticket.generation)));
            }
            told.push((waiter, sent));
        }
        let count = kept.len();
        let Some(line) = self.lines.get_mut(id as usize).filter(|_| count > 0) else { return told };
        let mut notes = notes.into_iter().peekable();
        for (place, (miss, waiter)) in (0..).zip(misses.iter().zip(&kept)) {
            let serial = line.next_serial() + place;
            while let Some((_, note)) = notes.next_if(|(of, _)| *of == place) {
                line.notes.push(serial, note);
            }
            if let Some((hash, key)) = miss {
                line.notes.push_miss(serial, *hash, waiter.at, key);
            }
        }
        let first = line.next_serial();
        if let Some(asked) = &mut line.asked {
            for (serial, flight) in (first..).zip(flights) {
                asked.keep(serial, flight, self.order);
            }
        }
        line.waiters.extend(kept);
        line.outbox = outbox;
        line.retried = line.next_serial();
        let pool = line.pool;
        self.in_flight += count as u32;
        self.still_on_its_way(id);
        if let Some(pool) = self.pools.get_mut(usize::from(pool)) {
            pool.counts.retried_reads += count as u64;
        }
        told
    }

    /// A shard does not answer its probe either: whoever waits for one of its lost connections is told so. Those are not opened before
    /// it does.
    #[cold]
    pub(super) fn keep_no_longer(&mut self, pool: u16, shard: u16, failure: Failure, port: &mut impl Port) {
        let now = self.now;
        let lost = |line: &Line| {
            (line.pool, line.shard, line.owner) == (pool, shard, Owner::Shared)
                && matches!(line.state, State::Down(_))
                && !line.waiters.is_empty()
        };
        let lines = (0..).zip(&self.lines);
        let lines: Vec<LineId> = lines.filter(|(_, line)| lost(line)).map(|(id, _)| id).collect();
        for id in lines {
            self.fail(id, failure, now, port);
        }
    }

    /// What is noted of a read that is sent again: what was, is lost with its connection.
    fn note_again(&self, id: LineId, flight: &[u8]) -> Option<Note> {
        let hot = &self.pools.get(usize::from(self.lines.get(id as usize)?.pool))?.config.path.hot;
        let request = Request::parse(flight).filter(|_| hot.keeps())?;
        let spec = command::identify(&request).ok().filter(|spec| matches!(spec.keys, Keys::One))?;
        let hash = hot.kept_hash(request.arg(1)?)?;
        Some(if spec.name == "get" { Note::Read(hash) } else { Note::Look(hash) })
    }

    /// The same for a key whose misses are counted.
    fn note_count_again(&self, id: LineId, flight: &[u8]) -> Option<Note> {
        let (pool, db) = self.lines.get(id as usize).map(|line| (line.pool, line.dialect.db))?;
        let request = Request::parse(flight).filter(|request| request.name().eq_ignore_ascii_case(b"get"))?;
        Some(Note::Count(self.get_budget_of(pool, request.arg(1)?, db)?, WHOLE))
    }

    /// Everyone whom a flight's reply is for.
    fn all_of(&self, waiter: &Waiter, whole: bool) -> Vec<Ticket> {
        let mut all = vec![waiter.ticket];
        let mut next = if whole { waiter.link } else { Waiter::NOBODY };
        while let Some(&(ticket, _, link)) = self.joined.get(next as usize) {
            all.push(ticket);
            next = link;
        }
        all
    }

    /// Whether a session still waits for its reply.
    fn waits(&self, ticket: Ticket) -> bool {
        let session = self.sessions.get(ticket.session as usize);
        session.is_some_and(|session| session.generation == ticket.generation && !session.killed)
    }
}
