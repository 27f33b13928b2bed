//! Which shard a key lives on.
//!
//! A ring is made from the shards of a pool, in the order of the file, and from which of them are live. Under the
//! distributions that twemproxy has, a key lives where twemproxy 0.5.0 would put it, bit for bit: `tests/ring/*.golden`
//! were written by twemproxy itself. This is a public contract; a change in it is a change of everyone's cache.
//!
//! Promises: a look-up allocates nothing and cannot panic; a ring never changes (ejecting a shard means a new ring).
//! Does not check what it is given: names that occur twice and weights of 0 are the configuration's to refuse. Knows no
//! chance: what `random` rolls is an argument.

mod hash;
mod ketama;
mod slots;

use std::fmt;
use std::str::FromStr;

pub use hash::{KeyHash, UnknownName};
use ketama::{Circle, even_labels, ketama_labels, points_of, scatter};
pub use slots::{NOBODY, SLOTS, Slots, slot_of, tag_of};

/// libmemcached's rule: with this port the name of a shard is its host alone.
const MEMCACHED_PORT: u16 = 11211;
/// A shard with more than this many times the share its weight is due is worth a warning.
const UNEVEN: f64 = 1.5;

/// How the hash of a key becomes a shard: twemproxy's `distribution:`, and one more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Distribution {
    /// A circle with 160 points a shard. The default, and compatible with twemproxy and libmemcached.
    #[default]
    Ketama,
    /// The hash modulo the sum of the weights. Perfectly even, but moves nearly every key when a shard comes or goes.
    Modula,
    /// Any live shard at all, whatever the key and the weights: for caches that may miss and for stateless commands.
    Random,
    /// Ours: the circle with 1000 points a shard and scattered hashes; a weight may be small without losing all keys,
    /// and an ejection moves the keys of the ejected shard only. With 64 shards the heaviest has 1.06 times the mean of a
    /// million `user:N` keys and 1.16 times that of 20,000, where `ketama` has 1.24 and 2.00; one more shard moves no
    /// more keys than it must (weights being equal), and a look-up costs 2 to 6 ns more (`cargo bench --bench ring`, which also has what was
    /// rejected: rendezvous is evener, but costs a draw a shard; maglev moves up to 1.5 times the keys). Compatible with
    /// nothing else.
    Even,
}

impl Distribution {
    /// All of them, twemproxy's first.
    pub const ALL: [Distribution; 4] =
        [Distribution::Ketama, Distribution::Modula, Distribution::Random, Distribution::Even];

    /// The name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Distribution::Ketama => "ketama",
            Distribution::Modula => "modula",
            Distribution::Random => "random",
            Distribution::Even => "even",
        }
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Distribution {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Distribution, UnknownName> {
        let known = || Distribution::ALL.iter().map(|distribution| distribution.name());
        Distribution::ALL.into_iter().find(|distribution| distribution.name() == name).ok_or_else(|| UnknownName {
            what: "distribution",
            name: name.to_owned(),
            known: known().collect(),
        })
    }
}

/// A shard as far as placement cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// What its points are made from: see [`shard_name`] and [`socket_name`]. Not its address: a named shard keeps its
    /// keys when it moves.
    pub name: String,
    /// Its part of the keys, relative to the others'; at least 1.
    pub weight: u32,
}

/// The name of a shard reached by TCP: its alias, or `host:port`, or the host alone if the port is 11211.
///
/// twemproxy takes the port as it is spelled: one with leading zeros (`06379`) has to be refused by the configuration.
pub fn shard_name(alias: Option<&str>, host: &str, port: u16) -> String {
    match alias {
        Some(alias) => alias.to_owned(),
        None if port == MEMCACHED_PORT => host.to_owned(),
        None => format!("{host}:{port}"),
    }
}

/// The name of a shard reached by a unix socket: its alias, or the path *and a colon* (twemproxy leaves room for a port).
pub fn socket_name(alias: Option<&str>, path: &str) -> String {
    alias.map_or_else(|| format!("{path}:"), str::to_owned)
}

