//! One connection's TLS: bytes in, bytes out.

use super::{Client, Refused, Server};
use rustls::{ClientConnection, Connection, ServerConnection};
use std::io::{self, Read, Write};

/// Bytes that a session holds, about: its keys and its buffers. For the account of what apps make the process hold.
pub const HELD: usize = 16 * 1024;
/// Encrypted bytes that wait to be sent at most, about; as many are encrypted for one call of the system.
const WAITING: usize = 64 * 1024;

/// See the module.
pub struct Session {
    connection: Connection,
    /// What was read and not decrypted yet, for want of room; empty most of the time.
    held: Vec<u8>,
    /// Decrypted bytes that wait to be taken.
    waiting: usize,
    failed: Option<Refused>,
    /// The other side has said that nothing follows.
    ended: bool,
}

impl Session {
    /// Of an app.
    ///
    /// # Errors
    /// Where it cannot be begun.
    pub fn of_app(server: &Server) -> Result<Self, Refused> {
        let connection = ServerConnection::new(server.config()).map_err(|error| Refused::from(&error))?;
        Ok(Self::new(connection.into()))
    }

    /// To a server that goes by this name, or has this address.
    ///
    /// # Errors
    /// Where that is no name.
    pub fn to_server(client: &Client, host: &str) -> Result<Self, Refused> {
        let name = client.name_of(host)?;
        let connection = ClientConnection::new(client.config(), name).map_err(|_| Refused::OWN)?;
        Ok(Self::new(connection.into()))
    }

    fn new(mut connection: Connection) -> Self {
        connection.set_buffer_limit(Some(WAITING));
        Self { connection, held: Vec::new(), waiting: 0, failed: None, ended: false }
    }

    /// Whether the handshake is not over.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Whether there are bytes for the other side.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    /// Whether there is something that was read and not taken yet.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.waiting > 0 || !self.held.is_empty() || self.failed.is_some()
    }

    /// Whether the other side has said that nothing follows, and all before that was taken.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended && self.waiting == 0
    }

    /// Takes bytes of the other side, and gives what they say in `plain`; the rest of it waits for the next call.
    ///
    /// # Errors
    /// What is wrong with them, once what came before that is taken.
    #[expect(clippy::arithmetic_side_effects, reason = "positions in a buffer")]
    pub fn take(&mut self, cipher: &[u8], plain: &mut [u8]) -> Result<usize, Refused> {
        let mut held = std::mem::take(&mut self.held);
        if !held.is_empty() {
            held.extend_from_slice(cipher);
        }
        let mut rest = if held.is_empty() { cipher } else { held.as_slice() };
        let mut given = 0;
        loop {
            while given < plain.len() && self.waiting > 0 {
                match self.connection.reader().read(plain.get_mut(given..).unwrap_or_default()) {
                    Ok(count) if count > 0 => {
                        given += count;
                        self.waiting = self.waiting.saturating_sub(count);
                    }
                    // An orderly end, or nothing after all.
                    _ => self.waiting = 0,
                }
            }
            if rest.is_empty() || self.failed.is_some() || (given == plain.len() && self.waiting > 0) {
                break;
            }
            match self.connection.read_tls(&mut rest) {
                // It has said that nothing follows.
                Ok(0) => rest = &[],
                Ok(_) => match self.connection.process_new_packets() {
                    Ok(state) => {
                        self.waiting = state.plaintext_bytes_to_read();
                        self.ended |= state.peer_has_closed();
                    }
                    Err(error) => {
                        self.failed = Some(Refused::from(&error));
                        rest = &[];
                    }
                },
                // No room in there: what waits is to be taken first.
                Err(_) if self.waiting > 0 => break,
                // Nothing waits: a message of the handshake that is longer than any may be, and never whole.
                Err(_) => {
                    self.failed = Some(Refused::TOO_LONG);
                    rest = &[];
                }
            }
        }
        self.held = rest.to_vec();
        match self.failed {
            Some(refused) if given == 0 => Err(refused),
            _ => Ok(given),
        }
    }

    /// Encrypts bytes for the other side, as many as may wait; how many that were is returned.
    pub fn put(&mut self, plain: &[u8]) -> usize {
        // It never fails: it takes less.
        self.connection.writer().write(plain).unwrap_or(0)
    }

    /// Writes what is for the other side, with one call if that takes all.
    ///
    /// # Errors
    /// As `to` says.
    pub fn write_to(&mut self, to: &mut dyn Write) -> io::Result<usize> {
        self.connection.write_tls(to)
    }

    /// Tells the other side that nothing follows.
    pub fn close(&mut self) {
        self.connection.send_close_notify();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::ClientSettings;

    /// Records of a message of the handshake that says it is 65535 bytes long, the most that is taken.
    fn endless(records: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in 0..records {
            bytes.extend([22, 3, 3, 0x40, 0]);
            let mut payload = vec![0; 0x4000];
            if number == 0 {
                payload[..4].copy_from_slice(&[2, 0, 0xff, 0xff]);
            }
            bytes.extend(payload);
        }
        bytes
    }

    #[test]
    fn a_message_that_is_never_whole_is_not_kept_without_bound() {
        let settings = ClientSettings { verify: false, ..ClientSettings::default() };
        let client = Client::new(settings, &mut |_| Ok(Vec::new())).unwrap();
        let mut session = Session::to_server(&client, "a.example").unwrap();
        // What is read at once.
        for (read, part) in endless(64).chunks(4096).enumerate() {
            match session.take(part, &mut []) {
                Ok(_) => {
                    assert!(read < 16 && session.held.len() <= 4096, "{read}: {} bytes are kept", session.held.len())
                }
                Err(refused) => {
                    assert_eq!(refused, Refused::TOO_LONG);
                    assert!(session.held.is_empty());
                    return;
                }
            }
        }
        panic!("a megabyte was taken");
    }
}
