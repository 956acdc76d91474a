//! The repair of one chunk: choosing replicas to build, building them, and the commit that counts
//! them.

use std::collections::BTreeSet;
use std::sync::Arc;

use dfs_metadata::engine::lease::LeaseGrant;
use dfs_metadata::health::{Cluster, judge};
use dfs_metadata::namespace::{Chunk, Disks, Replica, ReplicaId, ReplicaMark, Verdict};
use dfs_metadata::placement::{Candidate, PlacementRequest};
use dfs_types::{ChunkId, ErrorCode, NodeId, Receipt, ReplicaHealth, ReplicaRef, Scope};
use dfs_workers::Handle;
use futures_util::future::join_all;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::Error;
use crate::candidates::candidates;
use crate::core::Core;
use crate::registry::View;
use crate::workers::orders::{self, BuildOutcome};
use crate::workers::{RepairNeed, WORKER_LEASE};

/// Attempts to commit replicas that were built.
const COMMIT_TRIES: u32 = 4;

/// Repairs chunks.
#[derive(Clone)]
pub(super) struct ChunkRepair {
    pub(super) core: Arc<Core>,
    pub(super) lease: LeaseGrant,
    pub(super) handle: Arc<Handle>,
}

/// Result of a repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RepairResult {
    /// Current need of the chunk; `None` when it is gone.
    pub(super) need: Option<RepairNeed>,
    /// Replicas built.
    pub(super) replicas: u64,
    pub(super) outcome: RepairOutcome,
}

/// Outcome of a repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RepairOutcome {
    /// Everything possible was done.
    Done,
    /// No node can take another replica.
    NoTarget,
    /// A step failed.
    Failed,
}

/// Plan of a repair.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// Nodes to pull from, best first.
    sources: Vec<NodeId>,
    /// Nodes that get a replica.
    targets: Vec<NodeId>,
    /// Bad or lost replicas that must be deleted first, as there is no other node.
    displaced: Vec<(NodeId, ReplicaId)>,
}

impl ChunkRepair {
    /// Does what is possible for a chunk now.
    pub(super) async fn run(&self, chunk: ChunkId) -> Result<RepairResult, Error> {
        let _moving = self.core.background.move_of(chunk);
        let Some(mut record) = self.read(chunk).await? else {
            return Ok(RepairResult { need: None, replicas: 0, outcome: RepairOutcome::Done });
        };
        if self.need(&record).is_some_and(RepairNeed::is_complete) {
            return self.commit(chunk, record, &[]).await;
        }
        let plan = self.plan(&record);
        if plan.sources.is_empty() {
            return Ok(self.ended(&record, RepairOutcome::Failed));
        }
        if plan.targets.is_empty() {
            return Ok(self.ended(&record, RepairOutcome::NoTarget));
        }
        if !plan.displaced.is_empty() {
            let Some(without) = self.displace(chunk, &record, &plan.displaced).await? else {
                return Ok(self.ended(&record, RepairOutcome::Failed));
            };
            record = without;
        }
        let bytes = record.seal.length.saturating_mul(plan.targets.len() as u64);
        self.handle.take(bytes).await;
        let receipts = self.build(chunk, &record, &plan).await;
        if receipts.is_empty() {
            return Ok(self.ended(&record, RepairOutcome::Failed));
        }
        self.commit(chunk, record, &receipts).await
    }

    /// Returns the record of a chunk that is still needed.
    async fn read(&self, chunk: ChunkId) -> Result<Option<Chunk>, Error> {
        let read = self.core.namespace.chunks(Scope::internal(), &[chunk]).await;
        let records = read.map_err(Error::metadata("reading the record of a chunk"))?;
        Ok(records.into_iter().flatten().next().filter(|record| !record.is_tombstone()))
    }

    fn cluster(&self) -> Cluster {
        self.core.registry().cluster(Instant::now())
    }

    fn need(&self, record: &Chunk) -> Option<RepairNeed> {
        RepairNeed::of(record, &self.cluster())
    }

    fn ended(&self, record: &Chunk, outcome: RepairOutcome) -> RepairResult {
        RepairResult { need: self.need(record), replicas: 0, outcome }
    }

    fn plan(&self, record: &Chunk) -> Plan {
        let now = Instant::now();
        let (views, cluster) = {
            let registry = self.core.registry();
            (registry.views(now), registry.cluster(now))
        };
        let select = |candidates: &[Candidate], count| {
            let request = PlacementRequest {
                count,
                bytes: record.seal.length,
                ..PlacementRequest::default()
            };
            self.core.selector.select(candidates, &request, &*self.core.random)
        };
        plan(record, &views, &cluster, select)
    }

