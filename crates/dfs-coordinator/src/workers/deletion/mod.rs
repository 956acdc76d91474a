//! Has replicas deleted that wait for it, and takes them out of their records.
//!
//! The queue is `w/d/`, which each commit that dooms a replica or leaves a tombstone writes, so
//! that nothing is kept only in memory. The worker goes round it: an order to each node, and, once
//! a node has confirmed, a commit. Orders are idempotent, as they name disks and stamps.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dfs_metadata::engine::LeaseGrant;
use dfs_metadata::namespace::{Chunk, Disks, ReplicaId};
use dfs_types::{ChunkId, NodeId, NodeState, ReplicaRef, Scope};
use dfs_workers::{DELETE, Handle, Next, Spec, Worker};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;
use tracing::warn;

use crate::Error;
use crate::core::Core;
use crate::workers::{WORKER_LEASE, orders};

/// Chunks that one step considers: as many replicas as one order may name.
const CHUNKS_MAX: usize = 1_000;
/// Nodes that are given orders at the same time.
const NODES_AT_ONCE: usize = 16;
/// Records that are changed at the same time.
const RECORDS_AT_ONCE: usize = 64;
/// Rest of a node after the first order that failed, doubled with each further one up to the last.
const REST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// How many times as long as a round without progress the worker rests after it.
const REST_FACTOR: u32 = 4;

/// The worker.
pub(crate) struct Delete {
    core: Arc<Core>,
    lease: LeaseGrant,
    handle: Arc<Handle>,
    round: Round,
    /// Nodes whose orders fail.
    resting: BTreeMap<NodeId, Rest>,
}

/// One pass over all chunks with something to be deleted.
struct Round {
    /// `None` before its first step.
    began: Option<Instant>,
    /// The last chunk that was considered.
    after: Option<ChunkId>,
    deleted: u64,
    /// Replicas that could not be deleted.
    waiting: u64,
}

struct Rest {
    until: Instant,
    next: Duration,
}

/// Replicas of one node: as it knows them, and as their records do.
type Doomed = Vec<(ReplicaRef, ReplicaId)>;

/// Whether a node can be given orders.
enum Reachability {
    /// It answers.
    Reachable,
    /// It may come back.
    Unreachable,
    /// It never comes back, and its replicas with it.
    Removed,
}

impl Round {
    fn new() -> Self {
        Self { began: None, after: None, deleted: 0, waiting: 0 }
    }
}

