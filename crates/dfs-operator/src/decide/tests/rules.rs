//! Invariants of decisions, checked against the true state and not the observed one.

use dfs_crd::PAUSED;
use dfs_types::NodeState;
use kube::ResourceExt as _;

use super::super::{Action, Case, Decision};
use super::world::{ID, World};
use crate::build::REVISION;
use crate::decide::rollout::template_revision;
use crate::kind::Kind;
use crate::observed::{is_ready, pod_of};

/// Checks a decision before it is carried out.
pub(super) fn check(world: &World, decision: &Decision) {
    let actions = &decision.actions;
    let cluster = world.cluster.as_ref().unwrap();
    let is_going = cluster.metadata.deletion_timestamp.is_some();
    let is_paused = cluster.annotations().get(PAUSED).is_some_and(|value| value == "true");
    assert!(!is_paused || is_going || actions.is_empty(), "paused: {actions:?}");
    assert!(decision.case != Case::Blocked || actions.is_empty(), "blocked: {actions:?}");
    assert_eq!(decision.case == Case::Deleting, is_going);
    let disruptions: Vec<_> = actions.iter().filter(|action| disrupts(world, action)).collect();
    assert!(disruptions.len() <= 1, "two disruptions at once: {disruptions:?}");
    for action in actions {
        one(world, action, is_going);
    }
}

/// Returns true if an action stops something that serves, or leads to that.
fn disrupts(world: &World, action: &Action) -> bool {
    match action {
        Action::RestartPod(target) => {
            world.pods.iter().any(|pod| pod.uid().as_ref() == Some(&target.uid) && is_ready(pod))
        }
        Action::BeginMaintenance { .. } => true,
        Action::Apply { object, .. } if object.kind == Kind::Deployment => {
            let there = world.objects.get(&(object.kind, object.name.clone()));
            there.is_some_and(|(_, there)| {
                template_revision(there) != template_revision(&object.value)
                    && world.pods.iter().any(|pod| is_coordinator(pod) && is_ready(pod))
            })
        }
        _ => false,
    }
}

fn is_coordinator(pod: &k8s_openapi::api::core::v1::Pod) -> bool {
    pod.name_any().contains("-coordinator-")
}

fn one(world: &World, action: &Action, is_going: bool) {
    let cluster = world.cluster.as_ref().unwrap();
    match action {
        Action::BeginMaintenance { cluster, node, pod, .. } => {
            asked(world, *cluster);
            let node = world.nodes.iter().find(|there| there.id == *node).unwrap();
            assert_eq!(pod_of(node), pod);
            assert_eq!(node.state, NodeState::Active);
            gate(world, pod);
        }
        Action::RestartPod(target) => {
            let pod = world.pods.iter().find(|pod| pod.uid().as_ref() == Some(&target.uid));
            let pod = pod.expect("pods are deleted by uid");
            assert!(pod.name_any().contains("-datanode-"), "{target}");
            let set = world.objects.iter().find(|((kind, _), _)| *kind == Kind::StatefulSet);
            let wanted = set.and_then(|(_, (_, set))| template_revision(set));
            assert_ne!(pod.annotations().get(REVISION).map(String::as_str), wanted, "{target}");
            if is_ready(pod) {
                let name = pod.name_any();
                gate(world, &name);
                let holds = |node: &&dfs_client::NodeStatus| {
                    pod_of(node) == name && node.state != NodeState::Removed
                };
                if let Some(node) = world.nodes.iter().find(holds) {
                    assert!(node.maintenance_left.is_some(), "{name} is stopped unannounced");
                }
            }
        }
        Action::EndMaintenance { cluster, pod, .. } => {
            asked(world, *cluster);
            let pod = world.pods.iter().find(|there| there.name_any() == *pod);
            assert!(pod.is_some_and(is_ready), "its maintenance is not over");
        }
        Action::Admit { cluster, .. } | Action::SetReplication(cluster) => asked(world, *cluster),
        Action::CreateJoinSecret => {
            assert!(world.join.is_none(), "the join secret is created once");
        }
        Action::RemoveFinalizer => {
            let is_retained = cluster.spec.deletion_policy == dfs_crd::DeletionPolicy::Retain;
            assert!(is_going || is_retained, "no deletion was requested");
        }
        Action::Delete(target) => match target.kind {
            Kind::Deployment | Kind::StatefulSet => assert!(is_going, "{target} is deleted"),
            Kind::Claim | Kind::Secret => {
                let spec = &cluster.spec;
                let is_confirmed = spec.deletion_confirmation == cluster.name_any()
                    && spec.deletion_policy == dfs_crd::DeletionPolicy::Delete;
                assert!(is_going && is_confirmed, "{target} is deleted");
            }
            Kind::Pod => panic!("{target} is deleted"),
            _ => {}
        },
        Action::Init(_) | Action::AddFinalizer | Action::Apply { .. } => {}
    }
}

/// Changes are requested only of the cluster that the coordinators have.
fn asked(world: &World, cluster: dfs_types::ClusterId) {
    assert!(world.is_reachable && world.made == Some(ID) && cluster == ID);
}

/// Checks the conditions for stopping a datanode that serves: all others serve, coordinators too,
/// and the data has its replicas. Whether the stop is safe is decided by the coordinators.
fn gate(world: &World, name: &str) {
    let spec = &world.cluster.as_ref().unwrap().spec;
    assert!(world.is_reachable, "the health of the data is unknown");
    assert!(spec.maintenance.update.strategy == dfs_crd::UpdateStrategy::RollingUpdate);
    for pod in &world.pods {
        assert!(pod.name_any() == name || is_ready(pod), "{} is down too", pod.name_any());
    }
    for node in &world.nodes {
        let is_well = matches!(node.state, NodeState::Active | NodeState::Removed);
        assert!(pod_of(node) == name || is_well, "{} is {}", pod_of(node), node.state);
    }
    if spec.maintenance.update.require_fully_replicated {
        assert!(world.is_data_known, "replica counts are not known");
        // Data written after the grant has no replica there.
        let has_leave =
            world.nodes.iter().any(|n| pod_of(n) == name && n.maintenance_left.is_some());
        assert!(has_leave || world.under_replicated == 0, "chunks lack replicas");
    }
    assert_eq!(world.missing, 0, "chunks are missing");
}
