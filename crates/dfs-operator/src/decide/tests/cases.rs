//! Each case and each gate.

use dfs_crd::{ConditionType, FINALIZER, Phase};
use dfs_types::{ClusterId, NodeState};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::super::{Action, Case, decide};
use super::edits::patch;
use super::world::{ID, World};
use crate::build::REVISION;
use crate::definition::Definition;
use crate::kind::Kind;
use crate::observed::{Join, is_ready};
use crate::status::Outcome;

fn image(tag: &str) -> Value {
    json!({"image": {"tag": tag}})
}

fn revision_of(world: &World, kind: Kind) -> String {
    let (_, value) = world.objects.iter().find(|((k, _), _)| *k == kind).unwrap().1;
    value["spec"]["template"]["metadata"]["annotations"][REVISION].as_str().unwrap().to_owned()
}

fn kinds(actions: &[Action]) -> Vec<Kind> {
    let kind = |action: &Action| match action {
        Action::Apply { object, .. } => Some(object.kind),
        _ => None,
    };
    actions.iter().filter_map(kind).collect()
}

fn restarts(world: &World) -> Vec<String> {
    let restart = |action: &Action| match action {
        Action::RestartPod(target) => Some(target.name.clone()),
        _ => None,
    };
    world.done.iter().filter_map(restart).collect()
}

pub(super) fn is(world: &World, kind: ConditionType, status: &str, reason: &str) {
    let (is_status, is_reason, message) = world.condition(kind);
    assert_eq!((is_status.as_str(), is_reason.as_str()), (status, reason), "{kind}: {message}");
}

#[test]
fn e01_cluster_is_created_step_by_step() {
    let mut world = World::new(json!({}));
    let first = world.reconcile();
    assert_eq!(first.actions, [Action::CreateJoinSecret]);
    assert_eq!(world.status().phase, Some(Phase::Creating));
    let second = world.reconcile();
    let made = kinds(&second.actions);
    assert!(made.contains(&Kind::Deployment) && made.contains(&Kind::Claim), "{made:?}");
    assert!(!made.contains(&Kind::StatefulSet), "datanodes wait until the cluster is created");
    world.settle();
    assert_eq!(world.made, Some(ID));
    assert_eq!(world.status().cluster_id, Some(ID.to_string()));
    assert_eq!(world.status().phase, Some(Phase::Ready));
    assert_eq!(world.nodes.len(), 3);
    let inits = world.done.iter().filter(|action| matches!(action, Action::Init(_))).count();
    assert_eq!(inits, 1);
    is(&world, ConditionType::Ready, "True", "Serving");
    is(&world, ConditionType::Reconciling, "False", "AsSpecified");
    is(&world, ConditionType::TransportSecure, "False", "Plaintext");
}

#[test]
fn c14_all_conditions_are_set_after_the_first_reconcile() {
    let mut world = World::new(json!({}));
    world.reconcile();
    let status = world.status();
    for kind in ConditionType::ALL {
        assert!(status.conditions.iter().any(|there| there.type_ == kind.as_str()), "{kind}");
    }
}

#[test]
fn c20_nothing_is_done_in_steady_state() {
    let mut world = World::running(json!({}));
    for _ in 0..5 {
        let before = world.status();
        world.pass();
        assert_eq!(world.reconcile().actions, []);
        assert_eq!(world.status(), before);
    }
}

#[test]
fn e04_deleted_objects_are_recreated() {
    let world = World::running(json!({}));
    for key in world.objects.keys() {
        let mut world = world.clone();
        let before = world.objects.remove(key).unwrap().1;
        world.settle();
        let after = &world.objects[key].1;
        assert_eq!(after["spec"], before["spec"], "{key:?}");
        assert_eq!(world.status().phase, Some(Phase::Ready), "{key:?}");
    }
}

#[test]
fn e05_foreign_changes_to_owned_fields_are_reverted_and_others_stay() {
    let mut world = World::running(json!({}));
    let (_, value) = world.objects.get_mut(&(Kind::Service, "data-coordinator".into())).unwrap();
    value["metadata"]["labels"]["theirs"] = "x".into();
    assert_eq!(decide(&world.observe()).actions, []);
    let (_, value) = world.objects.get_mut(&(Kind::Service, "data-coordinator".into())).unwrap();
    value["spec"]["ports"][0]["port"] = 1.into();
    assert_eq!(kinds(&decide(&world.observe()).actions), [Kind::Service]);
}

