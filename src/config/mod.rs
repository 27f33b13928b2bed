//! The configuration: a file, read and checked as a whole, becomes an immutable snapshot.
//!
//! Two formats: `proxy.yaml`, and twemproxy's `nutcracker.yml` as it is. Two steps: what was written (`written`), then
//! what is meant, with defaults and cross-checks (`build`).
//!
//! Promises: all that is wrong with a file is told at once, with file, line, column and key; a file with anything wrong
//! gives no configuration. Does not resolve host names, bind, connect, or watch the file.

mod admin;
mod build;
mod commands;
mod denials;
mod hot;
mod keys;
mod limits;
mod mirror;
mod misses;
mod nutcracker;
mod problems;
mod reading;
mod routes;
mod schema;
mod servers;
mod sight;
mod text;
mod tls;
mod topology;
mod traces;
mod users;
mod warm;
mod warnings;
mod written;
mod yaml;

use std::fs::File;
use std::io::Read;
use std::num::NonZeroU16;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, str::FromStr};

pub use keys::{KEYS, Key, Place};
pub use problems::{Problem, Problems};
pub use schema::schema;
pub(crate) use text::quoted;

use crate::downstream;
use crate::engine::{limits as rates, slow};
use crate::stages;
use crate::traces::{AccessLog, Tracing};
use crate::units::{Address, Expected, Secret, Size};
use crate::upstream;

/// Where the admin listener is when a `proxy.yaml` says nothing.
pub const ADMIN: &str = "127.0.0.1:9380";
/// `max_pause` where nothing is said.
pub const MAX_PAUSE: Duration = Duration::from_micros(120);

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Threads that serve requests.
    pub workers: Workers,
    /// Longest rest of the paced loop after a batch, at most 1 ms; zero never rests.
    pub max_pause: Duration,
    /// What apps and servers may make the process hold.
    pub max_memory: MaxMemory,
    /// Where metrics, health and explanations are served, if anywhere.
    pub admin: Option<Address>,
    /// What must be shown by who changes something there; `None` lets nobody.
    pub admin_token: Option<Secret>,
    /// Whether who reads there must show it, too (`admin_token_for: all`).
    pub admin_token_for_reads: bool,
    /// Names by which it may be called, beside those that nobody else can have.
    pub admin_hosts: Vec<String>,
    /// How often the file is looked at for changes; `None` never.
    pub watch: Option<Duration>,
    /// How the process stops.
    pub drain: Drain,
    /// The unix socket over which a new process takes the listeners of a running one, if that is wanted.
    pub handover: Option<PathBuf>,
    /// What is logged and how.
    pub log: Log,
    /// Which requests become spans, and where those go.
    pub tracing: Option<Tracing>,
    /// Which requests become lines of the log of accesses.
    pub access_log: Option<AccessLog>,
    /// Commands beside those that hotring knows.
    pub commands: Vec<crate::command::Described>,
    /// The pools in the order of the file, at least one, names unique.
    pub pools: Vec<Pool>,
    /// Where all this was read from.
    pub source: Source,
}

/// How the process stops when it is told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// How long it goes on as if nothing were, but for not being ready.
    pub delay: Duration,
    /// How long sessions then have to get what they asked for.
    pub timeout: Duration,
}

/// `drain` where nothing is said.
pub const DRAIN: Drain = Drain { delay: Duration::ZERO, timeout: Duration::from_secs(5) };
/// `watch` where nothing is said.
pub const WATCH: Duration = Duration::from_secs(2);

/// How many threads serve requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// This many.
    Count(NonZeroU16),
    /// One for each core the process may use.
    Auto,
}

impl fmt::Display for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::Auto => f.write_str("auto"),
        }
    }
}

/// What apps and servers may make the process hold, embedded nodes aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MaxMemory {
    /// A half of what the process may have: what waits may take twice its length while it grows.
    #[default]
    Auto,
    /// No bound.
    Off,
    /// So many bytes.
    Bytes(u64),
}

