//! TLS on both sides: real clients, real servers, and those who mean no good.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "tls/apps.rs"]
mod apps;
#[path = "tls/rotation.rs"]
mod rotation;
#[path = "tls/servers.rs"]
mod servers;
mod support;
#[path = "tls/topologies.rs"]
mod topologies;

use support::authority::{Authority, Issued};
use support::{Redis, free_port};

/// The lines of `tls`, more of them after a comma.
fn tls(own: &Issued, more: &str) -> String {
    format!("tls: {{cert: {}, key: {}{more}}}", own.cert, own.key)
}

const LISTEN: &str = "listen_tls: 127.0.0.1:0";

/// A redis-server with TLS, and where that is.
fn server(ca: &Authority, own: &Issued, arguments: &[&str]) -> (Redis, String) {
    let port = free_port().to_string();
    let authority = ca.ca();
    let tls = [
        "--tls-port",
        &port,
        "--bind",
        "127.0.0.1",
        "--tls-cert-file",
        &own.cert,
        "--tls-key-file",
        &own.key,
        "--tls-ca-cert-file",
        &authority,
    ];
    let mut all = tls.to_vec();
    if !arguments.contains(&"--tls-auth-clients") {
        all.extend(["--tls-auth-clients", "no"]);
    }
    all.extend(arguments);
    (Redis::start(&all), format!("127.0.0.1:{port}"))
}
