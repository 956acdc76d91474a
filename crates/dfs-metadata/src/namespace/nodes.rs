//! The datanodes of the cluster, as far as they are stored.

use dfs_types::{DiskId, NodeId, NodeState, RegistrationNumber, SealKey};

use super::{ClusterIdentity, Namespace, Node};
use crate::Error;

/// A node that wants to join, or comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// What its disks say, or it has just made up.
    pub node: NodeId,
    /// What its disks say of the cluster; `None` on a new node.
    pub cluster: Option<ClusterIdentity>,
    /// What its disks say; 0 on a new node.
    pub registration: RegistrationNumber,
    /// `host:port` under which others reach it.
    pub address: String,
    /// Failure domain; may be empty.
    pub zone: String,
    /// Name of the machine; may be empty.
    pub host: String,
    /// Version of its program.
    pub version: String,
    /// Its disks.
    pub disks: Vec<DiskId>,
}

/// A registration that was handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// To be written on the disks, durably, before the first heartbeat.
    pub number: RegistrationNumber,
    /// Seals the receipts of this registration.
    pub key: SealKey,
    /// What the node is to the cluster.
    pub state: NodeState,
}

impl Namespace {
    /// Hands out the next registration of a node, which counts from the first heartbeat that uses
    /// it ([`Self::confirm_registration`]). A new node becomes Active with `admit`, else Joining.
    ///
    /// Refuses removed nodes, disks of another cluster, old images and second copies of disks.
    /// The join secret is the caller's to check.
    pub async fn register(&self, request: &Registration, admit: bool) -> Result<Registered, Error> {
        let _ = (request, admit);
        todo!()
    }

    /// Takes a registration into use; a heartbeat came with it. Harmless when it is in use
    /// already. [`Error::NotRegistered`] when the node must register anew.
    pub async fn confirm_registration(
        &self,
        node: NodeId,
        number: RegistrationNumber,
    ) -> Result<Node, Error> {
        let _ = (node, number);
        todo!()
    }

    /// Sets what a node shall be; not Suspect or Lost, which are no wishes.
    pub async fn set_node_state(&self, node: NodeId, state: NodeState) -> Result<(), Error> {
        let _ = (node, state);
        todo!()
    }

    /// One node.
    pub async fn node(&self, node: NodeId) -> Result<Option<Node>, Error> {
        let _ = node;
        todo!()
    }

    /// All nodes, removed ones included, in id order.
    pub async fn nodes(&self) -> Result<Vec<(NodeId, Node)>, Error> {
        todo!()
    }
}
