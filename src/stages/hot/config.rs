//! What a pool wants done with its hot keys.

use crate::stages::Micros;
use std::fmt;
use std::str::FromStr;

/// Where reads of a hot key may be served from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reads {
    /// From its own shard only, as any key's.
    #[default]
    Off,
    /// The same; what [`Reads::Auto`] would do is worked out and counted.
    Observe,
    /// From wherever it is best for that key.
    Auto,
    /// From this process' memory.
    Near,
    /// From replicas of its shard.
    Replicas,
    /// From copies on other shards.
    Copies,
}

impl Reads {
    /// Every word, in the order in which they are told.
    pub const ALL: [(&str, Self); 6] = [
        ("off", Self::Off),
        ("observe", Self::Observe),
        ("auto", Self::Auto),
        ("near", Self::Near),
        ("replicas", Self::Replicas),
        ("copies", Self::Copies),
    ];

    /// Whether an answer may come from elsewhere than the key's shard.
    #[must_use]
    pub fn serves(self) -> bool {
        !matches!(self, Self::Off | Self::Observe)
    }
}

impl FromStr for Reads {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.iter().find(|(word, _)| *word == text).map(|&(_, reads)| reads).ok_or(())
    }
}

impl fmt::Display for Reads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::ALL.iter().find(|(_, reads)| reads == self).map_or("", |(word, _)| word))
    }
}

/// Keys that begin so, and what is wanted for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// How they begin.
    pub prefix: Box<[u8]>,
    /// Where their reads may be served from.
    pub reads: Reads,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where reads of hot keys may be served from, where no rule says otherwise.
    pub reads: Reads,
    /// What is wanted for keys that begin so; of several the longest counts.
    pub rules: Vec<Rule>,
    /// How much one key may add to its shard's fair share of the load, in thousandths of that share.
    pub extra_load: u32,
    /// How old an answer may be that does not come from the key's shard, in microseconds.
    pub staleness: Micros,
    /// At how many shards a key is at most, its own with them.
    pub most_copies: u16,
    /// Bytes that each worker keeps of hot keys.
    pub near_memory: usize,
    /// Longest value that is kept in memory, in bytes.
    pub longest_near: usize,
    /// Whether every key whose reads may be served from memory is, hot or not.
    pub near_all: bool,
    /// Whether what this process sets is kept, too, though the shard will not tell of the next change of it: until it is read
    /// again, `staleness` later at most.
    pub keep_writes: bool,
    /// Longest value that is copied to other shards, in bytes.
    pub longest_copy: usize,
    /// Whether a session reads a copy always at the same shard.
    pub sticky: bool,
    /// Whether a write is answered only when the copies that this process knows of are gone.
    pub wait_for_copies: bool,
    /// Whether scripts may change keys that they do not declare.
    pub any_script: bool,
    /// Of how many answers that came from elsewhere one is compared with the key's shard; 0 for none.
    pub audit: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            reads: Reads::Off,
            rules: Vec::new(),
            extra_load: 250,
            staleness: 1_000_000,
            most_copies: 16,
            near_memory: 16 << 20,
            longest_near: 64 << 10,
            near_all: false,
            keep_writes: false,
            longest_copy: 1 << 20,
            sticky: false,
            wait_for_copies: false,
            any_script: true,
            audit: 0,
        }
    }
}

impl Config {
    /// Where reads of a key may be served from once it is hot.
    #[must_use]
    pub fn reads_of(&self, key: &[u8]) -> Reads {
        let fitting = self.rules.iter().filter(|rule| key.starts_with(&rule.prefix));
        fitting.max_by_key(|rule| rule.prefix.len()).map_or(self.reads, |rule| rule.reads)
    }

    /// Whether any answer may come from elsewhere than a key's shard.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.reads.serves() || self.rules.iter().any(|rule| rule.reads.serves())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_beginning_counts() {
        let rule = |prefix: &[u8], reads| Rule { prefix: prefix.into(), reads };
        let rules = vec![rule(b"a", Reads::Near), rule(b"a:lock:", Reads::Off)];
        let config = Config { rules, ..Config::default() };
        assert_eq!(config.reads_of(b"a:1"), Reads::Near);
        assert_eq!(config.reads_of(b"a:lock:1"), Reads::Off);
        assert_eq!(config.reads_of(b"b"), Reads::Off);
        assert!(config.serves() && !Config::default().serves());
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for (word, reads) in Reads::ALL {
            assert_eq!((word.parse(), reads.to_string().as_str()), (Ok(reads), word));
        }
    }
}
