//! Rebuilds replicas that were lost, found bad, or missing when their file was written.
//!
//! The new holder of the lease reads which records are not at rest (`w/r/`), and begins. A circular
//! sweep over all chunks counts them once, and finds what the loss of nodes and disks requires: each
//! lost disk joins where the sweep is, and is done one turn later. During that turn only chunks
//! without a spare replica are repaired, so that they come first. In between, the changes of the
//! metadata are followed, whichever coordinator makes them.
//!
//! When too many nodes are lost at once, repair is held until they return or an administrator gives
//! them up: more likely the network is at fault than the nodes.

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
use futures_util::FutureExt as _;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

mod batch;
mod brake;
mod chunk;
mod given_up;
mod jobs;
pub(crate) mod queue;
mod sweep;

use self::batch::Batch;
#[cfg(test)]
pub(super) use self::chunk::tests::view;
use self::chunk::{ChunkRepair, RepairOutcome, RepairResult};
pub(super) use self::chunk::{is_overtaken, names};
use self::given_up::GivenUpDisks;
use self::jobs::Jobs;
use self::sweep::{Joined, Sweep};
use crate::Error;
use crate::background::Health;
use crate::core::Core;
use crate::node_liveness::View;
use crate::unreadable::UnreadableRecords;
use crate::workers::build::describe_failing;
use crate::workers::{RepairNeed, RepairQueue};

/// Maximum number of chunks queued for repair; another scan finds the rest.
const WAITING_MAX: usize = 100_000;
/// Maximum number of changes applied before any other step.
const CHANGES_AT_ONCE: usize = 4_096;
/// Checks of the disks in the interval of heartbeats, at most: there may be thousands of disks, and
/// thousands of steps in a second.
const REFRESHES_PER_HEARTBEAT: u32 = 10;
/// Pause of a chunk that another worker is moving.
const REST: Duration = Duration::from_secs(2);
/// Pause of a chunk that no node can take or provide; ends early when a node becomes available.
const REST_WITHOUT_TARGET: Duration = Duration::from_mins(1);

/// The worker.
pub(crate) struct Repair {
    core: Arc<Core>,
    lease: LeaseGrant,
    handle: Arc<Handle>,
    queue: RepairQueue,
    /// Position in the records that are not at rest, at the beginning.
    work: Work,
    sweep: Sweep,
    given_up: GivenUpDisks,
    /// Changes of chunks, from before the count on.
    changes: Option<ChunkChanges>,
    /// Revision up to which changes were applied.
    seen: Revision,
    /// Pages of the count: the end and revision of each. The last one has no end.
    pages: Vec<(Option<ScanCursor>, Revision)>,
    /// Unreadable chunk records: of the last turn of the sweep, and of the present one.
    unreadable: [UnreadableRecords; 2],
    /// When the disks were last checked.
    refreshed: Option<Instant>,
    /// The disks at the last check.
    cluster: Cluster,
    /// Disks among them whose replicas do not count.
    lost: LostDisks,
    /// Nodes that take chunks.
    takers: BTreeSet<NodeId>,
    /// Why repair is held, if it is.
    held: Option<String>,
    /// Since when some chunk has been under-replicated or missing.
    degraded_since: Option<Instant>,
    /// Tasks of their own: a repair in flight may hold a turn to read, for which a step would wait
    /// without advancing it. As one ends, the next begins.
    jobs: Jobs<Job>,
}

/// Progress in the records that are not at rest.
enum Work {
    After(Option<ChunkId>),
    Loaded,
}

/// Why no further repair was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopped {
    /// None is due, or as many as allowed are in flight.
    Idle,
    /// The rate of the worker is used up.
    AtRate,
}

/// The finished repair of a chunk.
struct Job {
    /// Need of the chunk before the repair.
    before: RepairNeed,
    result: Result<RepairResult, Error>,
}

impl Repair {
    pub(crate) fn new(core: Arc<Core>, lease: LeaseGrant, handle: Arc<Handle>) -> Self {
        let ahead = core.settings.repair_concurrency;
        Self {
            core,
            lease,
            handle,
            queue: RepairQueue::new(WAITING_MAX),
            work: Work::After(None),
            sweep: Sweep::default(),
            given_up: GivenUpDisks::default(),
            changes: None,
            seen: Revision::default(),
            pages: Vec::new(),
            unreadable: Default::default(),
            refreshed: None,
            cluster: Cluster::default(),
            lost: LostDisks::default(),
            takers: BTreeSet::new(),
            held: None,
            degraded_since: None,
            jobs: Jobs::new(ahead),
        }
    }

