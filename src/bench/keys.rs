//! The keys of a run: written before it, deleted after it.

use super::load::{Load, Until};
use super::side::Side;
use crate::demo::App;
use std::io;

/// So many requests are on their way at once.
const BATCH: u32 = 200;
/// Keys that nobody deletes, since the process was killed, expire so many seconds after they should have been deleted.
const LEFT: u64 = 3600;

/// The keys.
pub(super) struct Keys {
    own: String,
    count: u32,
    value: Vec<u8>,
    ttl: String,
}

impl Keys {
    /// Those that begin so, for so many rounds.
    pub(super) fn new(own: String, load: Load, rounds: u16) -> Self {
        let each = match load.until {
            Until::Time(time) => time.as_secs() + 1,
            // Nobody knows how long they take; hardly a millisecond each.
            Until::Requests(count) => count / 1000 + 1,
        };
        let ttl = (LEFT + 2 * each.saturating_mul(u64::from(rounds) + 1)).to_string();
        Self { own, count: load.keys, value: vec![b'x'; load.size as usize], ttl }
    }

    /// How they begin.
    pub(super) fn own(&self) -> &str {
        &self.own
    }

    /// What they take on one side, about.
    pub(super) fn bytes(&self) -> u64 {
        // What a server keeps beside a key and its value is about as much for a short one.
        u64::from(self.count) * (self.value.len() as u64 + self.own.len() as u64 + 64)
    }

    /// The name of one of them.
    pub(super) fn name(&self, number: u64, name: &mut Vec<u8>) {
        name.clear();
        name.extend_from_slice(self.own.as_bytes());
        let number = number % u64::from(self.count.max(1));
        name.extend_from_slice(number.to_string().as_bytes());
    }

    /// Adds a write of this one.
    pub(super) fn add_set(&self, app: &mut App, name: &[u8]) {
        app.add(&[b"SET", name, &self.value, b"EX", self.ttl.as_bytes()]);
    }

    /// Writes all.
    pub(super) async fn fill(&self, side: &Side) -> io::Result<()> {
        self.each(side, &mut |app, name| self.add_set(app, name)).await
    }

    /// Deletes all.
    pub(super) async fn delete(&self, side: &Side) -> io::Result<()> {
        self.each(side, &mut |app, name| app.add(&[b"DEL", name])).await
    }

    async fn each(&self, side: &Side, add: &mut dyn FnMut(&mut App, &[u8])) -> io::Result<()> {
        let (mut app, mut name) = (side.connect().await?, Vec::new());
        let mut next = 0;
        while next < self.count {
            let end = next.saturating_add(BATCH).min(self.count);
            for number in next..end {
                self.name(number.into(), &mut name);
                add(&mut app, &name);
            }
            app.flush().await?;
            for _ in next..end {
                let reply = app.reply().await?;
                if let [b'-', text @ ..] = reply {
                    return Err(io::Error::other(String::from_utf8_lossy(text).trim_end().to_owned()));
                }
            }
            next = end;
        }
        Ok(())
    }
}
