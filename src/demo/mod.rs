//! What hotring does, to be watched: apps that are not there work against a proxy that is, and both are counted.
//!
//! Promises: needs no Redis and no file, listens on free ports of 127.0.0.1 only, and leaves nothing behind. What it counts is what
//! the apps were told, not what the proxy says of itself.
//!
//! Does not: measure how fast anything is, since apps, proxy and shards are one process. `benches/misses.rs` has its apps from here,
//! with everything else in processes of its own.

mod app;
mod herd;
mod stampede;

pub use app::{Answer, App};
pub use herd::{Herd, Plan, Tally, Wait};
pub use stampede::{Stampede, stampede};

use std::time::Instant;

#[expect(clippy::disallowed_methods, reason = "apps have a clock")]
fn now() -> Instant {
    Instant::now()
}
