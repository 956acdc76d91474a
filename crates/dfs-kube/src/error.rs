//! Errors of reaching a cluster through Kubernetes.

use kube::config::{InferConfigError, KubeconfigError};

/// Permissions that a user needs in the namespace of a cluster.
pub(crate) const PERMISSIONS: &str =
    "get and list dfsclusters.dfs.io and pods, get and create pods/portforward";

/// Why a cluster cannot be reached through Kubernetes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not `NAMESPACE/NAME` or `NAME`.
    #[error("{0:?} does not name a DfsCluster: expected NAMESPACE/NAME or NAME")]
    Target(String),
    /// There is no kubeconfig, or it is malformed.
    #[error("no Kubernetes cluster is configured here: set KUBECONFIG, or create ~/.kube/config")]
    Config(#[source] Box<InferConfigError>),
    /// The kubeconfig has no such context, or is malformed.
    #[error("the kubeconfig cannot be used with this context")]
    Context(#[source] KubeconfigError),
    /// No client can be created from the kubeconfig.
    #[error("the kubeconfig cannot be used")]
    Client(#[source] kube::Error),
    /// The API server does not reply, or sends a malformed reply.
    #[error("cannot query {what} from the API server at {server}")]
    Ask {
        /// Its address.
        server: String,
        /// The object of the query.
        what: String,
        /// The error.
        #[source]
        source: kube::Error,
    },
    /// The API server does not reply in time.
    #[error("the API server at {server} did not reply to the query for {what} within {seconds} s")]
    Silent {
        /// Its address.
        server: String,
        /// The object of the query.
        what: String,
        /// Time limit in seconds.
        seconds: u64,
    },
    /// The user lacks permissions.
    #[error(
        "the API server denied the request: {message}; --kube requires the permissions: \
         {PERMISSIONS}"
    )]
    Forbidden {
        /// Message of the API server.
        message: String,
    },
    /// The resource is not installed there.
    #[error(
        "{server} has no resource DfsCluster: dfs is not installed there; see docs/kubernetes.md"
    )]
    NotInstalled {
        /// The API server.
        server: String,
    },
    /// There is no such cluster.
    #[error("there is no DfsCluster {name} in namespace {namespace}; {}", listed(there))]
    NoCluster {
        /// The namespace searched.
        namespace: String,
        /// The name searched for.
        name: String,
        /// The existing clusters.
        there: Vec<String>,
    },
    /// None was named, and there is not exactly one.
    #[error("which DfsCluster of namespace {namespace} is meant? {}", listed(there))]
    NotOne {
        /// The namespace searched.
        namespace: String,
        /// The existing clusters.
        there: Vec<String>,
    },
    /// No coordinator is ready.
    #[error("no coordinator of DfsCluster {namespace}/{name} is ready: {states}")]
    NoCoordinator {
        /// Namespace of the cluster.
        namespace: String,
        /// Its name.
        name: String,
        /// State of its pods.
        states: String,
    },
}

/// Maximum number of clusters named in an error.
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
