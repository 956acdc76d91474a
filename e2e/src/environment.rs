//! Environment of the tests.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use kube::Client;
use kube::config::{Config, KubeConfigOptions};

use crate::program::Program;

/// Kubeconfig context that may be changed. The current context is never used implicitly.
const CONTEXT: &str = "DFS_E2E_CONTEXT";
/// Program that switches nodes off and on, if available, such as `e2e/kind`.
const CLUSTER: &str = "DFS_E2E_CLUSTER";
/// The command line, for use outside the cluster.
const DFS: &str = "DFS_E2E_DFS";
/// Directory for diagnostics of failed cases.
const ARTIFACTS: &str = "DFS_E2E_ARTIFACTS";
/// Set to keep the namespace of a case that failed.
const KEEP: &str = "DFS_E2E_KEEP";

/// Image of the pods that use a cluster: the command line, and the load generator.
pub(crate) const CLIENT_IMAGE: &str = "dfs.test/dfs-e2e:e2e";
/// Version of this tree.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A Kubernetes cluster chosen for the tests, and the tools available.
#[derive(Clone)]
pub struct Environment {
    /// Client of the API server.
    pub client: Client,
    context: String,
    cluster: Option<PathBuf>,
    /// Root of the repository.
    pub root: PathBuf,
    pub(crate) artifacts: PathBuf,
    pub(crate) is_kept_on_failure: bool,
}

impl Environment {
    /// Uses the context named by the environment, and fails if it names none.
    pub async fn from_env() -> Result<Self> {
        let context = env::var(CONTEXT)
            .with_context(|| format!("{CONTEXT} does not name a context to test on"))?;
        let options = KubeConfigOptions { context: Some(context.clone()), ..Default::default() };
        let config = Config::from_kubeconfig(&options)
            .await
            .with_context(|| format!("the kubeconfig has no usable context {context:?}"))?;
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let root = root.parent().context("the package is not in a repository")?.to_owned();
        Ok(Self {
            client: Client::try_from(config)?,
            context,
            cluster: env::var_os(CLUSTER).map(PathBuf::from),
            artifacts: env::var_os(ARTIFACTS)
                .map_or_else(|| root.join("target/e2e/failed"), PathBuf::from),
            root,
            is_kept_on_failure: env::var_os(KEEP).is_some(),
        })
    }

    /// Returns a kubectl command for this cluster.
    pub fn kubectl(&self, arguments: &[&str]) -> Program {
        Program::new("kubectl").arg("--context").arg(&self.context).args(arguments)
    }

    /// Returns a `dfs` command on the machine of the tests, which knows no cluster unless one is
    /// given.
    pub fn dfs(&self, arguments: &[&str]) -> Result<Program> {
        let program = env::var_os(DFS).with_context(|| format!("{DFS} does not name `dfs`"))?;
        Ok(Program::new(program).args(arguments))
    }

    /// Returns the context that may be changed.
    pub fn context(&self) -> &str {
        &self.context
    }

    /// Returns a helm command for this cluster.
    pub fn helm(&self, arguments: &[&str]) -> Program {
        Program::new("helm").arg("--kube-context").arg(&self.context).args(arguments)
    }

    /// Returns the program that controls the nodes.
    pub(crate) fn cluster_program(&self) -> Result<Program> {
        let program = self.cluster.as_ref().with_context(|| {
            format!("{CLUSTER} does not name a program that can switch nodes off and on")
        })?;
        Ok(Program::new(program))
    }

    /// Returns the version after this one, of which there are images too.
    pub fn next_version(&self) -> Result<String> {
        let parts: Vec<&str> = VERSION.split('.').collect();
        let [major, minor, _] = parts[..] else { bail!("{VERSION} is not a version") };
        Ok(format!("{major}.{}.0", minor.parse::<u32>()? + 1))
    }

    /// Returns true if there is a program that controls the nodes.
    pub fn has_nodes(&self) -> bool {
        self.cluster.is_some()
    }
}
