//! What all targets share with the tests of the crate.

#![allow(dead_code, unreachable_pub, reason = "each target uses a part")]

#[path = "../../support/fuzzing.rs"]
pub mod fuzzing;
#[path = "../../support/engine.rs"]
pub mod support;
