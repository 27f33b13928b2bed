//! An app's connection: one request at a time.

use crate::resp::{ReplyResume, Skim, skim, write};
use std::io::{self, ErrorKind};
use tokio::net::TcpStream;

/// What is read at once.
const READ: usize = 4096;

/// A connection of an app to a proxy or a server.
pub struct App {
    socket: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
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
    /// Connects to `host:port`.
    ///
    /// # Errors
    /// Where that fails.
    pub async fn to(address: &str) -> io::Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, input: Vec::new(), output: Vec::new() })
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
        self.output.clear();
        write::request(&mut self.output, words);
        let mut sent = 0;
        while let Some(rest) = self.output.get(sent..).filter(|rest| !rest.is_empty()) {
            match self.socket.try_write(rest) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.socket.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits for the answer to the oldest request that has none yet. May be cancelled, and asked again.
    ///
    /// # Errors
    /// Where the connection ends, or the other side does not speak RESP.
    pub async fn answer(&mut self) -> io::Result<Answer> {
        let mut resume = ReplyResume::default();
        loop {
            let found = skim(&self.input, &mut resume).map_err(|_| garbage())?;
            if let Skim::Reply(length) = found {
                let answer = read(&self.input[..length]);
                self.input.drain(..length);
                return answer;
            }
            self.socket.readable().await?;
            let mut bytes = [0; READ];
            match self.socket.try_read(&mut bytes) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.input.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
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
