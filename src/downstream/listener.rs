//! Listening sockets: bound before the workers start, accepted from by the first worker, dealt evenly to all.

use super::Config;
use super::reserve::Reserve;
use crate::hub::Socket as Connected;
use crate::units::Address;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use std::fs;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};

/// Probes without an answer after which an app counts as gone.
const PROBES: u32 = 3;
/// How long accepting rests when the process has no descriptor left.
const REST: Duration = Duration::from_millis(50);

/// A bound socket that does not accept yet.
#[derive(Debug)]
pub enum Bound {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A unix socket; its file is removed when the listener is dropped.
    Unix(std::os::unix::net::UnixListener, SocketFile),
}

/// A unix socket's file, removed when this is dropped.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    stays: Arc<AtomicBool>,
}

impl SocketFile {
    /// Takes care of this file.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), stays: Arc::default() }
    }

    /// One that is another process' for now, and stays until [`SocketFile::stays`] is taken back.
    #[must_use]
    pub fn lent(path: &Path) -> Self {
        Self { path: path.to_owned(), stays: Arc::new(AtomicBool::new(true)) }
    }

    /// Puts the file in another place, and in that of a file that is there.
    ///
    /// # Errors
    /// As `rename(2)`.
    pub fn move_to(&mut self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)?;
        path.clone_into(&mut self.path);
        Ok(())
    }

    /// Set when the file is another process' now, and stays.
    #[must_use]
    pub fn stays(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stays)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if !self.stays.load(Ordering::Relaxed) {
            // It may be gone already; nothing depends on it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Bound {
    /// Binds one of a pool's addresses. A unix socket's file that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// As `bind(2)` and `listen(2)`, or where a host name does not resolve.
    pub fn new(address: &Address, config: &Config) -> io::Result<Self> {
        let backlog = i32::try_from(config.backlog).unwrap_or(i32::MAX);
        match address {
            Address::Tcp { host, port } => {
                let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the host name has no address");
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    match bind_tcp(address, backlog, config) {
                        Ok(listener) => return Ok(Self::Tcp(listener)),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
            Address::Unix { path, mode } => {
                bind_unix(path, *mode, backlog).map(|(listener, file)| Self::Unix(listener, file))
            }
        }
    }

    /// One that another process has bound to this address and handed over. A unix socket's file is that process' until
    /// [`SocketFile::stays`] is taken back.
    ///
    /// # Errors
    /// Where it cannot be made not to block.
    pub fn inherited(address: &Address, listener: OwnedFd) -> io::Result<Self> {
        Ok(match address {
            Address::Tcp { .. } => {
                let listener = std::net::TcpListener::from(listener);
                listener.set_nonblocking(true)?;
                Self::Tcp(listener)
            }
            Address::Unix { path, .. } => {
                let listener = std::os::unix::net::UnixListener::from(listener);
                listener.set_nonblocking(true)?;
                Self::Unix(listener, SocketFile::lent(path))
            }
        })
    }

    /// The same socket once more, to be handed to another process; and for one that has a file, what is set when the file
    /// goes with it.
    ///
    /// # Errors
    /// Where there are no descriptors left.
    pub fn copy(&self) -> io::Result<(OwnedFd, Option<Arc<AtomicBool>>)> {
        Ok(match self {
            Self::Tcp(listener) => (listener.try_clone()?.into(), None),
            Self::Unix(listener, file) => (listener.try_clone()?.into(), Some(file.stays())),
        })
    }

    /// Where it listens; port 0 has become a real one.
    #[must_use]
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(|a| a.to_string()).unwrap_or_default(),
            Self::Unix(_, file) => file.path.display().to_string(),
        }
    }

    /// Its port, if it has one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(|a| a.port()),
            Self::Unix(..) => None,
        }
    }

    /// Makes it accept on the current runtime.
    ///
    /// # Errors
    /// Where the runtime cannot watch it.
    pub fn start(self) -> io::Result<Listener> {
        Ok(match self {
            Self::Tcp(listener) => Listener::Tcp(TcpListener::from_std(listener)?),
            Self::Unix(listener, file) => Listener::Unix(UnixListener::from_std(listener)?, file),
        })
    }
}

/// Binds a unix socket. Its file goes with the [`SocketFile`]; one that nobody listens on any more is replaced.
///
/// # Errors
/// As `bind(2)` and `listen(2)`; where another process listens there, or the file is no socket.
pub fn bind_unix(
    path: &Path,
    mode: Option<u32>,
    backlog: i32,
) -> io::Result<(std::os::unix::net::UnixListener, SocketFile)> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::new(path);
    if let Some(mode) = mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    socket.listen(backlog)?;
    socket.set_nonblocking(true)?;
    Ok((socket.into(), file))
}

fn bind_tcp(address: SocketAddr, backlog: i32, config: &Config) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if config.reuseport {
        socket.set_reuse_port(true)?;
    }
    watch_apps(&SockRef::from(&socket), config.client_tcpkeepalive)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Makes a listening socket's connections probe an app that has been silent for so long, as Redis does with its
/// `tcp-keepalive`: three more times within as long again, then it counts as gone. Accepted sockets have the options of the
/// one that listens (tcp(7)), so that accepting costs no calls for them.
///
/// # Errors
/// As `setsockopt(2)`.
pub fn watch_apps(listener: &SockRef<'_>, after: Option<Duration>) -> io::Result<()> {
    let Some(after) = after else { return listener.set_keepalive(false) };
    // The kernel counts whole seconds, and at most 32767 of them.
    let after = after.clamp(Duration::from_secs(1), Duration::from_secs(32_767));
    let step = after.checked_div(PROBES).unwrap_or(after).max(Duration::from_secs(1));
    listener.set_tcp_keepalive(&TcpKeepalive::new().with_time(after).with_interval(step).with_retries(PROBES))
}

