//! Deletes replicas that are waiting for deletion, and removes them from their records.
//!
//! The queue is `w/d/`, written by each commit that dooms a replica or leaves a tombstone, so that
//! nothing is kept only in memory. The worker cycles through it: an order to each node and, once
//! the node has confirmed, a commit. Orders are idempotent, as they name disks and stamps.
//!
//! A replica is removed from its record only once its node has confirmed that the disk no longer
//! holds it, once the node was removed from the cluster, or once the disk was emptied or given up.
//! While a node does not respond, or a disk is out of service, the replica stays in the queue and the
//! order is retried with back-off.

mod backoff;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use dfs_metadata::engine::lease::LeaseGrant;
use dfs_metadata::namespace::{Chunk, Disks, NodeDisk, NodeDiskState, ReplicaId};
use dfs_types::{ChunkId, DiskId, NodeId, NodeState, RegistrationNumber, ReplicaRef, Scope};
use dfs_workers::{DELETE, Handle, Next, Spec, Worker};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;
use tracing::warn;

use self::backoff::Backoffs;
use crate::Error;
use crate::core::Core;
use crate::workers::orders::NotDeleted;
use crate::workers::{DELETION_HELD, WORKER_LEASE, orders};

/// Chunks considered per step: as many as the replicas that one order may name.
const CHUNKS_MAX: usize = 1_000;
/// Maximum number of nodes with an order in flight.
const NODES_AT_ONCE: usize = 16;
/// Maximum number of records changed concurrently.
const RECORDS_AT_ONCE: usize = 64;
/// Pause after a round without progress, as a multiple of the work in it, and at most.
const REST_FACTOR: u32 = 4;
const REST_MAX: Duration = Duration::from_mins(1);

/// The worker.
pub(crate) struct Delete {
    core: Arc<Core>,
    lease: LeaseGrant,
    handle: Arc<Handle>,
    round: Round,
    /// Nodes whose orders fail.
    nodes: Backoffs<Start>,
    /// Disks whose replicas cannot be deleted.
    disks: Backoffs<(Start, DiskId)>,
}

/// A node as of its last registration: after another one, it is tried again at once.
type Start = (NodeId, RegistrationNumber);

/// One pass over all chunks with replicas to delete.
struct Round {
    /// Time of its steps, without pauses of the worker and waits for its rate.
    took: Duration,
    /// The last chunk considered.
    after: Option<ChunkId>,
    deleted: u64,
    /// Replicas that could not be deleted.
    waiting: u64,
    /// Waiting replicas on responsive nodes.
    on_disks: u64,
    /// Location of one of these.
    example: Option<(NodeId, DiskId)>,
}

/// Result of the orders to a node.
#[derive(Default)]
struct Ordered {
    /// Replicas that no longer exist.
    gone: Doomed,
    /// Set if an order failed as a whole; `None` if none was given.
    has_failed: Option<bool>,
    /// Replicas not deleted, or not ordered to be, by disk.
    waiting: BTreeMap<DiskId, u64>,
    /// Disks among them whose orders just failed.
    failed: BTreeSet<DiskId>,
}

/// Replicas of one node, as named by the node and by their records.
type Doomed = Vec<(ReplicaRef, ReplicaId)>;

/// Reachability of a node for orders.
enum Reachability {
    /// The node is responsive.
    Reachable,
    /// The node may come back.
    Unreachable,
    /// Neither the node nor its replicas will ever come back.
    Removed,
}

impl Round {
    fn new() -> Self {
        Self {
            took: Duration::ZERO,
            after: None,
            deleted: 0,
            waiting: 0,
            on_disks: 0,
            example: None,
        }
    }
}

impl Ordered {
    /// Records a node's response to an order.
    fn note(&mut self, node: NodeId, ordered: &[(ReplicaRef, ReplicaId)], failed: &[NotDeleted]) {
        for failed in failed {
            let disk = failed.replica.disk;
            *self.waiting.entry(disk).or_default() += 1;
            if self.failed.insert(disk) {
                let (chunk, why) = (failed.replica.chunk, &failed.why);
                warn!(%node, %disk, %chunk, why, "replicas of a disk could not be deleted");
            }
        }
        let failed: BTreeSet<_> = failed.iter().map(|failed| failed.replica).collect();
        let gone = ordered.iter().filter(|(replica, _)| !failed.contains(replica));
        self.gone.extend(gone);
    }
}

