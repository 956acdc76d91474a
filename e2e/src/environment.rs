//! Where the tests run.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use kube::Client;
use kube::config::{Config, KubeConfigOptions};

use crate::program::Program;

/// The context of the kubeconfig that may be changed. The current one is never taken by itself.
const CONTEXT: &str = "DFS_E2E_CONTEXT";
/// The program that switches nodes off and on, if there is one: `e2e/kind` is such a program.
const CLUSTER: &str = "DFS_E2E_CLUSTER";
/// The command line, for use outside of the cluster.
const DFS: &str = "DFS_E2E_DFS";
/// Where what failed is looked at.
const ARTIFACTS: &str = "DFS_E2E_ARTIFACTS";
/// Set to keep the namespace of a case that failed.
const KEEP: &str = "DFS_E2E_KEEP";

/// Image of the pods that use a cluster: the command line, and what makes load.
pub(crate) const CLIENT_IMAGE: &str = "dfs.test/dfs-e2e:e2e";
/// Version of this tree.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A Kubernetes that was named for this, and what is at hand to test on it.
#[derive(Clone)]
pub struct Environment {
    /// Talks to the API server.
    pub client: Client,
    context: String,
    cluster: Option<PathBuf>,
    /// Where the repository lies.
    pub root: PathBuf,
    pub(crate) artifacts: PathBuf,
    pub(crate) is_kept_on_failure: bool,
}

impl Environment {
    /// Takes the context that the environment names, and fails when it names none.
    pub async fn from_env() -> Result<Self> {
        let context = env::var(CONTEXT)
            .with_context(|| format!("{CONTEXT} does not name the Kubernetes to test on"))?;
        let options = KubeConfigOptions { context: Some(context.clone()), ..Default::default() };
        let config = Config::from_kubeconfig(&options)
            .await
            .with_context(|| format!("the kubeconfig has no usable context {context:?}"))?;
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let root = root.parent().context("the package lies in no repository")?.to_owned();
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

    /// kubectl in this Kubernetes.
    pub fn kubectl(&self, arguments: &[&str]) -> Program {
        Program::new("kubectl").arg("--context").arg(&self.context).args(arguments)
    }

    /// `dfs` on the machine of the tests, which knows of no cluster unless it is told.
    pub fn dfs(&self, arguments: &[&str]) -> Result<Program> {
        let program = env::var_os(DFS).with_context(|| format!("{DFS} does not name `dfs`"))?;
        Ok(Program::new(program).args(arguments))
    }

    /// The context that may be changed.
    pub fn context(&self) -> &str {
        &self.context
    }

    /// helm in this Kubernetes.
    pub fn helm(&self, arguments: &[&str]) -> Program {
        Program::new("helm").arg("--kube-context").arg(&self.context).args(arguments)
    }

    /// The program that has power over nodes.
    pub(crate) fn cluster_program(&self) -> Result<Program> {
        let program = self.cluster.as_ref().with_context(|| {
            format!("{CLUSTER} does not name a program that can switch nodes off and on")
        })?;
        Ok(Program::new(program))
    }

    /// The version after this one, of which there are images as well.
    pub fn next_version(&self) -> Result<String> {
        let parts: Vec<&str> = VERSION.split('.').collect();
        let [major, minor, _] = parts[..] else { bail!("{VERSION} is no version") };
        Ok(format!("{major}.{}.0", minor.parse::<u32>()? + 1))
    }

    /// Whether there is a program with power over nodes.
    pub fn has_nodes(&self) -> bool {
        self.cluster.is_some()
    }
}
