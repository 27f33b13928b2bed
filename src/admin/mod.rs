//! The admin listener: what operators, probes and Prometheus ask of the running process, over HTTP/1.1.
//!
//! Everybody who reaches it may read; who changes something (`POST /reload`, which has the process read its own file again) shows a
//! token (`gate`). Nothing here takes a configuration from its peer. It asks a [`Source`] and knows nothing of workers, pools or
//! config itself.
//!
//! Promises: a request has a bounded head and a deadline, a connection serves one request, at most
//! [`Limits::connections`] are open; garbage costs its own connection only. HTTP keep-alive is absent on purpose: with one
//! request a connection, two deadlines bound everything a peer can hold. So is TLS: bind it to loopback, to a pod's own address or
//! to a unix socket. Whoever reaches it reads the config (without its secrets), the metrics and the names of hot keys.

mod faults;
mod gate;
mod listener;
mod page;
mod query;
pub mod status;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio_util::sync::CancellationToken;

use crate::metrics::AdminAction;
pub use faults::Wanted;
pub use gate::Access;
use gate::Gate;
pub use listener::{Limits, Listener};
use query::Explain;
use status::Status;

/// What `explain` gives: the text, or why there is none.
pub type Explanation = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

/// The process as the admin listener sees it. Called on the admin's own runtime; only `explain` may take its time.
pub trait Source: Send + Sync {
    /// What is asked of those who come, now.
    fn access(&self) -> Access;
    /// Counts what became of a request to change something.
    fn acted(&self, outcome: AdminAction);
    /// All metrics in the Prometheus text format, version 0.0.4.
    fn metrics(&self) -> String;
    /// Whether this process should get traffic now.
    fn ready(&self) -> Readiness;
    /// The running config as YAML, secrets masked.
    fn config(&self) -> String;
    /// Which servers each pool has, as its topology says; some lines a pool.
    fn topology(&self) -> String;
    /// The hot keys of all pools, as JSON.
    fn hot_keys(&self) -> String;
    /// How far the pools are that look for keys where they lived before, for people.
    fn warm(&self) -> String;
    /// What would happen to this request (command first, then its arguments) in that pool, or in the only one.
    fn explain(&self, pool: Option<String>, request: Vec<Vec<u8>>) -> Explanation;
    /// Reads the configuration again and goes on with it; `dry` only tells what would change. The text is for people, also
    /// where it was not taken.
    fn reload(&self, dry: bool) -> Explanation;
    /// What the process knows of itself.
    fn status(&self) -> Status;
    /// The rules by which faults are injected, a line each.
    fn faults(&self) -> String;
    /// Adds such a rule. The text is for people, also where it was not taken.
    fn add_fault(&self, wanted: Wanted) -> Explanation;
    /// Takes one away, by its number, or all.
    fn remove_faults(&self, id: Option<u64>) -> Explanation;
    /// One row for each backend, in the order to show them.
    fn backends(&self) -> Vec<Backend>;
}

/// The answer to a readiness probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Send traffic. The text is for people, and may be empty.
    Ready(String),
    /// Do not; one reason each.
    NotReady(Vec<String>),
}

/// A backend's row in `/backends`; the numbers are summed over the workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Its pool.
    pub pool: String,
    /// Its name in the ring.
    pub name: String,
    /// Where it is.
    pub address: String,
    /// What it is to its pool, in one word: primary, replica ...
    pub role: String,
    /// One word or a few: up, connecting, ejected ...
    pub state: String,
    /// Open connections.
    pub connections: u64,
    /// Commands not sent yet.
    pub in_queue: u64,
    /// Commands without a reply yet.
    pub out_queue: u64,
}

/// Serves until `shutdown` is cancelled, then finishes the requests it has read, for up to [`Limits::drain`].
///
/// # Errors
/// When accepting has failed without a break for about ten seconds.
pub async fn serve(
    listener: impl Into<Listener>,
    source: Arc<dyn Source>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    serve_within(Limits::default(), listener, source, shutdown).await
}

/// [`serve`] with other limits.
///
/// # Errors
/// As [`serve`].
pub async fn serve_within(
    limits: Limits,
    listener: impl Into<Listener>,
    source: Arc<dyn Source>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    listener::run(listener.into(), routes(limits, source), limits, shutdown).await
}

