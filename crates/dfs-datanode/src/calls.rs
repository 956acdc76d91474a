//! Bounds of the calls that are neither reads nor writes of chunks.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Error;

/// Listings at the same time.
const LISTINGS_MAX: usize = 16;
/// Orders to delete at the same time.
const DELETIONS_MAX: usize = 16;
/// Reports of bad blocks at the same time.
const REPORTS_MAX: usize = 64;

/// The calls of one kind that may run at the same time. None waits for another one.
pub(crate) struct CallLimit {
    what: &'static str,
    free: Arc<Semaphore>,
}

impl CallLimit {
    fn new(what: &'static str, max: usize) -> Self {
        Self { what, free: Arc::new(Semaphore::new(max)) }
    }

    /// Enters a call, which ends when the permit is dropped. `Busy` beyond the bound.
    pub(crate) fn enter(&self) -> Result<OwnedSemaphorePermit, Error> {
        self.free.clone().try_acquire_owned().map_err(|_| Error::Busy(self.what))
    }
}

/// The bounds of each kind of call.
pub(crate) struct CallLimits {
    pub(crate) listings: CallLimit,
    pub(crate) deletions: CallLimit,
    pub(crate) reports: CallLimit,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self {
            listings: CallLimit::new("listings", LISTINGS_MAX),
            deletions: CallLimit::new("orders to delete", DELETIONS_MAX),
            reports: CallLimit::new("reports of bad blocks", REPORTS_MAX),
        }
    }
}
