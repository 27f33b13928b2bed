//! One app: a thread that asks for what it likes, checks each reply against what it knows, and reads all of it back at the end.

use super::link::{Gone, Link, Reply};
use super::model::{Counter, Fate, Fault, Queue, Register};
use super::names::Names;
use super::workload::{Sample, Shared};
use crate::support::{FOREVER, now, wire};
use hotring::chance::splitmix;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Registers of each shard; the last of them has the large values.
const REGISTERS: usize = 4;
const COUNTERS: usize = 2;
/// So many requests of a pipeline are out at a time, in a cluster.
const WINDOW: usize = 8;
/// Between two tries of whoever is refused.
const PATIENCE: Duration = Duration::from_millis(3);
/// What an app may be told by a server that is about to stop or has just begun.
const SERVERS_OWN: [&str; 5] =
    ["LOADING", "ERR max number of clients reached", "CLUSTERDOWN ", "TRYAGAIN ", "UNBLOCKED "];
/// What who asks for a transaction or blocks is told by a cluster that moves its keys: it has to be asked for anew.
const MOVED: [&str; 3] = [
    "EXECABORT Transaction discarded because the slot of its keys has moved",
    "EXECABORT Transaction discarded because of previous errors",
    "UNBLOCKED ",
];

/// An app's keys on one shard.
#[derive(Default)]
pub(super) struct Keys {
    pub(super) registers: Vec<(String, Register)>,
    pub(super) counters: Vec<(String, Counter)>,
    /// Two counters that only ever change together.
    pub(super) pair: Vec<(String, Counter)>,
    pub(super) queue: (String, Queue),
    /// Elements may be moved to it late.
    pub(super) moves_late: bool,
}

#[derive(Clone, Debug)]
enum Op {
    Set(usize, usize, u64),
    Get(usize, usize),
    Count(usize, usize),
    GetCount(usize, usize),
    MultiGet(Vec<(usize, usize)>),
    MultiSet(Vec<(usize, usize, u64)>),
}

pub(crate) struct App {
    pub(super) shared: Arc<Shared>,
    pub(super) chance: u64,
    pub(super) keys: Vec<Keys>,
    pub(super) link: Option<Link>,
    /// The connection that blocks.
    pub(super) popper: Option<Link>,
    /// At the end: reads back, and tells nobody of errors.
    pub(super) ending: bool,
    /// Got an error just now.
    pub(super) refused: bool,
    /// The spells of doubt as the last request was sent.
    pub(super) asked: Vec<u64>,
}

impl App {
    pub(crate) fn new(number: u64, shared: Arc<Shared>) -> Self {
        let mut names = Names::new(&shared.homes, shared.seed, number);
        let keys = (0..shared.generations.len())
            .map(|shard| Keys {
                // In a cluster the first two are in one slot.
                registers: [names.some(shard, 2), names.some(shard, 1), names.some(shard, 1)]
                    .into_iter()
                    .flatten()
                    .map(|name| (name, Register::default()))
                    .collect(),
                counters: (0..COUNTERS).map(|_| (names.one(shard), Counter::default())).collect(),
                pair: names.some(shard, 2).into_iter().map(|name| (name, Counter::default())).collect(),
                queue: (names.one(shard), Queue::default()),
                moves_late: false,
            })
            .collect();
        let chance = splitmix(shared.seed ^ (number << 32));
        let asked = vec![0; shared.doubts.len()];
        Self { shared, chance, keys, link: None, popper: None, ending: false, refused: false, asked }
    }

    /// Works until it is told to stop, then checks that all it knows of is there.
    pub(crate) fn run(mut self) -> Vec<Sample> {
        let mut samples = Vec::new();
        while !self.shared.stopping.load(Ordering::Acquire) {
            if self.link.is_none() && !self.connect() {
                continue;
            }
            match self.draw(100) {
                0..=79 => self.one(&mut samples),
                80..=91 => self.pipeline(),
                92..=96 if self.shared.deep => self.transaction(),
                97..=99 if self.shared.deep => self.hand_over(),
                _ => self.one(&mut samples),
            }
            let rest = if self.refused { PATIENCE } else { self.shared.rest };
            self.refused = false;
            if !rest.is_zero() {
                std::thread::park_timeout(rest);
            }
        }
        self.ending = true;
        self.read_back();
        for keys in &self.keys {
            let registers = keys.registers.iter().map(|(_, register)| register.undone);
            let counters = keys.counters.iter().chain(&keys.pair).map(|(_, counter)| counter.undone);
            self.shared.undone(registers.chain(counters).sum::<u64>() + keys.queue.1.undone);
        }
        samples
    }

