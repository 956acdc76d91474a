//! Seals: HMAC-SHA256 over bytes that leave the cluster and must return unchanged.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};

use crate::{
    ChunkId, ClusterKeys, Crc32c, DiskId, Generation, NodeId, Part, Random, RegistrationNumber,
    ReplicaRef, Stamp,
};

/// A key for seals. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SealKey([u8; 32]);

/// The seal of some bytes under some key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal(pub [u8; 32]);

impl SealKey {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// Creates a new key.
    pub fn random(random: &dyn Random) -> Self {
        let mut bytes = [0; Self::LEN];
        random.fill(&mut bytes);
        Self(bytes)
    }

    /// Parses a stored key; `None` when it is not [`Self::LEN`] bytes long.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Returns the bytes, to be stored or sent over a trusted channel.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Derives a key for one purpose and one holder, so that no holder can seal for another.
    #[must_use]
    pub fn derive(&self, purpose: &str, holder: &[u8]) -> Self {
        Self(self.seal(purpose, holder).0)
    }

    /// Seals `bytes` for one purpose; a seal for another purpose never matches.
    pub fn seal(&self, purpose: &str, bytes: &[u8]) -> Seal {
        Seal(self.mac(purpose, bytes).finalize().into_bytes().into())
    }

    /// Returns whether `seal` is the seal of `bytes` for this purpose, in constant time.
    pub fn verify(&self, purpose: &str, bytes: &[u8], seal: &[u8]) -> bool {
        self.mac(purpose, bytes).verify_slice(seal).is_ok()
    }

    fn mac(&self, purpose: &str, bytes: &[u8]) -> Hmac<sha2::Sha256> {
        let mut mac =
            Hmac::<sha2::Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(&(purpose.len() as u64).to_be_bytes());
        mac.update(purpose.as_bytes());
        mac.update(bytes);
        mac
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(..)")
    }
}

/// A node's proof that it holds a replica, durable when the receipt was issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The chunk.
    pub chunk: ChunkId,
    /// The part of the chunk.
    pub part: Part,
    /// Length of the part in bytes.
    pub length: u64,
    /// Checksum of the part.
    pub crc32c: Crc32c,
    /// The node that holds the replica.
    pub node: NodeId,
    /// The disk it is on.
    pub disk: DiskId,
    /// Distinguishes it from other replicas of the chunk on that node.
    pub stamp: Stamp,
    /// The registration whose key sealed this.
    pub registration: RegistrationNumber,
    /// The node's seal over everything above.
    pub seal: Seal,
}

impl Receipt {
    const PURPOSE: &str = "receipt";

    fn payload(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(80);
        bytes.extend_from_slice(&self.chunk.to_bytes());
        bytes.extend_from_slice(&self.length.to_be_bytes());
        bytes.extend_from_slice(&self.crc32c.0.to_be_bytes());
        bytes.extend_from_slice(&self.node.to_bytes());
        bytes.extend_from_slice(&self.disk.to_bytes());
        bytes.extend_from_slice(&self.stamp.0.to_be_bytes());
        bytes.extend_from_slice(&self.registration.0.to_be_bytes());
        if self.part != Part::WHOLE {
            bytes.push(self.part.0);
        }
        bytes
    }

    /// Sets the seal; `key` is the node's ([`ClusterKeys::receipt`]).
    #[must_use]
    pub fn sealed(mut self, key: &SealKey) -> Self {
        self.seal = key.seal(Self::PURPOSE, &self.payload());
        self
    }

    /// Returns whether the named node sealed it.
    pub fn is_genuine(&self, keys: &ClusterKeys) -> bool {
        let key = keys.receipt(self.node, self.registration);
        key.verify(Self::PURPOSE, &self.payload(), &self.seal.0)
    }
}

/// A node's proof that it read a replica end to end and found it equal to its chunk, after it had
/// received an order that named this generation of the chunk's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadProof {
    /// The replica.
    pub replica: ReplicaRef,
    /// Generation of the record in the order.
    pub generation: Generation,
    /// The node that holds the replica.
    pub node: NodeId,
    /// The registration whose key sealed this.
    pub registration: RegistrationNumber,
    /// The node's seal over everything above.
    pub seal: Seal,
}

impl ReadProof {
    const PURPOSE: &str = "read proof";

