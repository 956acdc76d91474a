//! Following changes of chunks, by any coordinator.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use dfs_types::{Access, ChunkId, Level, Revision, Scope};

use super::{Chunk, Namespace, Unreadable};
use crate::codec::Record as _;
use crate::engine::Watch;
use crate::{Error, keys};

/// A chunk whose record was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkChange {
    /// The chunk.
    pub chunk: ChunkId,
    /// New record; `None` when it was removed.
    pub record: Result<Option<Chunk>, Unreadable>,
    /// Revision of the commit.
    pub revision: Revision,
}

/// Changes of all chunks since a revision, in commit order.
pub struct ChunkChanges {
    watch: Box<dyn Watch>,
    newest: Level,
    from: Revision,
}

impl Namespace {
    /// Follows changes of all chunks from now on.
    pub async fn chunk_changes(&self, scope: &Scope) -> Result<ChunkChanges, Error> {
        scope.require(Access::Admin)?;
        let engine = &self.inner.components.engine;
        let from = engine.snapshot().await?.revision();
        let prefix = Bytes::from_static(keys::CHUNKS);
        Ok(ChunkChanges {
            watch: engine.watch(prefix, from).await?,
            newest: self.inner.options.level,
            from,
        })
    }

    /// Revision of the last commit of this process that changed a chunk.
    pub fn chunks_changed_at(&self) -> Revision {
        Revision(self.inner.chunks_changed_at.load(Ordering::Relaxed))
    }
}

impl ChunkChanges {
    /// Revision after which changes are reported.
    pub fn from(&self) -> Revision {
        self.from
    }

    /// Waits for the next change. Cancel-safe. After an error, changes may be missing.
    pub async fn next(&mut self) -> Result<ChunkChange, Error> {
        loop {
            let change = self.watch.next().await?;
            // The next scan reports an invalid key.
            let Some(chunk) = keys::chunk_id(&change.key) else { continue };
            let decode = |value: Bytes| Chunk::decode(&change.key, &value, self.newest);
            let record = change.value.map(decode).transpose();
            let record = record.map_err(|error| Unreadable::new(&change.key, &error));
            return Ok(ChunkChange { chunk, record, revision: change.revision });
        }
    }
}
