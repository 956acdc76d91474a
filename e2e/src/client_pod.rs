//! A pod that uses a cluster.

use std::time::Duration;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::environment::Environment;
use crate::manifests::start_pod;
use crate::program::Program;

/// Time limit of a command in the pod.
const LIMIT: Duration = Duration::from_mins(5);

/// A pod with the command line, waiting for commands.
pub struct ClientPod {
    env: Environment,
    namespace: String,
    name: String,
}

impl ClientPod {
    /// Starts a pod in the namespace of the cluster.
    pub async fn start(cluster: &Cluster) -> Result<Self> {
        Self::start_in(cluster, &cluster.namespace, &format!("client-of-{}", cluster.name)).await
    }

    /// Starts a pod with this name in any namespace.
    pub async fn start_in(cluster: &Cluster, namespace: &str, name: &str) -> Result<Self> {
        start_pod(&cluster.env, namespace, name, &cluster.url(), &["idle"]).await?;
        Ok(Self {
            env: cluster.env.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }

    /// Runs `dfs` in it.
    pub async fn dfs(&self, arguments: &[&str]) -> Result<String> {
        self.exec(&["/usr/local/bin/dfs"]).args(arguments).run().await
    }

    /// Creates a file of bytes determined by the seed.
    pub async fn make_file(&self, path: &str, length: u64, seed: u64) -> Result<()> {
        self.tool(&["make", path, &length.to_string(), &seed.to_string()]).run().await.map(drop)
    }

    /// Fails unless a file has the bytes of the seed.
    pub async fn check_file(&self, path: &str, length: u64, seed: u64) -> Result<()> {
        self.tool(&["check", path, &length.to_string(), &seed.to_string()]).run().await.map(drop)
    }

    /// Returns true if `host:port` accepts connections.
    pub async fn can_connect(&self, address: &str) -> Result<bool> {
        Ok(self.tool(&["connect", address]).end().await?.is_success)
    }

    fn tool(&self, arguments: &[&str]) -> Program {
        self.exec(&["/usr/local/bin/dfs-e2e-client"]).args(arguments)
    }

    fn exec(&self, command: &[&str]) -> Program {
        let exec = ["exec", "--namespace", &self.namespace, &self.name, "--"];
        self.env.kubectl(&exec).args(command).within(LIMIT)
    }
}
