//! What follows from the findings of one disk.

use dfs_metadata::namespace::{Chunk, Evidence, Marked};
use dfs_types::{NodeId, ReplicaCondition, ReplicaVerdict, Scope};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::time::Instant;
use tracing::debug;

use super::Reconcile;
use super::calls::Range;
use super::compare::{Findings, Found, Target};
use super::unneeded::KnownUnneeded;
use super::window::damage;
use crate::Error;
use crate::checks::{CheckReport, DamagedChunk};
use crate::metrics::Reconciled;
use crate::workers::WORKER_LEASE;

/// Records changed concurrently.
const RECORDS_AT_ONCE: usize = 16;

impl Reconcile {
    /// Settles the findings of a part of a disk, and counts them.
    pub(super) async fn settle(
        &self,
        target: &Target,
        findings: Findings,
        (part, known): (Range, &KnownUnneeded),
        report: &mut CheckReport,
    ) -> Result<(), Error> {
        let Findings { verdict, gone, back, orphans, adoptable, surplus } = findings;
        report.gone += gone.len() as u64;
        report.back += back.len() as u64;
        self.core.counts.reconciled(Reconciled::Gone, gone.len() as u64);
        self.core.counts.reconciled(Reconciled::Back, back.len() as u64);
        let absent = |_: &Found| ReplicaCondition::Gone;
        self.mark(target, verdict, gone, absent, report).await?;
        let mark = |found: &Found| match found.listed {
            Some(listed) if listed.is_set_aside => ReplicaCondition::Bad,
            _ => ReplicaCondition::Sound,
        };
        self.mark(target, verdict, back, mark, report).await?;
        self.adopt(target, adoptable, report).await?;
        self.collect(target, (part, known), (orphans, surplus), report).await
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
                debug!(%chunk, %node, %disk, %condition, "a replica is not as recorded");
                (chunk, self.mark_one(node, verdict).await)
            }
            .boxed()
        });
        let marks: Vec<BoxFuture<'_, _>> = marks.collect();
        let cluster = self.core.registry().cluster(Instant::now());
        let mut marked = stream::iter(marks).buffer_unordered(RECORDS_AT_ONCE);
        while let Some((chunk, record)) = marked.next().await {
            if let Some(record) = record? {
                // Another replica, unnamed and not needed until now, may have been found before:
                // the next comparison adopts it.
                let damage = damage(&record, &cluster);
                let damage = damage.map(|damage| DamagedChunk { is_lost: false, ..damage });
                report.set_damage(chunk, damage);
            }
        }
        Ok(())
    }

    /// Records a verdict on a replica of a node.
    pub(super) async fn mark_one(
        &self,
        node: NodeId,
        verdict: ReplicaVerdict,
    ) -> Result<Option<Chunk>, Error> {
        let fence = self.lease.fence(WORKER_LEASE);
        // The list was made on the order of this coordinator.
        let (namespace, evidence) = (&self.core.namespace, Evidence::ReadAgain);
        let marked =
            namespace.mark_replica(Scope::internal(), node, verdict, evidence, Some(&fence)).await;
        match marked {
            Ok(Marked::Recorded { record, .. } | Marked::Known { record, .. }) => Ok(Some(record)),
            Ok(Marked::Unnamed | Marked::NotProven(_)) => Ok(None),
            // One unreadable record, which status names, does not stop the comparison.
            Err(dfs_metadata::Error::Damaged { .. } | dfs_metadata::Error::NewerRecord { .. }) => {
                Ok(None)
            }
            Err(error) => Err(Error::metadata("recording a verdict on a replica")(error)),
        }
    }
}
