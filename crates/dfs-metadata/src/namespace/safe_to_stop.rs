//! What would become of the chunks without some of the nodes: scans over all of `k/`.

use std::collections::BTreeSet;

use bytes::Bytes;
use dfs_types::{Access, ChunkId, NodeId, NodeState, Revision, Scope};

use super::chunks::with_id;
use super::transaction::Transaction;
use super::{Chunk, Namespace, Node, Replica, Replication};
use crate::records::setting::Mark;
use crate::{Error, keys};

/// What all nodes shall be, only to be compared: any change of it makes another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeIntentVersion(pub(super) Option<Revision>);

/// Whether the data stands it that nodes stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Safety {
    /// Of the snapshot.
    pub revision: Revision,
    /// What all nodes were to be at that moment.
    pub intent: NodeIntentVersion,
    /// Chunks that would have fewer good replicas than they need.
    pub chunks_below: u64,
    /// Chunks that nobody could read meanwhile.
    pub chunks_unreadable: u64,
    /// One of those that would have too few.
    pub example: Option<Shortfall>,
}

/// A chunk that would have too few good replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortfall {
    /// Which.
    pub chunk: ChunkId,
    /// Good replicas that would be left.
    pub left: usize,
    /// Good replicas that it needs.
    pub needed: usize,
}

/// What the records say that a node holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holdings {
    /// The node.
    pub node: NodeId,
    /// Whether it was leaving at that moment: if so, it can only become less.
    pub is_leaving: bool,
    /// Chunks with a replica there, good or bad, those included that only wait to be deleted.
    pub chunks: u64,
    /// Chunks with a good replica there and none elsewhere that counts.
    pub sole: u64,
    /// One of these.
    pub example: Option<ChunkId>,
    /// Of the record of the node.
    pub(super) version: Revision,
}

impl Namespace {
    /// Whether the data stands it that `nodes` stop, at one snapshot. `counts` says which replicas
    /// can be read at this moment; those on nodes that are not to be relied on (in maintenance,
    /// drained, removed) do not count in any case.
    ///
    /// A scan over all chunks, in bounded steps: give it a deadline by dropping it.
    pub async fn safe_to_stop(
        &self,
        scope: &Scope,
        nodes: &BTreeSet<NodeId>,
        counts: &(dyn Fn(&Replica) -> bool + Sync),
    ) -> Result<Safety, Error> {
        scope.require(Access::Admin)?;
        let mut tx = self.begin().await?;
        let now = self.now();
        for node in nodes {
            tx.standing_node(*node).await?;
        }
        let intent = tx.look::<Mark>(&keys::NODE_INTENT).await?.map(|(_, version)| version);
        let replication = super::cluster::replication(&tx).await?;
        let goes_on = |node: &Node| {
            matches!(node.state, NodeState::Active | NodeState::Draining)
                && node.maintenance_left(now).is_none()
        };
        let known = super::nodes::all(&tx).await?.into_iter();
        let going: BTreeSet<NodeId> = known
            .filter(|(id, node)| goes_on(node) && !nodes.contains(id))
            .map(|(id, _)| id)
            .collect();
        let mut safety = Safety {
            revision: tx.revision(),
            intent: NodeIntentVersion(intent),
            chunks_below: 0,
            chunks_unreadable: 0,
            example: None,
        };
        let left = |replica: &Replica| going.contains(&replica.node) && counts(replica);
        tx.each_chunk(|id, chunk| safety.look_at(id, chunk, replication, nodes, &left)).await?;
        Ok(safety)
    }

    /// What the records say that a node holds, at one snapshot. `counts` says which replicas on
    /// other nodes can be relied on. A scan like [`Self::safe_to_stop`].
    pub async fn holdings(
        &self,
        scope: &Scope,
        node: NodeId,
        counts: &(dyn Fn(&Replica) -> bool + Sync),
    ) -> Result<Holdings, Error> {
        scope.require(Access::Admin)?;
        let tx = self.begin().await?;
        let found = tx.look::<Node>(&keys::node(node)).await?;
        let (known, version) = found.ok_or(Error::UnknownNode(node))?;
        let is_leaving = known.is_leaving;
        let mut holdings =
            Holdings { node, is_leaving, chunks: 0, sole: 0, example: None, version };
        tx.each_chunk(|id, chunk| holdings.look_at(id, chunk, counts)).await?;
        Ok(holdings)
    }
}

impl Safety {
    /// Whether it is safe.
    pub fn is_safe(&self) -> bool {
        self.chunks_below == 0
    }

    fn look_at(
        &mut self,
        id: ChunkId,
        chunk: &Chunk,
        replication: Replication,
        nodes: &BTreeSet<NodeId>,
        is_left: &dyn Fn(&Replica) -> bool,
    ) {
        // What has no replica there is as well or badly off afterwards as before.
        let is_touched = chunk.good_replicas().any(|replica| nodes.contains(&replica.node));
        if chunk.is_tombstone() || !is_touched {
            return;
        }
        let left = chunk.good_replicas().filter(|replica| is_left(replica)).count();
        let needed = usize::from(needed(chunk.wanted, replication));
        self.chunks_unreadable += u64::from(left == 0);
        if left < needed {
            self.chunks_below += 1;
            self.example.get_or_insert(Shortfall { chunk: id, left, needed });
        }
    }
}

/// Good replicas that a chunk which wants so many must keep while nodes are down on purpose.
fn needed(wanted: u8, replication: Replication) -> u8 {
    replication.min_write_for(wanted).min(wanted.saturating_sub(1))
}

impl Holdings {
    fn look_at(&mut self, id: ChunkId, chunk: &Chunk, counts: &dyn Fn(&Replica) -> bool) {
        if !chunk.replicas.iter().any(|replica| replica.node == self.node) {
            return;
        }
        self.chunks += 1;
        let is_good_here = chunk.good_replicas().any(|replica| replica.node == self.node);
        let is_elsewhere = |replica: &Replica| replica.node != self.node && counts(replica);
        let is_sole = is_good_here && !chunk.good_replicas().any(is_elsewhere);
        if is_sole && !chunk.is_tombstone() {
            self.sole += 1;
            self.example.get_or_insert(id);
        }
    }
}

impl Transaction {
    /// Shows every chunk at the snapshot, in id order.
    async fn each_chunk(&self, mut show: impl FnMut(ChunkId, &Chunk)) -> Result<(), Error> {
        let mut after = Bytes::new();
        loop {
            let page = self.range::<Chunk>(keys::CHUNKS, &after, Namespace::PAGE_LEN_MAX).await?;
            let is_last = page.len() < Namespace::PAGE_LEN_MAX;
            for entry in page {
                after.clone_from(&entry.0);
                let (id, chunk) = with_id(entry)?;
                show(id, &chunk);
            }
            if is_last {
                return Ok(());
            }
            // An engine in memory never waits, and others want to be served, too.
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_needed_as_a_write_needs_but_never_all() {
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
            assert_eq!(needed(wanted, replication), wants, "{wanted} under {replication:?}");
        }
    }
}
