//! MGET of keys with leases: its elements wait each for itself, and it is answered when none does any more.
//!
//! Where one of them is to be loaded by this session none of the others is waited for: so two sessions that ask for the same keys
//! in different order never wait for each other.

use super::{Asker, Engine, Fate, is_nil};
use crate::command::Tag;
use crate::engine::line::Ticket;
use crate::engine::port::Port;
use crate::resp::reply::Elements;
use crate::resp::{Request, write};

/// A request with several keys, some of which have leases, that is under way.
#[derive(Debug)]
pub(in crate::engine) struct Asked {
    /// The elements of the reply that are such keys', in their order: which, the key's hash, and the key.
    keys: Vec<(u32, u64, Box<[u8]>)>,
}

/// A reply that is held back since elements of it wait.
#[derive(Debug)]
pub(super) struct Array {
    pool: u16,
    ticket: Ticket,
    at: u32,
    tag: Tag,
    reply: Vec<u8>,
    /// What has come for its elements since; no text is nil.
    fills: Vec<(u32, Option<Vec<u8>>)>,
    /// Bytes of all that, as they count as waiting for its session.
    held: usize,
    /// How many still wait.
    left: u32,
    /// It is still being made.
    begins: bool,
}

impl Engine {
    /// Notes which elements of a MGET have leases, or have moved. Nothing where none has.
    #[cold]
    pub(in crate::engine) fn asks_for(&mut self, pool: u16, base: u32, request: &Request<'_>) -> Option<u32> {
        let place = self.pools.get(usize::from(pool))?;
        let leases = &place.config.leases;
        if place.dialect(base).db != 0 {
            return None;
        }
        let named =
            request.args().skip(1).zip(0..).filter(|(key, _)| leases.concerns(key) || place.moved(key).is_some());
        let hot = &place.config.path.hot;
        let keys: Vec<_> = named.map(|(key, index)| (index, hot.hash(key), key.into())).collect();
        (!keys.is_empty()).then(|| self.waits.asked.insert(Asked { keys }) as u32)
    }

    /// The reply to such a request is whole.
    #[cold]
    pub(in crate::engine) fn array_landed(
        &mut self,
        pool: u16,
        (ticket, at, tag): (Ticket, u32, Tag),
        asked: u32,
        reply: &[u8],
        port: &mut impl Port,
    ) {
        if !self.asks_former_for(pool, (ticket, at, tag), asked, reply) {
            self.array_is_whole(pool, (ticket, at, tag), asked, reply, port);
        }
    }

    /// The same when all is known that may be where keys lived before.
    pub(in crate::engine) fn array_is_whole(
        &mut self,
        pool: u16,
        (ticket, at, tag): (Ticket, u32, Tag),
        asked: u32,
        reply: &[u8],
        port: &mut impl Port,
    ) {
        if !self.hold_array(pool, (ticket, at, tag), asked, reply) {
            self.clock(pool, tag, at, reply);
            self.complete(pool, ticket, reply, Some(port));
        }
    }

    /// The elements of the reply that were noted.
    pub(in crate::engine) fn noted_elements(&self, asked: u32) -> &[(u32, u64, Box<[u8]>)] {
        self.waits.asked.get(asked as usize).map_or(&[], |asked| &asked.keys)
    }

