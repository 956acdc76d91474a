//! Clients of the fake cluster.

use std::sync::Arc;

use dfs_client::{Client, ClientBuilder, Components};
pub(crate) use dfs_fake::{Blocked, CHUNK, COORDINATOR, Cluster, Node, Outside, Relaying};

pub(crate) trait Clients {
    /// Returns the environment of a client that reaches the cluster.
    fn components(&self) -> Components;

    /// Returns a builder of a client of the cluster.
    fn builder(&self) -> ClientBuilder {
        Client::builder().coordinator(COORDINATOR).components(self.components())
    }

    /// Returns a builder of a client outside the cluster's network.
    fn outside(&self, network: &Outside) -> ClientBuilder {
        let components = Components { network: Arc::new(network.clone()), ..self.components() };
        Client::builder().coordinator(COORDINATOR).components(components)
    }

    fn client(&self) -> Client {
        self.builder().connect_lazy().unwrap()
    }
}

impl Clients for Cluster {
    fn components(&self) -> Components {
        dfs_fake::components!(self)
    }
}
