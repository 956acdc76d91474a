//! What administrators do with single nodes. Each call names the cluster that it means, and is
//! refused by any other.

use std::time::Duration;

use dfs_proto::v1;
use dfs_proto::v1::admin_client::AdminClient;
use dfs_proto::wire::{self, WireId};
use dfs_types::{ClusterId, NodeId, NodeState, Revision};

use crate::{Client, Error};

/// Whether the data stands it that nodes stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopSafety {
    /// Whether every chunk keeps as many good replicas as it needs.
    pub is_safe: bool,
    /// Chunks that would have fewer.
    pub chunks_below: u64,
    /// Chunks that nobody could read meanwhile.
    pub chunks_unreadable: u64,
    /// Why it is not safe, for people; empty when it is.
    pub reason: String,
    /// Revision of the metadata that was looked at.
    pub revision: Revision,
}

/// What became of an announcement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maintenance {
    /// Whether the node is now as asked for; if not, nothing was changed.
    pub is_granted: bool,
    /// What was looked at for it, if anything was.
    pub safety: Option<StopSafety>,
}

impl Client {
    /// Makes a node that is joining take part. Gives what it is now. The same again changes
    /// nothing.
    pub async fn admit_node(&self, cluster: ClusterId, node: NodeId) -> Result<NodeState, Error> {
        self.with_request_id(async {
            let context = format!("admit node {node}");
            let answer = self.call_any(&context, |channel| {
                let mut admin = AdminClient::new(channel);
                let (cluster_id, node_id) = (cluster.to_wire(), node.to_wire());
                async move { admin.admit(v1::AdmitRequest { cluster_id, node_id }).await }
            });
            let state = answer.await?.state;
            wire::node_state("state", state).map_err(|error| Error::wire(&context, &error))
        })
        .await
    }

    /// Whether the data stands it that these nodes stop at the same time.
    pub async fn safe_to_stop(
        &self,
        cluster: ClusterId,
        nodes: &[NodeId],
    ) -> Result<StopSafety, Error> {
        self.with_request_id(async {
            let answer = self.call_any("safe to stop", |channel| {
                let mut admin = AdminClient::new(channel);
                let node_ids = nodes.iter().map(|node| node.to_wire()).collect();
                let request = v1::SafeToStopRequest { cluster_id: cluster.to_wire(), node_ids };
                async move { admin.safe_to_stop(request).await }
            });
            Ok(safety(answer.await?))
        })
        .await
    }

    /// Announces that a node will be down for `ttl` at most, or with a `ttl` of zero that it is
    /// back. With `require_safe` only when it is safe to stop: of two callers who ask for nodes
    /// that must not be down together, one is refused. The same again renews it.
    pub async fn set_maintenance(
        &self,
        cluster: ClusterId,
        node: NodeId,
        ttl: Duration,
        require_safe: bool,
    ) -> Result<Maintenance, Error> {
        self.with_request_id(async {
            let context = format!("maintenance of node {node}");
            let answer = self.call_any(&context, |channel| {
                let mut admin = AdminClient::new(channel);
                let request = v1::MaintenanceRequest {
                    cluster_id: cluster.to_wire(),
                    node_id: node.to_wire(),
                    ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
                    require_safe,
                };
                async move { admin.maintenance(request).await }
            });
            let v1::MaintenanceResponse { is_granted, safety: looked_at } = answer.await?;
            Ok(Maintenance { is_granted, safety: looked_at.map(safety) })
        })
        .await
    }

    /// Takes a node that holds nothing out of the cluster, for good. The same again changes
    /// nothing.
    pub async fn deregister_node(&self, cluster: ClusterId, node: NodeId) -> Result<(), Error> {
        self.with_request_id(async {
            let context = format!("deregister node {node}");
            let answer = self.call_any(&context, |channel| {
                let mut admin = AdminClient::new(channel);
                let (cluster_id, node_id) = (cluster.to_wire(), node.to_wire());
                let request = v1::DeregisterRequest { cluster_id, node_id };
                async move { admin.deregister(request).await }
            });
            answer.await.map(|_| ())
        })
        .await
    }

    /// Takes a lost node out of the cluster, for good, unless it may hold the last replica of
    /// something. The same again changes nothing.
    pub async fn forget_node(&self, cluster: ClusterId, node: NodeId) -> Result<(), Error> {
        self.with_request_id(async {
            let context = format!("forget node {node}");
            let answer = self.call_any(&context, |channel| {
                let mut admin = AdminClient::new(channel);
                let (cluster_id, node_id) = (cluster.to_wire(), node.to_wire());
                let request = v1::ForgetRequest { cluster_id, node_id };
                async move { admin.forget(request).await }
            });
            answer.await.map(|_| ())
        })
        .await
    }
}

fn safety(answer: v1::SafeToStopResponse) -> StopSafety {
    StopSafety {
        is_safe: answer.is_safe,
        chunks_below: answer.chunks_below,
        chunks_unreadable: answer.chunks_unreadable,
        reason: answer.reason,
        revision: Revision(answer.revision),
    }
}
