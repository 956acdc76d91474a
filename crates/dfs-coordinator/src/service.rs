//! One running coordinator.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dfs_metadata::Committer;
use dfs_metadata::engine::Engine;
use dfs_metadata::namespace::{self, ClusterIdentity, Coordinator, Namespace};
use dfs_runtime::{Metrics, Readiness, Shutdown, StatusServer, Trigger};
use dfs_transport::{Channels, ConnectionLimits, Listener, Security};
use dfs_types::{
    Clock, ClusterId, CoordinatorId, Incarnation, Random, Replication, Scope, with_causes,
};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tonic::service::Routes;
use tonic_health::server::HealthReporter;
use tracing::{info, warn};

use crate::background::Background;
use crate::components::Components;
use crate::core::Core;
use crate::grpc::Initialiser;
use crate::metrics::Counts;
use crate::node_liveness::{LivenessTimeouts, Registry};
use crate::recheck_queue::Rechecks;
use crate::refused_nodes::RefusedNodes;
use crate::removals::Removals;
use crate::safety_scans::SafetyScans;
use crate::{Error, InitOptions, Settings, bootstrap, candidates, grpc, rechecks, workers};

/// Interval of reading the node records, which also shows whether the metadata can be reached.
const REFRESH_EVERY: Duration = Duration::from_secs(5);
/// Interval at which a coordinator renews its entry in the list of coordinators.
const RENEW_EVERY: Duration = Duration::from_secs(30);

/// Public state of a running coordinator. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    /// Address of the gRPC service.
    pub address: SocketAddr,
    /// Address of /metrics, /healthz and /readyz, if served.
    pub http_address: Option<SocketAddr>,
    /// Readiness to serve.
    pub readiness: Readiness,
}

/// A coordinator that listens, and serves once it [runs](Self::run).
pub struct Service {
    handle: Handle,
    base: Base,
    /// `None` while the store holds no cluster.
    opened: Option<Opened>,
    listener: Box<dyn Listener>,
    status: Option<StatusServer>,
    metrics: Metrics,
    /// Stops all tasks.
    stop: Trigger,
    commits: JoinHandle<()>,
    /// Stops the committer, which ends last.
    stop_commits: Trigger,
}

/// Parts that do not depend on a cluster.
struct Base {
    settings: Settings,
    components: Components,
    committer: Committer,
    counts: Arc<Counts>,
    /// Address advertised to others.
    advertised: String,
    /// Triggered when the coordinator begins to stop.
    stopping: Shutdown,
}

/// The cluster of the store, and its services.
struct Opened {
    core: Arc<Core>,
    routes: Routes,
    health: HealthReporter,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl Service {
    /// Validates the settings, listens, and opens the cluster of the store.
    /// [`Error::NotInitialised`] when it holds none, unless the settings say to wait for one: a
    /// cluster is only ever created on purpose, by [`init`] or by the call `Admin.Init`.
    pub async fn start(settings: Settings, components: Components) -> Result<Self, Error> {
        settings.validate()?;
        let cannot_listen = |address: &str, source: io::Error| Error::Listen {
            address: address.to_owned(),
            source,
        };
        let listener = components.network.listen(&settings.listen).await;
        let listener = listener.map_err(|error| cannot_listen(&settings.listen, error))?;
        let address = listener.local_address();
        let status = match &settings.http_listen[..] {
            "" => None,
            http => {
                Some(StatusServer::bind(http).await.map_err(|error| cannot_listen(http, error))?)
            }
        };
        let (stop_commits, commits_end) = Shutdown::new();
        let (committer, commits) =
            Committer::new(components.engine.clone(), async move { commits_end.requested().await });
        // Opening the metadata already commits. Dropping the trigger ends the task.
        let commits = tokio::spawn(commits);
        let metrics = Metrics::new("coordinator");
        show_commits(&metrics, &committer);
        let advertised = match &settings.advertise[..] {
            "" => loopback_of(address).to_string(),
            advertise => advertise.to_owned(),
        };
        let (stop, stopping) = Shutdown::new();
        let counts = Arc::new(Counts::new(&metrics));
        let base = Base { settings, components, committer, counts, advertised, stopping };
        let opened = match base.open().await {
            Err(Error::NotInitialised) if base.settings.await_init => None,
            opened => Some(opened?),
        };
        let handle = Handle {
            address,
            http_address: status.as_ref().map(StatusServer::address),
            readiness: Readiness::new("starting"),
        };
        Ok(Self { handle, base, opened, listener, status, metrics, stop, commits, stop_commits })
    }

    #[cfg(test)]
    pub(crate) fn core(&self) -> Arc<Core> {
        self.opened.as_ref().expect("the store holds a cluster").core.clone()
    }

    /// Returns its public state.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until the order to stop, then lets calls in flight end within the configured time.
    /// When it returns, no part of it is still running. Dropping the future is like a crash:
    /// nothing acknowledged is lost.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Error> {
        let Self {
            handle,
            base,
            opened,
            listener,
            status,
            metrics,
            stop,
            mut commits,
            stop_commits,
        } = self;
        let drain = base.drain();
        let stopping = base.stopping.clone();
        let (stop_status, status_ends) = Shutdown::new();

        let order = async {
            tokio::select! {
                biased;
                () = shutdown.requested() => {}
                () = stopping.requested() => {}
            }
            handle.readiness.not_ready("stopping");
            stop.stop();
        };
        let serving = async {
            let served = base.serve(&handle, listener, opened, &stop).await;
            // It may have ended without an order.
            stop.stop();
            stop_status.stop();
            served
        };
        let status = async {
            if let Some(status) = status {
                status.run(metrics, handle.readiness.clone(), status_ends).await;
            }
        };
        let (served, (), ()) = tokio::join!(Box::pin(serving), order, Box::pin(status));

        // Last, as calls in flight need it.
        stop_commits.stop();
        if timeout(drain, &mut commits).await.is_err() {
            warn!("the metadata does not respond; commits in flight are abandoned");
            commits.abort();
        }
        info!("coordinator stopped");
        served
    }
}