impl Delete {
    pub(crate) fn new(core: Arc<Core>, lease: LeaseGrant, handle: Arc<Handle>) -> Self {
        Self {
            core,
            lease,
            handle,
            round: Round::new(),
            nodes: Backoffs::default(),
            disks: Backoffs::default(),
        }
    }

    fn start_of(&self, node: NodeId) -> Start {
        let view = self.core.registry().view(node, Instant::now());
        (node, view.map_or(RegistrationNumber(0), |view| view.member.registration))
    }

    fn reachability(&self, node: NodeId) -> Reachability {
        let (now, start) = (Instant::now(), self.start_of(node));
        let registry = self.core.registry();
        match registry.state(node, now) {
            Some(NodeState::Removed) => Reachability::Removed,
            Some(NodeState::Suspect | NodeState::Lost) | None => Reachability::Unreachable,
            Some(NodeState::Maintenance) if !registry.responsive(now).contains(&node) => {
                Reachability::Unreachable
            }
            Some(_) if self.nodes.is_backing_off(&start, now) => Reachability::Unreachable,
            Some(_) => Reachability::Reachable,
        }
    }

    /// Returns the disks of a node that were emptied or given up. What is still on such a disk is
    /// compared with the records if it returns.
    fn clear_disks(&self, node: NodeId, now: Instant) -> BTreeSet<DiskId> {
        let disks = self.core.registry().view(node, now).map(|view| view.member.disks);
        let is_clear = |disk: &NodeDisk| disk.state == NodeDiskState::Clear;
        let clear = disks.unwrap_or_default().into_iter().filter(is_clear);
        clear.map(|disk| disk.id).collect()
    }

    /// Orders a node to delete replicas, if it is responsive and their disks are not paused.
    async fn order(&self, node: NodeId, doomed: Doomed) -> Ordered {
        let mut ordered = Ordered::default();
        match self.reachability(node) {
            Reachability::Unreachable => return ordered,
            Reachability::Removed => return Ordered { gone: doomed, ..ordered },
            Reachability::Reachable => {}
        }
        let now = Instant::now();
        let clear = self.clear_disks(node, now);
        let (cleared, doomed): (Doomed, Doomed) =
            doomed.into_iter().partition(|(replica, _)| clear.contains(&replica.disk));
        ordered.gone = cleared;
        let start = self.start_of(node);
        let is_backing_off =
            |replica: &ReplicaRef| self.disks.is_backing_off(&(start, replica.disk), now);
        let (resting, doomed): (Doomed, Doomed) =
            doomed.into_iter().partition(|(replica, _)| is_backing_off(replica));
        for (replica, _) in resting {
            *ordered.waiting.entry(replica.disk).or_default() += 1;
        }
        for doomed in doomed.chunks(CHUNKS_MAX) {
            let batch: Vec<_> = doomed.iter().map(|(replica, _)| *replica).collect();
            match orders::delete(&self.core, &self.lease, node, &batch).await {
                Ok(failed) => {
                    ordered.has_failed = Some(false);
                    ordered.note(node, doomed, &failed);
                }
                Err(failure) => {
                    warn!(%node, %failure, replicas = batch.len(), "a deletion order failed");
                    self.handle.add_failed(1);
                    ordered.has_failed = Some(true);
                    return ordered;
                }
            }
        }
        self.handle.add_failed(ordered.failed.len() as u64);
        ordered
    }

