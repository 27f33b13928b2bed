//! The topologies of the pools: who is asked for them, what was answered, and what that changes.
//!
//! One task a pool asks, one question at a time, at [`Pace`]; the answers come to whoever follows the configuration, so that
//! what runs is changed in one place only.

use super::source::Shared;
use crate::chance::splitmix;
use crate::config::Config;
use crate::hub::Clock;
use crate::live::Live;
use crate::topology::pace::Pace;
use crate::topology::{Answer, Layout, NOBODY, Settings, Source};
use crate::units::Millis;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a pool's topology is waited for before what runs goes on without it.
const FIRST: Duration = Duration::from_secs(1);
/// Answers that wait, at most.
const NEWS: usize = 16;
/// All who can be asked, one after another, have had their time by then.
const LONGEST: u32 = 4;

/// Who is asked, for all pools that have a topology.
pub(super) struct Topologies {
    running: Vec<Asking>,
    sender: mpsc::Sender<News>,
    pub(super) news: mpsc::Receiver<News>,
    seed: u64,
}

/// A pool whose topology is asked for.
pub(super) struct Asking {
    pool: String,
    settings: Settings,
    /// What tells its answers from those of who was asked before.
    number: u64,
    quit: CancellationToken,
    /// Until its task has it.
    source: Option<Source>,
    /// Whether the first answer was there, and is how it should be.
    settled: bool,
}

/// What was answered.
pub(super) struct News {
    number: u64,
    pub(super) answer: Result<Answer, String>,
}

/// What is told of a pool's topology.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    /// When it was answered last.
    pub(super) at: Option<u64>,
    /// Why it was not, if that was later.
    pub(super) error: Option<String>,
    /// Answers, questions without one, and answers that changed something.
    pub(super) refreshes: u64,
    pub(super) errors: u64,
    pub(super) changes: u64,
}

/// What is told of all of them, by the pools' names.
pub(super) struct Notes {
    told: Mutex<BTreeMap<String, Told>>,
    clock: Clock,
}

impl Default for Notes {
    fn default() -> Self {
        Self { told: Mutex::default(), clock: Clock::start() }
    }
}

impl Notes {
    /// Of a pool.
    pub(super) fn of(&self, pool: &str) -> Told {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).get(pool).cloned().unwrap_or_default()
    }

    /// How long ago a pool's topology was answered, in microseconds.
    pub(super) fn age(&self, told: &Told) -> Option<u64> {
        told.at.map(|at| self.clock.now().saturating_sub(at))
    }

    /// Notes the first answer of who is asked from now on, or that there was none.
    pub(super) fn take_first(&self, pool: &str, answer: Result<Answer, String>) -> Option<Arc<Layout>> {
        self.take(pool, &answer, answer.is_ok());
        match answer {
            Ok(Answer { layout, .. }) => {
                tracing::info!("pool {pool}: {}", summary(&layout));
                Some(Arc::new(layout))
            }
            Err(reason) => {
                tracing::warn!(%pool, %reason, "nobody tells the topology");
                None
            }
        }
    }

    /// Notes an answer; says whether the error is another than before, or the first answer after one.
    fn take(&self, pool: &str, answer: &Result<Answer, String>, changed: bool) -> bool {
        let mut all = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let told = all.entry(pool.to_owned()).or_default();
        let before = told.error.take();
        match answer {
            Ok(_) => {
                told.refreshes += 1;
                told.changes += u64::from(changed);
                told.at = Some(self.clock.now());
                before.is_some()
            }
            Err(reason) => {
                told.errors += 1;
                let is_new = before.is_none();
                told.error = Some(reason.clone());
                is_new
            }
        }
    }
}

impl Topologies {
    /// Nobody is asked yet. `seed` is where chance begins.
    pub(super) fn new(seed: u64) -> Self {
        let (sender, news) = mpsc::channel(NEWS);
        Self { running: Vec::new(), sender, news, seed }
    }

