//! The identity of a datanode, as stored on its disks.

use async_trait::async_trait;
use dfs_types::{ClusterId, Incarnation, Level, NodeId, NodeSecret, RegistrationNumber};

use crate::StoreError;

/// A registration with a cluster, as stored on the disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registration {
    /// The cluster.
    pub cluster: ClusterId,
    /// Incarnation of the cluster's metadata at the registration.
    pub incarnation: Incarnation,
    /// Greater than that of every earlier registration of the node.
    pub number: RegistrationNumber,
}

/// Identity of a datanode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// Secret that it proves its identity with when it registers. Created with the node, never
    /// changed.
    pub secret: NodeSecret,
    /// The newest registration on any of its disks, possibly from an interrupted attempt; `None` if
    /// it never had one.
    pub registration: Option<Registration>,
    /// The newest level of anything stored on its disks.
    pub level: Level,
}

/// Stores the identity of a datanode.
#[async_trait]
pub trait IdentityStore: Send + Sync + 'static {
    /// Returns the identity of the node.
    fn identity(&self) -> Identity;

    /// Writes a new registration to every disk. When this returns `Ok`, it is durable on all of
    /// them; after an error or a crash, a restart finds the old one or the new one, and every disk
    /// still belongs to the node. Refuses a cluster other than that of the disks, and a number
    /// below one that a disk may have. If the future is dropped, writing may continue; later calls
    /// wait for its end.
    async fn store_registration(&self, registration: Registration) -> Result<(), StoreError>;

    /// Records on every disk that it may contain formats of this level from now on, so that a
    /// program that does not read them refuses the disk. Durable on return. Never lowers the level;
    /// idempotent.
    async fn raise_level(&self, level: Level) -> Result<(), StoreError>;
}
