//! The request path: a fixed list of stages, each one feature in one file.
//!
//! A stage says what to do with a leg ([`Stage::decide`], pure) and is told what became of it ([`Stage::observe`], the only
//! place where it changes). Nothing here waits, and no stage names another: they meet in the [`Leg`].
//!
//! The order is a design decision, not the operator's. `route` comes first, so that whoever follows knows the connection
//! that a leg would take; `health` comes last, so that it judges the final choice.

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

mod coalesce;
pub mod fault;
#[expect(
    clippy::arithmetic_side_effects,
    reason = "numbers of shards and connections, and times: bounded by the config"
)]
mod health;
pub mod hot;
pub mod lease;
mod merging;
pub mod mirror;
#[expect(clippy::arithmetic_side_effects, reason = "a connection's number, bounded by the config")]
mod route;
pub mod routes;
pub mod warm;

pub use coalesce::Coalesce;
pub use health::{Config as HealthConfig, Health, SPAN, State as ShardState, Way, missing};
pub use hot::Hot;
pub use merging::{Merge, Merging, Shared, Turn};
pub use route::{Placement, Route};

use crate::command::{Access, Keys, Spec};
use crate::error::{Cause, Failure};
use std::fmt;
use std::hash::{BuildHasher, Hasher};

/// The hash by which stages know a key. The seed keeps apps from choosing keys that collide; it is an argument, so that nothing
/// below the worker draws lots.
#[inline]
fn key_hash(seed: u64, key: &[u8]) -> u64 {
    foldhash::fast::FixedState::with_seed(seed).hash_one(key)
}

/// Takes what [`key_hash`] made for the hash that it is.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        // Numbers only come whole, by `write_u64`.
        bytes.iter().for_each(|&byte| self.0 = self.0.rotate_left(8) ^ u64::from(byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Microseconds on the worker's clock.
pub type Micros = u64;

/// A connection to a shard, counted within its pool: `base + shard * lanes + lane`, where `base` is 0 for the connections
/// that most sessions use, and a multiple of `shards * lanes` for those of another protocol or database.
pub type Line = u32;

/// What a request wants of one key; what stages decide on.
#[derive(Debug)]
pub struct Leg<'a> {
    /// The command.
    pub spec: &'static Spec,
    /// The key; empty for a command without one.
    pub key: &'a [u8],
    /// The whole request's bytes.
    pub wire: &'a [u8],
    /// Whether this leg is all that the request wants, so that its reply is the request's.
    pub alone: bool,
    /// Which of a shard's connections the session is bound to.
    pub lane: u16,
    /// Added to the connection's number: which protocol and database.
    pub base: Line,
    /// The request's number on this worker, which wraps; also for what is decided by chance.
    pub number: u32,
    /// It may share only flights of requests with this number or a later one: the session has open requests that went
    /// before, and a shard must not seem to carry them out in another order.
    pub after: Option<u32>,
    /// Whether it may be answered from elsewhere than its shard, as far as its session is concerned.
    pub free: bool,
    /// Whether its session has no writes on their way, which it would have to see.
    pub no_writes: bool,
    /// Whether its session may be answered with the reply to another's read that leaves later.
    pub shares: bool,
    /// Its key's hash, if the key is a hot one; set by `hot`.
    pub hot: Option<u64>,
    /// Whether it may be answered with what is being read to be kept; set by `hot`.
    pub fill: bool,
    /// Which copy of its key it is led to, by `hot`; 0 for none, the key itself.
    pub copy: u16,
    /// Its session's number.
    pub session: u32,
    /// One of several shards that have its key was chosen for it; set by `hot`.
    pub spread: bool,
    /// Only replicas are to answer it; set by `hot`.
    pub only: bool,
    /// A replica was to answer it, and none is fit; set by `hot`.
    pub kept: bool,
    /// Where it goes; set by `route`, and by `hot`.
    pub shard: u16,
    /// The connection it takes; set by `route`.
    pub line: Line,
}

impl<'a> Leg<'a> {
    /// A leg that has not been routed.
    #[must_use]
    pub fn new(spec: &'static Spec, key: &'a [u8], wire: &'a [u8]) -> Self {
        Self {
            spec,
            key,
            wire,
            alone: true,
            lane: 0,
            base: 0,
            number: 0,
            after: None,
            free: false,
            no_writes: false,
            shares: false,
            hot: None,
            fill: false,
            copy: 0,
            session: 0,
            spread: false,
            only: false,
            kept: false,
            shard: 0,
            line: 0,
        }
    }

    /// Whether it is a read whose reply depends on its bytes alone, so that equal ones may share it: one key, no change, nothing
    /// by chance, and not too long to be kept.
    fn can_be_shared(&self) -> bool {
        self.alone
            && self.copy == 0
            && self.spec.access == Access::Read
            && matches!(self.spec.keys, Keys::One)
            && self.wire.len() <= LONGEST_SHARED
            && !BY_CHANCE.contains(&self.spec.name)
    }
}

/// Longest read that can be shared, in bytes of the request.
const LONGEST_SHARED: usize = 4 * 1024;

/// Reads that answer differently each time: joining them would make two draws one.
const BY_CHANCE: [&str; 3] = ["hrandfield", "srandmember", "zrandmember"];

/// A command on a shard's wire: the connection it went to, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flight {
    /// The connection.
    pub line: Line,
    /// Its number on that connection, from 0.
    pub serial: u64,
    /// The number of the request it carries, on this worker; wraps.
    pub number: u32,
}

