//! A real cluster, hotring before it with two workers, apps whose keys are in slots of all of its primaries, and what is done to it.

use super::process::Process;
use super::workload::{Homes, Plan, Workload};
use crate::support::{Client, Cluster, Scratch, eventually, now};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// So long after Redis' own failover apps may still be told errors.
const GRACE: Duration = Duration::from_secs(1);
/// How often it is looked whether the machine goes on.
const LOOK: Duration = Duration::from_millis(20);

/// How long the machine let nobody have a turn, which is nobody's fault here.
pub(crate) struct Stalls {
    /// The longest time, and all of them together, in milliseconds.
    longest: Arc<AtomicU64>,
    all: Arc<AtomicU64>,
    quit: mpsc::Sender<()>,
}

impl Stalls {
    fn watch() -> Self {
        let (quit, quits) = mpsc::channel();
        let own = Self { longest: Arc::default(), all: Arc::default(), quit };
        let (longest, all) = (Arc::clone(&own.longest), Arc::clone(&own.all));
        std::thread::spawn(move || {
            loop {
                let start = now();
                if quits.recv_timeout(LOOK) != Err(mpsc::RecvTimeoutError::Timeout) {
                    return;
                }
                let late = start.elapsed().saturating_sub(LOOK).as_millis() as u64;
                longest.fetch_max(late, Ordering::AcqRel);
                all.fetch_add(late, Ordering::AcqRel);
            }
        });
        own
    }

    pub(crate) fn longest(&self) -> Duration {
        Duration::from_millis(self.longest.load(Ordering::Acquire))
    }

    fn all(&self) -> Duration {
        Duration::from_millis(self.all.load(Ordering::Acquire))
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        let _ = self.quit.send(());
    }
}

/// Three primaries, each with a replica: the i-th of the latter follows the i-th of the former.
pub(crate) struct ClusterStand {
    pub(crate) work: Workload,
    pub(crate) hotring: Process,
    pub(crate) cluster: Cluster,
    pub(crate) slots: Vec<Range<u16>>,
    pub(crate) stalls: Stalls,
    _dir: Scratch,
}

impl ClusterStand {
    /// Keys are in the first `slots` slots of each primary; so many more that nobody asks for are there as well.
    pub(crate) fn new(slots: u16, cold: usize, plan: Plan) -> Self {
        Self::of(env!("CARGO_BIN_EXE_hotring"), slots, cold, "timeout: 1m", plan)
    }

    /// The same behind another build, and with another key of the pool.
    pub(crate) fn of(binary: &str, slots: u16, cold: usize, key: &str, plan: Plan) -> Self {
        let cluster = Cluster::start_with(3, 3, &["--cluster-require-full-coverage", "no"]);
        let first = |primary: u16| (16384 * u32::from(primary) / 3) as u16;
        let slots: Vec<Range<u16>> = (0..3).map(|primary| first(primary)..first(primary) + slots).collect();
        let dir = Scratch::new();
        // Those that the file names are the ones that will be lost.
        let yaml = cluster
            .yaml(&[1, 5], &["^log: {level: off}", "^workers: 2", key])
            .replace("admin: off", "admin: 127.0.0.1:0");
        let hotring = Process::of(binary, &dir.write("proxy.yaml", &yaml));
        let mut app = hotring.app();
        for number in 0..cold {
            assert_eq!(app.ask(&format!("SET cold:{number} {number}")), "+OK\r\n");
        }
        let work = Workload::at(hotring.address(), Homes::Slots(slots.clone()), plan);
        work.goes_on(&[0, 1, 2], 50);
        Self { work, hotring, cluster, slots, stalls: Stalls::watch(), _dir: dir }
    }

    /// What was acknowledged up to now is at the replica of a shard; what is from now on, Redis may undo.
    pub(crate) fn begin_doubt(&self, shard: usize, primary: usize, replica: usize) {
        self.work.turn(shard);
        let offset = |node: usize, field: &str| -> u64 {
            let info = self.cluster.client(node).ask("INFO replication");
            let line = info.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
            line.parse().unwrap_or_default()
        };
        let written = offset(primary, "master_repl_offset:");
        eventually("the replica has what was written", || offset(replica, "slave_repl_offset:") >= written);
    }

    /// Waits until all nodes that go on say that a replica has taken over, and serves; when that was.
    pub(crate) fn failed_over(&self, ill: usize, replica: usize) -> Instant {
        let id = self.cluster.id(replica);
        let is_over = |node: usize| {
            let nodes = self.cluster.client(node).ask("CLUSTER NODES");
            let line = nodes.lines().find(|line| line.starts_with(id)).unwrap_or_default();
            let mut fields = line.split(' ').skip(2);
            let is_primary = fields.next().is_some_and(|flags| flags.contains("master"));
            is_primary && fields.nth(5).is_some()
        };
        eventually("the replica has taken over", || {
            self.cluster.client(replica).ask("CLUSTER INFO").contains("cluster_state:ok")
                && self.cluster.alive().filter(|&node| node != ill).all(is_over)
        });
        now()
    }

