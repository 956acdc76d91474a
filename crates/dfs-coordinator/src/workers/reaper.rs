//! Gives back what was unlinked, what was never finished, and what is kept of clients long gone.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dfs_metadata::engine::LeaseGrant;
use dfs_metadata::namespace::{ReapLimits, Reaped, Unreadable};
use dfs_types::{ChunkId, NodeState, Scope};
use dfs_workers::{Handle, Next, REAPER, Spec, Worker};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{UnreadableRecords, WORKER_LEASE};
use crate::Error;
use crate::core::Core;
use crate::registry::View;
use crate::service::PLAN_LIFETIME;

/// Unlinked things, or uploads, that one step takes.
const ITEMS_MAX: usize = 256;
/// Answers of slots, or chunks, that one step of a sweep looks at.
const SWEEP_LEN: usize = 90;
/// How often uploads and slots are looked through.
const UPKEEP_EVERY: Duration = Duration::from_mins(1);
/// How often tombstones are looked for that became old enough to be removed.
const TOMBSTONES_EVERY: Duration = Duration::from_hours(1);
/// Pause between the steps of that round, so that it is not felt.
const TOMBSTONES_PAUSE: Duration = Duration::from_millis(20);
/// How long a writer that was refused for want of room counts as pressure. Longer than a reaper
/// takes to give room back, and nodes to tell of it.
const REFUSAL_COUNTS_FOR: Duration = Duration::from_mins(1);
/// How much older than any plan that is still honoured the floor stays.
const FLOOR_MARGIN: Duration = Duration::from_mins(10);

/// The worker.
pub(crate) struct Reaper {
    core: Arc<Core>,
    lease: LeaseGrant,
    handle: Arc<Handle>,
    next_upkeep: Instant,
    tombstones: Tombstones,
    /// What the last round could not read.
    unreadable: UnreadableRecords,
}

/// The look for tombstones.
enum Tombstones {
    /// The next one begins then, if anything was reaped meanwhile.
    Wait { until: Instant, is_needed: bool },
    /// Under way.
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

    /// Hands on what was reaped. Whether there is more.
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

    /// Names what cannot be reaped, each record once in the log.
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
        let reaped = reaped.map_err(Error::metadata("reaping uploads that were given up"))?;
        let mut has_more = self.take(&reaped);
        let swept =
            self.core.namespace.sweep_slots(Scope::internal(), SWEEP_LEN, Some(&fence)).await;
        has_more |= swept.map_err(Error::metadata("forgetting clients that are gone"))?;
        if !has_more {
            self.next_upkeep = Instant::now() + UPKEEP_EVERY;
        }
        Ok(has_more)
    }

    /// One step of the look for tombstones. Whether it goes on.
    async fn sweep(&mut self) -> Result<bool, Error> {
        let namespace = &self.core.namespace;
        let fence = self.lease.fence(WORKER_LEASE);
        let now = Instant::now();
        let after = match self.tombstones {
            Tombstones::Wait { until, is_needed } if until <= now && is_needed => {
                let floor = self.core.clock.now().minus(PLAN_LIFETIME + FLOOR_MARGIN);
                let raised = namespace.raise_gc_floor(Scope::internal(), floor, Some(&fence)).await;
                raised.map_err(Error::metadata("raising the floor of the collector"))?;
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
            // Those whose replicas are not deleted yet, or above the floor, are for the next round.
            None => Tombstones::Wait { until: now + TOMBSTONES_EVERY, is_needed: true },
        };
        Ok(next.is_some())
    }
}

/// Whether so little room is left that nothing deleted is kept: a node that would take chunks is
/// full, or `percent` of all their bytes are in use, or a writer was refused room not long ago.
/// Nodes that are lost, or take no chunks, have no room to count.
fn is_under_pressure(views: &[View], percent: u8, refused: Option<Duration>) -> bool {
    if refused.is_some_and(|ago| ago <= REFUSAL_COUNTS_FOR) {
        return true;
    }
    let taking = || views.iter().filter(|view| view.last_heard.is_some() && view.capacity > 0);
    if taking().any(|view| view.is_full && view.state == NodeState::Active) {
        return true;
    }
    // A node that was missed a moment ago still has what it had.
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
        let pressure = self.is_under_pressure();
        let limits = ReapLimits { items: ITEMS_MAX, pressure };
        let fence = self.lease.fence(WORKER_LEASE);
        let reaped = self.core.namespace.reap(Scope::internal(), &limits, Some(&fence)).await;
        let reaped = reaped.map_err(Error::metadata("reaping what was unlinked"))?;
        let mut has_more = self.take(&reaped);
        self.publish_unreadable(&reaped);
        let aborted = self.core.background.take_upload_aborted();
        if aborted || self.next_upkeep <= Instant::now() {
            has_more |= self.upkeep().await?;
        }
        let is_sweeping = self.sweep().await?;
        self.handle.set_detail(match (pressure, has_more || is_sweeping) {
            (true, _) => "gives back at once: the cluster is nearly full",
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
