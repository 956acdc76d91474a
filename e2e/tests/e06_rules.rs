//! Specs that the API server refuses, and its messages.

use anyhow::{Result, bail, ensure};
use dfs_e2e::{Cluster, case, minimal};
use serde_json::{Value, json};

/// Overlays on the minimal spec, with a part of the expected message.
fn wrong_from_the_start() -> Vec<(Value, &'static str)> {
    vec![
        (json!({ "replicationFactor": 4 }), "`replicationFactor` must be at most"),
        (json!({ "replicationFactor": 0 }), "greater than or equal to 1"),
        (json!({ "minWriteReplicas": 4 }), "`minWriteReplicas` must be at most"),
        (json!({ "coordinator": { "replicas": 2 } }), "`replicas` must be 1"),
        (json!({ "coordinator": { "metadata": { "engine": "Etcd" } } }), "`etcd` must be set"),
        (
            json!({ "coordinator": { "metadata": { "etcd": { "endpoints": ["etcd:2379"] } } } }),
            "`etcd` must be set",
        ),
        (
            json!({ "coordinator": { "metadata": { "embedded": { "storage": { "size": "1" } } } } }),
            "`size` must be at least",
        ),
        (json!({ "datanodes": { "storage": { "size": "100" } } }), "`size` must be at least"),
        (json!({ "datanodes": { "storage": { "size": "much" } } }), "spec.datanodes.storage.size"),
        (json!({ "image": { "tag": "latest" } }), "must name a version"),
        (json!({ "image": { "digest": "sha256:1" } }), "spec.image.digest"),
        (json!({ "deletionConfirmation": "other" }), "must be empty or the name"),
        (json!({ "failureDomain": { "policy": "Perhaps" } }), "Unsupported value"),
    ]
}

/// Changes of an existing cluster, with a part of the expected message.
fn wrong_later() -> Vec<(Value, &'static str)> {
    vec![
        (json!({ "datanodes": { "storage": { "size": "1Gi" } } }), "greater than or equal to its"),
        (
            json!({ "datanodes": { "storage": { "storageClassName": "other" } } }),
            "`storageClassName` is immutable",
        ),
        (
            json!({ "datanodes": { "storage": { "volumesPerNode": 2 } } }),
            "`volumesPerNode` is immutable",
        ),
        (
            json!({ "failureDomain": { "topologyKey": "topology.kubernetes.io/zone" } }),
            "`topologyKey` is immutable",
        ),
        (
            json!({ "coordinator": { "metadata": {
                "engine": "Etcd", "etcd": { "endpoints": ["etcd:2379"] },
            } } }),
            "`engine` is immutable",
        ),
        (
            json!({ "coordinator": { "metadata": { "embedded": { "storage": { "size": "1Gi" } } } } }),
            "greater than or equal to its",
        ),
        (json!({ "datanodes": { "replicas": 2 } }), "`replicationFactor` must be at most"),
    ]
}

#[tokio::test]
async fn e06_invalid_specs_are_refused_with_the_rule() -> Result<()> {
    case("e06", async |case| {
        // No operator: the API server refuses on its own.
        let cluster = case.cluster("dfs");
        cluster.dry_run(minimal()).await?;
        for (wrong, words) in wrong_from_the_start() {
            refuses(&cluster, &wrong, words).await?;
        }
        cluster.apply(minimal()).await?;
        for (wrong, words) in wrong_later() {
            refuses(&cluster, &wrong, words).await?;
        }
        let long = case.cluster(&"a".repeat(41));
        refuses(&long, &json!({}), "at most 40 characters").await
    })
    .await
}

async fn refuses(cluster: &Cluster, wrong: &Value, words: &str) -> Result<()> {
    let mut spec = minimal();
    merge(&mut spec, wrong);
    match cluster.dry_run(spec.clone()).await {
        Ok(()) => bail!("accepted: {spec}"),
        Err(error) => {
            let Some(kube::Error::Api(status)) = error.downcast_ref::<kube::Error>() else {
                return Err(error);
            };
            ensure!(status.code == 422, "{spec}: {status:?}");
            ensure!(status.message.contains(words), "{words:?} is not in {:?}", status.message);
            Ok(())
        }
    }
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}
