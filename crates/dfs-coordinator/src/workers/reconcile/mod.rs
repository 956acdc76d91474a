//! Compares what the disks hold with what the records say, and settles the differences.
//!
//! A *cycle* commits the floor, then walks all chunk records once in windows. For each window,
//! every disk in service reports a digest of its replicas. Where it equals that of the records,
//! nothing is left to do; otherwise the disk is listed, and compared replica by replica:
//!
//! | found | done |
//! |---|---|
//! | named, but not on the disk | recorded as gone, so that repair builds another |
//! | recorded as gone, but on the disk | recorded as sound again |
//! | on the disk, without a record | deleted after a second proof a day later |
//! | on the disk, not named by the record of its chunk, which lacks it | verified and named |
//! | on the disk, not named by the record of its chunk, which lacks none | deleted in the same way, once another replica has been read |
//!
//! A cycle begins once a day, soon after nodes have registered (they may have lost what they held,
//! or missed deletions), at once for a disk that returns, and on request.

mod adopt;
mod calls;
mod compare;
mod parts;
mod pass;
mod returning;
mod settle;
mod unneeded;
mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dfs_metadata::engine::lease::LeaseGrant;
use dfs_metadata::namespace::{FLOOR_MARGIN, PLAN_LIFETIME, ScanCursor};
use dfs_types::{ChunkId, DiskId, NodeId, RegistrationNumber, Scope};
use dfs_workers::{Handle, Next, RECONCILE, Spec, Worker};
use tokio::time::Instant;
use tracing::info;

use self::returning::Tried;
use crate::Error;
use crate::checks::CheckReport;
use crate::core::Core;
use crate::workers::WORKER_LEASE;

/// Interval of raising the floor, if cycles are rarer.
const FLOOR_EVERY: Duration = Duration::from_hours(1);
/// Rest after a cycle, as a multiple of its duration, before registrations begin another.
const REST_FACTOR: u32 = 10;
/// Least rest, in heartbeats, before disks that were returning when a cycle began begin another.
const RETURNING_REST: u32 = 10;

/// The worker.
pub(crate) struct Reconcile {
    core: Arc<Core>,
    lease: LeaseGrant,
    handle: Arc<Handle>,
    cycle: Option<Cycle>,
    /// When the next regular cycle begins.
    due: Instant,
    /// Until then, registrations begin no cycle.
    resting_until: Instant,
    registrations: BTreeMap<NodeId, RegistrationNumber>,
    /// The last registration since the last cycle began.
    registered: Option<Instant>,
    floor_due: Instant,
    tried: Tried,
}

/// A cycle in progress.
struct Cycle {
    number: u64,
    began: Instant,
    /// The floor, committed before anything was read.
    floor: ChunkId,
    from: ChunkId,
    /// Position of the next window.
    after: Option<ScanCursor>,
    /// Disks that were returning when it began.
    began_with: BTreeSet<(NodeId, DiskId)>,
    /// Those of them that were compared in every window since.
    returning: BTreeSet<(NodeId, DiskId)>,
    report: CheckReport,
}

impl Reconcile {
    pub(crate) fn new(core: Arc<Core>, lease: LeaseGrant, handle: Arc<Handle>) -> Self {
        let now = Instant::now();
        let due = now + core.settings.reconcile_interval();
        Self {
            core,
            lease,
            handle,
            cycle: None,
            due,
            resting_until: now,
            registrations: BTreeMap::new(),
            registered: None,
            floor_due: now,
            tried: Tried::default(),
        }
    }

    /// Returns whether a cycle should begin.
    fn is_due(&mut self, now: Instant) -> bool {
        let views = self.core.registry().views(now);
        let heard = views.iter().filter(|view| view.last_heard.is_some());
        let registrations = heard.map(|view| (view.node, view.member.registration)).collect();
        if registrations != self.registrations {
            self.registrations = registrations;
            self.registered = Some(now);
        }
        // Nodes often register together.
        let settle = self.core.settings.reconcile_settle();
        let has_settled = self.registered.is_some_and(|at| now >= at + settle);
        let has_returning = self.tried.lack_any(&self.returning(now), now);
        self.core.background.checks.is_requested()
            || now >= self.due
            || has_settled && now >= self.resting_until
            || has_returning
    }