    /// Who is to be asked with this configuration and is not yet.
    pub(super) fn prepare(&mut self, config: &Config) -> Vec<Asking> {
        let mut fresh = Vec::new();
        for pool in &config.pools {
            let Some(settings) = Settings::of(&pool.upstream) else { continue };
            if self.running.iter().any(|own| own.pool == pool.name && own.settings == settings) {
                continue;
            }
            self.seed = splitmix(self.seed);
            let source = Source::new(&settings, self.seed);
            let (pool, number) = (pool.name.clone(), self.seed);
            fresh.push(Asking { pool, settings, number, quit: CancellationToken::new(), source, settled: false });
        }
        fresh
    }

    /// Goes on with those who are fresh, and no longer with those whom the configuration does not name. Who is not asked by
    /// a task yet is by [`Topologies::run`].
    pub(super) fn adopt(&mut self, fresh: Vec<Asking>, config: &Config) {
        self.running.retain(|own| {
            let replaced = fresh.iter().any(|other| other.pool == own.pool);
            let of_pool = config.pools.iter().find(|pool| pool.name == own.pool);
            let stays = !replaced && of_pool.is_some_and(|pool| pool.upstream.topology.asked().is_some());
            if !stays {
                own.quit.cancel();
            }
            stays
        });
        self.running.extend(fresh);
    }

    /// Starts the tasks that are not yet, on the runtime of whoever calls.
    pub(super) fn run(&mut self, live: &Live, tasks: &TaskTracker) {
        for own in &mut self.running {
            let Some(source) = own.source.take() else { continue };
            let Some(pool) = live.listed().map(|(_, pool)| pool).find(|pool| pool.pool.name == own.pool) else {
                continue;
            };
            let asker = Asker {
                source,
                known: pool.layout.clone(),
                again: !own.settled,
                interval: own.settings.interval(),
                longest: own.settings.patience.saturating_mul(LONGEST),
                bell: Arc::clone(&pool.wish),
                number: own.number,
                sender: self.sender.clone(),
                pace: Pace::new(own.number),
            };
            let quit = own.quit.clone();
            tasks.spawn(async move {
                tokio::select! {
                    () = quit.cancelled() => {}
                    () = asker.run() => {}
                }
            });
        }
    }

    /// Whose news these are; nobody's if who was asked is not asked any more.
    pub(super) fn pool_of(&self, news: &News) -> Option<String> {
        self.running.iter().find(|own| own.number == news.number).map(|own| own.pool.clone())
    }

    /// Ends all tasks.
    pub(super) fn quit(&self) {
        self.running.iter().for_each(|own| own.quit.cancel());
    }
}

/// Asks all of them at once, for a second at the most. Those who gave no answer are asked again by their tasks.
pub(super) async fn ask_first(fresh: &mut [Asking]) -> Vec<(String, Result<Answer, String>)> {
    let mut asked = JoinSet::new();
    for (at, asking) in fresh.iter_mut().enumerate() {
        let Some(mut source) = asking.source.take() else { continue };
        asked.spawn(async move {
            let answer = timeout(FIRST, source.ask()).await;
            (at, source, answer.unwrap_or_else(|_| Err("nobody has answered within a second".into())))
        });
    }
    let mut answers = Vec::new();
    while let Some(done) = asked.join_next().await {
        let Ok((at, source, answer)) = done else { continue };
        let Some(asking) = fresh.get_mut(at) else { continue };
        asking.source = Some(source);
        asking.settled = answer.as_ref().is_ok_and(|answer| answer.settled);
        answers.push((asking.pool.clone(), answer));
    }
    answers
}

/// The task that asks for a pool's topology.
struct Asker {
    source: Source,
    /// What is known already.
    known: Option<Arc<Layout>>,
    /// Where nothing is known, or what is known is not as it should be, that is a reason to ask by itself.
    again: bool,
    interval: Duration,
    longest: Duration,
    bell: Arc<Notify>,
    number: u64,
    sender: mpsc::Sender<News>,
    pace: Pace,
}

