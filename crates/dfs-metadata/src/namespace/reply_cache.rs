//! Slots: a repeated call gets the first reply.
//!
//! A reply is removed only once its client is refused: client ids begin with the time of their
//! creation, a floor below which clients are refused is committed first, and each call with a slot
//! is conditioned on that floor. A repeat therefore gets its reply or a refusal, never a second
//! execution, regardless of the clocks: a wrong clock costs space, or makes clients start over with
//! a new id.

use std::time::Duration;

use bytes::Bytes;
use dfs_types::{Access, ClientId, Scope, Sha256, Slot, Timestamp};

use super::Namespace;
use super::transaction::{Attempt, Transaction};
use crate::engine::Condition;
use crate::records::answer::{Answer, Kept};
use crate::records::setting::ClientFloor;
use crate::{Error, keys};

/// Maximum number of replies removed in one step: each is a key of its commit.
const SWEEP_MAX: usize = 90;
/// Minimum step of the floor: each raise makes the calls in flight conflict.
const FLOOR_STEP: Duration = Duration::from_hours(1);

/// Identifies a mutating call, so that repeating it is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeat {
    /// Slot and number.
    pub slot: Slot,
    /// Hash of the request without the slot; the same number with another hash is refused.
    pub body: Sha256,
}

impl Repeat {
    /// Returns the keys that [`earlier_answer`] reads.
    pub(super) fn keys(&self) -> [Bytes; 2] {
        [keys::CLIENT_FLOOR, keys::answer(&self.slot)]
    }
}

/// Returns the earlier reply to this call, if any. Refuses clients below the floor.
pub(super) async fn earlier_answer(
    tx: &mut Transaction,
    repeat: &Repeat,
    now: Timestamp,
) -> Result<Option<Answer>, Error> {
    let Slot { client, sequence, .. } = repeat.slot;
    let key = keys::answer(&repeat.slot);
    let ClientFloor(floor) = tx.get(&keys::CLIENT_FLOOR).await?.unwrap_or_default();
    let kept = tx.get::<Kept>(&key).await?;
    if client < floor {
        return Err(Error::ClientForgotten { started: client.time(), now });
    }
    let Some((kept, version)) = kept.zip(tx.expected(&key)) else { return Ok(None) };
    if kept.sequence > sequence {
        return Err(Error::SlotOvertaken { sequence, newest: kept.sequence });
    }
    if kept.sequence < sequence {
        return Ok(None);
    }
    if kept.body != repeat.body {
        return Err(Error::SlotReused { sequence });
    }
    Ok(Some(kept.answer.committed(version)))
}

/// Keeps the reply, in the commit of the change itself.
pub(super) fn keep(tx: &mut Transaction, repeat: &Repeat, answer: &Answer) {
    let Repeat { slot, body } = *repeat;
    let kept = Kept { sequence: slot.sequence, body, answer: answer.clone() };
    tx.put(keys::answer(&slot), &kept);
}

impl Namespace {
    /// Age limit of clients. Longer than any upload token lives and any client retries.
    pub const CLIENT_LIFETIME: Duration = Duration::from_hours(24);

    /// Removes the replies to clients older than [`Self::CLIENT_LIFETIME`], at most `limit`, and
    /// refuses those clients from now on. Returns whether there are more.
    ///
    /// A client is old when it is by both this process's clock and the start of the newest client
    /// that got a reply, so that a single fast clock has no effect.
    pub async fn sweep_slots(
        &self,
        scope: &Scope,
        limit: usize,
        fence: Option<&Condition>,
    ) -> Result<bool, Error> {
        scope.require(Access::Admin)?;
        let floor = self.raise_client_floor(fence).await?;
        let mut tx = self.begin_fenced(fence).await?;
        let limit = limit.clamp(1, SWEEP_MAX);
        let mut old = tx.range_keys(keys::ANSWERS, limit).await?;
        old.retain(|key| keys::answer_client(key).is_some_and(|client| client < floor));
        let has_more = old.len() == limit;
        // Unconditional: nothing is written for a client below the floor any more.
        for key in old {
            tx.delete(key);
        }
        if !tx.is_read_only() {
            self.commit(tx).await?;
        }
        Ok(has_more)
    }

    /// Raises the floor if any client is that old; never lowers it.
    async fn raise_client_floor(&self, fence: Option<&Condition>) -> Result<ClientId, Error> {
        let mut tx = self.begin_fenced(fence).await?;
        let floor = tx.get::<ClientFloor>(&keys::CLIENT_FLOOR).await?;
        let ClientFloor(floor) = floor.unwrap_or_default();
        let Some(newest) = tx.last_key(keys::ANSWERS).await? else { return Ok(floor) };
        let newest = keys::answer_client(&newest).map_or_else(Timestamp::default, ClientId::time);
        let wanted = ClientId::floor(self.now().min(newest).minus(Self::CLIENT_LIFETIME));
        let oldest = tx.range_keys(keys::ANSWERS, 1).await?;
        let is_needed =
            oldest.first().and_then(|key| keys::answer_client(key)).is_some_and(|c| c < wanted);
        let lag = wanted.time().since(floor.time());
        if !is_needed || lag < FLOOR_STEP {
            return Ok(floor);
        }
        tx.put(keys::CLIENT_FLOOR, &ClientFloor(wanted));
        match self.commit(tx).await? {
            Attempt::Committed(_) => Ok(wanted),
            // Another coordinator was faster, and the lease is probably lost; the next round will
            // see.
            Attempt::Conflict => Ok(floor),
        }
    }
}
