//! Selection by free space, spread over failure domains.

use std::collections::BTreeMap;

use dfs_types::{NodeId, Random};

use super::{Candidate, NodeSelector, PlacementRequest, eligible, put_nearest_first};

/// Spreads replicas over zones, then over machines, and chooses within those at random, weighted by
/// free bytes. Disks therefore fill evenly, and a burst of plans does not pile up on the emptiest
/// node.
///
/// A node on the client's machine always gets the first replica, which then crosses no network.
#[derive(Debug, Default)]
pub struct CapacityWeighted(());

impl NodeSelector for CapacityWeighted {
    fn select(
        &self,
        candidates: &[Candidate],
        request: &PlacementRequest<'_>,
        random: &dyn Random,
    ) -> Vec<NodeId> {
        let mut left = eligible(candidates, request);
        let mut chosen: Vec<&Candidate> = Vec::with_capacity(request.count.min(left.len()));
        let mut taken = Taken::default();
        while chosen.len() < request.count && !left.is_empty() {
            let is_far = |node: &Candidate| {
                chosen.is_empty() && !request.host.is_empty() && node.host != request.host
            };
            let merit = |node: &Candidate| (is_far(node), taken.crowd(node));
            let best = left.iter().map(|node| merit(node)).min();
            let weights: Vec<u64> = left
                .iter()
                .map(|node| if Some(merit(node)) == best { weight(node) } else { 0 })
                .collect();
            let hit = left.swap_remove(draw(&weights, random));
            taken.add(hit);
            chosen.push(hit);
        }
        put_nearest_first(&mut chosen, request);
        chosen.into_iter().map(|node| node.node).collect()
    }
}

/// A failure domain; a node with an unknown one has its own.
type Domain<'a> = (&'a str, Option<NodeId>);

fn domain(name: &str, node: NodeId) -> Domain<'_> {
    (name, name.is_empty().then_some(node))
}

/// Replicas per failure domain.
#[derive(Debug, Default)]
struct Taken<'a> {
    zones: BTreeMap<Domain<'a>, usize>,
    hosts: BTreeMap<Domain<'a>, usize>,
}

impl<'a> Taken<'a> {
    /// Returns how bad one more replica on a node would be: whether it is the second in its zone,
    /// then the replicas on its machine, then those in its zone.
    fn crowd(&self, node: &Candidate) -> (bool, usize, usize) {
        let in_zone = self.zones.get(&domain(&node.zone, node.node)).copied().unwrap_or(0);
        let on_host = self.hosts.get(&domain(&node.host, node.node)).copied().unwrap_or(0);
        (in_zone > 0, on_host, in_zone)
    }

    fn add(&mut self, node: &'a Candidate) {
        *self.zones.entry(domain(&node.zone, node.node)).or_insert(0) += 1;
        *self.hosts.entry(domain(&node.host, node.node)).or_insert(0) += 1;
    }
}

/// Weight in mebibytes, so that the sum over any cluster cannot overflow.
fn weight(node: &Candidate) -> u64 {
    (node.free >> 20) + 1
}

/// Draws an index with a probability proportional to its weight. At least one weight must not be 0.
fn draw(weights: &[u64], random: &dyn Random) -> usize {
    let mut point = random.below(weights.iter().sum());
    let mut index = 0;
    while point >= weights[index] {
        point -= weights[index];
        index += 1;
    }
    index
}
