//! A value that was loaded before somebody else wrote or deleted its key is not written (`misses.guard_stale_set`).
//!
//! Whoever held a key's lease, and then sends a plain SET of it, is answered OK without the shard being asked, if the key was
//! written or deleted since through this process, or the shard has told of it ([`Table::overtakes`]): as if that SET had come just before.
//!
//! [`Table::overtakes`]: crate::stages::lease::Table::overtakes

use super::{Engine, takes_part};
use crate::command::Spec;
use crate::engine::SessionId;
use crate::engine::special::mode;
use crate::resp::Request;
use crate::stages::lease::Conn;

/// Whether a write does nothing but give a key a value and a time to live, so that OK is all there is to answer.
fn is_plain(spec: &Spec, request: &Request<'_>) -> bool {
    let mut options = request.args().skip(3);
    match spec.name {
        "setex" | "psetex" => request.argc() == 4,
        "set" => loop {
            let Some(option) = options.next() else { return true };
            let is = |words: &[&str]| words.iter().any(|word| option.eq_ignore_ascii_case(word.as_bytes()));
            if is(&["ex", "px", "exat", "pxat"]) {
                options.next();
            } else if !is(&["keepttl"]) {
                return false;
            }
        },
        _ => false,
    }
}

impl Engine {
    /// A request is about to be carried out: answers it instead, if it writes what somebody else has overtaken.
    #[cold]
    pub(in crate::engine) fn keeps_from_writing(&mut self, id: SessionId, spec: &Spec, request: &Request<'_>) -> bool {
        let now = self.now;
        let Some(session) = self.sessions.get(id as usize) else { return false };
        let number = session.pool;
        let Some(place) = self.pools.get_mut(usize::from(number)) else { return false };
        let leases = &place.config.leases;
        let key = request.arg(1).unwrap_or_default();
        let home = (session.base == 0 || session.db() == 0) && session.mode & mode::PINNED == 0;
        if !home || !takes_part(session) || !leases.guards(key) || !is_plain(spec, request) {
            return false;
        }
        let hash = place.config.path.hot.hash(key);
        if !leases.shared().may_have(hash) {
            return false;
        }
        let conn = Conn { worker: leases.worker(), session: id, generation: session.generation };
        let (overtaken, orders) = leases.shared().with(conn.worker, |table| table.is_overtaken(hash, conn, now));
        place.counts.stale_sets += u64::from(overtaken);
        self.obey(number, orders);
        if overtaken {
            self.answer_with(id, None, |reply| reply.extend_from_slice(b"+OK\r\n"));
        }
        overtaken
    }

    /// The same of a key that is guarded, by its hash.
    pub(super) fn overtakes_key(&mut self, pool: u16, by: Conn, hash: u64) {
        let Some(place) = self.pools.get(usize::from(pool)) else { return };
        let leases = &place.config.leases;
        if leases.shared().may_have(hash) {
            let ((), orders) = leases.shared().with(by.worker, |table| table.overtakes(hash, Some(by)));
            self.obey(pool, orders);
        }
    }

    /// A write of a key is about to be queued that makes or deletes it: who loads it is overtaken.
    pub(super) fn overtakes(&mut self, pool: u16, by: Conn, key: &[u8], deletes: bool) {
        let Some(place) = self.pools.get(usize::from(pool)) else { return };
        let leases = &place.config.leases;
        if !leases.guards(key) {
            return;
        }
        self.overtakes_key(pool, by, place.config.path.hot.hash(key));
        if deletes && self.pools.get(usize::from(pool)).is_some_and(|place| place.config.leases.is_fleet_key(key)) {
            // The other processes are told so, one of which may have a client that loads it.
            self.release_lease(pool, key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command;
    use crate::resp::write;

    #[test]
    fn only_what_is_answered_ok_is_answered_here() {
        for (line, plain) in [
            ("SET k v", true),
            ("SET k v EX 60", true),
            ("set k v px 5 keepttl", true),
            ("SETEX k 60 v", true),
            ("PSETEX k 60 v", true),
            ("SET k v NX", false),
            ("SET k v EX 60 GET", false),
            ("SET k v IFEQ x", false),
            ("SETNX k v", false),
            ("MSET k v", false),
            ("DEL k", false),
        ] {
            let mut wire = Vec::new();
            write::request(&mut wire, &line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
            let request = Request::parse(&wire).unwrap();
            let spec = command::identify(&request).unwrap();
            assert_eq!(is_plain(spec, &request), plain, "{line}");
        }
    }
}
