//! Rebuilds replicas that were lost, found bad, or missing when their file was written.
//!
//! The new holder of the lease reads which records are not at rest (`w/r/`), and begins. What the
//! loss of nodes and disks requires is found by a scan over all chunks, which also counts them:
//! once the lease is taken, and whenever a disk is lost or returns. In between, the changes of the
//! metadata are followed, whichever coordinator makes them. While a disk is lost, repair waits for
//! the end of the scan: the chunks with the fewest replicas come first.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use dfs_metadata::chunk_health::{Cluster, LostDisks};
use dfs_metadata::engine::lease::LeaseGrant;
use dfs_metadata::namespace::{Chunk, ChunkChange, ChunkChanges, Namespace, ScanCursor};
use dfs_transport::in_request;
use dfs_types::{ChunkId, Generation, NodeId, RequestId, Revision, Scope, counted};
use dfs_workers::{Handle, Next, REPAIR, Spec, Worker};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

mod chunk;
pub(crate) mod queue;

pub(super) use self::chunk::is_overtaken;
use self::chunk::{ChunkRepair, RepairOutcome, RepairResult};
use crate::Error;
use crate::background::Health;
use crate::core::Core;
use crate::unreadable::UnreadableRecords;
use crate::workers::{RepairNeed, RepairQueue};

/// Maximum number of chunks queued for repair; another scan finds the rest.
const WAITING_MAX: usize = 100_000;
/// Maximum number of changes applied before any other step.
const CHANGES_AT_ONCE: usize = 4_096;
/// Pause of a chunk after a failed repair.
const REST: Duration = Duration::from_secs(2);
/// Pause of a chunk that no node can take or provide; ends early when a node becomes available.
const REST_WITHOUT_TARGET: Duration = Duration::from_mins(1);

/// The worker.
pub(crate) struct Repair {
    core: Arc<Core>,
    lease: LeaseGrant,
    handle: Arc<Handle>,
    queue: RepairQueue,
    scan: Scan,
    /// Changes of chunks, from before the scan on.
    changes: Option<ChunkChanges>,
    /// Revision up to which changes were applied.
    seen: Revision,
    /// Pages of the scan: the end and revision of each. The last one has no end.
    pages: Vec<(Option<ScanCursor>, Revision)>,
    /// Unreadable chunk records.
    unreadable: UnreadableRecords,
    /// The disks at the last check.
    cluster: Cluster,
    /// Disks among them whose replicas do not count.
    lost: LostDisks,
    /// Nodes that take chunks.
    takers: BTreeSet<NodeId>,
    jobs: FuturesUnordered<BoxFuture<'static, Job>>,
}

enum Scan {
    Needed,
    /// Over the records that are not at rest.
    Work(Option<ChunkId>),
    /// Over all chunks.
    After(Option<ScanCursor>),
    Done,
}

/// A finished repair.
struct Job {
    chunk: ChunkId,
    /// Need of the chunk before the repair.
    before: RepairNeed,
    result: Result<RepairResult, Error>,
}

impl Repair {
    pub(crate) fn new(core: Arc<Core>, lease: LeaseGrant, handle: Arc<Handle>) -> Self {
        Self {
            core,
            lease,
            handle,
            queue: RepairQueue::new(WAITING_MAX),
            scan: Scan::Needed,
            changes: None,
            seen: Revision::default(),
            pages: Vec::new(),
            unreadable: UnreadableRecords::default(),
            cluster: Cluster::default(),
            lost: LostDisks::default(),
            takers: BTreeSet::new(),
            jobs: FuturesUnordered::new(),
        }
    }

    /// Updates the lost disks and the nodes that take chunks, and begins a scan if needed.
    async fn refresh_disks(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        let (cluster, takers) = {
            let registry = self.core.registry();
            let views = registry.views(now);
            let takers = views.iter().filter(|view| view.takes_chunks());
            (registry.cluster(now), takers.map(|view| view.node).collect::<BTreeSet<_>>())
        };
        if !takers.is_subset(&self.takers) {
            self.queue.wake();
        }
        self.takers = takers;
        let lost = cluster.lost();
        self.cluster = cluster;
        let is_needed = matches!(self.scan, Scan::Needed);
        if is_needed || lost != self.lost || self.queue.wants_scan() {
            if lost != self.lost {
                let unknown = lost.and_unknown;
                info!(
                    lost = lost.known.len(),
                    unknown, "the set of lost disks has changed; scanning all chunks"
                );
            }
            self.lost = lost;
            self.core.background.set_health(None);
            self.core.background.take_reaped();
            let changes = self.core.namespace.chunk_changes(Scope::internal()).await;
            let changes = changes.map_err(Error::metadata("following the changes of chunks"))?;
            self.seen = changes.from();
            self.changes = Some(changes);
            self.queue.restart();
            self.pages.clear();
            self.unreadable = UnreadableRecords::default();
            self.scan = Scan::Work(None);
        }
        Ok(())
    }

