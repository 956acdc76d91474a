//! The states of a datanode.

use std::fmt;

/// What a datanode is to the cluster. The first six follow from what an administrator wants, and
/// are stored; [`Self::Suspect`] and [`Self::Lost`] follow from missing heartbeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NodeState {
    /// Registered, not admitted yet: holds nothing, gets nothing.
    Joining,
    /// Takes reads and writes.
    Active,
    /// Keeps its replicas, gets no new ones, is being emptied.
    Draining,
    /// Its own list of chunks is empty.
    Drained,
    /// Down on purpose for a while: its replicas are not made again meanwhile.
    Maintenance,
    /// Left for good. Its registrations are refused.
    Removed,
    /// Silent for a while, but within the grace time.
    Suspect,
    /// Silent for longer: its replicas are re-replicated.
    Lost,
}

impl NodeState {
    /// Whether new chunks may be placed on it.
    pub fn takes_chunks(self) -> bool {
        self == Self::Active
    }

    /// Whether its replicas can be expected to answer.
    pub fn serves_reads(self) -> bool {
        matches!(self, Self::Active | Self::Draining | Self::Drained | Self::Maintenance)
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Joining => "joining",
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Maintenance => "maintenance",
            Self::Removed => "removed",
            Self::Suspect => "suspect",
            Self::Lost => "lost",
        })
    }
}
