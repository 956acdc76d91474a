//! The definition of `DfsCluster` as the API server gets it, and its rules.

// `cfg(test)` always holds; it makes clippy treat helpers as tests too.
#[cfg(test)]
mod compatible;
#[cfg(test)]
mod defaults;
#[cfg(test)]
mod generated;
#[cfg(test)]
mod pages;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod schema;

/// The minimal manifest.
#[cfg(test)]
const MINIMAL: &str = "
apiVersion: dfs.io/v1alpha1
kind: DfsCluster
metadata:
  name: demo
spec:
  datanodes:
    storage:
      size: 10Gi
";

/// Returns the schema of the complete resource.
#[cfg(test)]
fn root_schema() -> serde_json::Value {
    let crd = serde_json::to_value(dfs_crd::crd()).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Sets defaults like the API server: each parent first, then its fields.
#[cfg(test)]
fn stored(schema: &serde_json::Value, mut value: serde_json::Value) -> serde_json::Value {
    let Some(fields) = value.as_object_mut() else { return value };
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(default) = property.get("default") {
            fields.entry(name.clone()).or_insert_with(|| default.clone());
        }
        if let Some(field) = fields.get_mut(name) {
            *field = stored(property, field.take());
        }
    }
    value
}
