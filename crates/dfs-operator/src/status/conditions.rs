//! Conditions, which programs rely on.

use dfs_crd::{ConditionType, Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::Facts;
use crate::coordinator::Snapshot;
use crate::decide::{Action, Case, Decision, Finding, coordinators_are_replaced};
use crate::kind::Kind;
use crate::observed::Observed;

/// Maximum length of a condition message in bytes.
const MESSAGE_LEN_MAX: usize = 1_024;

/// The state of a condition, and its reason.
struct Word {
    /// `None` when unknown.
    holds: Option<bool>,
    why: Finding,
}

impl Word {
    fn new(holds: Option<bool>, reason: Reason, message: impl Into<String>) -> Self {
        Self { holds, why: Finding::new(reason, message) }
    }

    fn yes(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(Some(true), reason, message)
    }

    fn no(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(Some(false), reason, message)
    }

    fn finding(holds: bool, why: Finding) -> Self {
        Self { holds: Some(holds), why }
    }
}

/// Returns all conditions, in the order of their types.
pub(super) fn all(
    seen: &Observed,
    decision: &Decision,
    facts: &Facts,
    before: &[Condition],
) -> Vec<Condition> {
    let stalled = facts.failed.clone().or_else(|| decision.stalled.clone());
    let of = |kind| match kind {
        ConditionType::Ready => ready(seen, decision, facts, stalled.as_ref()),
        ConditionType::Available => available(seen, decision, facts),
        ConditionType::Reconciling => reconciling(seen, decision, facts),
        ConditionType::Stalled => match &stalled {
            Some(finding) => Word::finding(true, finding.clone()),
            None => Word::no(Reason::AsSpecified, ""),
        },
        ConditionType::Degraded => degraded(seen, decision, facts),
        ConditionType::FullyReplicated => replicated(seen),
        ConditionType::Upgrading => match &facts.rollout {
            Some(rollout) => match &rollout.blocked_reason {
                Some(reason) => Word::yes(Reason::RolloutWaiting, reason.clone()),
                None => Word::yes(Reason::RollingOut, "datanodes are being restarted"),
            },
            None => Word::no(Reason::UpToDate, ""),
        },
        ConditionType::SpecValid => {
            match decision.invalid.as_ref().or_else(|| decision.refused.first()) {
                Some(finding) => Word::finding(false, finding.clone()),
                None => Word::yes(Reason::AsSpecified, ""),
            }
        }
        ConditionType::Paused => match decision.case {
            Case::Paused => Word::yes(
                Reason::PausedByAnnotation,
                format!("remove the annotation {} to resume", dfs_crd::PAUSED),
            ),
            _ => Word::no(Reason::NotPaused, ""),
        },
        ConditionType::DeletionBlocked => match &decision.deletion_blocked {
            Some(finding) => Word::finding(true, finding.clone()),
            None if decision.case == Case::Deleting => Word::no(Reason::Deleting, ""),
            None => Word::no(Reason::NotDeleting, ""),
        },
        ConditionType::TransportSecure => Word::no(
            Reason::Plaintext,
            "channels are plaintext in this version; only NetworkPolicies restrict access to them",
        ),
    };
    ConditionType::ALL.iter().map(|kind| condition(*kind, &of(*kind), seen, before)).collect()
}

fn condition(kind: ConditionType, word: &Word, seen: &Observed, before: &[Condition]) -> Condition {
    let status = match word.holds {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let before = before.iter().find(|there| there.type_ == kind.as_str());
    let since = before.filter(|there| there.status == status);
    Condition {
        type_: kind.as_str().to_owned(),
        status: status.to_owned(),
        reason: word.why.reason.as_str().to_owned(),
        message: super::clip(&word.why.message, MESSAGE_LEN_MAX),
        last_transition_time: since.map_or_else(
            || Time(whole_seconds(seen.now)),
            |there| there.last_transition_time.clone(),
        ),
        observed_generation: match decision_generation(seen, before) {
            Some(generation) => Some(generation),
            None => seen.cluster.metadata.generation,
        },
    }
}

/// While paused the spec is not acted on, so conditions stay those of the previous generation.
fn decision_generation(seen: &Observed, before: Option<&Condition>) -> Option<i64> {
    let annotations = seen.cluster.metadata.annotations.as_ref();
    let is_paused = annotations.and_then(|a| a.get(dfs_crd::PAUSED)).is_some_and(|v| v == "true");
    before.filter(|_| is_paused).and_then(|there| there.observed_generation)
}

/// Truncates a time to whole seconds, as the API server stores it.
pub(super) fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// Returns what keeps the cluster from serving, if known.
fn outage(seen: &Observed, decision: &Decision) -> Option<Finding> {
    if decision.case == Case::Deleting {
        return Some(Finding::new(Reason::Deleting, "the cluster is being deleted"));
    }
    if seen.cluster.spec.stopped {
        return Some(Finding::new(Reason::Stopped, "spec.stopped is true"));
    }
    match &seen.snapshot {
        Snapshot::Known(_) => None,
        _ if seen.known_id().is_none() => {
            Some(Finding::new(Reason::Creating, "the cluster is being created"))
        }
        Snapshot::Uninitialised => {
            Some(Finding::new(Reason::MetadataLost, "the metadata is empty"))
        }
        Snapshot::Unreachable(what) => Some(Finding::new(Reason::CoordinatorUnavailable, what)),
    }
}

fn ready(seen: &Observed, decision: &Decision, facts: &Facts, stalled: Option<&Finding>) -> Word {
    if let Some(finding) = stalled.filter(|_| decision.case == Case::Blocked) {
        return Word::finding(false, finding.clone());
    }
    // A known cause is more specific than its effects.
    let why = |finding: Finding| Word::finding(false, stalled.cloned().unwrap_or(finding));
    if let Some(finding) = outage(seen, decision) {
        return why(finding);
    }
    if facts.coordinators_ready < facts.coordinators_wanted {
        return why(Finding::new(
            Reason::CoordinatorUnavailable,
            format!(
                "{} of {} coordinators are ready",
                facts.coordinators_ready, facts.coordinators_wanted
            ),
        ));
    }
    let serving = facts.datanodes_active.min(facts.datanodes_ready);
    if serving < facts.datanodes_wanted {
        return why(Finding::new(
            if facts.is_creating { Reason::Creating } else { Reason::DatanodesUnavailable },
            format!("{serving} of {} datanodes serve", facts.datanodes_wanted),
        ));
    }
    match replicated(seen) {
        Word { holds: Some(false), why: finding } => why(finding),
        _ => Word::yes(Reason::Serving, format!("{serving} datanodes serve reads and writes")),
    }
}

fn available(seen: &Observed, decision: &Decision, facts: &Facts) -> Word {
    if let Some(finding) = outage(seen, decision) {
        return Word::finding(false, finding);
    }
    let Some(snapshot) = seen.snapshot() else {
        return Word::new(None, Reason::NotObserved, "");
    };
    let needed = snapshot.min_write_replicas;
    if facts.datanodes_active.unsigned_abs() < needed {
        return Word::no(
            Reason::TooFewDatanodes,
            format!("{} datanodes are active, but writes need {needed}", facts.datanodes_active),
        );
    }
    match &snapshot.replication {
        Some(data) if data.missing > 0 => {
            Word::no(Reason::ChunksMissing, "some chunks have no reachable replica")
        }
        _ => Word::yes(Reason::Serving, ""),
    }
}

fn reconciling(seen: &Observed, decision: &Decision, facts: &Facts) -> Word {
    match decision.case {
        Case::Deleting => return Word::yes(Reason::Deleting, ""),
        Case::Paused | Case::Blocked => return Word::no(Reason::AsSpecified, ""),
        Case::Creating => return Word::yes(Reason::Creating, waited_for(decision)),
        Case::Stopped | Case::Running => {}
    }
    if decision.rollout.is_some() || decision.actions.iter().any(changes_workload) {
        return Word::yes(Reason::RollingOut, waited_for(decision));
    }
    if decision.case == Case::Running && !coordinators_are_replaced(seen) {
        return Word::yes(Reason::RollingOut, "waiting for coordinators");
    }
    if let Some(finding) = &decision.waiting {
        return Word::finding(true, finding.clone());
    }
    let serving = facts.datanodes_active.min(facts.datanodes_ready);
    if decision.case == Case::Running && facts.is_creating && serving < facts.datanodes_wanted {
        return Word::yes(Reason::Creating, "waiting for datanodes");
    }
    if decision.case == Case::Running && facts.is_scaling && facts.lost.is_empty() {
        return Word::yes(Reason::ScalingUp, "waiting for datanodes");
    }
    if decision.case == Case::Stopped && !seen.pods.is_empty() {
        return Word::yes(Reason::Stopped, "waiting for pods to stop");
    }
    Word::no(Reason::AsSpecified, "")
}

/// Returns true if an action changes a workload, which nothing has carried out yet.
fn changes_workload(action: &Action) -> bool {
    matches!(action, Action::Apply { object, .. }
        if matches!(object.kind, Kind::Deployment | Kind::StatefulSet))
}

fn waited_for(decision: &Decision) -> String {
    decision.waiting.as_ref().map_or_else(String::new, |finding| finding.message.clone())
}

fn degraded(seen: &Observed, decision: &Decision, facts: &Facts) -> Word {
    if matches!(decision.case, Case::Deleting | Case::Stopped) || facts.is_creating {
        return Word::no(Reason::AsSpecified, "");
    }
    if let Some(finding) = outage(seen, decision) {
        return Word::finding(true, finding);
    }
    if let Some(node) = facts.lost.first() {
        return Word::yes(
            Reason::NodeLost,
            format!(
                "datanode {node} is lost; its replicas are re-replicated from others where possible, and \
                 none of its data is deleted"
            ),
        );
    }
    if let Word { holds: Some(false), why } = replicated(seen) {
        return Word::finding(true, why);
    }
    if facts.datanodes_active < facts.datanodes_wanted {
        return Word::yes(
            Reason::DatanodesUnavailable,
            format!(
                "{} of {} datanodes are active",
                facts.datanodes_active, facts.datanodes_wanted
            ),
        );
    }
    Word::no(Reason::AsSpecified, "")
}

fn replicated(seen: &Observed) -> Word {
    match seen.snapshot().map(|snapshot| snapshot.replication.as_ref()) {
        None => Word::new(None, Reason::NotObserved, ""),
        Some(None) => Word::new(None, Reason::CountsUnknown, "replicas have not been counted yet"),
        Some(Some(data)) if data.missing > 0 => {
            Word::no(Reason::ChunksMissing, "some chunks have no reachable replica")
        }
        Some(Some(data)) if data.under_replicated > 0 => {
            Word::no(Reason::UnderReplicated, "some chunks lack replicas")
        }
        Some(Some(data)) if data.bad_replicas > 0 => {
            Word::no(Reason::ChunksCorrupt, "some replicas are bad")
        }
        Some(Some(_)) => Word::yes(Reason::AsSpecified, ""),
    }
}