    /// The time in which errors are forgiven is over, which a machine that stands still itself makes longer.
    pub(crate) fn end_doubt(&self, shard: usize, over: Instant) {
        let stalls = self.stalls.all();
        loop {
            let grace = GRACE + self.stalls.all().saturating_sub(stalls);
            let Some(left) = grace.checked_sub(over.elapsed()) else { break };
            self.work.shared.wait(left);
        }
        self.work.turn(shard);
    }

    /// Takes a node away that has no slots any more, as `redis-cli --cluster del-node` does, and ends it.
    pub(crate) fn remove(&mut self, node: usize) {
        for other in self.cluster.alive().filter(|&other| other != node) {
            self.cluster.order(other, &format!("CLUSTER FORGET {}", self.cluster.id(node)));
        }
        self.cluster.order(node, "CLUSTER RESET HARD");
        // Who was not told that it has no slots any more asks it until then, and has to be told elsewhere.
        let line = format!("  {} primary", self.cluster.address(node));
        eventually("hotring needs it no more", || {
            let page = self.hotring.page("/topology");
            page.lines().filter(|told| told.starts_with(&line)).all(|told| told.trim_end().ends_with(", 0 slots"))
        });
        self.work.goes_on(&[0, 1, 2], 100);
        self.cluster.remove_node(node);
    }

    /// How often hotring has been redirected, by why.
    pub(crate) fn redirects(&self) -> Vec<(String, u64)> {
        let metrics = self.hotring.metrics();
        let all = metrics.iter().filter_map(|(series, count)| {
            let labels = series.strip_prefix("hotring_redirects_total")?;
            let why = labels.split('"').rfind(|word| word.chars().all(|c| c.is_alphanumeric() || c == '_'))?;
            Some((why.to_owned(), *count as u64))
        });
        all.filter(|(_, count)| *count > 0).collect()
    }
}

/// Who moves slots, over connections of its own to all primaries.
pub(crate) struct Mover<'a> {
    cluster: &'a Cluster,
    primaries: Vec<(usize, Client)>,
}

impl<'a> Mover<'a> {
    /// Tells all of these, which are all primaries there are.
    pub(crate) fn new(cluster: &'a Cluster, primaries: &[usize]) -> Self {
        let primaries = primaries.iter().map(|&node| (node, cluster.client(node))).collect();
        Self { cluster, primaries }
    }

    fn ask(&mut self, node: usize, words: &[&str]) -> String {
        let (_, client) = self.primaries.iter_mut().find(|(own, _)| *own == node).unwrap();
        String::from_utf8(client.call(words)).unwrap()
    }

    fn order(&mut self, node: usize, words: &[&str]) {
        let reply = self.ask(node, words);
        assert_eq!(reply, "+OK\r\n", "{words:?}");
    }

    /// Moves slots with all their keys, one after another; so many keys at once, and something
    /// in between.
    pub(crate) fn move_all(
        &mut self,
        slots: impl IntoIterator<Item = u16>,
        (from, to): (usize, usize),
        batch: usize,
        between: impl Fn(),
    ) {
        let (source, target) = (self.cluster.id(from).to_owned(), self.cluster.id(to).to_owned());
        let (host, port) = self.cluster.address(to).split_once(':').unwrap();
        let batch = batch.to_string();
        for slot in slots {
            let slot = slot.to_string();
            self.order(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source]);
            self.order(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target]);
            loop {
                let listed = self.ask(from, &["CLUSTER", "GETKEYSINSLOT", &slot, &batch]);
                let keys: Vec<&str> = listed.lines().skip(1).filter(|line| !line.starts_with('$')).collect();
                if keys.is_empty() {
                    break;
                }
                let moved = self.ask(from, &[&["MIGRATE", host, port, "", "0", "5000", "KEYS"], &keys[..]].concat());
                // Keys that are gone meanwhile were lists that are empty.
                assert!(moved == "+OK\r\n" || moved == "+NOKEY\r\n", "{moved}");
                between();
            }
            // First the one that gets it, or nobody would have it for a moment.
            let others: Vec<usize> = self.primaries.iter().map(|(node, _)| *node).filter(|&node| node != to).collect();
            for node in [to].into_iter().chain(others) {
                self.order(node, &["CLUSTER", "SETSLOT", &slot, "NODE", &target]);
            }
        }
    }
}
