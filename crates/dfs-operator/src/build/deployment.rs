//! The coordinators.

use dfs_crd::Etcd;
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment,
};
use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, Volume};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::config_map::COORDINATOR_YAML;
use super::plan::Plan;
use super::pod::{self, CONFIG_FOLDER, JOIN_FOLDER, Parts};
use super::secret::JOIN_SECRET;
use super::{Component, labels};

/// Mount point of the metadata volume.
const METADATA_FOLDER: &str = "/metadata";
/// Mount point and file names of the certificates for etcd.
const ETCD_FOLDER: &str = "/etc/dfs-etcd";
const ETCD_KEYS: [&str; 3] = ["ca.crt", "tls.crt", "tls.key"];

pub(super) fn build(plan: &Plan<'_>) -> Deployment {
    let component = Component::Coordinator;
    Deployment {
        metadata: plan.metadata(plan.names.coordinator(), component),
        spec: Some(DeploymentSpec {
            replicas: Some(plan.inputs.coordinators),
            revision_history_limit: Some(5),
            selector: labels::selector(plan.pods(component)),
            strategy: Some(strategy(plan)),
            template: pod::template(plan, parts(plan)),
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

/// A volume belongs to one pod, so the old one must stop first. Without a volume the new one starts
/// first.
fn strategy(plan: &Plan<'_>) -> DeploymentStrategy {
    if plan.is_embedded() {
        return DeploymentStrategy { type_: Some("Recreate".to_owned()), rolling_update: None };
    }
    DeploymentStrategy {
        type_: Some("RollingUpdate".to_owned()),
        rolling_update: Some(RollingUpdateDeployment {
            max_surge: Some(IntOrString::Int(1)),
            max_unavailable: Some(IntOrString::Int(0)),
        }),
    }
}

fn parts(plan: &Plan<'_>) -> Parts {
    let component = Component::Coordinator;
    let (mut volumes, mut mounts) = (Vec::new(), Vec::new());
    let etcd = plan.spec.coordinator.metadata.etcd.as_ref();
    if let Some(secret) = etcd.and_then(|etcd| etcd.tls_secret_name.as_deref()) {
        volumes.push(pod::secret_volume("etcd", secret, &ETCD_KEYS));
        mounts.push(pod::read_only("etcd", ETCD_FOLDER));
    }
    if plan.is_embedded() {
        volumes.push(Volume {
            name: "metadata".to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: plan.names.metadata_claim(),
                read_only: None,
            }),
            ..Volume::default()
        });
        mounts.push(pod::mount("metadata", METADATA_FOLDER));
    }
    let metadata = match etcd {
        Some(etcd) => etcd_url(plan, etcd),
        // Not the root of the volume, where a file system may have its own entries.
        None => format!("redb://{METADATA_FOLDER}/dfs"),
    };
    let arguments = [
        "coordinator".to_owned(),
        format!("--metadata={metadata}"),
        format!("--config={CONFIG_FOLDER}/{COORDINATOR_YAML}"),
        format!("--join-secret-file={JOIN_FOLDER}/{JOIN_SECRET}"),
        format!("--listen=0.0.0.0:{}", component.grpc_port()),
        format!("--http-listen=0.0.0.0:{}", component.http_port()),
        format!("--advertise=$(POD_IP):{}", component.grpc_port()),
        "--await-init".to_owned(),
        "--insecure".to_owned(),
    ];
    Parts { component, arguments: arguments.into(), volumes, mounts, environment: Vec::new() }
}

/// Each cluster has its own prefix, so that several can share an etcd.
fn etcd_url(plan: &Plan<'_>, etcd: &Etcd) -> String {
    let members = etcd.endpoints.join(",");
    let prefix = format!("dfs-{}", plan.inputs.cluster_id);
    if etcd.tls_secret_name.is_none() {
        return format!("etcd://{members}/{prefix}");
    }
    let [ca, certificate, key] = ETCD_KEYS.map(|file| format!("{ETCD_FOLDER}/{file}"));
    format!("etcds://{members}/{prefix}?ca={ca}&cert={certificate}&key={key}")
}
