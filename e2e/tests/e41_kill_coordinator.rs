//! A coordinator killed under load.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dfs_e2e::{Workload, case};

/// Time limit for clients to resume.
const RESUMED_MS: u64 = 30_000;

#[tokio::test]
async fn e41_clients_resume_when_the_coordinator_is_back() -> Result<()> {
    case("e41", async |case| {
        case.operator().await?;
        let cluster = case.cluster("dfs");
        cluster.start().await?;
        let load = Workload::start(&cluster).await?;
        for _ in 0..3 {
            let pods = cluster.pods("coordinator").await?;
            case.nodes().kill_pod(pods.first().context("no coordinator")?).await?;
            cluster.wait_pods_ready("coordinator", 1).await?;
            cluster.wait_ready_within(Duration::from_mins(2)).await?;
        }
        let report = load.finish().await?;
        report.nothing_failed()?;
        ensure!(report.slowest_ms < RESUMED_MS, "clients waited too long: {report:?}");
        Ok(())
    })
    .await
}
