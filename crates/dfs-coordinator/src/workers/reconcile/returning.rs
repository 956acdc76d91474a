//! Disks that missed a registration of their node.
//!
//! Such a disk may lack replicas that records name, and hold others that were deleted since. Its
//! replicas count as suspect, and it takes no new ones, until a whole cycle has compared it.

use std::collections::{BTreeMap, BTreeSet};

use dfs_types::{DiskId, DiskState, NodeId};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Reconcile, calls};

/// Disks that were returning when a recent cycle began, and when they may begin another one. Their
/// nodes may be silent meanwhile, and come back.
#[derive(Debug, Default)]
pub(super) struct Tried(BTreeMap<(NodeId, DiskId), Instant>);

impl Tried {
    /// Adds disks that begin no cycle until then.
    pub(super) fn add(&mut self, disks: BTreeSet<(NodeId, DiskId)>, until: Instant) {
        self.0.extend(disks.into_iter().map(|disk| (disk, until)));
    }

    /// Returns whether any of these disks may begin a cycle.
    pub(super) fn lack_any(&mut self, disks: &BTreeSet<(NodeId, DiskId)>, now: Instant) -> bool {
        self.0.retain(|_, until| *until > now);
        disks.iter().any(|disk| !self.0.contains_key(disk))
    }
}

impl Reconcile {
    /// Returns the disks that are returning on nodes that respond.
    pub(super) fn returning(&self, now: Instant) -> BTreeSet<(NodeId, DiskId)> {
        let registry = self.core.registry();
        let responsive = registry.responsive(now);
        let views = registry.views(now).into_iter().filter(|view| responsive.contains(&view.node));
        let disks = views.flat_map(|view| {
            let returning =
                view.disks.into_iter().filter(|disk| disk.state == DiskState::Returning);
            returning.map(move |disk| (view.node, disk.disk)).collect::<Vec<_>>()
        });
        disks.collect()
    }

    /// Returns disks to full service that were compared. One that cannot take its registration is
    /// compared again.
    pub(super) async fn settle_returning(&self, compared: &BTreeSet<(NodeId, DiskId)>) {
        for (node, disk) in compared.intersection(&self.returning(Instant::now())) {
            match calls::settle_disk(&self.core, &self.lease, *node, *disk).await {
                Ok(()) => info!(%node, %disk, "a disk that had missed a registration is back"),
                Err(failure) => {
                    warn!(%node, %disk, %failure, "a returning disk could not be settled");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn returning_disk_whose_node_flaps_does_not_begin_cycles_back_to_back() {
        let now = Instant::now();
        let returning = BTreeSet::from([(NodeId(1), DiskId(1))]);
        let mut tried = Tried::default();
        assert!(tried.lack_any(&returning, now));
        tried.add(returning.clone(), now + Duration::from_secs(10));
        // Its node is silent, and comes back.
        for second in 0..5 {
            let now = now + Duration::from_secs(2 * second);
            assert!(!tried.lack_any(&BTreeSet::new(), now));
            assert!(!tried.lack_any(&returning, now));
        }
        let another = BTreeSet::from([(NodeId(1), DiskId(1)), (NodeId(2), DiskId(1))]);
        assert!(tried.lack_any(&another, now));
        assert!(tried.lack_any(&returning, now + Duration::from_secs(10)));
    }
}
