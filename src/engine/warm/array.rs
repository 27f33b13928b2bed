//! MGET of keys that have moved: it is answered when all is known of those that were not at their home.

#![expect(clippy::arithmetic_side_effects, reason = "counters of 64 bits")]

use super::reads::Asker;
use crate::command::Tag;
use crate::engine::Engine;
use crate::engine::line::Ticket;
use crate::engine::misses::is_nil;
use crate::engine::port::Port;
use crate::resp::reply::Elements;
use crate::resp::write;
use crate::stages::warm::Found;

/// A reply that is held back since former homes are asked for elements of it.
pub(super) struct Array {
    pool: u16,
    ticket: Ticket,
    at: u32,
    tag: Tag,
    /// By which number it is known which of its elements are looked at.
    asked: u32,
    reply: Vec<u8>,
    fills: Vec<(u32, Vec<u8>)>,
    /// Bytes of all that, as they count as waiting for its session.
    held: usize,
    left: u32,
}

impl Engine {
    /// The reply to a MGET is whole. Returns whether it waits for what former homes say.
    pub(in crate::engine) fn asks_former_for(
        &mut self,
        number: u16,
        (ticket, at, tag): (Ticket, u32, Tag),
        asked: u32,
        reply: &[u8],
    ) -> bool {
        let Some(pool) = self.pools.get(usize::from(number)).filter(|pool| pool.warm.is_some()) else { return false };
        let session = self.sessions.get(ticket.session as usize).filter(|s| s.generation == ticket.generation);
        if session.is_none_or(|session| session.is_strict()) {
            return false;
        }
        let Some(mut elements) = Elements::of(reply) else { return false };
        let (mut missing, mut found, mut at_element) = (Vec::new(), 0_usize, 0_u32);
        for (index, hash, key) in self.noted_elements(asked) {
            let element = elements.nth(index.saturating_sub(at_element) as usize).unwrap_or_default();
            at_element = index.saturating_add(1);
            if pool.moved(key).is_none() {
                continue;
            }
            if is_nil(element) {
                missing.push((*index, *hash, key.clone()));
            } else {
                found = found.saturating_add(1);
            }
        }
        (0..found).for_each(|_| self.count_moved(number, Found::Home));
        if missing.is_empty() {
            return false;
        }
        let array =
            Array { pool: number, ticket, at, tag, asked, reply: reply.to_vec(), fills: Vec::new(), held: 0, left: 0 };
        let link = self.warm.arrays.insert(array) as u32;
        for (index, hash, key) in missing {
            let begun = self.begin_warm(number, (hash, &key), Asker::Element(link, index));
            if let Some(array) = self.warm.arrays.get_mut(link as usize) {
                array.left = array.left.saturating_add(u32::from(begun));
            }
        }
        if self.warm.arrays.get(link as usize).is_none_or(|array| array.left == 0) {
            self.warm.arrays.try_remove(link as usize);
            return false;
        }
        self.begin_indirect_of(ticket);
        self.hold_of(link, reply.len());
        true
    }

    /// It is known what the former home has of an element.
    pub(super) fn element_is_known(&mut self, link: u32, index: u32, value: Option<&[u8]>, port: &mut impl Port) {
        let Some(array) = self.warm.arrays.get_mut(link as usize) else { return };
        array.left = array.left.saturating_sub(1);
        array.fills.extend(value.map(|value| (index, value.to_vec())));
        if array.left > 0 {
            return self.hold_of(link, value.map_or(0, <[u8]>::len));
        }
        let Array { pool, ticket, at, tag, asked, reply, mut fills, held, .. } = self.warm.arrays.remove(link as usize);
        let session = self.sessions.get_mut(ticket.session as usize).filter(|s| s.generation == ticket.generation);
        if let (Some(session), Some(place)) = (session, self.pools.get_mut(usize::from(pool))) {
            place.counts.client_output_bytes -= session.let_go(held);
        }
        self.end_indirect(ticket);
        fills.sort_unstable_by_key(|&(index, _)| index);
        let mut fills = fills.iter().peekable();
        let mut whole = self.spare.take();
        if let Some(elements) = Elements::of(&reply) {
            write::array(&mut whole, elements.left() as usize);
            for (element, index) in elements.zip(0_u32..) {
                let fill = fills.next_if(|(of, _)| *of == index).map(|(_, fill)| fill.as_slice());
                whole.extend_from_slice(fill.unwrap_or(element));
            }
        }
        self.array_is_whole(pool, (ticket, at, tag), asked, &whole, port);
        self.spare.put(whole);
    }

    /// As parts of split requests: what is held back counts as waiting for its session.
    fn hold_of(&mut self, link: u32, bytes: usize) {
        let Some(array) = self.warm.arrays.get_mut(link as usize) else { return };
        let session = self.sessions.get_mut(array.ticket.session as usize);
        let session = session.filter(|session| session.generation == array.ticket.generation);
        if let (Some(session), Some(pool)) = (session, self.pools.get_mut(usize::from(array.pool))) {
            array.held = array.held.saturating_add(bytes);
            pool.counts.client_output_bytes += session.hold(bytes);
        }
    }
}
