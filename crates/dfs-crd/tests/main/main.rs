//! The definition of `DfsCluster` as the API server gets it, and the rules in it.

// `cfg(test)` holds in any case; it tells clippy that helpers belong to tests, too.
#[cfg(test)]
mod defaults;
#[cfg(test)]
mod generated;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod schema;

/// What a user must say.
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

/// The schema of the whole resource.
#[cfg(test)]
fn root_schema() -> serde_json::Value {
    let crd = serde_json::to_value(dfs_crd::crd()).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}
