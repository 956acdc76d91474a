//! Observation of pods during a rollout.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::cluster::Cluster;

/// Polling interval.
const INTERVAL: Duration = Duration::from_millis(100);

/// Watches the pods of a cluster until it is finished.
pub struct Rollout {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

/// Observations.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Maximum number of datanodes that were not ready at the same time.
    pub datanodes_down_max: usize,
    /// New pods, in order, as `component/name`.
    pub replaced: Vec<String>,
    known: BTreeSet<String>,
}

impl Rollout {
    /// Watches a cluster with `datanodes` datanodes, all of which exist.
    pub async fn watch(cluster: &Cluster, datanodes: usize) -> Result<Self> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        look(cluster, datanodes, &seen).await?;
        lock(&seen).replaced.clear();
        let (cluster, ours) = (cluster.clone(), seen.clone());
        let task = tokio::spawn(async move {
            loop {
                sleep(INTERVAL).await;
                // The next poll sees the same.
                drop(look(&cluster, datanodes, &ours).await);
            }
        });
        Ok(Self { seen, task })
    }

    /// Stops watching.
    pub fn finish(self) -> Seen {
        self.task.abort();
        lock(&self.seen).clone()
    }
}

async fn look(cluster: &Cluster, datanodes: usize, seen: &Mutex<Seen>) -> Result<()> {
    for component in ["coordinator", "datanode"] {
        let pods = cluster.pods(component).await?;
        let mut seen = lock(seen);
        for pod in &pods {
            if seen.known.insert(pod.uid().context("a pod without a UID")?) {
                seen.replaced.push(format!("{component}/{}", pod.name_any()));
            }
        }
        if component == "datanode" {
            let ready = pods.iter().filter(|pod| is_ready(pod)).count();
            seen.datanodes_down_max = seen.datanodes_down_max.max(datanodes.saturating_sub(ready));
        }
    }
    Ok(())
}

/// Returns true if a pod serves.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.is_some_and(|all| {
            all.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        })
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
