//! What is told to the audit log: who was denied what, who could not log in, and whose certificate was refused.
//!
//! Promises: of a request there is its command's name and how many keys it has, never a key or a value; of an attempt to log in
//! there is the user's name if there is such a user, never what was sent in its place, which may be a password. Bounded: each
//! worker notes [`RATE`] a second and keeps [`MOST`] until they are taken; of what is beyond there is a number.

#![expect(clippy::arithmetic_side_effects, reason = "counters of 64 bits")]

use super::port::Port;
use super::{Engine, SessionId};
use crate::bucket::Bucket;
use crate::command::{self, Keys, Spec};
use crate::resp::Request;

/// Most that are noted a second, for each worker.
pub const RATE: u64 = 100;
/// Most that are kept until the worker takes them.
pub const MOST: usize = 128;

/// Something that is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `denied`, `auth` or `tls`.
    pub event: &'static str,
    /// The pool's name.
    pub pool: String,
    /// The session's user; for `auth` the one that it wanted to be. `-` where there is no such user.
    pub user: String,
    /// The app's address; empty where it was gone too soon.
    pub peer: String,
    /// The command's name; empty for `tls`, which has neither a user nor keys.
    pub command: &'static str,
    /// How many keys the request names.
    pub keys: u32,
    /// What is against it.
    pub reason: &'static str,
    /// The session's number and generation.
    session: (SessionId, u32),
}

/// What waits to be told.
#[derive(Debug)]
pub(super) struct Trail {
    entries: Vec<Entry>,
    /// How many of them have their address.
    addressed: usize,
    bucket: Bucket,
    suppressed: u64,
}

impl Default for Trail {
    fn default() -> Self {
        Self { entries: Vec::new(), addressed: 0, bucket: Bucket::new(RATE, RATE), suppressed: 0 }
    }
}

impl Engine {
    /// Notes that a request is denied; `request` is not there where only its front is.
    #[cold]
    pub(super) fn note_denied(
        &mut self,
        id: SessionId,
        spec: &'static Spec,
        request: Option<&Request<'_>>,
        reason: &'static str,
    ) {
        let user = self.user_name(id).to_owned();
        let mut keys = 0_u32;
        match request {
            // Where keys cannot be told there are none.
            Some(request) => drop(command::each_key(spec, request, &mut |_, _| keys = keys.saturating_add(1))),
            None => keys = u32::from(!matches!(spec.keys, Keys::None)),
        }
        self.note(id, Entry { keys, ..entry("denied", user, spec.name, reason) });
    }

    /// Notes that somebody could not log in.
    #[cold]
    pub(super) fn note_failed_login(&mut self, id: SessionId, user: &str, reason: &'static str) {
        self.note(id, entry("auth", user.to_owned(), "auth", reason));
    }

    /// Notes that somebody at this address was not let in, for the certificate that it showed or did not show.
    #[cold]
    pub fn note_refused_certificate(&mut self, pool: u16, peer: String, reason: &'static str) {
        // There is no such session, whose address could be asked for in its place.
        self.push(pool, Entry { peer, session: (SessionId::MAX, 0), ..entry("tls", String::new(), "", reason) });
    }

    fn note(&mut self, id: SessionId, entry: Entry) {
        let id = self.trunk_of(id);
        let Some(session) = self.sessions.get(id as usize) else { return };
        let (pool, generation) = (session.pool, session.generation);
        self.push(pool, Entry { session: (id, generation), ..entry });
    }

    fn push(&mut self, pool: u16, entry: Entry) {
        let Some(pool) = self.pools.get(usize::from(pool)) else { return };
        if self.trail.entries.len() >= MOST || !self.trail.bucket.take(1, self.now) {
            self.trail.suppressed += 1;
            return;
        }
        self.trail.entries.push(Entry { pool: pool.config.name.clone(), ..entry });
    }

    /// Whether there is something whose address is to be asked for.
    #[inline]
    pub(super) fn trail_is_fresh(&self) -> bool {
        self.trail.addressed < self.trail.entries.len()
    }

    /// Asks for the addresses of those that were noted, before they are gone.
    #[cold]
    pub(super) fn address_trail(&mut self, port: &impl Port) {
        let trail = &mut self.trail;
        for entry in trail.entries.iter_mut().skip(trail.addressed) {
            let (id, generation) = entry.session;
            if self.sessions.get(id as usize).is_some_and(|session| session.generation == generation) {
                entry.peer = port.addresses(id).0;
            }
        }
        trail.addressed = trail.entries.len();
    }

    /// Takes what was noted, and the number of what was not.
    pub fn take_trail(&mut self, port: &impl Port) -> (Vec<Entry>, u64) {
        if self.trail_is_fresh() {
            self.address_trail(port);
        }
        self.trail.addressed = 0;
        (std::mem::take(&mut self.trail.entries), std::mem::take(&mut self.trail.suppressed))
    }
}

fn entry(event: &'static str, user: String, command: &'static str, reason: &'static str) -> Entry {
    let (pool, peer) = (String::new(), String::new());
    Entry { event, pool, user, peer, command, keys: 0, reason, session: (0, 0) }
}
