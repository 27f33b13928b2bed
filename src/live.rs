//! What the process runs now: the configuration, and the numbers that its pools and shards have in every worker.
//!
//! A number stays with its pool (by name) and its shard (by where it is and how it is spoken to) when the configuration
//! changes, so that workers need not translate what is under way. A shard that is no longer configured keeps its number for
//! [`REST`], longer than workers take to finish with it; then another one may have it.
//!
//! Promises: values only, made whole and never changed; who has one has numbers that fit each other.

use crate::acl::Headcount;
use crate::config::{Config, Pool};
use crate::embedded::{self, Node};
use crate::engine::reload::DRAIN;
use crate::ring::{NOBODY, Ring, SLOTS, Shard, Slots};
use crate::stages::hot::{Board, Fence};
use crate::stages::lease::Shared;
use crate::stages::warm::Warmth;
use crate::tls::ClientSettings;
use crate::topology::{self, Layout};
use crate::units::{Address, Secret};
use crate::upstream::config::WarmFrom;
use crate::upstream::{self, Servers, WhenEjected};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long a number is left unused after its shard has left.
pub const REST: Duration = Duration::from_micros(2 * DRAIN);
/// So many servers of a pool have numbers at most, those that were told of within the last [`REST`] too: one who tells of others
/// each time must not use up all numbers there are.
const MOST_NUMBERS: usize = 4 * topology::MOST_NODES;
/// Keys that are compared to tell how much of the keyspace moves.
const DRAWS: u32 = 100_000;

/// What the process runs.
#[derive(Clone, Debug)]
pub struct Live {
    /// The configuration.
    pub config: Arc<Config>,
    /// The pools by number, those of the past too.
    pub pools: Vec<LivePool>,
}

/// A pool and its numbers.
#[derive(Clone, Debug)]
pub struct LivePool {
    /// As it is configured now; for one that is no longer configured as it was last. Its servers and replicas are those that
    /// it has, whoever said so.
    pub pool: Arc<Pool>,
    /// Whether it is configured.
    pub listed: bool,
    /// The shards by number, those of the past too.
    pub shards: Vec<LiveShard>,
    /// The numbers of its shards, in the order of the file; none for a pool that is no longer configured.
    pub order: Vec<u16>,
    /// The pool whose servers stand in for those that are ejected, if there is one.
    pub gutter: Option<Arc<Pool>>,
    /// The numbers that its servers have here, in the order of the file.
    pub spare: Vec<u16>,
    /// The replicas of its own servers, in the order of the file: a replica's number, and that of the server it follows.
    pub replicas: Vec<(u16, u16)>,
    /// Where its keys lived before, if they are looked for there, or were.
    pub former: Option<Former>,
    /// What its workers tell each other of writes.
    pub fence: Arc<Fence>,
    /// What they tell people of its hot keys.
    pub board: Arc<Board>,
    /// Who loads its keys that are not there, and who waits.
    pub leases: Arc<Shared>,
    /// Its open sessions, over all workers.
    pub open: Arc<AtomicUsize>,
    /// How many of them each user has.
    pub heads: Arc<Headcount>,
    /// What was answered last to who asked for its topology; `None` where the file says all, or nobody has answered yet.
    pub layout: Option<Arc<Layout>>,
    /// Of a cluster: for each slot the number of the shard that serves it, or [`NOBODY`].
    pub slots: Option<Slots>,
    /// Rung by workers that want its topology to be asked for.
    pub wish: Arc<Notify>,
}

/// Where keys lived before, and until when they are looked for there.
#[derive(Clone, Debug)]
pub struct Former {
    /// What was asked for.
    pub from: WarmFrom,
    /// The pool as it was, or another one.
    pub pool: Arc<Pool>,
    /// The numbers that its servers have, in its order; none when it is over.
    pub numbers: Vec<u16>,
    /// When it began.
    pub since: Instant,
    /// For how long.
    pub span: Duration,
    /// What workers tell each other.
    pub warmth: Arc<Warmth>,
}

impl Former {
    /// How long it lasts yet; zero when it is over.
    #[must_use]
    pub fn left(&self, now: Instant) -> Duration {
        self.span.saturating_sub(now.saturating_duration_since(self.since))
    }

