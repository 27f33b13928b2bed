//! Apps that share servers and do not see each other: a tenant's keys and channels have a prefix there that the tenant knows
//! nothing of. It is put before every name that the session names (`requests`) and taken from every name that it is told
//! (`replies`); all between sees an ordinary request.
//!
//! ```text
//! requests.rs  which arguments are names, and the request with the prefix
//! replies.rs   in which replies there are names, and the reply without it
//! names.rs     channels, of which some name keys
//! ```
//!
//! Promises: what a session with a prefix names is its own, whatever it sends; what cannot be carried so is refused. A request
//! costs one copy and no allocation, and sessions without a prefix cost nothing. A session's prefix is its user's, and changes
//! only when all that it has asked for is answered. The rules of users are about names as the app writes them; all else (the
//! ring, hot keys, limits, leases, pins) sees those that the servers see.
//! Does not: look into scripts. One that makes up names of keys reaches whatever it names, and what it replies is passed on.

mod names;
mod replies;
mod requests;

use super::channels::Kind;
use super::port::Port;
use super::special::mode;
use super::window::Session;
use super::{Engine, SessionId};
use crate::acl::{Denied, Prefix};
use crate::command::{self, Spec};
use crate::error::Cause;
use crate::resp::request::Front;
use crate::resp::{Limits, Request, Resume, Scan, scan, write};
use replies::Shape;
use requests::{Added, Edit};
use std::collections::VecDeque;
use std::sync::Arc;

/// A buffer with more room than this is let go when its request is on its way.
const LARGEST_IDLE: usize = 256 * 1024;

/// What a session with a prefix has.
#[derive(Debug)]
pub struct Tenant {
    prefix: Arc<Prefix>,
    /// Open requests whose replies are to be looked at; as many as the session's window at the most.
    marks: VecDeque<Mark>,
    /// Of the commands that a transaction has queued so far, what their replies tell.
    queued: Vec<Shape>,
}

/// An open request whose reply is to be looked at.
#[derive(Debug, Clone, Copy)]
struct Mark {
    slot: u32,
    shape: Shape,
    /// It is told in EXEC's reply, if its own is that it is queued.
    later: bool,
}

/// What is used while a request is carried; kept, so that none allocates.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    wire: Vec<u8>,
    edits: Vec<Edit>,
    /// Why the request that is carried must not be.
    against: Option<Against>,
}

