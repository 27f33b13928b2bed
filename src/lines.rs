//! Which task serves which connection to a shard: those that are there from the start, those of another protocol or
//! database, and those that sessions have for themselves, which come when they are wanted.

use crate::config::Config;
use crate::embedded::{Connection, Node};
use crate::engine::LineId;
use crate::engine::line::Owner;
use crate::hub::Hub;
use crate::upstream::{self, Servers, connection};
use std::rc::Rc;
use std::sync::Arc;

/// What is needed to serve any connection of a worker.
pub struct Lines {
    hub: Rc<Hub>,
    pools: Vec<(Rc<str>, Rc<upstream::Config>)>,
    nodes: Arc<Vec<Vec<Arc<Node>>>>,
    seed: u64,
    wall_clock: fn() -> u64,
}

impl Lines {
    /// For the pools of a configuration. `wall_clock` tells embedded nodes the milliseconds since 1970.
    #[must_use]
    pub fn new(
        hub: Rc<Hub>,
        config: &Config,
        nodes: Arc<Vec<Vec<Arc<Node>>>>,
        seed: u64,
        wall_clock: fn() -> u64,
    ) -> Self {
        let pools = config.pools.iter().map(|p| (p.name.as_str().into(), Rc::new(p.upstream.clone()))).collect();
        Self { hub, pools, nodes, seed, wall_clock }
    }

    /// Starts the task of a connection. `wanted` tells that something waits for it already.
    pub fn start(&self, id: LineId, wanted: bool) {
        let (pool, shard, dialect, shared) = {
            let engine = self.hub.engine();
            let Some(line) = engine.line(id) else { return };
            (
                usize::from(line.pool),
                usize::from(line.shard),
                line.dialect,
                matches!(line.owner, Owner::Shared | Owner::Ear),
            )
        };
        let Some((name, config)) = self.pools.get(pool) else { return };
        match &config.servers {
            Servers::Embedded { .. } => {
                let Some(node) = self.nodes.get(pool).and_then(|nodes| nodes.get(shard)) else { return };
                if !shared && self.hub.engine().is_given_up(id) {
                    // Whoever wanted it has left before it was there.
                    self.hub.engine().ended(id);
                    return;
                }
                let (node, wall_clock) = (Arc::clone(node), self.wall_clock);
                let mut connection = Connection::new(dialect.resp3);
                self.hub.attach(id, Box::new(move |bytes, out| node.serve(&mut connection, bytes, wall_clock(), out)));
            }
            Servers::Static(servers) => {
                let Some(server) = servers.get(shard) else { return };
                let plan = connection::Plan {
                    line: id,
                    pool: Rc::clone(name),
                    server: server.clone(),
                    config: Rc::clone(config),
                    dialect,
                    seed: self.seed ^ u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15),
                };
                let hub = Rc::clone(&self.hub);
                if shared {
                    tokio::task::spawn_local(connection::run(hub, plan, wanted));
                } else {
                    tokio::task::spawn_local(connection::run_own(hub, plan));
                }
            }
        }
    }

    /// Starts the tasks of connections as they come to be wanted.
    pub async fn run(self) {
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
