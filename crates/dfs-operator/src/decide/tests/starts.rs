//! The cluster converges from any state: objects missing or changed by others, pods down, outdated
//! or gone, datanodes in any state, a wrong or missing status, any edit of the spec, paused or
//! deleted.

use std::time::Duration;

use dfs_crd::{ConditionType, DeletionPolicy, Phase, RESTARTED_AT, Rollout, UpdateStrategy};
use dfs_types::NodeState;
use kube::ResourceExt as _;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use super::super::{Case, Decision, decide};
use super::edits::{edits, nonsense, patch};
use super::world::World;
use crate::build::REVISION;
use crate::kind::Kind;

/// Damage to a cluster between two rounds.
#[derive(Debug, Clone)]
enum Damage {
    /// An object of ours is gone, and its pods with it or later.
    Missing(Index, bool),
    /// Somebody changed a field of an object of ours.
    Changed(Index, Index),
    /// A pod is not ready.
    Down(Index),
    /// A pod is gone.
    Gone(Index),
    /// A pod has outdated settings.
    Old(Index),
    /// The machine of a pod is dead.
    Dead(Index),
    /// Pods with the current settings do not become ready.
    BadSettings,
    /// A datanode is in this state, for this many seconds if the state ends by itself.
    Node(Index, NodeState, u64),
    /// No coordinator replies.
    Silence,
    /// Chunks lack replicas.
    UnderReplicated,
    /// Chunks are lost.
    Missed,
    /// Replicas are not counted yet.
    Uncounted,
    /// Stopping a node is refused.
    Unsafe,
    /// Files get a different number of replicas.
    Replication,
    /// The finalizer is gone.
    NoFinalizer,
    /// The status is gone.
    NoStatus,
    /// The status says that this pod is being replaced.
    Replacing(Index),
    /// The status has this phase.
    Phase(Phase),
    /// The join Secret is gone.
    NoJoinSecret,
    /// The metadata is empty.
    NoMetadata,
    /// The claim for the metadata is gone.
    NoClaim,
    /// The spec is edited.
    Edit(Value),
    /// A restart of the pods is requested.
    Restart(String),
    /// The operator is paused.
    Pause,
    /// The cluster is being deleted.
    Delete,
}

fn damage() -> impl Strategy<Value = Damage> {
    let index = any::<Index>;
    let states = vec![
        NodeState::Joining,
        NodeState::Maintenance,
        NodeState::Draining,
        NodeState::Suspect,
        NodeState::Lost,
        NodeState::Removed,
    ];
    let phases = vec![Phase::Pending, Phase::Creating, Phase::Ready, Phase::Upgrading];
    prop_oneof![
        4 => (index(), any::<bool>()).prop_map(|(which, all)| Damage::Missing(which, all)),
        6 => (index(), index()).prop_map(|(which, field)| Damage::Changed(which, field)),
        3 => index().prop_map(Damage::Down),
        3 => index().prop_map(Damage::Gone),
        4 => index().prop_map(Damage::Old),
        1 => index().prop_map(Damage::Dead),
        1 => Just(Damage::BadSettings),
        5 => (index(), select(states), 0..1_000_u64)
            .prop_map(|(which, state, left)| Damage::Node(which, state, left)),
        6 => select(vec![
            Damage::Silence, Damage::UnderReplicated, Damage::Missed, Damage::Uncounted,
            Damage::Unsafe, Damage::Replication, Damage::NoFinalizer, Damage::NoStatus,
        ]),
        3 => index().prop_map(Damage::Replacing),
        1 => select(phases).prop_map(Damage::Phase),
        1 => select(vec![
            Damage::NoJoinSecret, Damage::NoMetadata, Damage::NoClaim, Damage::Pause, Damage::Delete,
        ]),
        8 => select(edits()).prop_map(Damage::Edit),
        1 => select(nonsense()).prop_map(Damage::Edit),
        2 => "[ab]".prop_map(Damage::Restart),
    ]
}

