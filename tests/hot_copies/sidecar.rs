//! An engine with real servers behind it: what a worker is, without its tasks. It is pumped by whoever waits for something, so
//! that a test decides what happens between two of its steps.

use crate::memory::{Wires, pool};
use crate::support::{FOREVER, now};
use hotring::engine::{Engine, LineId, SessionId};
use hotring::resp::{ReplyResume, Skim, skim, write};
use hotring::stages::Hot;
use hotring::stages::hot::{Config, Means};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

/// See the module.
pub(crate) struct Sidecar {
    pub(crate) engine: Engine,
    wires: Wires,
    addresses: Vec<String>,
    sockets: HashMap<LineId, (UnixStream, Vec<u8>)>,
    /// Where its clock begins.
    from: Instant,
}

impl Sidecar {
    /// Over these servers, with so many sessions.
    pub(crate) fn new(addresses: &[String], config: Config, sessions: usize, from: Instant) -> Self {
        let mut place = pool(addresses.len() as u16, 1, false);
        place.timeout = Some(5_000_000);
        place.path.hot = Hot::new(config, 7, Default::default());
        let mut engine = Engine::new(1, 1);
        let (number, lines) = engine.add_pool(place);
        let wires = Wires { shards: vec![Vec::new(); lines.len()], ..Wires::default() };
        let addresses = addresses.to_vec();
        let mut sidecar = Self { engine, wires, addresses, sockets: HashMap::new(), from };
        for line in lines {
            sidecar.connect(line);
        }
        for _ in 0..sessions {
            sidecar.engine.open(number);
            sidecar.wires.apps.push(Vec::new());
        }
        sidecar
    }

    pub(crate) fn now(&self) -> u64 {
        1_000_000 + now().duration_since(self.from).as_micros() as u64
    }

    /// The key is hot from now on, and has copies.
    pub(crate) fn enter(&mut self, key: &str, copies: u16) {
        let (now, home) = (self.now(), self.home(key));
        let hot = &mut self.engine.path_mut(0).unwrap().hot;
        hot.enter(key.as_bytes(), home, Means::Copies(copies), now);
        self.tick();
        // All that copies are made with is there from the first read on.
        self.pump();
    }

    pub(crate) fn home(&self, key: &str) -> u16 {
        self.engine.path(0).unwrap().route.ring().shard_of(key.as_bytes()).unwrap()
    }

    /// The shards where a hot key is served, and the names that it has there.
    pub(crate) fn copies(&self, key: &str) -> Vec<(u16, String)> {
        let hot = &self.engine.path(0).unwrap().hot;
        let copies = hot.key(hot.hash(key.as_bytes())).unwrap().copies.as_ref().unwrap();
        copies.places().iter().zip(0..).skip(1).map(|(&shard, number)| (shard, format!("hk1:{number}:{key}"))).collect()
    }

    fn connect(&mut self, line: LineId) {
        let (shard, dialect) = self.engine.line(line).map(|line| (line.shard, line.dialect)).unwrap();
        let mut socket = UnixStream::connect(&self.addresses[usize::from(shard)]).unwrap();
        if dialect.resp3 {
            socket.write_all(b"HELLO 3\r\n").unwrap();
            read_reply(&mut socket);
        }
        socket.set_nonblocking(true).unwrap();
        self.sockets.insert(line, (socket, Vec::new()));
        let now = self.now();
        self.engine.connected(line, now);
    }

    /// Once, when a key has become hot: the upkeep that follows would find out anew what is hot, and the test says that.
    fn tick(&mut self) {
        let now = self.now();
        assert_eq!(self.engine.tick(now, &mut self.wires), []);
    }

