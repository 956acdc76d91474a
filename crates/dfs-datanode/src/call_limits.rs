//! Concurrency limits of calls other than reads and writes of chunks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dfs_types::build_weight;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Error;

/// Maximum number of concurrent listings.
const LISTINGS_MAX: usize = 16;
/// Maximum number of concurrent delete orders.
const DELETIONS_MAX: usize = 16;
/// Maximum number of concurrent reports of bad blocks.
const REPORTS_MAX: usize = 64;
/// Maximum number of concurrent orders to verify a replica. Coordinators order fewer large ones.
const VERIFICATIONS_MAX: usize = 64;

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

/// Limit on replicas being built. A build may start while any part of the limit is free, whatever
/// its weight, so that many small ones do not delay a large one.
pub(crate) struct BuildLimit {
    max: u32,
    weight: Arc<AtomicU32>,
}

/// A build in progress, until this is dropped.
pub(crate) struct BuildPermit {
    own: u32,
    weight: Arc<AtomicU32>,
}

impl BuildLimit {
    /// Creates a limit of replicas of this weight at a time.
    pub(crate) fn new(max: u32) -> Self {
        Self { max, weight: Arc::default() }
    }

    /// Begins the build of a replica of this many bytes. Never waits; `Busy` at the limit.
    pub(crate) fn enter(&self, length: u64) -> Result<BuildPermit, Error> {
        let own = build_weight(length);
        let add = |weight: u32| (weight < self.max).then(|| weight.saturating_add(own));
        let added = self.weight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        added.map_err(|_| Error::Busy("replicas being built"))?;
        Ok(BuildPermit { own, weight: self.weight.clone() })
    }
}

impl Drop for BuildPermit {
    fn drop(&mut self) {
        self.weight.fetch_sub(self.own, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use dfs_types::BUILD_WEIGHT_MAX;

    use super::*;

    #[test]
    fn large_build_starts_while_small_ones_leave_any_room() {
        let builds = BuildLimit::new(BUILD_WEIGHT_MAX);
        let mut small: Vec<_> = (0..15).map(|_| builds.enter(1).unwrap()).collect();
        let large = builds.enter(64 << 20).unwrap();
        small.clear();
        assert!(builds.enter(1).is_err(), "one large one is the limit");
        drop(large);
        assert!(builds.enter(1).is_ok());
    }
}
