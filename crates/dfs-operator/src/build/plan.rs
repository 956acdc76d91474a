//! What all objects of a cluster have in common, worked out once.

use dfs_crd::{DfsCluster, DfsClusterSpec, Engine, RESTARTED_AT};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource as _, ResourceExt as _};

use super::labels::{self, Labels};
use super::names::Names;
use super::{Component, Inputs};

/// What objects are made from.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) inputs: &'a Inputs<'a>,
    pub(super) spec: &'a DfsClusterSpec,
    pub(super) names: Names,
    /// The whole name of the image.
    pub(super) image: String,
    /// When a user last asked for a restart.
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

    /// Metadata of an object that goes with the resource.
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

    /// What selects the pods of a component.
    pub(super) fn pods(&self, component: Component) -> Labels {
        labels::of_component(&self.names.cluster(), component)
    }
}
