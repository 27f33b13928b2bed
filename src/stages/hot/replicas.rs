//! Which replicas of a shard may be read from: those that are known to have what the reader must see.
//!
//! A replica carries out what its shard has written, in the same order, and both tell how far they are (`INFO replication`):
//! `master_replid` names the history, `master_repl_offset` how much of it the shard has written, `slave_repl_offset` how much
//! the replica has carried out. While a key of the shard is read from replicas, the shard is asked some times within
//! `max_staleness`, and its replicas as soon as it has answered. A replica that has carried out all that the shard had written
//! when it answered has everything from before the shard was asked: that moment is the replica's *proof*. One that lags is
//! compared with what the shard has told before.
//!
//! Promises: what a replica is read for is not older than `max_staleness`, whatever becomes of the shard, the replica and
//! the link between them, since nothing renews a proof but the replica's progress; and all that was written through this
//! process and answered before is in it, since the proof is younger ([`super::Fence::is_quiet`]). That a replica says that
//! its link is up, that it does not load and follows the same history, is asked for besides.
//! Does not promise that of two reads the later one sees the newer value, if different servers answer them.
//!
//! Also knows how far away each of them is: by how long it took to answer these questions, which are the same for all.

use super::Fence;
use super::reading::Zone;
use crate::stages::Micros;
use std::collections::VecDeque;

/// Most replicas of a shard.
pub const MOST: usize = 16;
/// What a shard has told is remembered so many times.
const POINTS: usize = 8;
/// How often a shard is asked within `max_staleness`.
const ASKED: u64 = 4;
/// The longest time between two questions.
const LONGEST: Micros = 2_000_000;
/// How long a replica is left out that has failed, at least.
const LEFT_OUT: Micros = 1_000_000;
/// How long nothing is held against a shard's replicas that have not been heard of yet.
const GRACE: Micros = 3_000_000;
/// The weight of a new answer's time in the mean.
const NEWEST: f32 = 0.25;
/// Another server is the nearest one only if it is nearer by this factor and by so many microseconds.
const NEARER: f32 = 1.25;
const NEARER_BY: f32 = 50.0;
/// No shard.
const NONE: u16 = u16::MAX;

/// Names a history: 40 hexadecimal digits.
type History = [u8; 40];

/// How far a server is in a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reached {
    history: History,
    offset: u64,
}

/// What a server says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    follows: bool,
    linked: bool,
    syncing: bool,
    history: Option<History>,
    written: Option<u64>,
    done: Option<u64>,
}

impl Told {
    /// From the reply to INFO replication; what is not there is not known.
    fn of(reply: &[u8]) -> Self {
        let mut told = Self::default();
        if !matches!(reply.first(), Some(b'$' | b'=')) {
            return told;
        }
        for line in reply.split(|&byte| byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
            let (name, value) = line.split_at(colon);
            let value = value.get(1..).unwrap_or_default();
            let number = || std::str::from_utf8(value).ok()?.parse().ok();
            match name {
                b"role" => told.follows = value == b"slave",
                b"master_link_status" => told.linked = value == b"up",
                b"master_sync_in_progress" => told.syncing = value != b"0",
                b"master_replid" => told.history = value.try_into().ok(),
                b"master_repl_offset" => told.written = number(),
                b"slave_repl_offset" => told.done = number(),
                _ => {}
            }
        }
        told
    }

    /// How much the server has written, or has told others to.
    fn wrote(&self) -> Option<Reached> {
        Some(Reached { history: self.history?, offset: self.written?.max(self.done.unwrap_or(0)) })
    }

    /// How much a replica has carried out; nothing of one that does not follow.
    fn carried_out(&self) -> Option<Reached> {
        let follows = self.follows && self.linked && !self.syncing;
        follows.then_some(Reached { history: self.history?, offset: self.done? })
    }
}

#[derive(Clone, Debug)]
struct Replica {
    shard: u16,
    proof: Option<Micros>,
    /// It is not asked nor read from until then.
    out_until: Micros,
    asked: bool,
}

