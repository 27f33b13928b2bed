//! What is done for hot keys: answers from memory, and what keeps them true.

mod notes;

pub(super) use notes::Notes;

use super::{Engine, SessionId};
use crate::resp::write;
use crate::stages::Leg;
use crate::stages::hot::Value;

impl Engine {
    /// Answers a read of a hot key with what is kept of it here.
    pub(super) fn answer_near(&mut self, id: SessionId, leg: &Leg<'_>) {
        let Some(session) = self.sessions.get(id as usize) else { return };
        let (number, resp3) = (session.pool, session.resp3);
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        let Some(hash) = leg.hot else { return };
        let Some(value) = pool.config.path.hot.entry(hash, self.now).map(|entry| entry.value.clone()) else { return };
        pool.config.path.hot.served(hash, self.now);
        pool.counts.near_hits += 1;
        self.answer_with(id, None, |out| match value {
            Value::Absent => write::null(out, resp3),
            Value::Bulk(bytes) => out.extend_from_slice(&bytes),
        });
    }
}
