//! The apps' side: listeners, and a session for each connection.

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
pub mod farewell;
pub mod listener;
pub mod reserve;
pub mod session;

pub use config::{BACKLOG, Config, MAX_OUTPUT, MAX_PIPELINE, MAX_REQUEST};
