//! Where reads are sent in a pool whose servers have replicas: `read_from`, for all keys or for those that begin so.
//!
//! The words mean what they mean to Lettuce, Valkey GLIDE and Envoy. Whatever the word, a replica is read from only while it is
//! *fit*: known to have what its shard had `read_staleness` ago, and all that was written to the key through this process
//! ([`super::Replicas::usable`]). A key that was just written is read at its shard until a replica has it, with any of the words:
//! that is no reason to refuse, since else nobody could read what he has written.
//!
//! Goes behind what is done with hot keys: one that is answered from memory or by copies is so further on. Reads of several keys,
//! and those whose answers differ between servers that have the same, are the shards'.

use super::replicas::MOST;
use super::{Hot, Means, may_spread};
use crate::chance::splitmix;
use crate::stages::{Leg, Micros, Refusal, Verdict};
use std::fmt;
use std::str::FromStr;

/// Who is to answer reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadFrom {
    /// The key's shard.
    #[default]
    Primary,
    /// A replica that is fit, else the shard.
    PreferReplica,
    /// A replica that is fit; if there is none, nobody.
    Replica,
    /// The shard and the replicas that are fit, in turn.
    Any,
    /// Whichever of them answers soonest.
    Nearest,
    /// A replica in this process' zone, else any, else the shard.
    AzAffinity,
    /// A replica in this process' zone, else the shard if that is in it, else any replica, else the shard.
    AzAffinityReplicasAndPrimary,
}

impl ReadFrom {
    /// Every word, in the order in which they are told.
    pub const ALL: [(&str, Self); 7] = [
        ("primary", Self::Primary),
        ("prefer_replica", Self::PreferReplica),
        ("replica", Self::Replica),
        ("any", Self::Any),
        ("nearest", Self::Nearest),
        ("az_affinity", Self::AzAffinity),
        ("az_affinity_replicas_and_primary", Self::AzAffinityReplicasAndPrimary),
    ];

    /// Whether it goes by zones.
    #[must_use]
    pub fn needs_zone(self) -> bool {
        matches!(self, Self::AzAffinity | Self::AzAffinityReplicasAndPrimary)
    }
}

impl FromStr for ReadFrom {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.iter().find(|(word, _)| *word == text).map(|&(_, from)| from).ok_or(())
    }
}

impl fmt::Display for ReadFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::ALL.iter().find(|(_, from)| from == self).map_or("", |(word, _)| word))
    }
}

/// What a pool wants of its reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Who answers them, where no rule says otherwise.
    pub from: ReadFrom,
    /// The same for keys that begin so; of several the longest counts.
    pub rules: Vec<(Box<[u8]>, ReadFrom)>,
    /// How old what a replica answers may be, in microseconds.
    pub staleness: Micros,
    /// The zone in which this process runs.
    pub zone: Option<Box<str>>,
}

impl Default for Reading {
    fn default() -> Self {
        Self { from: ReadFrom::Primary, rules: Vec::new(), staleness: 1_000_000, zone: None }
    }
}

impl Reading {
    /// Who answers reads of a key.
    #[must_use]
    pub fn of(&self, key: &[u8]) -> ReadFrom {
        let fitting = self.rules.iter().filter(|(prefix, _)| key.starts_with(prefix));
        fitting.max_by_key(|(prefix, _)| prefix.len()).map_or(self.from, |&(_, from)| from)
    }

    /// All that is wanted of any key.
    pub fn wanted(&self) -> impl Iterator<Item = ReadFrom> {
        std::iter::once(self.from).chain(self.rules.iter().map(|&(_, from)| from))
    }

    /// Whether any read may go elsewhere than to its key's shard.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.wanted().any(|from| from != ReadFrom::Primary)
    }

    /// Whether it is asked in which zones servers are.
    #[must_use]
    pub fn needs_zones(&self) -> bool {
        self.zone.is_some() && self.wanted().any(ReadFrom::needs_zone)
    }
}

