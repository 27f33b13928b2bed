//! Which task serves which connection to a shard: those that are there from the start, those of another protocol or
//! database, and those that sessions have for themselves, which come when they are wanted.

use crate::embedded::Connection;
use crate::engine::LineId;
use crate::engine::line::{Dialect, Owner};
use crate::hub::Hub;
use crate::live::{Live, Place};
use crate::metrics::Exporter;
use crate::upstream::connection::{self, Target};
use crate::upstream::dial::{Gate, Names, Resolver, System};
use crate::upstream::info::Watch;
use crate::upstream::probe::Lobby;
use crate::upstream::{self, Server, Servers, Topology};
use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;

/// What is needed to serve any connection of a worker.
pub struct Lines {
    hub: Rc<Hub>,
    live: RefCell<Arc<Live>>,
    /// By pool and shard; nothing where a shard is a node of this process.
    targets: RefCell<Vec<Vec<Option<Aim>>>>,
    names: Rc<Names>,
    seed: u64,
    wall_clock: fn() -> u64,
    /// For each pool and shard where its connections wait for it.
    lobbies: RefCell<BTreeMap<(usize, usize), Rc<Lobby>>>,
    /// Of the worker that asks servers about themselves: where what they tell is published.
    exporter: OnceCell<Arc<Exporter>>,
    /// By pool and shard, those who ask.
    watches: RefCell<BTreeMap<(usize, usize), Rc<Notify>>>,
}

/// Shared by all connections of a shard, and replaced with the configuration.
type Aim = Rc<RefCell<Rc<Target>>>;

impl Lines {
    /// For what runs. `wall_clock` tells embedded nodes the milliseconds since 1970.
    #[must_use]
    pub fn new(hub: Rc<Hub>, live: Arc<Live>, seed: u64, wall_clock: fn() -> u64) -> Self {
        Self::resolving(hub, live, Box::new(System), seed, wall_clock)
    }

    /// The same with another resolver than the system's.
    #[must_use]
    pub fn resolving(
        hub: Rc<Hub>,
        live: Arc<Live>,
        resolver: Box<dyn Resolver>,
        seed: u64,
        wall_clock: fn() -> u64,
    ) -> Self {
        let names = Names::new(resolver);
        let (targets, first) = (RefCell::default(), RefCell::new(Arc::clone(&live)));
        let lines = Self {
            hub,
            live: first,
            targets,
            names,
            seed,
            wall_clock,
            lobbies: RefCell::default(),
            exporter: OnceCell::new(),
            watches: RefCell::default(),
        };
        lines.renew(live);
        lines
    }

    /// What is opened from now on is opened as this says. Shards that are no longer configured keep what they had.
    pub fn renew(&self, live: Arc<Live>) {
        let mut targets = self.targets.borrow_mut();
        targets.resize_with(live.pools.len(), Vec::new);
        for (count, (pool, targets)) in (0..).zip(live.pools.iter().zip(targets.iter_mut())) {
            targets.resize_with(pool.shards.len(), || None);
            let config = Rc::new(pool.pool.upstream.clone());
            let replica = |&(number, _): &(u16, u16)| {
                let shard = pool.shards.get(usize::from(number))?;
                let Place::Server { address, .. } = &shard.place else { return None };
                let server = Server { address: address.clone(), weight: 1, alias: None, name: shard.name.clone() };
                Some((Rc::clone(&config), server, number, config.readonly))
            };
            let replicas: Vec<_> = pool.replicas.iter().filter_map(replica).collect();
            let own = (config, &pool.order);
            let gutter = pool.gutter.as_ref().map(|gutter| (Rc::new(gutter.upstream.clone()), &pool.spare));
            let servers = [own].into_iter().chain(gutter).flat_map(|(config, numbers)| {
                let servers = match &config.servers {
                    Servers::Static(servers) => servers.clone(),
                    Servers::Embedded { .. } => Vec::new(),
                };
                servers
                    .into_iter()
                    .zip(numbers)
                    .map(move |(server, &number)| (Rc::clone(&config), server, number, false))
            });
            // Those that keys have left, and that are not the pool's in another way.
            let former = pool.former.iter().flat_map(|former| {
                let config = Rc::new(former.pool.upstream.clone());
                let servers = match &config.servers {
                    Servers::Static(servers) => servers.clone(),
                    Servers::Embedded { .. } => Vec::new(),
                };
                let numbers = servers.into_iter().zip(former.numbers.iter().copied());
                numbers.map(move |(server, number)| (Rc::clone(&config), server, number, false))
            });
            let former = former.filter(|(_, _, number, _)| !pool.order.contains(number));
            for (config, server, number, readonly) in servers.chain(replicas).chain(former) {
                let aim = targets.get_mut(usize::from(number));
                let before = aim.as_ref().and_then(|aim| aim.as_ref().map(|aim| Rc::clone(&aim.borrow().gate)));
                let gate = before.filter(|gate| gate.is_as(&config));
                let follows = pool.replicas.iter().any(|&(replica, _)| replica == number);
                let target = Rc::new(Target {
                    number: count,
                    pool: pool.pool.name.as_str().into(),
                    name: self.names.of(&server.address),
                    gate: gate.unwrap_or_else(|| Gate::new(&config, self.seed ^ u64::from(number))),
                    server,
                    master: !follows && matches!(config.topology, Topology::Sentinel { .. }),
                    config: Rc::clone(&config),
                    readonly,
                });
                match aim {
                    Some(Some(aim)) => *aim.borrow_mut() = target,
                    Some(none) => *none = Some(Rc::new(RefCell::new(target))),
                    None => {}
                }
            }
        }
        *self.live.borrow_mut() = live;
        // They may be asked more or less often now.
        self.lobbies.borrow().values().for_each(|lobby| lobby.knock());
        drop(targets);
        self.watch();
    }

