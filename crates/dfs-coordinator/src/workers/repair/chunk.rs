//! The repair of one chunk: choosing replicas to build, building them, and the commit that counts
//! them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dfs_metadata::chunk_health::{Cluster, judge};
use dfs_metadata::engine::lease::LeaseGrant;
use dfs_metadata::namespace::{Chunk, Disks, Doom, Replica, ReplicaId};
use dfs_metadata::placement::{Candidate, PlacementRequest};
use dfs_types::{
    ChunkId, NodeId, Receipt, ReplicaHealth, ReplicaRef, SMALL_BUILD_MAX, Scope, build_weight,
};
use futures_util::future::join_all;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::warn;

use crate::Error;
use crate::build_slots::{BuildEnd, BuildQuota, BuildSlot, InFlight};
use crate::candidates::candidates;
use crate::core::Core;
use crate::metrics::MoveReason;
use crate::node_liveness::View;
use crate::workers::build::build;
use crate::workers::doom::{Doomed, doom};
use crate::workers::orders::{self, Built, SmallBuild};
use crate::workers::{RepairNeed, WORKER_LEASE};

/// Attempts to commit replicas that were built.
const COMMIT_TRIES: u32 = 4;
/// Replicas that an order names to build from, at most.
const SOURCES_MAX: usize = 15;

/// Repairs chunks.
#[derive(Clone)]
pub(super) struct ChunkRepair {
    pub(super) core: Arc<Core>,
    pub(super) lease: LeaseGrant,
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
    /// No readable replica is known.
    NoSource,
    /// This node has too many builds; nothing was done.
    NoRoom(BuildEnd),
    /// A step failed.
    Failed,
}

/// Plan of a repair.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// Replicas to pull from, best first. The bad ones come last: each block of them may still be
    /// the only good one.
    sources: Vec<(NodeId, ReplicaId)>,
    /// Where to build.
    targets: Vec<Target>,
    /// A node that would be another target if it had room, where the rest would be worse.
    full: Option<NodeId>,
    /// A node would be another target if its builds did not fail.
    misses_failing: bool,
}

/// What plans of repairs depend on, beside the builds in flight.
pub(super) struct Situation {
    views: Vec<View>,
    cluster: Cluster,
    quotas: BTreeMap<NodeId, BuildQuota>,
}

/// A small replica that was built together with those of other chunks.
pub(super) type SmallBuilt = Result<Built, TargetFailed>;

/// The target did not reply, or hangs.
#[derive(Debug)]
pub(super) struct TargetFailed;

/// A repair for whose builds the nodes have room.
pub(super) struct Begun {
    pub(super) chunk: ChunkId,
    pub(super) record: Chunk,
    /// Best first.
    sources: Vec<(NodeId, ReplicaId)>,
    builds: Vec<(Target, BuildSlot)>,
}

impl Begun {
    /// Returns the builds that may be ordered together with those of other chunks: of small ones,
    /// where the target has no replica.
    pub(super) fn small_builds(&self, disks: &Disks) -> Vec<(NodeId, SmallBuild)> {
        let Chunk { seal, generation, .. } = self.record;
        if seal.length > SMALL_BUILD_MAX {
            return Vec::new();
        }
        let targets = self.builds.iter().map(|(target, _)| target);
        let plain = targets.filter(|target| target.replaces.is_empty());
        let build = |target: &Target| {
            let (node, source) = *self.sources.iter().find(|(node, _)| *node != target.node)?;
            let disk = disks.get(source.disk)?.disk;
            let source = (node, orders::replica_ref(self.chunk, source, disk));
            Some((target.node, SmallBuild { chunk: self.chunk, seal, generation, source }))
        };
        plain.filter_map(build).collect()
    }
}

/// A node that gets a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    node: NodeId,
    /// Bad and lost replicas of the record there, which the new one may replace.
    replaces: Vec<ReplicaId>,
}

