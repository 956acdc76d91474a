//! The datanode as a whole: what it is made of, starting, running, stopping.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dfs_chunkstore::{ChunkStore, DiskConfig, DiskStore, Fs, IdentityStore, Pool};
use dfs_runtime::{Metrics, Readiness, Shutdown, StatusServer};
use dfs_transport::{Channels, ConnectionLimits, Listener, Network, Security};
use dfs_types::{NodeId, Random};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::service::Routes;
use tonic_health::server::HealthReporter;

use crate::metrics::Counts;
use crate::node::{Node, Parts};
use crate::{Error, Settings, grpc, membership};

/// How often the gauges are brought up to date.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// What giving up the sessions, and closing the store, may take each when calls under way have
/// used up the time there is.
const CLOSE_WITHIN_MIN: Duration = Duration::from_secs(1);

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
    config.level = settings.level;
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
pub struct Service {
    handle: Handle,
    node: Arc<Node>,
    listener: Box<dyn Listener>,
    routes: Routes,
    health: HealthReporter,
    status: Option<StatusServer>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl Service {
    /// Takes the ports.
    pub async fn start(settings: Settings, components: Components) -> Result<Self, Error> {
        settings.validate()?;
        let Components { network, store, pool, random } = components;
        let cannot_listen = |address: &str, source: io::Error| Error::Listen {
            address: address.to_owned(),
            source,
        };
        let listener = network.listen(&settings.listen).await;
        let listener = listener.map_err(|error| cannot_listen(&settings.listen, error))?;
        let address = listener.local_address();
        let status = match &settings.http_listen[..] {
            "" => None,
            http => {
                Some(StatusServer::bind(http).await.map_err(|error| cannot_listen(http, error))?)
            }
        };
        let advertised = match &settings.advertise[..] {
            "" => address.to_string(),
            advertise => advertise.to_owned(),
        };
        let metrics = Metrics::new("datanode");
        let readiness = Readiness::new("not registered with a coordinator yet");
        let node = Arc::new(Node::new(Parts {
            settings,
            store,
            pool,
            random,
            channels: Channels::new(network, Security::default()),
            counts: Arc::new(Counts::new(&metrics)),
            readiness: readiness.clone(),
            address: advertised,
        }));
        let (routes, health) = grpc::routes(&node).await?;
        let handle = Handle {
            address,
            http_address: status.as_ref().map(StatusServer::address),
            node: node.id,
            readiness,
            metrics,
        };
        Ok(Self { handle, node, listener, routes, health, status })
    }

    /// What others may know of it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves, registers and sends heartbeats until the order to stop. Then it refuses new
    /// sessions, finishes open ones within the bound of the settings, and closes the store.
    /// Dropping the future stops it as a crash would.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Error> {
        let Self { handle, node, listener, routes, health, status } = self;
        tracing::info!(node = %node.id, address = %handle.address, "the datanode serves");
        let drain = node.settings.drain();
        let (stop_status, status_ends) = Shutdown::new();
        let (stop, stopping) = Shutdown::new();
        let stopped_at = OnceLock::new();

        let order = async {
            tokio::select! {
                biased;
                () = shutdown.requested() => {}
                () = stopping.requested() => {}
            }
            stopped_at.get_or_init(Instant::now);
            node.stop();
            grpc::stop_serving(&health).await;
            stop.stop();
        };
        let serving = async {
            let until = stopping.clone();
            let until = async move { until.requested().await };
            let served = dfs_transport::serve(
                listener,
                ConnectionLimits::default(),
                routes,
                grpc::GATE,
                node.counts.clone(),
                until,
                drain,
            )
            .await;
            // It may have broken without an order.
            stop.stop();
            close(&node, stopped_at.get().copied().unwrap_or_else(Instant::now) + drain).await;
            served.map_err(Error::Serve)
        };
        // Coordinators are told to the end how the node is.
        let serving = async {
            tokio::select! {
                biased;
                served = serving => served,
                () = membership::run(node.clone()) => Ok(()),
                () = node.sessions.expire() => Ok(()),
                () = watch(&node) => Ok(()),
            }
        };
        let serving = async {
            let served = serving.await;
            stop_status.stop();
            served
        };
        let status = async {
            if let Some(status) = status {
                status.run(handle.metrics.clone(), handle.readiness.clone(), status_ends).await;
            }
        };
        let (served, (), ()) = tokio::join!(Box::pin(serving), order, Box::pin(status));
        tracing::info!(node = %node.id, "the datanode has stopped");
        served
    }
}

/// Gives up the sessions and closes the store, by `deadline` or a little later: a disk that hangs
/// holds a session for as long as it likes, and must not hold the process.
async fn close(node: &Node, deadline: Instant) {
    let deadline_of = || deadline.max(Instant::now() + CLOSE_WITHIN_MIN);
    if timeout_at(deadline_of(), node.sessions.expire_all()).await.is_err() {
        tracing::warn!(node = %node.id, "a disk does not answer; its sessions are left as they are");
    }
    let left = deadline_of().saturating_duration_since(Instant::now());
    if timeout(left, node.store.close(left)).await.is_err() {
        tracing::warn!(node = %node.id, "the chunk store does not close; it is left as it is");
    }
}

/// Keeps the gauges fresh, and finds the replicas that were set aside; runs until dropped.
async fn watch(node: &Node) {
    let mut must_look = true;
    loop {
        if must_look && let Err(error) = node.find_set_aside().await {
            tracing::warn!(%error, "the replicas that were set aside cannot be listed");
        }
        node.counts.show_disks(&node.store.usage());
        let (of_clients, of_datanodes) = node.sessions.taken();
        node.counts.show_sessions(of_clients as usize, of_datanodes as usize);
        tokio::time::sleep(WATCH_EVERY).await;
        must_look = node.bad_replicas.take_incomplete();
    }
}
