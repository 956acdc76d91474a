//! Coordinators, and the location of the metadata.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pod_template::PodTemplate;
use crate::resources::{Quantity, Resources};
use crate::schema::text_map;
use crate::storage_rules::{
    CLASS_STAYS, CLASS_STAYS_MESSAGE, SIZE_GROWS, SIZE_GROWS_MESSAGE, SIZE_MIN, SIZE_MIN_MESSAGE,
};

/// The coordinators, which manage names, chunks and nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.replicas == 1 || self.metadata.engine != 'Embedded'")
        .message("`replicas` must be 1 with the engine Embedded: its store can be used by only one process")
        .field_path(".replicas")
)]
pub struct Coordinator {
    /// Number of coordinators. More than one requires an engine that they can share.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 1, max = 9))]
    pub replicas: i32,
    /// Location of the metadata.
    #[serde(default)]
    pub metadata: Metadata,
    /// Streams of chunks that each coordinator relays concurrently, for clients that cannot connect
    /// to datanodes, such as behind `kubectl port-forward`; 0 turns relaying off. 32 when not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1024))]
    pub relay_streams: Option<i32>,
    /// Resources of each.
    #[serde(default)]
    pub resources: Resources,
    /// The Service that clients talk to.
    #[serde(default)]
    pub service: CoordinatorService,
    /// Overlay on their pods.
    #[serde(default)]
    pub pod_template: PodTemplate,
}

/// Location of the metadata.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.etcd) == (self.engine == 'Etcd')")
        .message("`etcd` must be set if and only if the engine is Etcd")
        .field_path(".etcd")
)]
pub struct Metadata {
    /// Storage engine: `Embedded`, in a volume of the single coordinator, or `Etcd`, in an existing
    /// etcd. Immutable; `dfs metadata migrate` moves the metadata.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("`engine` is immutable; `dfs metadata migrate` moves metadata"))]
    pub engine: Engine,
    /// Settings of the engine Embedded.
    #[serde(default)]
    pub embedded: Embedded,
    /// Settings of the engine Etcd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd: Option<Etcd>,
}

/// Storage engine of the metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Engine {
    /// A store in a volume of the single coordinator.
    #[default]
    Embedded,
    /// An existing etcd, which several coordinators share.
    Etcd,
}

/// The engine Embedded.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Embedded {
    /// The volume of the coordinator.
    #[serde(default)]
    pub storage: MetadataStorage,
}

/// The volume of the coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(SIZE_MIN).message(SIZE_MIN_MESSAGE).field_path(".size"),
    validation = Rule::new(SIZE_GROWS).message(SIZE_GROWS_MESSAGE).field_path(".size"),
    validation = Rule::new(CLASS_STAYS).message(CLASS_STAYS_MESSAGE).field_path(".storageClassName")
)]
pub struct MetadataStorage {
    /// Its size. Cannot shrink.
    #[serde(default = "default_size")]
    pub size: Quantity,
    /// Its StorageClass, the default one when not set. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}

/// The engine Etcd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Etcd {
    /// Members of etcd, `host:port` each. Never those of the Kubernetes cluster itself.
    #[schemars(
        length(min = 1, max = 9),
        inner(
            length(max = 261),
            regex(
                pattern = r"^([a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}$"
            )
        )
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub endpoints: Vec<String>,
    /// Secret with `ca.crt`, `tls.crt` and `tls.key`; plaintext when not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub tls_secret_name: Option<String>,
}

/// The Service that clients talk to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CoordinatorService {
    /// Type of the Service.
    #[serde(default, rename = "type")]
    pub kind: ServiceType,
    /// Annotations, for example for a load balancer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "text_map")]
    pub annotations: BTreeMap<String, String>,
}

/// Type of a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    /// Reachable within the Kubernetes cluster.
    #[default]
    ClusterIP,
    /// Also reachable at a port of every node.
    NodePort,
    /// Also reachable through a load balancer.
    LoadBalancer,
}

impl Default for Coordinator {
    fn default() -> Self {
        Self {
            replicas: default_replicas(),
            metadata: Metadata::default(),
            relay_streams: None,
            resources: Resources::default(),
            service: CoordinatorService::default(),
            pod_template: PodTemplate::default(),
        }
    }
}

impl Default for MetadataStorage {
    fn default() -> Self {
        Self { size: default_size(), storage_class_name: None }
    }
}

fn default_replicas() -> i32 {
    1
}

fn default_size() -> Quantity {
    Quantity::new("10Gi")
}
