//! The status of a cluster: a pure function of the observation, the decision, and its outcome.

mod conditions;
mod damping;

use std::collections::{BTreeMap, BTreeSet};

use dfs_client::NodeStatus;
use dfs_crd::{
    Capacity, ClusterStatus, ConditionType, CoordinatorStatus, DATANODES_MAX, DatanodeState,
    DatanodeStatus, Phase, ReplicationStatus, Rollout, VersionStatus,
};
use dfs_types::{ClusterId, NodeState};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt as _;

use crate::COORDINATOR_PORT;
use crate::build::Names;
use crate::decide::{Case, Decision, Finding};
use crate::observed::{Observed, by_pod, is_ready, pod_of};

/// The outcome of the actions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Id of the cluster, which exists, whether created now or earlier.
    pub initialised: Option<ClusterId>,
    /// Why a node must not stop now.
    pub refused: Option<String>,
    /// An action failed; the ones after it were not tried.
    pub failed: Option<Finding>,
}

/// Returns the status of a cluster. Conditions change their time only when their status changes,
/// and fluctuating numbers are updated only on relevant changes.
pub fn status(seen: &Observed, decision: &Decision, outcome: &Outcome) -> ClusterStatus {
    let before = seen.cluster.status.clone().unwrap_or_default();
    let facts = Facts::of(seen, decision, outcome);
    let conditions = conditions::all(seen, decision, &facts, &before.conditions);
    let is_true = |kind: ConditionType| is_true(&conditions, kind);
    let phase = match decision.case {
        Case::Deleting => Phase::Deleting,
        Case::Paused => Phase::Paused,
        _ if is_true(ConditionType::Stalled) => Phase::Stalled,
        Case::Stopped => Phase::Stopped,
        _ if is_true(ConditionType::Ready) && !is_true(ConditionType::Upgrading) => Phase::Ready,
        _ if facts.is_creating => Phase::Creating,
        _ if is_true(ConditionType::Upgrading) => Phase::Upgrading,
        _ if facts.is_scaling => Phase::Scaling,
        Case::Creating | Case::Running | Case::Blocked => Phase::Degraded,
    };
    let acted = decision.case != Case::Paused && outcome.failed.is_none();
    let datanodes = datanodes(seen, &before.datanodes);
    let status = ClusterStatus {
        observed_generation: if acted {
            seen.cluster.metadata.generation
        } else {
            before.observed_generation
        },
        phase: Some(phase),
        conditions,
        cluster_id: before.cluster_id.clone().or_else(|| facts.id.map(|id| id.to_string())),
        version: Some(version(seen)),
        replicas: facts.datanodes_there,
        ready_replicas: facts.datanodes_ready,
        selector: selector(seen),
        coordinator: Some(CoordinatorStatus {
            ready: facts.coordinators_ready,
            desired: facts.coordinators_wanted,
            lease_holder: lease_holder(seen, before.coordinator.as_ref()),
            endpoint: endpoint(seen),
        }),
        datanodes_truncated: datanodes.len() > DATANODES_MAX,
        datanodes: datanodes.into_iter().take(DATANODES_MAX).collect(),
        capacity: capacity(seen).or(before.capacity),
        replication: replication(seen).or(before.replication),
        rollout: facts.rollout,
    };
    damping::keep(&before, status)
}

/// Returns whether this condition exists and is true.
pub fn is_true(conditions: &[Condition], kind: ConditionType) -> bool {
    conditions.iter().any(|there| there.type_ == kind.as_str() && there.status == "True")
}

/// Facts that several parts of the status depend on.
struct Facts {
    id: Option<ClusterId>,
    coordinators_wanted: i32,
    coordinators_ready: i32,
    datanodes_wanted: i32,
    datanodes_there: i32,
    datanodes_ready: i32,
    datanodes_active: i32,
    lost: BTreeSet<String>,
    is_creating: bool,
    is_scaling: bool,
    failed: Option<Finding>,
    rollout: Option<Rollout>,
}

