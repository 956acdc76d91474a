//! Diagnoses pods that do not become ready and need a person to act.

use dfs_crd::Reason;
use k8s_openapi::api::core::v1::{ContainerStatus, PersistentVolumeClaim, Pod};
use kube::ResourceExt as _;

use super::Finding;
use crate::observed::{Observed, is_ready};

/// Restarts of a container after which it counts as crash-looping.
const RESTARTS: i32 = 3;

/// Returns the first finding that needs a person to act.
pub(super) fn decide(seen: &Observed) -> Option<Finding> {
    if let Some(secret) = seen.missing_secrets.first() {
        let message = format!("Secret {secret} does not exist; create it");
        return Some(Finding::new(Reason::SecretMissing, message));
    }
    let waiting = seen.claims.iter().find_map(|claim| claim_problem(claim, seen));
    waiting.or_else(|| {
        seen.pods.iter().filter(|pod| !is_ready(pod)).find_map(|pod| problem(pod, seen))
    })
}

/// Returns what prevents a pod from becoming ready; `None` while it may just be slow.
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
    // A pending claim is the more specific cause.
    let claims: Vec<_> = seen.claims.iter().filter(|claim| uses(pod, &claim.name_any())).collect();
    let known = claims.iter().find_map(|claim| claim_problem(claim, seen));
    let waiting = known.or_else(|| {
        let is_about_claims = why.contains("PersistentVolumeClaim");
        claims.iter().filter(|_| is_about_claims).find_map(|claim| unbound(claim, &name, why))
    });
    waiting.or_else(|| {
        Some(Finding::new(
            Reason::Unschedulable,
            format!("no node can run pod {name}: {why}; add capacity, or request less"),
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
                "pod {name} cannot get image {image}: set spec.image to one that can be pulled, \
                 or spec.image.pullSecrets"
            ),
        )),
        "CreateContainerConfigError" => Some(Finding::new(
            Reason::SecretMissing,
            format!("pod {name} cannot start: {why}; create what is missing"),
        )),
        "CrashLoopBackOff" if container.restart_count >= RESTARTS => Some(Finding::new(
            Reason::CrashLooping,
            format!(
                "container {} of pod {name} has exited {} times; see kubectl logs {name}",
                container.name, container.restart_count
            ),
        )),
        _ => None,
    }
}

/// Returns the finding for a claim that a pod waits for. Its volume may be slow or never appear:
/// provisioners report that only in events, each in its own wording.
pub(super) fn volume_to_come(seen: &Observed) -> Option<Finding> {
    let mut waiting = seen.claims.iter().filter(|claim| is_waiting(claim)).peekable();
    waiting.peek()?;
    let is_on_its_way = |pod: &&Pod| !is_ready(pod) && pod.metadata.deletion_timestamp.is_none();
    let pods: Vec<&Pod> = seen.pods.iter().filter(is_on_its_way).collect();
    let claim = waiting.find(|claim| pods.iter().any(|pod| uses(pod, &claim.name_any())))?;
    let name = claim.name_any();
    let size = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    let size = size.and_then(|requests| requests.get("storage")).map_or("?", |size| &size.0);
    Some(Finding::new(
        Reason::VolumePending,
        format!(
            "PersistentVolumeClaim {name} waits for a volume of {size} from {}; if none appears, \
             kubectl describe pvc {name} shows why: add capacity{}",
            class_of(claim),
            or_start_over(seen, "request less")
        ),
    ))
}

/// Appends further advice while no data can be lost. Claims outlive the cluster unless its spec
/// says otherwise.
fn or_start_over(seen: &Observed, how: &str) -> String {
    let is_empty = match seen.snapshot() {
        Some(snapshot) => snapshot.nodes.is_empty(),
        None => seen.known_id().is_none(),
    };
    let advice = || format!(", or delete the cluster with its claims, and {how}");
    if is_empty { advice() } else { String::new() }
}

fn is_waiting(claim: &PersistentVolumeClaim) -> bool {
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, None | Some("Pending")) && claim.metadata.deletion_timestamp.is_none()
}

fn uses(pod: &Pod, claim: &str) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let mut used = volumes.filter_map(|volume| volume.persistent_volume_claim.as_ref());
    used.any(|used| used.claim_name == claim)
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
}

fn class_of(claim: &PersistentVolumeClaim) -> String {
    let class = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    class.map_or_else(
        || "the default StorageClass".to_owned(),
        |class| format!("StorageClass {class}"),
    )
}

/// Returns the finding for a claim without a volume where only the scheduler names it as the cause:
/// without permission to read classes it is unknown whether the class exists.
fn unbound(claim: &PersistentVolumeClaim, pod: &str, why: &str) -> Option<Finding> {
    if is_bound(claim) {
        return None;
    }
    let (name, class) = (claim.name_any(), class_of(claim));
    Some(Finding::new(
        Reason::VolumePending,
        format!(
            "PersistentVolumeClaim {name} has no volume of {class}, and pod {pod} has no node \
             ({why}): see kubectl describe pvc {name}, and check that the class exists"
        ),
    ))
}

fn claim_problem(claim: &PersistentVolumeClaim, seen: &Observed) -> Option<Finding> {
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    let name = claim.name_any();
    if phase == Some("Lost") {
        let message = format!("PersistentVolumeClaim {name} has lost its volume");
        return Some(Finding::new(Reason::VolumePending, message));
    }
    let class = claim.spec.as_ref()?.storage_class_name.as_deref();
    match class.filter(|_| !is_bound(claim)) {
        Some(class) if seen.missing_classes.contains(class) => Some(Finding::new(
            Reason::StorageClassMissing,
            format!(
                "PersistentVolumeClaim {name} requests StorageClass {class}, which does not \
                 exist; create it{}",
                or_start_over(seen, "use another")
            ),
        )),
        _ => None,
    }
}
