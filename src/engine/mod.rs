//! The core: bytes of apps and shards in, bytes for shards and apps out. No socket, no clock, no chance, no waiting.
//!
//! ```text
//! submit   app's bytes -> requests -> legs -> flights in outboxes          (apps.rs, plan.rs, broadcast.rs, local.rs)
//! receive  shard's bytes -> replies -> slots -> outputs in request order   (shards.rs, merge.rs, window.rs)
//! flush    outboxes and outputs -> the sockets, one send each              (flush.rs)
//! fail     a connection broke: everyone who waited on it is told           (shards.rs)
//! tick     upkeep: timeouts, stages                                       (flush.rs)
//! ```
//!
//! One engine belongs to one worker and is never shared. It does not allocate for a request that is answered in order.

// What comes from a network must not end a session by a panic; tests may.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::arithmetic_side_effects,
        clippy::panic,
        clippy::unreachable
    )
)]

mod apps;
mod aside;
mod asked;
mod branches;
mod broadcast;
pub mod budget;
pub mod channels;
pub mod deadlines;
mod explain;
mod fault;
mod flush;
mod gutter;
mod hot;
pub mod lease;
pub mod limits;
pub mod line;
mod local;
mod mend;
mod merge;
mod merging;
mod mirror;
mod misses;
mod missing;
mod own;
mod pass;
mod plan;
pub mod port;
mod redirect;
pub mod reload;
mod relocate;
mod retry;
pub mod samples;
mod scan;
mod scripts;
mod sets;
mod shards;
mod sight;
pub mod slow;
pub mod special;
pub mod stream;
pub mod tenant;
pub mod trail;
mod transaction;
mod users;
mod warm;
mod watched;
pub mod window;

use crate::acl::{Guard, Users};
use crate::command::{Spec, Tag, Why, flag};
use crate::error;
use crate::metrics::PoolCounts;
use crate::resp::Limits;
use crate::stages::{self, Leg, Micros, Notices, Path, Refusal, Verdict};
use line::{Dialect, Line, Ticket};
pub use local::{About, REDIS_VERSION};
use merge::Gather;
pub use mirror::Mismatch;
use port::Port;
pub use scripts::Scripts;
use slab::Slab;
use special::mode;
use std::sync::Arc;
use window::{Bounds, Session, Spare};

/// A session's number; used again after it ended.
pub type SessionId = u32;
/// A connection's number on this worker, over all pools.
pub type LineId = u32;

/// What a longer timeout counts as, in microseconds: a waiter's clock wraps after 71 minutes, and this leaves a minute and a
/// half to see that it is over.
pub const LONGEST_TIMEOUT: Micros = 70 * 60 * 1_000_000;

/// What the engine needs to know of a pool.
pub struct PoolConfig {
    /// Its name.
    pub name: String,
    /// The shards' names by number, for error texts and metrics; those of shards that the pool had before, too.
    pub shards: Vec<String>,
    /// Connections to each shard.
    pub lanes: u16,
    /// How long at most what is written to shards that stand in for others lives there, in milliseconds; 0 where none do.
    pub gutter_ttl: u64,
    /// To how many of them new sessions are bound: all, but where a running pool was given fewer.
    pub dealt: u16,
    /// Bounds of its sessions.
    pub bounds: Bounds,
    /// Bounds of its requests.
    pub limits: Limits,
    /// Most bytes queued to one connection before the sessions that fill it are not read.
    pub outbox: usize,
    /// Requests whose next argument makes them this long, in bytes, are passed on while they arrive; [`stream::LONG`].
    pub long: usize,
    /// Databases that apps may SELECT, from 0.
    pub databases: u16,
    /// Whether apps may speak RESP3, and the shards are spoken to in it then.
    pub resp3: bool,
    /// Whether commands about one server's own state are forwarded, to the first shard.
    pub admin: bool,
    /// Most connections to each shard that sessions have for themselves, as for transactions and blocking commands.
    pub own: usize,
    /// Whether apps may subscribe: not where the shards have nothing to publish.
    pub channels: bool,
    /// How long a reply may take, in microseconds; at most [`LONGEST_TIMEOUT`].
    pub timeout: Option<Micros>,
    /// Commands that are carried on a connection of the session's own since they take long.
    pub aside: Vec<&'static Spec>,
    /// How long its sessions may stand still.
    pub deadlines: deadlines::Deadlines,
    /// Which requests SLOWLOG tells of.
    pub slowlog: slow::Config,
    /// Beginnings of keys that are counted by.
    pub prefixes: Vec<Vec<u8>>,
    /// Whether what is counted by command is told.
    pub by_command: bool,
    /// How much may be asked for.
    pub rate_limits: Vec<limits::Limit>,
    /// What is done when keys are not there.
    pub misses: stages::lease::Config,
    /// Where its keys lived before, as long as they are looked for there, and what its workers tell each other of that.
    pub former: Option<(stages::warm::Former, Arc<stages::warm::Warmth>)>,
    /// Which keys live in other pools.
    pub routes: stages::routes::Routes,
    /// What of its requests is also sent to another pool.
    pub mirror: Option<Arc<stages::mirror::Mirroring>>,
    /// Where chance begins.
    pub seed: u64,
    /// Who may do what.
    pub users: Arc<Users>,
    /// What nobody may do, whoever they are.
    pub guard: Option<Guard>,
    /// After so many wrong passwords a session ends; `None`: it never does.
    pub auth_failures: Option<u32>,
    /// What is done when keys are not there that all of a pool's workers share.
    pub leases: stages::lease::Leases,
    /// The stages.
    pub path: Path,
    /// Its servers are told by others than the configuration, and may be others at any time.
    pub follows: bool,
    /// What the nodes of its cluster call themselves, and which shards they are.
    pub nodes: Vec<(Box<[u8]>, u16)>,
    /// How long a request waits for its slot to have settled, in microseconds since it was first redirected.
    pub redirect_wait: Micros,
}

