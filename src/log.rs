//! What the process tells of itself on standard error.
//!
//! Promises: no worker waits for who reads it ([`Scribe`]): a pipe that nobody empties costs lines, which are counted
//! (`hotring_log_dropped_total`) and, once there is room again, told as a number. What was told last is written before the process ends,
//! if that takes no longer than who ends it wants to wait.

use crate::scribe::Scribe;
use std::io::{self, Write as _};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The log is the process', and so is who writes it.
static OWN: OnceLock<Scribe> = OnceLock::new();
/// Lines for which there was no room and of which nobody was told.
static UNTOLD: AtomicU64 = AtomicU64::new(0);

/// Who writes it. The first to ask starts the thread.
///
/// # Errors
/// Where there can be no thread.
pub fn start() -> io::Result<Scribe> {
    if let Some(own) = OWN.get() {
        return Ok(own.clone());
    }
    let scribe = Scribe::start("log", io::stderr())?;
    Ok(OWN.get_or_init(|| scribe).clone())
}

/// How many lines were lost since this was last asked; tells of those for which there was no room, if there is now.
pub fn dropped() -> u64 {
    let Some(own) = OWN.get() else { return 0 };
    let lost = own.take_lost();
    UNTOLD.fetch_add(lost.beyond, Ordering::Relaxed);
    if own.has_room() {
        let count = UNTOLD.swap(0, Ordering::Relaxed);
        if count > 0 {
            tracing::warn!(count, "lines of this log were left out: they were not read as fast as they came");
        }
    }
    lost.beyond + lost.failed
}

/// Waits until all that was told is written, for so long at most; whether it is.
pub fn settle(most: Duration) -> bool {
    OWN.get().is_none_or(|own| own.settle(most))
}

/// Writes the last words of the process, behind what was told before, and waits until they are written, for so long at most each; if
/// nobody reads what was told before, there is nobody for them either. Where there is no log they are written at once.
pub fn last_words(text: &str, most: Duration) {
    let line = format!("{}\n", text.trim_end());
    match OWN.get() {
        None => drop(io::stderr().write_all(line.as_bytes())),
        Some(own) => {
            if own.settle(most) {
                let _ = own.clone().write_all(line.as_bytes());
                own.settle(most);
            }
        }
    }
}
