//! A session's window: one slot for each open request, filled in any order, emptied in the order of the requests.

#![expect(clippy::arithmetic_side_effects, reason = "slots and bytes of one session, which its bounds limit")]

use super::special::{Special, mode};
use crate::resp::Resume;
use std::collections::VecDeque;

/// Replies from this size on go straight from the shard's read buffer to the app's socket, if nothing waits before them.
/// Below it one copy into a common buffer is cheaper than a system call of its own.
pub const DIRECT: usize = 16 * 1024;

/// Bounds of one session.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Most open requests (`max_pipeline`); the session is not read beyond.
    pub open: usize,
    /// Most bytes of replies that wait for the app to read them (`max_output`); a session that has more waiting when a
    /// further reply comes is ended. It is not read from a quarter of it, 1 MiB at the most.
    pub output: usize,
}

impl Bounds {
    /// Bytes of waiting replies from which on the session is not read.
    fn high_water(&self) -> usize {
        (self.output / 4).min(1 << 20)
    }
}

/// One app connection, as the engine sees it. At most 104 bytes in a box of its own: that is the gap the allocator leaves
/// behind a task's aligned 256, and ten thousand idle apps are ten thousand of these.
pub struct Session {
    /// Distinguishes it from earlier sessions with the same id: replies for those are dropped.
    pub generation: u32,
    /// Its pool.
    pub pool: u16,
    /// Its lane; the highest bits say whether it is strict, whether a read of it waits, and what [`super::tenant`] knows of it. Fewer
    /// connections than that lead to a shard.
    lane: u16,
    /// Bytes on their way to the app; those before `sent` have left.
    pub output: Vec<u8>,
    /// What most sessions never have.
    pub special: Option<Box<Special>>,
    /// How many bytes of `output` have left; below 4 GiB, as what waits is bounded.
    sent: u32,
    /// Replies held in slots, in bytes; below 4 GiB, as a session that has more waiting than its bound is ended.
    held: u32,
    /// Added to the numbers of the connections it uses: those of its protocol and database.
    pub base: u32,
    /// The number of the newest request whose flight it waits for, on this worker; wraps.
    pub newest: u32,
    /// How far an incomplete request was scanned.
    pub resume: Resume,
    /// Told in CLIENT ID; never used twice.
    pub id: u64,
    /// In what its requests and replies differ from those of most sessions; see [`mode`].
    pub mode: u8,
    /// Whether it speaks RESP3.
    pub resp3: bool,
    /// Whether it may send commands.
    pub authenticated: bool,
    /// Its output waits to be flushed.
    pub dirty: bool,
    /// Its socket is full; the shell says when it is writable again.
    pub blocked: bool,
    /// It is not read because its window or a shard's outbox is full.
    pub paused: bool,
    /// It waits for room in a shard's outbox.
    pub parked: bool,
    /// Nothing more is read; it ends when all its replies are out.
    pub closing: bool,
    /// It ends now: the app does not read, or is gone.
    pub killed: bool,
    /// Open reads that are answered from elsewhere than their keys' shards; no more than that where it is full.
    pub indirect: u8,
    /// Open reads of hot keys at their shards; no more than that where it is full.
    pub hot_reads: u8,
    /// Flights on their way that write, where that is noted; no more than that where it is full.
    pub writes: u8,
    /// Open requests; the first of them is the head.
    open: u32,
    /// The head's number.
    head: u32,
    /// Replies that came before their turn, by their distance from the head less one; `None` is still awaited, as is all
    /// beyond the end. A session whose replies come in order never stores any.
    early: Option<Box<Early>>,
}

/// See [`Session::is_strict`].
const STRICT: u16 = 1 << 15;
/// See [`Session::is_behind`].
const BEHIND: u16 = 1 << 14;
/// See [`Session::is_branch`].
const BRANCH: u16 = 1 << 10;
/// See [`Session::is_tenant`].
const TENANT: u16 = 1 << 11;
/// See [`Session::is_marked`].
const MARKED: u16 = 1 << 12;

/// See [`Session::is_watched`].
const WATCHED: u16 = 1 << 13;
/// All of them.
const FLAGS: u16 = STRICT | BEHIND | WATCHED | TENANT | MARKED | BRANCH;

/// See [`Session::keep`].
type Early = VecDeque<Option<Vec<u8>>>;

