//! A network that misbehaves as a test tells it to: a TCP relay in front of a real server.
//!
//! Promises: bytes arrive whole and in order, or not at all, as TCP has it. What is held is delivered late, never dropped, and
//! the end of a connection waits behind it; so a server may see a request long after whoever sent it gave up. Whoever is
//! refused is refused by the kernel, and the port stays the relay's meanwhile.

use socket2::{Domain, SockRef, Socket, Type};
use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener as Listener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep_until};

/// Bytes that one direction keeps before it stops reading.
const KEPT: usize = 256 * 1024;
/// The pieces in which a slow direction delivers.
const PIECE: usize = 2048;
/// What a server says that has gone mad.
const GARBAGE: &[u8] = b"\x00HTTP/1.1 400 Bad Request\r\n\r\n";

/// A relay; its connections end when it is dropped.
pub(crate) struct Relay {
    address: String,
    rules: watch::Sender<Rules>,
    visits: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
    /// Keeps the port while nobody listens.
    _port: Socket,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// As a process that ends in peace: FIN.
    Fin,
    /// As a process that crashed or a firewall that lost its mind: RST.
    Reset,
}

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ToServer,
    ToProxy,
}

#[derive(Clone, Copy, Default)]
struct Rules {
    refuse: bool,
    over: bool,
    /// How often all connections have been cut so far, and how the last time.
    cuts: usize,
    reset: bool,
    /// How often each connection was told to end in the midst of its next reply.
    halves: usize,
    /// How often each connection was told to say garbage in the place of its next reply.
    spoils: usize,
    to_server: Flow,
    to_proxy: Flow,
}

#[derive(Clone, Copy, Default)]
struct Flow {
    hold: bool,
    delay: Duration,
    /// Bytes a second; 0 is as many as come.
    rate: u32,
}

impl Relay {
    /// In front of a server at `host:port` or the path of a unix socket.
    pub(crate) fn to(server: &str) -> Self {
        let port = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        port.set_reuse_address(true).unwrap();
        port.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        let address = port.local_addr().unwrap().as_socket().unwrap();
        let first = listen(address).unwrap();
        let (rules, told) = watch::channel(Rules::default());
        let visits = Arc::new(AtomicUsize::new(0));
        let (count, server) = (Arc::clone(&visits), server.to_owned());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            LocalSet::new().block_on(&runtime, accept(first, address, server, told, count));
        });
        Self { address: address.to_string(), rules, visits, thread: Some(thread), _port: port }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// How many connections there have been.
    pub(crate) fn visits(&self) -> usize {
        self.visits.load(Ordering::Acquire)
    }

    /// Ends all connections that are open now.
    pub(crate) fn cut(&self, how: Cut) {
        self.rules.send_modify(|rules| (rules.cuts, rules.reset) = (rules.cuts + 1, how == Cut::Reset));
    }

    /// Ends each connection that is open now within the next reply on it.
    pub(crate) fn cut_within_a_reply(&self) {
        self.rules.send_modify(|rules| rules.halves += 1);
    }

    /// Puts what is no reply before the next reply of each connection that is open now.
    pub(crate) fn spoil(&self) {
        self.rules.send_modify(|rules| rules.spoils += 1);
    }

    /// Takes no new connections; the open ones stay.
    pub(crate) fn refuse(&self) {
        self.rules.send_modify(|rules| rules.refuse = true);
    }

    /// A black hole: accepts everything, delivers nothing this way.
    pub(crate) fn hold(&self, way: Way) {
        self.flow(way, |flow| flow.hold = true);
    }

    /// Delivers everything so much later this way.
    pub(crate) fn delay(&self, way: Way, delay: Duration) {
        self.flow(way, |flow| flow.delay = delay);
    }

    /// Delivers at most so many bytes a second on each connection this way.
    pub(crate) fn throttle(&self, way: Way, rate: u32) {
        self.flow(way, |flow| flow.rate = rate);
    }

    /// All is well again: takes connections, and delivers what is held and what comes.
    pub(crate) fn heal(&self) {
        self.rules.send_modify(|rules| {
            (rules.refuse, rules.to_server, rules.to_proxy) = (false, Flow::default(), Flow::default());
        });
    }

    fn flow(&self, way: Way, change: impl FnOnce(&mut Flow)) {
        self.rules
            .send_modify(|rules| change(if way == Way::ToServer { &mut rules.to_server } else { &mut rules.to_proxy }));
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.rules.send_modify(|rules| rules.over = true);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<Listener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(512)?;
    Ok(socket.into())
}

