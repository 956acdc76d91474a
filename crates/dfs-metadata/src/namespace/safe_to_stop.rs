//! Chunks that would be at risk without some of the nodes: scans over all of `k/`.

use std::collections::{BTreeMap, BTreeSet};

use dfs_types::{Access, ChunkId, NodeId, Redundancy, Replication, Revision, Scope};

use super::transaction::Transaction;
use super::{Chunk, Namespace, Node, Replica, Unreadable};
use crate::chunk_health::{Cluster, Health, NodeLiveness, judge};
use crate::{Error, keys};

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

/// Replicas on a node according to the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holdings {
    /// The node.
    pub node: NodeId,
    /// Set if it was leaving at that moment, so that its replicas can only decrease.
    pub is_leaving: bool,
    /// Chunks with a replica on the node, good or bad, that is not waiting for deletion.
    pub chunks: u64,
    /// Chunks that would become missing without the node.
    pub sole: u64,
    /// One of these chunks.
    pub example: Option<ChunkId>,
    /// Unreadable chunk records, which may name the node.
    pub unknown: Unknown,
    /// Unreadable node records: replicas on the disks of these nodes do not count.
    pub unknown_nodes: Unknown,
    /// Version of the node record.
    pub(super) version: Revision,
    /// Desired states at that moment.
    pub(super) intent: NodeIntentVersion,
}

impl Namespace {
    /// Checks at one snapshot whether `nodes` can stop. A replica counts if it is readable now
    /// according to `liveness`, on a node that is meant to stay up.
    ///
    /// Scans all chunks in bounded steps; drop the future to enforce a deadline.
    pub async fn safe_to_stop(
        &self,
        scope: &Scope,
        nodes: &BTreeSet<NodeId>,
        liveness: &Liveness,
    ) -> Result<Safety, Error> {
        scope.require(Access::Admin)?;
        let mut tx = self.begin().await?;
        for node in nodes {
            tx.member(*node).await?;
        }
        let intent = tx.peek_intent().await?;
        let replication = super::cluster::replication(&tx).await?;
        let (before, unknown_nodes) = self.cluster_health(&tx, liveness).await?;
        let after = before.clone().without(nodes);
        let mut safety = Safety {
            revision: tx.revision(),
            intent,
            chunks_below: 0,
            chunks_unreadable: 0,
            example: None,
            unknown: Unknown::default(),
            unknown_nodes,
        };
        let touches = |chunk: &Chunk| {
            let on = |disk| before.node(disk).is_some_and(|node| nodes.contains(&node));
            let replicas = chunk.replicas.iter().zip(judge(chunk, &before).replicas);
            let durable = replicas.filter(|(_, health)| health.is_durable());
            durable.into_iter().any(|(replica, _)| on(replica.disk))
        };
        safety.unknown = tx
            .each_chunk(|id, chunk| {
                // Chunks without a replica there are not affected.
                if !chunk.is_tombstone() && touches(chunk) {
                    safety.count(id, needed(chunk, replication), &judge(chunk, &after));
                }
            })
            .await?;
        Ok(safety)
    }

    /// Returns the replicas of a node and which chunks need it, at one snapshot. A scan like
    /// [`Self::safe_to_stop`].
    pub async fn holdings(
        &self,
        scope: &Scope,
        node: NodeId,
        liveness: &Liveness,
    ) -> Result<Holdings, Error> {
        scope.require(Access::Admin)?;
        let tx = self.begin().await?;
        let found = tx.peek_versioned::<Node>(&keys::node(node)).await?;
        let (known, version) = found.ok_or(Error::UnknownNode(node))?;
        let intent = tx.peek_intent().await?;
        let (cluster, unknown_nodes) = self.cluster_health(&tx, liveness).await?;
        let without = cluster.without(&BTreeSet::from([node]));
        let mut holdings = Holdings {
            node,
            is_leaving: known.is_leaving,
            chunks: 0,
            sole: 0,
            example: None,
            unknown: Unknown::default(),
            unknown_nodes,
            version,
            intent,
        };
        holdings.unknown =
            tx.each_chunk(|id, chunk| holdings.count(id, chunk, &known, &without)).await?;
        Ok(holdings)
    }

    /// Reads the nodes of a snapshot and combines them with their liveness. Every disk that a
    /// record may name belongs to one of them or to a node whose record is unreadable, and disks of
    /// the latter do not count.
    async fn cluster_health(
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
    fn add(&mut self, records: Vec<Unreadable>) {
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
fn needed(chunk: &Chunk, replication: Replication) -> u8 {
    match chunk.redundancy {
        Redundancy::Replicated { copies } => needed_replicas(copies, replication),
        Redundancy::Erasure { k, .. } => k.saturating_add(1),
    }
}

fn needed_replicas(copies: u8, replication: Replication) -> u8 {
    replication.min_write_for(copies).min(copies.saturating_sub(1))
}

impl Holdings {
    fn count(&mut self, id: ChunkId, chunk: &Chunk, node: &Node, without: &Cluster) {
        let here = chunk.replicas.iter().filter(|replica| node.has(replica.disk));
        let mut here = here.filter(|replica| !replica.is_doomed()).peekable();
        if chunk.is_tombstone() || here.peek().is_none() {
            return;
        }
        self.chunks += 1;
        if here.any(Replica::is_sound) && judge(chunk, without).is_missing() {
            self.sole += 1;
            self.example.get_or_insert(id);
        }
    }
}

impl Transaction {
    /// Passes every readable chunk at the snapshot to `show`, in id order. Returns the unreadable
    /// ones.
    async fn each_chunk(&self, mut show: impl FnMut(ChunkId, &Chunk)) -> Result<Unknown, Error> {
        let (mut unknown, mut after) = (Unknown::default(), None);
        loop {
            let page = self.chunk_page(after.as_ref(), Namespace::PAGE_LEN_MAX).await?;
            unknown.add(page.unreadable);
            page.chunks.iter().for_each(|(id, chunk)| show(*id, chunk));
            after = page.next;
            if after.is_none() {
                return Ok(unknown);
            }
            // The memory engine never waits; let other tasks run.
            tokio::task::yield_now().await;
        }
    }
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
