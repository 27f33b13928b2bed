//! Commands over the whole keyspace: the same request to every shard, and one reply out of theirs.
//!
//! Promises: either every shard is sent the request or none is, as far as is known when it is read: one that is down or
//! ejected refuses it for all. An error of a shard is the reply, and an answer that does not fit is an error and not a
//! wrong answer. A pool of one shard passes requests and replies on as they are.
//! Does not: undo what other shards have done when one fails (FLUSHALL), or see all shards at one moment: each answers for
//! the time at which the request reaches it.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "counters of 64 bits, and numbers of shards and connections, which the config bounds"
)]

use super::line::{Ticket, Waiter};
use super::merge::Gather;
use super::plan::Apart;
use super::port::Port;
use super::{Engine, Pool, SessionId};
use crate::chance::splitmix;
use crate::command::{Merge, Spec};
use crate::resp::reply::{Elements, integer};
use crate::resp::{Request, write};
use crate::stages::{Leg, Line, Refusal};
use std::collections::BTreeSet;

impl Pool {
    /// Why nobody can be asked where there is no shard at all, since nobody has told yet which there are.
    pub(super) fn nobody(&self) -> Refusal {
        if self.config.path.route.slots().is_some() { Refusal::NoSlot } else { Refusal::NoShard }
    }
}

impl Engine {
    /// A command for all shards.
    pub(super) fn broadcast(
        &mut self,
        id: SessionId,
        spec: &'static Spec,
        merge: Merge,
        request: &Request<'_>,
        port: &mut impl Port,
    ) {
        self.note_script(spec, request);
        if !self.has_several_shards(id) {
            return self.whole(id, spec, request, port);
        }
        match merge {
            Merge::InTurn => self.scan(id, spec, request, port),
            Merge::Draw => {
                let mut sizes = Vec::new();
                write::request(&mut sizes, &[b"DBSIZE"]);
                self.ask_all(id, spec, merge, &[&sizes, request.wire()], port);
            }
            _ => self.ask_all(id, spec, merge, &[request.wire()], port),
        }
    }

    /// Sends these requests to every shard, one behind the other.
    fn ask_all(&mut self, id: SessionId, spec: &'static Spec, merge: Merge, requests: &[&[u8]], port: &mut impl Port) {
        let Some(session) = self.sessions.get(id as usize) else { return };
        let Some(pool) = self.pools.get(usize::from(session.pool)) else { return };
        let room = pool.config.bounds.output;
        let shards = pool.config.path.route.shards();
        let Some(parts) =
            (shards.len() as u16).checked_mul(requests.len() as u16).filter(|&parts| parts < Waiter::FIRST_SPECIAL)
        else {
            return self.unsupported(id, "ERR hotring does not carry this command over so many shards");
        };
        let mut lines = Vec::with_capacity(shards.len());
        if shards.is_empty() {
            return self.refused(id, pool.nobody(), 0);
        }
        for &shard in shards {
            match self.line_to(id, shard) {
                Ok(line) => lines.push((shard, line)),
                Err(reason) => return self.refused(id, reason, shard),
            }
        }
        let draw = splitmix(self.requests);
        let Some((number, ticket)) = self.open_slot(id) else { return };
        let mut waiter = self.waiter(ticket, spec);
        let gather = Gather::over_shards(ticket, waiter.at, spec.tag, merge, parts, room, draw);
        waiter.link = self.gathers.insert(gather) as u32;
        if let Some(pool) = self.pools.get_mut(usize::from(number)) {
            pool.counts.fragments += u64::from(parts);
        }
        waiter.part = 0;
        for (shard, line) in lines {
            for wire in requests {
                self.send_to_shard(number, spec, shard, line, waiter, wire, port);
                waiter.part += 1;
            }
        }
    }

    /// The session's connection to a shard, by its number among the pool's.
    pub(super) fn line_to(&self, id: SessionId, shard: u16) -> Result<Line, Refusal> {
        let session = self.sessions.get(id as usize).ok_or(Refusal::NoShard)?;
        let pool = self.pools.get(usize::from(session.pool)).ok_or(Refusal::NoShard)?;
        if pool.config.path.route.shards().is_empty() {
            return Err(pool.nobody());
        }
        let line = session.base + u32::from(shard) * u32::from(pool.config.lanes) + u32::from(session.lane());
        pool.config.path.health.against(shard, line).map_or(Ok(line), Err)
    }

    /// Where a command goes that has no key: the only shard, or the first one.
    pub(super) fn home_without_keys(
        &self,
        id: SessionId,
        spec: &'static Spec,
        request: &Request<'_>,
    ) -> Result<(Line, u16), Apart> {
        if self.has_several_shards(id) {
            let first = self.first_shard(id);
            self.line_to(id, first).map(|line| (line, first)).map_err(|reason| Apart::Refused(reason, first))
        } else {
            self.common_home(id, spec, &[], request)
        }
    }

