//! Random selection.

use dfs_types::{NodeId, Random};

use super::{Candidate, NodeSelector, PlacementRequest, eligible, put_nearest_first};

/// Chooses every eligible node with equal probability.
#[derive(Debug, Default)]
pub struct RandomNodes(());

impl NodeSelector for RandomNodes {
    fn select(
        &self,
        candidates: &[Candidate],
        request: &PlacementRequest<'_>,
        random: &dyn Random,
    ) -> Vec<NodeId> {
        let mut left = eligible(candidates, request);
        let mut chosen = Vec::with_capacity(request.count);
        while chosen.len() < request.count && !left.is_empty() {
            let index = random.below(left.len() as u64) as usize;
            chosen.push(left.swap_remove(index));
        }
        put_nearest_first(&mut chosen, request);
        chosen.into_iter().map(|candidate| candidate.node).collect()
    }
}
