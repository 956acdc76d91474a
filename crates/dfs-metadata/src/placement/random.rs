//! By chance alone.

use dfs_types::{NodeId, Random};

use super::{Candidate, NodeSelector, Wish, eligible, put_nearest_first};

/// Every eligible node as often as any other.
#[derive(Debug, Default)]
pub struct RandomNodes(());

impl NodeSelector for RandomNodes {
    fn select(
        &self,
        candidates: &[Candidate],
        wish: &Wish<'_>,
        random: &dyn Random,
    ) -> Vec<NodeId> {
        let mut left = eligible(candidates, wish);
        let mut chosen = Vec::with_capacity(wish.count);
        while chosen.len() < wish.count && !left.is_empty() {
            let index = random.below(left.len() as u64) as usize;
            chosen.push(left.swap_remove(index));
        }
        put_nearest_first(&mut chosen, wish);
        chosen.into_iter().map(|candidate| candidate.node).collect()
    }
}
