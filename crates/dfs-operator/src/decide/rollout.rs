//! Rollouts of new images and settings: coordinators first, which their Deployment does by itself,
//! then one datanode after the other.

use std::time::Duration;

use dfs_crd::{Reason, Rollout, UpdateStrategy};
use dfs_types::ClusterId;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::Value;

use super::{Action, Decision, Finding, diagnose, may_stop};
use crate::build::{Names, REVISION};
use crate::kind::{Kind, Target};
use crate::observed::{Observed, by_pod, is_ready};

/// Restarts at most one datanode, and only when everything else is healthy.
pub(super) fn decide(seen: &Observed, id: ClusterId, decision: &mut Decision) {
    let Some(state) = State::of(seen) else { return };
    let mut rollout = state.progress(seen);
    decision.rollout.clone_from(&rollout);
    let Some(rollout) = &mut rollout else { return };
    if seen.cluster.spec.maintenance.update.strategy == UpdateStrategy::OnDelete {
        rollout.blocked_reason =
            Some("maintenance.update.strategy is OnDelete: delete the pods manually".to_owned());
    } else if let Some(reason) = state.step(seen, id, rollout, decision) {
        rollout.blocked_reason = Some(reason);
    }
    decision.rollout = Some(rollout.clone());
}

/// Returns the progress of the rollout, without continuing it.
pub(super) fn progress(seen: &Observed) -> Option<Rollout> {
    State::of(seen)?.progress(seen)
}

/// Returns the revision in the template of a workload.
pub(super) fn template_revision(workload: &Value) -> Option<&str> {
    workload.pointer("/spec/template/metadata/annotations")?.get(REVISION)?.as_str()
}

/// Returns true if every coordinator has the settings of its Deployment, and serves.
pub(super) fn coordinators_are_new(seen: &Observed) -> bool {
    let status = seen.deployment.as_ref().and_then(|deployment| deployment.status.as_ref());
    let available = status.and_then(|status| status.available_replicas);
    coordinators_are_replaced(seen)
        && available == Some(seen.cluster.spec.coordinator.replicas)
        && seen.snapshot().is_some()
}

/// Returns true if every coordinator has the settings of its Deployment, serving or not.
pub(crate) fn coordinators_are_replaced(seen: &Observed) -> bool {
    let Some(deployment) = &seen.deployment else { return false };
    let (Some(spec), Some(status)) = (&deployment.spec, &deployment.status) else { return false };
    let wanted = seen.cluster.spec.coordinator.replicas;
    status.observed_generation == deployment.metadata.generation
        && spec.replicas == Some(wanted)
        && status.replicas.unwrap_or(0) == wanted
        && status.updated_replicas.unwrap_or(0) == wanted
}

/// The datanodes, split by whether they run the settings of their StatefulSet.
struct State<'a> {
    revision: &'a str,
    /// True if the StatefulSet controller knows them: if not, a new pod may have old ones.
    is_settled: bool,
    old: Vec<&'a Pod>,
    new: Vec<&'a Pod>,
}

impl<'a> State<'a> {
    fn of(seen: &'a Observed) -> Option<Self> {
        let set = seen.stateful_set.as_ref()?;
        let annotations = &set.spec.as_ref()?.template.metadata.as_ref()?.annotations;
        let revision = annotations.as_ref()?.get(REVISION)?;
        let (new, old) = seen
            .pods_of("datanode")
            .filter(|pod| belongs_to(pod, set))
            .partition(|pod| pod.annotations().get(REVISION) == Some(revision));
        let status = set.status.as_ref();
        let is_settled = status.and_then(|s| s.observed_generation) == set.metadata.generation;
        Some(Self { revision, is_settled, old, new })
    }

    /// Returns the pod being replaced, as remembered in the status; it may already be the new one,
    /// or gone. Waiting for one that is not desired would never end.
    fn current(seen: &Observed) -> Option<&str> {
        let current = seen.cluster.status.as_ref()?.rollout.as_ref()?.current_pod.as_deref()?;
        let replicas = seen.stateful_set.as_ref()?.spec.as_ref()?.replicas?;
        let prefix = format!("{}-", Names::of(&seen.cluster).datanode());
        let ordinal: i32 = current.strip_prefix(&prefix)?.parse().ok()?;
        (ordinal < replicas).then_some(current)
    }

    fn progress(&self, seen: &Observed) -> Option<Rollout> {
        let current = Self::current(seen).filter(|current| self.is_under_way(seen, current));
        (!self.old.is_empty() || current.is_some()).then(|| Rollout {
            revision: self.revision.to_owned(),
            updated: self.new.len() as i32,
            remaining: self.old.len() as i32,
            current_pod: current.map(ToOwned::to_owned),
            blocked_reason: None,
        })
    }

    /// Returns true while the replaced pod is not back.
    fn is_under_way(&self, seen: &Observed, current: &str) -> bool {
        let is_back = self.new.iter().any(|pod| pod.name_any() == current && is_ready(pod));
        let node = seen.snapshot().and_then(|snapshot| by_pod(snapshot).get(current).copied());
        !is_back || node.is_some_and(|node| node.maintenance_left.is_some())
    }

