//! Moved bytes that heartbeats do not reflect yet. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dfs_metadata::chunk_health::{Cluster, DiskHealth};
use dfs_metadata::namespace::{Chunk, ReplicaId};
use dfs_types::{ChunkId, NodeId, NodeState, counted};
use tokio::time::Instant;

use crate::node_liveness::View;

/// Moved replicas of a node that may wait for deletion: beyond that, moves free no space.
const WAITING_MAX: usize = 1_000;
/// Of all of them, those checked at a time.
const CHECKED_MAX: usize = 1_000;

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
    left: BTreeMap<NodeId, Vec<Left>>,
    /// Number of undeleted replicas before the next one to check.
    checked: usize,
}

#[derive(Debug)]
struct Arrived {
    node: NodeId,
    bytes: u64,
    at: Instant,
}

#[derive(Debug)]
struct Left {
    chunk: ChunkId,
    replica: ReplicaId,
    bytes: u64,
    /// When it was known to be deleted.
    deleted: Option<Instant>,
}

/// Reports of the members.
#[derive(Debug, Default)]
pub(super) struct Reports(BTreeMap<NodeId, Report>);

#[derive(Debug, Clone, Copy)]
struct Report {
    /// Time of the last heartbeat; `None` if there was none yet.
    at: Option<Instant>,
    takes_part: bool,
}

impl Reports {
    pub(super) fn of(views: &[View], now: Instant) -> Self {
        let members = views.iter().filter(|view| view.state != NodeState::Removed);
        let report = |view: &View| {
            let at = view.last_heard.and_then(|ago| now.checked_sub(ago));
            (view.node, Report { at, takes_part: view.takes_chunks() })
        };
        Self(members.map(report).collect())
    }

    /// Returns whether a later report of the node is needed to include what happened at that time.
    /// One may have been composed `delay` before it was received.
    fn lacks(&self, node: NodeId, at: Instant, delay: Duration) -> bool {
        self.0.get(&node).is_some_and(|report| report.at.is_none_or(|heard| heard < at + delay))
    }

    fn takes_part(&self, node: NodeId) -> bool {
        self.0.get(&node).is_some_and(|report| report.takes_part)
    }
}

impl Unreported {
    /// Adds a replica that was moved.
    pub(super) fn add(&mut self, moved: &Move, at: Instant) {
        let bytes = moved.bytes();
        self.arrived.push(Arrived { node: moved.to, bytes, at });
        self.add_doomed(moved.from, (moved.chunk, moved.replica), bytes);
    }

    /// Adds a replica that waits for deletion.
    pub(super) fn add_doomed(
        &mut self,
        node: NodeId,
        (chunk, replica): (ChunkId, ReplicaId),
        bytes: u64,
    ) {
        let left = Left { chunk, replica, bytes, deleted: None };
        self.left.entry(node).or_default().push(left);
    }

    /// Returns some of the chunks with replicas that wait for deletion, each call the next ones.
    pub(super) fn undeleted(&mut self) -> Vec<ChunkId> {
        let undeleted = || self.left.values().flatten().filter(|left| left.deleted.is_none());
        let count = undeleted().count();
        if count == 0 {
            return Vec::new();
        }
        let (from, taken) = (self.checked % count, count.min(CHECKED_MAX));
        let chunks = undeleted().chain(undeleted()).skip(from).take(taken);
        let chunks = chunks.map(|left| left.chunk).collect();
        self.checked = from + taken;
        chunks
    }

    /// Takes the current records of these chunks into account.
    pub(super) fn note_records(&mut self, records: &BTreeMap<ChunkId, Option<Chunk>>, at: Instant) {
        let left = self.left.values_mut().flatten();
        for left in left.filter(|left| left.deleted.is_none()) {
            let Some(record) = records.get(&left.chunk) else { continue };
            let is_it = |id: ReplicaId| id == left.replica;
            let is_named = record
                .as_ref()
                .is_some_and(|record| record.replicas.iter().any(|it| is_it(ReplicaId::of(it))));
            left.deleted = (!is_named).then_some(at);
        }
    }

    /// Forgets what was reported, and what was moved from or to nodes that are no longer members. What
    /// a silent node has not reported stays: its next report may still count it. Replicas on lost
    /// disks of nodes that take part are forgotten too: these do not report what such a disk holds,
    /// and may never delete it.
    pub(super) fn settle(&mut self, reports: &Reports, cluster: &Cluster, delay: Duration) {
        self.arrived.retain(|it| reports.lacks(it.node, it.at, delay));
        let is_lost = |disk| cluster.disk(disk) == DiskHealth::Lost;
        for (node, left) in &mut self.left {
            left.retain(|it| match it.deleted {
                Some(at) => reports.lacks(*node, at, delay),
                None if reports.takes_part(*node) => !is_lost(it.replica.disk),
                None => reports.0.contains_key(node),
            });
        }
        self.left.retain(|_, left| !left.is_empty());
    }

    /// Returns the bytes that a node uses at least, and at most, once all moves are complete, given
    /// those that it reported: its report may include any of the moves.
    pub(super) fn used(&self, node: NodeId, reported: u64) -> (u64, u64) {
        let left = self.left.get(&node).into_iter().flatten().map(|it| it.bytes);
        let arrived = self.arrived.iter().filter(|it| it.node == node).map(|it| it.bytes);
        let least = left.fold(reported, u64::saturating_sub);
        (least, arrived.fold(reported, u64::saturating_add))
    }

    /// Returns whether too many moved replicas of a node wait for deletion.
    pub(super) fn is_full(&self, node: NodeId) -> bool {
        self.left.get(&node).is_some_and(|left| left.len() >= WAITING_MAX)
    }

    /// Describes what the next decision about these nodes waits for. `None` if their last reports
    /// include all moves.
    pub(super) fn describe(&self, nodes: &BTreeSet<NodeId>) -> Option<String> {
        let left = self.left.iter().filter(|(node, _)| nodes.contains(node));
        let mut left = left.flat_map(|(_, left)| left).peekable();
        if left.peek().is_none() && !self.arrived.iter().any(|it| nodes.contains(&it.node)) {
            return None;
        }
        Some(match left.filter(|left| left.deleted.is_none()).count() {
            0 => "waiting for reports of what was moved".to_owned(),
            count => {
                let replicas = counted(count as u64, "moved replica");
                format!("waiting for the deletion of {replicas}")
            }
        })
    }
}

#[cfg(test)]
mod tests;
