//! The user's overlay on the pods, applied last. What the operator needs to find pods stays.

use std::collections::BTreeMap;

use dfs_crd::PodTemplate;
use k8s_openapi::api::core::v1::PodTemplateSpec;

pub(super) fn lay(template: &mut PodTemplateSpec, overlay: &PodTemplate) {
    // Without `..`: a new field must be handled here.
    let PodTemplate {
        labels,
        annotations,
        node_selector,
        affinity,
        tolerations,
        topology_spread_constraints,
        priority_class_name,
        termination_grace_period_seconds,
        service_account_name,
        extra_env,
    } = overlay;
    let metadata = template.metadata.get_or_insert_default();
    add(metadata.labels.get_or_insert_default(), labels);
    add(metadata.annotations.get_or_insert_default(), annotations);
    let spec = template.spec.get_or_insert_default();
    if !node_selector.is_empty() {
        spec.node_selector = Some(node_selector.clone());
    }
    if affinity.is_some() {
        spec.affinity.clone_from(affinity);
    }
    if !tolerations.is_empty() {
        spec.tolerations = Some(tolerations.clone());
    }
    if !topology_spread_constraints.is_empty() {
        spec.topology_spread_constraints = Some(topology_spread_constraints.clone());
    }
    if priority_class_name.is_some() {
        spec.priority_class_name.clone_from(priority_class_name);
    }
    if termination_grace_period_seconds.is_some() {
        spec.termination_grace_period_seconds = *termination_grace_period_seconds;
    }
    if service_account_name.is_some() {
        spec.service_account_name.clone_from(service_account_name);
    }
    for container in &mut spec.containers {
        let own = container.env.get_or_insert_default();
        let is_new = |name: &str| own.iter().all(|variable| variable.name != name);
        let new: Vec<_> = extra_env.iter().filter(|v| is_new(&v.name)).cloned().collect();
        own.extend(new);
    }
}

/// Adds entries. The operator's own keys are already present and stay.
fn add(own: &mut BTreeMap<String, String>, more: &BTreeMap<String, String>) {
    for (key, value) in more {
        own.entry(key.clone()).or_insert_with(|| value.clone());
    }
}
