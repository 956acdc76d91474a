//! What follows from the findings of one disk.

use std::collections::BTreeSet;

use dfs_metadata::namespace::{Chunk, Evidence, Marked};
use dfs_types::{NodeId, ReplicaCondition, ReplicaRef, ReplicaVerdict, Scope};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::time::Instant;
use tracing::{info, warn};

use super::Reconcile;
use super::compare::{Findings, Found, Target};
use super::window::damage;
use crate::Error;
use crate::checks::CheckReport;
use crate::workers::{WORKER_LEASE, orders};

/// Replicas per order to delete.
const DELETED_AT_ONCE: usize = 1_000;
/// Records changed concurrently.
const RECORDS_AT_ONCE: usize = 16;

impl Reconcile {
    /// Settles the findings of a disk, and counts them.
    pub(super) async fn settle(
        &self,
        target: &Target,
        findings: Findings,
        cycle: u64,
        report: &mut CheckReport,
    ) -> Result<(), Error> {
        let Findings { verdict, gone, back, orphans, surplus, .. } = findings;
        report.gone += gone.len() as u64;
        report.back += back.len() as u64;
        report.surplus += surplus.len() as u64;
        report.orphans += orphans.len() as u64;
        report.orphan_bytes += orphans.iter().map(Found::bytes).sum::<u64>();
        self.collect(target, &orphans, cycle, report).await?;
        let absent = |_: &Found| ReplicaCondition::Gone;
        self.mark(target, verdict, gone, absent, report).await?;
        let mark = |found: &Found| match found.listed {
            Some(listed) if listed.listed.is_set_aside => ReplicaCondition::Bad,
            _ => ReplicaCondition::Sound,
        };
        self.mark(target, verdict, back, mark, report).await
    }

    /// Deletes the orphans that were proven before, long enough ago. All of them were proven again
    /// just now; the commit that authorises the deletion follows the proofs.
    async fn collect(
        &self,
        target: &Target,
        found: &[Found],
        cycle: u64,
        report: &mut CheckReport,
    ) -> Result<(), Error> {
        let (node, namespace) = (target.node, &self.core.namespace);
        let age = self.core.settings.orphan_age();
        let ripe: Vec<ReplicaRef> = {
            let (mut orphans, now) = (crate::lock(&self.orphans), Instant::now());
            let replicas = found.iter().map(|found| found.replica);
            replicas.filter(|it| orphans.prove(node, *it, cycle, (age, now))).collect()
        };
        let may_delete = namespace.may_delete().await;
        if ripe.is_empty()
            || !may_delete.map_err(Error::metadata("reading whether anything may be deleted"))?
        {
            return Ok(());
        }
        let fence = self.lease.fence(WORKER_LEASE);
        let authorised = namespace.authorise_deletion(Scope::internal(), Some(&fence)).await;
        authorised.map_err(Error::metadata("authorising the deletion of orphans"))?;
        for batch in ripe.chunks(DELETED_AT_ONCE) {
            let failed = match orders::delete(&self.core, &self.lease, node, batch).await {
                Ok(failed) => failed,
                Err(failure) => {
                    warn!(%node, %failure, replicas = batch.len(), "orphans were not deleted");
                    self.handle.add_failed(1);
                    return Ok(());
                }
            };
            let failed: BTreeSet<ReplicaRef> = failed.iter().map(|it| it.replica).collect();
            let mut orphans = crate::lock(&self.orphans);
            for replica in batch.iter().filter(|replica| !failed.contains(replica)) {
                orphans.remove(node, *replica);
                report.deleted_orphans += 1;
            }
        }
        info!(%node, disk = %target.disk, orphans = ripe.len(), "deleted replicas of no file");
        Ok(())
    }

    /// Records verdicts on replicas.
    async fn mark(
        &self,
        target: &Target,
        number: u64,
        found: Vec<Found>,
        condition: impl Fn(&Found) -> ReplicaCondition,
        report: &mut CheckReport,
    ) -> Result<(), Error> {
        let (node, disk) = (target.node, target.disk);
        let marks = found.into_iter().map(|found| {
            let condition = condition(&found);
            let verdict = ReplicaVerdict { replica: found.replica, number, condition, block: 0 };
            async move {
                let chunk = found.replica.chunk;
                info!(%chunk, %node, %disk, %condition, "a replica is not as recorded");
                (chunk, self.mark_one(node, verdict).await)
            }
            .boxed()
        });
        let marks: Vec<BoxFuture<'_, _>> = marks.collect();
        let cluster = self.core.registry().cluster(Instant::now());
        let mut marked = stream::iter(marks).buffer_unordered(RECORDS_AT_ONCE);
        while let Some((chunk, record)) = marked.next().await {
            if let Some(record) = record? {
                report.set_damage(chunk, damage(&record, &cluster));
            }
        }
        Ok(())
    }

    async fn mark_one(
        &self,
        node: NodeId,
        verdict: ReplicaVerdict,
    ) -> Result<Option<Chunk>, Error> {
        let fence = self.lease.fence(WORKER_LEASE);
        // The list was made on the order of this coordinator.
        let (namespace, evidence) = (&self.core.namespace, Evidence::ReadAgain);
        let marked =
            namespace.mark_replica(Scope::internal(), node, verdict, evidence, Some(&fence)).await;
        match marked.map_err(Error::metadata("recording a verdict on a replica"))? {
            Marked::Recorded(record) => Ok(Some(record)),
            Marked::Unnamed | Marked::NotProven(_) => Ok(None),
        }
    }
}
