//! `hotring bench`: what a proxy costs on the user's own machine, beside a connection that goes straight to a server.
//!
//! A machine that others use, too, is slower now and faster then. So both sides are measured in turns, in rounds of a few seconds, and
//! compared within a round; what is told is the median of the rounds and how far they lie apart.
//!
//! Promises: reads and writes no key but its own ([`PREFIX`] and a number drawn for the run), flushes nothing, and deletes its keys at
//! the end, also when it is interrupted or fails; those that it cannot delete expire. Nothing that it tells is the proxy's word, but for
//! the number of its process.
//!
//! Does not: drive more than some hundred thousand requests a second from a thread; it says when it, and not what it measures, was
//! what limited them. `benches/side_by_side.py` compares proxies with each other.

mod keys;
mod load;
mod report;
mod side;

pub use load::{Load, Until, Workload};
pub use report::{Report, Round, Spread};
pub use side::{Auth, Side};

use crate::chance::splitmix;
use crate::config;
use crate::proxy::Proxy;
use crate::units::Millis;
use keys::Keys;
use load::{Drawn, Measured, measure};
use side::Facts;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How all keys begin.
pub const PREFIX: &str = "hotring-bench:";
/// How long deleting the keys may take once there is nothing else left to do.
const CLEANING: Duration = Duration::from_secs(30);
/// A measurement that is thrown away goes before the first round, no longer than this: who was just started is slow.
const WARMING: Duration = Duration::from_millis(500);
/// What a process ends with that SIGINT has ended.
const INTERRUPTED: i32 = 130;

/// What is to be compared.
#[derive(Debug, Clone)]
pub struct Bench {
    /// A server.
    pub direct: Option<Side>,
    /// A proxy before it. Without one there is one in this process: before `direct`, or before embedded nodes.
    pub proxy: Option<Side>,
    /// What is asked.
    pub load: Load,
    /// How often.
    pub rounds: u16,
}

/// Measures. What goes on is written to `out`, a line each.
///
/// # Errors
/// Where a side cannot be reached, refuses all that is asked or stops answering, or the system refuses a thread.
pub fn run(what: Bench, out: &mut dyn Write) -> io::Result<Report> {
    let stop = CancellationToken::new();
    watch(&stop)?;
    let Bench { direct, proxy, load, rounds } = what;
    let inside = if proxy.is_some() { None } else { Some(inside(direct.as_ref())?) };
    let proxy = match (&inside, proxy) {
        (Some(inside), _) => Side::to(inside.addresses().into_iter().next().map(|(_, at)| at).unwrap_or_default()),
        (None, proxy) => proxy.ok_or(io::ErrorKind::InvalidInput)?,
    };
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut report = Report::new(load, inside.is_some());
    let mut sides = Vec::new();
    for (name, side) in [("direct", direct), ("proxy", Some(proxy))] {
        let Some(side) = side else { continue };
        let facts = runtime.block_on(side.facts()).map_err(|error| of(name, &side, &error))?;
        sides.push(Measuring { name, side, facts });
    }
    let own = format!("{PREFIX}{:08x}:", RandomState::new().hash_one(std::process::id()) as u32);
    let keys = Arc::new(Keys::new(own, load, rounds));
    out.write_all(told(&sides, &load, rounds, &keys, inside.is_some()).as_bytes())?;
    let done = rounds_of(&sides, load, rounds, &keys, &runtime, &stop, &mut report, out);
    for Measuring { name, side, .. } in &sides {
        let cleaning = async { tokio::time::timeout(CLEANING, keys.delete(side)).await };
        if let Err(error) = runtime.block_on(cleaning).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            let text =
                format!("keys that begin with {} are left on the {name} side, until they expire: {error}", keys.own());
            report.warnings.push(text);
        }
    }
    if let Some(inside) = inside {
        inside.stop()?;
    }
    report.early = stop.is_cancelled();
    // What was measured until then is worth its while.
    done.map(|()| report)
}

struct Measuring {
    name: &'static str,
    side: Side,
    facts: Facts,
}

