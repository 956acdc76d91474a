//! Mistakes that only show once the manifest is applied.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use dfs_e2e::{Cluster, case, minimal, until};
use serde_json::{Value, json};

/// Time limit for a condition to report it.
const REPORTED: Duration = Duration::from_secs(30);

#[tokio::test]
async fn m07_condition_names_the_mistake_within_30_seconds() -> Result<()> {
    case("m07", async |case| {
        case.operator().await?;
        let storage = |volumes: Value| json!({ "datanodes": { "storage": volumes } });
        let huge = json!({ "requests": { "memory": "10Ti" }, "limits": { "memory": "10Ti" } });
        let etcd = json!({ "endpoints": ["etcd:2379"], "tlsSecretName": "nosuch-secret" });
        let mistakes = [
            ("class", storage(json!({ "storageClassName": "nosuch-class" })), "nosuch-class"),
            ("size", storage(json!({ "size": "100Ti" })), "100Ti"),
            ("memory", json!({ "datanodes": { "resources": huge } }), "memory"),
            ("image", json!({ "image": { "tag": "nosuch-tag" } }), "nosuch-tag"),
            (
                "secret",
                json!({ "coordinator": { "metadata": { "engine": "Etcd", "etcd": etcd } } }),
                "nosuch-secret",
            ),
        ];
        for (name, mistake, word) in mistakes {
            let cluster = case.cluster(name);
            let mut spec = minimal();
            merge(&mut spec, mistake);
            cluster.apply(spec).await?;
            wait_reported(&cluster, word).await.with_context(|| format!("the mistake {name}"))?;
            cluster.delete().await?;
        }
        Ok(())
    })
    .await
}

/// Waits until a bad condition contains the word in its message.
async fn wait_reported(cluster: &Cluster, word: &str) -> Result<()> {
    until(&format!("a condition that says {word:?}"), REPORTED, async || {
        let status = cluster.status().await?;
        let conditions = status["conditions"].as_array().context("no conditions")?;
        let is_reported = conditions.iter().any(|condition| {
            condition["message"].as_str().is_some_and(|message| message.contains(word))
        });
        if is_reported { Ok(Some(())) } else { bail!("there are {conditions:?}") }
    })
    .await
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
