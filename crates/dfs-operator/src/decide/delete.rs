//! Deletion of a cluster. Coordinators are not asked: they may be dead.

use dfs_crd::{DeletionPolicy, FINALIZER, Reason};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt as _;

use super::{Action, Case, Decision, Finding};
use crate::build::Names;
use crate::kind::{Kind, Target};
use crate::observed::{Observed, Owner};

pub(super) fn decide(seen: &Observed) -> Decision {
    let cluster = &seen.cluster;
    let mut decision = Decision::new(Case::Deleting);
    if !cluster.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        return decision;
    }
    let spec = &cluster.spec;
    let deletes = spec.deletion_policy == DeletionPolicy::Delete;
    if deletes && spec.deletion_confirmation != cluster.name_any() {
        let name = cluster.name_any();
        decision.deletion_blocked = Some(Finding::new(
            Reason::ConfirmationMissing,
            format!(
                "deletionPolicy is Delete, but deletionConfirmation is not {name:?}: set it to \
                 delete all data, or set deletionPolicy to Retain to keep the volumes"
            ),
        ));
        return decision;
    }
    let workloads = seen.children.iter().filter(|child| {
        child.owner == Owner::Ours
            && matches!(child.target.kind, Kind::Deployment | Kind::StatefulSet)
    });
    decision.actions.extend(workloads.map(|child| Action::Delete(child.target.clone())));
    if !deletes {
        // Claims and the Secret have no owner, so they stay; everything else is deleted with the
        // resource.
        decision.actions.push(Action::RemoveFinalizer);
        return decision;
    }
    let is_going = |claim: &&PersistentVolumeClaim| claim.metadata.deletion_timestamp.is_some();
    let claims = seen.claims.iter().filter(|claim| !is_going(claim));
    decision.actions.extend(claims.filter_map(|claim| {
        let (name, uid) = (claim.name_any(), claim.uid()?);
        Some(Action::Delete(Target { kind: Kind::Claim, name, uid }))
    }));
    if let Some(claim) = seen.claims.first() {
        let users = users(seen, claim);
        let message = match users.as_slice() {
            [] => format!("PersistentVolumeClaim {} still exists", claim.name_any()),
            [user, ..] => format!(
                "PersistentVolumeClaim {} is still used by pod {user}, which is still stopping",
                claim.name_any()
            ),
        };
        decision.deletion_blocked = Some(Finding::new(Reason::WaitingForObjects, message));
        return decision;
    }
    if let Some(join) = &seen.join {
        let (name, uid) = (Names::of(cluster).join_secret(), join.uid.clone());
        decision.actions.push(Action::Delete(Target { kind: Kind::Secret, name, uid }));
    }
    decision.actions.push(Action::RemoveFinalizer);
    decision
}

/// Returns the pods that use a claim.
fn users(seen: &Observed, claim: &PersistentVolumeClaim) -> Vec<String> {
    let name = claim.name_any();
    let uses = |pod: &&k8s_openapi::api::core::v1::Pod| {
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref());
        volumes.unwrap_or_default().iter().any(|volume| {
            volume.persistent_volume_claim.as_ref().is_some_and(|used| used.claim_name == name)
        })
    };
    seen.pods.iter().filter(uses).map(kube::ResourceExt::name_any).collect()
}
