//! The write level of a cluster.

use dfs_proto::v1;
use dfs_proto::wire::WireId as _;
use dfs_types::{ClusterId, Level};

use super::Admin;
use crate::Error;

/// Progress of raising the write level of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UpgradeStatus {
    /// Level being written.
    pub written: Level,
    /// Lowest level that a member must support to join; above `written` while the level is being
    /// raised.
    pub least: Level,
    /// Requested level, at least `written`.
    pub wanted: Level,
    /// Newest level that the release of the replying coordinator reads.
    pub newest: Level,
    /// Members that prevented the requested level from being reached, at most ten.
    pub blocked_by: Vec<String>,
}

impl UpgradeStatus {
    /// Creates the status of a cluster that writes a level, and of which no newer one is known.
    pub fn new(level: Level) -> Self {
        let (written, least, wanted, newest) = (level, level, level, level);
        Self { written, least, wanted, newest, blocked_by: Vec::new() }
    }

    /// Returns true when no requested raise is outstanding.
    pub fn is_final(&self) -> bool {
        self.written == self.wanted
    }

    fn from_wire(reply: v1::UpgradeStatusResponse) -> Self {
        Self {
            written: Level(reply.written),
            least: Level(reply.least),
            wanted: Level(reply.wanted),
            newest: Level(reply.newest),
            blocked_by: reply.blocked_by,
        }
    }
}

impl Admin {
    /// Returns the progress of the write level.
    pub async fn upgrade_status(&self) -> Result<UpgradeStatus, Error> {
        let request = v1::UpgradeStatusRequest {};
        let reply = self.call("status of the upgrade", request, |mut admin, request| async move {
            admin.upgrade_status(request).await
        });
        Ok(UpgradeStatus::from_wire(reply.await?))
    }

    /// Requests the newest write level that the coordinator's release reads, after which no older
    /// release can join. Returns at once: [`Admin::upgrade_status`] shows when the level has been
    /// raised, or which members run an older release.
    pub async fn finalize_upgrade(&self, cluster: ClusterId) -> Result<UpgradeStatus, Error> {
        let request = v1::FinalizeUpgradeRequest { cluster_id: cluster.to_wire() };
        let reply = self.call("finalize the upgrade", request, |mut admin, request| async move {
            admin.finalize_upgrade(request).await
        });
        Ok(UpgradeStatus::from_wire(reply.await?))
    }
}
