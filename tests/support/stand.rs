//! One worker's engine whose shards and apps are played by the test. Time is an argument.
#![allow(unreachable_pub, dead_code, unused_imports, reason = "each test uses some of it")]

#[path = "engine.rs"]
mod engine;

pub use engine::{Wires, engine, key_on, pool, request};
use hotring::acl::{Account, Users};
use hotring::engine::{Engine, LineId, PoolConfig, SessionId};
use hotring::stages::lease::{Config, Leases, Rule, Shared, Wanted};
use hotring::units::Secret;
use std::sync::Arc;

pub const MS: u64 = 1_000;
pub const NIL: &str = "$-1\r\n";

/// A pool's leases, as its first worker has them, of keys that begin with `prefix`.
pub fn leases(prefix: &str, wanted: Wanted) -> Leases {
    let config = match prefix {
        "" => Config::new(wanted, Vec::new()),
        _ => Config::new(Wanted::default(), vec![Rule { prefix: prefix.as_bytes().into(), wanted }]),
    };
    Leases::new(Arc::new(config), Arc::new(Shared::new()), 0)
}

/// Users with names and rules; each one's password is `pass`.
pub fn users(all: &[(&str, &str)]) -> Arc<Users> {
    let user = |&(name, rules): &(&str, &str)| Account {
        name: name.into(),
        passwords: vec![Secret::new("pass")],
        nopass: false,
        rules: format!("on {rules}"),
        read_only: false,
        connections: None,
        prefix: None,
    };
    Arc::new(Users::new(&all.iter().map(user).collect::<Vec<_>>(), None).unwrap())
}

/// A shard tells on a tracked connection that a key has changed.
pub fn push(key: &str) -> String {
    format!(">2\r\n$10\r\ninvalidate\r\n*1\r\n${}\r\n{key}\r\n", key.len())
}

pub struct Stand {
    pub engine: Engine,
    pub wires: Wires,
    pub now: u64,
    /// The connection that requests take.
    pub line: LineId,
}

impl Stand {
    pub fn of(pool: PoolConfig, sessions: usize) -> Self {
        let (engine, wires) = engine(pool, sessions);
        Self { engine, wires, now: 1_000_000, line: 0 }
    }

    pub fn ask(&mut self, session: SessionId, line: &str) {
        self.send(session, &request(line));
    }

    pub fn send(&mut self, session: SessionId, bytes: &[u8]) {
        self.now += 10;
        let submitted = self.engine.submit(session, bytes, self.now, &mut self.wires);
        assert_eq!(submitted.consumed, bytes.len());
        self.flush();
    }

    pub fn flush(&mut self) {
        self.engine.flush(&mut self.wires);
    }

    pub fn answer(&mut self, reply: &str) {
        self.answer_on(self.line, reply);
    }

    pub fn answer_on(&mut self, line: LineId, reply: &str) {
        self.now += 10;
        let used = self.engine.receive(line, reply.as_bytes(), self.now, &mut self.wires).unwrap();
        assert_eq!(used.0, reply.len());
        self.flush();
    }

    /// A session's `GET k` finds nothing.
    pub fn miss(&mut self, session: SessionId) {
        self.sent();
        self.ask(session, "GET k");
        assert_eq!(self.sent(), "GET k");
        self.answer(NIL);
    }

    pub fn app(&mut self, session: SessionId) -> String {
        String::from_utf8(std::mem::take(&mut self.wires.apps[session as usize])).unwrap()
    }

    /// The words of what the shard was sent since.
    pub fn sent(&mut self) -> String {
        self.sent_on(self.line)
    }

    pub fn sent_on(&mut self, line: LineId) -> String {
        let bytes = self.wires.shards.get_mut(line as usize).map(std::mem::take).unwrap_or_default();
        let text = String::from_utf8(bytes).unwrap();
        let words = text.split("\r\n").filter(|line| !line.starts_with('$') && !line.is_empty());
        let words: Vec<_> = words.map(|line| if line.starts_with('*') { "|" } else { line }).collect();
        words.join(" ").trim_start_matches("| ").replace(" | ", "; ")
    }

    pub fn tick(&mut self, span: u64) {
        self.now += span;
        let overdue = self.engine.tick(self.now, &mut self.wires);
        assert!(overdue.is_empty());
        self.flush();
    }

    pub fn orders(&mut self) {
        self.engine.take_orders(self.now);
        self.flush();
    }

    pub fn close(&mut self, session: SessionId) {
        self.engine.close(session, false, &mut self.wires);
        self.flush();
    }

    /// A connection that was asked for is open.
    pub fn opened(&mut self) -> LineId {
        let line = self.wires.wanted.pop().unwrap();
        self.engine.connected(line, self.now);
        self.flush();
        line
    }

    /// The same, and it is one on which the shard tells of changes.
    pub fn tracked(&mut self) -> LineId {
        let line = self.opened();
        assert_eq!(self.sent_on(line), "CLIENT TRACKING ON OPTIN");
        self.answer_on(line, "+OK\r\n");
        line
    }

    /// Nothing is left of what was.
    pub fn is_at_rest(&mut self) {
        let held = self.engine.holdings();
        assert_eq!((held.waits, held.arrays, held.errands, self.engine.in_flight()), (0, 0, 0, 0));
        let counts = self.engine.pool_counts(0).unwrap();
        assert_eq!(
            (counts.lease_waiting.get(), counts.requests_pending.get(), counts.client_output_bytes.get()),
            (0, 0, 0)
        );
    }
}