impl Asker {
    async fn run(mut self) {
        let clock = Clock::start();
        let mut last = clock.now();
        loop {
            let wished = self.rest(self.again, || Duration::from_micros(clock.now().saturating_sub(last))).await;
            let answer = timeout(self.longest, self.source.ask()).await;
            let answer = answer.unwrap_or_else(|_| Err("nobody has answered in time".into()));
            last = clock.now();
            let settled = answer.as_ref().is_ok_and(|answer| answer.settled);
            let changed = answer.as_ref().is_ok_and(|answer| self.known.as_deref() != Some(&answer.layout));
            if let (true, Ok(answer)) = (changed, &answer) {
                self.known = Some(Arc::new(answer.layout.clone()));
            }
            if wished || changed {
                self.pace.answered(changed, settled);
            } else {
                self.pace.rested();
            }
            self.again = !settled;
            if self.sender.send(News { number: self.number, answer }).await.is_err() {
                return;
            }
        }
    }
}

impl Asker {
    /// Waits until it is time to ask; says whether there is a reason. `since` tells how long ago the last answer was.
    async fn rest(&mut self, again: bool, since: impl Fn() -> Duration) -> bool {
        let (mut wished, mut hurry) = (again, false);
        let wait = if again { self.pace.wait(since()) } else { self.pace.idle(self.interval) };
        let mut wait = pin!(sleep(wait));
        loop {
            tokio::select! {
                () = &mut wait => break,
                () = self.bell.notified(), if !wished => {
                    wait.set(sleep(self.pace.wait(since())));
                    wished = true;
                }
                switched = self.source.heard(), if !hurry => {
                    if switched {
                        wait.set(sleep(self.pace.soon(since())));
                    } else if !wished {
                        wait.set(sleep(self.pace.wait(since())));
                    }
                    (wished, hurry) = (true, switched);
                }
            }
        }
        // Who rang meanwhile is answered by what is asked now.
        let _ = timeout(Duration::ZERO, self.bell.notified()).await;
        wished
    }
}

/// Takes an answer: what runs next, if that is something else.
pub(super) fn take(shared: &Shared, pool: &str, answer: &Result<Answer, String>, now: Instant) -> Option<Arc<Layout>> {
    let live = shared.live();
    let own = live.listed().map(|(_, own)| own).find(|own| own.pool.name == pool)?;
    let known = own.layout.clone();
    let is_endless =
        |answer: &Answer| known.as_deref() != Some(&answer.layout) && !own.has_room_for(&answer.layout, now);
    let endless = Err("it tells of too many servers that it did not tell of before".to_owned());
    let answer = if answer.as_ref().is_ok_and(is_endless) { &endless } else { answer };
    let changed = answer.as_ref().is_ok_and(|answer| known.as_deref() != Some(&answer.layout));
    let is_new = shared.topologies.take(pool, answer, changed);
    match answer {
        Err(reason) if is_new => tracing::warn!(%pool, %reason, "nobody tells the topology, what is known stays"),
        Err(_) => {}
        Ok(_) if is_new && !changed => tracing::info!(%pool, "the topology is told again, and as it was"),
        Ok(_) => {}
    }
    let Ok(Answer { layout, .. }) = answer else { return None };
    changed.then(|| {
        tracing::info!("pool {pool}: {}", differences(known.as_deref(), layout));
        Arc::new(layout.clone())
    })
}

