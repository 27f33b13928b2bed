//! Faults that are injected on purpose, so that people can try what their apps do when servers are slow, refuse, or are gone.
//!
//! Promises: which requests a rule meets is plain functions over the rule and the request; what is by chance is counted on from a
//! seed, so that it can be played again. Each rule ends by itself. Who waits, and what is answered, is the engine's
//! (`engine::fault`).

use super::Micros;
use crate::chance::splitmix;
use std::fmt;

/// The whole of what there is, in the parts that a share is counted in.
pub const WHOLE: u32 = 1000;

/// What is done to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is held for so long before it is carried out.
    DelayRequest(Micros),
    /// It is carried out at once, and its reply is held for so long.
    DelayReply(Micros),
    /// It is not carried out, and is answered with this error.
    Error(Box<str>),
    /// It is not carried out, and its app's connection is closed.
    Drop,
}

/// What is done to which requests of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its number, never used twice by a process.
    pub id: u64,
    /// Names of commands in lower case; none for all.
    pub commands: Vec<Box<str>>,
    /// How one of its keys begins; `None` for all requests, also without keys.
    pub prefix: Option<Box<[u8]>>,
    /// Of how many requests, by chance, in parts of [`WHOLE`].
    pub share: u32,
    /// What is done to them.
    pub effect: Effect,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fault {}: ", self.id)?;
        match &self.effect {
            Effect::DelayRequest(span) => write!(f, "delay={}us where=request", span)?,
            Effect::DelayReply(span) => write!(f, "delay={}us where=reply", span)?,
            Effect::Error(text) => write!(f, "error={text:?}")?,
            Effect::Drop => f.write_str("drop")?,
        }
        if !self.commands.is_empty() {
            write!(f, " command={}", self.commands.join(","))?;
        }
        if let Some(prefix) = &self.prefix {
            write!(f, " prefix={:?}", String::from_utf8_lossy(prefix))?;
        }
        write!(f, " share={}.{:03}", self.share / WHOLE, self.share % WHOLE)
    }
}

/// The rules of a pool, as one worker has them.
#[derive(Debug, Default)]
pub struct Faults {
    rules: Vec<(Rule, Micros)>,
    /// How often something was left to chance.
    drawn: u64,
}

impl Faults {
    /// Takes other rules, each with when it ends.
    pub fn set(&mut self, rules: Vec<(Rule, Micros)>) {
        self.rules = rules;
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether one of them asks for keys.
    #[must_use]
    pub fn ask_for_keys(&self) -> bool {
        self.rules.iter().any(|(rule, _)| rule.prefix.is_some())
    }

    /// Takes out the rules that are over.
    pub fn end(&mut self, now: Micros) -> Vec<Rule> {
        let (over, rest) = std::mem::take(&mut self.rules).into_iter().partition(|(_, until)| *until <= now);
        self.rules = rest;
        let over: Vec<(Rule, Micros)> = over;
        over.into_iter().map(|(rule, _)| rule).collect()
    }

    /// What is done to a request with these keys: the first rule that meets it and that chance is for.
    pub fn choose(&mut self, command: &str, keys: &[&[u8]], seed: u64, now: Micros) -> Option<Effect> {
        for (rule, until) in &self.rules {
            let named = rule.commands.is_empty() || rule.commands.iter().any(|name| **name == *command);
            let begins = rule.prefix.as_ref().is_none_or(|prefix| keys.iter().any(|key| key.starts_with(prefix)));
            if !named || !begins || *until <= now {
                continue;
            }
            if rule.share < WHOLE {
                self.drawn = self.drawn.wrapping_add(1);
                let part = u128::from(splitmix(seed.wrapping_add(self.drawn))).wrapping_mul(u128::from(WHOLE)) >> 64;
                if part >= u128::from(rule.share) {
                    continue;
                }
            }
            return Some(rule.effect.clone());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(share: u32, commands: &[&str], prefix: Option<&str>, effect: Effect) -> Rule {
        let commands = commands.iter().map(|&name| name.into()).collect();
        Rule { id: 1, commands, prefix: prefix.map(|prefix| prefix.as_bytes().into()), share, effect }
    }

    fn faults(rules: &[Rule]) -> Faults {
        let mut faults = Faults::default();
        faults.set(rules.iter().map(|rule| (rule.clone(), 100)).collect());
        faults
    }

    #[test]
    fn a_share_is_by_chance_and_the_same_again_from_the_same_seed() {
        let draw = |seed| {
            let mut faults = faults(&[rule(300, &[], None, Effect::Drop)]);
            (0..10_000).map(|_| faults.choose("get", &[], seed, 0).is_some()).collect::<Vec<bool>>()
        };
        let met = draw(7).into_iter().filter(|&met| met).count();
        assert!((2_800..3_200).contains(&met), "{met}");
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn a_rule_meets_what_it_names() {
        let error = Effect::Error("ERR no".into());
        let mut faults = faults(&[
            rule(WHOLE, &["get", "set"], Some("a:"), error.clone()),
            rule(WHOLE, &["get"], None, Effect::DelayReply(5)),
        ]);
        assert_eq!(faults.choose("set", &[b"b", b"a:1"], 0, 0), Some(error.clone()));
        assert_eq!(faults.choose("get", &[b"a:1"], 0, 0), Some(error), "the first one counts");
        assert_eq!(faults.choose("get", &[b"b"], 0, 0), Some(Effect::DelayReply(5)));
        assert_eq!(faults.choose("set", &[b"b"], 0, 0), None);
        assert_eq!(faults.choose("del", &[b"a:1"], 0, 0), None);
    }

    #[test]
    fn a_rule_ends_by_itself() {
        let mut faults = faults(&[rule(WHOLE, &[], None, Effect::Drop)]);
        assert!(faults.choose("get", &[], 0, 99).is_some());
        assert!(faults.choose("get", &[], 0, 100).is_none(), "before the upkeep has seen it");
        assert!(faults.end(99).is_empty() && !faults.is_empty());
        assert_eq!(faults.end(100).len(), 1);
        assert!(faults.is_empty());
    }

    #[test]
    fn a_rule_tells_what_it_does() {
        let told = rule(250, &["get"], Some("a\n"), Effect::DelayRequest(1500)).to_string();
        assert_eq!(told, "fault 1: delay=1500us where=request command=get prefix=\"a\\n\" share=0.250");
    }
}
