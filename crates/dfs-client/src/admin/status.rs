//! The status of a cluster, as one coordinator reports it.

use std::time::Duration;

use dfs_proto::v1;
use dfs_proto::wire::{self, FieldError};
use dfs_types::{
    ClusterId, DiskId, DiskScrub, DiskState, FileSystemId, Incarnation, NodeId, NodeState,
    Revision, Timestamp,
};

use super::WorkerStatus;

/// A consistent snapshot of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterStatus {
    /// Id of the cluster.
    pub cluster: ClusterId,
    /// Incarnation of its metadata.
    pub incarnation: Incarnation,
    /// Revision of the metadata at which the snapshot was taken.
    pub revision: Revision,
    /// Replicas that new files get.
    pub replication_factor: u32,
    /// Durable replicas required to acknowledge a write of a file with the default replication.
    pub min_write_replicas: u32,
    /// Whether that number was set, so that it holds for paths without a number of their own, too. If
    /// not, a write needs a majority of the replicas of the file.
    pub is_min_write_set: bool,
    /// Whether a change of replication is not applied to the records of all existing files. Replicas
    /// are built and dropped after that.
    pub is_replication_changing: bool,
    /// Every member node.
    pub nodes: Vec<NodeStatus>,
    /// Health of the data; `None` until the worker lease's holder has counted it.
    pub replication: Option<ReplicationStatus>,
    /// Comparison of disks with the metadata, as the lease holder knows it.
    pub reconciliation: ReconciliationStatus,
    /// Background workers of the lease holder.
    pub workers: Vec<WorkerStatus>,
    /// Version of the coordinator that replied.
    pub version: String,
    /// Address of the coordinator that runs the background workers; empty when unknown.
    pub worker_lease_holder: String,
    /// Why repair is held, and what to do; `None` when it is not.
    pub repair_held: Option<String>,
    /// Processes that this coordinator refuses, as all disks of theirs are older copies, and that have
    /// asked to join lately.
    pub refused_nodes: Vec<RefusedNode>,
    /// Clock of this coordinator.
    pub now: Timestamp,
}

/// A process that is refused because its disks are older copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedNode {
    /// The node whose disks they are.
    pub node: NodeId,
    /// `host:port` of the process.
    pub address: String,
}

/// Status of a datanode.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeStatus {
    /// Id of the node.
    pub id: NodeId,
    /// `host:port` of its gRPC service.
    pub address: String,
    /// Failure domain; may be empty.
    pub zone: String,
    /// Name of its machine; may be empty.
    pub host: String,
    /// Observed state.
    pub state: NodeState,
    /// Its disks, as of its last heartbeat.
    pub disks: Vec<DiskStatus>,
    /// Time since its last heartbeat; `None` if this coordinator has received none.
    pub last_heard: Option<Duration>,
    /// Version of its software.
    pub version: String,
    /// True if it accepts no new chunks at present: full, stopping, or without a working disk.
    pub refuses_chunks: bool,
    /// Open upload sessions, as of its last heartbeat.
    pub sessions: u32,
    /// Time until its maintenance ends by itself; `None` when not in maintenance.
    pub maintenance_left: Option<Duration>,
    /// Time until it is lost, and its replicas are rebuilt, if it stays silent; `None` when it is lost
    /// already, or not expected to send heartbeats.
    pub lost_in: Option<Duration>,
}

/// Status of a disk of a datanode.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskStatus {
    /// Id of the disk.
    pub id: DiskId,
    /// Bytes that it may use. The capacity of a file system shared by several disks is counted
    /// once: each disk has its share.
    pub capacity: u64,
    /// Free bytes of that capacity.
    pub free: u64,
    /// File system of the disk; `None` where it cannot be determined.
    pub file_system: Option<FileSystemId>,
    /// Sealed chunks on it.
    pub chunks: u64,
    /// State of the disk, as last reported.
    pub state: DiskState,
    /// Why it is not healthy, and what to do; empty when it is healthy.
    pub reason: String,
    /// Its scrub; `None` until that has started.
    pub scrub: Option<DiskScrub>,
    /// Percentage of it that has been read, while it is starting.
    pub read_percent: Option<u8>,
    /// True once it is retired and proven to be empty.
    pub can_be_removed: bool,
}

/// Health of the data, in chunks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ReplicationStatus {
    /// All chunks.
    pub chunks: u64,
    /// Chunks with fewer good replicas than wanted, but at least one.
    pub under_replicated: u64,
    /// Chunks without a reachable replica.
    pub missing: u64,
    /// Bad replicas that are still recorded.
    pub bad_replicas: u64,
    /// Replicas being created.
    pub repairing: u64,
    /// Records of the metadata that background work cannot read and skips.
    pub unreadable_records: u64,
    /// One of them with the reason; empty when there are none.
    pub unreadable_example: String,
    /// Chunks among [`Self::under_replicated`] that are lost if one more replica is.
    pub without_spare: u64,
    /// Chunks that wait for a node that can take a replica: the last attempt found none.
    pub without_target: u64,
    /// Time for which some chunk has been under-replicated or missing without a break; `None` if none
    /// is. At most as long as the coordinator has run the background work.
    pub degraded: Option<Duration>,
    /// Nodes that get no replicas for the moment, as builds of replicas there have failed.
    pub failing_targets: Vec<FailingTarget>,
}

