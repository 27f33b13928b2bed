//! An app: what it asks for, and the verdict on what it is answered.

use super::chance::Chance;
use super::truth::{Moment, Truth, same};
use super::wire::Reply;
use hotring::engine::SessionId;
use hotring::resp::write;
use std::collections::{HashMap, VecDeque};
use std::fmt;

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// What a request wants, and so what its answer must be.
#[derive(Debug, Clone)]
pub enum Wish {
    /// These bytes.
    Exact(Vec<u8>),
    /// An error that begins with this.
    Error(&'static str),
    /// Any whole reply.
    Any,
    Get(Vec<u8>),
    Length(Vec<u8>),
    Mget(Vec<Vec<u8>>),
    Exists(Vec<Vec<u8>>),
    Set(Vec<Pair>),
    /// All or nothing; on one shard only.
    Setnx(Vec<Pair>),
    Script(Vec<u8>, Vec<u8>),
    Incr(Vec<u8>),
    Del(Vec<Vec<u8>>),
}

impl Wish {
    /// The keys it is routed by; a script is not.
    pub fn keys(&self) -> Vec<&[u8]> {
        match self {
            Self::Exact(_) | Self::Error(_) | Self::Any | Self::Script(..) => Vec::new(),
            Self::Get(key) | Self::Length(key) | Self::Incr(key) => vec![key],
            Self::Mget(keys) | Self::Exists(keys) | Self::Del(keys) => keys.iter().map(Vec::as_slice).collect(),
            Self::Set(pairs) | Self::Setnx(pairs) => pairs.iter().map(|(key, _)| key.as_slice()).collect(),
        }
    }

    fn values(&self) -> Vec<&[u8]> {
        match self {
            Self::Set(pairs) | Self::Setnx(pairs) => pairs.iter().map(|(_, value)| value.as_slice()).collect(),
            Self::Script(_, value) => vec![value],
            _ => Vec::new(),
        }
    }
}

/// A request without a reply so far.
pub struct Pending {
    pub wish: Wish,
    /// Where its bytes end in all that the app sends.
    pub end: u64,
    /// When the engine took it.
    pub taken: Option<Moment>,
    /// Then: each key's home, or a script's; `None` where the ring was empty.
    pub homes: Vec<Option<usize>>,
    /// Then: the connections it wants.
    pub lines: Vec<u32>,
    /// Then: whether one of them was down.
    pub down: bool,
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = format!("{:?}", self.wish);
        let what = what.split('(').next().unwrap_or_default();
        let keys: Vec<_> = self.wish.keys().into_iter().map(String::from_utf8_lossy).collect();
        let values: Vec<_> = self.wish.values().into_iter().map(super::truth::unique).collect();
        let Self { taken, homes, lines, down, .. } = self;
        write!(f, "{what} {keys:?} {values:?}, taken {taken:?}, shards {homes:?}, lines {lines:?}, down {down}")
    }
}

/// One app connection.
pub struct App {
    pub pool: usize,
    pub session: SessionId,
    pub lane: u32,
    /// Bytes it means to send.
    pub unsent: Vec<u8>,
    /// Bytes it sent and the proxy has not read.
    pub sent: Vec<u8>,
    /// All bytes it ever meant to send.
    pub spoken: u64,
    /// How many of them the engine took.
    pub taken: u64,
    pub pending: VecDeque<Pending>,
    /// Requests at the front of `pending` that the engine took.
    pub asked: usize,
    /// The proxy's session: an incomplete request.
    pub tail: Vec<u8>,
    pub need: usize,
    pub saw_end: bool,
    /// It will send no more.
    pub finished: bool,
    /// It has said something after which the proxy ends the session.
    pub last_words: bool,
    /// It does not read for now.
    pub idle: bool,
    pub authenticated: bool,
    /// By shard: a moment that lies before everything it asks of it from now on, since its requests to one shard run in
    /// the order in which it made them.
    seen: HashMap<usize, Moment>,
}

