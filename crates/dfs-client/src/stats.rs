//! Counters of a client.

use std::sync::atomic::{AtomicU64, Ordering};

/// Events since the client was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Calls that were retried.
    pub retries: u64,
    /// Reads started on a second replica because the first was slow.
    pub hedges: u64,
    /// Reads that continued with another replica because one failed.
    pub failovers: u64,
    /// Blocks that did not match their checksum.
    pub corrupt_blocks: u64,
    /// Chunks that were replanned.
    pub replans: u64,
    /// Calls of datanodes that a coordinator relayed.
    pub relayed: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) retries: AtomicU64,
    pub(crate) hedges: AtomicU64,
    pub(crate) failovers: AtomicU64,
    pub(crate) corrupt_blocks: AtomicU64,
    pub(crate) replans: AtomicU64,
    pub(crate) relayed: AtomicU64,
}

impl Counters {
    pub(crate) fn read(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            retries: read(&self.retries),
            hedges: read(&self.hedges),
            failovers: read(&self.failovers),
            corrupt_blocks: read(&self.corrupt_blocks),
            replans: read(&self.replans),
            relayed: read(&self.relayed),
        }
    }
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
