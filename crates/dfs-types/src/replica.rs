//! Identification of replicas.

use std::fmt;

use crate::{ChunkId, DiskId, Stamp};

/// The part of a chunk that a replica holds: all of it, or one fragment of an erasure code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Part(pub u8);

impl Part {
    /// The whole chunk.
    pub const WHOLE: Self = Self(0);
}

/// Identifies a replica on its datanode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaRef {
    /// The chunk.
    pub chunk: ChunkId,
    /// The part of the chunk.
    pub part: Part,
    /// The disk it is on.
    pub disk: DiskId,
    /// Distinguishes it from any other replica of the part on its node.
    pub stamp: Stamp,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
