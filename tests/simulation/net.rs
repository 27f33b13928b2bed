//! The sockets: pipes of some capacity that take what fits, break, and are seen to be broken only later.

use super::chance::Chance;
use super::cluster::Refusals;
use super::server::Conn;
use hotring::engine::line::{Dialect, Line, Owner};
use hotring::engine::port::{Port, Taken};
use hotring::engine::window::DIRECT;
use hotring::engine::{LineId, SessionId};
use std::collections::VecDeque;

/// An app's socket, as the proxy writes to it.
pub struct AppEnd {
    /// Bytes that the app has been sent and has not read.
    pub unread: usize,
    /// Most of them.
    pub capacity: usize,
    /// What has arrived and was not judged yet.
    pub arrived: Vec<u8>,
    /// The proxy was told that it is full, and waits to hear that it is not.
    pub full: bool,
    /// The app has left.
    pub gone: bool,
    /// The session's task is to be run.
    pub ready: bool,
}

/// Whether a connection to a shard is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Not open; opened when it is wanted.
    Idle,
    /// Not open; opened as soon as it can be.
    Lost,
    /// Being opened.
    Opening,
    /// Open.
    Open,
}

/// A connection to a shard.
pub struct LineEnd {
    pub node: usize,
    /// For one session at a time: opened once, as `upstream::connection::run_own` does.
    pub own: bool,
    /// It hears what is published.
    pub ear: bool,
    /// What is agreed on when it is opened.
    pub dialect: Dialect,
    /// What the shard remembers for it.
    pub conn: Conn,
    /// Its task is told to end.
    pub doomed: bool,
    pub link: Link,
    /// The engine asked for it.
    pub wanted: bool,
    /// Sent by the proxy, on its way.
    pub inbox: Vec<u8>,
    /// Most bytes on their way.
    pub capacity: usize,
    /// The proxy was told that it is full.
    pub full: bool,
    /// Received by the shard, not carried out yet.
    pub query: Vec<u8>,
    /// The shard's replies, not read by the proxy yet.
    pub outbox: VecDeque<u8>,
    /// What the proxy read and could not use yet.
    pub buffer: Vec<u8>,
    /// The shard has closed it; the proxy may not know yet.
    pub closed: bool,
    /// What is written now meets an error, and not a void.
    pub refuses: bool,
    /// What a node of a cluster refused on it.
    pub refusals: Refusals,
}

/// All sockets.
pub struct Net {
    pub chance: Chance,
    pub apps: Vec<AppEnd>,
    /// Each session's app.
    pub sessions: Vec<Option<usize>>,
    pub lines: Vec<LineEnd>,
    /// Connections that are wanted and have not been seen before.
    pub fresh: Vec<LineId>,
    /// Replies that were offered to an app by themselves.
    pub direct: u64,
}

impl LineEnd {
    pub fn new(node: usize, line: &Line, capacity: usize) -> Self {
        Self {
            node,
            own: !matches!(line.owner, Owner::Shared | Owner::Ear),
            ear: line.owner == Owner::Ear,
            dialect: line.dialect,
            conn: Conn::default(),
            doomed: false,
            link: Link::Idle,
            wanted: false,
            inbox: Vec::new(),
            capacity,
            full: false,
            query: Vec::new(),
            outbox: VecDeque::new(),
            buffer: Vec::new(),
            closed: false,
            refuses: false,
            refusals: Refusals::default(),
        }
    }

    /// Forgets the connection; returns what the shard had, or was about to, receive.
    pub fn reset(&mut self, link: Link) -> (Conn, Vec<u8>) {
        self.link = link;
        self.doomed = false;
        self.full = false;
        self.closed = false;
        self.refuses = false;
        self.outbox.clear();
        self.buffer.clear();
        let mut bytes = std::mem::take(&mut self.query);
        bytes.append(&mut self.inbox);
        (std::mem::take(&mut self.conn), bytes)
    }
}

impl Port for Net {
    fn to_app(&mut self, session: SessionId, bytes: &[u8]) -> Taken {
        assert!(!bytes.is_empty(), "nothing was sent to an app");
        let app = self.sessions.get(session as usize).copied().flatten();
        let end = &mut self.apps[app.expect("bytes for a session that has ended")];
        assert!(!end.full, "an app's full socket was written to");
        if end.gone {
            return Taken::Gone;
        }
        self.direct += u64::from(bytes.len() >= DIRECT && bytes[0] == b'$');
        let taken = offer(&mut self.chance, bytes.len(), end.capacity - end.unread.min(end.capacity));
        let (Taken::Some(n) | Taken::Full(n)) = taken else { return taken };
        end.unread += n;
        end.arrived.extend_from_slice(&bytes[..n]);
        end.full = matches!(taken, Taken::Full(_));
        taken
    }

    fn to_shard(&mut self, line: LineId, bytes: &[u8]) -> Taken {
        assert!(!bytes.is_empty(), "nothing was sent to a shard");
        let end = &mut self.lines[line as usize];
        assert_eq!(end.link, Link::Open, "line {line} was written to");
        assert!(!end.full, "a shard's full socket was written to");
        if end.closed {
            // Either the error is known already, or the bytes go nowhere and the reader will learn it.
            return if end.refuses { Taken::Gone } else { Taken::Some(bytes.len()) };
        }
        let taken = offer(&mut self.chance, bytes.len(), end.capacity - end.inbox.len().min(end.capacity));
        let (Taken::Some(n) | Taken::Full(n)) = taken else { return taken };
        end.inbox.extend_from_slice(&bytes[..n]);
        end.full = matches!(taken, Taken::Full(_));
        taken
    }

    fn wake(&mut self, session: SessionId) {
        if let Some(app) = self.sessions.get(session as usize).copied().flatten() {
            self.apps[app].ready = true;
        }
    }

    fn open(&mut self, line: LineId) {
        match self.lines.get_mut(line as usize) {
            Some(end) => end.wanted = true,
            None => self.fresh.push(line),
        }
    }

    fn give_up(&mut self, line: LineId) {
        match self.lines.get_mut(line as usize) {
            Some(end) => {
                // A shared one only as its shard leaves the pool.
                assert!(!end.own || end.wanted || end.link != Link::Idle, "line {line} was given up and is not there");
                end.doomed = true;
            }
            None => assert!(self.fresh.contains(&line), "line {line} was given up and never was"),
        }
    }
}

/// What a socket with so much room takes.
fn offer(chance: &mut Chance, length: usize, room: usize) -> Taken {
    if room == 0 {
        return Taken::Full(0);
    }
    let most = length.min(room);
    let n = if chance.one_in(8) { 1 + chance.below(most) } else { most };
    if n == room && n < length && chance.one_in(2) { Taken::Full(n) } else { Taken::Some(n) }
}
