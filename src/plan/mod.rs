//! What a change of the configuration would move: how much of the keyspace, from which server to which, and what that costs.
//!
//! Promises: pure; the same numbers of shards as a running process would have, so that what it says moves is what would. Shares are of
//! many keys that are drawn evenly, or of keys that are given. Pools are compared with themselves by name, and by the addresses where apps connect
//! (`listeners`).

mod listeners;
mod routes;

use crate::live::{Live, LivePool, Place};
use crate::ring::{Distribution, Ring, slot_of};
use crate::units::{Address, Millis};
use crate::upstream::Servers;
use crate::upstream::config::WarmFrom;
use std::collections::BTreeMap;
use std::fmt::Write;

pub use listeners::warnings;

/// Keys that are drawn where none are given.
pub const DRAWS: u32 = 100_000;
/// Lines of a pool, at most.
const LINES: usize = 40;

/// Where the keys of a pool live, before and after.
struct Sides<'a> {
    before: Side<'a>,
    after: Side<'a>,
    /// Keys that move, by where from and where to.
    moves: BTreeMap<(u16, u16), u64>,
    /// Keys that were looked at.
    keys: u64,
}

struct Side<'a> {
    pool: &'a LivePool,
    ring: Ring,
}

impl<'a> Side<'a> {
    fn new(pool: &'a LivePool) -> Self {
        Self { pool, ring: pool.ring() }
    }

    /// Where a key lives, pins included.
    fn home(&self, key: &[u8]) -> Option<u16> {
        if let Some(slots) = &self.pool.slots {
            return slots.get(usize::from(slot_of(key))).copied();
        }
        let pins = self.pool.pool.ring.pins.iter().filter(|(start, _)| key.starts_with(start.as_bytes()));
        if let Some((_, name)) = pins.max_by_key(|(start, _)| start.len()) {
            return self.pool.order.iter().copied().find(|&number| self.pool.name_of(number) == name);
        }
        self.pool.order.get(usize::from(self.ring.shard_of(key)?)).copied()
    }

    fn has_homes(&self) -> bool {
        self.pool.pool.ring.distribution != Distribution::Random
    }

    /// Where a shard is, as far as that says which keys it has; `None` for a node of this process.
    fn place(&self, shard: u16) -> Option<(&Address, u32)> {
        match &self.pool.shards.get(usize::from(shard))?.place {
            Place::Server { address, db, .. } => Some((address, *db)),
            Place::Node(_) => None,
        }
    }
}

impl<'a> Sides<'a> {
    fn new(before: &'a LivePool, after: &'a LivePool) -> Self {
        Self { before: Side::new(before), after: Side::new(after), moves: BTreeMap::new(), keys: 0 }
    }

    fn is_one_pool(&self) -> bool {
        self.before.pool.pool.name == self.after.pool.pool.name
    }

    /// Whether two shards are one. Their numbers say so of a pool's own alone.
    fn is_one(&self, from: u16, to: u16) -> bool {
        if self.is_one_pool() {
            return from == to;
        }
        match (self.before.place(from), self.after.place(to)) {
            (Some((before, db)), Some((after, other))) => before.is_same_place(after) && db == other,
            _ => false,
        }
    }

    fn look(&mut self, key: &[u8]) {
        if [&self.before, &self.after].iter().any(|side| side.pool.pool.routes.of(key).is_some()) {
            // In another pool, which is told of by itself.
            return;
        }
        self.keys = self.keys.saturating_add(1);
        if let (Some(from), Some(to)) = (self.before.home(key), self.after.home(key))
            && !self.is_one(from, to)
        {
            let count = self.moves.entry((from, to)).or_default();
            *count = count.saturating_add(1);
        }
    }

    fn moved(&self) -> u64 {
        self.moves.values().sum()
    }

    fn share(&self, count: u64) -> f64 {
        if self.keys == 0 { 0.0 } else { count as f64 * 100.0 / self.keys as f64 }
    }

    /// From where to where, the most first.
    fn tell_moves(&self, given: bool, told: &mut String) {
        let (before, after) = (self.before.pool, self.after.pool);
        let mut moves: Vec<_> = self.moves.iter().collect();
        moves.sort_by_key(|&(between, &count)| (std::cmp::Reverse(count), *between));
        let width = moves.iter().map(|((from, _), _)| before.name_of(*from).chars().count()).max().unwrap_or(0);
        let to_width = moves.iter().map(|((_, to), _)| after.name_of(*to).chars().count()).max().unwrap_or(0);
        for &((from, to), &count) in moves.iter().take(LINES) {
            let (from, to) = (before.name_of(*from), after.name_of(*to));
            // A server of the same name that is elsewhere now.
            let same = if from == to { "  (another address)" } else { "" };
            let number = if given { format!("  {count} keys") } else { String::new() };
            let _ = writeln!(told, "  {from:width$} -> {to:to_width$}  {:5.1} %{number}{same}", self.share(count));
        }
        if moves.len() > LINES {
            let rest: u64 = moves.iter().skip(LINES).map(|(_, count)| **count).sum();
            let _ = writeln!(told, "  and {} smaller moves, {:.1} % together", moves.len() - LINES, self.share(rest));
        }
    }
}