    /// Dooms bad replicas, deletes them, and removes them from the record, to make room for good
    /// ones. One on a disk that is out of service stays doomed: it blocks nothing and may still
    /// exist. `None` when that failed.
    async fn displace(
        &self,
        chunk: ChunkId,
        record: &Chunk,
        displaced: &[(NodeId, ReplicaId)],
    ) -> Result<Option<Chunk>, Error> {
        let (namespace, scope) = (&self.core.namespace, Scope::internal());
        let fence = self.lease.fence(WORKER_LEASE);
        let ids: Vec<ReplicaId> = displaced.iter().map(|(_, replica)| *replica).collect();
        let generation = record.generation;
        let doomed =
            namespace.swap_replicas(scope, chunk, generation, &[], &ids, Some(&fence)).await;
        match doomed {
            Ok(_) => {}
            Err(error) if is_overtaken(&error) => return Ok(None),
            Err(error) => return Err(Error::metadata("dooming a bad replica")(error)),
        }
        let disks = namespace.disks_of([record]).await;
        let disks = disks.map_err(Error::metadata("reading the disks of a chunk"))?;
        let mut deleted = Vec::new();
        for (node, replica) in displaced {
            let Some(location) = disks.get(replica.disk) else { return Ok(None) };
            let doomed = orders::replica_ref(chunk, *replica, location.disk);
            match orders::delete(&self.core, &self.lease, *node, &[doomed]).await.as_deref() {
                Ok([]) => deleted.push(*replica),
                Ok([failed]) if failed.is_out_of_service() => {}
                failed => {
                    warn!(%chunk, %node, ?failed, "a bad replica could not be deleted");
                    return Ok(None);
                }
            }
        }
        let forgotten = namespace.forget_replicas(scope, chunk, &deleted, Some(&fence)).await;
        forgotten.map_err(Error::metadata("recording that a bad replica was deleted"))?;
        self.read(chunk).await
    }

    /// Builds a replica at each target concurrently.
    async fn build(&self, chunk: ChunkId, record: &Chunk, plan: &Plan) -> Vec<Receipt> {
        let disks = match self.core.namespace.disks_of([record]).await {
            Ok(disks) => disks,
            Err(error) => {
                warn!(%chunk, %error, "the disks of a chunk cannot be read");
                return Vec::new();
            }
        };
        let named = |node: &NodeId| {
            record.sound_replicas().find_map(|replica| {
                let at = disks.get(replica.disk).filter(|at| at.node == *node)?;
                Some((*node, orders::replica_ref(chunk, ReplicaId::of(replica), at.disk)))
            })
        };
        let sources: Vec<_> = plan.sources.iter().filter_map(named).collect();
        let builds = plan.targets.iter().map(|it| self.build_at(*it, chunk, record, &sources));
        join_all(builds).await.into_iter().flatten().collect()
    }

    async fn build_at(
        &self,
        target: NodeId,
        chunk: ChunkId,
        record: &Chunk,
        sources: &[(NodeId, ReplicaRef)],
    ) -> Option<Receipt> {
        let what = (chunk, record.seal);
        let build = match orders::build(&self.core, &self.lease, target, what, sources).await {
            Ok(build) => build,
            Err(failure) => {
                warn!(%chunk, %target, %failure, "a replica could not be built");
                return None;
            }
        };
        for (source, code, why) in build.failed {
            warn!(%chunk, %target, %source, why, "a replica could not be built from a source");
            if matches!(code, Some(ErrorCode::NotFound | ErrorCode::Corrupt)) {
                self.mark_bad(chunk, record, source).await;
            }
        }
        match build.outcome? {
            BuildOutcome::Built(receipt) => Some(receipt),
            BuildOutcome::Existing(found) => {
                self.delete_orphan(chunk, target, found).await;
                None
            }
        }
    }

    /// Marks a recorded replica as bad: its node itself reported that it is missing or corrupt.
    async fn mark_bad(&self, chunk: ChunkId, record: &Chunk, node: NodeId) {
        const BAD: Verdict = Verdict { mark: ReplicaMark::Bad, number: None };
        let (namespace, fence) = (&self.core.namespace, self.lease.fence(WORKER_LEASE));
        let Ok(disks) = namespace.disks_of([record]).await else { return };
        for replica in record.sound_replicas() {
            let Some(at) = disks.get(replica.disk).filter(|at| at.node == node) else { continue };
            let name = orders::replica_ref(chunk, ReplicaId::of(replica), at.disk);
            let noted =
                namespace.mark_replica(Scope::internal(), node, name, BAD, Some(&fence)).await;
            if let Err(error) = noted {
                warn!(%chunk, %node, %error, "a missing replica could not be recorded");
            }
        }
    }

