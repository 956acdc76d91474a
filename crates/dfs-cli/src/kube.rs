//! Clusters found and reached through Kubernetes.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use dfs_client::{ClientBuilder, Components};
use dfs_kube::{Cluster, Target};
use dfs_types::ErrorCode;

use crate::error::{Error, Result};

/// Program name as a kubectl plugin.
const PLUGIN: &str = "kubectl-dfs";

/// Options for the cluster in Kubernetes and its API server.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = crate::HEADING)]
pub(crate) struct KubeOptions {
    /// The DfsCluster to talk to, found with the kubeconfig and reached through the API server; the
    /// namespace defaults to that of the context. Not for servers.
    #[arg(long, global = true, env = "DFS_KUBE", value_name = "NAMESPACE/NAME")]
    kube: Option<String>,
    /// The kubeconfig context to use with it; the current one by default.
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
}

/// Additional options of the kubectl plugin.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = crate::HEADING)]
pub(crate) struct PluginOptions {
    /// The namespace of the DfsCluster; that of the context by default.
    #[arg(long, short, global = true, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// The name of the DfsCluster; the only one of the namespace by default.
    #[arg(long, global = true, value_name = "NAME")]
    cluster: Option<String>,
}

/// Returns true if the program was called as a kubectl plugin.
pub(crate) fn is_plugin(name: &OsStr) -> bool {
    Path::new(name).file_stem() == Some(OsStr::new(PLUGIN))
}

impl PluginOptions {
    /// Returns true if a cluster or a namespace is given.
    pub(crate) fn names_any(&self) -> bool {
        self.namespace.is_some() || self.cluster.is_some()
    }

    /// Returns the target that the options name.
    pub(crate) fn into_target(self) -> Target {
        Target { namespace: self.namespace, name: self.cluster }
    }
}

impl KubeOptions {
    /// Returns true if a cluster is given.
    pub(crate) fn is_named(&self) -> bool {
        self.kube.is_some()
    }

    /// Returns the given cluster, if any.
    pub(crate) fn target(&self) -> std::result::Result<Option<Target>, dfs_kube::Error> {
        self.kube.as_deref().map(str::parse).transpose()
    }

    /// Finds the cluster, and connects the client to it.
    pub(crate) async fn connect(
        &self,
        target: Target,
        client: ClientBuilder,
    ) -> Result<ClientBuilder> {
        let cluster = Cluster::find(target, self.context.clone()).await?;
        let network = Arc::new(cluster.network());
        let components = Components { network, ..Components::default() };
        Ok(client.coordinator(cluster.coordinators()).components(components))
    }
}

impl From<dfs_kube::Error> for Error {
    fn from(error: dfs_kube::Error) -> Self {
        use dfs_kube::Error as Kube;
        let (code, hint) = match &error {
            Kube::Target(_) | Kube::Config(_) | Kube::Context(_) | Kube::Client(_) => {
                (ErrorCode::InvalidArgument, None)
            }
            Kube::NotOne { .. } => {
                (ErrorCode::InvalidArgument, Some("name one with --kube NAMESPACE/NAME"))
            }
            Kube::Forbidden { .. } => (ErrorCode::PermissionDenied, None),
            Kube::NotInstalled { .. } => (ErrorCode::NotFound, None),
            Kube::NoCluster { .. } => {
                (ErrorCode::NotFound, Some("`kubectl get dfsclusters --all-namespaces` lists them"))
            }
            Kube::NoCoordinator { .. } => (
                ErrorCode::Unavailable,
                Some("`kubectl get dfsclusters` and `kubectl get pods` say more"),
            ),
            _ => {
                (ErrorCode::Unavailable, Some("check that kubectl works with the same kubeconfig"))
            }
        };
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            source = cause.source();
        }
        let error = Self::new(code, message);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}