/// What a stage wants done with a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Ask the next stage; behind the last one: send it.
    Next,
    /// Share the reply of this flight, none of whose bytes have left.
    Join(Flight),
    /// An equal read is out: wait behind it, or share its reply, as [`Merging`] says of the place with this number.
    Behind(u32),
    /// Answer with what `hot` keeps of the key.
    Near,
    /// Answer with an error at once.
    Refuse(Refusal),
}

/// Why a stage refuses a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No shard is in the ring.
    NoShard,
    /// The key's slot is nobody's, as far as the cluster is known.
    NoSlot,
    /// Only replicas of the leg's shard may answer it, and none is fit.
    NoReplica,
    /// The leg's shard is down.
    Down(Failure),
    /// The leg's shard is ejected, and a read of one key may be answered as if that did not exist; all else is refused.
    Missing(Failure),
}

impl Refusal {
    /// The cause it is counted under.
    #[must_use]
    pub fn cause(self) -> Cause {
        match self {
            Self::NoShard => Cause::NoShard,
            Self::NoSlot => Cause::NoSlot,
            Self::NoReplica => Cause::ShardDown,
            Self::Down(failure) | Self::Missing(failure) => failure.cause,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Next => f.write_str("next"),
            Self::Near => f.write_str("answer from memory"),
            Self::Join(_) => f.write_str("join the identical read that is about to leave"),
            Self::Behind(_) => f.write_str("an identical read is out"),
            Self::Refuse(Refusal::NoShard) => f.write_str("refuse: no shard is left in the ring"),
            Self::Refuse(Refusal::NoSlot) => {
                f.write_str("refuse: the slot is nobody's, as far as the cluster is known")
            }
            Self::Refuse(Refusal::NoReplica) => f.write_str("refuse: no replica is fit to be read from"),
            Self::Refuse(Refusal::Missing(failure)) => {
                write!(f, "answer a read as if its key did not exist, refuse all else ({})", failure.reason)
            }
            Self::Refuse(Refusal::Down(failure)) => write!(f, "refuse: the shard is down ({})", failure.reason),
        }
    }
}

