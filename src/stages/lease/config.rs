//! What a pool wants done when its keys are not there.

use super::absent::Ids;
use crate::stages::Micros;
use std::fmt;
use std::str::FromStr;

/// Who is told of a key that is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lease {
    /// Everybody who asks.
    #[default]
    Off,
    /// The same; what [`Lease::Local`] would save is counted.
    Observe,
    /// One client of this process, while the others wait for the value.
    Local,
    /// One client of all processes.
    Fleet,
}

impl Lease {
    /// Every word, in the order in which they are told.
    pub const ALL: [(&str, Self); 4] =
        [("off", Self::Off), ("observe", Self::Observe), ("local", Self::Local), ("fleet", Self::Fleet)];

    /// Whether anybody may wait.
    #[must_use]
    pub fn holds(self) -> bool {
        matches!(self, Self::Local | Self::Fleet)
    }
}

impl FromStr for Lease {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.iter().find(|(word, _)| *word == text).map(|&(_, lease)| lease).ok_or(())
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::ALL.iter().find(|(_, lease)| lease == self).map_or("", |(word, _)| word))
    }
}

/// What is wanted for some keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Who is told of a key that is not there.
    pub lease: Lease,
    /// The longest that a reader waits for the value.
    pub longest_wait: Micros,
    /// The longest that the one who loads is waited for.
    pub longest_term: Micros,
    /// Whether a connection that is loading a key waits as others do when it asks for it again.
    pub same_connection_waits: bool,
    /// Whether one client is told shortly before a key expires that it is not there.
    pub cache_aside: bool,
    /// For how long after a key has expired those who would wait for it may be told what it had, in microseconds; 0 is not at all.
    pub stale: Micros,
    /// Whether what a connection loaded is not written where somebody else has written or deleted the key meanwhile.
    pub guards: bool,
    /// By how much times to live are shortened at most, in thousandths of them; 0 is not at all.
    pub ttl_jitter: u16,
    /// How many requests a second may be told that a key is not there.
    pub miss_budget: Option<u32>,
    /// The ids that exist, behind the prefix. Never of a pool's own keys, which have no prefix.
    pub absent_ids: Option<Ids>,
    /// What a GET gets of an id that does not; `None` is nil.
    pub absent_reply: Option<Box<str>>,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            lease: Lease::Off,
            longest_wait: 1_000_000,
            longest_term: 10_000_000,
            same_connection_waits: false,
            cache_aside: false,
            stale: 0,
            guards: false,
            ttl_jitter: 0,
            miss_budget: None,
            absent_ids: None,
            absent_reply: None,
        }
    }
}

/// Keys that begin so, and all that is wanted for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// How they begin.
    pub prefix: Box<[u8]>,
    /// What is wanted.
    pub wanted: Wanted,
}

/// See the module. Never changed, only made anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    all: Wanted,
    /// By their prefixes.
    rules: Vec<Rule>,
    /// For each rule the one with the longest prefix that its own begins with.
    above: Vec<Option<usize>>,
    leases: bool,
    refreshes: bool,
    stale: bool,
    guards: bool,
    jitters: bool,
    budgets: bool,
    filters: bool,
}

impl Config {
    /// What is wanted for all keys, and in its place for those that begin in some way. Of equal prefixes one counts.
    #[must_use]
    pub fn new(all: Wanted, mut rules: Vec<Rule>) -> Self {
        rules.sort_by(|a, b| a.prefix.cmp(&b.prefix));
        rules.dedup_by(|a, b| a.prefix == b.prefix);
        let above = |(at, rule): (usize, &Rule)| {
            rules.iter().take(at).rposition(|other| rule.prefix.starts_with(&other.prefix))
        };
        let above = rules.iter().enumerate().map(above).collect();
        let each = || [&all].into_iter().chain(rules.iter().map(|rule| &rule.wanted));
        let leases = each().any(|wanted| wanted.lease != Lease::Off);
        let refreshes = each().any(|wanted| wanted.cache_aside && wanted.lease != Lease::Off);
        let stale = each().any(|wanted| wanted.stale > 0 && wanted.lease != Lease::Off);
        let guards = each().any(|wanted| wanted.guards && wanted.lease.holds());
        let jitters = each().any(|wanted| wanted.ttl_jitter > 0);
        let budgets = each().any(|wanted| wanted.miss_budget.is_some());
        let filters = each().any(|wanted| wanted.absent_ids.is_some());
        Self { all, rules, above, leases, refreshes, stale, guards, jitters, budgets, filters }
    }

    /// Whether any key may have a lease or is watched for one.
    #[must_use]
    pub fn leases(&self) -> bool {
        self.leases
    }

