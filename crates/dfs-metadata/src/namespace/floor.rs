//! The floor below which a collector may judge chunks.

use dfs_types::{ChunkId, Timestamp};

use super::Namespace;
use crate::Error;
use crate::engine::Condition;

impl Namespace {
    /// The lowest chunk id that a commit may still bring in.
    pub async fn gc_floor(&self) -> Result<ChunkId, Error> {
        todo!()
    }

    /// Raises the floor to everything planned before `time`; never lowers it. Uploads planned
    /// earlier and neither staged nor confirmed are refused from now on.
    pub async fn raise_gc_floor(
        &self,
        time: Timestamp,
        fence: Option<&Condition>,
    ) -> Result<ChunkId, Error> {
        let _ = (time, fence);
        todo!()
    }

    /// Removes tombstones below the floor whose copies are all deleted, looking at `limit` chunks
    /// after `after`. Returns where to go on; `None` at the floor.
    pub async fn sweep_tombstones(
        &self,
        after: Option<ChunkId>,
        limit: usize,
        fence: Option<&Condition>,
    ) -> Result<Option<ChunkId>, Error> {
        let _ = (after, limit, fence);
        todo!()
    }
}
