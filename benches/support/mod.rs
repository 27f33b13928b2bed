//! Measures and prints: the median of nanoseconds, and allocations, for each operation.

#[path = "counting.rs"]
pub mod counting;

use std::time::{Duration, Instant};

/// Samples taken, and how long each should take.
const SAMPLES: usize = 41;
const SAMPLE: Duration = Duration::from_millis(5);

/// Prints what the numbers of [`measure`] mean.
pub fn head(title: &str) {
    println!("\n{title:<52}{:>12}{:>10}{:>14}", "ns median", "best", "allocations");
}

/// Times `round`, which does `operations` of what `name` says, and prints a line. Returns the median in nanoseconds.
///
/// Run other than by `cargo bench` it only sees that the benchmark works.
pub fn measure(name: &str, operations: u64, mut round: impl FnMut()) -> f64 {
    if !std::env::args().any(|argument| argument == "--bench") {
        round();
        return 0.0;
    }
    let mut rounds = 1u64;
    loop {
        let start = Instant::now();
        (0..rounds).for_each(|_| round());
        if start.elapsed() >= SAMPLE {
            break;
        }
        rounds *= 2;
    }
    let before = counting::allocations();
    let mut samples: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            let start = Instant::now();
            (0..rounds).for_each(|_| round());
            start.elapsed().as_secs_f64() * 1e9 / (rounds * operations) as f64
        })
        .collect();
    // The list of samples is one allocation itself.
    let allocations = (counting::allocations() - before - 1) as f64 / (SAMPLES as u64 * rounds * operations) as f64;
    samples.sort_by(f64::total_cmp);
    let median = samples[SAMPLES / 2];
    println!("{name:<52}{median:>12.1}{:>10.1}{allocations:>14.3}", samples[0]);
    median
}