    pub(super) fn draw(&mut self, below: u64) -> u64 {
        self.chance = self.chance.wrapping_add(1);
        splitmix(self.chance) % below
    }

    fn connect(&mut self) -> bool {
        let address = self.shared.address.lock().unwrap().clone();
        self.link = Link::to(&address).ok();
        if self.link.is_none() {
            self.shared.refused();
            self.shared.wait(PATIENCE);
        }
        self.link.is_some()
    }

    pub(super) fn generation(&self, shard: usize) -> u64 {
        self.shared.generations[shard].load(Ordering::Acquire)
    }

    /// The spells of doubt of all shards.
    pub(super) fn doubts(&self) -> Vec<u64> {
        self.shared.doubts.iter().map(|doubt| doubt.load(Ordering::Acquire)).collect()
    }

    /// Whether what is told now is about a shard that was in doubt meanwhile.
    pub(super) fn is_in_doubt(&self, shard: usize) -> bool {
        let now = self.shared.doubts[shard].load(Ordering::Acquire);
        self.asked[shard] % 2 == 1 || self.asked[shard] != now
    }

    fn draw_op(&mut self, is_alone: bool) -> Op {
        let servers = self.keys.len() as u64;
        let shard = self.draw(servers) as usize;
        // One in sixty is about the large values.
        let register = if self.shared.large && self.draw(60) == 0 {
            REGISTERS - 1
        } else {
            self.draw(REGISTERS as u64 - 1) as usize
        };
        let counter = self.draw(COUNTERS as u64) as usize;
        // Two keys of one slot of which one has moved are asked for again once both have, which may be after what the app
        // asked for behind them: so they are asked for alone.
        let beside = if self.shared.homes.are_slots() && !is_alone { 2 } else { 1 };
        match self.draw(100) {
            0..=29 => Op::Set(shard, register, self.next(shard, register)),
            30..=54 => Op::Get(shard, register),
            55..=74 => Op::Count(shard, counter),
            75..=79 => Op::GetCount(shard, counter),
            80..=91 => Op::MultiGet((0..self.keys.len()).flat_map(|shard| [(shard, 0), (shard, beside)]).collect()),
            97.. if self.shared.homes.are_slots() && is_alone => {
                let keys = (0..self.keys.len()).flat_map(|shard| [(shard, 0), (shard, 1)]);
                Op::MultiSet(keys.map(|(shard, register)| (shard, register, self.next(shard, register))).collect())
            }
            _ => Op::MultiSet((0..self.keys.len()).map(|shard| (shard, 2, self.next(shard, 2))).collect()),
        }
    }

    fn next(&mut self, shard: usize, register: usize) -> u64 {
        let register = &mut self.keys[shard].registers[register].1;
        register.last += 1;
        register.last
    }

    fn body(&self, shard: usize, register: usize, number: u64) -> Vec<u8> {
        let lot = splitmix(self.shared.seed ^ (number << 8) ^ shard as u64);
        let length = match (register == REGISTERS - 1, lot % 10) {
            (true, 0..=4) => 16 * 1024 + lot / 16 % 50_000,
            // What is passed on while it arrives is not sent again, and a cluster's redirections of it are not followed.
            (true, _) if self.shared.homes.are_slots() => 300_000 + lot / 16 % 500_000,
            (true, _) => 500_000 + lot / 16 % 1_600_000,
            _ => lot / 16 % 200,
        };
        value(&self.keys[shard].registers[register].0, number, length as usize)
    }

    fn encode(&self, op: &Op) -> Vec<u8> {
        let key = |shard: usize, register: usize| self.keys[shard].registers[register].0.clone().into_bytes();
        match op {
            &Op::Set(shard, register, number) => {
                wire(&[b"SET".to_vec(), key(shard, register), self.body(shard, register, number)])
            }
            &Op::Get(shard, register) => wire(&[b"GET".to_vec(), key(shard, register)]),
            &Op::Count(shard, counter) => wire(&["INCR", &self.keys[shard].counters[counter].0]),
            &Op::GetCount(shard, counter) => wire(&["GET", &self.keys[shard].counters[counter].0]),
            Op::MultiGet(keys) => {
                let keys = keys.iter().map(|&(shard, register)| key(shard, register));
                wire(&std::iter::once(b"MGET".to_vec()).chain(keys).collect::<Vec<_>>())
            }
            Op::MultiSet(keys) => {
                let pairs = keys.iter().flat_map(|&(s, r, number)| [key(s, r), self.body(s, r, number)]);
                wire(&std::iter::once(b"MSET".to_vec()).chain(pairs).collect::<Vec<_>>())
            }
        }
    }