impl ChunkRepair {
    /// Returns the record of a chunk that is still needed.
    async fn read(&self, chunk: ChunkId) -> Result<Option<Chunk>, Error> {
        let read = self.core.namespace.chunks(Scope::internal(), &[chunk]).await;
        let records = read.map_err(Error::metadata("reading the record of a chunk"))?;
        Ok(records.into_iter().flatten().next().filter(|record| !record.is_tombstone()))
    }

    fn cluster(&self) -> Cluster {
        self.core.registry().cluster(Instant::now())
    }

    /// Returns what plans of repairs depend on.
    pub(super) fn situation(&self) -> Situation {
        let now = Instant::now();
        let registry = self.core.registry();
        let (views, cluster) = (registry.views(now), registry.cluster(now));
        let quotas = views.iter().map(|view| (view.node, view.builds)).collect();
        Situation { views, cluster, quotas }
    }

    fn need(&self, record: &Chunk) -> Option<RepairNeed> {
        RepairNeed::of(record, &self.cluster())
    }

    fn ended(&self, record: &Chunk, outcome: RepairOutcome) -> RepairResult {
        RepairResult { need: self.need(record), replicas: 0, outcome }
    }

    /// Plans the builds, and begins those whose nodes have room. Returns none for a chunk that lacks
    /// no replica.
    pub(super) fn begin(
        &self,
        chunk: ChunkId,
        record: Chunk,
        situation: &Situation,
    ) -> Result<Begun, RepairResult> {
        let Situation { views, cluster, quotas } = situation;
        if RepairNeed::of(&record, cluster).is_some_and(RepairNeed::is_complete) {
            return Ok(Begun { chunk, record, sources: Vec::new(), builds: Vec::new() });
        }
        let now = Instant::now();
        let slots = &self.core.background.builds;
        let in_flight = slots.in_flight(|node| quotas.get(&node).copied(), now);
        let select = |candidates: &[Candidate], count| {
            let request = PlacementRequest {
                count,
                bytes: record.seal.length,
                ..PlacementRequest::default()
            };
            self.core.selector.select(candidates, &request, &*self.core.random)
        };
        let plan = plan(&record, views, cluster, &in_flight, select);
        let Plan { sources, targets, full, misses_failing } = plan;
        if sources.is_empty() {
            return Err(self.ended(&record, RepairOutcome::NoSource));
        }
        let (mut builds, mut no_room) = (Vec::new(), full.map(BuildEnd::target));
        let with_quota = |node: NodeId| Some((node, *quotas.get(&node)?));
        for target in targets {
            let Some(end) = with_quota(target.node) else { continue };
            let source = sources.iter().map(|(node, _)| *node).find(|node| *node != target.node);
            let weight = build_weight(record.seal.length);
            match slots.take(end, source.and_then(with_quota), weight, now) {
                Ok(slot) => builds.push((target, slot)),
                Err(end) => no_room = Some(end),
            }
        }
        let outcome = match no_room {
            _ if !builds.is_empty() => return Ok(Begun { chunk, record, sources, builds }),
            Some(end) => RepairOutcome::NoRoom(end),
            // They may work again soon.
            None if misses_failing => RepairOutcome::Failed,
            None => RepairOutcome::NoTarget,
        };
        Err(self.ended(&record, outcome))
    }

