//! Sets of connections: those of a pool's shards that speak the same protocol and are on the same database.
//!
//! Most sessions use the first set, RESP2 on database 0, which is there from the start. `HELLO 3` and `SELECT n` take a
//! session to another one, made when the first session wants it and kept. So replies pass as the shards word them, whatever
//! the protocol, nobody is ever put on another's database, and RESP2 costs what it would cost alone. There are at most
//! twice as many sets as `databases`; each may open as many connections as the first, each when it is first used.

#![expect(clippy::arithmetic_side_effects, reason = "numbers of connections, which the config bounds")]

use super::line::{Dialect, Line, State};
use super::{Engine, LineId, Pool, SessionId};

impl Pool {
    /// Connections of a set: one for each of the pool's shards and lanes.
    #[inline]
    pub(super) fn stride(&self) -> u32 {
        self.config.shards.len() as u32 * u32::from(self.config.lanes)
    }

    /// The connection that stages know by this number.
    #[inline]
    pub(super) fn line(&self, number: u32) -> LineId {
        // Every number was made from a session's base, and every base from a set.
        self.table.get(number as usize).copied().unwrap_or_default()
    }

    /// What is spoken in the set whose numbers begin at `base`.
    pub(super) fn dialect(&self, base: u32) -> Dialect {
        base.checked_div(self.stride()).and_then(|set| self.sets.get(set as usize)).copied().unwrap_or_default()
    }

    /// Makes the connections of a shard and lane that the table has none for yet, in all sets.
    pub(super) fn fill(&mut self, pool: u16, lines: &mut Vec<Line>) {
        let (stride, lanes) = (self.stride(), u32::from(self.config.lanes.max(1)));
        for number in self.table.len() as u32..self.sets.len() as u32 * stride {
            let dialect = self.dialect(number);
            self.table.push(lines.len() as LineId);
            let asked = self.cluster.is_some().then(Box::default);
            lines.push(Line { asked, ..Line::new(pool, (number % stride / lanes) as u16, number, dialect) });
        }
    }
}

impl Engine {
    /// A connection to a shard that is open and on database 0, whatever it speaks: for what the proxy asks by itself and whose
    /// order to other requests is no matter. Where all apps speak RESP3 the first set has none.
    pub(super) fn line_that_is_open(&self, pool: u16, shard: u16) -> Option<LineId> {
        let place = self.pools.get(usize::from(pool))?;
        let first = u32::from(shard) * u32::from(place.config.lanes);
        let sets = (0u32..).zip(&place.sets).filter(|(_, set)| set.db == 0);
        let numbers = sets.flat_map(|(set, _)| (0..u32::from(place.config.lanes)).map(move |lane| (set, first + lane)));
        // Numbers of shards that are there no more lead anywhere.
        let is_open = |line: &Line| (line.pool, line.shard, line.state) == (pool, shard, State::Up);
        numbers
            .map(|(set, number)| place.line(set * place.stride() + number))
            .find(|&id| self.lines.get(id as usize).is_some_and(is_open))
    }

    /// One to a shard that is the pool's, to be opened if need be.
    pub(super) fn line_that_may_open(&self, pool: u16, shard: u16) -> Option<LineId> {
        let place = self.pools.get(usize::from(pool))?;
        let id = place.line(u32::from(shard) * u32::from(place.config.lanes));
        let line = self.lines.get(id as usize)?;
        let may_open = matches!(line.state, State::Idle | State::Opening) && !line.retired;
        ((line.pool, line.shard) == (pool, shard) && may_open).then_some(id)
    }

    /// Takes a session, which has no open requests, to the connections that speak its protocol and are on its database.
    pub(super) fn settle(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(id as usize) else { return };
        let wanted = Dialect { db: session.db(), resp3: session.resp3 };
        let number = session.pool;
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        let index = pool.sets.iter().position(|set| *set == wanted).unwrap_or_else(|| {
            pool.sets.push(wanted);
            pool.fill(number, &mut self.lines);
            pool.sets.len() - 1
        });
        session.base = index as u32 * pool.stride();
        self.close_all_shared(number);
    }
}
