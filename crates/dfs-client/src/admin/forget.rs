//! Removal of lost nodes.

use dfs_proto::wire::{self, WireId as _};
use dfs_proto::{FieldError, v1};
use dfs_types::{ChunkId, ClusterId, InodeId, NodeId};
use tokio::time::sleep;

use super::Admin;
use super::nodes::POLL;
use crate::Error;

/// What would be lost with a node: chunks whose last good replica may be there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeLoss {
    /// Number of chunks.
    pub chunks: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// The first 10,000 of them.
    pub listed: Vec<NeededChunk>,
    /// Why more chunks than expected need the node, for people; empty if nothing is known.
    pub note: String,
    /// Distinguishes these chunks from others.
    digest: u64,
}

/// A chunk that would be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct NeededChunk {
    /// The chunk.
    pub chunk: ChunkId,
    /// Inode of the file whose upload wrote it.
    pub inode: InodeId,
}

impl NodeLoss {
    fn from_wire(loss: v1::NodeLoss) -> Result<Self, FieldError> {
        let v1::NodeLoss { loss, listed, note } = loss;
        let v1::Loss { chunks, bytes, digest } = loss.unwrap_or_default();
        let needed = |needed: v1::NeededChunk| {
            let chunk = wire::id("loss.listed.chunk_id", &needed.chunk_id)?;
            let inode = wire::inode("loss.listed.inode", needed.inode)?;
            Ok(NeededChunk { chunk, inode })
        };
        let listed = listed.into_iter().map(needed).collect::<Result<_, _>>()?;
        Ok(Self { chunks, bytes, listed, note, digest })
    }
}

impl Admin {
    /// Returns what would be lost with a lost node, without changing anything; `None` if it can be
    /// forgotten without a loss. Fails as [`Admin::forget`] would. Waits until all chunks are checked.
    pub async fn plan_forget(
        &self,
        cluster: ClusterId,
        node: NodeId,
    ) -> Result<Option<NodeLoss>, Error> {
        self.send_forget(cluster, node, None, true).await
    }

    /// Removes a lost node from the cluster, permanently. Returns what would be lost, and removes
    /// nothing, if the node may hold last good replicas and that is not the loss that is accepted.
    ///
    /// Waits until all chunks are checked; the removal continues when this is dropped. A node that
    /// returns before its end is not removed.
    pub async fn forget(
        &self,
        cluster: ClusterId,
        node: NodeId,
        accepted: Option<&NodeLoss>,
    ) -> Result<Option<NodeLoss>, Error> {
        self.send_forget(cluster, node, accepted, false).await
    }

    async fn send_forget(
        &self,
        cluster: ClusterId,
        node: NodeId,
        accepted: Option<&NodeLoss>,
        is_dry_run: bool,
    ) -> Result<Option<NodeLoss>, Error> {
        let context = format!("forget node {node}");
        let accepted = accepted.map(|loss| v1::Loss {
            chunks: loss.chunks,
            bytes: loss.bytes,
            digest: loss.digest,
        });
        loop {
            let (cluster_id, node_id) = (cluster.to_wire(), node.to_wire());
            let request = v1::ForgetRequest { cluster_id, node_id, accepted, is_dry_run };
            let reply = self.call(&context, request, |mut admin, request| async move {
                admin.forget(request).await
            });
            let reply = reply.await?;
            if !reply.is_pending {
                let loss = reply.loss.map(NodeLoss::from_wire).transpose();
                return loss.map_err(|error| Error::wire(&context, &error));
            }
            sleep(POLL).await;
        }
    }
}
