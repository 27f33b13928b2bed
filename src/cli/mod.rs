//! The command line.
//!
//! Exit codes, after `sysexits.h`: 0 done, 64 bad arguments or bad configuration, 71 the system refused (an address in use,
//! no thread), 78 no configuration file.

mod bench;
mod demo;
mod top;

use crate::audit::{self, Sieve};
use crate::config::{self, Audit, Config, Format, Level, Problems, Workers};
use crate::engine::Engine;
use crate::live::{self, Live};
use crate::log;
use crate::plan;
use crate::proxy::{Proxy, Signal};
use crate::resp::write;
use crate::units::Address;
use crate::upstream::Servers;
use crate::worker;
use clap::{Args, Parser, Subcommand};
use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

const BAD: u8 = 64;
const SYSTEM: u8 = 71;
const NO_CONFIG: u8 = 78;
/// How long the last lines of a log may take when the process stops.
const LAST_LINES: Duration = Duration::from_secs(1);

/// A Redis-protocol sharding proxy that runs beside your application.
#[derive(Parser)]
#[command(name = "hotring", version, about, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Args)]
struct Run {
    #[command(flatten)]
    file: File,
    /// Check the configuration and exit (twemproxy's flag; the same as `hotring check`)
    #[arg(short = 't', long = "test-conf")]
    test: bool,
    /// Where to serve metrics and health, instead of the file's `admin`; `off` for nowhere
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
}

#[derive(Args)]
struct File {
    /// The configuration: a proxy.yaml, or twemproxy's nutcracker.yml
    #[arg(short = 'c', long = "config", alias = "conf-file", value_name = "FILE", default_value = "proxy.yaml")]
    config: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Check the configuration: every problem with its line, every warning
    Check {
        #[command(flatten)]
        file: File,
    },
    /// Say by stage what would become of a request; no server is asked
    Route {
        #[command(flatten)]
        file: File,
        /// The pool, if the file has several
        #[arg(short, long)]
        pool: Option<String>,
        /// The command that is asked about [default: GET]
        #[arg(long, value_name = "NAME")]
        command: Option<String>,
        /// The command's arguments; for GET keys, each of them asked about by itself
        #[arg(required_unless_present = "command", allow_negative_numbers = true, value_name = "ARG")]
        arguments: Vec<String>,
    },
    /// Print the proxy.yaml that does the same as a nutcracker.yml
    Import {
        /// twemproxy's configuration
        #[arg(value_name = "NUTCRACKER_YML")]
        file: PathBuf,
    },
    /// Print the JSON Schema of a proxy.yaml, with which editors complete and check one
    Schema,
    /// Say how much of the keyspace a change of the configuration moves, and from which server to which
    Plan {
        /// The configuration as it is
        #[arg(value_name = "OLD_YAML")]
        old: PathBuf,
        /// The configuration as it is to be
        #[arg(value_name = "NEW_YAML")]
        new: PathBuf,
        /// Keys to weigh it with, one a line, instead of the whole keyspace
        #[arg(long, value_name = "FILE")]
        keys: Option<PathBuf>,
    },
    /// Compare a proxy with a connection that goes straight to a server, on this machine
    Bench(bench::Options),
    /// Watch a running hotring in a terminal: its pools, shards, hot keys and errors
    Top(top::Options),
    /// Show what hotring does, with simulated apps and no Redis
    Demo {
        #[command(subcommand)]
        what: Option<demo::Demo>,
    },
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors, but come this way, too.
            let code = if error.use_stderr() { BAD } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let done = match cli.command {
        None if cli.run.test => check(&cli.run.file.config),
        None => run(&cli.run),
        Some(Command::Check { file }) => check(&file.config),
        Some(Command::Route { file, pool, command, arguments }) => {
            route(&file.config, pool.as_deref(), command.as_deref().unwrap_or("GET"), &arguments)
        }
        Some(Command::Import { file }) => import(&file),
        Some(Command::Schema) => {
            say(&format!("{:#}\n", config::schema()));
            Ok(())
        }
        Some(Command::Plan { old, new, keys }) => plan(&old, &new, keys.as_deref()),
        Some(Command::Bench(options)) => bench::bench(&options),
        Some(Command::Top(options)) => top::top(&options),
        Some(Command::Demo { what }) => demo::demo(what.as_ref()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, text)) => {
            log::last_words(&text, LAST_LINES);
            ExitCode::from(code)
        }
    }
}

type Outcome = Result<(), (u8, String)>;