/// Where the keys of one pool live, for one set of live shards.
#[derive(Clone, Debug)]
pub struct Ring {
    key_hash: KeyHash,
    distribution: Distribution,
    hash_tag: Option<[u8; 2]>,
    shards: Vec<Shard>,
    live: Vec<bool>,
    layout: Layout,
}

/// What a position is looked up in. Shards are numbers in the order of the file.
#[derive(Clone, Debug)]
enum Layout {
    /// A pool of one shard (or none): nothing is hashed.
    Alone(Option<u16>),
    /// `ketama` and `even`.
    Circle(Circle),
    /// `modula`: shards in twemproxy's order, each with the end of its slots. Sums, since a weight may be huge.
    Slots(Vec<(u64, u16)>),
    /// `random`: the live shards in twemproxy's order.
    Any(Vec<u16>),
}

impl Ring {
    /// `live` tells for each of `shards` whether it takes part; what it does not tell is live. Under twemproxy's
    /// distributions the others' points change when a shard leaves, if weights differ, as they do in twemproxy.
    ///
    /// Costs up to milliseconds (64 shards, `even`). Shards after the 65,536th get no keys, and a warning.
    pub fn new(
        shards: &[Shard],
        live: &[bool],
        key_hash: KeyHash,
        distribution: Distribution,
        hash_tag: Option<[u8; 2]>,
    ) -> Ring {
        let live: Vec<bool> =
            (0..shards.len()).map(|i| u16::try_from(i).is_ok() && live.get(i).copied().unwrap_or(true)).collect();
        let layout = match shards {
            [] | [_] => Layout::Alone(live.first().filter(|live| **live).map(|_| 0)),
            _ => Layout::new(shards, &live, distribution),
        };
        Ring { key_hash, distribution, hash_tag, shards: shards.to_vec(), live, layout }
    }

    /// Where a key is on the ring: the hash of what counts of it. 0 for an empty key, and in a pool of one shard.
    #[inline]
    pub fn position(&self, key: &[u8]) -> u32 {
        let key = self.tagged(key);
        if key.is_empty() || matches!(self.layout, Layout::Alone(_)) {
            return 0;
        }
        let hash = self.key_hash.hash(key);
        if self.distribution == Distribution::Even { scatter(hash) } else { hash }
    }

    /// Whose a position is, as an index into the shards of the file; `None` if no shard is live. `entropy` is what
    /// `random` chooses by, evenly spread over all 32 bits; the others disregard it.
    #[inline]
    pub fn shard_at(&self, position: u32, entropy: u32) -> Option<u16> {
        match &self.layout {
            Layout::Circle(circle) => circle.owner(position),
            Layout::Alone(shard) => *shard,
            Layout::Slots(slots) => slots.get(slot(slots, position)?).map(|&(_, shard)| shard),
            Layout::Any(shards) => shards.get((entropy as usize).checked_rem(shards.len())?).copied(),
        }
    }

    /// Whose a key is. Under `random`, where keys have no home, this is the first shard: use [`Ring::shard_at`] there.
    #[inline]
    pub fn shard_of(&self, key: &[u8]) -> Option<u16> {
        self.shard_at(self.position(key), 0)
    }

