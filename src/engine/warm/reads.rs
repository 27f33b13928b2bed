//! Reads that find nothing at a key's home, and ask where it lived before.

use super::{GONE, LONGEST, MOST, PATIENCE, TURN, mark_of};
use crate::engine::hot::Errand;
use crate::engine::line::{Ticket, Waiter};
use crate::engine::misses::is_nil;
use crate::engine::port::Port;
use crate::engine::{Engine, LineId};
use crate::resp::reply::integer;
use crate::stages::Micros;
use crate::stages::warm::Found;

/// Copies a value if the mark is the reader's still, and takes that away. Keys: the mark, the key. Arguments: the token, the
/// value, the milliseconds it has left or 0 for ever.
const COPY: &[u8] = b"if redis.call('GET',KEYS[1])~=ARGV[1] then return 0 end \
redis.call('DEL',KEYS[1]) \
if ARGV[3]=='0' then return redis.call('SETNX',KEYS[2],ARGV[2]) end \
if redis.call('SET',KEYS[2],ARGV[2],'NX','PX',ARGV[3]) then return 1 end \
return 0";

/// What is done for a read that has found nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Step {
    /// Its mark is set at the key's home.
    Mark,
    /// The former home is asked.
    Ask,
    /// What it has is copied.
    Copy,
}

/// Who waits for it.
pub(super) enum Asker {
    /// A read: on which connection its own reply came, whose it is, and what that reply was.
    Read { on: LineId, waiter: Waiter, nil: Vec<u8> },
    /// An element of an array: which array, and which element.
    Element(u32, u32),
}

/// A read at a former home.
pub(in crate::engine) struct Fill {
    number: u64,
    pool: u16,
    name: Vec<u8>,
    hash: u64,
    former: u16,
    home: u16,
    /// What its mark says; nothing if the mark is another's.
    token: Option<Vec<u8>>,
    askers: Vec<Asker>,
    since: Micros,
    /// When the former home was asked.
    asked: Micros,
}

impl Engine {
    /// A GET found nothing at its key's home. Returns whether it waits for what the former home says.
    pub(in crate::engine) fn asks_former(
        &mut self,
        (on, number): (LineId, u16),
        waiter: &Waiter,
        (hash, name): (u64, &[u8]),
        nil: &[u8],
    ) -> bool {
        let session = self.sessions.get(waiter.ticket.session as usize);
        if session.is_some_and(|s| s.generation == waiter.ticket.generation && s.is_strict()) {
            return false;
        }
        if !self.begin_warm(number, (hash, name), Asker::Read { on, waiter: *waiter, nil: nil.to_vec() }) {
            return false;
        }
        for ticket in self.tickets(waiter) {
            self.begin_indirect_of(ticket);
        }
        true
    }