    /// Removes deleted replicas from their records.
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
            .map_err(Error::metadata("recording deleted replicas"))
    }

    /// Applies the result of the orders to a node.
    fn note(&mut self, node: NodeId, ordered: &Ordered) {
        let (now, start) = (Instant::now(), self.start_of(node));
        if let Some(has_failed) = ordered.has_failed {
            self.nodes.note(start, has_failed, now);
        }
        // A disk that deletes some of its replicas is not the problem.
        let able: BTreeSet<_> = ordered.gone.iter().map(|(replica, _)| replica.disk).collect();
        for disk in &able {
            self.disks.note((start, *disk), false, now);
        }
        for disk in ordered.failed.difference(&able) {
            self.disks.note((start, *disk), true, now);
        }
        for (disk, replicas) in &ordered.waiting {
            self.round.on_disks += replicas;
            self.round.example.get_or_insert((node, *disk));
        }
    }

    /// Ends a round and returns the next action.
    fn end_round(&mut self) -> Next {
        let Round { took, deleted, waiting, on_disks, example, .. } =
            std::mem::replace(&mut self.round, Round::new());
        self.handle.set_queued(waiting);
        let now = Instant::now();
        self.nodes.prune(now);
        self.disks.prune(now);
        // This keeps a long list of waiting replicas cheap.
        let rest = (took * REST_FACTOR).min(REST_MAX);
        if deleted > 0 {
            let share = waiting as f64 / (waiting + deleted) as f64;
            return Next::After(rest.mul_f64(share));
        }
        self.handle.set_detail(match example {
            None if waiting == 0 => "nothing to delete".to_owned(),
            None => "waiting for nodes that do not respond".to_owned(),
            Some((node, disk)) => format!(
                "replicas that cannot be deleted: {on_disks}, for example on disk {disk} of node \
                 {node}; bring the disk back into service, or remove the node from the cluster"
            ),
        });
        Next::After(rest.max(self.core.settings.heartbeat_interval()))
    }
}

/// Groups replicas to delete by node. Those on unknown disks stay, and are only counted.
fn by_node(chunks: &[(ChunkId, Chunk)], disks: &Disks) -> (BTreeMap<NodeId, Doomed>, usize) {
    let mut nodes: BTreeMap<NodeId, Doomed> = BTreeMap::new();
    let mut unknown = 0;
    for (id, chunk) in chunks {
        let is_over = chunk.is_tombstone();
        for replica in chunk.replicas.iter().filter(|replica| is_over || replica.is_doomed()) {
            if let Some(location) = disks.get(replica.disk) {
                let replica = ReplicaId::of(replica);
                let name = orders::replica_ref(*id, replica, location.disk);
                nodes.entry(location.node).or_default().push((name, replica));
            } else {
                unknown += 1;
            }
        }
    }
    (nodes, unknown)
}

#[async_trait]
impl Worker for Delete {
    const SPEC: Spec = DELETE;

    type Error = Error;

    async fn step(&mut self) -> Result<Next, Error> {
        let namespace = &self.core.namespace;
        let may_delete = namespace.may_delete().await;
        if !may_delete.map_err(Error::metadata("reading whether anything may be deleted"))? {
            self.handle.set_detail(DELETION_HELD);
            return Ok(Next::After(self.core.settings.heartbeat_interval()));
        }
        let began = Instant::now();
        let after = self.round.after;
        let page = namespace.chunks_to_delete(Scope::internal(), after, CHUNKS_MAX).await;
        let page = page.map_err(Error::metadata("reading replicas to delete"))?;
        let disks = namespace.disks_of(page.chunks.iter().map(|(_, chunk)| chunk)).await;
        let disks = disks.map_err(Error::metadata("reading the directory of disks"))?;
        let (nodes, unknown) = by_node(&page.chunks, &disks);
        let all = unknown + nodes.values().map(Vec::len).sum::<usize>();
        let this = &*self;
        let ordered: Vec<_> = stream::iter(nodes)
            .map(|(node, doomed)| async move { (node, this.order(node, doomed).await) })
            .buffer_unordered(NODES_AT_ONCE)
            .collect()
            .await;
        let mut gone = Vec::new();
        for (node, ordered) in ordered {
            self.note(node, &ordered);
            gone.extend(ordered.gone);
        }
        let deleted = gone.len();
        self.forget(gone).await?;
        self.handle.add_done(deleted as u64);
        self.round.deleted += deleted as u64;
        self.round.waiting += (all - deleted) as u64;
        self.round.after = page.next;
        self.round.took += began.elapsed();
        self.handle.take(deleted as u64).await;
        Ok(if page.next.is_some() { Next::Again } else { self.end_round() })
    }
}