#[expect(clippy::too_many_arguments, reason = "the parts of one run")]
fn rounds_of(
    sides: &[Measuring],
    load: Load,
    rounds: u16,
    keys: &Arc<Keys>,
    runtime: &Runtime,
    stop: &CancellationToken,
    report: &mut Report,
    out: &mut dyn Write,
) -> io::Result<()> {
    for Measuring { name, side, .. } in sides {
        let filling = async {
            tokio::select! {
                done = keys.fill(side) => done,
                () = stop.cancelled() => Ok(()),
            }
        };
        runtime.block_on(filling).map_err(|error| of(name, side, &error))?;
    }
    let run = |measuring: &Measuring, load: Load, seed: u64| -> io::Result<Option<Measured>> {
        let before = measuring.facts.cpu();
        let drawn = Drawn { keys, seed };
        let mut measured = measure(&measuring.side, load, &drawn, stop)
            .map_err(|error| of(measuring.name, &measuring.side, &error))?;
        if let (Some(measured), Some(before), Some(after)) = (&mut measured, before, measuring.facts.cpu()) {
            // A proxy in this process has its CPU from the same account as who asks it.
            let own = if measuring.facts.is_own() { measured.own_cpu } else { Duration::ZERO };
            measured.cpu = Some(after.saturating_sub(before).saturating_sub(own));
        }
        Ok(measured)
    };
    for measuring in sides {
        let warm = match load.until {
            Until::Time(time) => Until::Time(time.min(WARMING)),
            Until::Requests(count) => Until::Requests((count / 4).max(1)),
        };
        run(measuring, Load { until: warm, ..load }, 0)?;
    }
    for number in 1..=rounds {
        let mut round = Round::default();
        // Whoever comes first has the same place as often as the other.
        let turns: Vec<&Measuring> =
            if number % 2 == 1 { sides.iter().collect() } else { sides.iter().rev().collect() };
        for measuring in turns {
            let Some(measured) = run(measuring, load, splitmix(number.into()))? else { return Ok(()) };
            if measured.errors == measured.requests {
                let why = measured.error.unwrap_or_default();
                return Err(of(measuring.name, &measuring.side, &io::Error::other(format!("only errors: {why}"))));
            }
            match measuring.name {
                "direct" => round.direct = Some(measured),
                _ => round.proxy = Some(measured),
            }
        }
        writeln!(out, "round {number}/{rounds}: {}", round.told())?;
        out.flush()?;
        report.rounds.push(round);
    }
    Ok(())
}

fn of(name: &str, side: &Side, error: &io::Error) -> io::Error {
    // Of no kind: who cannot be told what goes on is known by that.
    io::Error::other(format!("{name} {}: {error}", side.at()))
}

/// What is about to be done, and where.
fn told(sides: &[Measuring], load: &Load, rounds: u16, keys: &Keys, inside: bool) -> String {
    let mut text = String::from("hotring bench\n");
    for Measuring { name, side, facts } in sides {
        let what = match (*name, inside, sides.len()) {
            ("proxy", true, 1) => {
                "hotring in this process, before three embedded nodes (no --direct, no --proxy)".to_owned()
            }
            ("proxy", true, _) => "hotring in this process, before the server above (no --proxy)".to_owned(),
            _ => facts.told(),
        };
        text += &format!("  {name:<8}{:<24} {what}\n", side.at());
    }
    let until = match load.until {
        Until::Time(time) => Millis::from(time).to_string(),
        Until::Requests(count) => format!("{count} requests"),
    };
    let each = if sides.len() == 2 { " a side, in turns" } else { "" };
    text += &format!(
        "  load    {}: {} clients on {} thread{}, pipeline {}, values of {} bytes; {rounds} rounds of {until}{each}\n",
        load.workload.name(),
        load.clients,
        load.threads,
        if load.threads == 1 { "" } else { "s" },
        load.pipeline,
        load.size,
    );
    let megabytes = keys.bytes() as f64 / 1e6;
    text += &format!(
        "  keys    {0}0 to {0}{1}, {megabytes:.1} MB a side: written first, deleted at the end; no other key is touched\n\n",
        keys.own(),
        load.keys.saturating_sub(1),
    );
    text
}

/// A proxy in this process, on a port of its own.
fn inside(direct: Option<&Side>) -> io::Result<Proxy> {
    // What is valid JSON is valid YAML.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut pool = "{listen: '127.0.0.1:0', ".to_owned();
    match direct {
        None => pool += "servers: 'embedded:3'",
        Some(side) => {
            pool += &format!("servers: [{}]", quoted(&format!("{}:1 direct", side.at())));
            if let Some(Auth { user, password }) = side.auth() {
                let user = user.as_ref().map(|user| format!("user: {}, ", quoted(user))).unwrap_or_default();
                pool += &format!(", server_auth: {{{user}password: {}}}", quoted(password.expose()));
            }
        }
    }
    let text = format!("admin: off\npools:\n  bench: {pool}}}\n");
    let wrong = |problems: config::Problems| io::Error::other(problems.to_string());
    let config = config::parse(&text, Path::new("bench")).map_err(wrong)?;
    Proxy::start(config).map_err(|error| io::Error::other(error.to_string()))
}

/// Has the first SIGINT or SIGTERM end it in order, and the second at once.
fn watch(stop: &CancellationToken) -> io::Result<()> {
    let (stop, runtime) = (stop.clone(), Builder::new_current_thread().enable_all().build()?);
    let (watching, is_watching) = mpsc::sync_channel(1);
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            let (interrupt, terminate) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
            let _ = watching.send(());
            let (Ok(mut interrupt), Ok(mut terminate)) = (interrupt, terminate) else { return };
            for _ in 0..2 {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if stop.is_cancelled() {
                    std::process::exit(INTERRUPTED);
                }
                stop.cancel();
            }
        });
    })?;
    let _ = is_watching.recv();
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "who measures has a clock")]
fn now() -> Instant {
    Instant::now()
}