    fn is_same(&self, other: &Self) -> bool {
        (&self.pool, &self.numbers, self.since, self.span) == (&other.pool, &other.numbers, other.since, other.span)
    }
}

/// A shard by its number.
#[derive(Clone, Debug)]
pub struct LiveShard {
    /// Its name on the ring.
    pub name: String,
    /// What makes it this one and no other.
    pub place: Place,
    /// Since when it is not configured any more.
    pub left: Option<Instant>,
}

/// Where a shard is and how it is spoken to: what a connection to it can be kept for.
#[derive(Clone, Debug)]
pub enum Place {
    /// In this process.
    Node(Arc<Node>),
    /// A server, with what is said in the handshake.
    Server {
        /// Where it listens.
        address: Address,
        /// The user and the password.
        auth: (Option<String>, Option<Secret>),
        /// The database that connections are on.
        db: u32,
        /// How TLS is spoken, whatever the files have in them: other certificates are for new connections.
        tls: Option<ClientSettings>,
    },
}

impl Place {
    fn of(server: &upstream::Server, config: &upstream::Config) -> Self {
        let auth = (config.user.clone(), config.password.clone());
        let tls = config.tls.as_ref().map(|tls| tls.settings().clone());
        Self::Server { address: server.address.clone(), auth, db: config.db, tls }
    }

    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Node(_), Self::Node(_)) => true,
            (
                Self::Server { address: a, auth: b, db: c, tls: d },
                Self::Server { address: w, auth: x, db: y, tls: z },
            ) => (a, b, c, d) == (w, x, y, z),
            _ => false,
        }
    }
}

/// What a shard is to its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Keys live on it.
    Primary,
    /// It stands in for those that are ejected.
    Gutter,
    /// It follows another.
    Replica,
    /// Keys lived on it before.
    Former,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary",
            Self::Gutter => "gutter",
            Self::Replica => "replica",
            Self::Former => "former",
        })
    }
}

/// What becomes of a pool.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It is new.
    Added,
    /// It is not configured any more.
    Removed,
    /// It has other settings or shards.
    Changed {
        /// Names of the shards that come.
        come: Vec<String>,
        /// Names of the shards that go.
        go: Vec<String>,
        /// The share of the keyspace, from 0 to 1, that has its home on another shard than before.
        moved: f64,
    },
}

/// A pool's shards as the ring wants them, in the order of the file.
#[must_use]
pub fn shards(pool: &Pool) -> Vec<Shard> {
    match &pool.upstream.servers {
        Servers::Embedded { count, .. } => {
            (1..=*count).map(|n| Shard { name: format!("embedded-{n}"), weight: 1 }).collect()
        }
        Servers::Static(servers) => servers.iter().map(|s| Shard { name: s.name.clone(), weight: s.weight }).collect(),
    }
}

impl Live {
    /// What runs first.
    #[must_use]
    pub fn first(config: Config, now: Instant) -> Self {
        Self { config: Arc::new(Config { pools: Vec::new(), ..config.clone() }), pools: Vec::new() }.next(config, now)
    }

    /// What runs once it is known what a pool's topology is.
    #[must_use]
    pub fn with_layout(&self, pool: &str, layout: Arc<Layout>, now: Instant) -> Self {
        let mut known = self.clone();
        known
            .pools
            .iter_mut()
            .filter(|own| own.pool.name == pool)
            .for_each(|own| own.layout = Some(Arc::clone(&layout)));
        known.settled(Arc::clone(&self.config), now)
    }

    /// What runs after a change of the configuration. What is known of a pool's topology stays.
    #[must_use]
    pub fn next(&self, mut config: Config, now: Instant) -> Self {
        for pool in &mut config.pools {
            let before = self.pools.iter().find(|before| before.pool.name == pool.name);
            before.into_iter().for_each(|before| pool.misses.follow(&before.pool.misses));
        }
        self.settled(Arc::new(config), now)
    }

