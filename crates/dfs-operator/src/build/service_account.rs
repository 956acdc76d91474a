//! Service accounts of the pods, without permissions.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::Component;
use super::plan::Plan;

/// Returns the account of a component, unless the user names one.
pub(super) fn build(plan: &Plan<'_>, component: Component) -> Option<ServiceAccount> {
    if super::pod::overlay(plan, component).service_account_name.is_some() {
        return None;
    }
    Some(ServiceAccount {
        metadata: plan.metadata(plan.names.of_component(component), component),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    })
}
