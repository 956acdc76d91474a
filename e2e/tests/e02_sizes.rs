//! Clusters of several sizes, with as many replicas as specified.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use dfs_e2e::{ClientPod, case};
use serde_json::{Value, json};

#[tokio::test]
async fn e02_files_have_the_specified_number_of_replicas() -> Result<()> {
    case("e02", async |case| {
        case.operator().await?;
        for (name, datanodes, replicas) in [("one", 1, 1), ("three", 3, 2), ("five", 5, 3)] {
            let cluster = case.cluster(name);
            let spec = json!({
                "replicationFactor": replicas,
                "datanodes": { "replicas": datanodes, "storage": { "size": "1Gi" } },
            });
            cluster.apply(spec).await?;
            cluster.wait_ready().await?;

            let pod = ClientPod::start(&cluster).await?;
            pod.make_file("/tmp/file", 3_000_000, 2).await?;
            pod.dfs(&["put", "--chunk-size", "1MiB", "/tmp/file", "/file"]).await?;
            let explained = pod.dfs(&["--json", "explain", "/file"]).await?;
            let explained: Value = serde_json::from_str(&explained)?;
            let chunks = explained["chunks"].as_array().context("no chunks are explained")?;
            ensure!(chunks.len() == 3, "{name}: 3 chunks were expected: {explained}");
            for chunk in chunks {
                let replicas_of =
                    chunk["replicas"].as_array().context("no replicas are explained")?;
                let nodes: BTreeSet<_> =
                    replicas_of.iter().map(|c| c["node"].to_string()).collect();
                ensure!(
                    nodes.len() == replicas,
                    "{name}: {replicas} replicas were expected: {chunk}"
                );
            }
            cluster.delete().await?;
        }
        Ok(())
    })
    .await
}