/// A shard that has replicas.
#[derive(Clone, Debug)]
struct Followed {
    shard: u16,
    /// What it had written, and when it was asked; the oldest first.
    points: VecDeque<(Reached, Micros)>,
    asked: bool,
    due: Micros,
    /// Keys of it are read from replicas.
    wanted: bool,
    /// That its replicas are not known to be up to date is held against them from then on; nothing before it was first asked.
    due_by: Option<Micros>,
    /// Which of them has its turn.
    turn: u32,
    /// Which of them is the nearest.
    nearest: Option<u16>,
    replicas: Vec<Replica>,
}

impl Followed {
    /// The newest time from which everything is in what was reached.
    fn proof(&self, reached: Reached) -> Option<Micros> {
        let has = |(point, _): &&(Reached, Micros)| point.history == reached.history && point.offset <= reached.offset;
        self.points.iter().rev().find(has).map(|&(_, asked)| asked)
    }

    fn forget(&mut self) {
        self.points.clear();
        self.replicas.iter_mut().for_each(|replica| replica.proof = None);
    }

    /// The shard's number and its replicas'.
    fn all(&self) -> impl Iterator<Item = u16> {
        std::iter::once(self.shard).chain(self.replicas.iter().map(|replica| replica.shard))
    }
}

/// What is known of a server by its number.
#[derive(Clone, Debug)]
struct Known {
    /// The shard it follows, or that it is.
    home: u16,
    /// Whether it follows.
    follows: bool,
    /// How long it takes to answer, in microseconds.
    distance: Option<f32>,
    zone: Zone,
}

