//! What becomes of sampled requests: spans for a collector of OpenTelemetry, and lines for the log of accesses.
//!
//! ```text
//! engine::samples -> worker -> Outlets (two bounded queues) -> spans::run  -> one POST for each batch
//!                                                           -> access::run -> one write for each batch
//! ```
//!
//! Promises: whoever serves requests never waits for a collector or a disk: what a full queue does not take is counted and
//! forgotten. Nothing here knows a value that an app has stored; keys are there where they were asked for. Does not take part
//! in traces of apps: RESP has no room for a context, so each sampled request is a trace of its own.

// What comes from a network must not end a task by a panic; tests may.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::panic,
        clippy::unreachable
    )
)]

pub mod access;
pub mod config;
mod otlp;
mod post;
pub mod spans;
mod time;

pub use config::{AccessLog, Endpoint, To, Tracing};

use crate::engine::samples::Sample;
use crate::metrics::TraceDropped;
use crate::units::Address;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// Sampled requests that wait for a batch of spans, and as many for the log of accesses.
pub const QUEUE: usize = 2048;

/// A sampled request with the names of what it met.
#[derive(Clone, Debug)]
pub struct Record {
    /// What the engine saw.
    pub sample: Sample,
    /// When it was read, in microseconds since 1970.
    pub time: u64,
    /// The pool's name.
    pub pool: Arc<str>,
    /// For each part of it the shard's name and where that is; `None` for what no shard was asked for.
    pub shards: Vec<Option<(String, Option<Address>)>>,
}

impl Record {
    /// The names of the shards that had a part in it, each once, in the order of their replies.
    fn shard_names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for (name, _) in self.shards.iter().flatten() {
            if !names.contains(&name.as_str()) {
                names.push(name.as_str());
            }
        }
        names
    }

    /// Why its reply is an error, in a word for machines: hotring's cause, or the first word of the shard's reply.
    fn error(&self) -> Option<&str> {
        use crate::metrics::Label;
        let code = self.sample.code.as_deref()?;
        Some(match self.sample.cause {
            Some(cause) => cause.as_str(),
            None if code.is_empty() => "_OTHER",
            None => code,
        })
    }
}

/// What was counted since it was last asked for.
#[derive(Debug, Default)]
pub struct Tally {
    exported: AtomicU64,
    failures: AtomicU64,
    dropped: [AtomicU64; TraceDropped::COUNT],
    lines: AtomicU64,
    lines_dropped: AtomicU64,
}

/// As [`Tally`], taken.
#[derive(Debug, Default)]
pub struct Counted {
    /// Sampled requests whose spans a collector has taken.
    pub exported: u64,
    /// Attempts to send a batch that came to nothing.
    pub failures: u64,
    /// Sampled requests whose spans nobody got, by why.
    pub dropped: [u64; TraceDropped::COUNT],
    /// Lines of the log of accesses that were written.
    pub lines: u64,
    /// Those that were not.
    pub lines_dropped: u64,
}

impl Tally {
    fn dropped(&self, why: TraceDropped, count: u64) {
        if let Some(dropped) = self.dropped.get(why as usize) {
            dropped.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Takes what was counted.
    pub fn take(&self) -> Counted {
        let take = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
        Counted {
            exported: take(&self.exported),
            failures: take(&self.failures),
            dropped: self.dropped.each_ref().map(take),
            lines: take(&self.lines),
            lines_dropped: take(&self.lines_dropped),
        }
    }
}

/// Where workers put what they have sampled.
#[derive(Clone, Debug)]
pub struct Outlets {
    spans: mpsc::Sender<Record>,
    lines: mpsc::Sender<Record>,
    tally: Arc<Tally>,
}

impl Outlets {
    /// The two queues: their beginning, and the ends for [`spans::run`] and [`access::run`].
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Record>, mpsc::Receiver<Record>) {
        let ((spans, to_collector), (lines, to_log)) = (mpsc::channel(QUEUE), mpsc::channel(QUEUE));
        (Self { spans, lines, tally: Arc::default() }, to_collector, to_log)
    }

    /// What is counted.
    #[must_use]
    pub fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// How many requests wait in the queues: for spans, and for lines.
    #[must_use]
    pub fn waiting(&self) -> (u64, u64) {
        let waiting = |queue: &mpsc::Sender<Record>| queue.max_capacity().saturating_sub(queue.capacity()) as u64;
        (waiting(&self.spans), waiting(&self.lines))
    }

    /// Puts a request where it is wanted, unless that is full.
    pub fn put(&self, record: Record) {
        let (trace, log) = (record.sample.trace, record.sample.log);
        let copy = (trace && log).then(|| record.clone());
        let (span, line) = if trace { (Some(record), copy) } else { (None, Some(record).filter(|_| log)) };
        if let Some(record) = span
            && self.spans.try_send(record).is_err()
        {
            self.tally.dropped(TraceDropped::Queue, 1);
        }
        if let Some(record) = line
            && self.lines.try_send(record).is_err()
        {
            self.tally.lines_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A worker has sampled more than it could keep until it came here.
    pub fn lost(&self, count: u64) {
        self.tally.dropped(TraceDropped::Worker, count);
    }
}
