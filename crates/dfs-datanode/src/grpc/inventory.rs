//! What the disks hold: digests and lists of replicas, for comparison with the records.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dfs_chunkstore::{SealedChunk, StoreError};
use dfs_proto::wire::{self, WireId as _};
use dfs_proto::{FieldError, v1};
use dfs_transport::spawn_in_request;
use dfs_types::{ChunkId, DiskId, ReplicaDigest};
use futures_util::Stream;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::pace::{Ended, PacedSender};
use crate::Error;
use crate::node::Node;
use crate::orders::Authorised;
use crate::walk::{ChunkRange, Walk};

/// Approximate bytes of a replica in a listing.
const LISTED_BYTES: u64 = 100;
/// Interval of showing progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Sends a digest of the replicas on each disk that is in service and known throughout.
pub(super) fn digests(
    node: &Arc<Node>,
    order: Authorised<v1::InventoryRequest>,
) -> Result<impl Stream<Item = Result<v1::InventoryPage, Status>> + use<>, Error> {
    let request = order.into_inner();
    let (range, cycle) = (parse_range(&request.from, &request.to)?, request.cycle);
    let permit = node.calls.listings.enter()?;
    let (mut pages, outgoing) = PacedSender::channel(1);
    let node = node.clone();
    spawn_in_request(async move {
        let _permit = permit;
        let mut disks: BTreeMap<DiskId, ReplicaDigest> = BTreeMap::new();
        disks.extend(node.known_disks().into_iter().map(|disk| (disk, ReplicaDigest::default())));
        let mut walk = Walk::new(&node, range);
        let mut progress = Instant::now();
        loop {
            let replicas = match walk.next().await {
                Ok(Some(replicas)) => replicas,
                Ok(None) => break,
                Err(error) => return pages.fail(error),
            };
            let hash = move || {
                for SealedChunk { chunk, stamp, disk, .. } in replicas {
                    if let Some(digest) = disks.get_mut(&disk) {
                        digest.add(cycle, chunk, dfs_types::Part::WHOLE, stamp);
                    }
                }
                disks
            };
            disks = match node.pool.run(hash).await {
                Ok(disks) => disks,
                Err(error) => return pages.fail(StoreError::from(error)),
            };
            if progress.elapsed() >= PROGRESS_EVERY {
                progress = Instant::now();
                pages = match pages.send(v1::InventoryPage::default(), 0).await {
                    Ok(pages) => pages,
                    Err(Ended) => return,
                };
            }
        }
        let still = node.known_disks();
        disks.retain(|disk, _| still.contains(disk));
        let disks = disks.into_iter().map(|(disk, digest)| v1::DiskDigest {
            disk_id: disk.to_wire(),
            count: digest.count,
            sum: digest.sum,
        });
        let page = v1::InventoryPage { disks: disks.collect(), is_last: true };
        drop(pages.send(page, 0).await);
    });
    Ok(ReceiverStream::new(outgoing))
}

/// Lists replicas, page by page as the caller reads them.
pub(super) fn list(
    node: &Arc<Node>,
    order: Authorised<v1::ListChunksRequest>,
) -> Result<impl Stream<Item = Result<v1::ChunkListPage, Status>> + use<>, Error> {
    let request = order.into_inner();
    let range = parse_range(&request.from, &request.to)?;
    let disk = wire::optional_id::<DiskId>("disk_id", &request.disk_id)?;
    let permit = node.calls.listings.enter()?;
    let (mut pages, outgoing) = PacedSender::channel(1);
    let node = node.clone();
    spawn_in_request(async move {
        let _permit = permit;
        let serves = |node: &Node| disk.is_none_or(|disk| node.known_disks().contains(&disk));
        let was_known = serves(&node);
        // Taken before the index is read.
        let verdict = node.store.verdict_number();
        let mut walk = Walk::new(&node, range);
        let mut progress = Instant::now();
        loop {
            let found = match walk.next().await {
                Ok(found) => found,
                Err(error) => return pages.fail(error),
            };
            let is_end = found.is_none();
            let found = found.unwrap_or_default();
            let is_listed = |replica: &&SealedChunk| disk.is_none_or(|disk| replica.disk == disk);
            let chunks: Vec<_> = found.iter().filter(is_listed).map(listed).collect();
            if chunks.is_empty() && !is_end && progress.elapsed() < PROGRESS_EVERY {
                continue;
            }
            progress = Instant::now();
            let bytes = chunks.len() as u64 * LISTED_BYTES;
            let is_last = is_end && was_known && serves(&node);
            let page = v1::ChunkListPage { chunks, is_last, verdict };
            pages = match pages.send(page, bytes).await {
                Ok(pages) if !is_end => pages,
                _ => return,
            };
        }
    });
    Ok(ReceiverStream::new(outgoing))
}

fn parse_range(from: &[u8], to: &[u8]) -> Result<ChunkRange, FieldError> {
    let from = wire::optional_id("from", from)?.unwrap_or(ChunkId::MIN);
    Ok(ChunkRange { from, to: wire::optional_id("to", to)? })
}

fn listed(replica: &SealedChunk) -> v1::ListedChunk {
    v1::ListedChunk {
        replica: Some(replica.replica().into()),
        length: replica.length,
        crc32c: replica.crc32c.0,
        is_set_aside: replica.is_set_aside,
    }
}
