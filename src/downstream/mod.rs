//! The apps' side: listeners, and a session for each connection.

pub mod config;
pub mod listener;
pub mod session;

pub use config::{BACKLOG, Config, MAX_OUTPUT, MAX_PIPELINE, MAX_REQUEST};
