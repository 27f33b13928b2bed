//! A herd at two pools, one without a lease on what is missed and one with it, side by side.

use super::Shown;
use super::crowd::{addresses, proxy};
use super::herd::{Herd, Plan, Tally};
use super::now;
use super::screen::{LOOK, Screen};
use crate::units::Millis;
use std::io;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;
use tokio::time::{MissedTickBehavior, interval};

const KEY: &str = "product:1";
/// The width of a column of numbers.
const WIDTH: usize = 18;

/// What a herd is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stampede {
    /// Apps at each of the pools.
    pub apps: usize,
    /// How long a value lives.
    pub ttl: Duration,
    /// How long it takes to load it.
    pub load: Duration,
    /// So many expiries, and it is over.
    pub expiries: usize,
    /// Every so many-th load is broken off halfway, and its app's connection with it; 0 for none.
    pub deaths: u64,
}

pub(super) fn show(what: Stampede, screen: &mut Screen<'_>) -> io::Result<Shown> {
    let proxy = proxy(&pools(what))?;
    let ended = watch(what, &addresses(&proxy), screen);
    proxy.stop()?;
    ended
}

/// The pools, the one without a lease first.
fn pools(what: Stampede) -> String {
    let pool = "{listen: '127.0.0.1:0', servers: embedded:3";
    // Long enough for a second load where the first is broken off.
    let wait = Millis::from((what.load * 3).max(Duration::from_secs(1)));
    format!(
        "admin: off\nworkers: 2\npools:\n  plain: {pool}}}\n  leased: {pool}, misses: {{lease: local, lease_wait: {wait}}}}}\n"
    )
}

fn watch(what: Stampede, addresses: &[String], screen: &mut Screen<'_>) -> io::Result<Shown> {
    let Stampede { apps, ttl, load, expiries, deaths } = what;
    writeln!(
        screen.out,
        "{apps} apps at each of two pools ask for one key. It lives {}, loading it takes {}; expiries to see: {expiries}.\n\
         No Redis: the shards are in this process. Ctrl-C ends it.\n",
        Millis::from(ttl),
        Millis::from(load),
    )?;
    // Everybody asks about once in the time that a load takes: all are there to miss the value.
    let plan = Plan { key: KEY.to_owned(), ttl, load, think: load, dies: deaths };
    let (tasks, runtime) = (LocalSet::new(), Builder::new_current_thread().enable_all().build()?);
    tasks.block_on(&runtime, async {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut herds = Vec::new();
        for address in addresses {
            herds.push(Herd::start(plan.clone(), std::slice::from_ref(address), apps).await?);
        }
        let began = now();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut early = false;
        while !early && !herds.iter().all(|herd| herd.is_over(expiries)) {
            tokio::select! {
                _ = look.tick() => {}
                _ = interrupt.recv() => early = true,
                _ = terminate.recv() => early = true,
            }
            let since = began.elapsed();
            screen.progress(since, &|| so_far(since, expiries, &herds[0].tally(), &herds[1].tally()))?;
        }
        screen.settle(early)?;
        let [plain, leased] = [&herds[0], &herds[1]].map(|herd| herd.tally().first(expiries));
        write!(screen.out, "{}", side_by_side(&plain, &leased))?;
        screen.out.flush()?;
        Ok(Shown {
            early,
            what: "a stampede: loads of the database an expiry".to_owned(),
            without: format!("{:.1}", plain.mean()),
            with: format!("{:.1}", leased.mean()),
            by: "misses: {lease: local}",
            read: "docs/misses.md",
        })
    })
}

/// No wider than a terminal is.
fn so_far(since: Duration, expiries: usize, plain: &Tally, leased: &Tally) -> String {
    let done = plain.expiries.len().min(leased.expiries.len());
    let part = |tally: &Tally| format!("{:>5} loads {:>4} waits", tally.loads(), tally.waits.len());
    format!("{:>3}s  expiry {done}/{expiries} | no lease {} | lease {}", since.as_secs(), part(plain), part(leased))
}

/// The counts of both.
fn side_by_side(plain: &Tally, leased: &Tally) -> String {
    let mut text = format!("{:<32}{:>WIDTH$}{:>WIDTH$}\n", "", "no lease", "lease: local");
    let mut row = |name: &str, of: &dyn Fn(&Tally) -> String| {
        text += &format!("{name:<32}{:>WIDTH$}{:>WIDTH$}\n", of(plain), of(leased));
    };
    row("expiries", &|tally| tally.expiries.len().to_string());
    row("loads of the database", &|tally| tally.loads().to_string());
    row("loads an expiry, mean", &|tally| format!("{:.2}", tally.mean()));
    row("loads an expiry, most", &|tally| tally.most().to_string());
    if plain.deaths + leased.deaths > 0 {
        row("loads that were broken off", &|tally| tally.deaths.to_string());
    }
    row("GETs that were answered", &|tally| tally.answers.to_string());
    row("GETs answered once it was there", &|tally| tally.waits.len().to_string());
    let longest = |tally: &Tally| tally.waits.iter().map(|wait| wait.whole).max().unwrap_or_default();
    row("the longest of these waits", &|tally| format!("{}ms", longest(tally).as_millis()));
    row("nil after a wait", &|tally| tally.late_nils.len().to_string());
    row("errors", &|tally| tally.errors.to_string());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_stand_beside_each_other() {
        let [mut plain, mut leased] = [(); 2].map(|()| Tally::default());
        (plain.expiries, leased.expiries) = (vec![10, 12], vec![1, 1]);
        let text = side_by_side(&plain, &leased);
        let row = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).expect(name);
            line[name.len()..].split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(row("loads of the database"), ["22", "2"]);
        assert_eq!(row("loads an expiry, mean"), ["11.00", "1.00"]);
        assert_eq!(row("loads an expiry, most"), ["12", "1"]);
        assert!(!text.contains("broken off"));
    }
}