impl Session {
    /// A session without requests.
    #[must_use]
    pub fn new(generation: u32, pool: u16, lane: u16, id: u64, authenticated: bool) -> Self {
        Self {
            generation,
            pool,
            lane: lane & !FLAGS,
            output: Vec::new(),
            special: None,
            sent: 0,
            held: 0,
            base: 0,
            newest: 0,
            resume: Resume::default(),
            id,
            mode: 0,
            resp3: false,
            authenticated,
            dirty: false,
            blocked: false,
            paused: false,
            parked: false,
            closing: false,
            killed: false,
            indirect: 0,
            hot_reads: 0,
            writes: 0,
            open: 0,
            head: 0,
            early: None,
        }
    }

    /// Which of each shard's connections it is bound to, so that its own order holds.
    #[must_use]
    #[inline]
    pub fn lane(&self) -> u16 {
        self.lane & !FLAGS
    }

    /// Whether it is never answered from elsewhere than a key's shard, nor with another's reply.
    #[must_use]
    #[inline]
    pub fn is_strict(&self) -> bool {
        self.lane & STRICT != 0
    }

    /// It is from now on.
    pub fn be_strict(&mut self) {
        self.lane |= STRICT;
    }

    /// Whether a read of it waits behind an equal one that is out.
    #[must_use]
    #[inline]
    pub fn is_behind(&self) -> bool {
        self.lane & BEHIND != 0
    }

    /// Whether one does from now on.
    #[inline]
    pub fn set_behind(&mut self, behind: bool) {
        self.lane = if behind { self.lane | BEHIND } else { self.lane & !BEHIND };
    }

    /// Whether a reply that it waits for is looked at as it comes (`engine::watched`).
    #[must_use]
    #[inline]
    pub fn is_watched(&self) -> bool {
        self.lane & WATCHED != 0
    }

    /// Whether one is from now on.
    pub fn set_watched(&mut self, watched: bool) {
        self.lane = if watched { self.lane | WATCHED } else { self.lane & !WATCHED };
    }

    /// Whether it has no app: it is what an app's session is to another pool (`engine::branches`).
    #[must_use]
    #[inline]
    pub fn is_branch(&self) -> bool {
        self.lane & BRANCH != 0
    }

    /// It is from now on.
    pub fn be_branch(&mut self) {
        self.lane |= BRANCH;
    }

    /// Whether its keys have a prefix on the servers.
    #[must_use]
    #[inline]
    pub fn is_tenant(&self) -> bool {
        self.lane & TENANT != 0
    }

    /// Whether they have from now on.
    pub fn set_tenant(&mut self, tenant: bool) {
        self.lane = if tenant { self.lane | TENANT } else { self.lane & !(TENANT | MARKED) };
    }

    /// Whether the reply of an open slot is to be looked at for names of keys.
    #[must_use]
    #[inline]
    pub fn is_marked(&self) -> bool {
        self.lane & MARKED != 0
    }

    /// Whether one is from now on.
    pub fn set_marked(&mut self, marked: bool) {
        self.lane = if marked { self.lane | MARKED } else { self.lane & !MARKED };
    }

    /// Opens a slot for a reply that is to come; returns its number.
    #[inline]
    pub fn open(&mut self) -> u32 {
        let number = self.head.wrapping_add(self.open);
        if self.open == 0 {
            // Nothing that was counted before can be on its way.
            (self.indirect, self.hot_reads, self.writes) = (0, 0, 0);
        }
        self.open += 1;
        number
    }

    /// The number that the next slot gets.
    #[must_use]
    pub fn next_slot(&self) -> u32 {
        self.head.wrapping_add(self.open)
    }

    /// Open requests.
    #[must_use]
    pub fn open_slots(&self) -> usize {
        self.open as usize
    }

    /// How many bytes of `output` have left.
    #[must_use]
    #[inline]
    pub fn sent(&self) -> usize {
        self.sent as usize
    }

    /// The app's socket took bytes of `output`, at most all of them.
    #[inline]
    pub fn took(&mut self, count: usize) {
        self.sent = (self.sent() + count).min(self.output.len()) as u32;
    }

