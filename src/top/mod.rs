//! `hotring top`: what a running hotring does, in a terminal, as its admin listener tells it.
//!
//! Promises: only reads. Whatever it is told is shown as text and is no command to the terminal, however keys and servers are named. The
//! terminal is left as it was found, also by a signal or a panic. While nobody answers it says so, with since when, and goes on by itself.
//!
//! Does not: keep more than the last answer; colour what matters, which is bold, too.

mod fetch;
mod view;

pub use fetch::fetch;
pub use view::{Screen, View, text};

use crate::admin::status::Status;
use crate::units::{Address, Secret};
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// How often keys, news and signals are looked for.
const LOOK: Duration = Duration::from_millis(50);

/// An answer, or why there is none.
type News = Result<Box<Status>, String>;

/// What is told once, for pipes.
///
/// # Errors
/// Where nobody answers, or what answers is no hotring of this version.
pub fn once(admin: &Address, token: Option<&Secret>) -> Result<String, String> {
    fetch(admin, token).map(|status| text(&status)).map_err(|why| view::clean(&why))
}

/// Shows it until it is ended.
///
/// # Errors
/// Where the terminal cannot be used.
pub fn watch(admin: Address, token: Option<Secret>, interval: Duration) -> io::Result<()> {
    let ended = Arc::new(AtomicBool::new(false));
    watch_signals(&ended)?;
    let (sender, news) = mpsc::sync_channel(1);
    let at = admin.clone();
    std::thread::Builder::new().name("fetch".into()).spawn(move || {
        loop {
            if sender.send(fetch(&at, token.as_ref())).is_err() {
                return;
            }
            std::thread::sleep(interval);
        }
    })?;
    // Puts a hook before panics that leaves the terminal as it was.
    let mut terminal = ratatui::try_init()?;
    let done = show(&mut terminal, &mut Screen::new(admin.to_string(), now()), &news, &ended);
    ratatui::try_restore()?;
    done
}

fn show(
    terminal: &mut ratatui::DefaultTerminal,
    screen: &mut Screen,
    news: &mpsc::Receiver<News>,
    ended: &AtomicBool,
) -> io::Result<()> {
    let mut drawn = None;
    while !ended.load(Ordering::Relaxed) && !screen.is_over() {
        let mut changed = false;
        while let Ok(told) = news.try_recv() {
            screen.take(told, now());
            changed = true;
        }
        // Seconds since the last answer go on.
        if changed || drawn.is_none_or(|at: Instant| at.elapsed() >= Duration::from_secs(1)) {
            let at = now();
            terminal.draw(|frame| screen.draw(frame, at))?;
            drawn = Some(at);
        }
        if event::poll(LOOK)? {
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => screen.press(key),
                _ => {}
            }
            drawn = None;
        }
    }
    Ok(())
}

fn watch_signals(ended: &Arc<AtomicBool>) -> io::Result<()> {
    let (ended, runtime) = (Arc::clone(ended), Builder::new_current_thread().enable_all().build()?);
    // Before the terminal is changed: a signal that nobody watches would leave it so.
    let (watching, is_watching) = mpsc::sync_channel(1);
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
            let _ = watching.send(());
            let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = kinds else { return };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            ended.store(true, Ordering::Relaxed);
        });
    })?;
    let _ = is_watching.recv();
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "who watches has a clock")]
fn now() -> Instant {
    Instant::now()
}