/// What an app may ask for.
pub struct Habits {
    /// The pool's number, with which its keys begin.
    pub pool: usize,
    pub password: bool,
    /// Long values, too.
    pub long: bool,
    /// Scripts write keys they do not name.
    pub scripts: bool,
    /// Few keys.
    pub hot: bool,
}

impl App {
    pub fn new(pool: usize, session: SessionId, lane: u32, authenticated: bool) -> Self {
        Self {
            pool,
            session,
            lane,
            unsent: Vec::new(),
            sent: Vec::new(),
            spoken: 0,
            taken: 0,
            pending: VecDeque::new(),
            asked: 0,
            tail: Vec::new(),
            need: 1,
            saw_end: false,
            finished: false,
            last_words: false,
            idle: false,
            authenticated,
            seen: HashMap::new(),
        }
    }

    fn expect(&mut self, wish: Wish) {
        let pending =
            Pending { wish, end: self.spoken, taken: None, homes: Vec::new(), lines: Vec::new(), down: false };
        self.pending.push_back(pending);
    }

    fn say(&mut self, args: &[&[u8]], wish: Wish) {
        let before = self.unsent.len();
        write::request(&mut self.unsent, args);
        self.spoken += (self.unsent.len() - before) as u64;
        self.expect(wish);
    }

    fn say_raw(&mut self, bytes: &[u8], wish: Option<Wish>) {
        self.unsent.extend_from_slice(bytes);
        self.spoken += bytes.len() as u64;
        if let Some(wish) = wish {
            self.expect(wish);
        }
    }

    /// Thinks of one more request.
    pub fn speak(&mut self, chance: &mut Chance, habits: &Habits, number: &mut u64) {
        if habits.password && !self.authenticated {
            return match chance.below(3) {
                0 => self.say(&[b"GET", b"k"], Wish::Exact(b"-NOAUTH Authentication required.\r\n".to_vec())),
                1 => self.say(&[b"AUTH", b"guess"], Wish::Error("WRONGPASS")),
                _ => {
                    self.authenticated = true;
                    self.say(&[b"AUTH", b"secret"], Wish::Exact(b"+OK\r\n".to_vec()));
                }
            };
        }
        let mut value = |chance: &mut Chance, key: &[u8]| {
            *number += 1;
            let padding = match chance.below(40) {
                0 if habits.long => 16_300 + chance.below(30_000),
                1..4 => chance.below(600),
                _ => 0,
            };
            let mut value = [key, b":"].concat();
            value.resize(value.len() + padding, b'x');
            value.extend_from_slice(format!("={number}").as_bytes());
            value
        };
        let key = key(chance, habits);
        let several = |chance: &mut Chance| -> Vec<Vec<u8>> {
            let count = 1 + chance.below(4);
            (0..count).map(|_| self::key(chance, habits)).collect()
        };
        // What joins is what is asked for by many at once.
        let spoken =
            if habits.hot && chance.one_in(2) { chance.pick(&[0, 0, 0, 0, 73, 28]) } else { chance.below(100) };
        match spoken {
            0..28 => self.say(&[chance.pick(&[&b"GET"[..], b"GET", b"GET", b"gEt"]), &key], Wish::Get(key.clone())),
            28..48 => {
                let value = value(chance, &key);
                self.say(&[b"SET", &key, &value], Wish::Set(vec![(key.clone(), value.clone())]));
            }
            48..57 => self.say(&[b"INCR", &key], Wish::Incr(key.clone())),
            57..62 => self.many(b"DEL", several(chance), Wish::Del),
            62..70 => self.many(b"MGET", several(chance), Wish::Mget),
            70..73 => self.many(b"EXISTS", several(chance), Wish::Exists),
            73..76 => self.say(&[b"STRLEN", &key], Wish::Length(key.clone())),
            76..83 => {
                let pairs = several(chance).into_iter().map(|key| (key.clone(), value(chance, &key))).collect();
                self.pairs(b"MSET", pairs, Wish::Set);
            }
            83..86 => {
                let tag = chance.pick(&["t", "u"]);
                let keys = if chance.one_in(4) {
                    several(chance)
                } else {
                    vec![
                        format!("{}{{{tag}}}a", habits.pool).into_bytes(),
                        format!("{}{{{tag}}}b", habits.pool).into_bytes(),
                    ]
                };
                let pairs = keys.into_iter().map(|key| (key.clone(), value(chance, &key))).collect();
                self.pairs(b"MSETNX", pairs, Wish::Setnx);
            }
            86..88 if habits.scripts => {
                let value = value(chance, &key);
                let script = [&key[..], b"|", &value].concat();
                self.say(&[b"EVAL", &script, b"0"], Wish::Script(key.clone(), value.clone()));
            }
            88..95 => self.small_talk(chance, habits, value),
            95 => self.say_raw(chance.pick(&[&b"\r\n"[..], b"*0\r\n", b"*-1\r\n", b"  \n"]), None),
            96 => self.say(&[b"FLY", &key], Wish::Error("ERR unknown command 'FLY'")),
            97 => self.say(&[b"GET"], Wish::Error("ERR wrong number of arguments for 'get' command")),
            98 if chance.one_in(12) => {
                self.last_words = true;
                self.say(&[b"QUIT"], Wish::Exact(b"+OK\r\n".to_vec()));
            }
            99 if chance.one_in(12) => {
                self.last_words = true;
                let broken =
                    [&b"*1\r\n:1\r\n"[..], b"*x\r\n", b"*1\r\n$-1\r\n", b"*2\r\n$3\r\nGET\r\n$1\r\nkey\r\n", b"a 'b\n"];
                self.say_raw(chance.pick(&broken), Some(Wish::Error("ERR Protocol error: ")));
            }
            _ => self.say(&[b"ECHO", &key], Wish::Exact(bulk(&key))),
        }
    }