#[derive(Debug, Clone, Copy)]
enum Against {
    Denied(Denied, &'static Spec),
    Refused(Cause, &'static str),
}

impl Scratch {
    /// Whether the request that is carried will be refused to its session.
    pub(super) fn is_against(&self) -> bool {
        self.against.is_some()
    }
}

impl Tenant {
    /// How its keys begin on the servers.
    pub(super) fn prefix(&self) -> &Prefix {
        &self.prefix
    }
}

impl Session {
    /// What it has because of its prefix.
    fn tenant(&mut self) -> Option<&mut Tenant> {
        self.special.as_mut()?.tenant.as_deref_mut()
    }

    /// How its keys begin on the servers.
    pub(super) fn prefix(&self) -> Option<&Arc<Prefix>> {
        Some(&self.special.as_ref()?.tenant.as_ref()?.prefix)
    }

    /// Makes it one with this prefix, or with none. Returns whether it had another one.
    pub(super) fn set_prefix(&mut self, prefix: Option<&Arc<Prefix>>) -> bool {
        if self.prefix() == prefix && self.is_tenant() == prefix.is_some() {
            return false;
        }
        self.set_tenant(prefix.is_some());
        let tenant = |prefix: &Arc<Prefix>| {
            Box::new(Tenant { prefix: Arc::clone(prefix), marks: VecDeque::new(), queued: Vec::new() })
        };
        self.special().tenant = prefix.map(tenant);
        true
    }

    /// What the reply of a slot tells of names, and whether that is so of a later one.
    fn take_mark(&mut self, slot: u32) -> Option<Mark> {
        let tenant = self.tenant()?;
        let at = tenant.marks.iter().position(|mark| mark.slot == slot);
        let mark = at.and_then(|at| tenant.marks.remove(at));
        let left = !tenant.marks.is_empty();
        self.set_marked(left);
        mark
    }

    fn mark(&mut self, mark: Mark) {
        let fresh = self.open_slots() == 0;
        let Some(tenant) = self.tenant() else { return };
        if fresh {
            // What waited for nothing any more.
            tenant.marks.clear();
        }
        tenant.marks.push_back(mark);
        self.set_marked(true);
    }
}

impl Engine {
    /// Carries out one request. Returns whether it did: if not, the request has to wait for those before it, and comes again.
    #[inline]
    pub(super) fn request(&mut self, id: SessionId, request: &Request<'_>, port: &mut impl Port) -> bool {
        if self.sessions.get(id as usize).is_some_and(|session| session.is_tenant()) {
            return self.request_of_tenant(id, request, port);
        }
        self.carry(id, request, port)
    }

    /// The same of a session with a prefix.
    #[inline(never)]
    fn request_of_tenant(&mut self, id: SessionId, request: &Request<'_>, port: &mut impl Port) -> bool {
        // What is no command is answered here, and goes nowhere.
        let Ok(spec) = command::identify(request) else { return self.carry(id, request, port) };
        let there = self.special_there(id).is_some_and(|special| special.multi && !special.leaving);
        let Some(session) = self.sessions.get_mut(id as usize) else { return true };
        if requests::changes_user(spec) && session.open_slots() > 0 {
            session.paused = true;
            session.mode |= mode::WAITING;
            return false;
        }
        let Some(special) = &mut session.special else { return true };
        let multi = there || special.multi && !special.leaving;
        let may = special.user.as_ref().map_or(Ok(()), |user| user.check(spec, request));
        let Scratch { mut wire, mut edits, .. } = std::mem::take(&mut self.tenant);
        let outcome = requests::edits(spec, request, &mut edits);
        let mut against = may.err().map(|denied| Against::Denied(denied, spec));
        let known = outcome.is_ok();
        let outcome = outcome.unwrap_or_else(|(cause, text)| {
            against = against.or(Some(Against::Refused(cause, text)));
            requests::Outcome::default()
        });
        let later = multi && spec.name != "exec";
        let marked = (later || outcome.shape != Shape::Nothing) && against.is_none();
        let slot = session.next_slot();
        if marked {
            session.mark(Mark { slot, shape: outcome.shape, later });
        }
        wire.clear();
        let changed = !known || !edits.is_empty() || outcome.added != Added::Nothing;
        if !known {
            // What is not carried is nothing that anything could go by.
            write::request(&mut wire, &[b"PING"]);
        } else if changed && let Some(prefix) = session.prefix() {
            requests::rewrite(request, prefix, &edits, outcome.added, &mut wire);
        }
        self.tenant.edits = edits;
        self.tenant.against = against;
        let done = if changed {
            match whole(&wire) {
                Some(request) => self.carry(id, &request, port),
                None => {
                    self.protocol_error(id, crate::resp::ProtocolError::TooBig);
                    true
                }
            }
        } else {
            self.carry(id, request, port)
        };
        if let Some(session) = self.sessions.get_mut(id as usize) {
            if !done && marked {
                session.take_mark(slot);
            } else if done
                && !multi
                && spec.name == "multi"
                && let Some(tenant) = session.tenant()
            {
                // Not before it has begun: until then another's EXEC may be out.
                tenant.queued.clear();
            }
        }
        if wire.capacity() <= LARGEST_IDLE {
            self.tenant.wire = wire;
        }
        done
    }

    /// Whether the request of a session with a prefix may be carried; if not the session has been told.
    pub(super) fn may_as_tenant(&mut self, id: SessionId, request: &Request<'_>) -> bool {
        match self.tenant.against.take() {
            None => return true,
            Some(Against::Refused(cause, text)) => {
                self.answer_with(id, Some(cause), |out| write::error(out, text.as_bytes()));
            }
            Some(Against::Denied(denied, spec)) => {
                let mut text = Vec::new();
                denied.write(spec, &mut text);
                self.note_denied(id, spec, Some(request), "rules");
                self.answer_with(id, Some(Cause::Denied), |out| write::error(out, &text));
            }
        }
        false
    }

    /// The reply to a slot as the session is told it, if it is another one than the servers'.
    #[cold]
    pub(super) fn view_of(&mut self, id: SessionId, slot: u32, reply: &[u8]) -> Option<Vec<u8>> {
        let session = self.sessions.get_mut(id as usize)?;
        let mark = session.take_mark(slot)?;
        let tenant = session.tenant()?;
        if mark.later && reply == b"+QUEUED\r\n" {
            tenant.queued.push(mark.shape);
            return None;
        }
        let mut out = self.spare.take();
        replies::view(mark.shape, reply, &tenant.prefix, &tenant.queued, &mut out);
        if mark.shape == Shape::Exec {
            tenant.queued.clear();
        }
        Some(out)
    }
}

/// Appends the name of what a session is subscribed to, as it knows it.
pub(super) fn topic(prefix: Option<&Prefix>, kind: Kind, name: &[u8], out: &mut Vec<u8>) {
    let own = prefix.and_then(|prefix| names::own_topic(name, kind == Kind::Pattern, prefix));
    let (before, behind) = own.unwrap_or((name, b""));
    requests::bulk(out, &[before, behind]);
}

/// Appends a message as a session with this prefix gets it; nothing, if it is not for it.
pub(super) fn message(prefix: &Prefix, frame: &[u8], out: &mut Vec<u8>) {
    let _ = replies::message(frame, prefix, out);
}

/// The key of a request whose front is here, and that front, as its server gets them.
pub(super) fn front(prefix: &Prefix, front: &Front<'_>, bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let key = [prefix.plain(), front.key].concat();
    let mut out = Vec::new();
    write::array(&mut out, front.argc as usize);
    write::bulk(&mut out, front.name);
    write::bulk(&mut out, &key);
    out.extend_from_slice(bytes.get(front.behind..).unwrap_or_default());
    (key, out)
}

/// A request with the prefix of whoever asks `/explain`, or as it is.
///
/// # Errors
/// It is not carried for sessions with a prefix.
pub(super) fn full(prefix: &Prefix, request: &Request<'_>) -> Result<Option<Vec<u8>>, &'static str> {
    let Ok(spec) = command::identify(request) else { return Ok(None) };
    let mut edits = Vec::new();
    let outcome = requests::edits(spec, request, &mut edits).map_err(|(_, text)| text)?;
    let mut wire = Vec::new();
    requests::rewrite(request, prefix, &edits, outcome.added, &mut wire);
    Ok(Some(wire))
}

/// A request that was made here, whatever its length: the app's own was within its limits.
fn whole(wire: &[u8]) -> Option<Request<'_>> {
    const ANY: Limits = Limits { arguments: u32::MAX, bulk: u64::MAX, request: u64::MAX };
    match scan(wire, &mut Resume::default(), &ANY) {
        Ok(Scan::Request(request)) => Some(request),
        _ => None,
    }
}
