//! Slots: what makes a repeated call safe.

use crate::ClientId;

/// Names one mutating call of one client, so that a repeat of it gets the first answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// Who calls.
    pub client: ClientId,
    /// Which of the client's slots, below [`Slot::PER_CLIENT`]; one call at a time in each.
    pub slot: u32,
    /// One more with each new call in this slot, starting at 1.
    pub sequence: u64,
}

impl Slot {
    /// Slots that a client has.
    pub const PER_CLIENT: u32 = 64;
}
