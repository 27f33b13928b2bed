//! Where one worker's tasks meet: the engine, the sockets, and the flusher's bell.
//!
//! Everything here belongs to one thread and is touched between two awaits, never over one. The apps' side and the shards'
//! side do not know each other; both know this.

// What comes from a network must not end a session by a panic; tests may.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::arithmetic_side_effects,
        clippy::panic,
        clippy::unreachable
    )
)]

use crate::encrypted::Encrypted;
use crate::engine::port::{Port, Taken};
use crate::engine::{Engine, LineId, SessionId};
use crate::error::Failure;
use crate::stages::Micros;
use crate::tls::Refused;
use std::cell::{Cell, RefCell, RefMut};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;

/// Bytes that are read from an app at once.
const SCRATCH: usize = 64 * 1024;

/// Requests in, replies out; how long the replies are is known when they are made. See [`Hub::attach`].
pub type InProcess = Box<dyn FnMut(&[u8], &mut Vec<u8>) -> usize>;

/// One worker's meeting place.
pub struct Hub {
    engine: RefCell<Engine>,
    sockets: RefCell<Sockets>,
    scratch: RefCell<Box<[u8]>>,
    bell: Bell,
    clock: Clock,
    /// Wakes the ticker from its long sleep.
    pub busy: Notify,
    idle: Cell<bool>,
    /// Panics that were contained and are not counted yet.
    panics: Cell<u64>,
    /// What the worker cannot go on without has panicked: which, and with what message.
    broken: RefCell<Option<String>>,
    breaks: Notify,
}

/// The process' clock: microseconds since it started. All workers have the same, as they compare times.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that begins now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one clock of a worker")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Microseconds since it began.
    #[must_use]
    #[inline]
    pub fn now(&self) -> Micros {
        self.0.elapsed().as_micros() as Micros
    }
}

/// Wakes the flusher, once for each pass of the scheduler. The run queue is first in, first out, so the flusher runs behind
/// all readers that are ready and sends what all of them brought with one call for each socket.
#[derive(Debug, Default)]
struct Bell {
    rung: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Bell {
    #[inline]
    fn ring(&self) {
        if !self.rung.replace(true)
            && let Some(waker) = &*self.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }
}

impl Hub {
    /// A meeting place around an engine.
    #[must_use]
    pub fn new(engine: Engine, clock: Clock) -> Rc<Self> {
        Rc::new(Self {
            engine: RefCell::new(engine),
            sockets: RefCell::new(Sockets::default()),
            scratch: RefCell::new(vec![0; SCRATCH].into_boxed_slice()),
            bell: Bell::default(),
            clock,
            busy: Notify::new(),
            idle: Cell::new(false),
            panics: Cell::new(0),
            broken: RefCell::new(None),
            breaks: Notify::new(),
        })
    }

    /// The worker's clock.
    #[must_use]
    pub fn now(&self) -> Micros {
        self.clock.now()
    }

    /// The engine; never hold it over an await.
    #[must_use]
    pub fn engine(&self) -> RefMut<'_, Engine> {
        self.engine.borrow_mut()
    }