    /// Loads the next records that are not at rest.
    async fn load_work(&mut self, after: Option<ChunkId>) -> Result<(), Error> {
        let limit = Namespace::PAGE_LEN_MAX;
        let page = self.core.namespace.chunks_to_repair(Scope::internal(), after, limit).await;
        let page = page.map_err(Error::metadata("reading which chunks need repair"))?;
        for (chunk, record) in page.chunks {
            self.queue.set(chunk, RepairNeed::of(&record, &self.cluster));
        }
        self.scan = page.next.map_or(Scan::After(None), |next| Scan::Work(Some(next)));
        Ok(())
    }

    /// Continues a scan. Returns whether one was in progress.
    async fn continue_scan(&mut self) -> Result<bool, Error> {
        match std::mem::replace(&mut self.scan, Scan::Needed) {
            Scan::Work(after) => {
                self.load_work(after).await?;
                Ok(true)
            }
            Scan::After(after) => {
                self.scan(after).await?;
                Ok(true)
            }
            scan => {
                self.scan = scan;
                Ok(false)
            }
        }
    }

    /// Loads the next chunks of the scan.
    async fn scan(&mut self, after: Option<ScanCursor>) -> Result<(), Error> {
        self.handle.set_detail("scanning all chunks");
        let limit = Namespace::PAGE_LEN_MAX;
        let page = self.core.namespace.scan_chunks(Scope::internal(), after.as_ref(), limit).await;
        let page = page.map_err(Error::metadata("scanning all chunks"))?;
        self.pages.push((page.next.clone(), page.revision));
        for (chunk, record) in page.chunks {
            self.queue.count(i64::from(!record.is_tombstone()));
            self.queue.set(chunk, RepairNeed::of(&record, &self.cluster));
        }
        for record in page.unreadable {
            warn!(
                key = record.key,
                why = record.why,
                "a chunk record is unreadable; it is skipped"
            );
            self.unreadable.add(record);
        }
        self.scan = page.next.map_or(Scan::Done, |next| Scan::After(Some(next)));
        Ok(())
    }

    /// Applies the changes of chunks.
    fn take_changes(&mut self) {
        self.queue.count(-(self.core.background.take_reaped() as i64));
        for _ in 0..CHANGES_AT_ONCE {
            let next = self.changes.as_mut().and_then(|changes| changes.next().now_or_never());
            match next {
                None => return,
                Some(Ok(change)) => self.follow(change),
                Some(Err(error)) => {
                    warn!(%error, "the changes of chunks cannot be followed; scanning all chunks");
                    self.scan = Scan::Needed;
                    return;
                }
            }
        }
    }

    fn follow(&mut self, change: ChunkChange) {
        let ChunkChange { chunk, record, revision } = change;
        self.seen = revision;
        let record = match record {
            Ok(record) => record,
            Err(unreadable) => {
                self.unreadable.add(unreadable);
                return self.queue.set(chunk, None);
            }
        };
        let need = record.as_ref().and_then(|record| RepairNeed::of(record, &self.cluster));
        let has_passed =
            |end: &Option<ScanCursor>| end.as_ref().is_none_or(|end| end.has_passed(chunk));
        let page = self.pages.partition_point(|(end, _)| !has_passed(end));
        match self.pages.get(page) {
            // Already covered by the scan.
            Some((_, scanned)) if revision <= *scanned => {}
            Some(_) => {
                let is_new = |record: &Chunk| record.generation == Generation::FIRST;
                self.queue.count(i64::from(record.as_ref().is_some_and(is_new)));
                self.queue.set(chunk, need);
            }
            // Chunks that the scan has not reached yet will be seen by it.
            None if self.queue.knows(chunk) => self.queue.set(chunk, need),
            None => {}
        }
    }

