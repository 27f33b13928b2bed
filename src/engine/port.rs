//! The shell's grip on the engine: how bytes leave it.

use super::{LineId, SessionId};

/// What the engine asks of whoever owns the sockets. Nothing here may wait.
pub trait Port {
    /// Offers bytes to an app's socket. Returns how many it took.
    fn to_app(&mut self, session: SessionId, bytes: &[u8]) -> Taken;

    /// Offers bytes to a shard's connection. Returns how many it took.
    fn to_shard(&mut self, line: LineId, bytes: &[u8]) -> Taken;

    /// The session has something to do: go on reading, or end.
    fn wake(&mut self, session: SessionId);

    /// The connection is wanted: there are requests for it and it is not open.
    fn open(&mut self, line: LineId);

    /// The connection is to be closed, whatever is under way on it; the engine has forgotten it all.
    /// Only connections that sessions have for themselves are given up so; a shell without any has nothing to do.
    fn give_up(&mut self, line: LineId) {
        let _ = line;
    }

    /// Whether the connection is one to a node in this process. It is given each request by itself: it answers at once, so
    /// that nothing is won by collecting them, and an app must not be read beyond what its replies leave room for.
    fn is_in_process(&self, line: LineId) -> bool {
        let _ = line;
        false
    }

    /// The addresses of an app's connection, its own and the one it came to, as CLIENT LIST tells them; empty where unknown.
    fn addresses(&self, session: SessionId) -> (String, String) {
        let _ = session;
        (String::new(), String::new())
    }

    /// What a node in this process has answered, if something waits.
    fn answer(&mut self) -> Option<(LineId, Vec<u8>)> {
        None
    }
}

/// What became of bytes offered to a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// So many were taken, at least one; more may be offered at once.
    Some(usize),
    /// So many were taken; the socket is full, and the shell will say when it is writable.
    Full(usize),
    /// The other side is gone. Its reader will learn it, too; the bytes can be dropped.
    Gone,
}
