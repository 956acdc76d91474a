//! Defaults.

use dfs_crd::DfsCluster;
use kube::core::cel::Validator;
use serde_json::{Value, json};

use crate::{MINIMAL, root_schema, stored};

#[test]
fn c05_stored_object_shows_effective_values() {
    let object: Value = serde_saphyr::from_str(MINIMAL).unwrap();
    let read: DfsCluster = serde_json::from_value(object.clone()).unwrap();
    let object = stored(&root_schema(), object);
    // The operator would use the same values that the API server stores.
    assert_eq!(serde_json::to_value(&read).unwrap()["spec"], object["spec"]);
    let spec = &object["spec"];
    assert_eq!(spec["replicationFactor"], 3);
    assert_eq!(spec["datanodes"]["replicas"], 3);
    assert_eq!(spec["image"]["tag"], env!("CARGO_PKG_VERSION"));
    assert_eq!(spec["coordinator"]["metadata"]["engine"], "Embedded");
    assert_eq!(spec["coordinator"]["metadata"]["embedded"]["storage"]["size"], "10Gi");
    assert_eq!(spec["datanodes"]["resources"]["limits"], json!({"memory": "512Mi"}));
    assert_eq!(spec["maintenance"]["update"]["requireFullyReplicated"], true);
    assert_eq!(spec["deletionPolicy"], "Retain");
}

#[test]
fn c06_minimal_manifest_is_ten_lines() {
    assert!(MINIMAL.trim().lines().count() <= 10);
}

/// Returns the objects in the spec that have fields, with their schemas.
fn parents() -> Vec<(String, Value)> {
    fn walk(path: &str, schema: &Value, parents: &mut Vec<(String, Value)>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if property["properties"].is_object() && name != "affinity" {
                parents.push((path.clone(), property.clone()));
                walk(&path, property, parents);
            }
        }
    }
    let mut all = Vec::new();
    walk("spec", &root_schema()["properties"]["spec"], &mut all);
    all
}

#[test]
fn c09_no_parent_can_be_absent() {
    // Otherwise a rule that names `oldSelf` would not run. An object with a required field has no
    // default, and cannot be absent either: `etcd` because of a rule.
    let without = parents().into_iter().filter(|(_, schema)| schema.get("default").is_none());
    assert_eq!(
        without.map(|(path, _)| path).collect::<Vec<_>>(),
        ["spec.coordinator.metadata.etcd", "spec.datanodes", "spec.datanodes.storage"]
    );
}

#[test]
fn defaults_satisfy_the_rules_by_themselves() {
    // The API server checks each default before it sets those of its fields, so that `{}` is
    // refused where a rule names a field.
    for (path, schema) in parents() {
        let Some(default) = schema.get("default") else { continue };
        let result = Validator::new().validate(&schema, default, Some(default));
        assert!(result.is_ok(), "{path}: {result:?}");
    }
}
