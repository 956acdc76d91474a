//! Permission to delete.

use dfs_proto::v1;
use dfs_proto::wire::WireId as _;
use dfs_types::{ClusterId, Incarnation};

use super::Admin;
use crate::Error;

/// Permission to delete, and what waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct GcStatus {
    /// Incarnation of the metadata; raised when it is restored or migrated.
    pub incarnation: Incarnation,
    /// Incarnation for which deletion was acknowledged last.
    pub acknowledged: Incarnation,
    /// Replicas recorded as waiting for deletion.
    pub doomed: u64,
    /// Bytes of those.
    pub doomed_bytes: u64,
}

impl GcStatus {
    /// Returns whether anything may be deleted.
    pub fn may_delete(&self) -> bool {
        self.acknowledged >= self.incarnation
    }
}

impl Admin {
    /// Returns whether anything may be deleted, and what waits for deletion.
    pub async fn gc_status(&self) -> Result<GcStatus, Error> {
        let request = v1::GcStatusRequest {};
        let reply = self.call("status of deletion", request, |mut admin, request| async move {
            admin.gc_status(request).await
        });
        let found = reply.await?;
        Ok(GcStatus {
            incarnation: Incarnation(found.incarnation),
            acknowledged: Incarnation(found.acknowledged),
            doomed: found.doomed,
            doomed_bytes: found.doomed_bytes,
        })
    }

    /// Permits deletion for an incarnation of the metadata, which must be the current one.
    pub async fn acknowledge_gc(
        &self,
        cluster: ClusterId,
        incarnation: Incarnation,
    ) -> Result<(), Error> {
        let cluster_id = cluster.to_wire();
        let request = v1::AcknowledgeGcRequest { cluster_id, incarnation: incarnation.0 };
        let reply = self.call("acknowledge deletion", request, |mut admin, request| async move {
            admin.acknowledge_gc(request).await
        });
        reply.await.map(drop)
    }
}