    /// Sends what is to be sent, takes what has come. Returns whether something had.
    pub(crate) fn pump(&mut self) -> bool {
        self.engine.flush(&mut self.wires);
        for line in std::mem::take(&mut self.wires.wanted) {
            self.connect(line);
        }
        self.engine.flush(&mut self.wires);
        let mut lines: Vec<LineId> = self.sockets.keys().copied().collect();
        lines.sort_unstable();
        let mut came = false;
        for id in lines {
            let (socket, rest) = self.sockets.get_mut(&id).unwrap();
            if let Some(bytes) = self.wires.shards.get_mut(id as usize).filter(|bytes| !bytes.is_empty()) {
                socket.write_all(&std::mem::take(bytes)).unwrap();
            }
            let mut buffer = [0; 64 * 1024];
            match socket.read(&mut buffer) {
                Ok(0) => panic!("a server closed connection {id}"),
                Ok(count) => rest.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => panic!("{error}"),
            }
            came = true;
            let bytes = std::mem::take(rest);
            let now = 1_000_000 + now().duration_since(self.from).as_micros() as u64;
            let (used, _) = self.engine.receive(id, &bytes, now, &mut self.wires).unwrap();
            self.sockets.get_mut(&id).unwrap().1.extend_from_slice(&bytes[used..]);
        }
        self.engine.flush(&mut self.wires);
        came
    }

    /// Asks something and waits for the reply.
    pub(crate) fn ask(&mut self, session: SessionId, words: &[&str]) -> String {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let mut bytes = Vec::new();
        write::request(&mut bytes, &words);
        let now = self.now();
        let submitted = self.engine.submit(session, &bytes, now, &mut self.wires);
        assert_eq!(submitted.consumed, bytes.len());
        self.engine.flush(&mut self.wires);
        let from = crate::support::now();
        loop {
            let reply = &mut self.wires.apps[session as usize];
            if let Ok(Skim::Reply(length)) = skim(reply, &mut ReplyResume::default()) {
                assert_eq!(length, reply.len(), "one reply");
                return String::from_utf8_lossy(&std::mem::take(reply)).into_owned();
            }
            if !self.pump() {
                std::thread::yield_now();
            }
            assert!(from.elapsed() < FOREVER, "no reply to {words:?}");
        }
    }

    /// Pumps until it is so.
    pub(crate) fn until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let from = now();
        while !is_so(self) {
            self.pump();
            assert!(from.elapsed() < FOREVER, "still not so: {what}");
            std::thread::yield_now();
        }
    }

    /// What there is to know where a test fails.
    fn what_is_known(&self) -> String {
        let hot = &self.engine.path(0).unwrap().hot;
        let keys: Vec<_> = hot.keys().map(|(_, key)| key).collect();
        let open: Vec<u32> = (0..self.addresses.len() as u16).map(|shard| hot.choice.open(shard)).collect();
        format!("at {}, open {open:?}, {:?}, {keys:?}", self.now(), hot.choice)
    }

    /// Reads sent to copies, answered by them, copies made, made by others first, taken away.
    pub(crate) fn counts(&mut self) -> [u64; 5] {
        let counts = self.engine.pool_counts(0).unwrap();
        [counts.copy_reads, counts.copy_hits, counts.copy_fills, counts.copy_fill_lost, counts.copy_unlinks]
    }

    /// Asks again and again until a copy has answered; all replies have to be the same.
    pub(crate) fn ask_copies(&mut self, session: SessionId, words: &[&str]) -> String {
        let (before, from) = (self.counts()[1], now());
        let first = self.ask(session, words);
        while self.counts()[1] == before {
            assert_eq!(self.ask(session, words), first, "{words:?}");
            assert!(from.elapsed() < FOREVER, "no copy answers {words:?}: {}", self.what_is_known());
        }
        first
    }
}

fn read_reply(socket: &mut UnixStream) -> Vec<u8> {
    let mut reply = Vec::new();
    let mut byte = [0];
    loop {
        socket.read_exact(&mut byte).unwrap();
        reply.push(byte[0]);
        if let Ok(Skim::Reply(_)) = skim(&reply, &mut ReplyResume::default()) {
            return reply;
        }
    }
}
