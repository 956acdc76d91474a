//! Messages of a receiver to its sender.

use dfs_types::{ErrorCode, NodeId, Receipt};

/// A replica dropped from a session, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Node of the replica.
    pub node: NodeId,
    /// Code of the error.
    pub code: ErrorCode,
    /// The error in words.
    pub message: String,
}

/// Outcome of a chunk: durable on every node that issued a receipt.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// One for each durable replica.
    pub receipts: Vec<Receipt>,
    /// Replicas dropped on the way.
    pub dropped: Vec<Dropped>,
}

/// A message of a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ack {
    /// The session belongs to the sender; frames are expected from this offset on.
    Attached {
        /// Offset to continue at.
        resume: u64,
    },
    /// The whole set has received this much. Nothing is durable yet.
    Progress {
        /// All bytes below this have arrived everywhere.
        received: u64,
    },
    /// The chunk is durable.
    Sealed(Outcome),
}
