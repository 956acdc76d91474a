//! Moving one replica of a chunk: the primitive of drain, retire and rebalance.
//!
//! The target pulls the chunk from the other replicas, verifies it and makes it durable; one commit
//! then counts the new replica and dooms the old one, which the deletion worker deletes. A crash
//! before the commit leaves an orphan, a crash after it a deletion that is still queued.

use std::collections::BTreeSet;
use std::sync::Arc;

use dfs_metadata::chunk_health::{Cluster, judge};
use dfs_metadata::engine::lease::LeaseGrant;
use dfs_metadata::namespace::{Chunk, Disks, Doom, Replica, ReplicaId};
use dfs_metadata::placement::{Candidate, PlacementRequest};
use dfs_types::{ChunkId, NodeId, Part, Receipt, ReplicaRef, Scope};
use dfs_workers::Handle;
use tokio::time::Instant;
use tracing::warn;

use crate::Error;
use crate::candidates::candidates;
use crate::core::Core;
use crate::metrics::MoveReason;
use crate::node_liveness::View;
use crate::workers::WORKER_LEASE;
use crate::workers::build::build;
use crate::workers::orders::{self, Built};
use crate::workers::repair::{is_overtaken, names};
use crate::workers::spread::holders;

/// Replicas that an order names to build from, at most.
const SOURCES_MAX: usize = 15;

/// Moves replicas for one reason.
#[derive(Clone)]
pub(super) struct Mover {
    pub(super) core: Arc<Core>,
    pub(super) lease: LeaseGrant,
    pub(super) handle: Arc<Handle>,
    pub(super) reason: MoveReason,
}

/// Outcome of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    /// The old replica is waiting for deletion.
    Done,
    /// The record does not name the replica as a good one: repair, deletion or garbage collection
    /// decide about it.
    NotNamed,
    /// No node can take a replica.
    NoTarget,
    /// A step failed; the move can be repeated.
    Failed,
}

impl Mover {
    /// Moves a replica, as recorded in `record`, to the node that `target` chooses: before this move
    /// waits for its turn, and again afterwards. Where it chooses none, nothing is done.
    pub(super) async fn run(
        &self,
        chunk: ChunkId,
        record: &Chunk,
        from: ReplicaId,
        target: impl Fn() -> Option<NodeId> + Send + Sync,
    ) -> Result<Moved, Error> {
        if !names_sound(record, from) {
            return Ok(Moved::NotNamed);
        }
        if target().is_none() {
            return Ok(Moved::NoTarget);
        }
        // Without a claim: it lasts as long as a pause, and repair may need the chunk meanwhile.
        self.handle.take(record.seal.length).await;
        if self.core.background.held().is_some() {
            return Ok(Moved::Failed);
        }
        let Some(_claim) = self.core.background.claim(chunk) else {
            return Ok(Moved::Failed);
        };
        let Some(target) = target() else {
            return Ok(Moved::NoTarget);
        };
        let Some(built) = self.build(chunk, record, from, target).await? else {
            return Ok(Moved::Failed);
        };
        self.commit(chunk, record, from, &built).await
    }

    /// Chooses a node without a replica of the chunk; one in another zone than the replicas that
    /// stay, if possible. The last resort of a retiring disk is its own node.
    pub(super) fn elsewhere(
        &self,
        record: &Chunk,
        (node, from): (NodeId, ReplicaId),
    ) -> Option<NodeId> {
        let (views, cluster) = self.now();
        let (distant, near) = targets(record, from, &views, &cluster);
        let own = match self.reason {
            MoveReason::Retire => views.into_iter().filter(|view| view.node == node).collect(),
            _ => Vec::new(),
        };
        let own = candidates(&own, record.seal.length);
        [distant, near, own].iter().find_map(|candidates| self.select(candidates, record))
    }

    /// Chooses a node in a known zone without a replica that stays.
    pub(super) fn in_another_zone(&self, record: &Chunk, from: ReplicaId) -> Option<NodeId> {
        let (views, cluster) = self.now();
        let (mut distant, _) = targets(record, from, &views, &cluster);
        distant.retain(|candidate| !candidate.zone.is_empty());
        self.select(&distant, record)
    }

    /// Returns whether a node can take a replica of a chunk.
    pub(super) fn is_open(&self, node: NodeId, record: &Chunk) -> bool {
        let view = self.core.registry().view(node, Instant::now());
        let bytes = record.seal.length;
        view.is_some_and(|view| view.takes_chunks() && !view.is_full && view.free > bytes)
    }

    fn now(&self) -> (Vec<View>, Cluster) {
        let now = Instant::now();
        let registry = self.core.registry();
        (registry.views(now), registry.cluster(now))
    }

    fn select(&self, candidates: &[Candidate], record: &Chunk) -> Option<NodeId> {
        let bytes = record.seal.length;
        let request = PlacementRequest { count: 1, bytes, ..PlacementRequest::default() };
        self.core.selector.select(candidates, &request, &*self.core.random).first().copied()
    }

