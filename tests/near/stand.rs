//! One worker's engine with a hot key, whose shards are played by the test. Time is an argument.

use crate::support::{Wires, engine, pool, request};
use hotring::engine::{Engine, LineId, SessionId};
use hotring::stages::Hot;
use hotring::stages::hot::{Config, Means, Reads};

pub(crate) const S: u64 = 1_000_000;
pub(crate) const TRACKING: &str = "*4\r\n$6\r\nCLIENT\r\n$8\r\nTRACKING\r\n$2\r\nON\r\n$5\r\nOPTIN\r\n";

pub(crate) struct Stand {
    pub(crate) engine: Engine,
    pub(crate) wires: Wires,
    pub(crate) now: u64,
    pub(crate) tracker: LineId,
    /// The connection that requests take.
    pub(crate) line: LineId,
}

impl Stand {
    /// Two shards, and key `k` on one of them which is hot and has been read, so that its shard is tracked.
    pub(crate) fn new() -> Self {
        Self::with(Config { reads: Reads::Near, ..Config::default() })
    }

    pub(crate) fn with(config: Config) -> Self {
        Self::over(Hot::new(config, 7, Default::default()))
    }

    pub(crate) fn over(hot: Hot) -> Self {
        let mut pool = pool(1, 1, false);
        pool.path.hot = hot;
        let (engine, wires) = engine(pool, 3);
        let mut stand = Self { engine, wires, now: 1_000, tracker: 0, line: 0 };
        stand.engine.path_mut(0).unwrap().hot.enter(b"k", 0, Means::Near, 0);
        stand.ask(0, "GET k");
        stand.answer(stand.line, "$1\r\n0\r\n");
        assert_eq!(stand.app(0), "$1\r\n0\r\n");
        stand.tracker = stand.wires.wanted.pop().unwrap();
        stand.engine.connected(stand.tracker, stand.now);
        stand.flush();
        assert_eq!(stand.sent(stand.tracker), TRACKING);
        stand.answer(stand.tracker, "+OK\r\n");
        stand
    }

    pub(crate) fn flush(&mut self) {
        self.engine.flush(&mut self.wires);
    }

    pub(crate) fn ask(&mut self, session: SessionId, line: &str) {
        self.send(session, &request(line));
    }

    pub(crate) fn send(&mut self, session: SessionId, bytes: &[u8]) {
        self.now += 10;
        let submitted = self.engine.submit(session, bytes, self.now, &mut self.wires);
        assert_eq!(submitted.consumed, bytes.len());
        self.flush();
    }

    pub(crate) fn answer(&mut self, line: LineId, reply: &str) {
        self.now += 10;
        let used = self.engine.receive(line, reply.as_bytes(), self.now, &mut self.wires).unwrap();
        assert_eq!(used.0, reply.len());
        self.flush();
    }

    pub(crate) fn app(&mut self, session: SessionId) -> String {
        String::from_utf8(std::mem::take(&mut self.wires.apps[session as usize])).unwrap()
    }

    pub(crate) fn sent(&mut self, line: LineId) -> String {
        if self.wires.shards.len() <= line as usize {
            return String::new();
        }
        String::from_utf8(std::mem::take(&mut self.wires.shards[line as usize])).unwrap()
    }

    /// Reads `k` on the tracked connection, so that it is kept.
    pub(crate) fn fill(&mut self, value: &str) {
        self.fill_begins(0);
        let kept = format!("+OK\r\n{value}:-1\r\n");
        self.answer(self.tracker, &kept);
        assert_eq!(self.app(0), value);
    }

    /// A session's `GET k` is asked on the tracked connection, and nowhere else.
    pub(crate) fn fill_begins(&mut self, session: SessionId) {
        self.sent(self.line);
        self.sent(self.tracker);
        self.ask(session, "GET k");
        assert_eq!(self.sent(self.line), "");
        let asked =
            ["CLIENT CACHING YES", "GET k", "PTTL k"].map(|line| String::from_utf8(request(line)).unwrap()).concat();
        assert_eq!(self.sent(self.tracker), asked);
    }

    /// Whether `GET k` of a session is answered from memory, and how. If not it is answered from wherever it was sent, and not
    /// kept.
    pub(crate) fn near(&mut self, session: SessionId) -> Option<String> {
        self.sent(self.line);
        self.sent(self.tracker);
        self.ask(session, "GET k");
        let (home, tracked) = (self.sent(self.line), self.sent(self.tracker));
        let told = self.app(session);
        if tracked.contains("PING") {
            self.answer(self.tracker, "+PONG\r\n");
        }
        if !home.is_empty() {
            self.answer(self.line, "$4\r\nhome\r\n");
        } else if tracked.contains("GET") {
            // It was there, and is gone.
            let reply =
                if tracked.contains("CACHING") { "+OK\r\n$4\r\nhome\r\n:-2\r\n" } else { "$4\r\nhome\r\n:-2\r\n" };
            self.answer(self.tracker, reply);
        } else {
            return Some(told);
        }
        assert_eq!((told.as_str(), self.app(session).as_str()), ("", "$4\r\nhome\r\n"));
        None
    }
}
