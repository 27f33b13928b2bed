//! The circle of ketama: points by md5 of a shard's name, a key belongs to the first point at or after its position.
//!
//! `hashring` holds the circle and defines the answer. Look-ups go through a table of the same points, which says the same
//! (a test compares them) in about a third of the time: the high bits of a position lead to the first point that can be
//! its owner, and a point or two further is the answer.
//!
//! Promises: twemproxy's points, in number and place; no allocation and no panic in a look-up. Does not promise
//! evenness: see `shares` in the parent.

use std::hash::{BuildHasher, Hash, Hasher};

use hashring::HashRing;

use super::hash::md5_words;

/// twemproxy's points for a shard whose weight is the mean.
pub(super) const KETAMA_POINTS: u32 = 160;
/// The even circle's points for a shard whose weight is the mean.
pub(super) const EVEN_POINTS: u32 = 1000;
/// twemproxy formats a label into 273 bytes including C's final zero, so of longer ones only this much is hashed.
const LABEL_BYTES: usize = 272;
const POINTS_PER_LABEL: u32 = 4;

/// How many labels (of four points each) a shard gets, by twemproxy's arithmetic: single precision but for the last
/// addition. May be 0 for a small weight. `total` is the weight and `count` the number of all live shards.
pub(super) fn ketama_labels(weight: u32, total: u64, count: usize) -> u32 {
    let share = weight as f32 / total as f32;
    let labels = share * KETAMA_POINTS as f32 / POINTS_PER_LABEL as f32 * count as f32;
    ((f64::from(labels) + 1e-10) as f32).floor() as u32
}

/// How many labels a shard gets on the even circle: rounded, and never none. Here `total` and `count` are of all shards,
/// live or not, so that an ejection moves no key but those of the ejected shard.
pub(super) fn even_labels(weight: u32, total: u64, count: usize) -> u32 {
    let mean = u128::from(EVEN_POINTS / POINTS_PER_LABEL);
    let (weight, total) = (u128::from(weight), u128::from(total.max(1)));
    let labels = (weight * mean * count as u128 + total / 2) / total;
    u32::try_from(labels).unwrap_or(u32::MAX).max(1)
}

/// Spreads neighbouring hashes over the circle: murmur3's 32-bit finaliser, a bijection. Without it keys that differ in
/// their last two bytes lie side by side under the FNV hashes, and no number of points parts them.
#[inline]
pub(super) fn scatter(hash: u32) -> u32 {
    let hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    let hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

/// The points of one shard: those of the labels `name-0`, `name-1` and so on.
pub(super) fn points_of(shard: u16, name: &str, labels: u32) -> impl Iterator<Item = Point> + use<'_> {
    (0..labels).flat_map(move |i| {
        let label = format!("{name}-{i}");
        let label = label.as_bytes();
        let words = md5_words(label.get(..LABEL_BYTES).unwrap_or(label));
        words.map(|position| Point { position, shard })
    })
}

/// A place on the circle and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) position: u32,
    pub(super) shard: u16,
}

impl Hash for Point {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.position));
    }
}

/// The circle.
#[derive(Clone, Debug)]
pub(super) struct Circle {
    continuum: HashRing<Point, Identity>,
    table: Table,
    /// How many shards have points.
    pub(super) owners: usize,
}

impl Circle {
    /// Where two points coincide the earlier of `points` stays, as it does under twemproxy's stable sort.
    pub(super) fn new(mut points: Vec<Point>) -> Circle {
        points.sort_by_key(|point| point.position);
        points.dedup_by_key(|point| point.position);
        let table = Table::new(points.clone()); // hashring gives no access to its own copy
        let mut continuum = HashRing::with_hasher(Identity);
        continuum.batch_add(points);
        let mut owners: Vec<u16> = table.points.iter().map(|point| point.shard).collect();
        owners.sort_unstable();
        owners.dedup();
        Circle { continuum, table, owners: owners.len() }
    }

    /// Whose `position` is; `None` on a circle without points.
    #[inline]
    pub(super) fn owner(&self, position: u32) -> Option<u16> {
        self.table.owner(position)
    }

    /// The points from `position` on, once around the circle.
    pub(super) fn walk(&self, position: u32) -> impl Iterator<Item = Point> {
        let mut at = position;
        (0..self.continuum.len()).map_while(move |_| {
            let point = *self.continuum.get(&Point { position: at, shard: 0 })?;
            at = point.position.wrapping_add(1);
            Some(point)
        })
    }

    /// All points, by position.
    pub(super) fn points(&self) -> &[Point] {
        self.table.points.split_last().map_or(&[], |(_first_again, points)| points)
    }
}

