//! The objects of a cluster.

use dfs_crd::Reason;
use dfs_types::ClusterId;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt as _;
use serde_json::Value;

use super::{Action, Decision, Finding, may_stop, rollout, scale};
use crate::build::{self, Names};
use crate::coordinator::Snapshot;
use crate::drift;
use crate::kind::{Kind, Object};
use crate::observed::{Observed, Owner};

/// Creates what is missing or differs, deletes what is no longer wanted, and creates the cluster in
/// the empty store, once.
pub(super) fn decide(seen: &Observed, id: ClusterId, decision: &mut Decision) {
    let spec = &seen.cluster.spec;
    let datanodes = scale::datanodes(seen, decision);
    let wanted = build::objects(&build::Inputs {
        cluster: &seen.cluster,
        cluster_id: id,
        operator_namespace: seen.operator_namespace.as_deref(),
        coordinators: if spec.stopped { 0 } else { spec.coordinator.replicas },
        datanodes: if spec.stopped { 0 } else { datanodes },
        may_evict: may_evict(seen),
    });
    let mut names = Vec::new();
    for mut object in wanted {
        names.push((object.kind, object.name.clone()));
        if object.kind == Kind::ServiceMonitor && !seen.has_service_monitors {
            continue;
        }
        if let Some(finding) = unclaimed(seen, &object) {
            match finding.reason {
                Reason::NameTaken => decision.stalled = Some(finding),
                _ => decision.waiting = Some(finding),
            }
            continue;
        }
        if let Some(child) = seen.child(object.kind, &object.name) {
            build::keep_template(&child.value, &mut object.value);
        }
        // Before templates of claims are kept: those kept are not what was requested.
        drift::mark(&mut object.value);
        match object.kind {
            Kind::Claim => {
                metadata_claim(seen, object, decision);
                continue;
            }
            Kind::StatefulSet => {
                if let Some(waiting) = datanodes_wait(seen, &object, decision) {
                    decision.waiting.get_or_insert(waiting);
                    continue;
                }
                keep_templates(seen, &mut object, decision);
            }
            _ => {}
        }
        apply(seen, object, decision);
    }
    for child in &seen.children {
        let target = &child.target;
        let is_wanted =
            names.iter().any(|(kind, name)| (*kind, name) == (target.kind, &target.name));
        if child.owner == Owner::Ours && !is_wanted && Kind::PRUNED.contains(&target.kind) {
            decision.actions.push(Action::Delete(target.clone()));
        }
    }
    init(seen, id, decision);
}

/// Returns true if a datanode may be evicted: never while chunks lack replicas.
fn may_evict(seen: &Observed) -> bool {
    may_stop::is_healthy(seen, true).is_ok()
}

/// Applies an object unless the existing one contains all of it.
fn apply(seen: &Observed, object: Object, decision: &mut Decision) {
    let child = seen.child(object.kind, &object.name);
    if child.is_some_and(|child| drift::contains(&child.value, &object.value)) {
        return;
    }
    let is_there = child.is_some();
    decision.actions.push(Action::Apply { object: Box::new(object), is_there });
}

/// Returns why the name of an object cannot be used.
fn unclaimed(seen: &Observed, object: &Object) -> Option<Finding> {
    let child = seen.child(object.kind, &object.name)?;
    match &child.owner {
        Owner::Ours => None,
        Owner::Nobody if object.kind == Kind::Claim => None,
        Owner::Former => Some(Finding::new(
            Reason::WaitingForObjects,
            format!("{} of the deleted cluster of this name still exists", child.target),
        )),
        Owner::Nobody => Some(taken(&child.target.to_string(), "nobody")),
        Owner::Other(owner) => Some(taken(&child.target.to_string(), owner)),
    }
}

/// Returns the finding that a name is taken.
pub(crate) fn taken(object: &str, owner: &str) -> Finding {
    Finding::new(
        Reason::NameTaken,
        format!("{object} belongs to {owner}, not to this cluster; delete or rename it"),
    )
}

