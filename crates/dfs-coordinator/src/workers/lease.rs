//! The lease that the workers run under.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use dfs_metadata::engine::LeaseGrant;
use dfs_workers::{Control, Lease};

use crate::Error;
use crate::core::Core;

/// Name of the lease whose holder does the background work.
pub(crate) const WORKER_LEASE: &str = dfs_metadata::lease::WORKERS;

/// Whether this coordinator holds the lease, for those who watch.
#[derive(Debug, Default)]
pub(crate) struct LeaseState(Mutex<Option<LeaseGrant>>);

impl LeaseState {
    /// The grant, while it is held.
    pub(crate) fn grant(&self) -> Option<LeaseGrant> {
        *crate::lock(&self.0)
    }
}

/// The lease as this coordinator asks for it.
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
        let holder = self.core.background.holder();
        let granted = self.core.engine.lease(WORKER_LEASE, holder, self.ttl()).await;
        granted.map_err(|error| Error::metadata("asking for the worker lease")(error.into()))
    }

    async fn controls(&self) -> Result<Vec<(String, Control)>, Error> {
        Ok(Vec::new())
    }

    fn set_grant(&self, grant: Option<LeaseGrant>) {
        *crate::lock(&self.core.background.lease.0) = grant;
    }
}
