//! Builds replicas of several small chunks, as ordered by a coordinator: one call to each source, and
//! one commit for those that arrive together.
//!
//! Whatever is not plain is left out: the coordinator orders it again by itself, and
//! [`build`](super::build) finds out what is wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use dfs_chunkstore::ChunkHeader;
use dfs_proto::v1::data_node_client::DataNodeClient;
use dfs_proto::wire::{self, WireId as _};
use dfs_proto::{Failure, FieldError, v1};
use dfs_streamer::Sink as _;
use dfs_transport::spawn_in_request;
use dfs_types::{
    BLOCK_SIZE, ChunkId, ChunkSeal, ClusterId, Crc32c, DfsPath, Frame, Generation, InodeId, NodeId,
    Part, ReplicaRef, SMALL_BUILD_MAX, SMALL_BUILDS_MAX, Sha256, move_cost,
};
use futures_util::Stream;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::prepare::NodeSink;
use super::pull::FRAME_WITHIN;
use crate::Error;
use crate::call_limits::BuildPermit;
use crate::node::Node;
use crate::orders::Authorised;

/// A replica to build.
struct Build {
    chunk: ChunkId,
    seal: ChunkSeal,
    generation: Generation,
    /// The replica to build from.
    from: ReplicaRef,
}

/// Those from one source.
type Builds = BTreeMap<ChunkId, (Build, BuildPermit)>;

/// Builds the replicas, until the reply is dropped. Each message has those that became durable since
/// the last one.
pub(super) async fn run(
    node: Arc<Node>,
    order: Authorised<v1::BuildSmallReplicasRequest>,
) -> Result<BoxStream<'static, Result<v1::BuildSmallReplicasResponse, Status>>, Failure> {
    if node.is_stopping() {
        return Err(Error::Stopping.into());
    }
    let membership = node.check_cluster(None)?;
    if !membership.state.takes_chunks() {
        return Err(Error::TakesNoChunks(membership.state).into());
    }
    let cluster = membership.cluster;
    let builds = wire::at_most("builds", order.into_inner().builds, SMALL_BUILDS_MAX)?;
    let mut by_source: BTreeMap<(NodeId, String), Builds> = BTreeMap::new();
    for build in builds {
        let (source, build) = parse(build)?;
        if !node.store.replicas(build.chunk).await.map_err(Error::from)?.is_empty() {
            continue;
        }
        let Ok(permit) = node.builds.enter(build.seal.length) else { continue };
        by_source.entry(source).or_default().insert(build.chunk, (build, permit));
    }
    let built = by_source.into_iter().map(move |((source, address), builds)| {
        let found = retrieve(node.clone(), (cluster, source, address), builds);
        let node = node.clone();
        found
            .map(move |(frame, build)| store(node.clone(), cluster, frame, build))
            .buffer_unordered(SMALL_BUILDS_MAX)
            .filter_map(std::future::ready)
            .boxed()
    });
    let mut built = stream::select_all(built).ready_chunks(SMALL_BUILDS_MAX);
    // Builds go on, and give back what they hold, even while the reply is not read. There is room for
    // all messages.
    let (messages, outgoing) = mpsc::channel(SMALL_BUILDS_MAX);
    drop(spawn_in_request(async move {
        loop {
            let next = tokio::select! {
                biased;
                () = messages.closed() => return,
                next = built.next() => next,
            };
            let Some(built) = next else { return };
            drop(messages.send(Ok(v1::BuildSmallReplicasResponse { built })).await);
        }
    }));
    Ok(ReceiverStream::new(outgoing).boxed())
}

fn parse(build: v1::SmallReplicaBuild) -> Result<((NodeId, String), Build), FieldError> {
    let chunk: ChunkId = wire::id("builds.chunk_id", &build.chunk_id)?;
    let length = build.length;
    if !(1..=SMALL_BUILD_MAX).contains(&length) {
        let what = format_args!("expected 1 to {SMALL_BUILD_MAX} bytes, got {length}");
        return Err(FieldError::new("builds.length", what));
    }
    let sha256 = wire::sha256("builds.sha256", &build.sha256)?;
    let source = wire::required("builds.source", build.source)?;
    let from = wire::replica("builds.source.replica", source.replica)?;
    if (from.chunk, from.part) != (chunk, Part::WHOLE) {
        return Err(FieldError::new("builds.source.replica", "is of another chunk"));
    }
    let at = wire::required("builds.source.node", source.node)?;
    let source = wire::id("builds.source.node.node_id", &at.node_id)?;
    let seal = ChunkSeal { length, crc32c: Crc32c(build.crc32c), sha256 };
    let build = Build { chunk, seal, generation: Generation(build.generation), from };
    Ok(((source, at.address), build))
}

