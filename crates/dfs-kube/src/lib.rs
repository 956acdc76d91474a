//! Access to the pods of a `DfsCluster` from outside its Kubernetes cluster: streams forwarded by
//! the API server, for users with a kubeconfig and permission to forward ports.
//!
//! ```text
//!  dfs ── Network::connect("POD.….svc:7080") ──► API server ── websocket, pods/portforward ──► pod
//! ```
//!
//! [`Cluster::find`] finds the cluster and reports why if it cannot be used; [`Cluster::network`]
//! is then a [`Network`](dfs_transport::Network) on which the advertised addresses of coordinators
//! and datanodes lead to their pods. Every connection is a separate stream directly to the pod.
//! This crate knows nothing about dfs except the labels of its pods.

mod asker;
mod cluster;
mod error;
mod network;
mod pods;
mod stream;
#[cfg(test)]
mod tests;

pub use cluster::{Cluster, Target};
pub use error::Error;
pub use network::KubeNetwork;