    /// With the pools of this configuration.
    fn settled(&self, config: Arc<Config>, now: Instant) -> Self {
        let mut pools = self.pools.clone();
        for pool in &mut pools {
            if !config.pools.iter().any(|listed| listed.name == pool.pool.name) {
                pool.listed = false;
                (pool.gutter, pool.former) = (None, None);
                pool.settle(&[], now);
            }
        }
        let formers: Vec<Option<Former>> =
            config.pools.iter().map(|listed| self.former_of(listed, &config.pools, now)).collect();
        for listed in &config.pools {
            let at = pools.iter().position(|pool| pool.pool.name == listed.name).unwrap_or_else(|| {
                pools.push(LivePool {
                    pool: Arc::new(listed.clone()),
                    listed: true,
                    shards: Vec::new(),
                    order: Vec::new(),
                    gutter: None,
                    spare: Vec::new(),
                    replicas: Vec::new(),
                    former: None,
                    fence: Arc::default(),
                    board: Arc::default(),
                    leases: Arc::new(Shared::new()),
                    open: Arc::default(),
                    heads: Arc::default(),
                    layout: None,
                    slots: None,
                    wish: Arc::default(),
                });
                pools.len() - 1
            });
            if let Some(pool) = pools.get_mut(at) {
                let kinds = [pool.pool.upstream.topology.kind(), listed.upstream.topology.kind()];
                if kinds[0] != kinds[1] || listed.upstream.topology.asked().is_none() {
                    pool.layout = None;
                }
                let resolved = match &pool.layout {
                    Some(layout) => Pool { upstream: topology::resolved(&listed.upstream, layout), ..listed.clone() },
                    None => listed.clone(),
                };
                if *pool.pool != resolved {
                    pool.pool = Arc::new(resolved);
                }
                pool.listed = true;
            }
        }
        // Once all are as they are to be: a gutter may stand anywhere in the file.
        for (listed, former) in config.pools.iter().zip(formers) {
            let gutter = match listed.upstream.ejected() {
                WhenEjected::Gutter(name) => {
                    pools.iter().find(|pool| pool.pool.name == *name).map(|pool| Arc::clone(&pool.pool))
                }
                _ => None,
            };
            let Some(pool) = pools.iter_mut().find(|pool| pool.pool.name == listed.name) else { continue };
            let mut all = places(&pool.pool);
            if let Some(gutter) = &gutter {
                // Two servers of the same name are two shards.
                let named = |(name, place): (String, Place)| (format!("{}/{name}", gutter.name), place);
                all.extend(places(gutter).into_iter().map(named));
            }
            all.extend(replicas(&pool.pool));
            if let Some(former) = former.as_ref().filter(|former| !former.left(now).is_zero()) {
                let named = |(name, place): (String, Place)| match &former.from {
                    WarmFrom::Previous => (name, place),
                    WarmFrom::Pool(pool) => (format!("{pool}/{name}"), place),
                };
                all.extend(places(&former.pool).into_iter().map(named));
            }
            (pool.gutter, pool.former) = (gutter, former);
            pool.settle(&all, now);
        }
        Self { config, pools }
    }

    /// Where the keys of a pool that is about to be configured so lived before, if they are to be looked for there.
    fn former_of(&self, listed: &Pool, pools: &[Pool], now: Instant) -> Option<Former> {
        let upstream = &listed.upstream;
        // Where servers are found otherwise than in the file, keys are moved by others.
        let from = upstream.warm_from.clone().filter(|_| upstream.topology.asked().is_none())?;
        let span = upstream.warm_for;
        let before = self.pools.iter().find(|before| before.listed && before.pool.name == listed.name);
        let going_on = before.and_then(|before| before.former.clone()).filter(|former| former.from == from);
        let begin =
            |pool| Former { from: from.clone(), pool, numbers: Vec::new(), since: now, span, warmth: Arc::default() };
        match &from {
            WarmFrom::Previous => {
                let before = &before?.pool;
                let listed_before = before.upstream.topology.asked().is_none();
                let servers = matches!(before.upstream.servers, Servers::Static(_));
                let begins = listed_before && servers && spread(before) != spread(listed);
                if begins { Some(begin(Arc::clone(before))) } else { going_on.map(|former| Former { span, ..former }) }
            }
            WarmFrom::Pool(name) => {
                let pool = Arc::new(pools.iter().find(|pool| pool.name == *name)?.clone());
                Some(match going_on {
                    Some(former) => Former { pool, span, ..former },
                    None => begin(pool),
                })
            }
        }
    }

