//! Diagnoses of pods that are down.

use dfs_crd::ConditionType;
use kube::ResourceExt as _;
use serde_json::json;

use super::super::decide;
use super::cases::is;
use super::world::World;

#[test]
fn causes_of_unready_pods_are_named() {
    type Break = fn(&mut World);
    let waiting = |world: &mut World, reason: &str| {
        let pod = world.pods.last_mut().unwrap();
        let container = pod.spec.as_ref().unwrap().containers[0].name.clone();
        pod.status = serde_json::from_value(json!({
            "phase": "Pending",
            "containerStatuses": [{
                "name": container, "image": "", "imageID": "", "ready": false, "restartCount": 9,
                "state": {"waiting": {"reason": reason, "message": "secret \"x\" not found"}},
            }],
        }))
        .unwrap();
    };
    for (reason, finding) in [
        ("ErrImagePull", "ImageUnavailable"),
        ("ImagePullBackOff", "ImageUnavailable"),
        ("CreateContainerConfigError", "SecretMissing"),
        ("CrashLoopBackOff", "CrashLooping"),
    ] {
        let mut world = World::running(json!({}));
        waiting(&mut world, reason);
        world.reconcile();
        is(&world, ConditionType::Stalled, "True", finding);
        is(&world, ConditionType::Ready, "False", finding);
        let name = world.pods.last().unwrap().name_any();
        assert!(world.condition(ConditionType::Stalled).2.contains(&name));
    }
    let unschedulable: Break = |world| {
        world.pods.last_mut().unwrap().status = serde_json::from_value(json!({
            "phase": "Pending",
            "conditions": [{
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "message": "0/3 nodes are available",
            }],
        }))
        .unwrap();
    };
    let mut world = World::running(json!({}));
    unschedulable(&mut world);
    world.reconcile();
    is(&world, ConditionType::Stalled, "True", "Unschedulable");
    assert!(world.condition(ConditionType::Stalled).2.contains("0/3 nodes"));

    // Without permission to read classes, the scheduler's message decides.
    let mut world = World::running(json!({"datanodes": {"storage": {"storageClassName": "fast"}}}));
    unschedulable(&mut world);
    let conditions = &mut world.pods.last_mut().unwrap().status.as_mut().unwrap().conditions;
    conditions.as_mut().unwrap()[0].message =
        Some("pod has unbound immediate PersistentVolumeClaims".to_owned());
    let claim = world.claims.last_mut().unwrap();
    claim.status.get_or_insert_default().phase = Some("Pending".to_owned());
    let claim = claim.name_any();
    world.reconcile();
    let (_, reason, message) = world.condition(ConditionType::Stalled);
    assert_eq!(reason, "VolumePending");
    assert!(message.contains(&claim) && message.contains("StorageClass fast"), "{message}");

    let mut world = World::running(json!({"datanodes": {"storage": {"storageClassName": "fast"}}}));
    unschedulable(&mut world);
    let mut seen = world.observe();
    seen.missing_classes.insert("fast".to_owned());
    let stalled = decide(&seen).stalled.unwrap();
    assert_eq!(stalled.reason.as_str(), "StorageClassMissing");
    assert!(stalled.message.contains("fast") && stalled.message.contains("data-data"));

    seen.missing_secrets.insert("tls".to_owned());
    let stalled = decide(&seen).stalled.unwrap();
    assert_eq!(stalled.reason.as_str(), "SecretMissing");
}

#[test]
fn m07_missing_volume_is_named() {
    let mut world = World::running(json!({"datanodes": {"storage": {"size": "100Ti"}}}));
    world.claims.last_mut().unwrap().status = None;
    world.reconcile();
    is(&world, ConditionType::Reconciling, "False", "AsSpecified");

    let pod = world.pods.last_mut().unwrap();
    pod.status = serde_json::from_value(json!({"phase": "Pending"})).unwrap();
    world.reconcile();
    is(&world, ConditionType::Reconciling, "True", "VolumePending");
    is(&world, ConditionType::Stalled, "False", "AsSpecified");
    let message = world.condition(ConditionType::Reconciling).2;
    let claim = world.claims.last().unwrap().name_any();
    assert!(message.contains(&claim) && message.contains("100Ti"), "{message}");
    assert!(!message.contains("delete"), "files exist: {message}");

    world.claims.last_mut().unwrap().status =
        serde_json::from_value(json!({"phase": "Lost"})).unwrap();
    world.reconcile();
    is(&world, ConditionType::Stalled, "True", "VolumePending");
    assert_ne!(world.condition(ConditionType::Reconciling).1, "VolumePending", "none will appear");
}
