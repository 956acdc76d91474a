//! Metrics in Prometheus' text format. The only user of the `prometheus` crate.
//!
//! Names follow the conventions of Prometheus: `dfs_<part>_<what>_<unit>`, `_total` for counters.
//! Every label has a closed list of values, so that no client can create unbounded series; only
//! [`Series`] accept any, and whatever sets them must remove them.

use std::fmt;
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};

const NAMES: &str = "each metric is created once, under a valid name";

/// Upper bounds of the buckets of durations, in seconds.
const SECONDS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    10.0, 60.0,
];

/// Label value for values that are not listed.
const OTHER: &str = "other";

/// The labels of a family of metrics, each with its possible values.
pub type Labels<'a> = &'a [(&'static str, &'a [&'static str])];

/// The metrics of one server. Cheap to clone. Creating two of one name is a bug, and panics.
#[derive(Clone)]
pub struct Metrics(Registry);

/// A monotonic count.
#[derive(Debug, Clone)]
pub struct Counter(prometheus::IntCounter);

/// A number that can increase and decrease.
#[derive(Debug, Clone)]
pub struct Gauge(prometheus::IntGauge);

/// A distribution of durations.
#[derive(Debug, Clone)]
pub struct Histogram(prometheus::Histogram);

/// Counters by label.
#[derive(Debug, Clone)]
pub struct Counters(IntCounterVec, Values);

/// Gauges by label.
#[derive(Debug, Clone)]
pub struct Gauges(IntGaugeVec, Values);

/// Gauges of transient objects, with arbitrary label values.
#[derive(Debug, Clone)]
pub struct Series(IntGaugeVec);

/// Histograms by label.
#[derive(Debug, Clone)]
pub struct Histograms(HistogramVec, Values);

impl Metrics {
    /// Creates the metrics of a process, including `dfs_build_info` with its version and this role.
    pub fn new(role: &'static str) -> Self {
        let metrics = Self(Registry::new());
        metrics.register(prometheus::process_collector::ProcessCollector::for_self());
        let version = env!("CARGO_PKG_VERSION");
        metrics
            .gauges("dfs_build_info", "Always 1.", &[("role", &[role]), ("version", &[version])])
            .of(&[role, version])
            .set(1);
        metrics
    }

    /// Creates a counter.
    pub fn counter(&self, name: &'static str, help: &'static str) -> Counter {
        self.counters(name, help, &[]).of(&[])
    }

    /// Creates a gauge.
    pub fn gauge(&self, name: &'static str, help: &'static str) -> Gauge {
        self.gauges(name, help, &[]).of(&[])
    }

    /// Creates a gauge that calls `read` on each scrape. It must not block.
    pub fn gauge_fn(
        &self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> i64 + Send + Sync + 'static,
    ) {
        let gauge = prometheus::IntGauge::new(name, help).expect(NAMES);
        self.register(Read { gauge, read });
    }

    /// Creates a histogram of durations.
    pub fn histogram(&self, name: &'static str, help: &'static str) -> Histogram {
        self.histograms(name, help, &[]).of(&[])
    }

    /// Creates counters by label.
    pub fn counters(&self, name: &'static str, help: &'static str, labels: Labels<'_>) -> Counters {
        let values = Values::new(labels);
        let family = IntCounterVec::new(Opts::new(name, help), &values.names()).expect(NAMES);
        self.register(family.clone());
        Counters(family, values)
    }

    /// Creates gauges by label.
    pub fn gauges(&self, name: &'static str, help: &'static str, labels: Labels<'_>) -> Gauges {
        let values = Values::new(labels);
        let family = IntGaugeVec::new(Opts::new(name, help), &values.names()).expect(NAMES);
        self.register(family.clone());
        Gauges(family, values)
    }

    /// Creates gauges of transient objects.
    pub fn series(&self, name: &'static str, help: &'static str, labels: &[&str]) -> Series {
        let family = IntGaugeVec::new(Opts::new(name, help), labels).expect(NAMES);
        self.register(family.clone());
        Series(family)
    }

    /// Creates histograms of durations by label.
    pub fn histograms(
        &self,
        name: &'static str,
        help: &'static str,
        labels: Labels<'_>,
    ) -> Histograms {
        let values = Values::new(labels);
        let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
        let family = HistogramVec::new(options, &values.names()).expect(NAMES);
        self.register(family.clone());
        Histograms(family, values)
    }

    /// Renders all metrics as text.
    pub fn render(&self) -> String {
        TextEncoder::new().encode_to_string(&self.0.gather()).unwrap_or_else(|error| {
            tracing::error!(%error, "cannot render the metrics");
            String::new()
        })
    }

    fn register(&self, collector: impl Collector + 'static) {
        self.0.register(Box::new(collector)).expect(NAMES);
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.0.inc();
    }

    /// Adds several.
    pub fn add(&self, count: u64) {
        self.0.inc_by(count);
    }

    /// Returns the count.
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

impl Gauge {
    /// Sets the value.
    pub fn set(&self, value: i64) {
        self.0.set(value);
    }

    /// Changes the value.
    pub fn add(&self, change: i64) {
        self.0.add(change);
    }

    /// Returns the value.
    pub fn get(&self) -> i64 {
        self.0.get()
    }
}

impl Histogram {
    /// Records a duration.
    pub fn observe(&self, duration: Duration) {
        self.0.observe(duration.as_secs_f64());
    }

    /// Returns the number of durations.
    pub fn count(&self) -> u64 {
        self.0.get_sample_count()
    }
}

impl Counters {
    /// Returns the counter for these values, in the order of the labels. An unlisted value counts
    /// as `other`.
    pub fn of(&self, values: &[&str]) -> Counter {
        Counter(self.0.with_label_values(&self.1.checked(values)))
    }
}

impl Gauges {
    /// Returns the gauge for these values, in the order of the labels. An unlisted value is shown
    /// as `other`.
    pub fn of(&self, values: &[&str]) -> Gauge {
        Gauge(self.0.with_label_values(&self.1.checked(values)))
    }
}

impl Series {
    /// Sets the gauge for these values, in the order of the labels.
    pub fn set(&self, values: &[&str], value: i64) {
        self.0.with_label_values(values).set(value);
    }

    /// Removes the gauge for these values, if it exists.
    pub fn remove(&self, values: &[&str]) {
        // The only error is that it does not exist.
        let _ = self.0.remove_label_values(values);
    }
}

impl Histograms {
    /// Returns the histogram for these values, in the order of the labels. An unlisted value counts
    /// as `other`.
    pub fn of(&self, values: &[&str]) -> Histogram {
        Histogram(self.0.with_label_values(&self.1.checked(values)))
    }
}

/// The labels of a family, with their possible values.
#[derive(Debug, Clone)]
struct Values(Vec<(&'static str, Vec<&'static str>)>);

impl Values {
    fn new(labels: Labels<'_>) -> Self {
        Self(labels.iter().map(|(name, values)| (*name, values.to_vec())).collect())
    }

    fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|(name, _)| *name).collect()
    }

    fn checked(&self, values: &[&str]) -> Vec<&'static str> {
        assert_eq!(values.len(), self.0.len(), "one value for each label");
        self.0
            .iter()
            .zip(values)
            .map(|((_, known), value)| known.iter().find(|k| *k == value).copied().unwrap_or(OTHER))
            .collect()
    }
}

/// A gauge that is computed on each scrape.
struct Read<F> {
    gauge: prometheus::IntGauge,
    read: F,
}

impl<F: Fn() -> i64 + Send + Sync> Collector for Read<F> {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gauge.set((self.read)());
        self.gauge.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    #[test]
    fn all_metrics_are_rendered() {
        let metrics = Metrics::new("test");
        metrics.counter("dfs_a_total", "A.").add(2);
        metrics.gauge("dfs_b", "B.").set(-3);
        metrics.histogram("dfs_c_seconds", "C.").observe(Duration::from_millis(3));
        let level = Arc::new(AtomicI64::new(1));
        let read = Arc::clone(&level);
        metrics.gauge_fn("dfs_d", "D.", move || read.load(Ordering::Relaxed));
        level.store(9, Ordering::Relaxed);
        let text = metrics.render();
        for line in [
            "# HELP dfs_a_total A.",
            "# TYPE dfs_a_total counter",
            "dfs_a_total 2",
            "dfs_b -3",
            "dfs_c_seconds_bucket{le=\"0.0025\"} 0",
            "dfs_c_seconds_bucket{le=\"0.005\"} 1",
            "dfs_c_seconds_count 1",
            "dfs_d 9",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(text.contains("dfs_build_info{role=\"test\",version="));
        assert!(text.contains("process_resident_memory_bytes "));
    }

    #[test]
    fn label_values_are_bounded() {
        let metrics = Metrics::new("test");
        let calls = metrics.counters("dfs_calls_total", "C.", &[("code", &["OK", "BUSY"])]);
        calls.of(&["OK"]).increment();
        for i in 0..100 {
            calls.of(&[&format!("made-up-{i}")]).increment();
        }
        let text = metrics.render();
        let lines: Vec<&str> =
            text.lines().filter(|line| line.starts_with("dfs_calls_total{")).collect();
        assert_eq!(
            lines,
            ["dfs_calls_total{code=\"OK\"} 1", "dfs_calls_total{code=\"other\"} 100"]
        );
    }

    #[test]
    fn clones_share_their_values() {
        let metrics = Metrics::new("test");
        let times = metrics.histograms("dfs_t_seconds", "T.", &[("op", &["put"])]);
        times.of(&["put"]).observe(Duration::ZERO);
        times.clone().of(&["put"]).observe(Duration::ZERO);
        assert_eq!(times.of(&["put"]).count(), 2);
    }

    #[test]
    fn series_are_added_and_removed() {
        let metrics = Metrics::new("test");
        let series = metrics.series("dfs_e", "E.", &["name"]);
        series.set(&["a"], 1);
        series.set(&["b"], 2);
        series.remove(&["a"]);
        series.remove(&["c"]);
        let text = metrics.render();
        assert!(text.contains("dfs_e{name=\"b\"} 2") && !text.contains("name=\"a\""), "{text}");
    }
}