/// What is different in a layout, in a line for people.
pub(super) fn differences(before: Option<&Layout>, after: &Layout) -> String {
    let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let Some(before) = before else { return summary(after) };
    let mut told = Vec::new();
    for (at, node) in after.nodes.iter().enumerate() {
        let was = before.nodes.iter().position(|other| other.id == node.id);
        let slots = (after.slots_of(at), was.and_then(|was| before.slots_of(was)));
        let Some(was) = was.and_then(|was| before.nodes.get(was)) else {
            let of = slots.0.map_or(String::new(), |slots| format!(" of {}", count(slots, "slot")));
            told.push(format!("{} is primary{of} now", node.name));
            continue;
        };
        if let ((Some(now), Some(had)), true) = (slots, slots.0 != slots.1) {
            told.push(format!("{} has {} now, had {had}", node.name, count(now, "slot")));
        } else if slots.0.is_some() && moved(before, after, &node.id) {
            told.push(format!("{} has other slots now", node.name));
        }
        if was.address != node.address {
            told.push(format!("{} is at {} now, was at {}", node.name, node.address, was.address));
        }
        if was.replicas != node.replicas {
            told.push(format!("{} has {} now", node.name, count(node.replicas.len(), "replica")));
        }
    }
    for node in before.nodes.iter().filter(|node| !after.nodes.iter().any(|other| other.id == node.id)) {
        told.push(format!("{} is no primary any more", node.name));
    }
    if told.is_empty() { "its nodes call themselves otherwise now".into() } else { told.join(", ") }
}

/// Whether a node serves other slots, though as many.
fn moved(before: &Layout, after: &Layout, id: &str) -> bool {
    let of = |layout: &Layout| {
        let at = layout.nodes.iter().position(|node| node.id == id).unwrap_or(usize::from(NOBODY));
        let slots = layout.slots.iter().flatten().enumerate();
        slots.filter(|&(_, &node)| usize::from(node) == at).map(|(slot, _)| slot).collect::<Vec<_>>()
    };
    of(before) != of(after)
}

/// A layout in a few words.
fn summary(layout: &Layout) -> String {
    let replicas: usize = layout.nodes.iter().map(|node| node.replicas.len()).sum();
    let plural = |n: usize| if n == 1 { "" } else { "s" };
    let nodes = layout.nodes.len();
    let mut told =
        format!("{nodes} primar{}, {replicas} replica{}", if nodes == 1 { "y" } else { "ies" }, plural(replicas));
    if let Some(slots) = &layout.slots {
        let served = slots.iter().filter(|&&node| node != NOBODY).count();
        let _ = write!(told, ", {served} of {} slots are served", slots.len());
    }
    told
}

/// What the admin listener says of all topologies.
pub(super) fn page(shared: &Shared) -> String {
    let mut page = String::new();
    for (_, pool) in shared.live().listed() {
        let (name, kind) = (&pool.pool.name, pool.pool.upstream.topology.kind());
        if pool.pool.upstream.topology.asked().is_none() {
            let _ = writeln!(page, "pool {name}: {kind}, {} in the file", pool.order.len());
            continue;
        }
        let told = shared.topologies.of(name);
        let of = pool.layout.as_ref().map_or("not known yet".into(), |layout| summary(layout));
        let _ = writeln!(page, "pool {name}: {kind}, {of}");
        let age = shared.topologies.age(&told);
        let age = age.map(|age| Millis::from(Duration::from_millis(age / 1000)).to_string());
        let _ = writeln!(
            page,
            "  answered {}; {} answers, {} of them changed something, {} errors",
            age.map_or("never".into(), |age| format!("{age} ago")),
            told.refreshes,
            told.changes,
            told.errors,
        );
        if let Some(error) = &told.error {
            let _ = writeln!(page, "  last error: {error}");
        }
        for (at, node) in pool.layout.iter().flat_map(|layout| &layout.nodes).enumerate() {
            let slots = pool.layout.as_ref().and_then(|layout| layout.slots_of(at));
            let slots = slots.map_or(String::new(), |slots| format!(", {slots} slots"));
            let _ = writeln!(page, "  {} primary at {}{slots}", node.name, node.address);
            for replica in &node.replicas {
                let zone = replica.zone.as_ref().map_or(String::new(), |zone| format!(" in {zone}"));
                let _ = writeln!(page, "    replica at {}{zone}", replica.address);
            }
        }
    }
    page
}