/// The metadata claim is created once and never changed: it may be older than the resource.
fn metadata_claim(seen: &Observed, object: Object, decision: &mut Decision) {
    let Some(there) = seen.claims.iter().find(|claim| claim.name_any() == object.name) else {
        apply(seen, object, decision);
        return;
    };
    if there.metadata.deletion_timestamp.is_some() {
        decision.stalled = Some(Finding::new(
            Reason::MetadataLost,
            format!(
                "PersistentVolumeClaim {}, which holds the metadata, is being deleted; copy the \
                 metadata before its pod stops",
                object.name
            ),
        ));
        return;
    }
    let wanted = serde_json::from_value::<PersistentVolumeClaim>(object.value).ok();
    refuse_expansion(there, wanted.as_ref(), &object.name, decision);
}

/// Keeps the existing claim templates, which a StatefulSet cannot change.
fn keep_templates(seen: &Observed, object: &mut Object, decision: &mut Decision) {
    const TEMPLATES: &str = "/spec/volumeClaimTemplates";
    let Some(child) = seen.child(Kind::StatefulSet, &object.name) else { return };
    let (Some(there), Some(wanted)) =
        (child.value.pointer(TEMPLATES), object.value.pointer_mut(TEMPLATES))
    else {
        return;
    };
    let read = |list: &Value| {
        serde_json::from_value::<Vec<PersistentVolumeClaim>>(list.clone()).unwrap_or_default()
    };
    for (there, wanted) in read(there).iter().zip(read(wanted)) {
        refuse_expansion(there, Some(&wanted), &there.name_any(), decision);
    }
    *wanted = there.clone();
}

fn refuse_expansion(
    there: &PersistentVolumeClaim,
    wanted: Option<&PersistentVolumeClaim>,
    name: &str,
    decision: &mut Decision,
) {
    let size = |claim: &PersistentVolumeClaim| {
        claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage").cloned()
    };
    let (Some(there), Some(wanted)) = (size(there), wanted.and_then(size)) else { return };
    if !drift::same_quantity(&there, &wanted) {
        decision.refused.push(Finding::new(
            Reason::ExpansionUnsupported,
            format!(
                "volume {name} has {}, and this version cannot change it to {}; set its size to {}",
                there.0, wanted.0, there.0
            ),
        ));
    }
}

/// Returns why the datanodes are not touched yet: the cluster is not created, or its coordinators
/// do not have the new settings themselves.
fn datanodes_wait(seen: &Observed, wanted: &Object, decision: &Decision) -> Option<Finding> {
    if seen.cluster.spec.stopped {
        return None;
    }
    if seen.known_id().is_none() {
        return Some(Finding::new(
            Reason::Creating,
            format!("waiting for a coordinator, to create the cluster: {}", silence(seen)),
        ));
    }
    let child = seen.child(Kind::StatefulSet, &wanted.name)?;
    let is_same =
        rollout::template_revision(&child.value) == rollout::template_revision(&wanted.value);
    // Settings applied to the coordinators just now cannot have reached them yet.
    let is_applied = decision.actions.iter().any(
        |action| matches!(action, Action::Apply { object, .. } if object.kind == Kind::Deployment),
    );
    if is_same || !is_applied && rollout::coordinators_are_new(seen) {
        return None;
    }
    Some(Finding::new(
        Reason::RollingOut,
        format!(
            "waiting for Deployment {} to have the new settings before the datanodes",
            Names::of(&seen.cluster).coordinator()
        ),
    ))
}

fn silence(seen: &Observed) -> &str {
    match &seen.snapshot {
        Snapshot::Known(_) => "one replies",
        Snapshot::Uninitialised => "one waits for init",
        Snapshot::Unreachable(what) => what,
    }
}

/// Creates the cluster unless there is evidence that it was created before.
fn init(seen: &Observed, id: ClusterId, decision: &mut Decision) {
    let is_made = seen.known_id().is_some() || matches!(seen.snapshot, Snapshot::Known(_));
    if !is_made && !seen.cluster.spec.stopped && !seen.coordinators().is_empty() {
        decision.actions.push(Action::Init(id));
    }
}
