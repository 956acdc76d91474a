//! Permission to delete.

use dfs_proto::v1;
use dfs_proto::wire::{self, FieldError, WireId as _};
use dfs_types::{ChunkId, ClusterId, Incarnation, NodeId, Timestamp};

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
    /// Replicas that no record needs, at most 100,000.
    pub unneeded: u64,
    /// Bytes of those.
    pub unneeded_bytes: u64,
    /// The first of them, in chunk order.
    pub replicas: Vec<UnneededReplica>,
}

/// A replica that no record needs, to be deleted once that is proven again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnneededReplica {
    /// The chunk.
    pub chunk: ChunkId,
    /// The node; `None` if it is not known any more.
    pub node: Option<NodeId>,
    /// Length in bytes.
    pub bytes: u64,
    /// When it was first proven to be unneeded.
    pub since: Timestamp,
    /// Path for which it was written; `None` if its node did not tell in time.
    pub path: Option<Vec<u8>>,
}

impl UnneededReplica {
    fn from_wire(found: &v1::UnneededReplica) -> Result<Self, FieldError> {
        Ok(Self {
            chunk: wire::id("replicas.chunk_id", &found.chunk_id)?,
            node: wire::optional_id("replicas.node_id", &found.node_id)?,
            bytes: found.bytes,
            since: Timestamp::from_millis(found.since_ms),
            path: (!found.path.is_empty()).then(|| found.path.to_vec()),
        })
    }
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
    /// Creates the status of metadata for which deletion is permitted, with nothing to delete.
    pub fn new(incarnation: Incarnation) -> Self {
        Self {
            incarnation,
            acknowledged: incarnation,
            hold: None,
            doomed: 0,
            doomed_bytes: 0,
            unneeded: 0,
            unneeded_bytes: 0,
            replicas: Vec::new(),
        }
    }

    /// Returns whether anything may be deleted.
    pub fn may_delete(&self) -> bool {
        self.acknowledged >= self.incarnation && self.hold.is_none()
    }
}

impl Admin {
    /// Returns whether anything may be deleted, and what waits for deletion, with a list of `list`
    /// replicas that no record needs, at most 1,000.
    pub async fn gc_status(&self, list: u32) -> Result<GcStatus, Error> {
        let (context, request) = ("status of deletion", v1::GcStatusRequest { list });
        let reply = self.call(context, request, |mut admin, request| async move {
            admin.gc_status(request).await
        });
        let found = reply.await?;
        let replicas = found.replicas.iter().map(UnneededReplica::from_wire);
        let replicas = replicas.collect::<Result<_, _>>();
        Ok(GcStatus {
            incarnation: Incarnation(found.incarnation),
            acknowledged: Incarnation(found.acknowledged),
            hold: (found.hold != 0)
                .then_some(GcHold { number: found.hold, reason: found.hold_reason }),
            doomed: found.doomed,
            doomed_bytes: found.doomed_bytes,
            unneeded: found.unneeded,
            unneeded_bytes: found.unneeded_bytes,
            replicas: replicas.map_err(|error| Error::wire(context, &error))?,
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