    /// Asks servers about themselves from now on, where the configuration wants that.
    pub fn publish(&self, exporter: Arc<Exporter>) {
        let _ = self.exporter.set(exporter);
        self.watch();
    }

    /// Starts those who ask servers about themselves, and tells those there are that their settings may have changed.
    fn watch(&self) {
        let Some(exporter) = self.exporter.get() else { return };
        let mut watches = self.watches.borrow_mut();
        watches.values().for_each(|knock| knock.notify_one());
        for (pool, targets) in self.targets.borrow().iter().enumerate() {
            for (shard, target) in targets.iter().enumerate() {
                let Some(target) = target else { continue };
                if target.borrow().config.info_interval.is_none() || watches.contains_key(&(pool, shard)) {
                    continue;
                }
                let knock = Rc::new(Notify::new());
                let watch = Watch {
                    hub: Rc::clone(&self.hub),
                    pool: pool as u16,
                    shard: shard as u16,
                    plan: self.plan_beside(target),
                    exporter: Arc::clone(exporter),
                    knock: Rc::clone(&knock),
                };
                tokio::task::spawn_local(watch.keep());
                watches.insert((pool, shard), knock);
            }
        }
    }

    /// The plan of a connection to a server that no line stands for.
    fn plan_beside(&self, target: &Aim) -> connection::Plan {
        connection::Plan {
            line: LineId::MAX,
            target: Rc::clone(target),
            dialect: Dialect::default(),
            own: true,
            keep: false,
            seed: self.seed,
            lobby: None,
        }
    }

    /// Starts the task of a connection. `wanted` tells that something waits for it already.
    pub fn start(&self, id: LineId, wanted: bool) {
        let (pool, shard, dialect, owner) = {
            let engine = self.hub.engine();
            let Some(line) = engine.line(id) else { return };
            (usize::from(line.pool), usize::from(line.shard), line.dialect, line.owner)
        };
        let shared = matches!(owner, Owner::Shared | Owner::Ear | Owner::Tracker);
        let live = self.live.borrow();
        let Some(place) = live.pools.get(pool).and_then(|pool| pool.shards.get(shard)).map(|shard| &shard.place) else {
            return;
        };
        match place {
            Place::Node(node) => {
                if !shared && self.hub.engine().is_given_up(id) {
                    // Whoever wanted it has left before it was there.
                    self.hub.engine().ended(id);
                    return;
                }
                let (node, wall_clock) = (Arc::clone(node), self.wall_clock);
                let mut connection = Connection::new(dialect.resp3);
                let serve =
                    move |bytes: &[u8], out: &mut Vec<u8>| node.serve(&mut connection, bytes, wall_clock(), out);
                self.hub.attach(id, upstream::node(&self.hub, format!("embedded-{}", shard + 1), serve));
            }
            Place::Server { .. } => {
                let targets = self.targets.borrow();
                let Some(Some(target)) = targets.get(pool).and_then(|targets| targets.get(shard)) else { return };
                let plan = connection::Plan {
                    line: id,
                    target: Rc::clone(target),
                    dialect,
                    own: !shared,
                    keep: owner != Owner::Shared,
                    seed: self.seed ^ u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15),
                    lobby: Some(self.lobby(pool, shard, target)),
                };
                let hub = Rc::clone(&self.hub);
                if shared {
                    let notify = Rc::new(Notify::new());
                    if wanted {
                        notify.notify_one();
                    }
                    // At once and not by the task: until it runs, the connection may be wanted again.
                    self.hub.on_wanted(id, Rc::clone(&notify));
                    tokio::task::spawn_local(upstream::run(hub, plan, notify));
                } else {
                    tokio::task::spawn_local(upstream::run_own(hub, plan));
                }
            }
        }
    }

    /// Where the connections to a shard wait for it; made, with its prober, for the first of them.
    fn lobby(&self, pool: usize, shard: usize, target: &Aim) -> Rc<Lobby> {
        let mut lobbies = self.lobbies.borrow_mut();
        let made = || Lobby::new(&self.hub, pool as u16, shard as u16, self.plan_beside(target));
        Rc::clone(lobbies.entry((pool, shard)).or_insert_with(made))
    }

    /// Starts the tasks of connections as they come to be wanted.
    pub async fn run(self: Rc<Self>) {
        let caller = self.hub.sockets().caller();
        loop {
            caller.notified().await;
            let left = self.hub.sockets().take_left();
            for line in left {
                self.hub.engine().ended(line);
            }
            let fresh = self.hub.sockets().take_fresh();
            for line in fresh {
                self.start(line, true);
                // A node in this process is there at once, and what waits for it is to be sent.
                self.hub.with(|_, _| {});
            }
        }
    }
}