impl Default for Known {
    fn default() -> Self {
        Self { home: NONE, follows: false, distance: None, zone: Zone::Unknown }
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Replicas {
    followed: Vec<Followed>,
    /// By the servers' numbers.
    known: Vec<Known>,
    staleness: Micros,
}

impl Replicas {
    /// Of these replicas, each with the shard it follows. `staleness` is how old an answer may be.
    #[must_use]
    pub fn new(pairs: &[(u16, u16)], staleness: Micros) -> Self {
        let mut followed: Vec<Followed> = Vec::new();
        for &(shard, of) in pairs {
            let replica = Replica { shard, proof: None, out_until: 0, asked: false };
            match followed.iter_mut().find(|followed| followed.shard == of) {
                Some(followed) if followed.replicas.len() < MOST => followed.replicas.push(replica),
                Some(_) => {}
                None => followed.push(Followed {
                    shard: of,
                    points: VecDeque::new(),
                    asked: false,
                    due: 0,
                    wanted: false,
                    due_by: None,
                    turn: 0,
                    nearest: None,
                    replicas: vec![replica],
                }),
            }
        }
        let numbers = pairs.iter().flat_map(|&(shard, of)| [shard, of]).max();
        let mut known = vec![Known::default(); numbers.map_or(0, |last| usize::from(last).saturating_add(1))];
        for followed in &followed {
            for number in followed.all() {
                if let Some(known) = known.get_mut(usize::from(number)) {
                    (known.home, known.follows) = (followed.shard, number != followed.shard);
                }
            }
        }
        Self { followed, known, staleness }
    }

    /// Takes over what is known of those that are what they were before.
    pub fn inherit(&mut self, before: Self) {
        for followed in &mut self.followed {
            let Some(old) = before.followed.iter().find(|old| old.shard == followed.shard) else { continue };
            for replica in &mut followed.replicas {
                if let Some(old) = old.replicas.iter().find(|old| old.shard == replica.shard) {
                    replica.clone_from(old);
                }
            }
            followed.points.clone_from(&old.points);
            (followed.asked, followed.due, followed.due_by) = (old.asked, old.due, old.due_by);
            followed.nearest = old.nearest.filter(|&nearest| followed.all().any(|number| number == nearest));
        }
        for (known, old) in self.known.iter_mut().zip(before.known) {
            if known.home == old.home {
                known.distance = old.distance;
            }
        }
    }

    /// Whether there are any.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.followed.is_empty()
    }

    /// Whether a shard has replicas.
    #[must_use]
    pub fn has(&self, shard: u16) -> bool {
        self.of(shard).is_some()
    }

    fn of(&self, shard: u16) -> Option<&Followed> {
        self.followed.iter().find(|followed| followed.shard == shard)
    }

    /// The shard that a replica follows.
    #[must_use]
    pub fn home_of(&self, replica: u16) -> Option<u16> {
        self.known.get(usize::from(replica)).filter(|known| known.follows).map(|known| known.home)
    }

    /// The numbers of a shard's replicas.
    pub fn replicas_of(&self, shard: u16) -> impl Iterator<Item = u16> {
        self.of(shard).into_iter().flat_map(|followed| &followed.replicas).map(|replica| replica.shard)
    }

    /// Time between two questions.
    fn interval(&self) -> Micros {
        (self.staleness / ASKED).min(LONGEST)
    }

    /// The next shard that is to be asked, of those whose keys are read from replicas; it counts as asked then.
    pub fn next_due(&mut self, is_wanted: impl Fn(u16) -> bool, now: Micros) -> Option<u16> {
        let interval = self.interval();
        for followed in &mut self.followed {
            let before = std::mem::replace(&mut followed.wanted, is_wanted(followed.shard));
            if before && !followed.wanted {
                followed.forget();
            }
            if followed.wanted && !followed.asked && now >= followed.due {
                (followed.asked, followed.due) = (true, now.saturating_add(interval));
                followed.due_by.get_or_insert(now.saturating_add(GRACE));
                return Some(followed.shard);
            }
        }
        None
    }

    /// Whether a replica is to be asked now; it counts as asked then.
    pub fn asks(&mut self, replica: u16, now: Micros) -> bool {
        let replicas = self.followed.iter_mut().flat_map(|followed| &mut followed.replicas);
        let mut free = replicas.filter(|other| other.shard == replica && !other.asked && now >= other.out_until);
        free.next().is_some_and(|replica| !std::mem::replace(&mut replica.asked, true))
    }

    /// A server was asked at this time and has answered; nothing where it was not asked after all. Returns whether its replicas
    /// are to be asked.
    pub fn told(&mut self, shard: u16, asked: Micros, reply: Option<&[u8]>) -> bool {
        let told = reply.map(Told::of);
        for followed in &mut self.followed {
            if followed.shard == shard {
                followed.asked = false;
                let Some(reached) = told.and_then(|told| told.wrote()) else { return false };
                if followed.points.len() >= POINTS {
                    followed.points.pop_front();
                }
                followed.points.push_back((reached, asked));
                return true;
            }
            let reached = told.and_then(|told| told.carried_out());
            let proof = reached.and_then(|reached| followed.proof(reached));
            if let Some(replica) = followed.replicas.iter_mut().find(|replica| replica.shard == shard) {
                replica.asked = false;
                // What was on its way when it was left out tells nothing. One that lags has what it had.
                replica.proof = match reached {
                    Some(_) if asked >= replica.out_until => replica.proof.max(proof),
                    _ => None,
                };
                return false;
            }
        }
        false
    }

    /// There is a new connection to a server, which may be another process now: it is given time to tell how far it is.
    pub fn meet(&mut self, shard: u16, now: Micros) {
        self.forget(shard);
        if let Some(known) = self.known.get_mut(usize::from(shard)) {
            known.zone.ask_again();
            let home = known.home;
            let followed = self.followed.iter_mut().find(|followed| followed.shard == home);
            if let Some(due_by) = followed.and_then(|followed| followed.due_by.as_mut()) {
                *due_by = now.saturating_add(GRACE).max(*due_by);
            }
        }
    }

    /// A connection to a server was lost, or there is a new one: it may be another process now, which has something else.
    pub fn forget(&mut self, shard: u16) {
        for followed in &mut self.followed {
            if followed.shard == shard {
                followed.forget();
            }
            for replica in followed.replicas.iter_mut().filter(|replica| replica.shard == shard) {
                replica.proof = None;
            }
        }
    }

    /// A replica does not serve: it is left out for a while.
    pub fn leave_out(&mut self, shard: u16, now: Micros) {
        self.forget(shard);
        let span = LEFT_OUT.max(self.interval().saturating_mul(2));
        let replicas = self.followed.iter_mut().flat_map(|followed| &mut followed.replicas);
        replicas
            .filter(|replica| replica.shard == shard)
            .for_each(|replica| replica.out_until = now.saturating_add(span));
    }

    /// The shard of a key and those of its replicas that may be read from, at the front of `found`, where an answer may be as
    /// old as `staleness`. Returns how many.
    #[must_use]
    pub fn usable(
        &self,
        (hash, shard): (u64, u16),
        staleness: Micros,
        fence: &Fence,
        now: Micros,
        found: &mut [u16; MOST + 1],
    ) -> usize {
        let mut count = 0;
        let mut add = |shard| {
            if let Some(place) = found.get_mut(count) {
                *place = shard;
                count = count.saturating_add(1);
            }
        };
        add(shard);
        for replica in self.of(shard).iter().flat_map(|followed| &followed.replicas) {
            let Some(proof) = replica.proof else { continue };
            let age = now.saturating_sub(proof);
            if age <= staleness && now >= replica.out_until && fence.is_quiet(hash, shard, age, now) {
                add(replica.shard);
            }
        }
        count
    }

    /// Whether nobody can be read from but the shard itself, and that is not so for want of time to ask: no replica is known to
    /// have what its shard had `staleness` ago.
    #[must_use]
    pub fn are_unfit(&self, shard: u16, staleness: Micros, now: Micros) -> bool {
        let Some(followed) = self.of(shard) else { return true };
        let fit = |replica: &Replica| {
            replica.proof.is_some_and(|proof| now.saturating_sub(proof) <= staleness) && now >= replica.out_until
        };
        followed.due_by.is_some_and(|due_by| now >= due_by) && !followed.replicas.iter().any(fit)
    }

    /// Which of a shard and its replicas has its turn; counts up with [`Replicas::took_turn`].
    #[must_use]
    pub fn turn(&self, shard: u16) -> u32 {
        self.of(shard).map_or(0, |followed| followed.turn)
    }

    /// A read was sent to a shard or one of its replicas.
    pub fn took_turn(&mut self, shard: u16) {
        let followed = self.followed.iter_mut().find(|followed| followed.shard == shard);
        followed.into_iter().for_each(|followed| followed.turn = followed.turn.wrapping_add(1));
    }

    /// A server has answered after so many microseconds.
    pub fn measured(&mut self, shard: u16, took: Micros) {
        let Some(known) = self.known.get_mut(usize::from(shard)) else { return };
        let took = took as f32;
        known.distance = Some(known.distance.map_or(took, |mean| (took - mean).mul_add(NEWEST, mean)));
        let home = known.home;
        let Some(followed) = self.followed.iter_mut().find(|followed| followed.shard == home) else { return };
        let distance = |number: u16| self.known.get(usize::from(number)).and_then(|known| known.distance);
        let all = followed.all().filter_map(|number| Some((number, distance(number)?)));
        let Some((nearest, least)) = all.min_by(|one, other| one.1.total_cmp(&other.1)) else { return };
        let is_as_near = |of: f32| of <= least * NEARER || of <= least + NEARER_BY;
        if !followed.nearest.and_then(distance).is_some_and(is_as_near) {
            followed.nearest = Some(nearest);
        }
    }

    /// The nearest of these servers of a shard: the one that is it all the time, if it is among them.
    #[must_use]
    pub fn nearest(&self, shard: u16, found: &[u16]) -> Option<u16> {
        let usual = self.of(shard).and_then(|followed| followed.nearest);
        let distance = |number: u16| {
            let known = self.known.get(usize::from(number)).and_then(|known| known.distance);
            known.unwrap_or(f32::INFINITY)
        };
        let least = || found.iter().copied().min_by(|&one, &other| distance(one).total_cmp(&distance(other)));
        usual.filter(|usual| found.contains(usual)).or_else(least)
    }

    /// Says in which zone a server is, as the configuration says.
    pub fn set_zone(&mut self, shard: u16, is_ours: bool) {
        if let Some(known) = self.known.get_mut(usize::from(shard)) {
            known.zone = Zone::Given(is_ours);
        }
    }

    /// Whether a server is to be asked for its zone; it counts as asked then.
    pub fn asks_zone(&mut self, shard: u16) -> bool {
        self.known.get_mut(usize::from(shard)).is_some_and(|known| known.zone.asks())
    }

    /// A server has told its zone, or that it knows none.
    pub fn told_zone(&mut self, shard: u16, is_ours: bool) {
        if let Some(known) = self.known.get_mut(usize::from(shard)) {
            known.zone.told(is_ours);
        }
    }

    /// Whether a server is known to be in this process' zone.
    #[must_use]
    pub fn is_in_zone(&self, shard: u16) -> bool {
        self.known.get(usize::from(shard)).is_some_and(|known| known.zone.is_ours())
    }

    /// Replicas that reads are not sent to though there are such reads: they are not known to be up to date.
    #[must_use]
    pub fn behind(&self, now: Micros) -> usize {
        let wanted = self.followed.iter().filter(|followed| followed.wanted);
        let known = |replica: &&Replica| {
            replica.proof.is_some_and(|proof| now.saturating_sub(proof) <= self.staleness) && now >= replica.out_until
        };
        wanted.flat_map(|followed| &followed.replicas).filter(|replica| !known(replica)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Place;
    use super::*;

    const HASH: u64 = 0xabcd << 48;
    const MS: Micros = 1000;
    const A: char = 'a';

    fn info(text: &str) -> Vec<u8> {
        format!("${}\r\n{text}\r\n", text.len()).into_bytes()
    }

    fn primary(history: char, offset: u64) -> Vec<u8> {
        let id = history.to_string().repeat(40);
        info(&format!(
            "# Replication\r\nrole:master\r\nconnected_slaves:1\r\nmaster_replid:{id}\r\nmaster_repl_offset:{offset}\r\n"
        ))
    }

    fn replica(history: char, offset: u64, link: &str, syncing: u8) -> Vec<u8> {
        let id = history.to_string().repeat(40);
        info(&format!(
            "role:slave\r\nmaster_link_status:{link}\r\nmaster_last_io_seconds_ago:9\r\nmaster_sync_in_progress:{syncing}\r\n\
             slave_repl_offset:{offset}\r\nmaster_replid:{id}\r\nmaster_repl_offset:{offset}\r\n"
        ))
    }

    fn usable(replicas: &Replicas, fence: &Fence, now: Micros) -> Vec<u16> {
        let mut found = [0; MOST + 1];
        let count = replicas.usable((HASH, 0), 1000 * MS, fence, now, &mut found);
        found[..count].to_vec()
    }

    /// Shard 0 with the replicas 4 and 5, all of which were asked at `at` and are as far as each other.
    fn proven(at: Micros) -> Replicas {
        let mut replicas = Replicas::new(&[(4, 0), (5, 0), (6, 1)], 1000 * MS);
        assert!(replicas.told(0, at, Some(&primary(A, 100))));
        for shard in [4, 5] {
            assert!(!replicas.told(shard, at + 1, Some(&replica(A, 100, "up", 0))));
        }
        replicas
    }

    #[test]
    fn nobody_is_read_from_before_it_is_known_and_for_longer_than_that_is_true() {
        let fence = Fence::default();
        assert_eq!(usable(&Replicas::new(&[(4, 0)], 1000 * MS), &fence, 0), [0]);
        let replicas = proven(10 * MS);
        assert_eq!(usable(&replicas, &fence, 1010 * MS), [0, 4, 5]);
        assert_eq!(usable(&replicas, &fence, 1010 * MS + 1), [0]);
    }

    #[test]
    fn what_is_behind_has_the_proof_of_an_earlier_point() {
        let (mut replicas, fence) = (Replicas::new(&[(4, 0)], 1000 * MS), Fence::default());
        for (at, offset) in [(0, 100), (250, 200), (500, 300)] {
            replicas.told(0, at * MS, Some(&primary(A, offset)));
            replicas.told(4, at * MS + 10, Some(&replica(A, offset - 50, "up", 0)));
        }
        // It had all of 200 at the last look.
        assert_eq!(usable(&replicas, &fence, 1250 * MS), [0, 4]);
        assert_eq!(usable(&replicas, &fence, 1250 * MS + 1), [0]);
        // It has caught up with what is known already.
        replicas.told(4, 1251 * MS, Some(&replica(A, 300, "up", 0)));
        assert_eq!(usable(&replicas, &fence, 1500 * MS), [0, 4]);
    }

    #[test]
    fn whoever_does_not_follow_well_is_left_out_at_once() {
        let fence = Fence::default();
        let wrong = [
            replica('b', 900, "up", 0),
            replica(A, 900, "down", 0),
            replica(A, 900, "up", 1),
            primary(A, 900),
            b"-LOADING Redis is loading the dataset in memory\r\n".to_vec(),
            info("role:slave\r\nmaster_link_status:up\r\n"),
            b"$-1\r\n".to_vec(),
        ];
        for reply in wrong {
            let mut replicas = proven(0);
            replicas.told(4, 2, Some(&reply));
            let text = String::from_utf8_lossy(&reply).into_owned();
            // Of another history it may be a moment later: what is proven stays proven, and runs out.
            let told = if text.contains("bbbb") { vec![0, 4, 5] } else { vec![0, 5] };
            assert_eq!(usable(&replicas, &fence, 3), told, "{text}");
            replicas.told(0, 300 * MS, Some(&primary(A, 900)));
            replicas.told(4, 301 * MS, Some(&reply));
            replicas.told(5, 301 * MS, Some(&replica(A, 900, "up", 0)));
            assert_eq!(usable(&replicas, &fence, 1100 * MS), [0, 5], "{text}");
        }
    }

    #[test]
    fn a_replica_is_read_from_only_if_it_has_what_was_written_here() {
        let (mut replicas, fence) = (proven(100 * MS), Fence::default());
        fence.begin(Place::of_key(HASH));
        assert_eq!(usable(&replicas, &fence, 110 * MS), [0], "on its way");
        fence.end(Place::of_key(HASH), 120 * MS);
        assert_eq!(usable(&replicas, &fence, 900 * MS), [0], "the proof is older than its answer");
        replicas.told(0, 350 * MS, Some(&primary(A, 150)));
        replicas.told(5, 351 * MS, Some(&replica(A, 149, "up", 0)));
        replicas.told(4, 351 * MS, Some(&replica(A, 150, "up", 0)));
        assert_eq!(usable(&replicas, &fence, 352 * MS), [0, 4]);
    }

    #[test]
    fn a_new_connection_or_a_failure_ends_what_was_known() {
        let fence = Fence::default();
        let mut replicas = proven(0);
        replicas.forget(4);
        assert_eq!(usable(&replicas, &fence, 1), [0, 5]);
        replicas.forget(0);
        assert_eq!(usable(&replicas, &fence, 1), [0]);
        let mut replicas = proven(0);
        assert!(replicas.asks(5, 0) && !replicas.asks(5, 0), "once at a time");
        replicas.leave_out(5, 10 * MS);
        replicas.told(5, 5 * MS, Some(&replica(A, 100, "up", 0)));
        assert!(!replicas.asks(5, 1000 * MS), "not for a while");
        assert_eq!(usable(&replicas, &fence, 20 * MS), [0, 4]);
        assert!(replicas.asks(5, 1010 * MS));
        replicas.told(0, 1010 * MS, Some(&primary(A, 100)));
        assert_eq!(usable(&replicas, &fence, 1010 * MS), [0], "nobody has told since");
        replicas.told(5, 1011 * MS, Some(&replica(A, 100, "up", 0)));
        assert_eq!(usable(&replicas, &fence, 1012 * MS), [0, 5]);
    }

    #[test]
    fn only_who_is_needed_is_asked_and_not_too_often() {
        let mut replicas = Replicas::new(&[(4, 0), (6, 1)], 1000 * MS);
        assert_eq!(replicas.next_due(|_| false, 0), None);
        assert_eq!(replicas.next_due(|shard| shard == 1, 0), Some(1));
        assert_eq!(replicas.next_due(|shard| shard == 1, 900 * MS), None, "it has not answered");
        assert!(!replicas.told(1, 0, None));
        assert_eq!(replicas.next_due(|shard| shard == 1, 900 * MS), Some(1));
        assert!(replicas.told(1, 900 * MS, Some(&primary(A, 1))));
        assert_eq!(replicas.next_due(|_| true, 901 * MS), Some(0));
        assert_eq!(replicas.next_due(|_| true, 901 * MS), None);
        assert_eq!(replicas.behind(901 * MS), 2);
        assert_eq!(replicas.replicas_of(1).collect::<Vec<_>>(), [6]);
    }
}
