//! The states of a datanode.

use std::fmt;

/// State of a datanode in its cluster. The first six are set by administrators and stored;
/// [`Self::Suspect`] and [`Self::Lost`] follow from missing heartbeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NodeState {
    /// Registered, but not admitted: holds no replicas and gets none.
    Joining,
    /// Takes reads and writes.
    Active,
    /// Keeps its replicas, gets no new ones, and is being emptied.
    Draining,
    /// Holds no chunks any more.
    Drained,
    /// Down on purpose for a while; meanwhile its replicas are not re-replicated.
    Maintenance,
    /// Removed for good. Its registrations are refused.
    Removed,
    /// Silent, but within the grace period.
    Suspect,
    /// Silent beyond the grace period: its replicas are re-replicated.
    Lost,
}

impl NodeState {
    /// Returns whether new chunks may be placed on it.
    pub fn takes_chunks(self) -> bool {
        self == Self::Active
    }

    /// Returns whether its replicas can be expected to be readable.
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
