//! Why a cluster cannot be reached through its Kubernetes.

use kube::config::{InferConfigError, KubeconfigError};

/// What a user needs in the namespace of a cluster.
pub(crate) const PERMISSIONS: &str =
    "get and list dfsclusters.dfs.io and pods, get and create pods/portforward";

/// Why a cluster cannot be reached through its Kubernetes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not `NAMESPACE/NAME` or `NAME`.
    #[error("{0:?} names no DfsCluster: NAMESPACE/NAME or NAME is wanted")]
    Target(String),
    /// There is no kubeconfig, or it makes no sense.
    #[error("no Kubernetes is set up here: KUBECONFIG or ~/.kube/config says where one is")]
    Config(#[source] Box<InferConfigError>),
    /// The kubeconfig has no such context, or makes no sense.
    #[error("the kubeconfig cannot be used with this context")]
    Context(#[source] KubeconfigError),
    /// No client can be made of what the kubeconfig says.
    #[error("the kubeconfig cannot be used")]
    Client(#[source] kube::Error),
    /// The API server does not answer, or makes no sense.
    #[error("the API server at {server} cannot be asked for {what}")]
    Ask {
        /// Where it is.
        server: String,
        /// What it was asked for.
        what: String,
        /// What came of it.
        #[source]
        source: kube::Error,
    },
    /// The API server gives no answer.
    #[error("the API server at {server} gives no answer to {what} within {seconds} s")]
    Silent {
        /// Where it is.
        server: String,
        /// What it was asked for.
        what: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The user may not do that.
    #[error(
        "the API server does not allow it: {message}; who uses --kube needs the verbs: \
         {PERMISSIONS}"
    )]
    Forbidden {
        /// What the API server said.
        message: String,
    },
    /// The resource is not known there.
    #[error("{server} knows no DfsCluster: dfs is not installed there; see docs/kubernetes.md")]
    NotInstalled {
        /// The API server.
        server: String,
    },
    /// There is no such cluster.
    #[error("there is no DfsCluster {name} in namespace {namespace}; {}", listed(there))]
    NoCluster {
        /// The namespace that was looked in.
        namespace: String,
        /// What was looked for.
        name: String,
        /// What there is.
        there: Vec<String>,
    },
    /// None was named, and there is not just one.
    #[error("which DfsCluster of namespace {namespace} is meant? {}", listed(there))]
    NotOne {
        /// The namespace that was looked in.
        namespace: String,
        /// What there is.
        there: Vec<String>,
    },
    /// No coordinator runs.
    #[error("no coordinator of DfsCluster {namespace}/{name} is ready: {states}")]
    NoCoordinator {
        /// Namespace of the cluster.
        namespace: String,
        /// Its name.
        name: String,
        /// How its pods are.
        states: String,
    },
}

/// Clusters that an error names.
const NAMED_MAX: usize = 20;

fn listed(there: &[String]) -> String {
    match there {
        [] => "there are none".to_owned(),
        there => {
            let named = there.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
            let more = there.len().saturating_sub(NAMED_MAX);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("there are: {named}{more}")
        }
    }
}
