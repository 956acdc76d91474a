//! Which nodes give replicas, and which take them. Pure.
//!
//! A replica moves only from a node above the mean to one below it, and never so far that either
//! crosses the mean. The mean, of all bytes of all nodes, does not change by that, so a node that
//! gave never takes, no byte returns, and the moves end. Reports may or may not include the last
//! moves; a node gives or takes only what it should in either case.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};

use dfs_types::{FileSystemId, NodeId};

/// Percentage points between a node and the mean from which on replicas are moved.
const START: f64 = 5.0;
/// The same, up to which they are moved.
const STOP: f64 = 3.0;

/// Fill of a node that takes part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fill {
    /// Bytes that it uses at least, and at most, once all moves are complete.
    pub(super) least: u64,
    pub(super) most: u64,
    pub(super) capacity: u64,
    /// It has room, and accepts chunks.
    pub(super) may_take: bool,
    /// File systems whose free space is too small for all nodes on them.
    pub(super) contended: BTreeSet<FileSystemId>,
}

/// Nodes that get full together, as they share free space: moves between them gain nothing. Mostly
/// a single node.
#[derive(Debug, Clone, Default)]
struct Pool {
    nodes: Vec<NodeId>,
    least: f64,
    most: f64,
    capacity: f64,
    may_take: bool,
}

impl Pool {
    fn used(&self) -> f64 {
        f64::midpoint(self.least, self.most)
    }
}

/// The share of all bytes that is used, at least and at most.
#[derive(Debug, Clone, Copy)]
struct Mean {
    least: f64,
    most: f64,
}

impl Mean {
    fn of(pools: &[Pool]) -> Self {
        let sum = |of: fn(&Pool) -> f64| pools.iter().map(of).sum::<f64>();
        // Without pools there is nothing to compare with it.
        let capacity = sum(|pool| pool.capacity).max(1.0);
        Self { least: sum(|pool| pool.least) / capacity, most: sum(|pool| pool.most) / capacity }
    }

    fn used(self) -> f64 {
        f64::midpoint(self.least, self.most)
    }

    /// Returns the bytes that a pool is certainly above the mean; negative if it may be below.
    fn surplus(self, pool: &Pool) -> f64 {
        pool.least - self.most * pool.capacity
    }

    /// Returns the bytes that a pool is certainly below the mean; negative if it may be above.
    fn deficit(self, pool: &Pool) -> f64 {
        self.least * pool.capacity - pool.most
    }
}

/// The fill of all nodes, and what follows from it.
#[derive(Debug, Clone)]
pub(super) struct Balance {
    fills: BTreeMap<NodeId, Fill>,
    pools: Vec<Pool>,
    /// The pool of each node.
    of: BTreeMap<NodeId, usize>,
    mean: Mean,
    /// Points from the mean from which on a node has to give or take.
    limit: f64,
}

impl Balance {
    /// Judges the fill of nodes. Once moves have begun, they continue until less of a difference is
    /// left than it takes to begin them.
    pub(super) fn new(fills: BTreeMap<NodeId, Fill>, has_begun: bool) -> Self {
        let fills: BTreeMap<_, _> =
            fills.into_iter().filter(|(_, fill)| fill.capacity > 0).collect();
        let mut pools: Vec<Pool> = Vec::new();
        let mut of = BTreeMap::new();
        for nodes in groups(&fills) {
            let mut pool = Pool::default();
            for node in &nodes {
                let fill = &fills[node];
                pool.least += fill.least as f64;
                pool.most += fill.most as f64;
                pool.capacity += fill.capacity as f64;
                pool.may_take |= fill.may_take;
                of.insert(*node, pools.len());
            }
            pools.push(Pool { nodes, ..pool });
        }
        let mean = Mean::of(&pools);
        let limit = if has_begun { STOP } else { START };
        Self { fills, pools, of, mean, limit }
    }

    /// Returns the mean fill in percent.
    pub(super) fn mean(&self) -> f64 {
        100.0 * self.mean.used()
    }

    /// Returns the fill of a node, together with those that it shares space with, in percent.
    pub(super) fn fill(&self, node: NodeId) -> f64 {
        let pool = self.of.get(&node).map(|index| &self.pools[*index]);
        pool.map_or(0.0, |pool| 100.0 * pool.used() / pool.capacity)
    }

