//! Checks a sample of the answers that did not come from their key's shard, and counts those that were wrong, by how long.
//!
//! A sampled answer is compared with what the shard says right afterwards, on a connection on which it tells of no changes. If it
//! says something else, and the same answer would still be given, that is looked at again, 10 ms, 100 ms and 1 s later. What
//! differs only the first time is the delay with which a shard's news arrives; what still differs beyond `max_staleness` is
//! a broken promise. (After Meta's Polaris, "Cache made consistent", 2022, which reports by such scales of time.)

use super::Errand;
use crate::engine::Engine;
use crate::metrics::Stale;
use crate::stages::Micros;
use crate::stages::hot::Value;

/// When an answer is looked at, in microseconds after it was given, and what one is counted as that was wrong then for the last
/// time.
const STEPS: [(Micros, Stale); 4] =
    [(0, Stale::Within10ms), (10_000, Stale::Within100ms), (100_000, Stale::Within1s), (1_000_000, Stale::Longer)];
/// Most answers that are being looked at.
const MOST: usize = 256;

/// An answer that is being looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Audit {
    pool: u16,
    shard: u16,
    hash: u64,
    name: Box<[u8]>,
    answer: Value,
    given: Micros,
    /// How often it was wrong so far.
    wrong: usize,
}

impl Engine {
    /// An answer was given from memory: looks at one of so many.
    #[inline]
    pub(super) fn sample(&mut self, pool: u16, hash: u64) {
        let Some(place) = self.pools.get_mut(usize::from(pool)) else { return };
        let of = place.config.path.hot.config().audit;
        if of == 0 {
            return;
        }
        place.unaudited = place.unaudited.saturating_add(1);
        if place.unaudited >= of {
            place.unaudited = 0;
            self.begin_audit(pool, hash);
        }
    }

    #[cold]
    fn begin_audit(&mut self, pool: u16, hash: u64) {
        let Some(place) = self.pools.get(usize::from(pool)) else { return };
        let hot = &place.config.path.hot;
        let (Some(key), Some(entry)) = (hot.key(hash), hot.entry(hash, true, self.now)) else { return };
        let (name, answer) = (key.name.clone(), entry.value.clone());
        let audit = Audit { pool, shard: key.shard, hash, name, answer, given: self.now, wrong: 0 };
        if self.audits.len().max(self.errands.len()) < MOST {
            self.look(audit);
        }
    }

    /// Asks the shard what it has.
    fn look(&mut self, audit: Audit) {
        let Some(on) = self.line_that_is_open(audit.pool, audit.shard) else { return };
        let name = audit.name.clone();
        self.run_errand(on, &[&[b"GET", &name]], Errand::Audit(Box::new(audit)));
    }

    /// It has told.
    pub(super) fn looked(&mut self, mut audit: Audit, reply: &[u8]) {
        let now = self.now;
        let Some(place) = self.pools.get_mut(usize::from(audit.pool)) else { return };
        let Some(has) = Value::of(reply) else { return };
        if audit.wrong == 0 {
            place.counts.audited = place.counts.audited.saturating_add(1);
        }
        let wrong = has != audit.answer;
        let still = place.config.path.hot.entry(audit.hash, true, now).is_some_and(|entry| entry.value == audit.answer);
        // One that was taken back between the answer and now was wrong for that long at most.
        if wrong && (still || audit.wrong == 0) {
            audit.wrong = audit.wrong.saturating_add(1);
        }
        if wrong && still && audit.wrong < STEPS.len() {
            self.audits.push(audit);
            return;
        }
        let last = audit.wrong.checked_sub(1).and_then(|step| STEPS.get(step));
        if let Some(&(_, stale)) = last {
            place.counts.audit_stale[stale] = place.counts.audit_stale[stale].saturating_add(1);
        }
    }

    /// Looks again at what is due.
    pub(in crate::engine) fn look_again(&mut self) {
        let now = self.now;
        let due =
            |audit: &Audit| STEPS.get(audit.wrong).is_none_or(|&(after, _)| now.saturating_sub(audit.given) >= after);
        while let Some(at) = self.audits.iter().position(due) {
            let audit = self.audits.swap_remove(at);
            self.look(audit);
        }
    }
}
