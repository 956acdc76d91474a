//! Raises the write level of the cluster once every member reads it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use dfs_metadata::engine::lease::LeaseGrant;
use dfs_metadata::namespace::{CoordinatorSightings, UpgradeStep};
use dfs_types::Scope;
use dfs_workers::{Handle, Next, Spec, UPGRADE, Worker};
use tokio::time::Instant;

use super::WORKER_LEASE;
use crate::Error;
use crate::core::Core;

/// Interval of checking whether the level has to be raised.
const CHECK_EVERY: Duration = Duration::from_secs(2);

/// The worker. Finishes or undoes what an earlier holder of the lease began.
pub(crate) struct Upgrade {
    core: Arc<Core>,
    lease: LeaseGrant,
    handle: Arc<Handle>,
    sightings: CoordinatorSightings,
}

impl Upgrade {
    pub(crate) fn new(core: Arc<Core>, lease: LeaseGrant, handle: Arc<Handle>) -> Self {
        Self { core, lease, handle, sightings: CoordinatorSightings::default() }
    }
}

#[async_trait]
impl Worker for Upgrade {
    const SPEC: Spec = UPGRADE;

    type Error = Error;

    async fn step(&mut self) -> Result<Next, Error> {
        let Self { core, lease, handle, sightings } = self;
        let always = core.settings.finalize_upgrades.then_some(core.settings.level);
        let fence = lease.fence(WORKER_LEASE);
        let (scope, now) = (Scope::internal(), Instant::now());
        let step = core.namespace.step_upgrade(scope, sightings, now, always, Some(&fence)).await;
        match step.map_err(Error::metadata("raising the write level"))? {
            UpgradeStep::Changed => {
                handle.add_done(1);
                Ok(Next::Again)
            }
            UpgradeStep::Idle => {
                handle.set_detail(format!("level {}", core.namespace.written_level()));
                Ok(Next::After(CHECK_EVERY))
            }
        }
    }
}