impl MaxMemory {
    /// In bytes; `limit` tells what the process may have. `None` is no bound.
    #[must_use]
    pub fn bytes(self, limit: impl FnOnce() -> Option<u64>) -> Option<u64> {
        match self {
            Self::Auto => limit().map(|limit| limit / 2),
            Self::Off => None,
            Self::Bytes(bytes) => Some(bytes),
        }
    }
}

impl fmt::Display for MaxMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Off => f.write_str("off"),
            Self::Bytes(bytes) => Size::from(*bytes).fmt(f),
        }
    }
}

/// What is logged and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The least level that is logged.
    pub level: Level,
    /// For whom.
    pub format: Format,
    /// Where the audit log goes.
    pub audit: Audit,
}

/// Where the audit log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Audit {
    /// To the log, among what else is told there at level `info`.
    #[default]
    Log,
    /// To standard output, one JSON object a line.
    Stdout,
    /// To the end of a file, one JSON object a line.
    File(PathBuf),
    /// Nowhere.
    Off,
}

impl FromStr for Audit {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        match text {
            "log" => Ok(Self::Log),
            "stdout" => Ok(Self::Stdout),
            "off" => Ok(Self::Off),
            path if path.contains('/') && !path.ends_with('/') => Ok(Self::File(path.into())),
            _ => {
                Err(Expected::new("`log`, `stdout`, `off` or the path of a file such as `/var/log/hotring/audit.log`"))
            }
        }
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log => f.write_str("log"),
            Self::Stdout => f.write_str("stdout"),
            Self::File(path) => path.display().fmt(f),
            Self::Off => f.write_str("off"),
        }
    }
}

/// An enum of words, with its `FromStr` and `Display`.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident: $($(#[$word_doc:meta])* $variant:ident = $text:literal),* $(,)?) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub enum $name { $($(#[$word_doc])* $variant),* }

        impl FromStr for $name {
            type Err = Expected;

            fn from_str(text: &str) -> Result<Self, Expected> {
                match text {
                    $($text => Ok(Self::$variant),)*
                    _ => Err(Expected::new(concat!("one of", $(" `", $text, "`"),*))),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $text),* })
            }
        }
    };
}

words! {
    /// How much is logged.
    Level:
    /// Everything, for the hunt of one bug.
    Trace = "trace",
    /// What each part decides.
    Debug = "debug",
    /// Starts, stops, changes.
    #[default]
    Info = "info",
    /// What somebody should look at.
    Warn = "warn",
    /// What broke.
    Error = "error",
    /// Nothing.
    Off = "off",
}

words! {
    /// The form of a log line.
    Format:
    /// For people.
    #[default]
    Text = "text",
    /// One JSON object a line.
    Json = "json",
}

/// A named set of servers with the addresses apps reach them at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name, in metrics and logs.
    pub name: String,
    /// The app side.
    pub downstream: downstream::config::Config,
    /// The servers' side.
    pub upstream: upstream::config::Config,
    /// Where keys go.
    pub ring: upstream::config::RingConfig,
    /// Whether equal reads on their way at the same time share one reply.
    pub coalesce: bool,
    /// Which replies equal reads of a hot key may share.
    pub merge: stages::Merge,
    /// What is done with its hot keys.
    pub hot: stages::hot::Config,
    /// What is done when its keys are not there.
    pub misses: stages::lease::Config,
    /// What of its requests is also sent to another pool.
    pub mirror: Option<stages::mirror::Mirroring>,
    /// Which of its keys live in other pools.
    pub routes: stages::routes::Routes,
    /// Who answers its reads.
    pub reading: stages::hot::Reading,
    /// Which requests SLOWLOG tells of.
    pub slowlog: slow::Config,
    /// Whether what is counted by command is told.
    pub command_metrics: bool,
    /// Beginnings of keys that are counted by; none twice.
    pub metrics_prefixes: Vec<Vec<u8>>,
    /// How much may be asked for; names unique.
    pub rate_limits: Vec<rates::Limit>,
    /// What nobody may do.
    pub denials: crate::acl::Denials,
}

