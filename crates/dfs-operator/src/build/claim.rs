//! Claims for volumes.

use dfs_crd::Quantity;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::plan::Plan;
use super::{Component, labels};

/// Returns the claim for the metadata of the embedded engine. It has no owner, so it outlives the
/// resource.
pub(super) fn metadata(plan: &Plan<'_>) -> Option<PersistentVolumeClaim> {
    let storage = &plan.spec.coordinator.metadata.embedded.storage;
    plan.is_embedded().then(|| PersistentVolumeClaim {
        metadata: ObjectMeta {
            namespace: Some(plan.names.namespace()),
            ..metadata_of(plan, plan.names.metadata_claim(), Component::Coordinator)
        },
        spec: Some(spec(&storage.size, storage.storage_class_name.clone())),
        ..PersistentVolumeClaim::default()
    })
}

/// Returns the templates for the claims of datanodes.
pub(super) fn templates(plan: &Plan<'_>) -> Vec<PersistentVolumeClaim> {
    let storage = &plan.spec.datanodes.storage;
    let claim = |name| PersistentVolumeClaim {
        metadata: metadata_of(plan, name, Component::Datanode),
        spec: Some(spec(&storage.size, storage.storage_class_name.clone())),
        ..PersistentVolumeClaim::default()
    };
    data_volumes(plan).into_iter().map(claim).collect()
}

/// Returns the names of the volumes of a datanode.
pub(super) fn data_volumes(plan: &Plan<'_>) -> Vec<String> {
    match plan.spec.datanodes.storage.volumes_per_node {
        ..=1 => vec!["data".to_owned()],
        volumes => (0..volumes).map(|volume| format!("data-{volume}")).collect(),
    }
}

fn metadata_of(plan: &Plan<'_>, name: String, component: Component) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        labels: Some(labels::of_lasting(&plan.names.cluster(), component)),
        ..ObjectMeta::default()
    }
}

fn spec(size: &Quantity, class: Option<String>) -> PersistentVolumeClaimSpec {
    let size = resource::Quantity(size.0.clone());
    PersistentVolumeClaimSpec {
        access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
        resources: Some(VolumeResourceRequirements {
            requests: Some([("storage".to_owned(), size)].into()),
            ..VolumeResourceRequirements::default()
        }),
        storage_class_name: class,
        ..PersistentVolumeClaimSpec::default()
    }
}
