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
use crate::resp::{Request, write};
use replies::Shape;
use requests::{Added, Edit, Outcome};
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
    /// What was asked for, where something else is carried in its place.
    meant: Option<&'static Spec>,
}

/// See [`Scratch::take_against`].
#[derive(Debug, Clone, Copy)]
pub(super) enum Against {
    Denied(Denied, &'static Spec),
    Refused(Cause, &'static str),
}

impl Scratch {
    /// Whether the request that is carried will be refused to its session.
    pub(super) fn is_against(&self) -> bool {
        self.against.is_some()
    }

    /// What the request that is carried, and named so, counts as.
    pub(super) fn meant<E>(&mut self, named: Result<&'static Spec, E>) -> Result<&'static Spec, E> {
        self.meant.take().map_or(named, Ok)
    }

    /// Why the request of a session with a prefix that is carried must not be.
    #[inline]
    pub(super) fn take_against(&mut self) -> Option<Against> {
        self.against.take()
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
        self.carry(id, command::identify(request), request, port)
    }

    /// The same of a session with a prefix.
    #[inline(never)]
    fn request_of_tenant(&mut self, id: SessionId, request: &Request<'_>, port: &mut impl Port) -> bool {
        let named = command::identify(request);
        let there = self.special_there(id).is_some_and(|special| special.multi && !special.leaving);
        let Some(session) = self.sessions.get_mut(id as usize) else { return true };
        // What is no command is answered here, and goes nowhere.
        let Ok(spec) = named else { return self.carry(id, named, request, port) };
        if requests::changes_user(spec) && session.open_slots() > 0 {
            session.paused = true;
            session.mode |= mode::WAITING;
            return false;
        }
        let slot = session.next_slot();
        let Some(special) = session.special.as_deref() else { return true };
        let Some(Tenant { prefix, .. }) = special.tenant.as_deref() else { return true };
        let multi = there || special.multi && !special.leaving;
        let may = special.user.as_ref().map_or(Ok(()), |user| user.check(spec, request));
        let outcome = requests::edits(spec, request, &mut self.tenant.edits);
        let mut wire = std::mem::take(&mut self.tenant.wire);
        let (written, shape, refused) = match outcome {
            Ok(Outcome { shape, added }) if self.tenant.edits.is_empty() && added == Added::Nothing => {
                (Some(*request), shape, None)
            }
            Ok(Outcome { shape, added }) => {
                (requests::written(request, prefix, &self.tenant.edits, added, &mut wire), shape, None)
            }
            // What is not carried is nothing that anything could go by.
            Err((cause, text)) => (requests::nothing(&mut wire), Shape::Nothing, Some(Against::Refused(cause, text))),
        };
        let named =
            if let (Some(request), Some(_)) = (&written, &refused) { command::identify(request) } else { named };
        let against = may.err().map(|denied| Against::Denied(denied, spec)).or(refused);
        let later = multi && spec.name != "exec";
        let marked = (later || shape != Shape::Nothing) && against.is_none();
        if marked {
            session.mark(Mark { slot, shape, later });
        }
        (self.tenant.meant, self.tenant.against) = (refused.is_some().then_some(spec), against);
        let done = match &written {
            Some(request) => self.carry(id, named, request, port),
            None => {
                self.protocol_error(id, crate::resp::ProtocolError::TooBig);
                true
            }
        };
        self.tenant.meant = None;
        if marked && !done {
            self.sessions.get_mut(id as usize).map(|session| session.take_mark(slot));
        }
        if done && !multi && spec.name == "multi" {
            self.begin_queue(id);
        }
        if wire.capacity() <= LARGEST_IDLE {
            self.tenant.wire = wire;
        }
        done
    }

    /// A transaction begins: nothing is queued. Not before it has begun, until then another's EXEC may be out.
    #[cold]
    fn begin_queue(&mut self, id: SessionId) {
        if let Some(tenant) = self.sessions.get_mut(id as usize).and_then(|session| session.tenant()) {
            tenant.queued.clear();
        }
    }

    /// Tells a session with a prefix why its request is not carried.
    #[cold]
    pub(super) fn turn_down(&mut self, id: SessionId, request: &Request<'_>, against: Against) {
        match against {
            Against::Refused(cause, text) => {
                self.answer_with(id, Some(cause), |out| write::error(out, text.as_bytes()));
            }
            Against::Denied(denied, spec) => self.deny(id, spec, request, denied),
        }
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
    let written = requests::written(request, prefix, &edits, outcome.added, &mut wire).is_some();
    Ok(written.then_some(wire))
}
