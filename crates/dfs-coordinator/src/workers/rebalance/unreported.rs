//! Moved bytes that heartbeats do not reflect yet. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dfs_metadata::chunk_health::{Cluster, DiskHealth};
use dfs_metadata::namespace::{Chunk, ReplicaId};
use dfs_types::{ChunkId, NodeId, counted};
use tokio::time::Instant;

/// Moved replicas that may wait for deletion: beyond that, moves free no space.
const WAITING_MAX: usize = 1_000;

/// A replica to move, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) chunk: ChunkId,
    pub(super) record: Chunk,
    pub(super) replica: ReplicaId,
    pub(super) from: NodeId,
    pub(super) to: NodeId,
}

impl Move {
    pub(super) fn bytes(&self) -> u64 {
        self.record.seal.length
    }
}

/// Moved bytes of each node that its last report may not include.
#[derive(Debug, Default)]
pub(super) struct Unreported {
    arrived: Vec<Arrived>,
    left: Vec<Left>,
}

#[derive(Debug)]
struct Arrived {
    node: NodeId,
    bytes: u64,
    at: Instant,
}

#[derive(Debug)]
struct Left {
    node: NodeId,
    chunk: ChunkId,
    replica: ReplicaId,
    bytes: u64,
    /// When it was known to be deleted.
    deleted: Option<Instant>,
}

impl Unreported {
    /// Adds a replica that was moved.
    pub(super) fn add(&mut self, moved: &Move, at: Instant) {
        let bytes = moved.bytes();
        self.arrived.push(Arrived { node: moved.to, bytes, at });
        let Move { chunk, replica, from: node, .. } = *moved;
        self.left.push(Left { node, chunk, replica, bytes, deleted: None });
    }

    /// Returns the chunks with replicas that wait for deletion.
    pub(super) fn undeleted(&self) -> Vec<ChunkId> {
        let chunks = self.left.iter().filter(|left| left.deleted.is_none());
        chunks.map(|left| left.chunk).collect()
    }

    /// Takes the current records of these chunks into account.
    pub(super) fn note_records(&mut self, records: &BTreeMap<ChunkId, Option<Chunk>>, at: Instant) {
        for left in self.left.iter_mut().filter(|left| left.deleted.is_none()) {
            let Some(record) = records.get(&left.chunk) else { continue };
            let is_it = |id: ReplicaId| id == left.replica;
            let is_named = record
                .as_ref()
                .is_some_and(|record| record.replicas.iter().any(|it| is_it(ReplicaId::of(it))));
            left.deleted = (!is_named).then_some(at);
        }
    }

    /// Forgets what was reported: `heard` is the time of the last heartbeat of each node that takes
    /// part. One may have been composed `delay` before it was received. Replicas on lost disks are
    /// forgotten too: nodes do not report what these hold, and may never delete it.
    pub(super) fn settle(
        &mut self,
        heard: &BTreeMap<NodeId, Instant>,
        cluster: &Cluster,
        delay: Duration,
    ) {
        let is_open =
            |node: NodeId, at: Instant| heard.get(&node).is_some_and(|heard| *heard < at + delay);
        self.arrived.retain(|it| is_open(it.node, it.at));
        let is_lost = |disk| cluster.disk(disk) == DiskHealth::Lost;
        let takes_part: BTreeSet<NodeId> = heard.keys().copied().collect();
        self.left.retain(|it| match it.deleted {
            Some(at) => is_open(it.node, at),
            None => takes_part.contains(&it.node) && !is_lost(it.replica.disk),
        });
    }

    /// Returns the bytes that a node uses at least, and at most, once all moves are complete, given
    /// those that it reported: its report may include any of the moves.
    pub(super) fn used(&self, node: NodeId, reported: u64) -> (u64, u64) {
        let left = self.left.iter().filter(|it| it.node == node).map(|it| it.bytes);
        let arrived = self.arrived.iter().filter(|it| it.node == node).map(|it| it.bytes);
        let least = left.fold(reported, u64::saturating_sub);
        (least, arrived.fold(reported, u64::saturating_add))
    }

    /// Returns whether the last reports include all moves.
    pub(super) fn is_empty(&self) -> bool {
        self.arrived.is_empty() && self.left.is_empty()
    }

    /// Returns whether too many moved replicas wait for deletion.
    pub(super) fn is_full(&self) -> bool {
        self.left.len() >= WAITING_MAX
    }

    /// Describes what the next decision waits for.
    pub(super) fn describe(&self) -> String {
        match self.left.iter().filter(|left| left.deleted.is_none()).count() {
            0 => "waiting for reports of what was moved".to_owned(),
            count => {
                let replicas = counted(count as u64, "moved replica");
                format!("waiting for the deletion of {replicas}")
            }
        }
    }
}

#[cfg(test)]
mod tests;
