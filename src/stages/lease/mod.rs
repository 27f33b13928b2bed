//! What is done when keys are asked for that are not there.
//!
//! Promises: nothing here waits, knows a clock or draws lots; without a word of it in the configuration nothing is done.

pub mod absent;
mod config;

pub use config::{Config, Lease, Rule, Wanted};