/// Whether a server is in this process' zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zone {
    /// Nobody has said so.
    Unknown,
    /// It is asked, and was perhaps so before.
    Asked(bool),
    /// It has told.
    Told(bool),
    /// The configuration says so.
    Given(bool),
}

impl Zone {
    pub(super) fn asks(&mut self) -> bool {
        let asks = *self == Self::Unknown;
        if asks {
            *self = Self::Asked(false);
        }
        asks
    }

    pub(super) fn ask_again(&mut self) {
        if matches!(self, Self::Asked(_) | Self::Told(_)) {
            *self = Self::Unknown;
        }
    }

    pub(super) fn told(&mut self, is_ours: bool) {
        if !matches!(self, Self::Given(_)) {
            *self = Self::Told(is_ours);
        }
    }

    pub(super) fn is_ours(self) -> bool {
        matches!(self, Self::Asked(true) | Self::Told(true) | Self::Given(true))
    }
}

impl Hot {
    /// The same for a pool whose reads are to be answered so; `zones` tells where servers are, by their numbers, as far as the
    /// configuration says. To be called before [`Hot::with_replicas`].
    #[must_use]
    pub fn reading(self, reading: Reading) -> Self {
        let (serves, reads) = (self.serves || reading.is_on(), reading.is_on());
        Self { reading, serves, reads, ..self }
    }

