//! Disks that missed a registration of their node.
//!
//! Such a disk may lack replicas that records name, and hold others that were deleted since. Its
//! replicas count as suspect, and it takes no new ones, until a whole cycle has compared it.

use std::collections::BTreeSet;

use dfs_types::{DiskId, DiskState, NodeId};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Reconcile, calls};

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
