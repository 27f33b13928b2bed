//! A TCP socket with TLS on it, which is read and written as one without.
//!
//! What is read at once is decrypted at once, and all that is offered at once is encrypted into as few records as it takes (16 KiB
//! each) and leaves with one call of the system (64 KiB each).
//!
//! Promises: bytes that were offered and taken leave before any that are offered later, also if the socket was full in between: it
//! then says so ([`Taken::Full`]), and takes no more until it is writable and what waits has left. An end without a word of TLS's
//! own is an end: requests and replies tell by themselves where they are whole.

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

use crate::engine::port::Taken;
use crate::tls::{Client, Refused, Server, Session};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

/// Bytes that are read at once, at most.
const SCRATCH: usize = 64 * 1024;
/// Bytes that are read at once, at least: a record is not read in crumbs because the room for what it says is small.
const LEAST: usize = 4 * 1024;

thread_local! {
    /// The buffer that all sockets of a thread are read into before they are decrypted.
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// See the module.
pub struct Encrypted {
    socket: TcpStream,
    session: Session,
    /// The other side has closed the socket.
    ended: bool,
}

impl Encrypted {
    /// An app's connection, before the handshake.
    ///
    /// # Errors
    /// Where TLS cannot be begun.
    pub fn of_app(socket: TcpStream, server: &Server) -> Result<Self, Refused> {
        Ok(Self { socket, session: Session::of_app(server)?, ended: false })
    }

    /// A connection to a server that is reached by this host, before the handshake.
    ///
    /// # Errors
    /// Where that is no name that a certificate can have.
    pub fn to_server(socket: TcpStream, client: &Client, host: &str) -> Result<Self, Refused> {
        Ok(Self { socket, session: Session::to_server(client, host)?, ended: false })
    }

    /// What it goes through.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Shakes hands. May be given up at any time; then it is of no more use.
    ///
    /// # Errors
    /// Why not: a [`Refused`] where that is TLS's doing.
    pub async fn shake_hands(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_shake_hands(cx)).await
    }

    /// The same in turn: whenever there is something to be worked on it waits for a `turn`, and lets go of that when all who were ready
    /// have been served.
    ///
    /// # Errors
    /// As [`Encrypted::shake_hands`].
    pub async fn shake_hands_in_turn<T>(&mut self, turn: impl AsyncFn() -> T) -> io::Result<()> {
        loop {
            if self.session.wants_write() {
                poll_fn(|cx| self.poll_writable(cx)).await;
            }
            self.socket.readable().await?;
            let own = turn().await;
            let step = poll_fn(|cx| Poll::Ready(self.poll_shake_hands(cx))).await;
            tokio::task::yield_now().await;
            drop(own);
            if let Poll::Ready(done) = step {
                return done;
            }
        }
    }

    fn poll_shake_hands(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while !self.push()? {
                ready!(self.socket.poll_write_ready(cx))?;
            }
            if !self.session.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if let Err(refused) = ready!(self.poll_fill(cx, &mut [])) {
                // What is wrong is told to the other side, if it still hears it.
                let _ = self.push();
                return Poll::Ready(Err(refused));
            }
            if self.ended || self.session.has_ended() {
                return Poll::Ready(Err(Refused::CLOSED.into()));
            }
        }
    }

    /// Reads some bytes; 0 is the end.
    ///
    /// # Errors
    /// As `recv(2)`, or a [`Refused`] where it is not TLS what comes.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, plain: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            if self.session.holds() {
                let given = self.session.take(&[], plain).inspect_err(|_| drop(self.push()))?;
                if given > 0 {
                    return Poll::Ready(Ok(given));
                }
            }
            if self.ended || self.session.has_ended() || plain.is_empty() {
                return Poll::Ready(Ok(0));
            }
            let given = ready!(self.poll_fill(cx, plain))?;
            if self.session.wants_write() {
                // An answer of TLS's own, such as to new keys. Where the socket is full it goes with what is offered next.
                let _ = self.push();
            }
            if given > 0 {
                return Poll::Ready(Ok(given));
            }
        }
    }

    /// Reads from the socket once, and decrypts.
    fn poll_fill(&mut self, cx: &mut Context<'_>, plain: &mut [u8]) -> Poll<io::Result<usize>> {
        READ.with_borrow_mut(|scratch| {
            // Not more than there is room for: what does not fit would have to be kept.
            let most = plain.len().clamp(LEAST, SCRATCH);
            let mut read = ReadBuf::new(scratch.get_mut(..most).unwrap_or_default());
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                self.ended = true;
                return Poll::Ready(Ok(0));
            }
            Poll::Ready(self.session.take(read.filled(), plain).map_err(io::Error::from))
        })
    }

    /// Writes what the socket takes at once. A full socket may have bytes of those that were taken behind it, which leave when
    /// [`Encrypted::poll_writable`] is asked.
    pub fn offer(&mut self, plain: &[u8]) -> Taken {
        let mut taken: usize = 0;
        loop {
            match self.push() {
                Ok(true) => {}
                Ok(false) => return Taken::Full(taken),
                Err(_) => return Taken::Gone,
            }
            let rest = plain.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                return Taken::Some(taken);
            }
            match self.session.put(rest) {
                0 => return Taken::Gone,
                count => taken = taken.saturating_add(count),
            }
        }
    }

    /// Whether the socket takes bytes, and what waited has left.
    pub fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            // An error is told to whoever offers or reads next.
            if ready!(self.socket.poll_write_ready(cx)).is_err() || self.push().unwrap_or(true) {
                return Poll::Ready(());
            }
        }
    }

    /// Sends what is encrypted; whether that was all.
    fn push(&mut self) -> io::Result<bool> {
        while self.session.wants_write() {
            match self.session.write_to(&mut Out(&self.socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

impl Drop for Encrypted {
    /// Tells the other side that this is the end, if its socket takes that.
    fn drop(&mut self) {
        self.session.close();
        let _ = self.push();
    }
}

/// Writes without waiting.
struct Out<'a>(&'a TcpStream);

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, many: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(many)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