    /// What counts of a key: the bytes between the first opening character of the hash tag and the first closing one
    /// after it, or the whole key if there are none between.
    #[inline]
    pub fn tagged<'k>(&self, key: &'k [u8]) -> &'k [u8] {
        let Some([open, close]) = self.hash_tag else { return key };
        let tag = key.iter().position(|&byte| byte == open).and_then(|at| {
            let inner = key.get(at + 1..)?;
            inner.get(..inner.iter().position(|&byte| byte == close)?)
        });
        tag.filter(|tag| !tag.is_empty()).unwrap_or(key)
    }

    /// Fills `out` with different live shards by closeness to a position, its owner first, and says how many there are.
    /// On a circle these are the owners of the points that follow, so who comes second takes over when the first is
    /// ejected (among equal weights); otherwise those that follow in twemproxy's order.
    pub fn neighbours(&self, position: u32, out: &mut [u16]) -> usize {
        match &self.layout {
            Layout::Circle(circle) => {
                let wanted = out.len().min(circle.owners); // or the walk would go all around for more
                distinct(circle.walk(position).map(|point| point.shard), out.get_mut(..wanted).unwrap_or_default())
            }
            Layout::Alone(shard) => distinct(shard.iter().copied(), out),
            Layout::Slots(slots) => {
                let from = slot(slots, position).unwrap_or(0);
                distinct(slots.iter().cycle().skip(from).take(slots.len()).map(|&(_, shard)| shard), out)
            }
            Layout::Any(shards) => distinct(shards.iter().copied(), out),
        }
    }

    /// The share of all hashes each shard of the file gets; together 1, unless none is live. The share of *keys* is this
    /// only as far as the hash is good.
    pub fn shares(&self) -> Vec<f64> {
        let mut hashes = vec![0; self.shards.len()];
        let mut give = |shard: u16, count: u64| {
            if let Some(hashes) = hashes.get_mut(usize::from(shard)) {
                *hashes += count;
            }
        };
        match &self.layout {
            Layout::Circle(circle) => {
                // A point owns what lies after the point before it; the first one also what is left at the end.
                let scattered = self.distribution == Distribution::Even;
                let end = u64::from(if scattered { u32::MAX } else { self.key_hash.max() }) + 1;
                let mut from = 0;
                for point in circle.points() {
                    let to = end.min(u64::from(point.position) + 1);
                    give(point.shard, to - from);
                    from = to;
                }
                if let Some(first) = circle.points().first() {
                    give(first.shard, end - from);
                }
            }
            Layout::Alone(shard) => shard.iter().for_each(|&shard| give(shard, 1)),
            Layout::Slots(slots) => {
                let mut from = 0;
                for &(to, shard) in slots {
                    give(shard, to - from);
                    from = to;
                }
            }
            Layout::Any(shards) => shards.iter().for_each(|&shard| give(shard, 1)),
        }
        let total: u64 = hashes.iter().sum();
        hashes.into_iter().map(|count| count as f64 / total.max(1) as f64).collect()
    }

    /// Whose each of `count` equally long parts of the ring is, as far as its middle tells: for drawing. Nobody's where keys have no
    /// home.
    pub fn sectors(&self, count: u32) -> Vec<Option<u16>> {
        let end = match &self.layout {
            Layout::Circle(_) if self.distribution == Distribution::Even => u64::from(u32::MAX) + 1,
            Layout::Circle(_) => u64::from(self.key_hash.max()) + 1,
            Layout::Slots(slots) => slots.last().map_or(0, |&(end, _)| end),
            Layout::Alone(_) => 1,
            Layout::Any(_) => return vec![None; count as usize],
        };
        let middle = |sector: u32| (2 * u64::from(sector) + 1) * end / (2 * u64::from(count));
        (0..count).map(|sector| self.shard_at(u32::try_from(middle(sector)).unwrap_or(u32::MAX), 0)).collect()
    }

    /// The points each shard of the file has on the circle; under `modula` its slots; otherwise 1 for a live shard.
    pub fn points(&self) -> Vec<u32> {
        let mut points: Vec<u32> = match &self.layout {
            Layout::Circle(_) => vec![0; self.shards.len()],
            Layout::Slots(_) => self.shards.iter().map(|shard| shard.weight).collect(),
            Layout::Alone(_) | Layout::Any(_) => vec![1; self.shards.len()],
        };
        if let Layout::Circle(circle) = &self.layout {
            for point in circle.points() {
                if let Some(count) = points.get_mut(usize::from(point.shard)) {
                    *count += 1;
                }
            }
        }
        points.iter_mut().zip(&self.live).filter(|(_, live)| !**live).for_each(|(count, _)| *count = 0);
        points
    }

    /// What an operator should know before keys are placed so, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let live = || self.shards.iter().zip(&self.live).enumerate().filter(|(_, (_, live))| **live);
        let count = live().count();
        let total: u64 = live().map(|(_, (shard, _))| u64::from(shard.weight)).sum();
        if self.shards.len() > usize::from(u16::MAX) + 1 {
            warnings.push(format!("only the first 65,536 of {} shards get keys", self.shards.len()));
        }
        if count < 2 {
            return warnings;
        }
        let shares = self.shares();
        let weighted = live().any(|(_, (shard, _))| u64::from(shard.weight) * count as u64 != total);
        if self.distribution == Distribution::Random && weighted {
            warnings.push("distribution `random` disregards the weights, as in twemproxy".to_owned());
        }
        if matches!(self.layout, Layout::Circle(_)) {
            let points = self.points();
            for (i, (shard, _)) in live() {
                if points.get(i) == Some(&0) {
                    let (name, weight) = (&shard.name, shard.weight);
                    warnings.push(format!(
                        "shard `{name}` gets no keys: a weight of {weight} out of {total} is too small for a point on the \
                         circle, as in twemproxy (distribution `even` gives every shard some)"
                    ));
                }
            }
        }
        let heaviest = live()
            .map(|(i, (shard, _))| {
                let due = if self.distribution == Distribution::Random {
                    1.0 / count as f64
                } else {
                    f64::from(shard.weight) / total.max(1) as f64
                };
                let share = shares.get(i).copied().unwrap_or_default();
                (share / due, share, &shard.name)
            })
            .max_by(|a, b| a.0.total_cmp(&b.0));
        if let Some((ratio, share, name)) = heaviest
            && ratio > UNEVEN
        {
            let percent = share * 100.0;
            if self.key_hash == KeyHash::Crc32 && self.distribution == Distribution::Ketama {
                warnings.push(format!(
                    "hash `crc32` has only 15 bits, which `ketama` cannot spread: shard `{name}` gets {percent:.0} % of \
                     the keys, as in twemproxy; use `crc32a`, or distribution `modula` or `even`"
                ));
            } else {
                warnings.push(format!(
                    "uneven: shard `{name}` gets {percent:.1} % of the hashes, {ratio:.2} times what its weight is due"
                ));
            }
        }
        warnings
    }
}

