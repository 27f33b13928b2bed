//! The tracked connections: one for each shard whose keys are kept here or copied, on which the shard tells of every change of
//! what was read there (`CLIENT TRACKING ON OPTIN`, Redis 6 and later).
//!
//! A server that does not track, or does not let this user, is told of once; its keys are then kept for `max_staleness` at
//! most from when they were read, and no longer.

#![expect(clippy::arithmetic_side_effects, reason = "counters of 64 bits")]

use super::{Errand, State};
use crate::chance::splitmix;
use crate::command;
use crate::engine::line::{Dialect, Line, Owner, Ticket};
use crate::engine::port::Port;
use crate::engine::{Engine, LineId, SessionId, misses};
use crate::resp::reply::{Elements, bulk};
use crate::resp::write;
use crate::stages::hot::{Hot, Tracking, Value};
use crate::stages::{Leg, Micros};

/// How long, in microseconds, what a shard has told of the number of its clients is good for, to twice that.
const CENSUS: Micros = 10_000_000;

/// A shard's tracked connection.
#[derive(Debug)]
pub(in crate::engine) struct Tracker {
    line: LineId,
    /// A sign of life is awaited.
    pinged: bool,
    /// When the shard is asked next how many it tells of changes.
    census: Micros,
}

impl Engine {
    /// A shard's tracked connection, if it is open; if not, it is opened.
    pub(in crate::engine) fn tracker(&mut self, pool: u16, shard: u16, port: &mut impl Port) -> Option<LineId> {
        let next = self.lines.len() as LineId;
        let place = self.pools.get_mut(usize::from(pool))?;
        if place.trackers.len() <= usize::from(shard) {
            place.trackers.resize_with(usize::from(shard).saturating_add(1), || None);
        }
        let tracker = place.trackers.get_mut(usize::from(shard))?;
        let line = tracker.get_or_insert(Tracker { line: next, pinged: false, census: 0 }).line;
        if line == next {
            let dialect = Dialect { db: 0, resp3: true };
            self.lines.push(Line { owner: Owner::Tracker, ..Line::new(pool, shard, u32::MAX, dialect) });
        }
        let line_of = self.lines.get_mut(line as usize)?;
        match line_of.state {
            State::Up => return Some(line),
            State::Idle if !line_of.retired => {
                line_of.state = State::Opening;
                port.open(line);
            }
            _ => {}
        }
        None
    }

    /// A shard's tracked connection, if the shard tells of changes on it.
    pub(in crate::engine) fn tracked_line(&self, pool: u16, shard: u16) -> Option<LineId> {
        let place = self.pools.get(usize::from(pool))?;
        let line = place.trackers.get(usize::from(shard))?.as_ref()?.line;
        let up = self.lines.get(line as usize)?.state == State::Up;
        (up && place.config.path.hot.tracked(shard).tracking == Tracking::On).then_some(line)
    }

    /// A tracked connection is open.
    pub(in crate::engine) fn tracker_open(&mut self, id: LineId) {
        let Some(line) = self.lines.get(id as usize) else { return };
        let (pool, shard) = (line.pool, line.shard);
        if let Some(Some(tracker)) =
            self.pools.get_mut(usize::from(pool)).and_then(|pool| pool.trackers.get_mut(usize::from(shard)))
        {
            tracker.pinged = false;
        }
        self.run_errand(id, &[&[b"CLIENT", b"TRACKING", b"ON", b"OPTIN"]], Errand::Track);
    }

