//! What the admin listener asks of the process, and what its parts share.

use super::faults::{self, Faults};
use super::history::Histories;
use super::status::Rings;
use super::topologies::{self, Notes};
use super::{ENDED, STOPPING};
use crate::admin::status::{Reload, Status};
use crate::admin::{self, Access, Backend, Explanation, Readiness, Wanted};
use crate::engine::budget::Budget;
use crate::live::{Live, Place};
use crate::metrics::{AdminAction, Exporter, Per};
use crate::reload::ReloadCounts;
use crate::resp::write;
use crate::stages::ShardState;
use crate::traces::Outlets;
use crate::units::Address;
use crate::worker::{Order, Question, ShardView};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// What is asked of the process from outside.
pub(super) struct Shared {
    pub(super) live: Mutex<Arc<Live>>,
    pub(super) exporter: Arc<Exporter>,
    pub(super) desks: Vec<mpsc::Sender<Order>>,
    pub(super) boards: Vec<Arc<Mutex<Vec<Vec<ShardView>>>>>,
    pub(super) budget: Arc<Budget>,
    pub(super) stopping: AtomicBool,
    /// What was wrong with the last file that was not taken; empty if the last one was.
    pub(super) refused: Mutex<String>,
    /// Reloads that were asked for over the admin listener.
    pub(super) asks: mpsc::Sender<Ask>,
    pub(super) asked: Mutex<Option<mpsc::Receiver<Ask>>>,
    pub(super) reloads: Mutex<ReloadCounts>,
    /// What became of requests over the admin listener to change something, since that was last published.
    pub(super) actions: Mutex<Per<AdminAction, u64, { AdminAction::COUNT }>>,
    pub(super) histories: Mutex<Histories>,
    pub(super) rings: Mutex<Rings>,
    pub(super) last_reload: Mutex<Option<Reload>>,
    pub(super) faults: Mutex<Faults>,
    /// What is told of the pools' topologies.
    pub(super) topologies: Notes,
    /// Where workers put what they have sampled.
    pub(super) outlets: Outlets,
}

/// A reload that somebody waits for.
pub(super) struct Ask {
    /// Whether only to say what would change.
    pub(super) dry: bool,
    pub(super) answer: oneshot::Sender<Result<String, String>>,
}

