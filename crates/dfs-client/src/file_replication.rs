//! Whether the chunks of a file have the replicas that it wants.

use dfs_types::{ReplicaHealth, Target};

use crate::layout::{Extent, Layout};
use crate::{Client, Error};

/// Replicas of the chunks of a file, as recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileReplication {
    /// Replicas wanted of each chunk.
    pub wanted: u32,
    /// Chunks of the file.
    pub chunks: u64,
    /// Those of them that do not have exactly the replicas wanted, all of them sound: some are to be
    /// built, or to be dropped. A replica on a node that is silent for less than the grace period is
    /// sound.
    pub unsettled: u64,
}

impl Client {
    /// Returns whether the chunks of a file have the replicas that it wants. No datanode is asked.
    pub async fn file_replication(
        &self,
        target: impl Into<Target>,
    ) -> Result<FileReplication, Error> {
        let target = target.into();
        self.with_request_id(async {
            let mut layout = Layout::open(self, &target, 0, None).await?;
            let wanted = layout.stat.replication_factor;
            let mut found = FileReplication { wanted, ..FileReplication::default() };
            while let Some(extent) = layout.next(self).await? {
                found.chunks += 1;
                found.unsettled += u64::from(!is_settled(&extent, wanted));
            }
            Ok(found)
        })
        .await
    }
}

fn is_settled(extent: &Extent, wanted: u32) -> bool {
    let staying = || extent.replicas.iter().filter(|it| it.health != ReplicaHealth::Doomed);
    u32::from(extent.redundancy.target()) == wanted
        && staying().count() == wanted as usize
        && staying().all(|replica| replica.health.is_durable())
}
