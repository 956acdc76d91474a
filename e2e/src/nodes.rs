//! Control of the Kubernetes nodes, through an external program.

use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, ResourceExt as _};
use tokio::sync::Mutex;

use crate::environment::Environment;
use crate::manifests::delete_pod;
use crate::wait::until;

/// Time limit for the cluster to notice that a node is down.
const NOTICED_LIMIT: Duration = Duration::from_mins(2);
/// Time limit for a node to become ready again.
const READY_LIMIT: Duration = Duration::from_mins(3);

/// The client of the nodes' containerd.
const CTR: [&str; 3] = ["ctr", "--namespace", "k8s.io"];

/// The nodes, and the changes made to them.
pub struct Nodes {
    env: Environment,
    killed: Mutex<Vec<String>>,
    cut_off: Mutex<Vec<String>>,
}

impl Nodes {
    pub(crate) fn new(env: Environment) -> Self {
        Self { env, killed: Mutex::default(), cut_off: Mutex::default() }
    }

    /// Powers a node off, killing every process at once. Waits until the cluster has noticed.
    pub async fn kill(&self, node: &str) -> Result<()> {
        self.killed.lock().await.push(node.to_owned());
        self.run(&["kill-node", node]).await?;
        until(&format!("the end of node {node}"), NOTICED_LIMIT, async || {
            let ready = self.is_ready(node).await?;
            Ok((!ready).then_some(()))
        })
        .await
    }

    /// Powers a node on, and waits until it is ready.
    pub async fn start(&self, node: &str) -> Result<()> {
        self.run(&["start-node", node]).await?;
        self.killed.lock().await.retain(|killed| killed != node);
        self.wait_ready(node).await
    }

    /// Disconnects a node from the network.
    pub async fn cut_off(&self, node: &str) -> Result<()> {
        self.cut_off.lock().await.push(node.to_owned());
        self.run(&["partition", node]).await
    }

    /// Reconnects a node, and waits until it is ready.
    pub async fn heal(&self, node: &str) -> Result<()> {
        self.run(&["heal", node]).await?;
        self.cut_off.lock().await.retain(|cut_off| cut_off != node);
        self.wait_ready(node).await
    }

    /// Undoes all remaining changes.
    pub(crate) async fn restore(&self) -> Result<()> {
        let (killed, cut_off) =
            (self.killed.lock().await.clone(), self.cut_off.lock().await.clone());
        for node in cut_off {
            self.heal(&node).await?;
        }
        for node in killed {
            self.start(&node).await?;
        }
        Ok(())
    }

    /// Kills the processes of a pod without notice, and then deletes it, so that the next one does
    /// not wait for a back-off.
    pub async fn kill_pod(&self, pod: &Pod) -> Result<()> {
        let node = node_of(pod)?;
        for id in containers_of(pod) {
            let kill = [&CTR[..], &["task", "kill", "--signal", "SIGKILL", id]].concat();
            self.run(&[&["exec", node], &kill[..]].concat()).await?;
        }
        let namespace = pod.namespace().context("a pod without a namespace")?;
        delete_pod(&self.env, &namespace, &pod.name_any()).await
    }

    /// Returns the resident memory of the processes of a pod in bytes.
    pub async fn resident_bytes(&self, pod: &Pod) -> Result<u64> {
        let node = node_of(pod)?;
        let inside = |command: &[&str]| {
            let all = [&["exec", node], command].concat();
            self.env.cluster_program().map(|program| program.args(&all))
        };
        let tasks = inside(&[&CTR[..], &["task", "list"]].concat())?.run().await?;
        let mut bytes = 0;
        for id in containers_of(pod) {
            let task = tasks.lines().find(|line| line.starts_with(id));
            let pid = task.and_then(|line| line.split_whitespace().nth(1));
            let pid = pid.with_context(|| format!("container {id} has no process in {tasks}"))?;
            let status = inside(&["cat", &format!("/proc/{pid}/status")])?.run().await?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
            bytes += kib.context("the process says no VmRSS")?.parse::<u64>()? * 1024;
        }
        Ok(bytes)
    }

    async fn wait_ready(&self, node: &str) -> Result<()> {
        until(&format!("node {node}"), READY_LIMIT, async || {
            Ok(self.is_ready(node).await?.then_some(()))
        })
        .await
    }

    async fn is_ready(&self, node: &str) -> Result<bool> {
        let api: Api<Node> = Api::all(self.env.client.clone());
        let status = api.get(node).await?.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        Ok(conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
    }

    async fn run(&self, arguments: &[&str]) -> Result<()> {
        self.env.cluster_program()?.args(arguments).run().await.map(drop)
    }
}

fn node_of(pod: &Pod) -> Result<&str> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    node.context("the pod is on no node")
}

/// Returns the ids of the running containers.
fn containers_of(pod: &Pod) -> Vec<&str> {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref());
    let ids = statuses.unwrap_or_default().iter().filter_map(|one| one.container_id.as_deref());
    ids.filter_map(|id| id.rsplit('/').next()).collect()
}