/// What changes from one configuration to the next, by pool. `keys`, if given, gives all keys that there are to a function.
///
/// # Errors
/// What `keys` returns.
pub fn tell<E>(before: &Live, after: &Live, keys: Option<Keys<'_, E>>) -> Result<String, E> {
    let mut told = String::new();
    let mut sides = Vec::new();
    let mut led = listeners::led(before, after);
    for (number, new) in after.pools.iter().enumerate() {
        let old = before.pools.get(number).filter(|old| old.listed);
        match (old, new.listed) {
            (Some(_), false) => {
                let _ = writeln!(told, "pool {}: gone", new.pool.name);
            }
            (None, true) => {
                // Apps that are led to it have been elsewhere: what moves for them is told of their addresses.
                let moves = if led.iter().any(|led| led.leads_to(new)) { "" } else { "nothing moves, " };
                let _ = writeln!(told, "pool {}: new; {moves}it begins with what its servers have", new.pool.name);
            }
            (Some(old), true) => sides.push(Sides::new(old, new)),
            (None, false) => {}
        }
    }
    let given = keys.is_some();
    let mut look = |key: &[u8]| {
        sides.iter_mut().for_each(|sides| sides.look(key));
        led.iter_mut().for_each(|led| led.sides.look(key));
    };
    match keys {
        Some(keys) => keys(&mut look)?,
        None => draw(look),
    }
    for sides in &sides {
        pool(sides, given, &mut told);
    }
    let mut first = String::new();
    for led in &led {
        led.tell(given, true, &mut first);
    }
    routes::tell(before, after, &mut first);
    Ok(first + &told)
}

/// Keys where none are given.
fn draw(mut look: impl FnMut(&[u8])) {
    for draw in 0..DRAWS {
        look(format!("key:{draw}").as_bytes());
    }
}

/// Gives all keys that there are to a function.
pub type Keys<'a, E> = &'a mut dyn FnMut(&mut dyn FnMut(&[u8])) -> Result<(), E>;

fn pool(sides: &Sides<'_>, given: bool, told: &mut String) {
    let (before, after) = (sides.before.pool, sides.after.pool);
    let name = &after.pool.name;
    if !sides.before.has_homes() || !sides.after.has_homes() {
        let _ = writeln!(told, "pool {name}: not known; with `distribution: random` keys have no home");
        return;
    }
    if [before, after].iter().any(|pool| pool.pool.upstream.topology.asked().is_some()) {
        let _ = writeln!(told, "pool {name}: not known; where its keys live is asked of its servers, see `topology`");
        return;
    }
    let moved = sides.moved();
    let what = if given {
        format!("of {} keys {moved} move ({:.1} %)", sides.keys, sides.share(moved))
    } else {
        format!("{:.1} % of the keyspace moves", sides.share(moved))
    };
    let _ = writeln!(told, "pool {name}: {} servers, then {}; {what}", before.order.len(), after.order.len());
    if moved == 0 {
        return;
    }
    sides.tell_moves(given, told);
    let _ = writeln!(
        told,
        "  expected: of 100 reads of keys that are there, {:.1} find nothing right after the change; each key that moved and is read \
         is loaded once more",
        sides.share(moved)
    );
    let _ = writeln!(told, "  {}", covered(before, after));
}

/// Whether reads find what has moved where it was.
fn covered(before: &LivePool, after: &LivePool) -> String {
    let upstream = &after.pool.upstream;
    let span = Millis::from(upstream.warm_for);
    let embedded = [before, after].iter().any(|pool| matches!(pool.pool.upstream.servers, Servers::Embedded { .. }));
    match &upstream.warm_from {
        _ if embedded => "not covered: `warm_from` is for servers, embedded nodes forget what moves".to_owned(),
        Some(WarmFrom::Previous) => format!(
            "covered by `warm_from: previous` for {span}, for GET and MGET of strings, if the change is taken without a restart; up to {} a second",
            upstream.warm_rate
        ),
        Some(WarmFrom::Pool(pool)) => format!(
            "`warm_from: {pool}` looks for keys in that pool for {span}, for GET and MGET of strings; up to {} a second",
            upstream.warm_rate
        ),
        None => "not covered: `warm_from: previous` would look for them where they were".to_owned(),
    }
}
