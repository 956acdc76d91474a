//! The identity of a datanode, as stored on its disks.

use async_trait::async_trait;
use dfs_types::{ClusterId, DiskId, Incarnation, Level, NodeId, NodeSecret, RegistrationNumber};

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

/// Returns the number of a registration; 0 if there is none.
pub(crate) fn number_of(registration: Option<Registration>) -> RegistrationNumber {
    registration.map_or_else(RegistrationNumber::default, |own| own.number)
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
    /// High part of the stamps and verdict numbers drawn now: greater than at every earlier start.
    pub start: u64,
}

/// Bits of a stamp, or of the number of a verdict, that count within a start.
pub(crate) const COUNTER_BITS: u32 = 40;

/// Stores the identity of a datanode.
#[async_trait]
pub trait IdentityStore: Send + Sync + 'static {
    /// Returns the identity of the node.
    fn identity(&self) -> Identity;

    /// Writes a new registration to every disk in service. Its number is also the least high part of
    /// all stamps and verdict numbers drawn from then on, so that they are greater than all that the
    /// cluster knows, even if the disks are an older image. When this returns `Ok`, it is durable on
    /// all of them that are not returning; after an error or a crash, a restart finds the old one or
    /// the new one, and every disk still belongs to the node. A full or hanging disk is returning
    /// from then on; fails if no disk takes the registration. Refuses a cluster other than that of
    /// the disks, and a number below one that a disk may have. If the future is dropped, writing may
    /// continue; later calls wait for its end.
    async fn store_registration(&self, registration: Registration) -> Result<(), StoreError>;

    /// Like [`Self::store_registration`], for a node whose replicas the cluster has to compare with
    /// its records first: every disk is returning from then on, also after a restart.
    async fn rejoin(&self, registration: Registration) -> Result<(), StoreError>;

    /// Records on every disk that it may contain formats of this level from now on, so that a
    /// program that does not read them refuses the disk. Durable on return. Never lowers the level;
    /// idempotent.
    async fn raise_level(&self, level: Level) -> Result<(), StoreError>;

    /// Ends the return of a disk whose replicas the cluster has compared with its records: the
    /// newest registration is durable on it, and it is in full service. Idempotent.
    async fn settle_disk(&self, disk: DiskId) -> Result<(), StoreError>;

    /// Removes disks that are not in service from the identity of the node, durably, so that the
    /// next start may use their empty directories for new disks. Others are left unchanged.
    async fn forget_disks(&self, disks: &[DiskId]) -> Result<(), StoreError>;

    /// Tries to bring disks into service that are missing, and reads heads again that a disk did not
    /// return some minutes ago. Returns true if a disk came back, which then should be part of a new
    /// registration, or if a head was found readable or damaged. Call it from time to time, one call
    /// at a time: an operation that does not return is continued by a later call.
    async fn reopen_disks(&self) -> bool;

    /// Sets the disks that take no new chunks because the cluster wants them emptied. Not stored.
    fn set_retiring(&self, disks: &[DiskId]);
}
