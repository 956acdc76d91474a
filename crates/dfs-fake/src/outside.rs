//! The network as seen from outside the cluster.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use dfs_transport::{Io, Listener, MemoryNetwork, Network};

/// Effect of dialling an address of a datanode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocked {
    /// It is reached.
    No,
    /// Refused at once.
    Refused,
    /// Never answered.
    Silent,
}

/// Reaches coordinators, and datanodes as configured. Clones share the configuration.
#[derive(Clone)]
pub struct Outside {
    inner: MemoryNetwork,
    blocked: Arc<Mutex<Blocked>>,
    dialled: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Outside {
    /// Returns a network from which datanodes are `blocked`.
    pub fn new(inner: &MemoryNetwork, blocked: Blocked) -> Self {
        let blocked = Arc::new(Mutex::new(blocked));
        Self { inner: inner.clone(), blocked, dialled: Arc::default() }
    }

    /// Changes what happens to dials of datanodes.
    pub fn block(&self, blocked: Blocked) {
        *self.blocked.lock().unwrap() = blocked;
    }

    /// Returns how often this address was dialled.
    pub fn dialled(&self, address: &str) -> u64 {
        self.dialled.lock().unwrap().get(address).copied().unwrap_or_default()
    }
}

#[tonic::async_trait]
impl Network for Outside {
    async fn connect(&self, address: &str) -> io::Result<Io> {
        *self.dialled.lock().unwrap().entry(address.to_owned()).or_default() += 1;
        let is_datanode = address.starts_with("127.0.0.1:708");
        let blocked = if is_datanode { *self.blocked.lock().unwrap() } else { Blocked::No };
        match blocked {
            Blocked::No => self.inner.connect(address).await,
            Blocked::Refused => Err(io::Error::other("failed to lookup address information")),
            Blocked::Silent => std::future::pending().await,
        }
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        self.inner.listen(address).await
    }
}
