//! Selection of the nodes for a chunk.
//!
//! A [`NodeSelector`] is a pure function of the candidates, the hints and the randomness passed in;
//! the caller decides which nodes are candidates (active, responsive, not refusing).

mod capacity_weighted;
mod random;
mod round_robin;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use dfs_types::{NodeId, Random};

pub use capacity_weighted::CapacityWeighted;
pub use random::RandomNodes;
pub use round_robin::RoundRobin;

/// A node whose state allows new chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Id of the node.
    pub node: NodeId,
    /// Failure domain; empty when unknown, in which case each node counts as its own.
    pub zone: String,
    /// Machine it runs on; empty when unknown.
    pub host: String,
    /// Free bytes.
    pub free: u64,
}

/// Requirements and hints of a selection.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlacementRequest<'a> {
    /// Nodes wanted.
    pub count: usize,
    /// Bytes that each must have free.
    pub bytes: u64,
    /// Nodes to avoid.
    pub avoid: &'a [NodeId],
    /// Prefers a node on this machine as primary; empty for no preference.
    pub host: &'a str,
    /// Otherwise prefers one in this zone; empty for no preference.
    pub zone: &'a str,
}

/// A strategy of choosing nodes.
pub trait NodeSelector: Send + Sync {
    /// Chooses at most `request.count` different nodes, the first as primary. Fewer only when fewer
    /// have room and are not to be avoided.
    fn select(
        &self,
        candidates: &[Candidate],
        request: &PlacementRequest<'_>,
        random: &dyn Random,
    ) -> Vec<NodeId>;
}

/// Returns the candidates with room that are not to be avoided, each node once.
fn eligible<'a>(candidates: &'a [Candidate], request: &PlacementRequest<'_>) -> Vec<&'a Candidate> {
    let mut seen = BTreeSet::new();
    candidates
        .iter()
        .filter(|candidate| {
            candidate.free > request.bytes
                && !request.avoid.contains(&candidate.node)
                && seen.insert(candidate.node)
        })
        .collect()
}

/// Moves a chosen node near the client to the front, if there is one.
fn put_nearest_first(chosen: &mut [&Candidate], request: &PlacementRequest<'_>) {
    let on_host = |c: &&Candidate| !request.host.is_empty() && c.host == request.host;
    let in_zone = |c: &&Candidate| !request.zone.is_empty() && c.zone == request.zone;
    let nearest = chosen.iter().position(on_host).or_else(|| chosen.iter().position(in_zone));
    if let Some(nearest) = nearest {
        chosen[..=nearest].rotate_right(1);
    }
}
