//! Nodes that join with older copies of their disks.

use std::time::Duration;

use dfs_proto::wire::{self, WireId as _};
use dfs_proto::{FieldError, v1};
use dfs_types::{ClusterId, DiskId, NodeId, RegistrationNumber};

use super::{Admin, DiskStatus};
use crate::Error;

/// A process that asks to join as a node with older copies of its disks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Readmission {
    /// Its address, `host:port`.
    pub address: String,
    /// Name of its machine; may be empty.
    pub host: String,
    /// Registration on its disks.
    pub registration: RegistrationNumber,
    /// The newer registration, which is in use.
    pub registration_in_use: RegistrationNumber,
    /// Time since the last heartbeat under the newer one; `None` if the coordinator never got one.
    pub last_heard: Option<Duration>,
    /// Its disks.
    pub disks: Vec<DiskStatus>,
    /// Disks of the node that are not among them.
    pub absent_disks: Vec<DiskId>,
}

impl Readmission {
    fn from_wire(reply: v1::ReadmitResponse) -> Result<Self, FieldError> {
        let absent = reply.absent_disks.iter().map(|id| wire::id("absent_disks", id));
        Ok(Self {
            address: reply.address,
            host: reply.host,
            registration: RegistrationNumber(reply.registration),
            registration_in_use: RegistrationNumber(reply.registration_in_use),
            last_heard: reply.last_heard_ms.map(Duration::from_millis),
            disks: reply.disks.into_iter().map(DiskStatus::from_wire).collect::<Result<_, _>>()?,
            absent_disks: absent.collect::<Result<_, _>>()?,
        })
    }
}

impl Admin {
    /// Returns the process that asks to join as a node with older copies of its disks, without
    /// changing anything. Refused while a process uses the newer disks, and unless exactly one asks.
    pub async fn plan_readmit(
        &self,
        cluster: ClusterId,
        node: NodeId,
    ) -> Result<Readmission, Error> {
        self.send_readmit(cluster, node, None).await
    }

    /// Lets a node join with copies of its disks that have this registration. What they hold is
    /// compared with the records before they are in full service.
    pub async fn readmit(
        &self,
        cluster: ClusterId,
        node: NodeId,
        registration: RegistrationNumber,
    ) -> Result<(), Error> {
        self.send_readmit(cluster, node, Some(registration)).await.map(drop)
    }

    async fn send_readmit(
        &self,
        cluster: ClusterId,
        node: NodeId,
        registration: Option<RegistrationNumber>,
    ) -> Result<Readmission, Error> {
        let context = format!("readmit node {node}");
        let request = v1::ReadmitRequest {
            cluster_id: cluster.to_wire(),
            node_id: node.to_wire(),
            is_dry_run: registration.is_none(),
            registration: registration.unwrap_or_default().0,
        };
        let reply = self.call(&context, request, |mut admin, request| async move {
            admin.readmit(request).await
        });
        Readmission::from_wire(reply.await?).map_err(|error| Error::wire(&context, &error))
    }
}