fn load(path: &Path) -> Result<Config, (u8, String)> {
    if !path.exists() {
        let text = format!(
            "{}: no such file; `hotring -c FILE` reads another one (a proxy.yaml, or twemproxy's nutcracker.yml)",
            path.display()
        );
        return Err((NO_CONFIG, text));
    }
    config::load(path).map_err(bad)
}

fn bad(problems: Problems) -> (u8, String) {
    (BAD, problems.to_string())
}

fn warnings(config: &Config) -> Vec<String> {
    let mut all = config.warnings();
    for pool in &config.pools {
        let ring = crate::ring::Ring::new(
            &live::shards(pool),
            &[],
            pool.ring.hash,
            pool.ring.distribution,
            pool.ring.hash_tag,
        );
        all.extend(ring.warnings().into_iter().map(|w| format!("pool `{}`: {w}", pool.name)));
    }
    all
}

fn check(path: &Path) -> Outcome {
    let config = load(path)?;
    for warning in warnings(&config).into_iter().chain(config.exposed()) {
        say(&format!("warning: {warning}\n"));
    }
    let many = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let (mut servers, mut nodes, mut asked) = (0, 0, 0);
    for pool in &config.pools {
        let shards = live::shards(pool).len();
        match pool.upstream.servers {
            Servers::Static(_) if pool.upstream.topology.asked().is_some() => asked += 1,
            Servers::Embedded { .. } => nodes += shards,
            Servers::Static(_) => servers += shards,
        }
    }
    let mut told = many(config.pools.len(), "pool");
    if nodes > 0 {
        told += &format!(", {}", many(nodes, "embedded node"));
    }
    if servers > 0 {
        told += &format!(", {} (not contacted)", many(servers, "server"));
    }
    if asked > 0 {
        told += &format!(", {} with a topology (not asked)", many(asked, "pool"));
    }
    say(&format!("{} is valid: {told}\n", path.display()));
    Ok(())
}

fn import(path: &Path) -> Outcome {
    let text = std::fs::read_to_string(path).map_err(|e| {
        let why = if e.kind() == std::io::ErrorKind::NotFound { "no such file".to_owned() } else { e.to_string() };
        (NO_CONFIG, format!("{}: {why}", path.display()))
    })?;
    say(&config::import(&text, path).map_err(bad)?);
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "nothing depends on the time here")]
fn plan(old: &Path, new: &Path, keys: Option<&Path>) -> Outcome {
    let before = now(load(old)?);
    let after = before.next(load(new)?, Instant::now());
    let told = match keys {
        None => plan::tell::<(u8, String)>(&before, &after, None)?,
        Some(path) => {
            let bad = |error: std::io::Error| (BAD, format!("{}: cannot be read: {error}", path.display()));
            let mut lines = BufReader::new(std::fs::File::open(path).map_err(bad)?);
            let mut each = |look: &mut dyn FnMut(&[u8])| {
                let mut line = Vec::new();
                while lines.read_until(b'\n', &mut line).map_err(bad)? > 0 {
                    let key = line.strip_suffix(b"\n").unwrap_or(&line);
                    let key = key.strip_suffix(b"\r").unwrap_or(key);
                    if !key.is_empty() {
                        look(key);
                    }
                    line.clear();
                }
                Ok(())
            };
            plan::tell(&before, &after, Some(&mut each))?
        }
    };
    say(&told);
    Ok(())
}

/// What `health` says where no server was asked.
const NOT_ASKED: &str = "not known: no server was asked; /explain on the admin address knows";

fn route(path: &Path, pool: Option<&str>, command: &str, arguments: &[String]) -> Outcome {
    let config = load(path)?;
    let number = match pool {
        None if config.pools.len() == 1 => Some(0),
        None => None,
        Some(name) => config.pools.iter().position(|p| p.name == name),
    };
    let number = number.ok_or_else(|| (BAD, config.which_pool(pool, " with --pool")))?;
    let engine = worker::engine(&now(config), 0, 1, 0);
    let alone = command.eq_ignore_ascii_case("get") && !arguments.is_empty();
    for arguments in arguments.chunks(if alone { 1 } else { arguments.len().max(1) }) {
        tell(&engine, number as u16, command, arguments)?;
    }
    if arguments.is_empty() {
        tell(&engine, number as u16, command, &[])?;
    }
    Ok(())
}

/// Explains one request.
fn tell(engine: &Engine, pool: u16, command: &str, arguments: &[String]) -> Outcome {
    let request: Vec<&[u8]> =
        [command].into_iter().chain(arguments.iter().map(String::as_str)).map(str::as_bytes).collect();
    let mut wire = Vec::new();
    write::request(&mut wire, &request);
    for line in engine.explain(pool, &wire, 0).map_err(|text| (BAD, text))?.lines() {
        match line.strip_prefix("  health     ") {
            Some(_) => say(&format!("  health     {NOT_ASKED}\n")),
            None => say(&format!("{line}\n")),
        }
    }
    Ok(())
}

