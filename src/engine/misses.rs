//! What is done beside the lease for keys that may not be there: times to live that are shortened (`ttl_jitter`), ids that do not
//! exist (`absent_ids`), and a bound on how many are told that a key is not there (`miss_budget`).
//!
//! Promises: a pool without these pays nothing for the first two, whose requests take the long way, and one comparison a flight
//! for the third. An id that is written to through this process exists from then on, before the write's bytes are queued. A nil
//! that a GET or an MGET is answered with counts, wherever it comes from, once for each who is told; an MGET whose nils are
//! more than there are left is refused as a whole.
//!
//! Does not see what is read within a transaction, by a script or on a connection of the session's own, nor MGETs for ids that do
//! not exist. Leaves alone what is within a transaction or passed on while it arrives.
//!
//! Each worker gives its even share of a budget, as of all limits: nothing that a request touches is shared between threads.

use super::hot::Note;
use super::line::Waiter;
use super::port::Port;
use super::special::mode;
use super::{Engine, LineId, Pool, SessionId};
use crate::bucket::Bucket;
use crate::chance::splitmix;
use crate::command::{self, Access, Spec};
use crate::error::{self, Cause};
use crate::resp::{Request, write};
use crate::stages::lease::{Config, Lease, jitter};
use crate::stages::{Leg, Micros};

/// What writes that cannot bring a key into being are called.
const NO_BIRTH: [&str; 9] =
    ["del", "unlink", "getdel", "getex", "expire", "pexpire", "expireat", "pexpireat", "persist"];
/// The note of a reply that is one nil or none, in place of an element's number.
pub(super) const WHOLE: u32 = u32::MAX;
/// How much of a second's budget may be taken at once.
const BURST: u64 = 10;

/// How much is left of a budget here.
struct Budget {
    prefix: Box<[u8]>,
    rate: u32,
    bucket: Bucket,
}

/// What a worker has of a pool's budgets, and where chance has got to.
#[derive(Default)]
pub(super) struct Misses {
    /// That of all keys, and those of the rules.
    budgets: Vec<Option<Budget>>,
    /// Among how many workers they are divided.
    share: u64,
    drawn: u64,
}

impl Misses {
    /// Budgets that are divided among `share` workers; those that `before` had, too, go on from where they are.
    pub(super) fn new(config: &Config, share: u64, mut before: Self) -> Self {
        let share = share.max(1);
        let rules = config.rules().iter().map(|rule| (&*rule.prefix, rule.wanted.miss_budget));
        let budget = |(prefix, rate): (&[u8], Option<u32>)| {
            let rate = rate?;
            let same = |held: &Option<Budget>| held.as_ref().is_some_and(|h| (&*h.prefix, h.rate) == (prefix, rate));
            let at = before.budgets.iter().position(same).filter(|_| before.share == share);
            let held = at.and_then(|at| before.budgets.get_mut(at)).and_then(Option::take);
            let burst = (u64::from(rate) / BURST).max(1);
            Some(held.unwrap_or_else(|| Budget {
                prefix: prefix.into(),
                rate,
                bucket: Bucket::new(rate.into(), burst),
            }))
        };
        let budgets = [(&b""[..], config.all().miss_budget)].into_iter().chain(rules).map(budget).collect();
        Self { budgets, share, drawn: before.drawn }
    }

    /// Takes so many misses of a budget, if they are left; of one that is no more there are as many as anybody wants.
    fn take(&mut self, number: u16, count: u64, now: Micros) -> bool {
        let wanted = count.saturating_mul(self.share);
        let budget = self.budgets.get_mut(usize::from(number)).and_then(Option::as_mut);
        budget.is_none_or(|budget| budget.bucket.take(wanted, now))
    }

    pub(super) fn draw(&mut self, seed: u64) -> u64 {
        self.drawn = self.drawn.wrapping_add(1);
        splitmix(seed.wrapping_add(self.drawn))
    }
}

