//! The datanode as a whole: what it is made of, starting, running, stopping.

use std::net::SocketAddr;
use std::sync::Arc;

use dfs_chunkstore::{ChunkStore, DiskConfig, DiskStore, Fs, IdentityStore, Pool};
use dfs_runtime::{Metrics, Readiness, Shutdown};
use dfs_transport::Network;
use dfs_types::{NodeId, Random};

use crate::{Error, Settings};

/// A chunk store that knows whose it is.
pub trait Store: ChunkStore + IdentityStore {}

impl<T: ChunkStore + IdentityStore> Store for T {}

/// What a datanode is made of, passed in so that a test or a simulation can put its own there.
#[derive(Clone)]
pub struct Components {
    /// Sockets.
    pub network: Arc<dyn Network>,
    /// The chunks, and the identity beside them.
    pub store: Arc<dyn Store>,
    /// Where hashing and other blocking work runs.
    pub pool: Pool,
    /// Session ids and jitter.
    pub random: Arc<dyn Random>,
}

/// Opens the disks that `settings` name.
pub async fn open_store(
    settings: &Settings,
    fs: Arc<dyn Fs>,
    pool: Pool,
    random: Arc<dyn Random>,
) -> Result<Arc<dyn Store>, Error> {
    let mut config = dfs_chunkstore::Config::new([]);
    let disks = settings.disks.iter();
    config.disks = disks
        .map(|disk| DiskConfig { folder: disk.folder.clone(), capacity: disk.capacity })
        .collect();
    config.headroom_percent = settings.headroom_percent;
    config.headroom_bytes_min = settings.headroom_bytes_min;
    config.high_watermark_percent = settings.high_watermark_percent;
    Ok(Arc::new(DiskStore::open(config, fs, pool, random).await?))
}

/// What others may know of a running datanode. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    address: SocketAddr,
    http_address: Option<SocketAddr>,
    node: NodeId,
    readiness: Readiness,
    metrics: Metrics,
}

impl Handle {
    /// Where the gRPC service listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where /metrics, /healthz and /readyz listen, if they do.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// Who the node is, as its disks say.
    pub fn node_id(&self) -> NodeId {
        self.node
    }

    /// Whether the node is registered and was heard by a coordinator, and if not, why.
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// What the node counts.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

/// A datanode that listens already, and serves once it [runs](Self::run).
pub struct Service {}

impl Service {
    /// Takes the ports.
    pub async fn start(settings: Settings, components: Components) -> Result<Self, Error> {
        settings.validate()?;
        let _ = components;
        todo!()
    }

    /// What others may know of it.
    pub fn handle(&self) -> Handle {
        todo!()
    }

    /// Serves, registers and sends heartbeats until the order to stop. Then it refuses new
    /// sessions, finishes open ones within the bound of the settings, and closes the store.
    /// Dropping the future stops it as a crash would.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Error> {
        let _ = shutdown;
        todo!()
    }
}