    /// Builds a replica at the target. `None` when that failed.
    async fn build(
        &self,
        chunk: ChunkId,
        record: &Chunk,
        from: ReplicaId,
        target: NodeId,
    ) -> Result<Option<Built>, Error> {
        let disks = self.core.namespace.disks_of([record]).await;
        let disks = disks.map_err(Error::metadata("reading the disks of a chunk"))?;
        let cluster = self.core.registry().cluster(Instant::now());
        let mut sources = sources(chunk, record, from, &disks, &cluster);
        // It reads its own replica without an order.
        sources.retain(|(node, _)| *node != target);
        sources.truncate(SOURCES_MAX);
        let on = (&*self.core, &self.lease);
        Ok(build(on, target, (chunk, record), &sources, Vec::new()).await)
    }

    /// Counts the new replica and dooms the old one.
    async fn commit(
        &self,
        chunk: ChunkId,
        record: &Chunk,
        from: ReplicaId,
        built: &Built,
    ) -> Result<Moved, Error> {
        let (namespace, fence) = (&self.core.namespace, self.lease.fence(WORKER_LEASE));
        let (scope, receipt) = (Scope::internal(), &built.receipt);
        let added = std::slice::from_ref(receipt);
        let doom = Some(Doom { replicas: &[from], kept: &built.proof });
        let swapped = namespace
            .swap_replicas(scope, chunk, record.generation, added, doom, Some(&fence))
            .await;
        match swapped {
            Ok(_) => {
                self.core.counts.moved(self.reason, 1, record.seal.length);
                self.handle.add_done(1);
                return Ok(Moved::Done);
            }
            // The proof is of the generation that was read: another pass moves it.
            Err(error) if is_overtaken(&error) => {
                let newer = namespace.chunks(scope, &[chunk]).await;
                let newer = newer.map_err(Error::metadata("reading the record of a chunk"))?;
                if let Some(newer) = newer.into_iter().flatten().next() {
                    let disks = namespace.disks_of([&newer]).await;
                    let disks = disks.map_err(Error::metadata("reading the disks of a chunk"))?;
                    // Counted by a commit whose reply was lost: never to be discarded.
                    if names(&newer, &disks, receipt) {
                        return Ok(Moved::Done);
                    }
                }
            }
            Err(
                error @ (dfs_metadata::Error::BadReceipt { .. }
                | dfs_metadata::Error::BadProof { .. }),
            ) => {
                warn!(%chunk, %error, "a replica was built that cannot be counted");
            }
            Err(error) => return Err(Error::metadata("committing a moved replica")(error)),
        }
        let Receipt { part, disk, stamp, .. } = *receipt;
        self.discard(receipt.node, ReplicaRef { chunk, part, disk, stamp }).await;
        Ok(Moved::Failed)
    }

    /// Deletes a replica that no record names. One that stays is an orphan.
    async fn discard(&self, node: NodeId, replica: ReplicaRef) {
        let chunk = replica.chunk;
        let ordered = orders::delete(&self.core, &self.lease, node, &[replica]).await;
        if !ordered.as_ref().is_ok_and(Vec::is_empty) {
            warn!(%chunk, %node, ?ordered, "an orphaned replica was left behind");
        }
    }
}

/// Returns whether a record names a replica without a known fault.
fn names_sound(record: &Chunk, replica: ReplicaId) -> bool {
    !record.is_tombstone() && record.sound_replicas().any(|found| ReplicaId::of(found) == replica)
}

/// Returns the durable replicas to pull from: the one to be moved first, as its node gets no user
/// traffic, then the others from good to bad.
fn sources(
    chunk: ChunkId,
    record: &Chunk,
    from: ReplicaId,
    disks: &Disks,
    cluster: &Cluster,
) -> Vec<(NodeId, ReplicaRef)> {
    let health = judge(record, cluster).replicas;
    let mut durable: Vec<_> = record
        .replicas
        .iter()
        .zip(health)
        .filter(|(replica, health)| replica.part == Part::WHOLE && health.is_durable())
        .map(|(replica, health)| (ReplicaId::of(replica) != from, health, replica))
        .collect();
    durable.sort_by_key(|(is_other, health, _)| (*is_other, *health));
    let named = durable.into_iter().filter_map(|(_, _, replica)| {
        let at = disks.get(replica.disk)?;
        Some((at.node, orders::replica_ref(chunk, ReplicaId::of(replica), at.disk)))
    });
    named.collect()
}

/// Returns the other nodes that can take the replica: those in other zones than the replicas that
/// stay, then the rest.
fn targets(
    record: &Chunk,
    from: ReplicaId,
    views: &[View],
    cluster: &Cluster,
) -> (Vec<Candidate>, Vec<Candidate>) {
    let on = |replica: &Replica| cluster.node(replica.disk);
    let holders = holders(record, cluster);
    let health = judge(record, cluster).replicas;
    let staying = record.replicas.iter().zip(health);
    let staying = staying.filter(|(it, health)| health.stays() && ReplicaId::of(it) != from);
    let staying: BTreeSet<NodeId> = staying.filter_map(|(replica, _)| on(replica)).collect();
    let zones: BTreeSet<&str> = views
        .iter()
        .filter(|view| staying.contains(&view.node))
        .map(|view| view.member.zone.as_str())
        .filter(|zone| !zone.is_empty())
        .collect();
    let free = candidates(views, record.seal.length).into_iter();
    free.filter(|candidate| !holders.contains(&candidate.node))
        .partition(|candidate| !zones.contains(candidate.zone.as_str()))
}