/// Which budget a key's misses are taken from: 0 is that of all keys, others those of the rules.
fn budget_of(config: &Config, key: &[u8]) -> Option<u16> {
    match config.rule_of(key) {
        Some((at, rule)) => rule.wanted.miss_budget.and_then(|_| u16::try_from(at.saturating_add(1)).ok()),
        None => config.all().miss_budget.map(|_| 0),
    }
}

/// What is told of a key whose id does not exist: `None` of one that may, else the text or nil.
pub(super) fn absent<'a>(config: &'a Config, spec: &Spec, key: &[u8]) -> Option<Option<&'a str>> {
    if spec.name != "get" {
        return None;
    }
    let (_, rule) = config.rule_of(key)?;
    let ids = rule.wanted.absent_ids.as_ref()?;
    let exists = ids.may_have(key.get(rule.prefix.len()..).unwrap_or_default());
    (!exists).then_some(rule.wanted.absent_reply.as_deref())
}

/// What is done if a key is not there, as `/explain` tells it: a line, or nothing.
pub(super) fn told(config: &Config, spec: &Spec, key: &[u8]) -> String {
    let wanted = config.wanted(key);
    let lease = (wanted.lease != Lease::Off).then(|| format!("lease {}", wanted.lease));
    let budget = wanted.miss_budget.map(|budget| format!("miss_budget {budget}"));
    let all: Vec<String> = lease.into_iter().chain(budget).collect();
    if all.is_empty() || !matches!(spec.name, "get" | "mget") {
        return String::new();
    }
    format!("  misses     if it is not there: {}\n", all.join(", "))
}

/// Whether a reply tells that a key is not there.
pub(super) fn is_nil(reply: &[u8]) -> bool {
    matches!(reply, b"$-1\r\n" | b"_\r\n")
}

impl Pool {
    /// Whether its sessions' requests are looked at before they are carried out: for commands that are carried aside, or for what
    /// is done here.
    pub(super) fn looks_at_requests(&self) -> bool {
        let config = &self.config;
        !config.aside.is_empty()
            || config.misses.jitters()
            || config.misses.filters()
            || config.misses.guards()
            || config.mirror.is_some()
            || !config.routes.is_empty()
            || !self.faults.faults.is_empty()
            || self.warm.is_some()
    }

    /// Keys may come into being: their ids exist.
    fn born<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) {
        for key in keys {
            if let Some((_, rule)) = self.config.misses.rule_of(key)
                && let Some(ids) = &rule.wanted.absent_ids
            {
                ids.add(key.get(rule.prefix.len()..).unwrap_or_default());
            }
        }
    }

    /// What metrics tell of the lists of ids.
    pub(super) fn tell_of_ids(&mut self) {
        let config = &self.config.misses;
        let lists = || config.rules().iter().filter_map(|rule| rule.wanted.absent_ids.as_ref());
        let counts = &mut self.counts;
        counts.absent_ids.0 = lists().map(|ids| ids.listed().saturating_add(ids.added()) as u64).sum();
        counts.absent_bytes.0 = lists().map(|ids| ids.bytes() as u64).sum();
        counts.absent_false.0 = (lists().map(|ids| ids.false_ratio()).fold(0.0, f64::max) * 1e6) as u64;
    }
}

impl Engine {
    /// The pool's configuration is another one. Budgets that stay the same go on from where they are.
    pub(super) fn renew_misses(&mut self, number: u16) {
        let share = self.id_step;
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        pool.misses = Misses::new(&pool.config.misses, share, std::mem::take(&mut pool.misses));
        if pool.config.misses.filters() || pool.counts.absent_ids.0 > 0 {
            pool.tell_of_ids();
        }
    }

