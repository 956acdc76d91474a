//! What the services and the background work tell each other.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dfs_types::{DiskNumber, Revision};
use dfs_workers::{Handles, Place};
use tokio::time::Instant;

use super::{LeaseState, ReplicationCounts, UnreadableRecords};

/// Shared by all, and kept while workers come and go with the lease.
#[derive(Debug)]
pub(crate) struct Background {
    /// Where others reach this coordinator.
    address: String,
    pub(crate) lease: Arc<LeaseState>,
    pub(crate) workers: Handles,
    /// Held by whoever changes what is set for a worker, so that what is stored last holds.
    pub(crate) setting: tokio::sync::Mutex<()>,
    /// Chunks reaped since repair asked last.
    reaped: AtomicU64,
    /// An upload was aborted since the reaper asked last.
    upload_aborted: AtomicBool,
    health: Mutex<Option<Health>>,
    /// Records that the reaper could not read in its last round.
    unreaped: Mutex<UnreadableRecords>,
    /// When a writer was last refused for want of room.
    no_space: Mutex<Option<Instant>>,
}

/// How the chunks are, as repair sees it.
#[derive(Debug)]
pub(crate) struct Health {
    pub(crate) counts: ReplicationCounts,
    /// Chunks in repair now.
    pub(crate) repairing: u64,
    /// Disks whose replicas are not counted.
    pub(crate) lost: BTreeSet<DiskNumber>,
    /// Chunk records that cannot be read.
    pub(crate) unreadable: UnreadableRecords,
    /// Changes of chunks up to this revision are in it.
    pub(crate) seen: Revision,
}

impl Background {
    pub(crate) fn new(address: String) -> Self {
        Self {
            address,
            lease: Arc::default(),
            workers: Handles::new(Place::Lease),
            setting: tokio::sync::Mutex::default(),
            reaped: AtomicU64::default(),
            upload_aborted: AtomicBool::default(),
            health: Mutex::default(),
            unreaped: Mutex::default(),
            no_space: Mutex::default(),
        }
    }

    /// The address of this coordinator while it runs the background work, else empty.
    pub(crate) fn lease_holder(&self) -> String {
        self.lease.grant().map(|_| self.address.clone()).unwrap_or_default()
    }

    /// Takes over how many chunks became tombstones.
    pub(crate) fn reaped(&self, chunks: usize) {
        self.reaped.fetch_add(chunks as u64, Ordering::Relaxed);
    }

    /// Publishes what the reaper could not read.
    pub(crate) fn set_unreaped(&self, records: UnreadableRecords) {
        *crate::lock(&self.unreaped) = records;
    }

    /// How many chunks were reaped since this was asked last.
    pub(crate) fn take_reaped(&self) -> u64 {
        self.reaped.swap(0, Ordering::Relaxed)
    }

    /// An upload was aborted: the reaper need not wait until it looks for expired ones.
    pub(crate) fn upload_aborted(&self) {
        self.upload_aborted.store(true, Ordering::Relaxed);
    }

    /// Whether one was since this was asked last.
    pub(crate) fn take_upload_aborted(&self) -> bool {
        self.upload_aborted.swap(false, Ordering::Relaxed)
    }

    /// A writer was refused for want of room.
    pub(crate) fn refused_room(&self, now: Instant) {
        *crate::lock(&self.no_space) = Some(now);
    }

    /// How long ago that was, if ever.
    pub(crate) fn no_space_since(&self, now: Instant) -> Option<Duration> {
        crate::lock(&self.no_space).map(|at| now.saturating_duration_since(at))
    }

    /// Publishes how the chunks are; `None` while that is not known.
    pub(crate) fn set_health(&self, health: Option<Health>) {
        *crate::lock(&self.health) = health;
    }

    /// How the chunks are, and how many are in repair, with all that happened to them up to
    /// `least`; `None` when this coordinator does not know (yet). `lost` is what is lost now.
    pub(crate) fn counts(
        &self,
        lost: &BTreeSet<DiskNumber>,
        least: Revision,
    ) -> Option<(ReplicationCounts, u64, UnreadableRecords)> {
        self.lease.grant()?;
        let health = crate::lock(&self.health);
        let health = health.as_ref();
        let health = health.filter(|health| health.lost == *lost && health.seen >= least)?;
        let mut unreadable = health.unreadable.clone();
        unreadable.extend(&crate::lock(&self.unreaped));
        Some((health.counts, health.repairing, unreadable))
    }
}
