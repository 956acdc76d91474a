//! Digests of sets of replicas.

use crate::{ChunkId, Part, Sha256, Stamp};

/// A digest of a set of replicas on one disk, whatever their order. Two sets with the same digest
/// are equal, up to the chance of a collision, which the cycle makes independent each time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReplicaDigest {
    /// Number of replicas.
    pub count: u64,
    /// Sum of their hashes, modulo 2^64.
    pub sum: u64,
}

impl ReplicaDigest {
    /// Adds a replica; `cycle` distinguishes the digests of one comparison from those of another.
    pub fn add(&mut self, cycle: u64, chunk: ChunkId, part: Part, stamp: Stamp) {
        let mut bytes = [0; 8 + 16 + 1 + 8];
        bytes[..8].copy_from_slice(&cycle.to_be_bytes());
        bytes[8..24].copy_from_slice(&chunk.to_bytes());
        bytes[24] = part.0;
        bytes[25..].copy_from_slice(&stamp.0.to_be_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&Sha256::of(&bytes).0[..8]);
        self.count += 1;
        self.sum = self.sum.wrapping_add(u64::from_be_bytes(first));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(cycle: u64, replicas: &[(u128, u8, u64)]) -> ReplicaDigest {
        let mut digest = ReplicaDigest::default();
        for (chunk, part, stamp) in replicas {
            digest.add(cycle, ChunkId(*chunk), Part(*part), Stamp(*stamp));
        }
        digest
    }

    #[test]
    fn digest_depends_on_every_field_and_not_on_the_order() {
        let all = [(1, 0, 7), (2, 0, 7), (2, 1, 9)];
        let reversed = [all[2], all[1], all[0]];
        assert_eq!(digest(1, &all), digest(1, &reversed));
        assert_eq!(digest(1, &all).count, 3);
        for other in [[(3, 0, 7), all[1], all[2]], [(1, 1, 7), all[1], all[2]]] {
            assert_ne!(digest(1, &all), digest(1, &other));
        }
        assert_ne!(digest(1, &all), digest(1, &[(1, 0, 8), all[1], all[2]]));
        assert_ne!(digest(1, &all), digest(2, &all));
        assert_ne!(digest(1, &all), digest(1, &all[..2]));
    }
}
