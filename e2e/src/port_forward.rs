//! Access for users with only kubectl.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::cluster::Cluster;

/// Time limit for kubectl to listen.
const LIMIT: Duration = Duration::from_secs(30);

/// `kubectl port-forward` to the coordinators of a cluster; ends when dropped.
pub struct PortForward {
    port: u16,
    _kubectl: Child,
}

impl PortForward {
    /// Starts it on a free port.
    pub async fn start(cluster: &Cluster) -> Result<Self> {
        let service = format!("svc/{}-coordinator", cluster.name);
        let mut kubectl = Command::new("kubectl")
            .args(["--context", cluster.env.context(), "--namespace", &cluster.namespace])
            .args(["port-forward", &service, ":7070"])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot run kubectl")?;
        let stdout = kubectl.stdout.take().context("its stdout is a pipe")?;
        let mut lines = BufReader::new(stdout).lines();
        // Forwarding from 127.0.0.1:40123 -> 7070
        let line = tokio::time::timeout(LIMIT, lines.next_line()).await??;
        let line = line.context("kubectl port-forward has ended")?;
        let port = line
            .split_once("127.0.0.1:")
            .and_then(|(_, rest)| rest.split(' ').next()?.parse().ok())
            .with_context(|| format!("kubectl says {line:?}"))?;
        // It blocks if its output about each connection is not read.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { port, _kubectl: kubectl })
    }

    /// Returns the URL of the coordinators.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}
