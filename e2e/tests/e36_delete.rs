//! Deletion: what is removed, and what stays.

use std::time::Duration;

use anyhow::{Result, ensure};
use dfs_e2e::{ClientPod, case, minimal, until};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::json;

#[tokio::test]
async fn e36_deleted_cluster_keeps_its_volumes_and_is_recreated_with_its_files() -> Result<()> {
    case("e36-retain", async |case| {
        case.operator().await?;
        let cluster = case.cluster("dfs");
        cluster.start().await?;
        let pod = ClientPod::start(&cluster).await?;
        pod.make_file("/tmp/file", 5_000_000, 36).await?;
        pod.dfs(&["put", "/tmp/file", "/file"]).await?;

        cluster.delete().await?;
        until("the end of the pods", Duration::from_secs(150), async || {
            let left =
                cluster.pods("datanode").await?.len() + cluster.pods("coordinator").await?.len();
            Ok((left == 0).then_some(()))
        })
        .await?;
        let kept = cluster.claims().await?.len();
        ensure!(kept == 4, "expected 4 claims to stay, found {kept}");

        cluster.start().await?;
        pod.dfs(&["get", "/file", "/tmp/back"]).await?;
        pod.check_file("/tmp/back", 5_000_000, 36).await
    })
    .await
}

#[tokio::test]
async fn e36_confirmed_deletion_removes_the_volumes() -> Result<()> {
    case("e36-delete", async |case| {
        case.operator().await?;
        let cluster = case.cluster("dfs");
        cluster.start().await?;
        let last = json!({ "deletionPolicy": "Delete", "deletionConfirmation": "dfs" });
        cluster.merge(json!({ "spec": last })).await?;
        // The operator must have seen it, or it retains.
        cluster.wait_ready().await?;
        cluster.delete().await?;
        until("the end of the claims", Duration::from_secs(150), async || {
            Ok(cluster.claims().await?.is_empty().then_some(()))
        })
        .await
    })
    .await
}

#[tokio::test]
async fn e36_unconfirmed_deletion_destroys_nothing() -> Result<()> {
    case("e36-unconfirmed", async |case| {
        case.operator().await?;
        let cluster = case.cluster("dfs");
        cluster.start().await?;
        cluster.merge(json!({ "spec": { "deletionPolicy": "Delete" } })).await?;
        cluster.wait_ready().await?;
        cluster.begin_delete().await?;
        let blocked = Duration::from_secs(30);
        let condition = cluster.wait_condition("DeletionBlocked", "True", blocked).await?;
        ensure!(condition["reason"] == "ConfirmationMissing", "it is {condition}");
        cluster.wait_pods_ready("datanode", 3).await?;

        // The user reconsiders.
        cluster.merge(json!({ "spec": { "deletionPolicy": "Retain" } })).await?;
        cluster.wait_gone().await?;
        ensure!(cluster.claims().await?.len() == 4, "claims are gone");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn e36_namespace_can_be_deleted_but_a_needed_operator_cannot() -> Result<()> {
    case("e36-namespace", async |case| {
        // The operator is in another namespace: otherwise it would be deleted before it has removed
        // the cluster's finalizer.
        let home = case.make_namespace("e36-home").await?;
        let own = format!("watchNamespaces={{{}}}", case.namespace);
        let operator = case.install(&home, &[&own, "crds.install=false"]).await?;
        let cluster = case.cluster("dfs");
        cluster.apply(minimal()).await?;
        cluster.wait_ready().await?;

        let refused = operator.try_uninstall().await?;
        ensure!(!refused.is_success, "the operator was uninstalled although a cluster exists");

        let api: Api<Namespace> = Api::all(case.env.client.clone());
        api.delete(&case.namespace, &DeleteParams::default()).await?;
        until("the end of the namespace", Duration::from_mins(3), async || {
            Ok(api.get_opt(&case.namespace).await?.is_none().then_some(()))
        })
        .await?;
        operator.uninstall().await
    })
    .await
}
