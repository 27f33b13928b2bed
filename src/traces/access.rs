//! The log of accesses: a line of JSON for each sampled request.
//!
//! Promises: lines are written whole and in the order in which replies were there, as seen by one worker. A file is opened
//! for each batch and closed again, so that it can be moved away at any time. One that cannot be written costs its lines, which
//! are counted, and one line of the log, until it can be again. A disk that hangs holds up nothing but these lines.

use super::time::rfc3339;
use super::{AccessLog, Record, Tally, To};
use crate::metrics::Label;
use serde_json::{Map, Value, json};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Lines that are enough for a write.
const BATCH: usize = 512;
/// How long a line waits for others.
const AGE: Duration = Duration::from_millis(200);
/// How long the last write may take when the process stops.
const FAREWELL: Duration = Duration::from_secs(1);

/// Writes what comes out of the queue until it is told to stop; then once more what is there. `settings` tells what is wanted
/// now.
pub async fn run(
    settings: impl Fn() -> Option<AccessLog>,
    mut queue: mpsc::Receiver<Record>,
    tally: Arc<Tally>,
    quit: CancellationToken,
) {
    let mut ill = false;
    let mut over = false;
    while !over {
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            () = quit.cancelled() => over = true,
            first = queue.recv() => match first {
                Some(first) => batch.push(first),
                None => over = true,
            },
        }
        let mut old = pin!(sleep(AGE));
        while !over && batch.len() < BATCH {
            tokio::select! {
                biased;
                () = quit.cancelled() => over = true,
                () = &mut old => break,
                next = queue.recv() => match next {
                    Some(record) => batch.push(record),
                    None => break,
                },
            }
        }
        while over && let Ok(record) = queue.try_recv() {
            batch.push(record);
        }
        let Some(log) = settings().filter(|_| !batch.is_empty()) else { continue };
        let count = batch.len() as u64;
        let mut text = String::new();
        for record in &batch {
            text.push_str(&line(record, log.wanted.keys).to_string());
            text.push('\n');
        }
        let to = log.to.clone();
        let writing = tokio::task::spawn_blocking(move || write(&to, text.as_bytes()));
        let written = if quit.is_cancelled() {
            match tokio::time::timeout(FAREWELL, writing).await {
                Ok(written) => written,
                Err(_) => Ok(Err(io::ErrorKind::TimedOut.into())),
            }
        } else {
            writing.await
        };
        match written.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(()) => {
                tally.lines.fetch_add(count, Ordering::Relaxed);
                if std::mem::take(&mut ill) {
                    tracing::info!(to = %log.to, "the log of accesses is written again");
                }
            }
            Err(error) => {
                tally.lines_dropped.fetch_add(count, Ordering::Relaxed);
                if !std::mem::replace(&mut ill, true) {
                    tracing::warn!(to = %log.to, %error, "the log of accesses cannot be written");
                }
            }
        }
    }
}

fn write(to: &To, text: &[u8]) -> io::Result<()> {
    match to {
        To::Stdout => {
            let mut out = io::stdout().lock();
            out.write_all(text)?;
            out.flush()
        }
        To::Stderr => io::stderr().lock().write_all(text),
        To::File(path) => {
            // Who asked for what is not for everybody; a group may collect it.
            OpenOptions::new().append(true).create(true).mode(0o640).open(path)?.write_all(text)
        }
    }
}

/// What is told of a request.
fn line(record: &Record, keys: bool) -> Value {
    let sample = &record.sample;
    // Several parts wait at the same time: the longest way is what the servers took.
    let server = sample.parts.iter().map(|part| part.took).max().unwrap_or(0).min(sample.took);
    let outcome = match (sample.gone, &sample.code) {
        (true, _) => "gone",
        (false, Some(_)) => "error",
        (false, None) => "ok",
    };
    let mut line = Map::new();
    let mut tell = |name: &str, value: Value| line.insert(name.to_owned(), value);
    tell("time", json!(rfc3339(record.time)));
    tell("pool", json!(*record.pool));
    tell("client", json!(*sample.address));
    tell("client_id", json!(sample.client));
    if !sample.name.is_empty() {
        tell("client_name", json!(String::from_utf8_lossy(&sample.name)));
    }
    tell("user", json!(*sample.user));
    tell("db", json!(sample.db));
    tell("command", json!(sample.command.to_ascii_uppercase()));
    if keys {
        let keys: Vec<_> = sample.keys.iter().map(|key| String::from_utf8_lossy(key)).collect();
        tell("keys", json!(keys));
    }
    tell("source", json!(sample.source.as_str()));
    tell("shards", json!(record.shard_names()));
    tell("joined", json!(sample.joined));
    tell("request_bytes", json!(sample.request_bytes));
    tell("reply_bytes", json!(sample.reply_bytes));
    tell("took_us", json!(sample.took));
    tell("proxy_us", json!(sample.took - server));
    tell("server_us", json!(server));
    tell("outcome", json!(outcome));
    if let Some(code) = &sample.code {
        tell("error", json!(**code));
    }
    if let Some(cause) = sample.cause.filter(|_| sample.code.is_some()) {
        tell("cause", json!(cause.as_str()));
    }
    Value::Object(line)
}
