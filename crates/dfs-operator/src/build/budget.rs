//! Disruption budgets: how many pods may be evicted at a time.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::plan::Plan;
use super::{Component, labels};

/// Returns the budget of a component. A single coordinator has none: it would block every drain
/// forever.
pub(super) fn build(plan: &Plan<'_>, component: Component) -> Option<PodDisruptionBudget> {
    let max_unavailable = match component {
        Component::Coordinator if plan.spec.coordinator.replicas == 1 => return None,
        Component::Coordinator => 1,
        Component::Datanode => i32::from(plan.inputs.may_evict),
    };
    Some(PodDisruptionBudget {
        metadata: plan.metadata(plan.names.of_component(component), component),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(max_unavailable)),
            selector: Some(labels::selector(plan.pods(component))),
            // An unhealthy pod must not block the drain that would fix it.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    })
}
