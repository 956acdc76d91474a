//! The operator, as users install it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;

use crate::environment::Environment;
use crate::program::Ended;

/// Time limit for the operator, and helm, to become ready.
const LIMIT: Duration = Duration::from_mins(2);

/// A release of the chart.
#[derive(Clone)]
pub struct Operator {
    env: Environment,
    namespace: String,
    release: String,
}

impl Operator {
    pub(crate) fn new(env: &Environment, namespace: &str, release: &str) -> Self {
        Self { env: env.clone(), namespace: namespace.to_owned(), release: release.to_owned() }
    }

    /// Returns the name of the Deployment, of the lease, and of the ServiceAccount.
    pub fn name(&self) -> String {
        format!("{}-operator", self.release)
    }

    /// Returns its user name in the API server.
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name())
    }

    /// Installs or upgrades it and waits until it is ready.
    pub async fn upgrade(&self, values: &[&str]) -> Result<()> {
        let arguments = ["upgrade", "--install", &self.release, "charts/dfs", "--wait"];
        let mut helm = self.helm(&arguments).arg("--timeout=110s");
        for value in values {
            helm = helm.arg("--set").arg(value);
        }
        helm.run().await.map(drop)
    }

    /// Uninstalls it, if installed.
    pub async fn uninstall(&self) -> Result<()> {
        let ended = self.try_uninstall().await?;
        let is_absent = ended.stderr.contains("not found");
        ensure!(ended.is_success || is_absent, "helm cannot uninstall: {}", ended.stderr);
        Ok(())
    }

    /// Requests its uninstallation, which may be refused.
    pub async fn try_uninstall(&self) -> Result<Ended> {
        self.helm(&["uninstall", &self.release, "--wait"]).end().await
    }

    /// Runs the tests of the chart.
    pub async fn test(&self) -> Result<()> {
        self.helm(&["test", &self.release]).run().await.map(drop)
    }

    fn helm(&self, arguments: &[&str]) -> crate::program::Program {
        let chart = self.env.root.join("charts/dfs");
        let arguments = arguments.iter().map(|argument| match *argument {
            "charts/dfs" => chart.as_os_str(),
            other => other.as_ref(),
        });
        let arguments: Vec<_> = arguments.collect();
        self.env.helm(&["--namespace", &self.namespace]).args(&arguments).within(LIMIT)
    }

    /// Returns its pods.
    pub async fn pods(&self) -> Result<Vec<Pod>> {
        let api: Api<Pod> = Api::namespaced(self.env.client.clone(), &self.namespace);
        let ours = format!(
            "app.kubernetes.io/component=operator,app.kubernetes.io/instance={}",
            self.release
        );
        Ok(api.list(&ListParams::default().labels(&ours)).await?.items)
    }

    /// Returns the leader, if there is one.
    pub async fn leader(&self) -> Result<Option<String>> {
        let api: Api<Lease> = Api::namespaced(self.env.client.clone(), &self.namespace);
        let lease = api.get_opt(&self.name()).await?;
        let holder = lease.and_then(|lease| lease.spec?.holder_identity);
        Ok(holder.filter(|holder| !holder.is_empty()))
    }

    /// Returns the logs of all its pods.
    pub async fn logs(&self) -> Result<String> {
        let of = format!("deployment/{}", self.name());
        let arguments = ["logs", "--all-pods", "--namespace", &self.namespace, &of];
        self.env.kubectl(&arguments).run().await
    }
}

/// Applies the definition of DfsCluster from a directory of the repository.
pub(crate) async fn define(env: &Environment, folder: &str) -> Result<()> {
    let folder = env.root.join(folder);
    let folder = folder.to_str().context("the path of the repository is not UTF-8")?;
    let arguments = ["apply", "--server-side", "--force-conflicts", "-f", folder];
    env.kubectl(&arguments).run().await?;
    let arguments = ["wait", "crd/dfsclusters.dfs.io", "--for=condition=Established"];
    env.kubectl(&arguments).run().await.map(drop)
}
