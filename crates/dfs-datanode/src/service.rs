//! The datanode as a whole: components, start, run, stop.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dfs_chunkstore::{ChunkStore, DiskConfig, DiskStore, Fs, IdentityStore, Pool, ScrubStore};
use dfs_runtime::{Metrics, Readiness, Shutdown, StatusServer};
use dfs_transport::{Channels, ConnectionLimits, Listener, Network, Security};
use dfs_types::{DiskState, NodeId, Random};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::service::Routes;
use tonic_health::server::HealthReporter;

use crate::metrics::Counts;
use crate::node::{Node, Parts};
use crate::{Error, Settings, grpc, membership, scrub};

/// Interval of gauge updates.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Time between two attempts to open disks that are missing.
const REOPEN_EVERY: Duration = Duration::from_secs(5);
/// The same while disks are being read.
const REOPEN_WHILE_STARTING: Duration = Duration::from_millis(250);
/// Minimum time for each of the two steps, ending the sessions and closing the store, even if
/// draining has used up the time.
const CLOSE_WITHIN_MIN: Duration = Duration::from_secs(1);

/// A chunk store with an identity.
pub trait Store: ChunkStore + IdentityStore + ScrubStore {}

impl<T: ChunkStore + IdentityStore + ScrubStore> Store for T {}

/// Components of a datanode, passed in so that a test or a simulation can replace them.
#[derive(Clone)]
pub struct Components {
    /// The network.
    pub network: Arc<dyn Network>,
    /// The chunks, and the identity of the store.
    pub store: Arc<dyn Store>,
    /// Threads for hashing and other blocking work.
    pub pool: Pool,
    /// Random numbers for session ids and jitter.
    pub random: Arc<dyn Random>,
}

/// Opens the disks named by `settings`.
pub async fn open_store(
    settings: &Settings,
    fs: Arc<dyn Fs>,
    pool: Pool,
    random: Arc<dyn Random>,
) -> Result<Arc<dyn Store>, Error> {
    let mut config = dfs_chunkstore::Config::new([]);
    let disks = settings.disks.iter();
    config.disks = disks
        .map(|disk| {
            // Identities name the directories of disks, whatever the working directory is.
            let folder = std::path::absolute(&disk.folder);
            let folder = folder.unwrap_or_else(|_| disk.folder.clone());
            DiskConfig { folder, capacity: disk.capacity }
        })
        .collect();
    config.headroom_percent = settings.headroom_percent;
    config.headroom_bytes_min = settings.headroom_bytes_min;
    config.high_watermark_percent = settings.high_watermark_percent;
    config.level = settings.level;
    Ok(Arc::new(DiskStore::open(config, fs, pool, random).await?))
}

/// Public view of a running datanode. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    address: SocketAddr,
    http_address: Option<SocketAddr>,
    node: NodeId,
    readiness: Readiness,
    metrics: Metrics,
}

impl Handle {
    /// Returns the address of the gRPC service.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the address of /metrics, /healthz and /readyz, if served.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// Returns the node id stored on its disks.
    pub fn node_id(&self) -> NodeId {
        self.node
    }

    /// Returns whether the node is registered and in contact with a coordinator, with the reason if
    /// not.
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Returns the metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

/// A datanode that listens, and serves once it [runs](Self::run).
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
    /// Opens the ports.
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

    /// Returns a handle of the datanode.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves, registers and sends heartbeats until shutdown is requested. Then it refuses new
    /// sessions, finishes open ones within the configured time, and closes the store. Dropping the
    /// future stops it like a crash.
    pub async fn run(self, shutdown: Shutdown) {
        let Self { handle, node, listener, routes, health, status } = self;
        tracing::info!(node = %node.id, address = %handle.address, "the datanode serves");
        let drain = node.settings.drain();
        let (stop_status, status_ends) = Shutdown::new();
        let (stop, stopping) = Shutdown::new();
        let stopped_at = OnceLock::new();

        let order = async {
            shutdown.requested().await;
            stopped_at.get_or_init(Instant::now);
            node.stop();
            grpc::stop_serving(&health).await;
            stop.stop();
        };
        let serving = async {
            let until = stopping.clone();
            let until = async move { until.requested().await };
            dfs_transport::serve(
                listener,
                ConnectionLimits::default(),
                routes,
                grpc::GATE,
                node.counts.clone(),
                until,
                drain,
            )
            .await;
            close(&node, stopped_at.get().copied().unwrap_or_else(Instant::now) + drain).await;
        };
        // Heartbeats continue to the end.
        let serving = async {
            tokio::select! {
                biased;
                () = serving => {}
                () = membership::run(node.clone()) => {}
                () = node.sessions.expire() => {}
                () = node.keep_set_aside() => {}
                () = node.verify_unreadable() => {}
                () = scrub::run(node.clone()) => {}
                () = watch(&node) => {}
                () = reopen_disks(&node) => {}
            }
        };
        let serving = async {
            serving.await;
            stop_status.stop();
        };
        let status = async {
            if let Some(status) = status {
                status.run(handle.metrics.clone(), handle.readiness.clone(), status_ends).await;
            }
        };
        tokio::join!(Box::pin(serving), order, Box::pin(status));
        tracing::info!(node = %node.id, "the datanode has stopped");
    }
}

/// Ends the sessions and closes the store, by `deadline` or slightly later: a hanging disk may hold
/// a session indefinitely, but must not hold the process.
async fn close(node: &Node, deadline: Instant) {
    let deadline_of = || deadline.max(Instant::now() + CLOSE_WITHIN_MIN);
    if timeout_at(deadline_of(), node.sessions.expire_all()).await.is_err() {
        tracing::warn!(node = %node.id, "a disk hangs; its sessions were not ended");
    }
    let left = deadline_of().saturating_duration_since(Instant::now());
    if timeout(left, node.store.close(left)).await.is_err() {
        tracing::warn!(node = %node.id, "the chunk store hangs; it was not closed");
    }
}

/// Brings disks into service that were missing at the start, or that are being read since; runs until
/// dropped.
async fn reopen_disks(node: &Node) {
    loop {
        let mut disks = node.store.usage().into_iter();
        let is_starting = disks.any(|disk| disk.state == DiskState::Starting);
        let pause = if is_starting { REOPEN_WHILE_STARTING } else { REOPEN_EVERY };
        tokio::time::sleep(pause).await;
        if node.store.reopen_disks().await {
            node.verdicts.set_incomplete();
            // The node registers again, with this disk.
            node.tell();
        }
    }
}

/// Updates the gauges; runs until dropped.
async fn watch(node: &Node) {
    loop {
        node.counts.show_disks(&node.store.usage());
        let (of_clients, of_datanodes) = node.sessions.taken();
        node.counts.show_sessions(of_clients as usize, of_datanodes as usize);
        node.counts.show_scrub(&node.scrub.disks());
        tokio::time::sleep(WATCH_EVERY).await;
    }
}
