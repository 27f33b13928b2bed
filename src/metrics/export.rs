//! The process-wide values and their text.
//!
//! Values live in the exporter's registry; families, their help, their order and their histograms are written here,
//! because the exporter renders in hash order, keeps what nobody holds any more, counts in whole numbers only and keeps
//! every single sample of a histogram. Nothing here runs for a request.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use metrics::{Key, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::buckets::SharedBuckets;
use super::latency::{self, SharedHistogram, Snapshot};
use super::{
    BackendMetrics, BuildMetrics, CertificateMetrics, CommandMetrics, EmbeddedMetrics, InfoMetrics, Kind, LimitMetrics,
    METRICS, Metric, PoolMetrics, PrefixMetrics, ProcessMetrics, TopologyMetrics, Unit, UserMetrics, VersionMetrics,
    WorkerMetrics,
};

/// All metrics of one process.
#[derive(Debug)]
pub struct Exporter {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    known: Mutex<Known>,
}

/// The series made so far, by name and labels as rendered. One nobody else holds is not rendered. With each its value, which the
/// registry gives to nobody.
#[derive(Debug, Default)]
struct Known {
    holders: BTreeMap<String, Arc<AtomicU64>>,
    histograms: BTreeMap<(&'static str, String), Arc<SharedHistogram>>,
    buckets: BTreeMap<(&'static str, String), Arc<SharedBuckets>>,
}

impl Exporter {
    /// An exporter with no series, independent of any other.
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        Self { recorder, handle, known: Mutex::default() }
    }

    /// One worker's handles for a pool.
    pub fn pool(&self, pool: &str) -> PoolMetrics {
        PoolMetrics::of(self, &[pool])
    }

    /// One worker's handles for a backend; `backend` is its name in the ring.
    pub fn backend(&self, pool: &str, backend: &str) -> BackendMetrics {
        BackendMetrics::of(self, &[pool, backend])
    }

    /// One worker's handles for a limit of a pool.
    pub fn limit(&self, pool: &str, limit: &str) -> LimitMetrics {
        LimitMetrics::of(self, &[pool, limit])
    }

    /// The handles of a user of a pool.
    pub fn user(&self, pool: &str, user: &str) -> UserMetrics {
        UserMetrics::of(self, &[pool, user])
    }

    /// One worker's handles for a command, by its name, of a pool.
    pub fn command(&self, pool: &str, command: &str) -> CommandMetrics {
        CommandMetrics::of(self, &[pool, command])
    }

    /// One worker's handles for one of the prefixes of a pool.
    pub fn prefix(&self, pool: &str, prefix: &str) -> PrefixMetrics {
        PrefixMetrics::of(self, &[pool, prefix])
    }

    /// The handles of what a backend tells of itself.
    pub fn info(&self, pool: &str, backend: &str) -> InfoMetrics {
        InfoMetrics::of(self, &[pool, backend])
    }

    /// The handles of the version that a backend has.
    pub fn version(&self, pool: &str, backend: &str, version: &str) -> VersionMetrics {
        VersionMetrics::of(self, &[pool, backend, version])
    }

    /// The handles of a file with certificates.
    pub fn certificate(&self, pool: &str, file: &str) -> CertificateMetrics {
        CertificateMetrics::of(self, &[pool, file])
    }

    /// The handles of a pool's topology.
    pub fn topology(&self, pool: &str) -> TopologyMetrics {
        TopologyMetrics::of(self, &[pool])
    }

    /// The handles of an embedded node.
    pub fn embedded(&self, pool: &str, backend: &str) -> EmbeddedMetrics {
        EmbeddedMetrics::of(self, &[pool, backend])
    }

    /// The handles of the worker with this number.
    pub fn worker(&self, n: usize) -> WorkerMetrics {
        WorkerMetrics::of(self, &[&n.to_string()])
    }

    /// The handles of what the process has once.
    pub fn process(&self) -> ProcessMetrics {
        ProcessMetrics::of(self, &[])
    }

    /// The handles of the running build.
    pub fn build(&self, version: &str) -> BuildMetrics {
        BuildMetrics::of(self, &[version])
    }

    /// Everything in the text format, version 0.0.4: families as declared, series in order of their labels.
    pub fn render(&self) -> String {
        let mut families: BTreeMap<&str, Vec<(String, String)>> = BTreeMap::new();
        let rendered = self.handle.render();
        let known = self.known();
        for line in rendered.lines().filter(|line| !line.starts_with('#')) {
            let Some((coded, value)) = line.rsplit_once(' ') else { continue };
            let series = uncoded(coded);
            if known.holders.get(&*series).is_some_and(|holder| Arc::strong_count(holder) > 1) {
                let name = coded.split_once('{').map_or(coded, |(name, _)| name);
                families.entry(name).or_default().push((series.into_owned(), value.to_owned()));
            }
        }
        let mut out = String::with_capacity(rendered.len() + 4096);
        for metric in METRICS {
            let mut samples = String::new();
            let mut series = families.remove(metric.name).unwrap_or_default();
            series.sort_unstable();
            for (series, value) in series {
                let _ = write!(samples, "{series} ");
                match (metric.unit, value.parse()) {
                    (Unit::Seconds | Unit::Ratio, Ok(micros)) => latency::seconds(micros, &mut samples),
                    _ => samples.push_str(&value),
                }
                samples.push('\n');
            }
            let of_metric = known.histograms.iter().filter(|((name, _), _)| *name == metric.name);
            for ((name, labels), histogram) in of_metric.filter(|(_, shared)| Arc::strong_count(shared) > 1) {
                histogram.snapshot().expose(name, labels, &mut samples);
            }
            let of_metric = known.buckets.iter().filter(|((name, _), _)| *name == metric.name);
            for ((name, labels), buckets) in of_metric.filter(|(_, shared)| Arc::strong_count(shared) > 1) {
                buckets.expose(name, labels, &mut samples);
            }
            if !samples.is_empty() {
                let (name, kind) = (metric.name, metric.kind.as_str());
                let _ = write!(out, "# HELP {name} {}\n# TYPE {name} {kind}\n{samples}", metric.help);
            }
        }
        out
    }

    /// The value of a counter or gauge whose labels have these values, in the order in which they are declared; 0 where there is
    /// none. Counts what is rendered, in whole numbers: micros of seconds, millionths of ratios.
    pub fn value(&self, name: &'static str, values: &[&str]) -> u64 {
        debug_assert!(METRICS.iter().any(|metric| metric.name == name), "{name}");
        self.under(name, values, |_, value| value).into_iter().sum()
    }

    /// The same of each value of the label that follows: for a metric that has one more.
    pub fn values(&self, name: &'static str, values: &[&str]) -> Vec<(String, u64)> {
        debug_assert!(METRICS.iter().any(|metric| metric.name == name), "{name}");
        let first = if values.is_empty() { "{" } else { "," };
        let next = |rest: &str| value_of(rest.strip_prefix(first).unwrap_or_default());
        self.under(name, values, |rest, value| (next(rest), value))
    }

    /// All histograms of a metric whose labels begin with these values, as one.
    pub fn histogram(&self, name: &'static str, values: &[&str]) -> Snapshot {
        let Some(metric) = METRICS.iter().find(|metric| metric.name == name) else { return Snapshot::default() };
        let prefix = labels_of(metric, values);
        let known = self.known();
        let all = known.histograms.range((name, prefix.clone())..);
        let ours = all.take_while(|((of, labels), _)| *of == name && labels.starts_with(&prefix));
        ours.filter(|((_, labels), _)| is_under(labels, &prefix))
            .fold(Snapshot::default(), |sum, (_, histogram)| sum.and(&histogram.snapshot()))
    }

    /// What is made of each series whose labels begin with these values, and of what follows these in it.
    fn under<T>(&self, name: &str, values: &[&str], make: impl Fn(&str, u64) -> T) -> Vec<T> {
        let Some(metric) = METRICS.iter().find(|metric| metric.name == name) else { return Vec::new() };
        let labels = labels_of(metric, values);
        let prefix = if labels.is_empty() { name.to_owned() } else { format!("{name}{{{labels}") };
        let known = self.known();
        let all = known.holders.range(prefix.clone()..).take_while(|(series, _)| series.starts_with(&prefix));
        let held = all.filter(|(_, holder)| Arc::strong_count(holder) > 1);
        // Another metric's name, or another pool's, may begin as this one does.
        held.filter(|(series, _)| is_under(series, &prefix))
            .map(|(series, value)| make(series.get(prefix.len()..).unwrap_or_default(), value.load(Relaxed)))
            .collect()
    }

    /// Lets the exporter tidy up; call it every few seconds.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Exporter {
    fn default() -> Self {
        Self::new()
    }
}

/// One series about to be made: a metric and its label values.
pub struct Series<'a> {
    exporter: &'a Exporter,
    metric: &'static Metric,
    labels: Vec<(&'static str, String)>,
}

impl<'a> Series<'a> {
    pub(super) fn new(exporter: &'a Exporter, metric: &'static Metric, values: &[&str]) -> Self {
        debug_assert_eq!(metric.scope.len(), values.len());
        let labels = metric.scope.iter().zip(values).map(|(name, value)| (*name, plain(value))).collect();
        Self { exporter, metric, labels }
    }

