//! ServiceMonitor of the Prometheus operator, whose types are not available here.

use serde_json::{Value, json};

use super::plan::Plan;
use super::service::HTTP;
use super::{Component, labels};

/// Returns a ServiceMonitor of coordinators and datanodes through their headless Services.
pub(super) fn build(plan: &Plan<'_>) -> Value {
    let wanted = &plan.spec.monitoring.service_monitor;
    let mut metadata = plan.metadata(plan.names.cluster(), Component::Coordinator);
    let own = metadata.labels.get_or_insert_default();
    for (key, value) in &wanted.labels {
        own.entry(key.clone()).or_insert_with(|| value.clone());
    }
    json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": metadata,
        "spec": {
            "selector": { "matchLabels": labels::of_cluster(&plan.names.cluster()) },
            "targetLabels": ["app.kubernetes.io/instance", "app.kubernetes.io/component"],
            "endpoints": [{
                "port": HTTP,
                "path": "/metrics",
                "interval": format!("{}s", wanted.interval_seconds),
            }],
        },
    })
}
