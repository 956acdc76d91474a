//! Reaps unlinked inodes, expired uploads, and replies kept for old clients.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use dfs_metadata::engine::lease::LeaseGrant;
use dfs_metadata::namespace::{FLOOR_MARGIN, PLAN_LIFETIME, ReapLimits, Reaped, Unreadable};
use dfs_types::{ChunkId, NodeState, Scope};
use dfs_workers::{Handle, Next, REAPER, Spec, Worker};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{DELETION_HELD, WORKER_LEASE};
use crate::Error;
use crate::core::Core;
use crate::node_liveness::View;
use crate::unreadable::UnreadableRecords;

/// Unlinked inodes, or uploads, per step.
const ITEMS_MAX: usize = 256;
/// Replies of slots, or chunks, considered per step of a sweep.
const SWEEP_LEN: usize = 90;
/// Interval of sweeps over uploads and slots.
const UPKEEP_EVERY: Duration = Duration::from_mins(1);
/// Interval of sweeps for tombstones old enough to be removed.
const TOMBSTONES_EVERY: Duration = Duration::from_hours(1);
/// Pause between the steps of such a sweep, to limit its load.
const TOMBSTONES_PAUSE: Duration = Duration::from_millis(20);
/// Time for which a writer refused for lack of space counts as pressure. Longer than the reaper
/// takes to free space, and nodes to report it.
const REFUSAL_COUNTS_FOR: Duration = Duration::from_mins(1);

/// The worker.
pub(crate) struct Reaper {
    core: Arc<Core>,
    lease: LeaseGrant,
    handle: Arc<Handle>,
    next_upkeep: Instant,
    tombstones: Tombstones,
    /// Records that the last round could not read.
    unreadable: UnreadableRecords,
}

/// The sweep for tombstones.
enum Tombstones {
    /// The next one begins then, if anything was reaped meanwhile.
    Wait { until: Instant, is_needed: bool },
    /// In progress.
    After(Option<ChunkId>),
}

impl Reaper {
    pub(crate) fn new(core: Arc<Core>, lease: LeaseGrant, handle: Arc<Handle>) -> Self {
        let now = Instant::now();
        Self {
            core,
            lease,
            handle,
            next_upkeep: now,
            // Earlier holders of the lease may have left some.
            tombstones: Tombstones::Wait { until: now + UPKEEP_EVERY, is_needed: true },
            unreadable: UnreadableRecords::default(),
        }
    }

    fn is_under_pressure(&self) -> bool {
        let now = Instant::now();
        let views = self.core.registry().views(now);
        let refused = self.core.background.no_space_since(now);
        is_under_pressure(&views, self.core.settings.pressure_percent, refused)
    }

    /// Publishes the result of a step. Returns whether there is more to do.
    fn take(&mut self, reaped: &Reaped) -> bool {
        self.core.background.reaped(reaped.tombstones);
        self.handle.add_done(reaped.finished as u64);
        if let Tombstones::Wait { is_needed, .. } = &mut self.tombstones {
            *is_needed |= reaped.tombstones > 0;
        }
        if reaped.finished > 0 {
            debug!(finished = reaped.finished, tombstones = reaped.tombstones, "reaped");
        }
        reaped.has_more
    }

    /// Publishes the records that cannot be reaped; logs each once.
    fn publish_unreadable(&mut self, reaped: &Reaped) {
        let mut records = UnreadableRecords::default();
        reaped.unreadable.iter().cloned().for_each(|record| records.add(record));
        if records != self.unreadable {
            for Unreadable { key, why } in &reaped.unreadable {
                warn!(key, why, "an unlinked file cannot be reaped; it is skipped");
            }
            self.core.background.set_unreaped(records.clone());
            self.unreadable = records;
        }
    }

    async fn upkeep(&mut self) -> Result<bool, Error> {
        let fence = self.lease.fence(WORKER_LEASE);
        let limits = ReapLimits { items: ITEMS_MAX, pressure: false };
        let reaped =
            self.core.namespace.reap_uploads(Scope::internal(), &limits, Some(&fence)).await;
        let reaped = reaped.map_err(Error::metadata("reaping expired uploads"))?;
        let mut has_more = self.take(&reaped);
        let swept =
            self.core.namespace.sweep_slots(Scope::internal(), SWEEP_LEN, Some(&fence)).await;
        has_more |= swept.map_err(Error::metadata("removing replies kept for old clients"))?;
        if !has_more {
            self.next_upkeep = Instant::now() + UPKEEP_EVERY;
        }
        Ok(has_more)
    }

