//! Processes, servers and what is between them.

use crate::support::{Wires, pool};
use hotring::chance::splitmix;
use hotring::engine::{Engine, LineId};
use hotring::error::{Cause, Failure};
use hotring::resp::write;
use hotring::resp::{Limits, ReplyResume, Resume, Scan, Skim, scan, skim};
use hotring::stages::Hot;
use hotring::stages::hot::{Config, Means, Reads};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const SERVERS: u16 = 3;
const PROCESSES: usize = 3;
const SESSIONS: u32 = 3;
const STALENESS: u64 = 1_000_000;
const KEYS: [&str; 3] = ["a", "b", "c"];
const LOST: Failure = Failure { cause: Cause::Lost, reason: "closed by the server" };

/// What goes wrong.
#[derive(Clone, Copy)]
pub(crate) struct Faults {
    /// Of a hundred messages so many are late by up to 300 ms.
    pub(crate) late: u64,
    /// Microseconds between two tracked connections that break, on the average.
    pub(crate) breaks: u64,
    /// The same of processes that die.
    pub(crate) deaths: u64,
    /// Whether there is one who writes to servers past all processes.
    pub(crate) direct: bool,
}

/// A connection: which process', and its number there. A process that died has another number afterwards.
type Wire = (u64, LineId);

/// Bytes under way, with when they arrive.
type Way = VecDeque<(u64, Vec<u8>)>;

#[derive(Default)]
struct Server {
    /// What its clock is ahead, in milliseconds.
    ahead: u64,
    data: BTreeMap<String, (String, Option<u64>)>,
    tracked: BTreeMap<String, BTreeSet<Wire>>,
    caching: BTreeSet<Wire>,
}

struct Session {
    unsent: Vec<u8>,
    /// What it waits for: a read with what it must not be older than, or a write, and when it was asked for.
    open: VecDeque<Asked>,
    /// The newest write of its own that was answered, by when it happened.
    own: BTreeMap<String, usize>,
    next: u64,
}

struct Asked {
    key: String,
    /// The value, of a write.
    value: Option<String>,
    at: u64,
    floor: usize,
}

struct Process {
    number: u64,
    engine: Engine,
    wires: Wires,
    sessions: Vec<Session>,
    /// By key: the newest write through it that was answered.
    answered: BTreeMap<String, usize>,
}

/// See the module.
pub(crate) struct World {
    now: u64,
    draws: u64,
    faults: Faults,
    servers: Vec<Server>,
    processes: Vec<Process>,
    there: BTreeMap<Wire, (u16, Way)>,
    back: BTreeMap<Wire, Way>,
    /// Connections that are to be open again.
    again: Vec<(u64, Wire)>,
    /// What each key was, by value: its place in the order in which it was written, and when.
    written: BTreeMap<String, (usize, u64)>,
    orders: BTreeMap<String, Vec<u64>>,
    values: u64,
    numbers: u64,
    dead_hits: u64,
    pub(crate) reads: u64,
    /// Reads of what had been overwritten when they were asked.
    pub(crate) behind: u64,
    pub(crate) wrong: Vec<String>,
}

impl World {
    pub(crate) fn new(seed: u64, faults: Faults) -> Self {
        let servers =
            (0..SERVERS).map(|n| Server { ahead: 1_000_000 + u64::from(n) * 77_777, ..Server::default() }).collect();
        let mut world = Self {
            now: 10_000_000,
            draws: seed << 32,
            faults,
            servers,
            processes: Vec::new(),
            there: BTreeMap::new(),
            back: BTreeMap::new(),
            again: Vec::new(),
            written: BTreeMap::new(),
            orders: BTreeMap::new(),
            values: 0,
            numbers: 0,
            dead_hits: 0,
            reads: 0,
            behind: 0,
            wrong: Vec::new(),
        };
        for _ in 0..PROCESSES {
            let process = world.process();
            world.processes.push(process);
        }
        world
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.draws += 1;
        splitmix(self.draws) % below.max(1)
    }

    fn process(&mut self) -> Process {
        let mut place = pool(SERVERS, 1, false);
        place.path.hot =
            Hot::new(Config { reads: Reads::Copies, staleness: STALENESS, ..Config::default() }, 7, Default::default());
        let mut engine = Engine::new(1, 1);
        let (number, lines) = engine.add_pool(place);
        self.numbers += 1;
        let mut wires = Wires { shards: vec![Vec::new(); lines.len()], ..Wires::default() };
        lines.for_each(|line| engine.connected(line, self.now));
        let from = self.now;
        let sessions = (0..SESSIONS).map(|n| {
            engine.open(number);
            wires.apps.push(Vec::new());
            let next = from + u64::from(n) * 777;
            Session { unsent: Vec::new(), open: VecDeque::new(), own: BTreeMap::new(), next }
        });
        let sessions = sessions.collect();
        // What it does not remember it cannot keep: a process that starts pins nothing. Its apps connect when that is over.
        let mut process = Process { number: self.numbers, engine, wires, sessions, answered: BTreeMap::new() };
        for key in KEYS {
            let home = process.engine.path(0).unwrap().route.ring().shard_of(key.as_bytes()).unwrap();
            process.engine.path_mut(0).unwrap().hot.enter(key.as_bytes(), home, Means::Copies(3), self.now);
        }
        assert_eq!(process.engine.tick(self.now, &mut process.wires), []);
        process
    }

