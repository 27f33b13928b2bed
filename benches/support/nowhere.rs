//! Where an engine's bytes go when nothing but the engine is measured.

use hotring::engine::port::{Port, Taken};
use hotring::engine::{LineId, SessionId};
use std::hint::black_box;

/// Sockets that swallow everything, so that only the engine is measured.
pub struct Nowhere;

impl Port for Nowhere {
    fn to_app(&mut self, _session: SessionId, bytes: &[u8]) -> Taken {
        Taken::Some(black_box(bytes).len())
    }

    fn to_shard(&mut self, _line: LineId, bytes: &[u8]) -> Taken {
        Taken::Some(black_box(bytes).len())
    }

    fn wake(&mut self, _session: SessionId) {}

    fn open(&mut self, _line: LineId) {}
}
