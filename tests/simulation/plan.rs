//! What one run is like: how many of everything, how narrow, how unlucky.

use super::chance::Chance;
use super::cluster::Cluster;
use super::truth::DATABASES;
use hotring::acl::Users;
use hotring::engine::PoolConfig;
use hotring::engine::window::Bounds;
use hotring::resp::Limits;
use hotring::ring::{Distribution, KeyHash, Shard, Slots};
use hotring::stages::lease::{Config, Lease, Leases, Shared, Wanted};
use hotring::stages::{Coalesce, Health, HealthConfig, Merge, Merging, Micros, Path, Placement, Route, Way};
use hotring::units::Secret;
use std::sync::Arc;
use std::time::Duration;

/// What one run is like.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub pools: usize,
    pub shards: usize,
    pub lanes: u16,
    pub coalesce: bool,
    pub merge: Merge,
    pub eject: bool,
    pub password: bool,
    pub open: usize,
    pub output: usize,
    pub outbox: usize,
    pub timeout: Option<Micros>,
    pub apps: usize,
    /// Bytes that a socket holds at most.
    pub sockets: usize,
    pub long: bool,
    /// From so many bytes on a request is passed on while it arrives.
    pub stream: usize,
    /// Apps that stop reading for a while.
    pub slow: bool,
    /// One in so many steps is a fault of a shard; 0 is never.
    pub faults: usize,
    /// Shards that answer nonsense.
    pub lies: bool,
    /// Most requests that an app has open.
    pub pending: usize,
    /// Most requests that an app sends at once.
    pub burst: usize,
    /// Few keys, asked for by all.
    pub hot: bool,
    /// Transactions and commands that may block: so many of a hundred requests.
    pub deals: usize,
    /// Apps publish and subscribe; not where a channel's home moves.
    pub channels: bool,
    /// Connections to each shard that sessions may have for themselves.
    pub own: usize,
    pub databases: u16,
    pub resp3: bool,
    /// The flusher's turn comes in so many of a hundred steps.
    pub flushes: usize,
    /// One in so many steps changes which shards the pool has; 0 is never.
    pub reloads: usize,
    /// Of those that find a key missing one is told so.
    pub leases: bool,
    /// The shards are a cluster's nodes; one in so many steps befalls it. 0 is never.
    pub cluster: usize,
    /// The last of them is not known from the start.
    pub hidden: bool,
    /// How long a request waits for its slot to have settled.
    pub redirect_wait: Micros,
}

impl Plan {
    pub fn draw(chance: &mut Chance, seed: u64) -> Self {
        let mut plan = Self {
            pools: chance.pick(&[1, 1, 2]),
            shards: 1 + chance.below(5),
            lanes: 1 + chance.below(3) as u16,
            coalesce: chance.one_in(2),
            merge: if chance.one_in(2) { Merge::Strict } else { Merge::Off },
            eject: chance.one_in(3),
            password: chance.one_in(6),
            open: chance.pick(&[1, 2, 8, 64, 1024]),
            output: chance.pick(&[1 << 26, 1 << 26, 1 << 16, 4096, 256]),
            outbox: chance.pick(&[16 << 20, 16 << 20, 2000, 100, 1]),
            timeout: chance.pick(&[None, Some(100_000), Some(20_000)]),
            apps: 1 + chance.below(8),
            sockets: chance.pick(&[1 << 20, 1 << 20, 70_000, 4096, 200, 10]),
            long: chance.one_in(3),
            stream: chance.pick(&[1 << 20, 17_000, 500, 60]),
            slow: chance.one_in(3),
            faults: chance.pick(&[0, 2000, 300, 50]),
            lies: chance.one_in(6),
            pending: chance.pick(&[1, 1, 10, 200]),
            burst: chance.pick(&[1, 2, 5, 30]),
            hot: chance.one_in(2),
            deals: chance.pick(&[0, 0, 5, 20, 60]),
            channels: chance.one_in(3),
            own: chance.pick(&[1, 2, 4]),
            databases: chance.pick(&[1, 1, DATABASES as u16]),
            resp3: chance.one_in(3),
            flushes: chance.pick(&[2, 6, 14]),
            reloads: chance.pick(&[0, 0, 400, 60]),
            leases: false,
            cluster: 0,
            hidden: false,
            redirect_wait: 2_000_000,
        };
        if Self::is_cluster(seed) {
            plan.in_cluster(&mut Chance::new(seed ^ 0xc2));
        }
        // No draw of its own, so that seeds mean what they meant. What all workers share does not outlive a reload here; and
        // who asks for more behind a read that waits sees that carried out first, as docs/misses.md says.
        plan.leases = plan.reloads == 0 && plan.apps.is_multiple_of(3);
        if plan.leases {
            (plan.pending, plan.burst) = (1, 1);
        }
        if plan.reloads > 0 {
            // A transaction's or a channel's shard may leave in its midst: what an app then sees has tests of its own.
            (plan.deals, plan.channels) = (0, false);
        }
        plan
    }

