//! The calls of `Admin` that empty nodes and disks.

use std::collections::BTreeSet;

use dfs_metadata::namespace::Node;
use dfs_proto::{Failure, v1, wire};
use dfs_transport::Caller;
use dfs_types::{DiskId, NodeId, NodeState};
use tracing::info;

use super::move_plan::{Source, plan};
use super::nodes::{NODES_MAX, node_of_call};
use crate::core::{Core, wire_state};
use crate::failure;

pub(super) async fn drain(
    core: &Core,
    (caller, request): (Caller, v1::DrainRequest),
) -> Result<v1::DrainResponse, Failure> {
    let node = node_of_call(core, &request.cluster_id, &request.node_id)?;
    let others = wire::at_most("others", request.others, NODES_MAX)?;
    let others = others.iter().map(|other| wire::id("others", other)).collect::<Result<_, _>>()?;
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
    let plan = plan(core, &caller, &Source { node, disk: None, others }).await?;
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
    if !is_retiring {
        return Ok(v1::RetireDiskResponse { plan: None });
    }
    let source = Source { node, disk: Some(disk), others: BTreeSet::new() };
    let plan = Some(plan(core, &caller, &source).await?);
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
