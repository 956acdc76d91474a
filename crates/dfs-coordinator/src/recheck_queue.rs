//! Replicas that must be read again before they may be marked as bad or gone, because no other
//! replica of their chunk is known to be readable.
//!
//! Heartbeats only enqueue them, as reading takes long. The node repeats its verdict until it is
//! settled, so that the queue can be bounded and need not be durable.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Mutex;

use dfs_types::{NodeId, ReplicaRef};
use tokio::sync::Notify;

/// Replicas waiting or being read at most.
const REPLICAS_MAX: usize = 4_096;

/// The replicas to read again.
#[derive(Debug, Default)]
pub(crate) struct Rechecks {
    state: Mutex<State>,
    added: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<(NodeId, ReplicaRef)>,
    /// Those waiting and those being read.
    known: BTreeSet<(NodeId, ReplicaRef)>,
}

impl Rechecks {
    /// Adds a replica, unless it is known or there are too many.
    pub(crate) fn add(&self, node: NodeId, replica: ReplicaRef) {
        let mut state = crate::lock(&self.state);
        if state.known.len() < REPLICAS_MAX && state.known.insert((node, replica)) {
            state.waiting.push_back((node, replica));
            self.added.notify_one();
        }
    }

    /// Waits for a replica to read.
    pub(crate) async fn next(&self) -> (NodeId, ReplicaRef) {
        loop {
            if let Some(next) = crate::lock(&self.state).waiting.pop_front() {
                return next;
            }
            self.added.notified().await;
        }
    }

    /// Ends the reading of a replica, which may be added again.
    pub(crate) fn finish(&self, node: NodeId, replica: ReplicaRef) {
        crate::lock(&self.state).known.remove(&(node, replica));
    }
}

#[cfg(test)]
mod tests {
    use dfs_types::{ChunkId, DiskId, Part, Stamp};

    use super::*;

    fn replica(chunk: usize) -> ReplicaRef {
        let chunk = ChunkId(chunk as u128);
        ReplicaRef { chunk, part: Part::WHOLE, disk: DiskId(1), stamp: Stamp(1) }
    }

    #[tokio::test]
    async fn replicas_are_queued_once_and_within_the_bound() {
        let rechecks = Rechecks::default();
        for chunk in 0..REPLICAS_MAX + 5 {
            rechecks.add(NodeId(1), replica(chunk));
            rechecks.add(NodeId(1), replica(chunk));
        }
        let mut taken = Vec::new();
        for _ in 0..REPLICAS_MAX {
            taken.push(rechecks.next().await.1);
        }
        assert_eq!(taken, (0..REPLICAS_MAX).map(replica).collect::<Vec<_>>());
        rechecks.add(NodeId(1), replica(REPLICAS_MAX));
        assert!(crate::lock(&rechecks.state).waiting.is_empty(), "those being read count");
        rechecks.finish(NodeId(1), replica(0));
        rechecks.add(NodeId(1), replica(0));
        assert_eq!(rechecks.next().await.1, replica(0));
    }
}