    /// Reads that copies have answered.
    pub(crate) fn hits(&mut self) -> u64 {
        let alive: u64 = self.processes.iter_mut().map(|p| p.engine.pool_counts(0).unwrap().copy_hits).sum();
        self.dead_hits + alive
    }

    pub(crate) fn run(&mut self, span: u64) {
        let end = self.now + span;
        let each = |span: u64, draw: u64| if span == u64::MAX { u64::MAX } else { span / 2 + draw % span };
        let (mut breaks, mut deaths) = (self.now + 500_000, self.now + 900_000);
        let mut direct = self.now;
        let mut tick = self.now;
        while self.now < end && self.wrong.is_empty() {
            for index in 0..self.processes.len() {
                self.settle(index);
            }
            // The next thing that happens.
            let arrives = |way: &Way| way.front().map(|(at, _)| *at);
            let mut next = tick.min(direct);
            next = self.there.values().filter_map(|(_, way)| arrives(way)).fold(next, u64::min);
            next = self.back.values().filter_map(arrives).fold(next, u64::min);
            next = self.again.iter().map(|(at, _)| *at).fold(next, u64::min);
            let idle = self.processes.iter().flat_map(|p| &p.sessions).filter(|s| s.open.is_empty());
            next = idle.map(|session| session.next).fold(next, u64::min);
            self.now = self.now.max(next);
            self.arrive();
            if self.now >= tick {
                tick = self.now + 100_000;
                for process in &mut self.processes {
                    // What is found out of what is hot is another's concern.
                    for key in KEYS {
                        let home = process.engine.path(0).unwrap().route.ring().shard_of(key.as_bytes()).unwrap();
                        let hot = &mut process.engine.path_mut(0).unwrap().hot;
                        hot.enter(key.as_bytes(), home, Means::Copies(3), self.now);
                    }
                }
            }
            if self.now >= direct {
                direct = if self.faults.direct { self.now + 150_000 + self.draw(400_000) } else { u64::MAX };
                let key = KEYS[self.draw(3) as usize];
                let value = self.value();
                let home = self.home(key);
                self.set(home, key, &value);
            }
            if self.now >= breaks {
                breaks = self.now.saturating_add(each(self.faults.breaks, splitmix(self.now)));
                if self.faults.breaks < u64::MAX {
                    self.break_tracker();
                }
            }
            if self.now >= deaths {
                deaths = self.now.saturating_add(each(self.faults.deaths, splitmix(!self.now)));
                if self.faults.deaths < u64::MAX {
                    self.die();
                }
            }
            self.ask();
        }
    }

    fn home(&self, key: &str) -> u16 {
        self.processes[0].engine.path(0).unwrap().route.ring().shard_of(key.as_bytes()).unwrap()
    }

    fn value(&mut self) -> String {
        self.values += 1;
        format!("v{}", self.values)
    }

    /// Moves what a process has to say onto the wires, and hears what it tells its apps.
    fn settle(&mut self, index: usize) {
        let process = &mut self.processes[index];
        for id in 0..SESSIONS {
            let session = &mut process.sessions[id as usize];
            if !session.unsent.is_empty() && !process.engine.is_paused(id) {
                let submitted = process.engine.submit(id, &session.unsent, self.now, &mut process.wires);
                session.unsent.drain(..submitted.consumed);
            }
        }
        process.engine.flush(&mut process.wires);
        let number = process.number;
        let wanted = std::mem::take(&mut process.wires.wanted);
        let mut said = Vec::new();
        for (line, bytes) in process.wires.shards.iter_mut().enumerate().filter(|(_, bytes)| !bytes.is_empty()) {
            let shard = process.engine.line(line as LineId).unwrap().shard;
            said.push((line as LineId, shard, std::mem::take(bytes)));
        }
        for line in wanted {
            self.again.push((self.now + 1_000, (number, line)));
        }
        for (line, shard, bytes) in said {
            let at = self.now + self.delay();
            let (_, way) = self.there.entry((number, line)).or_insert_with(|| (shard, VecDeque::new()));
            let at = way.back().map_or(at, |(last, _)| at.max(*last));
            way.push_back((at, bytes));
        }
        self.hear(index);
    }

