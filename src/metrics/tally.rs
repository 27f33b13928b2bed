//! The kinds of field a declared metric can be: what a worker adds to, and how that reaches the process-wide value.

use std::ops::{AddAssign, Index, IndexMut, SubAssign};
use std::sync::Arc;

use super::export::{Held, Lent, Series};
use super::{Buckets, Kind, LatencyHistogram, SharedBuckets, SharedHistogram};

/// A worker's own count of something, folded into the value all workers share.
pub trait Tally: Default {
    /// The Prometheus type it is published as.
    const KIND: Kind;
    /// The label it adds to its scope's.
    const BY: Option<&'static str> = None;
    /// The shared side. Dropping it takes this worker's share out of a gauge.
    type Handle;

    /// Makes the shared side of one series, or finds the one another worker made.
    fn handle(series: &Series<'_>) -> Self::Handle;
    /// Publishes what changed since the last fold.
    fn fold(&mut self, handle: &mut Self::Handle);
}

/// A counter: add to it; a fold takes what is there and leaves 0.
impl Tally for u64 {
    const KIND: Kind = Kind::Counter;
    type Handle = Held<metrics::Counter>;

    fn handle(series: &Series<'_>) -> Self::Handle {
        series.counter()
    }

    fn fold(&mut self, handle: &mut Self::Handle) {
        if *self != 0 {
            let more = std::mem::take(self);
            handle.increment(more);
            handle.note(|value| value.wrapping_add(more));
        }
    }
}

/// A worker's share of a gauge, such as its open connections. The published gauge is the sum over all workers; a fold
/// leaves the level as it is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Level(u64);

impl Level {
    /// The share now.
    pub fn get(self) -> u64 {
        self.0
    }

    /// Replaces the share.
    pub fn set(&mut self, level: u64) {
        self.0 = level;
    }
}

impl AddAssign<u64> for Level {
    fn add_assign(&mut self, n: u64) {
        self.0 += n;
    }
}

impl SubAssign<u64> for Level {
    /// Stops at 0: a gauge that is off by one is a smaller fault than one of 2^64.
    fn sub_assign(&mut self, n: u64) {
        debug_assert!(self.0 >= n, "a level of {} lowered by {n}", self.0);
        self.0 = self.0.saturating_sub(n);
    }
}

/// A gauge and what this worker has put into it.
#[derive(Debug)]
pub struct Share {
    gauge: Held<metrics::Gauge>,
    published: u64,
}

impl Share {
    fn publish(&mut self, level: u64) {
        if level != self.published {
            self.gauge.note(|value| value.wrapping_add(level).wrapping_sub(self.published));
        }
        if level > self.published {
            self.gauge.increment((level - self.published) as f64);
        } else if level < self.published {
            self.gauge.decrement((self.published - level) as f64);
        }
        self.published = level;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.publish(0);
    }
}

impl Tally for Level {
    const KIND: Kind = Kind::Gauge;
    type Handle = Share;

    fn handle(series: &Series<'_>) -> Self::Handle {
        Share { gauge: series.gauge(), published: 0 }
    }

    fn fold(&mut self, handle: &mut Self::Handle) {
        handle.publish(self.0);
    }
}

/// A gauge that belongs to the process and not to a worker: the last value folded stands.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Setting(
    /// The value; exact up to 2^53.
    pub u64,
);

impl Tally for Setting {
    const KIND: Kind = Kind::Gauge;
    type Handle = Held<metrics::Gauge>;

    fn handle(series: &Series<'_>) -> Self::Handle {
        series.gauge()
    }

    fn fold(&mut self, handle: &mut Self::Handle) {
        handle.set(self.0 as f64);
        handle.note(|_| self.0);
    }
}

impl Tally for LatencyHistogram {
    const KIND: Kind = Kind::Histogram;
    type Handle = Arc<SharedHistogram>;

    fn handle(series: &Series<'_>) -> Self::Handle {
        series.histogram()
    }

    fn fold(&mut self, handle: &mut Self::Handle) {
        self.fold_into(handle);
    }
}

impl<const THIN: bool> Tally for Buckets<THIN> {
    const KIND: Kind = Kind::Histogram;
    type Handle = Arc<SharedBuckets>;

    fn handle(series: &Series<'_>) -> Self::Handle {
        series.buckets(THIN)
    }

    fn fold(&mut self, handle: &mut Self::Handle) {
        self.fold_into(handle);
    }
}

/// A gauge that another tells: absent while it does not.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Told(
    /// The value; exact up to 2^53.
    pub Option<u64>,
);

impl Tally for Told {
    const KIND: Kind = Kind::Gauge;
    type Handle = Lent;

    fn handle(series: &Series<'_>) -> Self::Handle {
        series.told()
    }

    fn fold(&mut self, handle: &mut Self::Handle) {
        handle.tell(self.0);
    }
}

/// A counter that another keeps, and that begins anew when that does: absent while it is not told.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct ToldCount(
    /// The value; exact up to 2^53.
    pub Option<u64>,
);

impl Tally for ToldCount {
    const KIND: Kind = Kind::Counter;
    type Handle = Lent;

    fn handle(series: &Series<'_>) -> Self::Handle {
        series.told()
    }

    fn fold(&mut self, handle: &mut Self::Handle) {
        handle.tell(self.0);
    }
}

/// The values a label can have: an enum without data.
pub trait Label: Copy + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// All values, in the order of their index.
    const ALL: &'static [Self];
    /// The value as rendered.
    fn as_str(self) -> &'static str;
    /// Its place in [`Self::ALL`].
    fn index(self) -> usize;

    /// The value that is rendered as `name`.
    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|value| value.as_str() == name)
    }
}

/// One tally for each value of a label: `counts.requests[Class::Read] += 1`. `N` is the label's `COUNT`.
#[derive(Debug, Clone)]
pub struct Per<L, T, const N: usize> {
    tallies: [T; N],
    label: std::marker::PhantomData<L>,
}

impl<L: Label, T: Tally, const N: usize> Default for Per<L, T, N> {
    fn default() -> Self {
        const { assert!(N == L::ALL.len(), "N is the label's COUNT") };
        Self { tallies: std::array::from_fn(|_| T::default()), label: std::marker::PhantomData }
    }
}

impl<L: Label, T, const N: usize> Index<L> for Per<L, T, N> {
    type Output = T;

    #[inline]
    fn index(&self, label: L) -> &T {
        &self.tallies[label.index()]
    }
}

impl<L: Label, T, const N: usize> IndexMut<L> for Per<L, T, N> {
    #[inline]
    fn index_mut(&mut self, label: L) -> &mut T {
        &mut self.tallies[label.index()]
    }
}

impl<L: Label, T: Tally, const N: usize> Tally for Per<L, T, N> {
    const KIND: Kind = T::KIND;
    const BY: Option<&'static str> = Some(L::NAME);
    type Handle = [T::Handle; N];

    fn handle(series: &Series<'_>) -> Self::Handle {
        std::array::from_fn(|i| T::handle(&series.by(L::NAME, L::ALL[i].as_str())))
    }

    fn fold(&mut self, handle: &mut Self::Handle) {
        self.tallies.iter_mut().zip(handle).for_each(|(tally, handle)| tally.fold(handle));
    }
}
