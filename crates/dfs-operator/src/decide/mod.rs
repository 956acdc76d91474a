//! Decides what to do about a cluster: a pure function of one observation.
//!
//! The first matching case decides: deletion, pause, an invalid spec, states that must not be
//! repaired, then creating what is missing, then at most one disruption. Nothing is remembered
//! between decisions; an operator that dies between two actions leaves a state from which the next
//! observation continues.

mod delete;
mod diagnose;
mod may_stop;
mod members;
mod objects;
mod rollout;
mod scale;
#[cfg(test)]
mod tests;
mod validate;
mod versions;

use std::time::Duration;

use dfs_crd::{DeletionPolicy, FINALIZER, PAUSED, Reason, Rollout};
use dfs_types::{ClusterId, NodeId};
use kube::ResourceExt as _;

pub use diagnose::problem;
pub(crate) use objects::taken;
pub(crate) use rollout::coordinators_are_replaced;

use crate::build;
use crate::coordinator::Snapshot;
use crate::definition::Definition;
use crate::kind::{Kind, Object, Target};
use crate::observed::Observed;

/// A fact to publish, with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// From the closed list.
    pub reason: Reason,
    /// Names the object and the remedy.
    pub message: String,
}

impl Finding {
    /// Returns a finding.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Keep the resource until the operator has deleted its data.
    AddFinalizer,
    /// Remove the finalizer.
    RemoveFinalizer,
    /// Create the Secret with a random join secret, unless it exists.
    CreateJoinSecret,
    /// Apply an object in its desired state.
    Apply {
        /// The object.
        object: Box<Object>,
        /// False if no object of that name existed; then an existing one belongs to someone else.
        is_there: bool,
    },
    /// Delete an object.
    Delete(Target),
    /// Create the cluster in the empty metadata store.
    Init(ClusterId),
    /// Set how many replicas files get, existing ones included.
    SetReplication(ClusterId),
    /// Make a joining node active.
    Admit {
        /// The cluster.
        cluster: ClusterId,
        /// The node.
        node: NodeId,
        /// Its pod.
        pod: String,
    },
    /// Announce that a node will stop, if it can stop safely.
    BeginMaintenance {
        /// The cluster.
        cluster: ClusterId,
        /// The node.
        node: NodeId,
        /// Its pod.
        pod: String,
        /// Time after which the maintenance ends by itself.
        ttl: Duration,
    },
    /// Announce that a node is back.
    EndMaintenance {
        /// The cluster.
        cluster: ClusterId,
        /// The node.
        node: NodeId,
        /// Its pod.
        pod: String,
    },
    /// Stop a pod, so that one with the desired template takes its place.
    RestartPod(Target),
}

/// The case that decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// The cluster is being deleted.
    Deleting,
    /// An annotation keeps the operator from changing anything.
    Paused,
    /// The spec cannot be carried out, or the cluster is not the expected one: nothing is touched.
    Blocked,
    /// The cluster is being created.
    Creating,
    /// The spec requires that no pod runs.
    Stopped,
    /// The cluster is running.
    Running,
}

/// The actions to take, and the findings to publish.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The case that decided.
    pub case: Case,
    /// Carried out in this order up to the first failure.
    pub actions: Vec<Action>,
    /// A finding that needs a person to act.
    pub stalled: Option<Finding>,
    /// The spec contradicts itself.
    pub invalid: Option<Finding>,
    /// Parts of the spec that are not carried out.
    pub refused: Vec<Finding>,
    /// Object or event that the operator is waiting for.
    pub waiting: Option<Finding>,
    /// Why the cluster cannot be deleted yet.
    pub deletion_blocked: Option<Finding>,
    /// Progress of a rollout; `None` when every pod has its settings.
    pub rollout: Option<Rollout>,
}

impl Decision {
    fn new(case: Case) -> Self {
        Self {
            case,
            actions: Vec::new(),
            stalled: None,
            invalid: None,
            refused: Vec::new(),
            waiting: None,
            deletion_blocked: None,
            rollout: None,
        }
    }

    fn stalled(case: Case, finding: Finding) -> Self {
        Self { stalled: Some(finding), ..Self::new(case) }
    }

    /// Returns whether something is in progress that needs another reconciliation soon.
    pub fn is_busy(&self) -> bool {
        !self.actions.is_empty() || self.waiting.is_some() || self.rollout.is_some()
    }
}

