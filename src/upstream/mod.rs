//! The shards' side: connections, opened when wanted, watched, and opened again with growing patience.

// What comes from a network must not end a session by a panic; tests may.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::arithmetic_side_effects,
        clippy::panic,
        clippy::unreachable
    )
)]

pub mod config;
#[expect(clippy::arithmetic_side_effects, reason = "positions in a buffer, and waits of seconds")]
pub mod connection;
mod contained;
#[expect(
    clippy::arithmetic_side_effects,
    reason = "what a configuration can say is far from the end of a span, and divisors are not 0"
)]
pub mod dial;
mod handshake;
pub mod info;
#[expect(clippy::arithmetic_side_effects, reason = "constant spans of seconds")]
mod keep;
pub mod probe;
pub mod topology;

pub use config::*;
pub use contained::{node, run, run_own};
pub use topology::Topology;
