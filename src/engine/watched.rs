//! Replies that something is to be done with as they come, by their sessions and slots.
//!
//! Promises: a session that has none of them pays one look at a flag. Bounded by what asks for it: a window of each session.

use super::line::Ticket;
use super::mirror::Mirrors;
use super::window::Session;
use super::{Engine, SessionId};
use crate::metrics::PoolCounts;
use crate::stages::Micros;
use std::collections::HashMap;

/// What is to be done with a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It is compared with a mirror's: by what the comparison is known.
    Compare(u32, u32),
    /// It is held back for so long.
    Delay(Micros),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Watched {
    replies: HashMap<SessionId, Vec<(u32, Why)>>,
}

/// What a reply is looked at with.
pub(super) struct Looks<'a> {
    pub(super) mirrors: &'a mut Mirrors,
    pub(super) counts: &'a mut PoolCounts,
    pub(super) now: Micros,
}

impl Watched {
    /// The reply in a slot of a session is wanted.
    pub(super) fn watch(&mut self, session: &mut Session, id: SessionId, slot: u32, why: Why) {
        session.set_watched(true);
        self.replies.entry(id).or_default().push((slot, why));
    }

    /// A session is gone.
    pub(super) fn forget(&mut self, id: SessionId) {
        self.replies.remove(&id);
    }

    /// A reply is there for a session that has some of them. Returns for how long it is to be held back, if it is.
    #[cold]
    pub(super) fn saw(
        &mut self,
        session: &mut Session,
        ticket: Ticket,
        reply: &[u8],
        looks: Looks<'_>,
    ) -> Option<Micros> {
        let Looks { mirrors, counts, now } = looks;
        let Some(wanted) = self.replies.get_mut(&ticket.session) else {
            session.set_watched(false);
            return None;
        };
        let mut held = None;
        wanted.retain(|&(slot, why)| {
            if slot != ticket.slot {
                return true;
            }
            match why {
                Why::Compare(link, number) => Engine::own_reply(mirrors, (link, number), reply, (counts, now)),
                Why::Delay(span) => held = Some(span),
            }
            false
        });
        if wanted.is_empty() {
            self.replies.remove(&ticket.session);
            session.set_watched(false);
        }
        held
    }
}
