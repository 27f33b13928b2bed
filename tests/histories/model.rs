//! What a history consists of: what apps did and were answered, and what the shards did, in their order.

use crate::support::now;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Nanoseconds since the clock of the history began.
pub(crate) type Nanos = u64;

/// One clock for all apps, and for what servers on this machine tell by the wall.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    began: Instant,
    /// What the wall said then, in microseconds.
    wall: u64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
        Self { began: now(), wall }
    }

    pub(crate) fn now(&self) -> Nanos {
        self.began.elapsed().as_nanos() as u64
    }

    /// From microseconds by the wall.
    pub(crate) fn at_wall(&self, micros: u64) -> Nanos {
        micros.saturating_sub(self.wall) * 1000
    }
}

/// What is remembered of a value, or of that there was none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Print(u64);

impl Print {
    pub(crate) const ABSENT: Self = Self(0);

    pub(crate) fn of(value: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        Self(hasher.finish() | 1)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Get,
    Set,
    Incr,
    Del,
    GetDel,
    Append,
}

impl Kind {
    pub(crate) const ALL: [(&str, Self); 6] = [
        ("get", Self::Get),
        ("set", Self::Set),
        ("incr", Self::Incr),
        ("del", Self::Del),
        ("getdel", Self::GetDel),
        ("append", Self::Append),
    ];

    /// Whether no other operation of the history has its argument.
    pub(crate) fn is_unique(self) -> bool {
        matches!(self, Self::Set | Self::Append)
    }
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Said {
    /// None came: it may have been done or not.
    Nothing,
    /// An error, which tells nothing here.
    Error,
    Ok,
    Number(i64),
    Value(Print),
}

/// Something an app did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Op {
    /// The hotring it went through.
    pub(crate) process: u16,
    pub(crate) key: u16,
    pub(crate) kind: Kind,
    /// What was written.
    pub(crate) argument: Print,
    /// Before it was sent, and after the answer was read.
    pub(crate) start: Nanos,
    pub(crate) end: Nanos,
    pub(crate) said: Said,
}

/// A write as its shard did it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) argument: Print,
    pub(crate) at: Nanos,
    /// The key's value afterwards.
    pub(crate) state: Print,
    /// What must have been answered.
    pub(crate) said: Said,
}

/// The writes of a key in the order of its shard.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) entries: Vec<Entry>,
    /// Reads that its shard answered.
    pub(crate) reads: u64,
    value: Option<Vec<u8>>,
}

impl Log {
    /// The next thing that was done with the key.
    pub(crate) fn push(&mut self, kind: Kind, argument: &[u8], at: Nanos) {
        let before = self.value.as_deref().map_or(Print::ABSENT, Print::of);
        let said = match kind {
            Kind::Get => {
                self.reads += 1;
                return;
            }
            Kind::Set => {
                self.value = Some(argument.to_vec());
                Said::Ok
            }
            Kind::Incr => {
                let text = std::str::from_utf8(self.value.as_deref().unwrap_or(b"0")).unwrap_or("");
                match text.parse::<i64>().ok().and_then(|number| number.checked_add(1)) {
                    Some(number) => {
                        self.value = Some(number.to_string().into_bytes());
                        Said::Number(number)
                    }
                    None => Said::Error,
                }
            }
            Kind::Del => Said::Number(i64::from(self.value.take().is_some())),
            Kind::GetDel => {
                self.value = None;
                Said::Value(before)
            }
            Kind::Append => {
                let value = self.value.get_or_insert_default();
                value.extend_from_slice(argument);
                Said::Number(value.len() as i64)
            }
        };
        let state = self.value.as_deref().map_or(Print::ABSENT, Print::of);
        self.entries.push(Entry { kind, argument: Print::of(argument), at, state, said });
    }
}

/// All that happened. Keys are absent at first.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// What each app did, in its order; what it pipelined begins at the same time.
    pub(crate) apps: Vec<Vec<Op>>,
    /// By key.
    pub(crate) logs: Vec<Log>,
}
