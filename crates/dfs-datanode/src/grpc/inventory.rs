//! What the disks hold: digests and lists of replicas, for comparison with the records.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dfs_chunkstore::{SealedChunk, StoreError};
use dfs_proto::wire::{self, WireId as _};
use dfs_proto::{FieldError, v1};
use dfs_transport::spawn_in_request;
use dfs_types::{ChunkId, DiskId, ReplicaDigest};
use futures_util::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::pace::PacedSender;
use crate::Error;
use crate::node::{LISTING_STEP, Node};
use crate::orders::Authorised;

/// Approximate bytes of a replica in a listing.
const LISTED_BYTES: u64 = 100;

/// A range of chunks.
#[derive(Debug, Clone, Copy)]
struct Range {
    from: ChunkId,
    /// Exclusive; `None` for no end.
    to: Option<ChunkId>,
}

impl Range {
    fn parse(from: &[u8], to: &[u8]) -> Result<Self, FieldError> {
        let from = wire::optional_id("from", from)?.unwrap_or(ChunkId::MIN);
        Ok(Self { from, to: wire::optional_id("to", to)? })
    }

    fn contains(self, chunk: ChunkId) -> bool {
        chunk >= self.from && self.to.is_none_or(|to| chunk < to)
    }
}

/// A walk over the replicas in a range.
struct Walk<'a> {
    node: &'a Node,
    range: Range,
    /// The last chunk read.
    after: Option<ChunkId>,
    is_over: bool,
}

impl<'a> Walk<'a> {
    fn new(node: &'a Node, range: Range) -> Self {
        let after = range.from.0.checked_sub(1).map(ChunkId);
        Self { node, range, after, is_over: false }
    }

    /// Returns the next replicas; `None` at the end.
    async fn next(&mut self) -> Result<Option<Vec<SealedChunk>>, StoreError> {
        if self.is_over {
            return Ok(None);
        }
        let mut found = self.node.store.list(self.after, LISTING_STEP).await?;
        // A page may have any length but 0 before the end.
        let last = found.last().map(|replica| replica.chunk);
        found.retain(|replica| self.range.contains(replica.chunk));
        self.is_over = !last.is_some_and(|last| self.range.contains(last));
        self.after = last;
        Ok(Some(found))
    }
}

/// Returns the disks in service.
fn in_service(node: &Node) -> BTreeSet<DiskId> {
    let disks = node.store.usage().into_iter().filter(|disk| disk.state.is_in_service());
    disks.map(|disk| disk.disk).collect()
}

/// Returns a digest of the replicas on each disk that is in service throughout.
pub(super) async fn digests(
    node: &Node,
    order: Authorised<v1::InventoryRequest>,
) -> Result<v1::InventoryResponse, Error> {
    let request = order.into_inner();
    let range = Range::parse(&request.from, &request.to)?;
    let _permit = node.calls.listings.enter()?;
    let mut disks: BTreeMap<DiskId, ReplicaDigest> = BTreeMap::new();
    disks.extend(in_service(node).into_iter().map(|disk| (disk, ReplicaDigest::default())));
    let mut walk = Walk::new(node, range);
    while let Some(replicas) = walk.next().await? {
        let cycle = request.cycle;
        let hash = move || {
            for SealedChunk { chunk, stamp, disk, .. } in replicas {
                if let Some(digest) = disks.get_mut(&disk) {
                    digest.add(cycle, chunk, dfs_types::Part::WHOLE, stamp);
                }
            }
            disks
        };
        disks = node.pool.run(hash).await.map_err(StoreError::from)?;
    }
    let still = in_service(node);
    disks.retain(|disk, _| still.contains(disk));
    let disks = disks.into_iter().map(|(disk, digest)| v1::DiskDigest {
        disk_id: disk.to_wire(),
        count: digest.count,
        sum: digest.sum,
    });
    Ok(v1::InventoryResponse { disks: disks.collect() })
}

/// Lists replicas, page by page as the caller reads them.
pub(super) fn list(
    node: &Arc<Node>,
    order: Authorised<v1::ListChunksRequest>,
) -> Result<impl Stream<Item = Result<v1::ChunkListPage, Status>> + use<>, Error> {
    let request = order.into_inner();
    let range = Range::parse(&request.from, &request.to)?;
    let disk = wire::optional_id::<DiskId>("disk_id", &request.disk_id)?;
    let permit = node.calls.listings.enter()?;
    let (mut pages, outgoing) = PacedSender::channel(1);
    let node = node.clone();
    spawn_in_request(async move {
        let _permit = permit;
        let serves = |node: &Node| disk.is_none_or(|disk| node.proves_absence(disk));
        let was_in_service = serves(&node);
        // Taken before the index is read.
        let verdict = node.store.verdict_number();
        let mut walk = Walk::new(&node, range);
        loop {
            let found = match walk.next().await {
                Ok(found) => found,
                Err(error) => return pages.fail(error),
            };
            let is_end = found.is_none();
            let found = found.unwrap_or_default();
            let is_listed = |replica: &&SealedChunk| disk.is_none_or(|disk| replica.disk == disk);
            let chunks: Vec<_> = found.iter().filter(is_listed).map(listed).collect();
            if chunks.is_empty() && !is_end {
                continue;
            }
            let bytes = chunks.len() as u64 * LISTED_BYTES;
            let is_last = is_end && was_in_service && serves(&node);
            let page = v1::ChunkListPage { chunks, is_last, verdict };
            pages = match pages.send(page, bytes).await {
                Ok(pages) if !is_end => pages,
                _ => return,
            };
        }
    });
    Ok(ReceiverStream::new(outgoing))
}

fn listed(replica: &SealedChunk) -> v1::ListedChunk {
    v1::ListedChunk {
        replica: Some(replica.replica().into()),
        length: replica.seal.length,
        crc32c: replica.seal.crc32c.0,
        sha256: bytes::Bytes::copy_from_slice(&replica.seal.sha256.0),
        is_set_aside: replica.is_set_aside,
        quarantined_ms: 0,
    }
}
