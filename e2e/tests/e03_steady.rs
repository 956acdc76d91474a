//! A steady cluster causes no writes.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dfs_e2e::{Audit, case, until};
use tokio::time::sleep;

const LONG: Duration = Duration::from_mins(10);
/// Memory limit of an idle operator.
const IDLE_BYTES: u64 = 40 << 20;

#[tokio::test]
async fn e03_nothing_is_written_for_ten_minutes() -> Result<()> {
    case("e03", async |case| {
        let operator = case.operator().await?;
        let cluster = case.cluster("dfs");
        cluster.start().await?;
        // The StatefulSet controller writes again when pods have been ready for a while.
        until("datanodes that are available", Duration::from_mins(1), async || {
            let status = cluster.statefulset().await?.status.unwrap_or_default();
            Ok((status.available_replicas == Some(status.replicas)).then_some(()))
        })
        .await?;
        let before = cluster.revisions().await?;
        let audit = Audit::begin(&case.env).await?;
        // The only case that depends on the passage of time.
        sleep(LONG).await;
        let after = cluster.revisions().await?;
        ensure!(before == after, "objects changed: {before:#?} {after:#?}");
        if let Some(audit) = audit {
            let requests = audit.requests(&operator.user()).await?;
            let writes: Vec<_> = requests.iter().filter(|request| request.is_write()).collect();
            ensure!(writes.is_empty(), "the operator wrote: {writes:#?}");
        }
        if case.env.has_nodes() {
            let pod = operator.pods().await?.into_iter().next().context("no operator")?;
            let bytes = case.nodes().resident_bytes(&pod).await?;
            ensure!(bytes < IDLE_BYTES, "the operator uses {bytes} bytes");
        }
        Ok(())
    })
    .await
}