#[test]
fn unwanted_object_is_deleted() {
    let mut world = World::running(json!({}));
    world.edit(json!({"security": {"networkPolicy": {"enabled": false}}}));
    world.settle();
    assert!(world.objects.keys().all(|(kind, _)| *kind != Kind::NetworkPolicy));
    assert_eq!(restarts(&world), [] as [&str; 0]);
}

#[test]
fn object_of_another_owner_is_not_touched() {
    for (owner, status) in [
        (json!(null), "True"),
        (
            json!([{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "x", "controller": true}]),
            "True",
        ),
        // One of a deleted cluster disappears by itself.
        (
            json!([{"apiVersion": "dfs.io/v1alpha1", "kind": "DfsCluster", "name": "data",
                    "uid": "older", "controller": true}]),
            "False",
        ),
    ] {
        let mut world = World::running(json!({}));
        let key = (Kind::Service, "data-coordinator".to_owned());
        let (_, value) = world.objects.get_mut(&key).unwrap();
        value["metadata"]["ownerReferences"] = owner;
        value["spec"]["ports"][0]["port"] = 1.into();
        let decision = world.reconcile();
        assert_eq!(kinds(&decision.actions), []);
        assert_eq!(world.condition(ConditionType::Stalled).0, status);
        if status == "True" {
            is(&world, ConditionType::Stalled, "True", "NameTaken");
            assert!(world.condition(ConditionType::Stalled).2.contains("data-coordinator"));
        }
    }
}

#[test]
fn c13_paused_cluster_is_observed_but_not_changed() {
    let mut world = World::running(json!({}));
    world.pause(true);
    world.edit(json!({"datanodes": {"replicas": 5}}));
    let decision = world.settle();
    assert_eq!((decision.case, decision.actions), (Case::Paused, vec![]));
    is(&world, ConditionType::Paused, "True", "PausedByAnnotation");
    let generation = world.cluster().metadata.generation;
    assert_eq!(world.status().observed_generation, Some(1), "the edit was not acted on");
    world.pause(false);
    world.settle();
    assert_eq!(world.status().observed_generation, generation);
    assert_eq!(world.nodes.len(), 5);
}

#[test]
fn c18_invalid_spec_is_not_acted_on_until_edited() {
    for (spec, word) in [
        (json!({"replicationFactor": 4}), "replicationFactor"),
        (json!({"replicationFactor": 2, "minWriteReplicas": 3}), "minWriteReplicas"),
        (json!({"coordinator": {"replicas": 2}}), "coordinator.replicas"),
        (json!({"coordinator": {"metadata": {"engine": "Etcd"}}}), "etcd"),
    ] {
        let mut world = World::running(json!({}));
        let before = world.clone();
        world.edit(spec);
        let decision = world.reconcile();
        assert_eq!((decision.case, decision.actions), (Case::Blocked, vec![]));
        is(&world, ConditionType::SpecValid, "False", "SpecInvalid");
        is(&world, ConditionType::Stalled, "True", "SpecInvalid");
        assert!(world.condition(ConditionType::SpecValid).2.contains(word));
        let spec = before.cluster.unwrap().spec;
        world.cluster().spec = spec;
        world.settle();
        is(&world, ConditionType::Stalled, "False", "AsSpecified");
    }
}

#[test]
fn mismatched_cluster_id_is_never_repaired() {
    let running = World::running(json!({}));
    let mut other_metadata = running.clone();
    other_metadata.made = Some(ClusterId(7));
    let mut other_secret = running.clone();
    other_secret.join =
        Some(Join { cluster_id: Some(ClusterId(7)), ..running.join.clone().unwrap() });
    for mut world in [other_metadata, other_secret] {
        world.edit(image(&patch(9)));
        let decision = world.reconcile();
        assert_eq!((decision.case, decision.actions), (Case::Blocked, vec![]));
        is(&world, ConditionType::Stalled, "True", "ClusterIdMismatch");
        assert_eq!(world.status().cluster_id, Some(ID.to_string()));
    }
}

