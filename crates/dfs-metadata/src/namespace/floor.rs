//! The floor below which a collector may judge chunks.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use dfs_types::{Access, ChunkId, Scope, Timestamp};

use super::chunks::with_id;
use super::transaction::{Attempt, Transaction};
use super::{Chunk, Namespace, TRIES};
use crate::engine::Condition;
use crate::records::setting::Floor;
use crate::{Error, keys};

impl Namespace {
    /// The lowest chunk id that a commit may still bring in.
    pub async fn gc_floor(&self, scope: &Scope) -> Result<ChunkId, Error> {
        scope.require(Access::Admin)?;
        let Floor(floor) = self.begin().await?.peek(&keys::FLOOR).await?.ok_or_else(no_floor)?;
        // Ids that are given out from now on lie above it.
        self.inner.floor_ms.fetch_max(floor.time().millis(), Ordering::Relaxed);
        Ok(floor)
    }

    /// Takes note of a floor that was raised beyond what this process knew, once an error shows
    /// it: what is planned next is not refused for the same reason.
    pub(super) async fn note_floor<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        if matches!(result, Err(Error::BelowFloor(_))) {
            self.gc_floor(Scope::internal()).await?;
        }
        result
    }

    /// Raises the floor to everything planned before `time`; never lowers it. Uploads planned
    /// earlier and neither staged nor confirmed are refused from now on.
    pub async fn raise_gc_floor(
        &self,
        scope: &Scope,
        time: Timestamp,
        fence: Option<&Condition>,
    ) -> Result<ChunkId, Error> {
        scope.require(Access::Admin)?;
        let wanted = ChunkId::floor(time);
        for tries in 0..TRIES {
            self.pause_before(tries).await;
            let mut tx = self.begin_fenced(fence).await?;
            let floor = tx.floor().await?;
            if wanted <= floor {
                return Ok(floor);
            }
            tx.put(keys::FLOOR, &Floor(wanted));
            if let Attempt::Committed(_) = self.commit(tx).await? {
                return Ok(wanted);
            }
        }
        Err(Error::Conflict { what: "the floor of the collector", tries: TRIES })
    }

    /// Removes tombstones below the floor whose replicas are all deleted, looking at `limit` chunks
    /// after `after`. Returns where to go on; `None` at the floor.
    pub async fn sweep_tombstones(
        &self,
        scope: &Scope,
        after: Option<ChunkId>,
        limit: usize,
        fence: Option<&Condition>,
    ) -> Result<Option<ChunkId>, Error> {
        scope.require(Access::Admin)?;
        let mut tx = self.begin_fenced(fence).await?;
        let floor = tx.floor().await?;
        let from = after.map_or_else(Bytes::new, keys::chunk);
        let limit = limit.clamp(1, SWEEP_MAX);
        let found = tx.range::<Chunk>(keys::CHUNKS, &from, limit).await?;
        let mut next = (found.len() == limit).then_some(ChunkId::MIN);
        for entry in found {
            let (chunk, record) = with_id(entry)?;
            if chunk >= floor {
                next = None;
                break;
            }
            next = next.map(|_| chunk);
            if record.is_tombstone() && record.replicas.is_empty() {
                let key = keys::chunk(chunk);
                tx.get::<Chunk>(&key).await?;
                tx.delete(key);
            }
        }
        if tx.is_read_only() {
            return Ok(next);
        }
        match self.commit(tx).await? {
            Attempt::Committed(_) => Ok(next),
            // Somebody noted something of one of them; it is looked at again.
            Attempt::Conflict => Ok(after.or(Some(ChunkId::MIN))),
        }
    }
}

/// Chunks that one step of a sweep looks at: each that goes is a key of its commit.
const SWEEP_MAX: usize = 90;

fn no_floor() -> Error {
    Error::Damaged { key: keys::show(&keys::FLOOR), what: "nothing" }
}

impl Transaction {
    /// The lowest chunk id that may be brought in, now and when the commit takes place.
    pub(super) async fn floor(&mut self) -> Result<ChunkId, Error> {
        let Floor(floor) = self.get(&keys::FLOOR).await?.ok_or_else(no_floor)?;
        Ok(floor)
    }
}
