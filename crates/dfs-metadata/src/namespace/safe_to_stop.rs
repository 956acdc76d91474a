//! Chunks that would be at risk without some of the nodes.
//!
//! Most questions are about one node while no other is away. A chunk at rest has all its sound
//! replicas on distinct nodes and can spare one of them, so that only chunks that are not at rest
//! (`w/r/`) have to be checked. Anything else takes a scan of `k/`, page by page.

use std::collections::{BTreeMap, BTreeSet};

use dfs_types::{Access, ChunkId, NodeId, NodeState, Redundancy, Replication, Revision, Scope};

use super::policies::Policies;
use super::transaction::Transaction;
use super::{Chunk, Namespace, NodeDisk, NodeDiskState, ScanCursor, Unreadable};
use crate::Error;
use crate::chunk_health::{Cluster, DiskHealth, Health, NodeLiveness, judge};

/// Liveness from heartbeats; a node without an entry is silent.
pub type Liveness = BTreeMap<NodeId, NodeLiveness>;

/// Version of all nodes' desired states; any change gives another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeIntentVersion(pub(super) Option<Revision>);

/// Result of a check whether nodes can stop without leaving any chunk below its required replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Safety {
    /// Revision of the snapshot.
    pub revision: Revision,
    /// Desired states at that moment.
    pub intent: NodeIntentVersion,
    /// Chunks that would have fewer good replicas than required.
    pub chunks_below: u64,
    /// Chunks that would be unreadable in the meantime.
    pub chunks_unreadable: u64,
    /// A chunk below its required replicas.
    pub example: Option<Shortfall>,
    /// Unreadable chunk records: their chunks may need the nodes.
    pub unknown: Unknown,
    /// Unreadable node records: replicas on the disks of these nodes do not count.
    pub unknown_nodes: Unknown,
}

/// Chunks not at rest that are checked at once.
const AT_WORK_MAX: usize = 100_000;

/// A scan of all chunks that checks whether nodes can stop, page by page.
///
/// The pages are read at different moments. The result holds for the desired states that it names,
/// and only while no other node is away.
#[derive(Debug, Clone)]
pub struct SafetyScan {
    nodes: BTreeSet<NodeId>,
    away: BTreeSet<NodeId>,
    policies: Policies,
    /// Health of the disks now, and without the nodes.
    cluster: [Cluster; 2],
    checked: u64,
    safety: Safety,
    after: Option<ScanCursor>,
}

impl SafetyScan {
    /// Returns the nodes in question.
    pub fn nodes(&self) -> &BTreeSet<NodeId> {
        &self.nodes
    }

    /// Returns the nodes that were away at the beginning.
    pub fn away(&self) -> &BTreeSet<NodeId> {
        &self.away
    }

    /// Returns the desired states at the beginning.
    pub fn intent(&self) -> NodeIntentVersion {
        self.safety.intent
    }

    /// Returns how many chunks were checked so far.
    pub fn checked(&self) -> u64 {
        self.checked
    }

    fn take(&mut self, chunks: &[(ChunkId, Chunk)]) {
        let [before, after] = &self.cluster;
        let on = |disk| before.node(disk).is_some_and(|node| self.nodes.contains(&node));
        self.checked += chunks.len() as u64;
        for (id, chunk) in chunks.iter().filter(|(_, chunk)| !chunk.is_tombstone()) {
            let replicas = chunk.replicas.iter().zip(judge(chunk, before).replicas);
            let mut durable = replicas.filter(|(_, health)| health.is_durable());
            // Chunks without a replica there are not affected.
            if durable.any(|(replica, _)| on(replica.disk)) {
                let needed = needed(chunk, &self.policies);
                self.safety.count(*id, needed, &judge(chunk, after));
            }
        }
    }
}

/// Unreadable records, the contents of which are unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unknown {
    /// Number of records.
    pub count: u64,
    /// The first of them.
    pub example: Option<Unreadable>,
}

/// A chunk that would have too few good replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortfall {
    /// The chunk.
    pub chunk: ChunkId,
    /// Good replicas that would be left.
    pub left: usize,
    /// Good replicas required.
    pub needed: usize,
}

impl Namespace {
    /// Checks at one snapshot whether `nodes` can stop, from the chunks that are not at rest. `None`
    /// when only a scan can tell ([`Self::begin_safety_scan`]): when another node is away that may
    /// hold replicas, or too many chunks are not at rest. `chunks_unreadable` covers only the chunks
    /// checked.
    pub async fn safe_to_stop(
        &self,
        scope: &Scope,
        nodes: &BTreeSet<NodeId>,
        liveness: &Liveness,
    ) -> Result<Option<Safety>, Error> {
        let (mut scan, tx) = self.ask_safety(scope, nodes, liveness).await?;
        let stopped = scan.away.union(nodes).count();
        if stopped > 1 || scan.safety.unknown_nodes.count > 0 {
            return Ok(None);
        }
        let (mut after, mut checked) = (None, 0);
        loop {
            let page = tx.repair_page(after, Self::PAGE_LEN_MAX).await?;
            checked += page.chunks.len() + page.unreadable.len();
            if checked > AT_WORK_MAX {
                return Ok(None);
            }
            scan.take(&page.chunks);
            scan.safety.unknown.add(page.unreadable);
            after = page.next;
            if after.is_none() {
                return Ok(Some(scan.safety));
            }
            tokio::task::yield_now().await;
        }
    }

