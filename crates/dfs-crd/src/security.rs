//! Network access to the pods, and their monitoring.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{embedded_list, label_map};

/// Network access to the cluster.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Security {
    /// NetworkPolicies of the pods.
    #[serde(default)]
    pub network_policy: NetworkPolicy,
}

/// NetworkPolicies of the pods. Requires a network that enforces NetworkPolicies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPolicy {
    /// True to create them.
    #[serde(default = "default_true")]
    pub enabled: bool,
    /// Peers that may be clients; every pod of the namespace when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "embedded_list::<NetworkPolicyPeer>")]
    pub client_selectors: Vec<NetworkPolicyPeer>,
}

/// Monitoring of the cluster. Metrics are always served.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Monitoring {
    /// ServiceMonitor for the Prometheus operator.
    #[serde(default)]
    pub service_monitor: ServiceMonitor,
}

/// A ServiceMonitor, created if the Prometheus operator is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceMonitor {
    /// True to create it.
    #[serde(default)]
    pub enabled: bool,
    /// Seconds between two scrapes.
    #[serde(default = "default_interval")]
    #[schemars(range(min = 5, max = 3_600))]
    pub interval_seconds: i32,
    /// Labels by which Prometheus selects it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "label_map")]
    pub labels: BTreeMap<String, String>,
}

impl Default for NetworkPolicy {
    fn default() -> Self {
        Self { enabled: default_true(), client_selectors: Vec::new() }
    }
}

impl Default for ServiceMonitor {
    fn default() -> Self {
        Self { enabled: false, interval_seconds: default_interval(), labels: BTreeMap::new() }
    }
}

fn default_true() -> bool {
    true
}

fn default_interval() -> i32 {
    30
}