    /// Whether it is held back.
    fn hold_array(&mut self, pool: u16, (ticket, at, tag): (Ticket, u32, Tag), asked: u32, reply: &[u8]) -> bool {
        let Some(Asked { keys }) = self.waits.asked.try_remove(asked as usize) else { return false };
        let Some(mut elements) = Elements::of(reply) else { return false };
        let mut missing = Vec::new();
        let mut at_element = 0;
        for (index, hash, key) in keys {
            let element = elements.nth((index - at_element) as usize).unwrap_or_default();
            at_element = index + 1;
            if is_nil(element) {
                missing.push((index, hash, key));
            } else {
                self.found(pool, ticket, hash, at, Some(element));
            }
        }
        if missing.is_empty() {
            return false;
        }
        let array =
            Array { pool, ticket, at, tag, reply: reply.to_vec(), fills: Vec::new(), held: 0, left: 0, begins: true };
        let array = self.waits.arrays.insert(array) as u32;
        let mut holds = false;
        for (index, hash, key) in missing {
            if let Some(array) = self.waits.arrays.get_mut(array as usize) {
                array.left += 1;
            }
            let asker = Asker { ticket, at, tag, element: Some((array, index)), may_wait: !holds };
            let fate = self.miss(pool, asker, hash, &key);
            if fate != Fate::Waits
                && let Some(array) = self.waits.arrays.get_mut(array as usize)
            {
                array.left -= 1;
            }
            holds |= fate == Fate::Holds;
        }
        if holds {
            let its = |link: &u32| {
                let element = self.waits.held.get(*link as usize).and_then(|held| held.element);
                element.is_some_and(|(of, _)| of == array)
            };
            for link in self.waits.of(ticket).into_iter().filter(its).collect::<Vec<_>>() {
                if let Some(held) = self.waits.held.get(link as usize) {
                    self.give_up_wait(pool, held.hash, link, held.id);
                }
            }
        }
        let Some(place) = self.waits.arrays.get_mut(array as usize) else { return true };
        place.begins = false;
        if place.left > 0 {
            let bytes = place.reply.len();
            self.hold_bytes(array, bytes);
            return true;
        }
        // All that waited has been answered already, as its shard said.
        let place = self.waits.arrays.remove(array as usize);
        self.let_go_of(&place);
        if place.fills.iter().all(|(_, fill)| fill.is_none()) {
            return false;
        }
        self.finish_array(place);
        true
    }

    /// What is known of an element that has waited.
    pub(super) fn fill_element(&mut self, array: u32, index: u32, value: Option<&[u8]>) {
        let Some(place) = self.waits.arrays.get_mut(array as usize) else { return };
        place.left = place.left.saturating_sub(1);
        // An array has nil where a key is of another type.
        let value = value.filter(|value| value.first() == Some(&b'$'));
        place.fills.push((index, value.map(<[u8]>::to_vec)));
        if place.left > 0 || place.begins {
            return self.hold_bytes(array, value.map_or(0, <[u8]>::len));
        }
        let place = self.waits.arrays.remove(array as usize);
        self.let_go_of(&place);
        self.finish_array(place);
    }

    /// As parts of split requests: what is held back of an array counts as waiting for its session.
    fn hold_bytes(&mut self, array: u32, bytes: usize) {
        let Some(place) = self.waits.arrays.get_mut(array as usize) else { return };
        let session = self.sessions.get_mut(place.ticket.session as usize);
        let session = session.filter(|session| session.generation == place.ticket.generation);
        if let (Some(session), Some(pool)) = (session, self.pools.get_mut(usize::from(place.pool))) {
            place.held += bytes;
            pool.counts.client_output_bytes += session.hold(bytes);
        }
    }

    /// It is held back no more.
    fn let_go_of(&mut self, array: &Array) {
        let session = self.sessions.get_mut(array.ticket.session as usize);
        let session = session.filter(|session| session.generation == array.ticket.generation);
        if let (Some(session), Some(pool)) = (session, self.pools.get_mut(usize::from(array.pool))) {
            pool.counts.client_output_bytes -= session.let_go(array.held);
        }
    }

    fn finish_array(&mut self, mut array: Array) {
        let mut reply = self.spare.take();
        array.fills.sort_unstable_by_key(|&(index, _)| index);
        let mut fills = array.fills.iter().peekable();
        if let Some(elements) = Elements::of(&array.reply) {
            write::array(&mut reply, elements.left() as usize);
            for (element, index) in elements.zip(0u32..) {
                let fill = fills.next_if(|(of, _)| *of == index).and_then(|(_, fill)| fill.as_deref());
                reply.extend_from_slice(fill.unwrap_or(element));
            }
        }
        self.clock(array.pool, array.tag, array.at, &reply);
        self.complete(array.pool, array.ticket, &reply, None);
        self.spare.put(reply);
    }

    /// How many replies with several elements are held back, or may be.
    pub(in crate::engine) fn arrays(&self) -> usize {
        self.waits.arrays.len() + self.waits.asked.len()
    }
}
