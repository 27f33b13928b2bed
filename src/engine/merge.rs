//! Puts the replies of a request's flights together into its one reply: of one that is split by its keys, or that goes to
//! every shard.

use super::broadcast;
use super::line::{Ticket, Waiter};
use super::scan::Turn;
use super::window::Spare;
use crate::command::{Merge, Tag};
use crate::resp::reply::{Elements, integer};
use crate::resp::write;

/// A request whose parts are under way.
#[derive(Debug)]
pub(super) struct Gather {
    /// Whose reply it is.
    pub(super) ticket: Ticket,
    /// When the request was read.
    pub(super) at: u32,
    /// The command's latency class and name.
    pub(super) tag: Tag,
    merge: Merge,
    /// What is known of its keys that have leases; [`Waiter::NOBODY`] for nothing.
    pub(super) asked: u32,
    /// How many parts it has.
    count: u16,
    left: u16,
    sum: i64,
    /// The first error, which is then the whole reply.
    error: Option<Vec<u8>>,
    /// Array: which part each key's element is in.
    order: Vec<u16>,
    /// The parts' replies, of a merge that needs them all.
    parts: Vec<Vec<u8>>,
    /// Their bytes that count as waiting for the session.
    pub(super) held: usize,
    /// Most bytes of them.
    room: usize,
    /// How many there may be, less what they have.
    left_room: usize,
    /// Draw: a number drawn by lot.
    draw: u64,
    /// InTurn: whose turn it is.
    turn: Turn,
}

impl Gather {
    /// For `parts` flights; `order` names for each key the part that carries it.
    #[must_use]
    pub(super) fn new(ticket: Ticket, at: u32, tag: Tag, merge: Merge, parts: u16, order: &[u16]) -> Self {
        let array = matches!(merge, Merge::Array);
        let held = !matches!(merge, Merge::Sum | Merge::AllOk | Merge::AnyOk);
        Self {
            ticket,
            at,
            tag,
            merge,
            asked: Waiter::NOBODY,
            count: parts,
            left: parts,
            sum: 0,
            error: None,
            order: if array { order.to_vec() } else { Vec::new() },
            parts: if held { vec![Vec::new(); usize::from(parts)] } else { Vec::new() },
            held: 0,
            room: usize::MAX,
            left_room: usize::MAX,
            draw: 0,
            turn: Turn::default(),
        }
    }

    /// For a request to every shard, whose replies may have `room` bytes together; `draw` is a number drawn by lot.
    #[must_use]
    pub(super) fn over_shards(
        ticket: Ticket,
        at: u32,
        tag: Tag,
        merge: Merge,
        parts: u16,
        room: usize,
        draw: u64,
    ) -> Self {
        Self { room, left_room: room, draw, ..Self::new(ticket, at, tag, merge, parts, &[]) }
    }

    /// For a SCAN of the shard whose turn it is.
    #[must_use]
    pub(super) fn in_turn(ticket: Ticket, at: u32, tag: Tag, turn: Turn) -> Self {
        Self { turn, ..Self::new(ticket, at, tag, Merge::InTurn, 1, &[]) }
    }

    /// Whether it has several parts, so that the fate of one is not that of all.
    #[must_use]
    pub(super) fn is_split(&self) -> bool {
        self.count > 1
    }

    /// Bytes of parts that it has now.
    #[must_use]
    pub(super) fn kept(&self) -> usize {
        self.parts.iter().map(Vec::len).sum()
    }

    /// How many parts are still to come.
    #[must_use]
    pub(super) fn missing(&self) -> usize {
        usize::from(self.left)
    }

    /// How many shards have a part in it.
    #[must_use]
    pub(super) fn shards(&self) -> u16 {
        // Each is asked for its size, too.
        if self.merge == Merge::Draw { self.count / 2 } else { self.count }
    }

