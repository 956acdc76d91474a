//! Replicas that must be read again before they may be marked as bad or gone, because no other
//! replica of their chunk is known to be readable.
//!
//! Heartbeats only enqueue them, as reading takes long. The node repeats its verdict until it is
//! settled, so that the queue can be bounded and need not be durable.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Mutex;

use dfs_types::{NodeId, ReplicaRef};
use tokio::sync::Notify;

/// Replicas waiting or being read at most, of each node and in all.
const OF_NODE_MAX: usize = 1_024;
const REPLICAS_MAX: usize = 16_384;
/// Replicas of a node read concurrently.
const OF_NODE_AT_ONCE: usize = 2;

/// The replicas to read again. Nodes take turns, so that a slow one delays no other.
#[derive(Debug, Default)]
pub(crate) struct Rechecks {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    nodes: BTreeMap<NodeId, OfNode>,
    /// The node served last.
    last: Option<NodeId>,
    /// Replicas of all nodes.
    count: usize,
}

#[derive(Debug, Default)]
struct OfNode {
    waiting: VecDeque<ReplicaRef>,
    /// Those waiting and those being read.
    known: BTreeSet<ReplicaRef>,
}

impl OfNode {
    fn may_start(&self) -> bool {
        let running = self.known.len() - self.waiting.len();
        !self.waiting.is_empty() && running < OF_NODE_AT_ONCE
    }
}

impl State {
    fn take(&mut self) -> Option<(NodeId, ReplicaRef)> {
        let start = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.nodes.range((start, Bound::Unbounded));
        let mut turns = rest.chain(self.nodes.iter());
        let (node, _) = turns.find(|(_, of_node)| of_node.may_start())?;
        let node = *node;
        self.last = Some(node);
        let replica = self.nodes.get_mut(&node)?.waiting.pop_front()?;
        Some((node, replica))
    }
}

impl Rechecks {
    /// Adds a replica, unless it is known or there are too many.
    pub(crate) fn add(&self, node: NodeId, replica: ReplicaRef) {
        let mut state = crate::lock(&self.state);
        if state.count >= REPLICAS_MAX {
            return;
        }
        let of_node = state.nodes.entry(node).or_default();
        if of_node.known.len() < OF_NODE_MAX && of_node.known.insert(replica) {
            of_node.waiting.push_back(replica);
            state.count += 1;
            self.changed.notify_one();
        }
    }

    /// Waits for a replica to read.
    pub(crate) async fn next(&self) -> (NodeId, ReplicaRef) {
        loop {
            if let Some(next) = crate::lock(&self.state).take() {
                return next;
            }
            self.changed.notified().await;
        }
    }

    /// Ends the reading of a replica, which may be added again.
    pub(crate) fn finish(&self, node: NodeId, replica: ReplicaRef) {
        let mut state = crate::lock(&self.state);
        let Some(of_node) = state.nodes.get_mut(&node) else { return };
        let was_known = of_node.known.remove(&replica);
        if of_node.known.is_empty() {
            state.nodes.remove(&node);
        }
        state.count -= usize::from(was_known);
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use dfs_types::{ChunkId, DiskId, Part, Stamp};
    use futures_util::FutureExt as _;

    use super::*;

    fn replica(chunk: usize) -> ReplicaRef {
        let chunk = ChunkId(chunk as u128);
        ReplicaRef { chunk, part: Part::WHOLE, disk: DiskId(1), stamp: Stamp(1) }
    }

    #[test]
    fn nodes_take_turns_with_a_bounded_number_of_reads_each() {
        let rechecks = Rechecks::default();
        for chunk in 0..9 {
            rechecks.add(NodeId(1), replica(chunk));
            rechecks.add(NodeId(1), replica(chunk));
        }
        rechecks.add(NodeId(2), replica(20));
        let taken: Vec<_> = std::iter::from_fn(|| rechecks.next().now_or_never()).collect();
        let of = |node, chunk| (NodeId(node), replica(chunk));
        assert_eq!(taken, [of(1, 0), of(2, 20), of(1, 1)]);
        rechecks.add(NodeId(1), replica(0));
        rechecks.finish(NodeId(1), replica(1));
        assert_eq!(rechecks.next().now_or_never(), Some(of(1, 2)));
        assert_eq!(rechecks.next().now_or_never(), None, "the first one is still being read");
    }

    #[tokio::test(start_paused = true)]
    async fn end_of_a_read_wakes_the_next() {
        let rechecks = Rechecks::default();
        for chunk in 0..3 {
            rechecks.add(NodeId(1), replica(chunk));
        }
        rechecks.next().await;
        rechecks.next().await;
        let (next, ()) = tokio::join!(rechecks.next(), async {
            tokio::task::yield_now().await;
            rechecks.finish(NodeId(1), replica(0));
        });
        assert_eq!(next.1, replica(2));
    }

    #[test]
    fn replicas_are_bounded_by_node_and_in_all() {
        let rechecks = Rechecks::default();
        for node in 0..2 * REPLICAS_MAX / OF_NODE_MAX {
            for chunk in 0..OF_NODE_MAX + 5 {
                rechecks.add(NodeId(node as u128), replica(chunk));
            }
            let known = crate::lock(&rechecks.state).nodes.values().map(|it| it.known.len()).max();
            assert_eq!(known, Some(OF_NODE_MAX));
        }
        assert_eq!(crate::lock(&rechecks.state).count, REPLICAS_MAX);
        rechecks.finish(NodeId(0), replica(0));
        rechecks.add(NodeId(0), replica(0));
        assert_eq!(crate::lock(&rechecks.state).count, REPLICAS_MAX);
    }
}
