//! A short talk with a server, apart from the connections that carry requests: questions in RESP2, answers read whole.
//!
//! Promises: at most [`LONGEST`] bytes of answers are held, and an answer is what Redis can send or an error. Knows no
//! clock: whoever waits bounds the wait.

use crate::encrypted::Encrypted;
use crate::engine::port::Taken;
use crate::hub;
use crate::resp::control::{self, Control};
use crate::resp::{ReplyResume, Skim, skim, write};
use crate::tls::Client;
use crate::units::{Address, Secret};
use std::future::poll_fn;
use std::io;
use std::task::Poll;
use tokio::net::TcpStream;

/// Bytes of answers that are held at most: what a cluster of a thousand nodes says, or one with no two slots alike.
pub const LONGEST: usize = 8 << 20;
/// Bytes read at once.
const READ: usize = 16 * 1024;

/// How one is spoken to who is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// The user, if not the default one.
    pub user: Option<String>,
    /// The password, if there is one.
    pub password: Option<Secret>,
    /// How TLS is spoken, if it is.
    pub tls: Option<Client>,
}

enum Wire {
    Plain(TcpStream),
    Encrypted(Box<Encrypted>),
}

/// An open connection to who is asked.
pub struct Talk {
    wire: Wire,
    /// What was read and not taken yet.
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Talk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Talk").finish_non_exhaustive()
    }
}

impl Talk {
    /// Connects, and says who it is.
    ///
    /// # Errors
    /// Why not, in a few words.
    pub async fn open(at: &Address, access: &Access) -> Result<Self, String> {
        let Address::Tcp { host, port } = at else { return Err("it is a unix socket".into()) };
        let socket = TcpStream::connect((host.as_str(), *port)).await.map_err(|error| told(&error))?;
        socket.set_nodelay(true).map_err(|error| told(&error))?;
        let wire = match &access.tls {
            None => Wire::Plain(socket),
            Some(tls) => {
                let mut socket = Encrypted::to_server(socket, tls, host).map_err(|refused| refused.text)?;
                socket.shake_hands().await.map_err(|error| told(&error))?;
                Wire::Encrypted(Box::new(socket))
            }
        };
        let mut talk = Self { wire, buffer: Vec::new() };
        let Some(password) = &access.password else { return Ok(talk) };
        let password = password.expose().as_bytes();
        let mut request = Vec::new();
        match &access.user {
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
    pub async fn send(&mut self, mut requests: &[u8]) -> Result<(), String> {
        let socket = match &mut self.wire {
            Wire::Plain(socket) => socket,
            Wire::Encrypted(socket) => {
                while !requests.is_empty() {
                    let (Taken::Some(count) | Taken::Full(count)) = socket.offer(requests) else {
                        return Err("it closed the connection".into());
                    };
                    requests = requests.get(count..).unwrap_or_default();
                    poll_fn(|cx| socket.poll_writable(cx)).await;
                }
                return Ok(());
            }
        };
        while !requests.is_empty() {
            socket.writable().await.map_err(|error| told(&error))?;
            match socket.try_write(requests) {
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
            if let Wire::Plain(socket) = &self.wire {
                socket.readable().await.map_err(|error| told(&error))?;
            }
            let (wire, buffer) = (&mut self.wire, &mut self.buffer);
            // It may be given up while it waits: the buffer is then as it was.
            let read = poll_fn(|cx| {
                let have = buffer.len();
                buffer.resize(have.saturating_add(READ), 0);
                let room = buffer.get_mut(have..).unwrap_or_default();
                let read = match wire {
                    Wire::Plain(socket) => Poll::Ready(socket.try_read(room)),
                    Wire::Encrypted(socket) => socket.poll_read(cx, room),
                };
                let count = if let Poll::Ready(Ok(count)) = &read { *count } else { 0 };
                buffer.truncate(have.saturating_add(count));
                read
            });
            let read = read.await;
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
    if let Some(refused) = hub::refused(error) {
        return refused.text.into();
    }
    // What the system says, without its number.
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// A server's words on one line, and not endless.
pub(super) fn one_line(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
