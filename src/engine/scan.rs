//! SCAN over all shards, one after the other in the order of the configuration.
//!
//! The cursor that an app sees is `cursor * shards + shard`. So it says by itself where it goes on, whichever worker or
//! process is asked, as long as the pool's list of shards is the same; nothing is remembered here. Where a shard's own
//! cursor comes back to 0, the next shard is begun; behind the last one is 0, the end.
//!
//! Promises what Redis promises: a key that is there from the first call to the last is returned, once at least. A shard
//! that is down is an error, upon which the same cursor can be tried again, and no hole. A shard that is ejected counts as
//! down.

use super::merge::Gather;
use super::port::Port;
use super::{Engine, SessionId};
use crate::command::Spec;
use crate::error::Cause;
use crate::resp::reply::{Elements, bulk};
use crate::resp::{Request, write};

/// Which shard a SCAN is at, of how many, by their places in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Turn {
    shard: u16,
    shards: u16,
}

impl Engine {
    /// SCAN in a pool of several shards.
    pub(super) fn scan(&mut self, id: SessionId, spec: &'static Spec, request: &Request<'_>, port: &mut impl Port) {
        let Some(session) = self.sessions.get(id as usize) else { return };
        let Some(pool) = self.pools.get(usize::from(session.pool)) else { return };
        let shards = pool.config.path.route.in_turn();
        let turn = request.arg(1).and_then(number).and_then(|cursor| Turn::of(cursor, shards.len() as u16));
        let at = turn.and_then(|(turn, cursor)| Some((turn, cursor, *shards.get(usize::from(turn.shard))?)));
        let Some((turn, cursor, shard)) = at else {
            return self.answer_with(id, Some(Cause::Syntax), |out| write::error(out, b"ERR invalid cursor"));
        };
        let line = match self.line_to(id, shard) {
            Ok(line) => line,
            Err(reason) => return self.refused(id, reason, shard),
        };
        let Some((pool, ticket)) = self.open_slot(id) else { return };
        let mut waiter = self.waiter(ticket, spec);
        let gather = Gather::in_turn(ticket, waiter.at, spec.tag, turn);
        (waiter.link, waiter.part) = (self.gathers.insert(gather) as u32, 0);
        let mut wire = self.spare.take();
        write::array(&mut wire, request.argc());
        write::bulk(&mut wire, request.name());
        write::bulk(&mut wire, cursor.to_string().as_bytes());
        let mut options = request.args();
        options.by_ref().take(2).for_each(drop);
        wire.extend_from_slice(request.wire().get(options.at()..).unwrap_or_default());
        self.send_to_shard(pool, spec, shard, line, waiter, &wire, port);
        self.spare.put(wire);
    }
}

impl Turn {
    /// What an app's cursor says: whose turn it is, and that shard's own cursor.
    fn of(cursor: u64, shards: u16) -> Option<(Self, u64)> {
        let shard = cursor.checked_rem(u64::from(shards))? as u16;
        Some((Self { shard, shards }, cursor.checked_div(u64::from(shards))?))
    }

    /// The app's cursor behind a shard's reply with this one; `None` when it does not fit 64 bits.
    fn after(self, cursor: u64) -> Option<u64> {
        match (cursor, self.shard.saturating_add(1)) {
            (0, next) if next >= self.shards => Some(0),
            (0, next) => Some(u64::from(next)),
            _ => cursor.checked_mul(u64::from(self.shards))?.checked_add(u64::from(self.shard)),
        }
    }

    /// Appends a shard's reply with the app's cursor in place of the shard's.
    ///
    /// # Errors
    /// The reply's error, when the shard's is none or its cursor does not fit.
    pub(super) fn pass_on(self, reply: &[u8], out: &mut Vec<u8>) -> Result<(), &'static [u8]> {
        let misfit = &b"-ERR a shard's reply does not fit the command\r\n"[..];
        let mut elements = Elements::of(reply).filter(|elements| elements.left() == 2).ok_or(misfit)?;
        let cursor = elements.next().and_then(bulk).and_then(number).ok_or(misfit)?;
        let cursor =
            self.after(cursor).ok_or(&b"-ERR a shard's cursor is too large to tell its shard with it\r\n"[..])?;
        write::array(out, 2);
        write::bulk(out, cursor.to_string().as_bytes());
        out.extend_from_slice(elements.rest());
        Ok(())
    }
}

/// A cursor as Redis reads it, which takes the C library's word for it: nothing at all is 0, and a number may have a sign.
fn number(text: &[u8]) -> Option<u64> {
    let (negative, digits) = match text {
        [] => return Some(0),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(if negative { value.wrapping_neg() } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed_on(turn: Turn, reply: &str) -> String {
        let mut out = Vec::new();
        if let Err(error) = turn.pass_on(reply.as_bytes(), &mut out) {
            out = error.to_vec();
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_cursor_tells_shard_and_place() {
        for (cursor, shard, own) in
            [(0, 0, 0), (1, 1, 0), (2, 2, 0), (3, 0, 1), (14, 2, 4), (u64::MAX, 0, u64::MAX / 3)]
        {
            let (turn, place) = Turn::of(cursor, 3).unwrap();
            assert_eq!((turn.shard, place), (shard, own));
            if own > 0 {
                assert_eq!(turn.after(own), Some(cursor));
            }
        }
        let at = |shard| Turn { shard, shards: 3 };
        assert_eq!([at(0).after(0), at(1).after(0), at(2).after(0)], [Some(1), Some(2), Some(0)]);
        assert_eq!((at(0).after(u64::MAX), at(1).after(u64::MAX / 3)), (None, None), "u64::MAX is 3 times its third");
    }

    #[test]
    fn only_the_cursor_of_a_reply_changes() {
        let turn = Turn { shard: 1, shards: 3 };
        assert_eq!(passed_on(turn, "*2\r\n$1\r\n5\r\n*1\r\n$1\r\nk\r\n"), "*2\r\n$2\r\n16\r\n*1\r\n$1\r\nk\r\n");
        assert_eq!(passed_on(turn, "*2\r\n$1\r\n0\r\n*0\r\n"), "*2\r\n$1\r\n2\r\n*0\r\n");
        for reply in
            ["+OK\r\n", "*1\r\n$1\r\n0\r\n", "*2\r\n:0\r\n*0\r\n", "*2\r\n$1\r\nx\r\n*0\r\n", "*2\r\n$-1\r\n*0\r\n"]
        {
            assert!(passed_on(turn, reply).starts_with("-ERR a shard's reply"), "{reply}");
        }
        let large = passed_on(turn, "*2\r\n$20\r\n18446744073709551615\r\n*0\r\n");
        assert!(large.starts_with("-ERR a shard's cursor is too large"), "{large}");
    }

    #[test]
    fn cursors_are_read_as_redis_reads_them() {
        for (text, value) in [("", Some(0)), ("+7", Some(7)), ("-0", Some(0)), ("-1", Some(u64::MAX)), ("007", Some(7))]
        {
            assert_eq!(number(text.as_bytes()), value, "{text}");
        }
        for text in ["-", "x", " 1", "1 ", "1x", "18446744073709551616", "+-1"] {
            assert_eq!(number(text.as_bytes()), None, "{text}");
        }
    }
}
