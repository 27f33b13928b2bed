//! Whose answer counts, where sentinels do not all say the same.
//!
//! The majority of those that answer, and of equally many those with the newer epoch. An epoch is a number that grows with
//! each failover; sentinels take over what they hear with a higher one. One that was away, or cannot be reached by the others,
//! still has an old one: what more than half of all sentinels had confirmed once is never gone back from, however few are left
//! who know of it. Only where every one of them answers, and none has heard of that epoch, have they begun to count anew.
//!
//! Promises: one sentinel of three or more that lies changes nothing while two others answer, and no epoch that it makes up
//! keeps the truth out later. Does not promise anything where most of them lie.

use crate::units::Address;

/// What one sentinel says of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vote {
    /// The sentinel's own id, if it tells one.
    pub voter: Option<String>,
    /// Where it says that the primary is.
    pub address: Address,
    /// The epoch in which it became that.
    pub epoch: u64,
}

/// What is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Where the primary is.
    pub address: Address,
    /// Whether more than half of all sentinels say so, also counted those that do not answer.
    pub is_sure: bool,
    /// Whether all say so that answered.
    pub is_agreed: bool,
    /// The newest epoch in which anybody says so.
    pub epoch: u64,
    /// The epoch that votes must have from now on to be counted.
    pub floor: u64,
}

/// Decides between votes. `known` is the number of sentinels that watch over the name, those that did not answer too; `floor`
/// is what the last verdict said, 0 at first.
#[must_use]
pub fn judge(votes: &[Vote], known: usize, floor: u64) -> Option<Verdict> {
    let mut votes: Vec<&Vote> =
        votes.iter().enumerate().filter(|&(at, vote)| is_first(votes, at, vote)).map(|(_, v)| v).collect();
    let known = known.max(votes.len());
    let all = votes.len();
    let begun_anew = all == known && votes.iter().all(|vote| vote.epoch < floor);
    if !begun_anew {
        votes.retain(|vote| vote.epoch >= floor);
    }
    let count = |address: &Address| votes.iter().filter(|vote| vote.address == *address).count();
    // Of equal ones the first stays: where epochs are the same, too, nothing else tells them apart.
    let mut best: Option<(usize, u64, &Address)> = None;
    for vote in &votes {
        let this = (count(&vote.address), newest(&votes, &vote.address));
        if best.is_none_or(|(count, epoch, _)| this > (count, epoch)) {
            best = Some((this.0, this.1, &vote.address));
        }
    }
    let (count, epoch, address) = best?;
    let majority = (known / 2).saturating_add(1);
    let is_sure = count >= majority;
    let confirmed = if is_sure { confirmed(&votes, address, majority) } else { None };
    let floor = if begun_anew { confirmed.unwrap_or(floor) } else { confirmed.unwrap_or(0).max(floor) };
    Some(Verdict { address: address.clone(), is_sure, is_agreed: count == all, epoch, floor })
}

/// Whether no vote before it is the same sentinel's, saying the same: one that is configured by two names has one vote. Where
/// they differ one of them is not who it says it is.
fn is_first(votes: &[Vote], at: usize, vote: &Vote) -> bool {
    vote.voter.is_none() || !votes.iter().take(at).any(|other| other == vote)
}

/// The highest epoch in which anybody says that it is there.
fn newest(votes: &[&Vote], address: &Address) -> u64 {
    votes.iter().filter(|vote| vote.address == *address).map(|vote| vote.epoch).max().unwrap_or(0)
}

