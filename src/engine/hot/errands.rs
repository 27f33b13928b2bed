//! Requests that the proxy makes for its own sake, and what is done with their replies.
//!
//! Bounded: hot keys are few, and each has one errand of a kind at a time.

use super::{Audit, State};
use crate::command::{Class, Tag};
use crate::engine::lease::Asking;
use crate::engine::line::{Ticket, Waiter};
use crate::engine::misses::is_nil;
use crate::engine::port::Port;
use crate::engine::warm::Step;
use crate::engine::{Engine, LineId};
use crate::resp::reply::integer;
use crate::resp::write;
use crate::stages::Micros;
use crate::stages::hot::Value;
use std::sync::Arc;

/// What replies are wanted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Errand {
    /// The tracked connection is made to tell of changes.
    Track,
    /// It is asked for a sign of life.
    Proof,
    /// A shard says how many clients it tells of changes.
    Census,
    /// An answer is compared with what its shard has.
    Audit(Box<Audit>),
    /// A shard or a replica says how far it is; it was asked at this time.
    Standing(Micros),
    /// It says in which zone it is.
    Zone,
    /// What a key has is kept here.
    Near {
        /// The key's.
        hash: u64,
        /// The fill's.
        number: u64,
        /// The key.
        name: Box<[u8]>,
    },
    /// How much it is that is to be copied: the key's hash, which copy, and the number of the fill.
    Weigh {
        /// The key's.
        hash: u64,
        /// The copy's.
        copy: u16,
        /// The fill's.
        number: u64,
    },
    /// What a key has is copied to another shard: its hash, which copy, and the number of the fill.
    Copy {
        /// The key's.
        hash: u64,
        /// The copy's.
        copy: u16,
        /// The fill's.
        number: u64,
    },
    /// It is made there.
    Copied {
        /// The key's.
        hash: u64,
        /// The copy's.
        copy: u16,
        /// The fill's.
        number: u64,
    },
    /// A shard is asked for its time.
    Clock,
    /// A key that has a lease, by its hash, is read for those who wait for it.
    Woken(u64),
    /// The lease key of a key, by its hash and name, is asked for.
    Claim(u64, Arc<[u8]>),
    /// It is asked how long a key lives that may be loaded anew before it expires.
    Early(Box<Asking>),
    /// A lease key is given back.
    Released,
    /// A read that has found nothing is carried on where its key lived before: which, and how far it is.
    Warm(u32, u64, Step),
    /// A write waits for this shard, as the former home of its keys or as their home now: which write.
    Forget(u32, u64, u16, bool),
    /// Copies are taken away; a reply may wait for that.
    Gone {
        /// The reply's number.
        held: u32,
    },
}

/// An errand under way.
#[derive(Debug)]
pub(in crate::engine) struct Way {
    errand: Errand,
    pool: u16,
    shard: u16,
    wanted: usize,
    replies: Vec<Vec<u8>>,
    /// Some of the replies will never come.
    lost: bool,
    /// Reads that are answered with what comes, and when they were asked.
    pub(super) readers: Vec<(Ticket, u32)>,
}

impl Engine {
    /// Queues requests of an errand on a connection, one behind the other. Returns its number; nothing, and does nothing, if the
    /// connection is not open.
    pub(in crate::engine) fn run_errand(&mut self, on: LineId, commands: &[&[&[u8]]], errand: Errand) -> Option<u32> {
        self.lines.get(on as usize).filter(|line| line.state == State::Up)?;
        self.run_errand_soon(on, commands, errand)
    }

    /// The same on a connection that may have to be opened for it.
    pub(in crate::engine) fn run_errand_soon(
        &mut self,
        on: LineId,
        commands: &[&[&[u8]]],
        errand: Errand,
    ) -> Option<u32> {
        let line = self.lines.get_mut(on as usize).filter(|line| !matches!(line.state, State::Down(_)))?;
        let (pool, shard, wanted) = (line.pool, line.shard, commands.len());
        let (replies, readers) = (Vec::with_capacity(wanted), Vec::new());
        let way = Way { errand, pool, shard, wanted, replies, lost: false, readers };
        let link = self.errands.insert(way) as u32;
        let ticket = Ticket { session: u32::MAX, generation: 0, slot: 0 };
        let (at, tag) = (self.now as u32, Tag::nameless(Class::Local));
        for command in commands {
            self.in_flight = self.in_flight.saturating_add(1);
            line.expect(Waiter { ticket, at, link, part: Waiter::ERRAND, tag });
            write::request(&mut line.outbox, command);
        }
        line.mark(on, &mut self.dirty_lines);
        Some(link)
    }