    /// Returns the bytes to move until no node is off the mean by more than the difference that is
    /// left alone.
    pub(super) fn left(&self) -> u64 {
        let mean = self.mean.used();
        let beyond = |sign: f64| -> f64 {
            let of = |pool: &Pool| {
                sign * (pool.used() - mean * pool.capacity) - pool.capacity * STOP / 100.0
            };
            self.pools.iter().map(|pool| of(pool).max(0.0)).sum()
        };
        beyond(1.0).max(beyond(-1.0)) as u64
    }

    /// Returns the nodes that should give replicas, those on the fullest disks first.
    pub(super) fn givers(&self) -> Vec<NodeId> {
        let mut pools: Vec<&Pool> = self.pools.iter().filter(|pool| self.has_taker(pool)).collect();
        pools.sort_by(|a, b| compare(b, a));
        let mut givers = Vec::new();
        for pool in pools {
            let mut nodes = pool.nodes.clone();
            nodes.sort_by_key(|node| Reverse(self.fills[node].most));
            givers.extend(nodes);
        }
        givers
    }

    /// Returns the nodes that can take a replica of this size from a node, the emptiest first.
    pub(super) fn takers(&self, giver: NodeId, bytes: u64) -> Vec<NodeId> {
        let Some(giver) = self.of.get(&giver).map(|index| &self.pools[*index]) else {
            return Vec::new();
        };
        let bytes = bytes as f64;
        if bytes > self.mean.surplus(giver) {
            return Vec::new();
        }
        let takes = |pool: &&Pool| self.may_move(giver, pool) && bytes <= self.mean.deficit(pool);
        let mut pools: Vec<&Pool> = self.pools.iter().filter(takes).collect();
        pools.sort_by(|a, b| compare(a, b));
        let free = |node: &NodeId| {
            let fill = &self.fills[node];
            fill.capacity.saturating_sub(fill.most)
        };
        let mut takers = Vec::new();
        for pool in pools {
            let nodes = pool.nodes.iter().filter(|node| self.fills[node].may_take);
            let mut nodes: Vec<NodeId> = nodes.copied().collect();
            nodes.sort_by_key(|node| Reverse(free(node)));
            takers.extend(nodes);
        }
        takers
    }

    /// Takes a move into account that is about to begin.
    pub(super) fn note(&mut self, from: NodeId, to: NodeId, bytes: u64) {
        if let Some(index) = self.of.get(&from) {
            self.pools[*index].least -= bytes as f64;
        }
        if let Some(index) = self.of.get(&to) {
            self.pools[*index].most += bytes as f64;
        }
        if let Some(fill) = self.fills.get_mut(&to) {
            fill.most = fill.most.saturating_add(bytes);
        }
    }

    fn has_taker(&self, giver: &Pool) -> bool {
        self.pools.iter().any(|taker| self.may_move(giver, taker))
    }

    /// Returns whether replicas should move from one pool to another: from above the mean to below,
    /// if one of them is off by more than the limit.
    fn may_move(&self, giver: &Pool, taker: &Pool) -> bool {
        let points = |bytes: f64, pool: &Pool| 100.0 * bytes / pool.capacity;
        let high = points(self.mean.surplus(giver), giver);
        let low = points(self.mean.deficit(taker), taker);
        high > 0.0 && low > 0.0 && (high > self.limit || low > self.limit) && taker.may_take
    }
}

fn compare(a: &Pool, b: &Pool) -> Ordering {
    (a.used() / a.capacity).total_cmp(&(b.used() / b.capacity))
}

/// Groups nodes that are connected by contended file systems.
fn groups(fills: &BTreeMap<NodeId, Fill>) -> Vec<Vec<NodeId>> {
    let mut groups: Vec<(Vec<NodeId>, BTreeSet<FileSystemId>)> = Vec::new();
    for (node, fill) in fills {
        let is_connected = |on: &BTreeSet<FileSystemId>| !on.is_disjoint(&fill.contended);
        let (connected, apart): (Vec<_>, Vec<_>) =
            groups.into_iter().partition(|(_, on)| is_connected(on));
        let mut nodes = vec![*node];
        let mut on = fill.contended.clone();
        for (others, theirs) in connected {
            nodes.extend(others);
            on.extend(theirs);
        }
        groups = apart;
        groups.push((nodes, on));
    }
    groups.into_iter().map(|(nodes, _)| nodes).collect()
}

#[cfg(test)]
mod tests;
