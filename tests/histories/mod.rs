//! Histories of apps that read and write few keys through several hotrings at a time, and whether they may be.
//!
//! The order in which a key was written is not guessed: every shard tells it while it happens ([`monitor`]). Against that order
//! [`checker`] holds what each app was answered.
#![allow(dead_code, unused_imports, reason = "each program uses its part")]

mod checker;
mod model;
mod monitor;
mod naive;
mod workload;

pub(crate) use checker::{Report, Rule, Rules, Scope, Violation, check};
pub(crate) use model::{Clock, Entry, History, Kind, Log, Nanos, Op, Print, Said};
pub(crate) use monitor::Monitors;
pub(crate) use naive::Naive;
pub(crate) use workload::{Chance, Plan, run};
