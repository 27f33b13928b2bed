//! Every metric of hotring: declared once, counted locally, published together.
//!
//! - `list` declares them, scope by scope. From a declaration come the plain counts a worker adds to
//!   ([`PoolCounts`] ...), the handles they are folded into ([`PoolMetrics`] ...), [`METRICS`], and so the README's table.
//! - [`Exporter`] owns the process-wide values and renders them. Nothing global is installed: two can live in one process.
//! - [`LatencyHistogram`] is the hot path's histogram.
//!
//! Promises: names start with `hotring_`, but for those of any process (`process_`); counters end in `_total`, units are seconds
//! and bytes, label values come from the config, from the table of commands or from the enums here; the version that a server
//! tells of itself is the one exception. A series is rendered as long as one worker holds it, so a backend that left the
//! config leaves `/metrics` too; its counters go on where they stopped if it returns.
//!
//! Does not: put a key, a client address or a command's arguments into a label; read the clock; touch an atomic for a
//! request. Counts are behind by up to one tick.

mod buckets;
mod export;
mod latency;
mod list;
mod tally;

pub use buckets::{Buckets, SharedBuckets};
pub use export::Exporter;
pub use latency::{BOUNDS, LatencyHistogram, SharedHistogram, Snapshot};
pub use list::*;
pub use tally::{Label, Level, Per, Setting, Tally, Told, ToldCount};

/// One declared metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// The full name, as rendered.
    pub name: &'static str,
    /// What its numbers mean.
    pub kind: Kind,
    /// The labels every series of its scope has.
    pub scope: &'static [&'static str],
    /// One label more, whose values are those of an enum in this module.
    pub by: Option<&'static str>,
    /// What it counts in.
    pub unit: Unit,
    /// One or two sentences for the reader of a dashboard.
    pub help: &'static str,
}

impl Metric {
    /// All label names in the order in which they are rendered; a histogram's `le` is not among them.
    pub fn labels(&self) -> impl Iterator<Item = &'static str> {
        self.scope.iter().copied().chain(self.by)
    }
}

/// Prometheus's type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the process restarts.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Cumulative buckets with a sum and a count.
    Histogram,
}

impl Kind {
    /// The word of the exposition format.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What a metric's value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things: requests, connections, a yes as 1.
    One,
    /// Bytes.
    Bytes,
    /// Parts of a whole, or times something, when rendered. Settings hold whole millionths.
    Ratio,
    /// Seconds when rendered. Counts, levels and settings hold whole **microseconds**.
    Seconds,
}

/// The table of all metrics in markdown, one row a metric, for the README.
pub fn table() -> String {
    let mut table = String::from("| Metric | Type | Labels | Meaning |\n| --- | --- | --- | --- |\n");
    for metric in METRICS {
        let labels: Vec<String> = metric.labels().map(|label| format!("`{label}`")).collect();
        let row = [&format!("`{}`", metric.name), metric.kind.as_str(), &labels.join(", "), metric.help];
        table.push_str(&format!("| {} |\n", row.join(" | ")));
    }
    table
}