    /// The sockets; never hold them over an await.
    #[must_use]
    pub fn sockets(&self) -> RefMut<'_, Sockets> {
        self.sockets.borrow_mut()
    }

    /// The buffer that all apps are read into.
    #[must_use]
    pub fn scratch(&self) -> RefMut<'_, Box<[u8]>> {
        self.scratch.borrow_mut()
    }

    /// Uses the engine and the sockets together, then sees to it that what came of it is flushed.
    #[inline]
    pub fn with<T>(&self, use_them: impl FnOnce(&mut Engine, &mut Sockets) -> T) -> T {
        let mut engine = self.engine.borrow_mut();
        let done = use_them(&mut engine, &mut self.sockets.borrow_mut());
        if engine.is_dirty() {
            self.bell.ring();
        }
        done
    }

    /// Makes a line one to an in-process node instead of a socket.
    pub fn attach(&self, line: LineId, node: InProcess) {
        let mut sockets = self.sockets.borrow_mut();
        sockets.shard(line).socket = Socket::InProcess(node);
        sockets.shard(line).wanted = None;
        self.engine.borrow_mut().connected(line, self.now());
    }

    /// Says whom to notify when a line is wanted.
    pub fn on_wanted(&self, line: LineId, wanted: Rc<Notify>) {
        self.sockets.borrow_mut().shard(line).wanted = Some(wanted);
    }

    /// The flusher's turn: sends everything that waits. Returns when there is nothing more to do before the next ring.
    pub fn poll_flush(&self, cx: &mut Context<'_>) {
        self.bell.rung.set(false);
        {
            let mut waker = self.bell.waker.borrow_mut();
            if !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
        }
        let mut engine = self.engine.borrow_mut();
        let mut sockets = self.sockets.borrow_mut();
        loop {
            engine.flush(&mut *sockets);
            let mut again = false;
            for (line, answers) in std::mem::take(&mut sockets.answers) {
                again = true;
                if engine.receive(line, &answers, self.clock.now(), &mut *sockets).is_err() {
                    debug_assert!(false, "an in-process node broke the protocol");
                }
            }
            let mut blocked = std::mem::take(&mut sockets.blocked);
            blocked.retain(|&line| {
                let waits = sockets.shard(line).socket.poll_writable(cx).is_pending();
                if !waits {
                    engine.shard_writable(line);
                    again = true;
                }
                waits
            });
            sockets.blocked.append(&mut blocked);
            if !again {
                break;
            }
        }
        if self.idle.get() && engine.in_flight() > 0 {
            self.busy.notify_one();
        }
    }

    /// A panic was contained: tells the log, counts it.
    #[cold]
    pub fn panicked(&self, whose: &str, message: &str) {
        tracing::error!(whose, message, "a panic was contained; please report this");
        self.panics.set(self.panics.get().saturating_add(1));
    }

    /// Panics that were contained since this was last asked.
    pub fn take_panics(&self) -> u64 {
        self.panics.take()
    }

    /// A panic cannot be contained: ends the worker, and with it the process.
    #[cold]
    pub fn break_down(&self, whose: &str, message: &str) {
        self.panicked(whose, message);
        *self.broken.borrow_mut() = Some(format!("cannot go on: {whose} panicked ({message})"));
        self.breaks.notify_one();
    }

    /// Waits for [`Hub::break_down`]. Returns what has happened, for a person.
    pub async fn broken_down(&self) -> String {
        loop {
            if let Some(text) = self.broken.borrow_mut().take() {
                return text;
            }
            self.breaks.notified().await;
        }
    }

    /// Tells the hub whether the ticker sleeps long, so that it wakes it when something is under way.
    pub fn set_idle(&self, idle: bool) {
        self.idle.set(idle);
    }
}

/// All sockets, and who reads them.
#[derive(Default)]
pub struct Sockets {
    apps: Vec<Option<App>>,
    shards: Vec<Shard>,
    blocked: Vec<LineId>,
    /// What nodes in this process have answered, the oldest first: a connection's answers keep their order.
    answers: VecDeque<(LineId, Vec<u8>)>,
    /// Connections that are wanted and have no task yet.
    fresh: Vec<LineId>,
    /// In-process ones that were given up, and whose numbers can be used again.
    left: Vec<LineId>,
    caller: Rc<Notify>,
    /// Apps that are not read for now, and whose leaving has to be seen all the same.
    watched: BTreeSet<SessionId>,
}

struct App {
    socket: Socket,
    reader: Option<Waker>,
}

#[derive(Default)]
struct Shard {
    socket: Socket,
    reader: Option<Waker>,
    wanted: Option<Rc<Notify>>,
    doomed: bool,
}

impl Sockets {
    /// Puts an app's socket in place.
    pub fn add_app(&mut self, id: SessionId, socket: Socket) {
        let index = id as usize;
        if self.apps.len() <= index {
            self.apps.resize_with(index.saturating_add(1), || None);
        }
        if let Some(place) = self.apps.get_mut(index) {
            *place = Some(App { socket, reader: None });
        }
    }

    /// Closes an app's socket.
    pub fn remove_app(&mut self, id: SessionId) {
        if let Some(place) = self.apps.get_mut(id as usize) {
            *place = None;
        }
        while matches!(self.apps.last(), Some(None)) {
            self.apps.pop();
        }
        if self.apps.is_empty() {
            self.apps = Vec::new();
        }
    }

