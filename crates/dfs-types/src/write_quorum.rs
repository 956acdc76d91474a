//! The replication factor and the write quorum.

/// How many replicas new files get, and how many of them a write must have made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replication {
    /// Replicas wanted of each chunk of a new file.
    pub factor: u8,
    /// Durable replicas that a write needs; a majority when not set.
    pub min_write: Option<u8>,
}

impl Replication {
    /// Maximum number of replicas per chunk.
    pub const FACTOR_MAX: u8 = 16;

    /// Returns the durable replicas that a write of a file with `factor` replicas needs.
    pub fn min_write_for(self, factor: u8) -> u8 {
        self.min_write.unwrap_or(factor / 2 + 1).min(factor)
    }
}
