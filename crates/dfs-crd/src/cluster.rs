//! The resource.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::coordinator::Coordinator;
use crate::datanodes::Datanodes;
use crate::image::Image;
use crate::maintenance::Maintenance;
use crate::security::{Monitoring, Security};
use crate::status::ClusterStatus;

/// Desired state of a cluster.
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
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version.current", description = "Oldest running version"),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.readyReplicas", description = "Ready datanodes"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".spec.datanodes.replicas", description = "Desired datanodes"),
    printcolumn(name = "RF", type_ = "integer", json_path = ".spec.replicationFactor", description = "Replicas of each byte"),
    printcolumn(name = "Used%", type_ = "integer", json_path = ".status.capacity.usedPercent", description = "Percentage of the capacity in use"),
    printcolumn(name = "Under-Repl", type_ = "integer", json_path = ".status.replication.underReplicatedChunks", description = "Chunks that lack replicas"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Leader", type_ = "string", json_path = ".status.coordinator.leaseHolder", description = "Coordinator that runs the background work", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#, description = "Why it is ready or not", priority = 1),
    validation = Rule::new("size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("`metadata.name` must have at most 40 characters of a-z, 0-9 and -, start with a letter and not end with -"),
    validation = Rule::new("self.spec.deletionConfirmation == '' || self.spec.deletionConfirmation == self.metadata.name")
        .message("`deletionConfirmation` must be empty or the name of the cluster")
        .field_path(".spec.deletionConfirmation")
)]
#[x_kube(
    validation = Rule::new("self.replicationFactor <= self.datanodes.replicas")
        .message("`replicationFactor` must be at most `datanodes.replicas`: each replica needs a separate node")
        .field_path(".replicationFactor"),
    validation = Rule::new("!has(self.minWriteReplicas) || self.minWriteReplicas <= self.replicationFactor")
        .message("`minWriteReplicas` must be at most `replicationFactor`")
        .field_path(".minWriteReplicas")
)]
pub struct DfsClusterSpec {
    /// Image of the pods.
    #[serde(default)]
    pub image: Image,
    /// Replicas of each byte; a change applies to existing files, too.
    #[serde(default = "default_replication")]
    #[schemars(range(min = 1, max = 7))]
    pub replication_factor: i32,
    /// Durable replicas required to acknowledge a write; a majority of `replicationFactor` when not
    /// set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 7))]
    pub min_write_replicas: Option<i32>,
    /// Units that may fail as a whole.
    #[serde(default)]
    pub failure_domain: FailureDomain,
    /// The coordinators.
    #[serde(default)]
    pub coordinator: Coordinator,
    /// The datanodes.
    pub datanodes: Datanodes,
    /// Network access to the cluster.
    #[serde(default)]
    pub security: Security,
    /// Monitoring of the cluster.
    #[serde(default)]
    pub monitoring: Monitoring,
    /// Application of changes by the operator.
    #[serde(default)]
    pub maintenance: Maintenance,
    /// True to run no pods. Volumes stay.
    #[serde(default)]
    pub stopped: bool,
    /// Fate of the volumes when the cluster is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// The name of the cluster, which confirms `deletionPolicy: Delete`.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub deletion_confirmation: String,
}

/// Units that may fail as a whole: replicas of a byte are spread across them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailureDomain {
    /// Label of nodes that names their domain. Immutable. With `topology.kubernetes.io/…` the API
    /// server must copy it to pods, as it does since Kubernetes 1.35.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("`topologyKey` is immutable: a change would move all data"))]
    pub topology_key: TopologyKey,
    /// Scheduling when pods cannot be spread across domains.
    #[serde(default)]
    pub policy: SpreadPolicy,
}

/// A label of nodes that names their failure domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum TopologyKey {
    /// Each node is a domain.
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
    /// Returns the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hostname => "kubernetes.io/hostname",
            Self::Zone => "topology.kubernetes.io/zone",
            Self::Region => "topology.kubernetes.io/region",
        }
    }
}

/// Scheduling when pods cannot be spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum SpreadPolicy {
    /// Schedules them anyway.
    #[default]
    Preferred,
    /// Leaves them pending.
    Required,
}

/// Fate of the volumes of a deleted cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Volumes stay.
    #[default]
    Retain,
    /// Volumes are deleted if `deletionConfirmation` confirms it.
    Delete,
}

fn default_replication() -> i32 {
    3
}