    /// The same with one label more.
    pub(super) fn by(&self, name: &'static str, value: &str) -> Self {
        let more = (name, plain(value));
        let labels = self.labels.iter().cloned().chain([more]).collect();
        Self { exporter: self.exporter, metric: self.metric, labels }
    }

    pub(super) fn counter(&self) -> Held<metrics::Counter> {
        debug_assert_eq!(self.metric.kind, Kind::Counter);
        Held { handle: self.exporter.recorder.register_counter(&self.key(), &METADATA), value: self.hold() }
    }

    pub(super) fn gauge(&self) -> Held<metrics::Gauge> {
        debug_assert_eq!(self.metric.kind, Kind::Gauge);
        Held { handle: self.exporter.recorder.register_gauge(&self.key(), &METADATA), value: self.hold() }
    }

    pub(super) fn histogram(&self) -> Arc<SharedHistogram> {
        debug_assert_eq!(self.metric.kind, Kind::Histogram);
        self.exporter.known().histograms.entry((self.metric.name, self.text())).or_default().clone()
    }

    pub(super) fn buckets(&self, thin: bool) -> Arc<SharedBuckets> {
        debug_assert_eq!(self.metric.kind, Kind::Histogram);
        let mut known = self.exporter.known();
        let made = || Arc::new(SharedBuckets::new(thin));
        known.buckets.entry((self.metric.name, self.text())).or_insert_with(made).clone()
    }