    /// Looks at a request before it goes anywhere. Returns whether it was dealt with.
    pub(super) fn look_for_misses(
        &mut self,
        id: SessionId,
        spec: &'static Spec,
        request: &Request<'_>,
        port: &mut impl Port,
    ) -> bool {
        let Some(session) = self.sessions.get(id as usize) else { return false };
        let number = session.pool;
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return false };
        let config = &pool.config.misses;
        let plain = session.mode & mode::PINNED == 0 && !session.is_strict();
        if spec.access == Access::Write && config.filters() && !NO_BIRTH.contains(&spec.name) {
            // One whose keys cannot be told is refused for that.
            let _ = command::keys(spec, request, &mut |index| pool.born(request.arg(index).into_iter()));
        }
        if spec.access == Access::Write && pool.config.misses.guards() && self.keeps_from_writing(id, spec, request) {
            return true;
        }
        let Some(session) = self.sessions.get(id as usize) else { return false };
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return false };
        let config = &pool.config.misses;
        let key = request.arg(1).unwrap_or_default();
        // In another database the same name is another key.
        if plain
            && config.filters()
            && (session.base == 0 || session.db() == 0)
            && let Some(reply) = absent(config, spec, key)
        {
            pool.counts.absent_answered = pool.counts.absent_answered.saturating_add(1);
            let mut out = self.spare.take();
            match reply {
                Some(text) => write::bulk(&mut out, text.as_bytes()),
                None => write::null(&mut out, session.resp3),
            }
            self.answer_with(id, None, |reply| reply.extend_from_slice(&out));
            self.spare.put(out);
            return true;
        }
        let part =
            if plain && config.jitters() && spec.access == Access::Write { config.wanted(key).ttl_jitter } else { 0 };
        if part == 0 {
            return false;
        }
        let mut wire = self.spare.take();
        let draw = pool.misses.draw(pool.config.seed);
        let shorter = jitter::shorten(spec.name, request, part, draw, &mut wire);
        let mut done = false;
        if shorter && let Some(request) = Request::parse(&wire) {
            pool.counts.ttl_shortened = pool.counts.ttl_shortened.saturating_add(1);
            let aside = session.mode & mode::ASIDE != 0;
            if !(aside && self.aside(id, spec, &request, port)) {
                self.carry_out(id, spec, &request, port);
            }
            done = true;
        }
        self.spare.put(wire);
        done
    }

    /// A key may come into being by what is passed on while it arrives.
    pub(super) fn streams_key(&self, number: u16, key: &[u8]) {
        if let Some(pool) = self.pools.get(usize::from(number)).filter(|pool| pool.config.misses.filters()) {
            pool.born([key].into_iter());
        }
    }

    /// A flight was sent whose reply may tell that its key is not there.
    #[cold]
    pub(super) fn note_count(&mut self, number: u16, leg: &Leg<'_>, serial: u64) {
        // What was sent to one of several shards is looked at when it is known whose answer counts.
        if leg.spec.name == "get"
            && !leg.spread
            && let Some(on) = self.pools.get(usize::from(number)).map(|pool| pool.line(leg.line))
            && let Some(line) = self.lines.get(on as usize)
            && self.get_budget_of(number, leg.key, line.dialect.db).is_some()
        {
            self.note_count_of(number, leg.key, WHOLE, (on, serial));
        }
    }

    /// The same of an element of MGET: which of its flight's.
    #[cold]
    pub(super) fn note_count_of(&mut self, number: u16, key: &[u8], element: u32, (on, serial): (LineId, u64)) {
        if self.pools.get(usize::from(number)).is_some_and(|pool| pool.moved(key).is_some()) {
            // It may be where it was.
            return;
        }
        if let Some(budget) = self.miss_budget_of(number, key)
            && let Some(line) = self.lines.get_mut(on as usize)
        {
            line.notes.push(serial, Note::Count(budget, element));
        }
    }

    /// Which budget the misses of GETs of a key are taken from when they come from a shard. None where the key has a lease or
    /// has moved, in the database that counts: then it is known later who is told, and that is counted there.
    pub(super) fn get_budget_of(&self, number: u16, key: &[u8], db: u16) -> Option<u16> {
        let pool = self.pools.get(usize::from(number))?;
        let leased = db == 0 && (pool.config.leases.concerns(key) || pool.moved(key).is_some());
        if leased { None } else { self.miss_budget_of(number, key) }
    }

    /// Which budget a key's misses are taken from, if there is one.
    pub(super) fn miss_budget_of(&self, number: u16, key: &[u8]) -> Option<u16> {
        let config = &self.pools.get(usize::from(number))?.config.misses;
        if config.budgets() { budget_of(config, key) } else { None }
    }

    /// A reply came of a flight that this was noted of: remembers the budget if it tells that the key is not there.
    pub(super) fn see_miss(&mut self, budget: u16, told: Option<&[u8]>) {
        if told.is_some_and(is_nil) {
            self.missed.push(budget);
        }
    }

    /// Whether the misses that were just seen in a reply for this waiter are more than is left; if so the error to tell in its
    /// place is appended.
    #[cold]
    pub(super) fn is_over_budget(&mut self, number: u16, waiter: &Waiter, out: &mut Vec<u8>) -> bool {
        // All who share the reply are told.
        let (mut told, mut next) = (1_u64, if waiter.part == Waiter::WHOLE { waiter.link } else { Waiter::NOBODY });
        while let Some(&(_, _, link)) = self.joined.get(next as usize) {
            (told, next) = (told.saturating_add(1), link);
        }
        let mut missed = std::mem::take(&mut self.missed);
        let over = self.spend(number, &mut missed, told);
        self.missed = missed;
        if let Some(budget) = over {
            self.tell_over_budget(number, budget, told, out);
        }
        over.is_some()
    }

    /// Takes what was missed of its budgets, once for each of those who are told. Returns the first that does not suffice.
    fn spend(&mut self, number: u16, missed: &mut Vec<u16>, told: u64) -> Option<u16> {
        let now = self.now;
        let misses = self.pools.get_mut(usize::from(number)).map(|pool| &mut pool.misses)?;
        missed.sort_unstable();
        let over = missed
            .chunk_by(|a, b| a == b)
            .filter_map(|same| Some((*same.first()?, (same.len() as u64).saturating_mul(told))))
            .find(|&(budget, count)| !misses.take(budget, count, now))
            .map(|(budget, _)| budget);
        missed.clear();
        over
    }

    /// Whether one more may be told that a key is not there; takes it of the key's budget, and refuses nobody.
    pub(super) fn may_tell_early(&mut self, number: u16, key: &[u8]) -> bool {
        let (budget, now) = (self.miss_budget_of(number, key), self.now);
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return false };
        budget.is_none_or(|budget| pool.misses.take(budget, 1, now))
    }

    fn tell_over_budget(&mut self, number: u16, budget: u16, told: u64, out: &mut Vec<u8>) {
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        let rule = usize::from(budget).checked_sub(1).and_then(|at| pool.config.misses.rules().get(at));
        error::miss_budget(rule.map(|rule| &*rule.prefix), out);
        pool.counts.misses_refused = pool.counts.misses_refused.saturating_add(told);
        pool.counts.errors[Cause::MissBudget] = pool.counts.errors[Cause::MissBudget].saturating_add(told);
    }

    /// A key is to be told not to be there, of which no shard is asked: whether that is within its budget. If not, the error to
    /// tell in its place is appended.
    #[cold]
    pub(super) fn may_tell_absent(&mut self, number: u16, key: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(budget) = self.miss_budget_of(number, key) else { return true };
        self.may_tell_missed(number, budget, out)
    }

    /// The same of a budget that is known already.
    pub(super) fn may_tell_missed(&mut self, number: u16, budget: u16, out: &mut Vec<u8>) -> bool {
        let now = self.now;
        let within = self.pools.get_mut(usize::from(number)).is_none_or(|pool| pool.misses.take(budget, 1, now));
        if !within {
            self.tell_over_budget(number, budget, 1, out);
        }
        within
    }

    /// Whether the elements of a split MGET that are told not to be there without asking anybody are within their budgets; if
    /// not, the error to tell in place of all of it is appended.
    #[cold]
    pub(super) fn may_tell_elements<'a>(
        &mut self,
        number: u16,
        keys: impl Iterator<Item = &'a [u8]>,
        out: &mut Vec<u8>,
    ) -> bool {
        let mut missed: Vec<u16> = keys.filter_map(|key| self.miss_budget_of(number, key)).collect();
        let over = self.spend(number, &mut missed, 1);
        if let Some(budget) = over {
            self.tell_over_budget(number, budget, 1, out);
        }
        over.is_none()
    }
}