    /// Takes a part's reply. Returns whether it was the last one.
    pub(super) fn take(&mut self, part: u16, reply: &[u8], spare: &mut Spare) -> bool {
        if reply.first() == Some(&b'-') {
            // A shard to which it does not apply says less than one that could not.
            let better = self.error.as_ref().is_none_or(|error| error.starts_with(b"-NOTBUSY"));
            if better {
                self.error = Some(reply.to_vec());
            }
        } else {
            match self.merge {
                Merge::Sum => match integer(reply) {
                    Some(n) => self.sum = self.sum.saturating_add(n),
                    None => self.misfit(),
                },
                Merge::AllOk => {
                    if reply.first() != Some(&b'+') {
                        self.misfit();
                    }
                }
                Merge::AnyOk => {
                    if reply.first() == Some(&b'+') {
                        self.sum = self.sum.saturating_add(1);
                    } else {
                        self.misfit();
                    }
                }
                _ => self.hold(part, reply, spare),
            }
        }
        self.left = self.left.saturating_sub(1);
        self.left == 0
    }

    /// Keeps a part's reply, if there is room.
    fn hold(&mut self, part: u16, reply: &[u8], spare: &mut Spare) {
        let Some(left) = self.left_room.checked_sub(reply.len()) else {
            self.left_room = 0;
            self.parts.drain(..).for_each(|part| spare.put(part));
            let text = format!(
                "ERR hotring does not join replies of more than {} bytes (max_output) of all shards; ask for less at a time",
                self.room
            );
            self.error.get_or_insert_with(|| {
                let mut error = Vec::new();
                write::error(&mut error, text.as_bytes());
                error
            });
            return;
        };
        self.left_room = left;
        if let Some(place) = self.parts.get_mut(usize::from(part)) {
            *place = spare.take();
            place.extend_from_slice(reply);
        }
    }

    /// Appends the request's reply.
    pub(super) fn finish(mut self, out: &mut Vec<u8>, spare: &mut Spare) {
        let start = out.len();
        if self.merge == Merge::AnyOk && self.sum > 0 {
            self.error = None;
        }
        if self.error.is_none() {
            match self.merge {
                Merge::Sum => write::integer(out, self.sum),
                Merge::AllOk | Merge::AnyOk => write::simple(out, b"OK"),
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
                Merge::InTurn => {
                    let reply = self.parts.first().map_or(&[][..], Vec::as_slice);
                    if let Err(error) = self.turn.pass_on(reply, out) {
                        self.error = Some(error.to_vec());
                    }
                }
                merge => {
                    if broadcast::join(merge, &self.parts, self.draw, out).is_none() {
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
    use crate::command::Class;

    fn gather(merge: Merge, order: &[u16], replies: &[(u16, &[u8])]) -> String {
        let ticket = Ticket { session: 0, generation: 0, slot: 0 };
        let mut spare = Spare::default();
        let mut gather = Gather::new(ticket, 0, Tag::nameless(Class::Multi), merge, replies.len() as u16, order);
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

    fn over_shards(merge: Merge, room: usize, replies: &[&[u8]]) -> String {
        let ticket = Ticket { session: 0, generation: 0, slot: 0 };
        let mut spare = Spare::default();
        let mut gather =
            Gather::over_shards(ticket, 0, Tag::nameless(Class::Multi), merge, replies.len() as u16, room, 0);
        for (i, reply) in replies.iter().enumerate() {
            assert_eq!(gather.take(i as u16, reply, &mut spare), i + 1 == replies.len());
        }
        let mut out = Vec::new();
        gather.finish(&mut out, &mut spare);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn one_that_says_ok_is_enough_where_it_concerns_one() {
        let (idle, busy) = (&b"-NOTBUSY No scripts\r\n"[..], &b"-UNKILLABLE Sorry\r\n"[..]);
        assert_eq!(over_shards(Merge::AnyOk, 99, &[idle, b"+OK\r\n", busy]), "+OK\r\n");
        assert_eq!(over_shards(Merge::AnyOk, 99, &[idle, idle]), "-NOTBUSY No scripts\r\n");
        assert_eq!(over_shards(Merge::AnyOk, 99, &[idle, busy, idle]), "-UNKILLABLE Sorry\r\n");
    }

    #[test]
    fn joined_replies_are_bounded() {
        let part = &b"*1\r\n$1\r\na\r\n"[..];
        assert_eq!(over_shards(Merge::Concat, 22, &[part, part]), "*2\r\n$1\r\na\r\n$1\r\na\r\n");
        let refused = over_shards(Merge::Concat, 21, &[part, part, b"*0\r\n"]);
        assert!(refused.starts_with("-ERR hotring does not join replies of more than 21 bytes"), "{refused}");
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
