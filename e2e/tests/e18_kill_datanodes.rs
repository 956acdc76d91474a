//! Datanodes killed one after the other, under load.

use std::time::Duration;

use anyhow::Result;
use dfs_e2e::{Workload, case};

const KILLS: usize = 50;

#[tokio::test]
async fn e18_killed_datanodes_lose_no_acknowledged_write() -> Result<()> {
    case("e18", async |case| {
        case.operator().await?;
        let cluster = case.cluster("dfs");
        cluster.start().await?;
        let load = Workload::start(&cluster).await?;
        for kill in 0..KILLS {
            let pods = cluster.pods("datanode").await?;
            case.nodes().kill_pod(&pods[kill % pods.len()]).await?;
            cluster.wait_pods_ready("datanode", pods.len()).await?;
        }
        let report = load.finish().await?;
        report.nothing_lost()?;
        cluster.wait_ready_within(Duration::from_mins(2)).await
    })
    .await
}