/// Removes a socket's file that its owner left behind; leaves alone one that is listened on, and any other kind of file.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file of another kind"));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
        Err(_) => fs::remove_file(path),
    }
}

/// A socket that is accepted from.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket.
    Unix(UnixListener, SocketFile),
}

/// An accepted connection that can be handed to another thread.
#[derive(Debug)]
pub enum Accepted {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// A unix socket.
    Unix(std::os::unix::net::UnixStream),
}

/// What has come.
pub enum Came {
    /// An app.
    App(Connected),
    /// One more than there are descriptors for: to be told so and closed, and then the reserve is to be kept again.
    Beyond(Connected),
}

impl Listener {
    /// The next connection. Rests and tries again when the system has nothing left for one, or the app has gone already.
    pub async fn accept(&self, reserve: &Reserve) -> Came {
        let mut told = false;
        loop {
            let error = match poll_fn(|cx| self.poll_accept(cx)).await {
                Ok(stream) => return Came::App(stream),
                Err(error) => error,
            };
            if is_out_of_descriptors(&error) && reserve.spend() {
                // At once: another thread may take what has just become free.
                if let Poll::Ready(Ok(stream)) = poll_fn(|cx| Poll::Ready(self.poll_accept(cx))).await {
                    return Came::Beyond(stream);
                }
                reserve.keep();
            }
            // Else the connection was gone before it was accepted.
            if is_out_of_resources(&error) {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(error = %error, "cannot accept for now");
                }
                tokio::time::sleep(REST).await;
                reserve.keep();
            }
        }
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Connected>> {
        Poll::Ready(match self {
            Self::Tcp(listener) => ready!(listener.poll_accept(cx)).map(|(socket, _)| {
                // Small replies must not wait for each other. An app that is gone already will be seen by its reader.
                let _ = socket.set_nodelay(true);
                Connected::Tcp(socket)
            }),
            Self::Unix(listener, _) => ready!(listener.poll_accept(cx)).map(|(socket, _)| Connected::Unix(socket)),
        })
    }
}

/// EMFILE, ENFILE.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(24 | 23))
}

/// EMFILE, ENFILE, ENOBUFS, ENOMEM: trying again at once would only burn CPU.
fn is_out_of_resources(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(24 | 23 | 105 | 12))
}

impl Accepted {
    /// Takes a connection off this runtime.
    ///
    /// # Errors
    /// Where the runtime cannot let go of it.
    pub fn detach(stream: Connected) -> io::Result<Self> {
        Ok(match stream {
            Connected::Tcp(socket) => Self::Tcp(socket.into_std()?),
            Connected::Unix(socket) => Self::Unix(socket.into_std()?),
            // TLS is begun on the thread that goes on with it.
            Connected::Closed | Connected::InProcess(_) | Connected::Tls(_) => {
                return Err(io::ErrorKind::NotConnected.into());
            }
        })
    }

    /// Puts it onto the current runtime.
    ///
    /// # Errors
    /// Where the runtime cannot watch it.
    pub fn attach(self) -> io::Result<Connected> {
        Ok(match self {
            Self::Tcp(socket) => Connected::Tcp(tokio::net::TcpStream::from_std(socket)?),
            Self::Unix(socket) => Connected::Unix(tokio::net::UnixStream::from_std(socket)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::downstream::config::{BACKLOG, CLIENT_TCPKEEPALIVE, MAX_OUTPUT, MAX_PIPELINE, MAX_REQUEST};

    /// What an accepted connection is set to: probed, and after how long and in which steps.
    fn accepted(after: Option<Duration>) -> (bool, Duration, Duration, u32) {
        let config = Config {
            listen: Vec::new(),
            strict: Vec::new(),
            encrypted: Vec::new(),
            tls: None,
            backlog: BACKLOG,
            reuseport: false,
            client_tcpkeepalive: after,
            client_connections: 0,
            max_pipeline: MAX_PIPELINE,
            max_output: MAX_OUTPUT,
            max_output_soft: None,
            max_output_pubsub: None,
            client_idle_timeout: None,
            request_timeout: None,
            auth_timeout: None,
            max_auth_failures: None,
            max_request: MAX_REQUEST,
            password: None,
            users: Vec::new(),
            prefix: String::new(),
            admin_commands: false,
        };
        let bound = Bound::new(&"127.0.0.1:0".parse().unwrap(), &config).unwrap();
        let _app = std::net::TcpStream::connect(bound.address()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let came = bound.start().unwrap().accept(&Reserve::default()).await;
            let Came::App(Connected::Tcp(socket)) = came else { panic!("TCP is TCP") };
            let socket = SockRef::from(&socket);
            let (time, step) = (socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_interval().unwrap());
            (socket.keepalive().unwrap(), time, step, socket.tcp_keepalive_retries().unwrap())
        })
    }

    #[test]
    fn apps_are_probed_as_redis_does() {
        let seconds = Duration::from_secs;
        assert_eq!(accepted(Some(CLIENT_TCPKEEPALIVE)), (true, seconds(300), seconds(100), 3));
        assert_eq!(accepted(Some(Duration::from_millis(10))), (true, seconds(1), seconds(1), 3));
        assert!(accepted(Some(seconds(1 << 40))).0);
        assert!(!accepted(None).0);
    }
}
