//! Emptying nodes and disks.

use std::time::Duration;

use dfs_proto::v1;
use dfs_proto::wire::{self, WireId as _};
use dfs_types::{ClusterId, DiskId, NodeId, NodeState};

use super::Admin;
use crate::Error;

/// Replicas to move away from a node or a disk, according to its heartbeats.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MovePlan {
    /// Replicas to move.
    pub replicas: u64,
    /// Bytes used there, which is at least what has to be moved.
    pub bytes: u64,
    /// Free bytes on the nodes that can take them.
    pub room: u64,
    /// Nodes that can take them.
    pub targets: u32,
    /// Bytes per second at which they are moved at most; `None` for no limit.
    pub rate: Option<u64>,
    /// Human-readable reasons why the move cannot finish now; empty when none is known.
    pub blockers: Vec<String>,
}

impl MovePlan {
    /// Returns whether the other nodes have room for everything.
    pub fn fits(&self) -> bool {
        self.bytes <= self.room
    }

    /// Returns the least time that it takes at the present rate; `None` without a limit.
    pub fn duration(&self) -> Option<Duration> {
        self.rate.map(|rate| Duration::from_secs(self.bytes.div_ceil(rate.max(1))))
    }

    fn from_wire(plan: v1::MovePlan) -> Self {
        let v1::MovePlan { replicas, bytes, room, targets, rate, blockers } = plan;
        Self { replicas, bytes, room, targets, rate: (rate > 0).then_some(rate), blockers }
    }
}

impl Admin {
    /// Returns what draining a node would move, without changing anything.
    pub async fn plan_drain(&self, cluster: ClusterId, node: NodeId) -> Result<MovePlan, Error> {
        self.send_drain(cluster, node, true).await.map(|(_, plan)| plan)
    }

    /// Begins to drain a node: its replicas are moved to other nodes in the background, and then
    /// its state is Drained. Returns the state of the node.
    pub async fn drain(&self, cluster: ClusterId, node: NodeId) -> Result<NodeState, Error> {
        self.send_drain(cluster, node, false).await.map(|(state, _)| state)
    }

    async fn send_drain(
        &self,
        cluster: ClusterId,
        node: NodeId,
        is_dry_run: bool,
    ) -> Result<(NodeState, MovePlan), Error> {
        let context = format!("drain node {node}");
        let (cluster_id, node_id) = (cluster.to_wire(), node.to_wire());
        let request = v1::DrainRequest { cluster_id, node_id, is_dry_run };
        let reply = self
            .call(&context, request, |mut admin, request| async move { admin.drain(request).await })
            .await?;
        let state = wire::node_state("state", reply.state);
        let state = state.map_err(|error| Error::wire(&context, &error))?;
        Ok((state, MovePlan::from_wire(reply.plan.unwrap_or_default())))
    }

    /// Makes a draining or drained node active again. Returns the state of the node.
    pub async fn undrain(&self, cluster: ClusterId, node: NodeId) -> Result<NodeState, Error> {
        let context = format!("undrain node {node}");
        let (cluster_id, node_id) = (cluster.to_wire(), node.to_wire());
        let request = v1::UndrainRequest { cluster_id, node_id };
        let reply = self.call(&context, request, |mut admin, request| async move {
            admin.undrain(request).await
        });
        wire::node_state("state", reply.await?.state).map_err(|error| Error::wire(&context, &error))
    }

    /// Returns what retiring a disk would move, without changing anything.
    pub async fn plan_retire(
        &self,
        cluster: ClusterId,
        node: NodeId,
        disk: DiskId,
    ) -> Result<MovePlan, Error> {
        self.send_retire(cluster, node, disk, (false, true)).await
    }

    /// Begins to empty a disk of a node, which gets no new replicas from then on.
    pub async fn retire_disk(
        &self,
        cluster: ClusterId,
        node: NodeId,
        disk: DiskId,
    ) -> Result<(), Error> {
        self.send_retire(cluster, node, disk, (false, false)).await.map(drop)
    }

    /// Uses a disk again that was to be emptied, or was emptied.
    pub async fn unretire_disk(
        &self,
        cluster: ClusterId,
        node: NodeId,
        disk: DiskId,
    ) -> Result<(), Error> {
        self.send_retire(cluster, node, disk, (true, false)).await.map(drop)
    }

    async fn send_retire(
        &self,
        cluster: ClusterId,
        node: NodeId,
        disk: DiskId,
        (is_undo, is_dry_run): (bool, bool),
    ) -> Result<MovePlan, Error> {
        let context = format!("retire disk {disk} of node {node}");
        let request = v1::RetireDiskRequest {
            cluster_id: cluster.to_wire(),
            node_id: node.to_wire(),
            disk_id: disk.to_wire(),
            is_undo,
            is_dry_run,
        };
        let reply = self.call(&context, request, |mut admin, request| async move {
            admin.retire_disk(request).await
        });
        Ok(MovePlan::from_wire(reply.await?.plan.unwrap_or_default()))
    }
}
