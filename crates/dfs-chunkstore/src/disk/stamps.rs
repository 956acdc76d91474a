//! Stamps: what tells the replicas of a chunk apart.

use std::sync::atomic::{AtomicU64, Ordering};

use dfs_types::Stamp;

/// Stamps of one run of the store: the number of the life in the high bits, a counter in the low
/// ones. The number is increased durably on every disk before the first stamp of that life is
/// issued, so that no two replicas ever share one, regardless of clocks, crashes and deletions.
#[derive(Debug)]
pub(super) struct Stamps(AtomicU64);

/// Bits of a stamp that count the replicas of one life.
const STAMP_COUNTER_BITS: u32 = 40;

impl Stamps {
    pub(super) fn new(starts: u64) -> Self {
        Self(AtomicU64::new(starts << STAMP_COUNTER_BITS))
    }

    pub(super) fn next(&self) -> Stamp {
        Stamp(self.0.fetch_add(1, Ordering::Relaxed))
    }
}