    fn many(&mut self, name: &[u8], keys: Vec<Vec<u8>>, wish: fn(Vec<Vec<u8>>) -> Wish) {
        let args: Vec<&[u8]> = std::iter::once(name).chain(keys.iter().map(Vec::as_slice)).collect();
        self.say(&args, wish(keys.clone()));
    }

    fn pairs(&mut self, name: &[u8], pairs: Vec<Pair>, wish: fn(Vec<Pair>) -> Wish) {
        let flat = pairs.iter().flat_map(|(key, value)| [key.as_slice(), value]);
        let args: Vec<&[u8]> = std::iter::once(name).chain(flat).collect();
        self.say(&args, wish(pairs.clone()));
    }

    fn small_talk(
        &mut self,
        chance: &mut Chance,
        habits: &Habits,
        mut value: impl FnMut(&mut Chance, &[u8]) -> Vec<u8>,
    ) {
        let plain = format!("{}k{}", habits.pool, chance.below(4)).into_bytes();
        match chance.below(8) {
            0 => self.say(&[b"PING"], Wish::Exact(b"+PONG\r\n".to_vec())),
            1 => self.say(&[b"select", b"0"], Wish::Exact(b"+OK\r\n".to_vec())),
            2 => self.say(&[b"CLIENT", b"SETINFO", b"lib-name", b"x"], Wish::Exact(b"+OK\r\n".to_vec())),
            3 if chance.one_in(2) => self.say(&[b"EXEC"], Wish::Error("ERR EXEC without MULTI")),
            3 => self.say(&[b"CONFIG", b"RESETSTAT"], Wish::Error("ERR hotring does not carry administration")),
            4 => self.say(&[b"INFO"], Wish::Any),
            5 => self.say_raw(b"PING\r\n", Some(Wish::Exact(b"+PONG\r\n".to_vec()))),
            6 => {
                let line = [b"GET '", &plain[..], b"'\n"].concat();
                self.say_raw(&line, Some(Wish::Get(plain)));
            }
            _ => {
                let value = value(chance, &plain);
                let line = [b"SET ", &plain[..], b" \"", &value, b"\"\r\n"].concat();
                self.say_raw(&line, Some(Wish::Set(vec![(plain, value)])));
            }
        }
    }

    // --- the verdict ----------------------------------------------------------------------------------------------