    fn delay(&mut self) -> u64 {
        if self.draw(100) < self.faults.late { self.draw(300_000) } else { 100 + self.draw(300) }
    }

    /// What apps are told, and whether it may be.
    fn hear(&mut self, index: usize) {
        for id in 0..SESSIONS as usize {
            loop {
                let process = &mut self.processes[index];
                let told = &mut process.wires.apps[id];
                let Ok(Skim::Reply(length)) = skim(told, &mut ReplyResume::default()) else { break };
                let reply = String::from_utf8(told.drain(..length).collect()).unwrap();
                let session = &mut process.sessions[id];
                let asked = session.open.pop_front().expect("nothing is told that was not asked for");
                if session.open.is_empty() {
                    session.next = self.now + 200 + splitmix(self.now) % 3_000;
                }
                if let Some(value) = &asked.value {
                    if reply == "+OK\r\n" {
                        let (order, _) = self.written[value];
                        for newest in [&mut process.answered, &mut session.own] {
                            let newest = newest.entry(asked.key.clone()).or_default();
                            *newest = (*newest).max(order);
                        }
                    }
                    continue;
                }
                let Some(value) = reply.lines().nth(1) else { continue };
                let (order, _) = self.written[value];
                let behind: Vec<&String> = session.open.iter().filter_map(|asked| asked.value.as_ref()).collect();
                let floor = asked.floor.max(session.own.get(&asked.key).copied().unwrap_or_default());
                self.reads += 1;
                // When it was overwritten.
                let until = self.orders[&asked.key].get(order + 1).copied().unwrap_or(u64::MAX);
                self.behind += u64::from(until < asked.at);
                if order < floor {
                    self.wrong.push(format!("{value} of {} is older than what was written here", asked.key));
                }
                if behind.iter().any(|later| *later == value) {
                    self.wrong.push(format!("{value} was written behind it"));
                }
                if until.saturating_add(STALENESS) < asked.at {
                    self.wrong.push(format!("{value} was overwritten {} us ago", asked.at - until));
                }
            }
        }
    }

    /// Apps ask: mostly reads, now and then writes, and some in one go.
    fn ask(&mut self) {
        for index in 0..self.processes.len() {
            for id in 0..SESSIONS as usize {
                let session = &self.processes[index].sessions[id];
                if !session.open.is_empty() || self.now < session.next {
                    continue;
                }
                let count = if self.draw(10) == 0 { 1 + self.draw(3) } else { 1 };
                for _ in 0..count {
                    let key = KEYS[self.draw(3) as usize];
                    let value = (self.draw(6000) == 0 || (count > 1 && self.draw(500) == 0)).then(|| self.value());
                    let words: &[&str] = match &value {
                        Some(value) => &["SET", key, value],
                        None => &["GET", key],
                    };
                    let process = &mut self.processes[index];
                    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
                    let floor = process.answered.get(key).copied().unwrap_or_default();
                    let session = &mut process.sessions[id];
                    write::request(&mut session.unsent, &words);
                    session.open.push_back(Asked { key: key.to_owned(), value, at: self.now, floor });
                }
            }
        }
    }

    /// What arrives now, at servers and at processes.
    fn arrive(&mut self) {
        let due = |way: &Way, now: u64| way.front().is_some_and(|(at, _)| *at <= now);
        let wires: Vec<Wire> = self.there.iter().filter(|(_, (_, way))| due(way, self.now)).map(|(&w, _)| w).collect();
        for wire in wires {
            let (shard, way) = self.there.get_mut(&wire).unwrap();
            let (shard, (_, bytes)) = (*shard, way.pop_front().unwrap());
            let mut rest = bytes.as_slice();
            while let Ok(Scan::Request(request)) = scan(rest, &mut Resume::default(), &Limits::default()) {
                let words: Vec<String> = request.args().map(|arg| String::from_utf8(arg.to_vec()).unwrap()).collect();
                rest = &rest[request.wire().len()..];
                let reply = self.serve(shard, wire, &words);
                self.reply(wire, reply);
            }
            assert!(rest.is_empty());
        }
        let wires: Vec<Wire> = self.back.iter().filter(|(_, way)| due(way, self.now)).map(|(&w, _)| w).collect();
        for wire in wires {
            let Some((_, bytes)) = self.back.get_mut(&wire).and_then(VecDeque::pop_front) else { continue };
            let Some(process) = self.processes.iter_mut().find(|process| process.number == wire.0) else { continue };
            let (used, _) = process.engine.receive(wire.1, &bytes, self.now, &mut process.wires).unwrap();
            assert_eq!(used, bytes.len());
        }
        let now = self.now;
        let open: Vec<Wire> = self.again.extract_if(.., |(at, _)| *at <= now).map(|(_, wire)| wire).collect();
        for (number, line) in open {
            if let Some(process) = self.processes.iter_mut().find(|process| process.number == number) {
                process.engine.connected(line, now);
            }
        }
    }