impl Base {
    fn drain(&self) -> Duration {
        Duration::from_millis(self.settings.drain_ms)
    }

    /// Opens the cluster of the store and creates its services.
    async fn open(&self) -> Result<Opened, Error> {
        let Self { settings, components, .. } = self;
        let Components { engine, network, clock, random } = components.clone();
        let components = namespace::Components {
            engine: engine.clone(),
            committer: self.committer.clone(),
            clock: clock.clone(),
            random: random.clone(),
        };
        let options = namespace::Options {
            restorable: Duration::from_millis(settings.restorable_ms),
            confirm_clock: Duration::from_millis(settings.confirm_clock_ms),
            level: settings.level,
        };
        // Any incarnation: datanodes know better than a setting which is the newest.
        let expected = settings
            .expected_cluster()
            .map(|cluster| ClusterIdentity { cluster, incarnation: Incarnation(0) });
        let namespace = match Namespace::open(components, options, expected).await {
            Err(dfs_metadata::Error::NotInitialised) => return Err(Error::NotInitialised),
            opened => opened.map_err(Error::metadata("opening the metadata"))?,
        };
        let state = namespace.cluster_state(Scope::internal()).await;
        let state = state.map_err(Error::metadata("reading the settings of the cluster"))?;
        if let Some(overruled) = settings.overruled_by(state.replication) {
            warn!("{overruled}: the cluster's value is used; Admin.SetReplication changes it");
        }
        let this = Coordinator {
            id: CoordinatorId::random(&*random),
            level: settings.level,
            seen: 0,
            address: self.advertised.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let entered = namespace.enter_coordinator(Scope::internal(), &this).await;
        entered.map_err(Error::metadata("entering the list of coordinators"))?;
        let timeouts = LivenessTimeouts {
            suspect_after: Duration::from_millis(settings.suspect_after_ms),
            lost_after: Duration::from_millis(settings.lost_after_ms),
        };
        let instance = random.below(u64::MAX);
        let core = Arc::new(Core {
            engine,
            namespace,
            channels: Channels::new(network, Security::default()),
            clock,
            random,
            selector: candidates::selector(settings.placement),
            counts: self.counts.clone(),
            instance,
            background: Background::new(self.advertised.clone()),
            rechecks: Rechecks::default(),
            stopping: self.stopping.clone(),
            registry: Mutex::new(Registry::new(timeouts, Instant::now())),
            safety_scans: SafetyScans::default(),
            removals: Removals::default(),
            refused_nodes: RefusedNodes::default(),
            settings: settings.clone(),
            this,
        });
        core.refresh_members().await.map_err(Error::metadata("reading the datanodes"))?;
        let (routes, health) = grpc::routes(&core).await?;
        Ok(Opened { core, routes, health })
    }

    /// Serves until the order to stop, once there is a cluster.
    async fn serve(
        &self,
        handle: &Handle,
        mut listener: Box<dyn Listener>,
        mut opened: Option<Opened>,
        stop: &Trigger,
    ) -> Result<(), Error> {
        if opened.is_none() {
            let components = self.components.clone();
            let expected = self.settings.expected_cluster();
            let initialiser = Initialiser { components, expected, made: Notify::new() };
            handle.readiness.not_ready("waits for init: the metadata store holds no cluster yet");
            info!(address = %handle.address, "coordinator waits for init");
            let (counts, stopping) = (self.counts.clone(), &self.stopping);
            listener = match bootstrap::wait(initialiser, listener, counts, stopping).await {
                Some(listener) => listener,
                None => return Ok(()),
            };
            opened = Some(self.open().await?);
        }
        let Some(Opened { core, routes, health }) = opened else { return Ok(()) };
        let cluster = core.namespace.identity().cluster;
        info!(%cluster, address = %handle.address, "coordinator serving");
        let stopping = core.stopping.clone();
        let until = {
            let stopping = stopping.clone();
            async move {
                stopping.requested().await;
                grpc::stop_serving(&health).await;
            }
        };
        let serving = dfs_transport::serve(
            listener,
            ConnectionLimits::default(),
            routes,
            grpc::GATE,
            core.counts.clone(),
            until,
            self.drain(),
        );
        let background = async {
            tokio::select! {
                biased;
                () = stopping.requested() => Ok(()),
                () = watch(&core) => Ok(()),
                _ = rechecks::run(&core) => Ok(()),
                error = refresh(&core, &handle.readiness) => {
                    stop.stop();
                    Err(error)
                }
                _ = workers::run_all(&core) => Ok(()),
            }
        };
        let ((), watched) = tokio::join!(Box::pin(serving), Box::pin(background));
        let leave = core.namespace.leave_coordinators(Scope::internal(), core.this.id);
        if !matches!(timeout(self.drain(), leave).await, Ok(Ok(()))) {
            warn!("this coordinator stays in the list of coordinators for some minutes");
        }
        watched
    }
}

/// Returns the address of a listener for clients on the same machine.
fn loopback_of(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Updates the liveness of nodes and the gauges until dropped. Never waits for the metadata: a late
/// tick counts as time in which no heartbeat could be received.
async fn watch(core: &Core) {
    loop {
        let now = Instant::now();
        let (views, lost) = {
            let mut registry = core.registry();
            registry.tick(now);
            (registry.views(now), registry.cluster(now).lost())
        };
        core.counts.show_nodes(&views);
        let least = core.namespace.chunks_changed_at();
        let known = core.background.health(&lost, least);
        core.counts.show_unreadable(known.as_ref().map(|health| health.unreadable.count()));
        core.counts.show_chunks(known.map(|health| health.counts));
        let is_holder = core.background.lease.grant().is_some();
        let overview = core.background.checks.overview(Instant::now());
        core.counts.show_reconciliation(is_holder.then_some(&overview));
        let crowded = core.background.checks.crowded().filter(|_| is_holder);
        core.counts.show_misplaced(core.background.surplus(), crowded.map(|(_, chunks)| chunks));
        core.counts.show_held(core.background.held().is_some());
        for worker in core.background.workers.iter() {
            core.counts.show_worker(worker);
        }
        sleep(core.settings.heartbeat_interval()).await;
    }
}

/// Refreshes the node records and the readiness until dropped, or until the cluster needs a newer
/// release.
async fn refresh(core: &Core, readiness: &Readiness) -> Error {
    let mut renew_at = Instant::now() + RENEW_EVERY;
    loop {
        match refresh_once(core, &mut renew_at).await {
            Ok(()) => readiness.ready(),
            Err(error @ dfs_metadata::Error::ReleaseTooOld { .. }) => {
                return Error::metadata("reading the write level")(error);
            }
            Err(error) => {
                let error = with_causes(&error);
                warn!(error, "the metadata cannot be read");
                readiness.not_ready(format!("the metadata cannot be read: {error}"));
            }
        }
        sleep(REFRESH_EVERY).await;
    }
}

/// Reads the node records, and renews this coordinator's entry when due.
async fn refresh_once(core: &Core, renew_at: &mut Instant) -> Result<(), dfs_metadata::Error> {
    core.namespace.refresh_level().await?;
    core.refresh_members().await?;
    let now = Instant::now();
    if *renew_at <= now {
        core.namespace.enter_coordinator(Scope::internal(), &core.this).await?;
        *renew_at = now + RENEW_EVERY;
    }
    Ok(())
}

fn show_commits(metrics: &Metrics, committer: &Committer) {
    let (commits, batches) = (committer.clone(), committer.clone());
    metrics.gauge_fn(
        "dfs_coordinator_commits",
        "Commits passed to the metadata engine since the start.",
        move || commits.commits() as i64,
    );
    metrics.gauge_fn(
        "dfs_coordinator_engine_commits",
        "Durable commits of the metadata engine since the start.",
        move || batches.engine_commits() as i64,
    );
}

/// Creates a cluster in an empty metadata store. A store that already holds one is refused and left
/// unchanged.
pub async fn init(
    engine: Arc<dyn Engine>,
    clock: &dyn Clock,
    random: &dyn Random,
    options: InitOptions,
) -> Result<ClusterId, Error> {
    let InitOptions { cluster, replication_factor, min_write_replicas } = options;
    let cluster = cluster.unwrap_or_else(|| ClusterId::random(random));
    let replication = Replication { factor: replication_factor, min_write: min_write_replicas };
    let options = namespace::InitOptions { cluster, replication };
    match namespace::init(&*engine, &options, clock, random).await {
        Ok(identity) => Ok(identity.cluster),
        Err(dfs_metadata::Error::AlreadyInitialised(cluster)) => {
            Err(Error::AlreadyInitialised(cluster))
        }
        Err(error) => Err(Error::metadata("creating a cluster")(error)),
    }
}
