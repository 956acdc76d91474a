//! Metrics of the coordinator.

use std::time::Duration;

use dfs_runtime::{Counter, Counters, Gauge, Gauges, Histograms, Metrics};
use dfs_transport::Observer;
use dfs_types::NodeState;
use dfs_workers::Handle;
use tonic::Code;

use crate::background::ReplicationCounts;
use crate::checks::CheckOverview;
use crate::node_liveness::View;

/// Methods with their own metrics.
const METHODS: &[&str] = &[
    "UploadFile",
    "ReplanChunk",
    "RenewUpload",
    "ConfirmUpload",
    "AbortUpload",
    "OpenFile",
    "Stat",
    "ListDirectory",
    "MakeDirectory",
    "MakeSymlink",
    "Rename",
    "Delete",
    "Undelete",
    "SetAttributes",
    "GetXattr",
    "ListXattrs",
    "SetXattr",
    "RemoveXattr",
    "Register",
    "Heartbeat",
    "ClusterStatus",
    "SetReplication",
    "Init",
    "Admit",
    "SafeToStop",
    "Maintenance",
    "Drain",
    "Undrain",
    "RetireDisk",
    "GiveUp",
    "Deregister",
    "Forget",
    "Readmit",
    "Workers",
    "SetWorker",
    "CheckReplicas",
    "GcStatus",
    "AcknowledgeGc",
    "UpgradeStatus",
    "FinalizeUpgrade",
    "PrepareChunkUpload",
    "ChunkDataStream",
    "RetrieveChunk",
    "ReportCorrupt",
];

/// Codes of replies.
const CODES: &[(Code, &str)] = &[
    (Code::Ok, "OK"),
    (Code::InvalidArgument, "INVALID_ARGUMENT"),
    (Code::NotFound, "NOT_FOUND"),
    (Code::AlreadyExists, "ALREADY_EXISTS"),
    (Code::FailedPrecondition, "FAILED_PRECONDITION"),
    (Code::Aborted, "ABORTED"),
    (Code::ResourceExhausted, "RESOURCE_EXHAUSTED"),
    (Code::Unavailable, "UNAVAILABLE"),
    (Code::DataLoss, "DATA_LOSS"),
    (Code::Unauthenticated, "UNAUTHENTICATED"),
    (Code::PermissionDenied, "PERMISSION_DENIED"),
    (Code::Unimplemented, "UNIMPLEMENTED"),
    (Code::Internal, "INTERNAL"),
];

/// States of nodes in metrics.
const STATES: &[(NodeState, &str)] = &[
    (NodeState::Joining, "joining"),
    (NodeState::Active, "active"),
    (NodeState::Suspect, "suspect"),
    (NodeState::Lost, "lost"),
    (NodeState::Draining, "draining"),
    (NodeState::Drained, "drained"),
    (NodeState::Maintenance, "maintenance"),
];

/// Kinds of chunks in metrics.
const CHUNK_KINDS: [&str; 6] =
    ["all", "under_replicated", "missing", "bad_replicas", "surplus", "crowded"];

/// Why replicas are moved or built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MoveReason {
    /// Too few good replicas.
    Repair,
    /// Their node is being drained.
    Drain,
    /// Their disk is to be removed.
    Retire,
    /// Their node is fuller than others.
    Rebalance,
    /// Another zone has no replica of their chunk.
    Zone,
}

impl MoveReason {
    const NAMES: &[&str] = &["repair", "drain", "retire", "rebalance", "zone"];
}

/// Why a call was not relayed to a datanode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The relay is disabled.
    Off,
    /// The limit of relayed calls is reached.
    Busy,
    /// Clients do not make this call.
    NotForClients,
    /// The node is not named, or not a member.
    UnknownNode,
    /// The node is unreachable.
    Unreachable,
}

impl Refusal {
    const NAMES: &[&str] = &["off", "busy", "not_for_clients", "unknown_node", "unreachable"];

    fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// What became of a replica that was not as recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reconciled {
    /// Recorded as gone.
    Gone,
    /// Recorded as gone, found again.
    Back,
    /// Verified and named by its record.
    Adopted,
    /// Deleted, as no record needs it.
    Deleted,
}

impl Reconciled {
    const NAMES: &[&str] = &["gone", "back", "adopted", "deleted"];
}

/// Direction of relayed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    ToNode,
    FromNode,
}

/// Metrics of relayed calls.
#[derive(Debug, Clone)]
pub(crate) struct Relayed {
    open: Gauge,
    calls: Counter,
    bytes: Counters,
    refused: Counters,
}

impl Relayed {
    const DIRECTIONS: &[&str] = &["to_node", "from_node"];

