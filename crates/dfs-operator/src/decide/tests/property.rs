//! The cluster converges from any state, whatever happens meanwhile, even if the operator dies at
//! any action. The toy checks the invariants at each step.

use dfs_crd::ConditionType;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::decide;
use super::edits::patch;
use super::world::World;

/// Something that happens to a cluster.
#[derive(Debug, Clone)]
enum Happening {
    /// The user edits the spec.
    Edit(Value),
    /// An object of ours is deleted.
    Delete(prop::sample::Index),
    /// A pod is deleted.
    Kill(prop::sample::Index),
    /// Coordinators fall silent, or reply again.
    Silence(bool),
    /// Chunks lack replicas, or no longer do.
    Replicas(u64),
    /// The operator is paused, or not.
    Pause(bool),
    /// Stopping a node is refused, or not.
    Unsafe(bool),
    /// Rounds pass, and the operator dies after this many actions in each.
    Rounds(usize, usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    let edit = prop_oneof![
        (1..9_u32).prop_map(|number| json!({"image": {"tag": patch(number)}})),
        (3..6).prop_map(|replicas| json!({"datanodes": {"replicas": replicas}})),
        (1..4).prop_map(|factor| json!({"replicationFactor": factor})),
        any::<bool>().prop_map(|stopped| json!({"stopped": stopped})),
        any::<bool>().prop_map(|on| json!({"security": {"networkPolicy": {"enabled": on}}})),
        "[ab]".prop_map(|label| json!({"datanodes": {"podTemplate": {"labels": {"x": label}}}})),
        "[12]Gi".prop_map(|size| json!({"datanodes": {"storage": {"size": size}}})),
    ];
    prop_oneof![
        4 => edit.prop_map(Happening::Edit),
        1 => any::<prop::sample::Index>().prop_map(Happening::Delete),
        2 => any::<prop::sample::Index>().prop_map(Happening::Kill),
        1 => any::<bool>().prop_map(Happening::Silence),
        1 => (0..2_u64).prop_map(Happening::Replicas),
        1 => any::<bool>().prop_map(Happening::Pause),
        1 => any::<bool>().prop_map(Happening::Unsafe),
        6 => (1..8_usize, 0..6_usize).prop_map(|(rounds, acts)| Happening::Rounds(rounds, acts)),
    ]
}

fn happen(world: &mut World, happening: &Happening) {
    match happening {
        Happening::Edit(spec) => world.edit(spec.clone()),
        Happening::Delete(which) => {
            let keys: Vec<_> = world.objects.keys().cloned().collect();
            if !keys.is_empty() {
                world.objects.remove(which.get(&keys));
                world.collect();
            }
        }
        Happening::Kill(which) => {
            if !world.pods.is_empty() {
                let index = which.index(world.pods.len());
                world.pods.remove(index);
            }
        }
        Happening::Silence(is_silent) => world.is_reachable = !is_silent,
        Happening::Replicas(missing) => world.under_replicated = *missing,
        Happening::Pause(is_paused) => world.pause(*is_paused),
        Happening::Unsafe(is_unsafe) => world.is_unsafe = *is_unsafe,
        Happening::Rounds(rounds, actions) => {
            for _ in 0..*rounds {
                world.pass();
                world.reconcile_up_to(*actions);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn e33_converges_after_any_events_and_then_does_nothing(
        happenings in prop::collection::vec(happening(), 0..25),
    ) {
        let mut world = World::new(json!({}));
        for happening in &happenings {
            happen(&mut world, happening);
        }
        world.is_reachable = true;
        world.under_replicated = 0;
        world.is_unsafe = false;
        world.pause(false);
        let claims = world.claims.clone();
        world.settle();
        prop_assert!(claims.iter().all(|claim| world.claims.contains(claim)));
        if world.cluster().spec.stopped {
            prop_assert!(world.pods.is_empty());
            world.edit(json!({"stopped": false}));
            world.settle();
        }
        prop_assert_eq!(world.condition(ConditionType::Ready).0, "True");
        prop_assert_eq!(world.status().rollout, None);
        for _ in 0..3 {
            let before = world.status();
            world.pass();
            prop_assert_eq!(world.reconcile().actions, vec![]);
            prop_assert_eq!(world.status(), before);
        }
    }

    #[test]
    fn e33_deletion_completes_wherever_the_operator_dies(
        actions in prop::collection::vec(0..4_usize, 0..20),
        is_kept in any::<bool>(),
    ) {
        let mut world = World::running(json!({}));
        if !is_kept {
            world.edit(json!({"deletionPolicy": "Delete", "deletionConfirmation": "data"}));
            world.settle();
        }
        world.delete();
        for actions in actions {
            if world.cluster.is_some() {
                world.pass();
                world.reconcile_up_to(actions);
            }
        }
        if world.cluster.is_some() {
            world.settle();
        }
        prop_assert!(world.cluster.is_none());
        prop_assert_eq!(world.claims.is_empty(), !is_kept);
        prop_assert_eq!(world.join.is_none(), !is_kept);
    }

    #[test]
    fn decisions_are_deterministic(
        happenings in prop::collection::vec(happening(), 0..10),
    ) {
        let mut world = World::new(json!({}));
        for happening in &happenings {
            happen(&mut world, happening);
        }
        let seen = world.observe();
        prop_assert_eq!(decide(&seen), decide(&seen));
    }
}
