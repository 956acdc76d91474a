//! Makes replicas again that were lost, found bad, or not made when their file was written.
//!
//! What is not as it should be is found by one scan over all chunks when the lease is taken, and
//! whenever something is lost or comes back; in between the changes of the metadata are followed,
//! whichever coordinator makes them. Nothing is repaired before the scan has ended: the chunks with
//! the fewest replicas come first.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dfs_metadata::engine::LeaseGrant;
use dfs_metadata::namespace::{ChunkChange, ChunkChanges, Namespace};
use dfs_transport::in_request;
use dfs_types::{ChunkId, Generation, NodeId, RequestId, Revision, Scope};
use dfs_workers::{Handle, Next, REPAIR, Spec, Worker};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

mod chunk;
pub(crate) mod queue;

use self::chunk::{ChunkRepair, RepairOutcome, RepairResult};
use crate::Error;
use crate::core::Core;
use crate::lost::Lost;
use crate::workers::{ChunkHealth, Health, RepairQueue};

/// Chunks that wait for repair at most; the rest is found by another scan.
const WAITING_MAX: usize = 100_000;
/// Changes that are taken over before anything else is done.
const CHANGES_AT_ONCE: usize = 4_096;
/// Rest of a chunk after a repair that failed.
const REST: Duration = Duration::from_secs(2);
/// Rest of a chunk that no node can take; ended early when a node comes.
const REST_WITHOUT_TARGET: Duration = Duration::from_mins(1);

/// The worker.
pub(crate) struct Repair {
    core: Arc<Core>,
    lease: LeaseGrant,
    handle: Arc<Handle>,
    queue: RepairQueue,
    scan: Scan,
    /// What happens to chunks, from before the scan on.
    changes: Option<ChunkChanges>,
    /// Changes up to this revision were taken over.
    seen: Revision,
    /// The pages of the scan: where each ended, and its revision. The last one has no end.
    pages: Vec<(ChunkId, Revision)>,
    /// Which replicas do not count.
    lost: Lost,
    /// Nodes that take chunks.
    takers: BTreeSet<NodeId>,
    jobs: FuturesUnordered<BoxFuture<'static, Job>>,
}

enum Scan {
    Needed,
    After(Option<ChunkId>),
    Done,
}

/// A repair that ended.
struct Job {
    chunk: ChunkId,
    /// How the chunk was before.
    before: ChunkHealth,
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
            lost: Lost::default(),
            takers: BTreeSet::new(),
            jobs: FuturesUnordered::new(),
        }
    }

    /// Notes what is lost and which nodes take chunks, and begins a scan when that is needed.
    async fn look_around(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        let (lost, takers) = {
            let registry = self.core.registry();
            let views = registry.views(now);
            let takers = views.iter().filter(|view| view.takes_chunks());
            (registry.lost(now), takers.map(|view| view.node).collect::<BTreeSet<_>>())
        };
        if !takers.is_subset(&self.takers) {
            self.queue.wake();
        }
        self.takers = takers;
        let has_dropped = crate::lock(&self.core.background.deletions).wants_scan();
        let is_needed = matches!(self.scan, Scan::Needed);
        if is_needed || lost != self.lost || has_dropped || self.queue.wants_scan() {
            if lost.nodes() != self.lost.nodes() {
                let lost = lost.nodes().len();
                info!(lost, "other nodes are lost now; all chunks are looked at");
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
            self.scan = Scan::After(None);
        }
        Ok(())
    }

    /// Looks at the next chunks of a scan.
    async fn scan(&mut self, after: Option<ChunkId>) -> Result<(), Error> {
        self.handle.set_detail("looks at all chunks");
        let page = self
            .core
            .namespace
            .scan_chunks(Scope::internal(), after, Namespace::PAGE_LEN_MAX)
            .await;
        let page = page.map_err(Error::metadata("looking at all chunks"))?;
        let last = page.chunks.last().map(|(chunk, _)| *chunk).filter(|_| page.has_more);
        self.pages.push((last.unwrap_or(ChunkId::MAX), page.revision));
        for (chunk, record) in page.chunks {
            if record.is_tombstone() {
                let mut deletions = crate::lock(&self.core.background.deletions);
                for replica in &record.replicas {
                    deletions.push(replica.node, (chunk, replica.stamp));
                }
                continue;
            }
            self.queue.count(1);
            self.queue.set(chunk, ChunkHealth::of(&record, &self.lost));
        }
        self.scan = last.map_or(Scan::Done, |last| Scan::After(Some(last)));
        Ok(())
    }

    /// Takes over what happened to chunks.
    fn take_changes(&mut self) {
        self.queue.count(-(self.core.background.take_reaped() as i64));
        for _ in 0..CHANGES_AT_ONCE {
            let next = self.changes.as_mut().and_then(|changes| changes.next().now_or_never());
            match next {
                None => return,
                Some(Ok(change)) => self.follow(change),
                Some(Err(error)) => {
                    warn!(%error, "the changes of chunks cannot be followed; all are looked at");
                    self.scan = Scan::Needed;
                    return;
                }
            }
        }
    }

    fn follow(&mut self, change: ChunkChange) {
        let ChunkChange { chunk, record, revision } = change;
        self.seen = revision;
        // What the scan has not come to yet it will see; what it saw it need not hear again.
        let page = self.pages.partition_point(|(end, _)| *end < chunk);
        if self.pages.get(page).is_none_or(|(_, scanned)| revision <= *scanned) {
            return;
        }
        let is_new = record.as_ref().is_some_and(|record| record.generation == Generation::FIRST);
        self.queue.count(i64::from(is_new));
        self.queue.set(chunk, record.and_then(|record| ChunkHealth::of(&record, &self.lost)));
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
            Ok(RepairResult { condition, replicas, outcome }) => {
                let rest = match outcome {
                    RepairOutcome::Done => Duration::ZERO,
                    RepairOutcome::NoTarget => REST_WITHOUT_TARGET,
                    RepairOutcome::Failed => {
                        self.handle.add_failed(1);
                        REST
                    }
                };
                self.handle.add_done(replicas);
                self.queue.finish(job.chunk, condition, now + rest);
                Ok(())
            }
            Err(error) => {
                self.queue.finish(job.chunk, Some(job.before), now + REST);
                Err(error)
            }
        }
    }

    /// Publishes how the chunks are.
    fn publish(&self) {
        self.handle.set_queued(self.queue.len() as u64);
        self.handle.set_detail(match (self.jobs.len(), self.queue.len()) {
            (0, 0) => "no chunk needs repair".to_owned(),
            (0, waiting) => format!("{waiting} chunks wait for a node that can take a replica"),
            (busy, _) => format!("repairs {busy} chunks"),
        });
        self.core.background.set_health(Some(Health {
            counts: self.queue.counts(),
            repairing: self.queue.busy() as u64,
            lost: self.lost.clone(),
            seen: self.seen,
        }));
    }

    /// Follows the chunks, and repairs unless it is `paused`. Repairs under way end in any case.
    async fn advance(&mut self, is_paused: bool) -> Result<Next, Error> {
        self.look_around().await?;
        self.take_changes();
        if let Scan::After(after) = self.scan {
            self.scan(after).await?;
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

    /// Goes on counting, which administrators want to see.
    async fn step_while_paused(&mut self) -> Result<Next, Error> {
        self.advance(true).await
    }
}
