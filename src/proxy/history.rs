//! The last minutes of each pool, one sample a second, from the counters that the workers have published.
//!
//! Promises: the memory is bounded ([`HISTORY`] samples, and a few whole readings, a pool); workers notice nothing.

use super::source::Shared;
use crate::admin::status::{self, HISTORY, Latency, Rates};
use crate::live::LivePool;
use crate::metrics::{Exporter, Snapshot};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;

/// How often a sample is taken.
const EVERY: Duration = Duration::from_secs(1);
/// Over so many samples rates are told.
const WINDOW: usize = 3;

/// Milliseconds since 1970.
pub(super) fn unix_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// What is known of all pools' last minutes.
#[derive(Debug, Default)]
pub(super) struct Histories(BTreeMap<String, Track>);

/// Of one pool.
#[derive(Debug, Default)]
struct Track {
    /// The last readings, the newest last.
    readings: VecDeque<Reading>,
    samples: VecDeque<Sample>,
}

/// The counters at one moment, by metric and label.
#[derive(Debug)]
struct Reading {
    at: Instant,
    counters: BTreeMap<(&'static str, String), u64>,
    latency: Snapshot,
}

#[derive(Debug)]
struct Sample {
    at: u64,
    requests: f64,
    errors: f64,
    p99: Option<u32>,
}

const REQUESTS: &str = "hotring_requests_total";
const ERRORS: &str = "hotring_errors_total";
const SENT: &str = "hotring_server_requests_total";
/// Counters whose rates are told, beside those by label.
const PLAIN: &[&str] = &[
    "hotring_shard_errors_total",
    "hotring_near_hits_total",
    "hotring_copy_hits_total",
    "hotring_replica_reads_total",
    "hotring_joined_requests_total",
    "hotring_misses_leased_total",
    "hotring_stampedes_total",
    "hotring_lease_waits_saved_total",
    "hotring_lease_timeouts_total",
    "hotring_lease_stale_total",
    "hotring_early_refreshes_total",
    "hotring_hot_would_serve_total",
    "hotring_lease_observed_total",
    "hotring_lease_stale_observed_total",
    "hotring_early_observed_total",
];

impl Reading {
    fn of(exporter: &Exporter, pool: &str, at: Instant) -> Self {
        let mut counters = BTreeMap::new();
        for name in PLAIN.iter().chain(&[REQUESTS]) {
            counters.insert((*name, String::new()), exporter.value(name, &[pool]));
        }
        let by_cause = exporter.values(ERRORS, &[pool]);
        counters.insert((ERRORS, String::new()), by_cause.iter().map(|(_, count)| count).sum());
        counters.extend(by_cause.into_iter().map(|(cause, count)| ((ERRORS, cause), count)));
        counters.extend(exporter.values(SENT, &[pool]).into_iter().map(|(shard, count)| ((SENT, shard), count)));
        Self { at, counters, latency: exporter.histogram("hotring_request_duration_seconds", &[pool]) }
    }

    fn get(&self, name: &'static str, label: &str) -> u64 {
        self.counters.get(&(name, label.to_owned())).copied().unwrap_or(0)
    }
}

impl Track {
    fn take(&mut self, reading: Reading, now: u64) {
        if let Some(last) = self.readings.back() {
            let seconds = reading.at.saturating_duration_since(last.at).as_secs_f64().max(0.001);
            let rate = |name| reading.get(name, "").saturating_sub(last.get(name, "")) as f64 / seconds;
            let p99 = reading.latency.since(&last.latency).quantile(0.99);
            let sample = Sample { at: now, requests: round(rate(REQUESTS)), errors: round(rate(ERRORS)), p99 };
            self.samples.push_back(sample);
            if self.samples.len() > HISTORY {
                self.samples.pop_front();
            }
        }
        self.readings.push_back(reading);
        if self.readings.len() > WINDOW + 1 {
            self.readings.pop_front();
        }
    }
}

/// What is told of a pool, from the last readings.
#[derive(Debug)]
pub(super) struct Recent<'h>(Option<&'h Track>);

impl Histories {
    /// Takes a sample of each pool; others are forgotten.
    fn sample<'a>(&mut self, exporter: &Exporter, pools: impl Iterator<Item = &'a LivePool>, at: Instant, now: u64) {
        let mut before = std::mem::take(&mut self.0);
        for pool in pools {
            let name = &pool.pool.name;
            let mut track = before.remove(name).unwrap_or_default();
            track.take(Reading::of(exporter, name, at), now);
            self.0.insert(name.clone(), track);
        }
    }

    pub(super) fn of(&self, pool: &str) -> Recent<'_> {
        Recent(self.0.get(pool))
    }
}