    /// Asks the shards that tell of changes how many they tell: each of them costs a shard something with each change.
    pub(in crate::engine) fn count_trackers(&mut self) {
        let now = self.now;
        for pool in 0..self.pools.len() {
            for shard in 0..self.pools.get(pool).map_or(0, |place| place.trackers.len()) {
                let Some(place) = self.pools.get_mut(pool) else { return };
                let on = place.config.path.hot.tracked(shard as u16).tracking == Tracking::On;
                let Some(Some(tracker)) = place.trackers.get_mut(shard) else { continue };
                if !on || now < tracker.census {
                    continue;
                }
                // So that many sidecars that have begun together do not ask together.
                let jitter = splitmix(now.wrapping_add(shard as u64)) % CENSUS;
                tracker.census = now.saturating_add(CENSUS).saturating_add(jitter);
                let line = tracker.line;
                self.run_errand(line, &[&[b"INFO", b"clients"]], Errand::Census);
            }
        }
    }

    /// Whether a shard tells of changes from now on.
    pub(super) fn tracks(&mut self, pool: u16, shard: u16, it_does: bool) {
        let now = self.now;
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        let tracking = if it_does { Tracking::On } else { Tracking::Refused };
        place.config.path.hot.track(shard, tracking, now);
        place.counts.untracked.set(place.config.path.hot.untracked() as u64);
    }

    /// A tracked connection is lost: nothing that was read on it is worth anything any more.
    pub(in crate::engine) fn tracker_lost(&mut self, id: LineId) {
        let Some(line) = self.lines.get(id as usize) else { return };
        let (pool, shard) = (line.pool, line.shard);
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        place.config.path.hot.lose(shard, Tracking::Off);
        place.counts.near_flushes += 1;
        self.forgotten(pool, shard);
    }

    /// What is heard of a shard's keys from now on says nothing of what was heard before: hook of what else is kept true by it.
    pub(super) fn forgotten(&mut self, pool: u16, shard: u16) {
        self.take_copies_away(pool);
        self.heard_no_more(pool, shard);
    }

    /// A hot key has changed, as its shard tells.
    pub(super) fn key_changed(&mut self, pool: u16, hash: u64) {
        let _ = hash;
        self.take_copies_away(pool);
    }

    /// A push came on a tracked connection.
    #[cold]
    pub(in crate::engine) fn pushed(&mut self, id: LineId, frame: &[u8]) {
        let Some(line) = self.lines.get(id as usize) else { return };
        let (pool, shard) = (line.pool, line.shard);
        let Some(mut parts) = Elements::of_push(frame) else { return };
        if parts.next().and_then(bulk) != Some(b"invalidate") {
            return;
        }
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        let Some(keys) = parts.next().and_then(Elements::of) else {
            // Null: all keys there are, as upon FLUSHALL.
            let still = place.config.path.hot.tracked(shard).tracking;
            place.config.path.hot.lose(shard, still);
            place.counts.near_flushes += 1;
            return self.forgotten(pool, shard);
        };
        for key in keys.filter_map(bulk) {
            let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
            place.counts.near_invalidations += 1;
            self.heard_of(pool, key);
            let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
            if let Some(hash) = place.config.path.hot.changed(key) {
                self.key_changed(pool, hash);
            }
        }
    }

    /// Reads on a shard's tracked connection, which is opened if need be: these commands, of which the shard will tell when what
    /// they read changes. Returns the errand's number, if
    /// they were sent.
    pub(in crate::engine) fn tracked_read(
        &mut self,
        (pool, shard): (u16, u16),
        commands: &[&[&[u8]]],
        errand: Errand,
        port: &mut impl Port,
    ) -> Option<u32> {
        let on = self.tracker(pool, shard, port)?;
        let tracking = self.pools.get(usize::from(pool)).map(|pool| pool.config.path.hot.tracked(shard).tracking);
        match tracking {
            Some(Tracking::On) => {
                let mut all: Vec<&[&[u8]]> = Vec::with_capacity(commands.len().saturating_add(1));
                all.push(&[b"CLIENT", b"CACHING", b"YES"]);
                all.extend_from_slice(commands);
                self.run_errand(on, &all, errand)
            }
            Some(Tracking::Refused) => self.run_errand(on, commands, errand),
            _ => None,
        }
    }

