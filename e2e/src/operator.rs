//! The operator, as users install it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;

use crate::environment::Environment;
use crate::program::Ended;

/// How long the operator may take until it is ready, and helm with it.
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

    /// Name of the Deployment, of the lease, and of the ServiceAccount.
    pub fn name(&self) -> String {
        format!("{}-operator", self.release)
    }

    /// As which user the API server knows it.
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

    /// Uninstalls it, if it is installed.
    pub async fn uninstall(&self) -> Result<()> {
        let ended = self.try_uninstall().await?;
        let is_absent = ended.stderr.contains("not found");
        ensure!(ended.is_success || is_absent, "helm cannot uninstall: {}", ended.stderr);
        Ok(())
    }

    /// Asks for it to be uninstalled, which may be refused.
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

    /// Its pods.
    pub async fn pods(&self) -> Result<Vec<Pod>> {
        let api: Api<Pod> = Api::namespaced(self.env.client.clone(), &self.namespace);
        let ours = format!(
            "app.kubernetes.io/component=operator,app.kubernetes.io/instance={}",
            self.release
        );
        Ok(api.list(&ListParams::default().labels(&ours)).await?.items)
    }

    /// Who leads, if somebody does.
    pub async fn leader(&self) -> Result<Option<String>> {
        let api: Api<Lease> = Api::namespaced(self.env.client.clone(), &self.namespace);
        let lease = api.get_opt(&self.name()).await?;
        let holder = lease.and_then(|lease| lease.spec?.holder_identity);
        Ok(holder.filter(|holder| !holder.is_empty()))
    }

    /// What its pods log, all together.
    pub async fn logs(&self) -> Result<String> {
        let of = format!("deployment/{}", self.name());
        let arguments = ["logs", "--all-pods", "--namespace", &self.namespace, &of];
        self.env.kubectl(&arguments).run().await
    }
}

/// Brings the kind DfsCluster as a folder of the repository defines it.
pub(crate) async fn define(env: &Environment, folder: &str) -> Result<()> {
    let folder = env.root.join(folder);
    let folder = folder.to_str().context("the path of the repository is no text")?;
    let arguments = ["apply", "--server-side", "--force-conflicts", "-f", folder];
    env.kubectl(&arguments).run().await?;
    let arguments = ["wait", "crd/dfsclusters.dfs.io", "--for=condition=Established"];
    env.kubectl(&arguments).run().await.map(drop)
}