    /// Opens a slot for a request whose flights are sent next. Returns the pool and whose reply they fill.
    pub(super) fn open_slot(&mut self, id: SessionId) -> Option<(u16, Ticket)> {
        let session = self.sessions.get_mut(id as usize)?;
        let pool = self.pools.get_mut(usize::from(session.pool))?;
        let ticket = Ticket { session: id, generation: session.generation, slot: session.open() };
        session.newest = self.order as u32;
        pool.counts.requests_pending += 1;
        Some((session.pool, ticket))
    }

    /// Sends a flight for no key's sake.
    #[expect(clippy::too_many_arguments, reason = "a flight has all of these")]
    pub(super) fn send_to_shard(
        &mut self,
        pool: u16,
        spec: &'static Spec,
        shard: u16,
        line: Line,
        waiter: Waiter,
        wire: &[u8],
        port: &mut impl Port,
    ) {
        let Some(on) = self.pools.get(usize::from(pool)).map(|pool| pool.line(line)) else { return };
        let serial = self.send(on, waiter, wire, port);
        self.sent(pool, &Leg { line, shard, alone: false, ..Leg::new(spec, b"", wire) }, serial, 1);
    }
}

/// Puts the shards' replies, none of which is an error, together. `None`, with something of it appended, when they do not
/// fit; `draw` is a number drawn by lot.
pub(super) fn join(merge: Merge, parts: &[Vec<u8>], draw: u64, out: &mut Vec<u8>) -> Option<()> {
    match merge {
        Merge::Alike => {
            let (first, others) = parts.split_first()?;
            if others.iter().any(|other| other != first) {
                return None;
            }
            out.extend_from_slice(first);
        }
        Merge::Least | Merge::Most => {
            let numbers: Option<Vec<i64>> = parts.iter().map(|part| integer(part)).collect();
            let numbers = numbers?.into_iter();
            write::integer(out, if merge == Merge::Least { numbers.min() } else { numbers.max() }?);
        }
        Merge::Concat => {
            let lists = lists(parts)?;
            write::array(out, lists.iter().map(|list| list.left() as usize).sum());
            lists.iter().for_each(|list| out.extend_from_slice(list.rest()));
        }
        Merge::Union => {
            let mut seen = BTreeSet::new();
            let mut all: Vec<&[u8]> = lists(parts)?.into_iter().flatten().collect();
            all.retain(|element| seen.insert(*element));
            write::array(out, all.len());
            all.iter().for_each(|element| out.extend_from_slice(element));
        }
        Merge::Every => {
            let mut lists = lists(parts)?;
            let count = lists.first()?.left();
            write::array(out, count as usize);
            for _ in 0..count {
                let here: Option<Vec<i64>> = lists.iter_mut().map(|list| list.next().and_then(integer)).collect();
                write::integer(out, here?.into_iter().min()?);
            }
            ended(&lists)?;
        }
        Merge::Pairs => {
            let mut lists = lists(parts)?;
            let count = lists.first()?.left();
            write::array(out, count as usize);
            for _ in 0..count / 2 {
                let names: Option<Vec<&[u8]>> = lists.iter_mut().map(Iterator::next).collect();
                let (name, others) = names.as_deref()?.split_first()?;
                if others.iter().any(|other| other != name) {
                    return None;
                }
                out.extend_from_slice(name);
                let here: Option<Vec<i64>> = lists.iter_mut().map(|list| list.next().and_then(integer)).collect();
                write::integer(out, here?.into_iter().fold(0, i64::saturating_add));
            }
            ended(&lists)?;
        }
        Merge::Draw => out.extend_from_slice(drawn(parts, draw)?),
        Merge::Array | Merge::Sum | Merge::AllOk | Merge::AnyOk | Merge::InTurn => return None,
    }
    Some(())
}

fn lists(parts: &[Vec<u8>]) -> Option<Vec<Elements<'_>>> {
    parts.iter().map(|part| Elements::of(part)).collect()
}

