//! The resource itself.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::coordinator::Coordinator;
use crate::datanodes::Datanodes;
use crate::image::Image;
use crate::maintenance::Maintenance;
use crate::security::{Monitoring, Security};
use crate::status::ClusterStatus;

/// What a user wants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "dfs.io",
    version = "v1alpha1",
    kind = "DfsCluster",
    plural = "dfsclusters",
    shortname = "dfsc",
    category = "dfs",
    namespaced,
    derive = "PartialEq",
    doc = "A distributed file system: coordinators, datanodes, and their volumes.",
    status = "ClusterStatus",
    scale(
        spec_replicas_path = ".spec.datanodes.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#, description = "Serves reads and writes with all replicas"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", description = "Summary for people"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version.current", description = "Oldest version that runs"),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.readyReplicas", description = "Datanodes that are ready"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".spec.datanodes.replicas", description = "Datanodes wanted"),
    printcolumn(name = "RF", type_ = "integer", json_path = ".spec.replicationFactor", description = "Replicas of each byte"),
    printcolumn(name = "Used%", type_ = "integer", json_path = ".status.capacity.usedPercent", description = "Part of the space in use"),
    printcolumn(name = "Under-Repl", type_ = "integer", json_path = ".status.replication.underReplicatedChunks", description = "Chunks that lack replicas"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Leader", type_ = "string", json_path = ".status.coordinator.leaseHolder", description = "Coordinator that runs the background work", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#, description = "Why it is ready or not", priority = 1),
    validation = Rule::new("size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("`metadata.name` must have at most 40 characters, of a-z, 0-9 and -, the first a letter, the last no -"),
    validation = Rule::new("self.spec.deletionConfirmation == '' || self.spec.deletionConfirmation == self.metadata.name")
        .message("`deletionConfirmation` must be empty or the name of the cluster")
        .field_path(".spec.deletionConfirmation")
)]
#[x_kube(
    validation = Rule::new("self.replicationFactor <= self.datanodes.replicas")
        .message("`replicationFactor` must be at most `datanodes.replicas`: each replica needs a node of its own")
        .field_path(".replicationFactor"),
    validation = Rule::new("!has(self.minWriteReplicas) || self.minWriteReplicas <= self.replicationFactor")
        .message("`minWriteReplicas` must be at most `replicationFactor`")
        .field_path(".minWriteReplicas")
)]
pub struct DfsClusterSpec {
    /// What the pods run.
    #[serde(default)]
    pub image: Image,
    /// Replicas of each byte that new files get.
    #[serde(default = "default_replication")]
    #[schemars(range(min = 1, max = 7))]
    pub replication_factor: i32,
    /// Durable replicas without which no write is acknowledged; a majority of `replicationFactor`
    /// when not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 7))]
    pub min_write_replicas: Option<i32>,
    /// What may fail as one.
    #[serde(default)]
    pub failure_domain: FailureDomain,
    /// The coordinators.
    #[serde(default)]
    pub coordinator: Coordinator,
    /// The datanodes.
    pub datanodes: Datanodes,
    /// Who may talk to the cluster.
    #[serde(default)]
    pub security: Security,
    /// Who watches it.
    #[serde(default)]
    pub monitoring: Monitoring,
    /// How the operator changes what runs.
    #[serde(default)]
    pub maintenance: Maintenance,
    /// Whether no pod runs. Volumes stay.
    #[serde(default)]
    pub stopped: bool,
    /// What becomes of the volumes when the cluster is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// The name of the cluster, without which `deletionPolicy: Delete` is not acted on.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub deletion_confirmation: String,
}

/// What may fail as one: replicas of a byte are spread over such domains.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailureDomain {
    /// Label of nodes that names their domain. Cannot be changed. With `topology.kubernetes.io/…`
    /// the API server must replica it to pods, as it does from Kubernetes 1.35 on.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("`topologyKey` must stay as it is: another one would move all data"))]
    pub topology_key: TopologyKey,
    /// What the scheduler does when pods cannot be spread over domains.
    #[serde(default)]
    pub policy: SpreadPolicy,
}

/// A label of nodes that names their failure domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum TopologyKey {
    /// Each node is one.
    #[default]
    #[serde(rename = "kubernetes.io/hostname")]
    Hostname,
    /// The zone of a node.
    #[serde(rename = "topology.kubernetes.io/zone")]
    Zone,
    /// The region of a node.
    #[serde(rename = "topology.kubernetes.io/region")]
    Region,
}

impl TopologyKey {
    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hostname => "kubernetes.io/hostname",
            Self::Zone => "topology.kubernetes.io/zone",
            Self::Region => "topology.kubernetes.io/region",
        }
    }
}

/// What the scheduler does when pods cannot be spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum SpreadPolicy {
    /// Places them nevertheless.
    #[default]
    Preferred,
    /// Leaves them pending.
    Required,
}

/// What becomes of the volumes of a deleted cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// They stay.
    #[default]
    Retain,
    /// They are deleted, if `deletionConfirmation` says so.
    Delete,
}

fn default_replication() -> i32 {
    3
}