    /// Somebody wants to know what the former home of a key has. Returns whether it will be told.
    pub(super) fn begin_warm(&mut self, number: u16, (hash, name): (u64, &[u8]), asker: Asker) -> bool {
        let now = self.now;
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return false };
        if pool.warm.is_none() {
            return false;
        }
        let Some((former, home)) = pool.moved(name) else { return false };
        let key = (number, name.to_vec());
        if let Some(fill) = self.warm.staging.get(&key).and_then(|&link| self.warm.fills.get_mut(link as usize)) {
            fill.askers.push(asker);
            return true;
        }
        let Some(here) = &mut pool.warm else { return false };
        if self.warm.fills.len() >= MOST || !here.warmth.trusts(former) || !here.bucket.take(here.share, now) {
            pool.counts.warm_refused = pool.counts.warm_refused.saturating_add(1);
            self.count_moved(number, Found::Nowhere);
            return false;
        }
        let seed = pool.config.seed;
        let fill_number = self.warm.number();
        let token = format!("{seed:x}:{fill_number:x}").into_bytes();
        let fill = Fill {
            number: fill_number,
            pool: number,
            name: name.to_vec(),
            hash,
            former,
            home,
            token: Some(token.clone()),
            askers: vec![asker],
            since: now,
            asked: 0,
        };
        let link = self.warm.fills.insert(fill) as u32;
        let mark = mark_of(name);
        let commands: [&[&[u8]]; 2] = [&[b"SET", &mark, &token, b"NX", b"PX", TURN], &[b"GET", &mark]];
        let errand = Errand::Warm(link, fill_number, Step::Mark);
        let sent = self.line_to_ask(number, home).and_then(|on| self.run_errand_soon(on, &commands, errand));
        if sent.is_none() {
            self.warm.fills.remove(link as usize);
            self.count_moved(number, Found::Nowhere);
            return false;
        }
        self.warm.staging.insert(key, link);
        true
    }

    /// Everyone whom a flight's reply is for.
    fn tickets(&self, waiter: &Waiter) -> Vec<Ticket> {
        let (mut all, mut next) = (vec![waiter.ticket], waiter.link);
        while let Some(&(ticket, _, link)) = self.joined.get(next as usize) {
            all.push(ticket);
            next = link;
        }
        all
    }

    /// A session's read is answered in its own time, if the session is still there.
    pub(super) fn begin_indirect_of(&mut self, ticket: Ticket) {
        let session = self.sessions.get(ticket.session as usize);
        if session.is_some_and(|session| session.generation == ticket.generation) {
            self.begin_indirect(ticket);
        }
    }

    /// A step has been answered, or never will be.
    pub(in crate::engine) fn warmed(
        &mut self,
        (link, number): (u32, u64),
        step: Step,
        replies: &[Vec<u8>],
        port: &mut impl Port,
    ) {
        let Some(fill) = self.warm.fills.get_mut(link as usize).filter(|fill| fill.number == number) else { return };
        match step {
            Step::Mark => {
                self.warm.staging.remove(&(fill.pool, fill.name.clone()));
                match replies {
                    [set, _] if set == b"+OK\r\n" => {}
                    // Another reader's, which copies it. This one may ask all the same.
                    [set, mark] if is_nil(set) && mark.first() == Some(&b'$') && !is_gone(mark) => fill.token = None,
                    _ => return self.end_fill(link, port),
                }
                fill.asked = self.now;
                let (pool, former, name) = (fill.pool, fill.former, fill.name.clone());
                let most = LONGEST.saturating_sub(1).to_string();
                let commands: [&[&[u8]]; 3] =
                    [&[b"PTTL", &name], &[b"STRLEN", &name], &[b"GETRANGE", &name, b"0", most.as_bytes()]];
                let errand = Errand::Warm(link, number, Step::Ask);
                let trusts = |here: &super::Here| here.warmth.trusts(former);
                let asks = self.pools.get(usize::from(pool)).and_then(|pool| pool.warm.as_ref()).is_some_and(trusts);
                let on = self.line_to_ask(pool, former).filter(|_| asks);
                if on.and_then(|on| self.run_errand_soon(on, &commands, errand)).is_none() {
                    self.end_fill(link, port);
                }
            }
            Step::Ask => self.former_has(link, replies, port),
            Step::Copy => {
                let copied = replies.first().is_some_and(|reply| reply == b":1\r\n");
                let (pool, hash) = (fill.pool, fill.hash);
                self.warm.fills.remove(link as usize);
                if let Some(place) = self.pools.get_mut(usize::from(pool)).filter(|_| copied) {
                    place.counts.warm_copies = place.counts.warm_copies.saturating_add(1);
                    if let Some(here) = &place.warm {
                        here.warmth.copied();
                    }
                    let nobody = Ticket { session: u32::MAX, generation: 0, slot: 0 };
                    self.leased_was_written(pool, nobody, Some(hash), true);
                }
            }
        }
    }

    /// The former home has said what it has.
    fn former_has(&mut self, link: u32, replies: &[Vec<u8>], port: &mut impl Port) {
        let now = self.now;
        let Some(fill) = self.warm.fills.get_mut(link as usize) else { return };
        let [ttl, length, value] = replies else { return self.end_fill(link, port) };
        let bytes = bulk(value);
        let (ttl, length) = (integer(ttl).unwrap_or(-2), integer(length).and_then(|length| u64::try_from(length).ok()));
        // That it is empty, and that it is not there, cannot be told apart: it may have expired between two of the three.
        let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty() && length == Some(bytes.len() as u64)) else {
            return self.end_fill(link, port);
        };
        let spent = now.saturating_sub(fill.asked).div_ceil(1000).max(1);
        let lives = match ttl {
            -1 => Some(0),
            ttl => u64::try_from(ttl).ok().and_then(|ttl| ttl.checked_sub(spent)).filter(|&left| left > 0),
        };
        let order = fill.token.take().zip(lives);
        let (number, pool, home) = (fill.number, fill.pool, fill.home);
        let (mark, name) = (mark_of(&fill.name), fill.name.clone());
        self.tell_askers(link, value, port);
        let over = self.pools.get(usize::from(pool)).and_then(|pool| pool.moved(&name)).is_none();
        let sent = order.filter(|_| !over).and_then(|(token, lives)| {
            let lives = lives.to_string();
            let copy: &[&[u8]] = &[b"EVAL", COPY, b"2", &mark, &name, &token, bytes, lives.as_bytes()];
            let on = self.line_to_ask(pool, home)?;
            self.run_errand_soon(on, &[copy], Errand::Warm(link, number, Step::Copy))
        });
        if sent.is_none() {
            self.warm.fills.try_remove(link as usize);
        }
    }

    /// Those who wait are told what the former home has. The fill stays: it may be copied yet.
    fn tell_askers(&mut self, link: u32, value: &[u8], port: &mut impl Port) {
        let Some(fill) = self.warm.fills.get_mut(link as usize) else { return };
        let (pool, hash, askers) = (fill.pool, fill.hash, std::mem::take(&mut fill.askers));
        if let Some(place) = self.pools.get_mut(usize::from(pool)) {
            let hot = &mut place.config.path.hot;
            if hot.keeps() && hot.is_kept(hash) {
                hot.passed(hash, value);
            }
        }
        for asker in askers {
            match asker {
                Asker::Read { on, waiter, .. } => {
                    for ticket in self.tickets(&waiter) {
                        self.end_indirect(ticket);
                        self.count_moved(pool, Found::Former);
                    }
                    self.land(on, pool, &waiter, value, port);
                }
                Asker::Element(array, index) => {
                    self.count_moved(pool, Found::Former);
                    self.element_is_known(array, index, Some(value), port);
                }
            }
        }
    }

    /// Nothing was found, or nobody could be asked: those who wait are told so, as if nobody had been.
    fn end_fill(&mut self, link: u32, port: &mut impl Port) {
        let Some(fill) = self.warm.fills.try_remove(link as usize) else { return };
        for asker in fill.askers {
            match asker {
                Asker::Read { on, waiter, nil } => {
                    for ticket in self.tickets(&waiter) {
                        self.end_indirect(ticket);
                        self.count_moved(fill.pool, Found::Nowhere);
                    }
                    self.missed_at_both((on, fill.pool), &waiter, (fill.hash, &fill.name), &nil, port);
                }
                Asker::Element(array, index) => {
                    self.count_moved(fill.pool, Found::Nowhere);
                    self.element_is_known(array, index, None, port);
                }
            }
        }
    }

    /// Upkeep: reads that have waited for too long.
    pub(super) fn give_up_fills(&mut self, port: &mut impl Port) {
        let now = self.now;
        let late = |fill: &Fill| now.saturating_sub(fill.since) >= PATIENCE;
        let late: Vec<u32> =
            self.warm.fills.iter().filter(|(_, fill)| late(fill)).map(|(link, _)| link as u32).collect();
        for link in late {
            if let Some(fill) = self.warm.fills.get(link as usize) {
                let key = (fill.pool, fill.name.clone());
                if self.warm.staging.get(&key) == Some(&link) {
                    self.warm.staging.remove(&key);
                }
            }
            self.end_fill(link, port);
        }
    }

    /// A GET of a key that has moved has found it at its home.
    pub(in crate::engine) fn found_at_home(&mut self, number: u16, name: &[u8]) {
        if self.pools.get(usize::from(number)).is_some_and(|pool| pool.moved(name).is_some()) {
            self.count_moved(number, Found::Home);
        }
    }
}

fn is_gone(mark: &[u8]) -> bool {
    bulk(mark) == Some(GONE)
}

/// The bytes of a bulk string that is a whole reply.
fn bulk(reply: &[u8]) -> Option<&[u8]> {
    let rest = reply.strip_prefix(b"$")?;
    let end = rest.windows(2).position(|two| two == b"\r\n")?;
    rest.get(end.saturating_add(2)..)?.strip_suffix(b"\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bulk_string_is_its_bytes() {
        assert_eq!(bulk(b"$3\r\na\r\n\r\n"), Some(&b"a\r\n"[..]));
        assert_eq!(bulk(b"$0\r\n\r\n"), Some(&b""[..]));
        assert_eq!(bulk(b"$-1\r\n"), None);
        assert_eq!(bulk(b"-ERR\r\n"), None);
        assert!(is_gone(b"$4\r\ngone\r\n") && !is_gone(b"$5\r\ngone2\r\n"));
    }
}
