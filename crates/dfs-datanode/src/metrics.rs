//! Metrics of a datanode.

use std::time::Duration;

use dfs_chunkstore::DiskUsage;
use dfs_runtime::{Counter, Counters, Gauges, Histogram, Histograms, Metrics};
use dfs_transport::{Observer, Refusal};
use dfs_types::{DiskId, DiskScrub, DiskState};
use tonic::Code;

/// Every call of a datanode: the closed list of values of the label `method`.
const METHODS: &[&str] = &[
    "PrepareChunkUpload",
    "ChunkDataStream",
    "RetrieveChunk",
    "ReportCorrupt",
    "BuildReplica",
    "VerifyReplica",
    "AdoptReplica",
    "DeleteChunks",
    "Inventory",
    "ListChunks",
    "SettleDisk",
];

/// Names of the gRPC codes, by number.
const CODES: &[&str] = &[
    "ok",
    "cancelled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
];

/// The disks of a node, by position in the settings; additional ones are shown as `other`.
const DISKS: &[&str] =
    &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15"];

/// Names of [`DiskState`].
const DISK_STATES: &[&str] =
    &["healthy", "slow", "retiring", "returning", "hung", "missing", "failed"];

/// The metrics of a datanode.
#[derive(Debug)]
pub(crate) struct Counts {
    calls: Counters,
    seconds: Histograms,
    disk_bytes: Gauges,
    disk_chunks: Gauges,
    disk_state: Gauges,
    sessions: Gauges,
    scrub_last_pass: Gauges,
    scrub_left_bytes: Gauges,
    /// Bytes read by the scrub.
    pub(crate) scrub_bytes: Counter,
    /// Replicas that the scrub found bad, absent or unreadable.
    pub(crate) scrub_errors: Counter,
    /// Bytes of chunks received.
    pub(crate) bytes_in: Counter,
    /// Bytes of chunks sent to readers.
    pub(crate) bytes_out: Counter,
    /// Replicas sealed, and thereby durable.
    pub(crate) sealed: Counter,
    /// Duration of sealing.
    pub(crate) seal_seconds: Histogram,
    refused_connections: Counters,
    /// Sessions that ended without a sealed replica.
    pub(crate) failed_sessions: Counter,
    /// Blocks or frames that did not match their checksum, on disk or on the wire.
    pub(crate) checksum_errors: Counter,
    /// Replicas set aside as bad.
    pub(crate) set_aside: Counter,
    /// Replicas dropped from a session.
    pub(crate) dropped_replicas: Counter,
    /// Replicas built here on the order of a coordinator.
    pub(crate) built: Counter,
    /// Replicas that no record named, verified and given a new stamp.
    pub(crate) adopted: Counter,
    /// Replicas deleted.
    pub(crate) deleted: Counter,
}

