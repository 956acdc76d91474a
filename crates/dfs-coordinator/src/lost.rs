//! Which recorded replicas count for nothing. Pure.

use std::collections::{BTreeMap, BTreeSet};

use dfs_metadata::namespace::Replica;
use dfs_types::{DiskId, NodeId};

/// What is lost, as far as this coordinator can tell: nodes that are silent for too long or
/// removed, and disks that a node which does answer has no longer, or not in working order.
///
/// Of a node that was not heard yet nothing is known, so its replicas count: "don't know" is never
/// "gone".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    nodes: BTreeSet<NodeId>,
    /// The disks in working order of each node that was heard.
    working: BTreeMap<NodeId, BTreeSet<DiskId>>,
}

impl Lost {
    /// Nodes whose replicas are all lost.
    pub(crate) fn nodes(&self) -> &BTreeSet<NodeId> {
        &self.nodes
    }

    pub(crate) fn add_node(&mut self, node: NodeId) {
        self.nodes.insert(node);
    }

    /// The node answers, and these are its disks in working order.
    pub(crate) fn add_working(&mut self, node: NodeId, disks: impl IntoIterator<Item = DiskId>) {
        self.working.insert(node, disks.into_iter().collect());
    }

    /// Whether a replica is lost.
    pub(crate) fn has(&self, replica: &Replica) -> bool {
        let is_gone = |disks: &BTreeSet<DiskId>| !disks.contains(&replica.disk);
        self.nodes.contains(&replica.node) || self.working.get(&replica.node).is_some_and(is_gone)
    }
}

#[cfg(test)]
mod tests {
    use dfs_types::Stamp;

    use super::*;

    #[test]
    fn a_replica_is_lost_with_its_node_or_its_disk_and_never_for_lack_of_news() {
        let replica = |node, disk| Replica {
            node: NodeId(node),
            disk: DiskId(disk),
            stamp: Stamp(1),
            is_bad: false,
        };
        let mut lost = Lost::default();
        lost.add_node(NodeId(1));
        lost.add_working(NodeId(2), [DiskId(20), DiskId(21)]);
        for (node, disk, is_lost) in [
            (1, 10, true),
            (2, 20, false),
            (2, 21, false),
            // Failed, or replaced by another.
            (2, 22, true),
            (3, 30, false),
        ] {
            assert_eq!(lost.has(&replica(node, disk)), is_lost, "disk {disk} of node {node}");
        }
    }
}