/// All there is. Whatever is put here stands behind the gate, which knows a change by its method: no GET may make one.
fn routes(limits: Limits, source: Arc<dyn Source>) -> Router {
    let gate = middleware::from_fn_with_state(Gate::new(Arc::clone(&source)), gate::pass);
    Router::new()
        .route("/", get(async |headers: HeaderMap| page::answer(&headers, INDEX)))
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || text(StatusCode::OK, "ok\n")))
        .route("/readyz", get(ready))
        .route("/config", get(async |State(source): State<Arc<dyn Source>>| text(StatusCode::OK, source.config())))
        .route("/backends", get(async |State(source): State<Arc<dyn Source>>| backends(&source.backends())))
        .route("/topology", get(async |State(source): State<Arc<dyn Source>>| text(StatusCode::OK, source.topology())))
        .route("/status", get(status))
        .route("/hotkeys", get(hot_keys))
        .route("/warm", get(async |State(source): State<Arc<dyn Source>>| text(StatusCode::OK, source.warm())))
        .route("/explain", get(async move |State(source), RawQuery(query)| explain(source, query, limits.answer).await))
        .route("/reload", post(async move |State(source), RawQuery(query)| reload(source, query, limits.answer).await))
        .route(
            "/faults",
            get(async |State(source): State<Arc<dyn Source>>| text(StatusCode::OK, source.faults()))
                .post(async move |State(source), RawQuery(query)| add_fault(source, query, limits.answer).await)
                .delete(async move |State(source), RawQuery(query)| remove_faults(source, query, limits.answer).await),
        )
        .route("/version", get(async || text(StatusCode::OK, VERSION)))
        .fallback(async || text(StatusCode::NOT_FOUND, "no such page; / lists them\n"))
        .method_not_allowed_fallback(async || {
            text(StatusCode::METHOD_NOT_ALLOWED, "wrong method; / lists what there is\n")
        })
        .with_state(source)
        .layer(gate)
}

const VERSION: &str = concat!("hotring ", env!("CARGO_PKG_VERSION"), "\n");

const INDEX: &str = concat!(
    "hotring ",
    env!("CARGO_PKG_VERSION"),
    "

/           in a browser: the status page; else this list
/metrics    Prometheus
/healthz    200 as long as the process runs
/readyz     200 when it should get traffic, else 503 and the reasons
/config     the running config, secrets masked
/backends   the backends and how they are
/status     all of that for programs, as JSON, with the last minutes
/topology   which servers the pools have, and who says so
/hotkeys    which keys are hot and what serves them, as JSON
/warm       how far the pools are that look for keys where they lived before
/faults     which faults are injected on purpose, and for how long yet
/explain    ?key=K[&command=GET][&arg=A ...][&pool=P]  what would happen to a request
/version    which hotring this is

POST /reload            reads the configuration again and goes on with it
POST /reload?dry_run    tells what that would change

POST /faults            ?delay=200ms[&where=request] or ?error=TEXT or ?drop,
                        and [&pool=P][&command=GET,SET][&prefix=P][&share=0.1][&ttl=5m]
DELETE /faults          [?id=N]  ends one, or all

POST and DELETE need the header `Authorization: Bearer TOKEN`, with the token of the configuration (`admin_token`).
"
);

/// Reloads, or tells what a reload would change.
async fn reload(source: Arc<dyn Source>, query: Option<String>, patience: Duration) -> Response {
    let dry = match query.as_deref().unwrap_or_default() {
        "" => false,
        "dry_run" | "dry_run=true" => true,
        _ => return text(StatusCode::BAD_REQUEST, "expected nothing, or ?dry_run\n"),
    };
    match tokio::time::timeout(patience, source.reload(dry)).await {
        Ok(Ok(told)) => text(StatusCode::OK, told),
        Ok(Err(wrong)) => text(StatusCode::UNPROCESSABLE_ENTITY, format!("{}\n", wrong.trim_end())),
        Err(_) => text(StatusCode::GATEWAY_TIMEOUT, "not done in time; the log tells what becomes of it\n"),
    }
}