    /// Whether its shards are a cluster's. Drawn apart, so that the other seeds mean what they meant.
    pub fn is_cluster(seed: u64) -> bool {
        Chance::new(seed ^ 0xc1).one_in(4)
    }

    fn in_cluster(&mut self, chance: &mut Chance) {
        self.cluster = chance.pick(&[8, 20, 60, 200]);
        (self.pools, self.shards) = (1, 2 + chance.below(3));
        // What all workers share does not outlive a reload here.
        self.hidden = self.shards > 2 && chance.one_in(3) && !self.apps.is_multiple_of(3);
        self.redirect_wait = chance.pick(&[2_000_000, 2_000_000, 20_000, 1_000]);
        (self.eject, self.lies, self.reloads, self.databases) = (false, false, 0, 1);
        (self.deals, self.channels, self.stream) = (0, false, 1 << 20);
        self.pending = chance.pick(&[1, 3, 10, 200]);
        self.burst = chance.pick(&[1, 2, 5, 30]);
        self.hot = chance.below(3) > 0;
        // Frequent faults hide the rest.
        self.faults = chance.pick(&[0, 0, 2000, 300]);
    }

    pub fn pool(&self, number: usize) -> PoolConfig {
        let all: Vec<u16> = (0..(self.shards - usize::from(self.hidden)) as u16).collect();
        self.pool_of(number, &all)
    }

    /// Short waits and terms: a run is some milliseconds.
    fn leases(&self) -> Leases {
        let lease = if self.leases { Lease::Local } else { Lease::Off };
        let wanted = Wanted { lease, longest_wait: 300, longest_term: 1_000, ..Wanted::default() };
        Leases::new(Arc::new(Config::new(wanted, Vec::new())), Arc::new(Shared::new()), 0)
    }

    /// The pool with these of its shards.
    pub fn pool_of(&self, number: usize, members: &[u16]) -> PoolConfig {
        self.pool_with(
            number,
            members,
            (self.cluster > 0).then(|| Cluster::first(self.shards - usize::from(self.hidden))),
        )
    }

    /// The same, with such slots.
    pub fn pool_with(&self, number: usize, members: &[u16], slots: Option<Slots>) -> PoolConfig {
        let nodes = if self.cluster > 0 { Cluster::names(members.len()) } else { Vec::new() };
        let names: Vec<String> = (0..self.shards).map(|shard| format!("s{shard}")).collect();
        let placement = Placement {
            pins: Vec::new(),
            slots,
            numbers: members.to_vec(),
            shards: members.iter().map(|&n| Shard { name: names[usize::from(n)].clone(), weight: 1 }).collect(),
            hash: KeyHash::Fnv1a_64,
            distribution: if number == 0 { Distribution::Ketama } else { Distribution::Modula },
            hash_tag: Some(*b"{}"),
        };
        let health = HealthConfig {
            way: if self.eject { Way::Rehash } else { Way::Error },
            failure_limit: 2,
            span: 5,
            retry_timeout: 1_000,
            probe_interval: None,
            seed: 7,
        };
        let (shards, lanes) = (self.shards as u16, self.lanes);
        PoolConfig {
            admin: false,
            databases: self.databases,
            resp3: self.resp3,
            own: self.own,
            long: self.stream,
            channels: true,
            name: format!("pool{number}"),
            shards: names,
            lanes,
            dealt: lanes,
            gutter_ttl: 0,
            former: None,
            mirror: None,
            routes: hotring::stages::routes::Routes::default(),
            bounds: Bounds { open: self.open, output: self.output },
            limits: Limits::default(),
            outbox: self.outbox,
            timeout: self.timeout,
            rate_limits: Vec::new(),
            guard: None,
            auth_failures: None,
            misses: Default::default(),
            leases: self.leases(),
            seed: 7,
            aside: Vec::new(),
            deadlines: Default::default(),
            prefixes: Vec::new(),
            by_command: true,
            slowlog: hotring::engine::slow::Config { slower_than: Some(Duration::from_micros(50)), max_len: 3 },
            users: Arc::new(
                Users::new(&[], self.password.then(|| Secret::new("secret")).as_ref()).expect("a password"),
            ),
            follows: self.cluster > 0,
            nodes,
            redirect_wait: self.redirect_wait,
            path: Path {
                route: Route::new(placement, lanes),
                hot: hotring::stages::Hot::new(Default::default(), 7, Default::default()),
                merging: Merging::new(self.merge, 7).of_every_key(),
                coalesce: Coalesce::new(self.coalesce, self.shards * usize::from(lanes), 7),
                health: Health::new(health, shards, lanes),
            },
        }
    }
}
