//! How terms end, and whose turn it is then. See [`super::table`].

use super::Lease;
use super::table::{Claim, Conn, Found, KEEP, Order, Reading, Table, Tenure, Wait, Why};
use crate::stages::Micros;
use std::sync::Arc;

/// How long, in microseconds, a lease key is asked for at most.
pub(super) const PATIENCE: Micros = 500_000;
/// After so long what could not be read is read again.
const RETRY: Micros = 20_000;
/// A lease key that is gone so long before its time is not over by itself.
const OVER: Micros = 100_000;

/// The write of a key.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    /// Whose.
    pub by: Option<Conn>,
    /// Whether it is such as makes a value, as SET does and DEL does not.
    pub fills: bool,
}

impl Table {
    /// A write to a key was answered, or may have been carried out.
    pub fn written(&mut self, hash: u64, write: Write, now: Micros) {
        let Some(entry) = self.entries.get_mut(&hash) else { return };
        entry.written = now.max(1);
        if !write.fills {
            self.ends_overtaken(hash, now);
        }
        self.forget_expired(hash);
        let Some(entry) = self.entries.get_mut(&hash) else { return };
        let mut done = None;
        if let Tenure::Held { by, wrote, .. } = &mut entry.tenure
            && write.fills
            && write.by == Some(*by)
        {
            *wrote = true;
            done = Some(*by);
        }
        if !entry.waits.is_empty() {
            self.wake(hash);
        } else if write.fills {
            self.fill(hash, now);
        }
        // It has done what it was waited for, and may wait for other keys.
        if let Some(ties) = done.and_then(|by| self.ties.get_mut(&by)) {
            ties.holds.retain(|&held| held != hash);
        }
        self.settle(hash);
    }

    /// Something was written that may be any of the keys that are waited for.
    pub fn written_any(&mut self, now: Micros) {
        for hash in self.waited() {
            self.written(hash, Write { by: None, fills: false }, now);
        }
    }

    /// A read that was asked at this time, as others are, has found a value.
    pub fn seen(&mut self, hash: u64, asked: Micros, now: Micros) {
        self.forget_expired(hash);
        let Some(entry) = self.entries.get(&hash) else { return };
        if !entry.waits.is_empty() {
            self.wake(hash);
        } else if matches!(entry.tenure, Tenure::Held { since, .. } if asked > since)
            && entry.expiry.is_none_or(|expiry| asked > expiry.before)
        {
            self.fill(hash, now);
        }
        self.settle(hash);
    }

    /// The shard tells that a key that is waited for has changed.
    pub fn changed(&mut self, hash: u64, now: Micros) {
        let Some(entry) = self.entries.get(&hash) else { return };
        if entry.guards && entry.expiry.is_none_or(|expiry| now < expiry.after) {
            // A key that was not there is there.
            self.overtakes(hash, None);
        }
        let Some(entry) = self.entries.get(&hash) else { return };
        if !entry.waits.is_empty() {
            self.wake(hash);
        } else if !self.has_expired(hash, now) && self.entries.get(&hash).is_some_and(|entry| entry.is_loaded()) {
            // There was none before, so it was written; and of what comes next the shard does not tell.
            self.fill(hash, now);
        }
        self.settle(hash);
    }

    /// The shard tells that a lease key has changed: given back, over, or another's.
    pub fn lease_changed(&mut self, hash: u64, now: Micros) {
        let Some(entry) = self.entries.get_mut(&hash) else { return };
        if let Tenure::Held { claimed: Some(_), until, .. } = entry.tenure
            && entry.guards
            && now.saturating_add(OVER) < until
        {
            // Not over by itself: the key was deleted through another process.
            self.overtakes(hash, None);
            self.ends_overtaken(hash, now);
            self.next(hash, now);
            return self.settle(hash);
        }
        if !matches!(entry.tenure, Tenure::Elsewhere { .. }) {
            return;
        }
        if entry.waits.is_empty() {
            entry.tenure = Tenure::Vacant;
            entry.closed = now;
        } else if entry.reads.is_empty() {
            // What is being read tells more.
            self.next(hash, now);
        }
        self.settle(hash);
    }

    /// A worker is told of no changes any more, of keys that it has asked for: they are asked for anew.
    pub fn deaf(&mut self, hears: impl Fn(&[u8], u16) -> bool, now: Micros) {
        let lost = self.entries.iter().filter(|(_, entry)| match entry.tenure {
            Tenure::Elsewhere { worker, .. } => !hears(&entry.name, worker),
            _ => false,
        });
        for hash in lost.map(|(&hash, _)| hash).collect::<Vec<_>>() {
            self.vacate(hash, now);
            self.next(hash, now);
            self.settle(hash);
        }
    }

    /// Has all workers read a key again that have somebody waiting for it.
    pub(super) fn wake(&mut self, hash: u64) {
        let Some(entry) = self.entries.get(&hash) else { return };
        let mut workers: Vec<u16> = Vec::new();
        for wait in &entry.waits {
            if !workers.contains(&wait.conn.worker) {
                workers.push(wait.conn.worker);
            }
        }
        for worker in workers {
            self.wake_worker(hash, worker);
        }
    }

