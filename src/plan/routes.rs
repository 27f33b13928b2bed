//! What apps see of a change of `routes`: keys that are looked for in another pool from then on.
//!
//! Promises: a beginning is told of where the pool changes in which a key lives that is called just so; a shorter route may take over what a
//! longer one has left.

use crate::live::{Live, LivePool};
use std::collections::BTreeSet;
use std::fmt::Write;

/// A line for each beginning of keys that leads elsewhere.
pub(super) fn tell(before: &Live, after: &Live, told: &mut String) {
    for (_, new) in after.listed() {
        let name = &new.pool.name;
        let Some((_, old)) = before.listed().find(|(_, old)| old.pool.name == *name) else { continue };
        let beginnings: BTreeSet<&[u8]> =
            [old, new].iter().flat_map(|pool| pool.pool.routes.iter()).map(|(b, _)| b).collect();
        for beginning in beginnings {
            let (from, to) = (pool_of(old, beginning), pool_of(new, beginning));
            if from != to {
                let _ = writeln!(
                    told,
                    "warning: pool {name}: keys that begin \"{}\" are looked for in pool {to} in place of {from}, and do not move by themselves",
                    String::from_utf8_lossy(beginning).escape_debug()
                );
            }
        }
    }
}

/// The pool where a key lives.
fn pool_of<'a>(pool: &'a LivePool, key: &[u8]) -> &'a str {
    let at = pool.pool.routes.of(key);
    at.and_then(|at| pool.pool.routes.iter().nth(at)).map_or(pool.pool.name.as_str(), |(_, to)| to)
}