    /// Updates the lost disks and the nodes that take chunks. Disks that were lost or returned join
    /// the sweep.
    async fn refresh_disks(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        let interval = self.core.settings.heartbeat_interval() / REFRESHES_PER_HEARTBEAT;
        if self.refreshed.is_some_and(|at| now.duration_since(at) < interval) {
            return Ok(());
        }
        let (cluster, views, responsive) = {
            let registry = self.core.registry();
            (registry.cluster(now), registry.views(now), registry.responsive(now))
        };
        let takers = views.iter().filter(|view| view.takes_chunks());
        let takers: BTreeSet<NodeId> = takers.map(|view| view.node).collect();
        if !takers.is_subset(&self.takers) {
            self.queue.wake();
        }
        self.takers = takers;
        let lost = cluster.lost();
        self.cluster = cluster;
        if lost != self.lost {
            info!(
                lost = lost.known.len(),
                unknown = lost.and_unknown,
                "the lost disks have changed"
            );
            let added: Vec<_> = lost.known.difference(&self.lost.known).copied().collect();
            let joining = self.given_up.add(&self.core, &self.lease, &responsive, added).await?;
            for disk in self.lost.known.difference(&lost.known) {
                self.given_up.remove(*disk);
                self.sweep.join(Joined::Disk(*disk));
            }
            self.sweep.join_disks(joining);
            if lost.and_unknown != self.lost.and_unknown {
                self.sweep.join(Joined::UnknownDisks);
            }
            self.lost = lost;
        }
        let committed =
            self.given_up.commit_losses(&self.core, &self.lease, &responsive, &views).await?;
        self.sweep.join_disks(committed);
        given_up::revive(&self.core, &self.lease, &responsive, &views).await?;
        let is_rebuilt = |view: &View| self.given_up.is_rebuilt(view);
        self.held = brake::reason(&views, is_rebuilt);
        self.core.background.set_held(self.held.clone());
        self.refreshed = Some(now);
        Ok(())
    }

    /// Lets those join the sweep that need another turn.
    fn refresh_sweep(&mut self) {
        if self.queue.wants_turn() && !self.sweep.has(Joined::Overflow) {
            self.sweep.join(Joined::Overflow);
        }
        // Nothing is left to be built, so that the disks may be clear.
        if self.queue.len() == 0 && !self.sweep.is_needed() {
            let disks = self.given_up.begin_turns(Instant::now());
            self.sweep.join_disks(disks);
        }
    }

    /// Begins to follow the changes of chunks, and to count all chunks.
    async fn begin(&mut self) -> Result<(), Error> {
        let changes = self.core.namespace.chunk_changes(Scope::internal()).await;
        let changes = changes.map_err(Error::metadata("following the changes of chunks"))?;
        self.core.background.take_reaped();
        self.seen = changes.from();
        self.changes = Some(changes);
        self.queue.restart();
        self.pages.clear();
        self.work = Work::After(None);
        self.sweep.join(Joined::Count);
        self.sweep.rewind();
        Ok(())
    }

    /// Loads the next records that are not at rest. Returns whether there were any left.
    async fn load_work(&mut self) -> Result<bool, Error> {
        let Work::After(after) = self.work else { return Ok(false) };
        let limit = Namespace::PAGE_LEN_MAX;
        let page = self.core.namespace.chunks_to_repair(Scope::internal(), after, limit).await;
        let page = page.map_err(Error::metadata("reading which chunks need repair"))?;
        for (chunk, record) in page.chunks {
            self.queue.set(chunk, RepairNeed::of(&record, &self.cluster));
        }
        self.work = page.next.map_or(Work::Loaded, |next| Work::After(Some(next)));
        Ok(true)
    }

