//! Calls on existing replicas: check, delete, list.

use std::sync::Arc;

use dfs_chunkstore::{SealedChunk, StoreError};
use dfs_proto::wire;
use dfs_proto::{Failure, FieldError, v1};
use dfs_transport::spawn_in_request;
use dfs_types::{ChunkId, ReplicaRef};
use futures_util::{Stream, StreamExt as _};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::pace::PacedSender;
use crate::Error;
use crate::node::{LISTING_STEP, Node};
use crate::orders::Authorised;

/// Maximum number of replicas that one call deletes.
const DELETE_MAX: usize = 1_000;
/// Approximate bytes of a replica in a listing.
const LISTED_BYTES: u64 = 100;
/// Number of replicas deleted concurrently.
const DELETE_AT_ONCE: usize = 16;

pub(super) async fn report_corrupt(
    node: &Node,
    report: v1::CorruptReport,
) -> Result<v1::CorruptVerdict, Error> {
    node.check_meant_if_named(&report.node_id)?;
    let _permit = node.calls.reports.enter()?;
    let replica = wire::replica("replica", report.replica)?;
    let set_aside = node.examine(replica, report.block).await?;
    Ok(v1::CorruptVerdict { set_aside })
}

/// Deletes exactly the replicas that are named. A failure does not delay the others; the response
/// names the replica with the reason.
pub(super) async fn delete(
    node: &Node,
    order: Authorised<v1::DeleteChunksRequest>,
) -> Result<v1::DeleteChunksResponse, Error> {
    let request = order.into_inner();
    let replicas = wire::at_most("replicas", request.replicas, DELETE_MAX)?;
    let replicas = replicas.into_iter().map(|replica| wire::replica("replicas", Some(replica)));
    let replicas: Vec<_> = replicas.collect::<Result<_, FieldError>>()?;
    let _permit = node.calls.deletions.enter()?;
    let results: Vec<_> = futures_util::stream::iter(replicas)
        .map(|replica| async move {
            let ReplicaRef { chunk, stamp, disk, .. } = replica;
            let result = delete_one(node, replica).await;
            match &result {
                Ok(true) => {
                    node.counts.deleted.increment();
                    tracing::debug!(%chunk, %disk, %stamp, "deleted a replica");
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(%chunk, %disk, %stamp, %error, "cannot delete a replica");
                }
            }
            if result.is_ok() {
                node.bad_replicas.remove(replica);
            }
            (replica, result)
        })
        .buffer_unordered(DELETE_AT_ONCE)
        .collect()
        .await;
    let mut answer = v1::DeleteChunksResponse::default();
    for (replica, result) in results {
        match result {
            Ok(is_deleted) => answer.deleted += u64::from(is_deleted),
            Err(error) => answer.failed.push(v1::FailedDeletion {
                replica: Some(replica.into()),
                code: error.code().name().to_owned(),
                message: Failure::from(error).message,
            }),
        }
    }
    Ok(answer)
}

/// Deletes a replica. `false` if its disk is in service and does not hold it.
async fn delete_one(node: &Node, replica: ReplicaRef) -> Result<bool, Error> {
    let deleted = match node.find(replica).await {
        Ok(found) => match node.store.delete(found.replica()).await {
            Ok(false) => Err(node.absence(replica)),
            deleted => deleted.map_err(Error::from),
        },
        Err(error) => Err(error),
    };
    match deleted {
        Err(Error::Store(StoreError::NotFound(_))) => Ok(false),
        deleted => deleted,
    }
}

/// Lists replicas, page by page as the caller reads them.
pub(super) fn list(
    node: &Arc<Node>,
    order: Authorised<v1::ListChunksRequest>,
) -> Result<impl Stream<Item = Result<v1::ChunkListPage, Status>> + use<>, Error> {
    let request = order.into_inner();
    let mut after = wire::optional_id::<ChunkId>("after", &request.after)?;
    let mut left = match request.limit {
        0 => usize::MAX,
        limit => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    let permit = node.calls.listings.enter()?;
    let (mut pages, outgoing) = PacedSender::channel(1);
    let node = node.clone();
    spawn_in_request(async move {
        let _permit = permit;
        loop {
            let step = left.min(LISTING_STEP);
            let found = match node.store.list(after, step).await {
                Ok(found) => found,
                Err(error) => return pages.fail(error),
            };
            left -= found.len();
            let is_last = found.len() < step || left == 0;
            after = found.last().map(|replica| replica.chunk);
            let chunks: Vec<_> = found.iter().map(listed).collect();
            let bytes = chunks.len() as u64 * LISTED_BYTES;
            pages = match pages.send(v1::ChunkListPage { chunks, is_last }, bytes).await {
                Ok(pages) if !is_last => pages,
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
    }
}
