//! Files written and read continuously, each byte checked.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::manifests::start_pod;
use crate::wait::until;

const NAME: &str = "workload";
/// Time limit of the final check.
const FINISH_LIMIT: Duration = Duration::from_mins(2);

/// A pod that writes and reads.
pub struct Workload {
    cluster: Cluster,
}

/// Report of a workload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Writes that were acknowledged.
    pub writes: u64,
    /// Reads that returned the right bytes.
    pub reads: u64,
    /// Duration of the slowest operation in milliseconds.
    pub slowest_ms: u64,
    /// The first operations that failed.
    pub failed: Vec<String>,
    /// The first acknowledged writes whose bytes are missing or wrong.
    pub lost: Vec<String>,
}

impl Workload {
    /// Starts it and waits for the first writes.
    pub async fn start(cluster: &Cluster) -> Result<Self> {
        start_pod(&cluster.env, &cluster.namespace, NAME, &cluster.url(), &["load"]).await?;
        Ok(Self { cluster: cluster.clone() })
    }

    /// Stops it: everything acknowledged is read again.
    pub async fn finish(self) -> Result<Report> {
        let Cluster { env, namespace, .. } = &self.cluster;
        let stop = ["exec", "-n", namespace, NAME, "--", "/usr/local/bin/dfs-e2e-client", "stop"];
        env.kubectl(&stop).run().await.context("the load stopped unexpectedly")?;
        let pods: Api<Pod> = Api::namespaced(env.client.clone(), namespace);
        until("the end of the load", FINISH_LIMIT, async || {
            let status = pods.get_status(NAME).await?.status.unwrap_or_default();
            match status.phase.as_deref() {
                Some("Succeeded" | "Failed") => Ok(Some(())),
                phase => bail!("its phase is {phase:?}"),
            }
        })
        .await?;
        let log = env.kubectl(&["logs", "-n", namespace, NAME, "--tail=1"]).run().await?;
        serde_json::from_str(log.trim()).with_context(|| format!("the load says {log:?}"))
    }
}

impl Report {
    /// Fails if something was lost.
    pub fn nothing_lost(&self) -> Result<()> {
        ensure!(self.writes > 0 && self.reads > 0, "nothing was written or read: {self:?}");
        ensure!(self.lost.is_empty(), "acknowledged writes were lost: {self:?}");
        Ok(())
    }

    /// Fails if something was lost, or an operation failed.
    pub fn nothing_failed(&self) -> Result<()> {
        self.nothing_lost()?;
        ensure!(self.failed.is_empty(), "operations failed: {self:?}");
        Ok(())
    }
}
