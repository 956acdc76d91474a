//! Finding the cluster that is meant.

use std::str::FromStr;
use std::time::Duration;

use dfs_crd::DfsCluster;
use kube::api::ListParams;
use kube::config::KubeConfigOptions;
use kube::{Api, Client, Config};

use crate::Error;
use crate::network::KubeNetwork;
use crate::pods::{Component, Pods};

/// How long the API server may take for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection to it may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Clusters of a namespace that are looked at.
const CLUSTERS_MAX: u32 = 500;

/// Which cluster is meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Target {
    /// The namespace; that of the context when not set.
    pub namespace: Option<String>,
    /// The name; the only one of the namespace when not set.
    pub name: Option<String>,
}

impl FromStr for Target {
    type Err = Error;

    /// Reads `NAMESPACE/NAME`, or `NAME`.
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
    /// account of the pod that this runs in) and its current context, or the `context` that is
    /// named. Looks at once whether it is there, and has a coordinator that is ready.
    pub async fn find(target: Target, context: Option<String>) -> Result<Self, Error> {
        // Whoever came first has the same one.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let mut config = match context {
            None => Config::infer().await.map_err(|error| Error::Config(Box::new(error)))?,
            context => {
                let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
                Config::from_kubeconfig(&options).await.map_err(Error::Context)?
            }
        };
        config.connect_timeout = Some(CONNECT_WITHIN);
        // A stream may be silent for long; single answers have a deadline of their own.
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
        let asker = Asker { server };
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

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.pods.namespace()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A name that stands for all its coordinators on its [`network`](Self::network).
    pub fn coordinators(&self) -> String {
        self.pods.coordinators()
    }

    /// The network on which its pods have the addresses that they advertise.
    pub fn network(&self) -> KubeNetwork {
        KubeNetwork::new(self.pods.clone())
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cluster({}/{})", self.namespace(), self.name)
    }
}

/// Asks an API server, for a bounded time.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    server: String,
}

impl Asker {
    pub(crate) async fn ask<T>(
        &self,
        what: &str,
        answer: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Error> {
        let server = self.server.clone();
        let Ok(answer) = tokio::time::timeout(ANSWER_WITHIN, answer).await else {
            let seconds = ANSWER_WITHIN.as_secs();
            return Err(Error::Silent { server, what: what.to_owned(), seconds });
        };
        answer.map_err(|error| match error {
            kube::Error::Api(status) if status.is_forbidden() => {
                Error::Forbidden { message: status.message }
            }
            // Lists are there, if empty, wherever the resource is known.
            kube::Error::Api(status) if status.is_not_found() => Error::NotInstalled { server },
            source => Error::Ask { server, what: what.to_owned(), source },
        })
    }
}
