//! Slots, which make calls repeatable.

use crate::ClientId;

/// Identifies a mutating call of a client, so that a repeat gets the first reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// The client.
    pub client: ClientId,
    /// One of the client's slots, below [`Slot::PER_CLIENT`]; each has one call at a time.
    pub slot: u32,
    /// Number of the call in this slot, starting at 1.
    pub sequence: u64,
}

impl Slot {
    /// Slots per client.
    pub const PER_CLIENT: u32 = 64;
}
