//! Stamps: what tells the replicas of a chunk apart.

use std::sync::atomic::{AtomicU64, Ordering};

use dfs_types::{PlantedBug, Stamp};

use crate::identity::COUNTER_BITS;

/// Stamps of one run of the store: the number of the life in the high bits, a counter in the low
/// ones. The number is increased durably on every disk before the first stamp of that life is
/// issued, so that no two replicas ever share one, regardless of clocks, crashes and deletions.
#[derive(Debug)]
pub(super) struct Stamps(AtomicU64);

impl Stamps {
    pub(super) fn new(starts: u64) -> Self {
        Self(AtomicU64::new(starts << COUNTER_BITS))
    }

    /// Raises the high part to that of a later start, which is durable on every disk that takes
    /// chunks.
    pub(super) fn raise(&self, start: u64) {
        self.0.fetch_max(start << COUNTER_BITS, Ordering::Relaxed);
    }

    pub(super) fn next(&self) -> Stamp {
        if PlantedBug::RepeatedStamp.is_planted() {
            return Stamp(1);
        }
        Stamp(self.next_number())
    }

    /// Returns the next number of the counter, for other uses than a stamp.
    pub(super) fn next_number(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}
