//! Emptying nodes and disks.

use std::time::Duration;

use dfs_proto::v1;
use dfs_proto::wire::{self, FieldError, WireId as _};
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
    /// Free bytes on the targets.
    pub room: u64,
    /// Nodes each of which can take at least one of the replicas that were checked, or, if none was,
    /// those that take chunks. The node itself is one of them if a disk is emptied and another one of
    /// its disks takes chunks.
    pub targets: Vec<NodeId>,
    /// Replicas whose chunks were looked up for that.
    pub checked: u64,
    /// Those of them that no node can take.
    pub stuck: u64,
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

    fn from_wire(plan: v1::MovePlan) -> Result<Self, FieldError> {
        let v1::MovePlan { replicas, bytes, room, rate, blockers, checked, stuck, .. } = plan;
        let targets = plan.target_nodes.iter().map(|node| wire::id("plan.target_nodes", node));
        let targets = targets.collect::<Result<_, _>>()?;
        let rate = (rate > 0).then_some(rate);
        Ok(Self { replicas, bytes, room, targets, checked, stuck, rate, blockers })
    }
}

impl Admin {
    /// Returns what draining a node together with `others`, at most 100, would move from it, without
    /// changing anything.
    pub async fn plan_drain(
        &self,
        cluster: ClusterId,
        node: NodeId,
        others: &[NodeId],
    ) -> Result<MovePlan, Error> {
        self.send_drain(cluster, node, Some(others)).await.map(|(_, plan)| plan)
    }

    /// Begins to drain a node: its replicas are moved to other nodes in the background, and then
    /// its state is Drained. Returns the state of the node.
    pub async fn drain(&self, cluster: ClusterId, node: NodeId) -> Result<NodeState, Error> {
        self.send_drain(cluster, node, None).await.map(|(state, _)| state)
    }

    /// Sends the request; a dry run if there are `planned` others.
    async fn send_drain(
        &self,
        cluster: ClusterId,
        node: NodeId,
        planned: Option<&[NodeId]>,
    ) -> Result<(NodeState, MovePlan), Error> {
        let context = format!("drain node {node}");
        let others = planned.into_iter().flatten().filter(|other| **other != node);
        let request = v1::DrainRequest {
            cluster_id: cluster.to_wire(),
            node_id: node.to_wire(),
            is_dry_run: planned.is_some(),
            others: others.map(|other| other.to_wire()).collect(),
        };
        let reply = self
            .call(&context, request, |mut admin, request| async move { admin.drain(request).await })
            .await?;
        let wrong = |error: FieldError| Error::wire(&context, &error);
        let state = wire::node_state("state", reply.state).map_err(wrong)?;
        let plan = MovePlan::from_wire(reply.plan.unwrap_or_default()).map_err(wrong)?;
        Ok((state, plan))
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
        let plan = MovePlan::from_wire(reply.await?.plan.unwrap_or_default());
        plan.map_err(|error| Error::wire(&context, &error))
    }
}
