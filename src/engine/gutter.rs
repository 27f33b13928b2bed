//! Writes to a shard that stands in for one that is ejected: what they leave behind is made to go soon.
//!
//! Behind each write goes, on the same connection, a `PEXPIRE key ttl LT` for each of its keys, so that nothing that was written
//! here while a shard was away is still there when it is away the next time, and whatever goes sooner by its own TTL does.
//!
//! Not for what a session has a connection of its own for (transactions, commands that block, `slow_commands`): those are refused
//! as if there were no gutter. Does not promise that the TTL is set if the connection breaks between the two. `LT` needs Redis 7.

use super::plan::{Apart, keys_of};
use super::port::Port;
use super::{Engine, LineId, SessionId};
use crate::command::{Access, Spec, flag};
use crate::error::{Cause, Failure};
use crate::resp::{Request, write};
use crate::stages::Refusal;

/// Why what needs a connection of its own is refused there.
const STOOD_IN: Failure = Failure { cause: Cause::ShardDown, reason: "ejected, and its gutter takes no such command" };

impl Engine {
    /// Whether a shard of a session's pool stands in for others.
    pub(super) fn stands_in(&self, id: SessionId, shard: u16) -> bool {
        let pool = self.sessions.get(id as usize).and_then(|session| self.pools.get(usize::from(session.pool)));
        pool.is_some_and(|pool| pool.config.gutter_ttl > 0 && pool.config.path.route.is_spare(shard))
    }

    /// The refusal of what cannot be done at a shard that stands in.
    pub(super) fn no_stand_in(shard: u16) -> Apart {
        Apart::Refused(Refusal::Down(STOOD_IN), shard)
    }

    /// Makes what a write has left at a shard that stands in go soon.
    #[cold]
    pub(super) fn shorten(
        &mut self,
        id: SessionId,
        spec: &'static Spec,
        (on, shard): (LineId, u16),
        key: &[u8],
        port: &mut impl Port,
    ) {
        if spec.access != Access::Write || spec.flags & flag::PUBSUB != 0 || !self.stands_in(id, shard) {
            return;
        }
        let pool = self.sessions.get(id as usize).and_then(|session| self.pools.get(usize::from(session.pool)));
        let Some(ttl) = pool.map(|pool| pool.config.gutter_ttl) else { return };
        let mut wire = self.spare.take();
        write::request(&mut wire, &[b"PEXPIRE", key, ttl.to_string().as_bytes(), b"LT"]);
        self.send_for_nobody(id, on, &wire, port);
        self.spare.put(wire);
    }

    /// The same for a command with several keys that went there as it is.
    #[cold]
    pub(super) fn shorten_all(
        &mut self,
        id: SessionId,
        spec: &'static Spec,
        to: (LineId, u16),
        request: &Request<'_>,
        keys: &[u32],
        port: &mut impl Port,
    ) {
        if keys.is_empty() {
            return;
        }
        for key in keys_of(request, keys) {
            self.shorten(id, spec, to, key, port);
        }
    }
}