    fn new(metrics: &Metrics) -> Self {
        Self {
            open: metrics.gauge("dfs_coordinator_relayed_open", "Datanode calls being relayed."),
            calls: metrics.counter("dfs_coordinator_relayed_total", "Datanode calls relayed."),
            bytes: metrics.counters(
                "dfs_coordinator_relayed_bytes_total",
                "Bytes relayed, by direction.",
                &[("direction", Self::DIRECTIONS)],
            ),
            refused: metrics.counters(
                "dfs_coordinator_relayed_refused_total",
                "Datanode calls that were refused by the relay, by reason.",
                &[("reason", Refusal::NAMES)],
            ),
        }
    }

    pub(crate) fn opened(&self) {
        self.open.add(1);
        self.calls.increment();
    }

    pub(crate) fn closed(&self) {
        self.open.add(-1);
    }

    pub(crate) fn moved(&self, direction: Direction, bytes: u64) {
        self.bytes.of(&[Self::DIRECTIONS[direction as usize]]).add(bytes);
    }

    pub(crate) fn refused(&self, refusal: Refusal) {
        self.refused.of(&[refusal.name()]).increment();
    }
}

/// Metrics of a coordinator.
#[derive(Debug)]
pub(crate) struct Counts {
    calls: Counters,
    seconds: Histograms,
    nodes: Gauges,
    bytes: Gauges,
    sessions: Gauge,
    chunks: Gauges,
    unreadable: Gauge,
    held: Gauge,
    steps: Gauges,
    last_whole_cycle: Gauge,
    unnamed: Gauges,
    reconciled: Counters,
    moves: Counters,
    moved_bytes: Counters,
    /// Chunk records read by the sweep.
    pub(crate) swept: Counter,
    /// Replicas reported bad by datanodes and recorded as such.
    pub(crate) bad_replicas: Counter,
    pub(crate) relayed: Relayed,
    refused_connections: Counters,
}

