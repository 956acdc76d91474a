//! Observed state of a cluster.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{embedded_list, embedded_object};

/// Maximum number of datanodes in the status.
pub const DATANODES_MAX: usize = 200;

/// Observed state of a cluster. Programs should rely on the conditions.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// Generation of the spec that was last acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Summary for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Conditions, for programs to rely on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "embedded_list::<Condition>")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Id of the cluster, once its metadata has been created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^[0-9a-f]{32}$"))]
    pub cluster_id: Option<String>,
    /// Running versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionStatus>,
    /// Existing datanodes.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub replicas: i32,
    /// Ready datanodes.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub ready_replicas: i32,
    /// Selector of the pods of datanodes; for autoscalers.
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub selector: String,
    /// The coordinators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coordinator: Option<CoordinatorStatus>,
    /// The datanodes, the first 200 by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub datanodes: Vec<DatanodeStatus>,
    /// True if there are more datanodes than listed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub datanodes_truncated: bool,
    /// Capacity, updated on relevant changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    /// Health of the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication: Option<ReplicationStatus>,
    /// Progress of a new image or new settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
}

/// Summary of a cluster for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Nothing has been created yet.
    Pending,
    /// Being created.
    Creating,
    /// Serving, as specified.
    Ready,
    /// Datanodes are being added.
    Scaling,
    /// Pods are being replaced.
    Upgrading,
    /// Serving, but lacking nodes or replicas.
    Degraded,
    /// A person must act.
    Stalled,
    /// The operator is paused.
    Paused,
    /// No pod runs, as specified.
    Stopped,
    /// Being deleted.
    Deleting,
}

/// Running versions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionStatus {
    /// The oldest running version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub current: Option<String>,
    /// The desired version.
    #[schemars(length(max = 128))]
    pub target: String,
}

/// The coordinators.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CoordinatorStatus {
    /// Number of ready ones.
    #[schemars(range(min = 0))]
    pub ready: i32,
    /// Desired number.
    #[schemars(range(min = 0))]
    pub desired: i32,
    /// The one that runs the background workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub lease_holder: Option<String>,
    /// Address for clients, `host:port`.
    #[schemars(length(max = 255))]
    pub endpoint: String,
}

/// A datanode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatanodeStatus {
    /// Name of its pod.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Its id in the cluster, which is stored on its volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 36))]
    pub node_id: Option<String>,
    /// The Kubernetes node that it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub kube_node: Option<String>,
    /// Its failure domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub zone: Option<String>,
    /// Its state in the cluster.
    pub state: DatanodeState,
    /// Version of its software.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub version: Option<String>,
    /// Its capacity in bytes, updated on relevant changes.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub capacity_bytes: i64,
    /// Used bytes of the capacity.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub used_bytes: i64,
    /// Time of the last change of the state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "embedded_object::<Time>")]
    pub last_transition_time: Option<Time>,
}

/// State of a datanode in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DatanodeState {
    /// Its pod has not joined yet.
    Pending,
    /// Joined, and waiting for admission.
    Joining,
    /// Full member of the cluster.
    Active,
    /// Silent for a short time.
    Suspect,
    /// Being emptied.
    Draining,
    /// Empty.
    Drained,
    /// Removed permanently.
    Removed,
    /// Down temporarily, as announced.
    Maintenance,
    /// Silent for long; its data is re-replicated.
    Lost,
}

/// Capacity of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// Total bytes.
    #[schemars(range(min = 0))]
    pub total_bytes: i64,
    /// Used bytes, including all replicas.
    #[schemars(range(min = 0))]
    pub used_bytes: i64,
    /// Used bytes in percent.
    #[schemars(range(min = 0, max = 100))]
    pub used_percent: i32,
}

/// Health of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicationStatus {
    /// Replicas of files by default.
    #[schemars(range(min = 0, max = 16))]
    pub target: i32,
    /// Chunks that lack replicas, but have one.
    #[schemars(range(min = 0))]
    pub under_replicated_chunks: i64,
    /// Chunks without a reachable replica.
    #[schemars(range(min = 0))]
    pub missing_chunks: i64,
    /// Replicas found bad.
    #[schemars(range(min = 0))]
    pub corrupt_chunks: i64,
}

/// Progress of a new image or new settings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Revision being rolled out: the hash that its pods are annotated with.
    #[schemars(length(max = 64))]
    pub revision: String,
    /// Datanodes with this revision.
    #[schemars(range(min = 0))]
    pub updated: i32,
    /// Datanodes without it.
    #[schemars(range(min = 0))]
    pub remaining: i32,
    /// The pod being replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub current_pod: Option<String>,
    /// Why the next pod is not replaced yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1_024))]
    pub blocked_reason: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}
