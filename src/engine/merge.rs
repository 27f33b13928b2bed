//! Puts the replies of a split request's flights together into its one reply.

use super::line::Ticket;
use super::window::Spare;
use crate::command::{Class, Merge};
use crate::resp::reply::{Elements, integer};
use crate::resp::write;

/// A split request whose parts are under way.
#[derive(Debug)]
pub(super) struct Gather {
    /// Whose reply it is.
    pub(super) ticket: Ticket,
    /// When the request was read.
    pub(super) at: u32,
    /// The latency class.
    pub(super) class: Class,
    merge: Merge,
    left: u16,
    sum: i64,
    /// The first error, which is then the whole reply.
    error: Option<Vec<u8>>,
    /// Array: which part each key's element is in.
    order: Vec<u16>,
    /// Array: the parts' replies.
    parts: Vec<Vec<u8>>,
}

impl Gather {
    /// For `parts` flights; `order` names for each key the part that carries it.
    #[must_use]
    pub(super) fn new(ticket: Ticket, at: u32, class: Class, merge: Merge, parts: u16, order: &[u16]) -> Self {
        let array = matches!(merge, Merge::Array);
        Self {
            ticket,
            at,
            class,
            merge,
            left: parts,
            sum: 0,
            error: None,
            order: if array { order.to_vec() } else { Vec::new() },
            parts: if array { vec![Vec::new(); usize::from(parts)] } else { Vec::new() },
        }
    }

    /// Takes a part's reply. Returns whether it was the last one.
    pub(super) fn take(&mut self, part: u16, reply: &[u8], spare: &mut Spare) -> bool {
        if reply.first() == Some(&b'-') {
            self.error.get_or_insert_with(|| reply.to_vec());
        } else {
            match self.merge {
                Merge::Array => {
                    if let Some(place) = self.parts.get_mut(usize::from(part)) {
                        *place = spare.take();
                        place.extend_from_slice(reply);
                    }
                }
                Merge::Sum => match integer(reply) {
                    Some(n) => self.sum = self.sum.saturating_add(n),
                    None => self.misfit(),
                },
                Merge::AllOk => {
                    if reply.first() != Some(&b'+') {
                        self.misfit();
                    }
                }
            }
        }
        self.left = self.left.saturating_sub(1);
        self.left == 0
    }

    /// Appends the request's reply.
    pub(super) fn finish(mut self, out: &mut Vec<u8>, spare: &mut Spare) {
        let start = out.len();
        if self.error.is_none() {
            match self.merge {
                Merge::Sum => write::integer(out, self.sum),
                Merge::AllOk => write::simple(out, b"OK"),
                Merge::Array => {
                    let mut parts: Vec<Option<Elements<'_>>> = self.parts.iter().map(|p| Elements::of(p)).collect();
                    write::array(out, self.order.len());
                    let mut complete = true;
                    for &part in &self.order {
                        let element =
                            parts.get_mut(usize::from(part)).and_then(Option::as_mut).and_then(Iterator::next);
                        match element {
                            Some(element) => out.extend_from_slice(element),
                            None => complete = false,
                        }
                    }
                    if !complete || parts.iter().flatten().any(|p| p.left() > 0) {
                        self.misfit();
                    }
                }
            }
        }
        if let Some(error) = &self.error {
            out.truncate(start);
            out.extend_from_slice(error);
        }
        for part in self.parts {
            spare.put(part);
        }
    }

    /// A shard answered with something else than its command answers.
    fn misfit(&mut self) {
        self.error.get_or_insert_with(|| b"-ERR a shard's reply does not fit the command that was split\r\n".to_vec());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(merge: Merge, order: &[u16], replies: &[(u16, &[u8])]) -> String {
        let ticket = Ticket { session: 0, generation: 0, slot: 0 };
        let mut spare = Spare::default();
        let mut gather = Gather::new(ticket, 0, Class::Multi, merge, replies.len() as u16, order);
        for (i, (part, reply)) in replies.iter().enumerate() {
            assert_eq!(gather.take(*part, reply, &mut spare), i + 1 == replies.len());
        }
        let mut out = Vec::new();
        gather.finish(&mut out, &mut spare);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn elements_come_back_in_the_order_of_the_keys() {
        let parts: [(u16, &[u8]); 2] = [(1, b"*1\r\n$1\r\nb\r\n"), (0, b"*2\r\n$1\r\na\r\n$-1\r\n")];
        assert_eq!(gather(Merge::Array, &[0, 1, 0], &parts), "*3\r\n$1\r\na\r\n$1\r\nb\r\n$-1\r\n");
    }

    #[test]
    fn sums_and_acknowledgements() {
        assert_eq!(gather(Merge::Sum, &[], &[(0, b":2\r\n"), (1, b":3\r\n")]), ":5\r\n");
        assert_eq!(gather(Merge::AllOk, &[], &[(0, b"+OK\r\n"), (1, b"+OK\r\n")]), "+OK\r\n");
    }

    #[test]
    fn the_first_error_is_the_reply() {
        let parts: [(u16, &[u8]); 3] = [(0, b":1\r\n"), (1, b"-OOM no\r\n"), (2, b"-ERR x\r\n")];
        assert_eq!(gather(Merge::Sum, &[], &parts), "-OOM no\r\n");
    }

    #[test]
    fn a_reply_that_does_not_fit_is_an_error_and_not_a_wrong_answer() {
        for (merge, order, reply) in [
            (Merge::Sum, &[][..], &b"+OK\r\n"[..]),
            (Merge::AllOk, &[], b":1\r\n"),
            (Merge::Array, &[0, 0], b"*1\r\n:1\r\n"),
            (Merge::Array, &[0], b"*2\r\n:1\r\n:2\r\n"),
            (Merge::Array, &[0], b"$1\r\na\r\n"),
        ] {
            assert!(gather(merge, order, &[(0, reply)]).starts_with("-ERR a shard's reply"), "{merge:?}");
        }
    }
}