    /// Takes one step of the sweep for tombstones. Returns whether it continues.
    async fn sweep(&mut self) -> Result<bool, Error> {
        let namespace = &self.core.namespace;
        let fence = self.lease.fence(WORKER_LEASE);
        let now = Instant::now();
        let after = match self.tombstones {
            Tombstones::Wait { until, is_needed } if until <= now && is_needed => {
                let Some(now) = namespace.confirmed_now() else { return Ok(false) };
                let floor = now.minus(PLAN_LIFETIME + FLOOR_MARGIN);
                let raised = namespace.raise_gc_floor(Scope::internal(), floor, Some(&fence)).await;
                raised.map_err(Error::metadata("raising the garbage collection floor"))?;
                None
            }
            Tombstones::Wait { .. } => return Ok(false),
            Tombstones::After(after) => after,
        };
        let swept =
            namespace.sweep_tombstones(Scope::internal(), after, SWEEP_LEN, Some(&fence)).await;
        let next = swept.map_err(Error::metadata("removing tombstones"))?;
        self.tombstones = match next {
            Some(next) => Tombstones::After(Some(next)),
            // Those above the floor, or with replicas not deleted yet, are left to the next sweep.
            None => Tombstones::Wait { until: now + TOMBSTONES_EVERY, is_needed: true },
        };
        Ok(next.is_some())
    }
}

/// Returns whether space is so short that deleted files are not kept: a node that would take chunks
/// is full, or `percent` of all their bytes are in use, or a writer was recently refused. Nodes
/// that are lost, or take no chunks, do not count.
fn is_under_pressure(views: &[View], percent: u8, refused: Option<Duration>) -> bool {
    if refused.is_some_and(|ago| ago <= REFUSAL_COUNTS_FOR) {
        return true;
    }
    let taking = || views.iter().filter(|view| view.last_heard.is_some() && view.capacity > 0);
    if taking().any(|view| view.is_full && view.state == NodeState::Active) {
        return true;
    }
    // A suspect node still has its space.
    let counted =
        || taking().filter(|view| matches!(view.state, NodeState::Active | NodeState::Suspect));
    let capacity: u128 = counted().map(|view| u128::from(view.capacity)).sum();
    let free: u128 = counted().map(|view| u128::from(view.free)).sum();
    capacity > 0 && capacity.saturating_sub(free) * 100 >= capacity * u128::from(percent)
}

#[async_trait]
impl Worker for Reaper {
    const SPEC: Spec = REAPER;

    type Error = Error;

    async fn step(&mut self) -> Result<Next, Error> {
        // Observes the clock, so that the time is confirmed when it is needed.
        self.core.namespace.confirmed_now();
        let may_delete = self.core.namespace.may_delete().await;
        if !may_delete.map_err(Error::metadata("reading whether anything may be deleted"))? {
            self.handle.set_detail(DELETION_HELD);
            return Ok(Next::After(self.core.settings.heartbeat_interval()));
        }
        let pressure = self.is_under_pressure();
        let limits = ReapLimits { items: ITEMS_MAX, pressure };
        let fence = self.lease.fence(WORKER_LEASE);
        let reaped = self.core.namespace.reap(Scope::internal(), &limits, Some(&fence)).await;
        let reaped = reaped.map_err(Error::metadata("reaping unlinked inodes"))?;
        let mut has_more = self.take(&reaped);
        self.publish_unreadable(&reaped);
        let aborted = self.core.background.take_upload_aborted();
        if aborted || self.next_upkeep <= Instant::now() {
            has_more |= self.upkeep().await?;
        }
        let is_sweeping = self.sweep().await?;
        self.handle.set_detail(match (pressure, has_more || is_sweeping) {
            (true, _) => "reaping without delay: the cluster is nearly full",
            (false, true) => "reaps",
            (false, false) => "nothing is due",
        });
        Ok(match (has_more, is_sweeping) {
            (true, _) => Next::Again,
            (false, true) => Next::After(TOMBSTONES_PAUSE),
            (false, false) => Next::After(self.core.settings.heartbeat_interval()),
        })
    }
}

#[cfg(test)]
mod tests;
