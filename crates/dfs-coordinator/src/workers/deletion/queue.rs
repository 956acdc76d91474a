//! Replicas that no record names any more, to be deleted by the nodes that hold them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dfs_types::{ChunkId, NodeId, Stamp};
use tokio::time::Instant;

/// A replica to be deleted: the stamp keeps a late order from hitting a later replica.
pub(crate) type ReplicaToDelete = (ChunkId, Stamp);

/// Orders that wait to be given, node by node.
///
/// Bounded in replicas and in tries, for each node and in all. The longest queue gives way, so that a
/// node which does not answer keeps no other from giving back space. What is dropped here is not
/// lost for good: the tombstone of its chunk still names it, where a scan finds it.
#[derive(Debug)]
pub(crate) struct Deletions {
    capacity: usize,
    waiting: usize,
    nodes: BTreeMap<NodeId, Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    replicas: BTreeSet<ReplicaToDelete>,
    tries: u32,
    rests_until: Option<Instant>,
    /// Something was dropped for want of room.
    has_overflowed: bool,
}

impl Deletions {
    /// Replicas that one order names at most.
    pub(crate) const BATCH_MAX: usize = 1_000;
    /// Failures in a row after which a batch is dropped, so that those behind it get their turn.
    const TRIES_MAX: u32 = 8;
    /// Rest after the first failure; doubled with each further one.
    const REST: Duration = Duration::from_secs(1);

    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, waiting: 0, nodes: BTreeMap::new() }
    }

    /// Replicas that wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting
    }

    /// Whether there was no room for replicas of a node that could be ordered away now: time for a
    /// scan. Asks once.
    pub(crate) fn wants_scan(&mut self) -> bool {
        let share = self.share();
        let mut wants = false;
        self.nodes.retain(|_, queue| {
            if queue.has_overflowed && queue.replicas.len() < share / 2 {
                wants = true;
                queue.has_overflowed = false;
            }
            queue.has_overflowed || !queue.replicas.is_empty()
        });
        wants
    }

    /// What waits for one node at most.
    fn share(&self) -> usize {
        (self.capacity / 4).max(1)
    }

    /// Adds a replica whose removal from the records is committed.
    pub(crate) fn push(&mut self, node: NodeId, replica: ReplicaToDelete) {
        let share = self.share();
        let queue = self.nodes.entry(node).or_default();
        if queue.replicas.contains(&replica) {
            return;
        }
        if queue.replicas.len() >= share {
            queue.has_overflowed = true;
            return;
        }
        queue.replicas.insert(replica);
        self.waiting += 1;
        if self.waiting > self.capacity
            && let Some(longest) = self.nodes.values_mut().max_by_key(|queue| queue.replicas.len())
            && longest.replicas.pop_last().is_some()
        {
            longest.has_overflowed = true;
            self.waiting -= 1;
        }
    }

    /// Nodes that orders wait for, and whose rest is over.
    pub(crate) fn due(&self, now: Instant) -> Vec<NodeId> {
        let rested = |queue: &Queue| queue.rests_until.is_none_or(|until| until <= now);
        let has_work = |queue: &Queue| !queue.replicas.is_empty() && rested(queue);
        self.nodes.iter().filter(|(_, queue)| has_work(queue)).map(|(node, _)| *node).collect()
    }

    /// What the next order to a node says. It stays here until [`Self::done`].
    pub(crate) fn batch(&self, node: NodeId) -> Vec<ReplicaToDelete> {
        self.nodes
            .get(&node)
            .map(|queue| queue.replicas.iter().take(Self::BATCH_MAX).copied().collect())
            .unwrap_or_default()
    }

    /// The node carried out an order.
    pub(crate) fn done(&mut self, node: NodeId, batch: &[ReplicaToDelete]) {
        let Some(queue) = self.nodes.get_mut(&node) else { return };
        for replica in batch {
            self.waiting -= usize::from(queue.replicas.remove(replica));
        }
        queue.tries = 0;
        queue.rests_until = None;
        if queue.replicas.is_empty() && !queue.has_overflowed {
            self.nodes.remove(&node);
        }
    }

    /// An order did not get through, or was refused.
    pub(crate) fn failed(&mut self, node: NodeId, batch: &[ReplicaToDelete], now: Instant) {
        let Some(queue) = self.nodes.get_mut(&node) else { return };
        queue.tries += 1;
        if queue.tries >= Self::TRIES_MAX {
            self.done(node, batch);
            return;
        }
        queue.rests_until = Some(now + Self::REST * (1 << queue.tries.min(6)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(1);

    fn replica(id: u128) -> ReplicaToDelete {
        (ChunkId(id), Stamp(1))
    }

    #[test]
    fn orders_come_in_batches_and_leave_when_done() {
        let now = Instant::now();
        let mut deletions = Deletions::new(10_000);
        for id in (0..1_500).chain(0..10) {
            deletions.push(NODE, replica(id));
        }
        deletions.push(NodeId(2), replica(7));
        assert_eq!((deletions.due(now), deletions.len()), (vec![NODE, NodeId(2)], 1_501));
        let batch = deletions.batch(NODE);
        assert_eq!((batch.len(), batch[0]), (1_000, replica(0)));
        deletions.done(NODE, &batch);
        let batch = deletions.batch(NODE);
        assert_eq!((batch.len(), deletions.len()), (500, 501));
        deletions.done(NODE, &batch);
        assert_eq!(deletions.due(now), [NodeId(2)]);
    }

    #[test]
    fn a_failure_rests_and_the_last_one_drops() {
        let mut now = Instant::now();
        let mut deletions = Deletions::new(10);
        deletions.push(NODE, replica(1));
        for _ in 1..Deletions::TRIES_MAX {
            assert_eq!(deletions.due(now), [NODE]);
            deletions.failed(NODE, &[replica(1)], now);
            assert!(deletions.due(now).is_empty());
            now += Duration::from_mins(2);
        }
        deletions.failed(NODE, &[replica(1)], now);
        assert_eq!(deletions.len(), 0);
    }

    #[test]
    fn there_is_an_end_to_what_waits_and_a_scan_for_the_rest() {
        let mut deletions = Deletions::new(16);
        for id in 0..9 {
            deletions.push(NODE, replica(id));
        }
        assert_eq!((deletions.len(), deletions.wants_scan()), (4, false));
        deletions.done(NODE, &[replica(0), replica(1), replica(2)]);
        assert!(deletions.wants_scan());
        assert!(!deletions.wants_scan());
        deletions.done(NODE, &[replica(3)]);
        assert_eq!((deletions.len(), deletions.nodes.len()), (0, 0));
    }

    #[test]
    fn nodes_that_do_not_answer_leave_room_for_others() {
        let mut deletions = Deletions::new(16);
        for node in 1..=8 {
            for id in 0..4 {
                deletions.push(NodeId(node), replica(id));
            }
        }
        assert_eq!(deletions.len(), 16);
        let live = NodeId(9);
        deletions.push(live, replica(0));
        assert_eq!((deletions.batch(live), deletions.len()), (vec![replica(0)], 16));
    }
}