/// Returns the replicas that a source has, up to its first failure.
fn retrieve(
    node: Arc<Node>,
    (cluster, source, address): (ClusterId, NodeId, String),
    mut builds: Builds,
) -> impl Stream<Item = (v1::ChunkFrame, (Build, BuildPermit))> + Send {
    let request = v1::RetrieveSmallReplicasRequest {
        cluster_id: cluster.to_wire(),
        replicas: builds.values().map(|(build, _)| build.from.into()).collect(),
        node_id: source.to_wire(),
    };
    let key = builds.keys().next().map_or(0, |chunk| chunk.0 as u64);
    let opened = async move {
        let channel = node.channels.bulk(&address, key).ok()?;
        let call = async { DataNodeClient::new(channel).retrieve_small_replicas(request).await };
        let replicas = timeout(FRAME_WITHIN, call).await.ok()?.ok()?.into_inner();
        Some(stream::unfold(replicas, |mut replicas| async move {
            let next = timeout(FRAME_WITHIN, replicas.message()).await.ok()?.ok()??;
            Some((next, replicas))
        }))
    };
    let replicas = stream::once(opened).filter_map(std::future::ready).flatten();
    replicas.filter_map(move |v1::SmallReplica { chunk_id, frame }| {
        let build = ChunkId::from_slice(&chunk_id).and_then(|chunk| builds.remove(&chunk));
        std::future::ready(frame.zip(build))
    })
}

/// Verifies and stores a replica; `None` if that fails.
async fn store(
    node: Arc<Node>,
    cluster: ClusterId,
    frame: v1::ChunkFrame,
    (build, permit): (Build, BuildPermit),
) -> Option<v1::BuiltReplica> {
    let (chunk, generation) = (build.chunk, build.generation);
    match try_store(&node, cluster, frame, build, permit).await {
        Ok(receipt) => {
            node.counts.built.increment();
            tracing::debug!(%chunk, "built a replica of a small chunk");
            let dfs_types::Receipt { part, disk, stamp, .. } = receipt;
            let proof =
                node.read_proof(ReplicaRef { chunk, part, disk, stamp }, generation).ok()?;
            Some(v1::BuiltReplica { receipt: Some(receipt.into()), proof: Some(proof.into()) })
        }
        Err(failure) => {
            tracing::info!(%chunk, %failure, "a replica of a small chunk was not built");
            None
        }
    }
}

async fn try_store(
    node: &Arc<Node>,
    cluster: ClusterId,
    mut frame: v1::ChunkFrame,
    build: Build,
    permit: BuildPermit,
) -> Result<dfs_types::Receipt, Failure> {
    let Build { chunk, seal, .. } = build;
    let v1::ChunkOrigin { inode, path, file_offset } = frame.origin.take().unwrap_or_default();
    if path.len() > DfsPath::MAX_LEN {
        return Err(FieldError::new("frame.origin.path", "is too long").into());
    }
    let frame = wire::frame("frame", frame)?;
    node.movement.take(move_cost(seal.length)).await;
    let frame = verified(frame, seal)?;
    let header = ChunkHeader {
        cluster,
        chunk,
        inode: InodeId(inode),
        path,
        file_offset,
        max_length: seal.length.next_multiple_of(BLOCK_SIZE as u64),
    };
    let writer = node.store.create(header).await.map_err(Error::from)?;
    let mut sink = NodeSink::new(node.clone(), writer, permit);
    sink.append(frame).await?;
    Ok(Box::new(sink).seal(seal).await?)
}

/// Returns the frame if it has exactly the bytes of the chunk. On the runtime: they are few.
fn verified(frame: Frame, seal: ChunkSeal) -> Result<Frame, FieldError> {
    let is_whole = frame.offset == 0 && frame.data.len() as u64 == seal.length;
    let is_whole = is_whole && frame.seal.is_some_and(|found| found.crc32c == seal.crc32c);
    if !is_whole || frame.verify().is_err() || Sha256::of(&frame.data) != seal.sha256 {
        return Err(FieldError::new("frame", "differs from the chunk"));
    }
    Ok(frame)
}
