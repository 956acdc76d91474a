//! The calls about deletion.

use std::time::Duration;

use bytes::Bytes;
use dfs_metadata::namespace::{Chunk, Namespace, UnneededReplica};
use dfs_proto::wire::WireId as _;
use dfs_proto::{Failure, bulk, v1};
use dfs_transport::Caller;
use dfs_types::{DfsPath, Incarnation, NodeId, ReplicaRef, Scope};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::time::{Instant, timeout_at};
use tracing::info;

use super::admin::check_cluster;
use crate::core::Core;
use crate::failure;
use crate::workers::orders;

/// Chunks and unneeded replicas counted at most.
const COUNTED_MAX: usize = 100_000;
/// Unneeded replicas listed at most.
const LISTED_MAX: usize = 1_000;
/// Nodes asked for paths concurrently.
const NODES_AT_ONCE: usize = 16;
/// Time for all paths.
const PATHS_WITHIN: Duration = Duration::from_secs(10);

pub(super) async fn status(
    core: &Core,
    (caller, request): (Caller, v1::GcStatusRequest),
) -> Result<v1::GcStatusResponse, Failure> {
    let (namespace, scope) = (&core.namespace, caller.scope());
    let status = namespace.gc_status(&scope).await.map_err(|error| failure::of(&error))?;
    let (mut doomed, mut doomed_bytes, mut chunks) = (0, 0_u64, 0);
    let mut after = None;
    loop {
        let page = namespace.chunks_to_delete(&scope, after, Namespace::PAGE_LEN_MAX).await;
        let page = page.map_err(|error| failure::of(&error))?;
        chunks += page.chunks.len();
        for (_, chunk) in &page.chunks {
            let count = doomed_replicas(chunk);
            doomed += count;
            doomed_bytes = doomed_bytes.saturating_add(count.saturating_mul(chunk.seal.length));
        }
        after = page.next;
        if after.is_none() || chunks >= COUNTED_MAX {
            break;
        }
    }
    let list = (request.list as usize).min(LISTED_MAX);
    let Unneeded { count, bytes, listed } = unneeded(core, &scope, list).await?;
    Ok(v1::GcStatusResponse {
        unneeded: count,
        unneeded_bytes: bytes,
        replicas: with_paths(core, &listed).await?,
        incarnation: status.incarnation.0,
        acknowledged: status.acknowledged.0,
        hold: status.hold.as_ref().map_or(0, |hold| hold.number),
        hold_reason: status.hold.map(|hold| hold.reason).unwrap_or_default(),
        doomed,
        doomed_bytes,
    })
}

/// The replicas that no record needs.
struct Unneeded {
    count: u64,
    bytes: u64,
    /// The first of them.
    listed: Vec<UnneededReplica>,
}

async fn unneeded(core: &Core, scope: &Scope, list: usize) -> Result<Unneeded, Failure> {
    let mut found = Unneeded { count: 0, bytes: 0, listed: Vec::new() };
    let mut after = None;
    loop {
        let page = core.namespace.unneeded(scope, after.as_ref(), Namespace::PAGE_LEN_MAX).await;
        let page = page.map_err(|error| failure::of(&error))?;
        found.count += page.replicas.len() as u64;
        found.bytes += page.replicas.iter().map(|replica| replica.bytes).sum::<u64>();
        let room = list.saturating_sub(found.listed.len());
        found.listed.extend(page.replicas.into_iter().take(room));
        after = page.next;
        if after.is_none() || found.count >= COUNTED_MAX as u64 {
            return Ok(found);
        }
    }
}

/// Describes unneeded replicas with the paths for which they were written, as far as their nodes tell
/// them in time.
async fn with_paths(
    core: &Core,
    replicas: &[UnneededReplica],
) -> Result<Vec<v1::UnneededReplica>, Failure> {
    let disks: Vec<_> = replicas.iter().map(|it| it.replica.disk).collect();
    let locations = core.namespace.locations(&disks).await;
    let locations = locations.map_err(|error| failure::of(&error))?;
    let deadline = Instant::now() + PATHS_WITHIN;
    let described = replicas.iter().map(|it| {
        let at = locations.get(it.replica.disk);
        async move {
            let path = match at {
                Some(at) => {
                    let name = orders::replica_ref(it.chunk, it.replica, at.disk);
                    let path = timeout_at(deadline, path_of(core, at.node, name)).await;
                    path.ok().flatten().unwrap_or_default()
                }
                None => Bytes::new(),
            };
            v1::UnneededReplica {
                chunk_id: it.chunk.to_wire(),
                node_id: at.map(|at| at.node.to_wire()).unwrap_or_default(),
                bytes: it.bytes,
                since_ms: it.since.millis(),
                path,
            }
        }
        .boxed()
    });
    let described: Vec<BoxFuture<'_, _>> = described.collect();
    Ok(stream::iter(described).buffered(NODES_AT_ONCE).collect().await)
}

/// Returns the path that is stored with a replica; `None` if its node does not tell it.
async fn path_of(core: &Core, node: NodeId, replica: ReplicaRef) -> Option<Bytes> {
    let address = core.registry().view(node, Instant::now())?.member.address;
    let channel = core.channels.bulk(&address, replica.chunk.0 as u64).ok()?;
    let request = v1::RetrieveRequest {
        cluster_id: core.namespace.identity().cluster.to_wire(),
        replica: Some(replica.into()),
        length: 1,
        node_id: node.to_wire(),
        for_build: true,
        ..v1::RetrieveRequest::default()
    };
    let mut frames = bulk::retrieve_chunk(channel, request).await.ok()?;
    let path = frames.message().await.ok()??.origin?.path;
    (path.len() <= DfsPath::MAX_LEN).then(|| Bytes::copy_from_slice(&path))
}

/// Returns the number of replicas of a chunk that are to be deleted.
fn doomed_replicas(chunk: &Chunk) -> u64 {
    let is_over = chunk.is_tombstone();
    chunk.replicas.iter().filter(|replica| is_over || replica.is_doomed()).count() as u64
}

pub(super) async fn acknowledge(
    core: &Core,
    (caller, request): (Caller, v1::AcknowledgeGcRequest),
) -> Result<v1::AcknowledgeGcResponse, Failure> {
    check_cluster(core, &request.cluster_id)?;
    let incarnation = Incarnation(request.incarnation);
    let (scope, hold) = (caller.scope(), request.hold);
    let acknowledged = core.namespace.acknowledge_gc(&scope, incarnation, hold).await;
    acknowledged.map_err(|error| failure::of(&error))?;
    info!(%incarnation, hold, "deletion was acknowledged");
    Ok(v1::AcknowledgeGcResponse {})
}
