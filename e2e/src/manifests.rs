//! Pods of the tests themselves.

use std::time::Duration;

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use crate::environment::{CLIENT_IMAGE, Environment};
use crate::wait::until;

/// Time limit for a pod to start.
const START_LIMIT: Duration = Duration::from_mins(1);

/// Creates a pod of `dfs-e2e-client` with these arguments and waits until it runs.
pub(crate) async fn start_pod(
    env: &Environment,
    namespace: &str,
    name: &str,
    coordinator: &str,
    arguments: &[&str],
) -> Result<()> {
    let pod = serde_json::from_value(json!({
        "metadata": { "name": name, "labels": { "dfs.test/pod": name } },
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": 65532,
                "seccompProfile": { "type": "RuntimeDefault" },
            },
            "containers": [{
                "name": "client",
                "image": CLIENT_IMAGE,
                "imagePullPolicy": "IfNotPresent",
                "command": ["/usr/local/bin/dfs-e2e-client"],
                "args": arguments,
                "env": [{ "name": "DFS_COORDINATOR", "value": coordinator }],
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": { "drop": ["ALL"] },
                },
                "volumeMounts": [{ "name": "tmp", "mountPath": "/tmp" }],
            }],
            "volumes": [{ "name": "tmp", "emptyDir": {} }],
        },
    }))?;
    let api: Api<Pod> = Api::namespaced(env.client.clone(), namespace);
    api.create(&PostParams::default(), &pod).await?;
    until(&format!("a running pod {name}"), START_LIMIT, async || {
        let status = api.get_status(name).await?.status.unwrap_or_default();
        match status.phase.as_deref() {
            Some("Running") => Ok(Some(())),
            _ => bail!("its status is {}", serde_json::to_string(&status)?),
        }
    })
    .await
}

/// Deletes a pod immediately.
pub(crate) async fn delete_pod(env: &Environment, namespace: &str, name: &str) -> Result<()> {
    let api: Api<Pod> = Api::namespaced(env.client.clone(), namespace);
    api.delete(name, &DeleteParams::default().grace_period(0)).await?;
    Ok(())
}
