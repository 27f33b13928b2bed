//! Connections of the admin listener: how many, how long, how large. What they say is the router's business.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::time::Duration;

use super::gate::{Peer, UNIX};
use axum::Router;
use hyper::Request;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Where to accept.
#[derive(Debug)]
pub enum Listener {
    /// A TCP socket.
    Tcp(TcpListener),
    /// A unix socket. Its file is the owner's to make and to remove.
    Unix(UnixListener),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

impl Listener {
    async fn accept(&self) -> io::Result<(Socket, Peer)> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (socket, from) = listener.accept().await?;
                (Box::new(socket), Peer(from.to_string()))
            }
            Self::Unix(listener) => (Box::new(listener.accept().await?.0), Peer(UNIX.to_owned())),
        })
    }
}

/// What one peer, and all of them, can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Open connections; further ones wait in the backlog.
    pub connections: usize,
    /// Until the request's head is complete.
    pub head: Duration,
    /// Until `explain` has answered.
    pub answer: Duration,
    /// A connection's whole life, reading the answer included.
    pub whole: Duration,
    /// At shutdown, until the requests already read are answered.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self { connections: 64, head: s(5), answer: s(5), whole: s(30), drain: s(1) }
    }
}

/// The most bytes a request's head may have.
const HEAD_BYTES: usize = 16 * 1024;
/// After the answer, this much of what the peer still sends is read: closing on unread bytes would make a reset of it,
/// and the peer might lose the answer.
const LINGER_BYTES: usize = 256 * 1024;
const LINGER: Duration = Duration::from_millis(500);
/// Between two attempts to accept, when one failed (too many open files is the usual reason), and how often in a row.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
const ACCEPT_ATTEMPTS: usize = 100;

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}
type Socket = Box<dyn Duplex>;

pub(super) async fn run(
    listener: Listener,
    routes: Router,
    limits: Limits,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let mut open = JoinSet::new();
    let outcome = shutdown.run_until_cancelled(accept(&listener, &routes, limits, &mut open, &shutdown)).await;
    drop(listener);
    let drained = timeout(limits.drain, async { while open.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        debug!(connections = open.len(), "admin connections cut at shutdown");
    }
    outcome.unwrap_or(Ok(()))
}

/// Accepts for ever; returns only with the error that would not go away.
async fn accept(
    listener: &Listener,
    routes: &Router,
    limits: Limits,
    open: &mut JoinSet<()>,
    shutdown: &CancellationToken,
) -> io::Result<()> {
    let mut failures = 0;
    loop {
        while open.try_join_next().is_some() {}
        if open.len() >= limits.connections.max(1) {
            open.join_next().await;
            continue;
        }
        match listener.accept().await {
            Ok((socket, peer)) => {
                failures = 0;
                open.spawn(converse(socket, peer, routes.clone(), limits, shutdown.clone()));
            }
            Err(error) => {
                failures += 1;
                if failures == ACCEPT_ATTEMPTS {
                    return Err(error);
                }
                warn!(%error, "admin listener could not accept");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// One connection: a request, its answer, the end.
async fn converse(mut socket: Socket, peer: Peer, routes: Router, limits: Limits, shutdown: CancellationToken) {
    let talk = async {
        let routes = TowerToHyperService::new(routes);
        let service = service_fn(|mut request: Request<_>| {
            request.extensions_mut().insert(peer.clone());
            routes.call(request)
        });
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.head)
                .max_buf_size(HEAD_BYTES)
                .keep_alive(false)
                .serve_connection(TokioIo::new(&mut socket), service)
        );
        let mut ended = shutdown.run_until_cancelled(connection.as_mut()).await;
        if ended.is_none() {
            // Ends at once if no request is being answered.
            connection.as_mut().graceful_shutdown();
            ended = Some(connection.await);
        }
        if let Some(Err(error)) = ended {
            debug!(%error, "admin connection ended early");
        }
    };
    if timeout(limits.whole, talk).await.is_ok() {
        let _ = timeout(LINGER, shutdown.run_until_cancelled(linger(&mut socket))).await;
    }
}

/// Reads what the peer still sends until it ends.
async fn linger(socket: &mut Socket) {
    let mut scratch = [0; 4096];
    let mut left = LINGER_BYTES;
    while left > 0 {
        let mut read = ReadBuf::new(&mut scratch);
        match poll_fn(|cx| Pin::new(&mut *socket).poll_read(cx, &mut read)).await {
            Ok(()) if !read.filled().is_empty() => left = left.saturating_sub(read.filled().len()),
            _ => return,
        }
    }
}
