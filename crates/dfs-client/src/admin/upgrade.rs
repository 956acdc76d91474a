//! The write level of a cluster.

use dfs_proto::v1;
use dfs_proto::wire::WireId as _;
use dfs_types::{ClusterId, Level};

use super::Admin;
use crate::Error;

/// How far a cluster is with its write level.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UpgradeStatus {
    /// The level that is written.
    pub written: Level,
    /// The level that a member needs to join; above `written` while the level is being raised.
    pub least: Level,
    /// The level that was asked for, at least `written`.
    pub wanted: Level,
    /// The newest level that the release of the answering coordinator reads.
    pub newest: Level,
    /// Members that kept the wanted level from being raised, at most ten.
    pub blocked_by: Vec<String>,
}

impl UpgradeStatus {
    /// Whether nothing that was asked for is still to be done.
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
    /// Returns how far the cluster is with its write level.
    pub async fn upgrade_status(&self) -> Result<UpgradeStatus, Error> {
        let request = v1::UpgradeStatusRequest {};
        let reply = self.call("status of the upgrade", request, |mut admin, request| async move {
            admin.upgrade_status(request).await
        });
        Ok(UpgradeStatus::from_wire(reply.await?))
    }

    /// Asks for the newest write level that the coordinator's release reads, after which no older
    /// release can join. Returns at once: [`Admin::upgrade_status`] shows when the level is raised,
    /// or who runs an older release.
    pub async fn finalize_upgrade(&self, cluster: ClusterId) -> Result<UpgradeStatus, Error> {
        let request = v1::FinalizeUpgradeRequest { cluster_id: cluster.to_wire() };
        let reply = self.call("finalize the upgrade", request, |mut admin, request| async move {
            admin.finalize_upgrade(request).await
        });
        Ok(UpgradeStatus::from_wire(reply.await?))
    }
}
