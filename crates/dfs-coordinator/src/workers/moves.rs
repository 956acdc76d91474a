//! Moving one replica of a chunk: the primitive of drain, retire and rebalance.
//!
//! The target pulls the chunk from the other replicas, verifies it and makes it durable; one commit
//! then counts the new replica and dooms the old one, which the deletion worker deletes. A crash
//! before the commit leaves an orphan, a crash after it a deletion that is still queued.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dfs_metadata::chunk_health::{Cluster, judge};
use dfs_metadata::engine::lease::LeaseGrant;
use dfs_metadata::namespace::{Chunk, Disks, Doom, Replica, ReplicaId};
use dfs_metadata::placement::{Candidate, PlacementRequest};
use dfs_types::{ChunkId, NodeId, Part, Receipt, ReplicaRef, Scope, build_weight, move_cost};
use dfs_workers::Handle;
use tokio::time::Instant;
use tracing::warn;

use crate::Error;
use crate::build_slots::{BuildEnd, BuildQuota, BuildSlot};
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

/// Time within which the nodes of a move must have room for it.
pub(super) const ROOM_WITHIN: Duration = Duration::from_mins(1);

/// Moves replicas for one reason.
#[derive(Clone)]
pub(super) struct Mover {
    pub(super) core: Arc<Core>,
    pub(super) lease: LeaseGrant,
    pub(super) handle: Arc<Handle>,
    pub(super) reason: MoveReason,
}

