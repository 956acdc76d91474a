//! The lease of the workers.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dfs_metadata::Error::{Damaged, NewerRecord};
use dfs_metadata::engine::lease::LeaseGrant;

use dfs_metadata::namespace::WorkerControl;
use dfs_types::{Scope, with_causes};
use dfs_workers::{Control, Lease};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::Error;
use crate::core::Core;

/// Name of the lease whose holder does the background work.
pub(crate) const WORKER_LEASE: &str = dfs_metadata::engine::lease::WORKERS;

/// The lease as this coordinator requests it.
pub(crate) struct WorkerLease {
    core: Arc<Core>,
}

impl WorkerLease {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }
}

#[async_trait]
impl Lease for WorkerLease {
    type Grant = LeaseGrant;
    type Error = Error;

    fn ttl(&self) -> Duration {
        Duration::from_millis(self.core.settings.worker_lease_ms)
    }

    async fn request(&self) -> Result<Option<LeaseGrant>, Error> {
        // Not the address, which another coordinator may share: a holder that asks again gets its
        // own lease.
        let holder = self.core.this.id.to_string();
        let namespace = &self.core.namespace;
        let granted = namespace.lease(Scope::internal(), WORKER_LEASE, &holder, self.ttl()).await;
        granted.map_err(Error::metadata("requesting the worker lease"))
    }

    async fn controls(&self) -> Result<Vec<(String, Control)>, Error> {
        let mut controls = Vec::new();
        for handle in self.core.background.workers.iter() {
            let name = handle.spec().name;
            let read = self.core.namespace.worker_control(Scope::internal(), name).await;
            match read {
                Ok(stored) => controls.push((name.to_owned(), control(&self.core, &stored))),
                // A single unreadable record does not stop background work.
                Err(error @ (Damaged { .. } | NewerRecord { .. })) => {
                    let error = with_causes(&error);
                    warn!(worker = name, error, "the settings of a worker are ignored");
                }
                Err(error) => {
                    return Err(Error::metadata("reading the settings of workers")(error));
                }
            }
        }
        Ok(controls)
    }

    fn set_grant(&self, grant: Option<LeaseGrant>) {
        if let Some(LeaseGrant { epoch, .. }) = grant {
            info!(epoch = epoch.0, "holds the worker lease");
        }
        self.core.background.lease.set(grant);
    }
}

/// Converts a worker's settings to this process's monotonic clock.
pub(crate) fn control(core: &Core, stored: &WorkerControl) -> Control {
    let left = stored.pause_left(core.clock.now());
    let paused_until = left.map(|left| Instant::now() + left);
    Control { paused_until, rate: stored.rate, request: stored.request }
}
