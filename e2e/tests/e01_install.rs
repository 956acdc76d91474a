//! `helm install` and the minimal manifest.

use anyhow::{Result, ensure};
use dfs_e2e::{ClientPod, case};

const LENGTH: u64 = 200_000_000;

#[tokio::test]
async fn e01_minimal_manifest_is_ready_within_a_minute() -> Result<()> {
    case("e01", async |case| {
        let operator = case.operator().await?;
        let cluster = case.cluster("dfs");
        cluster.start().await?;

        let pod = ClientPod::start(&cluster).await?;
        pod.make_file("/tmp/there", LENGTH, 1).await?;
        pod.dfs(&["put", "/tmp/there", "/file"]).await?;
        pod.dfs(&["get", "/file", "/tmp/back"]).await?;
        pod.check_file("/tmp/back", LENGTH, 1).await?;

        // The test in the chart does the same.
        operator.test().await?;
        let left = pod.dfs(&["ls", "/"]).await?;
        ensure!(left.trim() == "file", "the test of the chart left files behind: {left}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn e01_one_command_installs_operator_and_cluster() -> Result<()> {
    case("e01-values", async |case| {
        let values = [
            "cluster.create=true",
            "cluster.name=files",
            "cluster.spec.replicationFactor=1",
            "cluster.spec.datanodes.replicas=1",
            "cluster.spec.datanodes.storage.size=1Gi",
        ];
        let operator = case.operator_with(&values).await?;
        let cluster = case.cluster("files");
        cluster.wait_ready().await?;
        operator.test().await?;

        // And changes it with the values.
        let more = [&values[..], &["cluster.spec.datanodes.replicas=2"]].concat();
        let own = format!("watchNamespaces={{{}}}", case.namespace);
        operator.upgrade(&[&[own.as_str(), "crds.install=false"], &more[..]].concat()).await?;
        cluster.wait_ready().await?;
        ensure!(cluster.status().await?["readyReplicas"] == 2, "the second datanode is missing");
        Ok(())
    })
    .await
}
