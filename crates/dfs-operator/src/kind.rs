//! Kinds of objects that the operator creates, and their addressing.

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{ApiResource, GroupVersionKind};
use serde_json::Value;

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Service account of the pods.
    ServiceAccount,
    /// Settings of the processes.
    ConfigMap,
    /// DNS names.
    Service,
    /// A NetworkPolicy.
    NetworkPolicy,
    /// A disruption budget.
    Budget,
    /// A ServiceMonitor of the Prometheus operator; not served everywhere.
    ServiceMonitor,
    /// A claim for a volume.
    Claim,
    /// The coordinators.
    Deployment,
    /// The datanodes.
    StatefulSet,
    /// The join secret.
    Secret,
    /// A process.
    Pod,
}

impl Kind {
    /// The kinds that are deleted when the spec no longer asks for them.
    pub const PRUNED: [Self; 4] =
        [Self::ServiceAccount, Self::NetworkPolicy, Self::Budget, Self::ServiceMonitor];

    /// Returns its API resource.
    pub fn resource(self) -> ApiResource {
        match self {
            Self::ServiceAccount => ApiResource::erase::<ServiceAccount>(&()),
            Self::ConfigMap => ApiResource::erase::<ConfigMap>(&()),
            Self::Service => ApiResource::erase::<Service>(&()),
            Self::NetworkPolicy => ApiResource::erase::<NetworkPolicy>(&()),
            Self::Budget => ApiResource::erase::<PodDisruptionBudget>(&()),
            Self::ServiceMonitor => ApiResource::from_gvk(&GroupVersionKind::gvk(
                "monitoring.coreos.com",
                "v1",
                "ServiceMonitor",
            )),
            Self::Claim => ApiResource::erase::<PersistentVolumeClaim>(&()),
            Self::Deployment => ApiResource::erase::<Deployment>(&()),
            Self::StatefulSet => ApiResource::erase::<StatefulSet>(&()),
            Self::Secret => ApiResource::erase::<Secret>(&()),
            Self::Pod => ApiResource::erase::<Pod>(&()),
        }
    }

    /// Returns its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::ServiceAccount => "ServiceAccount",
            Self::ConfigMap => "ConfigMap",
            Self::Service => "Service",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::Budget => "PodDisruptionBudget",
            Self::ServiceMonitor => "ServiceMonitor",
            Self::Claim => "PersistentVolumeClaim",
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::Secret => "Secret",
            Self::Pod => "Pod",
        }
    }
}

/// An object in its desired state.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The fields that the operator owns.
    pub value: Value,
}

/// One specific object, not a later one of the same name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.name)
    }
}