    /// Begins a scan of all chunks that checks whether `nodes` can stop.
    pub async fn begin_safety_scan(
        &self,
        scope: &Scope,
        nodes: &BTreeSet<NodeId>,
        liveness: &Liveness,
    ) -> Result<SafetyScan, Error> {
        Ok(self.ask_safety(scope, nodes, liveness).await?.0)
    }

    /// Checks the next page of chunks. Returns the result after the last one.
    pub async fn continue_safety_scan(
        &self,
        scan: &mut SafetyScan,
    ) -> Result<Option<Safety>, Error> {
        let tx = self.begin().await?;
        let page = tx.chunk_page(scan.after.as_ref(), Self::PAGE_LEN_MAX).await?;
        scan.take(&page.chunks);
        scan.safety.unknown.add(page.unreadable);
        scan.after = page.next;
        Ok(scan.after.is_none().then(|| scan.safety.clone()))
    }

    /// Reads at one snapshot what a check depends on besides the chunks.
    async fn ask_safety(
        &self,
        scope: &Scope,
        nodes: &BTreeSet<NodeId>,
        liveness: &Liveness,
    ) -> Result<(SafetyScan, Transaction), Error> {
        scope.require(Access::Admin)?;
        let mut tx = self.begin().await?;
        for node in nodes {
            tx.member(*node).await?;
        }
        let intent = tx.peek_intent().await?;
        let policies = tx.policies().await?;
        let (before, unknown_nodes) = self.cluster_health(&tx, liveness).await?;
        let away = self.away(&tx, &before).await?;
        let safety = Safety {
            revision: tx.revision(),
            intent,
            chunks_below: 0,
            chunks_unreadable: 0,
            example: None,
            unknown: Unknown::default(),
            unknown_nodes,
        };
        let after = before.clone().without(nodes);
        let nodes = nodes.clone();
        let scan = SafetyScan {
            nodes,
            away,
            policies,
            cluster: [before, after],
            checked: 0,
            safety,
            after: None,
        };
        Ok((scan, tx))
    }

    /// Returns the nodes with a disk that records may name and whose replicas do not count as
    /// readable now.
    async fn away(&self, tx: &Transaction, cluster: &Cluster) -> Result<BTreeSet<NodeId>, Error> {
        let all = super::nodes::all(tx).await?.nodes;
        let is_away = |disk: &NodeDisk| {
            let health = cluster.disk(disk.number);
            disk.state != NodeDiskState::Clear
                && !matches!(health, DiskHealth::Good | DiskHealth::Leaving)
        };
        // A node that never joined holds nothing.
        let away = all
            .into_iter()
            .filter(|(_, node)| node.state != NodeState::Joining && node.disks.iter().any(is_away));
        Ok(away.map(|(node, _)| node).collect())
    }

    /// Reads the nodes of a snapshot and combines them with their liveness. Every disk that a
    /// record may name belongs to one of them or to a node whose record is unreadable, and disks of
    /// the latter do not count.
    pub(super) async fn cluster_health(
        &self,
        tx: &Transaction,
        liveness: &Liveness,
    ) -> Result<(Cluster, Unknown), Error> {
        let (mut cluster, now) = (Cluster::default(), self.now());
        let all = super::nodes::all(tx).await?;
        let mut unknown = Unknown::default();
        unknown.add(all.unreadable);
        for (node, stored) in all.nodes {
            let unheard = NodeLiveness::default();
            let liveness = liveness.get(&node).unwrap_or(&unheard);
            cluster.add_node(node, stored.intent(now), &stored.disks, liveness);
        }
        Ok((cluster.without_unknown(), unknown))
    }
}

impl Unknown {
    pub(super) fn add(&mut self, records: Vec<Unreadable>) {
        self.count += records.len() as u64;
        self.example = self.example.take().or_else(|| records.into_iter().next());
    }
}

impl Safety {
    /// Returns whether it is safe; never while chunk records are unreadable.
    pub fn is_safe(&self) -> bool {
        self.chunks_below == 0 && self.unknown.count == 0
    }

    fn count(&mut self, id: ChunkId, needed: u8, after: &Health) {
        let left = after.count(after.readable);
        self.chunks_unreadable += u64::from(after.spare_of(after.readable) < 0);
        if left < needed {
            self.chunks_below += 1;
            let (left, needed) = (usize::from(left), usize::from(needed));
            self.example.get_or_insert(Shortfall { chunk: id, left, needed });
        }
    }
}

/// Returns the good parts that a chunk must keep during planned downtime.
fn needed(chunk: &Chunk, policies: &Policies) -> u8 {
    match chunk.redundancy {
        Redundancy::Replicated { copies } => {
            needed_replicas(copies, policies.get(chunk.policy).unwrap_or(policies.default))
        }
        Redundancy::Erasure { k, .. } => k.saturating_add(1),
    }
}

fn needed_replicas(copies: u8, replication: Replication) -> u8 {
    replication.min_write_for(copies).min(copies.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn min_write_replicas_are_needed_but_never_all() {
        let majority = Replication { factor: 3, min_write: None };
        let all = Replication { factor: 3, min_write: Some(3) };
        let one = Replication { factor: 3, min_write: Some(1) };
        for (wanted, replication, wants) in [
            (0, majority, 0),
            (1, majority, 0),
            (2, majority, 1),
            (3, majority, 2),
            (5, majority, 3),
            (1, all, 0),
            (3, all, 2),
            (5, all, 3),
            (3, one, 1),
        ] {
            assert_eq!(
                needed_replicas(wanted, replication),
                wants,
                "{wanted} under {replication:?}"
            );
        }
    }
}
