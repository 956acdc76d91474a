//! Who a datanode is, as its disks say.

use async_trait::async_trait;
use dfs_types::{ClusterId, Incarnation, Level, NodeId, NodeSecret, RegistrationNumber};

use crate::StoreError;

/// A registration with a cluster, as it lies on the disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registration {
    /// The cluster.
    pub cluster: ClusterId,
    /// Of the cluster's metadata when the node registered.
    pub incarnation: Incarnation,
    /// Greater than that of each earlier registration of the node.
    pub number: RegistrationNumber,
}

/// Who a datanode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// What it proves itself with when it registers. Made with the node, never changed.
    pub secret: NodeSecret,
    /// The newest registration on any of its disks, which one that was cut off may have left
    /// there; `None` when it never had one.
    pub registration: Option<Registration>,
    /// The newest level of what may be stored on its disks.
    pub level: Level,
}

/// Keeps the identity of a datanode.
#[async_trait]
pub trait IdentityStore: Send + Sync + 'static {
    /// Who the node is.
    fn identity(&self) -> Identity;

    /// Writes a new registration on every disk. When this returns `Ok` it is durable on all of
    /// them; after an error, or a crash meanwhile, a restart finds the old one or the new one, and
    /// every disk still belongs to the node. Refuses a cluster other than the one the disks belong
    /// to, and a number below one that a disk may have. If the future is dropped, the writing may
    /// go on; later calls wait for its end.
    async fn store_registration(&self, registration: Registration) -> Result<(), StoreError>;

    /// Writes on every disk that it may hold formats of this level from now on, so that a program
    /// which does not read them refuses the disk. Durable on return. Never lowers the level;
    /// idempotent.
    async fn raise_level(&self, level: Level) -> Result<(), StoreError>;
}
