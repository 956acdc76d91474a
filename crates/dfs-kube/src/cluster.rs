//! Finds a cluster in Kubernetes.

use std::str::FromStr;
use std::time::Duration;

use dfs_crd::DfsCluster;
use kube::api::ListParams;
use kube::config::KubeConfigOptions;
use kube::{Api, Client, Config};

use crate::Error;
use crate::asker::Asker;
use crate::network::KubeNetwork;
use crate::pods::{Component, Pods};

/// Time limit of connecting to it.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Maximum number of clusters of a namespace that are listed.
const CLUSTERS_MAX: u32 = 500;

/// The cluster to find.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Target {
    /// The namespace; that of the context when not set.
    pub namespace: Option<String>,
    /// The name; the only one of the namespace when not set.
    pub name: Option<String>,
}

impl FromStr for Target {
    type Err = Error;

    /// Parses `NAMESPACE/NAME`, or `NAME`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        let is_label = |label: &str| {
            let is_fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            (1..=63).contains(&label.len()) && label.chars().all(is_fine)
        };
        if !is_label(name) || !namespace.is_none_or(is_label) {
            return Err(Error::Target(text.to_owned()));
        }
        Ok(Self { namespace: namespace.map(str::to_owned), name: Some(name.to_owned()) })
    }
}

/// A cluster that was found.
#[derive(Clone)]
pub struct Cluster {
    name: String,
    pods: Pods,
}

impl Cluster {
    /// Finds the cluster with the kubeconfig (`KUBECONFIG`, `~/.kube/config`, or the service
    /// account of this pod) and its current context, or the given `context`. Checks at once that it
    /// exists and has a ready coordinator.
    pub async fn find(target: Target, context: Option<String>) -> Result<Self, Error> {
        // An already installed provider is the same.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let mut config = match context {
            None => Config::infer().await.map_err(|error| Error::Config(Box::new(error)))?,
            context => {
                let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
                Config::from_kubeconfig(&options).await.map_err(Error::Context)?
            }
        };
        config.connect_timeout = Some(CONNECT_WITHIN);
        // A stream may be silent for long; single replies have their own deadline.
        config.read_timeout = None;
        let server = config.cluster_url.to_string();
        let namespace = target.namespace.unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(Error::Client)?;
        Self::find_with(client, server, namespace, target.name).await
    }

    pub(crate) async fn find_with(
        client: Client,
        server: String,
        namespace: String,
        name: Option<String>,
    ) -> Result<Self, Error> {
        let asker = Asker::new(server);
        let clusters: Api<DfsCluster> = Api::namespaced(client.clone(), &namespace);
        let params = ListParams::default().limit(CLUSTERS_MAX);
        let listed = asker.ask("its DfsClusters", clusters.list_metadata(&params)).await?;
        let there: Vec<String> = listed.items.iter().map(kube::ResourceExt::name_any).collect();
        let name = match (name, &there[..]) {
            (Some(name), there) if there.contains(&name) => name,
            (Some(name), _) => return Err(Error::NoCluster { namespace, name, there }),
            (None, [only]) => only.clone(),
            (None, _) => return Err(Error::NotOne { namespace, there }),
        };
        let pods = Pods::new(asker, client, namespace.clone(), name.clone());
        let known = pods.refreshed().await?;
        let mut coordinators = known.iter().filter(|pod| pod.component == Component::Coordinator);
        if !coordinators.clone().any(|pod| pod.is_ready) {
            let states: Vec<String> = coordinators.by_ref().map(ToString::to_string).collect();
            let states =
                if states.is_empty() { "it has no pods".to_owned() } else { states.join(", ") };
            return Err(Error::NoCoordinator { namespace, name, states });
        }
        Ok(Self { name, pods })
    }

    /// Returns its namespace.
    pub fn namespace(&self) -> &str {
        self.pods.namespace()
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns a name that resolves to all its coordinators on its [`network`](Self::network).
    pub fn coordinators(&self) -> String {
        self.pods.coordinators()
    }

    /// Returns the network on which its pods have their advertised addresses.
    pub fn network(&self) -> KubeNetwork {
        KubeNetwork::new(self.pods.clone())
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cluster({}/{})", self.namespace(), self.name)
    }
}