    /// A reply of an errand came, or never will.
    #[cold]
    pub(in crate::engine) fn errand_reply(&mut self, waiter: &Waiter, reply: Option<&[u8]>, port: &mut impl Port) {
        let Some(way) = self.errands.get_mut(waiter.link as usize) else { return };
        way.lost |= reply.is_none();
        way.replies.push(reply.unwrap_or_default().to_vec());
        if way.replies.len() < way.wanted {
            // How long it lives is still to come, and so is whatever the shard tells behind this.
            if let Errand::Near { hash, number, name } = &way.errand
                && way.replies.len().saturating_add(1) == way.wanted
                && reply.is_some_and(is_nil)
            {
                let (pool, hash, number, name) = (way.pool, *hash, *number, name.clone());
                self.may_have_expired(pool, (hash, number), &name);
            }
            return;
        }
        let Way { errand, pool, shard, replies, lost, readers, .. } = self.errands.remove(waiter.link as usize);
        let replies = if lost { Vec::new() } else { replies };
        let name = if let Errand::Near { name, .. } = &errand { name.clone() } else { Box::default() };
        self.errand_done((pool, shard), errand, &replies, port);
        let value = replies.len().checked_sub(2).and_then(|at| replies.get(at)).map(Vec::as_slice);
        self.tell_readers(pool, readers, value, &name, port);
    }

    /// All replies of an errand are there; none, if some were lost.
    fn errand_done(&mut self, (pool, shard): (u16, u16), errand: Errand, replies: &[Vec<u8>], port: &mut impl Port) {
        match errand {
            Errand::Track => {
                // What was lost with its connection says nothing of the shard.
                if let Some(reply) = replies.first() {
                    self.tracks(pool, shard, reply == b"+OK\r\n");
                }
            }
            Errand::Proof | Errand::Released => {}
            Errand::Warm(link, number, step) => self.warmed((link, number), step, replies, port),
            Errand::Forget(link, number, at, former) => {
                self.has_forgotten((link, number), (at, former), replies, port);
            }
            Errand::Early(asking) => self.turn_was_told(pool, &asking, replies),
            Errand::Claim(hash, name) => self.lease_was_claimed(pool, hash, &name, replies),
            Errand::Census => {
                let told = replies.first().and_then(|reply| number_in(reply, b"tracking_clients:"));
                if let (Some(clients), Some(place)) = (told, self.pools.get_mut(usize::from(pool))) {
                    place.config.path.hot.set_trackers(shard, clients);
                }
            }
            Errand::Gone { held } => self.copies_are_gone(held, port),
            Errand::Woken(hash) => self.woken(pool, hash, replies.last().map(Vec::as_slice)),
            Errand::Clock => self.told_time(pool, shard, replies.first().map_or(&[], Vec::as_slice)),
            Errand::Weigh { hash, copy, number } => {
                let reply = replies.first().map_or(&[][..], Vec::as_slice);
                self.copy_was_weighed((pool, shard), (hash, copy, number), reply, port);
            }
            Errand::Copy { hash, copy, number } => {
                if let Some(place) = self.pools.get_mut(usize::from(pool)) {
                    let choice = &mut place.config.path.hot.choice;
                    replies.iter().for_each(|reply| choice.bore(shard, reply.len() as u64));
                }
                self.copy_was_read(pool, (hash, copy, number), replies);
            }
            Errand::Copied { hash, copy, number } => {
                self.copy_was_made(pool, (hash, copy, number), replies.first().map_or(&[], Vec::as_slice));
            }
            Errand::Audit(audit) => {
                if let [reply] = replies {
                    self.looked(*audit, reply);
                }
            }
            Errand::Standing(asked) => {
                self.standing((pool, shard), asked, replies.first().map_or(&[], Vec::as_slice), port);
            }
            Errand::Zone => self.told_zone((pool, shard), replies.first().map_or(&[], Vec::as_slice)),
            Errand::Near { hash, number, .. } => {
                let now = self.now;
                let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
                let hot = &mut place.config.path.hot;
                let read = match replies {
                    [caching, value, ttl] if caching == b"+OK\r\n" => Some((value, ttl)),
                    [value, ttl] => Some((value, ttl)),
                    _ => None,
                };
                match read.and_then(|(value, ttl)| Some((Value::of(value), integer(ttl)?))) {
                    Some((value, ttl)) => {
                        hot.end_fill(hash, number, value, ttl, now);
                    }
                    None => hot.end_fill_without(hash, number),
                }
                self.heard_of_expiry(pool, hash);
            }
        }
    }
}

/// The number behind a name in what INFO tells.
fn number_in(text: &[u8], name: &[u8]) -> Option<u32> {
    let at = text.windows(name.len()).position(|window| window == name)?.saturating_add(name.len());
    let digits: Vec<u8> = text.get(at..)?.iter().copied().take_while(u8::is_ascii_digit).collect();
    std::str::from_utf8(&digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_by_its_name() {
        let text = b"$60\r\n# Clients\r\nconnected_clients:12\r\ntracking_clients:7\r\n\r\n";
        assert_eq!(number_in(text, b"tracking_clients:"), Some(7));
        assert_eq!(number_in(text, b"blocked_clients:"), None);
        assert_eq!(number_in(b"-NOPERM x\r\n", b"tracking_clients:"), None);
    }
}
