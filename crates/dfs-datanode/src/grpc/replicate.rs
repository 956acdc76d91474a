//! Copying a chunk to other nodes, as the coordinator orders it.

use std::sync::Arc;

use dfs_chunkstore::{SealedChunk, StoreError};
use dfs_proto::wire::{self, WireId as _};
use dfs_proto::{Failure, v1};
use dfs_streamer::grpc::dropped_to_wire;
use dfs_streamer::{Dropped, Reopening, SenderConfig, send_chunk};
use dfs_transport::spawn_in_request;
use dfs_types::{BLOCK_SIZE, ChunkId, ErrorCode, Frame, FrameError, LeaseEpoch, Receipt};
use futures_util::future::join_all;
use tokio::sync::mpsc;

use super::prepare::{Location, locations, prepare_downstream};
use crate::Error;
use crate::node::Node;

/// Frames read ahead of the connection.
const FRAMES_AHEAD: usize = 2;

pub(super) async fn run(
    node: &Arc<Node>,
    request: v1::ReplicateRequest,
) -> Result<v1::ReplicateResponse, Error> {
    node.check_meant(wire::id("node_id", &request.node_id)?)?;
    let chunk: ChunkId = wire::id("chunk_id", &request.chunk_id)?;
    let targets = locations("targets", &request.targets)?;
    node.check_epoch(LeaseEpoch(request.lease_epoch))?;
    let permit = node.replications.clone().try_acquire_owned();
    let _permit = permit.map_err(|_| Error::Busy("chunks on their way to other nodes"))?;
    let _streams = node.sessions.take_streams(targets.len())?;
    let replica = node.store.stat(chunk).await?.ok_or(StoreError::NotFound(chunk))?;
    if replica.is_set_aside {
        return Err(StoreError::SetAside(chunk).into());
    }
    let header = node.store.header(chunk).await?;
    let meta = v1::ChunkMeta {
        cluster_id: header.cluster.to_wire(),
        chunk_id: chunk.to_wire(),
        max_length: replica.seal.length.next_multiple_of(BLOCK_SIZE as u64),
        inode: header.inode.0,
        path: header.path,
        file_offset: header.file_offset,
        is_replica: true,
        min_replicas: 1,
        ..v1::ChunkMeta::default()
    };
    let replicas = join_all(targets.iter().map(|target| send(node, replica, target, &meta)));
    let (mut receipts, mut failed) = (Vec::new(), Vec::new());
    for (target, result) in targets.iter().zip(replicas.await) {
        match result {
            Ok(receipt) => {
                node.counts.replicated.increment();
                tracing::debug!(%chunk, to = %target.id, "copied a chunk");
                receipts.push(receipt.into());
            }
            Err(Failure { code, message, .. }) => {
                tracing::info!(%chunk, to = %target.id, %code, message, "a chunk was not copied");
                failed.push(dropped_to_wire(Dropped { node: target.id, code, message }));
            }
        }
    }
    Ok(v1::ReplicateResponse { receipts, failed })
}

async fn send(
    node: &Arc<Node>,
    replica: SealedChunk,
    target: &Location,
    meta: &v1::ChunkMeta,
) -> Result<Receipt, Failure> {
    let downstream = prepare_downstream(node, target, meta).await?;
    let reader = node.clone();
    let mut source = Reopening::new(move |offset| {
        let (frames, made) = mpsc::channel(FRAMES_AHEAD);
        spawn_in_request(read(reader.clone(), replica, offset, frames));
        made
    });
    let config = SenderConfig::between_nodes();
    let random = node.random.as_ref();
    let sent =
        send_chunk(&*downstream.link, downstream.session, &mut source, &config, random, |_| {});
    let outcome = sent.await.map_err(Failure::from)?;
    let own = outcome.receipts.into_iter().find(|receipt| receipt.node == target.id);
    own.ok_or_else(|| Failure::new(ErrorCode::Internal, "another node answered"))
}

/// Reads the frames of a replica from `offset` on, each verified: what is damaged is not spread.
async fn read(
    node: Arc<Node>,
    replica: SealedChunk,
    mut offset: u64,
    frames: mpsc::Sender<Result<Frame, dfs_streamer::Error>>,
) {
    loop {
        let frame = frame(&node, replica, offset).await;
        let is_last = frame.as_ref().map_or(true, |frame| frame.seal.is_some());
        offset = frame.as_ref().map_or(offset, Frame::end);
        if frames.send(frame).await.is_err() || is_last {
            return;
        }
    }
}

async fn frame(
    node: &Arc<Node>,
    replica: SealedChunk,
    offset: u64,
) -> Result<Frame, dfs_streamer::Error> {
    let failed = |error: String| dfs_streamer::Error::Source(error);
    let (chunk, length) = (replica.chunk, replica.seal.length);
    let blocks = match node.read(replica, offset, length - offset).await {
        Ok(blocks) => blocks,
        Err(error) => return Err(failed(error.to_string())),
    };
    node.throttle.take(blocks.data.len() as u64).await;
    let mut frame =
        Frame { offset: blocks.offset, data: blocks.data, crcs: blocks.crcs, seal: None };
    if frame.end() >= length {
        frame.seal = Some(replica.seal);
    }
    let verified = node.pool.run(move || frame.verify().map(|()| frame)).await;
    match verified.map_err(|error| failed(error.to_string()))? {
        Ok(frame) => Ok(frame),
        Err(FrameError::ChecksumMismatch(block)) => {
            if let Err(error) = node.condemn(replica, block).await {
                tracing::error!(%chunk, %error, "a damaged replica could not be set aside");
            }
            Err(failed(format!("block {block} of the replica is damaged")))
        }
        Err(error) => Err(failed(error.to_string())),
    }
}
