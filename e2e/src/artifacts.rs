//! Diagnostics kept of a failed case.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::environment::Environment;

/// Kinds that are dumped, besides the pods' logs. Secrets are not among them.
const KINDS: &str = "dfsclusters.dfs.io,pods,deployments,statefulsets,services,endpointslices,\
    persistentvolumeclaims,configmaps,poddisruptionbudgets,networkpolicies,jobs,leases";

/// Writes objects, events, logs and the coordinator's status to a directory. What cannot be read is
/// skipped: the cluster may be broken.
pub(crate) async fn collect(env: &Environment, namespaces: &[String], folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).context("cannot clear the directory")?;
    }
    for namespace in namespaces {
        let folder = folder.join(namespace);
        fs::create_dir_all(&folder).context("cannot create the directory")?;
        let keep = async |file: &str, arguments: &[&str]| -> Result<()> {
            let arguments = [&["--namespace", namespace.as_str()], arguments].concat();
            let text = match env.kubectl(&arguments).end().await {
                Ok(ended) => ended.stdout + &ended.stderr,
                Err(error) => format!("{error:#}"),
            };
            Ok(fs::write(folder.join(file), text)?)
        };
        keep("objects.yaml", &["get", KINDS, "-o", "yaml"]).await?;
        keep("events.txt", &["get", "events", "--sort-by=.lastTimestamp"]).await?;
        keep("overview.txt", &["get", "dfsc,pods,pvc", "-o", "wide"]).await?;
        let names = ["get", "pods", "-o", "name"];
        let arguments = [&["--namespace", namespace.as_str()], &names[..]].concat();
        let pods = env.kubectl(&arguments).run().await.unwrap_or_default();
        for pod in pods.lines() {
            let name = pod.trim_start_matches("pod/");
            let logs = ["logs", pod, "--all-containers", "--prefix", "--tail=5000"];
            keep(&format!("{name}.log"), &logs).await?;
            let before = [&logs[..], &["--previous"]].concat();
            keep(&format!("{name}.previous.log"), &before).await?;
            if name.contains("-coordinator-") {
                let status = ["exec", name, "--", "/usr/local/bin/dfs", "--json", "status"];
                keep(&format!("{name}.status.json"), &status).await?;
            }
        }
    }
    Ok(())
}
