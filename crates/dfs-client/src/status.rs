//! The state of the cluster.

use std::time::Duration;

use dfs_proto::v1::admin_client::AdminClient;
use dfs_proto::wire::{self, FieldError};
use dfs_proto::{MESSAGE_LEN_MAX, v1};
use dfs_types::{ClusterId, DiskId, Incarnation, NodeId, NodeState, Revision};

use crate::{Client, Error};

/// One consistent picture of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterStatus {
    /// The cluster.
    pub cluster: ClusterId,
    /// Incarnation of its metadata.
    pub incarnation: Incarnation,
    /// Revision of the metadata at which the picture was taken.
    pub revision: Revision,
    /// Replicas new files get.
    pub replication_factor: u32,
    /// Durable replicas without which no write is acknowledged.
    pub min_write_replicas: u32,
    /// Every node that is part of the cluster.
    pub nodes: Vec<NodeStatus>,
    /// How the data is.
    pub replication: ReplicationStatus,
    /// The background work.
    pub workers: Vec<WorkerStatus>,
    /// Version of the coordinator that answered.
    pub version: String,
    /// Who runs the background work.
    pub worker_lease_holder: String,
}

/// A datanode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its id.
    pub id: NodeId,
    /// Where it is reached.
    pub address: String,
    /// Failure domain; may be empty.
    pub zone: String,
    /// Name of the machine; may be empty.
    pub host: String,
    /// What it is to the cluster.
    pub state: NodeState,
    /// Its disks, as last heard.
    pub disks: Vec<DiskStatus>,
    /// How long ago it was heard; `None` if never by this coordinator.
    pub last_heard: Option<Duration>,
    /// Version of its program.
    pub version: String,
    /// Takes no new chunks for the moment.
    pub refuses_chunks: bool,
    /// Open upload sessions, as last heard.
    pub sessions: u32,
    /// Until its maintenance ends by itself; `None` when it is in none.
    pub maintenance_left: Option<Duration>,
}

/// A disk of a datanode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskStatus {
    /// Its id.
    pub id: DiskId,
    /// Bytes it may use.
    pub capacity: u64,
    /// Bytes still free of those.
    pub free: u64,
    /// Sealed chunks on it.
    pub chunks: u64,
    /// Taken out of service after errors.
    pub is_failed: bool,
}

/// How the data is, in chunks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplicationStatus {
    /// Whether the counts are known yet.
    pub is_known: bool,
    /// All.
    pub chunks: u64,
    /// Fewer good replicas than wanted, but at least one.
    pub under_replicated: u64,
    /// No replica within reach.
    pub missing: u64,
    /// Bad replicas that are still recorded.
    pub bad_replicas: u64,
    /// Replicas being made.
    pub repairing: u64,
}

/// One kind of background work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerStatus {
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: String,
    /// Steps done.
    pub done: u64,
    /// Steps failed.
    pub failed: u64,
    /// Steps known to be left.
    pub queued: u64,
}

impl Client {
    /// Looks at the whole cluster.
    pub async fn cluster_status(&self) -> Result<ClusterStatus, Error> {
        self.with_request_id(async {
            let context = "status of the cluster";
            let request = v1::ClusterStatusRequest::default();
            let answer = self.call_any(context, |channel| {
                let mut admin =
                    AdminClient::new(channel).max_decoding_message_size(MESSAGE_LEN_MAX);
                async move { admin.cluster_status(request).await }
            });
            cluster_status(answer.await?).map_err(|error| Error::wire(context, &error))
        })
        .await
    }

    /// Sets how many replicas new files get, and how many of them must be durable before a write is
    /// acknowledged (a majority when not given). Gives the revision from which on it holds.
    pub async fn set_replication(
        &self,
        replication_factor: u32,
        min_write_replicas: Option<u32>,
    ) -> Result<Revision, Error> {
        self.with_request_id(async {
            let request = v1::SetReplicationRequest {
                replication_factor,
                min_write_replicas,
                ..Default::default()
            };
            let answer = self.call_any("set the replication factor", |channel| {
                let (mut admin, request) = (AdminClient::new(channel), request.clone());
                async move { admin.set_replication(request).await }
            });
            Ok(Revision(answer.await?.revision))
        })
        .await
    }
}

fn cluster_status(status: v1::ClusterStatusResponse) -> Result<ClusterStatus, FieldError> {
    let nodes = status.nodes.into_iter().map(|node| {
        let location = wire::required("nodes.node", node.node)?;
        let disks = node.disks.into_iter().map(|disk| {
            Ok(DiskStatus {
                id: wire::id("nodes.disks.disk_id", &disk.disk_id)?,
                capacity: disk.capacity,
                free: disk.free,
                chunks: disk.chunks,
                is_failed: disk.is_failed,
            })
        });
        Ok(NodeStatus {
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
        })
    });
    let replication = status.replication.unwrap_or_default();
    let workers = status.workers.into_iter().map(|worker| WorkerStatus {
        name: worker.name,
        state: worker.state,
        done: worker.done,
        failed: worker.failed,
        queued: worker.queued,
    });
    Ok(ClusterStatus {
        cluster: wire::id("cluster_id", &status.cluster_id)?,
        incarnation: Incarnation(status.incarnation),
        revision: Revision(status.revision),
        replication_factor: status.replication_factor,
        min_write_replicas: status.min_write_replicas,
        nodes: nodes.collect::<Result<_, _>>()?,
        replication: ReplicationStatus {
            is_known: replication.is_known,
            chunks: replication.chunks,
            under_replicated: replication.under_replicated,
            missing: replication.missing,
            bad_replicas: replication.bad_replicas,
            repairing: replication.repairing,
        },
        workers: workers.collect(),
        version: status.version,
        worker_lease_holder: status.worker_lease_holder,
    })
}
