//! Deleted objects are recreated.

use std::time::Duration;

use anyhow::{Result, ensure};
use dfs_e2e::{ClientPod, case, until};

const KINDS: [&str; 7] = [
    "serviceaccount",
    "configmap",
    "service",
    "networkpolicy",
    "poddisruptionbudget",
    "deployment",
    "statefulset",
];

#[tokio::test]
async fn e04_deleted_objects_are_recreated_identically() -> Result<()> {
    case("e04", async |case| {
        case.operator().await?;
        let cluster = case.cluster("dfs");
        cluster.start().await?;
        let pod = ClientPod::start(&cluster).await?;
        pod.make_file("/tmp/file", 1_000_000, 4).await?;
        pod.dfs(&["put", "/tmp/file", "/file"]).await?;

        let mut objects = Vec::new();
        for kind in KINDS {
            let of_kind = cluster.objects(kind).await?;
            ensure!(!of_kind.is_empty(), "the cluster has no {kind}");
            objects.extend(of_kind);
        }
        for before in &objects {
            before.delete(&case.env).await?;
            let what = format!("{before} as it was");
            until(&what, Duration::from_secs(30), async || {
                let after = before.again(&case.env).await?;
                Ok(after
                    .filter(|after| !after.is_same_object(before))
                    .filter(|after| after.content == before.content))
            })
            .await?;
        }
        cluster.wait_ready().await?;
        pod.dfs(&["get", "/file", "/tmp/back"]).await?;
        pod.check_file("/tmp/back", 1_000_000, 4).await
    })
    .await
}
