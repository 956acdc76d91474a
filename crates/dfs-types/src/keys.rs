//! The keys of a cluster, and what they prove.

use std::fmt;

use crate::{
    ClusterId, Incarnation, LeaseEpoch, NodeId, Random, RegistrationNumber, Seal, SealKey, Sha256,
    Timestamp,
};

/// The root key of a cluster, and the keys derived from it: one per purpose and holder, so that
/// none can replace another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterKeys {
    root: SealKey,
}

impl ClusterKeys {
    /// Creates the keys of a new cluster.
    pub fn random(random: &dyn Random) -> Self {
        Self { root: SealKey::random(random) }
    }

    /// Returns the keys derived from this root.
    pub fn from_root(root: SealKey) -> Self {
        Self { root }
    }

    /// Returns the root key, to be stored.
    pub fn root(&self) -> &SealKey {
        &self.root
    }

    /// Returns the key that seals upload plans.
    #[must_use]
    pub fn plan(&self) -> SealKey {
        self.root.derive("plan", b"")
    }

    /// Returns the key that seals requests between coordinators.
    #[must_use]
    pub fn peer(&self) -> SealKey {
        self.root.derive("peer", b"")
    }

    /// Returns the node key, with which a node of this registration seals its receipts and proves
    /// its identity.
    #[must_use]
    pub fn receipt(&self, node: NodeId, registration: RegistrationNumber) -> SealKey {
        self.root.derive("receipt", &holder(node, registration))
    }

    /// Returns the key that seals orders to a node of this registration.
    #[must_use]
    pub fn order(&self, node: NodeId, registration: RegistrationNumber) -> SealKey {
        self.root.derive("order", &holder(node, registration))
    }
}

fn holder(node: NodeId, registration: RegistrationNumber) -> Vec<u8> {
    let mut holder = node.to_bytes().to_vec();
    holder.extend_from_slice(&registration.0.to_be_bytes());
    holder
}

/// A secret that a datanode creates once and keeps on its disks, so that no other can register as
/// this node. Never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NodeSecret([u8; 32]);

impl NodeSecret {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// Creates a new secret.
    pub fn random(random: &dyn Random) -> Self {
        let mut bytes = [0; Self::LEN];
        random.fill(&mut bytes);
        Self(bytes)
    }

    /// Parses a stored secret; `None` when it is not [`Self::LEN`] bytes long.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Returns the bytes, to be stored on the node's disks or sent at its registration.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the hash that the cluster stores.
    pub fn digest(&self) -> Sha256 {
        Sha256::of(&self.0)
    }
}

impl fmt::Debug for NodeSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeSecret(..)")
    }
}

/// The opening of a heartbeat stream. Its seal under the node key proves that the node opened it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamOpening {
    /// The cluster.
    pub cluster: ClusterId,
    /// Incarnation of its metadata.
    pub incarnation: Incarnation,
    /// The node.
    pub node: NodeId,
    /// Registration.
    pub registration: RegistrationNumber,
    /// Distinguishes processes of the node.
    pub instance: u64,
    /// Distinguishes streams of one process.
    pub stream: u64,
}

impl StreamOpening {
    const PURPOSE: &str = "heartbeat";

    fn payload(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend_from_slice(&self.cluster.to_bytes());
        bytes.extend_from_slice(&self.incarnation.0.to_be_bytes());
        bytes.extend_from_slice(&self.node.to_bytes());
        bytes.extend_from_slice(&self.registration.0.to_be_bytes());
        bytes.extend_from_slice(&self.instance.to_be_bytes());
        bytes.extend_from_slice(&self.stream.to_be_bytes());
        bytes
    }

    /// Returns the seal under the node key.
    pub fn seal(&self, node_key: &SealKey) -> Seal {
        node_key.seal(Self::PURPOSE, &self.payload())
    }

    /// Returns whether `seal` was made with the key of this node and registration.
    pub fn is_genuine(&self, keys: &ClusterKeys, seal: &[u8]) -> bool {
        let key = keys.receipt(self.node, self.registration);
        key.verify(Self::PURPOSE, &self.payload(), seal)
    }
}

/// The terms covered by the seal of an order.
#[derive(Debug, Clone, Copy)]
pub struct OrderTerms<'a> {
    /// Path of the rpc.
    pub method: &'a str,
    /// The cluster.
    pub cluster: ClusterId,
    /// Incarnation of its metadata.
    pub incarnation: Incarnation,
    /// The node to follow it; 0 for a coordinator.
    pub node: NodeId,
    /// Epoch of the coordinator's worker lease; 0 without one.
    pub lease_epoch: LeaseEpoch,
    /// The issuing coordinator, as named in heartbeats.
    pub coordinator: u64,
    /// Time of issue, by that coordinator's clock.
    pub issued: Timestamp,
    /// The rest of the message.
    pub body: &'a [u8],
}