    fn reply(&mut self, wire: Wire, reply: String) {
        let at = self.now + self.delay();
        let way = self.back.entry(wire).or_default();
        let at = way.back().map_or(at, |(last, _)| at.max(*last));
        way.push_back((at, reply.into_bytes()));
    }

    /// Writes to a key, and tells who listens.
    fn set(&mut self, shard: u16, key: &str, value: &str) {
        let server = &mut self.servers[usize::from(shard)];
        server.data.insert(key.to_owned(), (value.to_owned(), None));
        let order = self.orders.entry(key.to_owned()).or_insert_with(|| vec![0]);
        self.written.insert(value.to_owned(), (order.len(), self.now));
        order.push(self.now);
        for wire in server.tracked.remove(key).unwrap_or_default() {
            self.reply(wire, format!(">2\r\n$10\r\ninvalidate\r\n*1\r\n${}\r\n{key}\r\n", key.len()));
        }
    }

    /// A server, as far as it is asked here.
    fn serve(&mut self, shard: u16, wire: Wire, words: &[String]) -> String {
        let now = self.now;
        let server = &mut self.servers[usize::from(shard)];
        let clock = now / 1000 + server.ahead;
        server.data.retain(|_, (_, end)| end.is_none_or(|end| clock < end));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let cached = server.caching.remove(&wire);
        let bulk = |value: &str| format!("${}\r\n{value}\r\n", value.len());
        match words.as_slice() {
            ["CLIENT", "TRACKING", ..] => "+OK\r\n".into(),
            ["CLIENT", "CACHING", "YES"] => {
                server.caching.insert(wire);
                "+OK\r\n".into()
            }
            ["TIME"] => {
                let micros = now + server.ahead * 1000;
                format!("*2\r\n{}{}", bulk(&(micros / 1_000_000).to_string()), bulk(&(micros % 1_000_000).to_string()))
            }
            ["GET", key] => server.data.get(*key).map_or("$-1\r\n".into(), |(value, _)| bulk(value)),
            ["GETRANGE", key, ..] => {
                if cached {
                    server.tracked.entry((*key).to_owned()).or_default().insert(wire);
                }
                bulk(server.data.get(*key).map_or("", |(value, _)| value))
            }
            ["PTTL", key] => if server.data.contains_key(*key) { ":-1\r\n" } else { ":-2\r\n" }.into(),
            ["SET", key, value] => {
                let (key, value) = ((*key).to_owned(), (*value).to_owned());
                self.set(shard, &key, &value);
                "+OK\r\n".into()
            }
            ["SET", key, value, "NX", "PXAT", end] => {
                if server.data.contains_key(*key) {
                    return "$-1\r\n".into();
                }
                let end = end.parse().unwrap();
                server.data.insert((*key).to_owned(), ((*value).to_owned(), Some(end)));
                "+OK\r\n".into()
            }
            ["UNLINK", keys @ ..] => {
                let gone = keys.iter().filter(|key| server.data.remove(**key).is_some()).count();
                format!(":{gone}\r\n")
            }
            other => panic!("{other:?}"),
        }
    }

    fn forget(&mut self, is_it: impl Fn(&Wire) -> bool) {
        // What is on its way to a server arrives there all the same; what it says goes nowhere.
        self.back.retain(|wire, _| !is_it(wire));
        for server in &mut self.servers {
            server.tracked.values_mut().for_each(|wires| wires.retain(|wire| !is_it(wire)));
        }
    }

    /// A tracked connection is lost, with what was on its way.
    fn break_tracker(&mut self) {
        let index = self.draw(PROCESSES as u64) as usize;
        let process = &mut self.processes[index];
        let lines = LineId::from(SERVERS)..process.engine.line_count();
        let Some(line) = lines.clone().find(|line| splitmix(self.now ^ u64::from(*line)).is_multiple_of(2)) else {
            return;
        };
        let number = process.number;
        process.engine.fail(line, LOST, self.now, &mut process.wires);
        self.there.remove(&(number, line));
        self.forget(|wire| *wire == (number, line));
        self.again.retain(|(_, wire)| *wire != (number, line));
        self.again.push((self.now + 20_000, (number, line)));
    }

    /// A process dies, and another takes its place. Its apps see what they wrote through the one before only once copies from
    /// before that can live no longer, so they begin anew.
    fn die(&mut self) {
        let index = self.draw(PROCESSES as u64) as usize;
        let new = self.process();
        let mut old = std::mem::replace(&mut self.processes[index], new);
        self.dead_hits += old.engine.pool_counts(0).unwrap().copy_hits;
        let number = old.number;
        self.forget(|wire| wire.0 == number);
        self.again.retain(|(_, wire)| wire.0 != number);
    }
}
