//! Upgrade and downgrade of the operator with a running cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dfs_e2e::{Cluster, Operator, VERSION, Workload, case, until};
use kube::ResourceExt as _;
use serde_json::Value;

const TAKEOVER: Duration = Duration::from_mins(1);

#[tokio::test]
async fn e28_operator_upgrade_restarts_nothing() -> Result<()> {
    case("e28", async |case| {
        case.freeze_definition().await?;
        let operator = case.operator().await?;
        let cluster = case.cluster("dfs");
        cluster.start().await?;
        let load = Workload::start(&cluster).await?;
        let before = pods(&cluster).await?;
        let objects = contents(&cluster).await?;

        // The definition is upgraded first, and not downgraded with the operator.
        case.renew_definition().await?;
        let next = case.env.next_version()?;
        for version in [next.as_str(), VERSION] {
            let was = operator.leader().await?.context("no leader")?;
            let own = format!("watchNamespaces={{{}}}", case.namespace);
            let image = format!("image.tag={version}");
            operator.upgrade(&[&own, "crds.install=false", &image]).await?;
            wait_leader(&operator, &was).await?;
            works(&cluster, version).await?;
            cluster.wait_ready().await?;
            let after = pods(&cluster).await?;
            ensure!(after == before, "operator {version} changed pods: {before:?} {after:?}");
            let after = contents(&cluster).await?;
            ensure!(after == objects, "operator {version} changed {objects:#?} to {after:#?}");
        }
        load.finish().await?.nothing_failed()
    })
    .await
}

/// Returns UIDs and restart counts.
async fn pods(cluster: &Cluster) -> Result<BTreeMap<String, (String, i32)>> {
    let mut found = BTreeMap::new();
    for component in ["coordinator", "datanode"] {
        for pod in cluster.pods(component).await? {
            let uid = pod.uid().context("a pod without a UID")?;
            let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.clone());
            let restarts = statuses.unwrap_or_default().iter().map(|one| one.restart_count).sum();
            found.insert(pod.name_any(), (uid, restarts));
        }
    }
    Ok(found)
}

/// Returns the pod templates of the operator.
async fn contents(cluster: &Cluster) -> Result<Vec<Value>> {
    let mut contents = Vec::new();
    for kind in ["configmap", "service", "deployment", "statefulset"] {
        contents.extend(cluster.objects(kind).await?.into_iter().map(|object| object.content));
    }
    Ok(contents)
}

async fn wait_leader(operator: &Operator, was: &str) -> Result<()> {
    until("another leader", TAKEOVER, async || {
        Ok(operator.leader().await?.filter(|holder| holder != was))
    })
    .await
    .map(drop)
}

/// Checks that the operator works: a deleted object is recreated.
async fn works(cluster: &Cluster, version: &str) -> Result<()> {
    let budgets = cluster.objects("poddisruptionbudget").await?;
    let budget = budgets.first().context("no PodDisruptionBudget")?;
    budget.delete(&cluster.env).await?;
    until(&format!("a sign of operator {version}"), TAKEOVER, async || {
        let after = budget.again(&cluster.env).await?;
        Ok(after.filter(|after| !after.is_same_object(budget)))
    })
    .await
    .map(drop)
}
