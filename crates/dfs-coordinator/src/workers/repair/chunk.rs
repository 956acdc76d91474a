//! The repair of one chunk: which replicas to make, making them, and the commit that counts them.

use std::collections::BTreeSet;
use std::sync::Arc;

use dfs_metadata::engine::LeaseGrant;
use dfs_metadata::namespace::{Chunk, Replica, ReplicaId};
use dfs_metadata::placement::{Candidate, PlacementRequest};
use dfs_types::{ChunkId, ErrorCode, NodeId, NodeState, Receipt, Scope};
use dfs_workers::Handle;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::Error;
use crate::core::Core;
use crate::lost::Lost;
use crate::placement::candidates;
use crate::registry::View;
use crate::workers::{ChunkHealth, WORKER_LEASE, orders};

/// Tries to commit replicas that were made.
const COMMIT_TRIES: u32 = 4;

/// Repairs chunks.
#[derive(Clone)]
pub(super) struct ChunkRepair {
    pub(super) core: Arc<Core>,
    pub(super) lease: LeaseGrant,
    pub(super) handle: Arc<Handle>,
}

/// How a repair ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RepairResult {
    /// How the chunk is now; `None` when it is not needed any more.
    pub(super) condition: Option<ChunkHealth>,
    /// Replicas made.
    pub(super) replicas: u64,
    pub(super) outcome: RepairOutcome,
}

/// Why a repair ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RepairOutcome {
    /// What could be done was done.
    Done,
    /// There is no node for a further replica.
    NoTarget,
    /// A step did not work.
    Failed,
}

/// What is to be done for a chunk.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// Who can be copied from, the best first.
    sources: Vec<NodeId>,
    /// Who shall get a replica.
    targets: Vec<NodeId>,
    /// Replicas, bad or lost, that have to go first, as there is no other node.
    displaced: Vec<ReplicaId>,
}

