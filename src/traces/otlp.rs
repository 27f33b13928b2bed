//! Sampled requests as spans, in OTLP's JSON encoding (opentelemetry.io/docs/specs/otlp, "JSON Protobuf Encoding"), with the
//! names of OpenTelemetry's semantic conventions for databases where there is one, and `hotring.` before the others.
//!
//! One trace a request: a span of kind server, named after the command, from when the request was read to when its reply was
//! there; below it one of kind client for each shard that was asked, from when it was sent to when its reply was read. Where
//! that was later than the request was read, a span `queued` lies between.

use super::{Record, Tracing};
use crate::chance::splitmix;
use crate::engine::samples::{Part, Source};
use crate::metrics::Label;
use crate::units::Address;
use serde_json::{Value, json};

/// Kinds of span, by number.
const INTERNAL: u32 = 1;
const SERVER: u32 = 2;
const CLIENT: u32 = 3;
/// What a span's status says of an error.
const FAILED: u32 = 2;

/// Draws the numbers of traces and spans.
#[derive(Debug)]
pub(super) struct Ids {
    seed: u64,
    drawn: u64,
}

impl Ids {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }

    fn next(&mut self) -> u64 {
        self.drawn = self.drawn.wrapping_add(1);
        // All zeros is no number.
        splitmix(self.seed ^ splitmix(self.drawn)).max(1)
    }
}

/// How many spans a request becomes, at most.
pub(super) fn spans_of(record: &Record) -> usize {
    1 + 2 * record.sample.parts.len()
}

/// A batch as the body of a request to a collector.
pub(super) fn body(tracing: &Tracing, records: &[Record], ids: &mut Ids) -> String {
    let mut resource = vec![
        text("service.name", &tracing.service_name),
        text("service.version", env!("CARGO_PKG_VERSION")),
        number("process.pid", u64::from(std::process::id())),
    ];
    let own = |name: &str| matches!(name, "service.name" | "service.version" | "process.pid");
    resource.extend(tracing.resource.iter().filter(|(name, _)| !own(name)).map(|(name, value)| text(name, value)));
    let spans: Vec<Value> = records.iter().flat_map(|record| spans(record, tracing.wanted.keys, ids)).collect();
    json!({"resourceSpans": [{
        "resource": {"attributes": resource},
        "scopeSpans": [{"scope": {"name": "hotring", "version": env!("CARGO_PKG_VERSION")}, "spans": spans}],
    }]})
    .to_string()
}

