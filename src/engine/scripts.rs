//! Scripts that are called by name.
//!
//! A shard knows a script only once it was sent there, and forgets it when it restarts. With one server the app's first
//! EVAL or SCRIPT LOAD is enough; of many, each needs it. So hotring remembers the scripts that pass through it, and an
//! EVALSHA that its shard answers with NOSCRIPT, and so has not run, is sent once more to the same connection, as EVAL.
//!
//! Deliberately absent: a second try when the session has asked for more on the same connection meanwhile, as that would
//! run before the script; in a transaction and while keys are watched; for requests above [`LONGEST`]. There the app gets
//! the shard's NOSCRIPT, upon which it sends EVAL as with a single server.

use super::line::{Owner, State, Ticket, Waiter};
use super::port::Port;
use super::{Engine, LineId};
use crate::command::Spec;
use crate::resp::{Request, write};
use crate::stages::Leg;
use sha1::{Digest, Sha1};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most scripts that are remembered.
const MOST: usize = 1000;
/// Most bytes of them.
const MOST_BYTES: usize = 4 << 20;
/// Longest EVALSHA that is kept until its reply is there, in bytes: with `max_pipeline` it bounds what a session holds.
const LONGEST: usize = 64 * 1024;

/// A script's name: its SHA-1.
type Name = [u8; 20];

/// The scripts that passed through, the newest `MOST` of them; one for all workers of a process. Locked by script
/// commands only, and for a look-up each.
#[derive(Debug, Default)]
pub struct Scripts(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    bodies: BTreeMap<Name, Arc<[u8]>>,
    /// The same by their bodies, so that one that is sent again and again is not hashed each time.
    names: BTreeMap<Arc<[u8]>, Name>,
    /// Their names, the oldest first.
    order: VecDeque<Name>,
    bytes: usize,
}

impl Scripts {
    /// Remembers a script.
    pub fn saw(&self, body: &[u8]) {
        if body.len() <= MOST_BYTES && !self.known().names.contains_key(body) {
            let name = Sha1::digest(body).into();
            self.known().add(name, body.into());
        }
    }

    /// The script that an app calls by this name.
    #[must_use]
    pub fn named(&self, name: &[u8]) -> Option<Arc<[u8]>> {
        let name = from_hex(name)?;
        self.known().bodies.get(&name).cloned()
    }

    /// Forgets all of them: an app has made the shards do so.
    pub fn clear(&self) {
        *self.known() = Known::default();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Whoever panicked with it held left it whole, or at worst with a script that is found one way only.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn add(&mut self, name: Name, body: Arc<[u8]>) {
        // Another worker may have been quicker.
        if self.bodies.contains_key(&name) {
            return;
        }
        while self.order.len() >= MOST || self.bytes.saturating_add(body.len()) > MOST_BYTES {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(body) = self.bodies.remove(&oldest) {
                debug_assert!(self.bytes >= body.len(), "more forgotten than was kept");
                self.bytes = self.bytes.saturating_sub(body.len());
                self.names.remove(&body);
            }
        }
        self.bytes = self.bytes.saturating_add(body.len());
        self.order.push_back(name);
        self.names.insert(Arc::clone(&body), name);
        self.bodies.insert(name, body);
    }
}

/// 20 bytes from 40 digits in upper or lower case, as Redis takes them.
fn from_hex(text: &[u8]) -> Option<Name> {
    let mut name = Name::default();
    if text.len() != name.len().saturating_mul(2) {
        return None;
    }
    for (byte, digits) in name.iter_mut().zip(text.chunks(2)) {
        for &digit in digits {
            *byte = *byte << 4 | char::from(digit).to_digit(16)? as u8;
        }
    }
    Some(name)
}

/// An EVALSHA under way whose script is known here.
#[derive(Debug)]
pub(super) struct Attempt {
    spec: &'static Spec,
    script: Arc<[u8]>,
    /// The request's bytes.
    wire: Vec<u8>,
}

impl Attempt {
    /// Appends the same as EVAL, or EVAL_RO.
    fn write(&self, out: &mut Vec<u8>) {
        let Some(request) = Request::parse(&self.wire) else { return };
        let name = if self.spec.name == "evalsha_ro" { &b"EVAL_RO"[..] } else { b"EVAL" };
        write::array(out, request.argc());
        write::bulk(out, name);
        write::bulk(out, &self.script);
        let mut rest = request.args();
        rest.by_ref().take(2).for_each(drop);
        out.extend_from_slice(self.wire.get(rest.at()..).unwrap_or_default());
    }
}

impl Engine {
    /// An EVALSHA as EVAL, if its script is known here; nothing for any other command.
    pub(super) fn with_script(&self, spec: &'static Spec, request: &Request<'_>) -> Option<Vec<u8>> {
        if !matches!(spec.name, "evalsha" | "evalsha_ro") {
            return None;
        }
        let script = self.scripts.named(request.arg(1)?)?;
        let mut wire = Vec::new();
        Attempt { spec, script, wire: request.wire().to_vec() }.write(&mut wire);
        Some(wire)
    }
}

/// What a shard says of a script that it does not know. Nothing has run then.
fn is_unknown(reply: &[u8]) -> bool {
    reply.starts_with(b"-NOSCRIPT No matching script")
}

impl Engine {
    /// Shares the scripts that pass through with the other workers.
    pub fn share(&mut self, scripts: Arc<Scripts>) {
        self.scripts = scripts;
    }

