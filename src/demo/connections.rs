//! Many apps, each connected to all servers, and then to a proxy that is.

use super::Shown;
use super::crowd::{Crowd, Habit, Servers, Since, addresses, listed, proxy};
use super::screen::{LOOK, Screen};
use std::io;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;
use tokio::time::interval;

/// Servers.
const SERVERS: usize = 3;
const THINK: Duration = Duration::from_millis(250);
const WIDTH: usize = 18;
/// Descriptors that an app takes in this process, where it is connected to all servers: both ends of each connection.
pub const DESCRIPTORS: u64 = 2 * SERVERS as u64;

/// What is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// Apps.
    pub apps: usize,
    /// For how long is counted, once all are connected.
    pub time: Duration,
}

/// What came of one way to connect them.
#[derive(Default)]
struct Way {
    connected: usize,
    at_servers: u64,
    at_one: u64,
    answers: f64,
    errors: u64,
    early: bool,
}

pub(super) fn show(what: Connections, screen: &mut Screen<'_>) -> io::Result<Shown> {
    let Connections { apps, .. } = what;
    writeln!(
        screen.out,
        "{apps} apps read keys that {SERVERS} servers have: connected to the servers first, to a proxy then. All is in this process. \
         Ctrl-C ends it.\n"
    )?;
    let servers = Servers::start(SERVERS)?;
    let direct = watch(what, "no proxy", &servers.addresses(), &servers, screen)?;
    servers.stop()?;
    let mut proxied = Way { early: true, ..Way::default() };
    if !direct.early {
        let servers = Servers::start(SERVERS)?;
        let listed = listed(&servers.addresses());
        let proxy = proxy(&format!("admin: off\npools:\n  main: {{listen: '127.0.0.1:0', servers: {listed}}}\n"))?;
        let done = watch(what, "hotring", &addresses(&proxy), &servers, screen);
        proxy.stop()?;
        servers.stop()?;
        proxied = done?;
    }
    screen.settle(proxied.early)?;
    write!(screen.out, "{}", side_by_side(&direct, &proxied))?;
    screen.out.flush()?;
    Ok(Shown {
        early: proxied.early,
        what: format!("{apps} apps: connections that {SERVERS} servers have"),
        without: direct.at_servers.to_string(),
        with: proxied.at_servers.to_string(),
        by: "a hotring before them",
        read: "README.md",
    })
}

fn watch(what: Connections, name: &str, at: &[String], servers: &Servers, screen: &mut Screen<'_>) -> io::Result<Way> {
    let (tasks, runtime) = (LocalSet::new(), Builder::new_current_thread().enable_all().build()?);
    tasks.block_on(&runtime, async {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let crowd = Crowd::start(at, what.apps, Habit { think: THINK, hot: 0 }).await?;
        let (began, mut look, mut way) = (Since::now(), interval(LOOK), Way::default());
        let mut first = None;
        while !way.early {
            tokio::select! {
                _ = look.tick() => {}
                _ = interrupt.recv() => way.early = true,
                _ = terminate.recv() => way.early = true,
            }
            let (since, counts, connections) = (began.time(), crowd.counts().clone(), servers.connections());
            (way.connected, way.errors) = (counts.ready, counts.errors);
            (way.at_servers, way.at_one) = (connections.iter().sum(), connections.into_iter().max().unwrap_or(0));
            if counts.ready == what.apps {
                let (from, before) = *first.get_or_insert((since, counts.answers));
                way.answers = (counts.answers - before) as f64 / (since - from).as_secs_f64().max(1e-3);
                if since - from >= what.time {
                    break;
                }
            }
            screen.progress(since, &|| {
                let Way { connected, at_servers, answers, .. } = way;
                format!("{:>3}s  {name:<8} | {connected:>5} apps | {at_servers:>5} connections at the servers | {answers:>6.0} GET/s", since.as_secs())
            })?;
        }
        Ok(way)
    })
}

fn side_by_side(direct: &Way, proxied: &Way) -> String {
    let mut text = format!("{:<32}{:>WIDTH$}{:>WIDTH$}\n", "", "no proxy", "hotring");
    let mut row = |name: &str, of: &dyn Fn(&Way) -> String| {
        text += &format!("{name:<32}{:>WIDTH$}{:>WIDTH$}\n", of(direct), of(proxied));
    };
    row("apps connected", &|way| way.connected.to_string());
    row("connections at the servers", &|way| way.at_servers.to_string());
    row("connections at one, most", &|way| way.at_one.to_string());
    row("GETs answered a second", &|way| format!("{:.0}", way.answers));
    row("errors", &|way| way.errors.to_string());
    text
}
