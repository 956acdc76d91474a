//! Orders of the comparison.

use std::collections::BTreeMap;

use dfs_metadata::engine::lease::LeaseGrant;
use dfs_metadata::namespace::Chunk;
use dfs_metadata::replica_findings::Listed;
use dfs_proto::wire::{self, WireId};
use dfs_proto::{Failure, FieldError, v1};
use dfs_types::{
    ChunkId, ChunkSeal, Crc32c, DiskId, ErrorCode, NodeId, Part, Receipt, ReplicaDigest,
    ReplicaRef, Stamp,
};
use tokio::time::timeout;
use tonic::Streaming;

use crate::core::Core;
use crate::workers::orders::{ORDER_TIMEOUT, order, result, within};

/// Replicas in a list at most: more than a window has records, and room for unneeded ones.
const LISTED_MAX: usize = 1 << 17;
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
    pub(super) replicas: BTreeMap<Name, Listed>,
}

/// Outcome of a list.
#[derive(Debug)]
pub(super) enum ListOutcome {
    /// The list is complete.
    Complete(Listing),
    /// The disk holds more replicas than a list may have: those of chunks before this one fit.
    TooLong(ChunkId),
    /// The disk was not in service throughout.
    Incomplete,
}

/// Returns the digests of the disks of a node that are in service. The node reports progress, so that
/// it may take as long as it needs.
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
    let mut pages = within(ORDER_TIMEOUT, client.inventory(request)).await?;
    let disks = loop {
        let page = next_page(&mut pages).await?;
        let page = page.ok_or_else(interrupted)?;
        if page.is_last {
            break wire::at_most("disks", page.disks, DISKS_MAX)?;
        }
    };
    let digest = |disk: v1::DiskDigest| {
        let id = wire::id("disks.disk_id", &disk.disk_id)?;
        Ok((id, ReplicaDigest { count: disk.count, sum: disk.sum }))
    };
    disks.into_iter().map(digest).collect()
}

/// Lists the replicas of a disk.
pub(super) async fn list(
    core: &Core,
    lease: &LeaseGrant,
    (node, disk): (NodeId, DiskId),
    range: Range,
) -> Result<ListOutcome, Failure> {
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
        let Some(page) = next_page(&mut pages).await? else { break };
        listing.verdict = page.verdict;
        is_complete = page.is_last;
        for found in page.chunks {
            let replica = wire::replica("chunks.replica", found.replica.clone())?;
            if replica.disk != disk {
                return Err(FieldError::new("chunks.replica", "is on another disk").into());
            }
            let name = (replica.chunk, replica.part, replica.stamp);
            listing.replicas.insert(name, parse(&found));
        }
        if listing.replicas.len() > LISTED_MAX
            && let Some(((last, ..), _)) = listing.replicas.last_key_value()
        {
            return Ok(ListOutcome::TooLong(*last));
        }
    }
    Ok(if is_complete { ListOutcome::Complete(listing) } else { ListOutcome::Incomplete })
}

/// Waits for the next page of a stream; `None` at its end.
async fn next_page<T>(pages: &mut Streaming<T>) -> Result<Option<T>, Failure> {
    let page = timeout(ORDER_TIMEOUT, pages.message()).await;
    page.map_err(|_| interrupted())?.map_err(|status| Failure::from_status(&status))
}

fn interrupted() -> Failure {
    Failure::new(ErrorCode::Unavailable, "the node stopped replying")
}

fn parse(found: &v1::ListedChunk) -> Listed {
    let v1::ListedChunk { length, crc32c, is_set_aside, .. } = *found;
    Listed { length, crc32c: Crc32c(crc32c), is_set_aside }
}

/// Orders a node to verify a replica that no record names. Returns the receipt of the replica
/// under its new stamp.
pub(super) async fn adopt(
    core: &Core,
    lease: &LeaseGrant,
    node: NodeId,
    replica: ReplicaRef,
    record: &Chunk,
) -> Result<Receipt, Failure> {
    let ChunkSeal { length, crc32c, sha256 } = record.seal;
    let request = v1::AdoptReplicaRequest {
        replica: Some(replica.into()),
        length,
        crc32c: crc32c.0,
        sha256: bytes::Bytes::copy_from_slice(&sha256.0),
        generation: record.generation.0,
        lease_epoch: lease.epoch.0,
        node_id: node.to_wire(),
        order: None,
    };
    let (mut client, request) = order(core, node, request)?;
    let answer = result(client.adopt_replica(request)).await?;
    let receipt = wire::receipt("adopted", wire::required("adopted", answer.adopted)?)?;
    let adopted = (receipt.node, receipt.chunk, receipt.part, receipt.disk);
    if adopted != (node, replica.chunk, replica.part, replica.disk) {
        return Err(FieldError::new("adopted", "belongs to another replica").into());
    }
    Ok(receipt)
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
