//! A short talk with a server, apart from the connections that carry requests: questions in RESP2, answers read whole.
//!
//! Promises: at most [`LONGEST`] bytes of answers are held, and an answer is what Redis can send or an error. Knows no
//! clock: whoever waits bounds the wait.

use crate::resp::control::{self, Control};
use crate::resp::{ReplyResume, Skim, skim, write};
use crate::units::{Address, Secret};
use std::io;
use tokio::net::TcpStream;

/// Bytes of answers that are held at most: what a cluster of a thousand nodes says, or one with no two slots alike.
pub const LONGEST: usize = 8 << 20;
/// Bytes read at once.
const READ: usize = 16 * 1024;

/// An open connection to who is asked.
#[derive(Debug)]
pub struct Talk {
    socket: TcpStream,
    /// What was read and not taken yet.
    buffer: Vec<u8>,
}

impl Talk {
    /// Connects, and says who it is.
    ///
    /// # Errors
    /// Why not, in a few words.
    pub async fn open(at: &Address, auth: &(Option<String>, Option<Secret>)) -> Result<Self, String> {
        let Address::Tcp { host, port } = at else { return Err("it is a unix socket".into()) };
        let socket = TcpStream::connect((host.as_str(), *port)).await.map_err(|error| told(&error))?;
        socket.set_nodelay(true).map_err(|error| told(&error))?;
        let mut talk = Self { socket, buffer: Vec::new() };
        let (user, Some(password)) = auth else { return Ok(talk) };
        let password = password.expose().as_bytes();
        let mut request = Vec::new();
        match user {
            Some(user) => write::request(&mut request, &[b"AUTH", user.as_bytes(), password]),
            None => write::request(&mut request, &[b"AUTH", password]),
        }
        talk.send(&request).await?;
        match talk.next().await? {
            Control::Error(text) => Err(one_line(&text)),
            _ => Ok(talk),
        }
    }

    /// Asks and waits for the answer, which may be an error of the server's.
    ///
    /// # Errors
    /// Why there is none, in a few words.
    pub async fn ask(&mut self, question: &[&[u8]]) -> Result<Control, String> {
        let mut request = Vec::new();
        write::request(&mut request, question);
        self.send(&request).await?;
        self.next().await
    }

    /// Sends what has been written as requests.
    ///
    /// # Errors
    /// Why not, in a few words.
    pub async fn send(&self, mut requests: &[u8]) -> Result<(), String> {
        while !requests.is_empty() {
            self.socket.writable().await.map_err(|error| told(&error))?;
            match self.socket.try_write(requests) {
                Ok(count) => requests = requests.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(told(&error)),
            }
        }
        Ok(())
    }

    /// The next answer, or what else the server says. May be given up at any time, and called again.
    ///
    /// # Errors
    /// Why there is none, in a few words.
    pub async fn next(&mut self) -> Result<Control, String> {
        let mut resume = ReplyResume::default();
        loop {
            let found = skim(&self.buffer, &mut resume).map_err(|error| format!("no Redis server: {error}"))?;
            if let Skim::Reply(length) = found {
                let bytes: Vec<u8> = self.buffer.drain(..length).collect();
                return match control::parse(&bytes) {
                    Ok(Some((reply, _))) => Ok(reply),
                    _ => Err("its answer is beyond what is read".into()),
                };
            }
            if self.buffer.len() >= LONGEST {
                return Err("its answer is too long".into());
            }
            self.socket.readable().await.map_err(|error| told(&error))?;
            let have = self.buffer.len();
            self.buffer.resize(have.saturating_add(READ), 0);
            let read = self.socket.try_read(self.buffer.get_mut(have..).unwrap_or_default());
            self.buffer.truncate(have.saturating_add(*read.as_ref().unwrap_or(&0)));
            match read {
                Ok(0) => return Err("it closed the connection".into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(told(&error)),
            }
        }
    }
}

fn told(error: &io::Error) -> String {
    // What the system says, without its number.
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// A server's words on one line, and not endless.
pub(super) fn one_line(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
