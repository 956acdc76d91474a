//! Parts of the pods shared by both components.

use dfs_crd::{PodTemplate, PullPolicy, Quantity, Resources, SpreadPolicy, TopologyKey};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EnvVar, EnvVarSource,
    HTTPGetAction, KeyToPath, LocalObjectReference, ObjectFieldSelector, PodAffinityTerm,
    PodAntiAffinity, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements,
    SeccompProfile, SecretVolumeSource, SecurityContext, TopologySpreadConstraint, Volume,
    VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::plan::Plan;
use super::service::{GRPC, HTTP};
use super::{Component, labels, overlay, revision, secret};

/// User and group of the image.
const USER: i64 = 65_532;
/// Time for a pod to stop: a datanode finishes the chunks that clients are writing.
pub(super) const GRACE_SECONDS: i64 = 120;
/// Owner and group may read mounted files.
pub(super) const MODE: i32 = 0o440;
/// Mount point of settings and the join secret.
pub(super) const CONFIG_FOLDER: &str = "/etc/dfs";
pub(super) const JOIN_FOLDER: &str = "/etc/dfs-join";

/// Differences between the components.
pub(super) struct Parts {
    pub(super) component: Component,
    /// Arguments of `dfs` in the image.
    pub(super) arguments: Vec<String>,
    /// Volumes other than settings, join secret, and those of claim templates.
    pub(super) volumes: Vec<Volume>,
    pub(super) mounts: Vec<VolumeMount>,
    pub(super) environment: Vec<EnvVar>,
}

/// Returns the user's overlay on the pods of a component.
pub(super) fn overlay<'a>(plan: &Plan<'a>, component: Component) -> &'a PodTemplate {
    match component {
        Component::Coordinator => &plan.spec.coordinator.pod_template,
        Component::Datanode => &plan.spec.datanodes.pod_template,
    }
}

/// Returns the template of the pods of a component.
pub(super) fn template(plan: &Plan<'_>, parts: Parts) -> PodTemplateSpec {
    let component = parts.component;
    let name = plan.names.of_component(component);
    let secrets = &plan.spec.image.pull_secrets;
    let secrets = secrets.iter().map(|name| LocalObjectReference { name: name.clone() });
    let mut volumes = vec![
        config_volume(&name),
        secret_volume("join", &plan.names.join_secret(), &[secret::JOIN_SECRET]),
    ];
    volumes.extend(parts.volumes);
    let spec = PodSpec {
        service_account_name: Some(name),
        automount_service_account_token: Some(false),
        // Variables for every Service of the namespace would be useless.
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        image_pull_secrets: Some(secrets.collect::<Vec<_>>()).filter(|all| !all.is_empty()),
        security_context: Some(pod_security()),
        affinity: affinity(plan, component),
        topology_spread_constraints: Some(spread(plan, component)),
        volumes: Some(volumes),
        containers: vec![container(
            plan,
            component,
            parts.arguments,
            parts.mounts,
            parts.environment,
        )],
        ..PodSpec::default()
    };
    let annotations = [(revision::REVISION.to_owned(), revision::of(plan, component))];
    let mut template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(plan.labels(component)),
            annotations: Some(annotations.into()),
            ..ObjectMeta::default()
        }),
        spec: Some(spec),
    };
    overlay::lay(&mut template, overlay(plan, component));
    template
}

