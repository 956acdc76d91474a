//! Permission to delete.

use dfs_proto::v1;
use dfs_proto::wire::WireId as _;
use dfs_types::{ClusterId, Incarnation};

use super::Admin;
use crate::Error;

/// Permission to delete, and what waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GcStatus {
    /// Incarnation of the metadata; raised when it is restored or migrated.
    pub incarnation: Incarnation,
    /// Incarnation for which deletion was acknowledged last.
    pub acknowledged: Incarnation,
    /// Evidence that commits of the metadata were lost, for which deletion is on hold.
    pub hold: Option<GcHold>,
    /// Replicas recorded as waiting for deletion.
    pub doomed: u64,
    /// Bytes of those.
    pub doomed_bytes: u64,
}

/// Evidence that commits of the metadata were lost.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GcHold {
    /// Distinguishes it from other evidence.
    pub number: u64,
    /// What was found.
    pub reason: String,
}

impl GcStatus {
    /// Returns whether anything may be deleted.
    pub fn may_delete(&self) -> bool {
        self.acknowledged >= self.incarnation && self.hold.is_none()
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
            hold: (found.hold != 0)
                .then_some(GcHold { number: found.hold, reason: found.hold_reason }),
            doomed: found.doomed,
            doomed_bytes: found.doomed_bytes,
        })
    }

    /// Permits deletion, as decided on the basis of `seen`. Fails if the incarnation or the evidence
    /// of lost commits is another one now.
    pub async fn acknowledge_gc(&self, cluster: ClusterId, seen: &GcStatus) -> Result<(), Error> {
        let request = v1::AcknowledgeGcRequest {
            cluster_id: cluster.to_wire(),
            incarnation: seen.incarnation.0,
            hold: seen.hold.as_ref().map_or(0, |hold| hold.number),
        };
        let reply = self.call("acknowledge deletion", request, |mut admin, request| async move {
            admin.acknowledge_gc(request).await
        });
        reply.await.map(drop)
    }
}