    fn one(&mut self, samples: &mut Vec<Sample>) {
        let op = self.draw_op(true);
        let start = now();
        let went_well = self.ask(std::slice::from_ref(&op));
        if let (true, Op::Set(shard, register, _) | Op::Get(shard, register) | Op::Count(shard, register)) =
            (self.shared.record, op)
            && register < REGISTERS - 1
        {
            let at = start.duration_since(self.shared.began);
            samples.push(Sample { at, took: start.elapsed(), shard, went_well });
        }
    }

    fn pipeline(&mut self) {
        let count = 2 + self.draw(30);
        let ops: Vec<Op> = (0..count).map(|_| self.draw_op(false)).collect();
        self.ask(&ops);
    }

    /// Asks for all of it at once; says whether all of it went well.
    fn ask(&mut self, ops: &[Op]) -> bool {
        let generations: Vec<u64> = (0..self.keys.len()).map(|shard| self.generation(shard)).collect();
        self.asked = self.doubts();
        // In a cluster some are asked for while others are redirected.
        let at_once = if self.shared.homes.are_slots() { ops.len().min(WINDOW) } else { ops.len() };
        let bytes: Vec<u8> = ops[..at_once].iter().flat_map(|op| self.encode(op)).collect();
        let Some(mut link) = self.link.take() else { return false };
        // Who cannot send may have been answered all the same.
        let mut gone = link.send(&bytes).err().filter(|gone| *gone == Gone::Hung);
        let mut all = true;
        for (at, op) in ops.iter().enumerate() {
            let reply = match gone.clone() {
                Some(gone) => Err(gone),
                None => link.reply(),
            };
            gone = reply.as_ref().err().cloned();
            all &= self.settle(op, &reply, &generations);
            if let (None, Some(next)) = (&gone, ops.get(at + at_once)) {
                gone = link.send(&self.encode(next)).err().filter(|gone| *gone == Gone::Hung);
            }
        }
        if gone.is_none() {
            self.link = Some(link);
        }
        all
    }

    /// What became of a request that has not done what it should.
    pub(super) fn fate(&mut self, asked: &str, shard: Option<usize>, reply: &Result<Reply, Gone>) -> Fate {
        self.refused = true;
        match reply {
            Err(gone) => {
                match gone {
                    Gone::Hung => self.shared.tell(Fault::Hung, format!("{asked}: no reply")),
                    Gone::Garbage(text) => self.shared.tell(Fault::Wrong, format!("{asked}: {text}")),
                    Gone::Closed => self.shared.closed(),
                    Gone::BrokenOff => {}
                }
                // An element that came for a command that blocks just as its proxy ended is nobody's.
                let told_all = *gone == Gone::Closed && asked != "BLPOP" && self.shared.drains.load(Ordering::Acquire);
                if told_all { Fate::Not } else { Fate::MayHaveRun }
            }
            Ok(Reply::Error(text)) => {
                // One that blocks waits at its node and for nothing else.
                let is_moved = MOVED.iter().any(|begin| text.starts_with(begin))
                    || asked == "BLPOP" && text.starts_with("CLUSTERDOWN ");
                if self.shared.homes.are_slots() && is_moved {
                    self.shared.excused(text);
                    return Fate::Not;
                }
                let mut concerned = shard.map_or(0..self.keys.len(), |shard| shard..shard + 1);
                if self.shared.homes.are_slots() && !concerned.any(|shard| self.is_in_doubt(shard)) {
                    self.shared.untimely(&format!("{}: {text}", asked.split('(').next().unwrap_or_default()));
                }
                if !self.ending {
                    self.shared.failed(shard, text);
                }
                if text.ends_with("nothing was sent") || text.starts_with("EXECABORT ") {
                    Fate::Not
                } else if text.ends_with("the command may have run") || !self.shared.deep {
                    Fate::MayHaveRun
                } else if SERVERS_OWN.iter().any(|begin| text.starts_with(begin)) {
                    Fate::Not
                } else {
                    self.shared.tell(Fault::Wrong, format!("{asked}: {text}"));
                    Fate::MayHaveRun
                }
            }
            Ok(other) => {
                let mut other = format!("{other:?}");
                other.truncate(300);
                self.shared.tell(Fault::Wrong, format!("{asked}: {other}"));
                Fate::MayHaveRun
            }
        }
    }