#[test]
fn lost_metadata_is_not_recreated() {
    let running = World::running(json!({}));
    let mut empty = running.clone();
    empty.made = None;
    let mut gone = running.clone();
    gone.claims.retain(|claim| claim.name_any() != "data-metadata");
    for mut world in [empty, gone] {
        let decision = world.settle();
        assert_eq!((decision.case, decision.actions), (Case::Blocked, vec![]));
        is(&world, ConditionType::Stalled, "True", "MetadataLost");
    }
}

#[test]
fn lost_join_secret_is_not_recreated() {
    let running = World::running(json!({}));
    let mut gone = running.clone();
    gone.join = None;
    let mut empty = running.clone();
    empty.join = Some(Join { has_secret: false, ..running.join.clone().unwrap() });
    for mut world in [gone, empty] {
        assert_eq!(world.settle().actions, []);
        is(&world, ConditionType::Stalled, "True", "SecretMissing");
        assert!(world.condition(ConditionType::Stalled).2.contains("data-join"));
    }
}

#[test]
fn silent_coordinator_stops_nothing_else() {
    let mut world = World::running(json!({}));
    world.is_reachable = false;
    world.edit(json!({"security": {"networkPolicy": {"enabled": false}}}));
    world.settle();
    assert!(world.objects.keys().all(|(kind, _)| *kind != Kind::NetworkPolicy));
    is(&world, ConditionType::Ready, "False", "CoordinatorUnavailable");
    assert_eq!(world.status().datanodes.len(), 3, "the last known state is kept");
    assert!(world.status().datanodes.iter().all(|line| line.node_id.is_some()));
}

#[test]
fn e08_datanodes_are_added_and_admitted() {
    let mut world = World::running(json!({}));
    world.edit(json!({"datanodes": {"replicas": 5}}));
    world.settle();
    assert_eq!(world.nodes.len(), 5);
    assert!(world.nodes.iter().all(|node| node.state == NodeState::Active));
    let admitted = world.done.iter().filter(|action| matches!(action, Action::Admit { .. }));
    assert_eq!(admitted.count(), 2);
    assert_eq!(restarts(&world), [] as [&str; 0]);
}

#[test]
fn node_from_elsewhere_is_not_admitted() {
    let mut world = World::running(json!({}));
    let mut stranger = world.nodes[0].clone();
    stranger.id.0 += 1_000;
    stranger.state = NodeState::Joining;
    for address in
        ["data-datanode-0.evil.ns.svc:7080", "data-datanode-9.data-datanodes.ns.svc:7080"]
    {
        stranger.address = address.to_owned();
        world.nodes.push(stranger.clone());
        let decision = decide(&world.observe());
        let admits = decision.actions.iter().any(|action| matches!(action, Action::Admit { .. }));
        assert!(!admits, "{address}");
        world.nodes.pop();
    }
}

#[test]
fn fewer_datanodes_are_refused() {
    let mut world = World::running(json!({"datanodes": {"replicas": 5}}));
    world.edit(json!({"datanodes": {"replicas": 3}}));
    world.settle();
    is(&world, ConditionType::SpecValid, "False", "ScaleDownUnsupported");
    is(&world, ConditionType::Ready, "True", "Serving");
    assert_eq!(world.pods.iter().filter(|pod| pod.name_any().contains("datanode")).count(), 5);
}

#[test]
fn larger_volumes_are_refused() {
    let mut world = World::running(json!({}));
    world.edit(json!({"datanodes": {"storage": {"size": "2Gi"}}}));
    world.settle();
    is(&world, ConditionType::SpecValid, "False", "ExpansionUnsupported");
    let mut world = World::running(json!({}));
    world.edit(json!({"coordinator": {"metadata": {"embedded": {"storage": {"size": "20Gi"}}}}}));
    world.settle();
    is(&world, ConditionType::SpecValid, "False", "ExpansionUnsupported");
    assert_eq!(restarts(&world), [] as [&str; 0]);
}

#[test]
fn e17_replication_factor_is_set() {
    let mut world = World::running(json!({"replicationFactor": 2}));
    world.edit(json!({"replicationFactor": 3, "minWriteReplicas": 3}));
    world.settle();
    assert_eq!(world.replication, (3, 3));
}