impl Counts {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            calls: metrics.counters(
                "dfs_datanode_calls_total",
                "Calls answered, by method and gRPC code; streams count when they start.",
                &[("method", METHODS), ("code", CODES)],
            ),
            seconds: metrics.histograms(
                "dfs_datanode_call_seconds",
                "Time until calls were answered, by method; of streams until they started.",
                &[("method", METHODS)],
            ),
            disk_bytes: metrics.gauges(
                "dfs_datanode_disk_bytes",
                "Capacity and free bytes of each disk.",
                &[("disk", DISKS), ("kind", &["capacity", "free"])],
            ),
            disk_chunks: metrics.gauges(
                "dfs_datanode_disk_chunks",
                "Sealed chunks on each disk.",
                &[("disk", DISKS)],
            ),
            disk_state: metrics.gauges(
                "dfs_datanode_disk_state",
                "1 for the state that each disk is in.",
                &[("disk", DISKS), ("state", DISK_STATES)],
            ),
            sessions: metrics.gauges(
                "dfs_datanode_sessions",
                "Chunks being written, by kind of sender.",
                &[("from", &["client", "datanode"])],
            ),
            scrub_last_pass: metrics.gauges(
                "dfs_datanode_scrub_last_pass_seconds",
                "End of the last whole pass of the scrub over each disk, in seconds since 1970; 0 \
                 if there was none.",
                &[("disk", DISKS)],
            ),
            scrub_left_bytes: metrics.gauges(
                "dfs_datanode_scrub_left_bytes",
                "Bytes that the scrub has yet to read in the pass over each disk.",
                &[("disk", DISKS)],
            ),
            scrub_bytes: metrics
                .counter("dfs_datanode_scrub_bytes_total", "Bytes read by the scrub."),
            scrub_errors: metrics.counter(
                "dfs_datanode_scrub_errors_total",
                "Replicas that the scrub found bad, absent or unreadable.",
            ),
            bytes_in: metrics
                .counter("dfs_datanode_received_bytes_total", "Bytes of chunks received."),
            bytes_out: metrics
                .counter("dfs_datanode_served_bytes_total", "Bytes of chunks sent to readers."),
            sealed: metrics.counter("dfs_datanode_sealed_total", "Replicas made durable."),
            seal_seconds: metrics.histogram(
                "dfs_datanode_seal_seconds",
                "Time from the last byte of a chunk to its durable replica.",
            ),
            refused_connections: metrics.counters(
                "dfs_datanode_refused_connections_total",
                "Connections refused or closed because of a limit on connections.",
                &[("limit", Refusal::NAMES)],
            ),
            failed_sessions: metrics.counter(
                "dfs_datanode_failed_sessions_total",
                "Sessions that ended without a replica.",
            ),
            checksum_errors: metrics.counter(
                "dfs_datanode_checksum_errors_total",
                "Blocks that did not match their checksum, on disk or on the wire.",
            ),
            set_aside: metrics
                .counter("dfs_datanode_set_aside_total", "Replicas found bad and set aside."),
            dropped_replicas: metrics.counter(
                "dfs_datanode_dropped_replicas_total",
                "Downstream replicas dropped from sessions.",
            ),
            built: metrics.counter(
                "dfs_datanode_built_total",
                "Replicas built here from those of other nodes, on the order of a coordinator.",
            ),
            adopted: metrics.counter(
                "dfs_datanode_adopted_total",
                "Replicas that no record named, verified on the order of a coordinator.",
            ),
            deleted: metrics.counter("dfs_datanode_deleted_total", "Replicas deleted."),
        }
    }

    /// Updates the disk gauges.
    pub(crate) fn show_disks(&self, usage: &[DiskUsage]) {
        for (number, disk) in usage.iter().enumerate() {
            let label = DISKS.get(number).copied().unwrap_or_default();
            self.disk_bytes.of(&[label, "capacity"]).set(disk.capacity as i64);
            self.disk_bytes.of(&[label, "free"]).set(disk.free as i64);
            self.disk_chunks.of(&[label]).set(disk.chunks as i64);
            for state in DiskState::ALL {
                let is_it = i64::from(state == disk.state);
                self.disk_state.of(&[label, state.name()]).set(is_it);
            }
        }
    }

    /// Updates the scrub gauges.
    pub(crate) fn show_scrub(&self, disks: &[(DiskId, DiskScrub)]) {
        for (number, (_, scrub)) in disks.iter().enumerate() {
            let label = DISKS.get(number).copied().unwrap_or_default();
            let end = scrub.last.map_or(0, |last| last.end.millis() / 1_000);
            self.scrub_last_pass.of(&[label]).set(end as i64);
            self.scrub_left_bytes.of(&[label]).set(scrub.left_bytes as i64);
        }
    }

    /// Updates the session gauges.
    pub(crate) fn show_sessions(&self, of_clients: usize, of_datanodes: usize) {
        self.sessions.of(&["client"]).set(of_clients as i64);
        self.sessions.of(&["datanode"]).set(of_datanodes as i64);
    }
}

impl Observer for Counts {
    fn answered(&self, method: &str, code: Code, elapsed: Duration) {
        let method = method.rsplit('/').next().unwrap_or_default();
        let code = CODES.get(code as usize).copied().unwrap_or_default();
        self.calls.of(&[method, code]).increment();
        self.seconds.of(&[method]).observe(elapsed);
    }

    fn refused(&self, refusal: Refusal) {
        self.refused_connections.of(&[refusal.name()]).increment();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_method_and_code() {
        let metrics = Metrics::new("test");
        let counts = Counts::new(&metrics);
        let elapsed = Duration::from_millis(1);
        counts.answered("/dfs.v1.DataNode/DeleteChunks", Code::Ok, elapsed);
        counts.answered("/dfs.v1.DataNode/DeleteChunks", Code::DataLoss, elapsed);
        counts.answered("/grpc.health.v1.Health/Check", Code::Ok, elapsed);
        let text = metrics.render();
        for (code, method) in
            [("ok", "DeleteChunks"), ("data_loss", "DeleteChunks"), ("ok", "other")]
        {
            let line = format!("dfs_datanode_calls_total{{code=\"{code}\",method=\"{method}\"}} 1");
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
    }
}
