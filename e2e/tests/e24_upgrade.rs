//! An upgrade under load.

use std::time::Duration;

use anyhow::{Result, ensure};
use dfs_e2e::{Rollout, Workload, case};
use serde_json::json;

#[tokio::test]
async fn e24_upgrade_stops_one_node_at_a_time_without_failures() -> Result<()> {
    case("e24", async |case| {
        let operator = case.operator().await?;
        let cluster = case.cluster("dfs");
        cluster.start().await?;
        // An operator refuses images newer than itself.
        let next = case.env.next_version()?;
        let own = format!("watchNamespaces={{{}}}", case.namespace);
        let image = format!("image.tag={next}");
        operator.upgrade(&[&own, "crds.install=false", &image]).await?;
        let load = Workload::start(&cluster).await?;
        let rollout = Rollout::watch(&cluster, 3).await?;

        cluster.merge(json!({ "spec": { "image": { "tag": next } } })).await?;
        cluster.wait_ready_within(Duration::from_mins(5)).await?;

        let seen = rollout.finish();
        ensure!(seen.datanodes_down_max == 1, "more than one datanode was down: {seen:?}");
        ensure!(seen.replaced.len() == 4, "four pods had to be replaced: {seen:?}");
        ensure!(seen.replaced[0].starts_with("coordinator/"), "coordinators go first: {seen:?}");
        load.finish().await?.nothing_failed()?;
        for component in ["coordinator", "datanode"] {
            for pod in cluster.pods(component).await? {
                let image = pod.spec.and_then(|spec| spec.containers.into_iter().next()?.image);
                ensure!(image.as_deref().is_some_and(|image| image.ends_with(&next)));
            }
        }
        let version = cluster.status().await?["version"].clone();
        ensure!(version["current"] == next.as_str(), "the status says {version}");
        ensure!(version["target"] == next.as_str(), "the status says {version}");
        Ok(())
    })
    .await
}