impl Layout {
    fn new(shards: &[Shard], live: &[bool], distribution: Distribution) -> Layout {
        // twemproxy sorts shards by name, the shorter first, before it numbers them; this decides `modula`.
        let mut order: Vec<(u16, &Shard)> = shards
            .iter()
            .zip(live)
            .zip(0..)
            .filter(|((_, live), _)| **live)
            .map(|((shard, _), i)| (i, shard))
            .collect();
        order.sort_by(|(_, a), (_, b)| (a.name.len(), &a.name).cmp(&(b.name.len(), &b.name)));

        let total: u64 = order.iter().map(|(_, shard)| u64::from(shard.weight)).sum();
        let total_of_all: u64 = shards.iter().map(|shard| u64::from(shard.weight)).sum();
        let circle = |labels: &dyn Fn(u32) -> u32| {
            Circle::new(order.iter().flat_map(|(i, shard)| points_of(*i, &shard.name, labels(shard.weight))).collect())
        };
        match distribution {
            Distribution::Ketama => Layout::Circle(circle(&|weight| ketama_labels(weight, total, order.len()))),
            Distribution::Even => Layout::Circle(circle(&|weight| even_labels(weight, total_of_all, shards.len()))),
            Distribution::Modula => {
                let mut end = 0;
                let ends = order.iter().map(|(i, shard)| {
                    end += u64::from(shard.weight);
                    (end, *i)
                });
                Layout::Slots(ends.collect())
            }
            Distribution::Random => Layout::Any(order.iter().map(|(i, _)| *i).collect()),
        }
    }
}

/// The index of the shard whose slots a position falls into; `None` if there are no slots.
#[inline]
fn slot(slots: &[(u64, u16)], position: u32) -> Option<usize> {
    let slot = u64::from(position).checked_rem(slots.last()?.0)?;
    Some(slots.partition_point(|(end, _)| *end <= slot))
}

/// The first different ones of `shards` that `out` has room for, and how many.
fn distinct(shards: impl Iterator<Item = u16>, out: &mut [u16]) -> usize {
    let mut found = 0;
    for shard in shards {
        if out.get(..found).is_some_and(|seen| seen.contains(&shard)) {
            continue;
        }
        let Some(free) = out.get_mut(found) else { break };
        *free = shard;
        found += 1;
        if found == out.len() {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests;