    fn start_jobs(&mut self) {
        let core = &self.core;
        while self.jobs.len() < core.settings.repair_concurrency {
            let Some((chunk, before)) = self.queue.take(Instant::now()) else { return };
            let (lease, handle) = (self.lease, self.handle.clone());
            let repair = ChunkRepair { core: core.clone(), lease, handle };
            let id = RequestId::random(&*core.random);
            let job = in_request(id, async move {
                let result = repair.run(chunk).await;
                Job { chunk, before, result }
            });
            self.jobs.push(job.boxed());
        }
    }

    fn ended(&mut self, job: Job) -> Result<(), Error> {
        let now = Instant::now();
        match job.result {
            Ok(RepairResult { need, replicas, outcome }) => {
                let rest = match outcome {
                    RepairOutcome::Done => Duration::ZERO,
                    RepairOutcome::NoTarget | RepairOutcome::NoSource => REST_WITHOUT_TARGET,
                    RepairOutcome::Failed => {
                        self.handle.add_failed(1);
                        REST
                    }
                };
                self.handle.add_done(replicas);
                self.queue.finish(job.chunk, need, now + rest);
                Ok(())
            }
            Err(error) => {
                self.queue.finish(job.chunk, Some(job.before), now + REST);
                Err(error)
            }
        }
    }

    /// Publishes the health of chunks.
    fn publish(&self) {
        self.handle.set_queued(self.queue.len() as u64);
        let missing = self.queue.counts().missing;
        self.handle.set_detail(detail(self.jobs.len(), self.queue.len(), missing));
        self.core.background.set_health(Some(Health {
            counts: self.queue.counts(),
            repairing: self.queue.busy() as u64,
            lost: self.lost.clone(),
            unreadable: self.unreadable.clone(),
            seen: self.seen,
        }));
    }

    /// Follows the chunks, and repairs unless it is `paused`. Repairs in flight finish in any case.
    async fn advance(&mut self, is_paused: bool) -> Result<Next, Error> {
        self.refresh_disks().await?;
        self.take_changes();
        if self.continue_scan().await? {
            // With no disk lost, the records that are not at rest are all there is to repair.
            if !is_paused && self.lost.is_empty() && matches!(self.scan, Scan::After(_)) {
                self.start_jobs();
            }
            while let Some(Some(job)) = self.jobs.next().now_or_never() {
                self.ended(job)?;
            }
            return Ok(Next::Again);
        }
        if matches!(self.scan, Scan::Needed) {
            return Ok(Next::Again);
        }
        if !is_paused {
            self.start_jobs();
        }
        self.publish();
        let Self { jobs, changes, .. } = self;
        let changed = async {
            match changes {
                Some(changes) => changes.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(job) = jobs.next() => self.ended(job)?,
            change = changed => match change {
                Ok(change) => self.follow(change),
                Err(_) => self.scan = Scan::Needed,
            },
            () = sleep(self.core.settings.heartbeat_interval()) => {}
        }
        Ok(Next::Again)
    }
}

#[async_trait]
impl Worker for Repair {
    const SPEC: Spec = REPAIR;

    type Error = Error;

    async fn step(&mut self) -> Result<Next, Error> {
        self.advance(false).await
    }

    /// Continues to count while paused, for the status.
    async fn step_while_paused(&mut self) -> Result<Next, Error> {
        self.advance(true).await
    }
}

/// Describes what repair does: chunks being repaired, waiting, and without a replica.
fn detail(busy: usize, waiting: usize, missing: u64) -> String {
    match (busy, waiting, missing) {
        (0, 0, 0) => "no chunk needs repair".to_owned(),
        (0, 0, missing) => {
            format!("chunks missing, as no replica can be reached: {missing}")
        }
        (0, waiting, _) => {
            format!("chunks waiting for a node that can take a replica: {waiting}")
        }
        (busy, ..) => format!("repairing {}", counted(busy as u64, "chunk")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// F15: missing chunks.
    #[test]
    fn f15_missing_chunks_are_not_reported_as_needing_no_repair() {
        assert_eq!(detail(0, 0, 0), "no chunk needs repair");
        assert_eq!(detail(0, 0, 8), "chunks missing, as no replica can be reached: 8");
        assert!(detail(0, 2, 8).starts_with("chunks waiting"));
        assert_eq!(detail(1, 2, 8), "repairing 1 chunk");
    }
}
