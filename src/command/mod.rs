//! What a command is: its arity, where its keys are, whether it reads or writes them, and what hotring does with it.
//!
//! Promises: every command and subcommand of Redis 7 and Valkey 8 is known, with the key positions and the error words
//! of the real server (tests compare both with one); [`lookup`] and, for plain commands, [`treatment`] and [`keys`]
//! neither allocate nor walk the arguments.
//! Does not: know shards (whether the keys of a command are on one shard is the engine's question), answer anything
//! itself, check values, or know the commands of Sentinel, and those of modules only as the configuration describes them.
//!
//! The order of calls for a request: [`identify`], [`treatment`], then [`keys`] or [`each_key`] for what is forwarded.

mod describe;
mod key;
mod more;
mod table;
mod tag;
mod wait;
mod words;

use crate::resp::Request;

pub use crate::metrics::Class;

pub use describe::{Row, category, category_names, describe, document, help, rows};
pub use key::{Counted, Movable, Words, each_key, integer, keys};
pub use more::{Described, teach};
pub use table::{COUNT, all, flag, lookup, numbered};
pub use tag::Tag;
pub use wait::own_wait;
pub use words::{unknown, wrong_arity};

/// What there is to know of one command or subcommand.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Spec {
    /// Lower case; a subcommand's has its container's before it: `xinfo|stream`.
    pub name: &'static str,
    /// As Redis counts: the number of arguments with the name, or, negative, the least number of them.
    pub arity: i16,
    /// The effect on its keys.
    pub access: Access,
    /// Where its keys are.
    pub keys: Keys,
    /// What hotring does with it, but for what its arguments may change: ask [`treatment`].
    pub treatment: Treatment,
    /// Redis' command flags, bits of [`flag`].
    pub flags: u32,
    /// Redis' ACL categories, but for those that follow from the flags.
    categories: u32,
    /// The latency class of metrics.
    pub class: Class,
    /// The class and the name in short.
    pub tag: Tag,
    /// See [`Spec::number`].
    number: u16,
    /// The subcommands of a container.
    pub subcommands: &'static [Spec],
    /// The arguments with which it is refused.
    unless: Option<Unless>,
}

/// The effect of a command on its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Changes nothing that a reader can see.
    Read,
    /// May change its keys: whatever has Redis' `write` flag, and scripts that are not `_RO`.
    Write,
    /// Touches no key.
    Neither,
}

/// Where the keys of a command are among its arguments.
#[derive(Clone, Copy, Debug)]
pub enum Keys {
    /// Nowhere.
    None,
    /// Argument 1 only: the hot path.
    One,
    /// Every `step`-th argument from `first` to `last`; a negative `last` counts from the end, -1 is the last argument.
    Range {
        /// The first key's index.
        first: u8,
        /// The last key's index, or one from the end.
        last: i16,
        /// The distance from key to key.
        step: u8,
    },
    /// After their number (EVAL, ZUNION, LMPOP and so on).
    Counted(Counted),
    /// The first half of what follows STREAMS (XREAD, XREADGROUP).
    Streams {
        /// Whether it is XREADGROUP.
        group: bool,
    },
    /// Found by a function of the arguments (SORT, GEORADIUS, MIGRATE).
    Movable(Movable),
}

/// What hotring does with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// Sent as it is to the shard of its keys, which must be one shard. Where [`keys`] finds none (a script without
    /// keys, what is asked of any one shard) that is the pool's first shard.
    Forward,
    /// Sent in parts to the shards of its keys.
    Split(Merge),
    /// Sent as it is to every shard, or to all of them in turn ([`Merge::InTurn`]).
    Broadcast(Merge),
    /// Sent as it is to the shard where its channel, argument 1, is listened to.
    Publish,
    /// Carried on a connection of the session's own, for it needs the shard to remember something for it alone.
    Own(Need),
    /// Answered by hotring.
    Local(Local),
    /// Answered with [`Why::text`].
    Refuse(Why),
}

/// How the replies to the parts of a command become one. Those of a split command come first, then those of one that is
/// sent to every shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// An array in the order of the keys (MGET).
    Array,
    /// The sum of integers (DEL, UNLINK, EXISTS, TOUCH; DBSIZE).
    Sum,
    /// OK when all are (MSET, whose arguments are pairs of key and value; FLUSHALL).
    AllOk,
    /// OK when any is: what is asked for concerns whichever shard it applies to (SCRIPT KILL).
    AnyOk,
    /// What all of them say alike (SCRIPT LOAD, FUNCTION LOAD).
    Alike,
    /// The least of integers (LASTSAVE).
    Least,
    /// The greatest of integers (PUBSUB NUMPAT: hotring listens for a pattern at every shard).
    Most,
    /// The elements of all arrays (KEYS).
    Concat,
    /// The elements of all arrays, each once (PUBSUB CHANNELS).
    Union,
    /// Arrays of integers, the least at each place (SCRIPT EXISTS).
    Every,
    /// Arrays of a name and a number by turns, the numbers added up (PUBSUB NUMSUB).
    Pairs,
    /// One of the keys, each as likely as any other (RANDOMKEY).
    Draw,
    /// One shard after the other, as the cursor tells (SCAN).
    InTurn,
}

