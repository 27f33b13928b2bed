//! An app's connection: one request at a time, or several that leave together.

use crate::resp::{ReplyResume, Skim, skim, write};
use std::io::{self, ErrorKind};
use tokio::net::{TcpStream, UnixStream};

/// What there is room for to be read at once, at least.
const READ: usize = 4096;

/// A connection of an app to a proxy or a server.
pub struct App {
    socket: Socket,
    /// What was read and not taken yet stands from `taken` to `read`; behind it is room.
    input: Vec<u8>,
    taken: usize,
    read: usize,
    output: Vec<u8>,
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What an app is told, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A value.
    Value(Vec<u8>),
    /// That there is none.
    Nil,
    /// That something is done: `OK`, or a number.
    Done,
    /// An error; its text.
    Error(String),
}

impl App {
    /// Connects to `host:port`, or to the unix socket whose path begins with `/`.
    ///
    /// # Errors
    /// Where that fails.
    pub async fn to(address: &str) -> io::Result<Self> {
        let socket = if address.starts_with('/') {
            Socket::Unix(UnixStream::connect(address).await?)
        } else {
            let socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            Socket::Tcp(socket)
        };
        Ok(Self { socket, input: Vec::new(), taken: 0, read: 0, output: Vec::new() })
    }

    /// Sends a request and waits for what becomes of it.
    ///
    /// # Errors
    /// Where the connection ends, or the other side does not speak RESP.
    pub async fn ask(&mut self, words: &[&[u8]]) -> io::Result<Answer> {
        self.send(words).await?;
        self.answer().await
    }

    /// Sends a request.
    ///
    /// # Errors
    /// Where the connection ends.
    pub async fn send(&mut self, words: &[&[u8]]) -> io::Result<()> {
        self.add(words);
        self.flush().await
    }

    /// Adds a request to those that leave next.
    pub fn add(&mut self, words: &[&[u8]]) {
        write::request(&mut self.output, words);
    }

    /// Sends the requests that were added. Not to be cancelled.
    ///
    /// # Errors
    /// Where the connection ends.
    pub async fn flush(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while let Some(rest) = self.output.get(sent..).filter(|rest| !rest.is_empty()) {
            match self.socket.try_write(rest) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.socket.writable().await?,
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        Ok(())
    }

    /// Waits for the answer to the oldest request that has none yet. May be cancelled, and asked again.
    ///
    /// # Errors
    /// Where the connection ends, or the other side does not speak RESP.
    pub async fn answer(&mut self) -> io::Result<Answer> {
        read(self.reply().await?)
    }

    /// The same as its bytes, of whatever kind it is.
    ///
    /// # Errors
    /// As [`App::answer`].
    pub async fn reply(&mut self) -> io::Result<&[u8]> {
        let mut resume = ReplyResume::default();
        loop {
            let found = skim(&self.input[self.taken..self.read], &mut resume).map_err(|_| garbage())?;
            if let Skim::Reply(length) = found {
                let from = self.taken;
                self.taken += length;
                return Ok(&self.input[from..self.taken]);
            }
            self.input.copy_within(self.taken..self.read, 0);
            (self.taken, self.read) = (0, self.read - self.taken);
            if self.read == self.input.len() {
                self.input.resize((2 * self.read).max(READ), 0);
            }
            self.socket.readable().await?;
            match self.socket.try_read(&mut self.input[self.read..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.read += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Socket {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_write(bytes),
            Self::Unix(socket) => socket.try_write(bytes),
        }
    }

    fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_read(bytes),
            Self::Unix(socket) => socket.try_read(bytes),
        }
    }

    async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.writable().await,
            Self::Unix(socket) => socket.writable().await,
        }
    }

    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.readable().await,
            Self::Unix(socket) => socket.readable().await,
        }
    }
}

fn garbage() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "a reply that is none")
}

/// A whole reply, of the kinds that RESP2 has for single values.
fn read(reply: &[u8]) -> io::Result<Answer> {
    let end = reply.iter().position(|&byte| byte == b'\r').ok_or_else(garbage)?;
    let text = || String::from_utf8_lossy(&reply[1..end]).into_owned();
    match reply.first() {
        Some(b'+' | b':') => Ok(Answer::Done),
        Some(b'-') => Ok(Answer::Error(text())),
        Some(b'$') if reply.starts_with(b"$-1") => Ok(Answer::Nil),
        Some(b'$') => {
            let value = reply.get(end + 2..reply.len().saturating_sub(2)).ok_or_else(garbage)?;
            Ok(Answer::Value(value.to_vec()))
        }
        _ => Err(garbage()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_what_they_say() {
        let all: [(&[u8], Answer); 6] = [
            (b"$2\r\nab\r\n", Answer::Value(b"ab".to_vec())),
            (b"$0\r\n\r\n", Answer::Value(Vec::new())),
            (b"$-1\r\n", Answer::Nil),
            (b"+OK\r\n", Answer::Done),
            (b":1\r\n", Answer::Done),
            (b"-BUSY later\r\n", Answer::Error("BUSY later".to_owned())),
        ];
        for (reply, answer) in all {
            assert_eq!(read(reply).unwrap(), answer);
        }
        assert!(read(b"*0\r\n").is_err());
    }
}