async fn add_fault(source: Arc<dyn Source>, query: Option<String>, patience: Duration) -> Response {
    match faults::parse(query.as_deref().unwrap_or_default()) {
        Ok(wanted) => changed(source.add_fault(wanted), patience).await,
        Err(wrong) => text(StatusCode::BAD_REQUEST, format!("{wrong}\n")),
    }
}

async fn remove_faults(source: Arc<dyn Source>, query: Option<String>, patience: Duration) -> Response {
    match faults::which(query.as_deref().unwrap_or_default()) {
        Ok(id) => changed(source.remove_faults(id), patience).await,
        Err(wrong) => text(StatusCode::BAD_REQUEST, format!("{wrong}\n")),
    }
}

async fn changed(change: Explanation, patience: Duration) -> Response {
    match tokio::time::timeout(patience, change).await {
        Ok(Ok(told)) => text(StatusCode::OK, told),
        Ok(Err(wrong)) => text(StatusCode::UNPROCESSABLE_ENTITY, format!("{}\n", wrong.trim_end())),
        Err(_) => text(StatusCode::GATEWAY_TIMEOUT, "no worker answered in time\n"),
    }
}

async fn status(State(source): State<Arc<dyn Source>>) -> Response {
    match serde_json::to_string(&source.status()) {
        Ok(told) => ([(header::CONTENT_TYPE, "application/json")], told + "\n").into_response(),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

async fn hot_keys(State(source): State<Arc<dyn Source>>) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json")];
    (headers, source.hot_keys()).into_response()
}

async fn metrics(State(source): State<Arc<dyn Source>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], source.metrics()).into_response()
}

async fn ready(State(source): State<Arc<dyn Source>>) -> Response {
    match source.ready() {
        Readiness::Ready(detail) if detail.is_empty() => text(StatusCode::OK, "ready\n"),
        Readiness::Ready(detail) => text(StatusCode::OK, format!("ready\n{}\n", detail.trim_end())),
        Readiness::NotReady(reasons) => {
            let lines = reasons.iter().map(|reason| format!("{}\n", one_line(reason)));
            text(
                StatusCode::SERVICE_UNAVAILABLE,
                ["not ready\n".to_owned()].into_iter().chain(lines).collect::<String>(),
            )
        }
    }
}

async fn explain(source: Arc<dyn Source>, query: Option<String>, patience: Duration) -> Response {
    let Explain { pool, request } = match query::parse(query.as_deref().unwrap_or_default()) {
        Ok(explain) => explain,
        Err(wrong) => return text(StatusCode::BAD_REQUEST, format!("{wrong}\n")),
    };
    match tokio::time::timeout(patience, source.explain(pool, request)).await {
        Ok(Ok(told)) => text(StatusCode::OK, told),
        Ok(Err(wrong)) => text(StatusCode::BAD_REQUEST, format!("{}\n", wrong.trim_end())),
        Err(_) => text(StatusCode::GATEWAY_TIMEOUT, "no worker answered in time\n"),
    }
}

/// A column is no wider, however long a name is: a format has no room for more than 65535.
const WIDEST: usize = 1000;

fn backends(rows: &[Backend]) -> Response {
    let head = ["POOL", "BACKEND", "ADDRESS", "STATE", "CONNECTIONS", "IN_QUEUE", "OUT_QUEUE", "ROLE"];
    let head = head.map(str::to_owned);
    let rows = rows.iter().map(|b| {
        let numbers = [b.connections, b.in_queue, b.out_queue].map(|n| n.to_string());
        let [connections, in_queue, out_queue] = numbers;
        let words = [&b.pool, &b.name, &b.address, &b.state, &b.role].map(|word| one_line(word));
        let [pool, name, address, state, role] = words;
        [pool, name, address, state, connections, in_queue, out_queue, role]
    });
    let table: Vec<_> = [head].into_iter().chain(rows).collect();
    let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).min(WIDEST);
    let widths: [usize; 8] = std::array::from_fn(width);
    let lines = table.iter().map(|row| {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    });
    text(StatusCode::OK, lines.collect::<String>())
}

fn text(status: StatusCode, body: impl Into<String>) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    (status, headers, body.into()).into_response()
}

/// What comes from elsewhere must not look like a line of its own.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
