//! By free space, spread over failure domains.

use std::collections::BTreeMap;

use dfs_types::{NodeId, Random};

use super::{Candidate, NodeSelector, Wish, eligible, put_nearest_first};

/// Spreads copies over zones, then over machines, and chooses within that by chance, each node as
/// often as it has free bytes. So disks fill evenly, and a burst of plans does not pile up on the
/// emptiest node, as choosing the emptiest each time would.
#[derive(Debug, Default)]
pub struct CapacityWeighted(());

impl NodeSelector for CapacityWeighted {
    fn select(
        &self,
        candidates: &[Candidate],
        wish: &Wish<'_>,
        random: &dyn Random,
    ) -> Vec<NodeId> {
        let mut left = eligible(candidates, wish);
        let mut chosen: Vec<&Candidate> = Vec::with_capacity(wish.count);
        let (mut zones, mut hosts) = (BTreeMap::new(), BTreeMap::new());
        while chosen.len() < wish.count && !left.is_empty() {
            // Copies that the domains of a candidate hold already: zones count before machines.
            let crowd = |candidate: &Candidate| {
                let zone = zones.get(&domain(&candidate.zone, candidate.node)).copied();
                let host = hosts.get(&domain(&candidate.host, candidate.node)).copied();
                (zone.unwrap_or(0_usize), host.unwrap_or(0_usize))
            };
            let least = left.iter().map(|candidate| crowd(candidate)).min();
            let best = |candidate: &&Candidate| Some(crowd(candidate)) == least;
            let total: u128 = left.iter().copied().filter(best).map(weight).sum();
            let mut point = u128::from(random.below(u64::try_from(total).unwrap_or(u64::MAX)));
            let index = left.iter().position(|candidate| {
                if !best(candidate) {
                    return false;
                }
                let weight = weight(candidate);
                let is_hit = point < weight;
                point = point.saturating_sub(weight);
                is_hit
            });
            let Some(index) = index else { break };
            let hit = left.swap_remove(index);
            *zones.entry(domain(&hit.zone, hit.node)).or_insert(0) += 1;
            *hosts.entry(domain(&hit.host, hit.node)).or_insert(0) += 1;
            chosen.push(hit);
        }
        put_nearest_first(&mut chosen, wish);
        chosen.into_iter().map(|candidate| candidate.node).collect()
    }
}

/// A failure domain; a node of which it is not known is one of its own.
fn domain(name: &str, node: NodeId) -> (&str, Option<NodeId>) {
    (name, name.is_empty().then_some(node))
}

fn weight(candidate: &Candidate) -> u128 {
    // In mebibytes, so that the sum over any cluster stays within what can be drawn.
    u128::from(candidate.free >> 20) + 1
}
