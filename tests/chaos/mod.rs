//! Apps that work and check every reply, and what they work on while it breaks.
#![allow(dead_code, unused_imports, reason = "each program uses its part")]

mod app;
mod cluster;
mod link;
mod model;
mod names;
mod process;
mod queue;
mod stand;
mod workload;

pub(crate) use cluster::{ClusterStand, Mover};
pub(crate) use link::{Gone, Link, Reply};
pub(crate) use model::Fault;
pub(crate) use process::Process;
pub(crate) use stand::{DURABLE, IMPATIENT, Stand};
pub(crate) use workload::{Counts, Homes, Plan, Sample, USUAL, Workload};