#[test]
fn e24_upgrade_restarts_coordinators_then_datanodes_one_by_one() {
    let mut world = World::running(json!({}));
    let old = revision_of(&world, Kind::StatefulSet);
    world.edit(image(&patch(9)));
    world.reconcile();
    assert_eq!(revision_of(&world, Kind::StatefulSet), old, "coordinators first");
    world.settle();
    assert_ne!(revision_of(&world, Kind::StatefulSet), old);
    assert_eq!(restarts(&world), ["data-datanode-2", "data-datanode-1", "data-datanode-0"]);
    assert!(world.nodes.iter().all(|node| node.maintenance_left.is_none()));
    is(&world, ConditionType::Upgrading, "False", "UpToDate");
    is(&world, ConditionType::Ready, "True", "Serving");
}

#[test]
fn e24_each_restart_begins_and_ends_maintenance() {
    let mut world = World::running(json!({"replicationFactor": 1, "datanodes": {"replicas": 1}}));
    world.edit(image(&patch(9)));
    world.settle();
    let steps: Vec<&str> = world
        .done
        .iter()
        .filter_map(|action| match action {
            Action::BeginMaintenance { .. } => Some("begin"),
            Action::RestartPod(_) => Some("restart"),
            Action::EndMaintenance { .. } => Some("end"),
            _ => None,
        })
        .collect();
    assert_eq!(steps, ["begin", "restart", "end"]);
}

#[test]
fn e25_upgrade_waits_until_a_stop_is_safe() {
    for word in ["replicas", "out of reach", "not ready", "draining"] {
        let mut world = World::running(json!({}));
        match word {
            "replicas" => world.under_replicated = 5,
            "out of reach" => world.is_unsafe = true,
            "draining" => world.nodes[1].state = NodeState::Draining,
            _ => world.dead.extend(["data-datanode-0".to_owned()]),
        }
        world.edit(image(&patch(9)));
        for _ in 0..20 {
            world.pass();
            world.reconcile();
        }
        // One that is already down can only improve.
        let is_down = |name: &String| world.dead.contains(name);
        assert!(restarts(&world).iter().all(is_down), "{word}");
        let reason = world.status().rollout.unwrap().blocked_reason.unwrap();
        assert!(reason.contains(word), "{reason:?} lacks {word:?}");
        is(&world, ConditionType::Upgrading, "True", "RolloutWaiting");
    }
}

#[test]
fn e26_upgrade_resumes_after_a_pause() {
    let mut world = World::running(json!({}));
    world.edit(image(&patch(9)));
    while restarts(&world).len() < 2 {
        world.pass();
        world.reconcile();
    }
    world.pause(true);
    world.settle();
    assert_eq!(restarts(&world).len(), 2);
    world.pause(false);
    world.settle();
    assert_eq!(restarts(&world), ["data-datanode-2", "data-datanode-1", "data-datanode-0"]);
}

#[test]
fn e27_bad_image_affects_one_datanode_and_reverting_heals_it() {
    let mut world = World::running(json!({}));
    let good = world.cluster().spec.image.tag.clone();
    let mut probe = world.clone();
    probe.edit(image(&patch(6)));
    probe.settle();
    // Coordinators start with it, datanodes do not.
    world.bad.insert(revision_of(&probe, Kind::StatefulSet));
    world.edit(image(&patch(6)));
    for _ in 0..400 {
        world.pass();
        world.reconcile();
    }
    assert_eq!(restarts(&world), ["data-datanode-2"]);
    is(&world, ConditionType::Stalled, "True", "RolloutStuck");
    assert!(world.condition(ConditionType::Stalled).2.contains("data-datanode-2"));
    world.edit(image(&good));
    world.settle();
    assert_eq!(restarts(&world), ["data-datanode-2", "data-datanode-2"]);
    is(&world, ConditionType::Ready, "True", "Serving");
    is(&world, ConditionType::Stalled, "False", "AsSpecified");
}

#[test]
fn e29_only_the_component_whose_settings_changed_is_restarted() {
    let mut world = World::running(json!({}));
    let coordinator = revision_of(&world, Kind::Deployment);
    world.edit(json!({"datanodes": {"podTemplate": {"labels": {"a": "b"}}}}));
    world.settle();
    assert_eq!(restarts(&world).len(), 3);
    assert_eq!(revision_of(&world, Kind::Deployment), coordinator);
    let mut world = World::running(json!({}));
    world.edit(json!({"coordinator": {"podTemplate": {"labels": {"a": "b"}}}}));
    world.settle();
    assert_eq!(restarts(&world), [] as [&str; 0]);
}

