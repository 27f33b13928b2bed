//! Redis Sentinels: who is the primary of each name that they watch.

use super::{Answer, Settings};
use std::future::pending;

/// The sentinels of a pool.
#[derive(Debug)]
pub struct Source {
    settings: Settings,
}

impl Source {
    /// For a pool whose topology is theirs. `seed` is where chance begins.
    #[must_use]
    pub fn new(settings: Settings, _seed: u64) -> Self {
        Self { settings }
    }

    /// See [`super::Source::ask`].
    ///
    /// # Errors
    /// Always, until it is written.
    #[expect(clippy::unused_async, reason = "it will ask")]
    pub async fn ask(&mut self) -> Result<Answer, String> {
        Err(format!("sentinels cannot be asked yet ({})", self.settings.topology.kind()))
    }

    /// See [`super::Source::heard`].
    pub async fn heard(&mut self) {
        pending().await
    }
}
