//! Serves reads.

use std::sync::Arc;
use std::time::Duration;

use dfs_chunkstore::{Blocks, SealedChunk};
use dfs_proto::{v1, wire};
use dfs_transport::spawn_in_request;
use dfs_types::{ChunkSeal, ClusterId, Frame, Sha256, build_weight, move_cost};
use futures_util::Stream;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::pace::PacedSender;
use crate::Error;
use crate::node::Node;

/// Time that a read waits for others to end.
const WAIT: Duration = Duration::from_secs(2);
/// Time that a read for a build waits: large ones before it take seconds. Shorter than its reader
/// waits for a frame.
pub(super) const WAIT_FOR_BUILDS: Duration = Duration::from_secs(8);
/// Frames read ahead of the connection.
const FRAMES_AHEAD: usize = 2;

pub(super) async fn run(
    node: &Arc<Node>,
    request: &v1::RetrieveRequest,
) -> Result<impl Stream<Item = Result<v1::ChunkFrame, Status>> + use<>, Error> {
    node.check_meant_if_named(&request.node_id)?;
    node.check_cluster(wire::optional_id::<ClusterId>("cluster_id", &request.cluster_id)?)?;
    let replica = wire::replica("replica", request.replica.clone())?;
    let chunk = replica.chunk;
    let for_build = request.for_build;
    let Ok(_waiting) = node.waiting_reads.try_acquire_many(1) else {
        return Err(Error::Busy("reads"));
    };
    let replica = node.find(replica).await?;
    let (permits, weight, wait) = if for_build {
        (&node.build_reads, build_weight(replica.length), WAIT_FOR_BUILDS)
    } else {
        (&node.reads, 1, WAIT)
    };
    let permit = timeout(wait, permits.clone().acquire_owned()).await;
    let mut permit = permit.ok().and_then(Result::ok).ok_or(Error::Busy("reads"))?;
    // Like a build, a read may begin while anything is free, whatever its weight.
    let more = (weight - 1).min(permits.available_permits() as u32);
    if let Ok(more) = permits.clone().try_acquire_many_owned(more) {
        permit.merge(more);
    }
    let (offset, length) = (request.offset, replica.length);
    if offset >= length {
        return Err(Error::PastEnd { chunk, offset, length });
    }
    let end = match request.length {
        0 => length,
        wanted => offset.saturating_add(wanted).min(length),
    };
    // The first read shows whether there is anything to serve.
    let first = node.read(replica, offset, end - offset).await?;
    let mut origin = None;
    if for_build {
        origin = node.origin(replica).await?;
        node.movement.take(move_cost(length) - length).await;
    }
    let (mut frames, outgoing) = PacedSender::channel(FRAMES_AHEAD);
    let node = node.clone();
    spawn_in_request(async move {
        let _permit = permit;
        let mut next = Ok(first);
        loop {
            let blocks = match next {
                Ok(blocks) => blocks,
                Err(error) => return frames.fail(error),
            };
            let at = blocks.offset + blocks.data.len() as u64;
            let is_last = at >= end || blocks.data.is_empty();
            if for_build {
                node.movement.take(blocks.data.len() as u64).await;
            }
            let bytes = blocks.data.len() as u64;
            node.counts.bytes_out.add(bytes);
            let frame = v1::ChunkFrame { origin: origin.take(), ..frame(blocks, &replica) };
            frames = match frames.send(frame, bytes).await {
                Ok(frames) if !is_last => frames,
                _ => return,
            };
            next = node.read(replica, at, end - at).await;
        }
    });
    Ok(ReceiverStream::new(outgoing))
}

/// Returns a frame. The last one carries the seal, which allows a short last block. Its sha256 is
/// zero if the head of the replica is damaged: the receiver knows that of the chunk.
pub(super) fn frame(blocks: Blocks, replica: &SealedChunk) -> v1::ChunkFrame {
    let Blocks { offset, data, crcs, sha256 } = blocks;
    let SealedChunk { length, crc32c, .. } = *replica;
    let seal = ChunkSeal { length, crc32c, sha256: sha256.unwrap_or(Sha256([0; 32])) };
    let is_end = offset + data.len() as u64 == length;
    Frame { offset, data, crcs, seal: is_end.then_some(seal) }.into()
}
