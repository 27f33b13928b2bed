//! What has to be done when certain replies come on a connection: a waiter has no room for the key that it is about.
//!
//! Most flights have no note; a reply costs one comparison to find out ([`Notes::is_due`]).

use crate::stages::Micros;
use crate::stages::hot::Place;
use crate::stages::lease::Life;
use std::collections::VecDeque;

/// What is noted of a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Note {
    /// It may change what is here; the fence is told when it is answered.
    Write(Place),
    /// It sets a key, by its hash, to something that is to be kept; and the number by which that is known.
    Put(u64, u64),
    /// It is a read of a hot key, by its hash, at its home.
    Read(u64),
    /// It is a read of another kind of a hot key.
    Look(u64),
    /// The same as `Read`, as so manieth element of an array.
    Element(u64, u32),
    /// Its reply is weighed for so many keys, of which this is one, by its hash.
    Weigh(u64, u16),
    /// It asks, as so manieth element or as a whole, for a key whose misses are counted in this budget.
    Count(u16, u32),
    /// It is a read at home of a key that has copies, sent at this time.
    Timed(Micros),
    /// It is a plain read of a key that has a lease, by its hash; when it was asked, and how long the key's name is.
    Miss(u64, u32, u16),
    /// It writes a key that has a lease, by its hash; and whether that leaves a value.
    Wrote(u64, bool),
    /// It says how long a key lives that may be loaded anew before it expires, by its hash.
    Lives(u64, Life),
    /// Within a transaction that is still open: it makes or deletes a key that is guarded, by its hash.
    Overtakes(u64),
    /// It may write any key.
    WroteAny,
    /// Equal reads may wait behind it, in this place.
    Shared(u32),
    /// It carries out a transaction that writes a key that has a lease, by its hash; and whether that leaves a value.
    Executed(u64, bool),
}

/// The notes of a connection, in the order of its flights; several may be of one.
#[derive(Debug)]
pub(in crate::engine) struct Notes {
    due: u64,
    notes: VecDeque<(u64, Note)>,
    /// The names of the keys of all that is [`Note::Miss`], in their order.
    names: VecDeque<u8>,
}

impl Default for Notes {
    fn default() -> Self {
        Self { due: u64::MAX, notes: VecDeque::new(), names: VecDeque::new() }
    }
}

impl Notes {
    /// Notes something of the flight with this number, which is not less than any before it.
    #[inline]
    pub(in crate::engine) fn push(&mut self, serial: u64, note: Note) {
        match self.notes.back() {
            None => self.due = serial,
            // What is weighed may be noted after a later flight was: then it is not.
            Some(&(last, _)) if last > serial => {
                return debug_assert!(matches!(note, Note::Weigh(..) | Note::Count(..)));
            }
            Some(_) => {}
        }
        self.notes.push_back((serial, note));
    }

    /// Notes that it is a plain read of a key that has a lease.
    pub(in crate::engine) fn push_miss(&mut self, serial: u64, hash: u64, at: u32, key: &[u8]) {
        if let Ok(length) = u16::try_from(key.len()) {
            self.names.extend(key);
            self.push(serial, Note::Miss(hash, at, length));
        }
    }

    /// Notes again what was noted of a flight that went elsewhere, with the name of its key if it is a [`Note::Miss`].
    pub(in crate::engine) fn put(&mut self, serial: u64, note: Note, name: &[u8]) {
        self.names.extend(name);
        self.push(serial, note);
    }

    /// The name of the key of a [`Note::Miss`] that [`Notes::next`] has returned: to be taken from each of them.
    pub(in crate::engine) fn take_name(&mut self, length: u16) -> std::collections::vec_deque::Drain<'_, u8> {
        let length = usize::from(length).min(self.names.len());
        self.names.drain(..length)
    }

    /// Whether something was noted of the flight with this number, those before it having been dealt with.
    #[inline]
    pub(in crate::engine) fn is_due(&self, serial: u64) -> bool {
        serial == self.due
    }

    /// The next thing that was noted of this flight or of one before it.
    pub(in crate::engine) fn next(&mut self, serial: u64) -> Option<Note> {
        let &(of, note) = self.notes.front().filter(|(of, _)| *of <= serial)?;
        let _ = of;
        self.notes.pop_front();
        self.due = self.notes.front().map_or(u64::MAX, |&(next, _)| next);
        if self.notes.is_empty() && self.notes.capacity() > 1024 {
            self.notes = VecDeque::new();
        }
        Some(note)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_come_back_with_their_flights() {
        let mut notes = Notes::default();
        assert!(!notes.is_due(0) && notes.next(u64::MAX - 1).is_none());
        notes.push(3, Note::Read(1));
        notes.push(3, Note::Read(2));
        notes.push(7, Note::Read(3));
        assert!(!notes.is_due(2) && notes.is_due(3));
        assert_eq!((notes.next(3), notes.next(3), notes.next(3)), (Some(Note::Read(1)), Some(Note::Read(2)), None));
        assert!(!notes.is_due(4) && notes.is_due(7));
        assert_eq!(notes.next(u64::MAX - 1), Some(Note::Read(3)));
        assert!(!notes.is_due(7));
    }
}