impl Counts {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let codes: Vec<&'static str> = CODES.iter().map(|(_, name)| *name).collect();
        let workers: Vec<&'static str> = dfs_workers::all().iter().map(|spec| spec.name).collect();
        let states: Vec<&'static str> = STATES.iter().map(|(_, name)| *name).collect();
        Self {
            calls: metrics.counters(
                "dfs_coordinator_calls_total",
                "Calls answered, by method and gRPC code.",
                &[("method", METHODS), ("code", &codes)],
            ),
            seconds: metrics.histograms(
                "dfs_coordinator_call_seconds",
                "Duration of calls, by method.",
                &[("method", METHODS)],
            ),
            nodes: metrics.gauges(
                "dfs_coordinator_datanodes",
                "Datanodes, by observed state.",
                &[("state", &states)],
            ),
            bytes: metrics.gauges(
                "dfs_coordinator_datanode_bytes",
                "Bytes of the disks of all datanodes, as last reported.",
                &[("kind", &["capacity", "free"])],
            ),
            sessions: metrics.gauge(
                "dfs_coordinator_datanode_sessions",
                "Open upload sessions on all datanodes, as last reported.",
            ),
            chunks: metrics.gauges(
                "dfs_coordinator_chunks",
                "Chunks, by health, with more replicas than wanted (surplus), and with replicas that \
                 share a zone although another one has room (crowded, as of the last comparison \
                 of disks with records); -1 if unknown to this coordinator.",
                &[("kind", &CHUNK_KINDS)],
            ),
            unreadable: metrics.gauge(
                "dfs_coordinator_unreadable_records",
                "Metadata records that background work cannot read; -1 if unknown to this \
                 coordinator.",
            ),
            held: metrics.gauge(
                "dfs_coordinator_repair_held",
                "1 while repair is held because too many datanodes are lost at once.",
            ),
            steps: metrics.gauges(
                "dfs_coordinator_worker_steps",
                "Units of background work, done since the start and known to remain.",
                &[("worker", &workers), ("kind", &["done", "failed", "queued"])],
            ),
            last_whole_cycle: metrics.gauge(
                "dfs_coordinator_last_whole_reconciliation_seconds",
                "Seconds since all disks were last compared with the records; -1 if never, or \
                 unknown to this coordinator.",
            ),
            unnamed: metrics.gauges(
                "dfs_coordinator_orphans",
                "Replicas without a record, as of that comparison; -1 if unknown to this \
                 coordinator.",
                &[("kind", &["replicas", "bytes"])],
            ),
            reconciled: metrics.counters(
                "dfs_coordinator_reconciled_replicas_total",
                "Replicas that were not as recorded when disks were compared with the records, by \
                 what became of them.",
                &[("outcome", Reconciled::NAMES)],
            ),
            moves: metrics.counters(
                "dfs_coordinator_moves_total",
                "Replicas built or moved by background work, by reason.",
                &[("reason", MoveReason::NAMES)],
            ),
            moved_bytes: metrics.counters(
                "dfs_coordinator_moved_bytes_total",
                "Bytes of the replicas built or moved by background work, by reason.",
                &[("reason", MoveReason::NAMES)],
            ),
            swept: metrics.counter(
                "dfs_coordinator_swept_chunks_total",
                "Chunk records read to find what lost nodes and disks require.",
            ),
            bad_replicas: metrics.counter(
                "dfs_coordinator_bad_replicas_total",
                "Replicas reported bad by datanodes.",
            ),
            relayed: Relayed::new(metrics),
            refused_connections: metrics.counters(
                "dfs_coordinator_refused_connections_total",
                "Connections refused or closed because of a limit on connections.",
                &[("limit", dfs_transport::Refusal::NAMES)],
            ),
        }
    }

    /// Updates the metrics of nodes.
    pub(crate) fn show_nodes(&self, views: &[View]) {
        for (state, name) in STATES {
            let count = views.iter().filter(|view| view.state == *state).count();
            self.nodes.of(&[name]).set(count as i64);
        }
        let sum = |of: fn(&View) -> u64| views.iter().map(of).fold(0, u64::saturating_add) as i64;
        self.bytes.of(&["capacity"]).set(sum(|view| view.capacity));
        self.bytes.of(&["free"]).set(sum(|view| view.free));
        self.sessions.set(sum(|view| view.sessions.into()));
    }

    /// Updates the metrics of chunks; `None` if unknown here.
    pub(crate) fn show_chunks(&self, counts: Option<ReplicationCounts>) {
        let show = |kind, of: fn(ReplicationCounts) -> u64| {
            self.chunks.of(&[kind]).set(counts.map_or(-1, |counts| of(counts) as i64));
        };
        show("all", |counts| counts.chunks);
        show("under_replicated", |counts| counts.under_replicated);
        show("missing", |counts| counts.missing);
        show("bad_replicas", |counts| counts.bad_replicas);
    }

    /// Updates the numbers of chunks with more replicas than wanted, and of those whose replicas share
    /// a zone; `None` if unknown here.
    pub(crate) fn show_misplaced(&self, surplus: Option<u64>, crowded: Option<u64>) {
        for (kind, chunks) in [("surplus", surplus), ("crowded", crowded)] {
            self.chunks.of(&[kind]).set(chunks.map_or(-1, |chunks| chunks as i64));
        }
    }

    /// Updates whether repair is held.
    pub(crate) fn show_held(&self, is_held: bool) {
        self.held.set(i64::from(is_held));
    }

    /// Updates the number of unreadable records; `None` if unknown here.
    pub(crate) fn show_unreadable(&self, records: Option<usize>) {
        self.unreadable.set(records.map_or(-1, |records| records as i64));
    }

    /// Updates the metrics of reconciliation; `None` if unknown here.
    pub(crate) fn show_reconciliation(&self, overview: Option<&CheckOverview>) {
        let known = overview.and_then(|overview| Some((overview.last_whole?, &overview.report)));
        let show = |gauge: &Gauge, value: Option<u64>| gauge.set(value.map_or(-1, |it| it as i64));
        show(&self.last_whole_cycle, known.map(|(ago, _)| ago.as_secs()));
        let (replicas, bytes) = (self.unnamed.of(&["replicas"]), self.unnamed.of(&["bytes"]));
        show(&replicas, known.map(|(_, report)| report.orphans));
        show(&bytes, known.map(|(_, report)| report.orphan_bytes));
    }

    /// Counts replicas that were not as recorded.
    pub(crate) fn reconciled(&self, outcome: Reconciled, replicas: u64) {
        self.reconciled.of(&[Reconciled::NAMES[outcome as usize]]).add(replicas);
    }

    /// Counts replicas that were built or moved, and their bytes.
    pub(crate) fn moved(&self, reason: MoveReason, replicas: u64, bytes: u64) {
        let name = MoveReason::NAMES[reason as usize];
        self.moves.of(&[name]).add(replicas);
        self.moved_bytes.of(&[name]).add(bytes);
    }

    /// Updates the metrics of a worker.
    pub(crate) fn show_worker(&self, worker: &Handle) {
        let name = worker.spec().name;
        let show = |kind, steps: u64| self.steps.of(&[name, kind]).set(steps as i64);
        show("done", worker.done());
        show("failed", worker.failed());
        show("queued", worker.queued());
    }
}

impl Observer for Counts {
    fn answered(&self, method: &str, code: Code, elapsed: Duration) {
        let method = method.rsplit('/').next().unwrap_or_default();
        let name = CODES.iter().find(|(known, _)| *known == code).map_or("", |(_, name)| *name);
        self.calls.of(&[method, name]).increment();
        self.seconds.of(&[method]).observe(elapsed);
    }

    fn refused(&self, refusal: dfs_transport::Refusal) {
        self.refused_connections.of(&[refusal.name()]).increment();
    }
}

#[cfg(test)]
mod tests {
    use dfs_proto::Method;

    use super::*;

    #[test]
    fn every_method_of_a_coordinator_has_metrics() {
        let is_served = |method: &&Method| {
            let path = method.path();
            path.starts_with("/dfs.v1.") && !path.starts_with("/dfs.v1.DataNode/")
        };
        for method in Method::ALL.iter().filter(is_served) {
            assert!(METHODS.contains(&method.name()), "{}", method.name());
        }
    }
}