    fn payload(&self) -> Vec<u8> {
        let ReplicaRef { chunk, part, disk, stamp } = self.replica;
        let mut bytes = Vec::with_capacity(73);
        bytes.extend_from_slice(&chunk.to_bytes());
        bytes.push(part.0);
        bytes.extend_from_slice(&disk.to_bytes());
        bytes.extend_from_slice(&stamp.0.to_be_bytes());
        bytes.extend_from_slice(&self.generation.0.to_be_bytes());
        bytes.extend_from_slice(&self.node.to_bytes());
        bytes.extend_from_slice(&self.registration.0.to_be_bytes());
        bytes
    }

    /// Sets the seal; `key` is the node's ([`ClusterKeys::receipt`]).
    #[must_use]
    pub fn sealed(mut self, key: &SealKey) -> Self {
        self.seal = key.seal(Self::PURPOSE, &self.payload());
        self
    }

    /// Returns whether the named node sealed it.
    pub fn is_genuine(&self, keys: &ClusterKeys) -> bool {
        let key = keys.receipt(self.node, self.registration);
        key.verify(Self::PURPOSE, &self.payload(), &self.seal.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SeededRandom;

    #[test]
    fn receipt_is_bound_to_its_node_and_content() {
        let random = SeededRandom::new(7);
        let cluster = ClusterKeys::random(&random);
        let (node, registration) = (NodeId::random(&random), RegistrationNumber(3));
        let receipt = Receipt {
            chunk: ChunkId(1),
            part: Part::WHOLE,
            length: 5,
            crc32c: Crc32c(9),
            node,
            disk: DiskId(2),
            stamp: Stamp(4),
            registration,
            seal: Seal([0; 32]),
        };
        assert!(!receipt.is_genuine(&cluster));
        let receipt = receipt.sealed(&cluster.receipt(node, registration));
        assert!(receipt.is_genuine(&cluster));
        for lie in [
            Receipt { chunk: ChunkId(2), ..receipt },
            Receipt { part: Part(1), ..receipt },
            Receipt { length: 6, ..receipt },
            Receipt { crc32c: Crc32c(8), ..receipt },
            Receipt { node: NodeId(1), ..receipt },
            Receipt { disk: DiskId(3), ..receipt },
            Receipt { stamp: Stamp(5), ..receipt },
            Receipt { registration: RegistrationNumber(4), ..receipt },
            Receipt { seal: Seal([0; 32]), ..receipt },
        ] {
            assert!(!lie.is_genuine(&cluster), "{lie:?}");
        }
        assert!(!receipt.is_genuine(&ClusterKeys::random(&random)));
    }

    #[test]
    fn read_proof_is_bound_to_its_node_replica_and_generation() {
        let random = SeededRandom::new(7);
        let cluster = ClusterKeys::random(&random);
        let (node, registration) = (NodeId::random(&random), RegistrationNumber(3));
        let (chunk, part) = (ChunkId(1), Part::WHOLE);
        let replica = ReplicaRef { chunk, part, disk: DiskId(2), stamp: Stamp(4) };
        let generation = Generation(5);
        let proof = ReadProof { replica, generation, node, registration, seal: Seal([0; 32]) };
        assert!(!proof.is_genuine(&cluster));
        let proof = proof.sealed(&cluster.receipt(node, registration));
        assert!(proof.is_genuine(&cluster));
        for lie in [
            ReadProof { replica: ReplicaRef { chunk: ChunkId(2), ..replica }, ..proof },
            ReadProof { replica: ReplicaRef { part: Part(1), ..replica }, ..proof },
            ReadProof { replica: ReplicaRef { disk: DiskId(3), ..replica }, ..proof },
            ReadProof { replica: ReplicaRef { stamp: Stamp(5), ..replica }, ..proof },
            ReadProof { generation: Generation(6), ..proof },
            ReadProof { node: NodeId(1), ..proof },
            ReadProof { registration: RegistrationNumber(4), ..proof },
        ] {
            assert!(!lie.is_genuine(&cluster), "{lie:?}");
        }
    }

    #[test]
    fn seals_are_bound_to_their_purpose() {
        let key = SealKey::random(&SeededRandom::new(1));
        let seal = key.seal("a", b"bc");
        assert!(key.verify("a", b"bc", &seal.0));
        assert!(!key.verify("ab", b"c", &seal.0));
        assert!(!key.verify("a", b"bc", &seal.0[..31]));
    }
}