/// A node where builds of replicas fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailingTarget {
    /// The node.
    pub node: NodeId,
    /// Time until the next attempt.
    pub rests: Duration,
    /// True if it reaches none of the nodes to build from; if not, it cannot build, or does not reply.
    pub reaches_no_source: bool,
}

/// Comparison of what the disks hold with the metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ReconciliationStatus {
    /// Chunk records read by the comparison in progress; `None` when there is none.
    pub progress: Option<u64>,
    /// Time since the last comparison of all disks; `None` if there was none since its coordinator
    /// has held the lease.
    pub last_whole: Option<Duration>,
    /// Replicas without a record, as of that comparison.
    pub orphans: u64,
    /// Bytes of those.
    pub orphan_bytes: u64,
}

impl ReplicationStatus {
    fn from_wire(counts: v1::ReplicationStatus) -> Result<Self, FieldError> {
        let failing = counts.failing_targets.iter().map(|failing| {
            Ok(FailingTarget {
                node: wire::id("replication.failing_targets.node_id", &failing.node_id)?,
                rests: Duration::from_millis(failing.rests_ms),
                reaches_no_source: failing.reaches_no_source,
            })
        });
        Ok(Self {
            chunks: counts.chunks,
            under_replicated: counts.under_replicated,
            missing: counts.missing,
            bad_replicas: counts.bad_replicas,
            repairing: counts.repairing,
            unreadable_records: counts.unreadable_records,
            failing_targets: failing.collect::<Result<_, _>>()?,
            unreadable_example: counts.unreadable_example,
            without_spare: counts.without_spare,
            without_target: counts.without_target,
            degraded: counts.degraded_ms.map(Duration::from_millis),
        })
    }
}

impl ClusterStatus {
    /// Returns the status of a cluster without nodes, with the health of its data unknown.
    pub fn new(cluster: ClusterId) -> Self {
        Self {
            cluster,
            incarnation: Incarnation(1),
            revision: Revision(0),
            replication_factor: 3,
            min_write_replicas: 2,
            is_min_write_set: false,
            is_replication_changing: false,
            nodes: Vec::new(),
            replication: None,
            reconciliation: ReconciliationStatus::default(),
            workers: Vec::new(),
            version: String::new(),
            worker_lease_holder: String::new(),
            repair_held: None,
            refused_nodes: Vec::new(),
            now: Timestamp::from_millis(0),
        }
    }

    pub(super) fn from_wire(status: v1::ClusterStatusResponse) -> Result<Self, FieldError> {
        let nodes = status.nodes.into_iter().map(NodeStatus::from_wire);
        let workers = status.workers.into_iter().map(WorkerStatus::from_wire);
        let refused = status.refused_nodes.into_iter().map(|refused| {
            let node = wire::id("refused_nodes.node_id", &refused.node_id)?;
            Ok(RefusedNode { node, address: refused.address })
        });
        let reconciliation = status.reconciliation.unwrap_or_default();
        let held = status.replication.as_ref().map(|counts| counts.held.clone());
        let counts = status.replication.filter(|counts| counts.is_known);
        Ok(Self {
            cluster: wire::id("cluster_id", &status.cluster_id)?,
            incarnation: Incarnation(status.incarnation),
            revision: Revision(status.revision),
            replication_factor: status.replication_factor,
            min_write_replicas: status.min_write_replicas,
            is_min_write_set: status.is_min_write_set,
            is_replication_changing: status.is_replication_changing,
            nodes: nodes.collect::<Result<_, _>>()?,
            replication: counts.map(ReplicationStatus::from_wire).transpose()?,
            reconciliation: ReconciliationStatus {
                progress: reconciliation.progress,
                last_whole: reconciliation.last_whole_ms.map(Duration::from_millis),
                orphans: reconciliation.orphans,
                orphan_bytes: reconciliation.orphan_bytes,
            },
            workers: workers.collect::<Result<_, _>>()?,
            version: status.version,
            worker_lease_holder: status.worker_lease_holder,
            repair_held: held.filter(|held| !held.is_empty()),
            refused_nodes: refused.collect::<Result<_, _>>()?,
            now: Timestamp::from_millis(status.now_ms),
        })
    }

    /// Nodes whose disks count: all but the lost and removed ones.
    fn counted(&self) -> impl Iterator<Item = &NodeStatus> {
        let is_gone = |state| matches!(state, NodeState::Lost | NodeState::Removed);
        self.nodes.iter().filter(move |node| !is_gone(node.state))
    }