    /// A value that is another's to tell, and may not be told: rendered as whatever the metric is, as long as it is.
    pub(super) fn told(&self) -> Lent {
        let gauge = self.exporter.recorder.register_gauge(&self.key(), &METADATA);
        Lent { gauge, known: Arc::downgrade(&self.hold()), told: None }
    }

    fn key(&self) -> Key {
        let labels: Vec<_> = self.labels.iter().map(|(k, v)| metrics::Label::new(*k, coded(v))).collect();
        Key::from_parts(self.metric.name, labels)
    }

    fn hold(&self) -> Arc<AtomicU64> {
        let (name, labels) = (self.metric.name, self.text());
        let series = if labels.is_empty() { name.to_owned() } else { format!("{name}{{{labels}}}") };
        self.exporter.known().holders.entry(series).or_default().clone()
    }

    /// The labels as they are rendered.
    fn text(&self) -> String {
        text(&self.labels)
    }
}

impl fmt::Debug for Series<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{{{}}}", self.metric.name, self.text())
    }
}

/// A handle of the registry that keeps its series rendered as long as it lives.
#[derive(Debug)]
pub struct Held<H> {
    handle: H,
    value: Arc<AtomicU64>,
}

impl<H> Held<H> {
    /// Changes the value that is read without rendering, as the handle's is changed.
    pub(super) fn note(&self, change: impl Fn(u64) -> u64) {
        let _ = self.value.fetch_update(Relaxed, Relaxed, |value| Some(change(value)));
    }
}

impl<H> Deref for Held<H> {
    type Target = H;

    fn deref(&self) -> &H {
        &self.handle
    }
}

/// A value of the registry whose series is rendered only while it has been told.
#[derive(Debug)]
pub struct Lent {
    gauge: metrics::Gauge,
    known: Weak<AtomicU64>,
    told: Option<Arc<AtomicU64>>,
}

impl Lent {
    pub(super) fn tell(&mut self, value: Option<u64>) {
        self.told = match value {
            Some(value) => {
                self.gauge.set(value as f64);
                let told = self.told.take().or_else(|| self.known.upgrade());
                told.inspect(|told| told.store(value, Relaxed))
            }
            None => None,
        };
    }
}

const METADATA: Metadata<'static> = Metadata::new("hotring", metrics::Level::INFO, None);

/// Labels as the text format wants them.
fn text(labels: &[(&'static str, String)]) -> String {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"");
    let labels: Vec<_> = labels.iter().map(|(k, v)| format!("{k}=\"{}\"", escaped(v))).collect();
    labels.join(",")
}

/// The first labels of a metric with these values.
fn labels_of(metric: &'static Metric, values: &[&str]) -> String {
    let labels: Vec<_> = metric.labels().zip(values).map(|(name, value)| (name, plain(value))).collect();
    text(&labels)
}

/// Whether what begins with a prefix ends there, or goes on with another label.
fn is_under(series: &str, prefix: &str) -> bool {
    series.get(prefix.len()..).is_some_and(|rest| rest.is_empty() || rest.starts_with(['{', ',', '}']))
}

/// The value of the first of these labels, as it was before it was escaped.
fn value_of(labels: &str) -> String {
    let mut chars = labels.split_once("=\"").map_or("", |(_, value)| value).chars();
    let mut value = String::new();
    while let Some(c) = chars.next().filter(|&c| c != '"') {
        value.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    value
}

/// A label's value without control characters, which become `_`.
fn plain(value: &str) -> String {
    value.chars().map(|c| if c.is_control() { '_' } else { c }).collect()
}

/// What the exporter escapes, each with what stands for it there; the exporter's escaping makes some different values equal, and
/// a series must not appear twice.
const CODES: [(char, &str); 3] = [('%', "%p"), ('\\', "%b"), ('"', "%q")];

/// A label's value as the exporter knows it.
fn coded(value: &str) -> String {
    CODES.iter().fold(value.to_owned(), |value, (c, code)| value.replace(*c, code))
}

/// A series of the exporter's as it is to be rendered.
fn uncoded(series: &str) -> Cow<'_, str> {
    if !series.contains('%') {
        return series.into();
    }
    // The first one last: until then no `%` is one of a value.
    series.replace("%q", "\\\"").replace("%b", "\\\\").replace("%p", "%").into()
}
