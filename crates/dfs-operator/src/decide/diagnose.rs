//! Why pods do not become ready, where somebody must do something about it.

use dfs_crd::Reason;
use k8s_openapi::api::core::v1::{ContainerStatus, PersistentVolumeClaim, Pod};
use kube::ResourceExt as _;

use super::Finding;
use crate::observed::{Observed, is_ready};

/// Restarts of a container after which it is said to crash.
const RESTARTS: i32 = 3;

/// The first thing that somebody must do something about.
pub(super) fn decide(seen: &Observed) -> Option<Finding> {
    if let Some(secret) = seen.missing_secrets.first() {
        let message = format!("Secret {secret} does not exist; make it");
        return Some(Finding::new(Reason::SecretMissing, message));
    }
    let waiting = seen.claims.iter().find_map(|claim| claim_problem(claim, seen));
    waiting.or_else(|| {
        seen.pods.iter().filter(|pod| !is_ready(pod)).find_map(|pod| problem(pod, seen))
    })
}

/// What keeps a pod from being ready; nothing when it may only take its time.
pub fn problem(pod: &Pod, seen: &Observed) -> Option<Finding> {
    let name = pod.name_any();
    let status = pod.status.as_ref()?;
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses);
    if let Some(finding) = containers.flatten().find_map(|c| container_problem(&name, pod, c)) {
        return Some(finding);
    }
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let unscheduled = conditions.iter().find(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some("Unschedulable")
    })?;
    let why = unscheduled.message.as_deref().unwrap_or("no reason given");
    // A claim that waits says more.
    let claims = pod.spec.as_ref()?.volumes.as_deref().unwrap_or_default().iter();
    let mut claims = claims.filter_map(|volume| volume.persistent_volume_claim.as_ref());
    let waiting = claims.find_map(|used| {
        let claim = seen.claims.iter().find(|claim| claim.name_any() == used.claim_name)?;
        claim_problem(claim, seen)
    });
    waiting.or_else(|| {
        Some(Finding::new(
            Reason::Unschedulable,
            format!("no node takes pod {name}: {why}; add room, or ask for less"),
        ))
    })
}

fn container_problem(name: &str, pod: &Pod, container: &ContainerStatus) -> Option<Finding> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let why = waiting.message.as_deref().unwrap_or_default();
    let image = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.containers.iter().find(|c| c.name == container.name))
        .and_then(|container| container.image.as_deref())
        .unwrap_or_default();
    match waiting.reason.as_deref()? {
        "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName"
        | "ImageInspectError" => Some(Finding::new(
            Reason::ImageUnavailable,
            format!(
                "pod {name} cannot get image {image}: set spec.image to one that can be fetched, \
                 or spec.image.pullSecrets"
            ),
        )),
        "CreateContainerConfigError" => Some(Finding::new(
            Reason::SecretMissing,
            format!("pod {name} cannot start: {why}; make what is missing"),
        )),
        "CrashLoopBackOff" if container.restart_count >= RESTARTS => Some(Finding::new(
            Reason::CrashLooping,
            format!(
                "container {} of pod {name} has ended {} times; see kubectl logs {name}",
                container.name, container.restart_count
            ),
        )),
        _ => None,
    }
}

fn claim_problem(claim: &PersistentVolumeClaim, seen: &Observed) -> Option<Finding> {
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    let name = claim.name_any();
    if phase == Some("Lost") {
        let message = format!("PersistentVolumeClaim {name} has lost its volume");
        return Some(Finding::new(Reason::VolumePending, message));
    }
    let class = claim.spec.as_ref()?.storage_class_name.as_deref();
    match class.filter(|_| phase != Some("Bound")) {
        Some(class) if seen.missing_classes.contains(class) => Some(Finding::new(
            Reason::StorageClassMissing,
            format!(
                "PersistentVolumeClaim {name} asks for StorageClass {class}, which does not \
                 exist; make it, or delete the cluster and name another"
            ),
        )),
        _ => None,
    }
}
