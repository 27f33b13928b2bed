//! What is done for hot keys: answers from memory, and what keeps them true.

#![expect(clippy::arithmetic_side_effects, reason = "counters of 64 bits")]

mod audit;
mod copies;
mod errands;
mod fencing;
mod notes;
mod spread;
mod tell;
mod tracker;

pub(super) use audit::Audit;
pub(super) use copies::{CopyRead, Withheld};
pub(super) use errands::{Errand, Way};
pub(super) use fencing::Becomes;
pub(super) use notes::{Note, Notes};
pub(super) use spread::Spread;
pub(super) use tracker::Tracker;

use super::line::{State, Ticket};
use super::port::Port;
use super::{Engine, LineId, SessionId};
use crate::resp::write;
use crate::stages::Leg;
use crate::stages::hot::{Means, Value};
use std::rc::Rc;

impl Engine {
    /// Answers a read of a hot key with what is kept of it here.
    pub(super) fn answer_near(&mut self, id: SessionId, leg: &Leg<'_>) {
        let Some(session) = self.sessions.get_mut(id as usize) else { return };
        let Some(pool) = self.pools.get_mut(usize::from(session.pool)) else { return };
        // Whether it may be served was asked just now. Asked again, another worker might have another answer.
        let kept = leg.hot.and_then(|hash| Some((hash, pool.config.path.hot.kept_entry(hash)?)));
        let Some((hash, entry)) = kept else { return };
        let number = session.pool;
        let ticket = Ticket { session: id, generation: session.generation, slot: session.open() };
        pool.counts.requests_pending += 1;
        match &entry.value {
            Value::Bulk(bytes) => {
                let bytes = Rc::clone(bytes);
                self.sample_near(ticket);
                self.tell_there(number, true);
                self.complete(number, ticket, &bytes, None);
            }
            Value::Absent => {
                let resp3 = session.resp3;
                let mut reply = self.spare.take();
                if self.may_tell_absent(number, leg.key, &mut reply) {
                    write::null(&mut reply, resp3);
                    self.tell_there(number, false);
                }
                self.sample_near(ticket);
                self.complete(number, ticket, &reply, None);
                self.spare.put(reply);
            }
        }
        self.served_part(number, hash);
    }

    /// A read of a hot key, or an element of one, was answered from memory.
    #[inline]
    pub(super) fn served_part(&mut self, number: u16, hash: u64) {
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        let Some(shard) = pool.config.path.hot.key(hash).map(|key| key.shard) else { return };
        pool.config.path.hot.served(hash);
        pool.counts.near_hits = pool.counts.near_hits.saturating_add(1);
        self.keep_proof(number, shard);
        self.sample(number, hash);
    }

    /// A read of a hot key was sent home.
    #[cold]
    pub(super) fn read_at_home(&mut self, ticket: Ticket, leg: &Leg<'_>, to: (LineId, u64), port: &mut impl Port) {
        let Some(hash) = leg.hot else { return };
        self.time_home(leg, hash, ticket, to);
        let Some(session) = self.sessions.get(ticket.session as usize).filter(|session| !session.is_strict()) else {
            return;
        };
        let Some(hot) = self.pools.get(usize::from(session.pool)).map(|pool| &pool.config.path.hot) else { return };
        let (whole, kept) = (leg.spec.name == "get", hot.is_kept(hash));
        if whole && (kept || hot.key(hash).is_some()) {
            self.note_read(ticket, Note::Read(hash), to.0, to.1);
            self.keep(ticket, hash, leg.key, port);
        } else if kept {
            self.note_read(ticket, Note::Look(hash), to.0, to.1);
        }
    }

    /// The same for an element of MGET: which of its flight's.
    #[cold]
    pub(super) fn element_at_home(
        &mut self,
        ticket: Ticket,
        (hash, key): (u64, &[u8]),
        (on, serial, index): (LineId, u64, u32),
        port: &mut impl Port,
    ) {
        self.note_read(ticket, Note::Element(hash, index), on, serial);
        self.keep(ticket, hash, key, port);
    }

    /// Reads a hot key once more, to keep it, if that is how it is to be served.
    fn keep(&mut self, ticket: Ticket, hash: u64, key: &[u8], port: &mut impl Port) {
        let Some(pool) = self.sessions.get(ticket.session as usize).map(|session| session.pool) else { return };
        let Some(hot) = self.pools.get(usize::from(pool)).map(|place| &place.config.path.hot) else { return };
        let wanted = hot.key(hash).is_some_and(|key| key.means == Means::Near);
        // Others may be served from here though this one may not.
        if wanted && hot.entry(hash, true, self.now).is_none() {
            self.fill(pool, hash, key, port);
        }
    }
}
