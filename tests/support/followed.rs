//! An engine with one shard, on connection 0, and two replicas of it, on connections 1 and 2; each test file says what is read from
//! them. Time is an argument.

use super::support::{Wires, request};
use hotring::engine::{Engine, LineId, SessionId};

/// See above.
pub(crate) struct Stand {
    pub(crate) engine: Engine,
    pub(crate) wires: Wires,
    pub(crate) now: u64,
    /// How far the shard is.
    pub(crate) offset: u64,
    /// How long each of them takes to answer.
    pub(crate) takes: [u64; 3],
    /// In which zone each of them says that it is.
    pub(crate) zones: [&'static str; 3],
}

/// A bulk string.
pub(crate) fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

impl Stand {
    /// None of the replicas is proven to be up to date yet.
    pub(crate) fn over(engine: Engine, wires: Wires) -> Self {
        Self { engine, wires, now: 10_000_000, offset: 100, takes: [100; 3], zones: [""; 3] }
    }

    pub(crate) fn flush(&mut self) {
        self.engine.flush(&mut self.wires);
    }

    /// Sends a request; whether it was taken.
    pub(crate) fn ask(&mut self, session: SessionId, line: &str) -> bool {
        self.now += 10;
        let submitted = self.engine.submit(session, &request(line), self.now, &mut self.wires);
        self.flush();
        submitted.consumed > 0
    }

    pub(crate) fn answer(&mut self, line: LineId, reply: &str) {
        self.now += 10;
        let used = self.engine.receive(line, reply.as_bytes(), self.now, &mut self.wires).unwrap();
        assert_eq!(used.0, reply.len());
        self.flush();
    }

    pub(crate) fn tick(&mut self, later: u64) {
        self.now += later;
        assert!(self.engine.tick(self.now, &mut self.wires).is_empty());
        self.flush();
    }

    pub(crate) fn app(&mut self, session: SessionId) -> String {
        String::from_utf8(std::mem::take(&mut self.wires.apps[session as usize])).unwrap()
    }

    pub(crate) fn sent(&mut self, line: LineId) -> String {
        String::from_utf8(std::mem::take(&mut self.wires.shards[line as usize])).unwrap()
    }

    /// What the shard, or a replica, says of itself.
    pub(crate) fn standing(&self, line: LineId) -> String {
        let (role, done) = match line {
            0 => ("master", String::new()),
            _ => (
                "slave\r\nmaster_link_status:up\r\nmaster_sync_in_progress:0",
                format!("slave_repl_offset:{}\r\n", self.offset),
            ),
        };
        let (id, offset) = ("a".repeat(40), self.offset);
        bulk(&format!("# Replication\r\nrole:{role}\r\n{done}master_replid:{id}\r\nmaster_repl_offset:{offset}\r\n"))
    }
}