impl PoolConfig {
    /// Whether what is refused elsewhere for this reason is forwarded in this pool.
    fn opens(&self, why: Why) -> bool {
        match why {
            Why::Database => self.databases > 1,
            // One shard has all keys that a pattern may stand for.
            Why::Pattern => self.path.route.only().is_some(),
            Why::OneServer => self.admin,
            Why::Admin | Why::Cluster | Why::Subcommand => false,
        }
    }
}

struct Pool {
    config: PoolConfig,
    /// The connections, by the numbers that stages know them by: set by set, in each of them shard by shard, lane by lane.
    table: Vec<LineId>,
    /// What is spoken in each set; the first one's is the default.
    sets: Vec<Dialect>,
    /// Shards that are no longer the pool's and have something to finish, and since when.
    retired: Vec<(u16, Micros)>,
    /// For each shard the connections that sessions have for themselves.
    own: Vec<own::Shelf>,
    channels: channels::Channels,
    /// By shard.
    trackers: Vec<Option<hot::Tracker>>,
    /// Answers from elsewhere since one was looked at.
    unaudited: u32,
    limits: limits::Limits,
    misses: misses::Misses,
    /// As long as keys are looked for where they lived before.
    warm: Option<warm::Here>,
    /// As long as requests are sent to another pool, too.
    mirror: mirror::Here,
    routes: branches::Here,
    /// As long as faults are injected.
    faults: fault::Here,
    /// Requests that take so many microseconds are slow.
    slow_from: u32,
    slow: slow::SlowLog,
    commands: sight::Commands,
    prefixes: sight::Prefixes,
    /// What it takes to follow a cluster's redirections.
    cluster: Option<Box<redirect::Cluster>>,
    /// See [`Engine::take_wish`].
    wish: bool,
    counts: PoolCounts,
}

/// What became of an app's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Submitted {
    /// How many bytes were used up.
    pub consumed: usize,
    /// What to do next.
    pub then: Then,
}

/// See [`Engine::holdings`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holdings {
    /// Requests whose parts are under way.
    pub gathers: usize,
    /// Calls of scripts that may be tried again.
    pub attempts: usize,
    /// Requests of the proxy's own that are under way.
    pub errands: usize,
    /// Reads that were sent to copies of their keys.
    pub copy_reads: usize,
    /// Replies that wait until copies of their keys are gone.
    pub withheld: usize,
    /// Reads of hot keys under way to one of several shards that have them.
    pub spreads: usize,
    /// Reads of keys that are not there, and that wait until they are.
    pub waits: usize,
    /// Requests for several keys that have leases, under way or held back.
    pub arrays: usize,
    /// Requests that wait for where their keys lived before.
    pub warm: usize,
    /// Replies that are compared with a mirror's.
    pub comparisons: usize,
    /// Requests and replies that are held back on purpose.
    pub delayed: usize,
    /// Requests that share another's flight.
    pub joined: usize,
    /// Slots of clusters that requests may have gone the old way for, or wait for; those that came about together are one.
    pub troubles: usize,
    /// Commands that wait for something to happen.
    pub blocked: u32,
    /// Empty buffers kept to be used again.
    pub spare: usize,
    /// Their capacity in bytes.
    pub spare_bytes: usize,
}

