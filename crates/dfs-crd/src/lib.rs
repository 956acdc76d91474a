//! The custom resource [`DfsCluster`]: desired state, observed state, and the rules that the API
//! server checks. Contains no client.
//!
//! Every field has a bound and, unless it is required, a static default, so that the stored object
//! shows the effective values. A rule that names `oldSelf` does not run when the field's parent was
//! absent; therefore each parent of an immutable field has a default, and cannot be absent.

// `KubeSchema` copies each struct into the body of a function, `pub` included.
#![expect(unreachable_pub, reason = "of copies that a derive makes")]

mod annotations;
mod cluster;
mod condition;
mod conditions_page;
mod coordinator;
mod datanodes;
mod definition;
mod fields;
mod image;
mod maintenance;
mod pod_template;
mod resources;
mod schema;
mod security;
mod served_definition;
mod status;
mod storage_rules;

pub use annotations::{APPLIED, PAUSED, RESTARTED_AT, REVISION, TEMPLATE};
pub use cluster::{
    DeletionPolicy, DfsCluster, DfsClusterSpec, FailureDomain, SpreadPolicy, TopologyKey,
};
pub use condition::{ConditionType, Reason};
pub use conditions_page::reference_markdown;
pub use coordinator::{
    Coordinator, CoordinatorService, Embedded, Engine, Etcd, Metadata, MetadataStorage, ServiceType,
};
pub use datanodes::{Datanodes, Storage};
pub use definition::{crd, crd_yaml};
pub use fields::{Field, fields, fields_markdown};
pub use image::{Image, PullPolicy};
pub use maintenance::{Maintenance, Update, UpdateStrategy};
pub use pod_template::PodTemplate;
pub use resources::{Limits, Quantity, Requests, Resources};
pub use security::{Monitoring, NetworkPolicy, Security, ServiceMonitor};
pub use served_definition::{CRD_NAME, missing};
pub use status::{
    Capacity, ClusterStatus, CoordinatorStatus, DATANODES_MAX, DatanodeState, DatanodeStatus,
    Phase, ReplicationStatus, Rollout, VersionStatus,
};

/// The API group.
pub const GROUP: &str = "dfs.io";
/// The version of the API group.
pub const VERSION: &str = "v1alpha1";
/// Keeps a deleted cluster until the operator has finished its clean-up.
pub const FINALIZER: &str = "dfs.io/finalizer";
/// Maximum length of the name of a cluster: names of its objects are longer, and a label is limited
/// to 63.
pub const NAME_LEN_MAX: usize = 40;
