//! Names of the objects of a cluster.

use dfs_crd::DfsCluster;
use kube::ResourceExt as _;

use super::Component;
use super::service::DATANODE_PORT;
use crate::COORDINATOR_PORT;

/// Names of the objects of one cluster. All are derived from the cluster's own, and have at most 63
/// characters when that has at most [`dfs_crd::NAME_LEN_MAX`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    cluster: String,
    namespace: String,
}

impl Names {
    /// Returns the names of this cluster.
    pub fn of(cluster: &DfsCluster) -> Self {
        Self { cluster: cluster.name_any(), namespace: cluster.namespace().unwrap_or_default() }
    }

    /// Returns the name of the cluster.
    pub fn cluster(&self) -> String {
        self.cluster.clone()
    }

    /// Returns the namespace of all objects.
    pub fn namespace(&self) -> String {
        self.namespace.clone()
    }

    /// Returns the name of the workload of a component and of its other objects.
    pub(crate) fn of_component(&self, component: Component) -> String {
        match component {
            Component::Coordinator => self.coordinator(),
            Component::Datanode => self.datanode(),
        }
    }

    /// Returns the name of the coordinators' Deployment, of the Service for clients, and others.
    pub fn coordinator(&self) -> String {
        format!("{}-coordinator", self.cluster)
    }

    /// Returns the name of the headless Service of the coordinators.
    pub fn coordinators(&self) -> String {
        format!("{}-coordinators", self.cluster)
    }

    /// Returns the name of the datanodes' StatefulSet, and others.
    pub fn datanode(&self) -> String {
        format!("{}-datanode", self.cluster)
    }

    /// Returns the name of the headless Service of the datanodes.
    pub fn datanodes(&self) -> String {
        format!("{}-datanodes", self.cluster)
    }

    /// Returns the name of the metadata claim.
    pub fn metadata_claim(&self) -> String {
        format!("{}-metadata", self.cluster)
    }

    /// Returns the name of the Secret with the join secret.
    pub fn join_secret(&self) -> String {
        format!("{}-join", self.cluster)
    }

    /// Returns the DNS address that resolves to every coordinator.
    pub fn coordinators_address(&self) -> String {
        format!("{}.{}.svc:{COORDINATOR_PORT}", self.coordinators(), self.namespace)
    }

    /// Returns the address that a datanode registers with.
    pub fn datanode_address(&self, pod: &str) -> String {
        format!("{pod}.{}.{}.svc:{DATANODE_PORT}", self.datanodes(), self.namespace)
    }
}