    /// Reads a hot key to keep it here, if it is to be.
    pub(in crate::engine) fn fill(&mut self, pool: u16, hash: u64, key: &[u8], port: &mut impl Port) {
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        let hot = &mut place.config.path.hot;
        let Some((shard, since, settled)) = hot.key(hash).map(|key| (key.shard, key.since, key.settled)) else {
            return;
        };
        if !settled {
            let unknown = |hot: &Hot| !hot.all_know(hash);
            let elsewhere = self.pools.get(usize::from(pool)).is_some_and(|place| unknown(&place.config.path.hot));
            if elsewhere || self.asked_before(pool, Some(shard), since) {
                // Its connection may be opened meanwhile.
                self.tracker(pool, shard, port);
                return;
            }
            let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
            if let Some(key) = place.config.path.hot.key_mut(hash) {
                key.settled = true;
            }
        }
        self.begin_fill(pool, shard, hash, key, port);
    }

    /// Reads a key on its shard's tracked connection, which is opened if need be.
    fn begin_fill(&mut self, pool: u16, shard: u16, hash: u64, key: &[u8], port: &mut impl Port) {
        let now = self.now;
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        let hot = &mut place.config.path.hot;
        if hot.tracked(shard).tracking == Tracking::Off {
            self.tracker(pool, shard, port);
            return;
        }
        let Some(fill) = hot.begin_fill(hash, now) else { return };
        place.counts.near_fills = place.counts.near_fills.saturating_add(1);
        let errand = Errand::Near { hash, number: fill.number, name: key.into() };
        let link = self.tracked_read((pool, shard), &[&[b"GET", key], &[b"PTTL", key]], errand, port);
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        match link {
            Some(link) => place.config.path.hot.link_fill(hash, link),
            None => place.config.path.hot.end_fill_without(hash, fill.number),
        }
    }

    /// Answers a read of a hot key with what is being read to be kept, which is begun if need be. Returns whether it will be.
    ///
    /// What is on its way already may be joined, though it is older than the question by the time it has been: an answer from
    /// memory may be as old as that, too, and it is not older than any write of this process.
    pub(in crate::engine) fn join_fill(&mut self, id: SessionId, leg: &Leg<'_>, port: &mut impl Port) -> bool {
        let Some(hash) = leg.hot else { return false };
        let Some(number) = self.sessions.get(id as usize).map(|session| session.pool) else { return false };
        let fill = |engine: &Self| {
            let key = engine.pools.get(usize::from(number))?.config.path.hot.key(hash)?;
            key.fill.filter(|fill| engine.errands.contains(fill.link as usize))
        };
        if fill(self).is_none() {
            let now = self.now;
            if let Some(place) = self.pools.get_mut(usize::from(number))
                && place.config.path.hot.key(hash).is_none()
            {
                place.config.path.hot.admit(leg, hash, now);
            }
            self.begin_fill(number, leg.shard, hash, leg.key, port);
        }
        let Some(link) = fill(self).map(|fill| fill.link) else { return false };
        let Some((_, ticket)) = self.open_slot(id) else { return false };
        self.begin_indirect(ticket);
        let at = self.now as u32;
        if let Some(way) = self.errands.get_mut(link as usize) {
            way.readers.push((ticket, at));
        }
        if let Some(place) = self.pools.get_mut(usize::from(number)) {
            place.counts.near_joined = place.counts.near_joined.saturating_add(1);
            place.config.path.hot.count_unsent(leg);
        }
        true
    }

