//! Slots: repeats of a call get the first answer.

use dfs_types::{Sha256, Slot};

/// Names a mutating call, so that repeating it is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeat {
    /// Slot and number.
    pub slot: Slot,
    /// Of the whole request but the slot; the same number with another is refused.
    pub body: Sha256,
}
