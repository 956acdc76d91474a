//! Settings of the processes.
//!
//! A process refuses unknown keys, and a new operator may run with old processes: a newly
//! introduced key must be written only for images that support it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use super::Component;
use super::plan::Plan;

/// The only key of each ConfigMap.
pub(super) const COORDINATOR_YAML: &str = "coordinator.yaml";
pub(super) const DATANODE_YAML: &str = "datanode.yaml";

/// Silence after which the replicas of a datanode are re-replicated. Longer than a pod takes to
/// restart on its node, shorter than Kubernetes takes to give up a node.
const LOST_AFTER_MS: u64 = 120_000;
/// The volume belongs to the datanode alone: nothing else needs room on it.
const HEADROOM_BYTES_MIN: u64 = 16 << 20;

pub(super) fn coordinator(plan: &Plan<'_>) -> ConfigMap {
    let mut settings = json!({
        // A different store at the same place is refused.
        "cluster_id": plan.inputs.cluster_id.to_string(),
        // The operator admits the nodes in its own pods.
        "auto_admit": false,
        "lost_after_ms": LOST_AFTER_MS,
    });
    if let Some(streams) = plan.spec.coordinator.relay_streams {
        settings["relay_streams"] = streams.into();
    }
    build(plan, Component::Coordinator, COORDINATOR_YAML, &settings)
}

pub(super) fn datanode(plan: &Plan<'_>) -> ConfigMap {
    let settings = json!({
        "headroom_percent": plan.spec.datanodes.storage.reserved_percent,
        "headroom_bytes_min": HEADROOM_BYTES_MIN,
    });
    build(plan, Component::Datanode, DATANODE_YAML, &settings)
}

fn build(plan: &Plan<'_>, component: Component, key: &str, settings: &Value) -> ConfigMap {
    // JSON scalars under plain keys are valid YAML, except for the braces.
    let line = |(key, value): (&String, &Value)| format!("{key}: {value}\n");
    let text: String = settings.as_object().into_iter().flatten().map(line).collect();
    ConfigMap {
        metadata: plan.metadata(plan.names.of_component(component), component),
        data: Some(BTreeMap::from([(key.to_owned(), text)])),
        ..ConfigMap::default()
    }
}
