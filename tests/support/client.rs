//! A small blocking client: bytes in, bytes out, with its own idea of where a reply ends.

use super::FOREVER;
use rustls::{ClientConnection, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A connection to hotring or to a server.
pub(crate) struct Client {
    stream: Stream,
    /// What was read and not asked for yet.
    buffer: Vec<u8>,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// A request as an array of bulk strings.
pub(crate) fn wire<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        let arg = arg.as_ref();
        out.extend(format!("${}\r\n", arg.len()).bytes());
        out.extend(arg);
        out.extend(b"\r\n");
    }
    out
}

impl Client {
    /// Connects to `host:port` or to the path of a unix socket.
    pub(crate) fn connect(address: &str) -> Self {
        Self::try_connect(address).unwrap_or_else(|error| panic!("{address}: {error}"))
    }

    pub(crate) fn try_connect(address: &str) -> io::Result<Self> {
        let stream = if address.starts_with('/') {
            let socket = UnixStream::connect(address)?;
            socket.set_read_timeout(Some(FOREVER))?;
            socket.set_write_timeout(Some(FOREVER))?;
            Stream::Unix(socket)
        } else {
            let socket = TcpStream::connect(address)?;
            socket.set_nodelay(true)?;
            socket.set_read_timeout(Some(FOREVER))?;
            socket.set_write_timeout(Some(FOREVER))?;
            Stream::Tcp(socket)
        };
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// One over TLS, past the handshake.
    pub(crate) fn over(socket: StreamOwned<ClientConnection, TcpStream>) -> Self {
        Self { stream: Stream::Tls(Box::new(socket)), buffer: Vec::new() }
    }

    /// What TLS has agreed on.
    pub(crate) fn tls(&self) -> &ClientConnection {
        let Stream::Tls(socket) = &self.stream else { panic!("it has no TLS") };
        &socket.conn
    }

    /// Sends bytes that are not encrypted on a connection with TLS.
    pub(crate) fn send_past_tls(&mut self, bytes: &[u8]) {
        let Stream::Tls(socket) = &mut self.stream else { panic!("it has no TLS") };
        socket.sock.write_all(bytes).unwrap();
    }

    /// The same connection again, to write on one thread while another reads.
    pub(crate) fn writer(&self) -> Self {
        let stream = match &self.stream {
            Stream::Tcp(socket) => Stream::Tcp(socket.try_clone().unwrap()),
            Stream::Unix(socket) => Stream::Unix(socket.try_clone().unwrap()),
            Stream::Tls(_) => panic!("one thread has all of it"),
        };
        Self { stream, buffer: Vec::new() }
    }

    /// Sends a request of words and returns its reply as it came, unprintable bytes replaced.
    pub(crate) fn ask(&mut self, words: &str) -> String {
        let args: Vec<&str> = words.split_whitespace().collect();
        String::from_utf8_lossy(&self.call(&args)).into_owned()
    }

    /// Sends a request and returns its reply as it came.
    pub(crate) fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Vec<u8> {
        self.send(&wire(args));
        self.reply()
    }

    /// Sends bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("the other side takes it");
    }

    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(socket) => socket.write_all(bytes),
            Stream::Unix(socket) => socket.write_all(bytes),
            Stream::Tls(socket) => socket.write_all(bytes).and_then(|()| socket.flush()),
        }
    }

    /// The next reply as it came.
    pub(crate) fn reply(&mut self) -> Vec<u8> {
        loop {
            if let Some(length) = reply_length(&self.buffer) {
                let rest = self.buffer.split_off(length);
                return std::mem::replace(&mut self.buffer, rest);
            }
            let count = self.read().expect("a reply comes in time");
            let some = &self.buffer[..self.buffer.len().min(100)];
            assert!(count > 0, "closed, with {} bytes: {}", self.buffer.len(), some.escape_ascii());
        }
    }

    /// Sends a request of words and returns its reply, if there is one before the connection ends.
    pub(crate) fn try_ask(&mut self, words: &str) -> io::Result<String> {
        let args: Vec<&str> = words.split_whitespace().collect();
        self.try_send(&wire(&args))?;
        loop {
            if let Some(length) = reply_length(&self.buffer) {
                let rest = self.buffer.split_off(length);
                return Ok(String::from_utf8_lossy(&std::mem::replace(&mut self.buffer, rest)).into_owned());
            }
            if self.read()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// The next reply as text.
    pub(crate) fn text(&mut self) -> String {
        String::from_utf8_lossy(&self.reply()).into_owned()
    }

    /// So many bytes.
    pub(crate) fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.read().expect("bytes come in time") > 0, "closed after {} of {count}", self.buffer.len());
        }
        let rest = self.buffer.split_off(count);
        std::mem::replace(&mut self.buffer, rest)
    }

    /// All until the other side ends the connection. A reset is an end, too.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        loop {
            match self.read() {
                Ok(0) => break,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
                read => drop(read.expect("the end comes in time")),
            }
        }
        std::mem::take(&mut self.buffer)
    }

    /// Sends no more.
    pub(crate) fn half_close(&self) {
        let done = match &self.stream {
            Stream::Tcp(socket) => socket.shutdown(Shutdown::Write),
            Stream::Unix(socket) => socket.shutdown(Shutdown::Write),
            Stream::Tls(socket) => socket.sock.shutdown(Shutdown::Write),
        };
        // The other side may have ended it already.
        done.or_else(|error| if error.kind() == io::ErrorKind::NotConnected { Ok(()) } else { Err(error) }).unwrap();
    }

    /// Ends a TCP connection as an app that crashed does: the other side sees a reset. One that is dropped looks like one
    /// that only closed its half.
    pub(crate) fn reset(self) {
        if let Stream::Tcp(socket) = &self.stream {
            socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO)).unwrap();
        }
    }

    fn read(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 64 * 1024];
        let count = uninterrupted(|| match &mut self.stream {
            Stream::Tcp(socket) => socket.read(&mut chunk),
            Stream::Unix(socket) => socket.read(&mut chunk),
            Stream::Tls(socket) => socket.read(&mut chunk),
        })?;
        self.buffer.extend(&chunk[..count]);
        Ok(count)
    }
}

/// Reads once more where the process was stopped and continued: a read with a timeout ends with that.
pub(crate) fn uninterrupted(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// How long the reply at the front is, if it is all there.
fn reply_length(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|two| two == b"\r\n")? + 2;
    let number = || std::str::from_utf8(&bytes[1..line - 2]).unwrap().parse::<i64>().unwrap();
    match bytes[0] {
        b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => Some(line),
        b'$' | b'=' | b'!' => match usize::try_from(number()) {
            Ok(length) => Some(line + length + 2).filter(|&end| end <= bytes.len()),
            Err(_) => Some(line),
        },
        kind @ (b'*' | b'~' | b'>' | b'%') => {
            let mut end = line;
            for _ in 0..number() * if kind == b'%' { 2 } else { 1 } {
                end += reply_length(&bytes[end..])?;
            }
            Some(end)
        }
        other => panic!("a reply begins with {:?}", char::from(other)),
    }
}