/// A build that has begun.
struct Build {
    target: NodeId,
    /// Replicas to pull from, best first.
    sources: Vec<(NodeId, ReplicaRef)>,
    slot: BuildSlot,
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
    /// waits for its turn, and again until that node has room. Where it chooses none, nothing is done.
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
        let cost = move_cost(record.seal.length);
        self.handle.take(cost).await;
        let sources = self.sources(chunk, record, from).await?;
        let Build { target, sources, slot } = match self.begin(record, sources, target).await {
            Ok(build) => build,
            Err(outcome) => {
                self.handle.give_back(cost);
                return Ok(outcome);
            }
        };
        let Some(_claim) = self.core.background.claim(chunk) else {
            self.handle.give_back(cost);
            return Ok(Moved::Failed);
        };
        let on = (&*self.core, &self.lease);
        let built = build(on, (target, slot), (chunk, record), &sources, Vec::new()).await;
        let Some(built) = built else {
            return Ok(Moved::Failed);
        };
        self.commit(chunk, record, from, &built).await
    }

    /// Waits until the node that `target` chooses, and the best of the sources with room, can begin
    /// a build.
    async fn begin(
        &self,
        record: &Chunk,
        sources: Vec<(NodeId, ReplicaRef)>,
        target: impl Fn() -> Option<NodeId> + Send + Sync,
    ) -> Result<Build, Moved> {
        let slots = &self.core.background.builds;
        let until = Instant::now() + ROOM_WITHIN;
        loop {
            let now = Instant::now();
            let is_over = now >= until || self.handle.pause_left().is_some();
            if is_over || self.core.background.held().is_some() {
                return Err(Moved::Failed);
            }
            let target = target().ok_or(Moved::NoTarget)?;
            // It reads its own replica without an order.
            let mut sources: Vec<_> =
                sources.iter().copied().filter(|(node, _)| *node != target).collect();
            let with_room = |(node, _): &(NodeId, ReplicaRef)| {
                let quota = self.quota(*node);
                quota.is_some_and(|quota| slots.room(BuildEnd::source(*node), quota, now) > 0)
            };
            if let Some(best) = sources.iter().position(with_room) {
                sources[..=best].rotate_right(1);
            }
            sources.truncate(SOURCES_MAX);
            let source = sources.first().and_then(|(node, _)| Some((*node, self.quota(*node)?)));
            let quota = self.quota(target).ok_or(Moved::NoTarget)?;
            match slots.take((target, quota), source, build_weight(record.seal.length), now) {
                Ok(slot) => return Ok(Build { target, sources, slot }),
                Err(end) => slots.wait(end).await,
            }
        }
    }

    /// Returns what this kind of move may occupy of a node: not all of it where repair may want some.
    fn quota(&self, node: NodeId) -> Option<BuildQuota> {
        let quota = self.core.registry().build_quota(node)?;
        Some(share(quota, self.reason, self.core.background.is_repairing()))
    }

    /// Chooses a node without a replica of the chunk; one in another zone than the replicas that
    /// stay, if possible. The last resort of a retiring disk is its own node.
    pub(super) fn elsewhere(
        &self,
        record: &Chunk,
        (node, from): (NodeId, ReplicaId),
    ) -> Option<NodeId> {
        let (views, cluster) = self.now();
        let own = (self.reason == MoveReason::Retire).then_some(node);
        let found = emptying_targets((record, from), own, &views, &cluster);
        found.iter().find_map(|candidates| self.select(candidates, record))
    }

    /// Chooses a node in a known zone without a replica that stays, from those that `may_take` it.
    pub(super) fn in_another_zone(
        &self,
        record: &Chunk,
        from: ReplicaId,
        may_take: impl Fn(NodeId) -> bool,
    ) -> Option<NodeId> {
        let (views, cluster) = self.now();
        let (mut distant, _) = targets(record, from, &views, &cluster);
        distant.retain(|candidate| !candidate.zone.is_empty() && may_take(candidate.node));
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
        let in_flight =
            self.core.background.builds.in_flight(|node| self.quota(node), Instant::now());
        let (working, failing): (Vec<_>, Vec<_>) =
            candidates.iter().cloned().partition(|it| !in_flight.failing.contains(&it.node));
        let (open, full): (Vec<_>, Vec<_>) =
            working.into_iter().partition(|it| !in_flight.full.contains(&it.node));
        let select = |group: &Vec<Candidate>| {
            self.core.selector.select(group, &request, &*self.core.random).first().copied()
        };
        [open, full, failing].iter().find_map(select)
    }

    /// Returns the replicas to pull from, best first.
    async fn sources(
        &self,
        chunk: ChunkId,
        record: &Chunk,
        from: ReplicaId,
    ) -> Result<Vec<(NodeId, ReplicaRef)>, Error> {
        let disks = self.core.namespace.disks_of([record]).await;
        let disks = disks.map_err(Error::metadata("reading the disks of a chunk"))?;
        let cluster = self.core.registry().cluster(Instant::now());
        Ok(sources(chunk, record, from, &disks, &cluster))
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

/// Returns the part of a quota that moves for this reason may occupy.
fn share(quota: BuildQuota, reason: MoveReason, is_repairing: bool) -> BuildQuota {
    let can_wait = matches!(reason, MoveReason::Rebalance | MoveReason::Zone);
    if can_wait || is_repairing { quota.half() } else { quota }
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

/// Returns the candidates for a replica that has to leave its place, best first: nodes without a replica
/// of the chunk in other zones than the replicas that stay, the rest of them, and last `own`, the node of
/// a retiring disk.
pub(crate) fn emptying_targets(
    (record, from): (&Chunk, ReplicaId),
    own: Option<NodeId>,
    views: &[View],
    cluster: &Cluster,
) -> [Vec<Candidate>; 3] {
    let (distant, near) = targets(record, from, views, cluster);
    let own: Vec<View> = views.iter().filter(|view| Some(view.node) == own).cloned().collect();
    [distant, near, candidates(&own, record.seal.length)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_leave_half_of_a_node_to_repair_while_it_works_and_rebalance_always_does() {
        let (all, half) = (BuildQuota::of(32), BuildQuota::of(16));
        for (reason, alone) in [
            (MoveReason::Drain, all),
            (MoveReason::Retire, all),
            (MoveReason::Rebalance, half),
            (MoveReason::Zone, half),
        ] {
            assert_eq!(share(all, reason, false), alone, "{reason:?}");
            assert_eq!(share(all, reason, true), half, "{reason:?}");
        }
    }
}
