//! Reads several small replicas for builds elsewhere, in one call.

use std::sync::Arc;
use std::time::Duration;

use dfs_chunkstore::SealedChunk;
use dfs_proto::{FieldError, v1, wire};
use dfs_transport::spawn_in_request;
use dfs_types::{ClusterId, ReplicaRef, SMALL_BUILD_MAX, SMALL_BUILDS_MAX, move_cost};
use futures_util::Stream;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::pace::PacedSender;
use super::retrieve::{WAIT_FOR_BUILDS, frame};
use crate::Error;
use crate::node::Node;

/// Replicas read ahead of the connection.
const AHEAD: usize = 8;
/// Time limit for reading one, so that a disk that hangs does not keep the caller from those on others:
/// several of them are within what it waits for a frame.
const READ_WITHIN: Duration = Duration::from_secs(2);

/// Returns the replicas that can be read. Why others cannot be is said to the call that reads them by
/// themselves.
pub(super) async fn run(
    node: &Arc<Node>,
    request: v1::RetrieveSmallReplicasRequest,
) -> Result<impl Stream<Item = Result<v1::SmallReplica, Status>> + use<>, Error> {
    node.check_meant_if_named(&request.node_id)?;
    node.check_cluster(wire::optional_id::<ClusterId>("cluster_id", &request.cluster_id)?)?;
    let replicas = wire::at_most("replicas", request.replicas, SMALL_BUILDS_MAX)?.into_iter();
    let replicas = replicas.map(|replica| wire::replica("replicas", Some(replica)));
    let replicas = replicas.collect::<Result<Vec<_>, FieldError>>()?;
    let Ok(_waiting) = node.waiting_reads.try_acquire() else {
        return Err(Error::Busy("reads"));
    };
    let permit = timeout(WAIT_FOR_BUILDS, node.build_reads.clone().acquire_owned()).await;
    let permit = permit.ok().and_then(Result::ok).ok_or(Error::Busy("reads"))?;
    let (mut sender, outgoing) = PacedSender::channel(AHEAD);
    let node = node.clone();
    drop(spawn_in_request(async move {
        let _permit = permit;
        for replica in replicas {
            let replica = tokio::select! {
                biased;
                () = sender.closed() => return,
                replica = read(&node, replica) => replica,
            };
            let Some(replica) = replica else { continue };
            let bytes = replica.frame.as_ref().map_or(0, |frame| frame.data.len() as u64);
            node.counts.bytes_out.add(bytes);
            sender = match sender.send(replica, bytes).await {
                Ok(sender) => sender,
                Err(_) => return,
            };
        }
    }));
    Ok(ReceiverStream::new(outgoing))
}

/// Reads a small replica; `None` if that is not possible now.
async fn read(node: &Node, replica: ReplicaRef) -> Option<v1::SmallReplica> {
    let (replica, frame) = timeout(READ_WITHIN, read_now(node, replica)).await.ok()??;
    node.movement.take(move_cost(replica.length)).await;
    Some(v1::SmallReplica { chunk_id: wire::WireId::to_wire(replica.chunk), frame: Some(frame) })
}

async fn read_now(node: &Node, replica: ReplicaRef) -> Option<(SealedChunk, v1::ChunkFrame)> {
    let replica = node.find(replica).await.ok().filter(|it| it.length <= SMALL_BUILD_MAX)?;
    let blocks = node.read(replica, 0, replica.length).await.ok()?;
    if blocks.data.len() as u64 != replica.length {
        return None;
    }
    let origin = node.origin(replica).await.ok()?;
    Some((replica, v1::ChunkFrame { origin, ..frame(blocks, &replica) }))
}