    /// When keys of the next pool are not looked for any more where they lived before.
    #[must_use]
    pub fn next_cooled(&self, now: Instant) -> Option<Duration> {
        let formers = self.pools.iter().filter_map(|pool| pool.former.as_ref());
        formers.filter(|former| !former.numbers.is_empty()).map(|former| former.left(now)).min()
    }

    /// The number of a pool that is configured.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u16> {
        self.pools.iter().position(|pool| pool.listed && pool.pool.name == name).map(|at| at as u16)
    }

    /// The pools that are configured, with their numbers, in the order of the file.
    pub fn listed(&self) -> impl Iterator<Item = (u16, &LivePool)> {
        self.config.pools.iter().filter_map(|pool| {
            let number = self.number(&pool.name)?;
            Some((number, self.pools.get(usize::from(number))?))
        })
    }

    /// What is different in `next`, by pool.
    #[must_use]
    pub fn changes(&self, next: &Self) -> Vec<(String, Change)> {
        let mut changes = Vec::new();
        for (number, new) in next.pools.iter().enumerate() {
            let name = new.pool.name.clone();
            let old = self.pools.get(number).filter(|old| old.listed);
            match (old, new.listed) {
                (None, true) => changes.push((name, Change::Added)),
                (Some(_), false) => changes.push((name, Change::Removed)),
                (Some(old), true) if !old.is_same(new) => {
                    let names = |pool: &LivePool, other: &LivePool| {
                        let gone = pool.order.iter().filter(|number| !other.order.contains(number));
                        gone.filter_map(|&number| Some(pool.shards.get(usize::from(number))?.name.clone())).collect()
                    };
                    let (come, go) = (names(new, old), names(old, new));
                    changes.push((name, Change::Changed { come, go, moved: moved(old, new) }));
                }
                _ => {}
            }
        }
        changes
    }
}

impl LivePool {
    /// The name of a shard; empty where there is none.
    #[must_use]
    pub fn name_of(&self, shard: u16) -> &str {
        self.shards.get(usize::from(shard)).map_or("", |shard| shard.name.as_str())
    }