    /// Deletes a replica that a node holds without a record, left by an interrupted repair. The
    /// next attempt finds the place free.
    async fn delete_orphan(&self, chunk: ChunkId, node: NodeId, found: ReplicaRef) {
        // The record is read after the replica was found: only this worker adds replicas to it.
        let Ok(Some(record)) = self.read(chunk).await else { return };
        let Ok(disks) = self.core.namespace.disks_of([&record]).await else { return };
        if record.replicas.iter().all(|replica| disks.node(replica.disk) != Some(node)) {
            info!(%chunk, %node, "deleting an orphaned replica");
            self.discard(&[(node, found)]).await;
        }
    }

    /// Commits the replicas built, and dooms those that they replace.
    async fn commit(
        &self,
        chunk: ChunkId,
        mut record: Chunk,
        receipts: &[Receipt],
    ) -> Result<RepairResult, Error> {
        let fence = self.lease.fence(WORKER_LEASE);
        let made = receipts.iter().map(|made| {
            let Receipt { part, disk, stamp, .. } = *made;
            (made.node, ReplicaRef { chunk, part, disk, stamp })
        });
        let made: Vec<_> = made.collect();
        let replicas = receipts.len() as u64;
        for _ in 0..COMMIT_TRIES {
            let cluster = self.cluster();
            let replaced = replaced(&record, &cluster, receipts.len());
            if receipts.is_empty() && replaced.is_empty() {
                return Ok(self.ended(&record, RepairOutcome::Done));
            }
            let (namespace, generation) = (&self.core.namespace, record.generation);
            let swapped = namespace
                .swap_replicas(
                    Scope::internal(),
                    chunk,
                    generation,
                    receipts,
                    &replaced,
                    Some(&fence),
                )
                .await;
            match swapped {
                Ok(record) => {
                    let need = RepairNeed::of(&record, &cluster);
                    return Ok(RepairResult { need, replicas, outcome: RepairOutcome::Done });
                }
                Err(error) if is_overtaken(&error) => {
                    let Some(newer) = self.read(chunk).await? else {
                        self.discard(&made).await;
                        let outcome = RepairOutcome::Done;
                        return Ok(RepairResult { need: None, replicas: 0, outcome });
                    };
                    record = newer;
                    let disks = namespace.disks_of([&record]).await;
                    let disks = disks.map_err(Error::metadata("reading the disks of a chunk"))?;
                    // Counted by a commit whose reply was lost: never to be discarded.
                    if receipts.iter().all(|made| names(&record, &disks, made)) {
                        let ended = self.ended(&record, RepairOutcome::Done);
                        return Ok(RepairResult { replicas, ..ended });
                    }
                }
                Err(error @ dfs_metadata::Error::BadReceipt { .. }) => {
                    warn!(%chunk, %error, "a replica was built that cannot be counted");
                    break;
                }
                Err(error) => return Err(Error::metadata("committing new replicas")(error)),
            }
        }
        self.discard(&made).await;
        Ok(self.ended(&record, RepairOutcome::Failed))
    }

    /// Deletes replicas without a record. One that a node fails to delete only blocks another
    /// replica on that node, and is deleted then.
    async fn discard(&self, replicas: &[(NodeId, ReplicaRef)]) {
        for (node, replica) in replicas.iter().copied() {
            let ordered = orders::delete(&self.core, &self.lease, node, &[replica]).await;
            if !ordered.as_ref().is_ok_and(Vec::is_empty) {
                warn!(chunk = %replica.chunk, %node, ?ordered, "an orphaned replica was left behind");
            }
        }
    }
}

/// Returns whether a record names the replica of a receipt.
fn names(record: &Chunk, disks: &Disks, made: &Receipt) -> bool {
    record.replicas.iter().any(|replica| {
        let location = disks.get(replica.disk);
        replica.stamp == made.stamp
            && location.is_some_and(|it| (it.node, it.disk) == (made.node, made.disk))
    })
}

/// Returns whether the record was changed by others, or is gone.
fn is_overtaken(error: &dfs_metadata::Error) -> bool {
    use dfs_metadata::Error;
    matches!(
        error,
        Error::ChunkChanged(_)
            | Error::UnknownChunk(_)
            | Error::Conflict { .. }
            | Error::LastReplica(_)
    )
}