impl ChunkRepair {
    /// Does what can be done for a chunk at this moment.
    pub(super) async fn run(&self, chunk: ChunkId) -> Result<RepairResult, Error> {
        let Some(mut record) = self.read(chunk).await? else {
            return Ok(RepairResult { condition: None, replicas: 0, outcome: RepairOutcome::Done });
        };
        if self.condition(&record).is_some_and(|now| now.good >= now.wanted) {
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
        let receipts = self.replicate(chunk, &record, &plan).await;
        if receipts.is_empty() {
            return Ok(self.ended(&record, RepairOutcome::Failed));
        }
        self.commit(chunk, record, &receipts).await
    }

    /// The record of a chunk that is still needed.
    async fn read(&self, chunk: ChunkId) -> Result<Option<Chunk>, Error> {
        let read = self.core.namespace.chunks(Scope::internal(), &[chunk]).await;
        let records = read.map_err(Error::metadata("reading the record of a chunk"))?;
        Ok(records.into_iter().flatten().next().filter(|record| !record.is_tombstone()))
    }

    fn lost(&self) -> Lost {
        self.core.registry().lost(Instant::now())
    }

    fn condition(&self, record: &Chunk) -> Option<ChunkHealth> {
        ChunkHealth::of(record, &self.lost())
    }

    fn ended(&self, record: &Chunk, outcome: RepairOutcome) -> RepairResult {
        RepairResult { condition: self.condition(record), replicas: 0, outcome }
    }

    fn plan(&self, record: &Chunk) -> Plan {
        let now = Instant::now();
        let (views, lost) = {
            let registry = self.core.registry();
            (registry.views(now), registry.lost(now))
        };
        let select = |candidates: &[Candidate], count| {
            let request = PlacementRequest {
                count,
                bytes: record.seal.length,
                ..PlacementRequest::default()
            };
            self.core.selector.select(candidates, &request, &*self.core.random)
        };
        plan(record, &views, &lost, select)
    }

    /// Takes bad replicas out of the record and away from their nodes, so that there is room for
    /// good ones. `None` when that did not work.
    async fn displace(
        &self,
        chunk: ChunkId,
        record: &Chunk,
        displaced: &[ReplicaId],
    ) -> Result<Option<Chunk>, Error> {
        let fence = self.lease.fence(WORKER_LEASE);
        let generation = record.generation;
        let swapped = self
            .core
            .namespace
            .swap_replicas(Scope::internal(), chunk, generation, &[], displaced, Some(&fence))
            .await;
        let without = match swapped {
            Ok(without) => without,
            Err(error) if is_overtaken(&error) => return Ok(None),
            Err(error) => return Err(Error::metadata("removing a bad replica")(error)),
        };
        self.order_away(chunk, displaced.iter().copied());
        for replica in displaced {
            let doomed = (chunk, replica.stamp);
            let ordered = orders::delete(&self.core, &self.lease, replica.node, &[doomed]).await;
            let is_gone = ordered.as_ref().is_ok_and(Vec::is_empty);
            if !is_gone {
                warn!(%chunk, node = %replica.node, ?ordered, "a bad replica could not be deleted");
                return Ok(None);
            }
            crate::lock(&self.core.background.deletions).done(replica.node, &[doomed]);
        }
        Ok(Some(without))
    }

    /// Makes replicas from the first source that can.
    async fn replicate(&self, chunk: ChunkId, record: &Chunk, plan: &Plan) -> Vec<Receipt> {
        let what = (chunk, record.seal.length);
        for source in &plan.sources {
            let made =
                orders::replicate(&self.core, &self.lease, *source, what, &plan.targets).await;
            match made {
                Ok(made) => {
                    for complaint in &made.complaints {
                        warn!(%chunk, %source, complaint, "a replica could not be made");
                    }
                    for node in made.occupied {
                        self.clear(chunk, node).await;
                    }
                    let mut receipts = made.receipts;
                    receipts.retain(|receipt| plan.targets.contains(&receipt.node));
                    if !receipts.is_empty() {
                        return receipts;
                    }
                }
                Err(failure) => {
                    warn!(%chunk, %source, %failure, "a chunk could not be copied");
                    if matches!(failure.code, ErrorCode::NotFound | ErrorCode::Corrupt) {
                        self.condemn(chunk, record, *source).await;
                    }
                    if failure.code == ErrorCode::OutcomeUnknown {
                        // It may still be at it; another one would only get in its way.
                        return Vec::new();
                    }
                }
            }
        }
        Vec::new()
    }

    /// Notes that a node does not have the good replica that the record has of it: it says so itself.
    async fn condemn(&self, chunk: ChunkId, record: &Chunk, node: NodeId) {
        let fence = self.lease.fence(WORKER_LEASE);
        for replica in record.good_replicas().filter(|replica| replica.node == node) {
            let replica = ReplicaId::of(replica);
            let noted =
                self.core.namespace.mark_bad(Scope::internal(), chunk, replica, Some(&fence)).await;
            if let Err(error) = noted {
                warn!(%chunk, %node, %error, "a replica that is gone could not be noted");
            }
        }
    }

    /// Orders a replica away that a node holds, but no record counts: left by a repair that was cut
    /// off. The next try finds the place free.
    async fn clear(&self, chunk: ChunkId, node: NodeId) {
        let found = orders::find(&self.core, node, chunk).await;
        let Ok(Some(stamp)) = found else { return };
        // The record is read after the replica was found: only this worker adds replicas to it.
        let Ok(Some(record)) = self.read(chunk).await else { return };
        if record.replicas.iter().all(|replica| replica.node != node) {
            info!(%chunk, %node, "a replica that was left over is deleted");
            self.order_away(chunk, [ReplicaId { node, stamp }]);
        }
    }

    /// Counts replicas that were made, and no longer those that they replace.
    async fn commit(
        &self,
        chunk: ChunkId,
        mut record: Chunk,
        receipts: &[Receipt],
    ) -> Result<RepairResult, Error> {
        let fence = self.lease.fence(WORKER_LEASE);
        let made = receipts.iter().map(|made| ReplicaId { node: made.node, stamp: made.stamp });
        for _ in 0..COMMIT_TRIES {
            let lost = self.lost();
            let replaced = replaced(&record, &lost, receipts.len());
            if receipts.is_empty() && replaced.is_empty() {
                return Ok(self.ended(&record, RepairOutcome::Done));
            }
            let swapped = self
                .core
                .namespace
                .swap_replicas(
                    Scope::internal(),
                    chunk,
                    record.generation,
                    receipts,
                    &replaced,
                    Some(&fence),
                )
                .await;
            match swapped {
                Ok(record) => {
                    self.order_away(chunk, replaced);
                    let condition = ChunkHealth::of(&record, &lost);
                    let replicas = receipts.len() as u64;
                    return Ok(RepairResult { condition, replicas, outcome: RepairOutcome::Done });
                }
                Err(error) if is_overtaken(&error) => {
                    let Some(newer) = self.read(chunk).await? else {
                        self.order_away(chunk, made);
                        return Ok(RepairResult {
                            condition: None,
                            replicas: 0,
                            outcome: RepairOutcome::Done,
                        });
                    };
                    record = newer;
                    // Counted by a commit of which no answer came: never to be ordered away.
                    if made
                        .clone()
                        .all(|made| record.replicas.iter().any(|c| ReplicaId::of(c) == made))
                    {
                        let replicas = receipts.len() as u64;
                        return Ok(RepairResult {
                            replicas,
                            ..self.ended(&record, RepairOutcome::Done)
                        });
                    }
                }
                Err(error @ dfs_metadata::Error::BadReceipt { .. }) => {
                    warn!(%chunk, %error, "a replica was made that cannot be counted");
                    break;
                }
                Err(error) => return Err(Error::metadata("counting new replicas")(error)),
            }
        }
        self.order_away(chunk, made);
        Ok(self.ended(&record, RepairOutcome::Failed))
    }

    fn order_away(&self, chunk: ChunkId, replicas: impl IntoIterator<Item = ReplicaId>) {
        let mut deletions = crate::lock(&self.core.background.deletions);
        for replica in replicas {
            deletions.push(replica.node, (chunk, replica.stamp));
        }
    }
}

/// Whether the record was changed by others, or is gone.
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

/// Replicas that are not needed once `added` others count: those that are bad or lost. None
/// while there would be too few without them.
fn replaced(record: &Chunk, lost: &Lost, added: usize) -> Vec<ReplicaId> {
    let counts = |replica: &Replica| !replica.is_bad && !lost.has(replica);
    let good = record.replicas.iter().filter(|replica| counts(replica)).count();
    if good + added < usize::from(record.wanted).max(1) {
        return Vec::new();
    }
    record.replicas.iter().filter(|replica| !counts(replica)).map(ReplicaId::of).collect()
}

/// Where to copy from and to. `select` chooses so many among candidates.
fn plan(
    record: &Chunk,
    views: &[View],
    lost: &Lost,
    mut select: impl FnMut(&[Candidate], usize) -> Vec<NodeId>,
) -> Plan {
    let counts = |replica: &&Replica| !replica.is_bad && !lost.has(replica);
    let good: Vec<NodeId> =
        record.replicas.iter().filter(counts).map(|replica| replica.node).collect();
    let view_of = |node: NodeId| views.iter().find(|view| view.node == node);
    let mut sources: Vec<(u8, NodeId)> = good
        .iter()
        .filter_map(|node| view_of(*node))
        .map(|view| {
            let rank = match view.state {
                NodeState::Active => 0,
                state if state.serves_reads() => 1,
                _ => 2,
            };
            (rank, view.node)
        })
        .collect();
    sources.sort_by_key(|(rank, _)| *rank);
    let zones: BTreeSet<&str> = good
        .iter()
        .filter_map(|node| view_of(*node))
        .map(|view| view.member.zone.as_str())
        .filter(|zone| !zone.is_empty())
        .collect();
    let holds = |node: NodeId| record.replicas.iter().any(|replica| replica.node == node);
    let candidates = candidates(views, record.seal.length);
    let free: Vec<Candidate> = candidates.iter().filter(|c| !holds(c.node)).cloned().collect();
    let (same_zone, other_zone): (Vec<_>, Vec<_>) =
        free.into_iter().partition(|candidate| zones.contains(candidate.zone.as_str()));
    let bad_here: Vec<Candidate> = candidates
        .into_iter()
        .filter(|candidate| holds(candidate.node) && !good.contains(&candidate.node))
        .collect();
    let missing = usize::from(record.wanted).saturating_sub(good.len());
    let mut targets = Vec::new();
    for group in [&other_zone, &same_zone] {
        targets.extend(select(group, missing - targets.len()));
    }
    let over_bad = select(&bad_here, missing - targets.len());
    let displaced = record
        .replicas
        .iter()
        .filter(|replica| over_bad.contains(&replica.node))
        .map(ReplicaId::of)
        .collect();
    targets.extend(over_bad);
    Plan { sources: sources.into_iter().map(|(_, node)| node).collect(), targets, displaced }
}

#[cfg(test)]
mod tests {
    use dfs_types::{ChunkSeal, Crc32c, DiskId, Generation, InodeId, RegistrationNumber};
    use dfs_types::{Sha256, Stamp};

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

