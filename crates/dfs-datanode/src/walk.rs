//! Walks over the replicas in the store.

use dfs_chunkstore::{SealedChunk, StoreError};
use dfs_types::ChunkId;

use crate::node::Node;

/// Replicas read in one step.
const STEP: usize = 1_000;

/// A range of chunks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChunkRange {
    pub(crate) from: ChunkId,
    /// Exclusive; `None` for no end.
    pub(crate) to: Option<ChunkId>,
}

impl ChunkRange {
    /// All chunks.
    pub(crate) const ALL: Self = Self { from: ChunkId::MIN, to: None };

    fn contains(self, chunk: ChunkId) -> bool {
        chunk >= self.from && self.to.is_none_or(|to| chunk < to)
    }
}

/// A walk over the replicas in a range.
pub(crate) struct Walk<'a> {
    node: &'a Node,
    range: ChunkRange,
    /// The last chunk read.
    after: Option<ChunkId>,
    is_over: bool,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(node: &'a Node, range: ChunkRange) -> Self {
        let after = range.from.0.checked_sub(1).map(ChunkId);
        Self { node, range, after, is_over: false }
    }

    /// Returns the next replicas; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<SealedChunk>>, StoreError> {
        if self.is_over {
            return Ok(None);
        }
        let mut found = self.node.store.list(self.after, STEP).await?;
        // A page may have any length but 0 before the end.
        let last = found.last().map(|replica| replica.chunk);
        found.retain(|replica| self.range.contains(replica.chunk));
        self.is_over = !last.is_some_and(|last| self.range.contains(last));
        self.after = last;
        Ok(Some(found))
    }
}
