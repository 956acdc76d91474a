//! How far the scrub is, for heartbeats and metrics.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dfs_types::{DiskId, DiskScrub};

/// The scrub of all disks, in the order of the store.
#[derive(Debug, Default)]
pub(crate) struct ScrubBoard(Mutex<Vec<(DiskId, DiskScrub)>>);

impl ScrubBoard {
    /// Returns the scrub of all disks; empty until it has started.
    pub(crate) fn disks(&self) -> Vec<(DiskId, DiskScrub)> {
        self.lock().clone()
    }

    pub(crate) fn set_disks(&self, disks: &[DiskId], every: Option<Duration>) {
        let scrub = DiskScrub { every, ..DiskScrub::default() };
        *self.lock() = disks.iter().map(|disk| (*disk, scrub)).collect();
    }

    pub(crate) fn show(&self, disk: DiskId, scrub: DiskScrub) {
        if let Some((_, shown)) = self.lock().iter_mut().find(|(shown, _)| *shown == disk) {
            *shown = scrub;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(DiskId, DiskScrub)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
