//! Foreign settings on our objects are kept.

use std::time::Duration;

use anyhow::{Result, ensure};
use dfs_e2e::{case, until};
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

#[tokio::test]
async fn e05_foreign_labels_survive_a_change() -> Result<()> {
    case("e05", async |case| {
        case.operator().await?;
        let cluster = case.cluster("dfs");
        cluster.start().await?;

        let api: Api<StatefulSet> = Api::namespaced(case.env.client.clone(), &case.namespace);
        let foreign = json!({ "metadata": {
            "labels": { "example.com/team": "storage" },
            "annotations": { "example.com/note": "ours" },
        }});
        let name = cluster.statefulset().await?.name_any();
        api.patch(&name, &PatchParams::default(), &Patch::Merge(foreign)).await?;

        let change = json!({ "spec": { "datanodes": { "replicas": 4 } } });
        cluster.merge(change).await?;
        until("the fourth datanode", Duration::from_mins(1), async || {
            let replicas = cluster.statefulset().await?.spec.and_then(|spec| spec.replicas);
            Ok((replicas == Some(4)).then_some(()))
        })
        .await?;
        cluster.wait_ready().await?;
        let after = cluster.statefulset().await?;
        ensure!(after.labels().get("example.com/team").is_some_and(|team| team == "storage"));
        ensure!(after.annotations().get("example.com/note").is_some_and(|note| note == "ours"));
        Ok(())
    })
    .await
}
