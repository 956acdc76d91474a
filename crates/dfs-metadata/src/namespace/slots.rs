//! Slots: repeats of a call get the first answer.

use dfs_types::{Sha256, Slot, Timestamp};

use super::transaction::Transaction;
use crate::records::answer::{Answer, Kept};
use crate::{Error, keys};

/// Names a mutating call, so that repeating it is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeat {
    /// Slot and number.
    pub slot: Slot,
    /// Of the whole request but the slot; the same number with another is refused.
    pub body: Sha256,
}

/// The answer that this very call was given before, if it was.
pub(super) async fn earlier_answer(
    tx: &mut Transaction,
    repeat: &Repeat,
) -> Result<Option<Answer>, Error> {
    let sequence = repeat.slot.sequence;
    let Some(kept) = tx.get::<Kept>(&keys::answer(&repeat.slot)).await? else { return Ok(None) };
    if kept.sequence > sequence {
        return Err(Error::SlotOvertaken { sequence, newest: kept.sequence });
    }
    if kept.sequence < sequence {
        return Ok(None);
    }
    if kept.body != repeat.body {
        return Err(Error::SlotReused { sequence });
    }
    Ok(Some(kept.answer))
}

/// Keeps the answer, in the commit of the change itself.
pub(super) fn keep(tx: &mut Transaction, repeat: &Repeat, answer: &Answer, now: Timestamp) {
    let Repeat { slot, body } = *repeat;
    let kept = Kept { sequence: slot.sequence, body, answer: answer.clone(), time: now };
    tx.put(keys::answer(&slot), &kept);
}