impl Delete {
    pub(crate) fn new(core: Arc<Core>, lease: LeaseGrant, handle: Arc<Handle>) -> Self {
        Self { core, lease, handle, round: Round::new(), resting: BTreeMap::new() }
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
            Some(_) if self.resting.get(&node).is_some_and(|rest| rest.until > now) => {
                Reachability::Unreachable
            }
            Some(_) => Reachability::Reachable,
        }
    }

    /// Has replicas of a node deleted. Returns those that are gone now; `None` when the order
    /// failed.
    async fn order(&self, node: NodeId, doomed: Doomed) -> Option<Doomed> {
        match self.reachability(node) {
            Reachability::Unreachable => return Some(Vec::new()),
            Reachability::Removed => return Some(doomed),
            Reachability::Reachable => {}
        }
        let mut gone = doomed;
        let batch: Vec<_> = gone.iter().map(|(replica, _)| *replica).collect();
        for batch in batch.chunks(CHUNKS_MAX) {
            match orders::delete(&self.core, &self.lease, node, batch).await {
                Ok(failed) if failed.is_empty() => {}
                Ok(failed) => {
                    warn!(%node, replicas = failed.len(), "replicas could not be deleted");
                    self.handle.add_failed(failed.len() as u64);
                    gone.retain(|(replica, _)| !failed.contains(replica));
                }
                Err(failure) => {
                    warn!(%node, %failure, replicas = batch.len(), "an order to delete failed");
                    self.handle.add_failed(1);
                    return None;
                }
            }
        }
        Some(gone)
    }

    /// Takes replicas that are gone out of their records.
    async fn forget(&self, gone: Doomed) -> Result<(), Error> {
        let mut chunks: BTreeMap<ChunkId, Vec<ReplicaId>> = BTreeMap::new();
        for (name, replica) in gone {
            chunks.entry(name.chunk).or_default().push(replica);
        }
        let fence = self.lease.fence(WORKER_LEASE);
        let namespace = &self.core.namespace;
        stream::iter(chunks)
            .map(|(chunk, replicas)| {
                let (scope, fence) = (Scope::internal(), &fence);
                async move { namespace.forget_replicas(scope, chunk, &replicas, Some(fence)).await }
            })
            .buffer_unordered(RECORDS_AT_ONCE)
            .try_collect::<()>()
            .await
            .map_err(Error::metadata("noting that replicas were deleted"))
    }

    /// Lets a node rest whose order failed, or ends its rest.
    fn note_order(&mut self, node: NodeId, has_failed: bool) {
        if !has_failed {
            self.resting.remove(&node);
            return;
        }
        let rest = self.resting.get(&node).map_or(REST.0, |rest| rest.next);
        let next = (rest * 2).min(REST.1);
        self.resting.insert(node, Rest { until: Instant::now() + rest, next });
    }

    /// The end of a round: what comes next.
    fn end_round(&mut self) -> Next {
        let Round { began, deleted, waiting, .. } =
            std::mem::replace(&mut self.round, Round::new());
        self.handle.set_queued(waiting);
        if deleted > 0 {
            return Next::Again;
        }
        self.handle.set_detail(match waiting {
            0 => "nothing to delete",
            _ => "waits for nodes that do not answer",
        });
        // Many that wait cost little that way.
        let rest = began.map_or(Duration::ZERO, |began| began.elapsed() * REST_FACTOR);
        Next::After(rest.max(self.core.settings.heartbeat_interval()))
    }
}

/// What is to be deleted, by node. Replicas on disks that nobody knows stay.
fn by_node(chunks: &[(ChunkId, Chunk)], disks: &Disks) -> BTreeMap<NodeId, Doomed> {
    let mut nodes: BTreeMap<NodeId, Doomed> = BTreeMap::new();
    for (id, chunk) in chunks {
        let is_over = chunk.is_tombstone();
        for replica in chunk.replicas.iter().filter(|replica| is_over || replica.is_doomed()) {
            if let Some(location) = disks.get(replica.disk) {
                let replica = ReplicaId::of(replica);
                let name = orders::replica_ref(*id, replica, location.disk);
                nodes.entry(location.node).or_default().push((name, replica));
            }
        }
    }
    nodes
}

#[async_trait]
impl Worker for Delete {
    const SPEC: Spec = DELETE;

    type Error = Error;

    async fn step(&mut self) -> Result<Next, Error> {
        let namespace = &self.core.namespace;
        self.round.began.get_or_insert_with(Instant::now);
        let after = self.round.after;
        let page = namespace.chunks_to_delete(Scope::internal(), after, CHUNKS_MAX).await;
        let page = page.map_err(Error::metadata("reading what is to be deleted"))?;
        let disks = namespace.disks_of(page.chunks.iter().map(|(_, chunk)| chunk)).await;
        let disks = disks.map_err(Error::metadata("reading where replicas are"))?;
        let nodes = by_node(&page.chunks, &disks);
        let all: usize = nodes.values().map(Vec::len).sum();
        let this = &*self;
        let ordered: Vec<_> = stream::iter(nodes)
            .map(|(node, doomed)| async move { (node, this.order(node, doomed).await) })
            .buffer_unordered(NODES_AT_ONCE)
            .collect()
            .await;
        let mut gone = Vec::new();
        for (node, deleted) in ordered {
            self.note_order(node, deleted.is_none());
            gone.extend(deleted.into_iter().flatten());
        }
        let deleted = gone.len();
        self.forget(gone).await?;
        self.handle.add_done(deleted as u64);
        self.round.deleted += deleted as u64;
        self.round.waiting += (all - deleted) as u64;
        self.round.after = page.next;
        self.handle.take(deleted as u64).await;
        Ok(if page.next.is_some() { Next::Again } else { self.end_round() })
    }
}
