//! Keys that have moved, and are looked for where they lived before: after a change of servers, or in another pool (`warm_from`).
//!
//! A key's *home* is where the ring puts it now, its *former home* where it lived before; of most keys they are the same, and those
//! are no concern of this. The home is the truth. A GET that finds nothing there asks the former home, answers its app with what
//! that has, and copies it ([`reads`]). A write of a key that has moved makes the former home forget the key, before the write's
//! bytes are queued ([`writes`]).
//!
//! What must not happen is that a copy brings back what was deleted or overwritten through any hotring that has this
//! configuration. For that there is a *mark* for a key, at its home, `hotring:warm:` and the key. With its steps numbered:
//!
//! ```text
//! a read that missed     r1 home: SET mark TOKEN NX PX     r2 former: value, TTL     r3 home: if mark = TOKEN, SET key value NX PX TTL
//! a write                w1 home: SET mark gone PX   and   former: UNLINK key        w2 home: the write itself
//! ```
//!
//! Each step begins when the one before it is answered; both halves of w1 are answered before w2 begins. r3 is one script, so
//! nothing comes between its two halves. A copy brings something back only if r2 comes before the former home has forgotten the key, and r3
//! after w2. Was the mark set to `gone` after r1, it is not the reader's at r3. Was it before, then `gone` stood there at r1 (it lives for
//! [`MARK`], longer than a write waits for its w1) and the reader is told that there is no such key; or it had gone by itself, and then the
//! former home had forgotten the key before r1, and r2 finds nothing. The token is never the same twice. What a reader that may
//! not copy, since another one is about to, tells its app was at the former home while the write was not answered yet: it is not
//! older than any answered write.
//!
//! A former home that cannot be told of a write is not asked any more by this process ([`Warmth::distrust`]), and at the key's home the
//! mark says `gone` for as long as former homes are asked at all, so that other processes do not ask either. Only then the write begins.
//!
//! Promises: a pool that has no `warm_from`, or whose time is over, pays one branch a GET. A session's own order holds: while
//! a read of it is at a former home it sends no writes ([`Engine::begin_indirect`]). Nothing lives longer than it would have. A value that is at the
//! home is never replaced.
//!
//! Does not see what is written past hotring, by a process that has another configuration yet, or by a script to keys that it does
//! not name. Commands other than GET and MGET find at the home what is there. A pipelined write overtakes the read before it at the
//! former home: that read is then told that there is no such key. Between w1 and w2 a reader may be told so, too.
//!
//! Bounded: [`MOST`] reads a worker, `warm_rate` a second; a write for each session, which is not read meanwhile.

mod array;
mod reads;
mod writes;

pub(super) use reads::{Fill, Step};
pub(super) use writes::Forgetting;

use super::port::Port;
use super::{Engine, LineId, Pool};
use crate::bucket::Bucket;
use crate::stages::Micros;
use crate::stages::warm::{Found, Warmth};
use slab::Slab;
use std::collections::HashMap;
use std::sync::Arc;

/// How the names of marks begin.
const PREFIX: &[u8] = b"hotring:warm:";
/// What a mark says of a key that is written.
const GONE: &[u8] = b"gone";
/// How long such a mark lives, in milliseconds. Longer than [`PATIENCE`].
const MARK: &[u8] = b"10000";
/// How long that of a reader lives, in milliseconds: so long it has to make its copy.
const TURN: &[u8] = b"3000";
/// How long a write waits for its former homes, and a read for all, in microseconds.
const PATIENCE: Micros = 2_000_000;
/// Reads at former homes under way at once.
const MOST: usize = 4096;
/// Longer values are not asked for.
const LONGEST: u64 = 1 << 20;
/// How much of a second's questions may be asked at once.
const BURST: u64 = 10;

/// What a worker knows of a pool's former homes.
pub(super) struct Here {
    warmth: Arc<Warmth>,
    bucket: Bucket,
    /// Among how many workers questions are divided.
    share: u64,
    /// When it is over; not known before the first upkeep.
    until: Option<Micros>,
}

/// Reads and writes that are at former homes.
#[derive(Default)]
pub(super) struct Warm {
    fills: Slab<Fill>,
    /// Those that no former home has been asked for yet, by pool and key: others may join them.
    staging: HashMap<(u16, Vec<u8>), u32>,
    arrays: Slab<array::Array>,
    writes: Slab<Forgetting>,
    numbers: u64,
}

impl Warm {
    /// Requests that wait.
    pub(super) fn len(&self) -> usize {
        self.fills.len().saturating_add(self.arrays.len()).saturating_add(self.writes.len())
    }

    fn number(&mut self) -> u64 {
        self.numbers = self.numbers.wrapping_add(1);
        self.numbers
    }
}

/// The mark of a key.
fn mark_of(name: &[u8]) -> Vec<u8> {
    [PREFIX, name].concat()
}

impl Pool {
    /// Where a key lived before and where it lives now, if these are two and the former one is asked.
    pub(super) fn moved(&self, key: &[u8]) -> Option<(u16, u16)> {
        self.warm.as_ref().filter(|here| !here.warmth.is_over())?;
        let (former, _) = self.config.former.as_ref()?;
        let (before, now) = (former.home(key)?, self.config.path.route.home(key)?);
        (before != now).then_some((before, now))
    }
}

impl Engine {
    /// The pool's configuration is another one.
    pub(super) fn renew_warm(&mut self, number: u16) {
        let share = self.id_step.max(1);
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        pool.warm = pool.config.former.as_ref().filter(|(_, warmth)| !warmth.is_over()).map(|(former, warmth)| Here {
            warmth: Arc::clone(warmth),
            bucket: Bucket::new(former.rate.into(), (u64::from(former.rate) / BURST).max(share)),
            share,
            until: None,
        });
        if pool.warm.is_none() {
            pool.counts.warm_left.set(0);
        }
    }

    /// Upkeep: what has waited for too long, and how long it lasts yet.
    pub(super) fn look_after_warm(&mut self, port: &mut impl Port) {
        let now = self.now;
        for number in 0..self.pools.len() as u16 {
            let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
            let first = pool.config.leases.worker() == 0;
            let (Some(here), Some((former, _))) = (&mut pool.warm, &pool.config.former) else { continue };
            let until = *here.until.get_or_insert(now.saturating_add(former.left));
            let left = if here.warmth.is_over() { 0 } else { until.saturating_sub(now) };
            if first {
                here.warmth.tick(now);
                pool.counts.warm_left.set(left.div_ceil(1_000_000).saturating_mul(1_000_000));
            }
            if left == 0 {
                pool.warm = None;
            }
        }
        if self.warm.len() > 0 {
            self.give_up_fills(port);
            self.give_up_writes(port);
        }
    }

    /// A connection on which a shard can be asked, or that can be opened for that.
    fn line_to_ask(&self, pool: u16, shard: u16) -> Option<LineId> {
        let place = self.pools.get(usize::from(pool))?;
        let on = self
            .line_that_is_open(pool, shard)
            .or_else(|| self.line_that_may_open(pool, shard))
            .filter(|&on| self.lines.get(on as usize).is_some_and(|line| line.queued() <= place.config.outbox))?;
        (!place.config.path.health.sends_away(shard)).then_some(on)
    }

    /// How a read of a key that has moved has ended.
    fn count_moved(&mut self, number: u16, found: Found) {
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        let Some(here) = &pool.warm else { return };
        here.warmth.count(found);
        let counter = match found {
            Found::Home => return,
            Found::Former => &mut pool.counts.warm_hits,
            Found::Nowhere => &mut pool.counts.warm_misses,
        };
        *counter = counter.saturating_add(1);
    }
}
