//! Sets of connections: those of a pool's shards that speak the same protocol and are on the same database.
//!
//! Most sessions use the first set, RESP2 on database 0, which is there from the start. `HELLO 3` and `SELECT n` take a
//! session to another one, made when the first session wants it and kept. So replies pass as the shards word them, whatever
//! the protocol, nobody is ever put on another's database, and RESP2 costs what it would cost alone. There are at most
//! twice as many sets as `databases`; each may open as many connections as the first, each when it is first used.

use super::line::{Dialect, Line};
use super::{Engine, LineId, Pool, SessionId};

/// A set beside the first.
#[derive(Debug)]
pub(super) struct Set {
    dialect: Dialect,
    first: LineId,
}

impl Pool {
    /// The connection that stages know by this number.
    #[inline]
    pub(super) fn line(&self, number: u32) -> LineId {
        if number < self.stride { self.first_line + number } else { self.line_of_set(number) }
    }

    fn line_of_set(&self, number: u32) -> LineId {
        let set = (number / self.stride.max(1)) as usize - 1;
        // Every number was made from a session's base, and every base from a set.
        self.sets.get(set).map_or(self.first_line, |set| set.first) + number % self.stride.max(1)
    }

    /// What is spoken in the set whose numbers begin at `base`.
    pub(super) fn dialect(&self, base: u32) -> Dialect {
        match (base / self.stride.max(1)) as usize {
            0 => Dialect::default(),
            set => self.sets.get(set - 1).map_or(Dialect::default(), |set| set.dialect),
        }
    }
}

impl Engine {
    /// Takes a session, which has no open requests, to the connections that speak its protocol and are on its database.
    pub(super) fn settle(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(id as usize) else { return };
        let wanted = Dialect { db: session.db(), resp3: session.resp3 };
        let number = session.pool;
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        if wanted == Dialect::default() {
            session.base = 0;
            return;
        }
        let index = pool.sets.iter().position(|set| set.dialect == wanted).unwrap_or_else(|| {
            let (base, first) = ((pool.sets.len() as u32 + 1) * pool.stride, self.lines.len() as LineId);
            for line in 0..pool.stride {
                let shard = line / u32::from(pool.config.lanes.max(1));
                self.lines.push(Line::new(number, shard as u16, base + line, wanted));
            }
            pool.sets.push(Set { dialect: wanted, first });
            pool.sets.len() - 1
        });
        session.base = (index as u32 + 1) * pool.stride;
    }
}
