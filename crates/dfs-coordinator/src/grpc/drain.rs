//! The calls of `Admin` that empty nodes and disks.

use dfs_metadata::namespace::Node;
use dfs_proto::{Failure, v1, wire};
use dfs_transport::Caller;
use dfs_types::{ByteSize, DiskId, NodeId, NodeState, counted};
use dfs_workers::DRAIN;
use tokio::time::Instant;
use tracing::info;

use super::nodes::node_of_call;
use crate::core::{Core, wire_state};
use crate::failure;
use crate::node_liveness::{DiskReport, View};

pub(super) async fn drain(
    core: &Core,
    (caller, request): (Caller, v1::DrainRequest),
) -> Result<v1::DrainResponse, Failure> {
    let node = node_of_call(core, &request.cluster_id, &request.node_id)?;
    let stored = if request.is_dry_run {
        member(core, &caller, node).await?
    } else {
        let drained = core.namespace.drain(&caller.scope(), node).await;
        let stored = drained.map_err(|error| failure::of(&error))?;
        info!(%node, state = %stored.state, "a datanode is to be drained");
        stored
    };
    let state = wire_state(stored.state);
    core.take_members(&[(node, stored)]);
    let plan = plan(core, &caller, node, None).await?;
    Ok(v1::DrainResponse { state, plan: Some(plan) })
}

pub(super) async fn undrain(
    core: &Core,
    (caller, request): (Caller, v1::UndrainRequest),
) -> Result<v1::UndrainResponse, Failure> {
    let node = node_of_call(core, &request.cluster_id, &request.node_id)?;
    let stored = core.namespace.undrain(&caller.scope(), node).await;
    let stored = stored.map_err(|error| failure::of(&error))?;
    info!(%node, state = %stored.state, "the drain of a datanode was taken back");
    let state = wire_state(stored.state);
    core.take_members(&[(node, stored)]);
    Ok(v1::UndrainResponse { state })
}

pub(super) async fn retire_disk(
    core: &Core,
    (caller, request): (Caller, v1::RetireDiskRequest),
) -> Result<v1::RetireDiskResponse, Failure> {
    let node = node_of_call(core, &request.cluster_id, &request.node_id)?;
    let disk: DiskId = wire::id("disk_id", &request.disk_id)?;
    let is_retiring = !request.is_undo;
    let stored = if request.is_dry_run {
        let stored = member(core, &caller, node).await?;
        if stored.disks.iter().all(|known| known.id != disk) {
            return Err(failure::of(&dfs_metadata::Error::UnknownDisk { node, disk }));
        }
        stored
    } else {
        let set = core.namespace.set_retiring(&caller.scope(), node, disk, is_retiring).await;
        info!(%node, %disk, is_retiring, "the use of a disk was changed");
        set.map_err(|error| failure::of(&error))?
    };
    core.take_members(&[(node, stored)]);
    let plan = if is_retiring { Some(plan(core, &caller, node, Some(disk)).await?) } else { None };
    Ok(v1::RetireDiskResponse { plan })
}

/// Returns the record of a member of the cluster.
pub(super) async fn member(core: &Core, caller: &Caller, node: NodeId) -> Result<Node, Failure> {
    let stored = core.namespace.node(&caller.scope(), node).await;
    let stored = stored.map_err(|error| failure::of(&error))?;
    let stored = stored.ok_or_else(|| failure::of(&dfs_metadata::Error::UnknownNode(node)))?;
    if stored.state == NodeState::Removed {
        return Err(failure::of(&dfs_metadata::Error::NodeRemoved(node)));
    }
    Ok(stored)
}

/// Returns what has to be moved away from a node, or from one disk of it.
async fn plan(
    core: &Core,
    caller: &Caller,
    node: NodeId,
    disk: Option<DiskId>,
) -> Result<v1::MovePlan, Failure> {
    let state = core.namespace.cluster_state(&caller.scope()).await;
    let copies = state.map_err(|error| failure::of(&error))?.replication.factor;
    let views = core.registry().views(Instant::now());
    let rate = core.background.workers.of(&DRAIN).rate();
    Ok(plan_of(&views, node, disk, copies, rate))
}

fn plan_of(
    views: &[View],
    node: NodeId,
    disk: Option<DiskId>,
    copies: u8,
    rate: u64,
) -> v1::MovePlan {
    let source = views.iter().find(|view| view.node == node);
    let disks: Vec<&DiskReport> = source
        .into_iter()
        .flat_map(|view| &view.disks)
        .filter(|report| disk.is_none_or(|disk| report.disk == disk))
        .collect();
    let sum = |of: fn(&DiskReport) -> u64| {
        disks.iter().map(|report| of(report)).fold(0, u64::saturating_add)
    };
    let replicas = sum(|report| report.chunks);
    let bytes = match replicas {
        0 => 0,
        _ => sum(|report| report.capacity.saturating_sub(report.free)),
    };
    // The room of each node that can take them, for a disk also on the other disks of its node.
    let room_on = |view: &View| match disk {
        _ if view.node != node => Some(view.free),
        None => None,
        Some(disk) => {
            let others = view.disks.iter().filter(|it| it.disk != disk && it.state.takes_chunks());
            others.map(|report| report.free).reduce(u64::saturating_add)
        }
    };
    let targets: Vec<u64> =
        views.iter().filter(|view| view.takes_chunks()).filter_map(room_on).collect();
    let room = targets.iter().copied().fold(0, u64::saturating_add);
    let mut blockers = Vec::new();
    if !source.is_some_and(|view| view.state.serves_reads()) {
        let state = source.map_or(NodeState::Joining, |view| view.state);
        blockers.push(format!("node {node} is {state}: its replicas are moved once it responds"));
    }
    for report in disks.iter().filter(|report| !report.state.is_in_service()) {
        let disk = report.disk;
        blockers
            .push(format!("disk {disk} is out of service: its replicas are rebuilt, not moved"));
    }
    // A replica cannot go to a node that has another one of the same chunk.
    if targets.len() < usize::from(copies) {
        blockers.push(format!(
            "{} can take them, and new files get {copies} replicas, each on another node: add \
             datanodes, or lower the replication factor",
            counted(targets.len() as u64, "node")
        ));
    }
    if bytes > room {
        blockers.push(format!(
            "these nodes have {} free, and up to {} are to be moved: add disks or datanodes",
            ByteSize(room),
            ByteSize(bytes)
        ));
    }
    v1::MovePlan { replicas, bytes, room, targets: targets.len() as u32, rate, blockers }
}