/// The look-up table of a circle.
#[derive(Clone, Debug)]
struct Table {
    /// By position; at the end the first point once more, moved to where everything left over finds it.
    points: Vec<Point>,
    /// For each value of a position's high bits, the index of the first point not before them.
    starts: Vec<u32>,
    /// How far right a position is shifted to leave those bits.
    shift: u32,
}

impl Table {
    /// `points` by position, each position once.
    fn new(mut points: Vec<Point>) -> Table {
        // Two to four buckets a point: more would cost cache, fewer a longer scan.
        let bits = (usize::BITS - points.len().leading_zeros() + 1).min(31);
        let shift = u32::BITS - bits;
        let mut starts = Vec::with_capacity(1 << bits);
        let mut next = 0;
        for bucket in 0..1u32 << bits {
            while points.get(next).is_some_and(|point| point.position < bucket << shift) {
                next += 1;
            }
            starts.push(next as u32);
        }
        if let Some(first) = points.first() {
            points.push(Point { position: u32::MAX, shard: first.shard });
        }
        Table { points, starts, shift }
    }

    #[inline]
    fn owner(&self, position: u32) -> Option<u16> {
        let start = *self.starts.get((position >> self.shift) as usize)? as usize;
        let owner = self.points.get(start..)?.iter().find(|point| point.position >= position)?;
        Some(owner.shard)
    }
}

/// A hasher that hands back the number it is given, so that `hashring`'s order is the order of positions.
#[derive(Clone, Copy, Debug, Default)]
struct Identity;

impl BuildHasher for Identity {
    type Hasher = Position;

    fn build_hasher(&self) -> Position {
        Position(0)
    }
}

struct Position(u64);

impl Hasher for Position {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |number, &byte| (number << 8) | u64::from(byte));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circle(shards: u16) -> Circle {
        Circle::new((0..shards).flat_map(|i| points_of(i, &format!("server{i}"), 40).collect::<Vec<_>>()).collect())
    }

    #[test]
    fn the_table_answers_what_hashring_answers() {
        for shards in [1, 2, 3, 16, 64] {
            let circle = circle(shards);
            let near = circle.points().iter().flat_map(|p| [-1i32, 0, 1].map(|d| p.position.wrapping_add_signed(d)));
            let spread = (0..100_000u32).map(|i| i.wrapping_mul(0x9e37_79b1));
            for position in near.chain(spread).chain([0, 1, u32::MAX - 1, u32::MAX]) {
                let defined = circle.continuum.get(&Point { position, shard: 0 }).map(|point| point.shard);
                assert_eq!(circle.owner(position), defined, "{shards} shards, position {position}");
            }
        }
    }

    #[test]
    fn ends_of_the_circle() {
        let at = |position, shard| Point { position, shard };
        let circle = Circle::new(vec![at(10, 1), at(u32::MAX, 2), at(10, 3)]);
        let owners = [0, 10, 11, u32::MAX].map(|position| circle.owner(position));
        assert_eq!(owners, [Some(1), Some(1), Some(2), Some(2)]);
        assert_eq!(circle.points(), [at(10, 1), at(u32::MAX, 2)]);
        let empty = Circle::new(Vec::new());
        assert_eq!((empty.owner(7), empty.points(), empty.walk(7).count()), (None, &[][..], 0));
    }

    #[test]
    fn a_walk_passes_every_point_once() {
        let circle = circle(3);
        let walked: Vec<Point> = circle.walk(1 << 31).collect();
        let turn = circle.points().partition_point(|point| point.position < 1 << 31);
        let (before, after) = circle.points().split_at(turn);
        assert_eq!(walked, [after, before].concat());
    }

    #[test]
    fn labels_by_weight() {
        let ketama = |weights: &[u32]| -> Vec<u32> {
            let total = weights.iter().copied().map(u64::from).sum();
            weights.iter().map(|&weight| ketama_labels(weight, total, weights.len())).collect()
        };
        assert_eq!(ketama(&[1, 1, 1]), [40, 40, 40]);
        assert_eq!(ketama(&[1, 3, 2]), [20, 60, 40]);
        assert_eq!(ketama(&[100, 1]), [79, 0]);
        assert_eq!([even_labels(100, 101, 2), even_labels(1, 101, 2), even_labels(1, 1_000_000, 2)], [495, 5, 1]);
    }

    #[test]
    fn scattering_is_a_bijection() {
        let mut seen: Vec<u32> = (0..1 << 16).map(scatter).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 1 << 16);
    }
}