/// What stages are told. A reply is told without its leg: what a flight keeps of its request has no room for the key.
#[derive(Debug)]
pub enum Event<'a> {
    /// The leg was appended to a connection's outbox.
    Sent(&'a Leg<'a>, Flight),
    /// The leg shares the reply of a flight.
    Joined(&'a Leg<'a>, Flight),
    /// All flights that were appended to this connection so far may have left: nothing can join them any more.
    Left(Line),
    /// A reply came.
    Replied(Line),
    /// The connection is open and the shard has answered its handshake.
    Connected(Line),
    /// The connection failed, with what waited on it.
    Failed(Line, Failure),
    /// The shard ended an idle connection; nothing was lost.
    Closed(Line),
    /// A connection that failed is being opened again, since its shard is said to be well: what is sent on it waits.
    Reopening(Line),
    /// A connection to this shard failed that has no number here: one that a session has for itself, or the ear.
    Lost(u16, Failure),
    /// A reply came on such a connection.
    Answered(u16),
    /// A probe of this shard was answered, or why not.
    Probed(u16, Option<Failure>),
    /// A shard left the ring; told by `health`.
    Ejected(u16),
    /// A shard is back in the ring; told by `health`.
    Restored(u16),
}

/// What stages announce to each other while they observe; told to all of them afterwards.
#[derive(Debug, Default)]
pub struct Notices {
    /// Shards to leave the ring.
    pub eject: Vec<u16>,
    /// Shards to come back.
    pub restore: Vec<u16>,
}

/// One feature of the request path.
pub trait Stage {
    /// What to do with a leg. Reads the stage, may retarget the leg, changes nothing else.
    fn decide(&self, leg: &mut Leg<'_>, now: Micros) -> Verdict {
        let _ = (leg, now);
        Verdict::Next
    }

    /// What became of a leg or a connection.
    fn observe(&mut self, event: &Event<'_>, now: Micros, notices: &mut Notices) {
        let _ = (event, now, notices);
    }

    /// Upkeep, some times a second.
    fn tick(&mut self, now: Micros, notices: &mut Notices) {
        let _ = (now, notices);
    }

    /// What this stage would say of the leg, in words for a person; `verdict` is what it decided.
    fn explain(&self, leg: &Leg<'_>, verdict: Verdict, now: Micros) -> String {
        let _ = (leg, now);
        verdict.to_string()
    }
}

/// Writes the path: a struct of stages, and the walks over it.
macro_rules! path {
    ($($name:ident: $stage:ty,)*) => {
        /// The stages of one pool on one worker, in the order in which they decide.
        pub struct Path { $(/// The stage.
            pub $name: $stage,)* }

        impl Path {
            /// The first verdict that is not [`Verdict::Next`].
            #[inline]
            pub fn decide(&self, leg: &mut Leg<'_>, now: Micros) -> Verdict {
                $(match self.$name.decide(leg, now) { Verdict::Next => {} verdict => return verdict })*
                Verdict::Next
            }

            /// Tells every stage, then what they announced to each other.
            #[inline]
            pub fn observe(&mut self, event: &Event<'_>, now: Micros, notices: &mut Notices) {
                $(self.$name.observe(event, now, notices);)*
                if !(notices.eject.is_empty() && notices.restore.is_empty()) {
                    self.announce(now, notices);
                }
            }

            /// Lets every stage do its upkeep.
            pub fn tick(&mut self, now: Micros, notices: &mut Notices) {
                $(self.$name.tick(now, notices);)*
                self.announce(now, notices);
            }

            #[cold]
            fn announce(&mut self, now: Micros, notices: &mut Notices) {
                for shard in std::mem::take(&mut notices.eject) {
                    $(self.$name.observe(&Event::Ejected(shard), now, notices);)*
                }
                for shard in std::mem::take(&mut notices.restore) {
                    $(self.$name.observe(&Event::Restored(shard), now, notices);)*
                }
            }

            /// The same decisions, told stage by stage; changes nothing.
            pub fn explain(&self, leg: &mut Leg<'_>, now: Micros) -> Vec<(&'static str, Verdict, String)> {
                let mut told = Vec::new();
                $(let verdict = self.$name.decide(leg, now);
                  told.push((stringify!($name), verdict, self.$name.explain(leg, verdict, now)));
                  if verdict != Verdict::Next { return told; })*
                told
            }
        }
    };
}

path! {
    route: Route,
    hot: Hot,
    merging: Merging,
    coalesce: Coalesce,
    health: Health,
}