/// Returns the decision for an observation.
pub fn decide(seen: &Observed) -> Decision {
    let cluster = &seen.cluster;
    if cluster.metadata.deletion_timestamp.is_some() {
        return delete::decide(seen);
    }
    if cluster.annotations().get(PAUSED).is_some_and(|value| value == "true") {
        return Decision { rollout: rollout::progress(seen), ..Decision::new(Case::Paused) };
    }
    if let Some(finding) = outdated(seen).or_else(|| versions::running(seen)) {
        return Decision::stalled(Case::Blocked, finding);
    }
    if let Some(finding) = versions::wanted(seen).or_else(|| validate::spec(cluster)) {
        return Decision {
            invalid: Some(finding.clone()),
            ..Decision::stalled(Case::Blocked, finding)
        };
    }
    let mut decision = match identity(seen) {
        Identity::Blocked(finding) => return Decision::stalled(Case::Blocked, finding),
        Identity::New => {
            let mut decision = Decision::new(Case::Creating);
            decision.actions.push(Action::CreateJoinSecret);
            decision
        }
        Identity::Known(id) => make(seen, id),
    };
    let is_held = cluster.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
    // Only deletion of the data waits for the operator. Retained objects have no owner, and the
    // rest is garbage-collected by owner: that needs no operator and none of its permissions.
    match (is_held, cluster.spec.deletion_policy) {
        // First of all: nothing is created that would not be cleaned up.
        (false, DeletionPolicy::Delete) => decision.actions.insert(0, Action::AddFinalizer),
        (true, DeletionPolicy::Retain) => decision.actions.insert(0, Action::RemoveFinalizer),
        (true, DeletionPolicy::Delete) | (false, DeletionPolicy::Retain) => {}
    }
    decision
}

/// Returns why the resource cannot be trusted: the API server drops fields its definition lacks.
fn outdated(seen: &Observed) -> Option<Finding> {
    let Definition::Older(missing) = &seen.definition else { return None };
    let first = missing.first()?;
    let more = match missing.len() {
        1 => String::new(),
        all => format!(" and {} more", all - 1),
    };
    Some(Finding::new(
        Reason::DefinitionOutdated,
        format!(
            "CustomResourceDefinition {} is older than this operator and lacks {first}{more}; \
             bring it up to date with the chart (crds.install=true), or with the output of \
             `dfs-operator crd` and `kubectl apply --server-side -f -`",
            dfs_crd::CRD_NAME
        ),
    ))
}

/// Identity of the cluster.
enum Identity {
    /// None yet.
    New,
    /// The one in the join Secret.
    Known(ClusterId),
    /// Unknown, or another cluster's: nothing is changed.
    Blocked(Finding),
}

fn identity(seen: &Observed) -> Identity {
    let names = build::Names::of(&seen.cluster);
    let secret = names.join_secret();
    let known = seen.known_id();
    let Some(join) = &seen.join else {
        return match known {
            None => Identity::New,
            Some(id) => Identity::Blocked(Finding::new(
                Reason::SecretMissing,
                format!(
                    "Secret {secret} is gone; create it again with cluster-id={id} and a random \
                     join-secret, then delete the pods of the cluster"
                ),
            )),
        };
    };
    let Some(id) = join.cluster_id.filter(|_| join.has_secret) else {
        let message = format!("Secret {secret} must have the keys cluster-id and join-secret");
        return Identity::Blocked(Finding::new(Reason::SecretMissing, message));
    };
    if let Some(known) = known.filter(|known| *known != id.to_string()) {
        return Identity::Blocked(Finding::new(
            Reason::ClusterIdMismatch,
            format!(
                "Secret {secret} belongs to cluster {id}, but this is {known}; restore its own"
            ),
        ));
    }
    if let Some(snapshot) = seen.snapshot().filter(|snapshot| snapshot.cluster != id) {
        return Identity::Blocked(Finding::new(
            Reason::ClusterIdMismatch,
            format!(
                "the metadata belongs to cluster {}, but this is {id}; restore the metadata of this \
                 cluster",
                snapshot.cluster
            ),
        ));
    }
    if known.is_some() && seen.snapshot == Snapshot::Uninitialised {
        return Identity::Blocked(metadata_lost(&format!(
            "the metadata of cluster {id} is empty, although it was created"
        )));
    }
    let claim = names.metadata_claim();
    let has_claim = seen.claims.iter().any(|there| there.name_any() == claim);
    if known.is_some() && validate::is_embedded(&seen.cluster) && !has_claim {
        return Identity::Blocked(metadata_lost(&format!(
            "{} {claim}, which holds the metadata, is gone",
            Kind::Claim.name()
        )));
    }
    Identity::Known(id)
}

fn metadata_lost(what: &str) -> Finding {
    Finding::new(
        Reason::MetadataLost,
        format!("{what}; restore the metadata, or delete the cluster and its volumes"),
    )
}

/// Creates what is missing, then makes at most one disruption.
fn make(seen: &Observed, id: ClusterId) -> Decision {
    let case = if seen.cluster.spec.stopped {
        Case::Stopped
    } else if seen.known_id().is_none() || seen.stateful_set.is_none() {
        Case::Creating
    } else {
        Case::Running
    };
    let mut decision = Decision::new(case);
    objects::decide(seen, id, &mut decision);
    if case == Case::Stopped {
        return decision;
    }
    if decision.stalled.is_none() {
        decision.stalled = diagnose::decide(seen);
    }
    members::decide(seen, id, &mut decision);
    rollout::decide(seen, id, &mut decision);
    // Its finding explains other waiting, except for objects of another owner.
    let is_for_objects = |finding: &Finding| finding.reason == Reason::WaitingForObjects;
    if !decision.waiting.as_ref().is_some_and(is_for_objects)
        && let Some(finding) = diagnose::volume_to_come(seen)
    {
        decision.waiting = Some(finding);
    }
    decision
}
