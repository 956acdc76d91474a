//! An image that does not exist, and its revert.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dfs_e2e::{ClientPod, case};
use kube::ResourceExt as _;
use serde_json::json;

#[tokio::test]
async fn e27_bad_image_affects_one_pod_and_reverting_the_manifest_heals_it() -> Result<()> {
    case("e27", async |case| {
        case.operator().await?;
        let cluster = case.cluster("dfs");
        cluster.start().await?;
        let pod = ClientPod::start(&cluster).await?;
        pod.make_file("/tmp/file", 1_000_000, 27).await?;
        pod.dfs(&["put", "/tmp/file", "/file"]).await?;
        let uids = async || -> Result<Vec<String>> {
            let pods = cluster.pods("datanode").await?;
            pods.iter().map(|pod| pod.uid().context("a pod without a UID")).collect()
        };
        let before = uids().await?;
        let good = cluster.get().await?.context("the cluster is gone")?.data;
        let good = good["spec"]["image"]["tag"].clone();

        cluster.merge(json!({ "spec": { "image": { "tag": "nosuch" } } })).await?;
        let stalled = cluster.wait_condition("Stalled", "True", Duration::from_mins(1)).await?;
        let message = stalled["message"].as_str().unwrap_or_default();
        ensure!(message.contains("nosuch"), "the message names no image: {message}");
        ensure!(uids().await? == before, "datanodes were restarted too");

        cluster.merge(json!({ "spec": { "image": { "tag": good } } })).await?;
        cluster.wait_ready_within(Duration::from_mins(2)).await?;
        pod.dfs(&["get", "/file", "/tmp/back"]).await?;
        pod.check_file("/tmp/back", 1_000_000, 27).await
    })
    .await
}
