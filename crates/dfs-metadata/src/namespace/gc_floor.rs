//! The floor, below which garbage collection may judge chunks.

use std::sync::atomic::Ordering;
use std::time::Duration;

use dfs_types::{Access, ChunkId, Scope, Timestamp};

use super::transaction::{Attempt, Transaction};
use super::{Namespace, TRIES};
use crate::engine::Condition;
use crate::records::setting::Floor;
use crate::{Error, keys};

/// Margin between the floor and the oldest plan still honoured.
pub const FLOOR_MARGIN: Duration = Duration::from_mins(10);

impl Namespace {
    /// Returns the lowest chunk id that a commit may still register.
    pub async fn gc_floor(&self, scope: &Scope) -> Result<ChunkId, Error> {
        scope.require(Access::Admin)?;
        let floor = self.begin().await?.peek_floor().await?;
        // Ids issued from now on are above it.
        self.inner.floor_ms.fetch_max(floor.time().millis(), Ordering::Relaxed);
        Ok(floor)
    }

    /// Learns of a floor above the one this process knew, when an error shows it, so that the next
    /// plan is not refused for the same reason.
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
        Err(Error::Conflict { what: "the garbage collection floor", tries: TRIES })
    }

    /// Removes tombstones below the floor whose replicas are all deleted, considering `limit`
    /// chunks with work after `after`. Returns where to continue; `None` at the floor.
    pub async fn sweep_tombstones(
        &self,
        scope: &Scope,
        after: Option<ChunkId>,
        limit: usize,
        fence: Option<&Condition>,
    ) -> Result<Option<ChunkId>, Error> {
        scope.require(Access::Admin)?;
        let found = self.chunks_to_delete(scope, after, limit.clamp(1, SWEEP_MAX)).await?;
        let mut tx = self.begin_fenced(fence).await?;
        let floor = tx.floor().await?;
        for (chunk, _) in found.chunks.into_iter().filter(|(chunk, _)| *chunk < floor) {
            let Some(record) = tx.chunk(chunk).await? else { continue };
            if record.is_tombstone() && record.replicas.is_empty() {
                tx.put_chunk(chunk, Some(&record), None);
            }
        }
        let next = found.next.filter(|next| *next < floor);
        if tx.is_read_only() {
            return Ok(next);
        }
        match self.commit(tx).await? {
            Attempt::Committed(_) => Ok(next),
            // Another commit changed one of them; consider them again.
            Attempt::Conflict => Ok(after.or(Some(ChunkId::MIN))),
        }
    }
}

/// Chunks considered in one step of a sweep: each removal takes two keys of its commit.
const SWEEP_MAX: usize = 45;

fn no_floor() -> Error {
    Error::Damaged { key: keys::show(&keys::FLOOR), what: "nothing" }
}

impl Transaction {
    /// Reads the lowest chunk id that may be registered, without a condition. It only rises.
    pub(super) async fn peek_floor(&self) -> Result<ChunkId, Error> {
        let Floor(floor) = self.peek(&keys::FLOOR).await?.ok_or_else(no_floor)?;
        Ok(floor)
    }

    /// Reads the lowest chunk id that may be registered; the commit requires it to be unchanged.
    pub(super) async fn floor(&mut self) -> Result<ChunkId, Error> {
        let Floor(floor) = self.get(&keys::FLOOR).await?.ok_or_else(no_floor)?;
        Ok(floor)
    }
}
