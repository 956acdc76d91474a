//! Clusters and operators side by side.

use anyhow::{Result, ensure};
use dfs_e2e::{ClientPod, case};
use serde_json::{Value, json};

fn small() -> Value {
    json!({
        "replicationFactor": 1,
        "datanodes": { "replicas": 2, "storage": { "size": "1Gi" } },
    })
}

#[tokio::test]
async fn m08_clusters_in_one_namespace_are_isolated() -> Result<()> {
    case("m08-clusters", async |case| {
        case.operator().await?;
        let (one, other) = (case.cluster("one"), case.cluster("other"));
        one.apply(small()).await?;
        other.apply(small()).await?;
        one.wait_ready().await?;
        other.wait_ready().await?;
        let (in_one, in_other) = (ClientPod::start(&one).await?, ClientPod::start(&other).await?);
        in_one.dfs(&["mkdir", "/of-one"]).await?;
        ensure!(
            in_other.dfs(&["ls", "/"]).await?.trim().is_empty(),
            "the other cluster has its files"
        );
        for pod in [&in_one, &in_other] {
            let status: Value = serde_json::from_str(&pod.dfs(&["--json", "status"]).await?)?;
            let nodes = status["nodes"].as_array().map(Vec::len);
            ensure!(nodes == Some(2), "a cluster has nodes of the other: {status}");
        }
        let ids = (one.status().await?, other.status().await?);
        ensure!(ids.0["clusterId"] != ids.1["clusterId"], "both have one id");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn m08_releases_do_not_touch_each_others_clusters() -> Result<()> {
    case("m08-releases", async |case| {
        case.operator().await?;
        let second = case.make_namespace("m08-second").await?;
        let own = format!("watchNamespaces={{{second}}}");
        let theirs = case.install(&second, &[&own, "crds.install=false"]).await?;
        let cluster = case.cluster("dfs");
        cluster.apply(small()).await?;
        cluster.wait_ready().await?;
        let log = theirs.logs().await?;
        ensure!(!log.contains(&case.namespace), "the other operator has seen it: {log}");
        Ok(())
    })
    .await
}
