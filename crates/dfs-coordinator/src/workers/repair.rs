//! Makes copies again that were lost, found bad, or not made when their file was written.
//!
//! What is not as it should be is found by one scan over all chunks when the lease is taken, and
//! whenever a node is lost or comes back; in between the services tell what happens. Nothing is
//! repaired before the scan has ended: the chunks with the fewest copies come first.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use dfs_metadata::engine::LeaseGrant;
use dfs_metadata::namespace::Namespace;
use dfs_transport::in_request;
use dfs_types::{ChunkId, NodeId, RequestId};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep};
use tracing::info;

use super::mend::{Ending, Mended, Mender};
use super::{Condition, Health, Ledger, Next, Progress, Throttle, Worker};
use crate::Error;
use crate::core::Core;

/// Chunks that wait for repair at most; the rest is found by another scan.
const WAITING_MAX: usize = 100_000;
/// Rest of a chunk after a repair that failed.
const REST: Duration = Duration::from_secs(2);
/// Rest of a chunk that no node can take; ended early when a node comes.
const REST_WITHOUT_TARGET: Duration = Duration::from_mins(1);

/// The worker.
pub(crate) struct Repair {
    core: Arc<Core>,
    progress: Arc<Progress>,
    throttle: Arc<Mutex<Throttle>>,
    ledger: Ledger,
    scan: Scan,
    /// Nodes whose copies do not count.
    lost: BTreeSet<NodeId>,
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
    before: Condition,
    result: Result<Mended, Error>,
}

