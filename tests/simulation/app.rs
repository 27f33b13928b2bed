//! An app: what it asks for, and the verdict on what it is answered.

use super::chance::Chance;
use super::plan::Plan;
use super::truth::{Moment, Truth};
use super::verdict::Deal;
use hotring::engine::SessionId;
use hotring::engine::line::Dialect;
use hotring::resp::write;
use hotring::stages::Micros;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
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
    /// An element behind a list.
    Push(Vec<u8>, Vec<u8>),
    /// An element of one of these lists.
    Pop(Vec<Vec<u8>>),
    Select(u16),
    Hello(bool),
    Reset,
    Watch(Vec<Vec<u8>>),
    Unwatch,
    Multi,
    /// This, in a transaction.
    Queued(Box<Wish>),
    Exec,
    Discard,
    /// To hear a channel.
    Subscribe(Vec<u8>),
    Unsubscribe(Vec<u8>),
    Publish(Vec<u8>, Vec<u8>),
}

impl Wish {
    /// The keys it is routed by; a script is not.
    pub fn keys(&self) -> Vec<&[u8]> {
        match self {
            Self::Get(key)
            | Self::Length(key)
            | Self::Incr(key)
            | Self::Push(key, _)
            | Self::Publish(key, _)
            | Self::Subscribe(key) => vec![key],
            Self::Mget(keys) | Self::Exists(keys) | Self::Del(keys) | Self::Pop(keys) | Self::Watch(keys) => {
                keys.iter().map(Vec::as_slice).collect()
            }
            Self::Queued(wish) => wish.keys(),
            Self::Set(pairs) | Self::Setnx(pairs) => pairs.iter().map(|(key, _)| key.as_slice()).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether it is asked of a shard on a connection of the session's own.
    pub fn is_own(&self) -> bool {
        use Wish::{Discard, Exec, Multi, Pop, Queued, Unwatch, Watch};
        matches!(self, Pop(_) | Watch(_) | Unwatch | Multi | Queued(_) | Exec | Discard)
    }

    pub fn values(&self) -> Vec<&[u8]> {
        match self {
            Self::Set(pairs) | Self::Setnx(pairs) => pairs.iter().map(|(_, value)| value.as_slice()).collect(),
            Self::Script(_, value) | Self::Push(_, value) | Self::Publish(_, value) => vec![value],
            Self::Queued(wish) => wish.values(),
            _ => Vec::new(),
        }
    }
}

/// A request without a reply so far.
pub struct Pending {
    pub wish: Wish,
    /// Where its bytes begin in all that the app sends.
    pub start: u64,
    pub length: u64,
    /// It may be passed on while it arrives, on a connection of the session's own.
    pub long: bool,
    /// When the engine took it.
    pub taken: Option<Moment>,
    /// Then: each key's home, or a script's; `None` where the ring was empty.
    pub homes: Vec<Option<usize>>,
    /// Then: the shared connections it wants, or would.
    pub lines: Vec<u32>,
    /// Then: whether one of them was down.
    pub down: bool,
    /// Then: whether sessions have all the connections of a home that they may have for themselves.
    pub crowded: bool,
    /// Then: the time.
    pub at: Micros,
    /// Then: whether a key's slot was nobody's.
    pub unserved: bool,
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = format!("{:?}", self.wish);
        let what = what.split(['[', '"']).next().unwrap_or_default();
        let keys: Vec<_> = self.wish.keys().into_iter().map(String::from_utf8_lossy).collect();
        let values: Vec<_> = self.wish.values().into_iter().map(super::truth::unique).collect();
        let Self { taken, homes, lines, down, .. } = self;
        write!(f, "{what} {keys:?} {values:?}, taken {taken:?}, shards {homes:?}, lines {lines:?}, down {down}")
    }
}

/// One app connection.
pub struct App {
    pub pool: usize,
    /// Of its pool.
    pub shards: usize,
    /// Its reads may wait, and their keys live elsewhere meanwhile.
    pub moves: bool,
    /// From so many bytes on a request is passed on while it arrives.
    stream: usize,
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
    /// What it means to say next, piece by piece.
    pub means: VecDeque<(Vec<Vec<u8>>, Wish)>,
    /// The numbers of the values that transactions it means to send write.
    pub groups: Vec<Vec<u64>>,
    /// Its database and whether it speaks RESP3: as it is when what was taken is carried out.
    pub dialect: Dialect,
    /// Channels it has asked for.
    pub hears: BTreeSet<Vec<u8>>,
    /// By channel that it was told it hears: the shard, when it was told, and how many of its messages are behind it.
    pub listens: BTreeMap<Vec<u8>, (usize, Moment, usize)>,
    /// The last that was answered.
    pub speaks_resp3: bool,
    /// Its transaction, as far as it was answered.
    pub deal: Deal,
    /// By place: a moment that lies before everything it asks of it from now on, since its requests to one shard run in
    /// the order in which it made them. In a cluster for each key.
    pub seen: HashMap<(usize, Vec<u8>), Moment>,
    /// Slots in which what is judged was overtaken by others.
    pub loose: BTreeSet<u16>,
    /// The shards are a cluster's: how long a request waits for its slot to have settled.
    pub redirect_wait: Option<Micros>,
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
    /// Transactions and commands that block: so many of a hundred requests.
    pub deals: usize,
    /// Channels are published to and listened to.
    pub channels: bool,
    /// Databases.
    pub databases: u16,
    pub resp3: bool,
}

impl App {
    pub fn new(pool: usize, plan: &Plan, session: SessionId, lane: u32, authenticated: bool) -> Self {
        Self {
            pool,
            shards: plan.shards,
            moves: plan.leases && plan.eject,
            stream: plan.stream,
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
            means: VecDeque::new(),
            groups: Vec::new(),
            dialect: Dialect::default(),
            hears: BTreeSet::new(),
            listens: BTreeMap::new(),
            speaks_resp3: false,
            deal: Deal::default(),
            seen: HashMap::new(),
            loose: BTreeSet::new(),
            redirect_wait: (plan.cluster > 0).then_some(plan.redirect_wait),
        }
    }

