//! All pods deleted at once, and each node powered off in turn.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result};
use dfs_e2e::{ClientPod, case};

const LENGTH: u64 = 20_000_000;
/// A node that is off is noticed after about 20 s, and its pods are evicted 10 s later.
const BACK: Duration = Duration::from_mins(4);

#[tokio::test]
async fn m05_cluster_recovers_when_all_pods_are_deleted() -> Result<()> {
    case("m05-pods", async |case| {
        case.operator().await?;
        let cluster = case.cluster("dfs");
        cluster.start().await?;
        let pod = ClientPod::start(&cluster).await?;
        pod.make_file("/tmp/file", LENGTH, 5).await?;
        pod.dfs(&["put", "/tmp/file", "/file"]).await?;

        let of = ["delete", "pods", "-n", &case.namespace, "--grace-period=0", "--force", "-l"];
        case.env.kubectl(&of).arg("app.kubernetes.io/part-of=dfs").run().await?;

        cluster.wait_pods_ready("datanode", 3).await?;
        cluster.wait_ready_within(BACK).await?;
        pod.dfs(&["get", "/file", "/tmp/back"]).await?;
        pod.check_file("/tmp/back", LENGTH, 5).await
    })
    .await
}

#[tokio::test]
async fn m05_cluster_recovers_when_nodes_lose_power() -> Result<()> {
    case("m05-nodes", async |case| {
        case.operator().await?;
        let cluster = case.cluster("dfs");
        cluster.start().await?;
        let pod = ClientPod::start(&cluster).await?;
        pod.make_file("/tmp/file", LENGTH, 6).await?;
        pod.dfs(&["put", "/tmp/file", "/file"]).await?;

        let nodes: BTreeSet<String> = cluster
            .pods("datanode")
            .await?
            .iter()
            .filter_map(|pod| pod.spec.as_ref()?.node_name.clone())
            .collect();
        for node in nodes {
            case.nodes().kill(&node).await?;
            case.nodes().start(&node).await?;
            cluster.wait_pods_ready("datanode", 3).await?;
            cluster.wait_ready_within(BACK).await.with_context(|| format!("after {node}"))?;
        }
        // The first pod died with its node.
        let pod = ClientPod::start_in(&cluster, &case.namespace, "after").await?;
        pod.dfs(&["get", "/file", "/tmp/back"]).await?;
        pod.check_file("/tmp/back", LENGTH, 6).await
    })
    .await
}