/// The spans of a request, its own first.
fn spans(record: &Record, keys: bool, ids: &mut Ids) -> Vec<Value> {
    let sample = &record.sample;
    let trace = format!("{:016x}{:016x}", ids.next(), ids.next());
    let root = format!("{:016x}", ids.next());
    let name = sample.command.to_ascii_uppercase();
    let about = || {
        vec![
            text("db.system.name", "redis"),
            text("db.operation.name", &name),
            text("db.namespace", &sample.db.to_string()),
            text("hotring.pool", &record.pool),
        ]
    };
    let mut attributes = about();
    attributes.push(text("hotring.source", sample.source.as_str()));
    attributes.push(number("hotring.reply.size", sample.reply_bytes));
    if sample.request_bytes > 0 {
        attributes.push(number("hotring.request.size", sample.request_bytes));
    }
    match record.shard_names()[..] {
        [] => {}
        [one] => attributes.push(text("hotring.shard", one)),
        ref several => attributes.push(list("hotring.shards", several.iter().copied())),
    }
    if sample.joined {
        attributes.push(json!({"key": "hotring.joined", "value": {"boolValue": true}}));
    }
    if keys && !sample.keys.is_empty() {
        let keys: Vec<_> = sample.keys.iter().map(|key| String::from_utf8_lossy(key)).collect();
        attributes.push(list("hotring.keys", keys.iter().map(AsRef::as_ref)));
    }
    place(&sample.local, ("server.address", "server.port"), &mut attributes);
    place(&sample.address, ("network.peer.address", "network.peer.port"), &mut attributes);
    if !sample.user.is_empty() {
        attributes.push(text("user.name", &sample.user));
    }
    if !sample.name.is_empty() {
        attributes.push(text("hotring.client.name", &String::from_utf8_lossy(&sample.name)));
    }
    let error = if sample.gone { Some("client_gone") } else { record.error() };
    let code = sample.code.as_deref().filter(|code| !code.is_empty());
    attributes.extend(code.map(|code| text("db.response.status_code", code)));
    attributes.extend(error.map(|error| text("error.type", error)));
    let end = record.time.saturating_add(u64::from(sample.took));
    let ids_of = (trace.as_str(), root.as_str(), "");
    let mut all = vec![span(ids_of, (&name, SERVER), (record.time, end), attributes, error.is_some())];
    for (part, shard) in sample.parts.iter().zip(&record.shards) {
        let Some((shard, at)) = shard else { continue };
        let sent = record.time.saturating_add(u64::from(part.sent));
        if part.sent > 0 {
            let own = format!("{:016x}", ids.next());
            let attributes = vec![text("hotring.pool", &record.pool), text("hotring.shard", shard)];
            all.push(span((&trace, &own, &root), ("queued", INTERNAL), (record.time, sent), attributes, false));
        }
        let mut attributes = about();
        attributes.push(text("hotring.shard", shard));
        attributes.push(text("hotring.source", part.source.as_str()));
        attributes.push(number("hotring.reply.size", part.reply_bytes));
        match at {
            Some(Address::Tcp { host, port }) => {
                attributes.push(text("server.address", host));
                attributes.push(number("server.port", u64::from(*port)));
            }
            Some(Address::Unix { path, .. }) => attributes.push(text("server.address", &path.display().to_string())),
            None => {}
        }
        let error = failure(part);
        attributes.extend(part.code.as_deref().filter(|c| !c.is_empty()).map(|c| text("db.response.status_code", c)));
        attributes.extend(error.map(|error| text("error.type", error)));
        let own = format!("{:016x}", ids.next());
        let kind = if part.source == Source::Embedded { INTERNAL } else { CLIENT };
        let until = sent.saturating_add(u64::from(part.took));
        all.push(span((&trace, &own, &root), (&name, kind), (sent, until), attributes, error.is_some()));
    }
    all
}

/// Why a part failed.
fn failure(part: &Part) -> Option<&str> {
    match (part.cause, part.code.as_deref()?) {
        (Some(cause), _) => Some(cause.as_str()),
        (None, "") => Some("_OTHER"),
        (None, code) => Some(code),
    }
}

fn span(
    (trace, own, parent): (&str, &str, &str),
    (name, kind): (&str, u32),
    (from, until): (u64, u64),
    attributes: Vec<Value>,
    failed: bool,
) -> Value {
    let nanos = |micros: u64| micros.saturating_mul(1000).to_string();
    let mut span = json!({
        "traceId": trace,
        "spanId": own,
        "name": name,
        "kind": kind,
        "startTimeUnixNano": nanos(from),
        "endTimeUnixNano": nanos(until),
        "attributes": attributes,
        "status": {},
    });
    if let Some(fields) = span.as_object_mut() {
        if !parent.is_empty() {
            fields.insert("parentSpanId".into(), parent.into());
        }
        if failed {
            fields.insert("status".into(), json!({"code": FAILED}));
        }
    }
    span
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn number(key: &str, value: u64) -> Value {
    // 64 bits are texts, as in all JSON of protocol buffers.
    json!({"key": key, "value": {"intValue": value.to_string()}})
}

fn list<'a>(key: &str, values: impl Iterator<Item = &'a str>) -> Value {
    let values: Vec<Value> = values.map(|value| json!({"stringValue": value})).collect();
    json!({"key": key, "value": {"arrayValue": {"values": values}}})
}

/// An address as CLIENT LIST tells it.
fn place(address: &str, (host, port): (&str, &str), attributes: &mut Vec<Value>) {
    let (name, number_of) = address.rsplit_once(':').unwrap_or((address, ""));
    let name = name.trim_start_matches('[').trim_end_matches(']');
    if !name.is_empty() {
        attributes.push(text(host, name));
        attributes.extend(number_of.parse().ok().filter(|&at| at > 0).map(|at| number(port, at)));
    }
}