    /// Capacity of the working disks of all nodes in bytes, except lost ones.
    pub fn capacity(&self) -> u64 {
        sum(self.counted(), NodeStatus::capacity)
    }

    /// Durable replicas required to acknowledge a write of a file that wants so many replicas, and was
    /// not given a number of its own.
    pub fn min_write_for(&self, replicas: u32) -> u32 {
        if self.is_min_write_set { self.min_write_replicas.min(replicas) } else { replicas / 2 + 1 }
    }

    /// Free bytes on those disks.
    pub fn free(&self) -> u64 {
        sum(self.counted(), NodeStatus::free)
    }

    /// Used bytes on those disks.
    pub fn used(&self) -> u64 {
        self.capacity().saturating_sub(self.free())
    }
}

impl NodeStatus {
    /// Returns the status of a node without disks.
    pub fn new(id: NodeId, address: impl Into<String>, state: NodeState) -> Self {
        Self {
            id,
            address: address.into(),
            zone: String::new(),
            host: String::new(),
            state,
            disks: Vec::new(),
            last_heard: None,
            version: String::new(),
            refuses_chunks: false,
            sessions: 0,
            maintenance_left: None,
            lost_in: None,
        }
    }

    fn from_wire(node: v1::NodeStatus) -> Result<Self, FieldError> {
        let location = wire::required("nodes.node", node.node)?;
        let disks = node.disks.into_iter().map(DiskStatus::from_wire);
        Ok(Self {
            id: wire::id("nodes.node.node_id", &location.node_id)?,
            state: wire::node_state("nodes.node.state", location.state)?,
            address: location.address,
            zone: location.zone,
            host: location.host,
            disks: disks.collect::<Result<_, _>>()?,
            last_heard: node.last_heard_ms.map(Duration::from_millis),
            version: node.version,
            refuses_chunks: node.refuses_chunks,
            sessions: node.sessions,
            maintenance_left: node.maintenance_left_ms.map(Duration::from_millis),
            lost_in: node.lost_in_ms.map(Duration::from_millis),
        })
    }

    /// Disks in service.
    fn working(&self) -> impl Iterator<Item = &DiskStatus> {
        self.disks.iter().filter(|disk| disk.state.is_in_service())
    }

    /// Capacity of its working disks in bytes.
    pub fn capacity(&self) -> u64 {
        sum(self.working(), |disk| disk.capacity)
    }

    /// Free bytes on its working disks.
    pub fn free(&self) -> u64 {
        sum(self.working(), |disk| disk.free)
    }

    /// Used bytes on its working disks.
    pub fn used(&self) -> u64 {
        self.capacity().saturating_sub(self.free())
    }

    /// Sealed chunks on its working disks.
    pub fn chunks(&self) -> u64 {
        sum(self.working(), |disk| disk.chunks)
    }

    /// Returns the percentage of its disks that has been read; `None` unless it is starting.
    pub fn read_percent(&self) -> Option<u8> {
        let starting = self.disks.iter().filter(|disk| disk.state == DiskState::Starting);
        let started = self.working().map(|_| 100);
        let mut shares: Vec<u64> =
            starting.map(|disk| u64::from(disk.read_percent.unwrap_or(0))).collect();
        if shares.is_empty() {
            return None;
        }
        shares.extend(started);
        Some((shares.iter().sum::<u64>() / shares.len() as u64) as u8)
    }

    /// Returns the disks that are not healthy.
    pub fn faulty_disks(&self) -> impl Iterator<Item = &DiskStatus> {
        self.disks.iter().filter(|disk| disk.state != DiskState::Healthy)
    }
}

impl DiskStatus {
    /// Returns the status of an empty disk in service.
    pub fn new(id: DiskId, capacity: u64) -> Self {
        Self {
            id,
            capacity,
            free: capacity,
            file_system: None,
            chunks: 0,
            state: DiskState::Healthy,
            reason: String::new(),
            scrub: None,
            read_percent: None,
            can_be_removed: false,
        }
    }

    pub(super) fn from_wire(disk: v1::Disk) -> Result<Self, FieldError> {
        Ok(Self {
            id: wire::id("nodes.disks.disk_id", &disk.disk_id)?,
            capacity: disk.capacity,
            free: disk.free,
            file_system: wire::optional_id("nodes.disks.file_system_id", &disk.file_system_id)?,
            chunks: disk.chunks,
            state: wire::disk_state("nodes.disks.state", disk.state)?,
            reason: disk.reason,
            scrub: disk.scrub.map(wire::disk_scrub),
            read_percent: disk.read_percent.map(|percent| percent.min(100) as u8),
            can_be_removed: disk.can_be_removed,
        })
    }
}

fn sum<'a, T: 'a>(all: impl IntoIterator<Item = &'a T>, of: impl Fn(&T) -> u64) -> u64 {
    all.into_iter().map(of).fold(0, u64::saturating_add)
}
