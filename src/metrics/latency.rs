//! A latency histogram that costs a request two additions, and its process-wide sum.
//!
//! Buckets are log-linear as in HDR histograms: every octave of microseconds is cut into [`STEPS`] equal steps, values
//! below 16 us are kept exactly. A bucket that holds one of the published [`BOUNDS`] is cut once more at that bound, so
//! the `le` buckets of the exposition are exact counts and not estimates. A quantile read from it is off by at most one
//! half of a step: 6.25 %.
//!
//! Absent on purpose: floats, atomics and the clock on the recording side; samples kept one by one; a maximum.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The published upper bounds in microseconds: 50 us to 10 s. A value equal to a bound is below it, as `le` says.
pub const BOUNDS: [u32; 20] = [
    50, 100, 200, 300, 500, 1_000, 2_000, 3_000, 5_000, 10_000, 20_000, 30_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 2_000_000, 5_000_000, 10_000_000,
];

/// Steps in an octave.
const STEPS: u32 = 8;
/// Below this a value is its own bucket: two octaves' worth of steps.
const EXACT: u32 = 2 * STEPS;
/// Log-linear cells of the whole `u32` range: the exact ones, then eight for each octave from 2^4 to 2^31.
const CELLS: usize = (EXACT + (32 - EXACT.ilog2()) * STEPS) as usize;
/// Every bound cuts one cell in two.
const BUCKETS: usize = CELLS + BOUNDS.len();

/// Where a cell's values go: to `first` up to and including `cut`, to the next bucket above it.
#[derive(Clone, Copy)]
struct Cell {
    first: u16,
    cut: u32,
}

const CELL: [Cell; CELLS] = cells();
/// The greatest value of each bucket. Where a bound is the last value of its cell, the bucket after it is empty for ever.
const LAST: [u32; BUCKETS] = lasts();
/// For each bucket the number of the least bound that its values do not exceed.
const BOUND: [u8; BUCKETS] = bounds();

/// One worker's latencies of one kind since it was last folded. Plain numbers: about 2 KiB, no sharing.
#[derive(Debug, Clone)]
pub struct LatencyHistogram {
    buckets: Box<[u64; BUCKETS]>,
    sum: u64,
}

impl LatencyHistogram {
    /// Counts one duration, in whole microseconds; what exceeds `u32::MAX` (71 minutes) is to be given as that.
    #[inline]
    pub fn record(&mut self, micros: u32) {
        let cell = CELL[cell_of(micros)];
        self.buckets[usize::from(cell.first) + usize::from(micros > cell.cut)] += 1;
        self.sum += u64::from(micros);
    }

    /// Moves everything into the shared sum and starts again from nothing.
    pub fn fold_into(&mut self, shared: &SharedHistogram) {
        for (mine, all) in self.buckets.iter_mut().zip(&shared.buckets) {
            if *mine != 0 {
                all.fetch_add(std::mem::take(mine), Relaxed);
            }
        }
        shared.sum.fetch_add(std::mem::take(&mut self.sum), Relaxed);
    }
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self { buckets: Box::new([0; BUCKETS]), sum: 0 }
    }
}

/// What all workers recorded since the start. Only ever grows.
#[derive(Debug)]
pub struct SharedHistogram {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl SharedHistogram {
    /// A copy to read from. Taken while workers fold, its sum may miss what its buckets already have.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { buckets: self.buckets.iter().map(|b| b.load(Relaxed)).collect(), sum: self.sum.load(Relaxed) }
    }
}

impl Default for SharedHistogram {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU64::new(0)), sum: AtomicU64::new(0) }
    }
}

/// A histogram at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    buckets: Vec<u64>,
    sum: u64,
}

impl Snapshot {
    /// How many durations there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Their sum in microseconds.
    pub fn sum_micros(&self) -> u64 {
        self.sum
    }

    /// What came after `earlier`, a snapshot of the same histogram.
    pub fn since(&self, earlier: &Self) -> Self {
        let then = earlier.buckets.iter().copied().chain(std::iter::repeat(0));
        let buckets = self.buckets.iter().zip(then).map(|(now, then)| now.saturating_sub(then)).collect();
        Self { buckets, sum: self.sum.saturating_sub(earlier.sum) }
    }

