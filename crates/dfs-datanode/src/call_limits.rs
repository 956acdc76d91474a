//! Concurrency limits of calls other than reads and writes of chunks.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Error;

/// Maximum number of concurrent listings.
const LISTINGS_MAX: usize = 16;
/// Maximum number of concurrent delete orders.
const DELETIONS_MAX: usize = 16;
/// Maximum number of concurrent reports of bad blocks.
const REPORTS_MAX: usize = 64;
/// Maximum number of concurrent orders to verify a replica.
const VERIFICATIONS_MAX: usize = 4;

/// Maximum number of replicas being adopted concurrently.
const ADOPTIONS_MAX: usize = 4;

/// Concurrency limit of one kind of call. Calls never wait.
pub(crate) struct CallLimit {
    what: &'static str,
    free: Arc<Semaphore>,
}

impl CallLimit {
    fn new(what: &'static str, max: usize) -> Self {
        Self { what, free: Arc::new(Semaphore::new(max)) }
    }

    /// Enters a call, which ends when the permit is dropped. `Busy` beyond the limit.
    pub(crate) fn enter(&self) -> Result<OwnedSemaphorePermit, Error> {
        self.free.clone().try_acquire_owned().map_err(|_| Error::Busy(self.what))
    }
}

/// The limits of each kind of call.
pub(crate) struct CallLimits {
    pub(crate) listings: CallLimit,
    pub(crate) deletions: CallLimit,
    pub(crate) reports: CallLimit,
    pub(crate) verifications: CallLimit,
    pub(crate) adoptions: CallLimit,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self {
            listings: CallLimit::new("listings", LISTINGS_MAX),
            deletions: CallLimit::new("delete orders", DELETIONS_MAX),
            reports: CallLimit::new("reports of bad blocks", REPORTS_MAX),
            verifications: CallLimit::new("replicas being verified", VERIFICATIONS_MAX),
            adoptions: CallLimit::new("replicas being adopted", ADOPTIONS_MAX),
        }
    }
}
