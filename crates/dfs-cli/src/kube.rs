//! Clusters that are found and reached through their Kubernetes.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use dfs_client::{ClientBuilder, Components};
use dfs_kube::{Cluster, Target};
use dfs_types::ErrorCode;

use crate::error::{Error, Result};

/// The name under which kubectl finds the program as a plugin.
const PLUGIN: &str = "kubectl-dfs";

/// Options that say which cluster, and where its Kubernetes is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = crate::global::HEADING)]
pub(crate) struct KubeOptions {
    /// The DfsCluster to talk to, found with the kubeconfig and reached through the API server;
    /// without a namespace, in that of the context. Not for servers.
    #[arg(long, global = true, env = "DFS_KUBE", value_name = "NAMESPACE/NAME")]
    kube: Option<String>,
    /// The context of the kubeconfig to use with it; the current one when not set.
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
}

/// What a plugin of kubectl takes besides.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = crate::global::HEADING)]
pub(crate) struct PluginOptions {
    /// The namespace of the DfsCluster; that of the context when not set.
    #[arg(long, short, global = true, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// The name of the DfsCluster; the only one of the namespace when not set.
    #[arg(long, global = true, value_name = "NAME")]
    cluster: Option<String>,
}

/// Whether the program was called as a plugin of kubectl.
pub(crate) fn is_plugin(name: &OsStr) -> bool {
    Path::new(name).file_stem() == Some(OsStr::new(PLUGIN))
}

impl PluginOptions {
    /// Whether a cluster or a namespace is named.
    pub(crate) fn names_any(&self) -> bool {
        self.namespace.is_some() || self.cluster.is_some()
    }

    /// What is meant.
    pub(crate) fn into_target(self) -> Target {
        Target { namespace: self.namespace, name: self.cluster }
    }
}

impl KubeOptions {
    /// Whether a cluster is named.
    pub(crate) fn is_named(&self) -> bool {
        self.kube.is_some()
    }

    /// The cluster that is named, if one is.
    pub(crate) fn target(&self) -> std::result::Result<Option<Target>, dfs_kube::Error> {
        self.kube.as_deref().map(str::parse).transpose()
    }

    /// Finds the cluster, and makes the client reach it.
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
            _ => (ErrorCode::Unavailable, Some("does kubectl work with the same kubeconfig?")),
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
        let told = Self::new(code, message);
        match hint {
            Some(hint) => told.hint(hint),
            None => told,
        }
    }
}
