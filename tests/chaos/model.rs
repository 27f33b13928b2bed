//! What an app's keys may hold, from what it was told.
//!
//! Promises: who is told `+OK` finds it again; who is told `nothing was sent` does not; who is told `the command may have run`,
//! or nothing, finds it or not, and at any later time, since a network may deliver it late, but once. A shard that was
//! restarted empty has a new generation: its keys may then be gone, since that is its own doing.
//!
//! A shard whose primary fails is in *doubt* from then on until its replica has taken over: Redis may undo what it acknowledges
//! meanwhile, and promises the rest. So a key that was written or read in such a spell may be found as it was at any moment
//! of it, until it is asked for after it; from then on nothing of that is forgiven any more.

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
    /// What it held at moments of a spell of doubt, and may hold again.
    doubtful: Vec<u64>,
    /// How often it did.
    pub(crate) undone: u64,
}

impl Register {
    /// What is told next was asked or is answered in a spell of doubt, or was not.
    pub(crate) fn doubt(&mut self, is_in_doubt: bool) {
        if is_in_doubt && !self.doubtful.contains(&self.known) {
            self.doubtful.push(self.known);
        }
    }

    /// What was told was told of after a spell of doubt, or was not: it is over.
    pub(crate) fn settle(&mut self, is_in_doubt: bool) {
        if !is_in_doubt {
            self.doubtful.clear();
        }
    }

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
            } else if self.doubtful.contains(&number) {
                self.undone += 1;
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
    /// The least and the most that it was known to be at in a spell of doubt.
    doubtful: Option<(u64, u64)>,
    pub(crate) undone: u64,
}

impl Counter {
    /// As a register's.
    pub(crate) fn doubt(&mut self, is_in_doubt: bool) {
        if is_in_doubt {
            let (least, most) = self.doubtful.unwrap_or((self.known, self.known));
            self.doubtful = Some((least.min(self.known), most.max(self.known)));
        }
    }

    /// As a register's.
    pub(crate) fn settle(&mut self, is_in_doubt: bool) {
        if !is_in_doubt {
            self.doubtful = None;
        }
    }

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
        } else if self.doubtful.is_some_and(|(least, most)| (least + mine..=most + mine + self.may).contains(&value)) {
            self.undone += 1;
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
    /// Pops that may be undone: their elements may be popped once more.
    doubtful: BTreeSet<u64>,
    pub(crate) undone: u64,
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
            if !self.doubtful.remove(&number) {
                return Err(Fault::Twice);
            }
            self.undone += 1;
        }
        self.there.retain(|&(there, _)| there != number);
        self.may.remove(&number);
        Ok(())
    }

    /// An element was popped in a spell of doubt.
    pub(crate) fn popped_in_doubt(&mut self, number: u64) -> Result<(), Fault> {
        let judged = self.popped(number);
        self.doubtful.insert(number);
        judged
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

#[test]
fn what_was_in_doubt_may_be_undone_and_no_more() {
    let mut one = Register::default();
    for number in 1..=3 {
        one.doubt(number > 1);
        one.wrote(number, Fate::Done, 0);
    }
    assert_eq!(one.clone().read(2, (0, 0)), Ok(()));
    one.doubt(true);
    assert_eq!(one.read(1, (0, 0)), Ok(()), "it was so before");
    one.settle(true);
    assert_eq!(one.clone().read(0, (0, 0)), Err(Fault::Lost), "that was acknowledged earlier");
    assert_eq!((one.read(1, (0, 0)), one.undone), (Ok(()), 1));
    one.settle(false);
    assert_eq!(one.read(3, (0, 0)), Err(Fault::Wrong), "it is over");
    let mut one = Counter::default();
    for count in 1..=5 {
        one.doubt(count > 2);
        assert_eq!(one.counted(count, (0, 0)), Ok(()));
    }
    assert_eq!(one.clone().read(1, (0, 0)), Err(Fault::Lost));
    assert_eq!(one.clone().counted(7, (0, 0)), Err(Fault::Twice));
    assert_eq!(one.read(2, (0, 0)), Ok(()));
    one.settle(false);
    assert_eq!(one.counted(4, (0, 0)), Err(Fault::Twice));
    let mut one = Queue { last: 2, ..Queue::default() };
    one.pushed(1, Fate::Done, 0);
    assert_eq!(one.popped_in_doubt(1), Ok(()));
    assert_eq!(one.popped(1), Ok(()));
    assert_eq!(one.popped(1), Err(Fault::Twice));
}