    /// Raises the floor as far as the confirmed time allows, and returns it.
    async fn raise_floor(&mut self) -> Result<ChunkId, Error> {
        let (namespace, scope) = (&self.core.namespace, Scope::internal());
        let fence = self.lease.fence(WORKER_LEASE);
        let floor = match namespace.confirmed_now() {
            Some(now) => {
                let time = now.minus(PLAN_LIFETIME + FLOOR_MARGIN);
                namespace.raise_gc_floor(scope, time, Some(&fence)).await
            }
            None => namespace.gc_floor(scope).await,
        };
        self.floor_due = Instant::now() + FLOOR_EVERY;
        floor.map_err(Error::metadata("raising the garbage collection floor"))
    }

    async fn begin(&mut self) -> Result<(), Error> {
        // Before anything is read: from now on no commit brings in a chunk below it.
        let floor = self.raise_floor().await?;
        self.core.background.checks.begin();
        self.registered = None;
        let now = Instant::now();
        let returning = self.returning(now);
        self.cycle = Some(Cycle {
            number: self.core.random.below(u64::MAX),
            began: now,
            floor,
            from: ChunkId::MIN,
            after: None,
            began_with: returning.clone(),
            returning,
            report: CheckReport::default(),
        });
        Ok(())
    }

    /// Compares the next window. Returns the cycle, and whether it has ended.
    async fn advance(&self, mut cycle: Cycle) -> (Cycle, Result<bool, Error>) {
        let result = self.compare_window(&mut cycle).await;
        self.core.background.checks.set_progress(&cycle.report);
        (cycle, result)
    }

    /// Ends a cycle. Disks that returned and were compared get full service.
    async fn finish(&mut self, cycle: Cycle) {
        let took = cycle.began.elapsed();
        self.settle_returning(&cycle.returning).await;
        let now = Instant::now();
        let report = cycle.report;
        self.handle.add_done(1);
        let CheckReport { records, gone, back, orphans, surplus, adopted, skipped, .. } = report;
        if gone + back + orphans + surplus + adopted + skipped > 0 {
            info!(
                records,
                gone,
                back,
                orphans,
                surplus,
                adopted,
                skipped,
                "compared the disks with the records"
            );
        }
        self.core.background.checks.finish(report, now);
        let interval = self.core.settings.reconcile_interval();
        self.due = now + interval;
        // The cycle may have been paused for long.
        let rest = (took * REST_FACTOR).min(interval);
        self.resting_until = now + rest;
        let least = self.core.settings.heartbeat_interval() * RETURNING_REST;
        self.tried.add(cycle.began_with, now + least.max(rest));
    }
}

/// Logs what a window added to the report, unless everything was as recorded.
fn log_window(from: ChunkId, before: &CheckReport, after: &CheckReport) {
    let gone = after.gone - before.gone;
    let back = after.back - before.back;
    let adopted = after.adopted - before.adopted;
    let deleted = after.deleted() - before.deleted();
    if gone + back + adopted + deleted > 0 {
        info!(%from, gone, back, adopted, deleted, "replicas were not as recorded");
    }
}

/// Describes the cycle in progress.
fn detail(cycle: &Cycle) -> String {
    format!("comparing disks with records: {} chunks so far", cycle.report.records)
}

#[async_trait]
impl Worker for Reconcile {
    const SPEC: Spec = RECONCILE;

    type Error = Error;

    async fn step(&mut self) -> Result<Next, Error> {
        let now = Instant::now();
        if self.cycle.is_none() && self.is_due(now) {
            self.begin().await?;
        }
        let Some(cycle) = self.cycle.take() else {
            if now >= self.floor_due {
                self.raise_floor().await?;
            }
            self.handle.set_detail("waiting for the next cycle");
            return Ok(Next::After(self.core.settings.heartbeat_interval()));
        };
        self.handle.set_detail(detail(&cycle));
        let (cycle, result) = self.advance(cycle).await;
        match result {
            Ok(true) => self.finish(cycle).await,
            // The same window again, after a pause.
            result => {
                self.cycle = Some(cycle);
                result?;
            }
        }
        Ok(Next::Again)
    }
}