/// The highest epoch that so many of those who say so have reached: one of them alone may have made up a higher one.
fn confirmed(votes: &[&Vote], address: &Address, majority: usize) -> Option<u64> {
    let mut epochs: Vec<u64> = votes.iter().filter(|vote| vote.address == *address).map(|vote| vote.epoch).collect();
    epochs.sort_unstable_by(|a, b| b.cmp(a));
    epochs.get(majority.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Votes as (where, epoch), each of another sentinel.
    fn votes(all: &[(u16, u64)]) -> Vec<Vote> {
        let vote = |(n, &(port, epoch)): (usize, &(u16, u64))| Vote {
            voter: Some(format!("sentinel-{n}")),
            address: Address::Tcp { host: "10.0.0.1".into(), port },
            epoch,
        };
        all.iter().enumerate().map(vote).collect()
    }

    /// Where the primary is, whether that is sure, and the next floor.
    fn outcome(all: &[(u16, u64)], known: usize, floor: u64) -> Option<(u16, bool, u64)> {
        let verdict = judge(&votes(all), known, floor)?;
        let Address::Tcp { port, .. } = verdict.address else { panic!("{verdict:?}") };
        Some((port, verdict.is_sure, verdict.floor))
    }

    #[test]
    fn most_of_those_that_answer() {
        assert_eq!(outcome(&[(1, 5), (1, 5), (1, 5)], 3, 0), Some((1, true, 5)));
        assert_eq!(outcome(&[(1, 5), (2, 9), (1, 5)], 3, 0), Some((1, true, 5)));
        assert_eq!(outcome(&[(1, 5)], 3, 0), Some((1, false, 0)));
        assert_eq!(outcome(&[(1, 5)], 1, 0), Some((1, true, 5)));
        assert_eq!(outcome(&[], 3, 0), None);
        assert!(judge(&votes(&[(1, 5), (1, 4)]), 3, 0).unwrap().is_agreed);
        assert!(!judge(&votes(&[(1, 5), (1, 5), (2, 5)]), 3, 0).unwrap().is_agreed);
    }

    #[test]
    fn of_equally_many_the_newer_epoch() {
        assert_eq!(outcome(&[(1, 5), (2, 6)], 3, 0), Some((2, false, 0)));
        assert_eq!(outcome(&[(2, 6), (1, 5)], 3, 0), Some((2, false, 0)));
        assert_eq!(outcome(&[(1, 5), (2, 5)], 2, 0), Some((1, false, 0)));
        assert_eq!(outcome(&[(1, 5), (2, 6), (2, 6), (1, 5)], 4, 0), Some((2, false, 0)));
    }

    #[test]
    fn those_that_know_of_an_older_epoch_do_not_win_later() {
        // Two of three knew of it; the third is all that is left.
        let (_, _, floor) = outcome(&[(2, 6), (2, 6), (1, 5)], 3, 5).unwrap();
        assert_eq!(floor, 6);
        assert_eq!(outcome(&[(1, 5)], 3, floor), None);
        // Nor do two of them, nor beside one that knows.
        assert_eq!(outcome(&[(1, 5), (1, 5)], 3, floor), None);
        assert_eq!(outcome(&[(1, 5), (2, 6), (1, 5)], 3, floor), Some((2, false, 6)));
    }

    #[test]
    fn an_epoch_that_one_makes_up_keeps_nobody_out() {
        // It says the same as the others: the floor is what they confirm.
        assert_eq!(outcome(&[(1, 5), (1, u64::MAX), (1, 5)], 3, 0), Some((1, true, 5)));
        // It is all that is left, and then the others are back.
        let (port, is_sure, floor) = outcome(&[(9, u64::MAX)], 3, 5).unwrap();
        assert_eq!((port, is_sure, floor), (9, false, 5));
        assert_eq!(outcome(&[(1, 5), (9, u64::MAX), (1, 5)], 3, floor), Some((1, true, 5)));
    }

    #[test]
    fn they_may_count_anew() {
        assert_eq!(outcome(&[(1, 0), (1, 0), (1, 0)], 3, 7), Some((1, true, 0)));
        assert_eq!(outcome(&[(1, 0), (1, 0)], 3, 7), None);
        assert_eq!(outcome(&[(1, 0), (1, 0), (2, 7)], 3, 7), Some((2, false, 7)));
    }

    #[test]
    fn a_sentinel_by_two_names_has_one_vote() {
        let mut all = votes(&[(1, 5), (1, 5), (2, 6)]);
        all[1].voter = all[0].voter.clone();
        let verdict = judge(&all, 2, 0).unwrap();
        assert_eq!(verdict.address, all[2].address);
        // Those that tell no id are taken for different ones.
        (all[0].voter, all[1].voter) = (None, None);
        assert_eq!(judge(&all, 3, 0).unwrap().address, all[0].address);
        // Whoever takes another's id does not take its vote.
        let mut all = votes(&[(9, 8), (1, 5), (1, 5)]);
        all[0].voter = all[1].voter.clone();
        assert_eq!(judge(&all, 3, 0).unwrap().address, all[1].address);
    }

    /// However a minority votes, what the others agree on is believed.
    #[test]
    fn a_minority_changes_nothing() {
        for known in 3..8 {
            let liars = (known - 1) / 2;
            for (place, epoch) in [(2, 0), (2, 5), (2, 6), (3, u64::MAX)] {
                let mut all: Vec<(u16, u64)> = vec![(place, epoch); liars];
                all.resize(known, (1, 5));
                assert_eq!(outcome(&all, known, 5), Some((1, true, 5)), "{known} {all:?}");
                all.reverse();
                assert_eq!(outcome(&all, known, 5), Some((1, true, 5)), "{known} {all:?}");
            }
        }
    }
}
