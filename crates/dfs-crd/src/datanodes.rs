//! Datanodes and their volumes.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::pod_template::PodTemplate;
use crate::resources::{Quantity, Resources};
use crate::storage_rules::{
    CLASS_STAYS, CLASS_STAYS_MESSAGE, SIZE_GROWS, SIZE_GROWS_MESSAGE, SIZE_MIN, SIZE_MIN_MESSAGE,
};

/// The datanodes, which store the bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Datanodes {
    /// Number of datanodes. `kubectl scale` sets it too.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 1, max = 500))]
    pub replicas: i32,
    /// The volumes of each.
    pub storage: Storage,
    /// Resources of each.
    #[serde(default)]
    pub resources: Resources,
    /// Overlay on their pods.
    #[serde(default)]
    pub pod_template: PodTemplate,
}

/// The volumes of a datanode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(SIZE_MIN).message(SIZE_MIN_MESSAGE).field_path(".size"),
    validation = Rule::new(SIZE_GROWS).message(SIZE_GROWS_MESSAGE).field_path(".size"),
    validation = Rule::new(CLASS_STAYS).message(CLASS_STAYS_MESSAGE).field_path(".storageClassName"),
    validation = Rule::new("self.volumesPerNode == oldSelf.volumesPerNode")
        .message("`volumesPerNode` is immutable")
        .field_path(".volumesPerNode")
)]
pub struct Storage {
    /// Size of each volume. Cannot shrink.
    pub size: Quantity,
    /// Their StorageClass, the default one when not set. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// Number of volumes per datanode. Immutable.
    #[serde(default = "default_volumes")]
    #[schemars(range(min = 1, max = 16))]
    pub volumes_per_node: i32,
    /// Part of each volume that is left free, in percent.
    #[serde(default = "default_reserved")]
    #[schemars(range(min = 0, max = 50))]
    pub reserved_percent: i32,
}

fn default_replicas() -> i32 {
    3
}

fn default_volumes() -> i32 {
    1
}

fn default_reserved() -> i32 {
    5
}
