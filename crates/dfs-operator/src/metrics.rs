//! Metrics of the operator.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dfs_crd::{ClusterStatus, ConditionType, DatanodeState};
use dfs_runtime::{Counters, Gauge, Histogram, Metrics, Series};

use crate::status::is_true;

/// Results of a reconcile.
pub(crate) const RESULTS: [&str; 3] = ["ok", "error", "panic"];
/// Steps at which a reconcile may fail.
pub(crate) const REASONS: [&str; 5] = ["observe", "api", "coordinator", "publish", "panic"];

/// States of datanodes, as named in metrics.
const STATES: [(DatanodeState, &str); 9] = [
    (DatanodeState::Pending, "pending"),
    (DatanodeState::Joining, "joining"),
    (DatanodeState::Active, "active"),
    (DatanodeState::Suspect, "suspect"),
    (DatanodeState::Draining, "draining"),
    (DatanodeState::Drained, "drained"),
    (DatanodeState::Removed, "removed"),
    (DatanodeState::Maintenance, "maintenance"),
    (DatanodeState::Lost, "lost"),
];

/// The operator's own metrics, and those of the clusters it manages.
#[derive(Debug, Clone)]
pub(crate) struct OperatorMetrics {
    pub(crate) reconciles: Counters,
    pub(crate) duration: Histogram,
    pub(crate) errors: Counters,
    pub(crate) is_leader: Gauge,
    queue_depth: Gauge,
    nodes: Series,
    under_replicated: Series,
    missing: Series,
    capacity: Series,
    used: Series,
    paused: Series,
    /// Clusters with a change that awaits its reconciliation.
    waiting: Arc<Mutex<BTreeSet<(String, String)>>>,
}

impl OperatorMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let of = ["namespace", "name"];
        Self {
            reconciles: metrics.counters(
                "dfs_operator_reconcile_total",
                "Reconciles, by result.",
                &[("result", &RESULTS)],
            ),
            duration: metrics
                .histogram("dfs_operator_reconcile_duration_seconds", "Duration of reconciles."),
            errors: metrics.counters(
                "dfs_operator_reconcile_errors_total",
                "Reconciles that failed, by the step that failed.",
                &[("reason", &REASONS)],
            ),
            is_leader: metrics.gauge(
                "dfs_operator_leader",
                "1 on the operator that holds the lease, otherwise 0.",
            ),
            queue_depth: metrics.gauge(
                "dfs_operator_queue_depth",
                "Clusters with a change whose reconcile has not started.",
            ),
            nodes: metrics.series(
                "dfs_cluster_nodes",
                "Datanodes of a cluster, by state.",
                &["namespace", "name", "state"],
            ),
            under_replicated: metrics.series(
                "dfs_cluster_under_replicated_chunks",
                "Chunks of a cluster that lack replicas, but have one.",
                &of,
            ),
            missing: metrics.series(
                "dfs_cluster_missing_chunks",
                "Chunks of a cluster without a reachable replica.",
                &of,
            ),
            capacity: metrics.series(
                "dfs_cluster_capacity_bytes",
                "Capacity of a cluster in bytes.",
                &of,
            ),
            used: metrics.series(
                "dfs_cluster_used_bytes",
                "Bytes used by a cluster, including all replicas.",
                &of,
            ),
            paused: metrics.series(
                "dfs_cluster_paused",
                "1 while a cluster is paused, otherwise 0.",
                &of,
            ),
            waiting: Arc::default(),
        }
    }

    /// Records that a cluster has a change.
    pub(crate) fn queued(&self, namespace: &str, name: &str) {
        self.with_waiting(|waiting| {
            waiting.insert((namespace.to_owned(), name.to_owned()));
        });
    }

    /// Records the start of a reconciliation.
    pub(crate) fn begun(&self, namespace: &str, name: &str) {
        self.with_waiting(|waiting| {
            waiting.remove(&(namespace.to_owned(), name.to_owned()));
        });
    }

    fn with_waiting(&self, change: impl FnOnce(&mut BTreeSet<(String, String)>)) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut waiting);
        self.queue_depth.set(waiting.len() as i64);
    }

    /// Records a reconciliation that failed at this step.
    pub(crate) fn failed(&self, reason: &str) {
        self.errors.of(&[reason]).increment();
        let result = if reason == "panic" { "panic" } else { "error" };
        self.reconciles.of(&[result]).increment();
    }

    /// Records a successful reconciliation.
    pub(crate) fn succeeded(&self, took: Duration) {
        self.reconciles.of(&["ok"]).increment();
        self.duration.observe(took);
    }

    /// Records the state of a cluster.
    pub(crate) fn show(&self, namespace: &str, name: &str, status: &ClusterStatus) {
        let of = [namespace, name];
        for (state, label) in STATES {
            let count = status.datanodes.iter().filter(|line| line.state == state).count();
            self.nodes.set(&[namespace, name, label], count as i64);
        }
        if let Some(replication) = &status.replication {
            self.under_replicated.set(&of, replication.under_replicated_chunks);
            self.missing.set(&of, replication.missing_chunks);
        }
        if let Some(capacity) = &status.capacity {
            self.capacity.set(&of, capacity.total_bytes);
            self.used.set(&of, capacity.used_bytes);
        }
        let is_paused = is_true(&status.conditions, ConditionType::Paused);
        self.paused.set(&of, i64::from(is_paused));
    }

    /// Removes the metrics of a cluster that is gone.
    pub(crate) fn forget(&self, namespace: &str, name: &str) {
        for (_, label) in STATES {
            self.nodes.remove(&[namespace, name, label]);
        }
        for series in
            [&self.under_replicated, &self.missing, &self.capacity, &self.used, &self.paused]
        {
            series.remove(&[namespace, name]);
        }
        self.begun(namespace, name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c43_c44_c45_metrics_are_named_helped_and_removed() {
        let all = Metrics::new("operator");
        let metrics = OperatorMetrics::new(&all);
        metrics.succeeded(Duration::from_millis(5));
        metrics.failed("api");
        metrics.queued("ns", "a");
        metrics.show("ns", "a", &ClusterStatus::default());
        let text = all.render();
        for line in [
            "# HELP dfs_operator_reconcile_total Reconciles, by result.",
            "dfs_operator_reconcile_total{result=\"ok\"} 1",
            "dfs_operator_reconcile_errors_total{reason=\"api\"} 1",
            "dfs_operator_queue_depth 1",
            "dfs_cluster_paused{name=\"a\",namespace=\"ns\"} 0",
            "dfs_cluster_nodes{name=\"a\",namespace=\"ns\",state=\"active\"} 0",
        ] {
            assert!(text.lines().any(|there| there == line), "{line} is not in\n{text}");
        }
        metrics.forget("ns", "a");
        let text = all.render();
        assert!(!text.contains("name=\"a\"") && text.contains("dfs_operator_queue_depth 0"));
    }
}