    /// Compares a reply with what may be; says whether it was the one that was wanted.
    fn settle(&mut self, op: &Op, reply: &Result<Reply, Gone>, generations: &[u64]) -> bool {
        match (op, reply) {
            (Op::Set(shard, register, number), Ok(Reply::Line(ok))) if ok == "OK" => {
                self.wrote(*shard, *register, *number, Fate::Done, generations);
                self.shared.done(*shard);
            }
            (Op::Get(shard, register), Ok(reply @ (Reply::Text(_) | Reply::Nothing))) => {
                self.saw(*shard, *register, reply, generations);
                self.shared.done(*shard);
            }
            (Op::Count(shard, counter), Ok(Reply::Number(count))) => {
                let seen = (generations[*shard], self.generation(*shard));
                let is_in_doubt = self.is_in_doubt(*shard);
                let (key, counter) = &mut self.keys[*shard].counters[*counter];
                counter.doubt(is_in_doubt);
                let (before, fault) = (format!("{counter:?}"), counter.counted(*count as u64, seen));
                counter.settle(is_in_doubt);
                self.shared.told(fault, || format!("INCR {key}: {count} with {before}"));
                self.shared.done(*shard);
            }
            (Op::GetCount(shard, counter), Ok(reply @ (Reply::Text(_) | Reply::Nothing))) => {
                let seen = (generations[*shard], self.generation(*shard));
                let is_in_doubt = self.is_in_doubt(*shard);
                let (key, counter) = &mut self.keys[*shard].counters[*counter];
                counter.doubt(is_in_doubt);
                let count =
                    if let Reply::Text(text) = reply { String::from_utf8_lossy(text).into() } else { "0".to_owned() };
                let before = format!("{counter:?}");
                let fault = count.parse().map_or(Err(Fault::Wrong), |count| counter.read(count, seen));
                counter.settle(is_in_doubt);
                self.shared.told(fault, || format!("GET {key}: {count} with {before}"));
                self.shared.done(*shard);
            }
            (Op::MultiGet(keys), Ok(Reply::Many(values))) if values.len() == keys.len() => {
                for (&(shard, register), value) in keys.iter().zip(values) {
                    self.saw(shard, register, value, generations);
                }
            }
            (Op::MultiSet(keys), Ok(Reply::Line(ok))) if ok == "OK" => {
                for &(shard, register, number) in keys {
                    self.wrote(shard, register, number, Fate::Done, generations);
                }
            }
            _ => {
                let shard = match op {
                    Op::Set(shard, ..) | Op::Get(shard, _) | Op::Count(shard, _) | Op::GetCount(shard, _) => {
                        Some(*shard)
                    }
                    _ => None,
                };
                let fate = self.fate(&format!("{op:?}"), shard, reply);
                match op {
                    &Op::Set(shard, register, number) => {
                        self.wrote(shard, register, number, fate, generations);
                    }
                    &Op::Count(shard, counter) => self.keys[shard].counters[counter].1.missed(fate),
                    Op::MultiSet(keys) => {
                        for &(shard, register, number) in keys {
                            self.wrote(shard, register, number, fate, generations);
                        }
                    }
                    _ => {}
                }
                return false;
            }
        }
        true
    }

    /// A register was written to, or was not.
    fn wrote(&mut self, shard: usize, register: usize, number: u64, fate: Fate, generations: &[u64]) {
        let is_in_doubt = self.is_in_doubt(shard);
        let register = &mut self.keys[shard].registers[register].1;
        register.doubt(is_in_doubt);
        register.wrote(number, fate, generations[shard]);
        if fate == Fate::Done {
            register.settle(is_in_doubt);
        }
    }

    /// A register was read.
    fn saw(&mut self, shard: usize, register: usize, reply: &Reply, generations: &[u64]) {
        let seen = (generations[shard], self.generation(shard));
        let is_in_doubt = self.is_in_doubt(shard);
        let (key, register) = &mut self.keys[shard].registers[register];
        register.doubt(is_in_doubt);
        let number = match reply {
            Reply::Nothing => Some(0),
            Reply::Text(text) => number_of(key, text),
            _ => None,
        };
        let before = format!("{register:?}");
        let fault = number.map_or(Err(Fault::Wrong), |number| register.read(number, seen));
        register.settle(is_in_doubt);
        self.shared.told(fault, || {
            let mut got = format!("{number:?} in {reply:?}");
            got.truncate(200);
            format!("GET {key}: {got} with {before}")
        });
    }

    fn transaction(&mut self) {
        let shard = self.draw(self.keys.len() as u64) as usize;
        self.count_both(shard);
    }