fn run(arguments: &Run) -> Outcome {
    let path = &arguments.file.config;
    let mut config = load(path)?;
    config.source.admin_given = arguments.admin.is_some();
    config.admin = match arguments.admin.as_deref() {
        None => config.admin,
        Some("off") => None,
        Some(text) => {
            Some(text.parse::<Address>().map_err(|e| (BAD, format!("--admin: read `{text}`, expected {e}")))?)
        }
    };
    start_logging(&config).map_err(|e| (SYSTEM, format!("hotring: {e}")))?;
    let limit = raise_descriptor_limit();
    let needed = descriptors(&config);
    if let Some(limit) = limit.filter(|&limit| limit < needed) {
        tracing::warn!(
            limit,
            needed,
            "the limit of open files is below what `client_connections` and the servers need"
        );
    }
    for warning in warnings(&config) {
        tracing::warn!("{warning}");
    }
    let greeting = greeting(&config);
    let proxy = Proxy::start(config).map_err(|e| (SYSTEM, format!("hotring: {e}")))?;
    let greet = |proxy: &Proxy, admin: Option<&str>| say(&greeting(proxy, admin));
    let ended = proxy.run(greet, watch_signals).map_err(|e| (SYSTEM, format!("hotring: {e}")));
    log::dropped();
    log::settle(LAST_LINES);
    audit::settle(LAST_LINES);
    ended
}

/// A configuration as if it ran, for asking what it would do.
#[expect(clippy::disallowed_methods, reason = "nothing depends on the time here")]
fn now(config: Config) -> Live {
    Live::first(config, Instant::now())
}

/// What is said once everything listens: where, over what, and what to type next.
fn greeting(config: &Config) -> impl Fn(&Proxy, Option<&str>) -> String + use<> {
    let pools: Vec<(String, String)> = config
        .pools
        .iter()
        .map(|pool| {
            let shards = live::shards(pool).len();
            let over = match pool.upstream.servers {
                Servers::Embedded { .. } => format!("{shards} embedded nodes (no Redis needed)"),
                _ if pool.upstream.topology.is_cluster() => "a Redis Cluster".into(),
                _ if pool.upstream.topology.asked().is_some() => "what its sentinels watch".into(),
                Servers::Static(_) if shards == 1 => "1 server".into(),
                Servers::Static(_) => format!("{shards} servers"),
            };
            (pool.name.clone(), over)
        })
        .collect();
    let first_is_embedded =
        config.pools.first().is_some_and(|pool| matches!(pool.upstream.servers, Servers::Embedded { .. }));
    move |proxy, admin| {
        let mut text = format!("hotring {}\n", env!("CARGO_PKG_VERSION"));
        let mut first = None;
        for (pool, address) in &proxy.addresses() {
            let over = pools.iter().find(|(name, _)| name == pool).map_or("", |(_, over)| over);
            let tls = if proxy.encrypts(address) { ", with TLS" } else { "" };
            text += &format!("  pool {pool:<12} {address:<24} over {over}{tls}\n");
            first = first.or(Some(address.clone()));
        }
        match admin {
            Some(admin) => {
                text += &format!(
                    "  admin             {admin:<24} / is for browsers; /metrics /readyz /backends /hotkeys /explain and more\n"
                )
            }
            None => text += "  admin             off\n",
        }
        if let Some(address) = first {
            let how = match address.rsplit_once(':') {
                Some((host, port)) if !address.starts_with('/') => {
                    let host = host.trim_matches(['[', ']']);
                    if host == "127.0.0.1" || host == "0.0.0.0" {
                        format!("-p {port}")
                    } else {
                        format!("-h {host} -p {port}")
                    }
                }
                _ => format!("-s {address}"),
            };
            let how = if proxy.encrypts(&address) { format!("--tls --cacert CA {how}") } else { how };
            // What is in real servers is not for a trial to change.
            text += &if first_is_embedded {
                format!("try: redis-cli {how} SET greeting hello\n     redis-cli {how} GET greeting\n")
            } else {
                format!("try: redis-cli {how} PING\n")
            };
        }
        text
    }
}