impl OrderTerms<'_> {
    const PURPOSE: &'static str = "order";

    fn payload(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(80 + self.method.len() + self.body.len());
        bytes.extend_from_slice(&(self.method.len() as u64).to_be_bytes());
        bytes.extend_from_slice(self.method.as_bytes());
        bytes.extend_from_slice(&self.cluster.to_bytes());
        bytes.extend_from_slice(&self.incarnation.0.to_be_bytes());
        bytes.extend_from_slice(&self.node.to_bytes());
        bytes.extend_from_slice(&self.lease_epoch.0.to_be_bytes());
        bytes.extend_from_slice(&self.coordinator.to_be_bytes());
        bytes.extend_from_slice(&self.issued.millis().to_be_bytes());
        bytes.extend_from_slice(self.body);
        bytes
    }

    /// Returns the seal of the order.
    pub fn seal(&self, key: &SealKey) -> Seal {
        key.seal(Self::PURPOSE, &self.payload())
    }

    /// Returns whether `seal` is the seal of the order.
    pub fn is_sealed(&self, key: &SealKey, seal: &[u8]) -> bool {
        key.verify(Self::PURPOSE, &self.payload(), seal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SeededRandom;

    #[test]
    fn each_purpose_and_holder_has_its_own_key() {
        let keys = ClusterKeys::random(&SeededRandom::new(1));
        let (node, other) = (NodeId(1), NodeId(2));
        let (first, second) = (RegistrationNumber(1), RegistrationNumber(2));
        let derived = [
            keys.root().clone(),
            keys.plan(),
            keys.peer(),
            keys.receipt(node, first),
            keys.receipt(node, second),
            keys.receipt(other, first),
            keys.order(node, first),
            keys.order(other, first),
        ];
        for (number, key) in derived.iter().enumerate() {
            assert!(!derived[..number].contains(key), "key {number}");
        }
    }

    #[test]
    fn opening_seal_covers_all_fields() {
        let keys = ClusterKeys::random(&SeededRandom::new(2));
        let opening = StreamOpening {
            cluster: ClusterId(1),
            incarnation: Incarnation(2),
            node: NodeId(3),
            registration: RegistrationNumber(4),
            instance: 5,
            stream: 6,
        };
        let seal = opening.seal(&keys.receipt(opening.node, opening.registration)).0;
        assert!(opening.is_genuine(&keys, &seal));
        for lie in [
            StreamOpening { cluster: ClusterId(9), ..opening },
            StreamOpening { incarnation: Incarnation(9), ..opening },
            StreamOpening { node: NodeId(9), ..opening },
            StreamOpening { registration: RegistrationNumber(9), ..opening },
            StreamOpening { instance: 9, ..opening },
            StreamOpening { stream: 9, ..opening },
        ] {
            assert!(!lie.is_genuine(&keys, &seal), "{lie:?}");
        }
        assert!(!opening.is_genuine(&keys, b""));
    }

    #[test]
    fn order_seal_covers_all_terms() {
        let key = SealKey::random(&SeededRandom::new(3));
        let terms = OrderTerms {
            method: "/a/b",
            cluster: ClusterId(1),
            incarnation: Incarnation(2),
            node: NodeId(3),
            lease_epoch: LeaseEpoch(4),
            coordinator: 5,
            issued: Timestamp::from_millis(6),
            body: b"body",
        };
        let seal = terms.seal(&key).0;
        assert!(terms.is_sealed(&key, &seal));
        for lie in [
            OrderTerms { method: "/a/c", ..terms },
            OrderTerms { cluster: ClusterId(9), ..terms },
            OrderTerms { incarnation: Incarnation(9), ..terms },
            OrderTerms { node: NodeId(9), ..terms },
            OrderTerms { lease_epoch: LeaseEpoch(9), ..terms },
            OrderTerms { coordinator: 9, ..terms },
            OrderTerms { issued: Timestamp::from_millis(9), ..terms },
            OrderTerms { body: b"bodz", ..terms },
        ] {
            assert!(!lie.is_sealed(&key, &seal), "{lie:?}");
        }
        assert!(!terms.is_sealed(&SealKey::random(&SeededRandom::new(4)), &seal));
    }
}
