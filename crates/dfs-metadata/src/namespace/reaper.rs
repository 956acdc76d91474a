//! Taking apart what was unlinked, and uploads that were given up.

use dfs_types::{ChunkId, DiskId, NodeId, Stamp};

use super::Namespace;
use crate::Error;
use crate::engine::Condition;

/// How much one step may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReapLimits {
    /// Unlinked things, or uploads, to look at.
    pub items: usize,
    /// Also what could still be restored: space has run out.
    pub pressure: bool,
}

/// A copy that nothing refers to any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DoomedCopy {
    /// The chunk.
    pub chunk: ChunkId,
    /// The node.
    pub node: NodeId,
    /// The disk.
    pub disk: DiskId,
    /// Which copy.
    pub stamp: Stamp,
}

/// What a step has done. All of it is committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reaped {
    /// Copies whose deletion may be ordered now.
    pub copies: Vec<DoomedCopy>,
    /// Inodes and uploads taken apart to the end.
    pub finished: usize,
    /// Whether there is more to do at once.
    pub has_more: bool,
}

impl Namespace {
    /// Takes apart unlinked things whose time has come, the oldest first.
    pub async fn reap(
        &self,
        limits: &ReapLimits,
        fence: Option<&Condition>,
    ) -> Result<Reaped, Error> {
        let _ = (limits, fence);
        todo!()
    }

    /// Takes apart staged uploads that have expired.
    pub async fn reap_uploads(
        &self,
        limits: &ReapLimits,
        fence: Option<&Condition>,
    ) -> Result<Reaped, Error> {
        let _ = (limits, fence);
        todo!()
    }

    /// Forgets the answers kept for clients that were silent for [`Self::SLOTS_KEPT`], looking
    /// at `limit` answers at a time from the first after `after` on. Returns where to go on.
    pub async fn sweep_slots(&self, limit: usize) -> Result<bool, Error> {
        let _ = limit;
        todo!()
    }
}