    pub(super) fn wake_worker(&mut self, hash: u64, worker: u16) {
        let Some(entry) = self.entries.get_mut(&hash) else { return };
        if let Some(reading) = entry.reads.iter_mut().find(|reading| reading.worker == worker) {
            reading.again = true;
            return;
        }
        let last = entry.waits.iter().rev().find(|wait| wait.conn.worker == worker);
        let Some(upto) = last.map(|wait| wait.id) else { return };
        entry.reads.push(Reading { worker, upto, again: false });
        let name = Arc::clone(&entry.name);
        self.order(worker, Order::Read { hash, name });
    }

    /// A worker has read a key again. Returns the waits that are answered with what it found, by their links and numbers.
    pub fn read(&mut self, hash: u64, worker: u16, found: Found, now: Micros) -> Vec<(u32, u64)> {
        let Some(entry) = self.entries.get_mut(&hash) else { return Vec::new() };
        let Some(at) = entry.reads.iter().position(|reading| reading.worker == worker) else { return Vec::new() };
        let reading = entry.reads.swap_remove(at);
        let mut answered: Vec<Wait> = Vec::new();
        match found {
            Found::Value => {
                entry.waits.retain(|wait| {
                    let told = wait.conn.worker == worker && wait.id <= reading.upto;
                    if told {
                        answered.push(*wait);
                    }
                    !told
                });
                self.forget_waits(hash, &answered);
                self.fill(hash, now);
                self.wake(hash);
            }
            Found::Nil if reading.again => self.wake_worker(hash, worker),
            Found::Nil => match entry.tenure {
                Tenure::Held { wrote: true, .. } => {
                    self.vacate(hash, now);
                    self.next(hash, now);
                }
                Tenure::Vacant | Tenure::Elsewhere { .. } => self.next(hash, now),
                Tenure::Held { .. } | Tenure::Claiming { .. } => {}
            },
            Found::Lost => entry.retry = Some(now.saturating_add(RETRY)),
        }
        self.settle(hash);
        answered.into_iter().map(|wait| (wait.link, wait.id)).collect()
    }

    /// The key has a value: a term, if there is one, ends well.
    fn fill(&mut self, hash: u64, now: Micros) {
        self.forget_expired(hash);
        let Some(entry) = self.entries.get(&hash) else { return };
        let (rule, written, entry_tenure) = (entry.rule, entry.written, entry.tenure);
        if let Tenure::Held { since, .. } = entry_tenure {
            let at = if written >= since { written } else { now };
            self.learn(rule, |pace| pace.saw(at.saturating_sub(since)));
        }
        if let Tenure::Elsewhere { since, .. } = entry_tenure {
            self.learn(rule, |pace| pace.heard(now.saturating_sub(since)));
        }
        self.barred.forgive(hash);
        // Asked for already, and in vain: what comes of it is given back.
        self.vacate(hash, now);
    }

    /// Whoever has waited longest loads, if anyone waits.
    pub(super) fn next(&mut self, hash: u64, now: Micros) {
        let Some(entry) = self.entries.get_mut(&hash) else { return };
        let Some(first) = entry.waits.front().copied() else {
            if let Tenure::Elsewhere { .. } = entry.tenure {
                (entry.tenure, entry.closed) = (Tenure::Vacant, now);
            }
            return;
        };
        if entry.lease == Lease::Fleet {
            self.claim(hash, first.conn.worker, now);
        } else {
            self.grant(hash, None, now);
        }
    }

    /// Asks for the lease key.
    pub(super) fn claim(&mut self, hash: u64, worker: u16, now: Micros) {
        let Some(entry) = self.entries.get(&hash) else { return };
        let term = self.pace(entry.rule).term(entry.longest_term);
        let Some(entry) = self.entries.get_mut(&hash) else { return };
        entry.tenure = Tenure::Claiming { worker, since: now, heir: None };
        let name = Arc::clone(&entry.name);
        self.order(worker, Order::Claim { hash, name, term });
    }

    /// Tells nil to whoever has waited longest, who holds from now on.
    fn grant(&mut self, hash: u64, claimed: Option<u16>, now: Micros) {
        let Some(entry) = self.entries.get_mut(&hash) else { return };
        let Some(first) = entry.waits.pop_front() else { return };
        entry.herd = 0;
        self.forget_waits(hash, &[first]);
        self.order(first.conn.worker, Order::Nil { link: first.link, id: first.id, why: Why::Turn });
        self.hold(hash, first.conn, claimed, now);
    }