    /// Whether any key may be loaded anew before it expires.
    #[must_use]
    pub fn refreshes(&self) -> bool {
        self.refreshes
    }

    /// Whether any key's value may be told after it has expired.
    #[must_use]
    pub fn tells_stale(&self) -> bool {
        self.stale
    }

    /// Whether what was loaded may have to be kept from being written.
    #[must_use]
    pub fn guards(&self) -> bool {
        self.guards
    }

    /// Whether any time to live is shortened.
    #[must_use]
    pub fn jitters(&self) -> bool {
        self.jitters
    }

    /// Whether anything bounds how many are told that a key is not there.
    #[must_use]
    pub fn budgets(&self) -> bool {
        self.budgets
    }

    /// Whether the ids of any keys are known.
    #[must_use]
    pub fn filters(&self) -> bool {
        self.filters
    }

    /// What is wanted for keys that no rule is for.
    #[must_use]
    pub fn all(&self) -> &Wanted {
        &self.all
    }

    /// The rules, by their prefixes.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Goes on with what the process has learnt under the configuration that this one takes the place of.
    pub fn follow(&mut self, before: &Self) {
        for rule in &mut self.rules {
            let known = before.rules.iter().find(|known| known.prefix == rule.prefix);
            let known = known.and_then(|known| known.wanted.absent_ids.as_ref());
            if let (Some(ids), Some(known)) = (&mut rule.wanted.absent_ids, known) {
                ids.follow(known);
            }
        }
    }

    /// Nobody goes by the one before any more.
    pub fn settle(&self) {
        self.rules.iter().filter_map(|rule| rule.wanted.absent_ids.as_ref()).for_each(Ids::settle);
    }

    /// The rule for a key, that with the longest fitting prefix, and its place in [`rules`](Self::rules).
    ///
    /// Prefixes that fit are not behind the key in order, and the last prefix that is not behind it begins with each of them.
    /// So it is one of those that lead up from there: no more are compared than stand in one another.
    #[must_use]
    pub fn rule_of(&self, key: &[u8]) -> Option<(usize, &Rule)> {
        let mut at = self.rules.partition_point(|rule| *rule.prefix <= *key).checked_sub(1)?;
        loop {
            let rule = self.rules.get(at)?;
            if key.starts_with(&rule.prefix) {
                return Some((at, rule));
            }
            at = (*self.above.get(at)?)?;
        }
    }

    /// What is wanted for a key.
    #[must_use]
    pub fn wanted(&self, key: &[u8]) -> &Wanted {
        self.rule_of(key).map_or(&self.all, |(_, rule)| &rule.wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(prefixes: &[&str]) -> Config {
        let rule = |(n, prefix): (usize, &&str)| Rule {
            prefix: prefix.as_bytes().into(),
            wanted: Wanted { ttl_jitter: n as u16 + 1, ..Wanted::default() },
        };
        Config::new(Wanted::default(), prefixes.iter().enumerate().map(rule).collect())
    }

    #[test]
    fn the_longest_prefix_counts() {
        let all = ["b", "a:", "a:lock:", "a:lock:x", "a:z", "ab", "\u{7f}", "a:lock"];
        let config = config(&all);
        for key in ["", "a", "a:", "a:1", "a:lock", "a:lock:", "a:lock:1", "a:lock:x", "a:lock:y", "a:m", "a:zz", "ac"]
        {
            let longest = all.iter().filter(|prefix| key.starts_with(*prefix)).max_by_key(|prefix| prefix.len());
            let found = config.rule_of(key.as_bytes()).map(|(at, rule)| {
                assert_eq!(&config.rules()[at], rule);
                std::str::from_utf8(&rule.prefix).unwrap()
            });
            assert_eq!(found, longest.copied(), "{key}");
        }
        assert_eq!(config.wanted(b"zzz"), config.all());
        assert_eq!(config.wanted(b"a:lock:x1").ttl_jitter, 4);
    }

    #[test]
    fn what_is_asked_for_anywhere_is_known_at_once() {
        let none = Config::default();
        assert!(!(none.leases() || none.jitters() || none.budgets() || none.filters()));
        let some = config(&["a"]);
        assert!(some.jitters() && !some.leases());
        let all = Config::new(Wanted { lease: Lease::Observe, miss_budget: Some(1), ..Wanted::default() }, Vec::new());
        assert!(all.leases() && all.budgets() && !all.jitters());
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for (word, lease) in Lease::ALL {
            assert_eq!((word.parse(), lease.to_string().as_str()), (Ok(lease), word));
        }
    }
}
