//! What is done when keys are asked for that are not there.
//!
//! Promises: nothing here waits, knows a clock or draws lots; without a word of it in the configuration nothing is done.

pub mod absent;
mod barred;
mod config;
mod early;
mod expired;
mod guard;
pub mod jitter;
mod pace;
mod refresh;
mod shared;
mod table;
mod turns;

pub use config::{Config, Lease, Rule, Wanted};
pub use early::{Early, Life, Until, fires};
pub use expired::Expired;
pub use pace::Pace;
pub use refresh::Expiry;
pub use shared::{Bell, Leases, Shared};
pub use table::{Claim, Conn, Found, Key, MOST_ENTRIES, MOST_WAITS, Missed, Order, Reader, Table, Then, Why, Worst};
pub use turns::Write;
