//! What follows from the findings of one disk.

use dfs_metadata::namespace::{Chunk, ReplicaMark, Verdict};
use dfs_types::{NodeId, Scope};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::time::Instant;
use tracing::info;

use super::Reconcile;
use super::compare::{Findings, Found, Target};
use super::window::damage;
use crate::Error;
use crate::checks::CheckReport;
use crate::workers::WORKER_LEASE;

/// Records changed concurrently.
const RECORDS_AT_ONCE: usize = 16;

impl Reconcile {
    /// Settles the findings of a disk, and counts them.
    pub(super) async fn settle(
        &self,
        target: &Target,
        findings: Findings,
        report: &mut CheckReport,
    ) -> Result<(), Error> {
        let Findings { gone, back, orphans, surplus, .. } = findings;
        report.gone += gone.len() as u64;
        report.back += back.len() as u64;
        report.surplus += surplus.len() as u64;
        report.orphans += orphans.len() as u64;
        report.orphan_bytes += orphans.iter().map(Found::bytes).sum::<u64>();
        self.mark(target, gone, |_| ReplicaMark::Gone, report).await?;
        let mark = |found: &Found| match found.listed {
            Some(listed) if listed.listed.is_set_aside => ReplicaMark::Bad,
            _ => ReplicaMark::Sound,
        };
        self.mark(target, back, mark, report).await
    }

    /// Records verdicts on replicas.
    async fn mark(
        &self,
        target: &Target,
        found: Vec<Found>,
        mark: impl Fn(&Found) -> ReplicaMark,
        report: &mut CheckReport,
    ) -> Result<(), Error> {
        let (node, disk) = (target.node, target.disk);
        let marks = found.into_iter().map(|found| {
            let mark = mark(&found);
            async move {
                let chunk = found.replica.chunk;
                info!(%chunk, %node, %disk, ?mark, "a replica is not as recorded");
                (chunk, self.mark_one(node, &found, mark).await)
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
        found: &Found,
        mark: ReplicaMark,
    ) -> Result<Option<Chunk>, Error> {
        let fence = self.lease.fence(WORKER_LEASE);
        let verdict = Verdict { mark, number: None };
        let namespace = &self.core.namespace;
        let marked = namespace
            .mark_replica(Scope::internal(), node, found.replica, verdict, Some(&fence))
            .await;
        marked.map_err(Error::metadata("recording a verdict on a replica"))
    }
}
