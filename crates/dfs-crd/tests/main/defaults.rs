//! What holds where nothing is said.

use dfs_crd::DfsCluster;
use serde_json::{Map, Value, json};

use crate::{MINIMAL, root_schema, stored};

#[test]
fn c05_the_stored_object_shows_what_holds() {
    let object: Value = serde_saphyr::from_str(MINIMAL).unwrap();
    let read: DfsCluster = serde_json::from_value(object.clone()).unwrap();
    let object = stored(&root_schema(), object);
    // What the API server stores is what the operator would have taken anyway.
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
fn c06_the_minimal_manifest_is_ten_lines() {
    assert!(MINIMAL.trim().lines().count() <= 10);
}

#[test]
fn parents_default_to_an_empty_object() {
    // So the defaults of fields stand in one place, and none of them can be dropped.
    let mut parents = Map::new();
    fn walk(path: &str, schema: &Value, parents: &mut Map<String, Value>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if property["properties"].is_object() {
                let default = property.get("default").cloned().unwrap_or_default();
                parents.insert(path.clone(), default);
                walk(&path, property, parents);
            }
        }
    }
    walk("spec", &root_schema()["properties"]["spec"], &mut parents);
    parents.retain(|path, default| *default != json!({}) && !path.contains(".affinity"));
    // What has a field that a user must set has no default.
    let mut without: Vec<&String> = parents.keys().collect();
    without.sort();
    assert_eq!(
        without,
        ["spec.coordinator.metadata.etcd", "spec.datanodes", "spec.datanodes.storage"]
    );
}
