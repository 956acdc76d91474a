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
//! | on the disk, not named by the record of its chunk | counted |
//!
//! A cycle begins once a day, soon after nodes have registered (they may have lost what they held,
//! or missed deletions), and on request.

mod calls;
mod compare;
mod orphans;
mod returning;
mod settle;
mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use dfs_metadata::engine::lease::LeaseGrant;
use dfs_metadata::namespace::{FLOOR_MARGIN, PLAN_LIFETIME, ScanCursor};
use dfs_types::{ChunkId, DiskNumber, NodeId, RegistrationNumber, Scope};
use dfs_workers::{Handle, Next, RECONCILE, Spec, Worker};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::time::Instant;
use tracing::{debug, info};

use self::compare::Target;
use self::orphans::Orphans;
use crate::Error;
use crate::checks::CheckReport;
use crate::core::Core;
use crate::workers::WORKER_LEASE;

/// Nodes asked for digests concurrently.
const NODES_AT_ONCE: usize = 16;
/// Interval of raising the floor, if cycles are rarer.
const FLOOR_EVERY: Duration = Duration::from_hours(1);
/// Rest after a cycle, as a multiple of its duration, before registrations begin another.
const REST_FACTOR: u32 = 10;

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
    /// Until then, returning disks are not settled.
    returning_due: Instant,
    orphans: Mutex<Orphans>,
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
            returning_due: now,
            orphans: Mutex::default(),
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
        self.core.background.checks.is_requested()
            || now >= self.due
            || has_settled && now >= self.resting_until
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
        self.cycle = Some(Cycle {
            number: self.core.random.below(u64::MAX),
            began: Instant::now(),
            floor,
            from: ChunkId::MIN,
            after: None,
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

    async fn compare_window(&self, cycle: &mut Cycle) -> Result<bool, Error> {
        let Cycle { number, floor, .. } = *cycle;
        let refreshed = self.core.refresh_members().await;
        refreshed.map_err(Error::metadata("reading the records of nodes"))?;
        let (core, handle) = (&*self.core, &*self.handle);
        let cluster = core.registry().cluster(Instant::now());
        let (position, mut report) = ((cycle.from, cycle.after.clone()), cycle.report.clone());
        let window = window::read(core, handle, number, position, &cluster, &mut report).await?;
        let (targets, skipped) = self.targets();
        report.skipped += skipped;
        let different = self.different(&targets, number, &window, &mut report).await;
        if !different.is_empty() {
            let disks: BTreeSet<DiskNumber> = different.iter().map(|it| it.number).collect();
            let position = (window.range, cycle.after.clone());
            let before = window::records_of(core, handle, position, &disks).await?;
            for target in different {
                let context = (floor, &cluster);
                match self.compare(&target, &before, window.range, context).await? {
                    Some(findings) => {
                        self.settle(&target, findings, number, &mut report).await?;
                        report.compared += 1;
                    }
                    None => report.skipped += 1,
                }
            }
        }
        cycle.report = report;
        cycle.after = window.next;
        match window.range.to {
            Some(to) => cycle.from = to,
            None => return Ok(true),
        }
        Ok(false)
    }

    /// Returns the disks to compare by node, and the number of those that cannot be.
    fn targets(&self) -> (BTreeMap<NodeId, Vec<Target>>, u64) {
        let now = Instant::now();
        let registry = self.core.registry();
        let responsive = registry.responsive(now);
        let (mut targets, mut skipped): (BTreeMap<_, Vec<_>>, _) = (BTreeMap::new(), 0);
        for view in registry.views(now) {
            for disk in view.member.disks.iter().filter(|disk| disk.is_present) {
                let reported = view.disks.iter().find(|reported| reported.disk == disk.id);
                let proves = reported.is_some_and(|reported| reported.state.proves_absence());
                if proves && responsive.contains(&view.node) {
                    let target = Target { node: view.node, disk: disk.id, number: disk.number };
                    targets.entry(view.node).or_default().push(target);
                } else {
                    skipped += 1;
                }
            }
        }
        (targets, skipped)
    }

    /// Returns the disks whose digests differ from those of the records.
    async fn different(
        &self,
        targets: &BTreeMap<NodeId, Vec<Target>>,
        cycle: u64,
        window: &window::Window,
        report: &mut CheckReport,
    ) -> Vec<Target> {
        let range = window.range;
        let ask = async |node: NodeId| {
            let found = calls::inventory(&self.core, &self.lease, node, cycle, range).await;
            (node, found)
        };
        let asked: Vec<BoxFuture<'_, _>> = targets.keys().map(|node| ask(*node).boxed()).collect();
        let mut asked = stream::iter(asked).buffer_unordered(NODES_AT_ONCE);
        let mut different = Vec::new();
        while let Some((node, found)) = asked.next().await {
            let targets = &targets[&node];
            let found = match found {
                Ok(found) => found,
                Err(failure) => {
                    debug!(%node, %failure, "the disks of a node could not be compared");
                    report.skipped += targets.len() as u64;
                    continue;
                }
            };
            for target in targets {
                let expected = window.disks.get(&target.number).copied().unwrap_or_default();
                match found.get(&target.disk) {
                    None => report.skipped += 1,
                    Some(digest) if *digest == expected => report.compared += 1,
                    Some(_) => different.push(*target),
                }
            }
        }
        different.sort_unstable();
        different
    }

    fn finish(&mut self, cycle: Cycle) {
        let now = Instant::now();
        let took = now - cycle.began;
        let report = cycle.report;
        if report.is_whole() {
            crate::lock(&self.orphans).end_cycle(cycle.number);
        }
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
        self.due = now + self.core.settings.reconcile_interval();
        self.resting_until = now + took * REST_FACTOR;
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
        self.settle_returning(now).await;
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
            Ok(true) => self.finish(cycle),
            // The same window again, after a pause.
            result => {
                self.cycle = Some(cycle);
                result?;
            }
        }
        Ok(Next::Again)
    }
}
