//! How far the pools are that look for keys where they lived before, in words.

use crate::live::{Live, LivePool};
use std::fmt::Write;
use std::time::Instant;

/// A line for each of them.
pub(super) fn text(live: &Live, now: Instant) -> String {
    let mut told = String::new();
    for (_, pool) in live.listed() {
        line(pool, now, &mut told);
    }
    if told.is_empty() {
        told.push_str("no pool looks for keys where they lived before\n");
    }
    told
}

fn line(pool: &LivePool, now: Instant, told: &mut String) {
    let Some(former) = pool.former.as_ref().filter(|former| !former.numbers.is_empty()) else { return };
    let progress = former.warmth.progress();
    let _ = write!(told, "pool {}: from {}, ", pool.pool.name, former.from);
    if progress.over {
        told.push_str("ended, since all keys were deleted; ");
    } else {
        let left = former.left(now).as_secs();
        let _ = if left >= 60 { write!(told, "{} min left; ", left / 60) } else { write!(told, "{left} s left; ") };
    }
    let _ = write!(told, "{} reads answered where keys lived before, {} keys copied; ", progress.hits, progress.copies);
    match progress.arrived {
        // How long that goes on is the apps' doing: what they never ask for never moves.
        Some(share) => {
            let of = progress.reads;
            let _ = write!(
                told,
                "of the last {of} reads of keys that have moved {:.1} % found them at their home",
                share * 100.0
            );
        }
        None => told.push_str("no keys that have moved were read lately"),
    }
    if progress.distrusted > 0 {
        let _ =
            write!(told, "; {} servers are not asked any more, they could not be told of a write", progress.distrusted);
    }
    told.push('\n');
}