/// A command hotring answers itself. For subcommands see [`Spec::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the Redis command of that name")]
pub enum Local {
    /// ACL WHOAMI.
    Acl,
    Auth,
    Client,
    Command,
    Config,
    Echo,
    Hello,
    Hotring,
    /// HELP of any container of subcommands; [`help`] has the lines.
    Help,
    Info,
    Ping,
    Quit,
    Readonly,
    Readwrite,
    Reset,
    Role,
    Select,
    Slowlog,
    Time,
}

/// Why a command is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It administers a server.
    Admin,
    /// It asks for one server's own state.
    OneServer,
    /// It belongs to Redis Cluster's own protocol.
    Cluster,
    /// It reaches into another database. Only a pool of one database refuses it: keys are on the same shard in all of them.
    Database,
    /// SORT with a BY or GET pattern: keys that are not named.
    Pattern,
    /// A subcommand that its container does not have; [`identify`] has the better words.
    Subcommand,
}

/// What a command needs a connection of its own for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// MULTI, WATCH and what goes with them.
    Transaction,
    /// Waiting for something to happen.
    Blocking,
    /// Publishing and subscribing.
    Subscription,
}

/// What is wrong with the form of a request.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// No such command, or no such subcommand.
    Unknown,
    /// Too many or too few arguments.
    Arity(&'static Spec),
}

/// Arguments that make a command be treated otherwise.
#[derive(Clone, Copy, Debug)]
struct Unless {
    /// For the documentation.
    words: &'static str,
    treats: fn(&Request<'_>) -> Option<Treatment>,
}

/// The command or subcommand a request is of, its number of arguments checked.
#[inline]
pub fn identify(request: &Request<'_>) -> Result<&'static Spec, Fault> {
    let spec = lookup(request.name()).ok_or(Fault::Unknown)?.leaf(request);
    if !spec.subcommands.is_empty() && request.argc() > 1 {
        return Err(Fault::Unknown);
    }
    if check_arity(spec, request) { Ok(spec) } else { Err(Fault::Arity(spec)) }
}

/// What hotring does with this request. A container's spec is as good as its subcommand's.
#[inline]
pub fn treatment(spec: &'static Spec, request: &Request<'_>) -> Treatment {
    let spec = spec.leaf(request);
    if !spec.subcommands.is_empty() && request.argc() > 1 {
        return Treatment::Refuse(Why::Subcommand);
    }
    spec.unless.and_then(|unless| (unless.treats)(request)).unwrap_or(spec.treatment)
}

/// Whether the request has as many arguments as its command, or subcommand, takes.
#[inline]
pub fn check_arity(spec: &Spec, request: &Request<'_>) -> bool {
    let spec = spec.leaf(request);
    let least = usize::from(spec.arity.unsigned_abs());
    if spec.arity < 0 { request.argc() >= least } else { request.argc() == least }
}

impl Spec {
    /// The subcommand that the request names, or the command itself where it has none of that name.
    #[inline]
    pub fn leaf(&self, request: &Request<'_>) -> &Spec {
        if self.subcommands.is_empty() { self } else { self.named(request) }
    }

    fn named(&self, request: &Request<'_>) -> &Spec {
        let Some(name) = request.arg(1) else { return self };
        let named = |sub: &&Spec| sub.name.as_bytes()[self.name.len() + 1..].eq_ignore_ascii_case(name);
        self.subcommands.iter().find(named).unwrap_or(self)
    }

    /// Where COMMAND says the keys are: first, last, step; zeros where only the arguments tell.
    pub fn positions(&self) -> (i16, i16, i16) {
        match self.keys {
            Keys::None | Keys::Streams { .. } => (0, 0, 0),
            Keys::One => (1, 1, 1),
            Keys::Range { first, last, step } => (first.into(), last, step.into()),
            Keys::Counted(counted) if counted.stores => (1, 1, 1),
            Keys::Counted(_) => (0, 0, 0),
            Keys::Movable(movable) => (movable.first.into(), movable.first.into(), 1),
        }
    }

    /// Whether [`Spec::positions`] does not tell all of its keys.
    pub fn has_movable_keys(&self) -> bool {
        matches!(self.keys, Keys::Counted(_) | Keys::Streams { .. } | Keys::Movable(_))
    }
}

impl Fault {
    /// Appends the error's text as Redis words it, without the `-` before and the line break after it.
    pub fn write(&self, request: &Request<'_>, out: &mut Vec<u8>) {
        match self {
            Fault::Unknown => unknown(request, out),
            Fault::Arity(spec) => wrong_arity(spec, out),
        }
    }
}

/// What the tests of this folder share.
#[cfg(test)]
mod testing {
    /// A request's bytes.
    pub(super) fn wire<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
        let mut wire = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            wire.extend(format!("${}\r\n", arg.as_ref().len()).into_bytes());
            wire.extend(arg.as_ref());
            wire.extend(b"\r\n");
        }
        wire
    }