/// What the shell does with a session next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Read on; the first unused byte begins a request that needs so many bytes at least.
    Read {
        /// Bytes from the first unused one.
        need: usize,
    },
    /// Let others have their turn, then come again with the unused bytes: a whole request may begin there.
    Yield,
    /// Do not read before the port's `wake`; keep the unused bytes.
    Pause,
    /// Read no more.
    Close,
}

/// One worker's core.
pub struct Engine {
    pools: Vec<Pool>,
    sessions: Slab<Box<Session>>,
    /// How many of them are branches.
    branches: usize,
    /// Where the request goes that may begin now, and whose it is.
    way: Option<(SessionId, branches::Way)>,
    /// By the sessions' numbers.
    watches: Vec<deadlines::Watch>,
    walk: deadlines::Walk,
    share: budget::Share,
    lines: Vec<Line>,
    gathers: Slab<Gather>,
    attempts: Slab<scripts::Attempt>,
    errands: Slab<hot::Way>,
    audits: Vec<hot::Audit>,
    copy_reads: Slab<hot::CopyRead>,
    withheld: Slab<hot::Withheld>,
    spreads: Slab<hot::Spread>,
    waits: lease::Waits,
    warm: warm::Warm,
    mirrors: mirror::Mirrors,
    watched: watched::Watched,
    delayed: fault::Delayed,
    scripts: Arc<Scripts>,
    joined: Slab<(Ticket, u32, u32)>,
    /// By session: where a read of it waits, as far as the session says that one does.
    behind: Vec<u32>,
    /// Places whose flights were answered, and that are waited in.
    landed: Vec<(u16, u32)>,
    /// Of the reply that is looked at, for each key that is not there its budget.
    missed: Vec<u16>,
    spare: Spare,
    dirty_lines: Vec<LineId>,
    dirty_sessions: Vec<SessionId>,
    notices: Notices,
    plan: plan::Scratch,
    tenant: tenant::Scratch,
    inline: Vec<u8>,
    generations: u32,
    ids: u64,
    id_step: u64,
    requests: u64,
    /// Counts requests and whatever is sent otherwise; see [`Flight::number`](crate::stages::Flight::number).
    order: u64,
    answered: u64,
    /// See [`Engine::changes`].
    changes: u32,
    in_flight: u32,
    /// Troubles of all pools' slots; see `redirect`.
    troubles: usize,
    /// Commands that may wait as long as they like.
    blocked: u32,
    now: Micros,
    /// What the audit log is to be told.
    trail: trail::Trail,
    samples: samples::Samples,
    /// The command of the request that is looked at.
    asking: Option<Tag>,
    /// How long what is answered now was on its way to a shard and back; what it took beyond that was spent here.
    away: u32,
    /// See [`Engine::take_pass`].
    pass_from: Option<Micros>,
    /// What INFO says of the process.
    about: About,
}

impl Engine {
    /// An engine without pools. Session ids begin at `first_id` and go up by `id_step`, so that several workers' differ.
    #[must_use]
    pub fn new(first_id: u64, id_step: u64) -> Self {
        Self {
            pools: Vec::new(),
            sessions: Slab::new(),
            branches: 0,
            way: None,
            watches: Vec::new(),
            walk: deadlines::Walk::default(),
            share: budget::Share::default(),
            lines: Vec::new(),
            gathers: Slab::new(),
            attempts: Slab::new(),
            errands: Slab::new(),
            audits: Vec::new(),
            copy_reads: Slab::new(),
            withheld: Slab::new(),
            spreads: Slab::new(),
            waits: lease::Waits::default(),
            warm: warm::Warm::default(),
            mirrors: mirror::Mirrors::default(),
            watched: watched::Watched::default(),
            delayed: fault::Delayed::default(),
            scripts: Arc::default(),
            joined: Slab::new(),
            behind: Vec::new(),
            landed: Vec::new(),
            missed: Vec::new(),
            spare: Spare::default(),
            dirty_lines: Vec::new(),
            dirty_sessions: Vec::new(),
            notices: Notices::default(),
            plan: plan::Scratch::default(),
            tenant: tenant::Scratch::default(),
            inline: Vec::new(),
            generations: 0,
            ids: first_id,
            id_step,
            requests: 0,
            order: 0,
            answered: 0,
            changes: 0,
            in_flight: 0,
            troubles: 0,
            blocked: 0,
            now: 0,
            trail: trail::Trail::default(),
            samples: samples::Samples::default(),
            asking: None,
            away: 0,
            pass_from: None,
            about: About::default(),
        }
    }

