//! Generated files in the repository.

use std::path::Path;

#[test]
fn c02_committed_definition_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (file, text) in [
        ("crds/dfs.io_dfsclusters.yaml", dfs_crd::crd_yaml().unwrap()),
        ("docs/kubernetes-fields.md", dfs_crd::fields_markdown()),
        ("docs/kubernetes-conditions.md", dfs_crd::reference_markdown()),
    ] {
        let committed = std::fs::read_to_string(root.join(file)).unwrap_or_default();
        assert!(committed == text, "{file} is not current: run cargo xtask generate");
    }
}

#[test]
fn yaml_equals_the_definition() {
    let read: serde_json::Value = serde_saphyr::from_str(&dfs_crd::crd_yaml().unwrap()).unwrap();
    let crd = serde_json::to_value(dfs_crd::crd()).unwrap();
    assert_eq!(normal(read), normal(crd));
}

/// YAML does not distinguish 1.0 from 1.
fn normal(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Number(number) => number.as_f64().map_or(Value::Null, Value::from),
        Value::Array(items) => items.into_iter().map(normal).collect(),
        Value::Object(fields) => fields.into_iter().map(|(k, v)| (k, normal(v))).collect(),
        other => other,
    }
}
