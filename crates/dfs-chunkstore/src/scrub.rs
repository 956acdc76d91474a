//! Reading everything on a disk: how far it is, and how fast it may be.

use async_trait::async_trait;
use dfs_types::{ChunkId, DiskId, WholePass};

use crate::StoreError;

/// How far the reading of a disk is. Stored on the disk itself.
///
/// A *pass* reads the replicas of a disk in the order of their chunks. Chunks are named in the order
/// in which they are planned, so a pass also reads most of what is written during it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScrubProgress {
    /// Number of the newest request for a pass that has been followed; 0 for none.
    pub request: u64,
    /// True if the pass was requested, and so reads as fast as it may.
    pub is_requested: bool,
    /// The last chunk whose replica was read; `None` at the beginning of a pass.
    pub after: Option<ChunkId>,
    /// Milliseconds for which the pass has been running, over all runs of the process.
    pub spent_ms: u64,
    /// Replicas read in the pass.
    pub replicas: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Replicas found bad, absent or unreadable in the pass.
    pub errors: u64,
    /// The last whole pass; `None` if there was none.
    pub last: Option<WholePass>,
}

/// Stores the progress of a scrub on each disk.
#[async_trait]
pub trait ScrubStore: Send + Sync + 'static {
    /// Returns the stored progress. Empty if there is none, or if it is damaged.
    async fn scrub_progress(&self, disk: DiskId) -> Result<ScrubProgress, StoreError>;

    /// Replaces the progress, durably. If the future is dropped, either may be found later.
    async fn store_scrub_progress(
        &self,
        disk: DiskId,
        progress: ScrubProgress,
    ) -> Result<(), StoreError>;
}

/// Decides how fast a replica is read.
#[async_trait]
pub trait ReadPace: Send + Sync {
    /// Waits until this many bytes may be read. Called before each read.
    async fn admit(&self, bytes: u64);
}

/// Reads without pauses.
#[derive(Debug, Clone, Copy)]
pub struct FullSpeed;

#[async_trait]
impl ReadPace for FullSpeed {
    async fn admit(&self, _bytes: u64) {}
}