    /// Notes what a command of the family says of scripts, before it is sent on.
    pub(super) fn note_script(&self, spec: &'static Spec, request: &Request<'_>) {
        match spec.name {
            "eval" | "eval_ro" => self.scripts.saw(request.arg(1).unwrap_or_default()),
            "script|load" => self.scripts.saw(request.arg(2).unwrap_or_default()),
            "script|flush" => self.scripts.clear(),
            _ => {}
        }
    }

    /// Prepares a second try for an EVALSHA whose script is known here: `waiter` is then the one of its first try.
    pub(super) fn attempt(&mut self, spec: &'static Spec, request: &Request<'_>, waiter: &mut Waiter) {
        if !matches!(spec.name, "evalsha" | "evalsha_ro") || request.wire().len() > LONGEST {
            return;
        }
        let Some(script) = request.arg(1).and_then(|name| self.scripts.named(name)) else { return };
        let mut wire = self.spare.take();
        wire.extend_from_slice(request.wire());
        waiter.link = self.attempts.insert(Attempt { spec, script, wire }) as u32;
        waiter.part = Waiter::ATTEMPT;
    }

    /// The reply to an EVALSHA whose script is known here.
    #[cold]
    pub(super) fn attempted(&mut self, id: LineId, pool: u16, waiter: &Waiter, reply: &[u8], port: &mut impl Port) {
        let Some(attempt) = self.attempts.try_remove(waiter.link as usize) else { return };
        let last = Waiter { part: Waiter::WHOLE, link: Waiter::NOBODY, ..*waiter };
        if is_unknown(reply) && self.may_try_again(id, waiter.ticket) {
            let mut wire = self.spare.take();
            attempt.write(&mut wire);
            // On the connection that it came back on: a node of a cluster may have sent it on to another.
            let serial = self.send(id, last, &wire, port);
            // On a connection of the session's own it concerns no stage.
            let line = self.lines.get(id as usize).filter(|line| line.owner == Owner::Shared);
            let number = line.map(|line| (line.number, line.shard));
            // No key is told: nobody who asks from now on may share a read that was made before this.
            if let Some((number, shard)) = number {
                let leg = Leg { line: number, shard, alone: false, ..Leg::new(attempt.spec, b"", &wire) };
                self.sent(pool, &leg, serial, 1);
            }
            self.spare.put(wire);
        } else {
            self.land(id, pool, &last, reply, port);
        }
        self.spare.put(attempt.wire);
    }

    /// Whether the session still waits, and has asked for nothing behind it that the shard would do first.
    fn may_try_again(&self, id: LineId, ticket: Ticket) -> bool {
        let Some(line) = self.lines.get(id as usize) else { return false };
        let waits = self.sessions.get(ticket.session as usize).is_some_and(|s| s.generation == ticket.generation);
        let is_ours = |other: &Ticket| (other.session, other.generation) == (ticket.session, ticket.generation);
        let asked_more = line.waiters.iter().any(|waiter| {
            let mut joined = if waiter.is_shareable() { waiter.link } else { Waiter::NOBODY };
            let mut ours = is_ours(&waiter.ticket);
            while let Some((ticket, _, next)) = self.joined.get(joined as usize).filter(|_| !ours) {
                ours = is_ours(ticket);
                joined = *next;
            }
            ours
        });
        let own = line.owner == Owner::Session(ticket.session, ticket.generation);
        waits && !asked_more && line.state == State::Up && (own || line.owner == Owner::Shared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_found_by_its_name() {
        let scripts = Scripts::default();
        scripts.saw(b"return 1");
        let name = b"e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
        assert_eq!(scripts.named(name).as_deref(), Some(&b"return 1"[..]));
        assert_eq!(scripts.named(&name.to_ascii_uppercase()).as_deref(), Some(&b"return 1"[..]));
        for other in [&name[..39], b"", &[b'a'; 40], &[b'g'; 40], &[0xff; 40]] {
            assert_eq!(scripts.named(other), None);
        }
        scripts.clear();
        assert_eq!(scripts.named(name), None);
    }

    #[test]
    fn the_oldest_make_room() {
        let scripts = Scripts::default();
        for n in 0..=MOST {
            scripts.saw(n.to_string().as_bytes());
            scripts.saw(n.to_string().as_bytes());
        }
        let known = scripts.known();
        assert_eq!((known.order.len(), known.bodies.len(), known.names.len()), (MOST, MOST, MOST));
        assert_eq!(known.bytes, (0..=MOST).map(|n| n.to_string().len()).sum::<usize>() - 1);
        assert!(!known.names.contains_key(&b"0"[..]) && known.names.contains_key(&b"1"[..]));
        drop(known);
        scripts.saw(&vec![b'x'; MOST_BYTES]);
        scripts.saw(&vec![b'y'; MOST_BYTES + 1]);
        let known = scripts.known();
        assert_eq!((known.order.len(), known.names.len(), known.bytes), (1, 1, MOST_BYTES));
    }

    #[test]
    fn the_second_try_is_the_same_with_the_script_for_its_name() {
        let mut wire = Vec::new();
        write::request(&mut wire, &[b"evalSHA", b"name", b"1", b"k", b"v"]);
        let spec = crate::command::lookup(b"evalsha").unwrap();
        let attempt = Attempt { spec, script: (*b"return 1").into(), wire };
        let (mut out, mut expected) = (Vec::new(), Vec::new());
        attempt.write(&mut out);
        write::request(&mut expected, &[b"EVAL", b"return 1", b"1", b"k", b"v"]);
        assert_eq!(String::from_utf8(out).unwrap(), String::from_utf8(expected).unwrap());
    }
}