/// Returns bad or lost replicas that are not needed once `added` others count; none while there
/// would be too few without them.
fn replaced(record: &Chunk, cluster: &Cluster, added: usize) -> Vec<ReplicaId> {
    let health = judge(record, cluster);
    if usize::from(health.count(health.durable)) + added < usize::from(health.target).max(1) {
        return Vec::new();
    }
    let replicas = record.replicas.iter().zip(health.replicas);
    let is_over = |health: ReplicaHealth| !health.is_durable() && health != ReplicaHealth::Doomed;
    replicas.filter(|(_, health)| is_over(*health)).map(|(it, _)| ReplicaId::of(it)).collect()
}

/// Plans sources and targets. `select` chooses a number of candidates.
fn plan(
    record: &Chunk,
    views: &[View],
    cluster: &Cluster,
    mut select: impl FnMut(&[Candidate], usize) -> Vec<NodeId>,
) -> Plan {
    let health = judge(record, cluster);
    let missing = usize::from(health.lacks());
    let on = |replica: &Replica| cluster.node(replica.disk);
    let mut good: Vec<(ReplicaHealth, NodeId)> = record
        .replicas
        .iter()
        .zip(health.replicas)
        .filter(|(_, health)| health.is_durable())
        .filter_map(|(replica, health)| Some((health, on(replica)?)))
        .collect();
    good.sort_by_key(|(health, _)| *health);
    let good: Vec<NodeId> = good.into_iter().map(|(_, node)| node).collect();
    let view_of = |node: NodeId| views.iter().find(|view| view.node == node);
    let sources = good.iter().copied().filter(|node| view_of(*node).is_some()).collect();
    let zones: BTreeSet<&str> = good
        .iter()
        .filter_map(|node| view_of(*node))
        .map(|view| view.member.zone.as_str())
        .filter(|zone| !zone.is_empty())
        .collect();
    let holds = |node: NodeId| record.replicas.iter().any(|replica| on(replica) == Some(node));
    let candidates = candidates(views, record.seal.length);
    let free: Vec<Candidate> = candidates.iter().filter(|c| !holds(c.node)).cloned().collect();
    let (same_zone, other_zone): (Vec<_>, Vec<_>) =
        free.into_iter().partition(|candidate| zones.contains(candidate.zone.as_str()));
    let bad_here: Vec<Candidate> = candidates
        .into_iter()
        .filter(|candidate| holds(candidate.node) && !good.contains(&candidate.node))
        .collect();
    let mut targets = Vec::new();
    for group in [&other_zone, &same_zone] {
        targets.extend(select(group, missing - targets.len()));
    }
    let in_place = select(&bad_here, missing - targets.len());
    let displaced = record
        .replicas
        .iter()
        .filter_map(|replica| Some((on(replica)?, ReplicaId::of(replica))))
        .filter(|(node, _)| in_place.contains(node))
        .collect();
    targets.extend(in_place);
    Plan { sources, targets, displaced }
}

#[cfg(test)]
mod tests {
    use dfs_metadata::health::{Contact, NodeIntent, NodeLiveness};
    use dfs_metadata::namespace::NodeDisk;
    use dfs_types::NodeState;
    use dfs_types::{
        ChunkSeal, Crc32c, DiskId, DiskNumber, Generation, InodeId, RegistrationNumber,
    };
    use dfs_types::{Part, Redundancy, Sha256, Stamp};

    use super::*;
    use crate::registry::Member;

    fn view(node: u128, zone: &str, state: NodeState) -> View {
        View {
            node: NodeId(node),
            member: Member {
                address: String::new(),
                zone: zone.to_owned(),
                host: String::new(),
                version: String::new(),
                admin_state: NodeState::Active,
                maintenance_until: None,
                is_leaving: false,
                registration: RegistrationNumber(1),
                disks: Vec::new(),
            },
            state,
            disks: Vec::new(),
            free: 1 << 30,
            planned: 0,
            capacity: 1 << 30,
            is_full: false,
            is_stopping: false,
            sessions: 0,
            last_heard: None,
            maintenance_left: None,
        }
    }

    fn active(nodes: &[u128]) -> Vec<View> {
        nodes.iter().map(|node| view(*node, "", NodeState::Active)).collect()
    }