impl Recent<'_> {
    /// A counter by its name and, where it has one, the value of its last label.
    pub(super) fn rates(&self, name: &'static str, label: &str) -> Rates {
        let Some((first, last)) = self.ends() else { return Rates::default() };
        let seconds = last.at.saturating_duration_since(first.at).as_secs_f64();
        let total = last.get(name, label);
        let grown = total.saturating_sub(first.get(name, label)) as f64;
        Rates { total, per_second: if seconds > 0.0 { round(grown / seconds) } else { 0.0 } }
    }

    pub(super) fn requests(&self) -> Rates {
        self.rates(REQUESTS, "")
    }

    pub(super) fn errors(&self) -> Rates {
        self.rates(ERRORS, "")
    }

    /// Those of each cause that there ever were.
    pub(super) fn errors_by_cause(&self) -> BTreeMap<String, Rates> {
        let all = self.ends().into_iter().flat_map(|(_, last)| &last.counters);
        let causes = all.filter(|((name, cause), count)| *name == ERRORS && !cause.is_empty() && **count > 0);
        causes.map(|((_, cause), _)| (cause.clone(), self.rates(ERRORS, cause))).collect()
    }

    /// What a server was sent.
    pub(super) fn sent(&self, shard: &str) -> Rates {
        self.rates(SENT, shard)
    }

    pub(super) fn latency(&self) -> Latency {
        let Some((first, last)) = self.ends() else { return Latency::default() };
        let recent = last.latency.since(&first.latency);
        Latency { count: recent.count(), p50_micros: recent.quantile(0.5), p99_micros: recent.quantile(0.99) }
    }

    pub(super) fn history(&self) -> status::History {
        let mut told = status::History::default();
        for sample in self.0.into_iter().flat_map(|track| &track.samples) {
            told.at.push(sample.at);
            told.requests.push(sample.requests);
            told.errors.push(sample.errors);
            told.p99_micros.push(sample.p99);
        }
        told
    }

    fn ends(&self) -> Option<(&Reading, &Reading)> {
        let track = self.0?;
        Some((track.readings.front()?, track.readings.back()?))
    }
}

/// To a tenth: what is more precise is not known.
pub(super) fn round(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

/// Takes samples until it is told to quit.
#[expect(clippy::disallowed_methods, reason = "whole seconds, on the process' own runtime")]
pub(super) async fn keep(shared: Arc<Shared>, quit: CancellationToken) {
    let mut beat = tokio::time::interval(EVERY);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = quit.cancelled() => return,
            _ = beat.tick() => {}
        }
        let live = shared.live();
        let mut histories = shared.histories.lock().unwrap_or_else(PoisonError::into_inner);
        histories.sample(&shared.exporter, live.listed().map(|(_, pool)| pool), Instant::now(), unix_millis());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Class, PoolCounts};

    #[test]
    fn a_history_is_bounded_and_its_rates_are_of_the_last_seconds() {
        let exporter = Exporter::new();
        let (mut metrics, mut counts) = (exporter.pool("p"), PoolCounts::default());
        let mut track = Track::default();
        #[expect(clippy::disallowed_methods, reason = "a beginning")]
        let start = Instant::now();
        for second in 0..(HISTORY as u64 + 10) {
            counts.requests[Class::Read] += if second < 240 { 10 } else { 40 };
            counts.request_duration[Class::Read].record(if second < 240 { 100 } else { 4000 });
            metrics.fold(&mut counts);
            track.take(Reading::of(&exporter, "p", start + Duration::from_secs(second)), second * 1000);
        }
        let recent = Recent(Some(&track));
        assert_eq!(recent.requests(), Rates { total: 240 * 10 + 10 * 40, per_second: 40.0 });
        assert_eq!(recent.errors(), Rates::default());
        assert_eq!(recent.latency().count, 3);
        assert!((3750..4250).contains(&recent.latency().p99_micros.unwrap()));
        let history = recent.history();
        assert_eq!((history.at.len(), history.requests.len(), history.p99_micros.len()), (HISTORY, HISTORY, HISTORY));
        assert_eq!((history.requests[0], history.requests[HISTORY - 1]), (10.0, 40.0));
        assert!(history.at.is_sorted());
        assert_eq!(track.readings.len(), WINDOW + 1);
    }
}