#[test]
fn c17_change_is_not_reported_as_done_before_it_is() {
    for component in ["coordinator", "datanodes"] {
        let mut world = World::running(json!({}));
        is(&world, ConditionType::Reconciling, "False", "AsSpecified");
        let mut change = json!({});
        change[component] = json!({"podTemplate": {"labels": {"a": "b"}}});
        world.edit(change);
        world.reconcile();
        is(&world, ConditionType::Reconciling, "True", "RollingOut");
        assert_eq!(world.status().observed_generation, world.cluster().metadata.generation);
        world.settle();
        is(&world, ConditionType::Reconciling, "False", "AsSpecified");
    }
    // Seen by the operator before the Deployment controller has seen it.
    let world = World::running(json!({}));
    let mut seen = world.observe();
    let deployment = seen.deployment.as_mut().unwrap();
    deployment.metadata.generation = deployment.metadata.generation.map(|was| was + 1);
    let decision = decide(&seen);
    let status = crate::status::status(&seen, &decision, &Outcome::default());
    let reconciling = status.conditions.iter().find(|c| c.type_ == "Reconciling").unwrap();
    assert_eq!((reconciling.status.as_str(), reconciling.reason.as_str()), ("True", "RollingOut"));
}

#[test]
fn on_delete_leaves_restarts_to_the_user() {
    let mut world = World::running(json!({"maintenance": {"update": {"strategy": "OnDelete"}}}));
    world.edit(image(&patch(9)));
    world.settle();
    assert_eq!(restarts(&world), [] as [&str; 0]);
    assert_eq!(world.status().rollout.unwrap().remaining, 3);
    world.pods.retain(|pod| !pod.name_any().contains("datanode"));
    world.settle();
    assert_eq!(world.status().rollout, None);
}

#[test]
fn lost_datanode_is_reported_and_left_alone() {
    let mut world = World::running(json!({}));
    world.dead.insert("data-datanode-1".to_owned());
    world.pass();
    world.nodes[1].state = NodeState::Lost;
    world.reconcile();
    let only_the_budget = |action: &Action| matches!(action, Action::Apply { object, .. } if object.kind == Kind::Budget);
    assert!(world.done.iter().all(only_the_budget), "{:?}", world.done);
    is(&world, ConditionType::Degraded, "True", "NodeLost");
    is(&world, ConditionType::Available, "True", "Serving");
    is(&world, ConditionType::Ready, "False", "DatanodesUnavailable");
}

#[test]
fn stopped_cluster_has_no_pods_and_keeps_its_volumes() {
    let mut world = World::running(json!({"datanodes": {"replicas": 5}}));
    let claims = world.claims.clone();
    world.edit(json!({"stopped": true}));
    world.settle();
    assert_eq!(world.pods.iter().map(Pod::name_any).collect::<Vec<_>>(), [] as [&str; 0]);
    assert_eq!(world.status().phase, Some(Phase::Stopped));
    assert_eq!(world.claims, claims);
    // Afterwards, fewer datanodes than hold data are still refused.
    world.edit(json!({"stopped": false, "datanodes": {"replicas": 3}}));
    world.settle();
    assert_eq!(world.pods.iter().filter(|pod| is_ready(pod)).count(), 6);
    is(&world, ConditionType::SpecValid, "False", "ScaleDownUnsupported");
}

#[test]
fn e36_retain_keeps_volumes_and_secret_for_a_new_cluster() {
    let mut world = World::running(json!({"datanodes": {"replicas": 4}}));
    let (claims, join) = (world.claims.clone(), world.join.clone());
    // Coordinators may be dead.
    world.is_reachable = false;
    world.delete();
    assert!(world.cluster.is_none(), "it waits for nothing");
    assert_eq!((&world.claims, &world.join), (&claims, &join));
    world.cluster = Some(super::world::cluster(json!({})));
    world.cluster().metadata.uid = Some("another".to_owned());
    world.is_reachable = true;
    world.settle();
    assert_eq!(world.claims, claims, "the previous volumes");
    assert_eq!(world.status().cluster_id, Some(ID.to_string()));
    assert_eq!(world.nodes.len(), 4, "no node is new");
    is(&world, ConditionType::Ready, "True", "Serving");
}

