//! A change restarts only the pods it concerns.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dfs_e2e::{Cluster, case};
use kube::ResourceExt as _;
use serde_json::json;

#[tokio::test]
async fn e29_settings_restart_only_their_component() -> Result<()> {
    case("e29", async |case| {
        case.operator().await?;
        let cluster = case.cluster("dfs");
        cluster.start().await?;
        let (coordinator, datanodes) =
            (uids(&cluster, "coordinator").await?, uids(&cluster, "datanode").await?);

        let change = json!({ "podTemplate": { "annotations": { "example.com/changed": "yes" } } });
        cluster.merge(json!({ "spec": { "coordinator": change } })).await?;
        cluster.wait_ready_within(Duration::from_mins(2)).await?;
        ensure!(uids(&cluster, "datanode").await? == datanodes, "datanodes were restarted too");
        let after = uids(&cluster, "coordinator").await?;
        ensure!(after != coordinator, "the coordinator was not restarted");

        cluster.merge(json!({ "spec": { "datanodes": change } })).await?;
        cluster.wait_ready_within(Duration::from_mins(5)).await?;
        ensure!(uids(&cluster, "coordinator").await? == after, "the coordinator was restarted too");
        let left = uids(&cluster, "datanode").await?;
        ensure!(left.iter().all(|uid| !datanodes.contains(uid)), "some datanode was not restarted");
        Ok(())
    })
    .await
}

async fn uids(cluster: &Cluster, component: &str) -> Result<Vec<String>> {
    let pods = cluster.pods(component).await?;
    pods.iter().map(|pod| pod.uid().context("a pod without a UID")).collect()
}
