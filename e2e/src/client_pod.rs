//! A pod from which a cluster is used.

use std::time::Duration;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::environment::Environment;
use crate::manifests::start_pod;
use crate::program::Program;

/// How long a command in the pod may take.
const LIMIT: Duration = Duration::from_mins(5);

/// A pod with the command line that waits for commands.
pub struct ClientPod {
    env: Environment,
    namespace: String,
    name: String,
}

impl ClientPod {
    /// Starts one beside the cluster that it is to use.
    pub async fn start(cluster: &Cluster) -> Result<Self> {
        Self::start_in(cluster, &cluster.namespace, &format!("client-of-{}", cluster.name)).await
    }

    /// Starts one somewhere else, or one more.
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

    /// Makes a file of bytes that depend on the seed alone.
    pub async fn make_file(&self, path: &str, length: u64, seed: u64) -> Result<()> {
        self.tool(&["make", path, &length.to_string(), &seed.to_string()]).run().await.map(drop)
    }

    /// Fails unless a file has the bytes of the seed.
    pub async fn check_file(&self, path: &str, length: u64, seed: u64) -> Result<()> {
        self.tool(&["check", path, &length.to_string(), &seed.to_string()]).run().await.map(drop)
    }

    /// Whether something takes connections at `host:port`.
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