impl Facts {
    fn of(seen: &Observed, decision: &Decision, outcome: &Outcome) -> Self {
        let spec = &seen.cluster.spec;
        let runs = !spec.stopped && decision.case != Case::Deleting;
        let join = seen.join.as_ref().and_then(|join| join.cluster_id);
        let pictured = seen.snapshot().map(|snapshot| snapshot.cluster);
        let nodes = seen.snapshot().map(|snapshot| snapshot.nodes.as_slice()).unwrap_or_default();
        let with = |state: NodeState| nodes.iter().filter(move |node| node.state == state);
        let phase = seen.cluster.status.as_ref().and_then(|status| status.phase);
        let was_made = !matches!(phase, None | Some(Phase::Pending | Phase::Creating));
        let datanodes_wanted = if runs { spec.datanodes.replicas.max(seen.datanodes()) } else { 0 };
        let ready = |component| seen.pods_of(component).filter(|pod| is_ready(pod)).count() as i32;
        let datanodes_ready = ready("datanode");
        Self {
            id: outcome.initialised.or_else(|| pictured.filter(|id| join == Some(*id))),
            coordinators_wanted: if runs { spec.coordinator.replicas } else { 0 },
            coordinators_ready: ready("coordinator"),
            datanodes_wanted,
            datanodes_there: seen.pods_of("datanode").count() as i32,
            datanodes_ready,
            datanodes_active: with(NodeState::Active).count() as i32,
            lost: with(NodeState::Lost).map(|node| pod_of(node).to_owned()).collect(),
            is_creating: decision.case == Case::Creating || !was_made,
            is_scaling: datanodes_ready < datanodes_wanted,
            failed: outcome.failed.clone(),
            rollout: rollout(decision, outcome),
        }
    }
}

/// Returns the progress of the rollout, including the coordinators' reply.
fn rollout(decision: &Decision, outcome: &Outcome) -> Option<Rollout> {
    let mut rollout = decision.rollout.clone()?;
    if let Some(reason) = &outcome.refused {
        rollout.current_pod = None;
        rollout.blocked_reason = Some(reason.clone());
    }
    rollout.blocked_reason = rollout.blocked_reason.map(|reason| clip(&reason, 1_024));
    Some(rollout)
}

fn version(seen: &Observed) -> VersionStatus {
    let image = &seen.cluster.spec.image;
    let nodes = seen.snapshot().into_iter().flat_map(|snapshot| {
        snapshot.nodes.iter().map(|node| &node.version).chain([&snapshot.version])
    });
    let running = nodes.filter(|version| !version.is_empty());
    let before = seen.cluster.status.as_ref().and_then(|status| status.version.as_ref());
    let current = running.min_by_key(|version| numbers(version)).cloned();
    VersionStatus {
        current: current.or_else(|| before?.current.clone()),
        target: image.digest.clone().unwrap_or_else(|| image.tag.clone()),
    }
}

/// Parses a version such as `0.12.3` for comparison.
fn numbers(version: &str) -> Vec<u64> {
    let parts = version.split(|c: char| !c.is_ascii_digit());
    parts.filter_map(|part| part.parse().ok()).collect()
}

fn selector(seen: &Observed) -> String {
    format!(
        "app.kubernetes.io/name=dfs,app.kubernetes.io/instance={},\
         app.kubernetes.io/component=datanode",
        seen.cluster.name_any()
    )
}

fn endpoint(seen: &Observed) -> String {
    let namespace = seen.cluster.namespace().unwrap_or_default();
    let service = Names::of(&seen.cluster).coordinator();
    format!("{service}.{namespace}.svc:{COORDINATOR_PORT}")
}

fn lease_holder(seen: &Observed, before: Option<&CoordinatorStatus>) -> Option<String> {
    match seen.snapshot() {
        Some(snapshot) => {
            Some(snapshot.worker_lease_holder.clone()).filter(|holder| !holder.is_empty())
        }
        None => before?.lease_holder.clone(),
    }
}