    /// Whether it is configured as the other is.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let all = |pool: &Self| (pool.order.clone(), pool.spare.clone(), pool.replicas.clone());
        let former = match (&self.former, &other.former) {
            (Some(one), Some(two)) => one.is_same(two),
            (None, None) => true,
            _ => false,
        };
        former
            && (&self.pool, &self.gutter, all(self), &self.layout)
                == (&other.pool, &other.gutter, all(other), &other.layout)
    }

    /// Whether it is configured as the other is, but for who serves which slots.
    #[must_use]
    pub fn differs_by_slots(&self, other: &Self) -> bool {
        let (Some(own), Some(others)) = (&self.layout, &other.layout) else { return false };
        let as_others = Self { layout: other.layout.clone(), ..self.clone() };
        own.has_nodes_of(others) && self.slots.is_some() && own != others && as_others.is_same(other)
    }

    /// How its nodes may be spelled in redirections, with their numbers.
    pub fn spellings(&self) -> impl Iterator<Item = (&str, u16)> {
        let nodes = self.layout.iter().filter(|layout| layout.slots.is_some()).flat_map(|layout| &layout.nodes);
        // Replicas too: one that has taken its primary's place is named before it is known to have.
        let replica = |(number, of): &(u16, u16)| {
            let at = self.order.iter().position(|own| own == of)?;
            let Place::Server { address, .. } = &self.shards.get(usize::from(*number))?.place else { return None };
            let node = self.layout.as_ref()?.nodes.get(at)?;
            let known = node.replicas.iter().find(|replica| replica.address.is_same_place(address))?;
            Some((*number, &known.announced))
        };
        let numbered = nodes.zip(&self.order).map(|(node, &number)| (number, &node.announced));
        let numbered = numbered.chain(self.replicas.iter().filter_map(replica));
        numbered.flat_map(|(number, spelled)| spelled.iter().map(move |spelling| (spelling.as_str(), number)))
    }

    /// Whether there are numbers for all servers of a layout that is told of.
    #[must_use]
    pub fn has_room_for(&self, layout: &Layout, now: Instant) -> bool {
        let more = topology::resolved(&self.pool.upstream, layout);
        let pool = Pool { upstream: more, ..(*self.pool).clone() };
        let all = places(&pool).into_iter().chain(replicas(&pool));
        let known = |(name, place): &(String, Place)| {
            self.shards.iter().any(|shard| shard.name == *name && shard.place.is(place))
        };
        let new = all.filter(|place| !known(place)).count();
        let rested = |shard: &&LiveShard| shard.left.is_none_or(|left| now.saturating_duration_since(left) <= REST);
        new == 0 || self.shards.iter().filter(rested).count().saturating_add(new) <= MOST_NUMBERS
    }

    /// Whether its servers are not known yet, since nobody has answered.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.listed && self.layout.is_none() && self.pool.upstream.topology.asked().is_some()
    }

    /// All its numbers that are in use: those of its servers, of its gutter, of its replicas, and of servers that its keys have
    /// left.
    pub fn numbers(&self) -> impl Iterator<Item = u16> {
        let replicas = self.replicas.iter().map(|&(replica, _)| replica);
        let former = self.former.iter().flat_map(|former| former.numbers.iter().copied());
        let gone = former.filter(|number| !self.order.contains(number));
        self.order.iter().chain(&self.spare).copied().chain(replicas).chain(gone)
    }

    /// What the shard with this number is to the pool.
    #[must_use]
    pub fn role(&self, shard: u16) -> Role {
        if self.spare.contains(&shard) {
            Role::Gutter
        } else if self.replicas.iter().any(|&(replica, _)| replica == shard) {
            Role::Replica
        } else if self.order.contains(&shard) {
            Role::Primary
        } else {
            Role::Former
        }
    }

    /// Where its keys live, all shards being well.
    #[must_use]
    pub fn ring(&self) -> Ring {
        let ring = &self.pool.ring;
        Ring::new(&shards(&self.pool), &[], ring.hash, ring.distribution, ring.hash_tag)
    }

    /// Finds or makes the numbers of its shards.
    fn settle(&mut self, places: &[(String, Place)], now: Instant) {
        self.order.clear();
        for (name, place) in places {
            let same = |shard: &LiveShard| shard.name == *name && shard.place.is(place);
            // Connections to a node of this process have no task that could open others.
            let alike = |shard: &LiveShard| matches!(shard.place, Place::Node(_)) == matches!(place, Place::Node(_));
            let free = |shard: &LiveShard| {
                alike(shard) && shard.left.is_some_and(|left| now.saturating_duration_since(left) > REST)
            };
            let number = self.shards.iter().position(same).or_else(|| self.shards.iter().position(free));
            let new = LiveShard { name: name.clone(), place: place.clone(), left: None };
            let number = match number.and_then(|at| self.shards.get_mut(at).map(|shard| (at, shard))) {
                Some((at, shard)) => {
                    if same(shard) {
                        shard.left = None;
                    } else {
                        *shard = new;
                    }
                    at
                }
                None => {
                    self.shards.push(new);
                    self.shards.len() - 1
                }
            };
            self.order.push(number as u16);
        }
        let own = if self.listed { shards(&self.pool).len() } else { 0 };
        self.spare = self.order.split_off(own.min(self.order.len()));
        let gutter = self.gutter.as_ref().map_or(0, |gutter| shards(gutter).len());
        let mut replicas = self.spare.split_off(gutter.min(self.spare.len()));
        let names = shards(&self.pool);
        let followed = self.pool.upstream.replicas.iter().flat_map(|(server, list)| {
            let at = names.iter().position(|shard| shard.name == *server);
            let number = at.and_then(|at| self.order.get(at)).copied();
            list.iter().map(move |_| number)
        });
        let own: usize = self.pool.upstream.replicas.iter().map(|(_, list)| list.len()).sum();
        let former = replicas.split_off(if self.listed { own.min(replicas.len()) } else { 0 });
        if let Some(before) = &mut self.former {
            before.numbers = former;
        }
        self.replicas = replicas.into_iter().zip(followed).filter_map(|(own, of)| Some((own, of?))).collect();
        let table = self.layout.as_ref().and_then(|layout| layout.slots.as_ref());
        let of_slot = |&at: &u16| self.order.get(usize::from(at)).copied().unwrap_or(NOBODY);
        self.slots = match table {
            Some(table) => Some(Arc::new(table.iter().map(of_slot).collect())),
            // Until somebody has answered no node serves any.
            None => self.pool.upstream.topology.is_cluster().then(|| Arc::new(vec![NOBODY; SLOTS])),
        };
        let used: Vec<u16> = self.numbers().collect();
        for (number, shard) in self.shards.iter_mut().enumerate() {
            if !used.contains(&(number as u16)) {
                shard.left.get_or_insert(now);
            }
        }
    }
}

