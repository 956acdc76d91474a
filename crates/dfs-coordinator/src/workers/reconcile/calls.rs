//! Orders of the comparison.

use std::collections::BTreeMap;

use dfs_metadata::engine::lease::LeaseGrant;
use dfs_metadata::replica_findings::Listed;
use dfs_proto::wire::{self, WireId};
use dfs_proto::{Failure, FieldError, v1};
use dfs_types::{
    ChunkId, ChunkSeal, Crc32c, DiskId, ErrorCode, NodeId, Part, ReplicaDigest, Stamp, Timestamp,
};
use tokio::time::timeout;

use crate::core::Core;
use crate::workers::orders::{ORDER_TIMEOUT, order, within};

/// Replicas listed at most: more than a window has records, and room for orphans.
const LISTED_MAX: usize = 4 << 20;
/// Disks per node at most.
const DISKS_MAX: usize = 64;

/// A range of chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) from: ChunkId,
    /// Exclusive; `None` for no end.
    pub(super) to: Option<ChunkId>,
}

/// A replica of a disk, within a list.
pub(super) type Name = (ChunkId, Part, Stamp);

/// A complete list of the replicas of a disk.
#[derive(Debug)]
pub(super) struct Listing {
    /// Number of verdicts that follow from the list.
    pub(super) verdict: u64,
    pub(super) replicas: BTreeMap<Name, ListedReplica>,
}

/// A replica in a list.
#[derive(Debug, Clone, Copy)]
pub(super) struct ListedReplica {
    pub(super) listed: Listed,
    /// When it was quarantined, if it is.
    pub(super) quarantined: Option<Timestamp>,
}

/// Returns the digests of the disks of a node that are in service.
pub(super) async fn inventory(
    core: &Core,
    lease: &LeaseGrant,
    node: NodeId,
    cycle: u64,
    range: Range,
) -> Result<BTreeMap<DiskId, ReplicaDigest>, Failure> {
    let request = v1::InventoryRequest {
        cycle,
        from: range.from.to_wire(),
        to: range.to.map(WireId::to_wire).unwrap_or_default(),
        node_id: node.to_wire(),
        lease_epoch: lease.epoch.0,
        order: None,
    };
    let (mut client, request) = order(core, node, request)?;
    let answer = within(ORDER_TIMEOUT, client.inventory(request)).await?;
    let disks = wire::at_most("disks", answer.disks, DISKS_MAX)?;
    let digest = |disk: v1::DiskDigest| {
        let id = wire::id("disks.disk_id", &disk.disk_id)?;
        Ok((id, ReplicaDigest { count: disk.count, sum: disk.sum }))
    };
    disks.into_iter().map(digest).collect()
}

/// Lists the replicas of a disk. `None` if the list is incomplete: the disk was not in service
/// throughout, or holds more replicas than expected.
pub(super) async fn list(
    core: &Core,
    lease: &LeaseGrant,
    (node, disk): (NodeId, DiskId),
    range: Range,
) -> Result<Option<Listing>, Failure> {
    let request = v1::ListChunksRequest {
        from: range.from.to_wire(),
        to: range.to.map(WireId::to_wire).unwrap_or_default(),
        node_id: node.to_wire(),
        lease_epoch: lease.epoch.0,
        order: None,
        disk_id: disk.to_wire(),
    };
    let (mut client, request) = order(core, node, request)?;
    let mut pages = within(ORDER_TIMEOUT, client.list_chunks(request)).await?;
    let mut listing = Listing { verdict: 0, replicas: BTreeMap::new() };
    let mut is_complete = false;
    loop {
        let page = timeout(ORDER_TIMEOUT, pages.message()).await;
        let silent = |_| Failure::new(ErrorCode::Unavailable, "the listing was interrupted");
        let page = page.map_err(silent)?.map_err(|status| Failure::from_status(&status))?;
        let Some(page) = page else { break };
        listing.verdict = page.verdict;
        is_complete = page.is_last;
        for found in page.chunks {
            let replica = wire::replica("chunks.replica", found.replica.clone())?;
            if replica.disk != disk {
                return Err(FieldError::new("chunks.replica", "is on another disk").into());
            }
            let name = (replica.chunk, replica.part, replica.stamp);
            listing.replicas.insert(name, parse(&found)?);
        }
        if listing.replicas.len() > LISTED_MAX {
            return Ok(None);
        }
    }
    Ok(is_complete.then_some(listing))
}

fn parse(found: &v1::ListedChunk) -> Result<ListedReplica, FieldError> {
    let seal = ChunkSeal {
        length: found.length,
        crc32c: Crc32c(found.crc32c),
        sha256: wire::sha256("chunks.sha256", &found.sha256)?,
    };
    let is_quarantined = found.quarantined_ms != 0;
    Ok(ListedReplica {
        listed: Listed { seal, is_set_aside: found.is_set_aside, is_quarantined },
        quarantined: is_quarantined.then(|| Timestamp::from_millis(found.quarantined_ms)),
    })
}

/// Orders a node to return a disk to full service.
pub(super) async fn settle_disk(
    core: &Core,
    lease: &LeaseGrant,
    node: NodeId,
    disk: DiskId,
) -> Result<(), Failure> {
    let request = v1::SettleDiskRequest {
        disk_id: disk.to_wire(),
        node_id: node.to_wire(),
        lease_epoch: lease.epoch.0,
        order: None,
    };
    let (mut client, request) = order(core, node, request)?;
    within(ORDER_TIMEOUT, client.settle_disk(request)).await.map(drop)
}