    /// A chunk that wants three replicas and has these.
    fn record(replicas: &[(u128, bool)]) -> Chunk {
        let replica = |(node, is_bad): &(u128, bool)| Replica {
            node: NodeId(*node),
            disk: DiskId(1),
            stamp: Stamp(7),
            is_bad: *is_bad,
        };
        Chunk {
            seal: ChunkSeal { length: 5, crc32c: Crc32c(1), sha256: Sha256([0; 32]) },
            replicas: replicas.iter().map(replica).collect(),
            wanted: 3,
            generation: Generation(1),
            references: 1,
            inode: InodeId::ROOT,
        }
    }

    /// The plan with the first of the candidates.
    fn planned(record: &Chunk, views: &[View], lost: &[u128]) -> (Vec<u128>, Vec<u128>, Vec<u128>) {
        let mut without = Lost::default();
        for node in lost {
            without.add_node(NodeId(*node));
        }
        let Plan { sources, targets, displaced } = plan(record, views, &without, |from, count| {
            from.iter().map(|candidate| candidate.node).take(count).collect()
        });
        let numbers = |nodes: Vec<NodeId>| nodes.into_iter().map(|node| node.0).collect();
        let displaced = displaced.into_iter().map(|replica| replica.node).collect();
        (numbers(sources), numbers(targets), numbers(displaced))
    }

