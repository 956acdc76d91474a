//! Orders replicas away that no record needs any more, and notes in the tombstones that it was done.

pub(crate) mod queue;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use dfs_metadata::engine::LeaseGrant;
use dfs_metadata::namespace::ReplicaId;
use dfs_types::{ChunkId, NodeId, NodeState, Scope};
use dfs_workers::{DELETE, Handle, Next, Spec, Worker};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;
use tracing::warn;

use crate::Error;
use crate::core::Core;
use crate::workers::{ReplicaToDelete, WORKER_LEASE, orders};

/// Nodes that are given orders at the same time.
const NODES_AT_ONCE: usize = 16;
/// Tombstones that are changed at the same time.
const TOMBSTONES_AT_ONCE: usize = 64;

/// The worker.
pub(crate) struct Delete {
    core: Arc<Core>,
    lease: LeaseGrant,
    handle: Arc<Handle>,
}

/// What a node can be told.
enum Reachability {
    /// It answers.
    Reachable,
    /// It may come back.
    Unreachable,
    /// It never comes back, and its replicas with it.
    Removed,
}

impl Delete {
    pub(crate) fn new(core: Arc<Core>, lease: LeaseGrant, handle: Arc<Handle>) -> Self {
        Self { core, lease, handle }
    }

    fn reachability(&self, node: NodeId) -> Reachability {
        let now = Instant::now();
        let registry = self.core.registry();
        match registry.state(node, now) {
            Some(NodeState::Removed) => Reachability::Removed,
            Some(NodeState::Suspect | NodeState::Lost) | None => Reachability::Unreachable,
            Some(NodeState::Maintenance) if !registry.responsive(now).contains(&node) => {
                Reachability::Unreachable
            }
            Some(_) => Reachability::Reachable,
        }
    }

    /// Gives the next order to a node. Returns its replicas that are gone now.
    async fn order(&self, node: NodeId) -> Vec<(NodeId, ReplicaToDelete)> {
        let deletions = || crate::lock(&self.core.background.deletions);
        let mut batch = deletions().batch(node);
        match self.reachability(node) {
            Reachability::Unreachable => return Vec::new(),
            Reachability::Removed => {}
            Reachability::Reachable => {
                match orders::delete(&self.core, &self.lease, node, &batch).await {
                    Ok(failed) => {
                        if !failed.is_empty() {
                            warn!(%node, replicas = failed.len(), "replicas could not be deleted");
                            self.handle.add_failed(failed.len() as u64);
                            // Their tombstones stay; the next scan finds them.
                            deletions().done(node, &failed);
                            batch.retain(|replica| !failed.contains(replica));
                        }
                    }
                    Err(failure) => {
                        warn!(%node, %failure, replicas = batch.len(), "an order to delete failed");
                        self.handle.add_failed(1);
                        deletions().failed(node, &batch, Instant::now());
                        return Vec::new();
                    }
                }
            }
        }
        deletions().done(node, &batch);
        batch.into_iter().map(|replica| (node, replica)).collect()
    }

    async fn forget(&self, gone: Vec<(NodeId, ReplicaToDelete)>) -> Result<(), Error> {
        let mut chunks: BTreeMap<ChunkId, Vec<ReplicaId>> = BTreeMap::new();
        for (node, (chunk, stamp)) in gone {
            chunks.entry(chunk).or_default().push(ReplicaId { node, stamp });
        }
        let fence = self.lease.fence(WORKER_LEASE);
        stream::iter(chunks)
            .map(|(chunk, replicas)| {
                let fence = &fence;
                async move {
                    self.core
                        .namespace
                        .forget_replicas(Scope::internal(), chunk, &replicas, Some(fence))
                        .await
                }
            })
            .buffer_unordered(TOMBSTONES_AT_ONCE)
            .try_collect::<()>()
            .await
            .map_err(Error::metadata("noting that replicas were deleted"))
    }
}

#[async_trait]
impl Worker for Delete {
    const SPEC: Spec = DELETE;

    type Error = Error;

    async fn step(&mut self) -> Result<Next, Error> {
        let due = crate::lock(&self.core.background.deletions).due(Instant::now());
        let gone: Vec<_> = stream::iter(due)
            .map(|node| self.order(node))
            .buffer_unordered(NODES_AT_ONCE)
            .concat()
            .await;
        let done = gone.len() as u64;
        self.forget(gone).await?;
        self.handle.add_done(done);
        let left = crate::lock(&self.core.background.deletions).len();
        self.handle.set_queued(left as u64);
        if done > 0 {
            self.handle.take(done).await;
            return Ok(Next::Again);
        }
        self.handle.set_detail(match left {
            0 => "nothing to delete",
            _ => "waits for nodes that do not answer",
        });
        Ok(Next::After(self.core.settings.heartbeat_interval()))
    }
}
