//! What a change of the configuration would move: how much of the keyspace, from which server to which, and what that costs.
//!
//! Promises: pure; the same numbers of shards as a running process would have, so that what it says moves is what would. Shares are of
//! many keys that are drawn evenly, or of keys that are given.

use crate::live::{Live, LivePool};
use crate::ring::{Distribution, Ring};
use crate::units::Millis;
use crate::upstream::Servers;
use crate::upstream::config::WarmFrom;
use std::collections::BTreeMap;
use std::fmt::Write;

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
        let pins = self.pool.pool.ring.pins.iter().filter(|(start, _)| key.starts_with(start.as_bytes()));
        if let Some((_, name)) = pins.max_by_key(|(start, _)| start.len()) {
            return self.pool.order.iter().copied().find(|&number| self.pool.name_of(number) == name);
        }
        self.pool.order.get(usize::from(self.ring.shard_of(key)?)).copied()
    }

    fn has_homes(&self) -> bool {
        self.pool.pool.ring.distribution != Distribution::Random
    }
}

impl Sides<'_> {
    fn look(&mut self, key: &[u8]) {
        self.keys = self.keys.saturating_add(1);
        if let (Some(from), Some(to)) = (self.before.home(key), self.after.home(key))
            && from != to
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
}

/// What changes from one configuration to the next, by pool. `keys`, if given, gives all keys that there are to a function.
///
/// # Errors
/// What `keys` returns.
pub fn tell<E>(before: &Live, after: &Live, keys: Option<Keys<'_, E>>) -> Result<String, E> {
    let mut told = String::new();
    let mut sides = Vec::new();
    for (number, new) in after.pools.iter().enumerate() {
        let old = before.pools.get(number).filter(|old| old.listed);
        match (old, new.listed) {
            (Some(_), false) => {
                let _ = writeln!(told, "pool {}: gone", new.pool.name);
            }
            (None, true) => {
                let _ =
                    writeln!(told, "pool {}: new; nothing moves, it begins with what its servers have", new.pool.name);
            }
            (Some(old), true) => {
                sides.push(Sides { before: Side::new(old), after: Side::new(new), moves: BTreeMap::new(), keys: 0 })
            }
            (None, false) => {}
        }
    }
    let given = keys.is_some();
    match keys {
        Some(keys) => keys(&mut |key| sides.iter_mut().for_each(|sides| sides.look(key)))?,
        None => {
            for draw in 0..DRAWS {
                let key = format!("key:{draw}");
                sides.iter_mut().for_each(|sides| sides.look(key.as_bytes()));
            }
        }
    }
    for sides in &sides {
        pool(sides, given, &mut told);
    }
    Ok(told)
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
    let mut moves: Vec<_> = sides.moves.iter().collect();
    moves.sort_by_key(|&(between, &count)| (std::cmp::Reverse(count), *between));
    let width = moves.iter().map(|((from, _), _)| before.name_of(*from).chars().count()).max().unwrap_or(0);
    let to_width = moves.iter().map(|((_, to), _)| after.name_of(*to).chars().count()).max().unwrap_or(0);
    for &((from, to), &count) in moves.iter().take(LINES) {
        let (from, to) = (before.name_of(*from), after.name_of(*to));
        // A server of the same name that is elsewhere now.
        let same = if from == to { "  (another address)" } else { "" };
        let number = if given { format!("  {count} keys") } else { String::new() };
        let _ = writeln!(told, "  {from:width$} -> {to:to_width$}  {:5.1} %{number}{same}", sides.share(count));
    }
    if moves.len() > LINES {
        let rest: u64 = moves.iter().skip(LINES).map(|(_, count)| **count).sum();
        let _ = writeln!(told, "  and {} smaller moves, {:.1} % together", moves.len() - LINES, sides.share(rest));
    }
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