    /// Bytes of replies that the app has not been sent yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.output.len() - self.sent() + self.held as usize
    }

    /// Whether it must not be read now.
    #[must_use]
    pub fn is_full(&self, bounds: &Bounds) -> bool {
        self.open_slots() >= bounds.open || self.waiting() >= bounds.high_water()
    }

    /// Whether as much is kept for its turn as may wait before it is not read.
    #[must_use]
    pub fn is_crowded(&self, bounds: &Bounds) -> bool {
        self.held as usize >= bounds.high_water()
    }

    /// Whether it may be read again after it was full: half of it is free. One whose next request has to wait for all
    /// before it waits for just that.
    #[must_use]
    pub fn has_room(&self, bounds: &Bounds) -> bool {
        let open = if self.mode & mode::WAITING == 0 { bounds.open / 2 } else { 0 };
        self.open_slots() <= open && self.waiting() <= bounds.high_water() / 2
    }

    /// Whether everything it asked for has left.
    #[must_use]
    pub fn is_done(&self) -> bool {
        // What a socket took may wait in it to be encrypted and sent, and then it is blocked.
        self.open == 0 && self.output.is_empty() && !self.blocked
    }

    /// Whether a slot is the next to be answered.
    #[must_use]
    #[inline]
    pub fn is_head(&self, slot: u32) -> bool {
        slot == self.head && self.open > 0
    }

    /// Whether a slot is among those that have to be answered before there is room again where the window is full.
    #[must_use]
    pub fn is_in_first_half(&self, slot: u32) -> bool {
        slot.wrapping_sub(self.head) < self.open.div_ceil(2)
    }

    /// Ends the head slot, whose reply has been put into `output`, and moves up what is ready behind it.
    #[inline]
    pub fn advance(&mut self, spare: &mut Spare) {
        loop {
            self.open = self.open.saturating_sub(1);
            self.head = self.head.wrapping_add(1);
            let Some(early) = &mut self.early else { return };
            let Some(Some(reply)) = early.pop_front() else { return };
            self.let_go(reply.len());
            self.append(&reply, spare);
            spare.put(reply);
        }
    }

    /// Counts bytes that wait for it elsewhere. Returns how many were counted.
    pub fn hold(&mut self, bytes: usize) -> u64 {
        let before = self.held;
        self.held = self.held.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        u64::from(self.held.abs_diff(before))
    }

    /// Counts them no more. Returns how many were.
    pub fn let_go(&mut self, bytes: usize) -> u64 {
        let before = self.held;
        self.held = self.held.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
        u64::from(before.abs_diff(self.held))
    }

    /// Open requests that have no reply yet.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.open_slots() - self.early.iter().flat_map(|early| early.iter().flatten()).count()
    }

    /// Whether a reply is there that waits for its turn.
    #[must_use]
    pub fn has_early(&self) -> bool {
        self.early.as_ref().is_some_and(|early| early.iter().any(Option::is_some))
    }

    /// The slots of those.
    pub fn unfilled(&self) -> impl Iterator<Item = u32> {
        let early = move |distance: u32| {
            let index = (distance as usize).checked_sub(1)?;
            self.early.as_ref()?.get(index)?.as_ref()
        };
        (0..self.open)
            .filter(move |&distance| early(distance).is_none())
            .map(|distance| self.head.wrapping_add(distance))
    }

    /// Keeps a reply whose turn has not come.
    pub fn keep(&mut self, slot: u32, reply: Vec<u8>, spare: &mut Spare) {
        let distance = slot.wrapping_sub(self.head);
        if distance == 0 || distance >= self.open {
            return;
        }
        let index = (distance as usize).saturating_sub(1);
        let early = self.early.get_or_insert_with(|| spare.places.pop().unwrap_or_default());
        if early.len() <= index {
            early.resize_with(index.saturating_add(1), || None);
        }
        if let Some(place) = early.get_mut(index) {
            let held = reply.len();
            *place = Some(reply);
            self.hold(held);
        }
    }

    /// Ends a slot without a reply, in a session that has ended itself.
    pub fn skip(&mut self, slot: u32, spare: &mut Spare) {
        if self.is_head(slot) {
            self.advance(spare);
        } else {
            self.keep(slot, Vec::new(), spare);
        }
    }

    /// Appends to the output.
    #[inline]
    pub fn append(&mut self, bytes: &[u8], spare: &mut Spare) {
        if self.output.capacity() == 0 {
            self.output = spare.take();
        }
        self.output.extend_from_slice(bytes);
    }

    /// Lets go of an output buffer that is all out, so that an idle session owns none; of one that never is, because the
    /// app reads slower than it asks, the part that has left.
    pub fn release(&mut self, spare: &mut Spare) {
        if self.sent() >= self.output.len() {
            self.sent = 0;
            if self.open == 0
                && let Some(places) = self.early.take()
            {
                spare.put_places(places);
            }
            let mut buffer = std::mem::take(&mut self.output);
            buffer.clear();
            spare.put(buffer);
        } else if self.sent() >= LARGEST_SPARE && self.sent() >= self.output.len() / 2 {
            self.output.drain(..self.sent());
            self.sent = 0;
        }
    }
}