    fn since(&self, node: usize, taken: Moment) -> Moment {
        self.seen.get(&node).map_or(taken, |seen| taken.max(*seen))
    }

    fn saw(&mut self, node: usize, at: Moment) {
        let seen = self.seen.entry(node).or_default();
        *seen = at.max(*seen);
    }

    /// Judges the reply to the oldest request. `faults` tells when each connection broke last.
    pub fn judge(&mut self, reply: &Reply<'_>, wire: &[u8], truth: &mut Truth, faults: &[Moment]) {
        let asked = self.pending.pop_front().expect("a reply that nobody asked for");
        let taken = asked.taken.unwrap_or_else(|| panic!("answered before it was asked: {asked:?}"));
        self.asked -= 1;
        if let Reply::Error(text) = reply {
            let text = String::from_utf8_lossy(text);
            if text.starts_with("ERR shard s") || text.starts_with("ERR no shard is left") {
                return self.excused(&text, &asked, taken, truth, faults);
            }
        }
        let lied = asked.homes.iter().flatten().any(|&node| truth.nodes[node].lied >= taken);
        if lied && !matches!(asked.wish, Wish::Exact(_) | Wish::Error(_)) {
            return uncertain(&asked.wish, truth);
        }
        let home = |index: usize| asked.homes[index].expect("answered, and there was no shard");
        let told = format!("{:?} to {:?}", String::from_utf8_lossy(wire), asked);
        match &asked.wish {
            Wish::Any => {}
            Wish::Exact(bytes) => assert_eq!(bytes, wire, "{told}"),
            Wish::Error(start) => {
                assert!(matches!(reply, Reply::Error(text) if text.starts_with(start.as_bytes())), "{told}");
            }
            Wish::Get(key) => {
                let fits = |value: Option<&[u8]>| same(reply, value);
                self.read(home(0), key, taken, truth, &fits, &told);
            }
            Wish::Length(key) => {
                let fits = |value: Option<&[u8]>| *reply == Reply::Integer(value.map_or(0, <[u8]>::len) as i64);
                self.read(home(0), key, taken, truth, &fits, &told);
            }
            Wish::Mget(keys) => {
                let Reply::Array(items) = reply else { panic!("{told}") };
                assert_eq!(items.len(), keys.len(), "{told}");
                for (index, (key, item)) in keys.iter().zip(items).enumerate() {
                    self.read(home(index), key, taken, truth, &|value| same(item, value), &told);
                }
            }
            Wish::Exists(keys) => {
                let Reply::Integer(sum) = reply else { panic!("{told}") };
                let could = |there: bool| {
                    let each = keys.iter().enumerate().map(|(index, key)| {
                        let since = self.since(home(index), taken);
                        truth.when(home(index), key, since, &|value| value.is_some() == there).is_some()
                    });
                    each.filter(|could| *could).count() as i64
                };
                assert!((keys.len() as i64 - could(false)..=could(true)).contains(sum), "{told}");
            }
            Wish::Set(pairs) => {
                assert_eq!(*reply, Reply::Simple(b"OK"), "{told}");
                self.wrote(pairs, &asked.homes, taken, truth);
            }
            Wish::Setnx(pairs) => match reply {
                Reply::Integer(1) => self.wrote(pairs, &asked.homes, taken, truth),
                Reply::Integer(0) => {
                    pairs.iter().for_each(|(_, value)| truth.not_written(value));
                    let taken_key = pairs.iter().enumerate().any(|(index, (key, _))| {
                        truth.when(home(index), key, taken, &|value| value.is_some()).is_some()
                    });
                    assert!(taken_key, "{told}");
                }
                Reply::Error(b"CROSSSLOT Keys in request don't hash to the same slot") => {
                    assert!((1..pairs.len()).any(|index| home(index) != home(0)), "{told}");
                    pairs.iter().for_each(|(_, value)| truth.not_written(value));
                }
                _ => panic!("{told}"),
            },
            Wish::Script(key, value) => {
                assert!(same(reply, Some(value)), "{told}");
                self.wrote(&[(key.clone(), value.clone())], &asked.homes, taken, truth);
            }
            Wish::Incr(key) => {
                let result = match reply {
                    Reply::Integer(n) => Some(*n),
                    Reply::Error(b"ERR value is not an integer or out of range") => None,
                    _ => panic!("{told}"),
                };
                let since = self.since(home(0), taken);
                let Some(at) = truth.run_with(home(0), "INCR", key, since, result) else { panic!("{told}") };
                truth.claim(home(0), "INCR", key, since);
                self.saw(home(0), at);
            }
            Wish::Del(keys) => {
                let Reply::Integer(sum) = reply else { panic!("{told}") };
                let (mut least, mut most) = (0, 0);
                for (index, key) in keys.iter().enumerate() {
                    let node = home(index);
                    let since = self.since(node, taken);
                    truth.claim(node, "DEL", key, since);
                    let none = truth.run_with(node, "DEL", key, since, Some(0));
                    let one = truth.run_with(node, "DEL", key, since, Some(1));
                    least += i64::from(none.is_none());
                    most += i64::from(one.is_some());
                    let first = none.into_iter().chain(one).min().unwrap_or(since);
                    self.saw(node, first);
                }
                assert!((least..=most).contains(sum), "{told}");
            }
        }
    }

