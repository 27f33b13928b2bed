//! Connections that change to another socket while they are used: the shard's name leads to another address.
//!
//! What was sent is answered on the old one, what was not goes to the new one, and nobody notices. A subscription is asked
//! for anew, as after a connection that was lost; what is published between the two is missed.

#![expect(clippy::arithmetic_side_effects, reason = "counters of 64 bits")]

use super::line::{Owner, State};
use super::port::Port;
use super::{Engine, LineId};
use crate::stages::Micros;

impl Engine {
    /// Sends nothing more on a connection that is shared, as soon as no request is half sent; what is asked waits. Returns
    /// whether everything that was sent has been answered, so that the connection can change to another socket
    /// ([`Engine::moved`]). To be asked again after each reply.
    pub fn hold(&mut self, id: LineId) -> bool {
        let Some(line) = self.lines.get_mut(id as usize) else { return false };
        line.moving = true;
        line.hold_if_clear();
        line.state == State::Opening && line.base >= line.left
    }

    /// A connection that was held is now another, open one.
    pub fn moved(&mut self, id: LineId, now: Micros) {
        let Some(line) = self.lines.get_mut(id as usize) else { return };
        line.moving = false;
        line.counts.server_moves += 1;
        let (pool, shard) = (line.pool, line.shard);
        if line.owner == Owner::Ear {
            self.ear_moves(pool, shard);
        } else if line.owner == Owner::Tracker {
            self.tracker_lost(id);
        }
        self.connected(id, now);
    }

    /// Closes a connection that sessions have for themselves, if it is nobody's now and nothing is under way on it. Returns
    /// whether it did.
    pub fn leave_if_free(&mut self, id: LineId, port: &mut impl Port) -> bool {
        let Some(line) = self.lines.get(id as usize) else { return false };
        let at_rest = line.owner == Owner::Free && line.state == State::Up && line.waiters.is_empty();
        if at_rest {
            self.dismiss(id, port);
        }
        at_rest
    }

    /// Opening a connection had to wait for its turn.
    pub fn delayed(&mut self, id: LineId) {
        if let Some(line) = self.lines.get_mut(id as usize) {
            line.counts.server_connects_delayed += 1;
        }
    }
}