    /// Sets what INFO, HELLO and TIME tell of the process.
    pub fn describe(&mut self, about: About) {
        self.about = about;
    }

    /// Adds a pool; returns its number and its connections' numbers, shard by shard, lane by lane.
    pub fn add_pool(&mut self, config: PoolConfig) -> (u16, std::ops::Range<LineId>) {
        let number = self.pools.len() as u16;
        let first = self.lines.len() as LineId;
        let own = config.shards.iter().map(|_| own::Shelf::default()).collect();
        let mut pool = Pool {
            slow_from: self.samples.slow_from(&config.slowlog),
            slow: slow::SlowLog::default(),
            commands: sight::Commands::default(),
            prefixes: sight::Prefixes::new(&config.prefixes),
            limits: limits::Limits::new(&config.rate_limits, self.id_step, limits::Limits::default()),
            misses: misses::Misses::new(&config.misses, self.id_step, misses::Misses::default()),
            warm: None,
            mirror: mirror::Here::default(),
            routes: branches::Here::default(),
            faults: fault::Here::default(),
            config,
            table: Vec::new(),
            sets: vec![Dialect::default()],
            retired: Vec::new(),
            own,
            channels: channels::Channels::default(),
            trackers: Vec::new(),
            unaudited: 0,
            cluster: None,
            wish: false,
            counts: PoolCounts::default(),
        };
        pool.meet_cluster();
        pool.fill(number, &mut self.lines);
        pool.tell_of_ids();
        self.pools.push(pool);
        self.hear_others(number);
        self.renew_warm(number);
        self.renew_mirrors();
        self.renew_routes();
        (number, first..self.lines.len() as LineId)
    }

