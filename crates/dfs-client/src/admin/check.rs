//! Comparison of what the disks hold with the records.

use dfs_proto::v1;
use dfs_proto::wire::{self, FieldError, WireId as _};
use dfs_types::{ChunkId, ClusterId, InodeId};

use super::Admin;
use crate::Error;

/// Progress of a comparison. The counts cover what has been found so far.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplicaCheck {
    /// Names the comparison in [`Admin::replica_check`].
    pub id: u64,
    /// True at its end.
    pub is_done: bool,
    /// Chunk records read.
    pub records: u64,
    /// Ranges of disks that could not be compared, as their nodes did not reply or they were not in
    /// service.
    pub skipped: u64,
    /// Replicas that records named and disks do not hold. They are recorded as gone.
    pub gone: u64,
    /// Replicas recorded as gone that disks hold again.
    pub back: u64,
    /// Replicas without a record.
    pub orphans: u64,
    /// Bytes of those.
    pub orphan_bytes: u64,
    /// Orphans that were deleted, after two proofs.
    pub deleted_orphans: u64,
    /// Replicas that the records of their chunks do not name, and that their chunks do not lack.
    pub surplus: u64,
    /// Those of them that were deleted, after two proofs and once another replica had been read.
    pub deleted_surplus: u64,
    /// Replicas that their chunks lacked, and that are now named by their records.
    pub adopted: u64,
    /// Chunks without a reachable replica.
    pub missing_chunks: u64,
    /// Chunks with bad or too few replicas.
    pub degraded_chunks: u64,
    /// Some of these chunks; empty before the end.
    pub damaged: Vec<DamagedChunk>,
}

/// A chunk that is missing or degraded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DamagedChunk {
    /// The chunk.
    pub chunk: ChunkId,
    /// The file whose upload wrote it.
    pub inode: InodeId,
    /// True if no replica can be reached.
    pub is_missing: bool,
    /// True if moreover no disk holds one, in service or not: all of them had been recorded as gone
    /// by an earlier comparison.
    pub is_lost: bool,
}

impl ReplicaCheck {
    fn from_wire(found: &v1::CheckReplicasResponse) -> Result<Self, FieldError> {
        let damaged = found.damaged.iter().map(|damaged| {
            Ok(DamagedChunk {
                chunk: wire::id("damaged.chunk_id", &damaged.chunk_id)?,
                inode: wire::inode("damaged.inode", damaged.inode)?,
                is_missing: damaged.is_missing,
                is_lost: damaged.is_lost,
            })
        });
        Ok(Self {
            id: found.check,
            is_done: found.is_done,
            records: found.records,
            skipped: found.skipped,
            gone: found.gone,
            back: found.back,
            orphans: found.orphans,
            orphan_bytes: found.orphan_bytes,
            deleted_orphans: found.deleted_orphans,
            surplus: found.surplus,
            deleted_surplus: found.deleted_surplus,
            adopted: found.adopted,
            missing_chunks: found.missing_chunks,
            degraded_chunks: found.degraded_chunks,
            damaged: damaged.collect::<Result<_, _>>()?,
        })
    }
}

impl Admin {
    /// Begins to compare what the disks hold with the records. Whatever the disks hold when this
    /// call is made is taken into account.
    pub async fn check_replicas(&self, cluster: ClusterId) -> Result<ReplicaCheck, Error> {
        self.replica_check(cluster, 0).await
    }

    /// Returns the progress of a comparison. `STALE` if it is not known any more, since another
    /// coordinator has taken over the background work: begin another one.
    pub async fn replica_check(&self, cluster: ClusterId, id: u64) -> Result<ReplicaCheck, Error> {
        let cluster_id = cluster.to_wire();
        let request = v1::CheckReplicasRequest { cluster_id, check: id, order: None };
        let context = "check of the replicas";
        let reply = self.call(context, request, |mut admin, request| async move {
            admin.check_replicas(request).await
        });
        ReplicaCheck::from_wire(&reply.await?).map_err(|error| Error::wire(context, &error))
    }
}