    #[test]
    fn what_is_missing_goes_to_nodes_without_a_copy() {
        let one = record(&[(2, false)]);
        let plan = planned(&one, &active(&[1, 2, 3, 4]), &[]);
        assert_eq!(plan, (vec![2], vec![1, 3], vec![]));
        let with_lost = record(&[(1, false), (2, false), (3, false)]);
        let plan = planned(&with_lost, &active(&[1, 2, 4]), &[3]);
        assert_eq!(plan, (vec![1, 2], vec![4], vec![]));
    }

    #[test]
    fn a_bad_replica_is_no_source_and_goes_only_when_its_place_is_needed() {
        let bad = record(&[(1, true), (2, false), (3, false)]);
        let plan = planned(&bad, &active(&[1, 2, 3, 4]), &[]);
        assert_eq!(plan, (vec![2, 3], vec![4], vec![]));
        let plan = planned(&bad, &active(&[1, 2, 3]), &[]);
        assert_eq!(plan, (vec![2, 3], vec![1], vec![1]));
    }

    #[test]
    fn another_zone_is_preferred_and_a_silent_source_comes_last() {
        let two = record(&[(1, false), (2, false)]);
        let views = [
            view(1, "a", NodeState::Suspect),
            view(2, "b", NodeState::Active),
            view(3, "a", NodeState::Active),
            view(4, "b", NodeState::Active),
            view(5, "c", NodeState::Active),
            view(6, "d", NodeState::Suspect),
        ];
        assert_eq!(planned(&two, &views, &[]), (vec![2, 1], vec![5], vec![]));
        assert_eq!(planned(&two, &views[..4], &[]), (vec![2, 1], vec![3], vec![]));
    }

    #[test]
    fn a_replica_leaves_the_record_only_when_enough_others_count() {
        let three = record(&[(1, true), (2, false), (3, false)]);
        let mut lost = Lost::default();
        lost.add_node(NodeId(3));
        assert_eq!(replaced(&three, &lost, 1), []);
        let stamp = Stamp(7);
        let gone = [1, 3].map(|node| ReplicaId { node: NodeId(node), stamp });
        assert_eq!(replaced(&three, &lost, 2), gone);
        assert_eq!(replaced(&record(&[]), &lost, 0), []);
    }
}