    /// Requests that were sent to shards, or wait to be, and have no reply yet; and those whose reply is held back.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        let waiting = self.waits.requests().saturating_add(self.waiting_for_slots()).saturating_add(self.delayed.len());
        self.in_flight.saturating_add(waiting as u32)
    }

    /// Requests without a reply.
    #[must_use]
    pub fn pending(&self) -> u32 {
        let pending: u32 = self.pools.iter().map(|p| p.counts.requests_pending.get() as u32).sum();
        // Those that wait for something to happen tell nothing of the load.
        pending.saturating_sub(self.blocked).saturating_sub(self.waits.requests() as u32)
    }

    /// Requests that got a reply since the start, however. With [`Engine::pending`] this tells their latency.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered
    }

    /// Sessions that are open, each an app's.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions.len().saturating_sub(self.branches)
    }

    /// What sessions are to other pools than their own.
    #[must_use]
    pub fn branch_count(&self) -> usize {
        self.sessions.iter().filter(|(_, session)| session.is_branch()).count()
    }

    /// What is counted of a pool, to be folded, and for what the shell counts.
    pub fn pool_counts(&mut self, pool: u16) -> Option<&mut PoolCounts> {
        self.pools.get_mut(usize::from(pool)).map(|p| &mut p.counts)
    }

    /// A connection.
    #[must_use]
    pub fn line(&self, id: LineId) -> Option<&Line> {
        self.lines.get(id as usize)
    }

    /// Connections there have been, over all pools; their numbers are below it.
    #[must_use]
    pub fn line_count(&self) -> LineId {
        self.lines.len() as LineId
    }

    /// A connection, to be folded.
    pub fn line_mut(&mut self, id: LineId) -> Option<&mut Line> {
        self.lines.get_mut(id as usize)
    }

    /// Every session ends as soon as it has its replies; used when the process stops.
    pub fn finish_all(&mut self, port: &mut impl Port) {
        let open = self.sessions.iter().filter(|(_, session)| !session.closing && !session.is_branch());
        for id in open.map(|(id, _)| id as SessionId).collect::<Vec<_>>() {
            self.finish_session(id);
            port.wake(id);
        }
        self.end_waits(None);
    }

    /// What the engine holds on to now; all but `spare` comes back to nothing when all requests are answered.
    #[must_use]
    pub fn holdings(&self) -> Holdings {
        let (spare, spare_bytes) = self.spare.size();
        Holdings {
            gathers: self.gathers.len(),
            attempts: self.attempts.len(),
            errands: self.errands.len(),
            copy_reads: self.copy_reads.len(),
            withheld: self.withheld.len(),
            spreads: self.spreads.len(),
            waits: self.waits.len(),
            arrays: self.arrays(),
            warm: self.warm.len(),
            comparisons: self.mirrors.len(),
            delayed: self.delayed.len(),
            joined: self.joined.len(),
            troubles: self.troubles,
            blocked: self.blocked,
            spare,
            spare_bytes,
        }
    }

    /// Whether the app's socket is full.
    #[must_use]
    pub fn is_blocked(&self, id: SessionId) -> bool {
        self.sessions.get(id as usize).is_some_and(|s| s.blocked)
    }

    /// Requests read since the start.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// A pool's stages.
    #[must_use]
    pub fn path(&self, pool: u16) -> Option<&Path> {
        self.pools.get(usize::from(pool)).map(|p| &p.config.path)
    }

    /// When a probe of a shard is due; `None` for one that is not probed, or not one of the pool's shards any more.
    #[must_use]
    pub fn probe_at(&self, pool: u16, shard: u16) -> Option<Micros> {
        let path = self.path(pool)?;
        path.health.probe_at(shard).filter(|_| path.route.numbers().any(|own| own == shard))
    }

    /// A pool's stages, to be told of what the shell knows.
    pub fn path_mut(&mut self, pool: u16) -> Option<&mut Path> {
        self.pools.get_mut(usize::from(pool)).map(|p| &mut p.config.path)
    }

    /// What would become of a request, stage by stage and key by key; changes nothing.
    ///
    /// # Errors
    /// A text for a person, when there is no such pool or the request has no legs.
    pub fn explain(&self, pool: u16, wire: &[u8], now: Micros) -> Result<String, String> {
        explain::explain(self, pool, wire, now)
    }
}

/// The error reply for a refused leg.
fn refuse(refusal: Refusal, shard: &str, out: &mut Vec<u8>) {
    match refusal {
        Refusal::NoShard => error::no_shard(out),
        Refusal::NoSlot => error::no_slot(out),
        Refusal::NoReplica => error::NO_REPLICA.write(shard, false, out),
        Refusal::Down(failure) | Refusal::Missing(failure) => failure.write(shard, false, out),
    }
}

/// A leg with what the session brings.
fn leg_of<'a>(session: &Session, spec: &'static Spec, key: &'a [u8], wire: &'a [u8], number: u64) -> Leg<'a> {
    // A channel has one home though keys may have none: there it is listened to.
    let number = if spec.flags & flag::PUBSUB == 0 { number } else { 0 };
    // A strict session shares no flight, and none is newer than its own request.
    let after =
        if session.is_strict() { Some(number as u32) } else { (session.open_slots() > 0).then_some(session.newest) };
    // In another database the same name is another key; and what is read under WATCH must not be older than that.
    let free = !session.is_strict()
        && (session.hot_reads == 0 || after.is_none())
        && (session.base == 0 || session.db() == 0)
        && session.mode & mode::PINNED == 0;
    let no_writes = session.writes == 0 || session.open_slots() == 0;
    let shares = !session.is_strict() && session.mode & mode::PINNED == 0;
    Leg {
        shares,
        no_writes,
        lane: session.lane(),
        base: session.base,
        number: number as u32,
        session: session.id as u32,
        after,
        free,
        ..Leg::new(spec, key, wire)
    }
}

/// The verdict and, where it is a refusal, what it refuses with.
fn refusal(verdict: Verdict) -> Option<Refusal> {
    match verdict {
        Verdict::Refuse(refusal) => Some(refusal),
        Verdict::Next | Verdict::Near | Verdict::Join(_) | Verdict::Behind(_) => None,
    }
}
