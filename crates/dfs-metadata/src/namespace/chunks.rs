//! The records of chunks, for those who keep their copies well.

use dfs_types::{ChunkId, Generation, NodeId, Receipt, Revision, Stamp};

use super::{Chunk, Namespace};
use crate::Error;
use crate::engine::Condition;

/// Some chunks in id order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkPage {
    /// Of the snapshot.
    pub revision: Revision,
    /// The chunks, tombstones included.
    pub chunks: Vec<(ChunkId, Chunk)>,
    /// Whether there are more after the last of these.
    pub has_more: bool,
}

/// Names a copy of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CopyId {
    /// The node.
    pub node: NodeId,
    /// Which copy there.
    pub stamp: Stamp,
}

impl Namespace {
    /// Chunks with ids greater than `after`, at most `limit` and [`Self::PAGE_LEN_MAX`].
    pub async fn scan_chunks(
        &self,
        after: Option<ChunkId>,
        limit: usize,
    ) -> Result<ChunkPage, Error> {
        let _ = (after, limit);
        todo!()
    }

    /// The records of these chunks, in this order; `None` for those without.
    pub async fn chunks(&self, ids: &[ChunkId]) -> Result<Vec<Option<Chunk>>, Error> {
        let _ = ids;
        todo!()
    }

    /// Adds copies that nodes vouch for and removes others, in one commit, provided that the
    /// record is still of `generation` and `fence` holds. Returns the new record.
    ///
    /// Refuses to leave the chunk without a good copy, forged receipts, and nodes that do not
    /// take part.
    pub async fn swap_copies(
        &self,
        chunk: ChunkId,
        generation: Generation,
        add: &[Receipt],
        remove: &[CopyId],
        fence: Option<&Condition>,
    ) -> Result<Chunk, Error> {
        let _ = (chunk, generation, add, remove, fence);
        todo!()
    }

    /// Notes that a copy is bad or gone. Returns the record, or `None` when there is no such copy
    /// (any more); either way the copy is no longer counted.
    pub async fn mark_bad(&self, chunk: ChunkId, copy: CopyId) -> Result<Option<Chunk>, Error> {
        let _ = (chunk, copy);
        todo!()
    }

    /// Notes that copies of a tombstone were deleted. What a reaper returned and could not order
    /// stays in the tombstone until then, and is found by [`Self::scan_chunks`].
    pub async fn forget_copies(
        &self,
        chunk: ChunkId,
        copies: &[CopyId],
        fence: Option<&Condition>,
    ) -> Result<(), Error> {
        let _ = (chunk, copies, fence);
        todo!()
    }
}
