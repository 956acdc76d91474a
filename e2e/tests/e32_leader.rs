//! Two operators, one of which is active.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dfs_e2e::{Audit, case, until};
use kube::ResourceExt as _;
use serde_json::json;

/// A lease lasts 15 s, and a standby polls every few seconds.
const TAKEOVER: Duration = Duration::from_secs(20);

#[tokio::test]
async fn e32_standby_takes_over_from_a_killed_leader() -> Result<()> {
    case("e32", async |case| {
        let operator = case.operator_with(&["replicas=2"]).await?;
        let cluster = case.cluster("dfs");
        cluster.start().await?;

        let audit = Audit::begin(&case.env).await?;
        let leader = operator.leader().await?.context("no leader")?;
        let pods = operator.pods().await?;
        ensure!(pods.len() == 2, "there are {} operators", pods.len());
        let pod = pods.iter().find(|pod| pod.name_any() == leader);
        case.nodes().kill_pod(pod.context("the holder of the lease is not a pod")?).await?;
        let next = until("another leader", TAKEOVER, async || {
            Ok(operator.leader().await?.filter(|holder| *holder != leader))
        })
        .await?;

        // It is active, and it alone.
        cluster.merge(json!({ "spec": { "datanodes": { "replicas": 4 } } })).await?;
        cluster.wait_ready().await?;
        if let Some(audit) = audit {
            let requests = audit.requests(&operator.user()).await?;
            let writers: BTreeSet<_> = requests
                .iter()
                .filter(|request| request.is_write() && request.resource() != "events")
                .filter_map(|request| {
                    request.user.extra.get("authentication.kubernetes.io/pod-name")
                })
                .flatten()
                .collect();
            ensure!(writers == BTreeSet::from([&next]), "these wrote: {writers:?}");
        }
        Ok(())
    })
    .await
}