    /// Remembers which task reads an app.
    #[inline]
    pub fn read_by(&mut self, id: SessionId, cx: &Context<'_>) {
        if let Some(Some(app)) = self.apps.get_mut(id as usize)
            && !app.reader.as_ref().is_some_and(|w| w.will_wake(cx.waker()))
        {
            app.reader = Some(cx.waker().clone());
        }
    }

    /// Reads from an app; 0 is the end.
    ///
    /// # Errors
    /// As `recv(2)`.
    pub fn poll_read_app(&mut self, id: SessionId, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self.apps.get_mut(id as usize) {
            Some(Some(app)) => app.socket.poll_read(cx, buffer),
            _ => Poll::Ready(Ok(0)),
        }
    }

    /// Reads from a shard; 0 is the end.
    ///
    /// # Errors
    /// As `recv(2)`.
    pub fn poll_read_shard(
        &mut self,
        line: LineId,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.shard(line).socket.poll_read(cx, buffer)
    }

    /// Whether an app that is not read has left. If not, its task is woken some time after it has ([`Sockets::look_after`]).
    pub fn has_left(&mut self, id: SessionId) -> bool {
        let left = matches!(self.apps.get(id as usize), Some(Some(app)) if app.socket.has_ended());
        if !left {
            self.watched.insert(id);
        }
        left
    }

    /// Wakes the tasks of apps that were asked about with [`Sockets::has_left`] and have left since.
    pub fn look_after(&mut self) {
        let apps = &self.apps;
        self.watched.retain(|&id| match apps.get(id as usize) {
            Some(Some(App { socket, reader })) if socket.has_ended() => {
                reader.iter().for_each(Waker::wake_by_ref);
                false
            }
            Some(Some(_)) => true,
            _ => false,
        });
    }

    /// Whether an app's socket takes bytes; if not, the task is woken when it does.
    pub fn poll_app(&mut self, id: SessionId, cx: &mut Context<'_>) -> Poll<()> {
        match self.apps.get_mut(id as usize) {
            Some(Some(app)) => app.socket.poll_writable(cx),
            _ => Poll::Ready(()),
        }
    }

    /// Puts an open connection to a shard in place.
    pub fn open_shard(&mut self, line: LineId, socket: Socket) {
        let shard = self.shard(line);
        shard.socket = socket;
        shard.doomed = false;
    }

    /// Who is notified of connections that are wanted and have no task.
    #[must_use]
    pub fn caller(&self) -> Rc<Notify> {
        Rc::clone(&self.caller)
    }

    /// Takes the connections that are wanted and have no task.
    pub fn take_fresh(&mut self) -> Vec<LineId> {
        std::mem::take(&mut self.fresh)
    }

    /// Takes the connections to in-process nodes that were given up: nobody reads them, who would tell that they ended.
    pub fn take_left(&mut self) -> Vec<LineId> {
        std::mem::take(&mut self.left)
    }

    /// Closes a connection to a shard.
    pub fn close_shard(&mut self, line: LineId) {
        let shard = self.shard(line);
        shard.socket = Socket::Closed;
        shard.doomed = false;
        self.blocked.retain(|&l| l != line);
    }

    /// Makes a connection's reader give it up.
    pub fn doom_shard(&mut self, line: LineId) {
        let shard = self.shard(line);
        shard.doomed = true;
        if let Some(reader) = &shard.reader {
            reader.wake_by_ref();
        }
    }

    /// Remembers which task reads a connection; tells whether it has to be given up.
    pub fn is_doomed(&mut self, line: LineId, cx: &Context<'_>) -> bool {
        let shard = self.shard(line);
        if !shard.reader.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            shard.reader = Some(cx.waker().clone());
        }
        shard.doomed
    }

    #[expect(clippy::indexing_slicing, reason = "the vector has just been made long enough")]
    fn shard(&mut self, line: LineId) -> &mut Shard {
        let index = line as usize;
        if self.shards.len() <= index {
            self.shards.resize_with(index.saturating_add(1), Shard::default);
        }
        &mut self.shards[index]
    }
}

