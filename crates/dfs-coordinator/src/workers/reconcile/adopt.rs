//! Replicas that their chunks lack, and that no record names: left by a build or an upload whose
//! commit was lost.
//!
//! The node makes such a replica durable under a new stamp and reads all of it; a commit then names
//! it. Whatever happens in between leaves a replica that no record names, which the next comparison
//! finds. Orders to delete it under its old stamp may be late, but no longer apply to it.

use dfs_metadata::chunk_health::judge;
use dfs_metadata::namespace::Chunk;
use dfs_types::{ChunkId, ReplicaRef, Scope};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::time::Instant;
use tracing::warn;

use super::compare::{Adoptable, Target};
use super::window::damage;
use super::{Reconcile, calls};
use crate::Error;
use crate::checks::CheckReport;
use crate::metrics::Reconciled;
use crate::workers::WORKER_LEASE;
use crate::workers::repair::is_overtaken;

/// Replicas of a disk that are verified concurrently.
const AT_ONCE: usize = 2;
/// Attempts to record a verified replica while its record changes.
const COMMIT_TRIES: usize = 4;

impl Reconcile {
    /// Adopts replicas of a disk. One that cannot be adopted is found again by the next comparison.
    pub(super) async fn adopt(
        &self,
        target: &Target,
        found: Vec<Adoptable>,
        report: &mut CheckReport,
    ) -> Result<(), Error> {
        let adoptions = found.into_iter().map(|Adoptable { replica, record }| {
            async move {
                let adopted = self.adopt_one(target, replica, record).await;
                (replica.chunk, adopted)
            }
            .boxed()
        });
        let adoptions: Vec<BoxFuture<'_, _>> = adoptions.collect();
        let mut adoptions = stream::iter(adoptions).buffer_unordered(AT_ONCE);
        while let Some((chunk, adopted)) = adoptions.next().await {
            let Some(record) = adopted? else {
                // The disk may hold what the chunk lacks.
                report.skipped += 1;
                continue;
            };
            let cluster = self.core.registry().cluster(Instant::now());
            report.adopted += 1;
            self.core.counts.reconciled(Reconciled::Adopted, 1);
            report.set_damage(chunk, damage(&record, &cluster));
        }
        Ok(())
    }

    /// Returns the record that names the replica; `None` if it was not adopted.
    async fn adopt_one(
        &self,
        target: &Target,
        replica: ReplicaRef,
        mut record: Chunk,
    ) -> Result<Option<Chunk>, Error> {
        let (node, chunk) = (target.node, replica.chunk);
        // Another cycle adopts it, if it is still missing then.
        let Some(_claim) = self.core.background.claim(chunk) else { return Ok(None) };
        let receipts = match calls::adopt(&self.core, &self.lease, node, replica, &record).await {
            Ok(receipt) => [receipt],
            Err(failure) => {
                warn!(%chunk, %node, disk = %target.disk, %failure, "a replica was not adopted");
                self.handle.add_failed(1);
                return Ok(None);
            }
        };
        let (scope, fence) = (Scope::internal(), self.lease.fence(WORKER_LEASE));
        let namespace = &self.core.namespace;
        for _ in 0..COMMIT_TRIES {
            let generation = record.generation;
            let swapped =
                namespace.swap_replicas(scope, chunk, generation, &receipts, None, Some(&fence));
            match swapped.await {
                Ok(record) => return Ok(Some(record)),
                Err(error) if is_overtaken(&error) => {}
                Err(error @ dfs_metadata::Error::BadReceipt { .. }) => {
                    warn!(%chunk, %node, %error, "a replica was verified that cannot be counted");
                    return Ok(None);
                }
                Err(error) => return Err(Error::metadata("recording an adopted replica")(error)),
            }
            // Changed meanwhile, for example by the verdict on the replica that this one replaces.
            match self.lacking(chunk).await? {
                Some(changed) => record = changed,
                None => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Reads the record of a chunk; `None` if it does not lack replicas any more.
    async fn lacking(&self, chunk: ChunkId) -> Result<Option<Chunk>, Error> {
        let read = self.core.namespace.readable_chunks(Scope::internal(), &[chunk]).await;
        let mut read = read.map_err(Error::metadata("reading chunk records"))?;
        let record = read.pop().and_then(Result::ok).flatten();
        let cluster = self.core.registry().cluster(Instant::now());
        Ok(record.filter(|it| !it.is_tombstone() && judge(it, &cluster).lacks() > 0))
    }
}
