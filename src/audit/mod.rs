//! The audit log: who was denied what, who could not log in or showed no good certificate, who changed something over the admin listener.
//!
//! Each line is an event of `tracing` with the target [`TARGET`] and the fields `event`, `pool`, `user`, `peer`, `command`, `reason`
//! and `outcome`, as far as they apply; beside them `keys`, the number of a request's keys. Where it is written is `log.audit`.
//!
//! Promises: no key, no value, no password. What others can cause at will (`denied`, `auth`, `tls`) is [`RATE`] lines a second at most;
//! of what is beyond there is a number, told by [`summary`]. Nobody waits for what has a place of its own to be written ([`Scribe`]).
//! Does not: rotate a file.

use crate::bucket::Bucket;
use crate::engine::trail::Entry;
use crate::scribe::Scribe;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing_subscriber::layer::{Context, Filter};

/// The target of its events.
pub const TARGET: &str = "hotring::audit";
/// Lines a second of what others can cause at will.
pub const RATE: u64 = 100;

/// The log is the process', and so is its bound.
static BOUND: Mutex<Option<(Instant, Bucket)>> = Mutex::new(None);
static SUPPRESSED: AtomicU64 = AtomicU64::new(0);
static OFF: AtomicBool = AtomicBool::new(false);
/// Who writes it, where it has a place of its own.
static OWN: OnceLock<Scribe> = OnceLock::new();

/// Gives it a place of its own.
///
/// # Errors
/// Where there can be no thread.
pub fn start(to: impl Write + Send + 'static) -> io::Result<Scribe> {
    let scribe = Scribe::start("audit", to)?;
    Ok(OWN.get_or_init(|| scribe).clone())
}

/// Waits until all that was told is written there, for so long at most.
pub fn settle(most: Duration) {
    if let Some(own) = OWN.get() {
        own.settle(most);
    }
}

/// Nobody is to be told anything: nothing is counted as left out either.
pub fn switch_off() {
    OFF.store(true, Ordering::Relaxed);
}

/// Writes what a worker has noted; `suppressed` is the number of what it has not.
pub fn tell(entries: &[Entry], suppressed: u64) {
    if OFF.load(Ordering::Relaxed) {
        return;
    }
    SUPPRESSED.fetch_add(suppressed, Ordering::Relaxed);
    for Entry { event, pool, user, peer, command, keys, reason, .. } in entries {
        // Not by the filter: one that looks at events leaves the filters of other logs in doubt.
        if !is_within_bound() {
            SUPPRESSED.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        // Before there is a session there is neither a user nor a request.
        let some = !command.is_empty();
        tracing::info!(
            target: TARGET,
            event = *event,
            pool = pool.as_str(),
            user = some.then_some(user.as_str()),
            peer = peer.as_str(),
            command = some.then_some(*command),
            keys = some.then_some(*keys),
            reason = *reason,
            outcome = "refused"
        );
    }
}

/// Writes how many lines were left out since this was last asked, and returns it.
pub fn summary() -> u64 {
    let lost = OWN.get().map(Scribe::take_lost).unwrap_or_default();
    let count = SUPPRESSED.swap(0, Ordering::Relaxed) + lost.beyond + lost.failed;
    if count > 0 {
        tracing::info!(target: TARGET, event = "suppressed", count);
    }
    count
}

/// Which events a log takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sieve {
    /// The least level of all others; `OFF` takes none of them.
    pub level: LevelFilter,
    /// Up to which level it takes those of the audit log; `OFF` takes none.
    pub audit: LevelFilter,
}

impl Sieve {
    fn takes(&self, metadata: &Metadata<'_>) -> bool {
        let level = if metadata.target() == TARGET { self.audit } else { self.level };
        *metadata.level() <= level
    }
}

impl<S> Filter<S> for Sieve {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.takes(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.takes(metadata) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level.max(self.audit))
    }
}

/// Whether one line more may be written now.
#[expect(clippy::disallowed_methods, reason = "nothing but the log depends on it")]
fn is_within_bound() -> bool {
    let mut bound = BOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let (since, bucket) = bound.get_or_insert_with(|| (Instant::now(), Bucket::new(RATE, RATE)));
    bucket.take(1, since.elapsed().as_micros() as u64)
}
