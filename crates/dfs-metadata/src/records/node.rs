//! Nodes: `n/`.

use dfs_types::{DiskId, NodeState, RegistrationNumber};

/// What is stored of a datanode. Heartbeats never touch it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `host:port` under which others reach it.
    pub address: String,
    /// Failure domain; may be empty.
    pub zone: String,
    /// Name of the machine; may be empty.
    pub host: String,
    /// Version of its program.
    pub version: String,
    /// Its disks when it registered.
    pub disks: Vec<DiskId>,
    /// The registration in use; 0 before the first one was taken into use.
    pub confirmed: RegistrationNumber,
    /// The one handed out last; equal to `confirmed` when it is in use.
    pub pending: RegistrationNumber,
    /// What an administrator wants it to be; never Suspect or Lost.
    pub state: NodeState,
}
