//! C08: every field of the spec has an effect.

use dfs_crd::DfsCluster;
use serde_json::{Value, json};

use super::fixtures::{FULL, MINIMAL, cluster, full_embedded, render};
use crate::build::{REVISION, TEMPLATE};

/// Fields that affect no rendered object, with their users.
const ACTED_ON_ELSEWHERE: &[(&str, &str)] = &[
    ("replicationFactor", "Admin.Init and Admin.SetReplication"),
    ("minWriteReplicas", "Admin.Init and Admin.SetReplication"),
    ("maintenance.update.strategy", "who restarts pods: decide::rollout"),
    ("maintenance.update.requireFullyReplicated", "the gate of decide::rollout"),
    ("maintenance.update.nodeTimeoutSeconds", "patience of decide::rollout"),
    ("deletionPolicy", "decide::delete"),
    ("deletionConfirmation", "decide::delete"),
];

/// Returns a different value of the same form.
fn other(kind: &str, value: &Value) -> Value {
    let choices: Vec<&str> = kind.split('`').skip(1).step_by(2).collect();
    match value {
        Value::Bool(value) => json!(!value),
        Value::Number(value) => json!(value.as_i64().unwrap() + 1),
        Value::String(value) if !choices.is_empty() => {
            json!(choices.iter().find(|choice| *choice != value).unwrap())
        }
        Value::String(value) => json!(format!("{value}1")),
        Value::Array(_) => json!([]),
        Value::Object(map) => {
            let mut map = map.clone();
            let (key, value) =
                if kind == "map" { ("other", json!("x")) } else { ("podAffinity", json!({})) };
            map.insert(key.to_owned(), value);
            map.into()
        }
        Value::Null => panic!("the full resources do not set it"),
    }
}

/// Renders a resource, without fingerprints, which depend on every field.
fn effect(cluster: &DfsCluster) -> Vec<Value> {
    let objects = render(cluster).into_iter().map(|object| {
        let mut value = object.value;
        for (path, key) in
            [("/metadata/annotations", TEMPLATE), ("/spec/template/metadata/annotations", REVISION)]
        {
            if let Some(annotations) = value.pointer_mut(path) {
                annotations.as_object_mut().unwrap().remove(key);
            }
        }
        value
    });
    objects.collect()
}

#[test]
fn c08_every_field_has_an_effect() {
    let mut without_digest = cluster(FULL);
    without_digest.spec.image.digest = None;
    // Some fields have an effect only together with certain others.
    let resources = [cluster(FULL), full_embedded(), without_digest, cluster(MINIMAL)];
    let mut dead = Vec::new();
    for field in dfs_crd::fields() {
        let pointer = format!("/spec/{}", field.path.replace('.', "/"));
        let is_set = |cluster: &&DfsCluster| {
            serde_json::to_value(cluster).unwrap().pointer(&pointer).is_some()
        };
        assert!(resources.iter().any(|one| is_set(&one)), "{} is in no fixture", field.path);
        let has_effect = resources.iter().filter(is_set).any(|cluster| {
            let mut json = serde_json::to_value(cluster).unwrap();
            let value = json.pointer_mut(&pointer).unwrap();
            *value = other(&field.kind, value);
            let changed: DfsCluster = serde_json::from_value(json).unwrap();
            effect(&changed) != effect(cluster)
        });
        let is_elsewhere = ACTED_ON_ELSEWHERE.iter().any(|(path, _)| *path == field.path);
        if has_effect == is_elsewhere {
            dead.push(field.path);
        }
    }
    assert_eq!(dead, [""; 0], "without effect, or listed although they have one");
}