    /// Does the rest for a chunk. `small` are the builds that were ordered together with those of
    /// other chunks, by target; what was left out there is ordered again by itself.
    pub(super) async fn finish(
        &self,
        begun: Begun,
        disks: &Disks,
        mut small: BTreeMap<NodeId, oneshot::Receiver<SmallBuilt>>,
    ) -> Result<RepairResult, Error> {
        let Begun { chunk, record, sources, builds } = begun;
        if builds.is_empty() {
            return self.retire(chunk, record).await;
        }
        let named = |replica: ReplicaId| {
            Some(orders::replica_ref(chunk, replica, disks.get(replica.disk)?.disk))
        };
        let sources: Vec<_> = sources
            .iter()
            .filter_map(|(node, replica)| Some((*node, named(*replica)?)))
            .take(SOURCES_MAX)
            .collect();
        let builds = builds.into_iter().map(|(target, slot)| {
            let others: Vec<_> =
                sources.iter().copied().filter(|(node, _)| *node != target.node).collect();
            let replaces = target.replaces.iter().copied().filter_map(named).collect();
            let (small, record) = (small.remove(&target.node), &record);
            async move {
                let small = match small {
                    Some(small) => small.await.ok(),
                    None => None,
                };
                match small {
                    Some(Ok(built)) => {
                        slot.target_works();
                        if let Some((source, _)) = others.first() {
                            slot.target_built_from(*source);
                        }
                        return Some(built);
                    }
                    Some(Err(TargetFailed)) => {
                        slot.target_failed(Instant::now());
                        return None;
                    }
                    None => {}
                }
                let (what, on) = ((chunk, record), (&*self.core, &self.lease));
                build(on, (target.node, slot), what, &others, replaces).await
            }
        });
        let built: Vec<Built> = join_all(builds).await.into_iter().flatten().collect();
        if built.is_empty() {
            let is_missing = judge(&record, &self.cluster()).is_missing();
            let outcome = if is_missing { RepairOutcome::NoSource } else { RepairOutcome::Failed };
            return Ok(self.ended(&record, outcome));
        }
        self.commit(chunk, record, &built).await
    }