/// Tells the process what signals ask for: SIGTERM and SIGINT to stop, SIGHUP to read the configuration again. SIGHUP is
/// what twemproxy reopens its log upon; logs go to standard error here.
#[expect(clippy::disallowed_methods, reason = "the process' own runtime, not a worker's")]
fn watch_signals(sender: mpsc::Sender<Signal>) {
    let kinds = [
        (SignalKind::terminate(), "SIGTERM", Signal::Stop),
        (SignalKind::interrupt(), "SIGINT", Signal::Stop),
        (SignalKind::hangup(), "SIGHUP", Signal::Reload),
    ];
    for (kind, name, meaning) in kinds {
        // Watched from here on, before anybody is told that hotring runs.
        let Ok(mut watched) = signal(kind) else {
            tracing::error!(name, "this signal cannot be watched");
            continue;
        };
        let sender = sender.clone();
        tokio::spawn(async move {
            while watched.recv().await.is_some() {
                tracing::info!("{name}");
                if sender.send(meaning).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// Asks for as many descriptors as the system allows this process: each app is one, and the usual soft limit of 1024 is
/// there for programs that use `select(2)`.
fn raise_descriptor_limit() -> Option<u64> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    getrlimit(Resource::Nofile).current
}

/// Descriptors for all clients that may come and for the shared connections to the servers; 0 where any number of clients
/// may come. Connections of sessions' own are not counted: hardly ever are there as many as there may be.
fn descriptors(config: &Config) -> u64 {
    /// The process' own: listeners, runtimes, the log.
    const OWN: u64 = 64;
    let workers = match config.workers {
        Workers::Count(count) => u64::from(count.get()),
        Workers::Auto => std::thread::available_parallelism().map_or(1, usize::from) as u64,
    };
    let clients: Option<u64> =
        config.pools.iter().map(|p| Some(p.downstream.client_connections.into()).filter(|&n: &u64| n > 0)).sum();
    let servers: u64 = config
        .pools
        .iter()
        .map(|pool| match &pool.upstream.servers {
            Servers::Embedded { .. } => 0,
            Servers::Static(servers) => servers.len() as u64 * u64::from(pool.upstream.server_connections) * workers,
        })
        .sum();
    clients.map_or(0, |clients| clients + servers + OWN)
}

/// Starts the log, and the audit log beside it.
///
/// # Errors
/// The file of the audit log cannot be opened, or there can be no thread that writes.
fn start_logging(config: &Config) -> Result<(), String> {
    use std::os::unix::fs::OpenOptionsExt as _;
    use tracing::level_filters::LevelFilter;
    use tracing_subscriber::fmt;
    use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
    let level = match config.log.level {
        Level::Trace => LevelFilter::TRACE,
        Level::Debug => LevelFilter::DEBUG,
        Level::Info => LevelFilter::INFO,
        Level::Warn => LevelFilter::WARN,
        Level::Error => LevelFilter::ERROR,
        Level::Off => LevelFilter::OFF,
    };
    if config.log.audit == Audit::Off {
        audit::switch_off();
    }
    let among = if config.log.audit == Audit::Log { level.min(LevelFilter::INFO) } else { LevelFilter::OFF };
    let writer = log::start().map_err(|error| format!("the log cannot be written: {error}"))?;
    let log = fmt::layer()
        .log_internal_errors(false)
        .with_writer(writer)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal());
    let log = match config.log.format {
        Format::Text => log.boxed(),
        Format::Json => log.json().boxed(),
    };
    let writer = match &config.log.audit {
        Audit::Log | Audit::Off => None,
        Audit::Stdout => Some(audit::start(std::io::stdout())),
        Audit::File(path) => {
            // Who was denied what is not for everybody.
            let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
            let file = file.map_err(|error| format!("the audit log {} cannot be opened: {error}", path.display()))?;
            Some(audit::start(file))
        }
    };
    let writer = writer.transpose().map_err(|error| format!("the audit log cannot be written: {error}"))?;
    let audit = writer.map(|writer| {
        let lines =
            fmt::layer().log_internal_errors(false).json().flatten_event(true).with_target(false).with_level(false);
        let lines = lines.with_current_span(false).with_span_list(false).with_writer(writer);
        lines.with_filter(Sieve { level: LevelFilter::OFF, audit: LevelFilter::INFO })
    });
    let all = tracing_subscriber::registry().with(log.with_filter(Sieve { level, audit: among })).with(audit);
    // Set once; a second attempt would be a test's, which keeps the first.
    let _ = tracing::subscriber::set_global_default(all);
    // A panic in a session ends that session; it must not pass unseen.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a task panicked; please report this");
        if std::thread::current().name() == Some("main") {
            // It may take the process with it.
            log::settle(LAST_LINES);
        }
    }));
    Ok(())
}

/// Prints to standard output; a closed pipe is nobody's problem.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
    let _ = std::io::stdout().flush();
}