    /// Returns a chunk that wants three replicas and has these. Each node has one disk of its
    /// number.
    fn record(replicas: &[(u32, bool)]) -> Chunk {
        let replica = |(disk, is_bad): &(u32, bool)| Replica {
            mark: if *is_bad { ReplicaMark::Bad } else { ReplicaMark::Sound },
            ..Replica::new(DiskNumber(*disk), Part::WHOLE, Stamp(7))
        };
        Chunk {
            seal: ChunkSeal { length: 5, crc32c: Crc32c(1), sha256: Sha256([0; 32]) },
            redundancy: Redundancy::Replicated { copies: 3 },
            policy: 0,
            replicas: replicas.iter().map(replica).collect(),
            generation: Generation(1),
            references: 1,
            inode: InodeId::ROOT,
        }
    }

    /// Returns nodes 1 to 6, some of them lost, some silent.
    fn cluster(lost: &[u32], silent: &[u32]) -> Cluster {
        let mut cluster = Cluster::default();
        for number in 1..=6 {
            let contact = match number {
                _ if lost.contains(&number) => Contact::Lost,
                _ if silent.contains(&number) => Contact::Silent,
                _ => Contact::Responsive,
            };
            let (number, id) = (DiskNumber(number), DiskId(number.into()));
            let disk = NodeDisk { number, id, is_present: true };
            let intent =
                NodeIntent { state: NodeState::Active, is_leaving: false, in_maintenance: false };
            let liveness = NodeLiveness { contact, ..NodeLiveness::default() };
            cluster.add_node(NodeId(number.0.into()), intent, &[disk], &liveness);
        }
        cluster
    }

    fn planned(record: &Chunk, views: &[View], lost: &[u32]) -> (Vec<u128>, Vec<u128>, Vec<u128>) {
        planned_in(record, views, &cluster(lost, &[]))
    }

    /// Plans with the first of the candidates.
    fn planned_in(
        record: &Chunk,
        views: &[View],
        cluster: &Cluster,
    ) -> (Vec<u128>, Vec<u128>, Vec<u128>) {
        let Plan { sources, targets, displaced } = plan(record, views, cluster, |from, count| {
            from.iter().map(|candidate| candidate.node).take(count).collect()
        });
        let numbers = |nodes: Vec<NodeId>| nodes.into_iter().map(|node| node.0).collect();
        let displaced = displaced.into_iter().map(|(node, _)| node).collect();
        (numbers(sources), numbers(targets), numbers(displaced))
    }

    #[test]
    fn missing_replicas_go_to_nodes_without_one() {
        let one = record(&[(2, false)]);
        let plan = planned(&one, &active(&[1, 2, 3, 4]), &[]);
        assert_eq!(plan, (vec![2], vec![1, 3], vec![]));
        let with_lost = record(&[(1, false), (2, false), (3, false)]);
        let plan = planned(&with_lost, &active(&[1, 2, 4]), &[3]);
        assert_eq!(plan, (vec![1, 2], vec![4], vec![]));
    }

    #[test]
    fn bad_replica_is_no_source_and_is_displaced_only_if_needed() {
        let bad = record(&[(1, true), (2, false), (3, false)]);
        let plan = planned(&bad, &active(&[1, 2, 3, 4]), &[]);
        assert_eq!(plan, (vec![2, 3], vec![4], vec![]));
        let plan = planned(&bad, &active(&[1, 2, 3]), &[]);
        assert_eq!(plan, (vec![2, 3], vec![1], vec![1]));
    }

    #[test]
    fn other_zones_are_preferred_and_silent_sources_come_last() {
        let two = record(&[(1, false), (2, false)]);
        let views = [
            view(1, "a", NodeState::Suspect),
            view(2, "b", NodeState::Active),
            view(3, "a", NodeState::Active),
            view(4, "b", NodeState::Active),
            view(5, "c", NodeState::Active),
            view(6, "d", NodeState::Suspect),
        ];
        let cluster = cluster(&[], &[1]);
        assert_eq!(planned_in(&two, &views, &cluster), (vec![2, 1], vec![5], vec![]));
        assert_eq!(planned_in(&two, &views[..4], &cluster), (vec![2, 1], vec![3], vec![]));
    }

    #[test]
    fn replica_is_dropped_only_when_enough_others_count() {
        let three = record(&[(1, true), (2, false), (3, false)]);
        let lost = cluster(&[3], &[]);
        assert_eq!(replaced(&three, &lost, 1), []);
        let (part, stamp) = (Part::WHOLE, Stamp(7));
        let gone = [1, 3].map(|disk| ReplicaId { disk: DiskNumber(disk), part, stamp });
        assert_eq!(replaced(&three, &lost, 2), gone);
        assert_eq!(replaced(&record(&[]), &lost, 0), []);
    }
}