    /// A request's bytes, from words between spaces.
    pub(super) fn words(line: &str) -> Vec<u8> {
        wire(&line.split(' ').collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::testing::words;
    use super::*;

    fn treated(line: &str) -> Treatment {
        let wire = words(line);
        let request = Request::parse(&wire).expect("a request");
        treatment(identify(&request).expect("a known command"), &request)
    }

    #[test]
    fn each_command_has_its_treatment() {
        let blocking = Treatment::Own(Need::Blocking);
        for (line, expected) in [
            ("GET k", Treatment::Forward),
            ("SINTERSTORE d a b", Treatment::Forward),
            ("mget a b", Treatment::Split(Merge::Array)),
            ("DEL a", Treatment::Split(Merge::Sum)),
            ("MSET a 1", Treatment::Split(Merge::AllOk)),
            ("MSETNX a 1", Treatment::Forward),
            ("EVAL x 0", Treatment::Forward),
            ("PING", Treatment::Local(Local::Ping)),
            ("CLIENT SETINFO lib-name x", Treatment::Local(Local::Client)),
            ("COMMAND", Treatment::Local(Local::Command)),
            ("command docs", Treatment::Local(Local::Command)),
            ("XINFO HELP", Treatment::Local(Local::Help)),
            ("XINFO STREAM k", Treatment::Forward),
            ("MEMORY USAGE k", Treatment::Forward),
            ("MEMORY DOCTOR", Treatment::Refuse(Why::OneServer)),
            ("CONFIG GET save", Treatment::Local(Local::Config)),
            ("SLOWLOG GET 3", Treatment::Local(Local::Slowlog)),
            ("CONFIG SET save x", Treatment::Refuse(Why::Admin)),
            ("CLUSTER SLOTS", Treatment::Refuse(Why::Cluster)),
            ("SCAN 0", Treatment::Broadcast(Merge::InTurn)),
            ("SCRIPT LOAD x", Treatment::Broadcast(Merge::Alike)),
            ("SCRIPT DEBUG NO", Treatment::Refuse(Why::Admin)),
            ("FUNCTION LIST", Treatment::Forward),
            ("PUBSUB NUMPAT", Treatment::Broadcast(Merge::Most)),
            ("MULTI", Treatment::Own(Need::Transaction)),
            ("SUBSCRIBE c", Treatment::Own(Need::Subscription)),
            ("BLPOP k 0", blocking),
            ("XREAD COUNT 1 STREAMS block 0", Treatment::Forward),
            ("XREAD COUNT 1 block 0 STREAMS k 0", blocking),
            ("XREADGROUP GROUP block c STREAMS k 0", Treatment::Forward),
            ("XREADGROUP GROUP g c NOACK BLOCK 5 STREAMS k 0", blocking),
            ("SORT k BY nosort GET # LIMIT 0 1 STORE d", Treatment::Forward),
            ("SORT k LIMIT by a*", Treatment::Forward),
            ("SORT k BY w_*", Treatment::Refuse(Why::Pattern)),
            ("sort_ro k get # get w_*->f", Treatment::Refuse(Why::Pattern)),
            ("COPY a b REPLACE", Treatment::Forward),
            ("COPY a b DB 0", Treatment::Forward),
            ("COPY a b REPLACE DB 1", Treatment::Refuse(Why::Database)),
        ] {
            assert_eq!(treated(line), expected, "{line}");
        }
    }

    #[test]
    fn a_containers_spec_serves_for_its_subcommands() {
        let wire = words("OBJECT nonsense k");
        let request = Request::parse(&wire).expect("a request");
        assert!(matches!(identify(&request), Err(Fault::Unknown)));
        let container = lookup(b"object").expect("a command");
        assert_eq!(treatment(container, &request), Treatment::Refuse(Why::Subcommand));
        let wire = words("OBJECT encoding k");
        let request = Request::parse(&wire).expect("a request");
        assert_eq!(treatment(container, &request), Treatment::Forward);
        assert!(check_arity(container, &request));
        let mut found = Vec::new();
        assert_eq!(keys(container, &request, &mut |at| found.push(at)), Ok(()));
        assert_eq!(found, [2]);
    }

    #[test]
    fn access_and_class_follow_the_effect() {
        let of = |name: &str| lookup(name.as_bytes()).map(|spec| (spec.access, spec.class));
        assert_eq!(of("get"), Some((Access::Read, Class::Read)));
        assert_eq!(of("getex"), Some((Access::Write, Class::Write)));
        assert_eq!(of("del"), Some((Access::Write, Class::Multi)));
        assert_eq!(of("eval"), Some((Access::Write, Class::Script)));
        assert_eq!(of("eval_ro"), Some((Access::Read, Class::Script)));
        assert_eq!(of("ping"), Some((Access::Neither, Class::Local)));
        assert_eq!(of("keys"), Some((Access::Read, Class::Multi)));
        assert_eq!(of("swapdb"), Some((Access::Write, Class::Refused)));
    }
}