    /// The same, where servers are in such zones, by their numbers.
    #[must_use]
    pub fn in_zones<'a>(mut self, zones: impl IntoIterator<Item = (u16, &'a str)>) -> Self {
        for (shard, zone) in zones {
            self.replicas.set_zone(shard, self.reading.zone.as_deref() == Some(zone));
        }
        self
    }

    /// What is wanted of reads.
    #[must_use]
    pub fn reads(&self) -> &Reading {
        &self.reading
    }

    /// A server has told in which zone it is; nothing if it knows none.
    pub fn told_zone(&mut self, shard: u16, zone: Option<&[u8]>) {
        let own = self.reading.zone.as_deref().map(str::as_bytes);
        self.replicas.told_zone(shard, zone.is_some() && zone == own);
    }

    /// Whether reads of any key may go to replicas.
    #[must_use]
    #[inline]
    pub fn reads_elsewhere(&self) -> bool {
        self.reads
    }

    /// Chooses who answers a read.
    pub(super) fn read_from(&self, leg: &mut Leg<'_>, hash: u64, now: Micros) -> Verdict {
        if !self.reads || !leg.free || !leg.alone || !may_spread(leg) {
            return Verdict::Next;
        }
        let from = self.reading.of(leg.key);
        if from == ReadFrom::Primary {
            return Verdict::Next;
        }
        leg.only = from == ReadFrom::Replica;
        let Some(chosen) = self.chosen(from, leg, hash, now) else {
            if leg.only && now >= self.not_before && self.replicas.are_unfit(leg.shard, self.reading.staleness, now) {
                return Verdict::Refuse(Refusal::NoReplica);
            }
            leg.kept = true;
            return Verdict::Next;
        };
        // Where all are asked in turn it is counted who was.
        if chosen != leg.shard || from == ReadFrom::Any {
            self.lead_to(leg, chosen);
        }
        Verdict::Next
    }

    /// Who answers a read; nobody if there is no choice.
    fn chosen(&self, from: ReadFrom, leg: &Leg<'_>, hash: u64, now: Micros) -> Option<u16> {
        if now < self.not_before {
            return None;
        }
        let mut found = [0; MOST + 1];
        let place = (hash, leg.shard);
        let count = self.replicas.usable(place, self.reading.staleness, &self.fence, now, &mut found);
        let all = found.get(..count).unwrap_or_default();
        let (&home, fit) = all.split_first()?;
        if fit.is_empty() {
            return None;
        }
        let draw = splitmix(self.seed ^ u64::from(leg.number));
        let ours = || {
            let mut ours = [0; MOST];
            let mut count = 0_usize;
            for (place, &shard) in ours.iter_mut().zip(fit.iter().filter(|&&shard| self.replicas.is_in_zone(shard))) {
                (*place, count) = (shard, count.saturating_add(1));
            }
            (count > 0).then(|| self.choice.pick(ours.get(..count).unwrap_or_default(), draw))
        };
        let any = || self.choice.pick(fit, draw);
        Some(match from {
            ReadFrom::Primary => home,
            ReadFrom::PreferReplica | ReadFrom::Replica => any(),
            ReadFrom::Any => {
                let turn = self.replicas.turn(home).checked_rem(count as u32).unwrap_or(0);
                all.get(turn as usize).copied().unwrap_or(home)
            }
            ReadFrom::Nearest => self.replicas.nearest(home, all).unwrap_or(home),
            ReadFrom::AzAffinity => ours().unwrap_or_else(any),
            ReadFrom::AzAffinityReplicasAndPrimary => {
                ours().or_else(|| self.replicas.is_in_zone(home).then_some(home)).unwrap_or_else(any)
            }
        })
    }

    /// Sends a leg to a server that has its key.
    pub(super) fn lead_to(&self, leg: &mut Leg<'_>, shard: u16) {
        let home = u32::from(leg.shard);
        (leg.spread, leg.shard) = (true, shard);
        // Numbers of connections wrap as little as they did when the leg was routed.
        leg.line = leg.line.wrapping_sub(home.wrapping_mul(self.lanes));
        leg.line = leg.line.wrapping_add(u32::from(shard).wrapping_mul(self.lanes));
    }

    /// What is done with a read, in words for a person; nothing where that is not said by `read_from`.
    pub(super) fn explain_reading(&self, leg: &Leg<'_>, now: Micros) -> Option<String> {
        let from = self.reading.of(leg.key);
        let hash = leg.hot.unwrap_or_else(|| self.hash(leg.key));
        let known = self.keys.get(&hash).map(|key| key.means).unwrap_or_default();
        if !self.reads || from == ReadFrom::Primary || known != Means::Home {
            return None;
        }
        let home = self.replicas.home_of(leg.shard).unwrap_or(leg.shard);
        let mut found = [0; MOST + 1];
        let count = self.replicas.usable((hash, home), self.reading.staleness, &self.fence, now, &mut found);
        let (fit, all) = (count.saturating_sub(1), self.replicas.replicas_of(home).count());
        let whom = match leg.shard == home {
            _ if !may_spread(leg) || !leg.alone => "only its shard has the answer",
            true if fit > 0 => "this one from its shard",
            true => "this one from its shard, as there is none",
            false => "this one from a replica",
        };
        Some(format!("read_from {from}: {fit} of {all} replicas are fit, {whom}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
        for (word, from) in ReadFrom::ALL {
            assert_eq!((word.parse(), from.to_string().as_str()), (Ok(from), word));
        }
        assert_eq!("secondary".parse::<ReadFrom>(), Err(()));
    }

    #[test]
    fn the_longest_beginning_counts() {
        let rules = vec![(b"a".as_slice().into(), ReadFrom::Any), (b"a:lock:".as_slice().into(), ReadFrom::Primary)];
        let reading = Reading { rules, ..Reading::default() };
        assert_eq!(
            [&b"a:1"[..], b"a:lock:1", b"b"].map(|key| reading.of(key)),
            [ReadFrom::Any, ReadFrom::Primary, ReadFrom::Primary]
        );
        assert!(reading.is_on() && !Reading::default().is_on() && !reading.needs_zones());
    }

    #[test]
    fn a_zone_is_asked_for_once_a_connection_and_never_where_it_is_given() {
        let mut zone = Zone::Unknown;
        assert!(zone.asks() && !zone.asks() && !zone.is_ours());
        zone.told(true);
        assert!(!zone.asks() && zone.is_ours());
        zone.ask_again();
        assert!(zone.asks());
        let mut zone = Zone::Given(true);
        zone.ask_again();
        zone.told(false);
        assert!(!zone.asks() && zone.is_ours());
    }
}