impl Shared {
    pub(super) fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn boards(&self) -> Vec<Vec<Vec<ShardView>>> {
        self.boards.iter().map(|board| board.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect()
    }

    pub(super) fn refused(&self) -> String {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All servers of what runs, pool by pool, in the order of their numbers there.
    pub(super) fn backends_of(&self, live: &Live) -> Vec<Backend> {
        let boards = self.boards();
        let mut rows = Vec::new();
        for (number, pool) in live.listed() {
            for shard in pool.numbers() {
                let view =
                    |board: &Vec<Vec<ShardView>>| board.get(usize::from(number))?.get(usize::from(shard)).copied();
                let views: Vec<ShardView> = boards.iter().filter_map(view).collect();
                let connections = views.iter().map(|v| v.connections).sum();
                let any = |state| views.iter().any(|v| v.state == state);
                let state = if any(ShardState::Ejected) {
                    "ejected"
                } else if any(ShardState::HalfOpen) {
                    "half-open"
                } else if !views.is_empty() && views.iter().all(|v| v.down) {
                    "down"
                } else if any(ShardState::Suspect) {
                    "suspect"
                } else if connections == 0 {
                    "idle"
                } else {
                    "up"
                };
                let address = match pool.shards.get(usize::from(shard)).map(|shard| &shard.place) {
                    Some(Place::Server { address, .. }) => address.to_string(),
                    _ => "in this process".into(),
                };
                rows.push(Backend {
                    pool: pool.pool.name.clone(),
                    name: pool.name_of(shard).to_owned(),
                    address,
                    role: pool.role(shard).to_string(),
                    state: state.into(),
                    connections,
                    in_queue: views.iter().map(|v| v.in_queue).sum(),
                    out_queue: views.iter().map(|v| v.out_queue).sum(),
                });
            }
        }
        rows
    }
}

impl admin::Source for Shared {
    fn access(&self) -> Access {
        let live = self.live();
        let own = match &live.config.admin {
            Some(Address::Tcp { host, .. }) => Some(host.clone()),
            _ => None,
        };
        let hosts = live.config.admin_hosts.iter().cloned().chain(own).collect();
        let config = &live.config;
        Access { token: config.admin_token.clone(), for_reads: config.admin_token_for_reads, hosts }
    }

    fn acted(&self, outcome: AdminAction) {
        self.actions.lock().unwrap_or_else(PoisonError::into_inner)[outcome] += 1;
    }

    fn metrics(&self) -> String {
        self.exporter.render()
    }

    fn ready(&self) -> Readiness {
        if self.stopping.load(Ordering::Relaxed) {
            return Readiness::NotReady(vec!["stopping".into()]);
        }
        let live = self.live();
        let unknown = live.listed().filter(|(_, pool)| pool.is_unknown());
        let unknown: Vec<String> = unknown
            .map(|(_, pool)| {
                let (name, kind) = (&pool.pool.name, pool.pool.upstream.topology.kind());
                let why = self.topologies.of(name).error.map_or(String::new(), |error| format!(": {error}"));
                format!("pool {name}: the topology is not known yet ({kind}{why})")
            })
            .collect();
        if !unknown.is_empty() {
            return Readiness::NotReady(unknown);
        }
        let down = admin::Source::backends(self)
            .into_iter()
            .filter(|b| b.state != "up" && b.state != "idle")
            .map(|b| format!("shard {}/{} is {}", b.pool, b.name, b.state));
        let refused = self.refused();
        let file = (!refused.is_empty()).then(|| format!("the last configuration was not taken: {refused}"));
        // A shard that is down is answered for with errors; taking the proxy away would not make it better. Nor would it
        // a file that is wrong: the last good one is served.
        Readiness::Ready(down.chain(file).collect::<Vec<_>>().join("\n"))
    }

    fn config(&self) -> String {
        self.live().config.masked_yaml()
    }

    fn status(&self) -> Status {
        super::status::of(self)
    }

    fn topology(&self) -> String {
        topologies::page(self)
    }

    fn hot_keys(&self) -> String {
        super::hotkeys::json(self.live().listed().map(|(_, pool)| pool))
    }

    #[expect(clippy::disallowed_methods, reason = "minutes of the process' life")]
    fn warm(&self) -> String {
        super::warm::text(&self.live(), Instant::now())
    }

    fn faults(&self) -> String {
        faults::text(self)
    }

    fn add_fault(&self, wanted: Wanted) -> Explanation {
        Box::pin(faults::change(faults::add(self, wanted), self.desks.clone()))
    }

    fn remove_faults(&self, id: Option<u64>) -> Explanation {
        Box::pin(faults::change(faults::remove(self, id), self.desks.clone()))
    }

    fn reload(&self, dry: bool) -> Explanation {
        let asks = self.asks.clone();
        Box::pin(async move {
            let (answer, told) = oneshot::channel();
            asks.send(Ask { dry, answer }).await.map_err(|_| STOPPING)?;
            told.await.map_err(|_| STOPPING)?
        })
    }

    fn explain(&self, pool: Option<String>, request: Vec<Vec<u8>>) -> Explanation {
        let live = self.live();
        let number = match &pool {
            None if live.config.pools.len() == 1 => live.listed().next().map(|(number, _)| number),
            None => None,
            Some(name) => live.number(name),
        };
        let unknown = live.config.which_pool(pool.as_deref(), "");
        let desk = self.desks.first().cloned();
        Box::pin(async move {
            let number = number.ok_or(unknown)?;
            let args: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
            let mut wire = Vec::new();
            write::request(&mut wire, &args);
            let (answer, told) = oneshot::channel();
            let question = Question { pool: number, wire, answer };
            let desk = desk.ok_or("no worker")?;
            desk.send(Order::Explain(question)).await.map_err(|_| ENDED)?;
            told.await.map_err(|_| ENDED)?
        })
    }

    fn backends(&self) -> Vec<Backend> {
        self.backends_of(&self.live())
    }
}
