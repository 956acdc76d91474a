//! Calls of the operator to a cluster's coordinators: the administrative calls of the SDK, one
//! round each, as every reconciliation is repeated anyway.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use dfs_client::{
    Admin, Client, ClusterStatus, Components, Maintenance, MaintenanceRequest, Replication,
};
use dfs_types::{ClusterId, NodeId};

/// Time limit for a reply from any coordinator of a cluster.
const DEADLINE: Duration = Duration::from_secs(5);
/// Maximum number of clients kept for the next reconciliation; a cluster has one while the
/// addresses of its coordinators stay the same.
const CLIENTS_MAX: usize = 256;
/// Maximum number of coordinators of one cluster that are asked.
const COORDINATORS_MAX: usize = 64;

/// Addresses of a cluster's coordinators, `host:port` each.
pub type Addresses = Vec<String>;

/// Reply to a status request, or its absence.
#[derive(Debug, Clone, PartialEq)]
pub enum Snapshot {
    /// The cluster exists.
    Known(Box<ClusterStatus>),
    /// A coordinator replied that it waits for the cluster to be created.
    Uninitialised,
    /// None replied; with the reason for people.
    Unreachable(String),
}

/// A call failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// There is no address to call yet.
    #[error("no coordinator pod has an address yet")]
    NoAddress,
    /// The coordinators refused, or none replied.
    #[error(transparent)]
    Client(#[from] dfs_client::Error),
}

/// The coordinators of a cluster. Every call is idempotent.
#[async_trait]
pub trait Coordinator: Send + Sync {
    /// Returns the status, within 5 s.
    async fn snapshot(&self, at: &Addresses) -> Snapshot;

    /// Creates the cluster; returns whether it is new.
    async fn init(
        &self,
        at: &Addresses,
        id: ClusterId,
        replication: Replication,
    ) -> Result<bool, CallError>;

    /// Sets how many replicas files get, existing ones included.
    async fn set_replication(
        &self,
        at: &Addresses,
        id: ClusterId,
        replication: Replication,
    ) -> Result<(), CallError>;

    /// Makes a joining node active.
    async fn admit(&self, at: &Addresses, id: ClusterId, node: NodeId) -> Result<(), CallError>;

    /// Announces that a node stops for at most `ttl`, if it can stop safely.
    async fn begin_maintenance(
        &self,
        at: &Addresses,
        id: ClusterId,
        node: NodeId,
        ttl: Duration,
    ) -> Result<Maintenance, CallError>;

    /// Announces that a node is back.
    async fn end_maintenance(
        &self,
        at: &Addresses,
        id: ClusterId,
        node: NodeId,
    ) -> Result<(), CallError>;
}

/// Coordinators over gRPC.
pub struct GrpcCoordinator {
    components: Components,
    /// By addresses, the least recently used first.
    clients: Mutex<VecDeque<(Addresses, Client)>>,
}

impl GrpcCoordinator {
    /// Creates a caller over TCP, in plaintext.
    pub fn new() -> Self {
        Self::over(Components::default())
    }

    /// Creates a caller over this network.
    pub fn over(components: Components) -> Self {
        Self { components, clients: Mutex::default() }
    }

    fn admin(&self, at: &Addresses) -> Result<Admin, CallError> {
        if at.is_empty() {
            return Err(CallError::NoAddress);
        }
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = clients.iter().position(|(addresses, _)| addresses == at);
        let client = match kept.and_then(|index| clients.remove(index)) {
            Some((_, client)) => client,
            None => Client::builder()
                .coordinators(at.iter().take(COORDINATORS_MAX).cloned())
                .deadline(DEADLINE)
                .components(self.components.clone())
                .connect_lazy()?,
        };
        let admin = client.admin().one_round();
        if clients.len() >= CLIENTS_MAX {
            clients.pop_front();
        }
        clients.push_back((at.clone(), client));
        Ok(admin)
    }
}

impl Default for GrpcCoordinator {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Coordinator for GrpcCoordinator {
    async fn snapshot(&self, at: &Addresses) -> Snapshot {
        let admin = match self.admin(at) {
            Ok(admin) => admin,
            Err(error) => return Snapshot::Unreachable(error.to_string()),
        };
        match admin.status().await {
            Ok(status) => Snapshot::Known(Box::new(status)),
            Err(error) if error.is_uninitialised() => Snapshot::Uninitialised,
            Err(error) => Snapshot::Unreachable(error.to_string()),
        }
    }

    async fn init(
        &self,
        at: &Addresses,
        id: ClusterId,
        replication: Replication,
    ) -> Result<bool, CallError> {
        Ok(self.admin(at)?.init(id, replication).await?)
    }

    async fn set_replication(
        &self,
        at: &Addresses,
        id: ClusterId,
        replication: Replication,
    ) -> Result<(), CallError> {
        self.admin(at)?.set_replication(id, replication).await?;
        Ok(())
    }

    async fn admit(&self, at: &Addresses, id: ClusterId, node: NodeId) -> Result<(), CallError> {
        self.admin(at)?.admit(id, node).await?;
        Ok(())
    }

    async fn begin_maintenance(
        &self,
        at: &Addresses,
        id: ClusterId,
        node: NodeId,
        ttl: Duration,
    ) -> Result<Maintenance, CallError> {
        let wanted = MaintenanceRequest::new(ttl).require_safe();
        Ok(self.admin(at)?.begin_maintenance(id, node, wanted).await?)
    }

    async fn end_maintenance(
        &self,
        at: &Addresses,
        id: ClusterId,
        node: NodeId,
    ) -> Result<(), CallError> {
        Ok(self.admin(at)?.end_maintenance(id, node).await?)
    }
}