impl Repair {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        let throttle = Throttle::new(core.settings.repair_bytes_per_second, Instant::now());
        Self {
            progress: core.background.repair.clone(),
            core,
            throttle: Arc::new(Mutex::new(throttle)),
            ledger: Ledger::new(WAITING_MAX),
            scan: Scan::Needed,
            lost: BTreeSet::new(),
            takers: BTreeSet::new(),
            jobs: FuturesUnordered::new(),
        }
    }

    /// Notes which nodes are lost and which take chunks, and begins a scan when that is needed.
    fn look_around(&mut self) {
        let now = Instant::now();
        let (lost, takers) = {
            let registry = self.core.registry();
            let views = registry.views(now);
            let takers = views.iter().filter(|view| view.takes_chunks());
            (registry.lost(now), takers.map(|view| view.node).collect::<BTreeSet<_>>())
        };
        if !takers.is_subset(&self.takers) {
            self.ledger.wake();
        }
        self.takers = takers;
        let has_dropped = crate::lock(&self.core.background.deletions).wants_scan();
        let is_needed = matches!(self.scan, Scan::Needed);
        if is_needed || lost != self.lost || has_dropped || self.ledger.wants_scan() {
            if lost != self.lost {
                info!(lost = lost.len(), "other nodes are lost now; all chunks are looked at");
            }
            self.lost = lost;
            self.core.background.set_health(None);
            // What is told up to now, the scan sees.
            drop(self.core.background.take_news());
            self.ledger.restart();
            self.scan = Scan::After(None);
        }
    }

    /// Looks at the next chunks of a scan.
    async fn scan(&mut self, after: Option<ChunkId>) -> Result<(), Error> {
        self.progress.set_state("looks at all chunks");
        let page = self.core.namespace.scan_chunks(after, Namespace::PAGE_LEN_MAX).await;
        let page = page.map_err(Error::metadata("looking at all chunks"))?;
        let last = page.chunks.last().map(|(chunk, _)| *chunk).filter(|_| page.has_more);
        for (chunk, record) in page.chunks {
            if record.is_tombstone() {
                let mut deletions = crate::lock(&self.core.background.deletions);
                for copy in &record.copies {
                    deletions.push(copy.node, (chunk, copy.stamp));
                }
                continue;
            }
            self.ledger.count(1);
            self.ledger.set(chunk, Condition::of(&record, &self.lost));
        }
        self.scan = last.map_or(Scan::Done, |last| Scan::After(Some(last)));
        Ok(())
    }

    /// Takes over what the services and the reaper told.
    async fn take_news(&mut self) -> Result<(), Error> {
        let background = &self.core.background;
        let news = background.take_news();
        if news.is_empty() {
            return Ok(());
        }
        // Until it is looked at, nobody knows how the data is.
        background.set_health(None);
        if news.has_overflowed {
            self.scan = Scan::Needed;
            return Ok(());
        }
        self.ledger.count(news.added);
        let chunks: Vec<ChunkId> = news.chunks.into_iter().collect();
        for some in chunks.chunks(Namespace::PAGE_LEN_MAX) {
            let records = self.core.namespace.chunks(some).await;
            let records = records.map_err(|error| {
                // The news is gone, so everything is looked at again.
                self.scan = Scan::Needed;
                Error::metadata("looking at chunks")(error)
            })?;
            for (chunk, record) in some.iter().zip(records) {
                let condition = record.and_then(|record| Condition::of(&record, &self.lost));
                self.ledger.set(*chunk, condition);
            }
        }
        for chunk in news.gone {
            self.ledger.set(chunk, None);
        }
        Ok(())
    }

    fn start_jobs(&mut self, lease: &LeaseGrant) {
        let (core, throttle) = (&self.core, &self.throttle);
        while self.jobs.len() < core.settings.repair_concurrency {
            let Some((chunk, before)) = self.ledger.take(Instant::now()) else { return };
            let mender = Mender { core: core.clone(), lease: *lease, throttle: throttle.clone() };
            let id = RequestId::random(&*core.random);
            let job = in_request(id, async move {
                let result = mender.mend(chunk).await;
                Job { chunk, before, result }
            });
            self.jobs.push(job.boxed());
        }
    }

    fn ended(&mut self, job: Job) -> Result<(), Error> {
        let now = Instant::now();
        match job.result {
            Ok(Mended { condition, copies, ending }) => {
                let rest = match ending {
                    Ending::Done => Duration::ZERO,
                    Ending::NoTarget => REST_WITHOUT_TARGET,
                    Ending::Failed => {
                        self.progress.add_failed(1);
                        REST
                    }
                };
                self.progress.add_done(copies);
                self.ledger.finish(job.chunk, condition, now + rest);
                Ok(())
            }
            Err(error) => {
                self.ledger.finish(job.chunk, Some(job.before), now + REST);
                Err(error)
            }
        }
    }

    /// Tells how the chunks are.
    fn publish(&self) {
        self.progress.set_queued(self.ledger.len() as u64);
        self.progress.set_state(match (self.jobs.len(), self.ledger.len()) {
            (0, 0) => "all chunks are as they should be".to_owned(),
            (0, waiting) => format!("{waiting} chunks wait for a node that can take a copy"),
            (busy, _) => format!("repairs {busy} chunks"),
        });
        self.core.background.set_health(Some(Health {
            tally: self.ledger.tally(),
            repairing: self.ledger.busy() as u64,
            lost: self.lost.clone(),
        }));
    }
}

#[async_trait]
impl Worker for Repair {
    fn progress(&self) -> &Progress {
        &self.progress
    }

    async fn step(&mut self, lease: &LeaseGrant) -> Result<Next, Error> {
        self.look_around();
        if let Scan::After(after) = self.scan {
            self.scan(after).await?;
            while let Some(Some(job)) = self.jobs.next().now_or_never() {
                self.ended(job)?;
            }
            return Ok(Next::Again);
        }
        self.take_news().await?;
        if matches!(self.scan, Scan::Needed) {
            return Ok(Next::Again);
        }
        self.start_jobs(lease);
        self.publish();
        let core = self.core.clone();
        tokio::select! {
            biased;
            Some(job) = self.jobs.next() => self.ended(job)?,
            () = core.background.wait_for_news() => {}
            () = sleep(core.settings.heartbeat_interval()) => {}
        }
        Ok(Next::Again)
    }
}
