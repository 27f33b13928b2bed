//! What an app's keys may hold, from what it was told.
//!
//! Promises: who is told `+OK` finds it again; who is told `nothing was sent` does not; who is told `the command may have run`,
//! or nothing, finds it or not, and at any later time, since a network may deliver it late, but once. A shard that was
//! restarted empty has a new generation: its keys may then be gone, since that is its own doing.

use std::collections::BTreeSet;

/// What was wrong, besides what is not Redis' protocol at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// Another request's reply, or one that no request of this app can have.
    Wrong,
    /// What was acknowledged is not there.
    Lost,
    /// What was asked once has been done more often.
    Twice,
    /// No reply within the deadline.
    Hung,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Done,
    MayHaveRun,
    Not,
}

/// A key that is only ever SET, to 1, 2, 3 ...
#[derive(Clone, Debug, Default)]
pub(crate) struct Register {
    /// The last number that was given away.
    pub(crate) last: u64,
    /// What it holds if nothing in `may` has come; 0 is nothing.
    known: u64,
    may: Vec<u64>,
    generation: u64,
}

impl Register {
    pub(crate) fn wrote(&mut self, number: u64, fate: Fate, generation: u64) {
        match fate {
            Fate::Done => (self.known, self.generation) = (number, generation),
            Fate::MayHaveRun => self.may.push(number),
            Fate::Not => {}
        }
    }

    /// Was read: asked in one generation of its shard, answered in another or the same.
    pub(crate) fn read(&mut self, number: u64, (asked, answered): (u64, u64)) -> Result<(), Fault> {
        let mut judged = Ok(());
        if number != self.known {
            if let Some(at) = self.may.iter().position(|&may| may == number) {
                self.may.remove(at);
            } else if number != 0 || self.generation == answered {
                judged = Err(if number > self.known { Fault::Wrong } else { Fault::Lost });
            }
        }
        // A fault is told once.
        (self.known, self.generation) = (number, asked);
        judged
    }
}

/// A key that is only ever INCRemented.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counter {
    known: u64,
    /// How often more it may have been, or may still be.
    may: u64,
    generation: u64,
}

impl Counter {
    /// An INCR was answered.
    pub(crate) fn counted(&mut self, value: u64, generations: (u64, u64)) -> Result<(), Fault> {
        self.is_at(value, 1, generations)
    }

    /// An INCR was not answered.
    pub(crate) fn missed(&mut self, fate: Fate) {
        self.may += u64::from(fate == Fate::MayHaveRun);
    }

    pub(crate) fn read(&mut self, value: u64, generations: (u64, u64)) -> Result<(), Fault> {
        self.is_at(value, 0, generations)
    }

    fn is_at(&mut self, value: u64, mine: u64, (asked, answered): (u64, u64)) -> Result<(), Fault> {
        let least = self.known + mine;
        let mut judged = Ok(());
        if (least..=least + self.may).contains(&value) {
            self.may -= value - least;
        } else if self.generation == answered || !(mine..=mine + self.may).contains(&value) {
            judged = Err(if value < least { Fault::Lost } else { Fault::Twice });
        }
        (self.known, self.generation) = (value, asked);
        judged
    }
}

/// A list that one connection pushes to and another pops from.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(crate) last: u64,
    /// Acknowledged and not popped yet, with the generation of the shard.
    there: Vec<(u64, u64)>,
    may: BTreeSet<u64>,
    popped: BTreeSet<u64>,
    /// Pops that may have taken an element along.
    missed: usize,
    /// Elements that were there and are not, though nobody was told of them.
    gone: usize,
}

impl Queue {
    pub(crate) fn pushed(&mut self, number: u64, fate: Fate, generation: u64) {
        // Its pop may be told before it is.
        if self.popped.contains(&number) {
            return;
        }
        match fate {
            Fate::Done => self.there.push((number, generation)),
            Fate::MayHaveRun => drop(self.may.insert(number)),
            Fate::Not => {}
        }
    }

    pub(crate) fn popped(&mut self, number: u64) -> Result<(), Fault> {
        if number == 0 || number > self.last {
            return Err(Fault::Wrong);
        }
        if !self.popped.insert(number) {
            return Err(Fault::Twice);
        }
        self.there.retain(|&(there, _)| there != number);
        self.may.remove(&number);
        Ok(())
    }

    /// A pop was not answered.
    pub(crate) fn missed(&mut self, fate: Fate) {
        self.missed += usize::from(fate == Fate::MayHaveRun);
    }

    /// It has been popped until it was empty.
    pub(crate) fn is_empty(&mut self, generation: u64) -> Result<(), Fault> {
        self.gone += self.there.drain(..).filter(|&(_, pushed)| pushed == generation).count();
        if self.gone > self.missed { Err(Fault::Lost) } else { Ok(()) }
    }
}

#[test]
fn a_register_knows_what_is_lost_and_what_is_late() {
    let mut one = Register::default();
    assert_eq!(one.read(0, (0, 0)), Ok(()));
    one.wrote(1, Fate::Done, 0);
    assert_eq!(one.clone().read(0, (0, 0)), Err(Fault::Lost));
    assert_eq!(one.clone().read(2, (0, 0)), Err(Fault::Wrong));
    one.wrote(2, Fate::MayHaveRun, 0);
    one.wrote(3, Fate::Not, 0);
    one.wrote(4, Fate::Done, 0);
    assert_eq!(one.read(4, (0, 0)), Ok(()));
    assert_eq!(one.clone().read(3, (0, 0)), Err(Fault::Lost), "it was not sent");
    assert_eq!(one.read(2, (0, 0)), Ok(()), "late");
    one.wrote(5, Fate::Done, 0);
    assert_eq!(one.clone().read(2, (0, 0)), Err(Fault::Lost), "a second time");
    assert_eq!(one.read(0, (0, 2)), Ok(()), "emptied");
    assert_eq!(one.read(5, (2, 2)), Err(Fault::Wrong), "nothing comes back");
}

#[test]
fn a_counter_knows_what_was_done_twice() {
    let mut one = Counter::default();
    assert_eq!(one.counted(1, (0, 0)), Ok(()));
    assert_eq!(one.clone().counted(3, (0, 0)), Err(Fault::Twice));
    one.missed(Fate::Not);
    assert_eq!(one.clone().counted(3, (0, 0)), Err(Fault::Twice));
    one.missed(Fate::MayHaveRun);
    assert_eq!(one.counted(3, (0, 0)), Ok(()));
    assert_eq!(one.clone().counted(5, (0, 0)), Err(Fault::Twice), "it came once");
    assert_eq!(one.clone().read(2, (0, 0)), Err(Fault::Lost));
    assert_eq!(one.read(0, (0, 1)), Ok(()));
    assert_eq!(one.counted(1, (2, 2)), Ok(()));
}

#[test]
fn a_queue_knows_who_took_what() {
    let mut one = Queue { last: 4, ..Queue::default() };
    one.pushed(1, Fate::Done, 0);
    one.pushed(2, Fate::Done, 0);
    one.pushed(3, Fate::MayHaveRun, 0);
    assert_eq!(one.popped(1), Ok(()));
    assert_eq!(one.popped(1), Err(Fault::Twice));
    assert_eq!(one.popped(5), Err(Fault::Wrong));
    one.missed(Fate::MayHaveRun);
    assert_eq!(one.is_empty(0), Ok(()), "one pop may have taken it");
    one.pushed(4, Fate::Done, 0);
    assert_eq!(one.is_empty(0), Err(Fault::Lost));
}
