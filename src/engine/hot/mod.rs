//! What is done for hot keys: answers from memory, and what keeps them true.

mod errands;
mod fencing;
mod notes;
mod tracker;

pub(super) use errands::{Errand, Way};
pub(super) use notes::{Note, Notes};
pub(super) use tracker::Tracker;

use super::line::{State, Ticket};
use super::port::Port;
use super::{Engine, LineId, SessionId};
use crate::resp::write;
use crate::stages::Leg;
use crate::stages::hot::{Means, Value};

impl Engine {
    /// Answers a read of a hot key with what is kept of it here.
    pub(super) fn answer_near(&mut self, id: SessionId, leg: &Leg<'_>) {
        let Some(session) = self.sessions.get(id as usize) else { return };
        let (number, resp3) = (session.pool, session.resp3);
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        let Some(hash) = leg.hot else { return };
        let Some(value) = pool.config.path.hot.entry(hash, self.now).map(|entry| entry.value.clone()) else { return };
        pool.config.path.hot.served(hash);
        pool.counts.near_hits = pool.counts.near_hits.saturating_add(1);
        self.keep_proof(number, leg.shard);
        self.answer_with(id, None, |out| match value {
            Value::Absent => write::null(out, resp3),
            Value::Bulk(bytes) => out.extend_from_slice(&bytes),
        });
    }

    /// A read of a hot key was sent home.
    #[cold]
    pub(super) fn read_at_home(&mut self, ticket: Ticket, leg: &Leg<'_>, to: (LineId, u64), port: &mut impl Port) {
        let Some(hash) = leg.hot.filter(|_| leg.spec.name == "get") else { return };
        let Some(pool) = self.sessions.get(ticket.session as usize).map(|session| session.pool) else { return };
        self.note_read(ticket, hash, to.0, to.1);
        let means = self.pools.get(usize::from(pool)).and_then(|pool| pool.config.path.hot.key(hash)).map(|key| key.means);
        if means == Some(Means::Near) {
            self.fill(pool, hash, leg.key, port);
        }
    }
}
