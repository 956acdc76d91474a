//! What the objects of a cluster are called.

use dfs_crd::DfsCluster;
use kube::ResourceExt as _;

use super::Component;
use super::service::DATANODE_PORT;
use crate::COORDINATOR_PORT;

/// Names of the objects of one cluster. All follow from the cluster's own, and have at most 63
/// characters when that has at most [`dfs_crd::NAME_LEN_MAX`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    cluster: String,
    namespace: String,
}

impl Names {
    /// Of this cluster.
    pub fn of(cluster: &DfsCluster) -> Self {
        Self { cluster: cluster.name_any(), namespace: cluster.namespace().unwrap_or_default() }
    }

    /// The cluster's own.
    pub fn cluster(&self) -> String {
        self.cluster.clone()
    }

    /// The namespace of all of them.
    pub fn namespace(&self) -> String {
        self.namespace.clone()
    }

    /// What runs the pods of a component, and what else is theirs.
    pub(crate) fn of_component(&self, component: Component) -> String {
        match component {
            Component::Coordinator => self.coordinator(),
            Component::Datanode => self.datanode(),
        }
    }

    /// The coordinators' Deployment, the Service that clients talk to, and what else is theirs.
    pub fn coordinator(&self) -> String {
        format!("{}-coordinator", self.cluster)
    }

    /// The headless Service of the coordinators.
    pub fn coordinators(&self) -> String {
        format!("{}-coordinators", self.cluster)
    }

    /// The datanodes' StatefulSet, and what else is theirs.
    pub fn datanode(&self) -> String {
        format!("{}-datanode", self.cluster)
    }

    /// The headless Service of the datanodes.
    pub fn datanodes(&self) -> String {
        format!("{}-datanodes", self.cluster)
    }

    /// The claim for the metadata.
    pub fn metadata_claim(&self) -> String {
        format!("{}-metadata", self.cluster)
    }

    /// The Secret with the join secret.
    pub fn join_secret(&self) -> String {
        format!("{}-join", self.cluster)
    }

    /// Where every coordinator is found by name.
    pub fn coordinators_address(&self) -> String {
        format!("{}.{}.svc:{COORDINATOR_PORT}", self.coordinators(), self.namespace)
    }

    /// The address that a datanode registers with.
    pub fn datanode_address(&self, pod: &str) -> String {
        format!("{pod}.{}.{}.svc:{DATANODE_PORT}", self.datanodes(), self.namespace)
    }
}