    /// Commits the replicas built, and dooms those that they replace.
    async fn commit(
        &self,
        chunk: ChunkId,
        mut record: Chunk,
        built: &[Built],
    ) -> Result<RepairResult, Error> {
        let fence = self.lease.fence(WORKER_LEASE);
        let receipts: Vec<Receipt> = built.iter().map(|built| built.receipt).collect();
        let made = receipts.iter().map(|made| {
            let Receipt { part, disk, stamp, .. } = *made;
            (made.node, ReplicaRef { chunk, part, disk, stamp })
        });
        let made: Vec<_> = made.collect();
        let replicas = receipts.len() as u64;
        for _ in 0..COMMIT_TRIES {
            let cluster = self.cluster();
            let replaced = replaced(&record, &cluster, receipts.len());
            let (namespace, generation) = (&self.core.namespace, record.generation);
            // After a change of the record, they are doomed by the next repair of the chunk.
            let kept = built.iter().map(|built| &built.proof);
            let kept = kept.into_iter().find(|proof| proof.generation == generation);
            let doom = kept.filter(|_| !replaced.is_empty());
            let doom = doom.map(|kept| Doom { replicas: &replaced, kept });
            let scope = Scope::internal();
            let swapped =
                namespace.swap_replicas(scope, chunk, generation, &receipts, doom, Some(&fence));
            match swapped.await {
                Ok(record) => {
                    let bytes = record.seal.length.saturating_mul(replicas);
                    self.core.counts.moved(MoveReason::Repair, replicas, bytes);
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
                Err(
                    error @ (dfs_metadata::Error::BadReceipt { .. }
                    | dfs_metadata::Error::BadProof { .. }),
                ) => {
                    warn!(%chunk, %error, "a replica was built that cannot be counted");
                    break;
                }
                Err(error) => return Err(Error::metadata("committing new replicas")(error)),
            }
        }
        // They stay, unnamed: one in the place of a bad replica may have its only good blocks.
        Ok(self.ended(&record, RepairOutcome::Failed))
    }

    /// Dooms bad and lost replicas that are not needed, once another one was read end to end.
    async fn retire(&self, chunk: ChunkId, record: Chunk) -> Result<RepairResult, Error> {
        let cluster = self.cluster();
        let replaced = replaced(&record, &cluster, 0);
        if replaced.is_empty() {
            return Ok(self.ended(&record, RepairOutcome::Done));
        }
        let health = judge(&record, &cluster).replicas;
        let readable = record.replicas.iter().zip(health).filter(|(_, it)| it.is_readable());
        let readable: Vec<_> = readable.map(|(replica, _)| ReplicaId::of(replica)).collect();
        let on = (&*self.core, &self.lease);
        let is_still_right = || {
            let now = self::replaced(&record, &self.cluster(), 0);
            self.core.background.held().is_none() && now == replaced
        };
        match doom(on, (chunk, &record), &replaced, &readable, is_still_right).await? {
            Doomed::Done(record) => Ok(self.ended(&record, RepairOutcome::Done)),
            Doomed::Changed | Doomed::Unread(_) => Ok(self.ended(&record, RepairOutcome::Failed)),
        }
    }

    /// Deletes replicas of a chunk that is gone. One that a node fails to delete is an orphan.
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
pub(in crate::workers) fn names(record: &Chunk, disks: &Disks, made: &Receipt) -> bool {
    record.replicas.iter().any(|replica| {
        let location = disks.get(replica.disk);
        replica.stamp == made.stamp
            && location.is_some_and(|it| (it.node, it.disk) == (made.node, made.disk))
    })
}

/// Returns whether the record was changed by others, or is gone.
pub(in crate::workers) fn is_overtaken(error: &dfs_metadata::Error) -> bool {
    use dfs_metadata::Error;
    matches!(
        error,
        Error::ChunkChanged(_)
            | Error::UnknownChunk(_)
            | Error::Conflict { .. }
            | Error::LastReplica(_)
            | Error::BadReplicaNeeded(_)
            | Error::ReplicaNeeded(_)
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
///
/// Of equally good sources, those with the fewest reads come first. Of equally good targets, only
/// those with room are chosen.
fn plan(
    record: &Chunk,
    views: &[View],
    cluster: &Cluster,
    in_flight: &InFlight,
    mut select: impl FnMut(&[Candidate], usize) -> Vec<NodeId>,
) -> Plan {
    let health = judge(record, cluster);
    let missing = usize::from(health.lacks());
    let on = |replica: &Replica| cluster.node(replica.disk);
    let mut readable: Vec<(ReplicaHealth, NodeId, ReplicaId)> = record
        .replicas
        .iter()
        .zip(&health.replicas)
        .filter(|(_, health)| **health <= ReplicaHealth::Bad)
        .filter_map(|(replica, health)| Some((*health, on(replica)?, ReplicaId::of(replica))))
        .collect();
    let reads = |node| in_flight.read_weights.get(&node).copied().unwrap_or_default();
    readable.sort_by_key(|(health, node, replica)| (*health, reads(*node), *node, *replica));
    let good: Vec<NodeId> = readable
        .iter()
        .filter(|(health, ..)| health.is_durable())
        .map(|(_, node, _)| *node)
        .collect();
    let view_of = |node: NodeId| views.iter().find(|view| view.node == node);
    let sources = readable.iter().filter(|(_, node, _)| view_of(*node).is_some());
    let sources = sources.map(|(_, node, replica)| (*node, *replica)).collect();
    let zones: BTreeSet<&str> = good
        .iter()
        .filter_map(|node| view_of(*node))
        .map(|view| view.member.zone.as_str())
        .filter(|zone| !zone.is_empty())
        .collect();
    let holds = |node: NodeId| record.replicas.iter().any(|replica| on(replica) == Some(node));
    let (failing, candidates): (Vec<_>, Vec<_>) = candidates(views, record.seal.length)
        .into_iter()
        .partition(|candidate| in_flight.failing.contains(&candidate.node));
    let has_room = |candidate: &&Candidate| candidate.free > record.seal.length;
    let misses_failing =
        failing.iter().filter(has_room).any(|candidate| !good.contains(&candidate.node));
    let free: Vec<Candidate> = candidates.iter().filter(|c| !holds(c.node)).cloned().collect();
    let (same_zone, other_zone): (Vec<_>, Vec<_>) =
        free.into_iter().partition(|candidate| zones.contains(candidate.zone.as_str()));
    let bad_here: Vec<Candidate> = candidates
        .into_iter()
        .filter(|candidate| holds(candidate.node) && !good.contains(&candidate.node))
        .collect();
    let (mut targets, mut full) = (Vec::new(), None);
    for group in [other_zone, same_zone, bad_here] {
        let (crowded, open): (Vec<_>, Vec<_>) =
            group.into_iter().partition(|candidate| in_flight.full.contains(&candidate.node));
        targets.extend(select(&open, missing - targets.len()));
        if targets.len() == missing {
            break;
        }
        full = select(&crowded, 1).first().copied();
        if full.is_some() {
            break;
        }
    }
    // None of them is good, as the node would not be a target.
    let replaces = |node: NodeId| {
        let here = record.replicas.iter().filter(|replica| on(replica) == Some(node));
        here.map(ReplicaId::of).collect()
    };
    let target = |node| Target { node, replaces: replaces(node) };
    let targets = targets.into_iter().map(target).collect();
    Plan { sources, targets, full, misses_failing }
}

#[cfg(test)]
pub(super) mod tests {
    use dfs_metadata::chunk_health::{Contact, NodeIntent, NodeLiveness};
    use dfs_metadata::namespace::{NodeDisk, ReplicaMark};
    use dfs_types::NodeState;
    use dfs_types::{
        ChunkSeal, Crc32c, DiskId, DiskNumber, Generation, InodeId, RegistrationNumber,
    };
    use dfs_types::{Part, Redundancy, Sha256, Stamp};

    use super::*;
    use crate::node_liveness::Member;

    /// Returns an Active member in this observed state.
    pub(in crate::workers) fn view(node: u128, zone: &str, state: NodeState) -> View {
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
                is_given_up: false,
                registration: RegistrationNumber(1),
                disks: Vec::new(),
            },
            state,
            disks: Vec::new(),
            free: 1 << 30,
            planned: 0,
            capacity: 1 << 30,
            contended: BTreeSet::new(),
            is_full: false,
            is_stopping: false,
            sessions: 0,
            builds: BuildQuota::of(32),
            last_heard: None,
            lost_in: None,
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
            let disk = NodeDisk::new(number, id);
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

    /// Chooses the first of the candidates.
    fn first(from: &[Candidate], count: usize) -> Vec<NodeId> {
        from.iter().map(|candidate| candidate.node).take(count).collect()
    }

    /// Plans with the first of the candidates, while nothing is in flight.
    fn planned_in(
        record: &Chunk,
        views: &[View],
        cluster: &Cluster,
    ) -> (Vec<u128>, Vec<u128>, Vec<u128>) {
        let idle = InFlight::default();
        let Plan { sources, targets, .. } = plan(record, views, cluster, &idle, first);
        let replaced = targets.iter().filter(|target| !target.replaces.is_empty());
        let replaced = replaced.map(|target| target.node.0).collect();
        let targets = targets.iter().map(|target| target.node.0).collect();
        (sources.iter().map(|(node, _)| node.0).collect(), targets, replaced)
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
    fn bad_replica_is_the_last_source_and_is_replaced_only_without_another_node() {
        let bad = record(&[(1, true), (2, false), (3, false)]);
        let plan = planned(&bad, &active(&[1, 2, 3, 4]), &[]);
        assert_eq!(plan, (vec![2, 3, 1], vec![4], vec![]));
        let plan = planned(&bad, &active(&[1, 2, 3]), &[]);
        assert_eq!(plan, (vec![2, 3, 1], vec![1], vec![1]));
        let all_bad = record(&[(1, true), (2, true), (3, true)]);
        let plan = planned(&all_bad, &active(&[1, 2, 3]), &[]);
        assert_eq!(plan, (vec![1, 2, 3], vec![1, 2, 3], vec![1, 2, 3]));
    }

    #[test]
    fn node_with_two_bad_replicas_is_a_target_that_replaces_both() {
        let bad = record(&[(1, true), (6, true), (2, false), (3, false)]);
        let mut cluster = cluster(&[], &[]);
        // Disk 6 belongs to node 1, too.
        let intent =
            NodeIntent { state: NodeState::Active, is_leaving: false, in_maintenance: false };
        let disk = NodeDisk::new(DiskNumber(6), DiskId(6));
        let liveness = NodeLiveness { contact: Contact::Responsive, ..NodeLiveness::default() };
        cluster.add_node(NodeId(1), intent, &[disk], &liveness);
        let nodes = active(&[1, 2, 3]);
        let Plan { targets, .. } = plan(&bad, &nodes, &cluster, &InFlight::default(), first);
        assert_eq!(targets.len(), 1);
        let disks: Vec<_> = targets[0].replaces.iter().map(|it| it.disk.0).collect();
        assert_eq!((targets[0].node, disks), (NodeId(1), vec![1, 6]));
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
    fn target_without_room_is_waited_for_unless_an_equal_one_has_room() {
        let two = record(&[(1, false), (2, false)]);
        let cluster = cluster(&[], &[]);
        let views = [
            view(1, "a", NodeState::Active),
            view(2, "b", NodeState::Active),
            view(3, "c", NodeState::Active),
            view(4, "c", NodeState::Active),
            view(5, "a", NodeState::Active),
        ];
        let nodes = |numbers: &[u128]| numbers.iter().map(|number| NodeId(*number)).collect();
        for (full, failing, target, waits_for) in [
            (&[][..], &[][..], Some(3), None),
            (&[3], &[], Some(4), None),
            // A node in a zone that has a replica is not chosen instead.
            (&[3, 4], &[], None, Some(3)),
            (&[3], &[4], None, Some(3)),
            (&[], &[3, 4], Some(5), None),
            (&[5], &[3, 4], None, Some(5)),
        ] {
            let in_flight =
                InFlight { full: nodes(full), failing: nodes(failing), ..InFlight::default() };
            let plan = plan(&two, &views, &cluster, &in_flight, first);
            let chosen = plan.targets.first().map(|target| target.node.0);
            assert_eq!((chosen, plan.full.map(|node| node.0)), (target, waits_for), "{full:?}");
        }
    }

    #[test]
    fn failing_node_matters_only_to_a_chunk_that_it_could_take() {
        let cluster = cluster(&[], &[]);
        let nodes = active(&[1, 2, 3]);
        let misses = |replicas: &[(u32, bool)], failing: u128| {
            let failing = BTreeSet::from([NodeId(failing)]);
            let in_flight = InFlight { failing, ..InFlight::default() };
            let plan = plan(&record(replicas), &nodes, &cluster, &in_flight, first);
            (plan.targets.len(), plan.misses_failing)
        };
        assert_eq!(misses(&[(1, false), (2, false)], 3), (0, true));
        assert_eq!(misses(&[(1, false), (2, false)], 2), (1, false), "it has a good one");
        assert_eq!(
            misses(&[(1, false), (2, false)], 4),
            (1, false),
            "not a node that takes chunks"
        );
        assert_eq!(misses(&[(1, false), (2, false), (3, true)], 3), (0, true), "in its place");
        assert_eq!(misses(&[(1, false), (2, false), (3, true)], 2), (1, false));
    }

    #[test]
    fn source_with_the_fewest_reads_comes_first() {
        let three = record(&[(1, false), (2, false), (3, true)]);
        let read_weights = BTreeMap::from([(NodeId(1), 2), (NodeId(2), 1)]);
        let in_flight = InFlight { read_weights, ..InFlight::default() };
        let nodes = active(&[1, 2, 3, 4]);
        let plan = plan(&three, &nodes, &cluster(&[], &[]), &in_flight, first);
        let sources: Vec<u128> = plan.sources.iter().map(|(node, _)| node.0).collect();
        assert_eq!(sources, [2, 1, 3], "a bad one is the last in any case");
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
