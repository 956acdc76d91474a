//! The background work of the cluster, done by whichever coordinator holds the worker lease.

mod background;
mod deletion;
mod orders;
mod reaper;
mod repair;
mod supervisor;
mod throttle;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use dfs_metadata::engine::LeaseGrant;

pub(crate) use background::{Background, Health};
pub(crate) use deletion::Delete;
pub(crate) use deletion::queue::{Deletions, ReplicaToDelete};
pub(crate) use reaper::Reaper;
pub(crate) use repair::Repair;
pub(crate) use repair::queue::{ChunkHealth, RepairQueue, ReplicationCounts};
pub(crate) use supervisor::{LeaseState, Supervisor};
pub(crate) use throttle::Throttle;

/// Name of the lease whose holder does the background work.
pub(crate) const WORKER_LEASE: &str = dfs_metadata::lease::WORKERS;

/// What a step says of the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// There is more to do now.
    Again,
    /// Nothing to do; look again after this time at the latest.
    After(Duration),
}

/// One kind of background work, made anew each time the lease is taken, so that nothing it
/// remembers is older than the lease.
///
/// Stopping is dropping: a step may be cut off at any await point. Its commits carry the fence of
/// the lease, and its orders the epoch, so that what comes late does no harm.
#[async_trait]
pub(crate) trait Worker: Send {
    /// Where it says how it is.
    fn progress(&self) -> &Progress;

    /// Does a bounded piece of work.
    async fn step(&mut self, lease: &LeaseGrant) -> Result<Next, crate::Error>;
}

/// How a worker is, for those who watch. Outlives the worker.
#[derive(Debug)]
pub(crate) struct Progress {
    name: &'static str,
    state: Mutex<String>,
    done: AtomicU64,
    failed: AtomicU64,
    queued: AtomicU64,
}

impl Progress {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            state: Mutex::new("waiting for the worker lease".to_owned()),
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            queued: AtomicU64::new(0),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// What it is doing, in a few words.
    pub(crate) fn state(&self) -> String {
        crate::lock(&self.state).clone()
    }

    pub(crate) fn set_state(&self, state: impl Into<String>) {
        *crate::lock(&self.state) = state.into();
    }

    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    pub(crate) fn add_done(&self, steps: u64) {
        self.done.fetch_add(steps, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    pub(crate) fn add_failed(&self, steps: u64) {
        self.failed.fetch_add(steps, Ordering::Relaxed);
    }

    pub(crate) fn queued(&self) -> u64 {
        self.queued.load(Ordering::Relaxed)
    }

    pub(crate) fn set_queued(&self, steps: u64) {
        self.queued.store(steps, Ordering::Relaxed);
    }
}