fn harm(world: &mut World, damage: &Damage) {
    if world.cluster.is_none() {
        return;
    }
    match damage {
        Damage::Missing(which, with_pods) => {
            let keys: Vec<_> = world.objects.keys().cloned().collect();
            if !keys.is_empty() {
                world.objects.remove(which.get(&keys));
            }
            if *with_pods {
                world.collect();
            }
        }
        Damage::Changed(which, field) => {
            let mut objects: Vec<&mut Value> =
                world.objects.values_mut().map(|(_, value)| value).collect();
            if !objects.is_empty() {
                let at = which.index(objects.len());
                change(objects[at], *field);
            }
        }
        Damage::Down(which) => with_pod(world, *which, |world, at| {
            world.pods[at].status = serde_json::from_value(json!({"phase": "Pending"})).unwrap();
        }),
        Damage::Gone(which) => with_pod(world, *which, |world, at| drop(world.pods.remove(at))),
        Damage::Old(which) => with_pod(world, *which, |world, at| {
            let annotations = world.pods[at].annotations_mut();
            annotations.insert(REVISION.to_owned(), "of-before".to_owned());
        }),
        Damage::Dead(which) => with_pod(world, *which, |world, at| {
            let name = world.pods[at].name_any();
            world.dead.insert(name);
        }),
        Damage::BadSettings => {
            let revisions: Vec<String> = world
                .pods
                .iter()
                .filter(|pod| pod.name_any().contains("-datanode-"))
                .filter_map(|pod| pod.annotations().get(REVISION).cloned())
                .collect();
            world.bad.extend(revisions);
        }
        Damage::Node(which, state, left) => {
            let count = world.nodes.len();
            if count > 0 {
                let node = &mut world.nodes[which.index(count)];
                node.state = *state;
                node.maintenance_left =
                    (*state == NodeState::Maintenance).then(|| Duration::from_secs(*left));
            }
        }
        Damage::Silence => world.is_reachable = false,
        Damage::UnderReplicated => world.under_replicated = 3,
        Damage::Missed => world.missing = 1,
        Damage::Uncounted => world.is_data_known = false,
        Damage::Unsafe => world.is_unsafe = true,
        Damage::Replication => world.replication = (7, 7),
        Damage::NoFinalizer => {
            world.cluster().finalizers_mut().clear();
            if world.cluster().metadata.deletion_timestamp.is_some() {
                world.delete();
            }
        }
        Damage::Delete => world.delete(),
        Damage::NoStatus => world.cluster().status = None,
        Damage::Replacing(which) => with_pod(world, *which, |world, at| {
            let name = world.pods[at].name_any();
            if let Some(status) = &mut world.cluster().status {
                status.rollout = Some(Rollout { current_pod: Some(name), ..Rollout::default() });
            }
        }),
        Damage::Phase(phase) => {
            if let Some(status) = &mut world.cluster().status {
                status.phase = Some(*phase);
            }
        }
        Damage::NoJoinSecret => world.join = None,
        Damage::NoMetadata => world.made = None,
        Damage::NoClaim => world.claims.retain(|claim| claim.name_any() != "data-metadata"),
        Damage::Edit(spec) => world.edit(spec.clone()),
        Damage::Restart(when) => world.annotate(RESTARTED_AT, when),
        Damage::Pause => world.pause(true),
    }
}

fn with_pod(world: &mut World, which: Index, act: impl Fn(&mut World, usize)) {
    if !world.pods.is_empty() {
        act(world, which.index(world.pods.len()));
    }
}

/// Changes a field that the API server lets anybody change.
fn change(object: &mut Value, which: Index) {
    const KEPT: [&str; 4] = ["selector", "volumeClaimTemplates", "serviceName", "clusterIP"];
    let mut fields = Vec::new();
    for part in ["/spec", "/data", "/metadata/labels", "/metadata/annotations"] {
        if let Some(value) = object.pointer(part) {
            leaves(part, value, &mut fields);
        }
    }
    fields.retain(|field| !KEPT.iter().any(|kept| field.contains(kept)));
    if fields.is_empty() {
        return;
    }
    let value = object.pointer_mut(&fields[which.index(fields.len())]).unwrap();
    *value = match &*value {
        Value::Bool(value) => json!(!*value),
        Value::Number(number) => json!(number.as_i64().unwrap() + 1),
        Value::String(text) => json!(format!("{text}x")),
        other => other.clone(),
    };
}

fn leaves(path: &str, value: &Value, all: &mut Vec<String>) {
    let escape = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                leaves(&format!("{path}/{}", escape(key)), value, all);
            }
        }
        Value::Array(items) => {
            for (i, value) in items.iter().enumerate() {
                leaves(&format!("{path}/{i}"), value, all);
            }
        }
        _ => all.push(path.to_owned()),
    }
}

/// Repairs, as people would, what the operator must not repair.
fn repair(world: &mut World) {
    world.is_reachable = true;
    (world.under_replicated, world.missing) = (0, 0);
    world.is_data_known = true;
    world.is_unsafe = false;
    world.dead.clear();
    world.bad.clear();
    for node in &mut world.nodes {
        if node.state == NodeState::Draining {
            node.state = NodeState::Active;
        }
    }
}

/// Checks that this is a valid final state for the request.
fn is_an_end(world: &World, decision: &Decision) -> Result<(), TestCaseError> {
    let holds = |kind| world.condition(kind).0 == "True";
    let spec = &world.cluster.as_ref().unwrap().spec;
    match decision.case {
        Case::Paused => prop_assert!(holds(ConditionType::Paused)),
        Case::Blocked => prop_assert!(holds(ConditionType::Stalled)),
        Case::Deleting => {
            prop_assert!(holds(ConditionType::DeletionBlocked));
            prop_assert!(spec.deletion_policy == DeletionPolicy::Delete);
            prop_assert_ne!(&spec.deletion_confirmation, "data");
        }
        Case::Stopped => prop_assert!(world.pods.is_empty()),
        Case::Creating | Case::Running => {
            prop_assert!(
                holds(ConditionType::Ready),
                "{:?}",
                world.condition(ConditionType::Ready)
            );
            prop_assert!(!holds(ConditionType::Stalled));
            prop_assert!(
                decision.rollout.is_none()
                    || spec.maintenance.update.strategy == UpdateStrategy::OnDelete
            );
        }
    }
    Ok(())
}