/// Returns one line per datanode that has a pod, or that the cluster knows.
fn datanodes(seen: &Observed, before: &[DatanodeStatus]) -> Vec<DatanodeStatus> {
    let nodes = seen.snapshot().map(by_pod).unwrap_or_default();
    let pods: BTreeMap<String, &Pod> =
        seen.pods_of("datanode").map(|pod| (pod.name_any(), pod)).collect();
    let names: BTreeSet<&str> =
        pods.keys().map(String::as_str).chain(nodes.keys().copied()).collect();
    let line = |name: &str| {
        let before = before.iter().find(|line| line.name == name);
        let (pod, node) = (pods.get(name).copied(), nodes.get(name).copied());
        datanode(name, pod, node, before, seen)
    };
    let mut lines: Vec<DatanodeStatus> = names.into_iter().map(line).collect();
    lines.sort_by_key(|line| (line.name.len(), line.name.clone()));
    lines
}

fn datanode(
    name: &str,
    pod: Option<&Pod>,
    node: Option<&NodeStatus>,
    before: Option<&DatanodeStatus>,
    seen: &Observed,
) -> DatanodeStatus {
    let kube_node = pod.and_then(|pod| pod.spec.as_ref()?.node_name.clone());
    let non_empty = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    // While no coordinator replies, the last known values are kept.
    let known = before.filter(|_| seen.snapshot().is_none());
    let state = match node {
        Some(node) => state(node.state),
        None => known.map_or(DatanodeState::Pending, |line| line.state),
    };
    let since =
        before.filter(|line| line.state == state).and_then(|b| b.last_transition_time.clone());
    DatanodeStatus {
        name: name.to_owned(),
        node_id: node.map(|n| n.id.to_string()).or_else(|| known?.node_id.clone()),
        kube_node: kube_node.or_else(|| node.and_then(|node| non_empty(&node.host))),
        zone: node.and_then(|node| non_empty(&node.zone)).or_else(|| known?.zone.clone()),
        state,
        version: node.and_then(|node| non_empty(&node.version)).or_else(|| known?.version.clone()),
        capacity_bytes: node
            .map(|node| node.capacity() as i64)
            .or_else(|| Some(known?.capacity_bytes))
            .unwrap_or(0),
        used_bytes: node
            .map(|node| node.used() as i64)
            .or_else(|| Some(known?.used_bytes))
            .unwrap_or(0),
        last_transition_time: since.or_else(|| Some(Time(conditions::whole_seconds(seen.now)))),
    }
}

fn state(state: NodeState) -> DatanodeState {
    match state {
        NodeState::Joining => DatanodeState::Joining,
        NodeState::Active => DatanodeState::Active,
        NodeState::Draining => DatanodeState::Draining,
        NodeState::Drained => DatanodeState::Drained,
        NodeState::Maintenance => DatanodeState::Maintenance,
        NodeState::Removed => DatanodeState::Removed,
        NodeState::Suspect => DatanodeState::Suspect,
        NodeState::Lost => DatanodeState::Lost,
    }
}

fn capacity(seen: &Observed) -> Option<Capacity> {
    let snapshot = seen.snapshot()?;
    let (total, used) = (snapshot.capacity(), snapshot.used());
    Some(Capacity {
        total_bytes: total as i64,
        used_bytes: used as i64,
        used_percent: (u128::from(used) * 100).checked_div(u128::from(total)).unwrap_or(0) as i32,
    })
}

fn replication(seen: &Observed) -> Option<ReplicationStatus> {
    let snapshot = seen.snapshot()?;
    let data = snapshot.replication.as_ref()?;
    Some(ReplicationStatus {
        target: i32::try_from(snapshot.replication_factor).unwrap_or(i32::MAX),
        under_replicated_chunks: data.under_replicated as i64,
        missing_chunks: data.missing as i64,
        corrupt_chunks: data.bad_replicas as i64,
    })
}

/// Truncates a text to at most this many bytes.
fn clip(text: &str, bytes: usize) -> String {
    text[..text.floor_char_boundary(bytes)].to_owned()
}
