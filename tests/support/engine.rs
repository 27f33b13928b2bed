//! An engine with one pool and sockets of memory, for tests and benchmarks.

use hotring::engine::port::{Port, Taken};
use hotring::engine::window::Bounds;
use hotring::engine::{Engine, LineId, PoolConfig, SessionId};
use hotring::resp::Limits;
use hotring::ring::{Distribution, KeyHash, Shard};
use hotring::stages::{Coalesce, Health, HealthConfig, Merge, Merging, Path, Placement, Route, SPAN, Way};

/// Sockets that take everything, unless told otherwise.
#[derive(Default)]
pub struct Wires {
    /// What each session was sent.
    pub apps: Vec<Vec<u8>>,
    /// What each connection was sent.
    pub shards: Vec<Vec<u8>>,
    /// Sessions that were woken.
    pub woken: Vec<SessionId>,
    /// Most bytes that a shard's socket takes; `None` is all.
    pub room: Option<usize>,
    /// Connections that were asked for.
    pub wanted: Vec<LineId>,
    /// Connections that were given up.
    pub given_up: Vec<LineId>,
}

impl Port for Wires {
    fn to_app(&mut self, session: SessionId, bytes: &[u8]) -> Taken {
        self.apps[session as usize].extend_from_slice(bytes);
        Taken::Some(bytes.len())
    }

    fn to_shard(&mut self, line: LineId, bytes: &[u8]) -> Taken {
        let n = self.room.map_or(bytes.len(), |room| room.min(bytes.len()));
        if self.shards.len() <= line as usize {
            self.shards.resize(line as usize + 1, Vec::new());
        }
        self.shards[line as usize].extend_from_slice(&bytes[..n]);
        if n < bytes.len() { Taken::Full(n) } else { Taken::Some(n) }
    }

    fn wake(&mut self, session: SessionId) {
        self.woken.push(session);
    }

    fn open(&mut self, line: LineId) {
        self.wanted.push(line);
    }

    fn give_up(&mut self, line: LineId) {
        self.given_up.push(line);
    }
}

/// A pool with so many shards, and so many connections to each.
pub fn pool(shards: u16, lanes: u16, coalesce: bool) -> PoolConfig {
    pool_of(&(0..shards).collect::<Vec<_>>(), shards, lanes, coalesce)
}

/// A pool with these shards of all that have numbers.
pub fn pool_of(members: &[u16], shards: u16, lanes: u16, coalesce: bool) -> PoolConfig {
    let names: Vec<String> = (0..shards).map(|shard| format!("s{shard}")).collect();
    let placement = Placement {
        pins: Vec::new(),
        slots: None,
        numbers: members.to_vec(),
        shards: members.iter().map(|&n| Shard { name: names[usize::from(n)].clone(), weight: 1 }).collect(),
        hash: KeyHash::Fnv1a_64,
        distribution: Distribution::Ketama,
        hash_tag: None,
    };
    let health = HealthConfig {
        way: Way::Error,
        failure_limit: 2,
        span: SPAN,
        retry_timeout: 30_000_000,
        probe_interval: None,
        seed: 7,
    };
    PoolConfig {
        databases: 16,
        admin: false,
        resp3: true,
        own: 8,
        long: hotring::engine::stream::LONG,
        channels: true,
        name: "pool".into(),
        shards: names,
        lanes,
        dealt: lanes,
        gutter_ttl: 0,
        former: None,
        mirror: None,
        routes: hotring::stages::routes::Routes::default(),
        bounds: Bounds { open: 1024, output: 64 << 20 },
        limits: Limits::default(),
        outbox: 16 << 20,
        timeout: None,
        rate_limits: Vec::new(),
        guard: None,
        auth_failures: None,
        misses: Default::default(),
        prefixes: Vec::new(),
        by_command: true,
        seed: 7,
        aside: Vec::new(),
        deadlines: Default::default(),
        slowlog: Default::default(),
        leases: Default::default(),
        users: std::sync::Arc::new(hotring::acl::Users::new(&[], None).expect("no users are well formed")),
        follows: false,
        nodes: Vec::new(),
        redirect_wait: 2_000_000,
        path: Path {
            route: Route::new(placement, lanes),
            hot: hotring::stages::Hot::new(Default::default(), 7, Default::default()),
            merging: Merging::new(Merge::Strict, 7),
            coalesce: Coalesce::new(coalesce, usize::from(shards * lanes), 7),
            health: Health::new(health, shards, lanes),
        },
    }
}

/// An engine whose connections are open, and `sessions` sessions.
pub fn engine(config: PoolConfig, sessions: usize) -> (Engine, Wires) {
    let mut engine = Engine::new(1, 1);
    let (pool, lines) = engine.add_pool(config);
    let mut wires = Wires { shards: vec![Vec::new(); lines.len()], ..Wires::default() };
    lines.for_each(|line| engine.connected(line, 0));
    for _ in 0..sessions {
        assert_eq!(engine.open(pool) as usize, wires.apps.len());
        wires.apps.push(Vec::new());
    }
    (engine, wires)
}

/// A request's bytes, from words between blanks.
pub fn request(line: &str) -> Vec<u8> {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    let mut out = Vec::new();
    hotring::resp::write::request(&mut out, &words);
    out
}

/// A key that lives on this shard.
pub fn key_on(engine: &Engine, shard: u16) -> String {
    let route = &engine.path(0).expect("a pool").route;
    let home = |key: &String| Some(route.shards()[usize::from(route.ring().shard_of(key.as_bytes())?)]);
    (0..).map(|n| format!("k{n}")).find(|key| home(key) == Some(shard)).expect("endless")
}