async fn accept(
    first: Listener,
    at: SocketAddr,
    server: String,
    mut rules: watch::Receiver<Rules>,
    visits: Arc<AtomicUsize>,
) {
    let mut listener = Some(TcpListener::from_std(first).unwrap());
    loop {
        let Rules { refuse, over, .. } = *rules.borrow_and_update();
        if over {
            return;
        }
        if refuse {
            listener = None;
        } else if listener.is_none() {
            listener = Some(TcpListener::from_std(listen(at).unwrap()).unwrap());
        }
        let next = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = rules.changed() => {}
            accepted = next => {
                let Ok((proxy, _)) = accepted else { continue };
                visits.fetch_add(1, Ordering::AcqRel);
                let (server, rules) = (server.clone(), rules.clone());
                tokio::task::spawn_local(async move {
                    if server.starts_with('/') {
                        if let Ok(socket) = UnixStream::connect(&server).await {
                            connection(proxy, socket, rules).await;
                        }
                    } else if let Ok(socket) = TcpStream::connect(&server).await {
                        socket.set_nodelay(true).unwrap();
                        connection(proxy, socket, rules).await;
                    }
                });
            }
        }
    }
}

/// One connection until either side ends it or a test cuts it.
async fn connection(
    mut proxy: TcpStream,
    server: impl AsyncRead + AsyncWrite + Unpin,
    mut rules: watch::Receiver<Rules>,
) {
    let _ = proxy.set_nodelay(true);
    let begun = *rules.borrow_and_update();
    let (from_server, to_server) = tokio::io::split(server);
    let (from_proxy, to_proxy) = proxy.split();
    let there = Pump { way: Way::ToServer, begun, rules: rules.clone() };
    let back = Pump { way: Way::ToProxy, begun, rules: rules.clone() };
    let cut = async {
        // An error is a relay that is gone.
        while rules.changed().await.is_ok() && rules.borrow().cuts == begun.cuts && !rules.borrow().over {}
    };
    tokio::select! {
        () = there.run(from_proxy, to_server) => {}
        () = back.run(from_server, to_proxy) => {}
        () = cut => {}
    }
    if rules.borrow().cuts != begun.cuts && rules.borrow().reset {
        let _ = SockRef::from(&proxy).set_linger(Some(Duration::ZERO));
    }
}

struct Pump {
    way: Way,
    begun: Rules,
    rules: watch::Receiver<Rules>,
}

impl Pump {
    /// Until this side has ended and all it said is delivered, or the other takes no more.
    #[allow(clippy::disallowed_methods, reason = "a network has a clock")]
    async fn run(mut self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
        let mut queue: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
        let (mut kept, mut ended) = (0, false);
        let mut buffer = vec![0; 64 * 1024];
        let mut replies = Replies::default();
        let mut spoils = self.begun.spoils;
        loop {
            let rules = *self.rules.borrow_and_update();
            let flow = if self.way == Way::ToServer { rules.to_server } else { rules.to_proxy };
            let due = queue.front().filter(|_| !flow.hold).map(|(came, _)| *came + flow.delay);
            if ended && queue.is_empty() {
                return;
            }
            tokio::select! {
                changed = self.rules.changed() => if changed.is_err() { return },
                read = from.read(&mut buffer), if !ended && kept < KEPT => {
                    let count = read.unwrap_or(0);
                    ended = count == 0;
                    kept += count;
                    if count > 0 {
                        queue.push_back((Instant::now(), buffer[..count].to_vec()));
                    }
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    let Some((came, mut piece)) = queue.pop_front() else { continue };
                    if flow.rate > 0 && piece.len() > PIECE {
                        queue.push_front((came, piece.split_off(PIECE)));
                    }
                    kept -= piece.len();
                    let took = piece.len() as u32;
                    let mut last = false;
                    if self.way == Way::ToProxy {
                        let between = replies.take(&piece);
                        if let (Some(place), true) = (between, spoils < rules.spoils) {
                            spoils = rules.spoils;
                            piece.splice(place..place, GARBAGE.iter().copied());
                        }
                        last = rules.halves > self.begun.halves;
                        if last {
                            piece.pop();
                        }
                    }
                    if to.write_all(&piece).await.is_err() {
                        if self.way == Way::ToServer {
                            // It has ended; what it said before is still to be delivered.
                            return std::future::pending().await;
                        }
                        return;
                    }
                    if last {
                        return;
                    }
                    if flow.rate > 0 {
                        tokio::time::sleep(Duration::from_secs(1) * took / flow.rate).await;
                    }
                }
            }
        }
    }
}

/// Knows where in a stream of RESP2 replies one line or string ends and the next begins.
#[derive(Default)]
struct Replies {
    line: Vec<u8>,
    /// Bytes of a string that are still to come, its CRLF included.
    body: usize,
}

impl Replies {
    /// The first place of `bytes` that is between two replies or elements, if there is one.
    fn take(&mut self, bytes: &[u8]) -> Option<usize> {
        let (mut at, mut found) = (0, None);
        while at < bytes.len() {
            if self.body == 0 && self.line.is_empty() && found.is_none() {
                found = Some(at);
            }
            if self.body > 0 {
                let count = self.body.min(bytes.len() - at);
                self.body -= count;
                at += count;
                continue;
            }
            self.line.push(bytes[at]);
            at += 1;
            if self.line.ends_with(b"\n") {
                if let [b'$', length @ .., b'\r', b'\n'] = &self.line[..] {
                    let length = std::str::from_utf8(length).ok().and_then(|text| text.parse::<usize>().ok());
                    self.body = length.map_or(0, |length| length + 2);
                }
                self.line.clear();
            }
        }
        found
    }
}
