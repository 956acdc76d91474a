//! The user's overlay on the pods.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, EnvVar, Toleration, TopologySpreadConstraint};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{embedded_list, embedded_object, label_map, text_map};

/// Overlay on the pods of the operator, applied last.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "!has(self.labels) || self.labels.all(key, !key.startsWith('app.kubernetes.io/') && !key.startsWith('dfs.io/'))"
    )
    .message("`labels` must not contain keys of the operator: app.kubernetes.io/… and dfs.io/…")
    .field_path(".labels"),
    validation = Rule::new(
        "!has(self.annotations) || self.annotations.all(key, !key.startsWith('dfs.io/'))"
    )
    .message("`annotations` must not contain keys of the operator: dfs.io/…")
    .field_path(".annotations"),
    validation = Rule::new(
        "!has(self.extraEnv) || self.extraEnv.all(e, !(e.name in ['POD_NAME', 'POD_IP', 'NODE_NAME', 'DFS_ZONE']))"
    )
    .message("`extraEnv` must not contain variables of the operator: POD_NAME, POD_IP, NODE_NAME, DFS_ZONE")
    .field_path(".extraEnv")
)]
pub struct PodTemplate {
    /// Additional labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "label_map")]
    pub labels: BTreeMap<String, String>,
    /// Additional annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "text_map")]
    pub annotations: BTreeMap<String, String>,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "label_map")]
    pub node_selector: BTreeMap<String, String>,
    /// Affinity of the pods; replaces the operator's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "embedded_object::<Affinity>")]
    pub affinity: Option<Affinity>,
    /// Taints of nodes that the pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "embedded_list::<Toleration>")]
    pub tolerations: Vec<Toleration>,
    /// Topology spread constraints; replace those derived from `failureDomain`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "embedded_list::<TopologySpreadConstraint>")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Name of the priority class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// Seconds that a pod has to stop before it is killed; 120 when not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 15, max = 3_600))]
    pub termination_grace_period_seconds: Option<i64>,
    /// Name of an existing service account; the operator creates one when not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
    /// Additional variables of the container, such as `RUST_LOG`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "embedded_list::<EnvVar>")]
    pub extra_env: Vec<EnvVar>,
}