    /// Counts twice within a transaction: both or neither.
    fn count_both(&mut self, shard: usize) -> bool {
        let asked = self.generation(shard);
        self.asked = self.doubts();
        let Some(mut link) = self.link.take() else { return false };
        let [one, two] = [0, 1].map(|n| wire(&["INCR", &self.keys[shard].pair[n].0]));
        let bytes = [wire(&["MULTI"]), one, two, wire(&["EXEC"])].concat();
        let mut last = link.send(&bytes).map(|()| Reply::Nothing);
        for n in 0..4 {
            // What was refused here is told by EXEC once more.
            if last.as_ref().is_err_and(|gone| *gone == Gone::Hung) {
                break;
            }
            last = link.reply();
            let as_it_should = match &last {
                Ok(Reply::Line(text)) => (n == 0 && text == "OK") || (n < 3 && text == "QUEUED"),
                Ok(Reply::Error(_)) => n > 0,
                _ => true,
            };
            if !as_it_should {
                self.shared.tell(Fault::Wrong, format!("transaction, reply {n}: {last:?}"));
            }
            if last.is_err() {
                break;
            }
        }
        if last.is_ok() {
            self.link = Some(link);
        }
        let seen = (asked, self.generation(shard));
        if let Ok(Reply::Many(values)) = &last
            && let [Reply::Number(one), Reply::Number(two)] = values[..]
        {
            let before = format!("{:?}", self.keys[shard].pair);
            let is_in_doubt = self.is_in_doubt(shard);
            for pair in &mut self.keys[shard].pair {
                pair.1.doubt(is_in_doubt);
                let fault = if one == two { pair.1.counted(one as u64, seen) } else { Err(Fault::Wrong) };
                pair.1.settle(is_in_doubt);
                self.shared.told(fault, || format!("transaction: {one} {two} with {before}"));
            }
            self.shared.done(shard);
            return true;
        }
        let fate = self.fate("EXEC", Some(shard), &last);
        self.keys[shard].pair.iter_mut().for_each(|(_, counter)| counter.missed(fate));
        false
    }

    /// All that is known is there: asked for until it is told.
    fn read_back(&mut self) {
        let mut rest = Vec::new();
        for shard in 0..self.keys.len() {
            rest.extend((0..REGISTERS).map(|register| Op::Get(shard, register)));
            rest.extend((0..COUNTERS).map(|counter| Op::GetCount(shard, counter)));
        }
        for op in rest {
            self.insist(&format!("{op:?}"), |app| app.ask(std::slice::from_ref(&op)));
        }
        for shard in 0..self.keys.len() {
            if self.shared.deep {
                self.insist("transaction", |app| app.count_both(shard));
                self.insist("LPOP", |app| app.drain(shard));
            }
        }
    }

    fn insist(&mut self, what: &str, mut is_done: impl FnMut(&mut Self) -> bool) {
        let start = now();
        while !((self.link.is_some() || self.connect()) && is_done(self)) {
            if start.elapsed() > FOREVER {
                self.shared.tell(Fault::Hung, format!("{what}: not served for {FOREVER:?}"));
                return;
            }
            self.shared.wait(PATIENCE);
        }
    }
}

/// A value that tells whose it is and which, and whether all of it is there.
pub(crate) fn value(key: &str, number: u64, length: usize) -> Vec<u8> {
    let mut value = format!("{key}={number}/{length};").into_bytes();
    let filled = value.len() + length;
    value.resize(filled, b'a' + (number % 26) as u8);
    value
}

/// Which value of this key it is.
pub(crate) fn number_of(key: &str, value: &[u8]) -> Option<u64> {
    let end = value.iter().position(|&byte| byte == b';')?;
    let (head, body) = value.split_at(end);
    let (number, length) = std::str::from_utf8(head).ok()?.strip_prefix(key)?.strip_prefix('=')?.split_once('/')?;
    let number: u64 = number.parse().ok()?;
    let fill = b'a' + (number % 26) as u8;
    let is_whole = body.len() - 1 == length.parse::<usize>().ok()? && body[1..].iter().all(|&byte| byte == fill);
    is_whole.then_some(number)
}

#[test]
fn a_value_is_known_again_and_no_other_is() {
    let whole = value("7:app1", 12, 40);
    assert_eq!(number_of("7:app1", &whole), Some(12));
    assert_eq!(number_of("7:app2", &whole), None);
    assert_eq!(number_of("7:app1", &whole[..30]), None);
    assert_eq!(number_of("7:app1", &[&whole[..], b"m"].concat()), None);
    assert_eq!(number_of("7:app1", &value("7:app1", 3, 0)), Some(3));
}
