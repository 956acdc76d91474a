//! The way to the pods of a `DfsCluster` from outside of its Kubernetes: streams that the API
//! server forwards, for whoever has a kubeconfig and may forward ports.
//!
//! ```text
//!  dfs ── Network::connect("POD.….svc:7080") ──► API server ── websocket, pods/portforward ──► pod
//! ```
//!
//! [`Cluster::find`] finds the cluster that is meant and says what is wrong if it cannot be used;
//! [`Cluster::network`] is then a [`Network`](dfs_transport::Network) on which the addresses that
//! coordinators and datanodes advertise lead to their pods. Every connection is a stream of its
//! own, straight to the pod. Nothing of dfs is known here but how pods are labelled.

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
