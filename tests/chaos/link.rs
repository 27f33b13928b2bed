//! An app's connection: a request in, its reply out, and a deadline.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Well above any timeout of a proxy in these tests. Who waits this long hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// Replies of this length and longer are passed on while they arrive.
const LONG: usize = 1 << 20;

/// A reply, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Line(String),
    Error(String),
    Number(i64),
    Text(Vec<u8>),
    Nothing,
    Many(Vec<Self>),
}

/// Why there is no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    Closed,
    /// Ended within a reply that is so long that it is passed on while it arrives: what has come cannot be taken back.
    BrokenOff,
    Hung,
    /// It is not Redis' protocol.
    Garbage(String),
}

pub(crate) struct Link {
    socket: BufReader<TcpStream>,
}

impl Link {
    pub(crate) fn to(address: &str) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        socket.set_write_timeout(Some(DEADLINE))?;
        Ok(Self { socket: BufReader::with_capacity(64 * 1024, socket) })
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        self.socket.get_mut().write_all(bytes).map_err(gone)
    }

    /// Ends it as an app that crashed does.
    pub(crate) fn reset(self) {
        let _ = socket2::SockRef::from(self.socket.get_ref()).set_linger(Some(Duration::ZERO));
    }

    pub(crate) fn reply(&mut self) -> Result<Reply, Gone> {
        let mut line = Vec::new();
        self.socket.by_ref().take(64 * 1024).read_until(b'\n', &mut line).map_err(gone)?;
        if line.is_empty() {
            return Err(Gone::Closed);
        }
        let garbage = || Gone::Garbage(line.escape_ascii().to_string());
        let Some(text) = std::str::from_utf8(&line).ok().and_then(|text| text.strip_suffix("\r\n")) else {
            return Err(if line.ends_with(b"\n") { garbage() } else { Gone::Closed });
        };
        let (kind, rest) = text.split_at_checked(1).ok_or_else(garbage)?;
        let number = || rest.parse::<i64>().map_err(|_| garbage());
        Ok(match kind {
            "+" => Reply::Line(rest.to_owned()),
            "-" => Reply::Error(rest.to_owned()),
            ":" => Reply::Number(number()?),
            "$" => match usize::try_from(number()?) {
                Ok(length) => {
                    let mut text = vec![0; length + 2];
                    if let Err(error) = self.socket.read_exact(&mut text) {
                        let gone = gone(error);
                        return Err(if gone == Gone::Closed && length >= LONG { Gone::BrokenOff } else { gone });
                    }
                    if text.split_off(length) != b"\r\n" {
                        return Err(garbage());
                    }
                    Reply::Text(text)
                }
                Err(_) => Reply::Nothing,
            },
            "*" => match number()? {
                count @ 0.. => Reply::Many((0..count).map(|_| self.reply()).collect::<Result<_, _>>()?),
                _ => Reply::Nothing,
            },
            _ => return Err(garbage()),
        })
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn gone(error: io::Error) -> Gone {
    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) { Gone::Hung } else { Gone::Closed }
}
