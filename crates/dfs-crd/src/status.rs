//! What the operator says of a cluster.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{embedded_list, embedded_object};

/// Datanodes that the status lists at most.
pub const DATANODES_MAX: usize = 200;

/// What the operator says of a cluster. Conditions are what programs rely on.
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
    /// What programs rely on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "embedded_list::<Condition>")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Id of the cluster, from when its metadata was made on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^[0-9a-f]{32}$"))]
    pub cluster_id: Option<String>,
    /// What runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionStatus>,
    /// Datanodes that there are.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub replicas: i32,
    /// Datanodes that are ready.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub ready_replicas: i32,
    /// Selects the pods of datanodes; for autoscalers.
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
    /// Whether there are more datanodes than are listed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub datanodes_truncated: bool,
    /// The space, as last worth telling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    /// How the data is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication: Option<ReplicationStatus>,
    /// How far a new image or new settings are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
}

/// Summary of a cluster for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Nothing has been made yet.
    Pending,
    /// It is being made.
    Creating,
    /// It serves, and is as asked for.
    Ready,
    /// Datanodes are being added.
    Scaling,
    /// Pods are being replaced.
    Upgrading,
    /// It lacks nodes or replicas.
    Degraded,
    /// Somebody must do something.
    Stalled,
    /// The operator is told to change nothing.
    Paused,
    /// No pod runs, as asked for.
    Stopped,
    /// It is being deleted.
    Deleting,
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionStatus {
    /// The oldest version that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub current: Option<String>,
    /// The version that is wanted.
    #[schemars(length(max = 128))]
    pub target: String,
}

/// The coordinators.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CoordinatorStatus {
    /// How many are ready.
    #[schemars(range(min = 0))]
    pub ready: i32,
    /// How many are wanted.
    #[schemars(range(min = 0))]
    pub desired: i32,
    /// Which one runs the background work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub lease_holder: Option<String>,
    /// Where clients find them, `host:port`.
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
    /// Its id in the cluster, which lies on its volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 36))]
    pub node_id: Option<String>,
    /// The node of Kubernetes that it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub kube_node: Option<String>,
    /// Its failure domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub zone: Option<String>,
    /// What it is to the cluster.
    pub state: DatanodeState,
    /// Version of its program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub version: Option<String>,
    /// Bytes it has, as last worth telling.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub capacity_bytes: i64,
    /// Bytes in use of these.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub used_bytes: i64,
    /// When it became what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "embedded_object::<Time>")]
    pub last_transition_time: Option<Time>,
}

/// What a datanode is to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DatanodeState {
    /// Its pod has not joined yet.
    Pending,
    /// It has joined, and waits to be admitted.
    Joining,
    /// It takes part.
    Active,
    /// It has not been heard of for a moment.
    Suspect,
    /// It is being emptied.
    Draining,
    /// It is empty.
    Drained,
    /// It is out for good.
    Removed,
    /// It is down for a while, as announced.
    Maintenance,
    /// It has not been heard of for long; its data is copied elsewhere.
    Lost,
}

/// The space of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// Bytes there are.
    #[schemars(range(min = 0))]
    pub total_bytes: i64,
    /// Bytes in use, all replicas counted.
    #[schemars(range(min = 0))]
    pub used_bytes: i64,
    /// The same in per cent.
    #[schemars(range(min = 0, max = 100))]
    pub used_percent: i32,
}

/// How the data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicationStatus {
    /// Replicas that new files get.
    #[schemars(range(min = 0, max = 16))]
    pub target: i32,
    /// Chunks that lack replicas, but have one.
    #[schemars(range(min = 0))]
    pub under_replicated_chunks: i64,
    /// Chunks without a replica that can be reached.
    #[schemars(range(min = 0))]
    pub missing_chunks: i64,
    /// Replicas that were found bad.
    #[schemars(range(min = 0))]
    pub corrupt_chunks: i64,
}

/// How far a new image or new settings are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// What is rolled out: the hash that its pods are annotated with.
    #[schemars(length(max = 64))]
    pub revision: String,
    /// Datanodes that have it.
    #[schemars(range(min = 0))]
    pub updated: i32,
    /// Datanodes that have it not.
    #[schemars(range(min = 0))]
    pub remaining: i32,
    /// The pod that is being replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub current_pod: Option<String>,
    /// Why the next pod is not replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1_024))]
    pub blocked_reason: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}
