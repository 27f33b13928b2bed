//! Connections of the admin listener: how many, how long, how large. What they say is the router's business.
//!
//! Promises: whoever comes is answered, also while others hold all places and do not go on: who has kept hotring waiting for longest, and
//! for [`Limits::patience`], is closed for the next one. Nobody is closed while hotring works for it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
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
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
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
    /// Open connections; further ones wait until there is a place.
    pub connections: usize,
    /// How long one may keep hotring waiting, for its request or for its reading of the answer, while others wait for a place.
    pub patience: Duration,
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
        let patience = Duration::from_millis(250);
        Self { connections: 64, patience, head: s(5), answer: s(5), whole: s(30), drain: s(1) }
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
    let mut open = Open::default();
    let outcome = shutdown.run_until_cancelled(accept(&listener, &routes, limits, &mut open, &shutdown)).await;
    drop(listener);
    let drained = timeout(limits.drain, async { while open.tasks.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        debug!(connections = open.tasks.len(), "admin connections cut at shutdown");
    }
    outcome.unwrap_or(Ok(()))
}

/// Since when hotring waits for a peer; nothing while it works for it.
#[derive(Debug, Clone)]
struct Waits(Arc<Mutex<Option<Instant>>>);

impl Waits {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Some(now()))))
    }

    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn since(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::disallowed_methods, reason = "the admin listener has a clock")]
fn now() -> Instant {
    Instant::now()
}

/// The open connections.
#[derive(Default)]
struct Open {
    tasks: JoinSet<()>,
    all: VecDeque<(AbortHandle, Waits)>,
}

impl Open {
    /// Waits until there is a place for one more, and ends who does not go on.
    async fn make_room(&mut self, limits: Limits) {
        loop {
            while self.tasks.try_join_next().is_some() {}
            self.all.retain(|(task, _)| !task.is_finished());
            if self.tasks.len() < limits.connections.max(1) {
                return;
            }
            let slowest = self.all.iter().filter_map(|(task, waits)| Some((waits.since()?, task)));
            let slowest = slowest.min_by_key(|(since, _)| *since);
            let left = slowest.map(|(since, task)| (limits.patience.saturating_sub(now() - since), task));
            match left {
                Some((Duration::ZERO, task)) => {
                    debug!("an admin connection that did not go on is closed for the next one");
                    task.abort();
                    self.tasks.join_next().await;
                }
                // Until one ends, or it is time.
                left => {
                    let wait = left.map_or(limits.patience, |(left, _)| left);
                    let _ = timeout(wait, self.tasks.join_next()).await;
                }
            }
        }
    }
}

/// Accepts for ever; returns only with the error that would not go away.
async fn accept(
    listener: &Listener,
    routes: &Router,
    limits: Limits,
    open: &mut Open,
    shutdown: &CancellationToken,
) -> io::Result<()> {
    let mut failures = 0;
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                failures = 0;
                // Not before somebody has come: who is slow and in nobody's way may be.
                open.make_room(limits).await;
                let waits = Waits::new();
                let talk = converse(socket, (peer, waits.clone()), routes.clone(), limits, shutdown.clone());
                open.all.push_back((open.tasks.spawn(talk), waits));
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
async fn converse(
    mut socket: Socket,
    (peer, waits): (Peer, Waits),
    routes: Router,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let talk = async {
        let routes = TowerToHyperService::new(routes);
        let service = service_fn(|mut request: Request<_>| {
            request.extensions_mut().insert(peer.clone());
            waits.set(None);
            let (answer, waits) = (routes.call(request), waits.clone());
            async move {
                let answer = answer.await;
                waits.set(Some(now()));
                answer
            }
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
