//! What hotring does, to be watched: apps that are not there work against a proxy that is, and both are counted.
//!
//! Promises: needs no Redis and no file, listens on free ports of 127.0.0.1 only, and leaves nothing behind. What it counts is what
//! the apps were told, not what the proxy says of itself.
//!
//! Does not: measure how fast anything is, since apps, proxy and shards are one process. `benches/misses.rs` has its apps from here,
//! with everything else in processes of its own.

mod app;
mod connections;
mod crowd;
mod herd;
mod hot_key;
mod screen;
mod stampede;

pub use app::{Answer, App};
pub use connections::{Connections, DESCRIPTORS};
pub use herd::{Herd, Plan, Tally, Wait};
pub use hot_key::HotKey;
pub use stampede::Stampede;

use screen::Screen;
use std::io::{self, Write};
use std::time::Instant;

/// Something that is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A key that is read more than its server can bear.
    HotKey(HotKey),
    /// A key that expires while many read it.
    Stampede(Stampede),
    /// Many apps, few connections.
    Connections(Connections),
}

/// What was shown, in a row.
struct Shown {
    /// It was ended before its end.
    early: bool,
    what: String,
    without: String,
    with: String,
    by: &'static str,
    read: &'static str,
}

/// Shows these, one after the other: what happens while it does, what came of it, and at last, of several, what came of all. With
/// `redraw` progress is one line that changes, as a terminal can show it. SIGINT and SIGTERM end it early.
///
/// # Errors
/// Where the system refuses what it takes: a thread, a port, a connection. That nobody reads what it writes is no error, and ends it.
pub fn play(parts: &[Part], out: &mut dyn Write, redraw: bool) -> io::Result<()> {
    match play_all(parts, out, redraw) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn play_all(parts: &[Part], out: &mut dyn Write, redraw: bool) -> io::Result<()> {
    let mut all = Vec::new();
    for (part, number) in parts.iter().zip(1..) {
        let mut screen = Screen::new(out, redraw);
        if parts.len() > 1 {
            writeln!(screen.out, "{number} of {}\n", parts.len())?;
        }
        let shown = match *part {
            Part::HotKey(what) => hot_key::show(what, &mut screen)?,
            Part::Stampede(what) => stampede::show(what, &mut screen)?,
            Part::Connections(what) => connections::show(what, &mut screen)?,
        };
        let early = shown.early;
        all.push(shown);
        if early {
            break;
        }
        if parts.len() > 1 {
            writeln!(out)?;
        }
    }
    if parts.len() > 1 && all.len() == parts.len() {
        out.write_all(summary(&all).as_bytes())?;
    }
    out.flush()
}

/// A row for each.
fn summary(all: &[Shown]) -> String {
    let mut text = format!("{:<50}{:>9}{:>9}  {:<24}{}\n", "All of it", "without", "with", "by", "more in");
    for Shown { what, without, with, by, read, .. } in all {
        text += &format!("{what:<50}{without:>9}{with:>9}  {by:<24}{read}\n");
    }
    text
}

#[expect(clippy::disallowed_methods, reason = "apps have a clock")]
fn now() -> Instant {
    Instant::now()
}
