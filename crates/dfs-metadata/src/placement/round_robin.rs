//! Round-robin selection.

use std::sync::atomic::{AtomicUsize, Ordering};

use dfs_types::{NodeId, Random};

use super::{Candidate, NodeSelector, PlacementRequest, eligible};

/// Takes nodes in the order of their ids; each selection starts one further than the last.
#[derive(Debug, Default)]
pub struct RoundRobin {
    turn: AtomicUsize,
}

impl NodeSelector for RoundRobin {
    fn select(
        &self,
        candidates: &[Candidate],
        request: &PlacementRequest<'_>,
        _random: &dyn Random,
    ) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> =
            eligible(candidates, request).into_iter().map(|candidate| candidate.node).collect();
        nodes.sort_unstable();
        if !nodes.is_empty() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % nodes.len();
            nodes.rotate_left(turn);
        }
        nodes.truncate(request.count);
        nodes
    }
}