#[test]
fn e36_delete_removes_volumes_and_secret_once_confirmed() {
    let mut world = World::running(json!({"deletionPolicy": "Delete"}));
    world.delete();
    assert_eq!(world.settle().actions, []);
    is(&world, ConditionType::DeletionBlocked, "True", "ConfirmationMissing");
    assert!(world.cluster().finalizers().contains(&FINALIZER.to_owned()));
    world.edit(json!({"deletionConfirmation": "data"}));
    world.settle();
    assert!(world.cluster.is_none() && world.claims.is_empty() && world.join.is_none());
}

#[test]
fn c38_deletion_names_what_blocks_it() {
    let mut world =
        World::running(json!({"deletionPolicy": "Delete", "deletionConfirmation": "data"}));
    world.delete();
    let now = world.now;
    let going = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
    world.claims[1].metadata.deletion_timestamp = going;
    world.claims.swap(0, 1);
    world.reconcile();
    let (status, reason, message) = world.condition(ConditionType::DeletionBlocked);
    assert_eq!((status.as_str(), reason.as_str()), ("True", "WaitingForObjects"));
    assert!(message.contains(&world.claims[0].name_any()) && message.contains("pod"), "{message}");
}

#[test]
fn c38_only_policy_delete_waits_for_the_operator() {
    let mut world = World::running(json!({}));
    assert_eq!(world.cluster().finalizers(), [] as [&str; 0]);
    world.edit(json!({"deletionPolicy": "Delete"}));
    world.settle();
    assert_eq!(world.cluster().finalizers(), [FINALIZER]);
    world.edit(json!({"deletionPolicy": "Retain"}));
    world.settle();
    assert_eq!(world.cluster().finalizers(), [] as [&str; 0]);
    // Deleted before the operator has seen that it may release it.
    world.edit(json!({"deletionPolicy": "Delete"}));
    world.settle();
    world.edit(json!({"deletionPolicy": "Retain"}));
    let claims = world.claims.clone();
    world.delete();
    world.settle();
    assert!(world.cluster.is_none());
    assert_eq!(world.claims, claims);
}

#[test]
fn c15_transition_times_change_only_with_the_status() {
    let mut world = World::running(json!({}));
    let before = world.status();
    world.is_reachable = false;
    for _ in 0..3 {
        world.pass();
        world.reconcile();
    }
    let after = world.status();
    for (before, after) in before.conditions.iter().zip(&after.conditions) {
        let is_flip = before.status != after.status;
        let moved = before.last_transition_time != after.last_transition_time;
        assert_eq!(is_flip, moved, "{}", before.type_);
    }
}

#[test]
fn budget_allows_no_eviction_while_chunks_lack_replicas() {
    let budget = |world: &World| {
        let (_, value) = &world.objects[&(Kind::Budget, "data-datanode".to_owned())];
        value["spec"]["maxUnavailable"].as_i64().unwrap()
    };
    let mut world = World::running(json!({}));
    assert_eq!(budget(&world), 1);
    world.under_replicated = 1;
    world.settle();
    assert_eq!(budget(&world), 0);
    world.under_replicated = 0;
    world.settle();
    assert_eq!(budget(&world), 1);
}

#[test]
fn definition_older_than_the_operator_blocks_everything_until_updated() {
    let mut world = World::running(json!({}));
    world.edit(json!({"datanodes": {"replicas": 5}}));
    world.definition = Definition::Older(vec!["spec.x".to_owned(), "status.y".to_owned()]);
    let decision = world.settle();
    assert_eq!((decision.case, decision.actions), (Case::Blocked, vec![]));
    is(&world, ConditionType::Stalled, "True", "DefinitionOutdated");
    let message = world.condition(ConditionType::Stalled).2;
    for word in ["dfsclusters.dfs.io", "spec.x and 1 more", "dfs-operator crd"] {
        assert!(message.contains(word), "{message}");
    }
    for definition in [Definition::Unknown, Definition::Current] {
        let mut world = world.clone();
        world.definition = definition;
        world.settle();
        assert_eq!(world.nodes.len(), 5);
    }
}
