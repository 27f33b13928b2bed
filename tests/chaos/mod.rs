//! Apps that work and check every reply, and what they work on while it breaks.
#![allow(dead_code, unused_imports, reason = "each program uses its part")]

mod app;
mod link;
mod model;
mod process;
mod stand;
mod workload;

pub(crate) use link::{Gone, Link, Reply};
pub(crate) use model::Fault;
pub(crate) use process::Process;
pub(crate) use stand::{DURABLE, IMPATIENT, Stand};
pub(crate) use workload::{Counts, Plan, Sample, USUAL, Workload};
