//! The datanodes.

use dfs_crd::TopologyKey;
use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec,
    StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::EnvVar;

use super::config_map::DATANODE_YAML;
use super::plan::Plan;
use super::pod::{self, CONFIG_FOLDER, JOIN_FOLDER, Parts};
use super::secret::JOIN_SECRET;
use super::{Component, claim, labels};

/// Variable with the failure domain.
const ZONE: &str = "DFS_ZONE";

pub(super) fn build(plan: &Plan<'_>) -> StatefulSet {
    let component = Component::Datanode;
    StatefulSet {
        metadata: plan.metadata(plan.names.datanode(), component),
        spec: Some(StatefulSetSpec {
            replicas: Some(plan.inputs.datanodes),
            service_name: Some(plan.names.datanodes()),
            selector: labels::selector(plan.pods(component)),
            // After an outage all pods start at once.
            pod_management_policy: Some("Parallel".to_owned()),
            // The operator restarts pods when they can stop safely.
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".to_owned()),
                rolling_update: None,
            }),
            min_ready_seconds: Some(10),
            revision_history_limit: Some(5),
            // Data is deleted only on explicit confirmation.
            persistent_volume_claim_retention_policy: Some(
                StatefulSetPersistentVolumeClaimRetentionPolicy {
                    when_deleted: Some("Retain".to_owned()),
                    when_scaled: Some("Retain".to_owned()),
                },
            ),
            volume_claim_templates: Some(claim::templates(plan)),
            template: pod::template(plan, parts(plan)),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}

fn parts(plan: &Plan<'_>) -> Parts {
    let component = Component::Datanode;
    let address = plan.names.datanode_address("$(POD_NAME)");
    let mut arguments = vec!["datanode".to_owned()];
    let mut mounts = Vec::new();
    for (i, volume) in claim::data_volumes(plan).iter().enumerate() {
        let folder = format!("/data/{i}");
        mounts.push(pod::mount(volume, &folder));
        // Not the root of the volume, where a file system may have its own entries.
        arguments.push(format!("--data-dir={folder}/dfs"));
    }
    arguments.extend([
        format!("--config={CONFIG_FOLDER}/{DATANODE_YAML}"),
        format!("--join-secret-file={JOIN_FOLDER}/{JOIN_SECRET}"),
        format!("--listen=0.0.0.0:{}", component.grpc_port()),
        format!("--http-listen=0.0.0.0:{}", component.http_port()),
        format!("--advertise={address}"),
        "--host=$(NODE_NAME)".to_owned(),
        format!("--coordinator=http://{}", plan.names.coordinators_address()),
        "--insecure".to_owned(),
    ]);
    Parts { component, arguments, volumes: Vec::new(), mounts, environment: vec![zone(plan)] }
}

/// Returns the failure domain of the pod's node. A pod gets the topology labels of its node when it
/// is bound to it, before its container starts.
fn zone(plan: &Plan<'_>) -> EnvVar {
    match plan.spec.failure_domain.topology_key {
        TopologyKey::Hostname => pod::field(ZONE, "spec.nodeName"),
        key @ (TopologyKey::Zone | TopologyKey::Region) => {
            pod::field(ZONE, &format!("metadata.labels['{}']", key.as_str()))
        }
    }
}
