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

/// What a node found of one of its replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReplicaCondition {
    /// Complete, and every block that was read matches its checksum.
    Sound,
    /// A block does not match its checksum or stays unreadable, or its metadata is damaged.
    Bad,
    /// The disk is in service and does not hold it.
    Gone,
}

/// Verdict of a node on one of its replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaVerdict {
    /// The replica. With stamp 0, which no replica has, every older one of the chunk on that disk:
    /// its head is damaged, so that the node does not know its stamp.
    pub replica: ReplicaRef,
    /// Taken from the node's counter of stamps before it read the replica: greater than that of
    /// any earlier verdict on it.
    pub number: u64,
    /// What it found.
    pub condition: ReplicaCondition,
    /// First bad block of a bad replica.
    pub block: u64,
}

/// The health of a replica, best first; readers try replicas in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReplicaHealth {
    /// Durable, readable, and staying.
    Good,
    /// Durable and readable, on a disk that is to be emptied.
    Leaving,
    /// Durable, but perhaps unreachable.
    Suspect,
    /// Some blocks are bad; the others can be read.
    Bad,
    /// On a lost disk.
    Lost,
    /// Not found by its node.
    Gone,
    /// To be deleted.
    Doomed,
}

impl ReplicaHealth {
    /// Returns whether its bytes count as kept.
    pub fn is_durable(self) -> bool {
        self <= Self::Suspect
    }

    /// Returns whether its bytes can be read now.
    pub fn is_readable(self) -> bool {
        self <= Self::Leaving
    }

    /// Returns whether it still counts once everything leaving is gone.
    pub fn stays(self) -> bool {
        matches!(self, Self::Good | Self::Suspect)
    }
}

impl fmt::Display for ReplicaCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sound => "sound",
            Self::Bad => "bad",
            Self::Gone => "gone",
        })
    }
}

impl fmt::Display for ReplicaHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Good => "good",
            Self::Leaving => "leaving",
            Self::Suspect => "suspect",
            Self::Bad => "bad",
            Self::Lost => "lost",
            Self::Gone => "gone",
            Self::Doomed => "doomed",
        })
    }
}