/// Where a configuration was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file, as it was named.
    pub path: PathBuf,
    /// Its format.
    pub kind: Kind,
    /// The files that it names and that were read with it.
    pub files: Vec<PathBuf>,
    /// Of all of them those that hold passwords, itself with them.
    pub secrets: Vec<PathBuf>,
    /// Whether the command line had another word for `admin`, which then stands.
    pub admin_given: bool,
}

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// hotring's own.
    Proxy,
    /// twemproxy's.
    Nutcracker,
}

impl Config {
    /// The configuration as a `proxy.yaml` that says everything, defaults too, with secrets masked. For people and
    /// `/config`; it is not meant to be loaded again, since the masks are not the secrets.
    pub fn masked_yaml(&self) -> String {
        text::effective(self)
    }

    /// What is told to who names a pool that is not there, or none where there are several; `how` is how one is named.
    #[must_use]
    pub(crate) fn which_pool(&self, named: Option<&str>, how: &str) -> String {
        let names: Vec<&str> = self.pools.iter().map(|pool| pool.name.as_str()).collect();
        let names = names.join(", ");
        match named {
            Some(name) => format!("there is no pool {}, only: {names}", problems::quoted(name)),
            None => format!("say which pool{how}: {names}"),
        }
    }

    /// The files with passwords or keys that everybody on the machine may read, one sentence each. Looks at the files.
    pub fn exposed(&self) -> Vec<String> {
        let mut said: Vec<String> = self.source.secrets.iter().filter_map(|path| exposed(path)).collect();
        said.dedup();
        said
    }

    /// What is allowed but seldom meant, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        warnings::of(self)
    }
}

/// What is to be said of a file that holds a password or a key, if everybody may read it.
fn exposed(path: &Path) -> Option<String> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
    let path = path.display();
    (mode & 0o004 != 0).then(|| {
        format!(
            "`{path}` holds a password or a key, and everybody on this machine may read it (mode {mode:o}): chmod o= {path}"
        )
    })
}

/// Reads and checks a file of at most 1 MiB.
///
/// # Errors
/// All that is wrong with it, or that it cannot be read.
pub fn load(path: &Path) -> Result<Config, Problems> {
    let mut bytes = Vec::new();
    let limit = yaml::MAX_BYTES as u64 + 1;
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(|e| Problems::of_file(path, None, format!("cannot be read: {e}")))?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let (good, _) = e.as_bytes().split_at(e.utf8_error().valid_up_to());
        let line = 1 + good.iter().filter(|&&b| b == b'\n').count();
        let last = String::from_utf8_lossy(good.rsplit(|&b| b == b'\n').next().unwrap_or_default()).chars().count();
        Problems::of_file(path, Some((line, last + 1)), "read a byte that is not UTF-8, expected text")
    })?;
    parse(&text, path)
}

/// Checks a text. `path` names it in messages and tells its format to nobody; a relative `password_file` is looked for
/// beside it.
///
/// # Errors
/// All that is wrong with it.
pub fn parse(text: &str, path: &Path) -> Result<Config, Problems> {
    let root = yaml::read(text).map_err(|broken| Problems::of_file(path, broken.place, broken.text))?;
    let kind = if nutcracker::is_one(&root) { Kind::Nutcracker } else { Kind::Proxy };
    let mut report = problems::Report::default();
    let file = written::read(&root, kind, path, &mut report);
    let config = build::build(file, path, &mut report);
    if report.is_empty() { Ok(config) } else { Err(report.finish(text, path)) }
}

/// Turns a `nutcracker.yml` into a `proxy.yaml` that means the same, with a comment where twemproxy meant it differently.
/// Passwords are written out, since the file has them. Comments of the file are not taken over.
///
/// # Errors
/// All that is wrong with it, or that it is a `proxy.yaml` already.
pub fn import(text: &str, path: &Path) -> Result<String, Problems> {
    let config = parse(text, path)?;
    match config.source.kind {
        Kind::Nutcracker => Ok(text::imported(&config)),
        Kind::Proxy => Err(Problems::of_file(path, None, "read a proxy.yaml, expected a nutcracker.yml")),
    }
}
