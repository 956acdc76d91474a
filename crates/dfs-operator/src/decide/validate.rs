//! Rules of the spec that the API server also checks, in case its definition of the resource is
//! older.

use dfs_crd::{DfsCluster, Engine, NAME_LEN_MAX, Reason};
use kube::ResourceExt as _;

use super::Finding;

/// Returns why the spec cannot be carried out.
pub(super) fn spec(cluster: &DfsCluster) -> Option<Finding> {
    let spec = &cluster.spec;
    let metadata = &spec.coordinator.metadata;
    let name = cluster.name_any();
    let rules = [
        (
            name.len() <= NAME_LEN_MAX,
            format!("metadata.name must have at most {NAME_LEN_MAX} characters"),
        ),
        (
            spec.replication_factor >= 1 && spec.replication_factor <= spec.datanodes.replicas,
            "replicationFactor must be at least 1 and at most datanodes.replicas".to_owned(),
        ),
        (
            spec.min_write_replicas.is_none_or(|min| min >= 1 && min <= spec.replication_factor),
            "minWriteReplicas must be at least 1 and at most replicationFactor".to_owned(),
        ),
        (
            spec.coordinator.replicas == 1
                || spec.coordinator.replicas > 1 && metadata.engine == Engine::Etcd,
            "coordinator.replicas must be 1 with the engine Embedded".to_owned(),
        ),
        (
            metadata.etcd.is_some() == (metadata.engine == Engine::Etcd),
            "coordinator.metadata.etcd must be set if and only if the engine is Etcd".to_owned(),
        ),
    ];
    let broken = rules.into_iter().find(|(holds, _)| !holds);
    broken.map(|(_, message)| Finding::new(Reason::SpecInvalid, message))
}

/// Returns true if the metadata is in a volume of the coordinator.
pub(super) fn is_embedded(cluster: &DfsCluster) -> bool {
    cluster.spec.coordinator.metadata.engine == Engine::Embedded
}
