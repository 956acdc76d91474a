//! Disks that missed a registration of their node.

use std::time::Duration;

use dfs_types::{ChunkId, DiskId, DiskState, NodeId};
use tokio::time::Instant;
use tracing::{info, warn};

use super::Reconcile;
use super::calls::{self, Range};

/// Pause after disks could not be settled.
const RETRY_AFTER: Duration = Duration::from_secs(10);

impl Reconcile {
    /// Returns disks to full service, once their node has read all that is on them. A comparison
    /// follows, which finds lost and orphaned replicas.
    pub(super) async fn settle_returning(&mut self, now: Instant) {
        if now < self.returning_due {
            return;
        }
        for (node, disk) in self.returning(now) {
            let range = Range { from: ChunkId::MIN, to: None };
            let read = calls::inventory(&self.core, &self.lease, node, 0, range).await;
            let settled = match read {
                Ok(disks) if disks.contains_key(&disk) => {
                    calls::settle_disk(&self.core, &self.lease, node, disk).await
                }
                Ok(_) => continue,
                Err(failure) => Err(failure),
            };
            match settled {
                Ok(()) => {
                    info!(%node, %disk, "a disk that had missed a registration is back");
                    self.registered = Some(now);
                }
                Err(failure) => {
                    warn!(%node, %disk, %failure, "a returning disk could not be settled");
                    self.returning_due = now + RETRY_AFTER;
                }
            }
        }
    }

    fn returning(&self, now: Instant) -> Vec<(NodeId, DiskId)> {
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
}