/// All that says where a key lives: names and weights, the ring, and where the servers are.
fn spread(pool: &Pool) -> (Vec<Shard>, &upstream::config::RingConfig, Vec<&Address>) {
    let addresses = match &pool.upstream.servers {
        Servers::Static(servers) => servers.iter().map(|server| &server.address).collect(),
        Servers::Embedded { .. } => Vec::new(),
    };
    (shards(pool), &pool.ring, addresses)
}

/// Where a pool's shards are. A node that the process has already is found again by its name.
fn places(pool: &Pool) -> Vec<(String, Place)> {
    let names = shards(pool).into_iter().map(|shard| shard.name);
    match &pool.upstream.servers {
        Servers::Embedded { maxmemory, eviction, .. } => {
            let eviction = match eviction {
                upstream::Eviction::Lru => embedded::Eviction::Lru,
                upstream::Eviction::Lfu => embedded::Eviction::Lfu,
            };
            let config = embedded::Config { maxmemory: *maxmemory, eviction };
            names.map(|name| (name, Place::Node(Arc::new(Node::new(&config))))).collect()
        }
        Servers::Static(servers) => names.zip(servers.iter().map(|server| Place::of(server, &pool.upstream))).collect(),
    }
}

/// Where the replicas of a pool's servers are, by their names: the server's, and the place in its list.
fn replicas(pool: &Pool) -> Vec<(String, Place)> {
    let upstream = &pool.upstream;
    let auth = (upstream.user.clone(), upstream.password.clone());
    let all = upstream.replicas.iter().flat_map(|(server, list)| {
        // Those of a topology come and go: none is called otherwise for that.
        let told = upstream.topology.asked().is_some();
        let name = move |address: &Address, n: usize| match told {
            true => format!("{address}/replica"),
            false => format!("{server}/replica-{n}"),
        };
        list.iter().zip(1..).map(move |(address, n)| (name(address, n), address))
    });
    let tls = upstream.tls.as_ref().map(|tls| tls.settings().clone());
    let place = |address: &Address| {
        let (auth, tls) = (auth.clone(), tls.clone());
        Place::Server { address: address.clone(), auth, db: upstream.db, tls }
    };
    all.map(|(name, address)| (name, place(address))).collect()
}

/// The share of the keyspace whose home is another shard. Of many keys, since hashes need not use all positions; pins are
/// left out of it.
fn moved(old: &LivePool, new: &LivePool) -> f64 {
    if let (Some(before), Some(after)) = (&old.slots, &new.slots) {
        return before.iter().zip(&**after).filter(|(one, other)| one != other).count() as f64 / before.len() as f64;
    }
    let (before, after) = (old.ring(), new.ring());
    let number = |pool: &LivePool, place: Option<u16>| pool.order.get(usize::from(place?)).copied();
    let moves = |draw: &u32| {
        let key = format!("key:{draw}");
        number(old, before.shard_of(key.as_bytes())) != number(new, after.shard_of(key.as_bytes()))
    };
    (0..DRAWS).filter(moves).count() as f64 / f64::from(DRAWS)
}
