//! Which nodes shall hold a chunk.
//!
//! A [`NodeSelector`] is a pure function of the candidates, the hints and the randomness that are
//! passed in; who is a candidate at all (active, heard, not refusing) is the caller's knowledge.

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

/// A node that may take new chunks as far as its state goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub node: NodeId,
    /// Failure domain; empty when not known, and then each node counts as one of its own.
    pub zone: String,
    /// Machine it runs on; empty when not known.
    pub host: String,
    /// Bytes it can still take.
    pub free: u64,
}

/// What is wanted of a selection.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlacementRequest<'a> {
    /// Nodes wanted.
    pub count: usize,
    /// Bytes that each must have free.
    pub bytes: u64,
    /// Never these.
    pub avoid: &'a [NodeId],
    /// A node on this machine is preferred as primary; empty for no preference.
    pub host: &'a str,
    /// Else one of this zone; empty for no preference.
    pub zone: &'a str,
}

/// A way to choose nodes.
pub trait NodeSelector: Send + Sync {
    /// Chooses at most `request.count` different nodes, the first as primary. Fewer only when fewer
    /// are there that have room and are not to be avoided.
    fn select(
        &self,
        candidates: &[Candidate],
        request: &PlacementRequest<'_>,
        random: &dyn Random,
    ) -> Vec<NodeId>;
}

/// Candidates that have room and are not to be avoided, each node once.
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

/// Moves a node near the client to the front, if one was chosen.
fn put_nearest_first(chosen: &mut [&Candidate], request: &PlacementRequest<'_>) {
    let on_host = |c: &&Candidate| !request.host.is_empty() && c.host == request.host;
    let in_zone = |c: &&Candidate| !request.zone.is_empty() && c.zone == request.zone;
    let nearest = chosen.iter().position(on_host).or_else(|| chosen.iter().position(in_zone));
    if let Some(nearest) = nearest {
        chosen[..=nearest].rotate_right(1);
    }
}
