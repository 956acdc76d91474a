//! Builds a replica of a chunk from those of other nodes, as ordered by a coordinator.

use std::collections::BTreeSet;
use std::sync::Arc;

use dfs_chunkstore::{ChunkHeader, SealedChunk};
use dfs_proto::v1::build_replica_response::Outcome;
use dfs_proto::wire;
use dfs_proto::{Failure, FieldError, v1};
use dfs_streamer::grpc::dropped_to_wire;
use dfs_streamer::{Ack, Dropped, SenderConfig, Session, SessionConfig};
use dfs_types::{
    BLOCK_SIZE, CHUNK_SIZE_MAX, ChunkId, ChunkSeal, Crc32c, DiskId, DiskState, ErrorCode,
    Generation, InodeId, Part, Receipt, ReplicaRef, move_cost,
};
use futures_util::StreamExt as _;
use tokio::sync::oneshot;

use super::prepare::NodeSink;
use super::progress::Progress;
use super::pull::{Pull, Pulled, Source};
use crate::Error;
use crate::node::Node;
use crate::orders::Authorised;
use crate::settings::REPLICAS_MAX;

pub(super) async fn run(
    node: Arc<Node>,
    order: Authorised<v1::BuildReplicaRequest>,
    progress: Progress,
) -> Result<v1::BuildReplicaResponse, Failure> {
    let node = &node;
    let request = order.into_inner();
    let chunk: ChunkId = wire::id("chunk_id", &request.chunk_id)?;
    let seal = seal(&request)?;
    if wire::part("part", request.part)? != Part::WHOLE {
        return Err(FieldError::new("part", "only whole chunks are built").into());
    }
    let mut sources = sources(request.sources, chunk)?;
    let generation = Generation(request.generation);
    let replaces = wire::at_most("replaces", request.replaces, REPLICAS_MAX as usize)?;
    let replaces = replaces.into_iter().map(|replica| wire::replica("replaces", Some(replica)));
    let replaces = replaces.collect::<Result<BTreeSet<_>, _>>()?;
    let held = node.store.replicas(chunk).await.map_err(Error::from)?;
    // Those on retiring disks stay until the record names the new one.
    let (leaving, held) = split_off_leaving(node, held);
    if let Some(other) = held.iter().find(|replica| !replaces.contains(&replica.replica())) {
        let existing = v1::ExistingReplica {
            replica: Some(other.replica().into()),
            is_set_aside: other.is_set_aside,
        };
        return Ok(response(Some(Outcome::Existing(existing)), Vec::new()));
    }
    // The others stay: the coordinator decides about them.
    let replaced = place_of(node, &held);
    sources.splice(0..0, leaving.into_iter().map(Source::Local));
    sources.extend(held.into_iter().map(Source::Local));
    if sources.is_empty() {
        return Err(FieldError::new("sources", "is empty").into());
    }
    if node.is_stopping() {
        return Err(Error::Stopping.into());
    }
    let membership = node.check_cluster(None)?;
    if !membership.state.takes_chunks() {
        return Err(Error::TakesNoChunks(membership.state).into());
    }
    // No waiting here, and sources hold nothing that builds need: nodes that build from each other
    // cannot deadlock.
    let permit = node.builds.enter(seal.length)?;
    node.movement.take(move_cost(seal.length) - seal.length).await;

    progress.note();

    let pulled = (chunk, seal);
    let (pull, failed) = Pull::new(node.clone(), membership.cluster, pulled, sources, progress);
    let Some(Pulled { origin, frames }) = pull.start().await else {
        return Ok(response(None, failed.take()));
    };
    let max_length = seal.length.next_multiple_of(BLOCK_SIZE as u64);
    let header = ChunkHeader {
        cluster: membership.cluster,
        chunk,
        inode: InodeId(origin.inode),
        path: origin.path,
        file_offset: origin.file_offset,
        max_length,
    };
    let writer = match replaced {
        Some(replica) => node.store.replace(header, replica.replica()).await,
        None => node.store.create(header).await,
    };
    let writer = writer.map_err(Error::from)?;
    let sink = NodeSink::new(node.clone(), writer, permit);
    let config = SessionConfig {
        max_length,
        min_replicas: 1,
        ack_every: u64::MAX,
        sender: SenderConfig::between_nodes(),
    };
    // When the call is cut off, the frames end, and the unsealed replica is dropped.
    let (_call, call_ended) = oneshot::channel::<()>();
    let frames = frames.take_until(call_ended);
    let session = Session::new(config, Box::new(sink), Vec::new(), &node.random);
    let mut acks = session.attach(1, frames);
    while let Some(ack) = acks.recv().await {
        match ack {
            Ok(Ack::Sealed(outcome)) => {
                node.counts.built.increment();
                tracing::debug!(%chunk, "built a replica");
                let none = || Failure::new(ErrorCode::Internal, "the build has no receipt");
                let receipt = outcome.receipts.into_iter().next().ok_or_else(none)?;
                let Receipt { part, disk, stamp, .. } = receipt;
                let built = ReplicaRef { chunk, part, disk, stamp };
                let proof = Some(node.read_proof(built, generation)?.into());
                let response = response(Some(Outcome::Built(receipt.into())), failed.take());
                return Ok(v1::BuildReplicaResponse { proof, ..response });
            }
            Ok(Ack::Attached { .. } | Ack::Progress { .. }) => {}
            Err(dfs_streamer::Error::Source(why)) => {
                tracing::info!(%chunk, why, "building a replica failed");
                return Ok(response(None, failed.take()));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::new(ErrorCode::Internal, "the build was interrupted"))
}

/// Returns the replica whose place the new one takes: one on a disk that takes chunks, if possible.
fn place_of(node: &Node, held: &[SealedChunk]) -> Option<SealedChunk> {
    let usage = node.store.usage();
    let takes_chunks = |disk: DiskId| {
        usage.iter().any(|it| it.disk == disk && it.state.takes_chunks() && !it.is_full)
    };
    let best = held.iter().find(|replica| takes_chunks(replica.disk));
    best.or_else(|| held.first()).copied()
}

/// Separates the replicas on retiring disks from the others.
fn split_off_leaving(node: &Node, held: Vec<SealedChunk>) -> (Vec<SealedChunk>, Vec<SealedChunk>) {
    let usage = node.store.usage();
    let retires = |disk: DiskId| {
        usage.iter().any(|usage| usage.disk == disk && usage.state == DiskState::Retiring)
    };
    held.into_iter().partition(|replica| retires(replica.disk))
}

fn response(outcome: Option<Outcome>, failed: Vec<Dropped>) -> v1::BuildReplicaResponse {
    let failed = failed.into_iter().map(dropped_to_wire).collect();
    v1::BuildReplicaResponse { outcome, failed, proof: None }
}

fn sources(sources: Vec<v1::BuildSource>, chunk: ChunkId) -> Result<Vec<Source>, FieldError> {
    let sources = wire::at_most("sources", sources, REPLICAS_MAX as usize - 1)?;
    let source = |source: v1::BuildSource| {
        let replica = wire::replica("sources.replica", source.replica)?;
        if (replica.chunk, replica.part) != (chunk, Part::WHOLE) {
            return Err(FieldError::new("sources.replica", "is of another chunk"));
        }
        let node = wire::required("sources.node", source.node)?;
        let node_id = wire::id("sources.node.node_id", &node.node_id)?;
        Ok(Source::Remote { node: node_id, address: node.address, replica })
    };
    sources.into_iter().map(source).collect()
}

fn seal(request: &v1::BuildReplicaRequest) -> Result<ChunkSeal, FieldError> {
    let length = request.length;
    if !(1..=CHUNK_SIZE_MAX).contains(&length) {
        let what = format_args!("expected 1 to {CHUNK_SIZE_MAX} bytes, got {length}");
        return Err(FieldError::new("length", what));
    }
    let sha256 = wire::sha256("sha256", &request.sha256)?;
    Ok(ChunkSeal { length, crc32c: Crc32c(request.crc32c), sha256 })
}
