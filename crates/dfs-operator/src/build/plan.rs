//! Facts shared by all objects of a cluster, computed once.

use dfs_crd::{DfsCluster, DfsClusterSpec, Engine, RESTARTED_AT};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource as _, ResourceExt as _};

use super::labels::{self, Labels};
use super::names::Names;
use super::{Component, Inputs};

/// Inputs of the objects.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) inputs: &'a Inputs<'a>,
    pub(super) spec: &'a DfsClusterSpec,
    pub(super) names: Names,
    /// The full name of the image.
    pub(super) image: String,
    /// Time of the last restart requested by a user.
    pub(super) restarted_at: Option<&'a str>,
    owner: Option<OwnerReference>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(inputs: &'a Inputs<'a>) -> Self {
        let cluster: &DfsCluster = inputs.cluster;
        let image = &cluster.spec.image;
        let image = match &image.digest {
            Some(digest) => format!("{}@{digest}", image.repository),
            None => format!("{}:{}", image.repository, image.tag),
        };
        Self {
            inputs,
            spec: &cluster.spec,
            names: Names::of(cluster),
            image,
            restarted_at: cluster.annotations().get(RESTARTED_AT).map(String::as_str),
            owner: cluster
                .controller_owner_ref(&())
                .map(|owner| OwnerReference { block_owner_deletion: Some(true), ..owner }),
        }
    }

    pub(super) fn is_embedded(&self) -> bool {
        self.spec.coordinator.metadata.engine == Engine::Embedded
    }

    /// Returns the metadata of an object that is deleted with the resource.
    pub(super) fn metadata(&self, name: String, component: Component) -> ObjectMeta {
        ObjectMeta {
            name: Some(name),
            namespace: Some(self.names.namespace()),
            labels: Some(self.labels(component)),
            owner_references: self.owner.clone().map(|owner| vec![owner]),
            ..ObjectMeta::default()
        }
    }

    pub(super) fn labels(&self, component: Component) -> Labels {
        labels::of_object(&self.names.cluster(), component, &self.spec.image)
    }

    /// Returns the selector of the pods of a component.
    pub(super) fn pods(&self, component: Component) -> Labels {
        labels::of_component(&self.names.cluster(), component)
    }
}