/// The state before the damage.
#[derive(Debug, Clone)]
enum Start {
    /// A running cluster with this many datanodes and replicas.
    Running(i32, i32),
    /// A cluster being created, after this many rounds.
    Young(usize),
}

impl Start {
    fn world(&self) -> World {
        match self {
            Self::Running(replicas, factor) => World::running(json!({
                "datanodes": {"replicas": replicas}, "replicationFactor": factor.min(replicas),
            })),
            Self::Young(rounds) => {
                let mut world = World::new(json!({}));
                for _ in 0..*rounds {
                    world.reconcile();
                    world.pass();
                }
                world
            }
        }
    }
}

fn start() -> impl Strategy<Value = Start> {
    prop_oneof![
        3 => (1..6_i32, 1..4_i32).prop_map(|(replicas, factor)| Start::Running(replicas, factor)),
        1 => (0..12_usize).prop_map(Start::Young),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn converges_from_any_state_and_then_writes_nothing(
        start in start(),
        damages in prop::collection::vec(damage(), 0..9),
        rounds in prop::collection::vec((0..6_usize, prop::option::weighted(0.2, damage())), 0..16),
    ) {
        let mut world = start.world();
        for damage in &damages {
            harm(&mut world, damage);
        }
        let mut claims = world.claims.clone();
        for (actions, damage) in &rounds {
            if world.cluster.is_some() {
                world.reconcile_up_to(*actions);
                world.pass();
            }
            if let Some(damage) = damage {
                harm(&mut world, damage);
                if matches!(damage, Damage::NoClaim) {
                    claims.retain(|claim| world.claims.contains(claim));
                }
            }
        }
        repair(&mut world);
        if world.cluster.is_some() {
            world.settle();
        }
        let kept = |world: &World| claims.iter().all(|claim| world.claims.contains(claim));
        if world.cluster.is_none() {
            prop_assert!(kept(&world) || world.claims.is_empty() && world.join.is_none());
            return Ok(());
        }
        prop_assert!(kept(&world));
        for _ in 0..3 {
            let before = world.status();
            world.pass();
            let decision = world.reconcile();
            prop_assert_eq!(&decision.actions, &vec![]);
            prop_assert_eq!(world.status(), before);
            is_an_end(&world, &decision)?;
        }
    }

    #[test]
    fn nothing_is_touched_while_paused_or_blocked(
        start in start(),
        damages in prop::collection::vec(damage(), 0..6),
        is_paused in any::<bool>(),
        what in select(nonsense()),
    ) {
        let mut world = start.world();
        for damage in damages.iter().filter(|damage| !matches!(damage, Damage::Delete)) {
            harm(&mut world, damage);
        }
        if is_paused { world.pause(true) } else { world.edit(what) }
        prop_assert_eq!(decide(&world.observe()).actions, vec![]);
    }
}

#[test]
fn deleted_stateful_set_is_recreated_with_as_many_datanodes() {
    let mut world = World::running(json!({"datanodes": {"replicas": 5}}));
    world.objects.remove(&(Kind::StatefulSet, "data-datanode".to_owned()));
    world.collect();
    world.edit(json!({"datanodes": {"replicas": 3}}));
    world.settle();
    assert_eq!(world.pods.iter().filter(|pod| pod.name_any().contains("-datanode-")).count(), 5);
}

#[test]
fn grant_to_stop_survives_writes_and_ends_with_the_health_of_others() {
    let announced = || {
        let mut world = World::running(json!({}));
        world.edit(json!({"image": {"tag": patch(1)}}));
        while !world.nodes.iter().any(|node| node.maintenance_left.is_some()) {
            world.pass();
            world.reconcile();
        }
        world
    };
    // Chunks written meanwhile lack a replica until the node is back.
    let mut world = announced();
    let pods = world.pods.clone();
    world.under_replicated = 1;
    world.reconcile();
    assert_ne!(world.pods, pods);

    let damages: [fn(&mut World); 3] = [
        |world| world.missing = 1,
        |world| world.is_data_known = false,
        |world| {
            let other = world.nodes.iter_mut().find(|node| node.maintenance_left.is_none());
            other.unwrap().state = NodeState::Suspect;
        },
    ];
    for damage in damages {
        let mut world = announced();
        let pods = world.pods.clone();
        damage(&mut world);
        world.reconcile();
        assert_eq!(world.pods, pods);
    }
}
