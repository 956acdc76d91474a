//! Redundancy of chunks.

use crate::{Crc32c, Part};

/// Redundancy of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redundancy {
    /// Equal replicas of the whole chunk.
    Replicated {
        /// Replicas wanted.
        copies: u8,
    },
    /// Data and parity fragments. No worker encodes chunks yet.
    Erasure {
        /// The code.
        codec: u8,
        /// Data fragments.
        k: u8,
        /// Parity fragments.
        m: u8,
        /// Blocks of 64 KiB in a fragment.
        blocks: u32,
        /// Checksums of the `k + m` fragments.
        crcs: Vec<Crc32c>,
    },
}

impl Redundancy {
    /// Returns the number of parts wanted: replicas, or fragments of both kinds.
    pub fn target(&self) -> u8 {
        match self {
            Self::Replicated { copies } => *copies,
            Self::Erasure { k, m, .. } => k.saturating_add(*m),
        }
    }

    /// Returns whether these, in any order, are exactly the parts wanted.
    pub fn is_met_by(&self, parts: impl Iterator<Item = Part>) -> bool {
        match self {
            Self::Replicated { copies } => {
                let mut count = 0;
                let mut parts = parts.inspect(|_| count += 1);
                parts.all(|part| part == Part::WHOLE) && count == usize::from(*copies)
            }
            Self::Erasure { k, m, .. } => {
                let mut parts: Vec<Part> = parts.collect();
                parts.sort_unstable();
                parts.into_iter().eq((1..=k.saturating_add(*m)).map(Part))
            }
        }
    }
}