impl Port for Sockets {
    fn to_app(&mut self, session: SessionId, bytes: &[u8]) -> Taken {
        trap("flusher", bytes);
        let Some(Some(app)) = self.apps.get_mut(session as usize) else { return Taken::Gone };
        let taken = app.socket.offer(bytes);
        if let (Taken::Full(_), Some(reader)) = (taken, &app.reader) {
            // The reader also watches for the socket to take bytes again.
            reader.wake_by_ref();
        }
        taken
    }

    fn to_shard(&mut self, line: LineId, bytes: &[u8]) -> Taken {
        let shard = self.shard(line);
        if let Socket::InProcess(node) = &mut shard.socket {
            let mut replies = Vec::new();
            let taken = node(bytes, &mut replies);
            self.answers.push_back((line, replies));
            return Taken::Some(taken);
        }
        let taken = shard.socket.offer(bytes);
        if matches!(taken, Taken::Full(_)) {
            self.blocked.push(line);
        }
        taken
    }

    fn wake(&mut self, session: SessionId) {
        if let Some(Some(App { reader: Some(reader), .. })) = self.apps.get(session as usize) {
            reader.wake_by_ref();
        }
    }

    fn is_in_process(&self, line: LineId) -> bool {
        self.shards.get(line as usize).is_some_and(|shard| matches!(shard.socket, Socket::InProcess(_)))
    }

    fn answer(&mut self) -> Option<(LineId, Vec<u8>)> {
        self.answers.pop_front()
    }

    fn addresses(&self, session: SessionId) -> (String, String) {
        match self.apps.get(session as usize) {
            Some(Some(app)) => app.socket.addresses(),
            _ => (String::new(), String::new()),
        }
    }

    fn open(&mut self, line: LineId) {
        if let Some(wanted) = &self.shard(line).wanted {
            wanted.notify_one();
        } else {
            self.fresh.push(line);
            self.caller.notify_one();
        }
    }

    fn give_up(&mut self, line: LineId) {
        if self.is_in_process(line) {
            self.close_shard(line);
            self.answers.retain(|(other, _)| *other != line);
            self.left.push(line);
            self.caller.notify_one();
            return;
        }
        self.doom_shard(line);
    }
}

/// A socket, read by its task and written by the flusher. Not taken into halves: that would cost every idle app an allocation.
#[derive(Default)]
pub enum Socket {
    /// No socket.
    #[default]
    Closed,
    /// TCP.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
    /// TCP with TLS on it, past the handshake.
    Tls(Box<Encrypted>),
    /// No socket either: a node in this process.
    InProcess(InProcess),
}

impl Socket {
    /// Connects by TCP, small segments unheld.
    ///
    /// # Errors
    /// As `connect(2)`.
    pub async fn connect_tcp(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(Self::Tcp(socket))
    }

    /// Connects to a unix socket.
    ///
    /// # Errors
    /// As `connect(2)`.
    pub async fn connect_unix(path: &Path) -> io::Result<Self> {
        UnixStream::connect(path).await.map(Self::Unix)
    }

    /// The address of the other side and its own, asked of the kernel. Both ends of a unix socket have the listener's path,
    /// with a port of 0, as Redis tells it.
    #[must_use]
    pub fn addresses(&self) -> (String, String) {
        let told = |address: io::Result<SocketAddr>| address.map(|a| a.to_string()).unwrap_or_default();
        match self {
            Self::Tcp(socket) => (told(socket.peer_addr()), told(socket.local_addr())),
            Self::Tls(socket) => (told(socket.socket().peer_addr()), told(socket.socket().local_addr())),
            Self::Unix(socket) => {
                let address = socket.local_addr().ok();
                let path = address.as_ref().and_then(|a| a.as_pathname()).map(|p| format!("{}:0", p.display()));
                let path = path.unwrap_or_default();
                (path.clone(), path)
            }
            Self::Closed | Self::InProcess(_) => (String::new(), String::new()),
        }
    }

