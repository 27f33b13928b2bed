//! `hotring demo`: its options.

use super::{BAD, Outcome, SYSTEM, raise_descriptor_limit, say};
use crate::demo::{Connections, DESCRIPTORS, HotKey, Part, Stampede, play};
use crate::units::Millis;
use clap::{Subcommand, value_parser};
use std::io::IsTerminal as _;
use std::time::Duration;

/// Descriptors of the process' own.
const OWN: u64 = 200;

#[derive(Subcommand)]
pub(super) enum Demo {
    /// One key is read far more than others: side by side what the servers notice without and with `reads: auto`
    HotKey {
        /// Apps at each of the two pools
        #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = value_parser!(u16).range(1..=5_000))]
        apps: u16,
        /// For how long is counted, once the key could be found
        #[arg(long, value_name = "TIME", default_value = "4s")]
        time: Millis,
    },
    /// Many apps miss one key at once, again and again: side by side what the database notices without and with a lease
    Stampede {
        /// So many expiries of the key, and it is over
        #[arg(long, value_name = "COUNT", default_value_t = 6, value_parser = value_parser!(u16).range(1..))]
        expiries: u16,
        /// Apps at each of the two pools
        #[arg(long, value_name = "COUNT", default_value_t = 200, value_parser = value_parser!(u16).range(1..=10_000))]
        apps: u16,
        /// How long a value lives; at least four times as long as it takes to load it
        #[arg(long, value_name = "TIME", default_value = "1s")]
        ttl: Millis,
        /// How long the database takes for a load
        #[arg(long, value_name = "TIME", default_value = "100ms")]
        load: Millis,
        /// Every so many-th load is broken off halfway, and the connection of its app with it; 0 for none
        #[arg(long, value_name = "COUNT", default_value_t = 0)]
        deaths: u16,
    },
    /// Many apps connect to all servers, and then to a proxy that does: what connections the servers have
    Connections {
        /// Apps
        #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = value_parser!(u16).range(1..=10_000))]
        apps: u16,
        /// For how long is counted, once all are connected
        #[arg(long, value_name = "TIME", default_value = "3s")]
        time: Millis,
    },
}

pub(super) fn demo(what: Option<&Demo>) -> Outcome {
    let limit = raise_descriptor_limit();
    let parts = match what {
        Some(&Demo::HotKey { apps, time }) => vec![Part::HotKey(HotKey { apps: apps.into(), time: time.into() })],
        Some(&Demo::Stampede { expiries, apps, ttl, load, deaths }) => {
            let (ttl, load) = (Duration::from(ttl), Duration::from(load));
            if load < Duration::from_millis(1) || ttl / 4 < load {
                return Err((BAD, "--load must be at least 1ms, and --ttl at least four times as long".to_owned()));
            }
            let (expiries, apps, deaths) = (usize::from(expiries), usize::from(apps), u64::from(deaths));
            vec![Part::Stampede(Stampede { apps, ttl, load, expiries, deaths })]
        }
        Some(&Demo::Connections { apps, time }) => vec![connections(apps, time.into(), limit)],
        None => {
            say(
                "What hotring does, in less than a minute: a hot key, a stampede, and many connections. Nothing is needed for it.\n\n",
            );
            let (ttl, load) = (Duration::from_secs(1), Duration::from_millis(100));
            vec![
                Part::HotKey(HotKey { apps: 100, time: Duration::from_secs(4) }),
                Part::Stampede(Stampede { apps: 200, ttl, load, expiries: 6, deaths: 0 }),
                connections(1_000, Duration::from_secs(3), limit),
            ]
        }
    };
    let mut out = std::io::stdout();
    let redraw = out.is_terminal();
    play(&parts, &mut out, redraw).map_err(|error| (SYSTEM, format!("hotring: {error}")))
}

/// With no more apps than there are descriptors for.
fn connections(apps: u16, time: Duration, limit: Option<u64>) -> Part {
    let most = limit.map_or(u64::MAX, |limit| limit.saturating_sub(OWN) / DESCRIPTORS).max(1);
    if u64::from(apps) > most {
        say(&format!("This process may have so few open files that there are {most} apps only, and not {apps}.\n"));
    }
    let apps = usize::try_from(most).unwrap_or(usize::MAX).min(apps.into());
    Part::Connections(Connections { apps, time })
}
