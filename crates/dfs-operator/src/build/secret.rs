//! The Secret that identifies a cluster.

use std::collections::BTreeMap;

use dfs_crd::DfsCluster;
use dfs_types::ClusterId;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::names::Names;
use super::{Component, labels};

/// Key of the join secret.
pub(super) const JOIN_SECRET: &str = "join-secret";
/// Key of the cluster's id.
const CLUSTER_ID: &str = "cluster-id";

/// Returns the Secret `NAME-join`, created once and never changed. It has no owner: it outlives the
/// resource, like the volumes it belongs to.
pub fn join_secret(cluster: &DfsCluster, id: ClusterId, secret: &str) -> Secret {
    let names = Names::of(cluster);
    let data = [(JOIN_SECRET, secret.to_owned()), (CLUSTER_ID, id.to_string())];
    Secret {
        metadata: ObjectMeta {
            name: Some(names.join_secret()),
            namespace: Some(names.namespace()),
            labels: Some(labels::of_lasting(&names.cluster(), Component::Coordinator)),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        immutable: Some(true),
        string_data: Some(BTreeMap::from(data.map(|(key, value)| (key.to_owned(), value)))),
        ..Secret::default()
    }
}
