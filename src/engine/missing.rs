//! Reads of keys whose shard is ejected, answered as if the keys did not exist, in a pool that wants that.
//!
//! Only what is one read of its own: what is part of a transaction, runs as a script or names several keys that must be on
//! one shard is refused, and so are writes.

#![expect(clippy::arithmetic_side_effects, reason = "counters of 64 bits")]

use super::line::Waiter;
use super::plan::{Part, Source};
use super::port::Port;
use super::{Engine, SessionId};
use crate::command::{Merge, Spec};
use crate::resp::{Request, write};
use crate::stages::{Refusal, missing};

impl Engine {
    /// A request with one key that goes to no shard.
    #[cold]
    pub(super) fn turned_away(
        &mut self,
        id: SessionId,
        spec: &'static Spec,
        request: &Request<'_>,
        reason: Refusal,
        shard: u16,
    ) {
        let resp3 = self.sessions.get(id as usize).is_some_and(|session| session.resp3);
        let mut reply = self.spare.take();
        if matches!(reason, Refusal::Missing(_)) && missing::reply(spec, request, resp3, &mut reply) {
            self.count_missed(id);
            let number = self.sessions.get(id as usize).map_or(0, |session| session.pool);
            let mut busy = Vec::new();
            if spec.name == "get" && !self.may_tell_absent(number, request.arg(1).unwrap_or_default(), &mut busy) {
                reply.clone_from(&busy);
            }
            self.answer_with(id, None, |out| out.extend_from_slice(&reply));
        } else {
            self.refused(id, reason, shard);
        }
        self.spare.put(reply);
    }

    fn count_missed(&mut self, id: SessionId) {
        let pool = self.sessions.get(id as usize).map_or(0, |session| session.pool);
        if let Some(pool) = self.pools.get_mut(usize::from(pool)) {
            pool.counts.missed += 1;
        }
    }

    /// A part of a split request that goes to no shard; it is answered at once.
    #[cold]
    pub(super) fn answer_part(
        &mut self,
        id: SessionId,
        (spec, merge): (&'static Spec, Merge),
        part: &Part,
        waiter: &Waiter,
        port: &mut impl Port,
    ) {
        let Some(session) = self.sessions.get(id as usize) else { return };
        let (pool, resp3) = (session.pool, session.resp3);
        let mut reply = self.spare.take();
        if part.source == Source::Memory {
            write::array(&mut reply, part.legs as usize);
            reply.extend_from_slice(&part.flight);
        } else {
            // Whether it can be answered for was asked when the part was made.
            let _ = missing::part(spec, merge, part.legs as usize, resp3, &mut reply);
            self.count_missed(id);
        }
        if self.samples.is_open() {
            self.sample_part_here(waiter.ticket, part.source, &reply);
        }
        self.land(part.on, pool, waiter, &reply, port);
        self.spare.put(reply);
    }
}