fn ended(lists: &[Elements<'_>]) -> Option<()> {
    lists.iter().all(|list| list.left() == 0).then_some(())
}

/// The reply that holds the drawn key: of each shard there is its size and a key of it, or null where it has none. Keys may
/// have come and gone between the two: a shard with a key counts for one at least, one without for nothing.
fn drawn(parts: &[Vec<u8>], draw: u64) -> Option<&[u8]> {
    let mut weighed = Vec::with_capacity(parts.len() / 2);
    for pair in parts.chunks(2) {
        let [size, key] = pair else { return None };
        let is_key = key.first() == Some(&b'$') && !key.starts_with(b"$-");
        if !is_key && key != b"$-1\r\n" && key != b"_\r\n" {
            return None;
        }
        let size = u64::try_from(integer(size)?).ok()?;
        weighed.push((if is_key { size.max(1) } else { 0 }, key.as_slice()));
    }
    let all: u64 = weighed.iter().fold(0, |sum: u64, (weight, _)| sum.saturating_add(*weight));
    let mut at = ((u128::from(draw) * u128::from(all)) >> 64) as u64;
    for (weight, key) in &weighed {
        match at.checked_sub(*weight) {
            None => return Some(key),
            Some(rest) => at = rest,
        }
    }
    // No shard has a key.
    weighed.first().map(|(_, null)| *null)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(merge: Merge, parts: &[&str]) -> Option<String> {
        let parts: Vec<Vec<u8>> = parts.iter().map(|part| part.as_bytes().to_vec()).collect();
        let mut out = Vec::new();
        join(merge, &parts, 0, &mut out)?;
        Some(String::from_utf8(out).unwrap())
    }

    fn is(merge: Merge, parts: &[&str], reply: &str) {
        assert_eq!(joined(merge, parts).as_deref(), Some(reply), "{merge:?} {parts:?}");
    }

    #[test]
    fn lists_are_joined() {
        let (a, b) = ("*2\r\n$1\r\na\r\n$1\r\nb\r\n", "*1\r\n$1\r\na\r\n");
        is(Merge::Concat, &[a, "*0\r\n", b], "*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\na\r\n");
        is(Merge::Union, &[b, "*0\r\n", a], "*2\r\n$1\r\na\r\n$1\r\nb\r\n");
        is(Merge::Concat, &["*0\r\n", "*0\r\n"], "*0\r\n");
    }

    #[test]
    fn numbers_are_compared_and_added_place_by_place() {
        is(Merge::Every, &["*2\r\n:1\r\n:1\r\n", "*2\r\n:0\r\n:1\r\n"], "*2\r\n:0\r\n:1\r\n");
        let pairs = ["*4\r\n$1\r\na\r\n:1\r\n$1\r\na\r\n:1\r\n", "*4\r\n$1\r\na\r\n:2\r\n$1\r\na\r\n:2\r\n"];
        is(Merge::Pairs, &pairs, "*4\r\n$1\r\na\r\n:3\r\n$1\r\na\r\n:3\r\n");
        is(Merge::Pairs, &["*0\r\n", "*0\r\n"], "*0\r\n");
        is(Merge::Least, &[":3\r\n", ":2\r\n", ":4\r\n"], ":2\r\n");
        is(Merge::Most, &[":3\r\n", ":2\r\n", ":4\r\n"], ":4\r\n");
        is(Merge::Alike, &["$1\r\na\r\n", "$1\r\na\r\n"], "$1\r\na\r\n");
    }

    #[test]
    fn what_does_not_fit_is_no_reply() {
        for (merge, parts) in [
            (Merge::Concat, &["*1\r\n:1\r\n", ":1\r\n"][..]),
            (Merge::Union, &["+OK\r\n"]),
            (Merge::Every, &["*1\r\n:1\r\n", "*2\r\n:1\r\n:1\r\n"]),
            (Merge::Every, &["*2\r\n:1\r\n:1\r\n", "*1\r\n:1\r\n"]),
            (Merge::Every, &["*1\r\n+1\r\n"]),
            (Merge::Pairs, &["*2\r\n$1\r\na\r\n:1\r\n", "*2\r\n$1\r\nb\r\n:1\r\n"]),
            (Merge::Pairs, &["*1\r\n$1\r\na\r\n"]),
            (Merge::Least, &[":1\r\n", "+1\r\n"]),
            (Merge::Alike, &["+a\r\n", "+b\r\n"]),
            (Merge::Draw, &[":1\r\n", ":1\r\n"]),
            (Merge::Draw, &[":-1\r\n", "$1\r\na\r\n"]),
        ] {
            assert_eq!(joined(merge, parts), None, "{merge:?} {parts:?}");
        }
    }

    #[test]
    fn a_key_is_drawn_by_the_sizes() {
        let shard = |size: u64, key: &str| [format!(":{size}\r\n").into_bytes(), key.as_bytes().to_vec()];
        let parts = [shard(0, "$-1\r\n"), shard(3, "$1\r\na\r\n"), shard(1, "$1\r\nb\r\n"), shard(0, "_\r\n")].concat();
        let (mut a, mut b) = (0, 0);
        for count in 0..40_000 {
            match drawn(&parts, splitmix(count)).unwrap() {
                b"$1\r\na\r\n" => a += 1,
                b"$1\r\nb\r\n" => b += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!((29_000..31_000).contains(&a), "{a} {b}");
        // A key that expired before it was counted can be drawn, one that was there only to be counted cannot.
        let odd = [shard(0, "$1\r\nc\r\n"), shard(9, "$-1\r\n")].concat();
        assert_eq!(drawn(&odd, u64::MAX), Some(&b"$1\r\nc\r\n"[..]));
        let empty = [shard(0, "_\r\n"), shard(2, "_\r\n")].concat();
        assert_eq!(drawn(&empty, u64::MAX), Some(&b"_\r\n"[..]));
    }
}
