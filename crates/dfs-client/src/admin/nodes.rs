//! Calls about single nodes.

use std::time::Duration;

use dfs_proto::v1;
use dfs_proto::wire::{self, WireId as _};
use dfs_types::{ClusterId, NodeId, NodeState, Revision};
use tokio::time::sleep;

use super::Admin;
use crate::Error;

/// Interval of asking again whether a node is removed.
pub(super) const POLL: Duration = Duration::from_millis(500);

/// Effect of stopping some nodes at the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StopSafety {
    /// True if every chunk keeps its required replicas.
    pub is_safe: bool,
    /// Chunks that would fall below them.
    pub chunks_below: u64,
    /// Chunks that would be unreadable meanwhile. Those of single-replica files are included,
    /// although they do not make it unsafe.
    pub chunks_unreadable: u64,
    /// Human-readable reason why it is not safe; empty when it is.
    pub reason: String,
    /// Metadata revision for which the result holds.
    pub revision: Revision,
    /// True while all chunks are being checked, and the answer is not known yet: ask again.
    pub is_pending: bool,
}

/// A request for maintenance of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MaintenanceRequest {
    /// Time after which the maintenance ends by itself; at most a day.
    pub ttl: Duration,
    /// Grants it only when the node can stop safely. Check and grant are one commit, so
    /// conflicting requests are never both granted.
    pub require_safe: bool,
}

impl MaintenanceRequest {
    /// Returns a request for maintenance that ends by itself after `ttl`, granted unconditionally.
    pub fn new(ttl: Duration) -> Self {
        Self { ttl, require_safe: false }
    }

    /// Grants it only when the node can stop safely.
    #[must_use]
    pub fn require_safe(self) -> Self {
        Self { require_safe: true, ..self }
    }
}

/// The reply to a [`MaintenanceRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Maintenance {
    /// The node is in maintenance.
    Granted,
    /// The node cannot stop safely now; nothing was changed.
    Refused(StopSafety),
}

impl Admin {
    /// Makes a joining node active. Returns its new state.
    pub async fn admit(&self, cluster: ClusterId, node: NodeId) -> Result<NodeState, Error> {
        let context = format!("admit node {node}");
        let request = v1::AdmitRequest { cluster_id: cluster.to_wire(), node_id: node.to_wire() };
        let reply = self
            .call(&context, request, |mut admin, request| async move { admin.admit(request).await })
            .await?;
        wire::node_state("state", reply.state).map_err(|error| Error::wire(&context, &error))
    }

    /// Returns whether these nodes, 1 to 100, can stop at the same time.
    pub async fn safe_to_stop(
        &self,
        cluster: ClusterId,
        nodes: &[NodeId],
    ) -> Result<StopSafety, Error> {
        let request = v1::SafeToStopRequest {
            cluster_id: cluster.to_wire(),
            node_ids: nodes.iter().map(|node| node.to_wire()).collect(),
        };
        let reply = self.call("safe to stop", request, |mut admin, request| async move {
            admin.safe_to_stop(request).await
        });
        Ok(StopSafety::from_wire(reply.await?))
    }

    /// Puts a node into maintenance, or renews it: meanwhile its replicas are not re-replicated,
    /// and no new chunks are placed on it.
    pub async fn begin_maintenance(
        &self,
        cluster: ClusterId,
        node: NodeId,
        wanted: MaintenanceRequest,
    ) -> Result<Maintenance, Error> {
        let MaintenanceRequest { ttl, require_safe } = wanted;
        // A ttl of zero would end it.
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        let context = format!("maintenance of node {node}");
        let reply = self.maintenance(&context, cluster, node, ttl_ms, require_safe).await?;
        if reply.is_granted {
            return Ok(Maintenance::Granted);
        }
        Ok(Maintenance::Refused(StopSafety::from_wire(reply.safety.unwrap_or_default())))
    }

    /// Ends the maintenance of a node.
    pub async fn end_maintenance(&self, cluster: ClusterId, node: NodeId) -> Result<(), Error> {
        let context = format!("end of maintenance of node {node}");
        self.maintenance(&context, cluster, node, 0, false).await.map(drop)
    }

    async fn maintenance(
        &self,
        context: &str,
        cluster: ClusterId,
        node: NodeId,
        ttl_ms: u64,
        require_safe: bool,
    ) -> Result<v1::MaintenanceResponse, Error> {
        let request = v1::MaintenanceRequest {
            cluster_id: cluster.to_wire(),
            node_id: node.to_wire(),
            ttl_ms,
            require_safe,
        };
        self.call(
            context,
            request,
            |mut admin, request| async move { admin.maintenance(request).await },
        )
        .await
    }

    /// Checks whether a node can be deregistered, without changing anything. Fails as
    /// [`Admin::deregister`] would. Waits until all chunks are checked.
    pub async fn plan_deregister(&self, cluster: ClusterId, node: NodeId) -> Result<(), Error> {
        self.send_deregister(cluster, node, true).await
    }

    /// Removes a node that holds nothing from the cluster, permanently. Waits until all chunks are
    /// checked; the removal continues when this is dropped.
    pub async fn deregister(&self, cluster: ClusterId, node: NodeId) -> Result<(), Error> {
        self.send_deregister(cluster, node, false).await
    }

    async fn send_deregister(
        &self,
        cluster: ClusterId,
        node: NodeId,
        is_dry_run: bool,
    ) -> Result<(), Error> {
        let context = format!("deregister node {node}");
        loop {
            let (cluster_id, node_id) = (cluster.to_wire(), node.to_wire());
            let request = v1::DeregisterRequest { cluster_id, node_id, is_dry_run };
            let reply = self.call(&context, request, |mut admin, request| async move {
                admin.deregister(request).await
            });
            if !reply.await?.is_pending {
                return Ok(());
            }
            sleep(POLL).await;
        }
    }

    /// Gives a lost node up: its replicas are rebuilt however many nodes are lost. Taken back when
    /// the node returns.
    pub async fn give_up(&self, cluster: ClusterId, node: NodeId) -> Result<(), Error> {
        let context = format!("give up node {node}");
        let (cluster_id, node_id) = (cluster.to_wire(), node.to_wire());
        let request = v1::GiveUpRequest { cluster_id, node_id };
        self.call(
            &context,
            request,
            |mut admin, request| async move { admin.give_up(request).await },
        )
        .await
        .map(drop)
    }
}

impl StopSafety {
    /// Returns a refusal for this reason, with no chunks counted.
    pub fn refused(reason: impl Into<String>) -> Self {
        Self {
            is_safe: false,
            chunks_below: 0,
            chunks_unreadable: 0,
            reason: reason.into(),
            revision: Revision(0),
            is_pending: false,
        }
    }

    fn from_wire(reply: v1::SafeToStopResponse) -> Self {
        Self {
            is_safe: reply.is_safe,
            chunks_below: reply.chunks_below,
            chunks_unreadable: reply.chunks_unreadable,
            reason: reply.reason,
            revision: Revision(reply.revision),
            is_pending: reply.is_pending,
        }
    }
}