/// Empty buffers to be used again, so that steady traffic allocates nothing.
#[derive(Debug, Default)]
pub struct Spare {
    buffers: Vec<Vec<u8>>,
    #[expect(clippy::vec_box, reason = "moved into sessions as they are")]
    places: Vec<Box<Early>>,
}

/// Most buffers kept, and the largest that is kept: 16 MiB in all, and 6 MiB of places.
const MOST_SPARE: usize = 256;
const LARGEST_SPARE: usize = 64 * 1024;
/// Most places for early replies that are kept of a session: those of a window as it is by default.
const MOST_PLACES: usize = 1024;

impl Spare {
    /// An empty buffer, with room where one was left.
    #[inline]
    pub fn take(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_default()
    }

    /// How many buffers are kept, and their capacity in bytes.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.buffers.len(), self.buffers.iter().map(Vec::capacity).sum())
    }

    fn put_places(&mut self, mut places: Box<Early>) {
        if places.capacity() <= MOST_PLACES && self.places.len() < MOST_SPARE {
            places.clear();
            self.places.push(places);
        }
    }

    /// Gives a buffer back.
    #[inline]
    pub fn put(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        if capacity > 0 && capacity <= LARGEST_SPARE && self.buffers.len() < MOST_SPARE {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_small() {
        assert!(size_of::<Session>() <= 104, "{}", size_of::<Session>());
    }

    fn fill(session: &mut Session, slot: u32, reply: &[u8], spare: &mut Spare) {
        if session.is_head(slot) {
            session.append(reply, spare);
            session.advance(spare);
        } else {
            session.keep(slot, reply.to_vec(), spare);
        }
    }

    #[test]
    fn replies_leave_in_the_order_of_requests() {
        let (mut session, mut spare) = (Session::new(0, 0, 0, 1, true), Spare::default());
        let slots: Vec<u32> = (0..4).map(|_| session.open()).collect();
        for i in [2, 1, 3, 0] {
            assert!(session.output.is_empty());
            fill(&mut session, slots[i], &[b'0' + i as u8], &mut spare);
        }
        assert_eq!(session.output, b"0123");
        assert_eq!((session.held, session.open_slots()), (0, 0));
    }

    #[test]
    fn numbers_wrap() {
        let (mut session, mut spare) = (Session::new(0, 0, 0, 1, true), Spare::default());
        session.head = u32::MAX;
        let (a, b) = (session.open(), session.open());
        assert_eq!((a, b), (u32::MAX, 0));
        fill(&mut session, b, b"b", &mut spare);
        fill(&mut session, a, b"a", &mut spare);
        assert_eq!(session.output, b"ab");
    }

    #[test]
    fn an_idle_session_owns_no_buffer() {
        let (mut session, mut spare) = (Session::new(0, 0, 0, 1, true), Spare::default());
        session.append(b"reply", &mut spare);
        session.took(5);
        session.release(&mut spare);
        assert_eq!(session.output.capacity(), 0);
        assert_eq!(spare.buffers.len(), 1);
    }

    #[test]
    fn what_has_left_is_let_go_though_the_app_never_catches_up() {
        let (mut session, mut spare) = (Session::new(0, 0, 0, 1, true), Spare::default());
        for _ in 0..100 {
            session.append(&[b'x'; 100_000], &mut spare);
            session.took(session.waiting() - 1);
            session.release(&mut spare);
            assert_eq!(session.waiting(), 1);
            assert!(session.output.len() <= 200_002, "{}", session.output.len());
        }
    }

    #[test]
    fn full_at_its_bounds_and_free_at_half() {
        let bounds = Bounds { open: 4, output: 1000 };
        let (mut session, mut spare) = (Session::new(0, 0, 0, 1, true), Spare::default());
        let slots: Vec<u32> = (0..4).map(|_| session.open()).collect();
        assert!(session.is_full(&bounds));
        fill(&mut session, slots[0], b"", &mut spare);
        assert!(!session.is_full(&bounds) && !session.has_room(&bounds));
        fill(&mut session, slots[1], b"", &mut spare);
        assert!(session.has_room(&bounds));
        session.append(&[0; 250], &mut spare);
        assert!(session.is_full(&bounds));
    }
}
