//! A histogram of the published bounds and nothing between them, for what there are many of: a twelfth of the memory of a
//! [`LatencyHistogram`](super::LatencyHistogram), and the same cost to record in.
//!
//! Absent on purpose: quantiles. Prometheus makes them of the buckets, to within the distance of two bounds.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::latency::{BOUNDS, bound_of, expose};

/// A bucket for each bound, and one for what is above all of them.
const COUNT: usize = BOUNDS.len() + 1;

/// Which of [`BOUNDS`] are published of a sparse histogram: 100 us, 300 us, 1 ms and so on to 1 s, with 50 ms and 5 s.
const SPARSE: [u32; 11] = [100, 300, 1_000, 3_000, 10_000, 30_000, 50_000, 100_000, 200_000, 1_000_000, 5_000_000];

/// One worker's durations of one kind since it was last folded. A `THIN` one counts as exactly and publishes fewer buckets.
#[derive(Debug, Clone, Default)]
pub struct Buckets<const THIN: bool> {
    counts: [u64; COUNT],
    sum: u64,
}

impl<const THIN: bool> Buckets<THIN> {
    /// Counts one duration, in whole microseconds; what exceeds `u32::MAX` (71 minutes) is to be given as that.
    #[inline]
    pub fn record(&mut self, micros: u32) {
        if let Some(count) = self.counts.get_mut(bound_of(micros)) {
            *count += 1;
        }
        self.sum += u64::from(micros);
    }

    /// Moves everything into the shared sum and starts again from nothing.
    pub fn fold_into(&mut self, shared: &SharedBuckets) {
        for (mine, all) in self.counts.iter_mut().zip(&shared.counts) {
            if *mine != 0 {
                all.fetch_add(std::mem::take(mine), Relaxed);
            }
        }
        shared.sum.fetch_add(std::mem::take(&mut self.sum), Relaxed);
    }
}

/// What all workers recorded since the start. Only ever grows.
#[derive(Debug, Default)]
pub struct SharedBuckets {
    counts: [AtomicU64; COUNT],
    sum: AtomicU64,
    thin: bool,
}

impl SharedBuckets {
    /// One that publishes the sparse bounds only, or all of them.
    pub(super) fn new(thin: bool) -> Self {
        Self { thin, ..Self::default() }
    }

    /// Appends the samples of a Prometheus histogram in the text format; see [`Snapshot`](super::Snapshot).
    pub(super) fn expose(&self, name: &str, labels: &str, out: &mut String) {
        let counts: [u64; COUNT] = std::array::from_fn(|at| self.counts.get(at).map_or(0, |count| count.load(Relaxed)));
        let mut below = 0;
        let cumulative = BOUNDS.into_iter().zip(counts).map(|(bound, count)| {
            below += count;
            (bound, below)
        });
        let published = cumulative.filter(|(bound, _)| !self.thin || SPARSE.contains(bound));
        expose(name, labels, published, (counts.iter().sum(), self.sum.load(Relaxed)), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{LatencyHistogram, SharedHistogram};
    use proptest::prelude::*;

    #[test]
    fn what_is_sparse_is_among_the_bounds() {
        assert!(SPARSE.iter().all(|bound| BOUNDS.contains(bound)) && SPARSE.is_sorted());
    }

    #[test]
    fn a_thin_one_publishes_fewer_buckets_that_say_the_same() {
        let text = |thin: bool| {
            let shared = SharedBuckets::new(thin);
            let mut mine = Buckets::<true>::default();
            [50, 51, 300, 2_000, 60_000, 30_000_000].into_iter().for_each(|micros| mine.record(micros));
            mine.fold_into(&shared);
            mine.fold_into(&shared);
            let mut text = String::new();
            shared.expose("d", "c=\"get\"", &mut text);
            text
        };
        let (thin, full) = (text(true), text(false));
        assert_eq!(thin.lines().count(), SPARSE.len() + 3);
        assert!(thin.lines().all(|line| full.lines().any(|other| other == line)), "{thin}\n{full}");
        assert!(
            thin.ends_with("d_bucket{c=\"get\",le=\"+Inf\"} 6\nd_sum{c=\"get\"} 30.062401\nd_count{c=\"get\"} 6\n")
        );
    }

    proptest! {
        #[test]
        fn it_says_what_the_finer_one_says(values in proptest::collection::vec(any::<u32>(), 1..100)) {
            let (mut fine, all) = (LatencyHistogram::default(), SharedHistogram::default());
            let (mut mine, shared) = (Buckets::<false>::default(), SharedBuckets::new(false));
            for micros in values.iter().flat_map(|value| [*value, value >> 8, value >> 16]) {
                fine.record(micros);
                mine.record(micros);
            }
            fine.fold_into(&all);
            mine.fold_into(&shared);
            let (mut wanted, mut text) = (String::new(), String::new());
            all.snapshot().expose("d", "", &mut wanted);
            shared.expose("d", "", &mut text);
            prop_assert_eq!(text, wanted);
        }
    }
}
