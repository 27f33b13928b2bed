//! Batches of spans on their way to a collector.
//!
//! Promises: a batch is sent when it has [`BATCH`] spans or its first is [`AGE`] old, one at a time. What OTLP calls retryable
//! (429, 502, 503, 504), and a collector that cannot be reached or says nothing for [`PATIENCE`], is tried [`ATTEMPTS`] times,
//! later each time or as long after as `Retry-After` says; then, and when the collector refuses it, the batch is dropped and
//! counted. The log is told when exporting begins to fail and when it is well again, and not of each failure. Settings are
//! those of the moment.

use super::otlp::{Ids, body, spans_of};
use super::post::post;
use super::{Record, Tally, Tracing};
use crate::chance::splitmix;
use crate::metrics::TraceDropped;
use bytes::Bytes;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Spans that are enough for a batch.
pub const BATCH: usize = 512;
/// How long a span waits for others.
pub const AGE: Duration = Duration::from_secs(1);
/// How often a batch is tried.
pub const ATTEMPTS: u32 = 4;
/// How long a collector has to answer, as `OTEL_EXPORTER_OTLP_TIMEOUT` has it where nothing is said.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Between the first two attempts; twice as long each time.
const WAIT: Duration = Duration::from_secs(1);
/// However long a collector says to wait.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// However short.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
/// How long the last batch may take when the process stops.
const FAREWELL: Duration = Duration::from_secs(1);

struct Exporter<S> {
    settings: S,
    tally: Arc<Tally>,
    ids: Ids,
    seed: u64,
    waits: u64,
    /// Since when exporting fails.
    ill: bool,
}

/// Sends what comes out of the queue until it is told to stop; then once more what is there. `settings` tells what is wanted
/// now, `seed` is where chance begins.
pub async fn run(
    settings: impl Fn() -> Option<Tracing>,
    mut queue: mpsc::Receiver<Record>,
    tally: Arc<Tally>,
    seed: u64,
    quit: CancellationToken,
) {
    let mut exporter = Exporter { settings, tally, ids: Ids::new(seed), seed, waits: 0, ill: false };
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            biased;
            () = quit.cancelled() => break,
            first = queue.recv() => match first {
                Some(first) => batch.push(first),
                None => break,
            },
        }
        gather(&mut queue, &mut batch, &quit).await;
        exporter.deliver(std::mem::take(&mut batch), &quit).await;
    }
    while let Ok(record) = queue.try_recv() {
        batch.push(record);
    }
    if !batch.is_empty() {
        exporter.deliver(batch, &quit).await;
    }
}

/// Fills a batch that has begun.
async fn gather(queue: &mut mpsc::Receiver<Record>, batch: &mut Vec<Record>, quit: &CancellationToken) {
    let mut old = pin!(sleep(AGE));
    let mut spans: usize = batch.iter().map(spans_of).sum();
    while spans < BATCH {
        let next = tokio::select! {
            biased;
            () = quit.cancelled() => return,
            () = &mut old => return,
            next = queue.recv() => next,
        };
        let Some(record) = next else { return };
        spans += spans_of(&record);
        batch.push(record);
    }
}

/// What an attempt came to.
enum Outcome {
    /// The collector has it, but for so many spans.
    Taken(u64),
    /// It does not want it.
    Refused(String),
    /// Perhaps later; after so long, if it says so.
    Later(String, Option<Duration>),
}

impl<S: Fn() -> Option<Tracing>> Exporter<S> {
    async fn deliver(&mut self, batch: Vec<Record>, quit: &CancellationToken) {
        let count = batch.len() as u64;
        let mut wait = WAIT;
        let mut encoded: Option<(Tracing, Bytes)> = None;
        for attempt in 1..=ATTEMPTS {
            let Some(tracing) = (self.settings)() else { return self.tally.dropped(TraceDropped::Off, count) };
            if encoded.as_ref().is_none_or(|(before, _)| *before != tracing) {
                let body = body(&tracing, &batch, &mut self.ids);
                encoded = Some((tracing, body.into()));
            }
            let Some((tracing, body)) = &encoded else { return };
            let last = attempt == ATTEMPTS || quit.is_cancelled();
            let answer = tokio::select! {
                answer = post(&tracing.endpoint, &tracing.headers, body.clone()) => answer,
                () = sleep(PATIENCE) => Err("no answer".into()),
                () = farewell(quit) => Err("no answer until hotring stopped".into()),
            };
            let outcome = match answer {
                Err(error) => Outcome::Later(error, None),
                Ok(answer) => match answer.status {
                    200..=299 => Outcome::Taken(rejected(&answer.body)),
                    status @ (429 | 502 | 503 | 504) => Outcome::Later(format!("HTTP {status}"), answer.retry_after),
                    status => Outcome::Refused(format!("HTTP {status}")),
                },
            };
            let endpoint = tracing.endpoint.to_string();
            match outcome {
                Outcome::Taken(rejected) => {
                    // Of spans, and this counts requests: never more than there were.
                    let rejected = rejected.min(count);
                    self.tally.dropped(TraceDropped::Refused, rejected);
                    self.tally.exported.fetch_add(count - rejected, Ordering::Relaxed);
                    if std::mem::take(&mut self.ill) {
                        tracing::info!(endpoint, "spans are exported again");
                    }
                    return;
                }
                Outcome::Refused(reason) => {
                    self.failed(&endpoint, &reason);
                    return self.tally.dropped(TraceDropped::Refused, count);
                }
                Outcome::Later(reason, asked) => {
                    self.failed(&endpoint, &reason);
                    if last {
                        break;
                    }
                    let pause = asked.unwrap_or_else(|| self.jittered(wait)).clamp(SHORTEST_WAIT, LONGEST_WAIT);
                    wait *= 2;
                    // Told to stop, it tries once more.
                    tokio::select! {
                        () = quit.cancelled() => {}
                        () = sleep(pause) => {}
                    }
                }
            }
        }
        self.tally.dropped(TraceDropped::Failed, count);
    }

    fn failed(&mut self, endpoint: &str, reason: &str) {
        self.tally.failures.fetch_add(1, Ordering::Relaxed);
        if !std::mem::replace(&mut self.ill, true) {
            tracing::warn!(endpoint, reason, "spans cannot be exported");
        }
    }

    /// Between half of a time and all of it, so that many processes do not come back at once.
    fn jittered(&mut self, wait: Duration) -> Duration {
        self.waits += 1;
        wait.mul_f64(0.5 + (splitmix(self.seed ^ self.waits) >> 11) as f64 / (1u64 << 54) as f64)
    }
}

/// Returns some time after the process was told to stop.
async fn farewell(quit: &CancellationToken) {
    quit.cancelled().await;
    sleep(FAREWELL).await;
}

/// How many spans a collector did not take of a batch that it took.
fn rejected(body: &[u8]) -> u64 {
    let Ok(answer) = serde_json::from_slice::<serde_json::Value>(body) else { return 0 };
    let rejected = answer.get("partialSuccess").and_then(|partial| partial.get("rejectedSpans"));
    rejected.and_then(|count| count.as_u64().or_else(|| count.as_str()?.parse().ok())).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_collector_rejects_is_read() {
        assert_eq!(rejected(b""), 0);
        assert_eq!(rejected(b"{}"), 0);
        assert_eq!(rejected(br#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"x"}}"#), 3);
        assert_eq!(rejected(br#"{"partialSuccess":{"rejectedSpans":4}}"#), 4);
        assert_eq!(rejected(br#"{"partialSuccess":null}"#), 0);
    }
}