fn container(
    plan: &Plan<'_>,
    component: Component,
    arguments: Vec<String>,
    mounts: Vec<VolumeMount>,
    environment: Vec<EnvVar>,
) -> Container {
    let wanted = match component {
        Component::Coordinator => &plan.spec.coordinator.resources,
        Component::Datanode => &plan.spec.datanodes.resources,
    };
    let pull_policy = match plan.spec.image.pull_policy {
        PullPolicy::Always => "Always",
        PullPolicy::IfNotPresent => "IfNotPresent",
        PullPolicy::Never => "Never",
    };
    let mut env = vec![
        field("POD_NAME", "metadata.name"),
        field("POD_IP", "status.podIP"),
        field("NODE_NAME", "spec.nodeName"),
    ];
    env.extend(environment);
    let mut all_mounts = vec![read_only("config", CONFIG_FOLDER), read_only("join", JOIN_FOLDER)];
    all_mounts.extend(mounts);
    Container {
        name: component.as_str().to_owned(),
        image: Some(plan.image.clone()),
        image_pull_policy: Some(pull_policy.to_owned()),
        args: Some(arguments),
        env: Some(env),
        ports: Some(vec![port(GRPC, component.grpc_port()), port(HTTP, component.http_port())]),
        resources: Some(resources(wanted)),
        security_context: Some(container_security()),
        // Opening a store after a crash may take minutes.
        startup_probe: Some(probe("/healthz", 2, 150)),
        readiness_probe: Some(probe("/readyz", 5, 2)),
        // Reports that the process responds, regardless of its peers.
        liveness_probe: Some(probe("/healthz", 10, 6)),
        volume_mounts: Some(all_mounts),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

fn resources(wanted: &Resources) -> ResourceRequirements {
    let quantity = |(name, quantity): (&str, &Quantity)| {
        (name.to_owned(), resource::Quantity(quantity.0.clone()))
    };
    let requests = [("cpu", &wanted.requests.cpu), ("memory", &wanted.requests.memory)];
    let limits = [wanted.limits.cpu.as_ref().map(|cpu| ("cpu", cpu))];
    let limits = limits.into_iter().flatten().chain([("memory", &wanted.limits.memory)]);
    ResourceRequirements {
        requests: Some(requests.into_iter().map(quantity).collect()),
        limits: Some(limits.map(quantity).collect()),
        claims: None,
    }
}

fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        // A volume full of chunks is walked once, not on every start.
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        ..PodSecurityContext::default()
    }
}

fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            ..Capabilities::default()
        }),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        ..SecurityContext::default()
    }
}

fn probe(path: &str, period_seconds: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(HTTP.to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        failure_threshold: Some(failures),
        timeout_seconds: Some(2),
        ..Probe::default()
    }
}

/// Returns spread constraints over failure domains, and over nodes within them. Nodes that pods
/// cannot be scheduled on do not count.
fn spread(plan: &Plan<'_>, component: Component) -> Vec<TopologySpreadConstraint> {
    let domain = &plan.spec.failure_domain;
    let constraint = |key: TopologyKey, policy: SpreadPolicy| TopologySpreadConstraint {
        topology_key: key.as_str().to_owned(),
        max_skew: 1,
        when_unsatisfiable: match policy {
            SpreadPolicy::Preferred => "ScheduleAnyway".to_owned(),
            SpreadPolicy::Required => "DoNotSchedule".to_owned(),
        },
        label_selector: Some(labels::selector(plan.pods(component))),
        node_taints_policy: Some("Honor".to_owned()),
        ..TopologySpreadConstraint::default()
    };
    let mut constraints = vec![constraint(domain.topology_key, domain.policy)];
    if domain.topology_key != TopologyKey::Hostname {
        constraints.push(constraint(TopologyKey::Hostname, SpreadPolicy::Preferred));
    }
    constraints
}

/// Returns the affinity: with the policy Required no two pods of a component share a node.
fn affinity(plan: &Plan<'_>, component: Component) -> Option<Affinity> {
    (plan.spec.failure_domain.policy == SpreadPolicy::Required).then(|| Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            required_during_scheduling_ignored_during_execution: Some(vec![PodAffinityTerm {
                topology_key: TopologyKey::Hostname.as_str().to_owned(),
                label_selector: Some(labels::selector(plan.pods(component))),
                ..PodAffinityTerm::default()
            }]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    })
}

fn port(name: &str, number: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

/// Returns a variable set from a field of the pod.
pub(super) fn field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".to_owned()),
                field_path: path.to_owned(),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

pub(super) fn read_only(volume: &str, path: &str) -> VolumeMount {
    VolumeMount { read_only: Some(true), ..mount(volume, path) }
}

pub(super) fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount { name: volume.to_owned(), mount_path: path.to_owned(), ..VolumeMount::default() }
}

fn config_volume(name: &str) -> Volume {
    Volume {
        name: "config".to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: name.to_owned(),
            default_mode: Some(MODE),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// Returns a volume of some keys of a Secret, each a file of that name.
pub(super) fn secret_volume(volume: &str, secret: &str, keys: &[&str]) -> Volume {
    let item = |key: &&str| KeyToPath {
        key: (*key).to_owned(),
        path: (*key).to_owned(),
        ..KeyToPath::default()
    };
    Volume {
        name: volume.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.to_owned()),
            items: Some(keys.iter().map(item).collect()),
            default_mode: Some(MODE),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}
