//! C67, C70: versions of operands that are managed.

use dfs_crd::{ConditionType, Phase};
use serde_json::json;

use super::super::{Case, decide};
use super::edits::patch;
use super::world::World;

/// Returns a tag that is this many minor versions ahead.
fn minor(ahead: i64) -> String {
    let own: Vec<i64> =
        env!("CARGO_PKG_VERSION").split('.').map(|part| part.parse().unwrap()).collect();
    format!("{}.{}.0", own[0], own[1] + ahead)
}

fn refused(world: &World, word: &str) {
    let (status, reason, message) = world.condition(ConditionType::Stalled);
    assert_eq!((status.as_str(), reason.as_str()), ("True", "VersionUnsupported"));
    assert!(message.contains(word) && message.contains("operator"), "{message}");
    assert_eq!(world.status().phase, Some(Phase::Stalled));
}

#[test]
fn c67_newer_image_is_refused_and_nothing_is_touched() {
    let mut world = World::running(json!({}));
    let before = world.objects.clone();
    world.edit(json!({"image": {"tag": minor(1)}, "datanodes": {"replicas": 5}}));
    let decision = world.settle();
    assert_eq!((decision.case, decision.actions), (Case::Blocked, vec![]));
    assert_eq!(world.condition(ConditionType::SpecValid).0, "False");
    refused(&world, &minor(1));
    assert_eq!(world.objects, before);
    // Reverting is enough.
    world.edit(json!({"image": {"tag": patch(0)}}));
    world.settle();
    assert_eq!(world.condition(ConditionType::Ready).0, "True");
    assert_eq!(world.nodes.len(), 5);
}

#[test]
fn c67_newer_process_is_left_alone() {
    let mut world = World::running(json!({}));
    world.nodes[1].version = minor(1);
    world.edit(json!({"image": {"tag": patch(1)}}));
    let decision = world.settle();
    assert_eq!((decision.case, decision.actions), (Case::Blocked, vec![]));
    refused(&world, "data-datanode-1");
    // The spec is not the cause.
    assert_eq!(world.condition(ConditionType::SpecValid).0, "True");
}

#[test]
fn c67_older_running_version_may_be_upgraded() {
    let mut world = World::running(json!({}));
    world.nodes[1].version = "0.0.1".to_owned();
    assert_ne!(decide(&world.observe()).case, Case::Blocked);
}

#[test]
fn c67_non_version_tags_are_ignored() {
    for image in [
        json!({"tag": "main"}),
        json!({"tag": "nosuch"}),
        json!({"tag": minor(1), "digest": format!("sha256:{}", "ab".repeat(32))}),
    ] {
        let mut world = World::running(json!({}));
        world.edit(json!({"image": image}));
        assert_eq!(decide(&world.observe()).case, Case::Running, "{image}");
    }
}

#[test]
fn c67_cluster_of_a_newer_version_can_be_deleted() {
    let mut world = World::running(json!({}));
    world.edit(json!({"image": {"tag": minor(1)}}));
    world.delete();
    world.settle();
    assert!(world.cluster.is_none());
}

#[test]
fn c70_patch_versions_may_go_up_and_down() {
    for tag in [patch(9), patch(0)] {
        let mut world = World::running(json!({"image": {"tag": tag}}));
        for node in &mut world.nodes {
            node.version = patch(9);
        }
        assert_eq!(world.settle().case, Case::Running);
    }
}