    /// A worker has asked for a lease key.
    pub fn claimed(&mut self, hash: u64, name: &Arc<[u8]>, worker: u16, claim: Claim, now: Micros) {
        let entry = self.entries.get_mut(&hash).filter(|entry| {
            matches!(entry.tenure, Tenure::Claiming { worker: asked, .. } if asked == worker) && entry.name == *name
        });
        let Some(entry) = entry else {
            if claim == Claim::Won {
                self.order(worker, Order::Release { name: Arc::clone(name) });
            }
            return;
        };
        let heir = if let Tenure::Claiming { heir, .. } = entry.tenure { heir } else { None };
        let idle = entry.waits.is_empty();
        let until = now.saturating_add(entry.longest_term);
        match (claim, heir) {
            (Claim::Won, Some(heir)) => {
                // It is told to hold anew.
                self.vacate(hash, now);
                self.hold(hash, heir, Some(worker), now);
            }
            (Claim::Refused, Some(heir)) => {
                self.vacate(hash, now);
                self.hold(hash, heir, None, now);
            }
            (Claim::Won, None) if idle => {
                self.vacate(hash, now);
                self.order(worker, Order::Release { name: Arc::clone(name) });
            }
            (Claim::Won, None) => self.grant(hash, Some(worker), now),
            (Claim::Refused, None) if !idle => self.grant(hash, None, now),
            (Claim::Lost, _) => {
                self.vacate(hash, now);
                if let Some(entry) = self.entries.get_mut(&hash) {
                    entry.tenure = Tenure::Elsewhere { worker, since: now, until };
                }
                self.offer_expired(hash, now);
            }
            (Claim::Value | Claim::Refused, _) => {
                self.vacate(hash, now);
                self.wake(hash);
            }
        }
        self.settle(hash);
    }

    /// Looks at what is due. Returns how many terms ended because nobody wrote.
    pub fn tick(&mut self, now: Micros) -> usize {
        let mut unwritten = 0;
        while let Some(&(due, hash)) = self.due.first().filter(|(due, _)| *due <= now) {
            self.due.remove(&(due, hash));
            unwritten = usize::saturating_add(unwritten, usize::from(self.look(hash, now)));
            self.look_at_waits(hash, now);
            if self.entries.get(&hash).is_some_and(|entry| entry.is_over(now)) {
                self.remove(hash);
                continue;
            }
            self.settle_anew(hash, now);
        }
        unwritten
    }

    /// Looks at a term. Returns whether it ended because nobody wrote.
    fn look(&mut self, hash: u64, now: Micros) -> bool {
        let Some(entry) = self.entries.get_mut(&hash) else { return false };
        if entry.retry.is_some_and(|retry| retry <= now) {
            entry.retry = None;
            self.wake(hash);
        }
        let Some(entry) = self.entries.get_mut(&hash) else { return false };
        match entry.tenure {
            Tenure::Held { until, .. } if until <= now => {
                let observed = entry.lease == Lease::Observe;
                self.vacate(hash, now);
                if self.barred.strike(hash, now) && !observed {
                    self.end_all(hash);
                    // Else it would have a term again as long as it is remembered.
                    if let Some(entry) = self.entries.get_mut(&hash) {
                        entry.closed = now.saturating_sub(KEEP);
                    }
                } else {
                    self.next(hash, now);
                }
                true
            }
            Tenure::Claiming { since, .. } if now.saturating_sub(since) >= PATIENCE => {
                self.vacate(hash, now);
                self.grant(hash, None, now);
                false
            }
            Tenure::Elsewhere { until, .. } if until <= now => {
                self.next(hash, now);
                false
            }
            _ => false,
        }
    }

    /// Tells nil to those who have waited for too long: one at a time, or all who have for twice as long.
    fn look_at_waits(&mut self, hash: u64, now: Micros) {
        let Some(entry) = self.entries.get(&hash) else { return };
        let step = self.pace(entry.rule).step();
        let Some(entry) = self.entries.get_mut(&hash) else { return };
        let mut late: Vec<Wait> = Vec::new();
        let mut drips = entry.drip <= now;
        entry.waits.retain(|wait| {
            let drip = drips && wait.until <= now;
            drips &= !drip;
            let ends = drip || wait.hard <= now;
            if ends {
                late.push(*wait);
            }
            !ends
        });
        if !late.is_empty() {
            entry.drip = now.saturating_add(step);
        }
        self.forget_waits(hash, &late);
        for wait in late {
            self.order(wait.conn.worker, Order::Nil { link: wait.link, id: wait.id, why: Why::Late });
        }
    }

    fn end_all(&mut self, hash: u64) {
        let Some(entry) = self.entries.get_mut(&hash) else { return };
        let ended: Vec<Wait> = std::mem::take(&mut entry.waits).into();
        self.forget_waits(hash, &ended);
        for wait in ended {
            self.order(wait.conn.worker, Order::Nil { link: wait.link, id: wait.id, why: Why::Barred });
        }
    }

    /// The same as [`Table::settle`] for an entry that is not among those that are due.
    fn settle_anew(&mut self, hash: u64, now: Micros) {
        let Some(entry) = self.entries.get_mut(&hash) else { return };
        let soon = |of: fn(&Wait) -> Micros| entry.waits.iter().map(of).min().unwrap_or(Micros::MAX);
        entry.soon = (soon(|wait| wait.until), soon(|wait| wait.hard));
        // Nothing is due now that was not dealt with now.
        entry.due = entry.next_due().max(now.saturating_add(1));
        self.due.insert((entry.due, hash));
        self.note_waited(hash);
    }
}