    /// What was read is there, for all who have joined; nothing if it was lost: then each is sent home.
    pub(super) fn tell_readers(
        &mut self,
        pool: u16,
        readers: Vec<(Ticket, u32)>,
        reply: Option<&[u8]>,
        key: &[u8],
        port: &mut impl Port,
    ) {
        let Some(spec) = command::lookup(b"get").filter(|_| !readers.is_empty()) else { return };
        // Where it is counted how many are told that a key is not there, each asks for itself.
        let counted = |nil: &&[u8]| misses::is_nil(nil) && self.miss_budget_of(pool, key).is_some();
        let reply = reply.filter(|reply| !counted(reply));
        let mut wire = self.spare.take();
        for (ticket, at) in readers {
            self.end_indirect(ticket);
            let session = self.sessions.get(ticket.session as usize).filter(|s| s.generation == ticket.generation);
            let resp3 = session.is_some_and(|session| session.resp3);
            wire.clear();
            let session = session.map(drop);
            if session.is_some()
                && reply.is_some_and(misses::is_nil)
                && self.missed_elsewhere(pool, ticket, at, spec, key)
            {
                continue;
            }
            match (reply, session) {
                (Some(reply), _) => {
                    match Value::of(reply) {
                        Some(value) => value.write(resp3, &mut wire),
                        None => wire.extend_from_slice(reply),
                    }
                    self.clock(pool, spec.tag, at, &wire);
                    self.complete(pool, ticket, &wire, None);
                }
                (None, Some(_)) => {
                    write::request(&mut wire, &[b"GET", key]);
                    self.ask_home((pool, spec), ticket, &wire, port);
                }
                // Its app is gone.
                _ => self.complete(pool, ticket, b"", None),
            }
        }
        self.spare.put(wire);
    }

    /// Tells other workers when all has been answered that this one had asked for without taking note of it.
    pub(in crate::engine) fn tell_what_is_answered(&mut self) {
        let now = self.now;
        for pool in 0..self.pools.len() {
            let Some(place) = self.pools.get_mut(pool) else { return };
            let Some(since) = place.config.path.hot.to_reach(now) else { continue };
            if !self.asked_before(pool as u16, None, since)
                && let Some(place) = self.pools.get_mut(pool)
            {
                place.config.path.hot.reach();
            }
        }
    }

    /// Whether something is on its way to a shard, or any, that was asked for before `since`: a read of a key that was not hot
    /// then may be among it, and nobody knows.
    fn asked_before(&self, pool: u16, shard: Option<u16>, since: Micros) -> bool {
        // What waits for something to happen is no such read.
        let reads = |line: &Line| matches!(line.owner, Owner::Shared | Owner::Session(..)) && !line.patient;
        let of_it = |line: &&Line| line.pool == pool && shard.is_none_or(|shard| line.shard == shard) && reads(line);
        self.lines.iter().filter(of_it).any(|line| {
            let age = line.waiters.front().map(|waiter| u64::from((self.now as u32).wrapping_sub(waiter.at)));
            age.is_some_and(|age| self.now.saturating_sub(age) <= since)
        })
    }

    /// A key was served from here: its shard is asked for a sign of life before the last one is too old.
    #[inline]
    pub(super) fn keep_proof(&mut self, pool: u16, shard: u16) {
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        let hot = &place.config.path.hot;
        let tracked = hot.tracked(shard);
        if self.now.saturating_sub(tracked.proof) <= hot.config().staleness / 2 || tracked.tracking != Tracking::On {
            return;
        }
        let Some(Some(tracker)) = place.trackers.get_mut(usize::from(shard)) else { return };
        if !std::mem::replace(&mut tracker.pinged, true) {
            let on = tracker.line;
            self.run_errand(on, &[&[b"PING"]], Errand::Proof);
        }
    }

    /// A reply came on a tracked connection: all that happened at the shard before its request was sent has been heard.
    pub(in crate::engine) fn proved(&mut self, pool: u16, shard: u16, at: u32) {
        let sent = self.now.saturating_sub(u64::from((self.now as u32).wrapping_sub(at)));
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        place.config.path.hot.prove(shard, sent);
        if let Some(Some(tracker)) = place.trackers.get_mut(usize::from(shard)) {
            tracker.pinged = false;
        }
    }
}