    /// Takes the next step, or returns why it cannot.
    fn step(
        &self,
        seen: &Observed,
        id: ClusterId,
        rollout: &mut Rollout,
        decision: &mut Decision,
    ) -> Option<String> {
        if !self.is_settled {
            return Some(
                "the StatefulSet's new settings are not known to its controller".to_owned(),
            );
        }
        // Already down: a new one can only be better. So a bad image is fixed by the next one.
        let is_down = |pod: &&&Pod| !is_ready(pod) && pod.metadata.deletion_timestamp.is_none();
        if let Some(pod) = self.old.iter().find(is_down) {
            rollout.current_pod = Some(pod.name_any());
            decision.actions.extend(restart(pod));
            return None;
        }
        if let Some(finding) = self.failed(seen) {
            let reason = finding.message.clone();
            decision.stalled = Some(finding);
            return Some(reason);
        }
        if let Some(finding) = decision.stalled.as_ref().or(decision.waiting.as_ref()) {
            return Some(finding.message.clone());
        }
        if decision.actions.iter().any(changes_pods) {
            return Some("waiting for other changes".to_owned());
        }
        self.disrupt(seen, id, rollout, decision)
    }

    /// Stops the next pod: requests the grant in one round and acts on it in the next, so that the
    /// status names the pod before it is stopped.
    fn disrupt(
        &self,
        seen: &Observed,
        id: ClusterId,
        rollout: &mut Rollout,
        decision: &mut Decision,
    ) -> Option<String> {
        let snapshot = seen.snapshot()?;
        if !coordinators_are_new(seen) {
            return Some("some coordinators do not serve with the new settings".to_owned());
        }
        let nodes = by_pod(snapshot);
        let current = Self::current(seen);
        let needs_all_replicas = seen.cluster.spec.maintenance.update.require_fully_replicated;
        let announced = self.old.iter().find(|pod| {
            current == Some(pod.name_any().as_str())
                && nodes.get(pod.name_any().as_str()).is_some_and(|n| n.maintenance_left.is_some())
        });
        if let Some(pod) = announced {
            // The stop was granted; the state of the others may have changed since.
            if let Err(reason) =
                may_stop::is_healthy_but(seen, needs_all_replicas, Some(&pod.name_any()))
            {
                return Some(reason);
            }
            rollout.current_pod = Some(pod.name_any());
            decision.actions.extend(restart(pod));
            return None;
        }
        if let Err(reason) = may_stop::is_healthy(seen, needs_all_replicas) {
            return Some(reason);
        }
        // The highest ordinal first, like StatefulSets.
        let pod = self.old.iter().max_by_key(|pod| ordinal(pod))?;
        let name = pod.name_any();
        rollout.current_pod = Some(name.clone());
        match nodes.get(name.as_str()) {
            Some(node) => decision.actions.push(Action::BeginMaintenance {
                cluster: id,
                node: node.id,
                pod: name,
                ttl: node_timeout(seen),
            }),
            // It never joined, so it holds nothing.
            None => decision.actions.extend(restart(pod)),
        }
        None
    }

    /// Returns the finding for a new pod that did not become ready in time.
    fn failed(&self, seen: &Observed) -> Option<Finding> {
        let timeout = node_timeout(seen);
        let late = |pod: &&&Pod| {
            let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            let age = created.and_then(|created| Duration::try_from(seen.since(created)).ok());
            !is_ready(pod) && age.is_some_and(|age| age > timeout)
        };
        let pod = self.new.iter().find(late)?;
        let why = diagnose::problem(pod, seen)
            .map_or_else(|| "it does not become ready".to_owned(), |finding| finding.message);
        Some(Finding::new(
            Reason::RolloutStuck,
            format!(
                "pod {} has the new settings and is not ready after {} s: {why}; revert to the \
                 previous settings, or repair it",
                pod.name_any(),
                timeout.as_secs()
            ),
        ))
    }
}

/// Returns true if an action creates or removes pods, or its effect on them must be seen first.
fn changes_pods(action: &Action) -> bool {
    match action {
        Action::Apply { object, .. } => {
            matches!(object.kind, Kind::Deployment | Kind::StatefulSet | Kind::Claim)
        }
        Action::AddFinalizer
        | Action::RemoveFinalizer
        | Action::CreateJoinSecret
        | Action::Init(_)
        | Action::Admit { .. }
        | Action::BeginMaintenance { .. }
        | Action::EndMaintenance { .. }
        | Action::RestartPod(_) => true,
        Action::Delete(_) | Action::SetReplication(_) => false,
    }
}

fn restart(pod: &Pod) -> Option<Action> {
    let (name, uid) = (pod.name_any(), pod.uid()?);
    Some(Action::RestartPod(Target { kind: Kind::Pod, name, uid }))
}

fn node_timeout(seen: &Observed) -> Duration {
    let seconds = seen.cluster.spec.maintenance.update.node_timeout_seconds;
    Duration::from_secs(u64::from(seconds.unsigned_abs()))
}

/// Returns true if the StatefulSet created the pod.
pub(super) fn belongs_to(pod: &Pod, set: &StatefulSet) -> bool {
    pod.owner_references().iter().any(|owner| {
        owner.controller == Some(true) && Some(&owner.uid) == set.metadata.uid.as_ref()
    })
}

fn ordinal(pod: &Pod) -> Option<u32> {
    pod.name_any().rsplit_once('-')?.1.parse().ok()
}