    fn expect(&mut self, wish: Wish, length: usize) {
        let pending = Pending {
            wish,
            start: self.spoken - length as u64,
            length: length as u64,
            long: length >= self.stream,
            taken: None,
            homes: Vec::new(),
            lines: Vec::new(),
            down: false,
            crowded: false,
            at: 0,
            unserved: false,
        };
        self.pending.push_back(pending);
    }

    pub fn say(&mut self, args: &[&[u8]], wish: Wish) {
        let before = self.unsent.len();
        write::request(&mut self.unsent, args);
        let length = self.unsent.len() - before;
        self.spoken += length as u64;
        self.expect(wish, length);
    }

    fn say_raw(&mut self, bytes: &[u8], wish: Option<Wish>) {
        self.unsent.extend_from_slice(bytes);
        self.spoken += bytes.len() as u64;
        if let Some(wish) = wish {
            self.expect(wish, bytes.len());
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
        if let Some((args, wish)) = self.means.pop_front() {
            let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
            return self.say(&args, wish);
        }
        if !self.hears.is_empty() || (habits.channels && chance.one_in(8)) {
            return self.talk(chance, habits, number);
        }
        if chance.below(100) < habits.deals {
            return self.mean(chance, habits, number);
        }
        let mut value = |chance: &mut Chance, key: &[u8]| super::means::value(chance, habits, number, key);
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
                let args: [&[u8]; 4] = [b"SET", &key, &value, b"KEEPTTL"];
                let args = if chance.one_in(3) { &args[..] } else { &args[..3] };
                self.say(args, Wish::Set(vec![(key.clone(), value.clone())]));
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
            1 => {
                let db = chance.below(usize::from(habits.databases)) as u16;
                self.say(&[b"select", db.to_string().as_bytes()], Wish::Select(db));
            }
            2 if habits.resp3 => {
                let resp3 = chance.one_in(2);
                self.say(&[b"HELLO", if resp3 { b"3" } else { b"2" }], Wish::Hello(resp3));
            }
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
}

/// Nobody will tell the app what became of this.
pub fn uncertain(wish: &Wish, truth: &mut Truth) {
    match wish {
        Wish::Incr(key) => truth.may_run("INCR", key),
        Wish::Del(keys) => keys.iter().for_each(|key| truth.may_run("DEL", key)),
        Wish::Pop(keys) => truth.may_pop(keys),
        Wish::Queued(wish) => uncertain(wish, truth),
        _ => {}
    }
}

pub fn key(chance: &mut Chance, habits: &Habits) -> Vec<u8> {
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
