//! The form of the definition.

use serde_json::Value;

use crate::root_schema;

/// Returns every schema in spec and status with its path.
fn all() -> Vec<(String, Value)> {
    fn walk(path: &str, schema: &Value, all: &mut Vec<(String, Value)>) {
        all.push((path.to_owned(), schema.clone()));
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            walk(&format!("{path}.{name}"), property, all);
        }
        for (key, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
            if schema[key].is_object() {
                walk(&format!("{path}{mark}"), &schema[key], all);
            }
        }
    }
    let root = root_schema();
    let mut schemas = Vec::new();
    for part in ["spec", "status"] {
        walk(part, &root["properties"][part], &mut schemas);
    }
    assert!(schemas.len() > 100, "{} schemas", schemas.len());
    schemas
}

fn failing(what: impl Fn(&str, &Value) -> bool) -> Vec<String> {
    let is_wrong = |(path, schema): &(String, Value)| what(path, schema).then(|| path.clone());
    all().iter().filter_map(is_wrong).collect()
}

#[test]
fn c01_schema_is_structural() {
    let forbidden =
        ["$ref", "oneOf", "anyOf", "allOf", "not", "x-kubernetes-preserve-unknown-fields"];
    let wrong = failing(|_, schema| {
        let has_type = schema["type"].is_string() || schema["x-kubernetes-int-or-string"] == true;
        !has_type || forbidden.iter().any(|key| schema.get(key).is_some())
    });
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn c03_every_field_has_a_description() {
    let wrong = failing(|path, schema| {
        let is_field = !path.ends_with("[]") && !path.ends_with("{}");
        is_field && schema["description"].as_str().is_none_or(str::is_empty)
    });
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn c04_every_value_is_bounded() {
    let wrong = failing(|_, schema| match schema["type"].as_str() {
        _ if schema["x-kubernetes-int-or-string"] == true => false,
        Some("string") => {
            let is_closed = schema.get("enum").is_some() || schema.get("format").is_some();
            !is_closed && schema.get("maxLength").is_none()
        }
        Some("integer") => schema.get("minimum").is_none() || schema.get("maximum").is_none(),
        Some("array") => {
            schema.get("maxItems").is_none() || schema.get("x-kubernetes-list-type").is_none()
        }
        Some("object") => {
            schema.get("additionalProperties").is_some() && schema.get("maxProperties").is_none()
        }
        _ => false,
    });
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn c12_enums_are_camel_case_and_numbers_are_plain() {
    let wrong = failing(|path, schema| {
        let is_named = |name: &Value| {
            let name = name.as_str().unwrap_or_default();
            // Labels of nodes are defined elsewhere.
            path.ends_with(".topologyKey") || name.starts_with(|c: char| c.is_ascii_uppercase())
        };
        let names_are_wrong =
            schema["enum"].as_array().is_some_and(|names| !names.iter().all(is_named));
        let format = schema["format"].as_str().unwrap_or("int32");
        let kind_is_wrong = schema["type"] == "number"
            || !["int32", "int64", "date-time"].contains(&format)
            || schema["format"] == "duration";
        names_are_wrong || kind_is_wrong
    });
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn nothing_is_nullable() {
    // A null that passes the defaults could remove a field that a rule of its parent needs.
    assert_eq!(failing(|_, schema| schema.get("nullable").is_some()), [""; 0]);
}

#[test]
fn c11_scale_and_columns_point_at_fields() {
    let crd = serde_json::to_value(dfs_crd::crd()).unwrap();
    let version = &crd["spec"]["versions"][0];
    let scale = &version["subresources"]["scale"];
    let columns = version["additionalPrinterColumns"].as_array().unwrap();
    let mut paths: Vec<&str> =
        columns.iter().map(|column| column["jsonPath"].as_str().unwrap()).collect();
    for key in ["specReplicasPath", "statusReplicasPath", "labelSelectorPath"] {
        paths.push(scale[key].as_str().unwrap());
    }
    let known: Vec<String> = all().into_iter().map(|(path, _)| path).collect();
    for path in paths {
        let path = path.split_once("[?").map_or(path, |(list, _)| list).trim_start_matches('.');
        let is_known = known.iter().any(|known| known == path);
        assert!(is_known || path == "metadata.creationTimestamp", "{path}");
    }
    assert!(version["subresources"]["status"].is_object(), "C10");
    assert_eq!(crd["spec"]["names"]["shortNames"], serde_json::json!(["dfsc"]));
    assert_eq!(crd["spec"]["names"]["categories"], serde_json::json!(["dfs"]));
    assert_eq!(crd["spec"]["scope"], "Namespaced");
}

#[test]
fn kubectl_can_store_a_copy_in_an_annotation() {
    let bytes = serde_json::to_vec(&dfs_crd::crd()).unwrap().len();
    assert!(bytes < 192 << 10, "{bytes} bytes; 256 KiB are for all annotations");
}

#[test]
fn c19_full_status_is_small() {
    // 200 datanodes, each name as long as a Kubernetes name can be here.
    use dfs_crd::{ClusterStatus, DATANODES_MAX, DatanodeState, DatanodeStatus};
    let node = |i: usize| DatanodeStatus {
        name: format!("{}-datanode-{i}", "n".repeat(dfs_crd::NAME_LEN_MAX)),
        node_id: Some("0".repeat(36)),
        kube_node: Some("k".repeat(253)),
        zone: Some("z".repeat(63)),
        state: DatanodeState::Maintenance,
        version: Some("v".repeat(63)),
        capacity_bytes: i64::MAX >> 11,
        used_bytes: i64::MAX >> 11,
        last_transition_time: None,
    };
    let status = ClusterStatus {
        datanodes: (0..DATANODES_MAX).map(node).collect(),
        ..ClusterStatus::default()
    };
    let bytes = serde_json::to_vec(&status).unwrap().len();
    assert!(bytes < 192 << 10, "{bytes} bytes");
}