    /// Both together; an empty one is of any histogram.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.buckets.resize(self.buckets.len().max(other.buckets.len()), 0);
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(sum, more)| *sum += more);
        self.sum += other.sum;
        self
    }

    /// The duration in microseconds that a share `q` (0 to 1) of them did not exceed, to within 6.25 %; `None` of none.
    pub fn quantile(&self, q: f64) -> Option<u32> {
        let count = self.count();
        let rank = ((q.clamp(0.0, 1.0) * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut below = 0;
        self.buckets.iter().zip(0..).find_map(|(n, bucket)| {
            below += n;
            (below >= rank).then(|| middle(bucket))
        })
    }

    /// Appends the samples of a Prometheus histogram in the text format. `labels` is `k="v",...` already escaped, or
    /// empty.
    pub(super) fn expose(&self, name: &str, labels: &str, out: &mut String) {
        let mut below = 0;
        let mut bucket = 0;
        let cumulative = BOUNDS.into_iter().map(|bound| {
            while bucket < BUCKETS && LAST[bucket] <= bound {
                below += self.buckets[bucket];
                bucket += 1;
            }
            (bound, below)
        });
        expose(name, labels, cumulative, (self.count(), self.sum), out);
    }
}

/// Appends the samples of a histogram: for each bound how many are not above it, then how many there are, and their sum.
pub(super) fn expose(
    name: &str,
    labels: &str,
    cumulative: impl Iterator<Item = (u32, u64)>,
    (count, sum): (u64, u64),
    out: &mut String,
) {
    let comma = if labels.is_empty() { "" } else { "," };
    for (bound, below) in cumulative {
        let _ = write!(out, "{name}_bucket{{{labels}{comma}le=\"");
        seconds(u64::from(bound), out);
        let _ = writeln!(out, "\"}} {below}");
    }
    let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
    let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    let _ = write!(out, "{name}_sum{braces} ");
    seconds(sum, out);
    let _ = writeln!(out, "\n{name}_count{braces} {count}");
}

/// The number of the least bound that a value does not exceed; one more than there are bounds for what exceeds all.
#[inline]
pub(super) fn bound_of(micros: u32) -> usize {
    let cell = CELL[cell_of(micros)];
    usize::from(BOUND[usize::from(cell.first) + usize::from(micros > cell.cut)])
}

/// Appends microseconds as decimal seconds without trailing zeros: 1500 is `0.0015`.
pub(super) fn seconds(micros: u64, out: &mut String) {
    let _ = write!(out, "{}", micros / 1_000_000);
    let fraction = micros % 1_000_000;
    if fraction != 0 {
        let digits = format!("{fraction:06}");
        let _ = write!(out, ".{}", digits.trim_end_matches('0'));
    }
}

#[inline]
const fn cell_of(micros: u32) -> usize {
    if micros < EXACT {
        return micros as usize;
    }
    let octave = micros.ilog2();
    let step = (micros >> (octave - STEPS.ilog2())) & (STEPS - 1);
    (EXACT + (octave - EXACT.ilog2()) * STEPS + step) as usize
}

/// The greatest value of a cell.
const fn cell_last(cell: usize) -> u32 {
    let cell = cell as u32;
    if cell < EXACT {
        return cell;
    }
    let octave = EXACT.ilog2() + (cell - EXACT) / STEPS;
    let width = 1u32 << (octave - STEPS.ilog2());
    // In this order nothing exceeds u32::MAX, which is the last cell's own last value.
    (1 << octave) - 1 + ((cell - EXACT) % STEPS) * width + width
}

const fn cells() -> [Cell; CELLS] {
    let mut cells = [Cell { first: 0, cut: u32::MAX }; CELLS];
    let (mut cell, mut bound) = (0, 0);
    while cell < CELLS {
        cells[cell].first = (cell + bound) as u16;
        if bound < BOUNDS.len() && BOUNDS[bound] <= cell_last(cell) {
            cells[cell].cut = BOUNDS[bound];
            bound += 1;
            assert!(bound == BOUNDS.len() || BOUNDS[bound] > cell_last(cell), "two bounds in one cell");
        }
        cell += 1;
    }
    cells
}

const fn lasts() -> [u32; BUCKETS] {
    let mut lasts = [0; BUCKETS];
    let mut cell = 0;
    while cell < CELLS {
        let first = CELL[cell].first as usize;
        lasts[first] = cell_last(cell);
        if CELL[cell].cut != u32::MAX {
            lasts[first] = CELL[cell].cut;
            lasts[first + 1] = cell_last(cell);
        }
        cell += 1;
    }
    lasts
}

const fn bounds() -> [u8; BUCKETS] {
    let mut bounds = [0; BUCKETS];
    let (mut bucket, mut bound) = (0, 0);
    while bucket < BUCKETS {
        // The second bucket of a cell that ends with its bound stays empty, wherever it is.
        while bound < BOUNDS.len() && LAST[bucket] > BOUNDS[bound] {
            bound += 1;
        }
        bounds[bucket] = bound as u8;
        bucket += 1;
    }
    bounds
}

fn middle(bucket: usize) -> u32 {
    let first = if bucket == 0 { 0 } else { LAST[bucket - 1].saturating_add(1) };
    first + LAST[bucket].saturating_sub(first) / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(values: &[u32]) -> Snapshot {
        let (mut local, shared) = (LatencyHistogram::default(), SharedHistogram::default());
        values.iter().for_each(|v| local.record(*v));
        local.fold_into(&shared);
        shared.snapshot()
    }

    /// Durations as they are met: every magnitude equally likely, and the bounds with their neighbours.
    fn durations() -> impl Strategy<Value = Vec<u32>> {
        let near = (0..BOUNDS.len(), 0..3u32).prop_map(|(i, d)| BOUNDS[i] + d - 1);
        let any = (0..32u32, any::<u32>()).prop_map(|(shift, v)| v >> shift);
        proptest::collection::vec(prop_oneof![near, any], 1..200)
    }

    #[test]
    fn cells_are_contiguous_and_end_at_the_greatest_value() {
        let mut next = 0u64;
        for cell in 0..CELLS {
            let last = cell_last(cell);
            assert_eq!(cell_of(next as u32), cell, "first value of cell {cell}");
            assert_eq!(cell_of(last), cell, "last value of cell {cell}");
            next = u64::from(last) + 1;
        }
        assert_eq!(next, 1 << 32);
    }

    #[test]
    fn seconds_are_decimal() {
        for (micros, text) in [(0, "0"), (1, "0.000001"), (50, "0.00005"), (1_500_000, "1.5"), (10_000_000, "10")] {
            let mut out = String::new();
            seconds(micros, &mut out);
            assert_eq!(out, text);
        }
    }

    #[test]
    fn nothing_recorded_has_no_quantile() {
        assert_eq!(of(&[]).quantile(0.5), None);
        assert_eq!(of(&[0]).quantile(0.0), Some(0));
    }

    #[test]
    fn folding_twice_adds_nothing() {
        let (mut local, shared) = (LatencyHistogram::default(), SharedHistogram::default());
        local.record(7);
        local.fold_into(&shared);
        let once = shared.snapshot();
        local.fold_into(&shared);
        assert_eq!(shared.snapshot(), once);
        local.record(900);
        local.fold_into(&shared);
        let later = shared.snapshot().since(&once);
        assert_eq!((later.count(), later.sum_micros()), (1, 900));
    }

    proptest! {
        #[test]
        fn published_buckets_count_exactly(values in durations()) {
            let mut text = String::new();
            of(&values).expose("d", "a=\"b\"", &mut text);
            let mut lines = text.lines();
            for bound in BOUNDS {
                let mut le = String::new();
                seconds(u64::from(bound), &mut le);
                let below = values.iter().filter(|v| **v <= bound).count();
                prop_assert_eq!(lines.next().unwrap(), format!("d_bucket{{a=\"b\",le=\"{le}\"}} {below}"));
            }
            let n = values.len();
            prop_assert_eq!(lines.next().unwrap(), format!("d_bucket{{a=\"b\",le=\"+Inf\"}} {n}"));
            let mut sum = String::new();
            seconds(values.iter().map(|v| u64::from(*v)).sum(), &mut sum);
            prop_assert_eq!(lines.next().unwrap(), format!("d_sum{{a=\"b\"}} {sum}"));
            prop_assert_eq!(lines.next().unwrap(), format!("d_count{{a=\"b\"}} {n}"));
            prop_assert_eq!(lines.next(), None);
        }

        #[test]
        fn quantiles_are_within_a_sixteenth(mut values in durations(), q in 0.0..=1.0f64) {
            let got = f64::from(of(&values).quantile(q).unwrap());
            values.sort_unstable();
            let rank = ((q * values.len() as f64).ceil() as usize).max(1);
            let want = f64::from(values[rank - 1]);
            prop_assert!((got - want).abs() <= want / 16.0, "{got} for {want}");
        }

        #[test]
        fn the_order_of_workers_does_not_matter(values in durations(), cut in any::<prop::sample::Index>()) {
            let shared = SharedHistogram::default();
            let (a, b) = values.split_at(cut.index(values.len()));
            for part in [b, a] {
                let mut local = LatencyHistogram::default();
                part.iter().for_each(|v| local.record(*v));
                local.fold_into(&shared);
            }
            prop_assert_eq!(shared.snapshot(), of(&values));
        }
    }
}