    fn read(
        &mut self,
        node: usize,
        key: &[u8],
        taken: Moment,
        truth: &Truth,
        fits: &dyn Fn(Option<&[u8]>) -> bool,
        told: &str,
    ) {
        let since = self.since(node, taken);
        match truth.when(node, key, since, fits) {
            Some(at) => self.saw(node, at),
            None => {
                panic!("{} was never so since {since} (now {}): {told}", String::from_utf8_lossy(key), truth.moment)
            }
        }
    }

    fn wrote(&mut self, pairs: &[Pair], homes: &[Option<usize>], taken: Moment, truth: &Truth) {
        for ((_, value), home) in pairs.iter().zip(homes) {
            let node = home.expect("written, and there was no shard");
            let at = truth.acknowledged(node, value, taken);
            self.saw(node, at);
        }
    }

    /// An error of the proxy's: there was a fault, and it says the truth about what was sent.
    fn excused(&self, text: &str, asked: &Pending, taken: Moment, truth: &mut Truth, faults: &[Moment]) {
        if text.starts_with("ERR no shard") {
            assert!(asked.homes.contains(&None), "{text}: {asked:?}");
        } else {
            let broke = asked.lines.iter().any(|&line| faults[line as usize] >= taken);
            assert!(broke || asked.down, "an error without a fault: {text}: {asked:?}");
        }
        if text.ends_with("nothing was sent") {
            asked.wish.values().iter().for_each(|value| truth.not_written(value));
        } else {
            assert!(text.ends_with("the command may have run"), "{text}");
            uncertain(&asked.wish, truth);
        }
    }
}

/// Nobody will tell the app what became of this.
pub fn uncertain(wish: &Wish, truth: &mut Truth) {
    match wish {
        Wish::Incr(key) => truth.may_run("INCR", key),
        Wish::Del(keys) => keys.iter().for_each(|key| truth.may_run("DEL", key)),
        _ => {}
    }
}

fn key(chance: &mut Chance, habits: &Habits) -> Vec<u8> {
    let pool = habits.pool;
    match chance.below(if habits.hot { 10 } else { 20 }) {
        0..8 if habits.hot => format!("{pool}k{}", chance.below(2)).into_bytes(),
        0..8 => format!("{pool}k{}", chance.below(4)).into_bytes(),
        8..13 => format!("{pool}k{}", chance.below(40)).into_bytes(),
        13..16 => format!("{pool}c{}", chance.below(4)).into_bytes(),
        16 | 17 => format!("{pool}{{{}}}{}", chance.pick(&["t", "u"]), chance.pick(&["a", "b"])).into_bytes(),
        18 => format!("{pool}\r\n$1\r\n\0").into_bytes(),
        _ if pool == 0 => Vec::new(),
        _ => b"1long key, so long that it is not like the others".to_vec(),
    }
}

fn bulk(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write::bulk(&mut out, text);
    out
}
