//! Revisions: what pods must be restarted for.

use dfs_crd::{Etcd, Image, PodTemplate, Resources};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::Component;
use super::plan::Plan;

/// Annotation of pods and their templates: changes exactly when pods must be restarted.
pub use dfs_crd::REVISION;

/// The settings of a user that a running pod does not notice. They are hashed as requested, not as
/// rendered: a new operator may render the same request differently, and must not restart anything
/// for that. So a field added here is omitted while it has its default.
#[derive(Serialize)]
struct Causes<'a> {
    image: &'a Image,
    resources: &'a Resources,
    pod_template: &'a PodTemplate,
    #[serde(skip_serializing_if = "Option::is_none")]
    restarted_at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etcd: Option<&'a Etcd>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reserved_percent: Option<i32>,
}

/// Returns the revision of the pods of a component.
pub(super) fn of(plan: &Plan<'_>, component: Component) -> String {
    let spec = plan.spec;
    let causes = match component {
        Component::Coordinator => Causes {
            image: &spec.image,
            resources: &spec.coordinator.resources,
            pod_template: &spec.coordinator.pod_template,
            restarted_at: plan.restarted_at,
            etcd: spec.coordinator.metadata.etcd.as_ref(),
            reserved_percent: None,
        },
        Component::Datanode => Causes {
            image: &spec.image,
            resources: &spec.datanodes.resources,
            pod_template: &spec.datanodes.pod_template,
            restarted_at: plan.restarted_at,
            etcd: None,
            reserved_percent: Some(spec.datanodes.storage.reserved_percent),
        },
    };
    let json = serde_json::to_vec(&causes).expect("a part of the resource is JSON");
    let digest = Sha256::digest(json);
    digest.iter().take(8).fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}
