//! One HTTP request to a collector, over a connection of its own: there is one a second at the most.
//!
//! Promises: holds at most [`LONGEST`] bytes of the answer. Knows no clock: whoever sends bounds the wait.

use super::Endpoint;
use crate::units::Secret;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::TcpStream;

/// Most bytes of an answer that are read.
const LONGEST: usize = 64 * 1024;

/// What a collector answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// How long to wait before the next attempt, if it says so in seconds.
    pub(super) retry_after: Option<Duration>,
    /// Empty if it is too long or cannot be read.
    pub(super) body: Bytes,
}

/// Sends JSON.
///
/// # Errors
/// Why there is no answer, in a few words.
pub(super) async fn post(at: &Endpoint, headers: &[(String, Secret)], body: Bytes) -> Result<Answer, String> {
    let socket = TcpStream::connect((at.host.as_str(), at.port)).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.map_err(|error| error.to_string())?;
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(at.path.as_str())
        .header(HOST, at.authority())
        .header(USER_AGENT, concat!("hotring/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/json")
        .header(CONNECTION, "close");
    for (name, value) in headers {
        request = request.header(name.as_str(), value.expose());
    }
    let request = request.body(Full::new(body)).map_err(|_| "a header of the configuration is none".to_owned())?;
    let exchange = async move {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let (head, body) = answer.into_parts();
        let seconds = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let body = Limited::new(body, LONGEST).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        Ok(Answer { status: head.status.as_u16(), retry_after: seconds.map(Duration::from_secs), body })
    };
    // The connection ends with the one who sends on it.
    tokio::join!(exchange, connection).0
}
