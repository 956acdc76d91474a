//! The states of a disk.

use std::fmt;

/// State of a disk of a datanode, as the node reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DiskState {
    /// Serves reads and takes new chunks.
    Healthy,
    /// Like healthy, but operations take unusually long: read last.
    Slow,
    /// Being emptied: serves reads, takes no new chunks.
    Retiring,
    /// Missed a registration of its node: serves what it holds, takes no new chunks until the
    /// coordinator has compared its replicas with the records.
    Returning,
    /// Its replicas are being read at the start of its node. Not in service until all are found.
    Starting,
    /// An operation has not returned for so long that the disk is not used until it does.
    Hung,
    /// Its directory is empty or locked, or an operation on it has not returned since the node
    /// started. Not in service until it can be read.
    Missing,
    /// Out of service after errors, until the node is restarted.
    Failed,
}

impl DiskState {
    /// All states.
    pub const ALL: [Self; 8] = [
        Self::Healthy,
        Self::Slow,
        Self::Retiring,
        Self::Returning,
        Self::Starting,
        Self::Hung,
        Self::Missing,
        Self::Failed,
    ];

    /// Maximum bytes of the text that explains a state.
    pub const REASON_LEN_MAX: usize = 512;

    /// Returns whether new chunks may be written to it.
    pub fn takes_chunks(self) -> bool {
        matches!(self, Self::Healthy | Self::Slow)
    }

    /// Returns whether its node knows which replicas are on it, and counts its space.
    pub fn is_in_service(self) -> bool {
        !matches!(self, Self::Starting | Self::Missing | Self::Failed)
    }

    /// Returns whether a replica that its node does not find on it is certainly not there.
    pub fn proves_absence(self) -> bool {
        self.is_in_service() && self != Self::Returning
    }

    /// Returns the name of the state, as in status and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Slow => "slow",
            Self::Retiring => "retiring",
            Self::Returning => "returning",
            Self::Starting => "starting",
            Self::Hung => "hung",
            Self::Missing => "missing",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for DiskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
