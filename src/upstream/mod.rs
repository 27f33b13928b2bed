//! The shards' side: connections, opened when wanted, watched, and opened again with growing patience.

pub mod config;
pub mod connection;
mod handshake;

pub use config::*;