    /// Whether the other side has closed its half, as far as the runtime was told: nothing is read, so that this can be asked
    /// while there are bytes to be read.
    fn has_ended(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let ready = match self {
            Self::Tcp(socket) => pin!(socket.ready(Interest::READABLE)).poll(&mut cx),
            Self::Tls(socket) => pin!(socket.socket().ready(Interest::READABLE)).poll(&mut cx),
            Self::Unix(socket) => pin!(socket.ready(Interest::READABLE)).poll(&mut cx),
            Self::Closed | Self::InProcess(_) => return true,
        };
        matches!(ready, Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }

    /// Writes what the socket takes at once. A call that a signal interrupted is made again: nobody would come back to it.
    pub fn offer(&mut self, bytes: &[u8]) -> Taken {
        loop {
            let written = match self {
                Self::Tcp(socket) => socket.try_write(bytes),
                Self::Unix(socket) => socket.try_write(bytes),
                Self::Tls(socket) => return socket.offer(bytes),
                Self::Closed | Self::InProcess(_) => return Taken::Gone,
            };
            match written {
                Ok(n) => return Taken::Some(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Taken::Full(0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Taken::Gone,
            }
        }
    }

    /// Reads some bytes; 0 is the end.
    ///
    /// `poll_read` and not `try_read`: after a read that does not fill the buffer it knows that nothing is left, and saves
    /// the call that would say so.
    ///
    /// # Errors
    /// As `recv(2)`.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        match self {
            Self::Tcp(socket) => ready!(Pin::new(socket).poll_read(cx, &mut buffer))?,
            Self::Unix(socket) => ready!(Pin::new(socket).poll_read(cx, &mut buffer))?,
            Self::Tls(socket) => return socket.poll_read(cx, buffer.initialize_unfilled()),
            Self::Closed | Self::InProcess(_) => {}
        }
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let ready = match self {
            Self::Tcp(socket) => socket.poll_write_ready(cx),
            Self::Unix(socket) => socket.poll_write_ready(cx),
            Self::Tls(socket) => return socket.poll_writable(cx),
            Self::Closed | Self::InProcess(_) => return Poll::Ready(()),
        };
        ready.map(|_| ())
    }
}

/// Wakes the task that is polled behind all others that are ready or have something to read by now. Waking it by itself would
/// do the first only: as long as any task is ready, the runtime asks the kernel for news at every 61st only.
pub fn let_others(cx: &mut Context<'_>) {
    let _ = pin!(tokio::task::yield_now()).poll(cx);
}

/// What was wrong with the other side's TLS, if that is what the error says.
#[must_use]
pub fn refused(error: &io::Error) -> Option<Refused> {
    error.get_ref()?.downcast_ref().copied()
}

/// The reason of an I/O error in a few words, the same for the same cause.
#[must_use]
pub fn reason(error: &io::Error) -> &'static str {
    use io::ErrorKind as Kind;
    if let Some(refused) = refused(error) {
        return refused.text;
    }
    match error.kind() {
        Kind::ConnectionRefused => "connection refused",
        Kind::ConnectionReset => "connection reset",
        Kind::ConnectionAborted => "connection aborted",
        Kind::BrokenPipe => "broken pipe",
        Kind::TimedOut => "connection timed out",
        Kind::NotFound => "no such socket",
        Kind::PermissionDenied => "permission denied",
        Kind::HostUnreachable => "host unreachable",
        Kind::NetworkUnreachable => "network unreachable",
        Kind::AddrNotAvailable => "address not available",
        Kind::UnexpectedEof => "closed by the server",
        _ => "i/o error",
    }
}

/// Where tests have a panic happen, by bytes that ask for it. Nothing, and not to be reached, in builds without debug
/// assertions, such as releases.
#[inline]
#[cfg_attr(debug_assertions, expect(clippy::panic, reason = "asked for by a test"))]
pub fn trap(place: &str, bytes: &[u8]) {
    #[cfg(debug_assertions)]
    if bytes.len() < 4096 && memchr::memmem::find(bytes, format!("(a panic of the {place})").as_bytes()).is_some() {
        panic!("asked for in the {place}");
    }
    #[cfg(not(debug_assertions))]
    let _ = (place, bytes);
}

/// Gives up a line: everyone who waits on it gets an error, and its reader lets go of the socket.
pub fn give_up(hub: &Hub, line: LineId, failure: Failure) {
    let now = hub.now();
    hub.with(|engine, sockets| {
        engine.fail(line, failure, now, sockets);
        sockets.doom_shard(line);
    });
}
