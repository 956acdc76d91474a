//! What a receiver tells its sender.

use dfs_types::{ErrorCode, NodeId, Receipt};

/// A replica that left the set of a session, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// The replica.
    pub node: NodeId,
    /// What went wrong.
    pub code: ErrorCode,
    /// In words.
    pub message: String,
}

/// What became of a chunk: durable on every node that gave a receipt.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// One for each durable replica.
    pub receipts: Vec<Receipt>,
    /// Replicas that were dropped on the way.
    pub dropped: Vec<Dropped>,
}

/// A message of a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ack {
    /// The session is the sender's; frames are expected from this offset on.
    Attached {
        /// Where to go on.
        resume: u64,
    },
    /// The whole set has received so much. Nothing is durable yet.
    Progress {
        /// All bytes below this have arrived everywhere.
        received: u64,
    },
    /// The chunk is durable.
    Sealed(Outcome),
}