    /// Reads the next page of the sweep.
    async fn sweep_page(&mut self) -> Result<(), Error> {
        self.handle.set_detail("scanning all chunks");
        let limit = Namespace::PAGE_LEN_MAX;
        let next = self.sweep.next();
        let page = self.core.namespace.scan_chunks(Scope::internal(), next, limit).await;
        let page = page.map_err(Error::metadata("scanning all chunks"))?;
        let is_counting = self.sweep.has(Joined::Count);
        if is_counting {
            self.pages.push((page.next.clone(), page.revision));
        }
        self.core.counts.swept.add(page.chunks.len() as u64);
        for (chunk, record) in page.chunks {
            if is_counting {
                self.queue.count(i64::from(!record.is_tombstone()));
            }
            self.given_up.look_in(&record);
            self.queue.set(chunk, RepairNeed::of(&record, &self.cluster));
        }
        for record in page.unreadable {
            warn!(
                key = record.key,
                why = record.why,
                "a chunk record is unreadable; it is skipped"
            );
            self.unreadable[1].add(record);
        }
        let is_last = page.next.is_none();
        let done = self.sweep.advance(page.next);
        if is_last {
            self.queue.start_turn();
            self.unreadable =
                [std::mem::take(&mut self.unreadable[1]), UnreadableRecords::default()];
        }
        for who in done {
            if let Joined::Disk(disk) = who {
                self.given_up.end_turn(&self.core, &self.lease, disk).await?;
            }
        }
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
                    warn!(%error, "the changes of chunks cannot be followed; counting all chunks");
                    self.changes = None;
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
                self.unreadable.iter_mut().for_each(|records| records.add(unreadable.clone()));
                return self.queue.set(chunk, None);
            }
        };
        if let Some(record) = &record {
            self.given_up.look_in(record);
        }
        let need = record.as_ref().and_then(|record| RepairNeed::of(record, &self.cluster));
        let has_passed =
            |end: &Option<ScanCursor>| end.as_ref().is_none_or(|end| end.has_passed(chunk));
        let page = self.pages.partition_point(|(end, _)| !has_passed(end));
        match self.pages.get(page) {
            // Already covered by the count.
            Some((_, scanned)) if revision <= *scanned => {}
            Some(_) => {
                let is_new = |record: &Chunk| record.generation == Generation::FIRST;
                self.queue.count(i64::from(record.as_ref().is_some_and(is_new)));
                self.queue.set(chunk, need);
            }
            // Chunks that the count has not reached yet will be seen by it.
            None if self.queue.knows(chunk) => self.queue.set(chunk, need),
            None => {}
        }
    }

    /// Starts repairs as long as the window has room: in the first turn that looks for disks, only
    /// of chunks without a spare replica.
    fn start_jobs(&mut self) -> Stopped {
        if self.held.is_some() {
            return Stopped::Idle;
        }
        let core = self.core.clone();
        let sole_only = self.sweep.is_first_turn();
        self.unpark();
        let (mut batch, mut stopped) = (Batch::default(), Stopped::Idle);
        while self.jobs.len() + batch.len() < core.settings.repair_concurrency {
            let now = Instant::now();
            let Some((chunk, before)) = self.queue.peek(now, sole_only) else { break };
            // Being moved, which may be all it needs.
            let Some(claim) = core.background.claim(chunk) else {
                self.queue.take(now, sole_only);
                self.queue.finish(chunk, Some(before), now + REST);
                continue;
            };
            if !self.handle.try_take(before.cost()) {
                stopped = Stopped::AtRate;
                break;
            }
            self.queue.take(now, sole_only);
            if let Some(batch) = batch.add(chunk, before, claim) {
                self.start(batch);
            }
        }
        if batch.len() > 0 {
            self.start(batch);
        }
        stopped
    }

    /// Starts the repair of chunks.
    fn start(&mut self, batch: Batch) {
        let repair = ChunkRepair { core: self.core.clone(), lease: self.lease };
        let id = RequestId::random(&*self.core.random);
        self.jobs.spawn(batch.chunks(), |results| {
            in_request(id, async move { batch.run(repair, results).await })
        });
    }

    /// Lets chunks go on whose nodes have room for builds by now, or take none any more.
    fn unpark(&mut self) {
        let now = Instant::now();
        let builds = &self.core.background.builds;
        for end in self.queue.waited_for() {
            let quota = self.core.registry().build_quota(end.node);
            let room = builds.room_for_waiting(end, quota, now);
            self.queue.unpark(end, room);
        }
    }

    fn ended(&mut self, (chunk, job): (ChunkId, Option<Job>)) -> Result<(), Error> {
        let now = Instant::now();
        let Some(Job { before, result }) = job else {
            self.handle.add_failed(1);
            self.queue.fail_as_before(chunk, now);
            return Ok(());
        };
        let RepairResult { need, replicas, outcome } = match result {
            Ok(result) => result,
            Err(error) => {
                self.queue.fail(chunk, Some(before), now);
                return Err(error);
            }
        };
        self.handle.add_done(replicas);
        match outcome {
            RepairOutcome::Done => self.queue.finish(chunk, need, now),
            RepairOutcome::NoTarget => {
                self.handle.give_back(before.cost());
                self.queue.found_no_target(chunk, need, now + REST_WITHOUT_TARGET);
            }
            RepairOutcome::NoSource => {
                self.handle.give_back(before.cost());
                self.queue.finish(chunk, need, now + REST_WITHOUT_TARGET);
            }
            RepairOutcome::NoRoom(end) => {
                self.handle.give_back(before.cost());
                self.queue.park(chunk, need, end);
            }
            RepairOutcome::Failed => {
                self.handle.add_failed(1);
                self.queue.fail(chunk, need, now);
            }
        }
        Ok(())
    }

    /// Publishes the health of chunks, as far as it is known.
    fn publish(&mut self, stopped: Stopped, is_paused: bool) {
        let counts = self.queue.counts();
        self.degraded_since = match counts.under_replicated + counts.missing {
            0 => None,
            _ => self.degraded_since.or_else(|| Some(Instant::now())),
        };
        self.handle.set_queued(self.queue.len() as u64);
        let is_at_work = is_at_work(&self.queue, stopped, is_paused);
        let missing = counts.missing;
        match &self.held {
            Some(why) => self.handle.set_detail(why.clone()),
            None if self.sweep.is_needed() => {}
            None => {
                let busy = self.jobs.len().max(usize::from(is_at_work));
                let work = detail(busy, self.queue.len(), missing);
                let failing = self.core.background.builds.failing(Instant::now());
                let failing = describe_failing("builds at", &failing);
                let parts: Vec<String> = std::iter::once(work).chain(failing).collect();
                self.handle.set_detail(parts.join("; "));
            }
        }
        let is_unknown = matches!(self.work, Work::After(_))
            || self.sweep.has(Joined::Count)
            || self.sweep.has_disks();
        self.core.background.set_health((!is_unknown).then(|| Health {
            counts,
            repairing: self.queue.busy() as u64,
            is_at_work,
            without_target: self.queue.without_target() as u64,
            degraded_since: self.degraded_since,
            lost: self.lost.clone(),
            unreadable: self.unreadable[0].clone(),
            seen: self.seen,
        }));
    }

    /// Follows the chunks, and repairs unless it is `paused`. Repairs in flight finish in any case.
    async fn advance(&mut self, is_paused: bool) -> Result<Next, Error> {
        self.refresh_disks().await?;
        if self.changes.is_none() {
            self.begin().await?;
        }
        self.take_changes();
        self.refresh_sweep();
        let is_loading = self.load_work().await?;
        if !is_loading && self.sweep.is_needed() {
            self.sweep_page().await?;
        }
        let is_busy = is_loading || self.sweep.is_needed();
        // Before others begin: those that ended together are followed by as many.
        while let Some(job) = self.jobs.try_next() {
            self.ended(job)?;
        }
        let stopped = if is_paused || is_loading { Stopped::Idle } else { self.start_jobs() };
        self.publish(stopped, is_paused);
        if is_busy {
            return Ok(Next::Again);
        }
        let waits = !self.queue.waited_for().is_empty();
        let Self { core, handle, jobs, changes, .. } = self;
        let changed = async {
            match changes {
                Some(changes) => changes.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(job) = jobs.next() => self.ended(job)?,
            () = handle.ready(), if stopped == Stopped::AtRate => {}
            () = core.background.builds.any_ended(), if waits => {}
            change = changed => match change {
                Ok(change) => self.follow(change),
                Err(_) => self.changes = None,
            },
            () = sleep(core.settings.heartbeat_interval()) => {}
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

/// Returns whether chunks are being repaired, or will be as the rate of repair and the nodes have room:
/// none while it is paused, however many wait for a node.
fn is_at_work(queue: &RepairQueue, stopped: Stopped, is_paused: bool) -> bool {
    let waits = stopped == Stopped::AtRate || !queue.waited_for().is_empty();
    queue.busy() > 0 || (waits && !is_paused)
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
    use super::queue::tests::need;
    use super::*;
    use crate::build_slots::BuildEnd;

    #[test]
    fn chunks_that_wait_for_a_node_are_at_work_only_while_repair_is_not_paused() {
        let (mut queue, now, chunk) = (RepairQueue::new(9), Instant::now(), ChunkId(1));
        let need = need(2, 0);
        queue.set(chunk, Some(need));
        assert!(!is_at_work(&queue, Stopped::Idle, false), "it has not begun");
        assert!(is_at_work(&queue, Stopped::AtRate, false));
        queue.take(now, false).unwrap();
        assert!(is_at_work(&queue, Stopped::Idle, true), "repairs in flight finish");
        queue.park(chunk, Some(need), BuildEnd::target(NodeId(1)));
        let at_work = [false, true].map(|is_paused| is_at_work(&queue, Stopped::Idle, is_paused));
        assert_eq!(at_work, [true, false]);
    }

    /// F15: missing chunks.
    #[test]
    fn f15_missing_chunks_are_not_reported_as_needing_no_repair() {
        assert_eq!(detail(0, 0, 0), "no chunk needs repair");
        assert_eq!(detail(0, 0, 8), "chunks missing, as no replica can be reached: 8");
        assert!(detail(0, 2, 8).starts_with("chunks waiting"));
        assert_eq!(detail(1, 2, 8), "repairing 1 chunk");
    }
}
